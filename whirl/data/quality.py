"""Measurements of recording quality: quantization, clipping, dropouts, and the profile of a recording."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whirl.data.recording import Recording

MIN_REVOLUTIONS = 16
"""Shaft revolutions that a window needs: fewer do not resolve a whirl at 0.45 X from a rub at 0.5 X."""

# Probability by chance below which an accumulation of samples at the largest level is clipping.
_MAX_P_VALUE = 1e-3
# Number of samples used to estimate the quantization step.
_STEP_SAMPLES = 2**17
_BLOCK_SAMPLES = 2**18


def quantization_step(samples: np.ndarray) -> float | None:
    """Return the step of which all differences between samples `[N]` are multiples, in their unit.

    Returns:
        The step; None if there is none above the rounding of float32, or too few levels to estimate it.

    Example:
        >>> round(quantization_step(np.float32([0.0, 0.2, 0.1, 0.6, 0.5])), 6)
        0.1
        >>> quantization_step(np.random.default_rng(0).normal(size=1000).astype(np.float32)) is None
        True
    """
    levels = np.unique(samples).astype(np.float64)
    gaps = np.diff(levels)
    rounding = float(np.spacing(np.float32(np.abs(levels).max())))
    if len(gaps) < 4 or gaps.min() <= 8 * rounding:
        return None
    # The smallest gap is the step, except for rounding errors. Wider gaps give a more precise estimate, once the step
    # is precise enough to determine how many steps they contain.
    step = gaps.min()
    for widest in (1.5, 20, np.inf):
        within = gaps[gaps < widest * step]
        step = float(within.sum() / np.round(within / step).sum())
    multiples = np.round(gaps / step)
    return step if np.abs(gaps - multiples * step).max() <= 0.1 * step + 2 * rounding else None


def count_clipped(samples: np.ndarray, step: float | None) -> int:
    """Return the number of samples `[N]` clipped at the full scale of the recorder.

    The amplitude distribution of an unclipped signal decreases towards its largest value. Samples are clipped if there
    are improbably more of them (Poisson) at the largest level than expected from the levels just below, on one side or
    at equal magnitude on both.

    Args:
        samples: finite samples.
        step: distance of the levels, see `quantization_step`; None is the spacing of float32 numbers.

    Returns:
        The number of clipped samples, 0 if the number at the largest level is not conspicuous.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
        >>> count_clipped(noise, None), count_clipped(np.clip(noise, -2, 2), None)
        (0, 455)
    """
    level = step or float(np.spacing(max(abs(samples.min()), abs(samples.max()))))
    # The lowest level of most converters is one step further from zero than the highest.
    sides: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda exact: exact,
        lambda exact: -exact,
        np.abs,
        lambda exact: np.abs(exact + 0.5 * level),
    )
    return max(_count_at_maximum(samples, side, level) for side in sides)


def _blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yield parts of `[N]`, so that what is computed from them takes little memory."""
    for start in range(0, len(samples), _BLOCK_SAMPLES):
        yield samples[start : start + _BLOCK_SAMPLES]


def _count_at_maximum(samples: np.ndarray, side: Callable[[np.ndarray], np.ndarray], level: float) -> int:
    """Return the number of samples at the maximum of a side if it is improbably large, else 0."""
    from scipy.special import gammainc

    extremes = [(values.max(), values.min()) for values in map(side, _exact_blocks(samples))]
    top, bottom = float(max(high for high, _ in extremes)), float(min(low for _, low in extremes))
    # Only samples in the top hundredth of the range are relevant.
    n_levels = max(2.0, 0.01 * (top - bottom) / level)
    edges = top - np.array([0.5, 1.5, n_levels]) * level
    counts = sum(np.array([np.count_nonzero(v > edge) for edge in edges]) for v in map(side, _exact_blocks(samples)))
    n_top, n_two, n_highest = (int(count) for count in np.atleast_1d(counts))
    n_next = n_two - n_top
    expected = (n_highest - n_top + 1) / n_levels  # plus one: few samples are weak evidence
    # One sample is always at the maximum: P(Poisson(expected) >= n_top - 1).
    p_value = float(gammainc(n_top - 1, expected)) if n_top > 1 else 1.0
    # Samples also accumulate at the crest of a sine, but not as much more on the last level than on the one before.
    return n_top if n_top > 3 * n_next and p_value < _MAX_P_VALUE else 0


def _exact_blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    return (block.astype(np.float64) for block in _blocks(samples))


