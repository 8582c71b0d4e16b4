"""The short-time Fourier transform of batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.validation import check_batch, check_count, check_number

WindowName = str | Sequence[Any]


class Map(NamedTuple):
    """A time-frequency map with its axes.

    Attributes:
        values: `[B, C, F, T']`.
        frequencies: of its rows, `[F]`, Hz.
        times_s: of its columns, `[T']`, seconds from the first sample.
    """

    values: Tensor
    frequencies: Tensor
    times_s: Tensor


def stft(
    signals: Tensor,
    sampling_rate_hz: float,
    window: WindowName = "hann",
    window_length: int = 256,
    hop: int | None = None,
    first: int = 0,
) -> Map:
    """Short-time Fourier transform; a sinusoid of amplitude a that falls on a frequency of the axis has `|X| = a`.

    `X(f, t) = 2 / sum(w) sum_n x(t + n) w(n) exp(-2 pi i f n / rate)`, the one-sided amplitude spectrum of the stretch
    about each time, its phase taken from the stretch's first sample; at 0 and half the sampling rate, which have no
    mirror image, twice that. Ends are continued by mirroring. Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit.
        sampling_rate_hz: of the signals, > 0.
        window: any that `scipy.signal.get_window` knows (periodic), by its name or a tuple with its parameters.
        window_length: L, samples, >= 2, at most 2T - 2.
        hop: samples from one column to the next, >= 1; default a quarter of the window.
        first: the sample that the first column is centred on, 0 to L / 2.

    Returns:
        Complex values `[B, C, L // 2 + 1, 1 + (T - 1 - first) // hop]` in the unit of the signals, and the axes.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a number or name is out of range.

    Example:
        >>> time_s = torch.arange(2048) / 2048
        >>> spectrogram = stft(3 * torch.cos(2 * torch.pi * 512 * time_s)[None, None], 2048, window_length=128)
        >>> spectrogram.values.shape, spectrogram.frequencies[32]
        (torch.Size([1, 1, 65, 64]), tensor(512.))
        >>> round(spectrogram.values.abs()[0, 0, 32, 32].item(), 4)
        3.0
    """
    check_batch(signals)
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    check_count("window_length", window_length, minimum=2)
    hop = check_count("hop", window_length // 4 or 1 if hop is None else hop)
    n_samples, half = signals.shape[-1], window_length // 2
    if half >= n_samples:
        raise ValueError(
            f"signals have {n_samples} samples, too few for a window of {window_length}: expected more than {half}"
        )
    if not 0 <= first <= half:
        raise ValueError(f"first is {first}, expected 0 to {half}")
    n_columns = 1 + (n_samples - 1 - first) // hop
    behind = first + (n_columns - 1) * hop - half + window_length - n_samples
    padded = F.pad(signals, (half - first, max(behind, 0)), mode="reflect")
    weights = amplitude_window(window, window_length, signals)
    values = torch.fft.rfft(padded.unfold(-1, window_length, hop)[:, :, :n_columns] * weights).mT
    axis = functools.partial(torch.linspace, device=signals.device, dtype=signals.dtype)
    last_s = (first + hop * (n_columns - 1)) / sampling_rate_hz
    return Map(
        values,
        axis(0, half * sampling_rate_hz / window_length, half + 1),
        axis(first / sampling_rate_hz, last_s, n_columns),
    )


def amplitude_window(window: WindowName, length: int, like: Tensor) -> Tensor:
    """Weights `2 w / sum(w)`, `[length]`, by which the transform of a sinusoid has its amplitude.

    Args:
        window: any that `scipy.signal.get_window` knows (periodic).
        length: in samples.
        like: whose type and device the weights get.
    """
    return _weights(window if isinstance(window, str) else tuple(window), length, like.dtype, like.device)


@functools.lru_cache(maxsize=32)
def _weights(window: str | tuple[Any, ...], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights by which a transform has the amplitude of a sinusoid."""
    with torch.inference_mode(False):  # made for an evaluation, it must serve a training too
        if window == "hann":  # spares the usual case the import of SciPy, which takes a second
            weights = torch.hann_window(length, dtype=torch.float64)
        else:
            from scipy.signal import get_window

            weights = torch.from_numpy(get_window(window, length))
        return (weights * (2 / weights.sum())).to(device, dtype)
