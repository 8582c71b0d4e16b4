"""When and where a trainer saves its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from whirl.engine.checkpoint import LAST, CheckpointWriter, SaveInterval
from whirl.engine.distributed import all_reduce_any, is_main_process
from whirl.engine.files import find_unserializable


class Autosave:
    """Save checkpoints in a folder, from the main process and in the background; without a folder, do nothing.

    As a context manager it waits at the end of the block until everything is on disk (see `CheckpointWriter`).

    Args:
        folder: where `last.pt`, `best.pt` and `previous.pt` are saved; None saves nothing.
        every: interval within an epoch (see `SaveInterval`); None saves at the end of epochs only.

    Raises:
        ValueError: there is an interval but no folder, or the interval is invalid.

    Example:
        >>> autosave = Autosave(folder=None, every=None)
        >>> autosave.save(lambda: {"model": {}}, {"epoch": 1}, is_best=True)
        >>> autosave.is_due(n_batches=10_000)
        False
    """

    def __init__(self, folder: str | Path | None, every: int | str | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._writer = None if self.folder is None else CheckpointWriter(self.folder)
        self._interval = None if every is None else SaveInterval(every)
        if self._interval is not None and self._writer is None:
            raise ValueError(f"checkpoint_every is {every!r}, but checkpoint_dir is None: give a folder to save in")

    @property
    def is_enabled(self) -> bool:
        """Whether there is a folder to save in."""
        return self._writer is not None

    def check(self, state_dict: Callable[[], dict[str, Any]]) -> None:
        """Raise before the first epoch if saving would fail.

        Args:
            state_dict: returns the state that will be saved.

        Raises:
            ValueError: some processes have a folder and others do not, so they would wait for each other.
            TypeError: the state holds something that could not be loaded again.
        """
        if all_reduce_any(not self.is_enabled) != (not self.is_enabled):
            raise ValueError("checkpoint_dir is None in some processes: give it to all of them; only rank 0 writes")
        unserializable = find_unserializable(state_dict()) if self.is_enabled else None
        if unserializable:
            raise TypeError(f"checkpoints hold tensors and plain data, not this trainer's {unserializable}")

    def begin_interval(self, batch: int) -> None:
        """Start the next interval after `batch` batches of the epoch."""
        if self._interval is not None:
            self._interval.begin(batch)

    def is_due(self, n_batches: int) -> bool:
        """Return whether to save after `n_batches` batches of the epoch; not while a checkpoint is being written."""
        if self._interval is None or self._writer is None or self._writer.is_busy:
            return False
        return self._interval.is_due(n_batches)

    def save(self, state_dict: Callable[[], dict[str, Any]], metadata: dict[str, Any], is_best: bool) -> None:
        """Save in the background.

        Args:
            state_dict: returns the state; called in every process, as processes exchange their states.
            metadata: plain data to save beside it.
            is_best: whether to save `best.pt` too.
        """
        if self._writer is not None:
            state = state_dict()
            if is_main_process():
                self._writer.save(state, metadata, is_best)

    def finish(self) -> Path:
        """Wait until everything is on disk and return the path of `last.pt`.

        Raises:
            ValueError: there is no folder.
            OSError: a file cannot be written.
        """
        if self._writer is None:
            raise ValueError("checkpoint_dir is None: give a folder to save in")
        self._writer.finish()
        return self._writer.folder / LAST

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._writer is not None:
            self._writer.wait()

    def __enter__(self) -> Autosave:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, traceback)
