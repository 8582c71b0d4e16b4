"""Where a training stands."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TrainingState:
    """Progress of a training, in plain data that goes into a checkpoint as it is.

    Attributes:
        epoch: number of finished epochs; within an epoch, its index counted from 0.
        global_step: number of optimizer steps taken.
        best_val_loss: lowest validation loss so far; infinity before the first validation.
        history: one list per logged name (`train_loss`, `val_accuracy`, `lr`, ...), one number an epoch.
        should_stop: set by a callback to end training after the current epoch.
        interrupted: set to end training after the current batch, with the position kept.
        num_epochs: epoch at which the running `fit` ends.

    Example:
        >>> TrainingState().best_val_loss
        inf
    """

    epoch: int = 0
    global_step: int = 0
    best_val_loss: float = math.inf
    history: dict[str, list[float]] = field(default_factory=dict)
    should_stop: bool = False
    interrupted: bool = False
    num_epochs: int = 0

    def record(self, logs: dict[str, float]) -> bool:
        """Append an epoch's logs to the history; say whether its validation loss is the lowest so far.

        A name that appears late gets NaN for the epochs before.
        """
        for name, value in logs.items():
            past = self.history.setdefault(name, [math.nan] * self.epoch)
            past.append(value)
        val_loss = logs.get("val_loss", math.inf)
        is_best = val_loss < self.best_val_loss
        if is_best:
            self.best_val_loss = val_loss
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """All fields as plain data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; a resumed training is neither stopped nor interrupted."""
        for name, value in state.items():
            setattr(self, name, value)
        self.should_stop = self.interrupted = False
