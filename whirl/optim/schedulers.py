"""Schedulers for convolutional networks, thin subclasses of torch's.

Every schedule keeps its last value after its end, and resumes from its state dict bit for bit. In the formulas, `e`
counts calls of `step()` from 0, once per epoch unless stated otherwise, and `lr` is the learning rate of the parameter
group when the scheduler is created. Groups with a learning rate of 0 stay at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from whirl.engine.schedule import is_finished, last_step, scheduler_unit, step_scheduler
from whirl.optim.formulas import polynomial, warmup
from whirl.optim.scheduler_base import MIN_ONECYCLE_STEPS, Schedule, get_learning_rates, set_learning_rates
from whirl.validation import check_count, check_name, check_number


class _ClampAtEnd(Schedule):
    """Mixin for schedulers of torch that do not keep their last value after their end."""

    def step(self, epoch: int | None = None) -> None:
        if epoch is not None:
            super().step(min(epoch, last_step(self)))  # pyright: ignore[reportArgumentType]
        elif not is_finished(self):
            super().step()


class _Step(Schedule, lr_scheduler.StepLR):
    pass


class _MultiStep(Schedule, lr_scheduler.MultiStepLR):
    pass


class _Exponential(Schedule, lr_scheduler.ExponentialLR):
    pass


class _Cosine(_ClampAtEnd, lr_scheduler.CosineAnnealingLR):
    pass


class _CosineRestarts(Schedule, lr_scheduler.CosineAnnealingWarmRestarts):
    pass


class _OneCycle(_ClampAtEnd, lr_scheduler.OneCycleLR):
    step_unit = "step"

    def _adopt(self, group: dict[str, Any]) -> None:
        first = self.optimizer.param_groups[0]
        peak = float(group["lr"])
        group |= {"max_lr": peak, "initial_lr": peak / 25, "min_lr": peak / 250_000}
        group |= {name: first[name] for name in ("max_momentum", "base_momentum") if name in first}
        self.base_lrs[-1] = group["initial_lr"]


class _Plateau(Schedule, lr_scheduler.ReduceLROnPlateau):
    step_unit = "validation"

    def _adopt_new_groups(self) -> None:  # it has no initial learning rates
        self._last_lr += get_learning_rates(self.optimizer)[len(self._last_lr) :]


def create_cosine_scheduler(
    optimizer: Optimizer, num_epochs: int, eta_min: float = 1e-6
) -> lr_scheduler.CosineAnnealingLR:
    """Create a cosine decay: eta_min + (lr - eta_min) (1 + cos(pi e / num_epochs)) / 2, then `eta_min`.

    Args:
        optimizer: optimizer to schedule, per epoch.
        num_epochs: length of the schedule in epochs, >= 1.
        eta_min: final learning rate of all parameter groups, >= 0.

    Raises:
        ValueError: an argument is out of range.

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
    """Create a cosine decay with warm restarts (Loshchilov & Hutter 2017, SGDR).

    Period i takes T_i = T_0 T_mult^i epochs, decays from `lr` towards `eta_min`, and restarts at `lr`. With t epochs
    since the last restart, the learning rate is eta_min + (lr - eta_min) (1 + cos(pi t / T_i)) / 2. It has no end.

    Args:
        optimizer: optimizer to schedule, per epoch.
        T_0: length of the first period in epochs, >= 1.
        T_mult: ratio of the lengths of successive periods, an integer >= 1.
        eta_min: learning rate towards which all parameter groups decay, >= 0.

    Raises:
        ValueError: an argument is out of range.
    """
    T_0, T_mult = check_count("T_0", T_0), check_count("T_mult", T_mult)
    return _CosineRestarts(optimizer, T_0, T_mult, check_number("eta_min", eta_min, 0))


