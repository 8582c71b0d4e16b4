"""Multinomial logistic regression on a table of features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from whirl.validation import check_count, check_number


class LogisticRegression:
    """Multinomial logistic regression with an L2 penalty, on standardized features.

    Classes have equal weight, however many samples each has. The penalized likelihood is convex, so the fit does not
    depend on a seed.

    Args:
        C: inverse of the strength of the penalty, > 0, as in scikit-learn.

    Attributes:
        mean, scale: standardization of the features, `[F]`.
        coefficients: `[K, F]`, for standardized features.
        intercepts: `[K]`.

    Example:
        >>> X = np.array([[-1.0], [-2.0], [-0.5], [1.0], [2.0], [0.5]])
        >>> model = LogisticRegression().fit(X, np.array([0, 0, 0, 1, 1, 1]))
        >>> model.predict_proba(np.array([[-3.0], [0.0], [3.0]])).round(2)
        array([[0.98, 0.02],
               [0.5 , 0.5 ],
               [0.02, 0.98]])
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = check_number("C", C, 0, open_ends=True)
        self.mean = self.scale = self.intercepts = np.zeros(0)
        self.coefficients = np.zeros((0, 0))

    def fit(self, X: NDArray[np.floating], y: NDArray[np.integer], n_classes: int | None = None) -> LogisticRegression:
        """Fit to features `[n, F]` and classes `[n]`.

        Args:
            X: features, finite.
            y: index of the class of each sample.
            n_classes: number of classes K; default the highest index plus one.

        Raises:
            ValueError: a feature is not finite.
        """
        from scipy.optimize import minimize

        X = np.asarray(X, dtype=np.float64)
        if not np.isfinite(X).all():
            raise ValueError(f"{(~np.isfinite(X)).sum()} of {X.size} features are not finite; leave out their samples")
        K = check_count("n_classes", int(y.max()) + 1 if n_classes is None else n_classes)
        self.mean, self.scale = standardization(X)
        Z = np.column_stack([(X - self.mean) / self.scale, np.ones(len(X))])
        targets = np.eye(K)[y]
        weights = class_weights(y, K)

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            W = flat.reshape(K, -1)
            log_p = _log_softmax(Z @ W.T)
            penalty = W.copy()
            penalty[:, -1] = 0
            value = -self.C * (weights * (targets * log_p).sum(axis=1)).sum() + 0.5 * (penalty**2).sum()
            gradient = self.C * (weights[:, None] * (np.exp(log_p) - targets)).T @ Z + penalty
            return value, gradient.ravel()

        W = minimize(loss, np.zeros(K * Z.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
        self.coefficients, self.intercepts = W.reshape(K, -1)[:, :-1], W.reshape(K, -1)[:, -1]
        return self

    def predict_proba(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return class probabilities `[n, K]` for features `[n, F]`."""
        Z = (np.asarray(X, dtype=np.float64) - self.mean) / self.scale
        return np.exp(_log_softmax(Z @ self.coefficients.T + self.intercepts))

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the fitted parameters as plain arrays."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "coefficients": self.coefficients,
            "intercepts": self.intercepts,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> LogisticRegression:
        """Restore what `state` returned."""
        for name in self.state():
            setattr(self, name, np.asarray(state[name], dtype=np.float64))
        return self


def standardization(X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each feature, `[F]` each; 1 for one that varies by rounding errors only.

    Example:
        >>> X = np.array([[0.0, 0.1], [0.0, 0.1], [3.0, 0.1]])  # the mean of column 2 is 0.1 + 1.4e-17
        >>> standardization(X)[1].round(2)
        array([1.41, 1.  ])
    """
    mean, spread = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    return mean, np.where(spread > 1e-9 * np.abs(mean) + 1e-12, spread, 1.0)


def class_weights(y: NDArray[np.integer], n_classes: int) -> NDArray[np.float64]:
    """Return a weight of each sample for which all classes that occur have equal weight, mean 1.

    Example:
        >>> class_weights(np.array([0, 0, 0, 2]), n_classes=3).round(2)
        array([0.67, 0.67, 0.67, 2.  ])
    """
    counts = np.bincount(y, minlength=n_classes)
    return len(y) / ((counts > 0).sum() * np.maximum(counts, 1))[y]


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
