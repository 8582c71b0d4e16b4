"""Evaluation of a run that predicts a number, e.g. a severity or a remaining life."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from whirl._csv import safe_cell
from whirl.data.recording import Recording
from whirl.data.value_windows import target_of
from whirl.engine.files import write_json, write_text
from whirl.evaluation.value_report import MEAN, ValueReport, render_value_report
from whirl.evaluation.values import (
    SCORES,
    ValuePredictions,
    mean_by_recording,
    predict_values,
    stated_mean,
    value_metrics,
)
from whirl.runs.config import Config, training_settings
from whirl.runs.evaluation_task import EvaluationTask, Metrics
from whirl.runs.fingerprint import library_versions
from whirl.runs.reliability import FALSE_ALARM_RATE
from whirl.runs.run_folder import RunFolder


def check_targets(recordings: Sequence[Recording], config: Config) -> None:
    """Validate that every recording states the number that a run predicts.

    Raises:
        ValueError: one does not.
    """
    for recording in recordings:
        target_of(recording, config.data.target)


def evaluate_values(model: nn.Module, task: EvaluationTask, folder: RunFolder) -> Metrics:
    """Evaluate a network on the test recordings, and write `metrics.json`, `predictions.csv` and `report.html`.

    Returns:
        Metrics by level, see `whirl.evaluation.values.value_metrics`; the errors of the baseline; and `"trust"`: how
        far the stated interval holds, and the verdict.
    """
    data = task.data
    windows = predict_values(model, data.windows(task.test), data.device)
    by_recording = mean_by_recording(windows)
    levels = {"window": windows, "recording": by_recording}
    metrics: Metrics = {name: value_metrics(each, task.test) for name, each in levels.items()}
    mean = float(np.mean([target_of(recording, data.config.data.target) for recording in data.split.train]))
    metrics["baselines"] = {MEAN: stated_mean(mean, by_recording)}
    metrics["trust"] = _trust(task, by_recording)
    report = _make_report(task, model, metrics, by_recording)
    metrics["trust"]["verdict"] = report.verdict
    write_json(folder.metrics_file, metrics)
    write_text(folder.predictions_file, _table(by_recording, task.test))
    write_text(folder.report_file, render_value_report(report))
    return metrics


def _trust(task: EvaluationTask, predictions: ValuePredictions) -> dict[str, Any]:
    """Return how often the stated interval contains the true number, and how many recordings are rejected."""
    error = task.reliability.typical_error
    half_width = None if error is None else error.half_width
    p_values = task.reliability.p_values(task.descriptors, "test", predictions.values[:, None])
    known = p_values[~np.isnan(p_values)]
    return {
        "typical_error": None if error is None else error.mean_absolute,
        "half_width": half_width,
        "coverage": None if half_width is None else float((np.abs(predictions.errors) <= half_width).mean()),
        "stated_rejection_rate": FALSE_ALARM_RATE,
        "rejected": float((known <= FALSE_ALARM_RATE).mean()) if len(known) else None,
    }


def _make_report(
    task: EvaluationTask, model: nn.Module, metrics: Metrics, predictions: ValuePredictions
) -> ValueReport:
    data, config = task.data, task.data.config
    return ValueReport(
        title=f"{config.model_name} on {task.source}",
        data=task.source,
        command=task.command,
        config=training_settings(config),
        model=config.model_name,
        n_parameters=sum(each.numel() for each in model.parameters()),
        history=task.history,
        metrics=metrics,
        parts=data.parts() | {"test": task.test},
        split_by=config.split.by,
        window=config.input.window,
        hops={"train": config.input.hop},
        window_reason=data.window_reason,
        notes=[*task.warnings, *task.notes],
        leaks=task.leaks,
        timings_s=task.timings_s,
        versions=library_versions(),
        target=config.data.target,
        predictions=predictions,
        typical_error=str(task.reliability.typical_error or "The typical error is unknown"),
    )


def _table(predictions: ValuePredictions, recordings: Sequence[Recording]) -> str:
    """Format the predictions as CSV: file, specimen, true and predicted number of each recording."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "specimen", "target", "predicted"])
    rows = zip(predictions.recording, predictions.targets, predictions.values, strict=True)
    for index, target, value in rows:
        tested = recordings[index]
        facts = [safe_cell(fact or "") for fact in (tested.source or tested.name, tested.specimen)]
        table.writerow([*facts, f"{target:.9g}", f"{value:.9g}"])
    return text.getvalue()


def format_values(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the scores of each level with their intervals, and those of the baseline, for the terminal."""
    for level in ("recording", "window"):
        for name, text in SCORES.items():
            value, interval = metrics[level][name], metrics[level]["intervals"][name]
            bounds = "" if interval["low"] is None else f"  [{interval['low']:.4g}, {interval['high']:.4g}]"
            yield f"{level + ' ' + text:30} {'not defined' if value is None else f'{value:.4g}'}{bounds}"
    for name, errors in metrics["baselines"].items():
        yield f"compared with the {name}: mean absolute error {errors['mae']:.4g}, RMS error {errors['rmse']:.4g}"
