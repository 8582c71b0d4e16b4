"""Continuous wavelet transform of batches, by one FFT of the signal and an inverse FFT per scale."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.validation import check_batch, check_count, check_name, check_number

WAVELETS = ("morlet", "ricker")

_OMEGA_0 = 6.0  # center frequency of the Morlet wavelet, in radians per standard deviation of its envelope
_NEGLIGIBLE_GAIN = 1e-4  # gain of a filter, relative to its peak, below which a decimated transform treats it as 0
_MIN_POINTS = 4  # per cell of a pooled transform
_CHUNK = 2**18  # coefficients computed at once: 2 MB of complex64, which fit in the processor's cache


def cwt(signals: Tensor, sampling_rate_hz: float, frequencies_hz: Sequence[float], wavelet: str = "morlet") -> Tensor:
    """Compute the continuous wavelet transform at given center frequencies.

    Coefficients are `W(f, t) = 2 / N sum_k X_k psi(k / f) exp(2 pi i k t / N)` over positive frequencies k, where psi
    is the Fourier transform of the wavelet with its peak of 1 at f (L1 normalization): a sinusoid of amplitude a at f
    has `|W| = a` for any f. `morlet` is `exp(-(6 k/f - 6)^2 / 2)`, complex, with about six oscillations under its
    envelope. `ricker`, `(k/f)^2 exp(1 - (k/f)^2)`, is the Mexican hat; the real part of the result is the common real
    transform.

    The window is extended periodically by its mirror image, with the last sample repeated, so there is no jump, no zero
    padding and no limit on the length of the wavelets. Coefficients within one standard deviation of an end, `0.95 / f`
    seconds (`0.23 / f` for `ricker`), depend partly on the mirror image.

    Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit, T >= 2.
        sampling_rate_hz: sampling rate of the signals, > 0.
        frequencies_hz: F center frequencies, each > 0 and <= half the sampling rate.
        wavelet: one of `WAVELETS`.

    Returns:
        Complex `[B, C, F, T]`, in the unit of the signals.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape, frequency or name is invalid.

    Example:
        >>> time_s = torch.arange(2048) / 2048
        >>> tone = 3 * torch.cos(2 * torch.pi * 100 * time_s)
        >>> amplitude = cwt(tone[None, None], 2048, [50.0, 100.0, 200.0]).abs()
        >>> [round(value, 3) for value in amplitude[0, 0, :, 1024].tolist()]
        [0.0, 3.0, 0.033]
    """
    spectrum, bank = _prepare(signals, sampling_rate_hz, frequencies_hz, wavelet)
    n, spectra = 2 * signals.shape[-1], spectrum.flatten(0, 1)[:, None]
    rows = max(1, _CHUNK // (n * len(bank)))
    shape = (len(spectra), len(bank), signals.shape[-1])
    coefficients = torch.empty(shape, dtype=signals.dtype.to_complex(), device=signals.device)
    for start in range(0, len(spectra), rows):
        part = slice(start, start + rows)
        coefficients[part] = torch.fft.ihfft(spectra[part] * bank, n)[..., :-1]
    return coefficients.unflatten(0, signals.shape[:2])


def cwt_power(
    signals: Tensor,
    sampling_rate_hz: float,
    frequencies_hz: Sequence[float],
    n_times: int,
    wavelet: str = "morlet",
) -> Tensor:
    """Compute `|cwt|^2` averaged over `n_times` cells of the window, with a fraction of the time and memory of `cwt`.

    Coefficients at low frequencies vary slowly and are computed at fewer points: 4, 8, 16, ... per cell, enough to
    prevent aliasing of `|W|^2`. The points need not coincide with samples, so the FFT lengths are fast for any T. Cells
    have equal length and are averaged by the trapezoidal rule; for white noise the error of a cell is at most 2 % of
    the largest in its row.

    Args:
        signals: see `cwt`.
        sampling_rate_hz: see `cwt`.
        frequencies_hz: see `cwt`.
        n_times: number of cells, >= 1, limited to T.
        wavelet: see `cwt`.

    Returns:
        `[B, C, F, n_times]`, in the unit of the signals squared, >= 0.

    Raises:
        TypeError: see `cwt`.
        ValueError: see `cwt`.

    Example:
        >>> tone = 3 * torch.cos(2 * torch.pi * 100 * torch.arange(2048) / 2048)
        >>> cwt_power(tone[None, None], 2048, [100.0], n_times=4).shape
        torch.Size([1, 1, 1, 4])
        >>> cwt_power(tone[None, None], 2048, [100.0], n_times=4)[0, 0, 0, 1:3].sqrt().round(decimals=2)
        tensor([3., 3.])
    """
    spectrum, bank = _prepare(signals, sampling_rate_hz, frequencies_hz, wavelet)
    n_cells = min(check_count("n_times", n_times), signals.shape[-1])
    plan = _plan(tuple(frequencies_hz), wavelet, float(sampling_rate_hz), signals.shape[-1], n_cells, bank.device)
    rows = max(1, _CHUNK // max(group.bins.numel() for group in plan))
    norm = 1 / (2 * signals.shape[-1])
    filters = [
        bank[group.scales].gather(1, group.bins) * (group.is_valid * (group.bins.shape[1] * norm)) for group in plan
    ]
    parts = [
        torch.cat(
            [_pooled_power(part[:, group.bins] * each, n_cells) for group, each in zip(plan, filters, strict=True)], 1
        )
        for part in spectrum.flatten(0, 1).split(rows)
    ]
    order = torch.cat([group.scales for group in plan]).argsort()
    return torch.cat(parts).index_select(1, order).unflatten(0, signals.shape[:2])


def geometric_frequencies(low_hz: float, high_hz: float, n_frequencies: int) -> list[float]:
    """Return frequencies in geometric progression from low to high, both included.

    Example:
        >>> [round(hz, 6) for hz in geometric_frequencies(100, 800, 4)]
        [100.0, 200.0, 400.0, 800.0]
    """
    return [float(hz) for hz in np.geomspace(low_hz, high_hz, n_frequencies)]


class _Group(NamedTuple):
    """Scales that are computed at the same number of points P per window."""

    scales: Tensor  # [S], indices
    bins: Tensor  # [S, 2P], bins of the spectrum, each at the position to which decimation aliases it
    is_valid: Tensor  # [S, 2P], whether the bin exists


def _prepare(
    signals: Tensor, sampling_rate_hz: float, frequencies_hz: Sequence[float], wavelet: str
) -> tuple[Tensor, Tensor]:
    """Return the spectrum of the mirrored signals `[B, C, T + 1]` and the filter bank `[F, T + 1]`, both real."""
    check_batch(signals)
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    check_name("wavelet", wavelet, WAVELETS)
    if not len(frequencies_hz) or not all(0 < hz <= sampling_rate_hz / 2 for hz in frequencies_hz):
        raise ValueError(f"frequencies_hz are {[*frequencies_hz]}, expected numbers in (0, {sampling_rate_hz / 2:g}]")
    bank = _bank(
        tuple(frequencies_hz), wavelet, float(sampling_rate_hz), signals.shape[-1], signals.dtype, signals.device
    )
    # symmetric about the first sample, so the spectrum is real and the transforms cost half as much
    mirrored = torch.cat((signals, signals[..., -1:], signals[..., 1:].flip(-1)), -1)
    return torch.fft.rfft(mirrored).real, bank


@functools.lru_cache(maxsize=8)
def _bank(
    frequencies_hz: tuple[float, ...],
    wavelet: str,
    sampling_rate_hz: float,
    n_samples: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    with torch.inference_mode(False):  # cached under inference mode, the tensor could not be used in training
        bins_hz = torch.arange(n_samples + 1, dtype=torch.float64) * (sampling_rate_hz / (2 * n_samples))
        ratio = bins_hz / torch.tensor(frequencies_hz, dtype=torch.float64)[:, None]
        bank = 2 * _gain(ratio, wavelet)
        bank[:, 0] = 0  # the wavelets have zero mean
        bank[:, -1] /= 2  # the Nyquist bin has no negative counterpart
        return bank.to(device, dtype)


def _gain(ratio: Tensor, wavelet: str) -> Tensor:
    """Evaluate the Fourier transform of a wavelet at multiples of its center frequency; it is 1 at 1."""
    if wavelet == "morlet":
        return torch.exp(-0.5 * (_OMEGA_0 * (ratio - 1)).square())
    return ratio.square() * torch.exp(1 - ratio.square())


@functools.lru_cache(maxsize=8)
def _plan(
    frequencies_hz: tuple[float, ...],
    wavelet: str,
    sampling_rate_hz: float,
    n_samples: int,
    n_cells: int,
    device: torch.device,
) -> tuple[_Group, ...]:
    """Group the scales by the number of points at which they are computed."""
    with torch.inference_mode(False):
        bank = _bank(frequencies_hz, wavelet, sampling_rate_hz, n_samples, torch.float64, torch.device("cpu"))
        is_used = (bank > _NEGLIGIBLE_GAIN).int()
        first = is_used.argmax(1)
        width = n_samples + 1 - is_used.flip(1).argmax(1) - first
        points = torch.tensor([_points(int(bins), n_samples, n_cells) for bins in width])
        return tuple(_group(int(n), points, first, n_samples, device) for n in points.unique(sorted=True).flip(0))


def _points(width: int, n_samples: int, n_cells: int) -> int:
    """Return the number of points per window: the same in each cell, and at most about its number of samples."""
    from scipy.fft import next_fast_len

    maximum = next_fast_len(math.ceil(n_samples / n_cells))
    required = max(math.ceil(width / n_cells), _MIN_POINTS)
    return n_cells * min(2 ** math.ceil(math.log2(required)), maximum)


def _group(n_points: int, points: Tensor, first: Tensor, n_samples: int, device: torch.device) -> _Group:
    scales = (points == n_points).nonzero().flatten()
    n = 2 * n_points
    start = first[scales, None]
    bins = start + (torch.arange(n) - start) % n  # the one bin at or above `start` that is aliased to each position
    is_valid = bins <= n_samples
    return _Group(scales.to(device), bins.clamp(max=n_samples).to(device), is_valid.to(device))


def _pooled_power(spectra: Tensor, n_cells: int) -> Tensor:
    """Return the mean power `[R, S, n_cells]` of the transforms of aliased spectra `[R, S, N]`."""
    coefficients = torch.fft.ihfft(spectra)
    power = coefficients.real.square() + coefficients.imag.square()
    power = (power[..., 1:] + power[..., :-1]) / 2
    return F.adaptive_avg_pool1d(power, n_cells)
