"""Evaluation of a run on its test part or on other recordings."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whirl._csv import safe_cell
from whirl.data.dataset import load_dataset
from whirl.data.leakage import find_leaks
from whirl.data.recording import Recording
from whirl.data.resampling import to_common_rate
from whirl.data.splits import Split
from whirl.diagnosis.learned import LearnedDiagnoser
from whirl.diagnosis.selection import suitable_candidates
from whirl.engine.files import write_json, write_text
from whirl.evaluation.metrics import compute_metrics
from whirl.evaluation.prediction import Predictions, aggregate_by_recording, predict_windows
from whirl.evaluation.registry import METRICS
from whirl.evaluation.report import Drawings, Report, draw, render_report, summarize
from whirl.evaluation.target_scores import target_scores
from whirl.evaluation.verdict import alarm_rates, risk_coverage
from whirl.runs.config import Config, training_settings
from whirl.runs.data import PreparedData, prepare_run
from whirl.runs.descriptors import baselines, better_baselines, is_descriptor_model, predict_test
from whirl.runs.diagnosis import known_facts
from whirl.runs.evaluation_task import EvaluationTask, Metrics
from whirl.runs.factory import PhysicsBaseline, bearing_orders, load_run_network, physics_baseline
from whirl.runs.fingerprint import library_versions
from whirl.runs.harmonization import check_convertible, complete
from whirl.runs.operating_range import OperatingRange, load_operating_range
from whirl.runs.reliability import FALSE_ALARM_RATE, Reliability
from whirl.runs.run_folder import COMPARED, RunFolder
from whirl.runs.value_evaluation import check_targets, evaluate_values, format_values


@dataclass(frozen=True)
class Evaluation:
    """The scores of a diagnoser on test recordings.

    Attributes:
        task: what was evaluated.
        metrics: as returned by `evaluate_task`.
        by_recording: predictions of the recordings.
        n_parameters: number of parameters of a network; None for a model of descriptors.
    """

    task: EvaluationTask
    metrics: Metrics
    by_recording: Predictions
    n_parameters: int | None

    def write(self, folder: RunFolder) -> None:
        """Write `metrics.json`, `predictions.csv` and `report.html`, with the networks compared with in the folder."""
        self.metrics["baselines"] |= scores_of_networks(folder)
        report = self._report()
        self.metrics["trust"]["verdict"] = summarize(report)["verdict"]
        write_json(folder.metrics_file, self.metrics)
        table = predictions_table(self.by_recording, self.task.test, self.task.data.classes)
        write_text(folder.predictions_file, table)
        # Last: figures that cannot be drawn must not cost the metrics.
        write_text(folder.report_file, render_report(report, self._drawings))

    def _report(self) -> Report:
        return _make_report(self.task, self.n_parameters, self.metrics, self.by_recording)

    @cached_property
    def _drawings(self) -> Drawings:
        """Drawn once, although the page is written again when networks to compare with are trained."""
        return draw(self._report())


def evaluate_task(model: nn.Module | LearnedDiagnoser, task: EvaluationTask, folder: RunFolder) -> Metrics:
    """Evaluate a diagnoser on the test recordings, and write `metrics.json`, `predictions.csv` and `report.html`.

    Returns:
        `{"recording": {...}, "baselines": {...}}`, for a network also `"window"`; see
        `whirl.evaluation.metrics.compute_metrics` and `whirl.runs.descriptors.baselines`, and for numbers
        `whirl.evaluation.values.value_metrics`.
    """
    if task.data.config.is_regression and isinstance(model, nn.Module):
        return evaluate_values(model, task, folder)
    evaluation = score_task(model, task)
    evaluation.write(folder)
    return evaluation.metrics


def score_task(model: nn.Module | LearnedDiagnoser, task: EvaluationTask) -> Evaluation:
    """Score a diagnoser of classes on the test recordings."""
    data = task.data
    threshold = data.config.evaluation.threshold
    predictions = {level: replace(each, threshold=threshold) for level, each in _predict(model, task).items()}
    raw = predictions["recording"]
    predictions["recording"] = replace(raw, probabilities=task.reliability.calibrate(raw.probabilities))
    metrics = {level: compute_metrics(each, task.test, data.classes) for level, each in predictions.items()}
    for level, each in predictions.items():
        metrics[level] |= target_scores(data.config.training.task, each, data.classes)
    _add_registered(metrics, predictions, task)
    by_recording = predictions["recording"]
    metrics["recording"]["alarm_rates"] = alarm_rates(by_recording, task.test, data.classes)
    metrics["trust"] = _trust(task, raw, by_recording)
    metrics["baselines"] = baselines(data.classes, task.descriptors, _predict_by_evidence(task))
    n_parameters = sum(each.numel() for each in model.parameters()) if isinstance(model, nn.Module) else None
    return Evaluation(task, metrics, by_recording, n_parameters)


def scores_of_networks(folder: RunFolder) -> dict[str, dict[str, float]]:
    """Return accuracy and macro F1 of the networks that were trained to be compared with, by name."""
    found = {}
    for file in sorted((folder.path / COMPARED).glob("*/metrics.json")):
        recording = json.loads(file.read_text(encoding="utf-8"))["recording"]
        found[f"network {file.parent.name}"] = {name: recording[name] for name in ("accuracy", "macro_f1")}
    return found


def _predict(model: nn.Module | LearnedDiagnoser, task: EvaluationTask) -> dict[str, Predictions]:
    """Predict the test recordings; a network predicts windows, of which recordings have the mean."""
    data = task.data
    if isinstance(model, LearnedDiagnoser):
        return {"recording": predict_test(model, data.classes, task.descriptors)}
    windows = predict_windows(model, data.windows(task.test), data.device)
    return {"window": windows, "recording": aggregate_by_recording(windows)}


def _trust(task: EvaluationTask, raw: Predictions, calibrated: Predictions) -> dict[str, Any]:
    """Return how far calibration, prediction sets and the detector of unusual recordings hold on the test part."""
    known, sets = calibrated.known, task.reliability.sets
    p_values = task.reliability.p_values(task.descriptors, "test", raw.probabilities)
    rejected = p_values[~np.isnan(p_values)] <= FALSE_ALARM_RATE
    contains = None if sets is None else sets.contains(calibrated.probabilities[known])
    return {
        "temperature": task.reliability.temperature,
        "nominal_coverage": None if sets is None else sets.coverage,
        "coverage": None if contains is None else _mean(contains[np.arange(len(contains)), calibrated.targets[known]]),
        "mean_set_size": None if contains is None else _mean(contains.sum(axis=1)),
        "stated_rejection_rate": FALSE_ALARM_RATE,
        "rejected": _mean(rejected),
        "risk_coverage": risk_coverage(calibrated) if known.any() else [],
    }


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _predict_by_evidence(task: EvaluationTask) -> Predictions | None:
    """Predict by the physical evidence of rotors, untrained; None where it does not apply."""
    data, physics = task.data, _physics_of_windows(task)
    suitable = suitable_candidates(data.split.train)
    if physics is None or (suitable and suitable[0].kind == "families"):
        return None
    return aggregate_by_recording(predict_windows(physics, data.windows(task.test), data.device))


def _physics_of_windows(task: EvaluationTask) -> PhysicsBaseline | None:
    """Return the classifier of windows by physical evidence; None if speeds are unknown or sampling rates differ."""
    data = task.data
    recordings = [*data.split.train, *task.test]
    has_one_rate = {recording.sampling_rate_hz for recording in recordings} == {data.config.data.sampling_rate_hz}
    is_known = any(recording.rpm is not None for recording in task.test)
    return physics_baseline(data) if has_one_rate and is_known else None


def _make_report(task: EvaluationTask, n_parameters: int | None, metrics: Metrics, by_recording: Predictions) -> Report:
    data, config = task.data, task.data.config
    return Report(
        title=f"{config.model_name} on {task.source}",
        data=task.source,
        command=task.command,
        config=training_settings(config),
        classes=data.classes,
        model=config.model_name,
        n_parameters=n_parameters,
        history=task.history,
        metrics=metrics,
        predictions=by_recording,
        parts=data.parts() | {"test": task.test},
        split_by=config.split.by,
        window=config.input.window,
        hops=dict.fromkeys(("train", "unlabeled"), config.input.hop),
        window_reason=data.window_reason,
        better_baselines=better_baselines(metrics),
        notes=[*task.warnings, *task.notes],
        leaks=task.leaks,
        orders=bearing_orders(config),
        physics=_physics_of_windows(task),
        timings_s=task.timings_s,
        versions=library_versions(),
    )


def _add_registered(metrics: Metrics, predictions: Mapping[str, Predictions], task: EvaluationTask) -> None:
    """Add the configured metrics that plug-ins have registered."""
    for name in task.data.config.evaluation.metrics:
        for level, predicted in predictions.items():
            value = float(METRICS.get(name)(predicted, task.test, task.data.classes))
            metrics[level].setdefault("registered", {})[name] = value


def predictions_table(by_recording: Predictions, recordings: Sequence[Recording], classes: Sequence[str]) -> str:
    """Format the predictions as CSV: file, specimen, label, prediction and class probabilities of each recording."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "specimen", "label", "predicted", *map(safe_cell, classes)])
    for row, recording, predicted in zip(
        by_recording.probabilities, by_recording.recording, by_recording.predicted, strict=True
    ):
        tested = recordings[recording]
        facts = [tested.source or tested.name, tested.specimen, tested.label, classes[predicted]]
        table.writerow([*(safe_cell(fact or "") for fact in facts), *(f"{probability:.6f}" for probability in row)])
    return text.getvalue()


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    bearing: str | None = None,
    rpm: float | None = None,
) -> list[str]:
    """Evaluate a trained run again.

    Args:
        run: the run folder.
        data: folder of other labeled recordings; None uses the run's own test part.
        out: new or empty folder for `metrics.json` and `report.html`; None uses the run folder itself or, with `data`,
            a new folder inside it.
        bearing: the bearing of all recordings in `data`, see `whirl.physics.parse_bearings`; default their own.
        rpm: speed of the shaft in all recordings in `data`, > 0; default their own.

    Returns:
        The result in a few lines.

    Raises:
        ValueError: the recordings cannot be used, or are no longer those of the run; or `bearing` or `rpm` is invalid,
            or given without `data`; or another process writes to the folder.
    """
    stated = known_facts(bearing, rpm)
    if stated and data is None:
        raise ValueError(f"{next(iter(stated))} requires data: the test part of the run keeps what it was trained with")
    folder = RunFolder(run)
    target = RunFolder(out or (run if data is None else Path(run) / f"evaluation_{Path(data).resolve().name}"))
    if data is not None or target.path.resolve() != folder.path.resolve():
        target.check_empty()
    prepared = prepare_run(folder)
    model = load_trained(folder)
    if data is None:
        task = evaluate_test_split(prepared, folder)
    else:
        task = evaluate_other_data(prepared, folder, data, stated)
    with target.locked():
        metrics = evaluate_task(model, task, target)
    return format_summary(metrics, target, task.warnings)


