"""What augmenting a batch costs: ours against a loop over its samples, torch-audiomentations and a plain copy.

Why: networks for one-dimensional signals are small. A loop over samples that shifts, masks and mixes them easily takes
longer than the step they are for. Which form of an operation is fast depends on the length of the signals, so both ends
are measured: many short windows `[64, 1, 2048]` and whole recordings `[32, 1, 102400]`.

What: time masking, circular shift, scaling and white noise with the reference's default settings, Mixup and CutMix of
every sample with class indices of 11 classes, every sample with draws of its own, all on one thread:

- `copy`: a clone of the batch; no augmentation that leaves its input alone can do less.
- ours: the functions of `advanced_augmentation`.
- `loop`: NumPy, sample by sample, written with care: one copy, then slices in place, a `Generator` for the draws.
- `library`: torch-audiomentations per example, where it has the operation and can be imported.
- `randn`: the noise alone, which no form of adding it can do without.

Ratios are `<operation>_<short or long>_vs_<what>`, ours over the other, medians over the rounds of the ratio within a
round. Variants take turns in one process, in an order drawn anew each round; the clock is processor time, because
absolute times say more about the machine than about the code. The C library keeps freed memory: otherwise it hands
blocks of 13 MB back to the system now and then, and whoever asks next pays four times the price of a copy.

    python benchmarks/augmentation.py
"""

from __future__ import annotations

import ctypes
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from whirl.augment.advanced_augmentation import (
    MixupAugmentation,
    amplitude_scaling,
    cutmix_batch,
    gaussian_noise_augmentation,
    time_masking,
    time_shift,
)

SHAPES = {"short": (64, 1, 2048), "long": (32, 1, 102400)}
CALLS = {"short": 40, "long": 3}
N_CLASSES, SAMPLING_RATE_HZ, ROUNDS = 11, 20480, 41
MAX_MASK, MAX_SHIFT, NOISE_STD, SCALE_RANGE = 1000, 1000, 0.01, (0.8, 1.2)
LIMITS = {"scaling": (1.5, 6), "masking": (6, 6), "shifting": (5, 6), "mixup": (8, 6)}

Variant = Callable[[], object]


def ours(signals: Tensor, labels: Tensor) -> dict[str, Variant]:
    mixup = MixupAugmentation(num_classes=N_CLASSES)
    return {
        "scaling": lambda: amplitude_scaling(signals),
        "masking": lambda: time_masking(signals),
        "shifting": lambda: time_shift(signals),
        "mixup": lambda: mixup(signals, labels),
        "cutmix": lambda: cutmix_batch(signals, labels, prob=1.0, num_classes=N_CLASSES),
        "noise": lambda: gaussian_noise_augmentation(signals),
    }


