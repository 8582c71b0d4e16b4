"""`whirl evaluate`, `compare`, `predict`, `diagnose`, `export` and `runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.commands import with_options
from whirl.cli.errors import echo, finish
from whirl.runs.output import print_results, printing

Run = Annotated[Path, typer.Argument(help="Run folder.")]


@with_options("whirl.runs.command_options.EvaluateSection")
def evaluate(options: Any, run: Run) -> None:
    """Evaluate a trained diagnoser again, on its own test part or on other recordings."""
    from whirl.runs.evaluation import evaluate

    echo("\n".join(evaluate(run, options.data, options.out, bearing=options.bearing, rpm=options.rpm)))


@with_options("whirl.runs.command_options.CompareSection")
def compare(
    options: Any,
    run: Run,
    other: Annotated[Path, typer.Argument(help="Another run, tested on the same recordings.")],
) -> None:
    """Compare two runs: accuracy, agreement, McNemar's test, parameters, latency, size."""
    from whirl.runs.comparison import compare_runs

    echo(str(compare_runs(run, other, options.device)))


@with_options("whirl.runs.command_options.ExportSection")
def export(options: Any, run: Run) -> None:
    """Export a trained diagnoser for other machines and programs."""
    from whirl.runs.export import export_run

    echo("\n".join(export_run(run, options.out, options.kind)))


@with_options("whirl.runs.command_options.PredictSection")
def predict(
    options: Any,
    run: Annotated[Path, typer.Argument(help="Run folder, or a bundle.")],
    paths: Annotated[
        list[Path], typer.Argument(help="Recordings, folders, manifests or patterns.", show_default=False)
    ],
) -> None:
    """Predict the fault of each recording, with its probability and the reasons to doubt it.

    Exit code 0: every file was judged; 2: a file could not be used; 3: a file was not judged.
    """
    from whirl.runs.batch_prediction import predict_batch
    from whirl.runs.prediction import StatedFacts

    stated = StatedFacts(options.sampling_rate_hz, options.channels, options.bearing, options.rpm)
    with printing(options.as_json, echo) as show:
        outcome = predict_batch(run, paths, stated, options.batch, show)
    finish(outcome.failures, outcome.exit_code)


@with_options("whirl.runs.command_options.WatchSection")
def watch(options: Any, folder: Annotated[Path, typer.Argument(help="Folder that recordings arrive in.")]) -> None:
    """Judge recordings as they arrive, and keep the alarms of each machine."""
    from whirl.runs.watching import watch_folder

    watch_folder(folder, options, echo)


@with_options("whirl.runs.command_options.LevelsSection")
def levels(
    options: Any,
    paths: Annotated[
        list[Path], typer.Argument(help="Recordings, folders, manifests or patterns.", show_default=False)
    ],
) -> None:
    """Measure the vibration: velocity RMS with its zone of ISO 20816-3, acceleration, crest factor, kurtosis."""
    from whirl.runs.levels import measure_files

    results, failures = measure_files(paths, options)
    print_results(results, options.as_json, echo)
    finish(failures)


@with_options("whirl.runs.command_options.DiagnoseSection")
def diagnose(
    options: Any,
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of recordings.", show_default=False)],
) -> None:
    """Diagnose rolling bearings without training: name the faulty part and the lines that show it."""
    from whirl.runs.diagnosis import DiagnoseOptions, diagnose_paths

    known = DiagnoseOptions(options.bearing, options.rpm, options.channels, options.sampling_rate_hz)
    results, failures, pictures = diagnose_paths(paths, known, options.csv, options.plot)
    if pictures:
        echo(f"{len(pictures)} picture{'s' if len(pictures) != 1 else ''}: {options.plot}", err=True)
    print_results(results, options.as_json, echo)
    finish(failures)


@with_options("whirl.runs.command_options.RunsSection")
def runs(
    options: Any,
    folder: Annotated[Path, typer.Argument(help="Folder with run folders, at any depth.")] = Path("runs"),
) -> None:
    """List the runs below a folder: data, network, score with its interval, when and how long."""
    from whirl.runs.listing import list_runs, print_table, to_csv, to_latex

    rows = list_runs(folder, options.sort)
    if options.as_csv or options.latex:
        echo(to_csv(rows) if options.as_csv else to_latex(rows), nl=False)
    else:
        print_table(rows)
