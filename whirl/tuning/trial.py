"""The trial that an objective receives, and the callback that reports its epochs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whirl.engine.callbacks import Callback, Logs
from whirl.engine.distributed import all_reduce_any
from whirl.tuning.storage import import_optuna, retry
from whirl.validation import check_number, unknown_name

if TYPE_CHECKING:
    import optuna

WARM_UP = 2 / 3  # share of the epochs in which no trial is pruned


@dataclass
class Trial:
    """A running trial, as passed to the objective.

    Attributes:
        number: number of the trial in its study.
        params: parameters of the candidate.
        is_pruned: whether the trial was pruned; set by `ReportToTrial`.
        is_lost: whether another worker reclaimed the trial as stale, so that its score will be dropped.
        interrupted_by: number of the signal that interrupted the training; None if none did.
    """

    number: int
    params: dict[str, Any]
    handle: optuna.Trial | None = field(default=None, repr=False)  # only on rank 0
    is_pruned: bool = False
    is_lost: bool = False
    interrupted_by: int | None = None

    def report(self, value: float, step: int) -> None:
        """Report an intermediate score to the pruner.

        Args:
            value: the score, higher is better.
            step: step of the score, >= 0, e.g. the epoch.
        """
        if (handle := self.handle) is not None:
            with self._unless_lost():
                retry(lambda: handle.report(value, step))

    def should_prune(self) -> bool:
        """Return whether to end the trial now, the same on all ranks; must be called on every rank."""
        should_prune = False
        if (handle := self.handle) is not None:
            with self._unless_lost():
                should_prune = retry(handle.should_prune)
        return all_reduce_any(should_prune or self.is_lost)

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        """Set `is_lost` if Optuna rejects an update because the trial has been finished by another worker."""
        try:
            yield
        except import_optuna().exceptions.UpdateFinishedTrialError:
            self.is_lost = True


class ReportToTrial(Callback):
    """Callback that reports the score of each epoch to a trial, and stops the training if the pruner decides so.

    By default no trial is pruned in the first two thirds of the epochs. Under a schedule that raises and lowers the
    learning rate, early scores do not predict the last one (over candidates of `wdcnn`, their rank correlation with it
    was near 0 up to epoch 7 of 12 and 0.8 afterwards), so the median rule would drop half of all candidates by chance.
    No trial is pruned after the last epoch either: its time is already spent, and its score informs the search.

    Args:
        trial: the trial that the objective receives.
        metric: name of the score in the logs of an epoch; higher is better.
        warm_up: share of the epochs in which the trial is not pruned, in [0, 1]; less saves more, but with most
            schedules of the learning rate at the cost of good candidates.

    Raises:
        ValueError: `warm_up` is out of range; at the end of an epoch, the logs do not contain the metric.

    Example:
        >>> trial = Trial(0, {"lr": 0.1})
        >>> ReportToTrial(trial).on_epoch_end(0, {"val_accuracy": 0.5})
        >>> trial.is_pruned
        False
    """

    def __init__(self, trial: Trial, metric: str = "val_accuracy", *, warm_up: float = WARM_UP) -> None:
        self.trial, self.metric, self.warm_up = trial, metric, check_number("warm_up", warm_up, 0, 1)

    @property
    def pruned(self) -> bool:
        """Whether the trial was pruned."""
        return self.trial.is_pruned

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.metric not in (logs or {}):
            raise ValueError(unknown_name("metric", self.metric, list(logs or {})))
        self.trial.report((logs or {})[self.metric], epoch)
        if self.trainer is None:
            return
        state = self.trainer.state
        if self.warm_up * state.num_epochs < epoch + 1 < state.num_epochs and self.trial.should_prune():
            self.trial.is_pruned = state.should_stop = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Mark a training that a signal interrupted, since its score is not a result."""
        state = getattr(self.trainer, "state", None)
        if state is not None and state.interrupted:  # equal on all ranks; the signal may have reached only one
            self.trial.interrupted_by = state.interrupted_by or signal.SIGTERM


@dataclass(frozen=True)
class Outcome:
    """The result of a candidate: a score or a failure; neither if it was pruned."""

    score: float | None = None
    failure: str | None = None
