"""Curves of learning-rate schedules from the options of `whirl schedule`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from whirl.optim.schedule_simulation import format_schedule, save_curve, simulate_schedule
from whirl.optim.scheduler_factory import check_settings

_MAX_STEPS = 10_000_000


def parse_schedule_options(options: Iterable[str]) -> dict[str, Any]:
    """Convert texts `name=value` to settings of a schedule; a value that reads as a number is one.

    Raises:
        ValueError: a text has another form, or a name is given twice.

    Example:
        >>> parse_schedule_options(["min_lr=1e-5", "warmup_epochs=3"])
        {'min_lr': 1e-05, 'warmup_epochs': 3}
    """
    settings: dict[str, Any] = {}
    for text in options:
        name, found, value = text.partition("=")
        if not (name and found):
            raise ValueError(f"--option {text!r}: expected name=value")
        if name in settings:
            raise ValueError(f"--option {name} was given twice")
        settings[name] = _number_or_text(value)
    return settings


def _number_or_text(text: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def show_schedule(
    name: str,
    epochs: int,
    lr: float = 1e-3,
    steps_per_epoch: int = 100,
    option: Iterable[str] = (),
    out: str | Path | None = None,
) -> str:
    """Simulate a schedule and save its curve.

    Args:
        name: name of the schedule.
        epochs: number of epochs.
        lr: learning rate of the optimizer.
        steps_per_epoch: number of optimizer steps per epoch.
        option: settings of the schedule as texts `name=value`.
        out: file for the curve; None returns it as a table.

    Returns:
        Text to print.

    Raises:
        ValueError: a setting is unknown or out of range.
    """
    if epochs * steps_per_epoch > _MAX_STEPS:
        raise ValueError(
            f"{epochs} epochs of {steps_per_epoch} steps are {epochs * steps_per_epoch} steps, expected at most "
            f"{_MAX_STEPS}; choose fewer with --steps-per-epoch"
        )
    settings = parse_schedule_options(option)
    try:
        check_settings(name, settings)  # before one of them is mistaken for an argument
        curve = simulate_schedule(name, epochs, steps_per_epoch, lr, **settings)
    except (TypeError, ArithmeticError) as error:  # an unknown setting, or a number beyond the range of float
        raise ValueError(error) from error
    if out is None:
        return format_schedule(curve)
    save_curve(curve, out, title=name)
    return f"the curve is in {out}"
