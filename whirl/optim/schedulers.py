"""Schedules for convolutional networks, thin over torch's own.

Every one holds its last value after its end, whoever steps it, and resumes from its state dict to the same bits. `e`
counts the scheduler's own units from 0, epochs unless it says otherwise; `lr` is the group's own rate, and a group
whose own rate is 0 stays at 0.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer, lr_scheduler

from whirl.engine.schedule import is_finished, scheduler_unit, step_scheduler
from whirl.optim.formulas import polynomial, warmup
from whirl.optim.scheduler_base import MIN_ONECYCLE_STEPS, Schedule, get_rates, set_rates
from whirl.validation import check_count, check_number


class _ClampAtEnd(Schedule):
    """For those of torch's schedulers that do not hold their last value by themselves."""

    def step(self, epoch: int | None = None) -> None:
        if epoch is not None or not is_finished(self):
            super().step(epoch)


class _Step(Schedule, lr_scheduler.StepLR):
    pass


class _Exponential(Schedule, lr_scheduler.ExponentialLR):
    pass


class _Cosine(_ClampAtEnd, lr_scheduler.CosineAnnealingLR):
    pass


class _CosineRestarts(Schedule, lr_scheduler.CosineAnnealingWarmRestarts):
    pass


class _OneCycle(_ClampAtEnd, lr_scheduler.OneCycleLR):
    step_unit = "step"


class _Plateau(Schedule, lr_scheduler.ReduceLROnPlateau):
    step_unit = "validation"


def create_cosine_scheduler(
    optimizer: Optimizer, num_epochs: int, eta_min: float = 1e-6
) -> lr_scheduler.CosineAnnealingLR:
    """Half a cosine: eta_min + (lr - eta_min) (1 + cos(pi e / num_epochs)) / 2, `eta_min` from num_epochs on.

    Args:
        optimizer: whose rates it moves, per epoch.
        num_epochs: length, >= 1.
        eta_min: last rate of every parameter group, >= 0.

    Raises:
        ValueError: a value out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = create_cosine_scheduler(optimizer, num_epochs=2, eta_min=0.0)
        >>> for epoch in range(4):
        ...     optimizer.step()
        ...     scheduler.step()
        ...     print(round(scheduler.get_last_lr()[0], 4))
        0.5
        0.0
        0.0
        0.0
    """
    return _Cosine(optimizer, check_count("num_epochs", num_epochs), check_number("eta_min", eta_min, 0))


def create_cosine_warmrestarts_scheduler(
    optimizer: Optimizer, T_0: int = 10, T_mult: int = 2, eta_min: float = 1e-6
) -> lr_scheduler.CosineAnnealingWarmRestarts:
    """Cosines one after the other, the i-th over T_i = T_0 T_mult^i epochs: falls to `eta_min`, restarts at `lr`.

    With t epochs since the last restart: eta_min + (lr - eta_min) (1 + cos(pi t / T_i)) / 2. It has no end.

    Args:
        optimizer: whose rates it moves, per epoch.
        T_0: length of the first cosine, >= 1.
        T_mult: how many times longer each next one is, >= 1.
        eta_min: rate towards which every parameter group falls, >= 0.

    Raises:
        ValueError: a value out of its range.
    """
    periods = check_count("T_0", T_0), check_count("T_mult", T_mult)
    return _CosineRestarts(optimizer, *periods, check_number("eta_min", eta_min, 0))


