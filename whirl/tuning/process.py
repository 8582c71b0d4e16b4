"""Which process does something, and whether it is gone; told for certain on its own machine only."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Names this process to others: `pid`, and, on Linux, the `machine` that knows it and when it `started`.

    Example:
        >>> has_exited(this_process())
        False
    """
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def has_exited(process: Mapping[str, Any]) -> bool:
    """Whether a process, as `this_process` named it, has certainly ended.

    False for one of another machine or container, of which nothing can be known from here. A process that got the
    number of an ended one started at another time, so it is not taken for it.

    Example:
        >>> has_exited(this_process() | {"started": 0}), has_exited({"machine": "another", "pid": 1, "started": 0})
        (True, False)
    """
    here = _machine()
    return here is not None and process.get("machine") == here and _started(process["pid"]) != process["started"]


@functools.cache
def _machine() -> str | None:
    """One boot and one table of process numbers: host names alone repeat, as in containers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None where there is none, or only what a parent left unread."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
