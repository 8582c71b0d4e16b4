"""`whirl simulate`, `whirl inspect`, `whirl datasets` and `whirl show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.commands import with_options
from whirl.cli.errors import echo


@with_options("whirl.runs.sections.SimulationSection")
def simulate(options: Any, out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")]) -> None:
    """Write simulated recordings and their manifest."""
    from whirl.data.dataset import save_dataset
    from whirl.runs.reading import simulate_recordings

    save_dataset(simulate_recordings(options), out)
    echo(f"recordings and manifest.csv are in {out}")


@with_options("whirl.runs.command_options.InspectSection")
def inspect(options: Any, data: Annotated[Path, typer.Argument(help="Folder of recordings.")]) -> None:
    """Summarize a folder of recordings and report suspicious ones."""
    from whirl.data.draft import write_draft
    from whirl.data.inspection import inspect_dataset

    settings = options.model_dump()
    out, pattern = settings.pop("write_manifest"), settings.pop("pattern")
    if pattern and not out:
        raise ValueError("--pattern requires --write-manifest FILE")
    echo("\n".join(write_draft(data, out, pattern)) if out else str(inspect_dataset(data, **settings)))


def datasets() -> None:
    """List public data sets, which are read as dataset:NAME once they are built."""
    from whirl.data.public_sets import list_public

    for each in list_public():
        echo(f"{'built' if each.is_built else '-':6} {each.name:20} {each.title}")


@with_options("whirl.runs.command_options.ShowSection")
def show(options: Any, file: Annotated[Path, typer.Argument(help="A recording.")]) -> None:
    """Draw a recording in time and frequency, with the expected fault lines."""
    from whirl.evaluation.time_frequency_plot import show_recording

    echo(f"the picture is in {show_recording(file, **options.arguments)}")