def load_trained(folder: RunFolder) -> nn.Module | LearnedDiagnoser:
    """Load the network of a run with its best weights, or its model of descriptors."""
    if folder.diagnoser_file.is_file():
        return LearnedDiagnoser.load(folder.diagnoser_file)
    return load_run_network(folder)[1]


def evaluate_test_split(data: PreparedData, folder: RunFolder) -> EvaluationTask:
    """Return the task of evaluating a run on its own test part."""
    saved = folder.read_data()
    return EvaluationTask(
        data=data,
        test=data.split.test,
        source=describe(data.config),
        leaks=[leak.message for leak in data.leaks],
        notes=saved["notes"],
        descriptors=data.descriptors,
        reliability=Reliability.load(folder),
        command=saved["command"],
        history=folder.read_history(),
        timings_s=saved["timings_s"],
    )


def evaluate_other_data(
    data: PreparedData, folder: RunFolder, path: str | Path, stated: Mapping[str, Any] | None = None
) -> EvaluationTask:
    """Return the task of evaluating a run on other recordings, with their leaks from its training part.

    Args:
        data: the recordings of the run.
        folder: the run folder.
        path: folder of the other recordings.
        stated: what their user states of all of them, see `known_facts`.
    """
    config = data.config
    recordings = load_dataset(path, channels=config.data.channels, sampling_rate_hz=config.data.sampling_rate_hz)
    unknown = next((r for r in recordings if r.label not in data.classes), None)
    if config.is_regression:
        check_targets(recordings, config)
    elif unknown is not None:
        raise ValueError(
            f"{unknown.name}: label {unknown.label!r} does not occur in training; "
            f"expected one of: {', '.join(data.classes)}"
        )
    originals = complete([replace(recording, **(stated or {})) for recording in recordings], config)
    test = originals
    if not is_descriptor_model(config.model_name):
        for recording in originals:
            check_convertible(recording, config)
        test = to_common_rate(originals, config.data.sampling_rate_hz, config.band_hz)
    seen = [*data.split.train, *data.unlabeled]
    split = Split(seen, data.split.val, test, by=data.split.by, val_by=data.split.val_by)
    return EvaluationTask(
        data=data,
        test=test,
        source=Path(path).resolve().name,
        leaks=[leak.message for leak in find_leaks(split) if "test" in (leak.part_a, leak.part_b)],
        notes=[f"evaluated on {path}, not on the run's own test part", *data.notes],
        descriptors=data.descriptors.with_test(originals),
        reliability=Reliability.load(folder),
        command=shlex.join(["whirl", "evaluate", str(folder.path), "--data", str(path), *_options(stated or {})]),
        history=folder.read_history(),
        timings_s={},
        extrapolations=_extrapolations(load_operating_range(folder) or OperatingRange(), originals),
    )


