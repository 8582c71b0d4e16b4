"""Schedulers for transformers: `LambdaLR` with the formulas of `whirl.optim.formulas`.

Every schedule keeps its last value after its end, and resumes from its state dict bit for bit. Epochs and steps are
counted from 0; `lr` is the learning rate of the parameter group when the scheduler is created. Groups with a learning
rate of 0 stay at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from whirl.optim.formulas import check_warmup, constant, inverse_sqrt, noam, warmup_cosine, warmup_linear
from whirl.optim.scheduler_base import Schedule
from whirl.validation import check_count, check_number


class LRFactor:
    """Callable for `LambdaLR`: a pure function of the step, with its settings.

    `LambdaLR.state_dict` contains the `__dict__` of such an object. The function itself is stored in a slot, so that
    the state dict contains the settings but nothing that requires pickle.

    Example:
        >>> factor = LRFactor(warmup_linear, warmup_steps=1, total_steps=5)
        >>> factor(0), vars(factor)
        (0.5, {'warmup_steps': 1, 'total_steps': 5})
    """

    __slots__ = ("__dict__", "_function")

    def __init__(self, function: Callable[..., float], **settings: float) -> None:
        self._function = function
        vars(self).update(settings)

    def __call__(self, step: int) -> float:
        return self._function(step, **vars(self))


class _FactorSchedule(Schedule, LambdaLR):
    """A schedule of factors on the initial learning rates."""

    def _adopt(self, group: dict[str, Any]) -> None:
        self.lr_lambdas.append(self.lr_lambdas[0])


class _WarmupLinear(_FactorSchedule):
    pass


class _Noam(_FactorSchedule):
    step_unit = "step"


class _InverseSqrt(_FactorSchedule):
    step_unit = "step"


class _Constant(_FactorSchedule):
    def get_lr(self) -> list[Any]:
        """Return the current learning rates, so that it can be chained and keeps what was changed meanwhile."""
        self._adopt_new_groups()
        return [group["lr"] for group in self.optimizer.param_groups]

    def _get_closed_form_lr(self) -> list[Any]:  # where a joined schedule begins
        return self.base_lrs


class WarmupCosineScheduler(_FactorSchedule):
    """Linear warmup followed by a cosine decay to `min_lr`.

    With W = warmup_epochs and T = total_epochs, the learning rate is lr (e + 1) / (W + 1) in epochs e < W, then
    min_lr + (lr - min_lr) (1 + cos(pi (e - W) / (T - W))) / 2, and `min_lr` from T on.

    Args:
        optimizer: optimizer to schedule, per epoch.
        warmup_epochs: length of the warmup in epochs, in [0, total_epochs].
        total_epochs: total length of the schedule in epochs, >= 1.
        min_lr: final learning rate of all parameter groups, >= 0.
        last_epoch: index of the last completed epoch, to start in the middle of a schedule; -1 starts at the beginning.
            Otherwise the parameter groups must have `initial_lr`.

    Raises:
        ValueError: an argument is out of range.
        KeyError: `last_epoch` is not -1, and a parameter group has no `initial_lr`.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = WarmupCosineScheduler(optimizer, warmup_epochs=1, total_epochs=3, min_lr=0.0)
        >>> for epoch in range(5):
        ...     print(scheduler.get_last_lr()[0])
        ...     optimizer.step()
        ...     scheduler.step()
        0.5
        1.0
        0.5
        0.0
        0.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_epochs: int,
        total_epochs: int,
        min_lr: float = 1e-7,
        last_epoch: int = -1,
    ) -> None:
        warmup_epochs, total_epochs = check_warmup(warmup_epochs, total_epochs)
        min_lr = check_number("min_lr", min_lr, 0)
        base_lrs = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        factors = [
            LRFactor(
                warmup_cosine,
                warmup_steps=warmup_epochs,
                total_steps=total_epochs,
                floor=min_lr / lr if lr else 0.0,
            )
            for lr in base_lrs
        ]
        super().__init__(optimizer, factors, check_count("last_epoch", last_epoch, -1))

    def _adopt(self, group: dict[str, Any]) -> None:
        settings, first, lr = vars(self.lr_lambdas[0]), self.base_lrs[0], self.base_lrs[-1]
        floor = settings["floor"] * first / lr if lr else 0.0
        self.lr_lambdas.append(LRFactor(warmup_cosine, **settings | {"floor": floor}))


