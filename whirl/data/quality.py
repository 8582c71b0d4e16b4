"""What a recorder leaves in a signal: quantisation, clipping, and stretches in which it stood still."""

from __future__ import annotations

import numpy as np

MIN_REVOLUTIONS = 16
"""Shaft revolutions that a window needs: fewer do not resolve a whirl at 0.45 X from a rub at 0.5 X."""

# So improbable a pile-up at the largest level is no chance.
_CHANCE = 1e-3


def quantisation_step(samples: np.ndarray) -> float | None:
    """The step that all differences between the samples `[N]` are multiples of, in their unit.

    Returns:
        None where there is no such step above the rounding of float32, or too few levels to tell.

    Example:
        >>> round(quantisation_step(np.float32([0.0, 0.2, 0.1, 0.6, 0.5])), 6)
        0.1
        >>> quantisation_step(np.random.default_rng(0).normal(size=1000).astype(np.float32)) is None
        True
    """
    levels = np.unique(samples).astype(np.float64)
    gaps = np.diff(levels)
    rounding = float(np.spacing(np.float32(np.abs(levels).max())))
    if len(gaps) < 4 or gaps.min() <= 8 * rounding:
        return None
    # The smallest gap is the step but for rounding. Wider ones tell it the better, once it is known well enough
    # to say how many steps they hold.
    step = gaps.min()
    for widest in (1.5, 20, np.inf):
        within = gaps[gaps < widest * step]
        step = float(within.sum() / np.round(within / step).sum())
    multiples = np.round(gaps / step)
    return step if np.abs(gaps - multiples * step).max() <= 0.1 * step + 2 * rounding else None


def count_clipped(samples: np.ndarray, step: float | None) -> int:
    """Number of samples `[N]` at the recorder's full scale; 0 where none is conspicuous.

    Samples thin out towards the largest. More of them at the largest level than the levels just below let
    expect (Poisson), on one side or at equal height on both, were cut off there.

    Args:
        samples: finite samples.
        step: distance of the levels; None takes the distance of float32 numbers.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
        >>> count_clipped(noise, None), count_clipped(np.clip(noise, -2, 2), None)
        (0, 455)
    """
    level = step or float(np.spacing(np.abs(samples).max()))
    # The lowest level of most converters is one step further from zero than the highest.
    exact = samples.astype(np.float64)
    sides = (exact, -exact, np.abs(exact), np.abs(exact + 0.5 * level))
    return max(_pile_up(side, level) for side in sides)


def _pile_up(samples: np.ndarray, level: float) -> int:
    """Number of samples at the maximum, where it is improbably large."""
    from scipy.special import gammainc

    top, bottom = float(samples.max()), float(samples.min())
    # Only the samples in the top hundredth of the range matter.
    n_levels = max(2.0, 0.01 * (top - bottom) / level)
    highest = samples[samples > top - n_levels * level]
    n_top = int((highest > top - 0.5 * level).sum())
    n_next = int((highest > top - 1.5 * level).sum()) - n_top
    expected = (len(highest) - n_top + 1) / n_levels  # plus one: few samples tell little
    # One sample is always on top: P(Poisson(expected) >= n_top - 1).
    chance = float(gammainc(n_top - 1, expected)) if n_top > 1 else 1.0
    # At the crest of a sine, too, the samples crowd, but not so much more on the last level than on the one before.
    return n_top if n_top > 3 * n_next and chance < _CHANCE else 0


def longest_run(samples: np.ndarray) -> int:
    """Number of samples in the longest stretch of equal ones of `[N]`.

    Example:
        >>> longest_run(np.array([1, 2, 2, 2, 3, 3]))
        3
    """
    ends = np.flatnonzero(np.diff(samples) != 0) + 1
    return int(np.diff(np.concatenate(([0], ends, [len(samples)]))).max())
