"""Measurements of recording quality: quantization, clipping, dropouts, and the profile of a recording."""

from __future__ import annotations

import hashlib
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
    level = step or float(np.spacing(np.abs(samples).max()))
    # The lowest level of most converters is one step further from zero than the highest.
    exact = samples.astype(np.float64)
    sides = (exact, -exact, np.abs(exact), np.abs(exact + 0.5 * level))
    return max(_count_at_maximum(side, level) for side in sides)


def _count_at_maximum(samples: np.ndarray, level: float) -> int:
    """Return the number of samples at the maximum if it is improbably large, else 0."""
    from scipy.special import gammainc

    top, bottom = float(samples.max()), float(samples.min())
    # Only samples in the top hundredth of the range are relevant.
    n_levels = max(2.0, 0.01 * (top - bottom) / level)
    highest = samples[samples > top - n_levels * level]
    n_top = int((highest > top - 0.5 * level).sum())
    n_next = int((highest > top - 1.5 * level).sum()) - n_top
    expected = (len(highest) - n_top + 1) / n_levels  # plus one: few samples are weak evidence
    # One sample is always at the maximum: P(Poisson(expected) >= n_top - 1).
    p_value = float(gammainc(n_top - 1, expected)) if n_top > 1 else 1.0
    # Samples also accumulate at the crest of a sine, but not as much more on the last level than on the one before.
    return n_top if n_top > 3 * n_next and p_value < _MAX_P_VALUE else 0


def longest_run(samples: np.ndarray) -> int:
    """Return the length of the longest run of equal samples in `[N]`.

    Example:
        >>> longest_run(np.array([1, 2, 2, 2, 3, 3]))
        3
    """
    repeats = np.flatnonzero(samples[1:] == samples[:-1])  # few in most signals
    if not len(repeats):
        return min(1, len(samples))
    ends = np.flatnonzero(np.diff(repeats) != 1) + 1
    return int(np.diff(np.concatenate(([0], ends, [len(repeats)]))).max()) + 1


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
    """Measure one channel `[N]`."""
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        return ChannelProfile(len(bad), int(bad[0]))
    step = quantization_step(samples[:_STEP_SAMPLES])
    return ChannelProfile(
        n_bad=0,
        mean=float(samples.mean(dtype=np.float64)),
        rms=float(samples.std(dtype=np.float64)) if np.ptp(samples) else 0.0,  # std of equal samples is not exactly 0
        step=step,
        n_clipped=count_clipped(samples, step),
        extreme=float(np.abs(samples).max()),
        stuck_s=longest_run(samples) / sampling_rate_hz,
        digest=hashlib.blake2b(np.ascontiguousarray(samples).data, digest_size=16).digest(),
    )
