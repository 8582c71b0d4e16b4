"""Translate known failures of torch into errors with a short message and a remedy."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_DEAD_WORKER = re.compile(r"DataLoader worker \(pid[^\d]*([\d, ]+)\) (is killed by signal: [^.]+|exited unexpectedly)")
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_OTHER_TYPE = re.compile(
    r"must have the same dtype, but got (\w+) and (\w+)|Input type \(([\w. ]+)\) and (?:weight|bias) type \(([\w.]+)\)"
)
_REQUEST = re.compile(r"tried to allocate [\d.]+ \w+", re.IGNORECASE)


@contextmanager
def translate_torch_errors() -> Iterator[None]:
    """Translate failures of torch that a user can do something about into errors with a one-line message.

    Raises:
        ChildProcessError: a worker process of a data loader died.
        MemoryError: the device or the machine has too little memory.
        TypeError: the signals have another type than the weights of the network.

    Example:
        >>> with translate_torch_errors():
        ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        Traceback (most recent call last):
        ...
        ChildProcessError: a worker process of a data loader died (pid 7 is killed by signal: Killed), possibly because
        memory ran out: resume from the last checkpoint with fewer workers (--workers 0 uses none)
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception) -> Exception | None:
    message = str(error)
    if isinstance(error, RuntimeError):
        dead = _DEAD_WORKER.search(message)
        return _worker_error(f"pid {dead[1]} {dead[2]}") if dead else _memory_error(message) or _type_error(message)
    # torch may notice the broken connection before it notices that the process at its other end is dead.
    read_from_worker = any(f.f_code.co_name == "_try_get_data" for f, _ in traceback.walk_tb(error.__traceback__))
    return _worker_error(message or "its connection is closed") if read_from_worker else None


def _worker_error(cause: str) -> Exception:
    return ChildProcessError(
        f"a worker process of a data loader died ({cause}), possibly because memory ran out: "
        "resume from the last checkpoint with fewer workers (--workers 0 uses none)"
    )


def _memory_error(message: str) -> Exception | None:
    if _NO_MEMORY.search(message):
        request = _REQUEST.search(message)
        device = "the GPU" if re.search("CUDA|HIP|MPS|XPU", message) else "this machine"
        return MemoryError(
            f"{device} has too little memory{f' (torch {request[0]})' if request else ''}: choose a smaller batch "
            "(--batch-size) or a smaller network"
        )
    return None


def _type_error(message: str) -> Exception | None:
    found = _OTHER_TYPE.search(message)
    if found is None:
        return None
    given, weights = (
        name.rpartition(".")[2].removesuffix("Tensor").lower() for name in found.groups() if name is not None
    )
    return TypeError(
        f"the network got a tensor of type {given}, but its weights are {weights}: convert the signals, e.g. with "
        f"signals.{weights}()"
    )
