"""The only training loop: one function over batches, one over epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

from whirl.engine.batch import Batch
from whirl.engine.callbacks import CallbackList
from whirl.engine.consensus import agree_on_stop
from whirl.engine.distributed import gather
from whirl.engine.epoch_metrics import EpochMetrics
from whirl.engine.state import TrainingState
from whirl.engine.updater import Updater

NO_HOOKS = CallbackList()


@dataclass(slots=True)
class StepResult:
    """The result of the forward pass for one batch.

    Attributes:
        loss: mean loss over the batch, with its graph; 0-dimensional.
        count: number of samples in the batch.
        correct: number of correct predictions, 0-dimensional on the device; None if nothing is classified.
        n_scored: number of predictions that could be correct, 0-dimensional; None if it is `count`.
        weight: what the mean loss divides by, e.g. a sum of class weights, 0-dimensional; None if it is `count`.
        components: named terms of the loss or other means over the batch, 0-dimensional, detached.
        batch: what the network was given, kept for diagnostics (`LossGuard`).
        predictions: outputs and targets for the metrics of the epoch; None if there are none.
    """

    loss: torch.Tensor
    count: int
    correct: torch.Tensor | None = None
    n_scored: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    components: dict[str, torch.Tensor] = field(default_factory=dict)
    batch: Batch | None = None
    predictions: tuple[torch.Tensor, torch.Tensor] | None = None


def split_loss(loss: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Split what a criterion or `compute_loss` returns, `loss` or `(loss, components)`, into loss and components.

    Raises:
        TypeError: the loss is not a tensor.
        ValueError: the loss is not a scalar.
    """
    loss, components = loss if isinstance(loss, tuple) else (loss, {})
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"the loss is a {type(loss).__name__}, expected a tensor: the mean over the batch")
    if loss.ndim:
        raise ValueError(f"the loss has shape {list(loss.shape)}, expected a scalar: set reduction='mean'")
    return loss, components


