"""Has the monitored number improved? Asked by everything that stops or saves by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Improvement:
    """The best value of a monitored name so far, and whether a new one beats it.

    A value improves when it is below the best by more than `min_delta` (`mode='min'`), or above it
    (`mode='max'`). The first number improves on nothing; NaN never improves.

    Args:
        monitor: name in the logs.
        mode: `'min'` where lower is better, `'max'` where higher is.
        min_delta: change that counts, >= 0, in the unit of the monitored number.

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
        """The monitored number.

        Raises:
            ValueError: it is not in the logs; the message lists the names there are.
        """
        names = logs or {}
        if self.monitor not in names:
            raise ValueError(f"{self.monitor!r} is monitored, but the logs hold {sorted(names) or 'nothing'}")
        return float(names[self.monitor])

    def is_better(self, value: float, reference: float) -> bool:
        """Whether `value` improves on `reference`; False when either is NaN."""
        gain = reference - value if self.mode == "min" else value - reference
        return gain > self.min_delta

    def update(self, logs: Mapping[str, Any] | None) -> bool:
        """Whether the monitored number improves on the best, which it then becomes."""
        value = self.read(logs)
        improved = self.is_better(value, self.best)
        if improved:
            self.best = value
        return improved

    def state_dict(self) -> dict[str, float]:
        """The best value, as plain data."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self.best = state["best"]
