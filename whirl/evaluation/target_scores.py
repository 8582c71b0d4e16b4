"""Scores of single faults for compound labels, of levels for ordinal labels, and of the second of two classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from whirl.engine.epoch_metrics import area_under_roc
from whirl.evaluation.prediction import Predictions
from whirl.models.heads import membership, single_faults


def fault_probabilities(probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the probability of each single fault: the sum over the labels that name it.

    Args:
        probabilities: probabilities of the labels, `[W, K]`.
        classes: the K labels, e.g. `inner_race+ball`.

    Returns:
        Probabilities `[W]` by fault.

    Example:
        >>> found = fault_probabilities(np.array([[0.1, 0.2, 0.7]]), ["healthy", "ball", "inner_race+ball"])
        >>> {name: round(float(values[0]), 3) for name, values in found.items()}
        {'ball': 0.9, 'inner_race': 0.7}
    """
    columns = (probabilities @ membership(classes).double().numpy()).T
    return dict(zip(single_faults(classes), columns, strict=True))


def fault_scores(predictions: Predictions, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compute precision, recall, F1, AUROC and support of each single fault, which is predicted above 0.5.

    A score is None where it is not defined: without predicted, true, or both kinds of rows.

    Example:
        >>> predictions = Predictions(np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]), np.array([2, 0]), np.array([0, 1]))
        >>> fault_scores(predictions, ["healthy", "ball", "inner_race+ball"])["ball"]["f1_score"]
        1.0
    """
    known = predictions.select(predictions.known)
    true = membership(classes).numpy().astype(bool)[known.targets].T
    found = fault_probabilities(known.probabilities, classes)
    return {name: _scores(scores, labels) for (name, scores), labels in zip(found.items(), true, strict=True)}


def _scores(probabilities: np.ndarray, labels: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
    predicted = probabilities > threshold
    hits, n_predicted, n_true = int((predicted & labels).sum()), int(predicted.sum()), int(labels.sum())
    return {
        "precision": hits / n_predicted if n_predicted else None,
        "recall": hits / n_true if n_true else None,
        "f1_score": 2 * hits / (n_predicted + n_true) if n_predicted + n_true else None,
        "auroc": None if labels.all() or not labels.any() else _area(probabilities, labels),
        "support": n_true,
    }


def _area(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return area_under_roc(torch.from_numpy(probabilities), torch.from_numpy(labels))


def level_scores(predictions: Predictions) -> dict[str, float | None]:
    """Compute the mean absolute error in levels, and the quadratic weighted kappa (Cohen 1968).

    Kappa is 1 minus the mean squared error over that of pairs drawn at random; None if that is 0.

    Example:
        >>> predictions = Predictions(np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]), np.arange(3))
        >>> {name: round(value, 3) for name, value in level_scores(predictions).items()}
        {'mean_absolute_error': 0.333, 'quadratic_kappa': 0.667}
    """
    known = predictions.select(predictions.known)
    errors = known.predicted - known.targets
    spread = np.var(known.predicted) + np.var(known.targets)
    at_random = float(spread + errors.mean() ** 2)  # mean squared difference of all pairs
    return {
        "mean_absolute_error": float(np.abs(errors).mean()),
        "quadratic_kappa": 1 - float(np.square(errors).mean()) / at_random if at_random else None,
    }


def positive_scores(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """Compute the scores of the second of two classes, which is predicted above the threshold of the predictions.

    Returns:
        `class`, `threshold`, and what `fault_scores` returns for a fault.

    Example:
        >>> predictions = Predictions(np.array([[0.6, 0.4], [0.8, 0.2]]), np.array([1, 0]), np.arange(2), threshold=0.3)
        >>> positive_scores(predictions, ["healthy", "wear"])["recall"]
        1.0
    """
    known = predictions.select(predictions.known)
    found = _scores(known.probabilities[:, 1], known.targets == 1, known.threshold)
    return {"class": classes[1], "threshold": known.threshold, **found}


_SCORES = {
    "multilabel": lambda predictions, classes: {"per_fault": fault_scores(predictions, classes)},
    "ordinal": lambda predictions, _: {"levels": level_scores(predictions)},
    "binary": lambda predictions, classes: {"positive": positive_scores(predictions, classes)},
}


def target_scores(task: str, predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """Return the scores that a task has beside those of classes: `per_fault`, `levels` or `positive`."""
    return _SCORES[task](predictions, classes) if task in _SCORES else {}
