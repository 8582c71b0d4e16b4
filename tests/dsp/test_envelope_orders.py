"""Spectra of envelopes over orders and their noise floor."""

import numpy as np
import scipy.ndimage
import torch

from whirl.dsp.envelope_orders import above_floor, modulation_power, running_median, whole_orders


def test_power_of_a_sinusoid_is_its_squared_amplitude():
    angle = 2 * torch.pi * torch.arange(1000, dtype=torch.float64) / 1000
    power = modulation_power(0.3 * torch.cos(20 * angle) + 0.1 * torch.sin(50 * angle))
    torch.testing.assert_close(power[[20, 50]], torch.tensor([0.09, 0.01], dtype=torch.float64))
    assert power[35] < 1e-20


def test_noise_has_power_6_over_n():
    """White noise of unit variance behind a Hann window: 16 (3/8) N / N^2."""
    noise = torch.randn(400, 1000, generator=torch.Generator().manual_seed(0))
    assert abs(modulation_power(noise)[:, 5:-5].mean() * 1000 / 6 - 1) < 0.02


def test_running_median_is_that_of_scipy():
    values = torch.rand(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = scipy.ndimage.median_filter(values.numpy(), size=(1, 21), mode="mirror")
    np.testing.assert_allclose(running_median(values, 10), expected)


def test_levels_do_not_depend_on_gain():
    power = torch.rand(400, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(above_floor(1e6 * power, 40)[0], above_floor(power, 40)[0], atol=1e-4, rtol=1e-4)


def test_harmonics_of_the_shaft_are_blanked_at_any_resolution():
    for turns in (12.0, 40.0, 40.03):
        n_bins = int(30 * turns)
        order = torch.arange(n_bins) / turns
        blanked = whole_orders(n_bins, turns)
        assert blanked[(order - order.round()).abs() < 1.4 / turns].all()
        assert not blanked[(order - order.round()).abs() > 1.6 / turns].any()


def test_a_line_does_not_raise_its_own_noise_floor():
    power = torch.ones(400)
    power[99:102] = torch.tensor([1e3, 1e4, 1e3])
    level_db, excess = above_floor(power, 40)
    torch.testing.assert_close(level_db[97:104], torch.tensor([0.0, 0.0, 30.0, 40.0, 30.0, 0.0, 0.0]))
    assert excess[100] == 9999


def test_zero_signal_has_no_level():
    level_db, excess = above_floor(torch.zeros(100), 10)
    assert level_db.abs().max() == 0
    assert excess.max() == 0
