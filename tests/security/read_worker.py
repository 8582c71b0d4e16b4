"""Worker process that reads files and measures time and memory.

Each line of stdin is a JSON object with the keys `how` and `path`; for each one, a JSON object with the result is
printed. All files are read in one process, since imports take longer than reading a file. Memory is the peak above the
process's usage before the file, from the kernel's high-water mark, which is reset before each file. Linux only.
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

MAX_ADDRESS_SPACE = 16 * 2**30  # bytes; limits the damage if a check fails
TIMEOUT_S = 120  # a hang; processor time is measured by benchmarks/malicious_files.py


def peak_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def readers() -> dict[str, Callable[[Path], Any]]:
    from whirl.data.dataset import load_dataset
    from whirl.data.reading import read
    from whirl.engine.files import load_checkpoint_file
    from whirl.runs.config_files import load_config

    return {
        "recording": lambda path: read(path, sampling_rate_hz=100.0),
        "dataset": load_dataset,
        "checkpoint": load_checkpoint_file,
        "settings": lambda path: load_config(path, {}),
    }


def measure(read: Callable[[Path], Any], path: Path) -> dict[str, Any]:
    """Read a file; return the error, if any, processor time and peak memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before_kb, start = peak_kb(), time.process_time()
    error: BaseException | None = None
    signal.alarm(TIMEOUT_S)
    try:
        read(path)
    except Exception as caught:
        error = caught
    signal.alarm(0)
    return {
        "cpu_s": time.process_time() - start,
        "peak_mb": (peak_kb() - before_kb) / 1e3,
        "error": type(error).__name__ if error else "",
        "message": str(error or ""),
    }


def raise_timeout(*_: Any) -> None:
    raise TimeoutError(f"reading took longer than {TIMEOUT_S} s")


def main() -> None:
    signal.signal(signal.SIGALRM, raise_timeout)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    read_by_name = readers()
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(measure(read_by_name[case["how"]], Path(case["path"]))), flush=True)


if __name__ == "__main__":
    main()
