"""`whirl simulate`, `whirl inspect` and `whirl show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whirl.cli.errors import names_in, report_errors


@report_errors
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    family: Annotated[str, typer.Option(help="journal or rolling.")] = "journal",
    machines: Annotated[int, typer.Option(help="Machines (specimens), each recorded in every class.")] = 80,
    recordings: Annotated[int, typer.Option(help="Recordings of each class on each machine.")] = 2,
    seconds: Annotated[float, typer.Option(help="Length of a recording (s).")] = 5.0,
    sampling_rate: Annotated[float, typer.Option(help="Samples per second (Hz).")] = 20480.0,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same bits.")] = 0,
) -> None:
    """Write simulated recordings and their manifest."""
    from whirl.data.dataset import save_dataset
    from whirl.runs.config import make_config
    from whirl.runs.data import simulate_recordings

    settings = {
        "family": family,
        "n_machines": machines,
        "recordings_per_class": recordings,
        "duration_s": seconds,
        "sampling_rate_hz": sampling_rate,
        "seed": seed,
    }
    simulation = make_config({"simulation": settings}, "simulate").data.simulation
    save_dataset(simulate_recordings(simulation), out)
    typer.echo(f"recordings and manifest.csv are in {out}")


@report_errors
def inspect(
    data: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    channels: Annotated[str | None, typer.Option(help="Channels to inspect, e.g. DE,FE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to inspect.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Rate (Hz) of files that state none.")] = None,
) -> None:
    """Show what is in a folder of recordings, and what is suspicious."""
    from whirl.data.inspection import inspect_dataset

    inspection = inspect_dataset(
        data, channels=names_in(channels), classes=names_in(classes), sampling_rate_hz=sampling_rate
    )
    typer.echo(str(inspection))


@report_errors
def show(
    file: Annotated[Path, typer.Argument(help="A recording.")],
    representation: Annotated[str, typer.Option(help="stft, cwt, wvd, envelope or order.")] = "cwt",
    out: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing, for its fault lines, e.g. 6205.")] = None,
    rpm: Annotated[float | None, typer.Option(help="Shaft speed (rpm), if the file does not state it.")] = None,
    channel: Annotated[str | None, typer.Option(help="Channel to draw; the first by default.")] = None,
    tachometer: Annotated[str | None, typer.Option(help="Channel with one pulse per revolution.")] = None,
    start: Annotated[float, typer.Option(help="Start of the stretch to draw (s).")] = 0.0,
    seconds: Annotated[float | None, typer.Option(help="Length of the stretch to draw (s).")] = None,
    low: Annotated[float | None, typer.Option(help="Lowest frequency, Hz or orders; requires --high.")] = None,
    high: Annotated[float | None, typer.Option(help="Highest frequency; requires --low.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Rate (Hz) of a file that states none.")] = None,
) -> None:
    """Draw a recording in time and frequency, with the expected fault lines."""
    from whirl.evaluation.time_frequency_plot import show_recording

    if (low is None) != (high is None):
        raise ValueError("--low and --high go together: give both or none")
    picture = show_recording(
        file,
        representation,
        out,
        bearing=bearing,
        rpm=rpm,
        channel=channel,
        tachometer=tachometer,
        start_s=start,
        duration_s=seconds,
        frequency_range=None if low is None or high is None else (low, high),
        sampling_rate_hz=sampling_rate,
    )
    typer.echo(f"the picture is in {picture}")
