"""Schedulers by name, and the scheduler of a whole training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from whirl.optim import schedulers, warmup_schedulers
from whirl.optim.scheduler_base import MIN_ONECYCLE_STEPS, get_rates
from whirl.validation import check_count, check_name


def _factories() -> dict[str, Callable[..., LRScheduler]]:
    return {
        "step": schedulers.create_step_scheduler,
        "exponential": schedulers.create_exponential_scheduler,
        "polynomial": schedulers.PolynomialLRScheduler,
        "cosine": schedulers.create_cosine_scheduler,
        "cosine_restarts": schedulers.create_cosine_warmrestarts_scheduler,
        "cosine_warmrestarts": schedulers.create_cosine_warmrestarts_scheduler,
        "onecycle": schedulers.create_onecycle_scheduler,
        "plateau": schedulers.create_plateau_scheduler,
        "warmup": schedulers.WarmupScheduler,
        "warmup_cosine": warmup_schedulers.create_warmup_cosine_schedule,
        "warmup_linear": warmup_schedulers.create_warmup_linear_schedule,
        "noam": warmup_schedulers.create_noam_schedule,
    }


def schedule_names() -> list[str]:
    """Every name that `make_scheduler` and the factories over it know."""
    return sorted(_factories())


def make_scheduler(name: str, optimizer: Optimizer, settings: Mapping[str, Any], other_factory: str) -> LRScheduler:
    """The scheduler of that name; every factory by name is this one, with its own order of arguments.

    Args:
        name: one of `schedule_names()`.
        optimizer: whose rates it moves.
        settings: the schedule's own arguments.
        other_factory: the factory whose order of arguments is the other one, for the error that a swap gets.

    Raises:
        ValueError: no schedule has this name, or a setting is out of its range.
        TypeError: swapped arguments, an unknown setting, or a required one that is missing.
    """
    if isinstance(name, Optimizer) and isinstance(optimizer, str):
        raise TypeError(f"the optimizer and the name {optimizer!r} are swapped; that is the order of {other_factory}")
    if not isinstance(name, str):
        raise TypeError(f"scheduler_type is {name!r}, expected a name: {', '.join(schedule_names())}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}, expected a torch.optim.Optimizer")
    check_settings(name, settings)
    missing = [key for key, value in _parameters(name).items() if value.default is value.empty and key not in settings]
    if missing:
        raise TypeError(f"the schedule {name!r} needs {', '.join(missing)}; its settings are {_accepted(name)}")
    return _factories()[name](optimizer, **settings)


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Refuses what is no setting of the schedule of that name.

    Raises:
        ValueError: no schedule has this name.
        TypeError: a setting is unknown.
    """
    unknown = [key for key in settings if key not in _parameters(name)]
    if unknown:
        raise TypeError(f"the schedule {name!r} takes no {', '.join(unknown)}; its settings are {_accepted(name)}")


def _accepted(name: str) -> str:
    parameters = _parameters(name).values()
    return f"({', '.join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)})"


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """The settings of the schedule of that name."""
    check_name("schedule", name, schedule_names())
    parameters = dict(inspect.signature(_factories()[name]).parameters)
    del parameters["optimizer"]
    return parameters


def create_training_scheduler(
    name: str, optimizer: Optimizer, epochs: int, steps_per_epoch: int, **settings: Any
) -> LRScheduler:
    """The scheduler of that name over a whole training.

    Settings that are given win. Others that depend on the length of a training follow it, not their own defaults:

    * cosine, polynomial, one-cycle and the warmed ones end with it; a warm-up takes a tenth of it, at least one.
    * one-cycle peaks at each group's own rate. Fewer than 4 optimizer steps have no room for a cycle: the rate stays.
    * noam peaks at the optimizer's rate: d_model = 1 / warmup_steps.
    * step: `step_size` is a third of the epochs, rounded up, which makes three levels.
    * cosine_restarts: one restart, `T_mult` times as long as the first period; `T_0` is rounded up, so the training
      ends with the second period or up to `T_mult` epochs before.
    * plateau: `patience` is a tenth of the epochs, at least one.

    Args:
        name: one of `schedule_names()`.
        optimizer: whose rates it moves.
        epochs: length of the training, >= 1.
        steps_per_epoch: optimizer steps in each epoch, >= 1.
        **settings: the schedule's own.

    Raises:
        ValueError: no such name, a value out of its range.
        TypeError: an unknown or a missing setting.

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
    whole = {
        "num_epochs": epochs,
        "total_epochs": epochs,
        "total_steps": n_steps,
        "max_lr": get_rates(optimizer),
        "warmup_epochs": max(1, epochs // 10),
        "warmup_steps": warmup_steps,
        "d_model": 1 / warmup_steps,
        "step_size": math.ceil(epochs / 3),
        "T_0": math.ceil(epochs / (1 + check_count("T_mult", settings.get("T_mult", 2)))),
        "patience": max(1, epochs // 10),
    }
    derived = {key: whole[key] for key in _parameters(name) if key in whole}
    return make_scheduler(name, optimizer, derived | settings, other_factory="create_training_scheduler")
