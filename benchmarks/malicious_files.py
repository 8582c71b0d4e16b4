"""Processor time that malicious files take to be rejected.

Why: a file from an untrusted source must not occupy a processor, e.g. by a pattern that takes quadratic time or by
data that decompress to a thousand times their size.

What: each file of `tests/security` is read twice in one process. The processor time of the second time, when the
library of its format has been imported, is divided by that of reading a valid text file of 200 000 lines.

- `slowest`: the largest ratio.
- `median`: the median ratio.

    python benchmarks/malicious_files.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _harness import configure, make_parser, print_results

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.security import array_cases, table_cases, unfolding_cases  # noqa: E402, F401 - registers the cases
from tests.security.cases import CASES  # noqa: E402

N_LINES = 200_000
GOALS = {"slowest": "<= 6", "median": "<= 0.1"}


def processor_times(folder: Path) -> tuple[dict[str, float], float]:
    """Return the seconds of each malicious file and those of the valid one."""
    reference = folder / "valid.csv"
    np.savetxt(reference, np.random.default_rng(0).normal(size=(N_LINES, 2)), delimiter=",", fmt="%.6f")
    requests = [{"how": "recording", "path": str(reference)}]
    for name, malicious in CASES.items():
        (folder / name).mkdir()
        requests.append({"how": malicious.how, "path": str(malicious.write(folder / name))})
    worker = subprocess.run(
        [sys.executable, str(ROOT / "tests/security/read_worker.py")],
        input="".join(2 * (json.dumps(request) + "\n") for request in requests),
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    seconds = [json.loads(line)["cpu_s"] for line in worker.stdout.splitlines()][1::2]
    return dict(zip(CASES, seconds[1:], strict=True)), seconds[0]


def main() -> None:
    make_parser(__doc__).parse_args()
    configure()
    with tempfile.TemporaryDirectory() as folder:
        seconds, reference_s = processor_times(Path(folder))
    ratios = {name: value / reference_s for name, value in seconds.items()}
    for name in sorted(ratios, key=ratios.__getitem__, reverse=True)[:5]:
        print(f"{name:40} {ratios[name]:8.2f}")
    results = {"slowest": max(ratios.values()), "median": statistics.median(ratios.values())}
    print_results({name: round(value, 3) for name, value in results.items()}, GOALS)


if __name__ == "__main__":
    main()