def create_onecycle_scheduler(
    optimizer: Optimizer, max_lr: float | list[float], total_steps: int, pct_start: float = 0.3
) -> lr_scheduler.OneCycleLR:
    """One cosine up and one down, per optimizer step: max_lr / 25 -> max_lr -> max_lr / 250000, and holds that.

    The peak is at step p = pct_start total_steps - 1, the end at total_steps - 1. It puts its own rates in place
    of the optimizer's, except for a group whose rate is 0, and cycles momentum (or beta1) 0.95 -> 0.85 -> 0.95 against
    them where the optimizer has one.
    Smith & Topin 2018, Super-Convergence.

    Args:
        optimizer: whose rates it moves.
        max_lr: peak, > 0; one number, or one for each parameter group, where 0 keeps it at 0.
        total_steps: optimizer steps of the whole training, >= 4; with accumulation fewer than batches.
        pct_start: fraction of the steps that rise, in (0, 1], at least one step.

    Raises:
        ValueError: a value out of its range, or not one `max_lr` for each group.
    """
    if isinstance(max_lr, (list, tuple)):
        peaks = [check_number("max_lr", rate, 0) for rate in max_lr]
    else:
        peak = check_number("max_lr", max_lr, 0, open_ends=True)
        peaks = [peak if group.get("initial_lr", group["lr"]) else 0.0 for group in optimizer.param_groups]
    total_steps = check_count("total_steps", total_steps, MIN_ONECYCLE_STEPS)
    pct_start = check_number("pct_start", pct_start, 0, 1)
    if pct_start * total_steps < 1 - 1e-9:
        raise ValueError(
            f"pct_start is {pct_start}, expected a step or more of {total_steps}: >= {1 / total_steps:.3g}"
        )
    if pct_start * total_steps == 1:
        pct_start -= 1e-9  # torch divides 0 by 0 where the rise takes a single step
    has_momentum = not optimizer.defaults.keys().isdisjoint(("momentum", "betas"))
    return _OneCycle(optimizer, peaks, total_steps, pct_start=pct_start, cycle_momentum=has_momentum)


def create_step_scheduler(optimizer: Optimizer, step_size: int = 10, gamma: float = 0.1) -> lr_scheduler.StepLR:
    """Drops every few epochs: lr gamma^floor(e / step_size).

    Args:
        optimizer: whose rates it moves, per epoch.
        step_size: epochs between two drops, >= 1.
        gamma: factor of a drop, > 0.

    Raises:
        ValueError: a value out of its range.
    """
    return _Step(optimizer, check_count("step_size", step_size), check_number("gamma", gamma, 0, open_ends=True))


def create_exponential_scheduler(optimizer: Optimizer, gamma: float = 0.95) -> lr_scheduler.ExponentialLR:
    """Falls by the same factor every epoch: lr gamma^e.

    Args:
        optimizer: whose rates it moves, per epoch.
        gamma: factor of an epoch, > 0.

    Raises:
        ValueError: `gamma` is out of its range.
    """
    return _Exponential(optimizer, check_number("gamma", gamma, 0, open_ends=True))


