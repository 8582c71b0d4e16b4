"""Cost of the leakage check on 20,000 windows, relative to one FFT pass over the same samples.

Why: `whirl train` checks every split before it trains. That should cost about as much as reading the data once, not as
much as an epoch.

What: `find_leaks` on a split of noise, 41 million samples in all (20,000 windows of 2048 samples), once in 400
recordings of 102,400 samples and once in 2000 of 20,480. The reference is one real FFT of every recording. Both run on
one thread.

- `find_leaks_<n>_recordings_vs_fft`: time of the check over that of the FFT pass.

    python benchmarks/leakage.py
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results

from whirl.data import Recording, Split, find_leaks, split_recordings

SHAPES = ((400, 102_400), (2000, 20_480))  # recordings, samples of each
SAMPLING_RATE_HZ, ROUNDS = 20_480, 5
GOALS = {f"find_leaks_{n_recordings}_recordings_vs_fft": "<= 4" for n_recordings, _ in SHAPES}


def make_split(n_recordings: int, n_samples: int) -> Split:
    noise = np.random.default_rng(0).standard_normal((n_recordings, n_samples), dtype=np.float32)
    return split_recordings(
        [
            Recording(signal, SAMPLING_RATE_HZ, label="AB"[index % 2], specimen=f"{index % 40}", source=f"{index}")
            for index, signal in enumerate(noise)
        ]
    )


def transform_all(split: Split) -> None:
    for recording in (*split.train, *split.val, *split.test):
        torch.fft.rfft(torch.from_numpy(recording.signal))


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    ratios: dict[str, float] = {}
    for n_recordings, n_samples in SHAPES:
        split = make_split(n_recordings, n_samples)
        assert find_leaks(split) == []
        variants = {"find_leaks": partial(find_leaks, split), "fft": partial(transform_all, split)}
        seconds = measure(variants, arguments.rounds)
        print(f"{n_recordings} recordings of {n_samples} samples")
        print_medians(seconds, "s", "pass")
        ratios[f"find_leaks_{n_recordings}_recordings_vs_fft"] = median_ratio(seconds["find_leaks"], seconds["fft"])
    print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
