"""Spectra of simulated recordings in orders of shaft speed, and measures of their lines."""

from typing import Any

import numpy as np

from whirl.data.recording import Recording
from whirl.data.simulation import simulate

FULL = (1.0, 1.0)  # severity


def one(label: str, rpm: float = 1800, seed: int = 0, **arguments: Any) -> Recording:
    """Simulate one recording at a given speed, by default at full severity."""
    settings: dict[str, Any] = {"severity_range": FULL, "rpm_range": (rpm, rpm)} | arguments
    return simulate(1, 1, [label], seed, **settings)[0]


def order_spectrum(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Return orders and power `[F]` of the Hann-windowed recording."""
    assert recording.rpm is not None
    signal = recording.signal[0].astype(np.float64)
    power = np.abs(np.fft.rfft((signal - signal.mean()) * np.hanning(len(signal)))) ** 2
    hz = np.fft.rfftfreq(len(signal), 1 / recording.sampling_rate_hz)
    return hz / (recording.rpm / 60), power


def envelope_spectrum(recording: Recording, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return orders and power of the squared envelope of a band given as fractions of half the sampling rate."""
    assert recording.rpm is not None
    spectrum = np.fft.rfft(recording.signal[0].astype(np.float64))
    hz = np.fft.rfftfreq(recording.n_samples, 1 / recording.sampling_rate_hz)
    fraction = hz / (recording.sampling_rate_hz / 2)
    analytic = np.zeros(recording.n_samples, complex)
    analytic[: len(spectrum)] = np.where((fraction >= low) & (fraction < high), 2 * spectrum, 0)
    envelope = np.abs(np.fft.ifft(analytic)) ** 2
    power = np.abs(np.fft.rfft((envelope / envelope.mean() - 1) * np.hanning(len(envelope)))) ** 2
    return hz / (recording.rpm / 60), power


def prominence_db(orders: np.ndarray, power: np.ndarray, order: float, half_width: float = 0.03) -> float:
    """Return the highest line near an order over the median of its neighborhood."""
    near, around = np.abs(orders - order) < half_width, np.abs(orders - order) < 0.3
    return float(10 * np.log10(power[near].max() / np.median(power[around & ~near])))


def peak_order(orders: np.ndarray, power: np.ndarray, low: float, high: float) -> float:
    inside = (orders >= low) & (orders <= high)
    return float(orders[inside][power[inside].argmax()])


def phase(recording: Recording, order: float) -> np.ndarray:
    """Return the unwrapped phase in radians of the line at an order, in a band of 10 % on either side."""
    assert recording.rpm is not None
    spectrum = np.fft.fft(recording.signal[0].astype(np.float64))
    orders = np.fft.fftfreq(recording.n_samples, 1 / recording.sampling_rate_hz) / (recording.rpm / 60)
    spectrum[(orders < 0.9 * order) | (orders > 1.1 * order)] = 0
    return np.unwrap(np.angle(np.fft.ifft(spectrum)))[2048:-2048]  # the filter rings at the ends
