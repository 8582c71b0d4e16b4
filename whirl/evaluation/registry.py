"""Further test metrics by name, for `whirl train --metrics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from whirl.data.recording import Recording
from whirl.evaluation.prediction import Predictions
from whirl.registry import Registry

Metric = Callable[[Predictions, Sequence[Recording], Sequence[str]], float]

METRICS: Registry[Metric] = Registry("metric", group="whirl.metrics")


def register_metric(name: str) -> Callable[[Metric], Metric]:
    """Add a test metric to those that `whirl train --metrics` knows.

    Decorates a function of predictions, the recordings that they refer to and the class names, which returns a number.
    It is computed on windows and on recordings.

    Example:
        >>> @register_metric("share_of_confident")
        ... def share_of_confident(predictions, recordings, classes):
        ...     return float((predictions.probabilities.max(1) > 0.9).mean())
    """
    return METRICS.register(name)
