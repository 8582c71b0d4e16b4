"""Limits of isolated knocks."""

import pytest
import torch

from whirl.physics.knocks import limit_knocks

NOISE = torch.randn(4, 6000, generator=torch.Generator().manual_seed(0))


def test_limits_a_knock_and_leaves_noise_and_repeated_impacts_alone():
    noise = NOISE.square()
    torch.testing.assert_close(limit_knocks(noise), noise)
    impacts = torch.zeros(4000)
    impacts[::100] = torch.rand(40, generator=torch.Generator().manual_seed(1)) + 0.5
    torch.testing.assert_close(limit_knocks(impacts), impacts)
    knocked = impacts.clone()
    knocked[2050] = 1e4
    limited = limit_knocks(knocked)
    assert 4 < limited[2050] < 4 * 1.5
    torch.testing.assert_close(limited[:2050], impacts[:2050])


@pytest.mark.parametrize("n_samples", [1, 3, 15])
def test_limits_short_envelopes(n_samples):
    power = torch.ones(2, n_samples)
    torch.testing.assert_close(limit_knocks(power), power)
