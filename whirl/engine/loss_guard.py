"""Detect a non-finite loss before it reaches the weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from whirl.engine.batch import Batch
from whirl.engine.distributed import all_reduce_any
from whirl.engine.loop import StepResult
from whirl.engine.nonfinite import first_nonfinite_module
from whirl.engine.precision import FullPrecision

logger = logging.getLogger(__name__)

MAX_NAMES_SHOWN = 8
MAX_PENDING_LOSSES = 256
"""Losses on an accelerator that may wait to be read together."""


class NonFiniteLossError(ValueError):
    """The loss or a weight has become infinite or NaN."""


class LossGuard:
    """Rejects training batches whose loss is not finite, and checks that the weights are.

    On a CPU every loss is checked before its gradient is computed, which costs nothing. On an accelerator the check
    would wait for every step, so `'raise'` reads up to 256 losses together, and always before the weights are used or
    saved: the weights in memory may be NaN by then, those on disk are not. `'skip'` waits for every step.

    Args:
        model: the network whose weights are checked.
        run: returns the network's outputs for a batch, in the precision of the training.
        on_nonfinite: `'raise'`; `'skip'` leaves the batch out with a warning in the log; None disables all checks.
        max_skipped: batches that may be skipped per epoch, >= 0; one more raises.
        sources: returns the file names of the recordings, indexed by the metadata `recording`; "" if unknown.
        remedy: advice at the end of the error message, unless the signals themselves are not finite.

    Attributes:
        skipped: batches skipped in this epoch.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> guard = LossGuard(nn.Linear(1, 1), run=lambda batch: None, on_nonfinite="raise")
        >>> guard.accept(0, StepResult(torch.tensor(0.7), count=4))
        True
        >>> guard.accept(1, StepResult(torch.tensor(float("nan")), count=4))
        Traceback (most recent call last):
        ...
        whirl.engine.loss_guard.NonFiniteLossError: epoch 0, batch 1: the loss is nan
    """

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[Batch], Any],
        on_nonfinite: str | None,
        max_skipped: int = 10,
        sources: Callable[[], Sequence[str]] = tuple,
        remedy: str = "",
    ) -> None:
        if on_nonfinite not in ("raise", "skip", None):
            raise ValueError(f"on_nonfinite is {on_nonfinite!r}, expected 'raise', 'skip' or None")
        if type(max_skipped) is not int or max_skipped < 0:
            raise ValueError(f"max_skipped is {max_skipped!r}, expected an integer >= 0")
        self.model = model
        self.run = run
        self.on_nonfinite = on_nonfinite
        self.max_skipped = max_skipped
        self.sources = sources
        self.remedy = remedy
        self.skipped = self.epoch = 0
        self._pending: list[tuple[int, torch.Tensor, Batch | None]] = []
        self._buffers_before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def begin(self, epoch: int, skipped: int = 0) -> None:
        """Start an epoch, or continue one in which `skipped` batches have been skipped."""
        self.epoch, self.skipped = epoch, skipped
        self._pending = []

    def accept(self, index: int, result: StepResult) -> bool:
        """Return whether the result of batch `index` may change the weights.

        Raises:
            NonFiniteLossError: the loss is not finite and may not be skipped; the message names the batch, its rows
                and recordings, and the first module with a non-finite output.
        """
        if self.on_nonfinite is None:
            return True
        if self.on_nonfinite == "raise" and not result.loss.is_cpu:
            self._pending.append((index, result.loss.detach(), _without_signals(result.batch)))
            if len(self._pending) == MAX_PENDING_LOSSES:
                self._read_pending()
            return True
        loss = result.loss.item()
        is_finite = math.isfinite(loss)
        if self.on_nonfinite == "skip":  # all processes skip the same batches
            is_finite = not all_reduce_any(not is_finite)
        if not is_finite:
            cause = f"the loss is {loss:g}{self._explain(result.batch)}"
            if math.isfinite(loss):
                cause = "the loss of another process is not finite"
            self._raise_or_skip(f"{self._position(index)}: {cause}", self._remedy(result.batch))
        return is_finite

    def protecting(self, step: Callable[[Any], StepResult]) -> Callable[[Any], StepResult]:
        """Return `step`, changed so that a skipped batch does not change the running means of normalization layers."""
        if self.on_nonfinite != "skip":
            return step
        persistent = self.model.state_dict().keys()
        buffers = [buffer for name, buffer in self.model.named_buffers() if name in persistent]

        def protected(batch: Any) -> StepResult:
            self._buffers_before = [(buffer, buffer.clone()) for buffer in buffers]
            return step(batch)

        return protected

    def check(self, n_batches: int) -> None:
        """Check all losses and weights after `n_batches` batches, before the weights are used or saved.

        Raises:
            NonFiniteLossError: one of them is not finite.
        """
        if self.on_nonfinite is None:
            return
        self._read_pending()
        weights = [p.detach() for p in self.model.parameters() if p.is_floating_point() and p.numel()]
        if weights and not torch.nn.utils.get_total_norm(weights, math.inf).isfinite():
            raise NonFiniteLossError(
                f"{self._position(n_batches - 1)}: a weight is infinite or NaN although the loss was finite: a "
                f"gradient was not finite, or the learning rate is too high{self._remedy(None)}"
            )

    def _remedy(self, batch: Batch | None) -> str:
        """Return the advice, if the cause may be the training and not the data."""
        has_bad_signals = batch is not None and not batch.signals.isfinite().all()
        return f"; {self.remedy}" if self.remedy and not has_bad_signals else ""

    def _position(self, index: int) -> str:
        return f"epoch {self.epoch}, batch {index}"

    def _read_pending(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        finite = torch.stack([loss for _, loss, _ in pending]).isfinite().tolist()
        if not all(finite):
            index, loss, batch = pending[finite.index(False)]
            raise NonFiniteLossError(
                f"{self._position(index)}: the loss is {loss.item():g}{self._recordings(batch, [])}; the weights in "
                "memory may be NaN, the last checkpoint is not affected; resume with on_nonfinite='skip' to find the "
                f"rows and the module{self._remedy(None)}"
            )

    def _raise_or_skip(self, message: str, remedy: str) -> None:
        if self.on_nonfinite == "raise":
            raise NonFiniteLossError(message + remedy)
        with torch.no_grad():
            for buffer, before in self._buffers_before:
                buffer.copy_(before)
        self.skipped += 1
        if self.skipped > self.max_skipped:
            raise NonFiniteLossError(
                f"{message}; {self.max_skipped} batches of this epoch have been skipped already{remedy}"
            )
        logger.warning("%s; skipping the batch", message)

    def _explain(self, batch: Batch | None) -> str:
        """Name the rows, recordings and module that caused the loss, as far as they can be found."""
        if batch is None:
            return ""
        outputs: list[Any] = []
        with torch.no_grad():
            module = first_nonfinite_module(self.model, lambda: outputs.append(self.run(batch)))
        rows = _nonfinite_rows(batch.signals) or _nonfinite_rows(*outputs)
        found = f"; first non-finite output in module {module!r}" if module else ""
        return f"{_listed('row', rows)}{self._recordings(batch, rows)}{found}"

    def _recordings(self, batch: Batch | None, rows: list[int]) -> str:
        """Name the recordings that the rows, or all rows, come from."""
        if batch is None or "recording" not in batch.metadata:
            return ""
        indices = _listed_values(batch.metadata["recording"])
        sources = dict(enumerate(self.sources()))  # unlabeled recordings have negative indices
        recordings = [sources.get(index) or str(index) for index in indices]
        starts = _listed_values(batch.metadata["start"]) if "start" in batch.metadata else None
        rows = rows or list(range(len(recordings)))
        places = [recordings[i] if starts is None else f"{recordings[i]} from sample {starts[i]}" for i in rows]
        return _listed("recording", list(dict.fromkeys(places)))


def recording_sources(loader: Any) -> Sequence[str]:
    """Return the file names of the recordings that a loader's windows are cut from; empty if they are unknown.

    Data sets around others are searched too. Several loaders must agree, as a batch does not name its loader.
    """
    if hasattr(loader, "loaders"):
        parts = {tuple(recording_sources(part)) for part in loader.loaders.values()}
        return parts.pop() if len(parts) == 1 else ()
    data = getattr(loader, "dataset", None)
    while data is not None and not hasattr(data, "sources"):
        data = getattr(data, "dataset", getattr(data, "base_dataset", None))
    return getattr(data, "sources", ())


def remedy_for(precision: FullPrecision) -> str:
    """Return what to try after a non-finite loss in this precision."""
    if precision.name == FullPrecision.name:
        return "try a lower learning rate (--lr)"
    return "try full precision (--precision 32, mixed_precision=False)"


def _nonfinite_rows(values: Any = None) -> list[int]:
    """Return the rows with a non-finite value, or none if all rows have one."""
    if not isinstance(values, torch.Tensor) or values.ndim == 0:
        return []
    bad = ~values.detach().flatten(1).isfinite().all(1) if values.ndim > 1 else ~values.detach().isfinite()
    rows = bad.nonzero().flatten().tolist()
    return rows if len(rows) < len(bad) else []


def _listed_values(values: Any) -> list[Any]:
    """Return metadata, a tensor or a list such as one of file names, as a list."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _without_signals(batch: Batch | None) -> Batch | None:
    """Return a batch that still names its recordings but does not keep the signals in memory."""
    if batch is None:
        return None
    metadata = {name: batch.metadata[name] for name in ("recording", "start") if name in batch.metadata}
    return Batch(batch.targets, batch.targets, metadata)


def _listed(what: str, items: list[Any]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - MAX_NAMES_SHOWN} more" if len(items) > MAX_NAMES_SHOWN else ""
    return f"; {what}{'s' if len(items) > 1 else ''} {', '.join(map(str, items[:MAX_NAMES_SHOWN]))}{more}"
