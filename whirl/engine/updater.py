"""Turn losses into optimizer steps: accumulate, scale, clip, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from whirl.engine.distributed import sum_gradients, world_size
from whirl.engine.precision import FullPrecision

REFERENCE_COUNT = 64
"""Number of samples for which a loss has weight 1; a power of two, so that the weight is exact."""


class Updater:
    """The only caller of `backward`, gradient clipping and `optimizer.step`.

    Accumulation is exact. A window of k micro-batches with n_1 .. n_k samples and mean losses L_i steps
    with the gradient of the sample-weighted mean, sum(n_i L_i) / sum(n_i), also for micro-batches of unequal size and
    for an unfinished last window. As sum(n_i) is known only at the end of the window, each loss is
    weighted by n_i / n_1 and the gradient finally by n_1 / sum(n_i), which keeps float16 in range. Where a mean loss
    divides by something else than the number of samples, e.g. by a sum of class weights, that replaces n_i.

    Several processes share their windows: gradients are summed over the processes once per window, in one message that
    also carries the numbers of samples and the flags. n_1, which may differ between processes, is then replaced by
    `REFERENCE_COUNT`.

    Args:
        optimizer: holds the parameters to train.
        accumulation_steps: micro-batches per optimizer step, >= 1.
        max_grad_norm: bound of the gradient's global 2-norm; None or <= 0 disables clipping.
        precision: how to scale and step.
        on_step: called after each optimizer step that was taken, e.g. to step a schedule.
        flags: returns numbers to sum over the processes with each window; see `reduced_flags`.

    Attributes:
        reduced_flags: sums of the flags over all processes for the last window, `[V]` on the device; None with a single
            process.
        grad_norm: norm before clipping at the last step, a 0-dimensional tensor on the device; None
            if clipping is disabled.
        pending: micro-batches in the unfinished window.

    Raises:
        ValueError: `accumulation_steps` is not a positive integer, or `max_grad_norm` is NaN.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor(1.0))
        >>> updater = Updater(torch.optim.SGD([weight], lr=0.1), accumulation_steps=2, max_grad_norm=None)
        >>> updater(weight * 1.0, 30)
        >>> updater(weight * 4.0, 10)  # mean gradient (30 * 1 + 10 * 4) / 40 = 1.75
        >>> round(weight.item(), 4)
        0.825
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        accumulation_steps: int = 1,
        max_grad_norm: float | None = 1.0,
        precision: FullPrecision | None = None,
        on_step: Callable[[], None] | None = None,
        flags: Callable[[], Sequence[float]] = tuple,
    ) -> None:
        self.grad_norm: torch.Tensor | None = None
        self.optimizer = optimizer
        self.accumulation_steps = accumulation_steps
        self.max_grad_norm = max_grad_norm
        self.precision = precision or FullPrecision()
        self.on_step = on_step
        self.flags = flags
        self.reduced_flags: torch.Tensor | None = None
        self.pending = 0
        self._first_count = 0
        self._total: float | torch.Tensor = 0

    @property
    def accumulation_steps(self) -> int:
        return self._accumulation_steps

    @accumulation_steps.setter
    def accumulation_steps(self, steps: int) -> None:
        if type(steps) is not int or steps < 1:
            raise ValueError(f"gradient_accumulation_steps is {steps!r}, expected an integer >= 1")
        self._accumulation_steps = steps

    @property
    def max_grad_norm(self) -> float | None:
        return self._max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, bound: float | None) -> None:
        if bound is not None and math.isnan(bound):
            raise ValueError("max_grad_norm is nan, expected a number, or None to disable clipping")
        self._max_grad_norm = bound if bound is not None and bound > 0 else None
        self.grad_norm = None

    def __call__(self, loss: torch.Tensor, count: int, weight: torch.Tensor | None = None) -> None:
        """Add the gradient of one micro-batch, and take a step when the window is full.

        Args:
            loss: mean loss of the micro-batch, with its graph.
            count: samples in the micro-batch.
            weight: what the mean divides by, 0-dimensional on the device; None if it is `count`.
        """
        if self.pending == 0:
            # At the start of the window, so that gradients can be inspected after a step.
            self.optimizer.zero_grad(set_to_none=True)
            self._first_count, self._total = count if world_size() == 1 else REFERENCE_COUNT, 0
        is_alone = self.accumulation_steps == 1 and world_size() == 1
        amount = count if weight is None or is_alone else weight
        is_unit = not isinstance(amount, torch.Tensor) and amount == self._first_count
        self.precision.backward(loss if is_unit else loss * (amount / self._first_count))
        self.pending += 1
        self._total += amount
        if self.pending >= self.accumulation_steps:
            self._step()

    def begin(self) -> None:
        """Discard a window that a failed epoch left unfinished."""
        self.pending = 0

    def flush(self) -> None:
        """Take the step of an unfinished window, at the end of an epoch."""
        if self.pending:
            self._step()

    def _step(self) -> None:
        self.pending = 0
        total = self._total if world_size() == 1 else self._sum_over_processes()
        self.precision.unscale(self.optimizer)
        is_unit = not isinstance(total, torch.Tensor) and total == self._first_count
        if not is_unit and (gradients := _gradients(self._trained())):
            torch._foreach_mul_(gradients, self._first_count / total)
        if self.max_grad_norm is not None:
            self._clip(self.max_grad_norm)
        if self.precision.step(self.optimizer) and self.on_step is not None:
            self.on_step()

    def _sum_over_processes(self) -> torch.Tensor:
        """Sum gradients and flags over the processes; return the number of samples, or the sum of weights."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        totals = sum_gradients(parameters, [self._total, *self.flags()])
        self.reduced_flags = totals[1:]
        return totals[0]

    def _trained(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    def _clip(self, max_norm: float) -> None:
        parameters = self._trained()
        self.grad_norm = total_norm(_gradients(parameters))
        # On a CPU the norm can be read without waiting, so that no multiplication is needed below the bound.
        if not self.grad_norm.is_cpu or not self.grad_norm <= max_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, self.grad_norm)


def total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Return the 2-norm over all gradients.

    It has the bits of `torch.nn.utils.get_total_norm`, whose grouping by device and type takes longer than the norms of
    a small network.

    Example:
        >>> total_norm([torch.tensor([3.0]), torch.tensor([0.0, 4.0])])
        tensor(5.)
    """
    if len({(gradient.device, gradient.dtype) for gradient in gradients}) != 1:
        return torch.nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def _gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
