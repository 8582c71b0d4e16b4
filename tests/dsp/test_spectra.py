"""Spectra compared with SciPy and closed forms, and selection of the band to demodulate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

from whirl.data.reading import read
from whirl.dsp.envelope import squared_envelope
from whirl.dsp.spectra import (
    amplitude_spectrum,
    most_impulsive_band,
    squared_envelope_spectrum,
)
from whirl.physics.evidence import DEMODULATION_BANDS

FS = 8192.0


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize(("n", "resolution_hz"), [(8192, None), (8191, None), (8192, 8.0), (9000, 7.3), (20_001, 16.0)])
def test_power_matches_scipy_welch(n: int, resolution_hz: float | None) -> None:
    signal = noise(n) + np.sin(np.arange(n))
    frequency_hz, amplitude = amplitude_spectrum(signal, FS, resolution_hz)
    length = 2 * (len(frequency_hz) - 1) if resolution_hz or n % 2 == 0 else n
    if resolution_hz:
        length = round(FS / resolution_hz)
    expected_hz, power = scipy.signal.welch(
        signal, FS, "hann", length, noverlap=length - length // 2, detrend="constant", scaling="spectrum"
    )
    inner = slice(1, -1)  # SciPy does not double the power of the outer bins
    np.testing.assert_allclose(frequency_hz, expected_hz)
    np.testing.assert_allclose(amplitude[inner], np.sqrt(2 * power[inner]), rtol=1e-6)


@pytest.mark.parametrize("resolution_hz", [None, 4.0, 32.0])
def test_peak_of_sinusoid_equals_its_amplitude(resolution_hz: float | None) -> None:
    time_s = np.arange(4 * int(FS)) / FS
    frequency_hz, amplitude = amplitude_spectrum(5 + 0.7 * np.cos(2 * np.pi * 640 * time_s + 1), FS, resolution_hz)
    assert frequency_hz[amplitude.argmax()] == 640
    assert amplitude.max() == pytest.approx(0.7, rel=1e-6)
    assert amplitude[0] < 1e-9  # the mean is removed


def test_sinusoid_at_half_the_sampling_rate_is_not_doubled() -> None:
    _, amplitude = amplitude_spectrum(np.tile([1.0, -1.0], 512), FS)
    assert amplitude[-1] == pytest.approx(1)


def test_channels_are_independent() -> None:
    signals = np.stack([noise(4096, seed) for seed in range(3)])
    _, together = amplitude_spectrum(signals, FS, 16)
    for row, signal in zip(together, signals, strict=True):
        np.testing.assert_allclose(row, amplitude_spectrum(signal, FS, 16)[1])


@pytest.mark.parametrize(
    ("n", "rate_hz", "resolution_hz", "message"),
    [
        (3, FS, None, "3 samples"),
        (64, 0, None, "rate is 0"),
        (64, FS, -1, "resolution is -1"),
        (64, float("nan"), None, "nan"),
    ],
)
def test_error_names_invalid_argument(n: int, rate_hz: float, resolution_hz: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        amplitude_spectrum(np.zeros(n), rate_hz, resolution_hz)


def impacts(rate_hz: float, resonance_hz: float, seconds: float = 4) -> np.ndarray:
    """Return decaying bursts of a resonance, `rate_hz` per second, in noise."""
    n = int(seconds * FS)
    train = np.zeros(n)
    train[(np.arange(0, seconds, 1 / rate_hz) * FS).astype(int)] = 1
    time_s = np.arange(256) / FS
    ring = np.exp(-400 * time_s) * np.sin(2 * np.pi * resonance_hz * time_s)
    return np.convolve(train, ring)[:n] + 0.2 * noise(n)  # the noise masks the onset of bursts outside the resonance


@pytest.mark.parametrize(("rate_hz", "resonance_hz"), [(37.0, 2900.0), (107.0, 1600.0)])
def test_envelope_spectrum_shows_impact_rate_and_raw_spectrum_shows_resonance(
    rate_hz: float, resonance_hz: float
) -> None:
    signal = impacts(rate_hz, resonance_hz)
    band_hz = most_impulsive_band(signal, FS)
    assert band_hz[0] < resonance_hz < band_hz[1]
    frequency_hz, amplitude = squared_envelope_spectrum(signal, FS, band_hz, resolution_hz=0.5)
    below = frequency_hz < 1.5 * rate_hz
    assert frequency_hz[below][amplitude[below].argmax()] == pytest.approx(rate_hz, abs=0.5)
    raw_hz, raw = amplitude_spectrum(signal, FS, 0.5)
    assert raw_hz[raw.argmax()] == pytest.approx(resonance_hz, abs=100)


def test_isolated_knock_does_not_determine_the_band() -> None:
    signal = impacts(rate_hz=60, resonance_hz=2900)
    time_s = np.arange(256) / FS
    signal[9000:9256] += 50 * np.exp(-100 * time_s) * np.sin(2 * np.pi * 700 * time_s)
    low_hz, high_hz = most_impulsive_band(signal, FS)
    assert low_hz < 2900 < high_hz
    without_segments = max(DEMODULATION_BANDS, key=lambda band: np.square(_envelope_of(signal, band)).mean())
    assert not without_segments[0] < 2900 / (FS / 2) < without_segments[1]


def _envelope_of(signal: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    return squared_envelope(torch.tensor(signal)[None, None], FS, (band[0] * FS / 2, band[1] * FS / 2))[0, 0].numpy()


def test_bands_overlap_and_stay_below_half_the_sampling_rate() -> None:
    lows, highs = zip(*DEMODULATION_BANDS, strict=True)
    assert all(low < high for low, high in zip(lows[1:], highs[:-1], strict=True))
    assert highs[-1] < 1


@pytest.mark.data
@pytest.mark.parametrize(("file", "order"), [("105.mat", 5.4152), ("169.mat", 5.4152), ("130.mat", 3.5848)])
def test_race_faults_of_real_bearings_show_line_at_kinematic_rate(real_data: Path, file: str, order: float) -> None:
    recording = read(real_data / "cwru_12k_de" / file).select_channels(["DE"])
    assert recording.rpm is not None
    signal, rate_hz = recording.signal[0], recording.sampling_rate_hz
    band_hz = most_impulsive_band(signal, rate_hz)
    frequency_hz, amplitude = squared_envelope_spectrum(signal, rate_hz, band_hz, resolution_hz=0.3)
    orders = frequency_hz / (recording.rpm / 60)
    line = amplitude[np.abs(orders / order - 1) < 0.01].max()
    floor = np.median(amplitude[np.abs(orders - order) < 0.5])
    assert 20 * np.log10(line / floor) > 20
