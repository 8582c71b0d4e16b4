"""Creation of schedulers by name, with or without defaults derived from the length of a training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, SequentialLR

from whirl.engine.schedule import scheduler_unit
from whirl.optim import schedulers, warmup_schedulers
from whirl.optim.scheduler_base import MIN_ONECYCLE_STEPS, get_learning_rates
from whirl.registry import Registry
from whirl.validation import check_count, check_name

SCHEDULES: Registry[Callable[..., LRScheduler]] = Registry("schedule", group="whirl.schedules")
"""Schedules by name; an entry is called as `factory(optimizer, **settings)`, its parameters are the settings."""

SCHEDULES.register("step")(schedulers.create_step_scheduler)
SCHEDULES.register("multistep")(schedulers.create_multistep_scheduler)
SCHEDULES.register("constant")(warmup_schedulers.create_constant_schedule)
SCHEDULES.register("exponential")(schedulers.create_exponential_scheduler)
SCHEDULES.register("polynomial")(schedulers.PolynomialLRScheduler)
SCHEDULES.register("cosine")(schedulers.create_cosine_scheduler)
SCHEDULES.register("cosine_restarts", "cosine_warmrestarts")(schedulers.create_cosine_warmrestarts_scheduler)
SCHEDULES.register("onecycle")(schedulers.create_onecycle_scheduler)
SCHEDULES.register("plateau")(schedulers.create_plateau_scheduler)
SCHEDULES.register("warmup")(schedulers.WarmupScheduler)
SCHEDULES.register("warmup_cosine")(warmup_schedulers.create_warmup_cosine_schedule)
SCHEDULES.register("warmup_linear")(warmup_schedulers.create_warmup_linear_schedule)
SCHEDULES.register("noam")(warmup_schedulers.create_noam_schedule)
SCHEDULES.register("inverse_sqrt")(warmup_schedulers.create_inverse_sqrt_schedule)


def register_schedule(name: str) -> Callable[[Callable[..., LRScheduler]], Callable[..., LRScheduler]]:
    """Return a decorator that registers a schedule for `whirl train --schedule` and all factories by name.

    The decorated class or function is called as `factory(optimizer, **settings)` and returns a scheduler. Parameters
    with a default in `create_training_scheduler`, e.g. `total_steps`, are derived from the length of the training.
    """
    return SCHEDULES.register(name)


def schedule_names() -> list[str]:
    """Return the names of all schedules, sorted."""
    return SCHEDULES.names()


def make_scheduler(name: str, optimizer: Optimizer, settings: Mapping[str, Any], other_factory: str) -> LRScheduler:
    """Create a scheduler by name; all factories by name call this function.

    Args:
        name: one of `schedule_names()`.
        optimizer: optimizer to schedule.
        settings: settings of the schedule.
        other_factory: the factory with the opposite order of arguments, for the message about swapped arguments.

    Raises:
        ValueError: the name is unknown, or a setting is out of range.
        TypeError: the arguments are swapped, or a setting is unknown or missing.
    """
    if isinstance(name, Optimizer) and isinstance(optimizer, str):
        raise TypeError(f"optimizer and name {optimizer!r} are swapped; {other_factory} takes them in this order")
    if not isinstance(name, str):
        raise TypeError(f"scheduler_type is {name!r}, expected one of: {', '.join(schedule_names())}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}, expected a torch.optim.Optimizer")
    check_settings(name, settings)
    missing = [key for key, value in _parameters(name).items() if value.default is value.empty and key not in settings]
    if missing:
        raise TypeError(f"schedule {name!r} needs {', '.join(missing)}; its settings are {_signature(name)}")
    return SCHEDULES.get(name)(optimizer, **settings)


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Validate the names of settings of a schedule.

    Raises:
        ValueError: the name of the schedule is unknown.
        TypeError: the schedule has no such setting.
    """
    unknown = [key for key in settings if key not in _parameters(name)]
    if unknown:
        raise TypeError(f"schedule {name!r} has no setting {', '.join(unknown)}; its settings are {_signature(name)}")


def _signature(name: str) -> str:
    parameters = _parameters(name).values()
    return f"({', '.join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)})"


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """Return the settings of a schedule by name."""
    check_name("schedule", name, schedule_names())
    parameters = dict(inspect.signature(SCHEDULES.get(name)).parameters)
    del parameters["optimizer"]
    return parameters


