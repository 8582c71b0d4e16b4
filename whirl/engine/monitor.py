"""Track the best value of a monitored metric."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from whirl.engine.history import ACCURACY_ALIASES

logger = logging.getLogger(__name__)


_HIGHER_IS_BETTER = re.compile(r"acc|accuracy|f1|auroc|auc|precision|recall|mcc|kappa|iou|r2|jaccard")
_LOWER_IS_BETTER = re.compile(r"loss|error|mae|mse|rmse|ece|brier")


def direction_of(name: str) -> str | None:
    """Return `'min'` or `'max'`, the direction in which a metric of that name improves; None if it is unknown.

    Example:
        >>> direction_of("val_f1_macro"), direction_of("val_physics_loss"), direction_of("epoch_time_s")
        ('max', 'min', None)
    """
    words = re.split(r"[^a-z0-9]+", name.lower())
    if any(map(_LOWER_IS_BETTER.fullmatch, words)):
        return "min"
    return "max" if any(map(_HIGHER_IS_BETTER.fullmatch, words)) else None


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

    A warning is logged if the name is that of an accuracy, F1 score or the like and `mode` is `'min'`, or that of a
    loss or an error and `mode` is `'max'`.

    Raises:
        TypeError: `monitor` is not a string.
        ValueError: `mode` is unknown or `min_delta` is negative or NaN.

    Example:
        >>> improvement = Improvement("val_loss", min_delta=0.1)
        >>> [improvement.update({"val_loss": loss}) for loss in (1.0, 0.95, 0.5, float("nan"))]
        [True, False, True, False]
        >>> improvement.best
        0.5
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "min", min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor is {monitor!r}, expected a name in the logs, e.g. 'val_loss'")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}, expected 'min' or 'max'")
        if not min_delta >= 0:
            raise ValueError(f"min_delta is {min_delta!r}, expected a number >= 0")
        if direction_of(monitor) not in (mode, None):
            logger.warning(
                "mode is %r, but %r improves in the other direction: set mode=%r", mode, monitor, direction_of(monitor)
            )
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.reset()

    def reset(self) -> None:
        """Discard the best value."""
        self.best = math.inf if self.mode == "min" else -math.inf

    def read(self, logs: Mapping[str, Any] | None) -> float:
        """Return the monitored value.

        Raises:
            ValueError: it is not in the logs; the message lists the names that are.
        """
        names = logs or {}
        if self.monitor not in names and ACCURACY_ALIASES.get(self.monitor) in names:
            return float(names[ACCURACY_ALIASES[self.monitor]])
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
