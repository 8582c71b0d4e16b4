import numpy as np
import pytest
import torch
from scipy import signal as scipy_signal

from whirl.dsp.interpolation import interpolate, read_at

RATE_HZ = 2048


def tone(frequency_hz: float, n_samples: int, phase: float = 0.3, dtype=torch.float32) -> torch.Tensor:
    time_s = np.arange(n_samples) / RATE_HZ
    return torch.from_numpy(np.sin(2 * np.pi * frequency_hz * time_s + phase)).to(dtype)[None, None]


def peak(signal: torch.Tensor) -> tuple[float, float]:
    """Return the frequency in Hz, to 1/32 bin, and the amplitude of the strongest line."""
    window = np.hanning(signal.numel())
    spectrum = np.abs(np.fft.rfft(signal.flatten().double().numpy() * window, 32 * signal.numel()))
    at = spectrum.argmax()
    return at * RATE_HZ / (32 * signal.numel()), 2 * spectrum[at] / window.sum()


def one(value: float, dtype=torch.float32) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype)


@pytest.mark.parametrize("step", [1.03, 0.97, 1.0])
@pytest.mark.parametrize("n_samples", [2048, 1999])
def test_step_scales_200_hz_within_half_a_bin(step, n_samples):
    values = interpolate(tone(200, n_samples), one(-0.5 * (step - 1) * n_samples), one(step), n_samples)
    frequency_hz, amplitude = peak(values)
    assert abs(frequency_hz - 200 * step) < 0.5 * RATE_HZ / n_samples
    assert amplitude == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("frequency_hz", [5.0, 207.3, 700.0, 960.0])
@pytest.mark.parametrize("step", [0.97, 1.03])
def test_images_are_80_db_down_away_from_edges(frequency_hz, step):
    values = interpolate(tone(frequency_hz, 8192), one(4000 * (1 - step)), one(step), 8192)
    middle = values[0, 0, 2000:6000].numpy() * np.kaiser(4000, 14)
    spectrum = np.abs(np.fft.rfft(middle))
    at = round(frequency_hz * step * 4000 / RATE_HZ)
    assert abs(spectrum.argmax() - at) <= 1
    spectrum[max(at - 8, 0) : at + 9] = 0
    assert 20 * np.log10(spectrum.max() / np.kaiser(4000, 14).sum() * 2) < -80


def test_frequencies_above_half_the_rate_are_removed_without_aliasing():
    signals = tone(1015, 8192)  # would be moved to 1045 Hz and aliased to 1003 Hz
    values = interpolate(signals, one(-120), one(1.03), 8192)
    assert values[..., 2000:6000].abs().max() < 1e-4


def test_window_is_extended_periodically_by_its_mirror_image():
    n_samples, k, m = 301, np.arange(301), np.arange(3000)
    coefficients = np.random.default_rng(0).normal(size=n_samples) * (k < 0.8 * n_samples)

    def series(time: np.ndarray) -> np.ndarray:  # cosine series of a window mirrored at its ends
        return np.cos(np.pi * (time[..., None] + 0.5) * k / n_samples) @ coefficients

    start, step = np.array([-11.7, 2.3, 0.0, 1e4]), np.array([1.2, 0.9, 1.0, 0.3])
    signals = torch.from_numpy(series(k)).expand(4, 1, -1)
    values = interpolate(signals, torch.from_numpy(start), torch.from_numpy(step), 3000)[:, 0]
    expected = series(start[:, None] + step[:, None] * m)
    assert np.abs(values.numpy() - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("n_resampled", [2060, 1960])
def test_agrees_with_scipy(n_resampled):
    dtype = torch.float64
    tones = tone(31, 2000, dtype=dtype) + tone(250.5, 2000, 1, dtype) + tone(800, 2000, 2, dtype)
    burst = tones * torch.from_numpy(np.kaiser(2000, 20))
    expected = np.asarray(scipy_signal.resample(burst.numpy(), n_resampled, axis=-1))
    values = interpolate(burst, one(0, dtype), one(2000 / n_resampled, dtype), n_resampled)
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-4)


def test_long_windows_are_accurate_to_the_end():
    n_samples, step = 200_000, 1 - 2**-6
    values = interpolate(tone(900, n_samples), one(0), one(step), n_samples)
    expected = np.sin(2 * np.pi * 900 / RATE_HZ * step * np.arange(n_samples) + 0.3)
    assert np.abs(values[0, 0].numpy() - expected)[1000:-1000].max() < 1e-3


def test_read_at_equal_steps_matches_interpolate():
    signals = torch.randn(2, 3, 301, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start, step = torch.tensor([-400.7, 2.3], dtype=torch.float64), torch.tensor([1.2, 0.9], dtype=torch.float64)
    positions = start[:, None] + step[:, None] * torch.arange(900)
    expected = interpolate(signals, start, step, 900)
    # rounding decides from which side the kernel is evaluated at grid points, which are accurate to 0.01 %
    torch.testing.assert_close(read_at(signals, positions, step), expected, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_gpu_matches_cpu():
    signals = torch.randn(4, 2, 2000, generator=torch.Generator().manual_seed(1))
    quarter = torch.tensor([0.25, 0.5, 0.75, 1.0])
    on_gpu = interpolate(signals.cuda(), quarter.cuda(), 1 + 0.03 * quarter.cuda(), 2000).cpu()
    torch.testing.assert_close(on_gpu, interpolate(signals, quarter, 1 + 0.03 * quarter, 2000), atol=1e-4, rtol=1e-3)
