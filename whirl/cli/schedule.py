"""`whirl schedule`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.errors import report_errors


def _setting(text: str) -> tuple[str, Any]:
    """Split `name=value`; a value that reads as a number is one."""
    name, found, value = text.partition("=")
    if not (name and found):
        raise ValueError(f"--option {text!r}: expected name=value")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return name, kind(value)
    return name, value


def _settings(options: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in map(_setting, options):
        if name in settings:
            raise ValueError(f"--option {name} was given twice")
        settings[name] = value
    return settings


@report_errors
def schedule(
    name: Annotated[str, typer.Argument(help="warmup_cosine, onecycle, step, ...")],
    epochs: Annotated[int, typer.Option(help="Length of the training.")],
    lr: Annotated[float, typer.Option(help="Learning rate of the optimizer.")] = 1e-3,
    steps_per_epoch: Annotated[int, typer.Option(help="Optimizer steps in each epoch.")] = 100,
    option: Annotated[list[str] | None, typer.Option(help="A setting, e.g. min_lr=1e-5; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save as .csv, .png, .svg or .pdf instead of printing.")] = None,
) -> None:
    """Print, or save, a learning-rate schedule before training with it."""
    from whirl.optim.schedule_simulation import format_schedule, save_curve, simulate_schedule
    from whirl.optim.scheduler_factory import check_settings

    settings = _settings(option or [])
    try:
        check_settings(name, settings)  # before one of them is mistaken for an argument
        curve = simulate_schedule(name, epochs, steps_per_epoch, lr, **settings)
    except (TypeError, ArithmeticError) as error:  # an unknown setting, or a number beyond the range of float
        raise ValueError(error) from error
    if out is None:
        typer.echo(format_schedule(curve))
    else:
        save_curve(curve, out, title=name)
        typer.echo(f"the curve is in {out}")
