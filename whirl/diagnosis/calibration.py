"""Calibrated probabilities and prediction sets, from recordings that a model was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whirl.validation import check_number

_LOG_TEMPERATURES = np.linspace(math.log(0.1), math.log(10), 401)
_SMALLEST = 1e-12  # probability, before its logarithm


def specimen_weights(groups: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return weights `[n]` of recordings with sum 1, by which each specimen counts the same.

    Args:
        groups: specimen of each recording as an index >= 0, `[n]`.

    Example:
        >>> specimen_weights(np.array([0, 0, 1]))
        array([0.25, 0.25, 0.5 ])
    """
    counts = np.bincount(groups)
    return 1 / counts[groups] / (counts > 0).sum()


def scale_temperature(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return `p^(1/T)`, normalized: less certain for T > 1, more certain for T < 1.

    Source: Guo et al. (2017), On calibration of modern neural networks, ICML.

    Args:
        probabilities: `[n, K]`; rows of NaN stay NaN.
        temperature: T > 0.

    Example:
        >>> scale_temperature(np.array([[0.9, 0.1]]), 2.0).round(2)
        array([[0.75, 0.25]])
    """
    logits = np.log(np.maximum(probabilities, _SMALLEST)) / check_number("temperature", temperature, 0, open_ends=True)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(
    probabilities: NDArray[np.floating], targets: NDArray[np.integer], groups: NDArray[np.integer]
) -> float:
    """Fit the temperature that makes held-out probabilities most likely, each specimen with the same weight.

    A normal prior of log T around 0 with standard deviation 1, as strong as one specimen, keeps T near 1 where there is
    little to fit it by.

    Args:
        probabilities: probabilities of recordings not used for training, `[n, K]`, finite.
        targets: index of the class of each, `[n]`.
        groups: specimen of each recording as an index >= 0, `[n]`.

    Returns:
        T, from 0.1 to 10.

    Raises:
        ValueError: a probability is not finite.

    Example:
        >>> overconfident = np.tile([[0.99, 0.01]], (100, 1))
        >>> targets = np.arange(100) % 4 // 3  # a quarter is of the other class
        >>> temperature = fit_temperature(overconfident, targets, np.arange(100))
        >>> scale_temperature(overconfident, temperature)[0].round(1)
        array([0.8, 0.2])
    """
    _check_finite(probabilities)
    weights = specimen_weights(groups)
    n_specimens = len(np.unique(groups))
    rows = np.arange(len(targets))
    losses = [
        -n_specimens * weights @ np.log(np.maximum(scaled[rows, targets], _SMALLEST)) + log_temperature**2 / 2
        for log_temperature in _LOG_TEMPERATURES
        for scaled in [scale_temperature(probabilities, math.exp(log_temperature))]
    ]
    return math.exp(_LOG_TEMPERATURES[int(np.argmin(losses))])


@dataclass(frozen=True)
class PredictionSets:
    """Sets of classes that contain the true one at a stated rate, over specimens that were not seen in training.

    Split conformal prediction: a class belongs to the set if its probability is at least `threshold`. Specimens, not
    recordings, are exchangeable, so each has the same weight. A set is empty if no class is as probable as it is for
    the stated share of known recordings.

    Sources: Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world; Dunn, Wasserman & Ramdas (2023),
    Distribution-free prediction sets for two-layer hierarchical models, JASA 118.

    Attributes:
        threshold: smallest probability of a class in the set; 0 if there are too few specimens, so that all classes
            belong to it.
        coverage: share of specimens whose set contains the true class, 0 to 1.
        n_specimens: specimens that the threshold was determined on.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> probabilities = rng.dirichlet([1, 1, 1], size=400)
        >>> targets = np.array([rng.choice(3, p=row) for row in probabilities])
        >>> sets = PredictionSets.fit(probabilities[:200], targets[:200], np.arange(200), coverage=0.9)
        >>> bool(0.85 < sets.contains(probabilities)[np.arange(200, 400), targets[200:]].mean() < 0.95)
        True
    """

    threshold: float
    coverage: float
    n_specimens: int

    @classmethod
    def fit(
        cls,
        probabilities: NDArray[np.floating],
        targets: NDArray[np.integer],
        groups: NDArray[np.integer],
        coverage: float = 0.9,
    ) -> PredictionSets:
        """Determine the threshold.

        Args:
            probabilities: probabilities of recordings not used for training, `[n, K]`, finite.
            targets: index of the class of each, `[n]`.
            groups: specimen of each recording as an index >= 0, `[n]`.
            coverage: as in the attributes, > 0 and < 1.

        Raises:
            ValueError: a probability is not finite, or the coverage is out of range.
        """
        _check_finite(probabilities)
        check_number("coverage", coverage, 0, 1, open_ends=True)
        of_truth = probabilities[np.arange(len(targets)), targets]
        order = np.argsort(-of_truth)
        covered = np.cumsum(specimen_weights(groups)[order])
        n_specimens = len(np.unique(groups))
        enough = np.flatnonzero(covered >= coverage * (n_specimens + 1) / n_specimens - 1e-9)
        threshold = float(of_truth[order[enough[0]]]) if len(enough) else 0.0
        return cls(threshold, coverage, n_specimens)

    def contains(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return whether each class belongs to the set of each recording, `[n, K]`."""
        return probabilities >= self.threshold


def _check_finite(probabilities: NDArray[np.floating]) -> None:
    n_bad = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if n_bad:
        raise ValueError(f"{n_bad} of {len(probabilities)} rows of probabilities are not finite; leave them out")
