"""`whirl train`, `search`, `schedule`, `ablation` and `config`."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.commands import make_group, with_options
from whirl.cli.errors import EX_SIGNAL_BASE, echo

TRAINING_SECTIONS = ("data", "split", "model", "input", "training", "physics", "evaluation", "run")
Data = Annotated[Path | None, typer.Argument(help="Folder of recordings; simulates journal bearings by default.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings; options on the command line take precedence.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results; a new one under runs/ by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run or search in --out.")]
SpaceFile = Annotated[Path | None, typer.Option(help="YAML file of settings to search; the network's preset.")]


@with_options(*TRAINING_SECTIONS)
def train(
    options: dict[str, Any], data: Data = None, config: ConfigFile = None, out: Out = None, resume: Resume = False
) -> None:
    """Train a diagnoser, evaluate it on unseen specimens, and write a report."""
    from whirl.runs.evaluation import format_summary
    from whirl.runs.run_folder import resolve_run
    from whirl.runs.training import train_run

    given = options | ({} if data is None else {"data": str(data)})
    resolved, folder = resolve_run(given, config, out, resume)
    result = train_run(resolved, folder, resume, command=shlex.join(["whirl", *sys.argv[1:]]))
    if result.metrics is None:
        echo(f"interrupted; checkpoint saved. Resume with: whirl train --resume --out {shlex.quote(str(folder))}")
        raise typer.Exit(EX_SIGNAL_BASE + (result.interrupted_by or signal.SIGINT))
    if result.metrics:  # empty in all processes but rank 0
        echo("\n".join(format_summary(result.metrics, result.folder, result.warnings)))


@with_options(*TRAINING_SECTIONS, "search")
def search(
    options: dict[str, Any],
    data: Data = None,
    space: SpaceFile = None,
    config: ConfigFile = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Search for the best settings of a training, on one machine or on several that share --out."""
    from whirl.runs.search import search_run
    from whirl.runs.search_folder import resolve_search
    from whirl.runs.sections import SearchSection

    choices = {name: options.pop(name) for name in SearchSection.model_fields if name in options}
    given = options | ({} if data is None else {"data": str(data)})
    resolved, folder = resolve_search(given, config, space, out, resume, **choices)
    result = search_run(resolved, folder, resume)
    echo("\n".join(result.lines))
    if result.interrupted_by is not None:
        raise typer.Exit(EX_SIGNAL_BASE + result.interrupted_by)


@with_options("whirl.runs.command_options.ScheduleSection")
def schedule(options: Any, name: Annotated[str, typer.Argument(help="warmup_cosine, onecycle, step, ...")]) -> None:
    """Print, or save, a learning-rate schedule before training with it."""
    from whirl.runs.schedule import show_schedule

    echo(show_schedule(name, **options.model_dump()))


@with_options("whirl.experiments.ablation_options.AblationOptions")
def physics(
    options: Any,
    data: Annotated[Path | None, typer.Argument(help="Folder of recordings; simulates bearings by default.")] = None,
) -> None:
    """Measure how much physics improves on cross entropy, with negative controls."""
    from whirl.experiments import format_table, run_physics_ablation

    logging.getLogger("whirl.training").setLevel(logging.WARNING)  # hundreds of trainings would flood the log
    echo(format_table(run_physics_ablation(**options.arguments(data))))
    echo(f"table.md, ablation.png and results.jsonl are in {options.out}")


ablation = make_group("ablation", "Ablations with paired runs and controls.", physics)


@with_options(*TRAINING_SECTIONS, "search")
def show(options: dict[str, Any], config: ConfigFile = None) -> None:
    """Print the settings as YAML, with those of a file and of options, for `whirl train --config`."""
    from whirl.runs.config_files import load_config, to_yaml

    echo(to_yaml(load_config(config, options), all_sections=True), nl=False)


def schema() -> None:
    """Print the JSON schema of the YAML files, for editors."""
    from whirl.runs.settings_page import schema_text

    echo(schema_text())


def page() -> None:
    """Print the page of all settings in Markdown."""
    from whirl.runs.settings_page import settings_page

    echo(settings_page(), nl=False)


config = make_group("config", "Show the settings.", show, schema, page)
