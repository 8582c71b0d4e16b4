"""Levels of shaft lines and octave bands relative to the power of the signal."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

SHAFT_LINES = {
    "whirl": (0.41, 0.485),
    "1/2X": (0.485, 0.515),
    **{f"{order:g}X": (0.975 * order, 1.025 * order) for order in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)},
}
"""Ranges of orders in which lines of rotors and journal bearings are expected; the recorded speed may be nominal."""

N_OCTAVES = 8
"""Octave bands below half the sampling rate."""

_SPREAD = 1.1  # bins on each side to which a Hann window spreads a line, and a little more for rounding
_MIN_SHARE = 1e-7  # of the power: -70 dB


def level_names(n_channels: int) -> list[str]:
    """Return the names of the features of `relative_order_levels`.

    Example:
        >>> level_names(2)[-3:]
        ['ch1 octave 8', 'ch0 share', 'ch1 share']
    """
    names = [*SHAFT_LINES, *(f"octave {octave + 1}" for octave in range(N_OCTAVES))]
    if n_channels == 1:
        return names
    of_channels = [f"ch{channel} {name}" for channel in range(n_channels) for name in names]
    return [*of_channels, *(f"ch{channel} share" for channel in range(n_channels))]


def relative_order_levels(signals: Tensor, rpm: Tensor, sampling_rate_hz: float, max_rpm: float = 6000) -> Tensor:
    """Compute the levels of shaft lines and octave bands relative to the power of the channel.

    With the power spectrum P of a Hann-windowed channel without its mean, a level is `10 log10(sum of P over the band /
    sum of P)`, at least -70 dB. Levels do not depend on gain and offset, and lines follow the speed. The share of each
    channel in the total power is added if there are several.

    Args:
        signals: `[B, C, N]`, float32 or float64.
        rpm: shaft speed in rev/min, `[B]`; NaN if unknown.
        sampling_rate_hz: sampling rate of the signals, > 0.
        max_rpm: highest shaft speed.

    Returns:
        `[B, F]` in dB, F as many as `level_names(C)`: 20 for each channel, and one more if there are several. Rows of
        unknown speed are NaN.

    Example:
        >>> time_s = torch.arange(16_000) / 10_000
        >>> signal = torch.sin(2 * torch.pi * 25 * time_s)[None, None]
        >>> levels = relative_order_levels(signal, torch.tensor([1500.0]), 10_000)
        >>> levels.shape, level_names(1)[2], levels[0, 2].abs() < 0.1
        (torch.Size([1, 20]), '1X', tensor(True))
    """
    n_samples = signals.shape[-1]
    taper = torch.hann_window(n_samples, periodic=False, dtype=signals.dtype, device=signals.device)
    spectrum = torch.fft.rfft((signals - signals.mean(-1, keepdim=True)) * taper)
    power = spectrum.real.square() + spectrum.imag.square()  # [B, C, K]
    resolution_hz = sampling_rate_hz / n_samples
    parts = torch.cat([_lines(power, rpm, resolution_hz, max_rpm), _octaves(power)], -1)
    total = power.sum(-1).clamp_min(torch.finfo(power.dtype).tiny)
    levels = _db(parts / total[..., None]).flatten(1)
    if signals.shape[1] > 1:
        levels = torch.cat([levels, _db(total / total.sum(-1, keepdim=True))], 1)
    return levels.masked_fill(rpm.isnan()[:, None], torch.nan)


def _lines(power: Tensor, rpm: Tensor, resolution_hz: float, max_rpm: float) -> Tensor:
    """Return the power within the range of each line, `[B, C, lines]`."""
    ranges = torch.tensor(list(SHAFT_LINES.values()), dtype=power.dtype, device=power.device)
    highest = max(high for _, high in SHAFT_LINES.values()) * max_rpm / 60 / resolution_hz
    power = power[..., : math.ceil(highest) + 3]
    edges = ranges * (rpm.to(power.dtype)[:, None, None] / 60 / resolution_hz) + ranges.new_tensor([-_SPREAD, _SPREAD])
    place = torch.arange(power.shape[-1], dtype=power.dtype, device=power.device)
    is_inside = (place >= edges[..., :1]) & (place <= edges[..., 1:])  # [B, lines, K]
    return (power[:, :, None] * is_inside[:, None]).sum(-1)


def _octaves(power: Tensor) -> Tensor:
    """Return the power in each octave band, the highest first, `[B, C, octaves]`."""
    half = power.shape[-1] - 1
    edges = [math.floor(half / 2**octave) for octave in range(N_OCTAVES + 1)]
    bands = [power[..., low + 1 : high + 1].sum(-1) for high, low in itertools.pairwise(edges)]
    return torch.stack(bands, -1)


def _db(share: Tensor) -> Tensor:
    return 10 * (share + _MIN_SHARE).log10()
