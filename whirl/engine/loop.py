"""The one loop over batches, and the one over epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

from whirl.engine.batch import Batch
from whirl.engine.callbacks import CallbackList
from whirl.engine.distributed import gather
from whirl.engine.state import TrainingState
from whirl.engine.updater import Updater

NO_HOOKS = CallbackList()


@dataclass(slots=True)
class StepResult:
    """What a step makes of one batch.

    Attributes:
        loss: mean loss over the batch, with its graph; 0-dimensional.
        count: samples in the batch.
        correct: number of right predictions, 0-dimensional on the device; None where nothing is classified.
        components: named parts of the loss or further means over the batch, 0-dimensional, detached.
        batch: what the network saw, for whoever has to explain the loss.
    """

    loss: torch.Tensor
    count: int
    correct: torch.Tensor | None = None
    components: dict[str, torch.Tensor] = field(default_factory=dict)
    batch: Batch | None = None


class Tally:
    """Running sums over an epoch; they stay on the device until `means` reads them, once.

    Example:
        >>> tally = Tally()
        >>> tally.add(StepResult(torch.tensor(1.0), count=3, correct=torch.tensor(3)))
        >>> tally.add(StepResult(torch.tensor(5.0), count=1, correct=torch.tensor(0)))
        >>> tally.means()
        {'loss': 2.0, 'accuracy': 0.75}
    """

    def __init__(self) -> None:
        self.n_batches = 0
        self.counts: dict[str, int] = {}
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, result: StepResult) -> None:
        """Count one batch in."""
        self.n_batches += 1
        loss = result.loss.detach()
        self._add("loss", loss, result.count, result.count, loss.device)
        if result.correct is not None:
            self._add("accuracy", result.correct, 1, result.count, loss.device)
        for name, value in result.components.items():
            self._add(name, value.detach(), result.count, result.count, loss.device)

    def _add(self, name: str, value: torch.Tensor, weight: int, count: int, device: torch.device) -> None:
        if name not in self.sums:
            # float64 keeps a million float32 terms exact enough; the MPS backend has none.
            dtype = torch.float32 if device.type == "mps" else torch.float64
            self.sums[name] = torch.zeros((), dtype=dtype, device=device)
            self.counts[name] = 0
        self.sums[name].add_(value, alpha=weight)
        self.counts[name] += count

    def means(self) -> dict[str, float]:
        """Means over the samples that had each number, of all processes, in one read from the device.

        Empty before the first batch.
        """
        sums = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        everyone = gather(list(zip(self.sums, sums, self.counts.values(), strict=True)))
        totals: dict[str, tuple[float, int]] = {}
        for name, total, count in chain.from_iterable(everyone):
            before = totals.get(name, (0.0, 0))
            totals[name] = before[0] + total, before[1] + count
        return {name: total / count for name, (total, count) in totals.items()}

    def state_dict(self) -> dict[str, Any]:
        """The sums, for a checkpoint in mid-epoch."""
        return {"n_batches": self.n_batches, "counts": dict(self.counts), "sums": dict(self.sums)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take back what `state_dict` gave, on the device of the losses to come."""
        self.n_batches, self.counts = state["n_batches"], dict(state["counts"])
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}


def run_epoch(
    batches: Iterable[Any],
    step: Callable[[Any], StepResult],
    updater: Updater | None = None,
    hooks: CallbackList = NO_HOOKS,
    *,
    tally: Tally | None = None,
    accept_batch: Callable[[int, StepResult], bool] = lambda index, result: True,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tally:
    """One pass over `batches`: training with an updater, evaluation without.

    Args:
        batches: whatever `step` takes.
        step: computes loss and hits of one batch.
        updater: turns losses into optimizer steps; None leaves the weights alone and gradients off.
        hooks: get `on_batch_begin` and `on_batch_end`.
        tally: sums of an interrupted epoch to go on from; `batches` then begins where it left off.
        accept_batch: asked of each batch's index and result; a batch that it refuses changes no weight and no sum.
        should_stop: asked after each batch that leaves no accumulation window open; True ends the pass.

    Returns:
        The sums over the epoch; `means()` reads them.

    Example:
        >>> run_epoch([1.0, 3.0], lambda x: StepResult(torch.tensor(x), count=1)).means()
        {'loss': 2.0}
    """
    tally = Tally() if tally is None else tally
    on_begin = hooks.on_batch_begin if hooks.has_hook("on_batch_begin") else None
    if updater is not None:
        updater.begin()
    on_end = hooks.on_batch_end if hooks.has_hook("on_batch_end") else None
    with torch.set_grad_enabled(updater is not None):
        for index, batch in enumerate(batches, start=tally.n_batches):
            if on_begin is not None:
                on_begin(index)
            result = step(batch)
            if accept_batch(index, result):
                if updater is not None:
                    updater(result.loss, result.count)
                tally.add(result)
            else:
                tally.n_batches += 1
            if on_end is not None:
                on_end(index, {"loss": result.loss.detach()})
            if (updater is None or updater.pending == 0) and should_stop():
                return tally
    if updater is not None:
        updater.flush()
    return tally


def fit_epochs(
    state: TrainingState,
    *,
    train_epoch: Callable[[], dict[str, float]],
    validate_epoch: Callable[[], dict[str, float]] | None,
    callbacks: CallbackList,
    extra_logs: Callable[[], dict[str, float]] = dict,
    after_begin: Callable[[], None] = lambda: None,
    after_epoch: Callable[[dict[str, float], bool], None] = lambda logs, is_best: None,
) -> None:
    """Epochs until `state.num_epochs`, a stop or an interruption, with hooks, validation and history.

    Args:
        state: where training stands; moved on in place.
        train_epoch: trains one epoch, returns its means.
        validate_epoch: validates, returns its means; None without validation data.
        callbacks: get the hooks of training and epochs; `on_train_end` also when training fails.
        extra_logs: further numbers for the logs (the learning rate), asked after the epoch.
        after_begin: called when the callbacks have heard of the beginning.
        after_epoch: called with the logs and whether the validation loss is the lowest so far, after the
            callbacks and with the epoch counted, e.g. to save.
    """
    try:
        callbacks.on_train_begin()
        after_begin()
        while state.epoch < state.num_epochs and not (state.should_stop or state.interrupted):
            logs = _one_epoch(state, train_epoch, validate_epoch, callbacks, extra_logs)
            if logs is None:
                return
            is_best = state.record(logs)
            callbacks.on_epoch_end(state.epoch, logs)
            state.epoch += 1
            after_epoch(logs, is_best)
    finally:
        callbacks.on_train_end()


def _one_epoch(
    state: TrainingState,
    train_epoch: Callable[[], dict[str, float]],
    validate_epoch: Callable[[], dict[str, float]] | None,
    callbacks: CallbackList,
    extra_logs: Callable[[], dict[str, float]],
) -> dict[str, float] | None:
    """Logs of one epoch; None when it was interrupted among its training batches."""
    callbacks.on_epoch_begin(state.epoch)
    began = time.perf_counter()
    logs = {f"train_{name}": value for name, value in train_epoch().items()}
    if state.interrupted:
        return None
    if validate_epoch is not None:
        logs |= {f"val_{name}": value for name, value in validate_epoch().items()}
    return logs | extra_logs() | {"epoch_time_s": time.perf_counter() - began}
