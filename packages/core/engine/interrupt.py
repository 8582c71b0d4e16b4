"""Ctrl-C as a request: finish the batch, save, then stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from packages.core.engine.state import TrainingState

logger = logging.getLogger(__name__)


@contextmanager
def finish_batch_on_interrupt(state: TrainingState) -> Iterator[None]:
    """Within the block, the first Ctrl-C (SIGINT) sets `state.interrupted`; a second one stops at once.

    Outside the main thread, where Python takes no signal handlers, the block changes nothing.

    Example:
        >>> state = TrainingState()
        >>> with finish_batch_on_interrupt(state):
        ...     signal.raise_signal(signal.SIGINT)
        >>> state.interrupted
        True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request_stop(signum: int, frame: FrameType | None) -> None:
        state.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.warning("interrupted: finishing this batch and saving; once more stops at once")

    state.interrupted = False
    previous = signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
