"""`whirl schedule` and `whirl ablation`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.commands import make_group, with_options


def schedule(
    name: Annotated[str, typer.Argument(help="warmup_cosine, onecycle, step, ...")],
    epochs: Annotated[int, typer.Option(help="Length of the training.")],
    lr: Annotated[float, typer.Option(help="Learning rate of the optimizer.")] = 1e-3,
    steps_per_epoch: Annotated[int, typer.Option(help="Optimizer steps in each epoch.")] = 100,
    option: Annotated[list[str] | None, typer.Option(help="A setting, e.g. min_lr=1e-5; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save as .csv, .png, .svg or .pdf instead of printing.")] = None,
) -> None:
    """Print, or save, a learning-rate schedule before training with it."""
    from whirl.runs.schedule import show_schedule

    typer.echo(show_schedule(name, epochs, lr, steps_per_epoch, option or [], out))


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
