"""The `whirl` command: a small module for each group of commands, with every import where it is needed."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from whirl._display import EscapingFormatter
from whirl.cli import data, runs, training
from whirl.cli.commands import make_group
from whirl.cli.errors import report_usage_error

app = make_group(
    "whirl",
    "Diagnose machine faults from vibration recordings: train, evaluate, predict.",
    data.simulate, data.inspect, data.datasets, data.show,
    runs.diagnose, runs.levels,
    training.train, training.search,
    runs.evaluate, runs.compare, runs.predict, runs.watch, runs.export, runs.runs,
    training.schedule, training.ablation,
    training.config,
)  # fmt: skip


def _show_version(requested: bool) -> None:
    if requested:
        from whirl._distribution import installed_version

        typer.echo(f"whirl {installed_version()}")
        raise typer.Exit


@app.callback()
def whirl(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details, with tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging: messages go to stderr, results to stdout."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    # Of several processes that torchrun starts, rank 0 reports.
    default = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.getLogger("whirl").setLevel(logging.DEBUG if verbose else default)
    # When a worker of a loader dies, torch raises from a signal handler, possibly while a line is being logged.
    logging.raiseExceptions = verbose
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *rest, **more: f"warning: {message}"


def main() -> None:
    """Entry point of the `whirl` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a code page may lack a character
    try:
        sys.exit(app(standalone_mode=False))
    except Exception as error:
        # Typer's own exceptions for wrong usage are not public, but all of them format their message.
        if not hasattr(error, "format_message"):
            raise
        report_usage_error(error)