def create_onecycle_scheduler(
    optimizer: Optimizer, max_lr: float | list[float], total_steps: int, pct_start: float = 0.3
) -> lr_scheduler.OneCycleLR:
    """Create a one-cycle schedule, stepped per optimizer step (Smith & Topin 2018, Super-Convergence).

    The learning rate increases from max_lr / 25 to max_lr, peaks at step pct_start total_steps - 1, and decreases to
    max_lr / 250000 at step total_steps - 1, both along half a cosine; it then keeps this value. These learning rates
    replace those of the optimizer, except for groups with a learning rate of 0 beside others. If the optimizer has a
    momentum (or beta1), it is cycled in the opposite direction: 0.95, 0.85, 0.95.

    Args:
        optimizer: optimizer to schedule, per optimizer step.
        max_lr: peak learning rate, > 0; one number, or one per parameter group, where 0 keeps the group at 0.
        total_steps: number of optimizer steps of the training, >= 4. With gradient accumulation these are fewer than
            the batches.
        pct_start: fraction of the steps in which the learning rate increases, in (0, 1], at least one step.

    Raises:
        ValueError: an argument is out of range, all `max_lr` are 0, or their number is not that of the parameter
            groups.
    """
    peaks = _peaks(optimizer, max_lr)
    if not any(peaks):
        raise ValueError(f"max_lr is {max_lr}, expected a peak > 0 for at least one parameter group")
    total_steps = check_count("total_steps", total_steps, MIN_ONECYCLE_STEPS)
    pct_start = check_number("pct_start", pct_start, 0, 1)
    if pct_start * total_steps < 1 - 1e-9:
        raise ValueError(
            f"pct_start is {pct_start}, expected at least one step of {total_steps}: >= {1 / total_steps:.3g}"
        )
    if pct_start * total_steps == 1:
        pct_start -= 1e-9  # torch divides 0 by 0 if the increase takes a single step
    has_momentum = not optimizer.defaults.keys().isdisjoint(("momentum", "betas"))
    return _OneCycle(optimizer, peaks, total_steps, pct_start=pct_start, cycle_momentum=has_momentum)


def _peaks(optimizer: Optimizer, max_lr: Any) -> list[float]:
    """Return the peak of each parameter group; groups with a learning rate of 0 beside others stay at 0."""
    if isinstance(max_lr, (list, tuple)) or getattr(max_lr, "ndim", 0):
        return [check_number("max_lr", lr, 0) for lr in max_lr]
    peak = check_number("max_lr", max_lr, 0, open_ends=True)
    initial = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    return [peak if lr or not any(initial) else 0.0 for lr in initial]


def create_step_scheduler(optimizer: Optimizer, step_size: int = 10, gamma: float = 0.1) -> lr_scheduler.StepLR:
    """Create a step decay: lr gamma^floor(e / step_size).

    Args:
        optimizer: optimizer to schedule, per epoch.
        step_size: number of epochs between two decays, >= 1.
        gamma: factor of each decay, > 0.

    Raises:
        ValueError: an argument is out of range.
    """
    return _Step(optimizer, check_count("step_size", step_size), check_number("gamma", gamma, 0, open_ends=True))


def create_multistep_scheduler(
    optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1
) -> lr_scheduler.MultiStepLR:
    """Create a step decay at given epochs: lr gamma^n, with the number n of milestones up to epoch e.

    Args:
        optimizer: optimizer to schedule, per epoch.
        milestones: epochs from which the learning rate is lower, each >= 1; twice the same one decays twice.
        gamma: factor of each decay, > 0.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = create_multistep_scheduler(optimizer, milestones=[1, 3], gamma=0.5)
        >>> for epoch in range(4):
        ...     print(scheduler.get_last_lr()[0])
        ...     optimizer.step()
        ...     scheduler.step()
        1.0
        0.5
        0.5
        0.25
    """
    epochs = [check_count(f"milestones[{i}]", epoch) for i, epoch in enumerate(milestones)]
    if not epochs:
        raise ValueError("milestones are empty, expected at least one epoch")
    return _MultiStep(optimizer, sorted(epochs), check_number("gamma", gamma, 0, open_ends=True))


def create_exponential_scheduler(optimizer: Optimizer, gamma: float = 0.95) -> lr_scheduler.ExponentialLR:
    """Create an exponential decay: lr gamma^e.

    Args:
        optimizer: optimizer to schedule, per epoch.
        gamma: factor per epoch, > 0.

    Raises:
        ValueError: `gamma` is out of range.
    """
    return _Exponential(optimizer, check_number("gamma", gamma, 0, open_ends=True))


def create_plateau_scheduler(
    optimizer: Optimizer, mode: str = "max", factor: float = 0.1, patience: int = 10, *, min_lr: float = 0.0
) -> lr_scheduler.ReduceLROnPlateau:
    """Create a schedule that reduces the learning rates by `factor` when a validation metric stops improving.

    A reduction follows more than `patience` validations in a row without improvement. A metric must improve by more
    than 1e-4 of the best value to count. Call `step(metric)` after each validation; the trainers pass
    `val_accuracy` for mode `'max'`, and `val_loss` for mode `'min'`.

    Args:
        optimizer: optimizer to schedule, per validation.
        mode: `'max'` if a higher metric is better, `'min'` if a lower one is.
        factor: factor of each reduction, in (0, 1).
        patience: number of validations to wait without improvement, >= 0.
        min_lr: lower bound of the learning rate of all parameter groups, >= 0.

    Raises:
        ValueError: an argument is out of range.
    """
    check_name("mode", mode, ("max", "min"))
    return _Plateau(
        optimizer,
        "max" if mode == "max" else "min",
        check_number("factor", factor, 0, 1, open_ends=True),
        check_count("patience", patience, 0),
        min_lr=check_number("min_lr", min_lr, 0),
    )


