"""Where a training stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class TrainingState:
    """Progress of a training, in plain data that goes into a checkpoint as it is.

    Attributes:
        epoch: number of finished epochs; within an epoch, its index counted from 0.
        batch: batches of the epoch that were done when it was last saved or interrupted; 0 otherwise.
        global_step: number of optimizer steps; those that float16 scaling skips do not count.
        best_val_loss: lowest validation loss so far; infinity before the first validation.
        history: one list per logged name (`train_loss`, `val_accuracy`, `lr`, ...), one number an epoch.
        should_stop: set by a callback to end training after the current epoch; not kept in a checkpoint, so that
            the callback decides anew when training is resumed.
        interrupted: set to end training after the current batch, with the position kept; cleared on
            entering `finish_batch_on_interrupt`.
        interrupted_by: number of the signal that asked for it; None where none did.
        num_epochs: epoch at which the running `fit` ends.

    Example:
        >>> TrainingState().best_val_loss
        inf
    """

    epoch: int = 0
    batch: int = 0
    global_step: int = 0
    best_val_loss: float = math.inf
    history: dict[str, list[float]] = field(default_factory=dict)
    should_stop: bool = False
    interrupted: bool = False
    interrupted_by: int | None = None
    num_epochs: int = 0

    def record(self, logs: dict[str, float]) -> bool:
        """Append an epoch's logs to the history; say whether its validation loss is the lowest so far.

        An epoch in which a name is absent gets NaN; what a failed attempt at this epoch left is replaced.
        """
        for name in {**self.history, **logs}:
            past = self.history.get(name, [])[: self.epoch]
            self.history[name] = [*past, *[math.nan] * (self.epoch - len(past)), logs.get(name, math.nan)]
        val_loss = logs.get("val_loss", math.inf)
        is_best = val_loss < self.best_val_loss
        if is_best:
            self.best_val_loss = val_loss
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """All that outlives the running `fit`, as plain data."""
        passing = ("should_stop", "interrupted", "interrupted_by")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in passing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)
