"""Speeds that vary within a recording, estimated from the harmonics of the shaft."""

import numpy as np
import pytest
import torch

from whirl.dsp.shaft_angle import at_constant_speed, turns_from_speed
from whirl.dsp.speed_track import MIN_SEGMENTS, SEGMENT_TURNS, track_speed

RATE_HZ, DURATION_S, RPM = 6000, 10, 1800
TIME_S = np.arange(RATE_HZ * DURATION_S) / RATE_HZ


def shaft(speed_rpm, seed=0):
    """Five harmonics in noise with twice the power of each, `[1, N]`."""
    turns = turns_from_speed(torch.from_numpy(speed_rpm)[None], RATE_HZ)[0].numpy()
    lines = sum(np.sin(2 * np.pi * harmonic * turns + harmonic) for harmonic in range(1, 6))
    return torch.from_numpy(lines + np.random.default_rng(seed).normal(size=len(turns)))[None]


SPEEDS = {
    "steady": RPM + 0 * TIME_S,
    "rising": RPM * (1 + 0.1 * (TIME_S / DURATION_S - 0.5)),
    "falling": RPM * (1 - 0.2 * (TIME_S / DURATION_S - 0.5)),
    "up and down": RPM * (1 + 0.04 * np.sin(2 * np.pi * TIME_S / 8)),
}


@pytest.mark.parametrize("name", SPEEDS)
def test_follows_speed_within_half_a_percent(name):
    track = track_speed(shaft(SPEEDS[name]), RATE_HZ, RPM)
    assert track is not None
    assert track.confidence > 0.9
    expected = np.interp(track.time_s, TIME_S, SPEEDS[name])
    assert np.abs(track.rpm / expected - 1).max() < 0.005
    assert track.variation == pytest.approx(np.ptp(expected) / RPM, abs=0.008)


def test_angle_is_that_of_the_shaft():
    track = track_speed(shaft(SPEEDS["rising"]), RATE_HZ, RPM)
    assert track is not None
    expected = turns_from_speed(torch.from_numpy(SPEEDS["rising"])[None], RATE_HZ)
    assert (track.turns(len(TIME_S), RATE_HZ) - expected).abs().max() < 0.15  # of 300


def test_is_the_same_for_other_gains_and_higher_sampling_rates():
    signal = shaft(SPEEDS["rising"])
    expected = track_speed(signal, RATE_HZ, RPM)
    scaled = track_speed(-1000 * signal + 5, RATE_HZ, RPM)
    faster = track_speed(signal.repeat_interleave(4, 1), 4 * RATE_HZ, RPM)
    assert expected is not None
    assert scaled is not None
    assert faster is not None
    np.testing.assert_allclose(scaled.rpm, expected.rpm, rtol=2e-3)
    np.testing.assert_allclose(faster.rpm, expected.rpm, rtol=5e-3)


def test_evaluates_channels_jointly():
    signal = shaft(SPEEDS["rising"])
    noise = torch.randn(signal.shape, generator=torch.Generator().manual_seed(1))
    both = track_speed(torch.cat([1000 * noise, signal]), RATE_HZ, RPM)
    assert both is not None
    np.testing.assert_allclose(both.rpm, np.interp(both.time_s, TIME_S, SPEEDS["rising"]), rtol=0.005)


def test_noise_has_no_clear_speed():
    noise = torch.randn(20, len(TIME_S), generator=torch.Generator().manual_seed(0))
    for each in noise:
        track = track_speed(each[None], RATE_HZ, RPM)
        assert track is not None
        assert track.confidence < 0.8


def test_short_and_slowly_sampled_signals_have_no_track():
    enough = round((1 + (MIN_SEGMENTS - 1) / 2) * SEGMENT_TURNS * 60 / RPM * RATE_HZ)
    signal = shaft(SPEEDS["steady"])
    assert track_speed(signal[:, : enough + 50], RATE_HZ, RPM) is not None
    assert track_speed(signal[:, : enough - 50], RATE_HZ, RPM) is None
    assert track_speed(signal, 300, RPM) is None  # the fifth harmonic is at 150 Hz
    with pytest.raises(ValueError, match="rpm is 0"):
        track_speed(signal, RATE_HZ, 0)


def test_constant_speed_is_the_same_in_blocks_and_at_once():
    """A tone of an order has one frequency, also across the blocks in which it is interpolated."""
    rate_hz = 100_000
    time_s = torch.arange(600_000, dtype=torch.float64) / rate_hz
    turns = turns_from_speed(RPM * (1 + 0.02 * (time_s[None] - 3)), rate_hz)
    tone = torch.sin(2 * torch.pi * 100 * turns).float()
    steady, rpm = at_constant_speed(tone, turns, rate_hz)
    assert rpm == pytest.approx(RPM, rel=1e-6)
    expected = torch.sin(2 * torch.pi * 100 * rpm / 60 * time_s)
    assert (steady[0] - expected)[200:-200].abs().max() < 2e-3


def test_steady_signals_are_returned_as_they_are():
    noise = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal = torch.fft.irfft(torch.fft.rfft(noise) * (torch.arange(2501) < 2000), 5000)  # up to 0.8 of half the rate
    steady, rpm = at_constant_speed(signal, turns_from_speed(torch.tensor([1500.0]), 1000, 5000), 1000)
    assert rpm == pytest.approx(1500)
    assert (steady - signal)[:, 100:-100].abs().max() < 2e-3
