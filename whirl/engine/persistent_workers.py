"""Exact resume with persistent workers, which a `DataLoader` starts once and keeps over the epochs.

When a `DataLoader` starts its workers it draws a seed for them from the generator that may also determine the order of
the samples. With persistent workers it does so in the first epoch only. A training that is resumed in a new process
would draw once more than the uninterrupted one, and shuffle differently.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from whirl.engine.random_state import get_random_state, set_random_state

logger = logging.getLogger(__name__)


def have_started(loader: Any) -> list[bool]:
    """Return for each loader with persistent workers whether they have been started.

    Example:
        >>> have_started(DataLoader([1, 2]))
        []
    """
    return [part._iterator is not None for part in _persistent(loader)]


def restore_workers(loader: Any, started: list[bool]) -> None:
    """Start or stop persistent workers, so that they are as in `started`, without a trace in random states.

    The random states within workers cannot be restored, so a data set that draws there is not resumed exactly; a note
    in the log says so.
    """
    for part, expected in zip(_persistent(loader), started, strict=False):
        if (part._iterator is not None) == expected:
            continue
        state = get_random_state(part)
        if expected:
            iter(part)
            logger.info("persistent workers were restarted: random draws within them differ, the samples do not")
        else:
            part._iterator = None
        set_random_state(state, part)


def _persistent(loader: Any) -> Iterator[DataLoader[Any]]:
    """Yield the loaders with persistent workers that may affect the order: this one, or those that it interleaves.

    The order of a sampler with `start_batch` does not depend on a random state.
    """
    if hasattr(loader, "loaders"):
        for part in loader.loaders.values():
            yield from _persistent(part)
    elif isinstance(loader, DataLoader) and loader.persistent_workers and not hasattr(loader.sampler, "start_batch"):
        yield loader
