"""Levels at orders of the shaft, in batches."""

import numpy as np
import pytest
import torch

from whirl.physics.order_levels import N_OCTAVES, SHAFT_LINES, level_names, relative_order_levels

RATE_HZ, N = 10_000, 8000


def signals(rpm, n_channels=1, seed=0):
    """Lines at 1X and 2X in white noise, `[B, C, N]`."""
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * torch.pi * torch.tensor(rpm)[:, None, None] / 60 * torch.arange(N) / RATE_HZ
    shaft = torch.sin(phase) + 0.5 * torch.sin(2 * phase)
    return shaft + 0.1 * torch.randn(len(rpm), n_channels, N, generator=generator)


def levels_one_by_one(signal, rpm):
    """The definition, written with NumPy for one channel."""
    power = np.abs(np.fft.rfft((signal - signal.mean()) * np.hanning(N))) ** 2
    bins = np.arange(len(power))
    per_order = rpm / 60 * N / RATE_HZ
    bands = [(bins >= low * per_order - 1.1) & (bins <= high * per_order + 1.1) for low, high in SHAFT_LINES.values()]
    bands += [(bins > N / 2 / 2 ** (octave + 1)) & (bins <= N / 2 / 2**octave) for octave in range(N_OCTAVES)]
    return [10 * np.log10(power[band].sum() / power.sum() + 1e-7) for band in bands]


def test_levels_match_the_definition():
    rpm = [600.0, 1500.0, 5900.0]
    found = relative_order_levels(signals(rpm).double(), torch.tensor(rpm), RATE_HZ)
    expected = [
        levels_one_by_one(signal[0].double().numpy(), speed) for signal, speed in zip(signals(rpm), rpm, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-8)


def test_single_precision_suffices():
    rpm = [900.0, 3000.0]
    single = relative_order_levels(signals(rpm), torch.tensor(rpm), RATE_HZ)
    double = relative_order_levels(signals(rpm).double(), torch.tensor(rpm), RATE_HZ)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=0.01)


@pytest.mark.parametrize("change", [lambda x: 1000 * x, lambda x: -x, lambda x: x + 5], ids=["gain", "sign", "offset"])
def test_levels_do_not_depend_on_gain_sign_and_offset(change):
    rpm = torch.tensor([1500.0])
    plain = relative_order_levels(signals([1500.0]), rpm, RATE_HZ)
    torch.testing.assert_close(relative_order_levels(change(signals([1500.0])), rpm, RATE_HZ), plain, rtol=0, atol=0.02)


def test_a_row_of_unknown_speed_is_nan_and_changes_no_other_row():
    rpm = torch.tensor([1500.0, torch.nan])
    both = relative_order_levels(signals([1500.0, 1500.0]), rpm, RATE_HZ)
    assert both[1].isnan().all()
    torch.testing.assert_close(both[:1], relative_order_levels(signals([1500.0, 1500.0])[:1], rpm[:1], RATE_HZ))


def test_channels_have_names_and_shares():
    found = relative_order_levels(signals([1500.0], 3), torch.tensor([1500.0]), RATE_HZ)
    assert found.shape[1] == len(level_names(3)) == len(set(level_names(3))) == 63
    torch.testing.assert_close(found[0, -3:], torch.full((3,), -4.77), rtol=0, atol=0.1)


def test_a_silent_window_has_finite_levels():
    assert relative_order_levels(torch.zeros(1, 2, N), torch.tensor([1500.0]), RATE_HZ).isfinite().all()
