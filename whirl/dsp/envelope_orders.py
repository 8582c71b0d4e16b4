"""Spectra of squared envelopes over orders of the shaft, and their level above the noise beside each line."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR_ORDERS = 0.5
"""Half-width in orders of the running median that estimates the noise."""

BLANKED_BINS = 1.5
"""Half-width in bins of what a harmonic of the shaft covers behind a Hann window."""


def modulation_power(envelopes: Tensor) -> Tensor:
    """Compute the squared amplitudes of the sinusoids in envelopes, behind a Hann window.

    `16 |rFFT(hann e)|^2 / M^2`: a sinusoid of amplitude a on a bin has power a^2. With e relative to the mean of the
    squared envelope, 1 is a modulation of 100 %. Averages over segments are averages of this power.

    Args:
        envelopes: `[..., M]`, relative to their mean, as from `prewhitened_envelope`.

    Returns:
        `[..., M // 2 + 1]`, >= 0; bin k holds k periods in an envelope's length.

    Example:
        >>> modulation_power(0.5 * torch.cos(2 * torch.pi * 8 * torch.arange(256) / 256))[7:10]
        tensor([0.0625, 0.2500, 0.0625])
    """
    n = envelopes.shape[-1]
    window = torch.hann_window(n, dtype=envelopes.dtype, device=envelopes.device)
    spectrum = torch.fft.rfft(envelopes * window)
    return (spectrum.real.square() + spectrum.imag.square()) * (16 / n**2)


def running_median(values: Tensor, half_width: int) -> Tensor:
    """Compute the median of each value and its neighbors, mirrored at both ends.

    Args:
        values: `[..., K]`, K > half_width.
        half_width: neighbors on each side, >= 0.

    Returns:
        `[..., K]`. Gradients flow to the value that is the median.

    Example:
        >>> running_median(torch.tensor([1.0, 9.0, 2.0, 3.0, 4.0]), half_width=1)
        tensor([9., 2., 3., 3., 3.])
    """
    rows = values.reshape(1, -1, values.shape[-1])
    padded = F.pad(rows, (half_width, half_width), mode="reflect")
    return padded.unfold(-1, 2 * half_width + 1, 1).median(-1).values.reshape(values.shape)


def whole_orders(n_bins: int, bins_per_order: float, half_width_bins: float = BLANKED_BINS) -> Tensor:
    """Return which bins lie within `half_width_bins` of a whole order, where the harmonics of the shaft are.

    Args:
        n_bins: number of bins K.
        bins_per_order: bins in one order, > 0.
        half_width_bins: distance in bins.

    Returns:
        bool `[K]`.

    Example:
        >>> whole_orders(9, bins_per_order=8).int()
        tensor([1, 1, 0, 0, 0, 0, 0, 1, 1], dtype=torch.int32)
    """
    order = torch.arange(n_bins, dtype=torch.float64) / bins_per_order
    return ((order - order.round()) * bins_per_order).abs() <= half_width_bins


def above_floor(power: Tensor, bins_per_order: float) -> tuple[Tensor, Tensor]:
    """Compute the level of a modulation spectrum over its running median, with the shaft harmonics blanked.

    Args:
        power: `[..., K]`, > 0, as from `modulation_power`.
        bins_per_order: bins in one order, > 0.

    Returns:
        Level over the median within 0.5 order on each side in dB, and power above that median, >= 0; both `[..., K]`
        and 0 within 1.5 bins of whole orders.

    Example:
        >>> noise = torch.rand(400, generator=torch.Generator().manual_seed(0)) + 0.5
        >>> noise[135] = 100.0  # order 3.375
        >>> level_db, excess = above_floor(noise, bins_per_order=40)
        >>> round(level_db[135].item()), round(excess[135].item()), level_db[40].item()
        (20, 99, 0.0)
    """
    n_bins = power.shape[-1]
    half_width = min(max(2, round(FLOOR_ORDERS * bins_per_order)), n_bins - 1)
    tiny = torch.finfo(power.dtype).tiny
    floor = running_median(power, half_width).clamp(min=tiny)
    blanked = whole_orders(n_bins, bins_per_order).to(power.device)
    level_db = 10 * (power.clamp(min=tiny) / floor).log10()
    return level_db.masked_fill(blanked, 0.0), (power - floor).clamp(min=0).masked_fill(blanked, 0.0)
