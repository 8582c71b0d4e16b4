"""A trial as its objective sees it, and the callback that reports its epochs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whirl.engine.callbacks import Callback, Logs
from whirl.engine.distributed import all_reduce_any
from whirl.tuning.storage import import_optuna, retry

if TYPE_CHECKING:
    import optuna

WARM_UP = 2 / 3  # share of a training's epochs


@dataclass
class Trial:
    """A candidate that is being tried, as the objective sees it.

    Attributes:
        number: of the trial in its study.
        params: its parameters.
        is_pruned: whether it was ended early; set by `ReportToTrial`.
        is_lost: whether others took it for dead and run it anew, so that its score will not count.
        interrupted_by: number of the signal that ended its training; None where none did.
    """

    number: int
    params: dict[str, Any]
    handle: optuna.Trial | None = field(default=None, repr=False)  # the first rank alone has it
    is_pruned: bool = False
    is_lost: bool = False
    interrupted_by: int | None = None

    def report(self, value: float, step: int) -> None:
        """Tell the pruner a score on the way.

        Args:
            value: higher is better.
            step: >= 0, e.g. the epoch.
        """
        if (handle := self.handle) is not None:
            with self._unless_lost():
                retry(lambda: handle.report(value, step))

    def should_prune(self) -> bool:
        """Whether to end it now, the same on all ranks; each of them must ask."""
        wish = False
        if (handle := self.handle) is not None:
            with self._unless_lost():
                wish = retry(handle.should_prune)
        return all_reduce_any(wish or self.is_lost)

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        try:
            yield
        except import_optuna().exceptions.UpdateFinishedTrialError:
            self.is_lost = True


class ReportToTrial(Callback):
    """Tells a trial the score of each epoch, and ends the training when the pruner says so, on all ranks.

    Nothing is ended in the first two thirds of the epochs: under a schedule that lets the learning rate rise and fall,
    scores say nothing of the last one before (their rank correlation over candidates of `wdcnn` was near 0 up to epoch
    7 of 12 and 0.8 after it), and the median rule would drop half of all candidates by chance. Nor after the last
    epoch: its time is spent, and its score is one more to learn from.

    Args:
        trial: the trial, as the objective gets it.
        metric: name in the epoch's logs; higher is better.

    Raises:
        ValueError: at an epoch's end, the metric is not in the logs.

    Example:
        >>> trial = Trial(0, {"lr": 0.1})
        >>> ReportToTrial(trial).on_epoch_end(0, {"val_accuracy": 0.5})
        >>> trial.is_pruned
        False
    """

    def __init__(self, trial: Trial, metric: str = "val_accuracy") -> None:
        self.trial, self.metric = trial, metric

    @property
    def pruned(self) -> bool:
        """Whether the training was ended."""
        return self.trial.is_pruned

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.metric not in (logs or {}):
            raise ValueError(f"the epoch has no {self.metric!r} to report, only {', '.join(logs or {})}")
        self.trial.report((logs or {})[self.metric], epoch)
        if self.trainer is None:
            return
        state = self.trainer.state
        if WARM_UP * state.num_epochs < epoch + 1 < state.num_epochs and self.trial.should_prune():
            self.trial.is_pruned = state.should_stop = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """A training that a signal ended is not a result."""
        state = getattr(self.trainer, "state", None)
        if state is not None and state.interrupted:  # on which all ranks agree, but the signal may have come to one
            self.trial.interrupted_by = state.interrupted_by or signal.SIGTERM


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: a score, or none and why; without a reason it was pruned."""

    score: float | None = None
    failure: str | None = None
