import numpy as np
import pytest
import scipy.integrate
import scipy.ndimage
import scipy.signal
import torch

from whirl.dsp.time_frequency import TimeFrequency
from whirl.dsp.wigner import wigner_ville

NOISE = np.random.default_rng(0).normal(size=128)


def as_batch(signal: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(signal)[None, None]


def hann(length: int) -> np.ndarray:
    return scipy.signal.windows.hann(length + 2)[1:-1]


@pytest.fixture
def cohen(monkeypatch):
    """Return the module of tftb 0.1.4, which needs two functions under names that SciPy has removed."""
    monkeypatch.setattr(scipy.integrate, "trapz", scipy.integrate.trapezoid, raising=False)
    monkeypatch.setattr(scipy.signal, "hamming", scipy.signal.windows.hamming, raising=False)
    return pytest.importorskip("tftb.processing.cohen")


def test_distribution_matches_tftb(cohen):
    expected, _, frequencies = cohen.WignerVilleDistribution(scipy.signal.hilbert(NOISE)).run()
    ours = wigner_ville(as_batch(NOISE), 1.0, 128)[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-11)
    np.testing.assert_allclose(frequencies, np.arange(128) / 256)  # as documented


def test_pseudo_distribution_matches_tftb(cohen):
    expected, *_ = cohen.PseudoWignerVilleDistribution(scipy.signal.hilbert(NOISE), fwindow=hann(33)).run()
    ours = wigner_ville(as_batch(NOISE), 1.0, 128, torch.from_numpy(hann(33)))[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-11)


def test_smoothing_in_time_is_convolution_of_columns(cohen):
    """The smoothed distribution of tftb is shifted by one lag, so its pseudo distribution is smoothed here."""
    pseudo, *_ = cohen.PseudoWignerVilleDistribution(scipy.signal.hilbert(NOISE), fwindow=hann(33)).run()
    expected = scipy.ndimage.convolve1d(pseudo, hann(9), axis=1, mode="constant")
    ours = wigner_ville(as_batch(NOISE), 1.0, 128, torch.from_numpy(hann(33)), torch.from_numpy(hann(9)))
    np.testing.assert_allclose(ours[0, 0].numpy(), expected, atol=1e-11)


def test_marginals_are_instantaneous_power_and_energy_spectrum():
    time = np.arange(256)
    pulse, second = (np.exp(-((time - at) ** 2) / (2 * 15**2)) for at in (90, 160))
    pulse = pulse * np.cos(0.4 * np.pi * time + 1e-3 * time**2) + second * np.cos(0.6 * np.pi * time)
    z = scipy.signal.hilbert(pulse)
    distribution = wigner_ville(as_batch(pulse), 1.0, 256)[0, 0].numpy()
    np.testing.assert_allclose(distribution.sum(0) / 256, np.abs(z) ** 2, atol=1e-12)
    np.testing.assert_allclose(2 * distribution.sum(1), np.abs(np.fft.fft(z, 512)[:256]) ** 2, atol=1e-3)
    assert (distribution < -1e-3).any()  # unlike a density


def test_smoothing_removes_cross_terms_of_two_tones():
    time = np.arange(512)
    signal = as_batch(np.cos(2 * np.pi * 0.125 * time) + np.cos(2 * np.pi * 0.375 * time))
    h, g = (torch.from_numpy(hann(n) / hann(n).sum()) for n in (31, 21))
    plain = wigner_ville(signal, 1.0, 64, h)[0, 0, :, 100:-100]
    smooth = wigner_ville(signal, 1.0, 64, h, g)[0, 0, :, 100:-100]
    assert plain[32].abs().max() > 1.9  # midway, twice the amplitude of the tones
    assert smooth[32].abs().max() < 0.01
    torch.testing.assert_close(smooth[[16, 48]], torch.ones_like(smooth[[16, 48]]), atol=0.01, rtol=0)


@pytest.mark.parametrize("first", [0, 3, 20])
def test_hop_selects_columns_of_full_map(first):
    h, g = torch.from_numpy(hann(31)), torch.from_numpy(hann(9))
    full = wigner_ville(as_batch(NOISE), 1.0, 64, h, g)
    torch.testing.assert_close(wigner_ville(as_batch(NOISE), 1.0, 64, h, g, hop=7, first=first), full[..., first::7])


def test_gradients():
    h, g = torch.from_numpy(hann(7)), torch.from_numpy(hann(3))
    signals = as_batch(NOISE[:20]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: wigner_ville(x, 1.0, 8, h, g, hop=2), signals)


def test_rejects_windows_of_wrong_length():
    with pytest.raises(ValueError, match="lag_window has shape"):
        wigner_ville(as_batch(NOISE), 1.0, 16, torch.ones(17))
    with pytest.raises(ValueError, match="time_window has 4"):
        wigner_ville(as_batch(NOISE), 1.0, 16, None, torch.ones(4))


def test_rejects_row_spacing_that_needs_too_many_lags():
    narrow = TimeFrequency("wvd", 51_200, frequency_range=(0, 200))
    with pytest.raises(ValueError, match=r"need \d+ lags"):
        narrow(torch.randn(1, 1, 8192))
