"""Signals that no diagnosis can be drawn from."""

from __future__ import annotations

import numpy as np

from whirl.data.quality import count_clipped, longest_run, quantization_step

MAX_CLIPPED = 1e-3
"""Share of clipped samples up to which a signal is evaluated: a few cut peaks leave the rest intact."""

MAX_STUCK = 0.1
"""Share of a signal that one run of equal samples may take."""

_MIN_CLIPPED = 3  # samples at one limit: every signal has a highest and a lowest sample
_ROUNDING = 4  # steps of float32 at a signal's largest value: less than this is no signal


def why_unusable(signal: np.ndarray) -> str | None:
    """Return why a channel cannot be evaluated, in words; None if it can.

    Args:
        signal: samples `[N]`.

    Example:
        >>> why_unusable(np.zeros(100)), why_unusable(np.full(100, 3.5)), why_unusable(np.array([1.0, np.nan]))
        ('the signal is silent', 'the signal is constant', '1 of 2 samples are NaN or infinite')
        >>> noise = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
        >>> why_unusable(np.clip(noise, -2, 2)), why_unusable(noise)
        ('4.5 % of the samples are clipped', None)
    """
    low, high = signal.min(), signal.max()  # NaN if a sample is
    if not np.isfinite(low) or not np.isfinite(high):
        n_bad = int((~np.isfinite(signal)).sum())
        return f"{n_bad} of {len(signal)} samples are NaN or infinite"
    signal = np.asarray(signal, dtype=np.float32)
    largest = np.float32(max(high, -low))
    if largest == 0:
        return "the signal is silent"
    if high - low <= _ROUNDING * np.spacing(largest):
        return "the signal is constant"
    stuck = longest_run(signal) / len(signal)
    if stuck > MAX_STUCK:
        return f"the signal does not change for {100 * stuck:.0f} % of its length"
    clipped = _clipped_share(signal, float(low), float(high))
    if clipped > MAX_CLIPPED:
        return f"{100 * clipped:.2g} % of the samples are clipped"
    return None


def _clipped_share(signal: np.ndarray, low: float, high: float) -> float:
    at_limits = int((signal == high).sum()), int((signal == low).sum())
    if sum(at_limits) <= MAX_CLIPPED * len(signal) or max(at_limits) < _MIN_CLIPPED:
        return 0.0
    centered = signal - (low + high) / 2  # both rails at equal height
    return count_clipped(centered, quantization_step(centered)) / len(signal)
