"""The `whirl` command: thin, with every import where it is needed."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Train and honestly judge machine-fault diagnosers from vibration recordings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

EX_USAGE, EX_INTERRUPTED, EX_SIGNAL_BASE = 2, 130, 128


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can mend into one line and exit code 2, and Ctrl-C into exit code 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("whirl: interrupted", err=True)
            raise typer.Exit(EX_INTERRUPTED) from None
        except (ValueError, OSError, ImportError, MemoryError) as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            _defer_to_rank_zero()
            typer.echo(f"whirl: {' '.join(_explain(error).split())}", err=True)
            raise typer.Exit(EX_USAGE) from None

    return run


def _defer_to_rank_zero() -> None:
    """Of processes that fail for the same reason one line is enough: torchrun ends the others when the first has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        time.sleep(20)


def _explain(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _show_version(asked: bool) -> None:
    if asked:
        from whirl._distribution import installed_version

        typer.echo(f"whirl {installed_version()}")
        raise typer.Exit


@app.callback()
def whirl(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details, with tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Set up logging: messages go to stderr, results to stdout."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # Of several processes that torchrun starts, the first one tells.
    usual = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.getLogger("whirl").setLevel(logging.DEBUG if verbose else usual)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *rest, **more: f"warning: {message}"


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@app.command()
@report_errors
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    family: Annotated[str, typer.Option(help="journal or rolling.")] = "journal",
    machines: Annotated[int, typer.Option(help="Machines (specimens), each recorded in every class.")] = 80,
    recordings: Annotated[int, typer.Option(help="Recordings of each class on each machine.")] = 2,
    seconds: Annotated[float, typer.Option(help="Length of a recording.")] = 5.0,
    sampling_rate: Annotated[float, typer.Option(help="Hz.")] = 20480.0,
    seed: Annotated[int, typer.Option(help="Same seed, same bits.")] = 0,
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
    save_dataset(simulate_recordings(make_config({"simulation": settings}, "simulate").simulation), out)
    typer.echo(f"recordings and manifest.csv are in {out}")


@app.command()
@report_errors
def inspect(
    data: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    channels: Annotated[str | None, typer.Option(help="Channels to look at, e.g. DE,FE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to look at.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz of files that do not say theirs.")] = None,
) -> None:
    """Show what is in a folder of recordings, and what is suspicious."""
    from whirl.data.inspection import inspect_dataset

    inspection = inspect_dataset(
        data, channels=_names(channels), classes=_names(classes), sampling_rate_hz=sampling_rate
    )
    typer.echo(str(inspection))


@app.command()
@report_errors
def train(
    data: Annotated[Path | None, typer.Argument(help="Folder of recordings; none simulates journal bearings.")] = None,
    model: Annotated[str | None, typer.Option(help="cnn1d, wdcnn, resnet18_1d, hybrid_pinn, ...")] = None,
    trainer: Annotated[str | None, typer.Option(help="cnn, or pinn, which holds predictions against physics.")] = None,
    representation: Annotated[str | None, typer.Option(help="stft, cwt, wvd, envelope, order or multi.")] = None,
    specaugment: Annotated[bool | None, typer.Option(help="Mask stretches of the maps in training.")] = None,
    cache_maps: Annotated[Path | None, typer.Option(help="Keep maps in this folder for further runs.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Run folder of a network to learn from.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Softens the teacher's probabilities, > 0.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Share of the teacher in the loss, 0 to 1.")] = None,
    width: Annotated[float | None, typer.Option(help="Share of a network's usual channels, for students.")] = None,
    progressive: Annotated[str | None, typer.Option(help="Stages LENGTH:EPOCHS, e.g. 512:5,1024:5,2048:10.")] = None,
    progressive_method: Annotated[str | None, typer.Option(help="crop, interpolate or truncate.")] = None,
    lambda_freq: Annotated[float | None, typer.Option(help="Weight of the lines that physics expects.")] = None,
    rpm_from: Annotated[str | None, typer.Option(help="manifest, or signal where that does not tell.")] = None,
    unlabeled: Annotated[Path | None, typer.Option(help="Folder of recordings for physics alone.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training windows.")] = None,
    window: Annotated[int | None, typer.Option(help="Samples per window.")] = None,
    hop: Annotated[int | None, typer.Option(help="Samples between training windows.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to use, e.g. DE,FE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to use, e.g. inner_race,ball.")] = None,
    split: Annotated[str | None, typer.Option(help="specimen, recording or time.")] = None,
    test_specimens: Annotated[str | None, typer.Option(help="Specimens to test on, e.g. X,Y.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz to bring all to; of files that lack theirs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    loss: Annotated[str | None, typer.Option(help="ce or focal.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, sgd, rmsprop, ...")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of the optimizer.")] = None,
    schedule: Annotated[str | None, typer.Option(help="onecycle, warmup_cosine, ...; see whirl schedule.")] = None,
    augment: Annotated[str | None, typer.Option(help="light, medium or heavy; a policy goes into --config.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and split.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    precision: Annotated[str | None, typer.Option(help="32, bf16 or fp16.")] = None,
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing, for its fault orders, e.g. 6205.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    mmap_dir: Annotated[Path | None, typer.Option(help="Keep recordings in this folder, not in memory.")] = None,
    checkpoint_every: Annotated[str | None, typer.Option(help="Save in mid-epoch: batches, or 90s, 10min.")] = None,
    on_nonfinite: Annotated[str | None, typer.Option(help="raise or skip, for a loss that is no number.")] = None,
    sync_batchnorm: Annotated[bool | None, typer.Option("--sync-batchnorm", help="Under torchrun.")] = None,
    allow_leakage: Annotated[bool | None, typer.Option("--allow-leakage", help="Train on a split that leaks.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options on the line win.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one under runs/ by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a diagnoser, judge it on unseen specimens, write a report."""
    from whirl.training.progressive_resizing import parse_schedule

    options = {
        "data": None if data is None else str(data),
        "model": model,
        "trainer": trainer,
        "representation": representation,
        "specaugment": specaugment,
        "map_cache": None if cache_maps is None else str(cache_maps),
        "teacher": None if teacher is None else str(teacher),
        "temperature": temperature,
        "alpha": alpha,
        "width": width,
        "progressive": None if progressive is None else parse_schedule(progressive),
        "progressive_method": progressive_method,
        "lambda_freq": lambda_freq,
        "rpm_from": rpm_from,
        "unlabeled": None if unlabeled is None else str(unlabeled),
        "epochs": epochs,
        "window": window,
        "hop": hop,
        "channels": _names(channels),
        "classes": _names(classes),
        "split": split,
        "test_specimens": _names(test_specimens),
        "sampling_rate_hz": sampling_rate,
        "batch_size": batch_size,
        "lr": lr,
        "loss": loss,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "augment": augment,
        "seed": seed,
        "device": device,
        "precision": precision,
        "bearing": bearing,
        "num_workers": workers,
        "mmap_dir": None if mmap_dir is None else str(mmap_dir),
        "checkpoint_every": checkpoint_every,
        "on_nonfinite": on_nonfinite,
        "sync_batchnorm": sync_batchnorm,
        "allow_leakage": allow_leakage,
    }
    import shlex

    from whirl.runs.evaluation import format_summary
    from whirl.runs.run_folder import resolve_run
    from whirl.runs.training import train_run

    given = {name: value for name, value in options.items() if value is not None}
    settings, folder = resolve_run(given, config, out, resume)
    result = train_run(settings, folder, resume, command=shlex.join(["whirl", *sys.argv[1:]]))
    if result.metrics is None:
        typer.echo(f"stopped and saved; go on with: whirl train --resume --out {shlex.quote(str(folder))}")
        raise typer.Exit(EX_SIGNAL_BASE + (result.interrupted_by or signal.SIGINT))
    if not result.metrics:
        return  # another process of several tells
    for line in format_summary(result.metrics, result.folder, result.warnings):
        typer.echo(line)


@app.command()
@report_errors
def search(
    data: Annotated[Path | None, typer.Argument(help="Folder of recordings; none simulates journal bearings.")] = None,
    model: Annotated[str | None, typer.Option(help="cnn1d, wdcnn, resnet18_1d, hybrid_pinn, ...")] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates in all, those of other workers too; 50.")] = None,
    storage: Annotated[str | None, typer.Option(help="File or URL that workers share; a file in --out alone.")] = None,
    space: Annotated[Path | None, typer.Option(help="YAML file of what to search; the model's preset.")] = None,
    pruner: Annotated[str | None, typer.Option(help="Who ends bad trials: median, hyperband or none.")] = None,
    study: Annotated[str | None, typer.Option(help="Name within the storage.")] = None,
    representation: Annotated[str | None, typer.Option(help="stft, cwt, wvd, envelope, order or multi.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training windows in each trial.")] = None,
    window: Annotated[int | None, typer.Option(help="Samples per window.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to use, e.g. DE,FE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to use, e.g. inner_race,ball.")] = None,
    split: Annotated[str | None, typer.Option(help="specimen, recording or time.")] = None,
    test_specimens: Annotated[str | None, typer.Option(help="Specimens to leave for the test, e.g. X,Y.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz to bring all to; of files that lack theirs.")] = None,
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing, for its fault orders, e.g. 6205.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order, split and search.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    precision: Annotated[str | None, typer.Option(help="32, bf16 or fp16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options on the line win.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; a new one under runs/ by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
) -> None:
    """Search the settings of a training; the same line on several machines is one search."""
    from whirl.runs.search import resolve_search, search_run

    options = {
        "data": None if data is None else str(data),
        "model": model,
        "representation": representation,
        "epochs": epochs,
        "window": window,
        "channels": _names(channels),
        "classes": _names(classes),
        "split": split,
        "test_specimens": _names(test_specimens),
        "sampling_rate_hz": sampling_rate,
        "bearing": bearing,
        "seed": seed,
        "device": device,
        "precision": precision,
        "num_workers": workers,
    }
    given = {name: value for name, value in options.items() if value is not None}
    choices = {"trials": trials, "pruner": pruner, "storage": storage, "study": study}
    settled, folder = resolve_search(given, config, space, out, resume, **choices)
    result = search_run(settled, folder, resume)
    for line in result.lines:
        typer.echo(line)
    if result.interrupted_by is not None:
        raise typer.Exit(EX_SIGNAL_BASE + result.interrupted_by)


@app.command()
@report_errors
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[Path | None, typer.Option(help="Other labelled recordings than the run's test part.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and report.html.")] = None,
) -> None:
    """Judge a trained diagnoser again, on its own test part or on other recordings."""
    from whirl.runs.evaluation import evaluate

    for line in evaluate(run, data, out):
        typer.echo(line)


@app.command()
@report_errors
def compare(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    other: Annotated[Path, typer.Argument(help="Another, tested on the same recordings.")],
    device: Annotated[str, typer.Option(help="Where to time the networks.")] = "cpu",
) -> None:
    """Hold two runs against each other: accuracy, agreement, McNemar's test, parameters, latency, size."""
    from whirl.runs.comparison import compare_runs

    typer.echo(str(compare_runs(run, other, device)))


@app.command()
@report_errors
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    bundle: Annotated[bool, typer.Option("--bundle", help="Weights and facts; safe to exchange (default).")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="For ONNX Runtime and the like.")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="A torch.export program.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder or file to write; within the run folder by default.")] = None,
) -> None:
    """Write a trained diagnoser in a form that other machines and programs take."""
    from whirl.runs.export import Kind, export_run

    if bundle + onnx + torch > 1:
        raise ValueError("--bundle, --onnx and --torch are three forms: choose one")
    kind: Kind = "onnx" if onnx else "torch" if torch else "bundle"
    for line in export_run(run, out, kind):
        typer.echo(line)


@app.command()
@report_errors
def show(
    file: Annotated[Path, typer.Argument(help="A recording.")],
    representation: Annotated[str, typer.Option(help="stft, cwt, wvd, envelope or order.")] = "cwt",
    out: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing, for its fault lines, e.g. 6205.")] = None,
    rpm: Annotated[float | None, typer.Option(help="Speed of the shaft, where the file does not say.")] = None,
    channel: Annotated[str | None, typer.Option(help="Channel to draw; the first by default.")] = None,
    tachometer: Annotated[str | None, typer.Option(help="Channel with a pulse for each turn.")] = None,
    start: Annotated[float, typer.Option(help="Where to begin, in seconds.")] = 0.0,
    seconds: Annotated[float | None, typer.Option(help="How much to draw.")] = None,
    low: Annotated[float | None, typer.Option(help="Lowest frequency to draw, Hz or orders; with --high.")] = None,
    high: Annotated[float | None, typer.Option(help="Highest frequency to draw.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz of a file that does not say.")] = None,
) -> None:
    """Draw a recording in time and frequency, with the lines where faults are expected."""
    from whirl.evaluation.pictures import show_recording

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


@app.command()
@report_errors
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder, or a bundle.")],
    files: Annotated[list[Path], typer.Argument(help="Recordings to diagnose.")],
    sampling_rate: Annotated[float | None, typer.Option(help="Hz of files that do not say theirs.")] = None,
    channels: Annotated[str | None, typer.Option(help="Names of the files' channels, in order, e.g. DE,FE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name the fault of each recording, with its probability."""
    from whirl.runs.prediction import predict_files

    diagnoses, failures = predict_files(run, files, sampling_rate, _names(channels))
    if as_json:
        typer.echo(json.dumps([d.as_dict() for d in diagnoses], indent=2))
    else:
        for diagnosis in diagnoses:
            typer.echo(str(diagnosis))
    for error in failures.values():
        typer.echo(f"whirl: {' '.join(_explain(error).split())}", err=True)
    if failures:
        raise typer.Exit(EX_USAGE)


def _setting(text: str) -> tuple[str, Any]:
    """The name and the value in `name=value`; what reads as a number is one."""
    name, found, value = text.partition("=")
    if not (name and found):
        raise ValueError(f"--option {text!r}: expected name=value")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return name, kind(value)
    return name, value


def _settings(options: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in map(_setting, options):
        if name in settings:
            raise ValueError(f"--option {name} is given twice")
        settings[name] = value
    return settings


def _printable(text: str) -> str:
    """The text, with plain characters for blocks where the terminal's encoding has none."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return text.translate(str.maketrans("▁▂▃▄▅▆▇█", "...ooo##"))
    return text


@app.command()
@report_errors
def schedule(
    name: Annotated[str, typer.Argument(help="warmup_cosine, onecycle, step, ...")],
    epochs: Annotated[int, typer.Option(help="Length of the training.")],
    lr: Annotated[float, typer.Option(help="The optimizer's own rate.")] = 1e-3,
    steps_per_epoch: Annotated[int, typer.Option(help="Optimizer steps in each epoch.")] = 100,
    option: Annotated[list[str] | None, typer.Option(help="A setting, e.g. min_lr=1e-5; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save as .csv, .png, .svg or .pdf instead of printing.")] = None,
) -> None:
    """Draw a learning-rate schedule before training with it."""
    from whirl.optim.schedule_plots import ascii_plot, save_curve, simulate_schedule
    from whirl.optim.scheduler_factory import check_settings

    settings = _settings(option or [])
    try:
        check_settings(name, settings)  # before one of them is taken for an argument
        curve = simulate_schedule(name, epochs, steps_per_epoch, lr, **settings)
    except (TypeError, ArithmeticError) as error:  # an unknown setting, or a number that no float holds
        raise ValueError(error) from error
    if out is None:
        typer.echo(_printable(ascii_plot(curve)))
    else:
        save_curve(curve, out, title=name)
        typer.echo(f"the curve is in {out}")


study = typer.Typer(help="Experiments with paired runs and controls.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(study, name="study")


@study.command("physics")
@report_errors
def study_physics(
    data: Annotated[Path | None, typer.Argument(help="Folder of recordings; none simulates journal bearings.")] = None,
    arms: Annotated[
        str, typer.Option(help="Arms to run beside ce.")
    ] = "physics,unlabelled,random_bands,scrambled,features,features+physics,evidence,rule",
    conditions: Annotated[str, typer.Option(help="Of simulated bearings: few, speed_shift, noise.")] = "few",
    labels: Annotated[int, typer.Option(help="Labelled windows of each class; 0 takes all.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each arm.")] = 10,
    first_seed: Annotated[int, typer.Option(help="Seed of the first run.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the unlabelled windows.")] = 10,
    weight: Annotated[float, typer.Option(help="Lambda of the frequency term.")] = 1.0,
    form: Annotated[str, typer.Option(help="log, linear, set or kl.")] = "log",
    trust: Annotated[bool, typer.Option(help="Correct the physics by the labelled windows.")] = True,
    network: Annotated[str, typer.Option(help="The network, or the waveform's part of it.")] = "wdcnn",
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing of DATA, e.g. 6205.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to use, e.g. DE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to use.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz of files that do not say theirs.")] = None,
    without: Annotated[str | None, typer.Option(help="Specimens of DATA to leave out.")] = None,
    window_s: Annotated[float, typer.Option(help="Length of DATA's windows in seconds.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the results; goes on where it was stopped.")] = Path("study"),
) -> None:
    """Measure what physics adds to cross entropy, beside controls that should add nothing."""
    from whirl.experiments import physics_ablation as study

    logging.getLogger("whirl.training").setLevel(logging.WARNING)  # hundreds of trainings, not one
    setting = study.StudySetting(
        labels=labels,
        epochs=epochs,
        weight=weight,
        form=form,
        trust=trust,
        network=network,
        bearing=bearing,
        device=device,
        data=f"{data.resolve()}: {channels}, {classes}, {sampling_rate}, {without}, {window_s}"
        if data
        else "simulated",
    )
    names = ["recordings"] if data else _names(conditions) or []
    if data is None:
        tasks = study.study_simulated(setting)
    else:
        tasks = study.study_folder(
            data,
            setting,
            channels=_names(channels),
            classes=_names(classes),
            sampling_rate_hz=sampling_rate,
            without=_names(without) or (),
            window_s=window_s,
        )
    results = study.study_physics(
        tasks,
        names,
        _names(arms) or [],
        range(first_seed, first_seed + seeds),
        setting,
        out,
    )
    typer.echo(study.table(results))
    typer.echo(f"table.md, study.png and results.jsonl are in {out}")


def main() -> None:
    """Entry point of the `whirl` command."""
    app()


if __name__ == "__main__":
    main()
