"""Training on recordings larger than memory: what stays resident, and what memory mapping costs.

Why: `whirl train --mmap-dir FOLDER` keeps recordings on disk instead of in memory. That holds only if nothing between
the files and the batches keeps a copy.

What: simulated recordings (few distinct machines, repeated with fresh noise) of `--gigabytes`, as `save_dataset` writes
them. A process of its own loads them with `mmap_dir=`, cuts every window of 2048 samples in shuffled batches of 256 and
trains `wdcnn` on every 16th batch, on one thread. Meanwhile it reads its memory from /proc: `RssAnon` belongs to the
process alone; `RssFile` are pages of the mapped file, which the system drops when memory is short. Where the script may
create a memory cgroup (version 1, as root), the process gets `--limit` gigabytes in all, page cache included, and must
not exceed them; elsewhere it is only measured.

- `anon_share`: highest RssAnon since loading, over the size of the data.
- `anon_growth`: RssAnon when all windows have been cut, over that at a quarter of them.
- `data_over_limit`: size of the data over what the process may use (absent without a cgroup).
- `mapped_vs_memory_epoch`: processor time of an epoch of `wdcnn` on a small data set, memory-mapped over in memory.

It writes twice `--gigabytes` into `--folder` (recordings, and their memory-mapped samples) and removes them at the end.

    python benchmarks/larger_than_memory.py --folder /a/large/disk
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results

from whirl.data import Recording, WindowDataset, iter_simulated, load_dataset, make_loader, save_dataset, to_mmap
from whirl.models import create_model
from whirl.training import Trainer

CGROUPS = Path("/sys/fs/cgroup/memory")
N_SAMPLES, WINDOW, BATCH_SIZE, TRAIN_EVERY, ROUNDS = 2**23, 2048, 256, 16, 5
CLASSES = ("healthy", "imbalance", "misalignment", "oil_whirl")
GB = 1e9
GOALS = {
    "anon_share": "<= 0.1",
    "anon_growth": "<= 1.02",
    "data_over_limit": ">= 3",
    "mapped_vs_memory_epoch": "<= 1.1",
}


def recordings(n_recordings: int, n_samples: int = N_SAMPLES) -> Iterator[Recording]:
    """Yield recordings of a few machines repeatedly, each time with new noise."""
    machines = list(iter_simulated(2, 1, CLASSES, seed=0))
    draw = np.random.default_rng(0)
    for index in range(n_recordings):
        machine = machines[index % len(machines)]
        signal = draw.standard_normal((1, n_samples), dtype=np.float32)
        signal += np.resize(machine.signal[:1], (1, n_samples))
        yield Recording(signal, machine.sampling_rate_hz, label=machine.label, rpm=machine.rpm, specimen=f"M{index}")


class ThinnedLoader:
    """Cuts all batches, yields one of `TRAIN_EVERY` to train on, and records the memory of the process."""

    def __init__(self, dataset: WindowDataset) -> None:
        self.loader = make_loader(dataset, BATCH_SIZE, shuffle=True)
        self.memory: list[dict[str, float]] = []

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(self.loader):
            if index % TRAIN_EVERY == 0:
                yield batch
                self.memory.append(memory_mb() | {"share": (index + 1) / len(self.loader)})


def memory_mb() -> dict[str, float]:
    """Return the resident memory of this process, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile", "VmRSS")}


def train(folder: Path) -> None:
    """Train in the measured process, and print the measurements as JSON."""
    configure()
    start, found = time.perf_counter(), {"memory": [memory_mb() | {"at": "start"}]}
    loaded = load_dataset(folder / "recordings", mmap_dir=folder / "mapped")
    found["memory"].append(memory_mb() | {"at": "loaded"})
    found["loading_s"] = time.perf_counter() - start
    start = time.perf_counter()
    loader = ThinnedLoader(WindowDataset(loaded, CLASSES, WINDOW))
    found["memory"].append(memory_mb() | {"at": "windows"})
    found["checking_s"] = time.perf_counter() - start
    torch.manual_seed(0)
    trainer = Trainer(create_model("wdcnn", len(CLASSES)), loader, device="cpu")
    start, cpu_start = time.perf_counter(), time.process_time()
    history = trainer.fit(1)
    found |= {"pass_s": time.perf_counter() - start, "pass_cpu_s": time.process_time() - cpu_start}
    for share in (0.25, 0.5, 1.0):
        reached = [memory for memory in loader.memory if memory["share"] <= share]
        found["memory"].append(reached[-1] | {"at": f"{share:g} of the windows"})
    found["peak_anon_mb"] = max(memory["RssAnon"] for memory in (*found["memory"], *loader.memory))
    found["peak_rss_mb"] = max(memory["VmRSS"] for memory in (*found["memory"], *loader.memory))
    found |= {"n_windows": len(loader.loader.dataset), "steps": trainer.state.global_step}
    found |= {"train_loss": history["train_loss"][-1]}
    print(json.dumps(found))


