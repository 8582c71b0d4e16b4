"""Resizing compared with SciPy's Fourier resampling and with tones in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import resample as scipy_resample

from whirl.dsp.resizing import resize


def tone(cycles, n_samples, phase=0.3):
    return torch.sin(2 * torch.pi * cycles * torch.arange(n_samples, dtype=torch.float64) / n_samples + phase)


@pytest.mark.parametrize("n_in", [64, 65, 101, 200])
@pytest.mark.parametrize("n_out", [1, 2, 37, 64, 65, 128, 333])
def test_agrees_with_scipy(n_in, n_out):
    signals = torch.randn(3, 2, n_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = scipy_resample(signals.numpy(), n_out, axis=-1)
    np.testing.assert_allclose(resize(signals, n_out).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("n_in", "n_out"),
    [(102400, 25600), (102400, 51200), (102400, 76800), (102400, 33333), (2048, 512), (2048, 421), (1000, 2048)],
)
def test_tone_keeps_its_number_of_cycles(n_in, n_out):
    resized = resize(tone(200, n_in).float(), n_out)
    lines_db = 20 * torch.fft.rfft(resized).abs().log10()
    assert int(lines_db.argmax()) == 200
    others = torch.cat((lines_db[:200], lines_db[201:]))
    assert others.max() < lines_db[200] - 60
    torch.testing.assert_close(resized, tone(200, n_out).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("n_out", [25600, 33333, 51200])
def test_frequencies_above_new_nyquist_are_removed_without_aliasing(n_out):
    kept, removed = tone(200, 102400).float(), tone(round(0.6 * n_out), 102400).float()
    assert resize(removed, n_out).abs().max() < 1e-3
    torch.testing.assert_close(resize(kept + removed, n_out), resize(kept, n_out), atol=1e-3, rtol=0)


def test_tone_with_fractional_cycles_is_accurate_away_from_ends():
    n_out = 25600
    error = (resize(tone(200.37, 102400), n_out) - tone(200.37, n_out)).abs()
    assert error[100:-100].max() < 2e-3
    assert error.square().mean().sqrt() < 10 ** (-40 / 20)


def test_mean_rms_linearity_and_round_trip():
    signals = torch.randn(4, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    longer = resize(signals, 470)
    torch.testing.assert_close(longer.mean(-1), signals.mean(-1))
    torch.testing.assert_close(resize(longer, 300), signals)
    torch.testing.assert_close(
        resize(3 * signals[0] - signals[1], 77), 3 * resize(signals, 77)[0] - resize(signals, 77)[1]
    )
    assert resize(signals, 300) is signals
    rms = math.sqrt(0.5)
    assert resize(tone(20, 300), 77).square().mean().sqrt().item() == pytest.approx(rms)


def test_gradients():
    signals = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, 6), signals)
