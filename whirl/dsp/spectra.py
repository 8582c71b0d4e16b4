"""Spectra for the eye: those of `signals.envelope`, of NumPy arrays."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from whirl.dsp import envelope
from whirl.physics.evidence import DEMODULATION_BANDS

_STRETCHES = 16


def amplitude_spectrum(
    signal: np.ndarray, sampling_rate_hz: float, resolution_hz: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes of the sinusoids in a signal, see `envelope.amplitude_spectrum`.

    Args:
        signal: samples, `[..., N]`, N >= 4.
        sampling_rate_hz: samples per second, > 0.
        resolution_hz: distance between two bins of the result, > 0; finer than the signal allows, or
            None, makes one segment of the whole signal.

    Returns:
        Frequencies in Hz, `[F]`, from 0 to half the sampling rate, and amplitudes (zero to peak) in the
        unit of the signal, `[..., F]`.

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
    """Amplitude spectrum of the squared envelope of a band, see `envelope.envelope_spectrum`.

    Args:
        signal: samples, `[..., N]`; at least 20 turns of the shaft, so that lines part from its harmonics.
        sampling_rate_hz: samples per second, > 0.
        band_hz: band to demodulate, Hz; see `most_impulsive_band`.
        resolution_hz: as in `amplitude_spectrum`.

    Returns:
        Frequencies of the modulation in Hz, `[F]`, and its amplitudes, `[..., F]`, dimensionless, >= 0.

    Raises:
        ValueError: as `amplitude_spectrum`, or the band does not lie within 0 and half the sampling rate.

    Example:
        >>> time_s = np.arange(8192) / 8192
        >>> swelling = np.sqrt(1 + 0.4 * np.cos(2 * np.pi * 50 * time_s)) * np.sin(2 * np.pi * 2000 * time_s)
        >>> frequency_hz, amplitude = squared_envelope_spectrum(swelling, 8192, band_hz=(1000, 3000))
        >>> float(frequency_hz[amplitude.argmax()]), round(float(amplitude.max()), 3)
        (50.0, 0.4)
    """
    amplitude, frequency_hz = envelope.envelope_spectrum(_batch(signal), sampling_rate_hz, band_hz, resolution_hz)
    return frequency_hz.numpy(), amplitude.numpy().reshape(*np.shape(signal)[:-1], -1)


def most_impulsive_band(signal: np.ndarray, sampling_rate_hz: float) -> tuple[float, float]:
    """The candidate band whose envelope is the most impulsive: where a resonance rings with the impacts.

    Impulsiveness is the kurtosis of the complex envelope, `mean(|z|^4) / mean(|z|^2)^2`: 1 for a pure
    tone, 2 for Gaussian noise, more for impacts. Its median over 16 stretches of the signal counts, so
    that impacts that go on win over a single knock. Antoni 2007, Mechanical Systems and Signal Processing
    21:108, searches all bands; four fixed ones are enough to look at and never lock on a stray bin.

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
        >>> hum = np.sin(2 * np.pi * 0.1 * np.arange(4096))  # 0.2 of half the rate: covers the first band only
        >>> most_impulsive_band(clicks + hum, 10_000)[0] > 1000
        True
    """
    if np.shape(signal)[-1] < _STRETCHES:
        raise ValueError(f"{np.shape(signal)[-1]} samples have no impulsive band: expected at least {_STRETCHES}")
    bands_hz = [(low * sampling_rate_hz / 2, high * sampling_rate_hz / 2) for low, high in DEMODULATION_BANDS]
    samples = _batch(signal)
    return max(bands_hz, key=lambda band_hz: _impulsiveness(samples, sampling_rate_hz, band_hz))


def _impulsiveness(samples: Tensor, sampling_rate_hz: float, band_hz: tuple[float, float]) -> float:
    power = envelope.squared_envelope(samples, sampling_rate_hz, band_hz).flatten().numpy()
    stretches = power[: len(power) // _STRETCHES * _STRETCHES].reshape(_STRETCHES, -1)
    mean = np.maximum(stretches.mean(1), np.finfo(power.dtype).tiny)
    return float(np.median(np.square(stretches / mean[:, None]).mean(1)))


def _batch(signal: np.ndarray) -> Tensor:
    """Its channels as one sample, `[1, C, N]`, a copy: what lies in a file may not be writable."""
    samples = np.asarray(signal)
    dtype = torch.float32 if samples.dtype == np.float32 else torch.float64
    return torch.tensor(samples.reshape(1, math.prod(samples.shape[:-1]), samples.shape[-1]), dtype=dtype)
