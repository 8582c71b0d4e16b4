"""Checkpoint files of a training run, written in the background."""

from __future__ import annotations

import copy
import logging
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.engine.files import atomic_write, is_intact, load_checkpoint_file, pack_checkpoint
from whirl.engine.wrappers import load_weights_into

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
FORMAT = 2
SECONDS = {"s": 1, "min": 60, "h": 3600}


class SaveInterval:
    """Interval between checkpoints within an epoch.

    Args:
        every: a number of batches, or a time such as `'30s'`, `'10min'`, `'1.5h'`.

    Raises:
        ValueError: it has another form, or is not positive.

    Example:
        >>> interval = SaveInterval(100)
        >>> interval.begin(batch=0)
        >>> interval.is_due(batch=99), interval.is_due(batch=100)
        (False, True)
    """

    def __init__(self, every: int | str) -> None:
        self.n_batches: float = math.inf
        self.seconds: float = math.inf
        if isinstance(every, str):
            self.seconds = _seconds(every)
        else:
            self.n_batches = every
        if isinstance(every, bool) or not isinstance(every, (int, str)) or min(self.n_batches, self.seconds) <= 0:
            raise ValueError(
                f"checkpoint_every is {every!r}, expected a number of batches >= 1 or a time such as '30s' or '10min'"
            )
        self.begin(0)

    def begin(self, batch: int) -> None:
        """Start the interval after `batch` batches of the epoch, e.g. when a checkpoint has been saved."""
        self._batch, self._time = batch, time.monotonic()

    def is_due(self, batch: int) -> bool:
        """Return whether the next checkpoint is due after `batch` batches of the epoch."""
        since = batch - self._batch if batch >= self._batch else batch  # a new epoch counts from its start
        return since >= self.n_batches or time.monotonic() - self._time >= self.seconds


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    return float(found[1]) * SECONDS[found[2]] if found else -1.0


class CheckpointWriter:
    """Write `last.pt`, and `best.pt` for the best state, in the background.

    `save` copies the state to main memory and returns; a thread writes the files one at a time. A save that is
    requested while another is being written waits; a newer one replaces it. `best.pt` is written before the `last.pt`
    that refers to it. The `last.pt` before is kept as `previous.pt` if it is intact.

    If a file cannot be written, a warning is logged, the existing files stay intact, and the next save tries again. As
    a context manager the writer waits at the end of the block until everything is on disk, and raises if it still
    cannot be written. When the block raises an error, it waits without raising; on `KeyboardInterrupt` and
    `SystemExit` it drops the waiting saves. Before this process forks, e.g. to
    start the workers of a loader, it waits until nothing is being written.

    Args:
        folder: where to write; created at the first save. Use it for one training run at a time.

    Attributes:
        is_busy: whether something is being written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, CheckpointWriter(folder) as writer:
        ...     writer.save({"model": {"weight": torch.ones(3)}}, {"epoch": 1}, is_best=True)
        ...     writer.wait()
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['best.pt', 'last.pt']
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, dict[str, Any]] = {}  # by file name
        self._wrote_last = False
        _WRITERS.add(self)

    @property
    def is_busy(self) -> bool:
        return self._thread is not None

    def save(self, state: dict[str, Any], metadata: dict[str, Any], is_best: bool) -> None:
        """Copy the state, and write it as `last.pt`, and as `best.pt` if `is_best`."""
        checkpoint = {"format": FORMAT, "metadata": to_cpu(metadata), "training": to_cpu(state)}
        with self._lock:
            self._waiting |= dict.fromkeys([BEST, LAST] if is_best else [LAST], checkpoint)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoint writer")
                self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def finish(self) -> None:
        """Wait until every requested save is on disk; one that failed is tried once more.

        Raises:
            OSError: a file cannot be written; `filename` is its path.
        """
        self.wait()
        waiting, self._waiting = self._waiting, {}
        self._write(waiting)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif issubclass(kind, Exception):
            self.wait()
        else:
            self._waiting = {}

    def _work(self) -> None:
        while waiting := self._take():
            try:
                self._write(waiting)
            except Exception as error:
                self._release(waiting)
                logger.warning(
                    "%s: this checkpoint could not be written; training continues and the next save tries again: %s",
                    self.folder / LAST, error,
                )  # fmt: skip
                return

    def _take(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            if not waiting:
                self._thread = None
        return waiting

    def _release(self, failed: dict[str, dict[str, Any]]) -> None:
        with self._lock:
            self._waiting = failed | self._waiting
            self._thread = None

    def _write(self, waiting: dict[str, dict[str, Any]]) -> None:
        contents = {id(checkpoint): pack_checkpoint(checkpoint) for checkpoint in waiting.values()}
        if BEST in waiting:
            with atomic_write(self.folder / BEST) as file:
                file.write(contents[id(waiting[BEST])])
        if LAST in waiting:
            self._write_last(contents[id(waiting[LAST])])

    def _write_last(self, content: memoryview) -> None:
        if not self._wrote_last:
            self._remove_leftovers()
        # A file of another process may be damaged, and must not replace an intact previous.pt.
        keep = self._wrote_last or is_intact(self.folder / LAST)
        with atomic_write(self.folder / LAST, self.folder / PREVIOUS if keep else None) as file:
            file.write(content)
        self._wrote_last = True

    def _remove_leftovers(self) -> None:
        """Remove temporary files of a process that was killed while writing."""
        for name in (LAST, BEST):
            for leftover in self.folder.glob(f".{name}.*"):
                leftover.unlink(missing_ok=True)


_WRITERS: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def _wait_for_writers() -> None:
    """Wait before a fork: the child might inherit a lock that the writing thread holds and never releases there."""
    for writer in list(_WRITERS):
        writer.wait()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_wait_for_writers)


def to_cpu(value: Any) -> Any:
    """Copy tensors, and all containers around them, to main memory.

    NumPy scalars become Python numbers, as a checkpoint with NumPy objects could not be loaded.

    Example:
        >>> state = {"weight": torch.zeros(2), "history": [1.0]}
        >>> copied = to_cpu(state)
        >>> state["history"].append(2.0)
        >>> copied
        {'weight': tensor([0., 0.]), 'history': [1.0]}
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        copied: Any = copy.copy(value)  # keeps the type, and the version metadata of a state dict
        copied.clear()
        copied.update({to_cpu(key): to_cpu(item) for key, item in value.items()})
        return copied
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)([to_cpu(item) for item in value])
    return value


