"""Features of the signal itself, and the recognition of noise."""

import numpy as np
import pytest
from scipy.signal import butter, sosfilt
from scipy.stats import kurtosis

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.diagnosis.waveform_features import describe_waveform, is_noise


def colored(rng, n, exponent):
    """Return noise whose power falls with frequency to the power of an exponent."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    return np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 1) ** (-exponent / 2), n)


NOISES = {
    "white": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, size=n),
    "pink": lambda rng, n: colored(rng, n, 1),
    "red": lambda rng, n: colored(rng, n, 2),
    "low-pass": lambda rng, n: sosfilt(butter(4, 0.2, output="sos"), rng.normal(size=n)),
    "band-pass": lambda rng, n: sosfilt(butter(4, (0.2, 0.5), "band", output="sos"), rng.normal(size=n)),
}


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("n", [12_000, 100_000])
def test_noise_of_any_color_is_recognized(name, n):
    rng = np.random.default_rng(3)
    assert all(is_noise(NOISES[name](rng, n).astype(np.float32)) for _ in range(10))


def test_simulated_machines_are_not_noise():
    recordings = simulate(3, 1, n_samples=40_000)
    assert not any(is_noise(signal) for recording in recordings for signal in recording.signal)


def test_impacts_and_faint_lines_are_not_noise():
    rng, time_s = np.random.default_rng(0), np.arange(60_000) / 12_000
    impacts = np.zeros(60_000)
    impacts[::400] = 8.0
    noise = rng.normal(size=60_000)
    assert not is_noise(noise + impacts)
    assert not is_noise(noise + 0.3 * np.sin(2 * np.pi * 29.95 * time_s))
    assert not is_noise(noise + 0.2 * np.sin(2 * np.pi * 1234.0 * time_s))


def test_short_signals_are_never_called_noise():
    assert not is_noise(np.random.default_rng(0).normal(size=1000))


def test_octaves_of_white_noise_halve_and_kurtosis_is_that_of_scipy():
    noise = np.random.default_rng(0).normal(size=200_000)
    levels = describe_waveform(Recording(noise, 20_000), 20_000)
    assert np.diff(levels[:5]) == pytest.approx(-3.01, abs=0.3)
    assert levels[8] == pytest.approx(0.0, abs=0.2)
    assert levels[9] == pytest.approx(np.log(3 + kurtosis(noise.astype(np.float32))), abs=1e-4)


def test_features_depend_neither_on_gain_nor_offset():
    signal = simulate(1, 1, n_samples=40_000)[0].signal
    one, other = (describe_waveform(Recording(each, 20_480), 20_480) for each in (signal, 7.0 * signal + 3.0))
    assert other == pytest.approx(one, abs=0.02)


def test_a_recording_at_twice_the_rate_has_the_same_features_below():
    rng = np.random.default_rng(0)
    slow = sosfilt(butter(4, (0.05, 0.2), "band", output="sos"), rng.normal(size=200_000))
    fast = np.fft.irfft(np.pad(np.fft.rfft(slow), (0, 100_000)), 400_000) * 2
    one, other = (describe_waveform(Recording(x, rate), 10_000) for x, rate in ((slow, 10_000), (fast, 20_000)))
    strong = one[:8] > -20
    assert other[:8][strong] == pytest.approx(one[:8][strong], abs=0.5)