def create_training_scheduler(
    name: str, optimizer: Optimizer, epochs: int, steps_per_epoch: int, **settings: Any
) -> LRScheduler:
    """Create a scheduler by name, with defaults derived from the length of a training.

    These settings get defaults that fit the training, unless they are given:

    * cosine, polynomial, one-cycle and the schedules with warmup end with the training; a warmup takes a tenth of it,
      at least one epoch (or step).
    * one-cycle peaks at the learning rate of each parameter group. In a training of fewer than 4 optimizer steps the
      learning rate is constant instead.
    * noam peaks at the optimizer's learning rate: d_model = 1 / warmup_steps.
    * step: `step_size` is a third of the epochs, rounded up, which gives three levels.
    * multistep: the learning rate decays after a half and after three quarters of the epochs.
    * inverse_sqrt: `timescale` is half of the steps after the warmup, so the learning rate ends at 1/sqrt(3) of its
      peak.
    * cosine_restarts: one restart, with a second period `T_mult` times as long as the first. `T_0` is rounded up, so
      the training ends with the second period or up to `T_mult` epochs before its end.
    * plateau: `patience` is a tenth of the epochs, at least one.

    Args:
        name: one of `schedule_names()`.
        optimizer: optimizer to schedule.
        epochs: number of epochs of the training, >= 1.
        steps_per_epoch: number of optimizer steps per epoch, >= 1.
        **settings: settings of the schedule.

    Raises:
        ValueError: the name is unknown, or a value is out of range.
        TypeError: a setting is unknown or missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        >>> create_training_scheduler("onecycle", optimizer, epochs=3, steps_per_epoch=10).total_steps
        30
    """
    epochs, steps_per_epoch = check_count("epochs", epochs), check_count("steps_per_epoch", steps_per_epoch)
    check_settings(name, settings)
    n_steps = epochs * steps_per_epoch
    if name == "onecycle" and "total_steps" not in settings and n_steps < MIN_ONECYCLE_STEPS:
        return make_scheduler("step", optimizer, {"gamma": 1.0}, other_factory="create_training_scheduler")
    warmup_steps = check_count("warmup_steps", settings.get("warmup_steps", max(1, n_steps // 10)))
    defaults = {
        "num_epochs": epochs,
        "total_epochs": epochs,
        "total_steps": n_steps,
        "max_lr": get_learning_rates(optimizer),
        "warmup_epochs": max(1, epochs // 10),
        "warmup_steps": warmup_steps,
        "d_model": 1 / warmup_steps,
        "step_size": math.ceil(epochs / 3),
        "milestones": [max(1, epochs // 2), max(1, 3 * epochs // 4)],
        "timescale": max(1, (n_steps - warmup_steps) // 2),
        "T_0": math.ceil(epochs / (1 + check_count("T_mult", settings.get("T_mult", 2)))),
        "patience": max(1, epochs // 10),
    }
    defaults = {key: defaults[key] for key in _parameters(name) if key in defaults}
    return make_scheduler(name, optimizer, defaults | settings, other_factory="create_training_scheduler")


def join_schedulers(parts: Sequence[LRScheduler], milestones: Sequence[int]) -> SequentialLR:
    """Join schedules one after the other, each from its own beginning, as torch's `SequentialLR`.

    Args:
        parts: schedulers of one optimizer that have not been stepped, all of which count epochs, or all optimizer
            steps.
        milestones: epoch or step at which each schedule but the first begins, ascending, >= 1.

    Raises:
        ValueError: the number of milestones does not fit, they do not ascend, the optimizers or units differ, or a
            schedule follows a metric or sets its own initial learning rates (one-cycle).

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> constant = SCHEDULES.get("constant")(optimizer)
        >>> scheduler = join_schedulers([constant, schedulers.create_exponential_scheduler(optimizer, 0.5)], [2])
        >>> for epoch in range(4):
        ...     print(scheduler.get_last_lr()[0])
        ...     optimizer.step()
        ...     scheduler.step()
        1.0
        1.0
        1.0
        0.5
    """
    milestones = [check_count(f"milestones[{i}]", milestone) for i, milestone in enumerate(milestones)]
    if not parts or len(milestones) != len(parts) - 1:
        raise ValueError(f"there are {len(parts)} schedulers and {len(milestones)} milestones, expected one less")
    if any(second <= first for first, second in pairwise(milestones)):
        raise ValueError(f"milestones are {milestones}, expected ascending numbers")
    units = {scheduler_unit(scheduler) for scheduler in parts}
    if len(units) > 1 or "validation" in units or any(isinstance(part, OneCycleLR) for part in parts):
        kinds = ", ".join(f"{type(part).__name__.lstrip('_')} per {scheduler_unit(part)}" for part in parts)
        raise ValueError(f"{kinds} cannot be joined, expected schedules of one unit without metrics or one-cycle")
    if len({id(part.optimizer) for part in parts}) > 1:
        raise ValueError("the schedulers have several optimizers, expected one")
    return SequentialLR(parts[0].optimizer, list(parts), milestones)
