"""What to do about a loss that is no number, before it reaches the weights."""

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

logger = logging.getLogger(__name__)

MAX_NAMES_SHOWN = 8
MAX_PENDING_LOSSES = 256  # losses on an accelerator, until they are read together


class NonFiniteLossError(ValueError):
    """Training has come to a loss, or to weights, that are infinite or no numbers."""


class LossGuard:
    """Refuses training batches whose loss is not finite, and weights that are not.

    On a CPU every loss is looked at before its gradient is taken, which costs nothing. On an accelerator `'raise'`
    would have to wait for every step, so the losses of up to 256 batches are read together, and always before the
    weights are used or saved; the weights in memory are spoilt then, those on disk are not. `'skip'` waits.

    Args:
        model: whose weights are guarded.
        run: the network's outputs for a batch, in the precision of the training.
        on_nonfinite: `'raise'`; `'skip'` leaves the batch out, with a warning in the log; None lets everything pass.
        max_skipped: batches that may be left out in an epoch, >= 0; one more raises.
        sources: asked for the names of the recordings, in the order of the metadata `recording`; "" where one is
            unknown.
        remedy: what the error advises, unless the signals themselves are not finite.

    Attributes:
        skipped: batches left out in this epoch.

    Raises:
        ValueError: an argument out of its range.

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
        self._unread: list[tuple[int, torch.Tensor, Batch | None]] = []
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def begin(self, epoch: int, skipped: int = 0) -> None:
        """An epoch begins, or goes on after `skipped` batches left out."""
        self.epoch, self.skipped = epoch, skipped
        self._unread = []

    def accept(self, index: int, result: StepResult) -> bool:
        """Whether the result of batch `index` may change the weights.

        Raises:
            NonFiniteLossError: it may not, and it is not to be skipped; the message names the batch, its rows and
                recordings, and the first module with an output that is not finite.
        """
        if self.on_nonfinite is None:
            return True
        if self.on_nonfinite == "raise" and not result.loss.is_cpu:
            self._unread.append((index, result.loss.detach(), _names(result.batch)))
            if len(self._unread) == MAX_PENDING_LOSSES:
                self._read()
            return True
        loss = result.loss.item()
        is_finite = math.isfinite(loss)
        if self.on_nonfinite == "skip":  # several processes leave a batch out together
            is_finite = not all_reduce_any(not is_finite)
        if not is_finite:
            whose = f"the loss is {loss:g}{self._explain(result.batch)}"
            if math.isfinite(loss):
                whose = "another process has a loss that is not finite"
            self._refuse(f"{self._position(index)}: {whose}", self._remedy(result.batch))
        return is_finite

    def protecting(self, step: Callable[[Any], StepResult]) -> Callable[[Any], StepResult]:
        """`step`, such that a batch left out leaves no trace in the running means of normalisations either."""
        if self.on_nonfinite != "skip":
            return step
        persistent = self.model.state_dict().keys()
        buffers = [buffer for name, buffer in self.model.named_buffers() if name in persistent]

        def protected(batch: Any) -> StepResult:
            self._kept = [(buffer, buffer.clone()) for buffer in buffers]
            return step(batch)

        return protected

    def check(self, n_batches: int) -> None:
        """Before the weights after `n_batches` batches are used or saved: all losses are read, all weights finite.

        Raises:
            NonFiniteLossError: one is not.
        """
        if self.on_nonfinite is None:
            return
        self._read()
        weights = [p.detach() for p in self.model.parameters() if p.is_floating_point() and p.numel()]
        if weights and not torch.nn.utils.get_total_norm(weights, math.inf).isfinite():
            raise NonFiniteLossError(
                f"{self._position(n_batches - 1)}: a weight is infinite or no number, after a loss that was finite: "
                f"a gradient was not, or the learning rate is too high{self._remedy(None)}"
            )

    def _remedy(self, batch: Batch | None) -> str:
        """Advice, where training and not the data may be to blame."""
        has_bad_signals = batch is not None and not batch.signals.isfinite().all()
        return f"; {self.remedy}" if self.remedy and not has_bad_signals else ""

    def _position(self, index: int) -> str:
        return f"epoch {self.epoch}, batch {index}"

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        if not unread:
            return
        finite = torch.stack([loss for _, loss, _ in unread]).isfinite().tolist()
        if not all(finite):
            index, loss, batch = unread[finite.index(False)]
            raise NonFiniteLossError(
                f"{self._position(index)}: the loss is {loss.item():g}{self._recordings(batch, [])}; the weights in "
                "memory are spoilt, a checkpoint from before is not; resumed with on_nonfinite='skip', the training "
                f"names rows and module{self._remedy(None)}"
            )

    def _refuse(self, message: str, remedy: str) -> None:
        if self.on_nonfinite == "raise":
            raise NonFiniteLossError(message + remedy)
        with torch.no_grad():
            for buffer, before in self._kept:
                buffer.copy_(before)
        self.skipped += 1
        if self.skipped > self.max_skipped:
            raise NonFiniteLossError(f"{message}; {self.max_skipped} batches of this epoch are skipped already{remedy}")
        logger.warning("%s; the batch is skipped", message)

    def _explain(self, batch: Batch | None) -> str:
        """Rows, recordings and module to blame, as far as they can be told."""
        if batch is None:
            return ""
        outputs: list[Any] = []
        with torch.no_grad():
            module = first_nonfinite_module(self.model, lambda: outputs.append(self.run(batch)))
        rows = _bad_rows(batch.signals) or _bad_rows(*outputs)
        blamed = f"; the first output that is not finite is that of {module!r}" if module else ""
        return f"{_listed('row', rows)}{self._recordings(batch, rows)}{blamed}"

    def _recordings(self, batch: Batch | None, rows: list[int]) -> str:
        """Where the rows, or all of them, come from."""
        if batch is None or "recording" not in batch.metadata:
            return ""
        indices = batch.metadata["recording"].tolist()
        sources = dict(enumerate(self.sources()))  # an index below zero is an unlabelled recording's
        recordings = [sources.get(index) or str(index) for index in indices]
        starts = batch.metadata["start"].tolist() if "start" in batch.metadata else None
        rows = rows or list(range(len(recordings)))
        places = [recordings[i] if starts is None else f"{recordings[i]} from sample {starts[i]}" for i in rows]
        return _listed("recording", list(dict.fromkeys(places)))


def _bad_rows(values: Any = None) -> list[int]:
    """Rows with a number that is not finite, unless all rows have one."""
    if not isinstance(values, torch.Tensor) or values.ndim == 0:
        return []
    bad = ~values.detach().flatten(1).isfinite().all(1) if values.ndim > 1 else ~values.detach().isfinite()
    rows = bad.nonzero().flatten().tolist()
    return rows if len(rows) < len(bad) else []


def _names(batch: Batch | None) -> Batch | None:
    """Of a batch, what names it, without its signals."""
    if batch is None:
        return None
    metadata = {name: batch.metadata[name] for name in ("recording", "start") if name in batch.metadata}
    return Batch(batch.targets, batch.targets, metadata)


def _listed(what: str, items: list[Any]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - MAX_NAMES_SHOWN} more" if len(items) > MAX_NAMES_SHOWN else ""
    return f"; {what}{'s' if len(items) > 1 else ''} {', '.join(map(str, items[:MAX_NAMES_SHOWN]))}{more}"
