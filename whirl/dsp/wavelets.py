"""The continuous wavelet transform of batches, by one FFT of the signal and one of each scale."""

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

_OMEGA_0 = 6.0  # radians of the Morlet wavelet in one standard deviation of its envelope
_NEGLIGIBLE = 1e-4  # a filter's gain, relative to its peak, below which a decimated transform takes it for 0
_POINTS = 4  # at least, in a cell of a pooled transform
_CHUNK = 2**18  # coefficients made at once: 2 MB of complex64, so that they stay in the processor's cache


def cwt(signals: Tensor, sampling_rate_hz: float, frequencies_hz: Sequence[float], wavelet: str = "morlet") -> Tensor:
    """Continuous wavelet transform, scales given as the frequencies they are centred on.

    Coefficients are `W(f, t) = 2 / N sum_k X_k psi(k / f) exp(2 pi i k t / N)` over positive frequencies k, where psi
    is the wavelet's Fourier transform with its peak, 1, at f (L1 normalisation): a sinusoid of amplitude a at f has
    `|W| = a`, whatever f is. `morlet` is `exp(-(6 k/f - 6)^2 / 2)`, complex, with about six waves under its envelope;
    `ricker`, `(k/f)^2 exp(1 - (k/f)^2)`, is the Mexican hat, of which the real part is the usual, real transform.

    The window is continued by its mirror image, back and forth, as if its last sample stood there twice: no jump, no
    zeros, and wavelets of any length. What is within `0.95 / f` seconds of an end (`0.23 / f` with `ricker`), one
    standard deviation, is seen partly in that mirror.

    Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit, T >= 2.
        sampling_rate_hz: of the signals, > 0.
        frequencies_hz: F centre frequencies, each > 0 and <= half the sampling rate.
        wavelet: one of `WAVELETS`.

    Returns:
        Complex `[B, C, F, T]`, in the unit of the signals.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape, frequency or name is another.

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
    """`|cwt|^2`, averaged over `n_times` cells of the window, at a fraction of the time and memory.

    A coefficient at a low frequency varies slowly, and is computed only as often as it needs to be: at 4, 8, 16, ...
    points of every cell, so many that `|W|^2` does not fold, between the samples where T is no multiple of them. So
    every T is as fast as one that its FFT likes. Cells are of one length, averaged by the trapezoidal rule: of white
    noise, a cell is right to 2 % of the largest of its row.

    Args:
        signals: as for `cwt`.
        sampling_rate_hz: as for `cwt`.
        frequencies_hz: as for `cwt`.
        n_times: cells, >= 1; no more than T are made.
        wavelet: as for `cwt`.

    Returns:
        `[B, C, F, n_times]`, in the unit of the signals squared, >= 0.

    Raises:
        TypeError: as `cwt`.
        ValueError: as `cwt`.
    """
    spectrum, bank = _prepare(signals, sampling_rate_hz, frequencies_hz, wavelet)
    n_cells = min(check_count("n_times", n_times), signals.shape[-1])
    plan = _plan(tuple(frequencies_hz), wavelet, float(sampling_rate_hz), signals.shape[-1], n_cells, bank.device)
    rows = max(1, _CHUNK // max(group.bins.numel() for group in plan))
    share = 1 / (2 * signals.shape[-1])
    filters = [
        bank[group.scales].gather(1, group.bins) * (group.inside * (group.bins.shape[1] * share)) for group in plan
    ]
    parts = [
        torch.cat([_pooled(part[:, group.bins] * each, n_cells) for group, each in zip(plan, filters, strict=True)], 1)
        for part in spectrum.flatten(0, 1).split(rows)
    ]
    order = torch.cat([group.scales for group in plan]).argsort()
    return torch.cat(parts).index_select(1, order).unflatten(0, signals.shape[:2])


def geometric_frequencies(low_hz: float, high_hz: float, n_frequencies: int) -> list[float]:
    """Frequencies in equal ratios from low to high, both included.

    Example:
        >>> [round(hz, 6) for hz in geometric_frequencies(100, 800, 4)]
        [100.0, 200.0, 400.0, 800.0]
    """
    return [float(hz) for hz in np.geomspace(low_hz, high_hz, n_frequencies)]


class _Group(NamedTuple):
    """Scales that need no more than P coefficients of a window; `bins` and `inside` say where each lies."""

    scales: Tensor  # [S]
    bins: Tensor  # [S, 2P], of the spectrum, each at the place it folds to
    inside: Tensor  # [S, 2P], whether there is such a bin


def _prepare(
    signals: Tensor, sampling_rate_hz: float, frequencies_hz: Sequence[float], wavelet: str
) -> tuple[Tensor, Tensor]:
    """The mirrored signals' spectrum `[B, C, T + 1]` and the filter bank `[F, T + 1]`, both real."""
    check_batch(signals)
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    check_name("wavelet", wavelet, WAVELETS)
    if not len(frequencies_hz) or not all(0 < hz <= sampling_rate_hz / 2 for hz in frequencies_hz):
        raise ValueError(f"frequencies_hz are {list(frequencies_hz)}, expected > 0 and <= {sampling_rate_hz / 2:g}")
    bank = _bank(
        tuple(frequencies_hz), wavelet, float(sampling_rate_hz), signals.shape[-1], signals.dtype, signals.device
    )
    # symmetric about its first sample, hence a real spectrum, and transforms of half the cost
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
    with torch.inference_mode(False):  # made for an evaluation, it must serve a training too
        bins_hz = torch.arange(n_samples + 1, dtype=torch.float64) * (sampling_rate_hz / (2 * n_samples))
        ratio = bins_hz / torch.tensor(frequencies_hz, dtype=torch.float64)[:, None]
        bank = 2 * _gain(ratio, wavelet)
        bank[:, 0] = 0  # neither wavelet sees a constant
        bank[:, -1] /= 2  # has no mirror image
        return bank.to(device, dtype)


