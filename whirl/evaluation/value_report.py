"""The report of a run that predicts a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from whirl.evaluation.figures import plot_values
from whirl.evaluation.report import ReportFacts, embed, learning_figures, render_page
from whirl.evaluation.values import SCORES, ValuePredictions

MEAN = "mean of the training targets"
"""Name of the baseline that always states this number."""

_N_LARGEST = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueReport(ReportFacts):
    """Content of a report of predicted numbers; `metrics` are those of `values.value_metrics`.

    Attributes:
        target: what is predicted.
        predictions: predictions for the test recordings, which index `parts["test"]`.
        typical_error: the error to expect, in words.
    """

    target: str
    predictions: ValuePredictions
    typical_error: str

    @property
    def verdict(self) -> str:
        """The answer to the question whether the network is of use."""
        return value_verdict(self.metrics, self.target, self.is_unseen)


def value_verdict(metrics: Mapping[str, Any], target: str, is_unseen: bool) -> str:
    """Return the answer to the question whether a network that predicts a number is of use.

    Args:
        metrics: metrics by level, and the baseline.
        target: what is predicted.
        is_unseen: whether no test specimen occurs in the training data.

    Example:
        >>> found = {"recording": {"mae": 0.1}, "baselines": {MEAN: {"mae": 0.4}}}
        >>> value_verdict(found, "severity", is_unseen=True)
        'The predicted severity is off by 0.1 in the mean on machines it has not seen; always stating the mean of the \
training targets is off by 0.4.'
    """
    own, other = metrics["recording"]["mae"], metrics["baselines"][MEAN]["mae"]
    if own >= other:
        return f"Do not use: no better than always stating the {MEAN}."
    place = "on machines it has not seen" if is_unseen else "on machines that may occur in the training data"
    return (
        f"The predicted {target} is off by {own:.3g} in the mean {place}; always stating the {MEAN} is off by "
        f"{other:.3g}."
    )


def render_value_report(report: ValueReport) -> str:
    """Render a report as an HTML page."""
    found = report.predictions
    scatter = plot_values(found.values.tolist(), found.targets.tolist(), report.target)
    return render_page(
        "value_report.html",
        report,
        scores=SCORES,
        interval=_interval_sentence(report.metrics["recording"]["intervals"]["mae"]),
        figures={"learning": learning_figures(report), "scatter": embed(scatter, "predicted over true numbers")},
        largest=_largest_errors(report),
        class_counts=[],
    )


def _interval_sentence(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return f"No confidence interval: {interval['reason']}."
    return (
        f"95 % confidence interval of the mean absolute error {interval['low']:.3g} to {interval['high']:.3g}, by "
        f"bootstrap over {interval['n_specimens']} specimens."
    )


def _largest_errors(report: ValueReport) -> list[dict[str, Any]]:
    found = report.predictions
    worst = np.argsort(-np.abs(found.errors), kind="stable")[:_N_LARGEST]
    rows = [(report.parts["test"][int(found.recording[row])], found.targets[row], found.values[row]) for row in worst]
    return [dict(zip(("recording", "target", "value"), row, strict=True)) for row in rows]
