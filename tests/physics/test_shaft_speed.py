import pytest
import torch

from whirl.physics.shaft_speed import estimate_rpm, estimate_speed

RATE_HZ, N = 10_000, 20_000
RPM = torch.tensor([1234.0, 1500.0, 1980.0, 2300.0])


@pytest.fixture(scope="module")
def signals():
    """Four harmonics with decreasing amplitude in noise with twice the power of the first."""
    generator = torch.Generator().manual_seed(0)
    phase = 2 * torch.pi * RPM[:, None] / 60 * torch.arange(N) / RATE_HZ
    shaft = sum(torch.sin(h * phase) / h for h in (1, 2, 3, 4))
    return shaft + torch.randn(len(RPM), N, generator=generator)


def test_estimates_speed_within_quarter_bin(signals):
    bin_rpm = 60 * RATE_HZ / N
    assert (estimate_rpm(signals, RATE_HZ, (1200, 2350)) - RPM).abs().max() < bin_rpm / 4  # a bin of 4X


def test_evaluates_channels_jointly(signals):
    noise = 1000 * torch.randn(signals.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        estimate_rpm(signals[:, None], RATE_HZ, (1200, 2350)), estimate_rpm(signals, RATE_HZ, (1200, 2350))
    )
    assert (estimate_rpm(torch.stack([signals, noise], 1), RATE_HZ, (1200, 2350)) / RPM - 1).abs().max() < 0.01


def test_confidence_is_high_for_harmonics_and_low_for_noise(signals):
    noise = torch.randn(20, N, generator=torch.Generator().manual_seed(2))
    assert estimate_speed(signals, RATE_HZ, (1200, 2350)).confidence.min() > 0.6
    assert estimate_speed(noise, RATE_HZ, (1200, 2350)).confidence.max() < 0.3


def test_confidence_is_divided_between_two_shafts():
    """Two shafts with equally strong harmonics: neither speed is clear."""
    time_s = torch.arange(N) / RATE_HZ
    both = sum(torch.sin(2 * torch.pi * h * rate_hz * time_s) for rate_hz in (25.0, 33.5) for h in (1, 2, 3, 4, 5))
    noise = torch.randn(N, generator=torch.Generator().manual_seed(3))
    rpm, confidence = estimate_speed((both + noise)[None], RATE_HZ, (1200, 2350))
    assert min(abs(rpm - 1500), abs(rpm - 2010)) < 5
    assert confidence < 0.9


@pytest.mark.parametrize("change", [lambda x: 7 * x, lambda x: -x, lambda x: x + 3], ids=["gain", "sign", "offset"])
def test_is_invariant_to_gain_sign_and_offset(signals, change):
    expected = estimate_rpm(signals, RATE_HZ, (1200, 2350))
    assert torch.equal(estimate_rpm(change(signals), RATE_HZ, (1200, 2350)), expected)


@pytest.mark.parametrize("rpm_range", [(3000, 1000), (0, 1000), (1000, 70_000)])
def test_rejects_invalid_range(signals, rpm_range):
    with pytest.raises(ValueError, match="rpm_range"):
        estimate_rpm(signals, RATE_HZ, rpm_range)