def save_training(folder: Path, state: dict[str, Any], metadata: dict[str, Any], is_best: bool) -> Path:
    """Save the state of a training run as `last.pt`, and as `best.pt` if `is_best`, atomically.

    Returns:
        The path of `last.pt`, which is then on disk.
    """
    writer = CheckpointWriter(folder)
    writer.save(state, metadata, is_best)
    writer.finish()
    return writer.folder / LAST


def load_training(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load the state and the metadata that `CheckpointWriter` or `save_training` saved.

    If `last.pt` is damaged or missing, the earlier `previous.pt` beside it is loaded, with a warning in the log.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or not the checkpoint of a training run.
    """
    path, checkpoint = _load_last(Path(path))
    if not isinstance(checkpoint, dict) or checkpoint.get("format") not in (1, FORMAT):
        raise ValueError(f"{path}: not a training checkpoint of format {FORMAT}")
    state, metadata = checkpoint.get("training"), checkpoint.get("metadata")
    if not isinstance(state, dict) or not isinstance(metadata, dict):
        raise ValueError(f"{path}: a training checkpoint without 'training' or 'metadata'")
    return state, metadata


def check_kinds(saved: dict[str, str], expected: dict[str, str]) -> None:
    """Validate that a checkpoint was saved with the same kinds of parts, e.g. the same class of optimizer.

    Raises:
        ValueError: the name of a part differs.

    Example:
        >>> check_kinds({"optimizer": "SGD"}, {"optimizer": "AdamW"})
        Traceback (most recent call last):
        ValueError: its optimizer is SGD, expected AdamW
    """
    for name, kind in expected.items():
        if saved[name] != kind:
            raise ValueError(f"its {name} is {saved[name]}, expected {kind}")


def _load_last(path: Path) -> tuple[Path, Any]:
    """Return path and content of a checkpoint file, or of `previous.pt` beside a damaged `last.pt`."""
    previous = path.with_name(PREVIOUS)
    try:
        return path, load_checkpoint_file(path)
    except (FileNotFoundError, ValueError) as error:
        if path.name != LAST or not is_intact(previous):
            raise
        logger.warning("%s; resuming from the checkpoint before it, %s", error, previous)
        return previous, load_checkpoint_file(previous)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load only the network's weights, from the checkpoint of a training run or of a callback, into `model`.

    If the training averaged its weights (callbacks `EMA` and `SWA`), these are the averaged ones, which were validated.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or has the weights of another network.
    """
    weights = read_weights(path)
    try:
        load_weights_into(model, weights)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: has the weights of another network: {error}") from error


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dict of the network that `load_weights` loads.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or has no weights.
    """
    checkpoint = load_checkpoint_file(path)
    try:
        training = checkpoint.get("training", checkpoint)
        averaged = training.get("evaluated")
        return training["callbacks"][averaged]["weights"] if averaged else training["model"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: has no weights of a network: {error}") from error
