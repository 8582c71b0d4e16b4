"""Do two diagnosers differ in what they get right, or is it chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.05
"""Of significance, below which a p-value speaks against chance."""


@dataclass(frozen=True)
class McNemar:
    """Where two diagnosers of the same cases disagree about being right.

    Attributes:
        n_only_a: cases that only the first got right.
        n_only_b: cases that only the second got right.
        p_value: probability of a split at least as uneven if both are equally good, two-sided, exact.
    """

    n_only_a: int
    n_only_b: int
    p_value: float

    @property
    def verdict(self) -> str:
        """What the p-value says at `LEVEL`, and how many cases it would take where there are too few.

        Example:
            >>> McNemar(3, 1, 0.625).verdict
            'decides nothing: one alone is right on 4 cases, and it takes 6 at least, all in favour of one'
        """
        if self.p_value < LEVEL:
            return f"speaks for the {'first' if self.n_only_a > self.n_only_b else 'second'}"
        n, fewest = self.n_only_a + self.n_only_b, 1 + math.ceil(math.log2(1 / LEVEL))  # 2 / 2^n < LEVEL
        if n >= fewest:
            return f"decides nothing: chance explains {max(self.n_only_a, self.n_only_b)} of {n}"
        return f"decides nothing: one alone is right on {n} cases, and it takes {fewest} at least, all in favour of one"


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """McNemar's exact test (McNemar 1947): of the cases that one alone got right, either has half by chance.

    It takes the cases for independent. Recordings of one machine are not, so where there are several of each, the
    p-value is too small.

    Args:
        right_a: whether the first got each case right, bool `[N]`.
        right_b: the same of the second, for the same cases in the same order.

    Raises:
        ValueError: they are not of one length, or not `[N]` with N >= 1.

    Example:
        >>> mcnemar([True] * 6 + [False, True], [False] * 6 + [True, True])  # 2 (1 + 7) / 2⁷
        McNemar(n_only_a=6, n_only_b=1, p_value=0.125)
    """
    from scipy.stats import binomtest

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"the answers have the shapes {a.shape} and {b.shape}, expected [N] twice")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)
