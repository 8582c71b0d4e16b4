"""Reads the files that it is told on stdin, a JSON line each, and answers each with a JSON line: what it took.

All in one process: an import costs more than any file may. Memory is the peak above what the process held before,
from the kernel's high-water mark, which is reset before each file. Runs on Linux.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_ADDRESS_SPACE = 16 * 2**30  # bytes; so that a failure here does not take the machine along
TOO_LONG_S = 10


def peak_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def readers() -> dict[str, Callable[[Path], Any]]:
    from whirl.data.dataset import load_dataset
    from whirl.data.reading import read
    from whirl.engine.files import load_checkpoint_file
    from whirl.runs.config import make_config, read_settings

    return {
        "recording": lambda path: read(path, sampling_rate_hz=100.0),
        "dataset": load_dataset,
        "checkpoint": load_checkpoint_file,
        "settings": lambda path: make_config(read_settings(path), str(path)),
    }


def examine(read: Callable[[Path], Any], path: Path) -> dict[str, Any]:
    """How reading ended, processor time, and memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before_kb, began = peak_kb(), time.process_time()
    error: BaseException | None = None
    signal.alarm(TOO_LONG_S)
    try:
        read(path)
    except Exception as caught:
        error = caught
    signal.alarm(0)
    return {
        "cpu_s": time.process_time() - began,
        "peak_mb": (peak_kb() - before_kb) / 1e3,
        "error": type(error).__name__ if error else "",
        "message": str(error or ""),
    }


def give_up(*_: Any) -> None:
    raise TimeoutError("still at it")


def main() -> None:
    signal.signal(signal.SIGALRM, give_up)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    known = readers()
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(examine(known[case["how"]], Path(case["path"]))), flush=True)


if __name__ == "__main__":
    main()
