"""Identification of processes, and detection of those that have exited, on the same machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return an identifier of this process for other processes.

    Returns:
        `pid`, and on Linux also `machine` (boot and process namespace) and `started` (start time in clock ticks); both
        are None elsewhere.

    Example:
        >>> has_exited(this_process())
        False
    """
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def has_exited(process: Mapping[str, Any]) -> bool:
    """Return whether a process, as identified by `this_process`, has certainly exited.

    Returns False for processes of other machines or containers, whose state is unknown here. If the process number
    was reused by a newer process, the start times differ.

    Example:
        >>> has_exited(this_process() | {"started": 0}), has_exited({"machine": "another", "pid": 1, "started": 0})
        (True, False)
    """
    here = _machine()
    return here is not None and process.get("machine") == here and _started(process["pid"]) != process["started"]


@functools.cache
def _machine() -> str | None:
    """Return an identifier of the boot and the process namespace; host names are not unique, e.g. in containers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """Return the clock ticks from boot to the start of a process; None if it does not exist or is a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