class Tally:
    """Running sums over an epoch, on the device until `means` reads them in one transfer.

    Args:
        metrics: metrics to compute from the predictions of the epoch; None computes none.

    Example:
        >>> tally = Tally()
        >>> tally.add(StepResult(torch.tensor(1.0), count=3, correct=torch.tensor(3)))
        >>> tally.add(StepResult(torch.tensor(5.0), count=1, correct=torch.tensor(0)))
        >>> tally.means()
        {'loss': 2.0, 'accuracy': 0.75}
    """

    def __init__(self, metrics: EpochMetrics | None = None) -> None:
        self.metrics = metrics
        self.n_batches = 0
        self.counts: dict[str, int | torch.Tensor] = {}
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, result: StepResult) -> None:
        """Add one batch."""
        self.n_batches += 1
        loss = result.loss.detach()
        if result.weight is None:
            self._add("loss", loss, result.count, result.count)
        else:
            self._add("loss", loss * result.weight, 1, result.weight)
        if result.correct is not None:
            self._add("accuracy", result.correct, 1, result.count if result.n_scored is None else result.n_scored)
        if self.metrics is not None and result.predictions is not None:
            self.metrics.add(*result.predictions)
        for name, value in result.components.items():
            self._add(name, value.detach(), result.count, result.count)

    def _add(self, name: str, value: torch.Tensor, factor: int, count: int | torch.Tensor) -> None:
        if name not in self.sums:
            # float64 sums a million float32 terms without visible rounding; the MPS backend does not have it.
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            self.sums[name] = torch.zeros((), dtype=dtype, device=value.device)
            self.counts[name] = 0
        self.sums[name].add_(value, alpha=factor)
        self.counts[name] += count

    def means(self, source: str = "") -> dict[str, float]:
        """Return the means over all samples that had each value, in all processes; NaN if all of them are ignored.

        Args:
            source: what yielded the batches, for the error message; "" returns an empty dict if there was no batch.

        Raises:
            ValueError: there was no batch, or all of them were skipped, and `source` is given.
        """
        sums = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        counts = [count.item() if isinstance(count, torch.Tensor) else count for count in self.counts.values()]
        per_process = gather(list(zip(self.sums, sums, counts, strict=True)))
        totals: dict[str, tuple[float, float]] = {}
        for name, total, count in chain.from_iterable(per_process):
            before = totals.get(name, (0.0, 0.0))
            totals[name] = before[0] + total, before[1] + count
        if source and not totals and self.n_batches:
            raise ValueError(f"all {self.n_batches} batches of {source} were skipped, as their loss is not finite")
        if source and not totals:
            raise ValueError(f"{source} yielded no batch: it is empty, or an iterator that can be used only once")
        means = {name: total / count if count else math.nan for name, (total, count) in totals.items()}
        return means if self.metrics is None else means | self.metrics.compute()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint in the middle of an epoch."""
        metrics = {} if self.metrics is None else {"metrics": self.metrics.state_dict()}
        return {"n_batches": self.n_batches, "counts": dict(self.counts), "sums": dict(self.sums), **metrics}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` returned; the sums go to `device`."""
        self.n_batches = state["n_batches"]
        self.counts = {
            name: count.to(device) if isinstance(count, torch.Tensor) else count
            for name, count in state["counts"].items()
        }
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        if self.metrics is not None:
            self.metrics.load_state_dict(state.get("metrics", {}), device)


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
    """Iterate once over `batches`: train with an updater, evaluate without.

    Args:
        batches: anything that `step` accepts.
        step: computes loss and number of correct predictions of one batch.
        updater: turns losses into optimizer steps; None evaluates without gradients.
        hooks: run `on_batch_begin` and `on_batch_end`.
        tally: sums of an interrupted epoch to continue; `batches` are then the remaining ones.
        accept_batch: called with index and result of each batch; a rejected batch changes no weight and no sum.
        should_stop: called after each batch that leaves no accumulation window open; True ends the epoch.

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
                    updater(result.loss, result.count, result.weight)
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
    after_begin: Callable[[], None] = lambda: None,
    extra_logs: Callable[[], dict[str, float]] = dict,
    step_schedule: Callable[[dict[str, float]], None] = lambda logs: None,
    save: Callable[[dict[str, float], bool], None] = lambda logs, is_best: None,
) -> None:
    """Run epochs until `state.num_epochs`, a stop or an interruption.

    An epoch is: train, validate, callbacks, learning-rate schedule, save. When an epoch is interrupted among its
    training batches, the rest of it is left out.

    Args:
        state: progress of the training, updated in place.
        train_epoch: trains one epoch and returns its means.
        validate_epoch: validates and returns the means; None without validation data.
        callbacks: run the hooks of training and epochs; `on_train_end` also runs when training fails.
        after_begin: called after `on_train_begin`.
        extra_logs: returns further numbers for the logs, e.g. the learning rate; called after validation.
        step_schedule: called with the logs at the end of the epoch.
        save: called with the logs and whether the validation loss is the lowest so far; the epoch is counted already.
    """
    try:
        callbacks.on_train_begin()
        after_begin()
        while state.epoch < state.num_epochs and not (state.should_stop or state.interrupted):
            callbacks.on_epoch_begin(state.epoch)
            began = time.perf_counter()
            logs = {f"train_{name}": value for name, value in train_epoch().items()}
            if state.interrupted:
                break
            if validate_epoch is not None:
                logs |= {f"val_{name}": value for name, value in validate(validate_epoch, callbacks).items()}
            logs |= extra_logs() | {"epoch_time_s": time.perf_counter() - began}
            is_best = state.record(logs)
            callbacks.on_epoch_end(state.epoch, logs)
            state.record(logs)  # with what the callbacks have added
            state.epoch += 1
            step_schedule(logs)
            agree_on_stop(state)
            save(logs, is_best)
    finally:
        callbacks.on_train_end()


def validate(validate_epoch: Callable[[], dict[str, float]], callbacks: CallbackList) -> dict[str, float]:
    """Validate between the hooks of validation, and return the means."""
    callbacks.on_validation_begin()
    try:
        return validate_epoch()
    finally:
        callbacks.on_validation_end()
