"""`whirl train` and `whirl search`."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.errors import EX_SIGNAL_BASE, report_errors
from whirl.cli.options import TRAINING_SECTIONS, with_settings_options

Data = Annotated[Path | None, typer.Argument(help="Folder of recordings; simulates journal bearings by default.")]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file of settings; options on the command line win.")]


@with_settings_options(*TRAINING_SECTIONS)
@report_errors
def train(
    settings: dict[str, Any],
    data: Data = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one under runs/ by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
) -> None:
    """Train a diagnoser, evaluate it on unseen specimens, and write a report."""
    from whirl.runs.evaluation import format_summary
    from whirl.runs.run_folder import resolve_run
    from whirl.runs.training import train_run

    given = settings | ({} if data is None else {"data": str(data)})
    resolved, folder = resolve_run(given, config, out, resume)
    result = train_run(resolved, folder, resume, command=shlex.join(["whirl", *sys.argv[1:]]))
    if result.metrics is None:
        typer.echo(f"interrupted; checkpoint saved. Resume with: whirl train --resume --out {shlex.quote(str(folder))}")
        raise typer.Exit(EX_SIGNAL_BASE + (result.interrupted_by or signal.SIGINT))
    if result.metrics:  # empty in all processes but rank 0
        for line in format_summary(result.metrics, result.folder, result.warnings):
            typer.echo(line)


@with_settings_options(*TRAINING_SECTIONS, "search")
@report_errors
def search(
    settings: dict[str, Any],
    data: Data = None,
    space: Annotated[Path | None, typer.Option(help="YAML file of settings to search; the network's preset.")] = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; a new one under runs/ by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in --out.")] = False,
) -> None:
    """Search the settings of a training; the same command on several machines is one search."""
    from whirl.runs.search import search_run
    from whirl.runs.search_folder import resolve_search
    from whirl.runs.sections import SearchSection

    choices = {name: settings.pop(name) for name in SearchSection.model_fields if name in settings}
    given = settings | ({} if data is None else {"data": str(data)})
    resolved, folder = resolve_search(given, config, space, out, resume, **choices)
    result = search_run(resolved, folder, resume)
    for line in result.lines:
        typer.echo(line)
    if result.interrupted_by is not None:
        raise typer.Exit(EX_SIGNAL_BASE + result.interrupted_by)
