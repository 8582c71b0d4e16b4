"""Spectra of NumPy arrays, for figures: wrappers of `whirl.dsp.envelope`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from whirl.dsp import envelope
from whirl.physics.evidence import DEMODULATION_BANDS

_N_SEGMENTS = 16


def amplitude_spectrum(
    signal: np.ndarray, sampling_rate_hz: float, resolution_hz: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the amplitude spectrum of a signal, see `envelope.amplitude_spectrum`.

    Args:
        signal: samples, `[..., N]`, N >= 4.
        sampling_rate_hz: samples per second, > 0.
        resolution_hz: spacing of the bins, > 0. None, or a finer resolution than the signal allows, uses a single
            segment.

    Returns:
        Frequencies in Hz, `[F]`, from 0 to half the sampling rate, and amplitudes (zero to peak) in the unit of the
        signal, `[..., F]`.

    Raises:
        ValueError: there are fewer than 4 samples, or the rate or resolution is not positive.

    Example:
        >>> time_s = np.arange(2048) / 2048
        >>> frequency_hz, amplitude = amplitude_spectrum(3 * np.sin(2 * np.pi * 100 * time_s), 2048)
        >>> float(frequency_hz[amplitude.argmax()]), round(float(amplitude.max()), 3)
        (100.0, 3.0)
    """
    amplitude, frequency_hz = envelope.amplitude_spectrum(_batch(signal), sampling_rate_hz, resolution_hz)
    return frequency_hz.numpy(), amplitude.numpy().reshape(*np.shape(signal)[:-1], -1)


def squared_envelope_spectrum(
    signal: np.ndarray, sampling_rate_hz: float, band_hz: tuple[float, float], resolution_hz: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the amplitude spectrum of the squared envelope of a band, see `envelope.envelope_spectrum`.

    Args:
        signal: samples, `[..., N]`; use at least 20 revolutions to resolve fault lines from shaft harmonics.
        sampling_rate_hz: samples per second, > 0.
        band_hz: band to demodulate, Hz; see `most_impulsive_band`.
        resolution_hz: see `amplitude_spectrum`.

    Returns:
        Frequencies of the modulation in Hz, `[F]`, and its amplitudes, `[..., F]`, dimensionless, >= 0.

    Raises:
        ValueError: see `amplitude_spectrum`; or the band does not lie between 0 and half the sampling rate.

    Example:
        >>> time_s = np.arange(8192) / 8192
        >>> modulated = np.sqrt(1 + 0.4 * np.cos(2 * np.pi * 50 * time_s)) * np.sin(2 * np.pi * 2000 * time_s)
        >>> frequency_hz, amplitude = squared_envelope_spectrum(modulated, 8192, band_hz=(1000, 3000))
        >>> float(frequency_hz[amplitude.argmax()]), round(float(amplitude.max()), 3)
        (50.0, 0.4)
    """
    amplitude, frequency_hz = envelope.envelope_spectrum(_batch(signal), sampling_rate_hz, band_hz, resolution_hz)
    return frequency_hz.numpy(), amplitude.numpy().reshape(*np.shape(signal)[:-1], -1)


def most_impulsive_band(signal: np.ndarray, sampling_rate_hz: float) -> tuple[float, float]:
    """Select the candidate band with the most impulsive envelope: that of a resonance that the impacts excite.

    Impulsiveness is the kurtosis of the complex envelope, `mean(|z|^4) / mean(|z|^2)^2`: 1 for a pure tone, 2 for
    Gaussian noise, more for impacts. The median over 16 segments of the signal is used, so that repeated impacts are
    preferred to a single knock. Antoni 2007, Mechanical Systems and Signal Processing 21:108, searches all bands; four
    fixed candidates are sufficient for figures and robust to single outlying bins.

    Args:
        signal: samples of one channel, `[N]`, N >= 16.
        sampling_rate_hz: samples per second, > 0.

    Returns:
        Lower and upper edge in Hz, one of `evidence.DEMODULATION_BANDS`.

    Raises:
        ValueError: there are fewer samples.

    Example:
        >>> clicks = np.zeros(4096)
        >>> clicks[::64] = 1
        >>> hum = np.sin(2 * np.pi * 0.1 * np.arange(4096))  # at 0.2 of half the rate, in the first band only
        >>> most_impulsive_band(clicks + hum, 10_000)[0] > 1000
        True
    """
    if np.shape(signal)[-1] < _N_SEGMENTS:
        raise ValueError(f"signal has {np.shape(signal)[-1]} samples, expected at least {_N_SEGMENTS}")
    bands_hz = [(low * sampling_rate_hz / 2, high * sampling_rate_hz / 2) for low, high in DEMODULATION_BANDS]
    samples = _batch(signal)
    return max(bands_hz, key=lambda band_hz: _impulsiveness(samples, sampling_rate_hz, band_hz))


def _impulsiveness(samples: Tensor, sampling_rate_hz: float, band_hz: tuple[float, float]) -> float:
    power = envelope.squared_envelope(samples, sampling_rate_hz, band_hz).flatten().numpy()
    segments = power[: len(power) // _N_SEGMENTS * _N_SEGMENTS].reshape(_N_SEGMENTS, -1)
    mean = np.maximum(segments.mean(1), np.finfo(power.dtype).tiny)
    return float(np.median(np.square(segments / mean[:, None]).mean(1)))


def _batch(signal: np.ndarray) -> Tensor:
    """Return a batch `[1, C, N]` of the channels; a copy, since arrays that map a file may not be writable."""
    samples = np.asarray(signal)
    dtype = torch.float32 if samples.dtype == np.float32 else torch.float64
    return torch.tensor(samples.reshape(1, math.prod(samples.shape[:-1]), samples.shape[-1]), dtype=dtype)
