"""`whirl evaluate`, `compare`, `export`, `predict` and `runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from whirl.cli.errors import EX_USAGE, echo_error, names_in, report_errors


@report_errors
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[Path | None, typer.Option(help="Other labeled recordings than the test part.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and report.html.")] = None,
) -> None:
    """Evaluate a trained diagnoser again, on its own test part or on other recordings."""
    from whirl.runs.evaluation import evaluate

    for line in evaluate(run, data, out):
        typer.echo(line)


@report_errors
def compare(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    other: Annotated[Path, typer.Argument(help="Another run, tested on the same recordings.")],
    device: Annotated[str, typer.Option(help="Device to time the networks on.")] = "cpu",
) -> None:
    """Compare two runs: accuracy, agreement, McNemar's test, parameters, latency, size."""
    from whirl.runs.comparison import compare_runs

    typer.echo(str(compare_runs(run, other, device)))


@report_errors
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    bundle: Annotated[bool, typer.Option("--bundle", help="Weights and facts; safe to exchange (default).")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX graph.")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="torch.export program.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder or file to write; in the run folder by default.")] = None,
) -> None:
    """Export a trained diagnoser for other machines and programs."""
    from whirl.runs.export import Kind, export_run

    if bundle + onnx + torch > 1:
        raise ValueError("--bundle, --onnx and --torch are mutually exclusive")
    kind: Kind = "onnx" if onnx else "torch" if torch else "bundle"
    for line in export_run(run, out, kind):
        typer.echo(line)


@report_errors
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder, or a bundle.")],
    files: Annotated[list[Path], typer.Argument(help="Recordings to diagnose.")],
    sampling_rate: Annotated[float | None, typer.Option(help="Rate (Hz) of files that state none.")] = None,
    channels: Annotated[str | None, typer.Option(help="Names of the files' channels, in order, e.g. DE,FE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict the fault of each recording, with its probability."""
    from whirl.runs.prediction import predict_files

    diagnoses, failures = predict_files(run, files, sampling_rate, names_in(channels))
    if as_json:
        typer.echo(json.dumps([d.as_dict() for d in diagnoses], indent=2))
    else:
        for diagnosis in diagnoses:
            typer.echo(str(diagnosis))
    for error in failures.values():
        echo_error(error)
    if failures:
        raise typer.Exit(EX_USAGE)


@report_errors
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder with run folders, at any depth.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="Column to sort by, e.g. model, macro_f1.")] = "finished",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a LaTeX table.")] = False,
) -> None:
    """List the runs below a folder: data, network, score with its interval, when and how long."""
    from whirl.cli.tables import echo_table
    from whirl.runs.listing import list_runs, table_of, to_csv, to_latex

    if as_csv and latex:
        raise ValueError("--csv and --latex are mutually exclusive")
    rows = list_runs(folder, sort)
    if as_csv or latex:
        typer.echo(to_csv(rows) if as_csv else to_latex(rows), nl=False)
    else:
        echo_table(table_of(rows))
