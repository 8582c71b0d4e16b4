"""How much feeding windows costs: our loader against a usual map-style DataLoader and against copying memory.

What: an epoch of shuffled batches `[256, 1, 2048]` cut from 60 recordings of 102400 samples, with targets and metadata.

- `vs_default_collate`: a data set that cuts one window per index and standardises it in NumPy, under a `DataLoader`
  with its default collate, over our standardising loader. It is the usual way to write it; how much faster are we?
- `vs_copy`: our loader without standardisation over copying as many bytes out of the same memory, front to back and a
  batch at a time. No loader can beat the copy; the rest is random access and about 15 µs a batch in `DataLoader`
  itself (a third of our time at 64 windows a batch, little at 256).

Why: small 1-D networks take well under a millisecond a step, so a data set that does Python work for each sample can
cost more than the training.

Single thread, no workers, variants interleaved in every round; ratios are medians over the rounds, because absolute
times say more about the machine than about the code. CPU time, so that other processes do not count.

    python benchmarks/data_loading.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset

WINDOW, HOP, BATCH_SIZE, ROUNDS = 2048, 512, 256, 15
GOALS = {"vs_default_collate": ">= 6", "vs_copy": "<= 2.6"}


class PerSampleDataset(Dataset):
    """One window at a time, standardised in NumPy: what a map-style data set usually looks like."""

    def __init__(self, recordings: list[Recording]) -> None:
        self.signals = [recording.signal for recording in recordings]
        self.per_recording = (recordings[0].n_samples - WINDOW) // HOP + 1

    def __len__(self) -> int:
        return len(self.signals) * self.per_recording

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        recording, window = divmod(index, self.per_recording)
        signal = self.signals[recording][:, window * HOP : window * HOP + WINDOW]
        signal = (signal - signal.mean(axis=-1, keepdims=True)) / signal.std(axis=-1, keepdims=True)
        return signal, recording % 4


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    recordings = [
        Recording(rng.normal(size=102_400), sampling_rate_hz=20_480, label=str(index % 4), rpm=1500)
        for index in range(60)
    ]
    classes = ["0", "1", "2", "3"]
    ours = make_loader(WindowDataset(recordings, classes, WINDOW, HOP), BATCH_SIZE, shuffle=True)
    ours_plain = make_loader(
        WindowDataset(recordings, classes, WINDOW, HOP, standardize=False), BATCH_SIZE, shuffle=True
    )
    usual = DataLoader(PerSampleDataset(recordings), BATCH_SIZE, shuffle=True)
    samples = torch.from_numpy(np.concatenate([recording.signal[0] for recording in recordings]))
    stretches = samples.split(BATCH_SIZE * WINDOW) * (WINDOW // HOP)
    # a training step leaves the allocator with memory to hand out; without any, page faults would hide all else
    torch.zeros(6_000_000)

    def consume(batches: Iterable[object]) -> None:
        for _ in batches:
            pass

    seconds = measure(
        {
            "copy": lambda: consume(stretch.clone() for stretch in stretches),
            "ours": lambda: consume(ours),
            "ours, not standardized": lambda: consume(ours_plain),
            "default collate": lambda: consume(usual),
        }
    )
    for name, values in seconds.items():
        print(f"{name:24s} {1e6 * statistics.median(values) / len(stretches):8.1f} µs a batch")
    ratios = {
        "vs_default_collate": median_ratio(seconds["default collate"], seconds["ours"]),
        "vs_copy": median_ratio(seconds["ours, not standardized"], seconds["copy"]),
    }
    print(json.dumps({"ratios": ratios, "goals": GOALS}))


def measure(variants: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of every variant in every round; the first, cold round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS + 1):
        for name, run in variants.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in seconds.items()}


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), 2)


if __name__ == "__main__":
    main()
