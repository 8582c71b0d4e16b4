"""Speed of the simulation of recordings.

Why: training on simulated machines needs thousands of recordings; their simulation should not take longer than reading
recordings would.

What: two machines in every class, recordings of 5 s at 20 480 Hz, on one thread.

- `journal`, `rolling`: processor time of a recording over that of 20 real FFTs and inverse FFTs of as many samples.

    python benchmarks/simulation.py
"""

from __future__ import annotations

import numpy as np
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results

from whirl.data import simulate
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES

N_SAMPLES, N_TRANSFORMS = 5 * 20480, 20
GOALS = {"journal": "<= 1", "rolling": "<= 1"}
CLASSES = {"journal": JOURNAL_CLASSES, "rolling": ROLLING_CLASSES}


def transform(signal: np.ndarray, n: int) -> None:
    for _ in range(n):
        np.fft.irfft(np.fft.rfft(signal))


def main() -> None:
    arguments = make_parser(__doc__, rounds=7).parse_args()
    configure()
    signal, ratios = np.random.default_rng(0).normal(size=N_SAMPLES), {}
    for family, classes in CLASSES.items():
        n_recordings = 2 * len(classes)
        seconds = measure(
            {
                family: lambda classes=classes: simulate(2, 1, classes),
                "FFT": lambda n=n_recordings: transform(signal, n * N_TRANSFORMS),
            },
            arguments.rounds,
        )
        print_medians(seconds, "s", f"{n_recordings} recordings")
        ratios[family] = median_ratio(seconds[family], seconds["FFT"])
    print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
