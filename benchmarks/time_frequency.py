"""Cost of time-frequency maps of a batch, compared with PyWavelets, `torch.stft` and masks applied one by one.

Why: the transform in front of a network for two-dimensional maps can cost more than the network's own step. It pays to
compute maps batch by batch, on the device, only as fine as the network can use.

What, on one thread:

- Wavelets: batches `[32, 1, 2048]` at 64 frequencies, complex Morlet. `cwt` computes all coefficients; `cwt_power` the
  power in 64 cells, which is what a network gets. PyWavelets takes one signal per call, by its default method
  (convolution) and by its faster one (FFT), with a wavelet of the same shape, and computes all coefficients.
- Short-time Fourier transform: batches `[32, 1, 2048]`, Hann window of 128, hop 32. `stft` is compared with
  `torch.stft` alone; `stft_map` is `TimeFrequency("stft")` with power, dB and standardization, for information.
- SpecAugment: batches `[32, 1, 128, 256]`, two masks of up to 40 time steps and two of up to 20 frequencies, drawn for
  each sample. `SpectrogramTrainer.apply_specaugment` is compared with four masks applied to the batch one by one, each
  drawn and filled in for each sample independently as torchaudio's `mask_along_axis_iid` does; and with a loop over
  samples that overwrites slices in NumPy.
- The other maps, for information.

    python benchmarks/time_frequency.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pywt
import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results
from torch import Tensor, nn

from whirl.dsp.short_time_fourier import stft
from whirl.dsp.time_frequency import KINDS, TimeFrequency
from whirl.dsp.wavelets import cwt, cwt_power, geometric_frequencies
from whirl.training import SpectrogramTrainer

ROUNDS = 15
MIN_S = 0.02  # each variant is called for at least this long per round
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
    """Apply four masks, each by the steps of `torchaudio.functional.mask_along_axis_iid`: draw, compare, fill in."""
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
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {}
    with torch.no_grad():
        for variants in (wavelet_variants(), stft_variants(), mask_variants(), map_variants()):
            seconds |= measure(variants, arguments.rounds, min_s=MIN_S)
    print_medians(seconds, "ms", "batch")
    ratios = {name: median_ratio(seconds[a], seconds[b]) for name, (a, b) in RATIOS.items()}
    print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
