"""Extremely randomized trees on a table of features.

Source: Geurts, Ernst & Wehenkel (2006), Extremely randomized trees, Machine Learning 63, 3-42.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from whirl.diagnosis.logistic import class_weights
from whirl.validation import check_count

_LEAF = -1  # feature of a node without children


class ExtraTrees:
    """A forest of extremely randomized classification trees.

    At each node, `max_features` features are drawn, and for each of them one threshold between its extremes; the split
    with the lowest Gini impurity is kept. Trees are grown on all samples until leaves are pure. Classes have equal
    weight. Fitted trees are plain arrays, which can be stored without pickle.

    Args:
        n_trees: number of trees, >= 1.
        max_features: features drawn at each node, >= 1; None is the square root of their number.
        min_leaf: samples in a leaf, >= 1.
        seed: seed of the random splits.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.uniform(-1, 1, size=(200, 4))
        >>> y = (X[:, 0] * X[:, 1] > 0).astype(int)
        >>> model = ExtraTrees(50).fit(X[:150], y[:150])
        >>> bool((model.predict_proba(X[150:]).argmax(axis=1) == y[150:]).mean() > 0.8)
        True
    """

    def __init__(self, n_trees: int = 200, max_features: int | None = None, min_leaf: int = 1, seed: int = 0) -> None:
        self.n_trees = check_count("n_trees", n_trees)
        self.max_features = None if max_features is None else check_count("max_features", max_features)
        self.min_leaf = check_count("min_leaf", min_leaf)
        self.seed = check_count("seed", seed, 0)
        self.roots = self.feature = self.left = self.right = np.zeros(0, np.int32)
        self.threshold = np.zeros(0, np.float32)
        self.value = np.zeros((0, 0), np.float32)

    def fit(self, X: NDArray[np.floating], y: NDArray[np.integer], n_classes: int | None = None) -> ExtraTrees:
        """Fit to features `[n, F]` and classes `[n]`.

        Args:
            X: features, finite.
            y: index of the class of each sample.
            n_classes: number of classes K; default the highest index plus one.
        """
        X = np.asarray(X, dtype=np.float32)
        K = check_count("n_classes", int(y.max()) + 1 if n_classes is None else n_classes)
        rng = np.random.default_rng(self.seed)
        n_drawn = min(self.max_features or max(1, round(X.shape[1] ** 0.5)), X.shape[1])
        grower = _Grower(X, np.eye(K)[y] * class_weights(y, K)[:, None], n_drawn, self.min_leaf, rng)
        self.roots = np.array([grower.grow() for _ in range(self.n_trees)], np.int32)
        self.feature = np.array(grower.feature, np.int32)
        self.threshold = np.array(grower.threshold, np.float32)
        self.left, self.right = np.array(grower.left, np.int32), np.array(grower.right, np.int32)
        self.value = np.array(grower.value, np.float32)
        return self

    def predict_proba(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return class probabilities `[n, K]`: the mean over trees of the class shares in the leaves."""
        X = np.asarray(X, dtype=np.float32)
        node = np.broadcast_to(self.roots, (len(X), len(self.roots)))
        while True:
            feature = self.feature[node]
            inner = feature != _LEAF
            if not inner.any():
                return self.value[node].mean(axis=1, dtype=np.float64)
            goes_left = np.take_along_axis(X, np.where(inner, feature, 0), axis=1) <= self.threshold[node]
            node = np.where(inner, np.where(goes_left, self.left[node], self.right[node]), node)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the fitted trees as plain arrays."""
        names = ("roots", "feature", "threshold", "left", "right", "value")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> ExtraTrees:
        """Restore what `state` returned."""
        for name, array in self.state().items():
            setattr(self, name, np.asarray(state[name], dtype=array.dtype))
        return self


class _Grower:
    """Trees under construction, all in one list of nodes."""

    def __init__(
        self,
        X: NDArray[np.float32],
        targets: NDArray[np.float64],
        n_drawn: int,
        min_leaf: int,
        rng: np.random.Generator,
    ) -> None:
        self.X, self.targets, self.n_drawn, self.min_leaf, self.rng = X, targets, n_drawn, min_leaf, rng
        self.feature: list[int] = []
        self.threshold: list[float] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.value: list[NDArray[np.float64]] = []

    def grow(self) -> int:
        """Grow one tree on all samples; return its root."""
        root = self._add(np.arange(len(self.X)))
        stack = [(root, np.arange(len(self.X)))]
        while stack:
            node, samples = stack.pop()
            split = self._split(samples)
            if split is None:
                continue
            self.feature[node], self.threshold[node], goes_left = split
            parts = samples[goes_left], samples[~goes_left]
            self.left[node], self.right[node] = (self._add(part) for part in parts)
            stack += zip((self.left[node], self.right[node]), parts, strict=True)
        return root

    def _add(self, samples: NDArray[np.intp]) -> int:
        counts = self.targets[samples].sum(axis=0)
        self.feature.append(_LEAF)
        self.threshold.append(0.0)
        self.left.append(_LEAF)
        self.right.append(_LEAF)
        self.value.append(counts / counts.sum())
        return len(self.feature) - 1

    def _split(self, samples: NDArray[np.intp]) -> tuple[int, float, NDArray[np.bool_]] | None:
        """Draw features and thresholds; return the best split, or None for a leaf."""
        targets = self.targets[samples]
        if len(samples) < 2 * self.min_leaf or (targets.sum(axis=0) > 0).sum() == 1:
            return None
        X = self.X[samples]
        low, high = X.min(axis=0), X.max(axis=0)
        varying = np.flatnonzero(high > low)
        if not len(varying):
            return None
        drawn = self.rng.choice(varying, min(self.n_drawn, len(varying)), replace=False)
        low, high = low[drawn], high[drawn]
        thresholds = np.minimum(self.rng.uniform(low, high).astype(np.float32), np.nextafter(high, low))
        goes_left = X[:, drawn] <= thresholds  # [n, D]
        left = goes_left.T.astype(np.float64) @ targets  # [D, K]
        right = targets.sum(axis=0) - left
        impurity = _impurity(left) + _impurity(right)
        sizes = goes_left.sum(axis=0)
        impurity[(sizes < self.min_leaf) | (len(samples) - sizes < self.min_leaf)] = np.inf
        best = int(impurity.argmin())
        if not np.isfinite(impurity[best]):
            return None
        return int(drawn[best]), float(thresholds[best]), goes_left[:, best]


def _impurity(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gini impurity times the weight of the node."""
    total = counts.sum(axis=1)
    return total - (counts**2).sum(axis=1) / np.maximum(total, np.finfo(np.float64).tiny)
