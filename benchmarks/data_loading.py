"""Cost of loading windows, compared with a map-style data set under `DataLoader` and with copying memory.

Why: small 1-D networks take well under a millisecond per step, so a data set that runs Python code for each sample can
cost more than the training.

What: an epoch of shuffled batches `[256, 1, 2048]` cut from 60 recordings of 102400 samples, with targets and metadata,
on one thread and without workers.

- `vs_default_collate`: a data set that cuts one window per index and standardizes it in NumPy, under a `DataLoader`
  with the default collate function (the common way to write it), over our standardizing loader.
- `vs_copy`: our loader without standardization over copying as many bytes out of the same memory, in order and batch by
  batch. The copy is a lower bound for any loader; the rest is random access and about 15 µs per batch in `DataLoader`
  itself (a third of our time at 64 windows per batch, little at 256).

    python benchmarks/data_loading.py
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results
from torch.utils.data import DataLoader, Dataset

from whirl.data import Recording, WindowDataset, make_loader

WINDOW, HOP, BATCH_SIZE, ROUNDS = 2048, 512, 256, 15
GOALS = {"vs_default_collate": ">= 6", "vs_copy": "<= 2.6"}


class PerSampleDataset(Dataset):
    """Cuts one window per index and standardizes it in NumPy, as map-style data sets commonly do."""

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
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
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
    map_style = DataLoader(PerSampleDataset(recordings), BATCH_SIZE, shuffle=True)
    samples = torch.from_numpy(np.concatenate([recording.signal[0] for recording in recordings]))
    stretches = samples.split(BATCH_SIZE * WINDOW) * (WINDOW // HOP)
    # A training step leaves free memory in the allocator; without any, page faults would dominate the times.
    torch.zeros(6_000_000)

    def consume(batches: Iterable[object]) -> None:
        for _ in batches:
            pass

    seconds = measure(
        {
            "copy": lambda: consume(stretch.clone() for stretch in stretches),
            "ours": lambda: consume(ours),
            "ours, not standardized": lambda: consume(ours_plain),
            "default collate": lambda: consume(map_style),
        },
        arguments.rounds,
    )
    print_medians(seconds, "ms", f"epoch of {len(stretches)} batches")
    ratios = {
        "vs_default_collate": median_ratio(seconds["default collate"], seconds["ours"], digits=2),
        "vs_copy": median_ratio(seconds["ours, not standardized"], seconds["copy"], digits=2),
    }
    print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
