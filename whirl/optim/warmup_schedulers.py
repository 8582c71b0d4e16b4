"""Schedules for transformers: torch's `LambdaLR` over the formulas of `whirl.optim.formulas`.

Every one holds its last value after its end and resumes from its state dict to the same bits. Epochs and steps are
counted from 0; `lr` is the group's own rate, and a group whose own rate is 0 stays at 0.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from whirl.optim.formulas import check_warmup, noam, warmup_cosine, warmup_linear
from whirl.optim.scheduler_base import Schedule
from whirl.validation import check_count, check_number


class LRFactor:
    """A pure function of the step with its settings, for a `LambdaLR`.

    The state dict of a `LambdaLR` keeps the `__dict__` of such an object. The function has a slot of its own, so that
    a checkpoint gets the settings and nothing that needs pickle.

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


class _WarmupLinear(Schedule, LambdaLR):
    pass


class _Noam(Schedule, LambdaLR):
    step_unit = "step"


class WarmupCosineScheduler(Schedule, LambdaLR):
    """Linear warm-up, then half a cosine down to `min_lr`.

    lr (e + 1) / (W + 1) in epoch e < W = warmup_epochs, then with T = total_epochs
    min_lr + (lr - min_lr) (1 + cos(pi (e - W) / (T - W))) / 2, and `min_lr` from T on.

    Args:
        optimizer: whose rates it moves, per epoch.
        warmup_epochs: length of the warm-up, in [0, total_epochs].
        total_epochs: length of all, >= 1.
        min_lr: last rate of every parameter group, >= 0.
        last_epoch: the last epoch that is done, -1 for none; the optimizer's groups must then hold `initial_lr`.

    Raises:
        ValueError: a value out of its range.
        KeyError: `last_epoch` is given, but a group has no `initial_lr`.

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
        rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        factors = [
            LRFactor(
                warmup_cosine,
                warmup_steps=warmup_epochs,
                total_steps=total_epochs,
                floor=min_lr / rate if rate else 0.0,
            )
            for rate in rates
        ]
        super().__init__(optimizer, factors, check_count("last_epoch", last_epoch, -1))


def create_warmup_cosine_schedule(
    optimizer: Optimizer, warmup_epochs: int, total_epochs: int, min_lr: float = 1e-7
) -> LambdaLR:
    """A `WarmupCosineScheduler`; see there."""
    return WarmupCosineScheduler(optimizer, warmup_epochs, total_epochs, min_lr)


def create_warmup_linear_schedule(optimizer: Optimizer, warmup_epochs: int, total_epochs: int) -> LambdaLR:
    """Linear warm-up, then a straight line to 0.

    lr (e + 1) / (W + 1) in epoch e < W = warmup_epochs, then lr (T - e) / (T - W), and 0 from T = total_epochs on.

    Args:
        optimizer: whose rates it moves, per epoch.
        warmup_epochs: length of the warm-up, in [0, total_epochs].
        total_epochs: length of all, >= 1.

    Raises:
        ValueError: a value out of its range.
    """
    warmup_epochs, total_epochs = check_warmup(warmup_epochs, total_epochs)
    return _WarmupLinear(optimizer, LRFactor(warmup_linear, warmup_steps=warmup_epochs, total_steps=total_epochs))


def create_noam_schedule(optimizer: Optimizer, d_model: float = 256, warmup_steps: int = 4000) -> LambdaLR:
    """The optimizer's own rate times d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5), s = 1, 2, ... optimizer steps.

    Vaswani et al. 2017, Attention Is All You Need, eq. 3; the paper's own rate is that of an optimizer with `lr=1`.
    The peak, at s = warmup_steps, is lr (d_model warmup_steps)^-0.5. It has no end.

    Args:
        optimizer: whose rates it moves, per optimizer step.
        d_model: width of the network, > 0; 1 / warmup_steps puts the peak at the optimizer's own rate.
        warmup_steps: optimizer steps that rise, >= 1.

    Raises:
        ValueError: a value out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.98), eps=1e-9)
        >>> create_noam_schedule(optimizer, d_model=16, warmup_steps=4).get_last_lr()
        [0.03125]
    """
    d_model = check_number("d_model", d_model, 0, open_ends=True)
    warmup_steps = check_count("warmup_steps", warmup_steps)
    return _Noam(optimizer, LRFactor(noam, d_model=d_model, warmup_steps=warmup_steps))