def loops(signals: np.ndarray, labels: np.ndarray) -> dict[str, Variant]:
    draw = np.random.default_rng(0)
    n, _, length = signals.shape
    one_hot = np.eye(N_CLASSES, dtype=np.float32)

    def scaling() -> np.ndarray:
        out = np.empty_like(signals)
        for row, signal in zip(out, signals, strict=True):
            np.multiply(signal, np.float32(draw.uniform(*SCALE_RANGE)), out=row)
        return out

    def masking() -> np.ndarray:
        out = signals.copy()
        for row in out:
            width = draw.integers(min(MAX_MASK, length // 4) + 1)
            start = draw.integers(length - width + 1)
            row[:, start : start + width] = 0
        return out

    def shifting() -> np.ndarray:
        out = np.empty_like(signals)
        for row, signal in zip(out, signals, strict=True):
            row[:] = np.roll(signal, draw.integers(-MAX_SHIFT, MAX_SHIFT + 1), -1)
        return out

    def mixup() -> tuple[np.ndarray, np.ndarray]:
        out, weights = np.empty_like(signals), np.empty((n, N_CLASSES), np.float32)
        for i, j in enumerate(draw.permutation(n)):
            share = np.float32(draw.beta(1.0, 1.0))
            out[i] = share * signals[i] + (1 - share) * signals[j]
            weights[i] = share * one_hot[labels[i]] + (1 - share) * one_hot[labels[j]]
        return out, weights

    def cutmix() -> tuple[np.ndarray, np.ndarray]:
        out, weights = signals.copy(), np.empty((n, N_CLASSES), np.float32)
        for i, j in enumerate(draw.permutation(n)):
            width = round((1 - draw.beta(1.0, 1.0)) * length)
            start = draw.integers(length - width + 1)
            out[i, :, start : start + width] = signals[j, :, start : start + width]
            share = np.float32(1 - width / length)
            weights[i] = share * one_hot[labels[i]] + (1 - share) * one_hot[labels[j]]
        return out, weights

    def noise() -> np.ndarray:
        out = np.empty_like(signals)
        for row, signal in zip(out, signals, strict=True):
            row[:] = signal + np.float32(NOISE_STD) * draw.standard_normal(signal.shape, np.float32)
        return out

    return {f.__name__: f for f in (scaling, masking, shifting, mixup, cutmix, noise)}


def library(signals: Tensor) -> dict[str, Variant]:
    from torch_audiomentations import AddColoredNoise, Gain, Shift

    kind = {"mode": "per_example", "p": 1.0, "sample_rate": SAMPLING_RATE_HZ, "output_type": "tensor"}
    low_db, high_db = (20 * float(np.log10(factor)) for factor in SCALE_RANGE)
    augmentations = {
        "scaling": Gain(low_db, high_db, **kind),
        "shifting": Shift(-MAX_SHIFT, MAX_SHIFT, "samples", **kind),
        "noise": AddColoredNoise(40.0, 40.001, 0.0, 1e-6, **kind),  # white, a hundredth of a signal of unit power
    }
    return {name: lambda transform=transform: transform(signals) for name, transform in augmentations.items()}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    ratios: dict[str, float] = {}
    for size, shape in SHAPES.items():
        seconds = measure(variants(shape), CALLS[size])
        for name, values in seconds.items():
            print(f"{size:5s} {name:18s} {1e6 * statistics.median(values):10.1f} µs")
        ratios |= compare(size, seconds)
    print(json.dumps({"ratios": ratios, "goals": goals(ratios)}))


def keep_freed_memory() -> None:
    """Let glibc neither trim the heap nor map large blocks one by one; elsewhere there is no such setting."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**30)


def variants(shape: tuple[int, ...]) -> dict[str, Variant]:
    torch.manual_seed(0)
    signals, labels = torch.randn(shape), torch.randint(N_CLASSES, shape[:1])
    every = {"copy": signals.clone, "randn": lambda: torch.randn(shape)}
    every |= {f"{name} ours": call for name, call in ours(signals, labels).items()}
    every |= {f"{name} loop": call for name, call in loops(signals.numpy(), labels.numpy()).items()}
    try:
        every |= {f"{name} library": call for name, call in library(signals).items()}
    except (ImportError, OSError) as error:  # OSError: torchaudio was built for another torch
        print(f"torch-audiomentations is not measured: {error}")
    return every


def measure(calls: dict[str, Variant], repeats: int) -> dict[str, list[float]]:
    """Seconds a call of every variant in every round; the first, cold round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for _ in range(ROUNDS + 1):
        for name in order.sample(list(calls), len(calls)):
            call = calls[name]
            call()  # what others left in the caches and the allocator is not this one's
            start = time.process_time()
            for _ in range(repeats):
                call()
            seconds[name].append((time.process_time() - start) / repeats)
    return {name: values[1:] for name, values in seconds.items()}


def compare(size: str, seconds: dict[str, list[float]]) -> dict[str, float]:
    operations = [name.removesuffix(" ours") for name in seconds if name.endswith(" ours")]
    pairs = {(name, other): f"{name} {other}" for name in operations for other in ("loop", "library")}
    pairs |= {(name, "copy"): "copy" for name in operations} | {("noise", "randn"): "randn"}
    return {
        f"{name}_{size}_vs_{other}": median_ratio(seconds[f"{name} ours"], seconds[rival])
        for (name, other), rival in pairs.items()
        if rival in seconds
    }


def goals(ratios: dict[str, float]) -> dict[str, str]:
    limits = {
        f"{name}_{size}_vs_copy": limit
        for name, pair in LIMITS.items()
        for size, limit in zip(SHAPES, pair, strict=True)
    }
    limits |= {name: 1.2 for name in ratios if name.endswith("_vs_randn")}
    limits |= {name: 1 for name in ratios if name.endswith(("_vs_loop", "_vs_library"))}
    return {name: f"<= {limit:g}" for name, limit in limits.items()}


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), 3)


if __name__ == "__main__":
    main()
