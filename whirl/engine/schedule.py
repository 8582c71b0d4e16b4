"""When to step a learning-rate schedule: per optimizer step, per epoch or per validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch.optim import lr_scheduler

Unit = Literal["step", "epoch", "validation"]


def scheduler_unit(scheduler: Any) -> Unit:
    """Return the unit in which `scheduler` counts.

    An attribute `step_unit` of the scheduler takes precedence. Of torch's schedulers, one-cycle and cyclic ones count
    optimizer steps, plateau counts validations, sequential and chained ones count as their parts do, and all others
    count epochs.

    Raises:
        TypeError: it has no `step` method.
        ValueError: its `step_unit` is not one of the three, or its parts count in different units.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler_unit(lr_scheduler.StepLR(optimizer, 10))
        'epoch'
    """
    if not callable(getattr(scheduler, "step", None)):
        raise TypeError(f"scheduler is {scheduler!r}, expected a learning-rate scheduler with step()")
    unit = getattr(scheduler, "step_unit", None)
    if unit is not None:
        if unit not in ("step", "epoch", "validation"):
            raise ValueError(f"step_unit is {unit!r}, expected 'step', 'epoch' or 'validation'")
        return unit
    if isinstance(scheduler, (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)):
        return "step"
    if isinstance(scheduler, (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)):
        return _common_unit(scheduler)
    return "validation" if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else "epoch"


def _common_unit(scheduler: lr_scheduler.SequentialLR | lr_scheduler.ChainedScheduler) -> Unit:
    parts: list[tuple[str, Unit]] = [(type(part).__name__, scheduler_unit(part)) for part in scheduler._schedulers]
    if len({unit for _, unit in parts}) > 1:
        units = ", ".join(f"{name} per {unit}" for name, unit in parts)
        raise ValueError(
            f"the parts of {type(scheduler).__name__} count in different units, {units}: "
            "set its attribute step_unit to the unit to use"
        )
    return parts[0][1]


def step_scheduler(scheduler: Any, logs: Mapping[str, float] | None = None) -> None:
    """Step `scheduler` by one of its units.

    A plateau scheduler gets the metric that fits its mode: `val_loss` for 'min', `val_accuracy` for 'max'. A schedule
    of fixed length keeps its last value after its end.

    Raises:
        ValueError: the metric of a plateau scheduler is not in `logs`.
    """
    if scheduler_unit(scheduler) == "validation":
        metric = "val_accuracy" if getattr(scheduler, "mode", "min") == "max" else "val_loss"
        if logs is None or metric not in logs:
            raise ValueError(f"{type(scheduler).__name__} follows {metric!r}, but the logs have {sorted(logs or ())}")
        scheduler.step(logs[metric])
    else:
        _advance(scheduler)


def _advance(scheduler: Any) -> None:
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):  # its own step() would step a part beyond its end
        for part in scheduler._schedulers:
            _advance(part)
        scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
    elif not is_finished(scheduler):
        scheduler.step()


def is_finished(scheduler: Any) -> bool:
    """Return whether `scheduler` has reached its end and must not be stepped, so that it keeps its value.

    Beyond its end, torch's OneCycleLR raises an error and CosineAnnealingLR rises again, also as the last part of a
    SequentialLR; all others keep their value by themselves.
    """
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        return is_finished(scheduler._schedulers[-1])
    if hasattr(scheduler, "base_scheduler"):  # after a warmup
        return is_finished(scheduler.base_scheduler)
    return getattr(scheduler, "last_epoch", -1) >= last_step(scheduler)


def last_step(scheduler: Any) -> float:
    """Return the step after which one of torch's schedulers must not be stepped; infinity if there is none.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> last_step(lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10))
        9
    """
    if isinstance(scheduler, lr_scheduler.OneCycleLR):
        return scheduler.total_steps - 1
    return scheduler.T_max if isinstance(scheduler, lr_scheduler.CosineAnnealingLR) else math.inf
