"""`whirl diagnose`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from whirl.cli.errors import EX_USAGE, echo_error, names_in, report_errors


@report_errors
def diagnose(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of recordings.", show_default=False)],
    bearing: Annotated[
        str | None,
        typer.Option(help="Bearings near the sensor, e.g. 6205, or '9, 7.94, 39.04' (elements, diameters), or orders."),
    ] = None,
    rpm: Annotated[float | None, typer.Option(help="Shaft speed (rpm); by default that of manifest or file.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to evaluate, e.g. DE,FE; all by default.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Rate (Hz) of files that state none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file to write, one line per file and channel.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Picture (.png, .svg, .pdf) of one recording, or a folder of them.")
    ] = None,
) -> None:
    """Diagnose rolling bearings without training: name the faulty part and the lines that show it."""
    from whirl.runs.diagnosis import (
        DiagnoseOptions,
        diagnose_files,
        each_result,
        list_recordings,
        write_csv,
        write_pictures,
    )

    options = DiagnoseOptions(bearing, rpm, names_in(channels), sampling_rate)
    diagnoses, failures = diagnose_files(list_recordings(paths), options)
    results = each_result(diagnoses)
    if as_json:
        typer.echo(json.dumps([result.as_dict() for result in results], indent=2, allow_nan=False))
    else:
        for result in results:
            typer.echo(str(result))
    if csv is not None:
        write_csv(results, csv)
    if plot is not None:
        pictures = write_pictures(diagnoses, options, plot)
        typer.echo(f"{len(pictures)} picture{'s' if len(pictures) != 1 else ''}: {plot}", err=True)
    for error in failures.values():
        echo_error(error)
    if failures:
        raise typer.Exit(EX_USAGE)
