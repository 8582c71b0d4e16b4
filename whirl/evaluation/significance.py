"""Significance tests for the comparison of two classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.05
"""Significance level: a smaller p-value counts as significant."""


@dataclass(frozen=True)
class McNemar:
    """Result of McNemar's exact test.

    Attributes:
        n_only_a: number of cases that only classifier a predicted correctly.
        n_only_b: number of cases that only classifier b predicted correctly.
        p_value: two-sided exact p-value: probability of a split at least as uneven if both are equally accurate.
    """

    n_only_a: int
    n_only_b: int
    p_value: float

    @property
    def verdict(self) -> str:
        """Interpretation of the p-value at `LEVEL`, with the required number of cases if there are too few.

        Example:
            >>> McNemar(3, 1, 0.625).verdict
            'not significant: the two differ in 4 cases, and significance requires at least 6'
        """
        if self.p_value < LEVEL:
            return f"significant: the {'first' if self.n_only_a > self.n_only_b else 'second'} is more accurate"
        n, required = self.n_only_a + self.n_only_b, 1 + math.ceil(math.log2(1 / LEVEL))  # 2 / 2^n < LEVEL
        if n >= required:
            return f"not significant: {max(self.n_only_a, self.n_only_b)} of {n} differing cases may be due to chance"
        return f"not significant: the two differ in {n} cases, and significance requires at least {required}"


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Perform McNemar's exact test (McNemar 1947) on two classifiers evaluated on the same cases.

    Under the null hypothesis, each of the cases that only one classifier predicts correctly is equally likely to be
    correct for either. The test assumes independent cases. Recordings of one machine are dependent, so the p-value is
    too small if there are several per machine.

    Args:
        correct_a: whether classifier a is correct for each case, bool `[N]`.
        correct_b: whether classifier b is correct for the same cases, in the same order.

    Raises:
        ValueError: the shapes differ, or are not `[N]` with N >= 1.

    Example:
        >>> mcnemar([True] * 6 + [False, True], [False] * 6 + [True, True])  # 2 (1 + 7) / 2⁷
        McNemar(n_only_a=6, n_only_b=1, p_value=0.125)
    """
    from scipy.stats import binomtest

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"correct_a has shape {a.shape} and correct_b {b.shape}, expected [N] for both")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)


_EXACT = 14  # specimens up to which all sign changes are enumerated
_DRAWS = 20_000


def specimen_p_value(correct_a: ArrayLike, correct_b: ArrayLike, specimens: ArrayLike) -> float:
    """Return the two-sided p-value of a sign-flip test over specimens.

    Under the null hypothesis, the difference of the numbers of correct recordings of each specimen is as likely with
    either sign. Specimens, unlike their recordings, are independent. Up to 14 specimens all changes of sign are
    enumerated; for more, 20 000 are drawn.

    Source: Fisher (1935), The design of experiments.

    Args:
        correct_a: whether classifier a is correct for each recording, bool `[N]`.
        correct_b: whether classifier b is correct for the same recordings, in the same order.
        specimens: name of the specimen of each recording, `[N]`.

    Example:
        >>> specimen_p_value([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], ["m1", "m1", "m2", "m2", "m3", "m3"])
        0.5
    """
    owner = np.unique(np.asarray(specimens), return_inverse=True)[1]
    differences = np.bincount(owner, np.asarray(correct_a, dtype=float) - np.asarray(correct_b, dtype=float))
    differences = differences[differences != 0]
    n = len(differences)
    if n <= _EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.mean(np.abs(signs @ differences) >= abs(differences.sum())))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(_DRAWS, n))
    return float((1 + np.sum(np.abs(signs @ differences) >= abs(differences.sum()))) / (_DRAWS + 1))
