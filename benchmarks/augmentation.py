"""Cost of augmenting a batch, compared with a loop over samples, torch-audiomentations and a plain copy.

Why: networks for one-dimensional signals are small. A loop over samples that shifts, masks and mixes them can take
longer than the training step. Which implementation is fast depends on the length of the signals, so two extremes are
measured: many short windows `[64, 1, 2048]` and complete recordings `[32, 1, 102400]`.

What: time masking, circular shift, scaling and white noise with their default settings, and Mixup and CutMix of every
sample with class indices of 11 classes; each sample gets its own random numbers, all on one thread:

- `copy`: a clone of the batch, the lower bound for an augmentation that does not change its input.
- `ours`: the functions of `whirl.augment`.
- `loop`: NumPy, sample by sample: one copy, then slices in place, random numbers from a `Generator`.
- `library`: torch-audiomentations per example, where it has the operation and can be imported.
- `randn`: the noise alone, the lower bound for adding noise.

Ratios are `<operation>_<short or long>_vs_<other>`, ours over the other. The C library is set to keep freed memory:
otherwise it returns blocks of 13 MB to the system now and then, and the next allocation costs four times a copy.

    python benchmarks/augmentation.py
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import numpy as np
import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results
from torch import Tensor

from whirl.augment import (
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
OPERATIONS = ("scaling", "masking", "shifting", "mixup", "cutmix", "noise")
LIBRARY_OPERATIONS = ("scaling", "shifting", "noise")
COPY_LIMITS = {"scaling": (1.5, 6), "masking": (6, 6), "shifting": (5, 6), "mixup": (8, 6)}  # short, long
GOALS = {
    **{f"{name}_{size}_vs_copy": f"<= {limit}" for name, limits in COPY_LIMITS.items()
       for size, limit in zip(SHAPES, limits, strict=True)},
    **{f"noise_{size}_vs_randn": "<= 1.2" for size in SHAPES},
    **{f"{name}_{size}_vs_loop": "<= 1" for name in OPERATIONS for size in SHAPES},
    **{f"{name}_{size}_vs_library": "<= 1" for name in LIBRARY_OPERATIONS for size in SHAPES},
}  # fmt: skip

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
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    keep_freed_memory()
    ratios: dict[str, float] = {}
    for size, shape in SHAPES.items():
        # One untimed call before each: what other variants left in the caches and the allocator must not count.
        seconds = measure(variants(shape), arguments.rounds, n_calls=CALLS[size], warmup_calls=1)
        print(f"{size} signals {list(shape)}")
        print_medians(seconds, "µs", "batch")
        ratios |= compare(size, seconds)
    print_results(ratios, GOALS)


def keep_freed_memory() -> None:
    """Keep glibc from trimming the heap and from mapping large blocks one by one; other C libraries are left alone."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**30)


def variants(shape: tuple[int, ...]) -> dict[str, Variant]:
    torch.manual_seed(0)
    signals, labels = torch.randn(shape), torch.randint(N_CLASSES, shape[:1])
    found: dict[str, Variant] = {"copy": signals.clone, "randn": lambda: torch.randn(shape)}
    found |= {f"{name} ours": call for name, call in ours(signals, labels).items()}
    found |= {f"{name} loop": call for name, call in loops(signals.numpy(), labels.numpy()).items()}
    try:
        found |= {f"{name} library": call for name, call in library(signals).items()}
    except (ImportError, OSError) as error:  # OSError: torchaudio was built for another torch
        print(f"torch-audiomentations is not measured: {error}")
    return found


def compare(size: str, seconds: dict[str, list[float]]) -> dict[str, float]:
    pairs = {(name, other): f"{name} {other}" for name in OPERATIONS for other in ("loop", "library")}
    pairs |= {(name, "copy"): "copy" for name in OPERATIONS} | {("noise", "randn"): "randn"}
    return {
        f"{name}_{size}_vs_{other}": median_ratio(seconds[f"{name} ours"], seconds[rival])
        for (name, other), rival in pairs.items()
        if rival in seconds
    }


if __name__ == "__main__":
    main()
