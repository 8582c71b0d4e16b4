"""Spectra for the eye: amplitudes of the signal and of its squared envelope."""

from __future__ import annotations

import numpy as np

DEMODULATION_BANDS = ((0.08, 0.32), (0.25, 0.50), (0.45, 0.72), (0.65, 0.95))
"""Candidate bands for demodulation, as fractions of half the sampling rate; they overlap, so that no resonance falls
between two of them."""

_STRETCHES = 16


def amplitude_spectrum(
    signal: np.ndarray, sampling_rate_hz: float, resolution_hz: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes of the sinusoids in a signal, averaged over half-overlapping Hann windows (Welch 1967).

    Each segment loses its mean. Power is averaged, then its root taken, so that a steady sinusoid of
    amplitude a stands as a peak of height a, whatever the length of the segments.

    Args:
        signal: samples, `[..., N]`.
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
    signal = np.asarray(signal)
    length = _segment_length(signal.shape[-1], sampling_rate_hz, resolution_hz)
    hop = max(length // 2, 1)
    segments = np.lib.stride_tricks.sliding_window_view(signal, length, axis=-1)[..., ::hop, :]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    spectrum = np.fft.rfft((segments - segments.mean(-1, keepdims=True)) * hann)
    power = (spectrum.real**2 + spectrum.imag**2).mean(-2)
    amplitude = 2 * np.sqrt(power) / hann.sum()
    if length % 2 == 0:
        amplitude[..., -1] /= 2  # the Nyquist bin has no mirror image
    return np.fft.rfftfreq(length, 1 / sampling_rate_hz), amplitude


def _segment_length(n_samples: int, sampling_rate_hz: float, resolution_hz: float | None) -> int:
    if n_samples < 4:
        raise ValueError(f"a spectrum of {n_samples} samples: expected at least 4")
    if not sampling_rate_hz > 0:
        raise ValueError(f"the sampling rate is {sampling_rate_hz} Hz, expected > 0")
    if resolution_hz is None:
        return n_samples
    if not resolution_hz > 0:
        raise ValueError(f"the resolution is {resolution_hz} Hz, expected > 0")
    return int(np.clip(round(sampling_rate_hz / resolution_hz), 4, n_samples))


def squared_envelope(signal: np.ndarray, sampling_rate_hz: float, band_hz: tuple[float, float]) -> np.ndarray:
    """Squared envelope of a frequency band, relative to its mean: `|z|^2 / mean(|z|^2)`.

    z is the analytic signal of the band: the spectrum with everything outside the band and all negative
    frequencies set to zero, doubled and transformed back. A band without any signal has an envelope of 1.

    Args:
        signal: samples, `[..., N]`.
        sampling_rate_hz: samples per second, > 0.
        band_hz: lower and upper edge of the band in Hz.

    Returns:
        The squared envelope, `[..., N]`, >= 0, with mean 1.

    Raises:
        ValueError: the band does not lie within 0 and half the sampling rate.

    Example:
        >>> time_s = np.arange(4096) / 4096
        >>> tone = np.sin(2 * np.pi * 1000 * time_s)
        >>> envelope = squared_envelope(tone, 4096, band_hz=(800, 1200))
        >>> bool(np.allclose(envelope, 1))
        True
    """
    low_hz, high_hz = band_hz
    if not 0 <= low_hz < high_hz <= sampling_rate_hz / 2:
        raise ValueError(f"the band {low_hz:g} to {high_hz:g} Hz does not lie within 0 and {sampling_rate_hz / 2:g} Hz")
    n_samples = np.shape(signal)[-1]
    frequency_hz = np.fft.rfftfreq(n_samples, 1 / sampling_rate_hz)
    inside = (frequency_hz >= low_hz) & (frequency_hz <= high_hz)
    analytic = np.fft.ifft(2 * np.fft.rfft(signal) * inside, n_samples)
    power = analytic.real**2 + analytic.imag**2
    mean = power.mean(-1, keepdims=True)
    return np.divide(power, mean, out=np.ones_like(power), where=mean > 0)


def squared_envelope_spectrum(
    signal: np.ndarray, sampling_rate_hz: float, band_hz: tuple[float, float], resolution_hz: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude spectrum of the squared envelope of a band, where bearing faults show their impact rates.

    The envelope is taken relative to its mean, so the result has no unit and does not depend on the
    recorder's gain: a line of height m means that the power in the band swings by a share m of its mean.
    Randall and Antoni 2011, Mechanical Systems and Signal Processing 25:485.

    Args:
        signal: samples, `[..., N]`; at least 20 turns of the shaft, so that lines part from its harmonics.
        sampling_rate_hz: samples per second, > 0.
        band_hz: band to demodulate, Hz; see `most_impulsive_band`.
        resolution_hz: as in `amplitude_spectrum`.

    Returns:
        Frequencies of the modulation in Hz, `[F]`, and its amplitudes, `[..., F]`, dimensionless, >= 0.

    Example:
        >>> time_s = np.arange(8192) / 8192
        >>> swelling = np.sqrt(1 + 0.4 * np.cos(2 * np.pi * 50 * time_s)) * np.sin(2 * np.pi * 2000 * time_s)
        >>> frequency_hz, amplitude = squared_envelope_spectrum(swelling, 8192, band_hz=(1000, 3000))
        >>> float(frequency_hz[amplitude.argmax()]), round(float(amplitude.max()), 3)
        (50.0, 0.4)
    """
    return amplitude_spectrum(squared_envelope(signal, sampling_rate_hz, band_hz), sampling_rate_hz, resolution_hz)


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
        Lower and upper edge in Hz, one of `DEMODULATION_BANDS`.

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
    return max(bands_hz, key=lambda band_hz: _impulsiveness(squared_envelope(signal, sampling_rate_hz, band_hz)))


def _impulsiveness(envelope: np.ndarray) -> float:
    stretches = envelope[: len(envelope) // _STRETCHES * _STRETCHES].reshape(_STRETCHES, -1)
    power = np.maximum(stretches.mean(1), np.finfo(float).tiny)
    return float(np.median(np.square(stretches / power[:, None]).mean(1)))
