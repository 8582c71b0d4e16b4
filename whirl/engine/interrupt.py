"""Handle Ctrl-C and SIGTERM as requests to finish the batch, save a checkpoint and stop."""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

from whirl.engine.distributed import is_launched, world_size
from whirl.engine.errors import translate_torch_errors
from whirl.engine.state import TrainingState

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEAT_WINDOW_S = 2.0
SIGCHLD = getattr(signal, "SIGCHLD", None)  # absent on Windows


@contextmanager
def finish_batch_on_interrupt(state: TrainingState) -> Iterator[None]:
    """Let SIGINT (Ctrl-C) and SIGTERM request a stop within the block; a second signal stops immediately.

    The first signal sets `state.interrupted`, and `state.interrupted_by` to its number, for the exit code
    128 + number. With several processes it sets `interrupted_by` only, and the trainer sets `interrupted` when all
    processes have agreed to stop. The second signal, of either kind, raises `KeyboardInterrupt` (SIGINT) or
    `SystemExit` with that code (SIGTERM). Under `torchrun` a second signal within 2 s is ignored, because `torchrun`
    forwards the one that a terminal or a scheduler has already sent to all processes.

    A signal to the whole process group also ends workers of a loader that do not ignore it; after the first signal,
    their end does not raise in the middle of a batch. Outside the main thread, where Python does not allow signal
    handlers, the block has no effect.

    Example:
        >>> state = TrainingState()
        >>> with finish_batch_on_interrupt(state):
        ...     signal.raise_signal(signal.SIGTERM)
        >>> state.interrupted, 128 + state.interrupted_by
        (True, 143)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request_stop(signum: int, frame: FrameType | None) -> None:
        state.interrupted_by = signum
        # Several processes stop together, after the batch on which they agree.
        state.interrupted = world_size() == 1
        exit_now = functools.partial(_exit_now, time.monotonic() + REPEAT_WINDOW_S if is_launched() else 0.0)
        signal.signal(signal.SIGINT, exit_now)
        signal.signal(signal.SIGTERM, exit_now)
        if SIGCHLD is not None:
            before[SIGCHLD] = signal.signal(SIGCHLD, signal.SIG_DFL)
        logger.warning(
            "%s received: finishing this batch and saving a checkpoint; send it again to stop immediately",
            signal.Signals(signum).name,
        )

    state.interrupted, state.interrupted_by = False, None
    before: dict[int, Any] = {}
    for signum in STOP_SIGNALS:
        before[signum] = signal.signal(signum, request_stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def finish_batch_in_notebook(state: TrainingState) -> AbstractContextManager[None]:
    """Return a context manager that in a notebook handles Ctrl-C ("interrupt the kernel") as a request to stop.

    Elsewhere, and where the caller handles SIGINT already, it does nothing, so that Ctrl-C raises `KeyboardInterrupt`.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return finish_batch_on_interrupt(state) if "ipykernel" in sys.modules and is_default else nullcontext()


def _exit_now(earliest: float, signum: int, frame: FrameType | None) -> None:
    if time.monotonic() < earliest:
        return
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


def until_workers_exit(batches: Iterable[Any], may_end: Callable[[], bool]) -> Iterator[Any]:
    """Yield batches; if a worker process of the loader dies, stop if `may_end()`, and raise otherwise.

    The signal that interrupts a training may also reach the workers of its loader.

    Raises:
        ChildProcessError: a worker died and `may_end()` is False.
    """
    try:
        with translate_torch_errors():
            yield from batches
    except ChildProcessError:
        if not may_end():
            raise
