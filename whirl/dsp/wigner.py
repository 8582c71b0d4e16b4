"""Wigner-Ville distribution of batches, without smoothing or smoothed in time and frequency."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.dsp.envelope import analytic
from whirl.validation import check_batch, check_count, check_number

_CHUNK = 2**19  # lag products computed at once: 4 MB of complex64


def wigner_ville(
    signals: Tensor,
    sampling_rate_hz: float,
    n_frequencies: int,
    lag_window: Tensor | None = None,
    time_window: Tensor | None = None,
    hop: int = 1,
    first: int = 0,
) -> Tensor:
    """Compute the smoothed pseudo Wigner-Ville distribution of the analytic signal z (Cohen 1989, Proc. IEEE 77:941).

    `W(f, t) = sum_m h(m) sum_s g(s) z(t + s + m) z*(t + s - m) exp(-4 pi i f m / rate)`, with z = 0 outside the window.
    It has the best resolution of a single component. For several components it also contains oscillating cross terms
    midway between each pair, which the lag window h (smoothing in frequency) and the time window g suppress. Values can
    be negative.

    Without windows the sum over all `n_frequencies = T` rows is `T |z(t)|^2`, and the sum over time is half the energy
    spectrum of z. With windows of sum 1 a sinusoid of amplitude a has `W = a^2`.

    Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit.
        sampling_rate_hz: sampling rate of the signals, > 0.
        n_frequencies: number of rows F; row k has the frequency `k sampling_rate_hz / (2 F)`.
        lag_window: h, symmetric, `[2 M + 1]`, for lags of -M to M samples, M < F / 2; None uses all possible lags with
            weight 1.
        time_window: g, of odd length in samples; None for no smoothing in time.
        hop: samples between adjacent columns, >= 1.
        first: sample of the first column, >= 0.

    Returns:
        Real `[B, C, F, 1 + (T - 1 - first) // hop]`, in the unit of the signals squared.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is invalid.

    Example:
        >>> tone = 3 * torch.cos(2 * torch.pi * 0.125 * torch.arange(256))
        >>> h = torch.hann_window(33, periodic=False)
        >>> distribution = wigner_ville(tone[None, None], 1.0, n_frequencies=64, lag_window=h / h.sum())
        >>> distribution.shape, distribution[0, 0, :, 128].argmax() * 1.0 / (2 * 64)
        (torch.Size([1, 1, 64, 256]), tensor(0.1250))
        >>> round(distribution[0, 0, 16, 128].item(), 3)
        9.0
    """
    check_batch(signals)
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    check_count("n_frequencies", n_frequencies, minimum=2)
    check_count("hop", hop)
    max_lag = min((n_frequencies - 1) // 2, (signals.shape[-1] - 1) // 2)
    lags = signals.new_ones(max_lag + 1) if lag_window is None else _nonnegative_lags(lag_window, max_lag)
    smoothing = signals.new_ones(1) if time_window is None else time_window.to(signals)
    rows = analytic(signals.flatten(0, 1))
    n_chunk = max(1, _CHUNK // (signals.shape[-1] * len(lags)))
    parts = [
        torch.fft.hfft(_smoothed_products(part, len(lags), smoothing, hop, first) * lags.to(signals), n_frequencies)
        for part in rows.split(n_chunk)
    ]
    return torch.cat(parts).mT.unflatten(0, signals.shape[:2])


def _nonnegative_lags(window: Tensor, max_lag: int) -> Tensor:
    """Return the half of a symmetric window from its center on."""
    center = len(window) // 2
    if window.ndim != 1 or len(window) % 2 == 0 or center > max_lag:
        raise ValueError(f"lag_window has shape {list(window.shape)}, expected an odd length <= {2 * max_lag + 1}")
    return window[center:]


def _smoothed_products(rows: Tensor, n_lags: int, smoothing: Tensor, hop: int, first: int) -> Tensor:
    """Compute `sum_s g(s) z(t + s + m) z*(t + s - m)`, `[R, T', M + 1]`, of complex rows `[R, T]`."""
    max_lag = n_lags - 1
    shifted = F.pad(rows, (max_lag, max_lag)).unfold(-1, rows.shape[-1], 1)  # [R, 2M + 1, T]
    products = shifted[:, max_lag:] * shifted[:, : max_lag + 1].flip(1).conj()
    if len(smoothing) == 1:
        return products[..., first::hop].mT * smoothing
    half = len(smoothing) // 2
    if len(smoothing) % 2 == 0:
        raise ValueError(f"time_window has {len(smoothing)} samples, expected an odd length")
    padded = F.pad(products[..., max(first - half, 0) :], (max(half - first, 0), half))
    parts = torch.view_as_real(padded).movedim(-1, 0).unfold(-1, len(smoothing), hop) @ smoothing
    return torch.complex(parts[0], parts[1]).mT
