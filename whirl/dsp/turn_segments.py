"""Segments that hold a number of turns of the shaft, at each recording's own speed."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from whirl.validation import check_count, check_number

SEGMENT_TURNS = 40
"""Turns in a segment: a bin of its spectrum is 1/40 order, so bearing lines are several bins from shaft harmonics."""

TAPERED_SHARE = 0.02
"""Share of a segment that fades in, and out: enough for a component 80 dB above the rest."""

_LENGTH_TOLERANCE = 2e-4  # of the length, in exchange for one that an FFT handles fast; moves lines by a tenth of a bin


def segment_length(n_samples: int, sampling_rate_hz: float, rpm: float, n_turns: float = SEGMENT_TURNS) -> int:
    """Return how many samples a segment of `n_turns` turns has.

    The length is rounded to one with small prime factors within 0.02 % of the exact number: an FFT of a length with a
    large prime factor takes up to ten times as long. A recording with fewer turns is one segment of as many complete
    turns as it holds.

    Args:
        n_samples: length of the recording, >= 1.
        sampling_rate_hz: sampling rate in Hz, > 0.
        rpm: speed of the shaft in rev/min, > 0.
        n_turns: turns in a segment, >= 1.

    Returns:
        The number of samples; `n_samples` where the recording holds less than one turn.

    Example:
        >>> segment_length(120_000, sampling_rate_hz=12_000, rpm=1800)
        16000
        >>> segment_length(5000, sampling_rate_hz=12_000, rpm=1800)  # 12.5 turns
        4800
    """
    check_count("n_samples", n_samples)
    check_number("n_turns", n_turns, 1)
    samples_per_turn = 60 * check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    samples_per_turn /= check_number("rpm", rpm, 0, open_ends=True)
    complete = n_samples // samples_per_turn
    if complete < 1:
        return n_samples
    exact = min(n_turns, complete) * samples_per_turn
    margin = int(_LENGTH_TOLERANCE * exact)
    longest = min(round(exact) + margin, n_samples)
    return min(range(round(exact) - margin, longest + 1), key=lambda n: (_fft_cost(n), abs(n - exact)))


def overlapping_segments(signals: Tensor, length: int) -> Tensor:
    """Return the fewest evenly spaced segments that overlap by half or more and cover the signal.

    Nothing is copied: the segments are a view of the signal. Fewer than M samples are left out at the end.

    Args:
        signals: `[..., N]`.
        length: samples in a segment, 1 <= length <= N.

    Returns:
        `[..., M, length]`, M = 1 for a signal of one segment.

    Raises:
        ValueError: the length is out of range.

    Example:
        >>> overlapping_segments(torch.arange(8), length=4)
        tensor([[0, 1, 2, 3],
                [2, 3, 4, 5],
                [4, 5, 6, 7]])
    """
    n_samples = signals.shape[-1]
    if check_count("length", length) > n_samples:
        raise ValueError(f"length is {length}, expected at most the signal's {n_samples} samples")
    left = n_samples - length
    n_segments = 1 + -(-left // max(1, length // 2))
    step = left // (n_segments - 1) if n_segments > 1 else length
    return signals.unfold(-1, length, max(1, step))[..., :n_segments, :]


def taper_ends(segments: Tensor, share: float = TAPERED_SHARE) -> Tensor:
    """Fade segments in and out, so that a strong slow component does not leak into their high frequencies.

    Without it, what a segment's two ends differ by spreads over the complete spectrum: a hum 40 dB above the rest takes
    6 dB from the depth of a bearing's lines.

    Args:
        segments: `[..., N]`, without their mean.
        share: share of the length that each of the two cosine flanks takes, 0 to 0.5.

    Returns:
        `[..., N]`.

    Example:
        >>> taper_ends(torch.ones(10), share=0.2)
        tensor([0.1464, 0.8536, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 0.8536, 0.1464])
    """
    n_flank = int(check_number("share", share, 0, 0.5) * segments.shape[-1])
    angle = (torch.arange(n_flank, dtype=segments.dtype, device=segments.device) + 0.5) * (math.pi / max(n_flank, 1))
    weights = torch.ones(segments.shape[-1], dtype=segments.dtype, device=segments.device)
    weights[:n_flank] = 0.5 - 0.5 * torch.cos(angle)
    weights[segments.shape[-1] - n_flank :] = 0.5 + 0.5 * torch.cos(angle)
    return segments * weights


@cache
def _fft_cost(n: int) -> int:
    """Return the sum of the prime factors above 7: zero where an FFT takes only its fast steps."""
    cost, factor = 0, 2
    while n > 1:
        if factor * factor > n:
            factor = n
        while n % factor == 0:
            n //= factor
            cost += factor if factor > 7 else 0
        factor += 1
    return cost
