"""Features of the signal itself, which need neither speed nor bearing, and signals that show no machine."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording

N_OCTAVES = 8
"""Octave bands below half the sampling rate."""

_SEGMENT = 4096  # samples of a periodogram
_MIN_SHARE = 1e-7  # of the power: -70 dB
_NEIGHBORS = 32  # bins on each side that a line is compared with
_LOWEST_LINE = 4  # bins: below, a line cannot be told from a rise of the noise
_FALSE_LINES = 1e-3  # probability that noise has a line
_HANN_BINS = 0.947  # independent periodograms per half-overlapping Hann segment (Welch, 1967)
_MEDIAN_ERROR = 1.1  # of the level that a line is compared with
_LOWEST = np.arange(_LOWEST_LINE, _NEIGHBORS)
_STEPS = np.linspace(0.0, 1.0, 8)
_BELOW = np.floor(_LOWEST[:, None] // 2 + _STEPS * (_LOWEST[:, None] - 1 - _LOWEST[:, None] // 2)).astype(int)
_ABOVE = np.floor(_LOWEST[:, None] + 1 + _STEPS * (_LOWEST[:, None] // 2 - 1)).astype(int)


def describe_waveform(recording: Recording, rate_hz: float) -> NDArray[np.float64]:
    """Describe the spectrum and the impulsiveness of each channel, independent of its gain.

    Args:
        recording: a recording.
        rate_hz: sampling rate whose lower half is divided into octaves; a recording at a lower rate has the lowest
            level in the bands that it lacks.

    Returns:
        For each channel the levels of 8 octaves relative to their sum in dB, the spectral flatness below `rate_hz / 2`
        in dB, and the logarithm of the kurtosis, `[10 C]`.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=50_000)
        >>> features = describe_waveform(Recording(noise, 10_000), 10_000)
        >>> features.shape, features[0].round(), abs(features[9] - np.log(3)) < 0.05
        ((10,), np.float64(-3.0), np.True_)
    """
    signal = recording.signal.astype(np.float64)
    signal = signal - signal.mean(axis=-1, keepdims=True)
    power, _ = _periodogram(signal)  # [C, F]
    frequency_hz = np.linspace(0, recording.sampling_rate_hz / 2, power.shape[-1])
    edges_hz = rate_hz / 2 * 2.0 ** -np.arange(N_OCTAVES + 1)
    bands = [(frequency_hz > low) & (frequency_hz <= high) for high, low in itertools.pairwise(edges_hz)]
    inside = (frequency_hz > edges_hz[-1]) & (frequency_hz <= edges_hz[0])
    tiny = np.finfo(np.float64).tiny
    levels = np.stack([power[:, band].sum(-1) for band in bands], axis=-1)
    levels = 10 * np.log10(levels / np.maximum(levels.sum(-1, keepdims=True), tiny) + _MIN_SHARE)
    flatness = np.log(power[:, inside] + tiny).mean(-1) - np.log(power[:, inside].mean(-1) + tiny)
    spread = np.square(signal).mean(-1)
    kurtosis = np.square(np.square(signal)).mean(-1) / np.maximum(np.square(spread), tiny)
    return np.column_stack([levels, 10 / math.log(10) * flatness, np.log(np.maximum(kurtosis, 1.0))]).ravel()


def is_noise(signal: NDArray[np.floating]) -> bool:
    """Whether a channel shows nothing but stationary noise: no impacts, and not a single line in its spectrum.

    A line is a bin above the median of its neighbors on either side by more than noise would show in one of 1000
    signals. Every machine in operation shows some line, of its shaft at least, so such a signal comes from elsewhere:
    a loose cable, another input, a sensor on nothing.

    Args:
        signal: samples `[N]`, finite, N >= 1024; shorter ones are never called noise.

    Example:
        >>> rng, time_s = np.random.default_rng(0), np.arange(50_000) / 10_000
        >>> noise = rng.normal(size=50_000)
        >>> is_noise(noise), is_noise(np.cumsum(noise)), is_noise(noise + 0.3 * np.sin(2 * np.pi * 29.7 * time_s))
        (True, True, False)
    """
    signal = np.asarray(signal, dtype=np.float64)
    if len(signal) < 1024 or _is_impulsive(np.diff(signal)):
        return False
    (power,), n_segments = _periodogram(signal[None] - signal.mean())
    return not _has_line(power, n_segments)


def _is_impulsive(samples: NDArray[np.float64]) -> bool:
    """Whether the kurtosis exceeds that of normal noise by 6 standard errors of independent samples, or by 0.1."""
    spread = np.square(samples - samples.mean())
    kurtosis = np.square(spread).mean() / max(spread.mean() ** 2, np.finfo(np.float64).tiny)
    return kurtosis > 3 + max(0.1, 6 * math.sqrt(24 / len(samples)))


def _has_line(power: NDArray[np.float64], n_segments: int) -> bool:
    """Whether a bin of a periodogram `[F]` stands out from its neighbors on both sides."""
    from scipy.stats import chi2

    degrees = 2 * _HANN_BINS * n_segments if n_segments > 1 else 2
    highest = chi2.isf(_FALSE_LINES / len(power), degrees) / chi2.median(degrees)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(power, _NEIGHBORS), axis=1)
    beside = np.maximum(medians[: -_NEIGHBORS - 1], medians[_NEIGHBORS + 1 :])  # of the bins before and after each
    if (power[_NEIGHBORS:-_NEIGHBORS] > _MEDIAN_ERROR * highest * beside).any():
        return True
    # The lowest bins have fewer neighbors, from half to one and a half of their frequency; these vary more.
    before, after = power[_BELOW], power[_ABOVE]
    beside = np.maximum(np.median(before, axis=1), np.median(after, axis=1))
    return bool((power[_LOWEST] > _MEDIAN_ERROR**3 * highest * beside).any())


def _periodogram(signal: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return the mean periodogram `[C, F]` of half-overlapping Hann segments, and their number."""
    length = min(_SEGMENT, signal.shape[-1])
    segments = np.lib.stride_tricks.sliding_window_view(signal, length, axis=-1)[:, :: max(1, length // 2)]
    power, window = np.zeros((len(signal), length // 2 + 1)), np.hanning(length)
    for place in range(segments.shape[1]):  # one at a time: all of them would take the memory of many recordings
        power += np.abs(np.fft.rfft(segments[:, place] * window)) ** 2
    return power / segments.shape[1], segments.shape[1]
