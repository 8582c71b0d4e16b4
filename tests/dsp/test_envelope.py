"""Envelopes and spectra compared with SciPy and closed forms, and their invariances."""

import numpy as np
import pytest
import scipy.signal
import torch

from whirl.dsp.envelope import amplitude_spectrum, analytic, envelope_spectrum, squared_envelope

FS = 8192.0
SIGNALS = torch.randn(2, 3, 2048, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n", [2048, 2047])
def test_analytic_signal_matches_scipy(n):
    ours = analytic(SIGNALS[..., :n])
    np.testing.assert_allclose(ours, scipy.signal.hilbert(SIGNALS[..., :n].numpy()), atol=1e-12)


@pytest.mark.parametrize("n", [2048, 2047])
def test_envelope_of_full_band_matches_scipy_hilbert_of_mirrored_signal(n):
    mirrored = torch.cat((SIGNALS[..., :n], SIGNALS[..., :n].flip(-1)), -1)
    # SciPy does not double bin 0 as we do, so the mean is removed; the Nyquist bin of a mirrored signal is empty
    mirrored = mirrored - mirrored.mean(-1, keepdim=True)
    expected = np.abs(scipy.signal.hilbert(mirrored.numpy())[..., :n]) ** 2
    ours = squared_envelope(mirrored[..., :n], FS, (0, FS / 2))
    np.testing.assert_allclose(ours, expected / expected.mean(-1, keepdims=True), atol=1e-9)


def test_band_is_selected_in_the_spectrum():
    low_hz, high_hz = 700.0, 1500.0
    spectrum = np.fft.fft(np.concatenate((SIGNALS, SIGNALS.flip(-1)), -1))
    bins_hz = np.fft.fftfreq(4096, 1 / FS)
    spectrum[..., (bins_hz < low_hz) | (bins_hz > high_hz)] = 0
    power = np.abs(np.fft.ifft(spectrum)[..., :2048]) ** 2
    ours = squared_envelope(SIGNALS, FS, (low_hz, high_hz))
    np.testing.assert_allclose(ours, power / power.mean(-1, keepdims=True), rtol=1e-9, atol=1e-12)


def test_envelope_has_mean_one_and_is_invariant_to_gain_and_offset():
    envelope = squared_envelope(SIGNALS, FS, (500, 2000))
    np.testing.assert_allclose(envelope.mean(-1), 1)
    np.testing.assert_allclose(squared_envelope(-7 * SIGNALS + 3, FS, (500, 2000)), envelope, atol=1e-9)


def test_envelope_of_zero_signal_is_zero():
    assert not squared_envelope(torch.zeros(1, 1, 64), FS, (500, 2000)).any()


@pytest.mark.parametrize("band_hz", [(-1, 100), (200, 200), (100, FS)])
def test_rejects_invalid_band(band_hz):
    with pytest.raises(ValueError, match="band_hz is"):
        squared_envelope(torch.zeros(1, 1, 64), FS, band_hz)


@pytest.mark.parametrize("resolution_hz", [None, 16.0])
def test_envelope_spectrum_shows_modulation_depth(resolution_hz):
    time_s = torch.arange(8192, dtype=torch.float64) / FS
    modulation = 1 + 0.4 * torch.cos(2 * torch.pi * 64 * time_s)
    signal = modulation.sqrt() * torch.sin(2 * torch.pi * 2000 * time_s)
    amplitude, frequencies_hz = envelope_spectrum(signal[None, None], FS, (1000, 3000), resolution_hz)
    assert frequencies_hz[amplitude.argmax()] == 64
    assert amplitude.max().item() == pytest.approx(0.4, rel=2e-3)


@pytest.mark.parametrize("resolution", [None, 30.0])
def test_gradients_of_spectrum(resolution):
    values = SIGNALS[0, :2, :48].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda signal: amplitude_spectrum(signal, 100.0, resolution)[0], values)
    zeros = torch.zeros(16, requires_grad=True)  # a root of an empty bin would have a NaN gradient
    assert not torch.autograd.grad(amplitude_spectrum(zeros, 1.0)[0].sum(), zeros)[0].any()
