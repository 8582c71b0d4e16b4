"""Ctrl-C and a scheduler's SIGTERM as a request: finish the batch, save, then stop."""

from __future__ import annotations

import functools
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from whirl.engine.distributed import is_launched, world_size
from whirl.engine.state import TrainingState

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEAT_WINDOW_S = 2.0
SIGCHLD = getattr(signal, "SIGCHLD", None)  # absent on Windows


@contextmanager
def finish_batch_on_interrupt(state: TrainingState) -> Iterator[None]:
    """Within the block, the first SIGINT (Ctrl-C) or SIGTERM asks the training to stop; a second one stops at once.

    The first sets `state.interrupted`, and `state.interrupted_by` to its number, for the exit code 128 + number; where
    several processes train together it sets the latter alone, and the trainer the former when all have heard of it. The
    second, whichever of the two it is, raises `KeyboardInterrupt` (SIGINT) or `SystemExit` with that code (SIGTERM).
    Under `torchrun` a second one within 2 s counts as the first: it hands on what a terminal or scheduler has sent to
    all processes already.
    A signal to the whole process group also ends workers of a loader that do not ignore it; once it has come, their
    end no longer raises in the middle of a batch. Outside the main thread, where Python takes no signal handlers, the
    block changes nothing.

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
        # Several processes leave together, after the batch on which they agree.
        state.interrupted = world_size() == 1
        stop_at_once = functools.partial(_exit_now, time.monotonic() + REPEAT_WINDOW_S if is_launched() else 0.0)
        signal.signal(signal.SIGINT, stop_at_once)
        signal.signal(signal.SIGTERM, stop_at_once)
        if SIGCHLD is not None:
            before[SIGCHLD] = signal.signal(SIGCHLD, signal.SIG_DFL)
        logger.warning("%s: finishing this batch and saving; once more stops at once", signal.Signals(signum).name)

    state.interrupted, state.interrupted_by = False, None
    before: dict[int, Any] = {}
    for signum in STOP_SIGNALS:
        before[signum] = signal.signal(signum, request_stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _exit_now(earliest: float, signum: int, frame: FrameType | None) -> None:
    if time.monotonic() < earliest:
        return
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)
