"""When a search ends before all of its candidates were tried."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from whirl.validation import check_count, check_number


class Limits:
    """Limits of a search: a time, a number of candidates without progress, or a request to stop.

    Args:
        timeout_s: time in seconds after which no further candidate is started, > 0; None for no limit.
        patience: number of candidates in a row without a better score after which the search ends, >= 1; None for no
            limit.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> limits = Limits(patience=2)
        >>> limits.are_reached([0.7, 0.9, 0.8]), limits.are_reached([0.7, 0.9, 0.8, 0.9])
        (False, True)
    """

    def __init__(self, timeout_s: float | None = None, patience: int | None = None) -> None:
        self.patience = math.inf if patience is None else check_count("patience", patience)
        timeout_s = math.inf if timeout_s is None else check_number("timeout_s", timeout_s, 0, open_ends=True)
        self._deadline, self._is_stopped = time.monotonic() + timeout_s, False

    def stop(self) -> None:
        """Let the search end before the next candidate."""
        self._is_stopped = True

    def are_reached(self, scores: Sequence[float]) -> bool:
        """Return whether no further candidate may start.

        Args:
            scores: scores of the candidates so far, in order, higher is better; NaN for those without a score.
        """
        finite = [-math.inf if math.isnan(score) else score for score in scores]
        since_best = len(finite) - 1 - finite.index(max(finite)) if finite else 0
        return self._is_stopped or time.monotonic() >= self._deadline or since_best >= self.patience
