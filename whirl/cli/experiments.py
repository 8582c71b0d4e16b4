"""`whirl schedule` and `whirl ablation`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.commands import make_group, with_options


@with_options("whirl.runs.command_options.ScheduleSection")
def schedule(options: Any, name: Annotated[str, typer.Argument(help="warmup_cosine, onecycle, step, ...")]) -> None:
    """Print, or save, a learning-rate schedule before training with it."""
    from whirl.runs.schedule import show_schedule

    typer.echo(show_schedule(name, **options.model_dump()))


@with_options("whirl.experiments.ablation_options.AblationOptions")
def physics(
    options: Any,
    data: Annotated[Path | None, typer.Argument(help="Folder of recordings; simulates bearings by default.")] = None,
) -> None:
    """Measure how much physics improves on cross entropy, with negative controls."""
    from whirl.experiments import format_table, run_physics_ablation

    logging.getLogger("whirl.training").setLevel(logging.WARNING)  # hundreds of trainings would flood the log
    typer.echo(format_table(run_physics_ablation(**options.arguments(data))))
    typer.echo(f"table.md, ablation.png and results.jsonl are in {options.out}")


ablation = make_group("ablation", "Ablations with paired runs and controls.", physics)