def longest_run(samples: np.ndarray) -> int:
    """Return the length of the longest run of equal samples in `[N]`.

    Example:
        >>> longest_run(np.array([1, 2, 2, 2, 3, 3]))
        3
    """
    longest = run = 0
    last: float | None = None
    for block in _blocks(samples):
        edges = np.concatenate(([0], np.flatnonzero(block[1:] != block[:-1]) + 1, [len(block)]))
        lengths = np.diff(edges)
        if block[0] == last:
            lengths[0] += run
        longest, run, last = max(longest, int(lengths.max())), int(lengths[-1]), block[-1]
    return longest


@dataclass(frozen=True)
class ChannelProfile:
    """Measurements of one channel; if there are NaN or infinite samples, only these are counted.

    Attributes:
        n_bad: number of samples that are NaN or infinite.
        first_bad: index of the first of them, -1 if there is none.
        mean: mean, in the unit of the samples.
        rms: RMS about the mean, in the same unit.
        step: quantization step, in the same unit; None if there is none.
        n_clipped: number of clipped samples.
        extreme: largest absolute value, in the same unit.
        stuck_s: longest run of equal samples, in s.
        digest: hash of the samples.
    """

    n_bad: int
    first_bad: int = -1
    mean: float = 0.0
    rms: float = 0.0
    step: float | None = None
    n_clipped: int = 0
    extreme: float = 0.0
    stuck_s: float = 0.0
    digest: bytes = b""

    @property
    def is_constant(self) -> bool:
        """Whether all samples are finite and equal."""
        return self.n_bad == 0 and self.rms == 0


@dataclass(frozen=True)
class Profile:
    """Information about a recording and measurements of its channels, without the samples."""

    name: str
    label: str
    specimen: str | None
    duration_s: float
    n_revolutions: float | None
    sampling_rate_hz: float
    unit: str
    rpm: float | None
    rpm_in_file: float | None
    load: float | None
    load_unit: str
    channels: dict[str, ChannelProfile]


def profile_of(recording: Recording) -> Profile:
    """Measure a recording; its samples are not needed afterwards."""
    stored = recording.metadata.get("rpm_in_file", recording.rpm)
    return Profile(
        name=Path(recording.source).name or "recording",
        label=recording.label or "",
        specimen=recording.specimen,
        duration_s=recording.duration_s,
        n_revolutions=recording.n_revolutions,
        sampling_rate_hz=recording.sampling_rate_hz,
        unit=recording.unit,
        rpm=recording.rpm,
        rpm_in_file=stored if stored is None or isinstance(stored, (int, float)) else recording.rpm,
        load=recording.load,
        load_unit=recording.load_unit,
        channels={
            name: _measure_channel(samples, recording.sampling_rate_hz)
            for name, samples in zip(recording.channels, recording.signal, strict=True)
        },
    )


def _measure_channel(samples: np.ndarray, sampling_rate_hz: float) -> ChannelProfile:
    """Measure one channel `[N]` in blocks, which take little memory beside the samples."""
    n_bad, first_bad = _find_bad(samples)
    if n_bad:
        return ChannelProfile(n_bad, first_bad)
    step = quantization_step(samples[:_STEP_SAMPLES])
    lowest, highest = float(samples.min()), float(samples.max())
    mean = sum(float(block.sum(dtype=np.float64)) for block in _blocks(samples)) / len(samples)
    squares = sum(float(np.square(block - mean).sum()) for block in _exact_blocks(samples))
    digest = hashlib.blake2b(digest_size=16)
    for block in _blocks(samples):
        digest.update(np.ascontiguousarray(block).data)
    return ChannelProfile(
        n_bad=0,
        mean=mean,
        rms=math.sqrt(squares / len(samples)) if highest > lowest else 0.0,  # of equal samples it is not exactly 0
        step=step,
        n_clipped=count_clipped(samples, step),
        extreme=max(abs(lowest), abs(highest)),
        stuck_s=longest_run(samples) / sampling_rate_hz,
        digest=digest.digest(),
    )


def _find_bad(samples: np.ndarray) -> tuple[int, int]:
    """Return the number of samples that are NaN or infinite, and the index of the first, -1 if there is none."""
    count, first = 0, -1
    for index, block in enumerate(_blocks(samples)):
        bad = np.flatnonzero(~np.isfinite(block))
        if len(bad) and first < 0:
            first = index * _BLOCK_SAMPLES + int(bad[0])
        count += len(bad)
    return count, first
