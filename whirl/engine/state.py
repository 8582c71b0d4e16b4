"""The progress of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from whirl.engine.history import History, scalars

_NOT_SAVED = ("should_stop", "interrupted", "interrupted_by")


@dataclass
class TrainingState:
    """Progress of a training run, as plain data that a checkpoint can hold.

    Attributes:
        epoch: number of finished epochs, which is also the index of the running epoch, counted from 0.
        batch: batches of the epoch that were finished when it was last saved or interrupted; 0 otherwise.
        global_step: number of optimizer steps; steps that float16 scaling skips do not count.
        best_val_loss: lowest validation loss so far; infinity before the first validation.
        history: one list per logged name (`train_loss`, `val_accuracy`, `lr`, ...), one number per epoch.
        step_history: the same for validations within epochs, with the optimizer step of each as `step`.
        should_stop: set by a callback to end training. An epoch in which it is set ends at the next optimizer step; it
            is validated and saved like any other. It is not saved, so that the callback decides again when training is
            resumed.
        interrupted: set to end training after the current batch and keep the position; cleared on entering
            `finish_batch_on_interrupt`.
        interrupted_by: number of the signal that requested the interruption; None if there was none.
        num_epochs: epoch at which the running `fit` ends.

    Example:
        >>> TrainingState().best_val_loss
        inf
    """

    epoch: int = 0
    batch: int = 0
    global_step: int = 0
    best_val_loss: float = math.inf
    history: History = field(default_factory=History)
    step_history: dict[str, list[float]] = field(default_factory=dict)
    should_stop: bool = False
    interrupted: bool = False
    interrupted_by: int | None = None
    num_epochs: int = 0

    def record(self, logs: dict[str, Any]) -> bool:
        """Append the logs of an epoch to the history.

        A name that is missing in an epoch gets NaN, and what is not a number is left out. Entries of a failed attempt
        at the same epoch are replaced.

        Returns:
            Whether the validation loss is the lowest so far.
        """
        numbers = {name: logs[name] if isinstance(logs[name], int) else value for name, value in scalars(logs).items()}
        for name in {**self.history, **numbers}:
            past = self.history.get(name, [])[: self.epoch]
            self.history[name] = [*past, *[math.nan] * (self.epoch - len(past)), numbers.get(name, math.nan)]
        return self._is_best(numbers)

    def record_step(self, logs: dict[str, float]) -> bool:
        """Append the logs of a validation within an epoch; return whether its loss is the lowest so far."""
        for name, value in {"step": self.global_step, **logs}.items():
            self.step_history.setdefault(name, []).append(value)
        return self._is_best(logs)

    def _is_best(self, numbers: dict[str, float]) -> bool:
        val_loss = numbers.get("val_loss", math.inf)
        is_best = val_loss < self.best_val_loss
        if is_best:
            self.best_val_loss = val_loss
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """Return everything that outlives the running `fit`, as plain data."""
        state = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_SAVED}
        return state | {"history": dict(self.history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, History(value) if name == "history" else value)