def create_warmup_cosine_schedule(
    optimizer: Optimizer, warmup_epochs: int, total_epochs: int, min_lr: float = 1e-7
) -> LambdaLR:
    """Create a `WarmupCosineScheduler`; see its documentation."""
    return WarmupCosineScheduler(optimizer, warmup_epochs, total_epochs, min_lr)


def create_warmup_linear_schedule(optimizer: Optimizer, warmup_epochs: int, total_epochs: int) -> LambdaLR:
    """Create a linear warmup followed by a linear decay to 0.

    With W = warmup_epochs and T = total_epochs, the learning rate is lr (e + 1) / (W + 1) in epochs e < W, then
    lr (T - e) / (T - W), and 0 from T on.

    Args:
        optimizer: optimizer to schedule, per epoch.
        warmup_epochs: length of the warmup in epochs, in [0, total_epochs].
        total_epochs: total length of the schedule in epochs, >= 1.

    Raises:
        ValueError: an argument is out of range.
    """
    warmup_epochs, total_epochs = check_warmup(warmup_epochs, total_epochs)
    return _WarmupLinear(optimizer, LRFactor(warmup_linear, warmup_steps=warmup_epochs, total_steps=total_epochs))


def create_noam_schedule(optimizer: Optimizer, d_model: float = 256, warmup_steps: int = 4000) -> LambdaLR:
    """Create the Noam schedule: lr d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5) at optimizer step s = 1, 2, ...

    Vaswani et al. 2017, Attention Is All You Need, eq. 3; the paper's learning rates result from an optimizer with
    `lr=1`. The peak, at s = warmup_steps, is lr (d_model warmup_steps)^-0.5. The schedule has no end.

    Args:
        optimizer: optimizer to schedule, per optimizer step.
        d_model: width of the network, > 0; with 1 / warmup_steps the peak equals the optimizer's learning rate.
        warmup_steps: number of optimizer steps in which the learning rate increases, >= 1.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.98), eps=1e-9)
        >>> create_noam_schedule(optimizer, d_model=16, warmup_steps=4).get_last_lr()
        [0.03125]
    """
    d_model = check_number("d_model", d_model, 0, open_ends=True)
    warmup_steps = check_count("warmup_steps", warmup_steps)
    return _Noam(optimizer, LRFactor(noam, d_model=d_model, warmup_steps=warmup_steps))


def create_inverse_sqrt_schedule(
    optimizer: Optimizer, warmup_steps: int = 1000, timescale: int | None = None
) -> LambdaLR:
    """Create an inverse square-root decay, for trainings of unknown length.

    With s optimizer steps, W = warmup_steps and t = timescale, the learning rate is lr (s + 1) / (W + 1) for s < W,
    then lr sqrt(t / (s - W + t)). It has no end, so that training can be continued at any time (Zhai et al. 2022,
    Scaling Vision Transformers).

    Args:
        optimizer: optimizer to schedule, per optimizer step.
        warmup_steps: number of optimizer steps in which the learning rate increases, >= 0.
        timescale: number of optimizer steps after the warmup in which the learning rate falls to 1/sqrt(2), >= 1. None
            means `warmup_steps`, or 10,000 without a warmup.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> create_inverse_sqrt_schedule(optimizer, warmup_steps=3).get_last_lr()
        [0.25]
    """
    warmup_steps = check_count("warmup_steps", warmup_steps, 0)
    timescale = check_count("timescale", timescale) if timescale is not None else warmup_steps or 10_000
    return _InverseSqrt(optimizer, LRFactor(inverse_sqrt, warmup_steps=warmup_steps, timescale=timescale))


def create_constant_schedule(optimizer: Optimizer) -> LambdaLR:
    """Create a schedule that keeps the learning rate, e.g. as a part of `join_schedulers` or after a warmup.

    Args:
        optimizer: optimizer to schedule, per epoch.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> create_constant_schedule(optimizer).get_last_lr()
        [0.1]
    """
    return _Constant(optimizer, LRFactor(constant))