def _gain(ratio: Tensor, wavelet: str) -> Tensor:
    """Fourier transform of a wavelet at multiples of its centre frequency, 1 at 1."""
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
    """Scales in groups by how seldom they need be computed."""
    with torch.inference_mode(False):
        bank = _bank(frequencies_hz, wavelet, sampling_rate_hz, n_samples, torch.float64, torch.device("cpu"))
        seen = bank > _NEGLIGIBLE
        first = seen.int().argmax(1)
        width = n_samples + 1 - seen.int().flip(1).argmax(1) - first
        points = torch.tensor([_points(int(bins), n_samples, n_cells) for bins in width])
        return tuple(_group(int(n), points, first, n_samples, device) for n in points.unique(sorted=True).flip(0))


def _points(width: int, n_samples: int, n_cells: int) -> int:
    """How many coefficients of a window to compute: as many for each cell, and no more than about its samples."""
    from scipy.fft import next_fast_len

    most = next_fast_len(math.ceil(n_samples / n_cells))
    enough = max(math.ceil(width / n_cells), _POINTS)
    return n_cells * min(2 ** math.ceil(math.log2(enough)), most)


def _group(n_points: int, points: Tensor, first: Tensor, n_samples: int, device: torch.device) -> _Group:
    scales = (points == n_points).nonzero().flatten()
    n = 2 * n_points
    begin = first[scales, None]
    bins = begin + (torch.arange(n) - begin) % n  # the one bin from `begin` on that folds to each place
    inside = bins <= n_samples
    return _Group(scales.to(device), bins.clamp(max=n_samples).to(device), inside.to(device))


def _pooled(folded: Tensor, n_cells: int) -> Tensor:
    """From folded spectra `[R, S, N]` the power `[R, S, n_cells]` of their transforms."""
    coefficients = torch.fft.ihfft(folded)
    power = coefficients.real.square() + coefficients.imag.square()
    power = (power[..., 1:] + power[..., :-1]) / 2
    return F.adaptive_avg_pool1d(power, n_cells)
