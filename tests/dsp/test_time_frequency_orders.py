import numpy as np
import pytest
import torch

from whirl.dsp.interpolation import read_at
from whirl.dsp.shaft_angle import (
    order_spectrum,
    samples_at,
    turns_from_speed,
    turns_from_tachometer,
)
from whirl.dsp.time_frequency import TimeFrequency

RATE_HZ = 5000
TIME_S = torch.arange(4 * RATE_HZ + 1, dtype=torch.float64) / RATE_HZ
RPM = 600 + 600 * TIME_S[None]  # 600 to 3000 rev/min in four seconds
TURNS = 10 * TIME_S[None] + 5 * TIME_S[None] ** 2
ORDERS = {1.0: 1.0, 2.37: 0.8, 5.415: 0.6}


def run_up(turns: torch.Tensor) -> torch.Tensor:
    return sum(height * torch.cos(2 * torch.pi * order * turns + order) for order, height in ORDERS.items())[:, None]


def test_turns_from_speed_is_integral_of_speed():
    torch.testing.assert_close(turns_from_speed(RPM, RATE_HZ), TURNS, atol=1e-8, rtol=0)
    torch.testing.assert_close(turns_from_speed(torch.tensor([1200.0]), 20, 3), torch.tensor([[0, 1, 2.0]]).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_run_up_has_lines_at_constant_orders(dtype):
    amplitude, orders = order_spectrum(run_up(TURNS).to(dtype), turns_from_speed(RPM, RATE_HZ), max_order=8)
    for order, height in ORDERS.items():
        near = (orders - order).abs() < 0.3
        found = orders[near][amplitude[0, 0, near].argmax()].item()
        assert found == pytest.approx(order, rel=0.005)
        assert amplitude[0, 0, near].max().item() == pytest.approx(height, rel=0.15)  # between two bins
    away = torch.stack([(orders - order).abs() > 0.1 for order in ORDERS]).all(0)
    assert amplitude[0, 0, away].max() < 0.01
    hz = torch.fft.rfft(run_up(TURNS)[0, 0] * torch.hann_window(TURNS.shape[1])).abs()
    assert hz.max() * 4 / TURNS.shape[1] < 0.2  # in the spectrum over time the lines are smeared


def test_tachometer_gives_same_orders():
    """Four noisy pulses per revolution, sampled like the vibration."""
    noise = 0.05 * np.random.default_rng(0).normal(size=TURNS.shape[1])
    pulses = (torch.sin(2 * torch.pi * 4 * TURNS) > 0.3).double() + torch.from_numpy(noise)
    turns = turns_from_tachometer(pulses, pulses_per_turn=4)
    error = turns - TURNS
    assert (error - error.median()).abs()[0, 500:-500].max() < 0.01
    amplitude, orders = order_spectrum(run_up(TURNS), turns, max_order=8)
    assert orders[amplitude[0, 0].argmax()].item() == pytest.approx(1.0, rel=0.005)
    high = orders > 4
    assert orders[high][amplitude[0, 0, high].argmax()].item() == pytest.approx(5.415, rel=0.005)


def test_high_frequency_is_not_aliased_into_orders_at_low_speed():
    disturbance = torch.cos(2 * torch.pi * 2400 * TIME_S)[None, None]  # Hz: orders 48 to 240
    amplitude, _ = order_spectrum(disturbance, TURNS, max_order=20)
    assert amplitude.max() < 1e-3


def test_samples_at_inverts_turns_and_mirrors_at_ends():
    angles = torch.tensor([[-1.0, 0.0, 1.0, TURNS[0, 777], TURNS[0, -1] + 1]], dtype=torch.float64)
    at = samples_at(TURNS, angles)[0]
    assert at[0] == at[2]
    assert at[1] == 0
    assert at[3].item() == pytest.approx(777, abs=1e-9)
    assert at[4].item() == pytest.approx(samples_at(TURNS, 2 * TURNS[:, -1:] - angles[:, 4:]).item())


def test_read_at_interpolates_between_samples():
    positions = torch.tensor([[1000.25, 3333.5, 12.0]], dtype=torch.float64)
    signal = torch.cos(0.7 * torch.arange(5000, dtype=torch.float64))[None, None]
    read = read_at(signal, positions, torch.tensor([0.9]))
    torch.testing.assert_close(read[0, 0, :2], torch.cos(0.7 * positions[0, :2]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("profile", [False, True], ids=["constant", "run-up"])
def test_order_map_has_horizontal_lines_at_any_speed(profile):
    rpm = torch.tensor([1200.0, 1700.0, 2900.0])
    if profile:
        rpm = rpm[:, None] * torch.linspace(0.7, 1.3, 8192)
        turns = turns_from_speed(rpm, RATE_HZ)
    else:
        turns = turns_from_speed(rpm, RATE_HZ, 8192)
    signals = torch.cos(2 * torch.pi * 6.25 * turns).float()[:, None]
    representation = TimeFrequency("order", RATE_HZ, 64, 32, scale="magnitude", standardize=False)
    maps = representation(signals, {"rpm": rpm})[:, 0]
    assert representation.frequencies[25] == 6.25
    inside = slice(4, -4)
    assert bool((maps.argmax(1)[:, inside] == 25).all())
    torch.testing.assert_close(maps[:, 25, inside], torch.ones(3, 24), atol=0.02, rtol=0)
    away = maps[:, :, inside].clone()
    away[:, 23:28] = 0
    assert away.max() < 0.02


def test_order_map_of_band_shows_orders_of_envelope():
    turns = turns_from_speed(torch.tensor([1800.0]), RATE_HZ, 8192)
    modulation = (1 + 0.8 * torch.cos(2 * torch.pi * 5 * turns)).sqrt()
    carrier = torch.sin(2 * torch.pi * 1700 * TIME_S[:8192])
    representation = TimeFrequency("order", RATE_HZ, 64, 8, band_hz=(1200, 2200), scale="magnitude", standardize=False)
    maps = representation((modulation * carrier)[:, None].float(), {"rpm": torch.tensor([1800.0])})
    assert representation.frequencies[maps[0, 0].mean(1).argmax()] == 5
    assert maps[0, 0, 20, 4].item() == pytest.approx(0.8, abs=0.02)


def test_rejects_invalid_angles_and_pulses():
    with pytest.raises(ValueError, match="0 pulses"):
        turns_from_tachometer(torch.zeros(1, 100))
    with pytest.raises(ValueError, match="do not increase"):
        order_spectrum(torch.ones(1, 1, 4), torch.tensor([[0.0, 1, 1, 2]]), max_order=2)
    with pytest.raises(ValueError, match=r"0\.5 turns"):
        order_spectrum(torch.ones(1, 1, 3), torch.tensor([[0.0, 0.2, 0.5]]), max_order=2)
    with pytest.raises(ValueError, match="turns have shape"):
        order_spectrum(torch.ones(1, 1, 4), torch.zeros(1, 3), max_order=2)
