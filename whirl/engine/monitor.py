"""Track the best value of a monitored metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Improvement:
    """Track the best value of a monitored name, and decide whether a new value improves on it.

    A value improves if it is below the best by more than `min_delta` (`mode='min'`), or above it (`mode='max'`). The
    first finite value always improves; NaN never does.

    Args:
        monitor: name in the logs.
        mode: `'min'` if lower is better, `'max'` if higher is better.
        min_delta: minimum change that counts, >= 0, in the unit of the monitored value.

    Attributes:
        best: best value so far; infinity (minus infinity with `'max'`) before the first.

    Raises:
        ValueError: `mode` is unknown or `min_delta` is negative or NaN.

    Example:
        >>> improvement = Improvement("val_loss", min_delta=0.1)
        >>> [improvement.update({"val_loss": loss}) for loss in (1.0, 0.95, 0.5, float("nan"))]
        [True, False, True, False]
        >>> improvement.best
        0.5
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "min", min_delta: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}, expected 'min' or 'max'")
        if not min_delta >= 0:
            raise ValueError(f"min_delta is {min_delta!r}, expected a number >= 0")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.best = math.inf if mode == "min" else -math.inf

    def read(self, logs: Mapping[str, Any] | None) -> float:
        """Return the monitored value.

        Raises:
            ValueError: it is not in the logs; the message lists the names that are.
        """
        names = logs or {}
        if self.monitor not in names:
            raise ValueError(f"monitor is {self.monitor!r}, but the logs have {sorted(names) or 'no entries'}")
        return float(names[self.monitor])

    def is_better(self, value: float, reference: float) -> bool:
        """Return whether `value` improves on `reference`; False if either is NaN."""
        gain = reference - value if self.mode == "min" else value - reference
        return gain > self.min_delta

    def update(self, logs: Mapping[str, Any] | None) -> bool:
        """Return whether the monitored value improves on the best, and if so, store it as the best."""
        value = self.read(logs)
        improved = self.is_better(value, self.best)
        if improved:
            self.best = value
        return improved

    def state_dict(self) -> dict[str, float]:
        """Return the best value, as plain data."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.best = state["best"]