@contextlib.contextmanager
def memory_limit(n_bytes: int) -> Iterator[Path | None]:
    """Create a memory cgroup with this limit; yield None where none can be created."""
    group = CGROUPS / f"larger-than-memory-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(n_bytes))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def measure_large(folder: Path, gigabytes: float, limit: float) -> dict[str, float]:
    n_recordings = round(gigabytes * GB / (4 * N_SAMPLES))
    save_dataset(recordings(n_recordings), folder / "recordings")
    size = n_recordings * 4 * N_SAMPLES
    for file in (folder / "recordings").iterdir():  # the limit does not count pages that are in the cache already
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with memory_limit(int(limit * GB)) as group:
        command = [sys.executable, __file__, "--folder", str(folder), "--train"]
        if group is not None:
            command = ["sh", "-c", f'echo $$ > {group}/tasks && exec "$@"', "sh", *command]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        if group is not None:
            peak = int((group / "memory.max_usage_in_bytes").read_text())
            print(f"limit {limit:g} GB, page cache included; at most used {peak / GB:.2f} GB")
        else:
            print("no memory cgroup can be created here: memory is measured, not limited")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"data {size / GB:.1f} GB in {n_recordings} recordings, {found['n_windows']} windows")
    for memory in found["memory"]:
        print(f"  {memory['at']:20s} RssAnon {memory['RssAnon']:6.0f} MB   RssFile {memory['RssFile']:6.0f} MB")
    print(f"loading {found['loading_s']:.0f} s, checking {found['checking_s']:.0f} s; all windows cut and "
          f"{found['steps']} steps taken in {found['pass_s']:.0f} s ({found['pass_cpu_s']:.0f} s of processor time): "
          f"{found['n_windows'] / found['pass_s']:.0f} windows/s")  # fmt: skip
    anon = {memory["at"]: memory["RssAnon"] for memory in found["memory"]}
    ratios = {
        "anon_share": found["peak_anon_mb"] * 1e6 / size,
        "anon_growth": anon["1 of the windows"] / anon["0.25 of the windows"],
    }
    return ratios | ({} if group is None else {"data_over_limit": size / (limit * GB)})


def measure_small(folder: Path, rounds: int) -> dict[str, float]:
    """Return the cost of memory mapping for a data set that fits into memory and into the page cache."""
    small = list(recordings(8, 2**18))
    variants = {}
    for name, kept in (("memory", small), ("mapped", to_mmap(small, folder / "small"))):
        torch.manual_seed(0)
        loader = make_loader(WindowDataset(kept, CLASSES, WINDOW), 64, shuffle=True)
        variants[name] = Trainer(create_model("wdcnn", len(CLASSES)), loader, device="cpu")
    seconds = measure({name: trainer.train_epoch for name, trainer in variants.items()}, rounds)
    print_medians(seconds, "s", f"epoch of {8 * 2**18 // WINDOW} windows")
    return {"mapped_vs_memory_epoch": median_ratio(seconds["mapped"], seconds["memory"])}


def main() -> None:
    parser = make_parser(__doc__, ROUNDS)
    parser.add_argument("--folder", type=Path, default=Path(), help="folder on a disk with room for twice the data")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--limit", type=float, default=3.0, help="gigabytes for the process and its page cache")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.folder)
        return
    configure()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="larger-than-memory-") as name:
        ratios = measure_small(Path(name), options.rounds)
        ratios |= measure_large(Path(name), options.gigabytes, options.limit)
    print_results({name: round(value, 3) for name, value in ratios.items()}, GOALS)


if __name__ == "__main__":
    main()
