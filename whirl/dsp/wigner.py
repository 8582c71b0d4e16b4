"""The Wigner-Ville distribution of batches, plain or smoothed in time and lag."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.dsp.envelope import analytic
from whirl.validation import check_batch, check_count, check_number

_CHUNK = 2**19  # lag products made at once: 4 MB of complex64


def wigner_ville(
    signals: Tensor,
    sampling_rate_hz: float,
    n_frequencies: int,
    lag_window: Tensor | None = None,
    time_window: Tensor | None = None,
    hop: int = 1,
    first: int = 0,
) -> Tensor:
    """Smoothed pseudo Wigner-Ville distribution of the analytic signal z (Cohen 1989, Proc. IEEE 77:941).

    `W(f, t) = sum_m h(m) sum_s g(s) z(t + s + m) z*(t + s - m) exp(-4 pi i f m / rate)`, z being 0 outside the window.
    The sharpest map of a single component; of several it also shows what oscillates midway between each two, which the
    lag window h (smoothing in frequency) and the time window g suppress. Negative values are no error.

    Without windows it is the plain distribution, whose sum over all `n_frequencies = T` rows is `T |z(t)|^2` and whose
    sum over time is half the energy spectrum of z. With windows of sum 1 a sinusoid of amplitude a has `W = a^2`.

    Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit.
        sampling_rate_hz: of the signals, > 0.
        n_frequencies: F; row k lies at `k sampling_rate_hz / (2 F)`.
        lag_window: h, `[2 M + 1]`, for lags of -M to M samples, M < F / 2; None takes every lag there is room for as
            it is.
        time_window: g, `[odd]`, samples; None does not smooth.
        hop: samples from one column to the next, >= 1.
        first: sample of the first column, >= 0.

    Returns:
        `[B, C, F, 1 + (T - 1 - first) // hop]`, real, in the unit of the signals squared.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is another.

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
    room = min((n_frequencies - 1) // 2, (signals.shape[-1] - 1) // 2)
    lags = signals.new_ones(room + 1) if lag_window is None else _half(lag_window, room)
    smoothing = signals.new_ones(1) if time_window is None else time_window.to(signals)
    rows = analytic(signals.flatten(0, 1))
    n_chunk = max(1, _CHUNK // (signals.shape[-1] * len(lags)))
    parts = [
        torch.fft.hfft(_smoothed_products(part, len(lags), smoothing, hop, first) * lags.to(signals), n_frequencies)
        for part in rows.split(n_chunk)
    ]
    return torch.cat(parts).mT.unflatten(0, signals.shape[:2])


def _half(window: Tensor, room: int) -> Tensor:
    """The part of a symmetric window from its middle on."""
    most = len(window) // 2
    if window.ndim != 1 or len(window) % 2 == 0 or most > room:
        raise ValueError(f"lag_window has shape {list(window.shape)}, expected an odd length <= {2 * room + 1}")
    return window[most:]


def _smoothed_products(rows: Tensor, n_lags: int, smoothing: Tensor, hop: int, first: int) -> Tensor:
    """`sum_s g(s) z(t + s + m) z*(t + s - m)`, `[R, T', M]`, of complex rows `[R, T]`."""
    reach = n_lags - 1
    shifted = F.pad(rows, (reach, reach)).unfold(-1, rows.shape[-1], 1)  # [R, 2M + 1, T]
    products = shifted[:, reach:] * shifted[:, : reach + 1].flip(1).conj()
    if len(smoothing) == 1:
        return products[..., first::hop].mT * smoothing
    half = len(smoothing) // 2
    if len(smoothing) % 2 == 0:
        raise ValueError(f"time_window has {len(smoothing)} samples, expected an odd number")
    padded = F.pad(products[..., max(first - half, 0) :], (max(half - first, 0), half))
    parts = torch.view_as_real(padded).movedim(-1, 0).unfold(-1, len(smoothing), hop) @ smoothing
    return torch.complex(parts[0], parts[1]).mT