def create_plateau_scheduler(
    optimizer: Optimizer, mode: str = "max", factor: float = 0.1, patience: int = 10, *, min_lr: float = 0.0
) -> lr_scheduler.ReduceLROnPlateau:
    """Multiplies the rates by `factor` when more than `patience` validations in a row brought no improvement.

    `step(metric)` counts validations; a trainer hands it `val_accuracy` where `mode` is `'max'`, `val_loss` where it
    is `'min'`. An improvement is one by 1e-4 of the best so far.

    Args:
        optimizer: whose rates it moves.
        mode: `'max'` where higher is better, `'min'` where lower is.
        factor: of a reduction, in (0, 1).
        patience: validations without improvement that are borne, >= 0.
        min_lr: rate below which no parameter group falls, >= 0.

    Raises:
        ValueError: a value out of its range.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode is {mode!r}, expected 'max' or 'min'")
    return _Plateau(
        optimizer,
        "max" if mode == "max" else "min",
        check_number("factor", factor, 0, 1, open_ends=True),
        check_count("patience", patience, 0),
        min_lr=check_number("min_lr", min_lr, 0),
    )


class PolynomialLRScheduler(Schedule, lr_scheduler.PolynomialLR):
    """min_lr + (lr - min_lr) (1 - e / total_epochs)^power, and `min_lr` from total_epochs on.

    Args:
        optimizer: whose rates it moves, per epoch.
        total_epochs: length, >= 1.
        power: exponent, > 0.
        min_lr: last rate of every parameter group, >= 0.

    Raises:
        ValueError: a value out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = PolynomialLRScheduler(optimizer, total_epochs=2, min_lr=0.2)
        >>> for epoch in range(3):
        ...     optimizer.step()
        ...     scheduler.step()
        ...     print(scheduler.get_last_lr()[0])
        0.4
        0.2
        0.2
    """

    def __init__(self, optimizer: Optimizer, total_epochs: int, power: float = 2.0, min_lr: float = 1e-7) -> None:
        self.min_lr = check_number("min_lr", min_lr, 0)
        power = check_number("power", power, 0, open_ends=True)
        super().__init__(optimizer, check_count("total_epochs", total_epochs), power)

    def get_lr(self) -> list[Any]:
        return self._get_closed_form_lr()

    def _get_closed_form_lr(self) -> list[Any]:
        height = polynomial(self.last_epoch, self.total_iters, self.power)
        return [self.min_lr * (1 - height) + lr * height if lr else lr for lr in self.base_lrs]


class WarmupScheduler(Schedule):
    """Linear warm-up before any other schedule.

    lr_0 (e + 1) / (warmup_epochs + 1) for e < warmup_epochs, where lr_0 is the rate with which the base schedule
    begins; from e = warmup_epochs on the base schedule, as if it began there: no rate is 0, and the full one comes
    first at e = warmup_epochs. The base counts on in its own unit, and the warm-up counts in the same one: before a
    one-cycle or Noam schedule `warmup_epochs` are optimizer steps, before a plateau schedule validations, whose
    metrics it hands on after the warm-up.

    Args:
        optimizer: whose rates it moves; the base schedule's own.
        warmup_epochs: length of the warm-up in the base's unit, >= 0.
        base_scheduler: a fresh scheduler of torch or of this package.

    Attributes:
        step_unit: that of the base.
        mode: that of a base that follows a metric.

    Raises:
        ValueError: `warmup_epochs` is out of its range, or the base moves another optimizer.
        TypeError: the base is no scheduler; in `step`, one that follows a metric gets none.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = WarmupScheduler(optimizer, 1, create_exponential_scheduler(optimizer, gamma=0.5))
        >>> for epoch in range(4):
        ...     print(scheduler.get_last_lr()[0])
        ...     optimizer.step()
        ...     scheduler.step()
        0.5
        1.0
        0.5
        0.25
    """

    def __init__(self, optimizer: Optimizer, warmup_epochs: int, base_scheduler: Any) -> None:
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs, 0)
        self.step_unit = scheduler_unit(base_scheduler)
        if getattr(base_scheduler, "optimizer", None) is not optimizer:
            raise ValueError(f"{type(base_scheduler).__name__} moves another optimizer than the one that is warmed up")
        # Not torch's constructor: it would take the optimizer's rate for the base's, which one-cycle's is not.
        self.optimizer = optimizer
        self.base_scheduler = base_scheduler
        self.base_lrs: list[Any] = get_rates(optimizer)
        self.last_epoch = 0
        self._warm()

    @property
    def mode(self) -> str:
        return self.base_scheduler.mode

    def step(self, metrics: Any = None) -> None:
        """Move by one of the base's units; `metrics` is what a plateau schedule follows."""
        if self.step_unit == "validation" and metrics is None:
            raise TypeError(f"{type(self.base_scheduler).__name__} follows a metric: call step(metric)")
        self.last_epoch += 1
        if self.last_epoch <= self.warmup_epochs:
            self._warm()
        elif self.step_unit == "validation":
            self.base_scheduler.step(metrics)
        else:
            step_scheduler(self.base_scheduler)
        self._last_lr: list[Any] = get_rates(self.optimizer)

    def _warm(self) -> None:
        factor = warmup(self.last_epoch, self.warmup_epochs)
        set_rates(self.optimizer, [lr * factor for lr in self.base_lrs])
        self._last_lr = get_rates(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        state = {key: value for key, value in super().state_dict().items() if key != "base_scheduler"}
        return state | {"base_scheduler": self.base_scheduler.state_dict()}

    def _load(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        self.base_scheduler.load_state_dict(own.pop("base_scheduler"))
        super()._load(own)
