"""Cepstrum pre-whitening and the envelope of a whitened band."""

import numpy as np
import pytest
import torch

from whirl.dsp.prewhitening import prewhiten, prewhitened_envelope

NOISE = torch.randn(4, 6000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def spectrum_of(signals):
    return torch.fft.rfft(signals - signals.mean(-1, keepdim=True))


def test_equals_zeroing_the_cepstrum():
    """Borghesani et al. 2013: the real cepstrum is zero everywhere, the phase is kept."""
    spectrum = torch.fft.fft(NOISE)
    cepstrum = torch.fft.ifft(spectrum.abs().log())
    whitened = torch.exp(torch.fft.fft(torch.zeros_like(cepstrum)) + 1j * spectrum.angle())
    torch.testing.assert_close(prewhiten(spectrum), whitened)


def test_removes_gain_and_any_filter_of_zero_phase():
    spectrum = spectrum_of(NOISE)
    filtered = spectrum * torch.linspace(0.01, 100, spectrum.shape[-1])
    torch.testing.assert_close(prewhiten(7 * filtered)[..., 1:], prewhiten(spectrum)[..., 1:])  # bin 0 is the mean: 0


def test_zero_spectrum_stays_zero():
    assert prewhiten(torch.zeros(8, dtype=torch.complex64)).abs().max() == 0


def test_envelope_equals_the_one_at_full_rate():
    """The envelope has fewer samples than the signal, enough for the requested modulation frequencies."""
    spectrum = spectrum_of(NOISE)
    e = prewhitened_envelope(spectrum, resolution_hz=2, band_hz=(480, 5760), max_modulation_hz=1200)
    keep = torch.zeros(spectrum.shape[-1], dtype=torch.float64)
    keep[240:2881] = 1
    power = torch.fft.ifft(prewhiten(spectrum) * keep, 6000).abs().square()
    expected = torch.fft.rfft(power / power.mean(-1, keepdim=True) - 1)[..., :600] / 6000
    torch.testing.assert_close(torch.fft.rfft(e)[..., :600] / e.shape[-1], expected)


def test_content_outside_the_band_has_no_effect():
    """A tone above the band, at the Nyquist frequency of another sampling rate, has no effect."""
    time_s = torch.arange(6000, dtype=torch.float64) / 12_000
    tone = 1000 * torch.sin(2 * np.pi * 5000 * time_s)
    arguments = (2.0, (400.0, 4000.0), 500.0)
    torch.testing.assert_close(
        prewhitened_envelope(spectrum_of(NOISE + tone), *arguments),
        prewhitened_envelope(spectrum_of(NOISE), *arguments),
    )


def test_gradients_flow():
    signals = NOISE[:1, :512].clone().requires_grad_()
    prewhitened_envelope(spectrum_of(signals), 1, (20, 200), 50).square().sum().backward()
    assert signals.grad.isfinite().all()
    assert signals.grad.abs().sum() > 0


def test_rejects_a_band_out_of_range_or_too_narrow():
    spectrum = spectrum_of(NOISE)
    with pytest.raises(ValueError, match="band_hz is"):
        prewhitened_envelope(spectrum, 2, (100, 7000), 100)
    with pytest.raises(ValueError, match="narrower than two bins of 2 Hz"):
        prewhitened_envelope(spectrum, 2, (100, 101), 100)
