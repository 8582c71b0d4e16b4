"""Short-time Fourier transform of batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.validation import check_batch, check_count, check_number

WindowName = str | Sequence[Any]


class StftResult(NamedTuple):
    """Short-time Fourier transform with its axes.

    Attributes:
        values: complex `[B, C, F, T']`.
        frequencies: frequencies of the rows in Hz, `[F]`.
        times_s: times of the columns in seconds from the first sample, `[T']`.
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
) -> StftResult:
    """Compute the short-time Fourier transform, scaled so that a sinusoid of amplitude a has `|X| = a`.

    `X(f, t) = 2 / sum(w) sum_n x(t + n) w(n) exp(-2 pi i f n / rate)`, the one-sided amplitude spectrum of the segment
    around each time, with the phase relative to the first sample of the segment. The amplitude is exact at the
    frequencies of the axis, and doubled at 0 and at half the sampling rate. The signals are extended by mirroring.
    Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit.
        sampling_rate_hz: sampling rate of the signals, > 0.
        window: window supported by `scipy.signal.get_window` (periodic): a name, or a tuple of name and parameters.
        window_length: L in samples, >= 2, at most 2T - 2.
        hop: samples between adjacent columns, >= 1; default a quarter of the window.
        first: sample at the center of the first column, 0 to L / 2.

    Returns:
        Values `[B, C, L // 2 + 1, 1 + (T - 1 - first) // hop]` in the unit of the signals, and the axes.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: an argument is out of range, or the window is unknown.

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
        raise ValueError(f"signals have {n_samples} samples, expected more than {half} for a window of {window_length}")
    if not 0 <= first <= half:
        raise ValueError(f"first is {first}, expected 0 to {half}")
    n_columns = 1 + (n_samples - 1 - first) // hop
    n_after = first + (n_columns - 1) * hop - half + window_length - n_samples
    padded = F.pad(signals, (half - first, max(n_after, 0)), mode="reflect")
    weights = amplitude_window(window, window_length, signals)
    values = torch.fft.rfft(padded.unfold(-1, window_length, hop)[:, :, :n_columns] * weights).mT
    axis = functools.partial(torch.linspace, device=signals.device, dtype=signals.dtype)
    last_s = (first + hop * (n_columns - 1)) / sampling_rate_hz
    return StftResult(
        values,
        axis(0, half * sampling_rate_hz / window_length, half + 1),
        axis(first / sampling_rate_hz, last_s, n_columns),
    )


def amplitude_window(window: WindowName, length: int, like: Tensor) -> Tensor:
    """Return the weights `2 w / sum(w)`, `[length]`, with which the transform of a sinusoid equals its amplitude.

    Args:
        window: window supported by `scipy.signal.get_window` (periodic).
        length: length in samples.
        like: tensor whose dtype and device the weights get.
    """
    return _weights(window if isinstance(window, str) else tuple(window), length, like.dtype, like.device)


@functools.lru_cache(maxsize=32)
def _weights(window: str | tuple[Any, ...], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # cached under inference mode, the tensor could not be used in training
        if window == "hann":  # without the import of SciPy, which takes a second
            weights = torch.hann_window(length, dtype=torch.float64)
        else:
            from scipy.signal import get_window

            weights = torch.from_numpy(get_window(window, length))
        return (weights * (2 / weights.sum())).to(device, dtype)
