"""What torch reports in many lines, or as a lost connection, as the error that it is."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_DEAD_WORKER = re.compile(r"DataLoader worker \(pid[^\d]*([\d, ]+)\) (is killed by signal: [^.]+|exited unexpectedly)")
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_WANTED = re.compile(r"tried to allocate [\d.]+ \w+", re.IGNORECASE)


@contextmanager
def translate_torch_errors() -> Iterator[None]:
    """Within the block, a failure of a kind that a user can do something about is raised in one line that says what.

    The last checkpoint is whole in either case.

    Raises:
        ChildProcessError: a worker process of a data loader has died.
        MemoryError: the device, or the machine, has too little memory.

    Example:
        >>> with translate_torch_errors():
        ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        Traceback (most recent call last):
        ...
        ChildProcessError: a worker process of a data loader died (pid 7 is killed by signal: Killed); systems kill when
        memory runs out: go on from the last checkpoint, with fewer workers (--workers 0 needs none)
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        known = _known(error)
        if known is None:
            raise
        raise known from error


def _known(error: Exception) -> Exception | None:
    message = str(error)
    if isinstance(error, RuntimeError):
        dead = _DEAD_WORKER.search(message)
        return _worker_death(f"pid {dead[1]} {dead[2]}") if dead else _lack_of_memory(message)
    # torch has found a connection broken, but not yet the process at its other end dead
    asked_worker = any(f.f_code.co_name == "_try_get_data" for f, _ in traceback.walk_tb(error.__traceback__))
    return _worker_death(message or "its connection is closed") if asked_worker else None


def _worker_death(how: str) -> Exception:
    return ChildProcessError(
        f"a worker process of a data loader died ({how}); systems kill when memory runs out: "
        "go on from the last checkpoint, with fewer workers (--workers 0 needs none)"
    )


def _lack_of_memory(message: str) -> Exception | None:
    if _NO_MEMORY.search(message):
        wanted = _WANTED.search(message)
        device = "the GPU" if re.search("CUDA|HIP|MPS|XPU", message) else "this machine"
        return MemoryError(
            f"{device} has too little{f' (torch {wanted[0]})' if wanted else ''}: choose a smaller batch "
            "(--batch-size) or a smaller network"
        )
    return None