def _extrapolations(known: OperatingRange, recordings: Sequence[Recording]) -> list[str]:
    """Return a warning of recordings at speeds, loads, rates or levels that training did not have."""
    outside = {recording.name: found for recording in recordings if (found := known.out_of_range(recording))}
    if not outside:
        return []
    name, found = next(iter(outside.items()))
    return [
        f"{len(outside)} of {len(recordings)} recordings are outside of the operating range of the training part, "
        f"e.g. {name}: {found[0]}"
    ]


def _options(stated: Mapping[str, Any]) -> list[str]:
    return [part for name, value in stated.items() for part in (f"--{name}", str(value))]


def describe(config: Config) -> str:
    """Return a short description of the recordings of a run."""
    if config.data.is_simulated:
        return f"simulated {config.data.simulation.family} bearings"
    return Path(config.data.path).name


def format_summary(metrics: Metrics, folder: RunFolder, warnings: Sequence[str] = ()) -> list[str]:
    """Format the result and its warnings in a few lines for the terminal."""
    recording = metrics["recording"]
    n_specimens = recording["n_specimens"]
    specimens = f" of {n_specimens} specimen{'s' * (n_specimens > 1)}" if n_specimens else ""
    is_number = "mae" in recording
    return [
        *((not is_number and better_baselines(metrics)) or [metrics["trust"]["verdict"]]),
        f"tested on {recording['n']} recordings{specimens}",
        *(f"  {line}" for line in (format_values(metrics) if is_number else _class_lines(metrics))),
        *(f"  warning: {warning}" for warning in warnings),
        f"report: {folder.report_file}",
    ]


def _class_lines(metrics: Metrics) -> Iterator[str]:
    """Yield the scores of classes, and those of the baselines."""
    for level in ("recording", "window"):
        if level in metrics:
            yield from _scores(level, metrics[level])
    yield from _target_lines(metrics["recording"])
    yield from _baseline_lines(metrics.get("baselines", {}))


def _target_lines(recording: Mapping[str, Any]) -> Iterator[str]:
    """Yield the scores of single faults, of levels, or of the second of two classes."""
    found = dict(recording.get("per_fault", {}))
    if "positive" in recording:
        found[recording["positive"]["class"]] = recording["positive"]
    for fault, scores in found.items():
        known = {"F1": scores["f1_score"], "AUROC": scores["auroc"]}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in known.items() if value is not None)
        yield f"{fault:20} {shown or 'does not occur'}"
    if "levels" in recording:
        levels = recording["levels"]
        kappa = levels["quadratic_kappa"]
        yield f"{'mean error in levels':20} {levels['mean_absolute_error']:.3f}"
        yield f"{'quadratic kappa':20} {'not defined' if kappa is None else f'{kappa:.3f}'}"


def _baseline_lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each baseline with its macro F1, or why it has none."""
    for name, scores in found.items():
        shown = scores["reason"] if "reason" in scores else f"macro F1 {scores['macro_f1']:.3f}"
        yield f"compared with {name}: {shown}"


def _scores(level: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, text in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        interval = metrics["intervals"][name]
        has_interval = interval["low"] is not None
        bounds = f"  [{interval['low']:.3f}, {interval['high']:.3f}]" if has_interval else ""
        yield f"{level + ' ' + text:20} {metrics[name]:.3f}{bounds}"
