"""Cost of the untrained diagnosis, relative to Fourier transforms of the same samples.

Why: an engineer diagnoses archives of thousands of hours, so the descriptors have to cost little more than reading the
samples once and transforming them.

- `vs_fft`: diagnosis of one channel at 25.6 kHz, relative to one real Fourier transform of each of its segments of 40
  turns, without overlap. Both on one thread.
- `files_per_core`: time of diagnosing recordings one after the other on one thread, relative to `diagnose_files` with a
  thread on each core, divided by the number of cores: 1 is perfect use of all cores.

    python benchmarks/diagnosis.py                  # an hour of signal
    python benchmarks/diagnosis.py --minutes 5
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _harness import configure, make_parser, measure, median_ratio, print_results

from whirl._parallel import available_cores
from whirl.data import Recording
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.runs.diagnosis import diagnose_files

RATE_HZ, RPM, TURNS = 25_600, 1500.0, 40
GOALS = {"vs_fft": "<= 8", "files_per_core": ">= 0.7"}


def simulated_hour(minutes: float) -> Recording:
    """Return noise with weak impacts, which costs as much as any other signal."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(int(minutes * 60 * RATE_HZ), dtype=np.float32)
    signal[:: int(RATE_HZ / (3.585 * RPM / 60))] += 5
    return Recording(signal, RATE_HZ, rpm=RPM, bearing="6205")


def transform(recording: Recording) -> torch.Tensor:
    """Transform each segment once."""
    length = int(TURNS * 60 / RPM * RATE_HZ)
    samples = torch.from_numpy(recording.signal[0])
    segments = samples[: len(samples) // length * length].view(-1, length)
    return torch.stack([torch.fft.rfft(part).abs().square().sum(0) for part in segments.split(64)]).sum(0)


def measure_files(recording: Recording, rounds: int, n_files: int = 16) -> float:
    """Return the speed-up by threads divided by the number of cores."""
    parts = np.array_split(recording.signal[0], n_files)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{index}.npz" for index in range(n_files)]
        for file, part in zip(files, parts, strict=True):
            np.savez(file, signal=part, sampling_rate=RATE_HZ, rpm=RPM, bearing="6205")
        times = measure(
            {"one": lambda: diagnose_files(files, n_workers=1), "all": lambda: diagnose_files(files)},
            rounds,
            clock=time.perf_counter,
        )
    return median_ratio(times["one"], times["all"]) / available_cores()


def main() -> None:
    """Measure, and print the results."""
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="length of the signal (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default %(default)s)")
    arguments = parser.parse_args()
    configure(1)
    recording = simulated_hour(arguments.minutes)
    diagnoser = SpectralDiagnoser()
    variants = {"diagnosis": lambda: diagnoser.diagnose([recording]), "fft": lambda: transform(recording)}
    times = measure(variants, arguments.rounds)
    ratios = {
        "vs_fft": median_ratio(times["diagnosis"], times["fft"]),
        "files_per_core": measure_files(recording, arguments.rounds),
    }
    print_results(ratios, GOALS, minutes=arguments.minutes, n_cores=available_cores())


if __name__ == "__main__":
    main()
