"""When a learning-rate schedule moves: per optimizer step, per epoch or per validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch.optim import lr_scheduler

Unit = Literal["step", "epoch", "validation"]


def scheduler_unit(scheduler: Any) -> Unit:
    """The unit in which `scheduler` counts.

    A scheduler says so itself with an attribute `step_unit`; of torch's own, one-cycle and cyclic
    count optimizer steps, plateau counts validations, sequential and chained ones count as their parts do and all
    others epochs.

    Raises:
        TypeError: it has no `step` method.
        ValueError: its `step_unit` is none of the three, or its parts count in different units.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler_unit(lr_scheduler.StepLR(optimizer, 10))
        'epoch'
    """
    if not callable(getattr(scheduler, "step", None)):
        raise TypeError(f"{scheduler!r} is not a learning-rate scheduler: it has no step()")
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
            f"the parts of {type(scheduler).__name__} move in different units, {units}: "
            "give it an attribute step_unit to say in which it moves"
        )
    return parts[0][1]


def step_scheduler(scheduler: Any, logs: Mapping[str, float] | None = None) -> None:
    """Move `scheduler` by one of its units.

    A plateau scheduler gets the metric that fits its mode: `val_loss` to be lowered, `val_accuracy` to
    be raised. A schedule of fixed length holds its last value after its end.

    Raises:
        ValueError: a plateau scheduler finds no such metric in `logs`.
    """
    if scheduler_unit(scheduler) == "validation":
        metric = "val_accuracy" if getattr(scheduler, "mode", "min") == "max" else "val_loss"
        if logs is None or metric not in logs:
            raise ValueError(f"{type(scheduler).__name__} follows {metric!r}, but the logs hold {sorted(logs or ())}")
        scheduler.step(logs[metric])
    else:
        _advance(scheduler)


def _advance(scheduler: Any) -> None:
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):  # its own step() would move a part beyond its end
        for part in scheduler._schedulers:
            _advance(part)
        scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
    elif not is_finished(scheduler):
        scheduler.step()


def is_finished(scheduler: Any) -> bool:
    """Whether `scheduler` stands at its end and must be left alone to hold its value.

    Past their ends torch's OneCycleLR raises and CosineAnnealingLR rises again, at the end of a SequentialLR too; all
    others hold by themselves.
    """
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        return is_finished(scheduler._schedulers[-1])
    if isinstance(scheduler, lr_scheduler.OneCycleLR):
        return scheduler.last_epoch >= scheduler.total_steps - 1
    return isinstance(scheduler, lr_scheduler.CosineAnnealingLR) and scheduler.last_epoch >= scheduler.T_max
