"""Threads for loops over recordings; NumPy and PyTorch release the interpreter lock within long operations."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply a function to items in several threads, and yield the results in order.

    Only a few results are computed in advance, so memory does not grow with the number of items.

    Args:
        function: function of one item, which must be safe to call from several threads.
        items: the items; a generator is consumed as needed.

    Example:
        >>> list(map_in_threads(lambda number: number**2, range(5)))
        [0, 1, 4, 9, 16]
    """
    n_threads = available_cores()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def available_cores() -> int:
    """Return the number of processors that this process may use.

    Example:
        >>> available_cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Leave the processors to the threads of a loop, with which PyTorch's own threads would compete."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Leave the processors to the threads of a loop; not to be entered in several threads at once.

    Small matrix products in several threads wait for each other most of the time, above all on a busy machine.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield
