import math

import numpy as np
import pytest
import scipy.signal as scipy_signal
import torch

from whirl.dsp.angular import to_orders

RATE_HZ = 2048.0
SPEEDS = [600.0, 1013.0, 1800.0, 3600.0, 5999.0]


def line(order: float, rpm: float, n_samples: int = 8192, phase: float = 0.3) -> torch.Tensor:
    """Return a sine of constant order, `[1, 1, N]`."""
    turns = rpm / 60 * np.arange(n_samples) / RATE_HZ
    return torch.from_numpy(np.sin(2 * np.pi * order * turns + phase)).float()[None, None]


def batch(order: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([line(order, rpm) for rpm in SPEEDS]), torch.tensor(SPEEDS)


def spectrum(signals: torch.Tensor) -> np.ndarray:
    """Compute amplitudes with a window whose side lobes are 110 dB down."""
    window = np.kaiser(signals.shape[-1], 14)
    return 2 * np.abs(np.fft.rfft(signals.double().numpy() * window)) / window.sum()


def decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude)


@pytest.mark.parametrize("order", [0.45, 1.0, 3.58, 9.9])
def test_line_keeps_its_order_at_speeds_differing_by_factor_ten(order):
    signals, rpm = batch(order)
    n_samples_out = 2400  # 37.5 revolutions, the content of the slowest window
    over_angle = to_orders(signals, rpm, RATE_HZ, 64, n_samples_out)[:, 0]
    window = np.kaiser(n_samples_out, 14)
    amplitudes = np.abs(np.fft.rfft(over_angle.numpy() * window, 64 * n_samples_out))
    found = amplitudes.argmax(1) / n_samples_out  # order axis: 64 samples per revolution, zero-padded 64 times
    np.testing.assert_allclose(found, order, rtol=0.005)
    np.testing.assert_allclose(2 * amplitudes.max(1) / window.sum(), 1, rtol=1e-3)


@pytest.mark.parametrize("order", [0.45, 3.58, 9.9])
def test_equals_sinusoid_evaluated_at_angles(order):
    signals, rpm = batch(order)
    over_angle = to_orders(signals, rpm, RATE_HZ, 64, 2400)[:, 0]
    expected = np.sin(2 * np.pi * order * np.arange(2400) / 64 + 0.3)
    error = np.abs(over_angle.numpy() - expected)[:, 300:-300]
    assert error.max() < 2e-3


@pytest.mark.parametrize("samples_per_revolution", [100, 64, 57])
def test_agrees_with_scipy(samples_per_revolution):
    # 2000 samples are 25 revolutions; SciPy treats the window as one period, so the signal must vanish at its ends
    low_pass = scipy_signal.butter(12, 0.5, output="sos")  # 0.5 of half the input rate, <= 0.7 of half the output rate
    noise = scipy_signal.sosfiltfilt(low_pass, np.random.default_rng(0).normal(size=2000))
    burst = noise * np.kaiser(2000, 20)
    n_samples_out = 25 * samples_per_revolution
    expected = np.asarray(scipy_signal.resample(burst, n_samples_out))
    signals, rpm = torch.from_numpy(burst)[None, None], torch.tensor([1200.0])
    found = to_orders(signals, rpm, 1600, samples_per_revolution, n_samples_out)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=2e-4 * expected.std())


@pytest.mark.parametrize("order", [0.45, 3.58, 9.0])
def test_images_are_80_db_down(order):
    signals, rpm = batch(order)
    for row in spectrum(to_orders(signals, rpm, RATE_HZ, 64, 2400)[:, 0]):
        at = round(order * 2400 / 64)
        assert abs(row.argmax() - at) <= 1
        row[max(at - 9, 0) : at + 10] = 0
        assert decibels(row.max()) < -80


@pytest.mark.parametrize("order", [8.3, 9.0, 12.7, 16.0])
def test_orders_above_half_the_rate_are_removed_without_aliasing(order):
    signals, rpm = (each[:-1] for each in batch(order))  # at the highest speed the input itself is aliased
    over_angle = to_orders(signals, rpm, RATE_HZ, 16, 600)[:, 0]
    assert all(decibels(row.max()) < -60 for row in spectrum(over_angle))
    assert over_angle[:, 100:-100].abs().max() < 0.01