class PolynomialLRScheduler(Schedule, lr_scheduler.PolynomialLR):
    """Polynomial decay: min_lr + (lr - min_lr) (1 - e / total_epochs)^power, then `min_lr`.

    As torch's, it can be chained with other schedulers, and continues from a learning rate that was changed meanwhile.

    Args:
        optimizer: optimizer to schedule, per epoch.
        total_epochs: length of the schedule in epochs, >= 1.
        power: exponent, > 0.
        min_lr: final learning rate of all parameter groups, >= 0.

    Raises:
        ValueError: an argument is out of range.

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
        self._adopt_new_groups()
        current = [group["lr"] for group in self.optimizer.param_groups]
        if not 0 < self.last_epoch <= self.total_iters:
            return current
        steps = zip(current, self._scheduled_lr(self.last_epoch - 1), self._get_closed_form_lr(), strict=True)
        return [self._decayed(lr, before, now) for lr, before, now in steps]

    def _decayed(self, lr: Any, before: float, now: float) -> Any:
        """Return the next learning rate: `now`, unless another scheduler or the user has changed the current one."""
        if lr == before or before == self.min_lr:
            return now
        return self.min_lr + (lr - self.min_lr) * ((now - self.min_lr) / (before - self.min_lr))

    def _get_closed_form_lr(self) -> list[Any]:
        return self._scheduled_lr(self.last_epoch)

    def _scheduled_lr(self, epoch: int) -> list[Any]:
        factor = polynomial(epoch, self.total_iters, self.power)
        return [self.min_lr * (1 - factor) + lr * factor if lr else lr for lr in self.base_lrs]


class WarmupScheduler(Schedule):
    """Linear warmup followed by any other schedule.

    For e < warmup_epochs the learning rate is lr_0 (e + 1) / (warmup_epochs + 1), where lr_0 is the initial learning
    rate of the base schedule; from e = warmup_epochs on it follows the base schedule from its beginning. So the
    learning rate is never 0, and first reaches lr_0 at e = warmup_epochs.

    The warmup is counted in the unit of the base schedule: in optimizer steps for a one-cycle or Noam schedule, in
    validations for a plateau schedule (which receives the metrics after the warmup only), and in epochs otherwise.

    Args:
        optimizer: optimizer to schedule, the same as that of the base scheduler.
        warmup_epochs: length of the warmup in the unit of the base scheduler, >= 0.
        base_scheduler: a scheduler of torch or of this package that has not been stepped.

    Attributes:
        step_unit: unit of the base scheduler.
        mode: mode of the base scheduler, if it is a plateau schedule.

    Raises:
        ValueError: `warmup_epochs` is out of range, or the base scheduler has another optimizer.
        TypeError: the base is not a scheduler; in `step`, a plateau schedule gets no metric.

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
            raise ValueError(f"base_scheduler ({type(base_scheduler).__name__}) schedules another optimizer")
        # LRScheduler.__init__ is not called: it would use `initial_lr`, which is not the initial value of one-cycle.
        self.optimizer = optimizer
        self.base_scheduler = base_scheduler
        self.base_lrs: list[Any] = get_learning_rates(optimizer)
        self.last_epoch = 0
        self._apply_warmup()

    @property
    def mode(self) -> str:
        return self.base_scheduler.mode

    def step(self, metrics: Any = None) -> None:
        """Advance by one unit of the base scheduler; `metrics` is the validation metric of a plateau schedule."""
        if self.step_unit == "validation" and metrics is None:
            raise TypeError(f"{type(self.base_scheduler).__name__} needs a metric; call step(metric)")
        self.last_epoch += 1
        if self.last_epoch <= self.warmup_epochs:
            self._apply_warmup()
        elif self.step_unit == "validation":
            self.base_scheduler.step(metrics)
        else:
            step_scheduler(self.base_scheduler)
        self._last_lr: list[Any] = get_learning_rates(self.optimizer)

    def _apply_warmup(self) -> None:
        self._adopt_new_groups()
        factor = warmup(self.last_epoch, self.warmup_epochs)
        set_learning_rates(self.optimizer, [lr * factor for lr in self.base_lrs])
        self._last_lr = get_learning_rates(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        state = {key: value for key, value in super().state_dict().items() if key != "base_scheduler"}
        return state | {"base_scheduler": self.base_scheduler.state_dict()}

    def _load(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        self.base_scheduler.load_state_dict(own.pop("base_scheduler"))
        super()._load(own)
