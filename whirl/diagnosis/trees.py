"""Extremely randomized trees on a table of features.

Source: Geurts, Ernst & Wehenkel (2006), Extremely randomized trees, Machine Learning 63, 3-42.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whirl.diagnosis.logistic import class_weights
from whirl.validation import check_count

_LEAF = -1  # feature of a node without children
_ONE_FOREST = Lock()  # scikit-learn replaces the filters of warnings meanwhile, which all threads share


class ExtraTrees:
    """A forest of extremely randomized classification trees, whose state can be stored without pickle.

    At each node, `max_features` features are drawn, and for each of them one threshold between its extremes; the split
    with the lowest Gini impurity is kept. Trees are grown on all samples until leaves are pure. Classes have equal
    weight. Scikit-learn grows the trees; fitted ones are plain arrays.

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
        self.threshold = np.zeros(0)
        self.value = np.zeros((0, 0), np.float32)

    def fit(self, X: NDArray[np.floating], y: NDArray[np.integer], n_classes: int | None = None) -> ExtraTrees:
        """Fit to features `[n, F]` and classes `[n]`.

        Args:
            X: features, finite.
            y: index of the class of each sample.
            n_classes: number of classes K; default the highest index plus one.
        """
        from sklearn.ensemble import ExtraTreesClassifier

        K = check_count("n_classes", int(y.max()) + 1 if n_classes is None else n_classes)
        forest = ExtraTreesClassifier(
            self.n_trees,
            max_features=min(self.max_features or max(1, round(X.shape[1] ** 0.5)), X.shape[1]),
            min_samples_leaf=self.min_leaf,
            random_state=self.seed,
        )
        with _ONE_FOREST:
            forest.fit(np.asarray(X, dtype=np.float32), y, class_weights(y, K))
        self._store([tree.tree_ for tree in forest.estimators_], np.asarray(forest.classes_), K)
        return self

    def _store(self, trees: Sequence[Any], classes: NDArray[np.integer], n_classes: int) -> None:
        """Concatenate the nodes of all trees; children of a node are then found by its index plus an offset."""
        sizes = np.array([tree.node_count for tree in trees])
        self.roots = (np.cumsum(sizes) - sizes).astype(np.int32)
        offsets = np.repeat(self.roots, sizes)
        self.left = np.concatenate([tree.children_left for tree in trees]).astype(np.int32) + offsets
        self.right = np.concatenate([tree.children_right for tree in trees]).astype(np.int32) + offsets
        is_leaf = np.concatenate([tree.children_left == tree.children_right for tree in trees])
        self.feature = np.where(is_leaf, _LEAF, np.concatenate([tree.feature for tree in trees])).astype(np.int32)
        self.threshold = np.concatenate([tree.threshold for tree in trees])
        shares = np.concatenate([tree.value[:, 0] for tree in trees])
        self.value = np.zeros((len(shares), n_classes), np.float32)
        self.value[:, classes] = shares / shares.sum(axis=1, keepdims=True)

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
        """Restore what `state` returned.

        Raises:
            ValueError: the nodes do not form trees, so that a prediction would not end.
        """
        for name, array in self.state().items():
            setattr(self, name, np.asarray(state[name], dtype=array.dtype))
        n = len(self.feature)
        inner = np.flatnonzero(self.feature != _LEAF)
        children = np.stack([self.left, self.right])[:, inner]
        if (children <= inner).any() or (children >= n).any() or not ((self.roots >= 0) & (self.roots < n)).all():
            raise ValueError("the nodes do not form trees: every child must follow its parent")
        return self