def test_signal_is_unchanged_at_reference_speed():
    signals = line(3, 1200)
    again = to_orders(signals, torch.tensor([1200.0]), RATE_HZ, 60 * RATE_HZ / 1200, 8192)
    torch.testing.assert_close(again, signals, atol=1e-3, rtol=0)


def test_samples_and_channels_are_independent():
    signals = torch.randn(3, 2, 1000, generator=torch.Generator().manual_seed(0))
    rpm = torch.tensor([900.0, torch.nan, 4000.0])
    together = to_orders(signals, rpm, RATE_HZ, 64, 700)
    assert together[1].isnan().all()
    for row in (0, 2):
        for channel in range(2):
            alone = to_orders(signals[row, channel][None, None], rpm[row : row + 1], RATE_HZ, 64, 700)
            torch.testing.assert_close(together[row, channel], alone[0, 0])
    torch.testing.assert_close(to_orders(-7 * signals, rpm, RATE_HZ, 64, 700), -7 * together, equal_nan=True)


def test_gradients():
    signals = torch.randn(3, 2, 24, dtype=torch.float64, requires_grad=True)
    rpm = torch.tensor([60.0, 100.0, torch.nan], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: to_orders(x, rpm, 20, 16, 30)[:2], signals)
    (gradient,) = torch.autograd.grad(to_orders(signals, rpm, 20, 16, 30)[:2].sum(), signals)
    assert (gradient[2] == 0).all()
    assert (gradient[:2] != 0).any(-1).all()


def test_half_precision_is_computed_in_float32():
    signals = line(3, 1800)
    rpm = torch.tensor([1800.0])
    half = to_orders(signals.bfloat16(), rpm, RATE_HZ, 64, 2000)
    assert half.dtype == torch.bfloat16
    expected = to_orders(signals.bfloat16().float(), rpm, RATE_HZ, 64, 2000).bfloat16()
    assert torch.equal(half, expected)


@pytest.mark.parametrize(
    ("rpm", "message"),
    [
        ([0.0], "rpm is 0, expected a finite number > 0"),
        ([-1200.0], "rpm is -1200, expected a finite number > 0"),
        ([math.inf], "rpm is inf, expected a finite number > 0"),
        ([60.0], "windows of 1000 samples are shorter than one revolution at 60 rpm: expected at least 2048 samples"),
        ([1200.0, 1200.0], r"rpm has shape \[2\], expected one speed per sample: \[1\]"),
    ],
)
def test_error_names_invalid_speed(rpm, message):
    with pytest.raises(ValueError, match=message):
        to_orders(torch.zeros(1, 1, 1000), torch.tensor(rpm), RATE_HZ, 64, 100)


def test_error_names_other_invalid_arguments():
    signals, rpm = torch.zeros(1, 1, 1000), torch.tensor([1200.0])
    with pytest.raises(TypeError, match=r"signals is a tensor of torch\.int64, expected a floating"):
        to_orders(signals.long(), rpm, RATE_HZ, 64, 100)
    with pytest.raises(ValueError, match=r"signals have shape \[1, 1000\], expected \[batch, channels, samples\]"):
        to_orders(signals[0], rpm, RATE_HZ, 64, 100)
    with pytest.raises(ValueError, match="sampling_rate_hz is 0, expected a finite number > 0"):
        to_orders(signals, rpm, 0, 64, 100)
    with pytest.raises(ValueError, match="samples_per_revolution is nan, expected a finite number > 0"):
        to_orders(signals, rpm, RATE_HZ, math.nan, 100)
    with pytest.raises(ValueError, match="n_samples_out is 0, expected an integer >= 1"):
        to_orders(signals, rpm, RATE_HZ, 64, 0)


@pytest.mark.gpu
def test_gpu_matches_cpu():
    signals, rpm = batch(3.58)
    on_gpu = to_orders(signals.cuda(), rpm.cuda(), RATE_HZ, 64, 2400).cpu()
    torch.testing.assert_close(on_gpu, to_orders(signals, rpm, RATE_HZ, 64, 2400), atol=1e-4, rtol=0)
    assert to_orders(signals.cuda(), 0 * rpm.cuda(), RATE_HZ, 64, 100).isnan().all()
