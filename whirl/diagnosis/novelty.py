"""Recordings unlike those of the training part: unknown faults, other machines, other sensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whirl.diagnosis.calibration import specimen_weights
from whirl.diagnosis.logistic import standardization
from whirl.diagnosis.selection import MAX_FOLDS, assign_folds

_TAIL = 8.0
"""Exponent of the tail that is assumed beyond the largest distance of known specimens."""


class ClassDistances:
    """Distances of feature vectors to the nearest class: over all features, and where the classes differ.

    Both are Mahalanobis distances with one covariance matrix for all classes (Ledoit & Wolf's shrinkage estimate): over
    all F features, which sees what no class has, and in the space that the class means span, which sees a pattern
    between or beyond the classes.

    Sources: Ledoit & Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, Journal of
    Multivariate Analysis 88, 365-411; Lee et al. (2018), A simple unified framework for detecting out-of-distribution
    samples, NeurIPS.

    Args:
        features: features of the training recordings, `[n, F]`.
        targets: index of the class of each, `[n]`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> targets = np.arange(200) % 2
        >>> features = rng.normal(size=(200, 3)) + 6 * targets[:, None] * [1, 0, 0]
        >>> distances = ClassDistances(features, targets)([[0, 0, 0], [3, 0, 0], [6, 0, 9]])
        >>> distances.argmax(axis=0)  # the third is unlike any class, the second lies between the two
        array([2, 1])
    """

    def __init__(self, features: NDArray[np.floating], targets: NDArray[np.integer]) -> None:
        from sklearn.covariance import ledoit_wolf

        classes, index = np.unique(targets, return_inverse=True)
        self.center, self.scale = standardization(features)
        scaled = (features - self.center) / self.scale
        means = np.array([scaled[index == each].mean(axis=0) for each in range(len(classes))])
        covariance, _ = ledoit_wolf(scaled - means[index], assume_centered=True)
        values, vectors = np.linalg.eigh(covariance)
        self.whitening = vectors / np.sqrt(np.maximum(values, 1e-6 * values.max() + 1e-12))
        self.means = means @ self.whitening
        between = self.means - self.means.mean(axis=0)
        self.directions = np.linalg.svd(between, full_matrices=False)[2][: len(classes) - 1].T

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the two distances of each row of features `[n, F]`, `[n, 2]`."""
        away = ((np.asarray(features) - self.center) / self.scale @ self.whitening)[:, None] - self.means
        spans = (away, away @ self.directions)
        return np.stack([np.linalg.norm(each, axis=-1).min(axis=1) for each in spans], axis=1)


class NoveltyDetector:
    """Measures how unusual recordings are among those of known classes on machines that were not seen in training.

    Distances, and scores from elsewhere such as the entropy of predictions, become p-values: the share of training
    specimens, each held out in turn, that lie at least as far out; a specimen counts once for each of its classes.
    Fisher's sum of their logarithms becomes one p-value in the same way. Beyond the farthest known specimen, a tail of
    power 8 is assumed.

    Args:
        features: features of the training recordings, `[n, F]`.
        targets: index of the class of each, `[n]`.
        groups: specimen of each recording as an index >= 0, `[n]`.
        scores: further scores > 0 of the same recordings, determined without them, higher for unusual ones, `[n, E]`.

    Raises:
        ValueError: every class has one specimen only, so there is nothing to hold out.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> targets = np.arange(300) % 3
        >>> features = rng.normal(size=(300, 4)) + 5 * np.eye(3, 4)[targets]
        >>> detector = NoveltyDetector(features, targets, groups=np.arange(300))
        >>> known, unknown = features[:1], [[5.0, 5.0, 5.0, 5.0]]
        >>> bool(detector.p_values(known)[0] > 0.05), bool(detector.p_values(unknown)[0] < 0.001)
        (True, True)
    """

    def __init__(
        self,
        features: NDArray[np.floating],
        targets: NDArray[np.integer],
        groups: NDArray[np.integer],
        scores: NDArray[np.floating] | None = None,
    ) -> None:
        held_out, usable = _held_out_distances(features, targets, groups)
        if not usable.any():
            raise ValueError("every class has one specimen only, expected two or more of at least one class")
        self.distances = ClassDistances(features, targets)
        self.known = _join(held_out, scores)[usable]
        states = np.unique(np.stack([groups, targets])[:, usable], axis=1, return_inverse=True)[1].ravel()
        self.weights, self.n_states = specimen_weights(states), int(states.max()) + 1
        self.known_sums = self._sums(self.known)

    def p_values(
        self, features: NDArray[np.floating], scores: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """Return how probable so unusual a recording is among known ones, `[n]`, 0 to 1.

        Args:
            features: `[n, F]`.
            scores: further scores `[n, E]`, if the detector was made with them.
        """
        sums = self._sums(_join(self.distances(features), scores))
        n_terms = self.known.shape[1]
        to_distance = 1 / (n_terms * _TAIL)  # the sum of n logarithms of p-values as a distance
        return self._tail(np.exp(sums * to_distance), np.exp(self.known_sums * to_distance))

    def _sums(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = zip(distances.T, self.known.T, strict=True)
        logs = np.stack([np.log(self._tail(column, known)) for column, known in columns])
        return np.asarray(-logs.sum(axis=0))

    def _tail(self, distances: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the p-values of distances `[n]` among known ones `[m]`."""
        order = np.argsort(known)
        beyond = np.append(np.cumsum(self.weights[order][::-1])[::-1], 0.0)
        share = beyond[np.searchsorted(known[order], distances, side="left")]
        excess = np.maximum(distances / max(known.max(), np.finfo(float).tiny), 1.0)
        return (1 + self.n_states * share) / (self.n_states + 1) * excess**-_TAIL

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the detector as plain arrays."""
        of_distances = {f"distances.{name}": value for name, value in vars(self.distances).items()}
        own = {"known": self.known, "weights": self.weights, "n_states": np.array(self.n_states)}
        return {**of_distances, **own}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> NoveltyDetector:
        """Restore what `state` returned."""
        detector, distances = cls.__new__(cls), ClassDistances.__new__(ClassDistances)
        for name in ("center", "scale", "whitening", "means", "directions"):
            setattr(distances, name, state[f"distances.{name}"])
        detector.distances = distances
        detector.known, detector.weights = state["known"], state["weights"]
        detector.n_states = int(state["n_states"])
        detector.known_sums = detector._sums(detector.known)
        return detector


def _held_out_distances(
    features: NDArray[np.floating], targets: NDArray[np.integer], groups: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return distances `[n, 2]` to the other folds, and whether the class of each recording occurs in these."""
    folds = assign_folds(groups, targets, MAX_FOLDS)
    distances, usable = np.zeros((len(features), 2)), np.zeros(len(features), bool)
    for fold in np.unique(folds):
        held, rest = folds == fold, folds != fold
        if rest.sum() > len(np.unique(targets[rest])):  # otherwise there is no spread within classes
            distances[held] = ClassDistances(features[rest], targets[rest])(features[held])
            usable[held] = np.isin(targets[held], targets[rest])
    return distances, usable


def _join(distances: NDArray[np.float64], scores: NDArray[np.floating] | None) -> NDArray[np.float64]:
    return distances if scores is None else np.column_stack([distances, np.asarray(scores, np.float64)])
