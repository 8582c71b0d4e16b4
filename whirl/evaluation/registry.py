"""Registry of additional test metrics, for `whirl train --metrics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from whirl.data.recording import Recording
from whirl.evaluation.prediction import Predictions
from whirl.registry import Registry

Metric = Callable[[Predictions, Sequence[Recording], Sequence[str]], float]

METRICS: Registry[Metric] = Registry("metric", group="whirl.metrics")


def register_metric(name: str) -> Callable[[Metric], Metric]:
    """Register a test metric under a name, for `whirl train --metrics`.

    Decorates a function of predictions, the recordings that they index, and the class names, which returns a number. It
    is computed for windows and for recordings.

    Example:
        >>> @register_metric("share_of_confident")
        ... def share_of_confident(predictions, recordings, classes):
        ...     return float((predictions.probabilities.max(1) > 0.9).mean())
    """
    return METRICS.register(name)
