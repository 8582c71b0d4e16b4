"""What time-frequency maps of a batch cost: ours against PyWavelets, `torch.stft` and masks one after the other.

Why: a network for two-dimensional maps is fed by a transform that may cost more than its own step. It pays to make maps
batch by batch, on the device, only as fine as the network can use.

What, on one thread:

- Wavelets: batches `[32, 1, 2048]` at 64 frequencies, complex Morlet. `cwt` gives all coefficients; `cwt_power` the
  power in 64 cells, which is what a network gets. PyWavelets takes one signal at a time, by its default method
  (convolution) and by its faster one (FFT), with a wavelet of the same shape, and gives all coefficients.
- Short-time Fourier transform: batches `[32, 1, 2048]`, Hann window of 128, hop 32. `stft` against `torch.stft` alone;
  `stft_map`, the whole `TimeFrequency("stft")` with power, dB and standardisation, for comparison.
- SpecAugment: batches `[32, 1, 128, 256]`, two masks of up to 40 times and two of up to 20 frequencies, of each sample
  its own. `SpectrogramTrainer.apply_specaugment` against four masks applied to the batch one after the other, each
  drawn and filled in for each sample independently as torchaudio's `mask_along_axis_iid` does; and against a loop over
  samples that overwrites slices in NumPy.
- The other maps, for comparison only.

Variants take turns in one process, in an order drawn anew each round; the clock is processor time; ratios are medians
over the rounds of the ratio within a round, because absolute times say more about the machine than about the code.

    python benchmarks/time_frequency.py
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import pywt
import torch
from torch import Tensor, nn

from whirl.dsp.short_time_fourier import stft
from whirl.dsp.time_frequency import KINDS, TimeFrequency
from whirl.dsp.wavelets import cwt, cwt_power, geometric_frequencies
from whirl.training.spectrogram_trainer import SpectrogramTrainer

ROUNDS = 15
MIN_S = 0.02  # a variant repeats until so much time has passed
GOALS = {
    "pywavelets_vs_cwt": ">= 10",
    "stft_vs_torch": "<= 1.2",
    "masks_one_after_another_vs_specaugment": ">= 5",
    "numpy_loop_vs_specaugment": ">= 1",
}
RATIOS = {
    "pywavelets_vs_cwt": ("pywavelets", "cwt"),
    "pywavelets_fft_vs_cwt": ("pywavelets_fft", "cwt"),
    "pywavelets_fft_vs_cwt_power": ("pywavelets_fft", "cwt_power"),
    "stft_vs_torch": ("stft", "torch_stft"),
    "stft_map_vs_torch": ("stft_map", "torch_stft"),
    "masks_one_after_another_vs_specaugment": ("masks_one_after_another", "specaugment"),
    "numpy_loop_vs_specaugment": ("numpy_loop", "specaugment"),
}

Variants = dict[str, Callable[[], object]]


def wavelet_variants() -> Variants:
    signals = torch.randn(32, 1, 2048)
    frequencies_hz = geometric_frequencies(12_000 / 256, 5400, 64)
    name = f"cmor{2 * (6 / (2 * np.pi)) ** 2:.6f}-1.0"
    scales = pywt.frequency2scale(name, np.array(frequencies_hz) / 12_000)
    rows = signals.flatten(0, 1).numpy()
    return {
        "cwt": lambda: cwt(signals, 12_000, frequencies_hz),
        "cwt_power": lambda: cwt_power(signals, 12_000, frequencies_hz, 64),
        "pywavelets": lambda: [pywt.cwt(row, scales, name) for row in rows],
        "pywavelets_fft": lambda: [pywt.cwt(row, scales, name, method="fft") for row in rows],
    }


def stft_variants() -> Variants:
    signals, window = torch.randn(32, 1, 2048), torch.hann_window(128)
    rows, maps = signals.flatten(0, 1), TimeFrequency("stft", 12_000)
    return {
        "stft": lambda: stft(signals, 12_000, "hann", 128, 32),
        "stft_map": lambda: maps(signals),
        "torch_stft": lambda: torch.stft(rows, 128, 32, window=window, return_complex=True),
    }


def mask_variants() -> Variants:
    maps = torch.randn(32, 1, 128, 256)
    trainer = SpectrogramTrainer(nn.Linear(1, 1), [(maps, torch.zeros(32))], criterion=nn.Identity(), device="cpu")
    rng = np.random.default_rng(0)
    return {
        "specaugment": lambda: trainer.apply_specaugment(maps),
        "masks_one_after_another": lambda: masks_one_after_another(maps),
        "numpy_loop": lambda: numpy_loop(maps.numpy(), rng),
    }


def masks_one_after_another(maps: Tensor) -> Tensor:
    """The steps of `torchaudio.functional.mask_along_axis_iid`, once a mask: draw, compare with a ramp, fill in."""
    for axis, widest in ((3, 40), (3, 40), (2, 20), (2, 20)):
        length = maps.shape[axis]
        width = torch.rand(maps.shape[:2]) * widest
        start = torch.rand(maps.shape[:2]) * (length - width)
        begin, end = start.long()[..., None, None], (start.long() + width.long())[..., None, None]
        ramp = torch.arange(length)
        moved = maps.transpose(axis, -1)
        maps = moved.masked_fill((ramp >= begin) & (ramp < end), 0.0).transpose(axis, -1)
    return maps


def numpy_loop(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    maps = maps.copy()
    for sample in maps:
        for _ in range(2):
            width = rng.integers(41)
            start = rng.integers(257 - width)
            sample[:, :, start : start + width] = 0
        for _ in range(2):
            width = rng.integers(21)
            start = rng.integers(129 - width)
            sample[:, start : start + width] = 0
    return maps


def map_variants() -> Variants:
    signals, metadata = torch.randn(32, 1, 2048), {"rpm": torch.full((32,), 1800.0)}
    maps = {kind: TimeFrequency(kind, 12_000) for kind in KINDS}
    return {f"map of {kind}": lambda each=each: each(signals, metadata) for kind, each in maps.items()}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {}
    with torch.no_grad():
        for variants in (wavelet_variants(), stft_variants(), mask_variants(), map_variants()):
            seconds |= measure(variants)
    for name, values in seconds.items():
        print(f"{name:26s} {1e3 * statistics.median(values):9.3f} ms a batch")
    ratios = {name: median_ratio(seconds[a], seconds[b]) for name, (a, b) in RATIOS.items()}
    print(json.dumps({"ratios": ratios, "goals": GOALS}))


def measure(variants: Variants) -> dict[str, list[float]]:
    """Seconds a batch of every variant in every round; the first, cold round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = random.Random(0)
    for _ in range(ROUNDS + 1):
        for name in order.sample(list(variants), len(variants)):
            seconds[name].append(time_of(variants[name]))
    return {name: values[1:] for name, values in seconds.items()}


def time_of(variant: Callable[[], object]) -> float:
    repetitions, begin = 0, time.process_time()
    while time.process_time() - begin < MIN_S:
        variant()
        repetitions += 1
    return (time.process_time() - begin) / repetitions


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), 3)


if __name__ == "__main__":
    main()
