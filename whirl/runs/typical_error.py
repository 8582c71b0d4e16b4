"""The error of predicted numbers to expect, from recordings that were held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.9
"""Share of new specimens, one recording drawn of each, whose true number is within the interval."""


@dataclass(frozen=True)
class TypicalError:
    """The error to expect of a predicted number.

    Attributes:
        mean_absolute: mean absolute error of held-out recordings.
        half_width: half the length of an interval around a predicted number that contains the true one with the
            probability `COVERAGE`; None if there are too few held-out specimens.
        n_specimens: number of held-out specimens.
        is_unseen: whether training had none of these specimens, but only other times of them.
    """

    mean_absolute: float
    half_width: float | None
    n_specimens: int
    is_unseen: bool

    @classmethod
    def of(cls, errors: NDArray[np.floating], specimens: NDArray[np.integer], is_unseen: bool) -> TypicalError:
        """Determine the error to expect.

        The interval is that of conformal prediction for specimens with several recordings each (Lee, Barber & Willett
        2023, Distribution-free inference with hierarchical data). It needs at least 9 specimens that training had not.

        Args:
            errors: errors of held-out recordings, `[n]`.
            specimens: number of the specimen of each, `[n]`, from 0.
            is_unseen: whether training had none of these specimens.

        Example:
            >>> TypicalError.of(np.linspace(-1, 1, 19), np.arange(19), is_unseen=True).half_width
            1.0
            >>> TypicalError.of(np.array([0.5, -0.5]), np.arange(2), is_unseen=True).half_width is None
            True
        """
        sizes, n = np.abs(errors), int(specimens.max()) + 1
        weights = 1 / np.bincount(specimens)[specimens]  # a specimen counts once
        level = (n + 1) * COVERAGE - 1e-9  # in specimens
        order = np.argsort(sizes, kind="stable")
        reached = np.searchsorted(weights[order].cumsum(), level)
        half_width = float(sizes[order][reached]) if level <= n and is_unseen else None
        return cls(float((sizes * weights).sum() / n), half_width, n, is_unseen)

    def __str__(self) -> str:
        if not self.is_unseen:
            return f"typical error {self.mean_absolute:.3g}, at other times of the training specimens"
        within = "" if self.half_width is None else f"; within {self.half_width:.3g} in {COVERAGE:.0%} of cases"
        return f"typical error {self.mean_absolute:.3g} on {self.n_specimens} held-out specimens{within}"
