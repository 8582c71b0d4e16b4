import warnings

import numpy as np
import pytest
import pywt
import torch

from whirl.dsp.wavelets import _plan, cwt, cwt_power, geometric_frequencies

RATE_HZ = 2048.0
FREQUENCIES_HZ = geometric_frequencies(20, 800, 64)
SCALE_STEP = FREQUENCIES_HZ[1] / FREQUENCIES_HZ[0]
TIME_S = np.arange(4096) / RATE_HZ
CHIRP_HZ = 60 * (500 / 60) ** (TIME_S / TIME_S[-1])  # 60 to 500 Hz in two seconds, exponential
CHIRP = np.cos(2 * np.pi * np.cumsum(CHIRP_HZ) / RATE_HZ)
INSIDE = slice(400, -400)  # three standard deviations of the longest wavelet away from the ends
PYWT_MORLET = f"cmor{2 * (6 / (2 * np.pi)) ** 2:.6f}-1.0"  # six radians per standard deviation


def as_batch(signal: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(signal)[None, None]


def ridge_hz(amplitude: np.ndarray, frequencies_hz: np.ndarray) -> np.ndarray:
    return np.asarray(frequencies_hz)[amplitude.argmax(0)]


def test_ridge_of_chirp_is_accurate_to_one_scale_and_matches_pywavelets():
    ours = cwt(as_batch(CHIRP), RATE_HZ, FREQUENCIES_HZ).abs()[0, 0].numpy()
    scales = pywt.frequency2scale(PYWT_MORLET, np.array(FREQUENCIES_HZ) / RATE_HZ)
    theirs, _ = pywt.cwt(CHIRP, scales, PYWT_MORLET, method="fft")
    ours_hz = ridge_hz(ours, FREQUENCIES_HZ)[INSIDE]
    theirs_hz = ridge_hz(np.abs(theirs) / np.sqrt(scales)[:, None], FREQUENCIES_HZ)[INSIDE]  # L1 instead of L2
    assert np.abs(np.log(ours_hz / CHIRP_HZ[INSIDE])).max() <= np.log(SCALE_STEP)
    assert np.abs(np.log(ours_hz / theirs_hz)).max() <= 1.001 * np.log(SCALE_STEP)
    assert (ours_hz == theirs_hz).mean() > 0.95
    assert np.abs(ours.max(0)[INSIDE] - 1).max() < 0.02  # amplitude of the chirp


def test_amplitudes_of_noise_match_pywavelets():
    """Equal up to one factor, the normalization of the wavelets."""
    noise = np.random.default_rng(0).normal(size=4096)
    frequencies_hz = geometric_frequencies(20, 100, 12)  # where its sampled wavelet is fine enough
    scales = pywt.frequency2scale(PYWT_MORLET, np.array(frequencies_hz) / RATE_HZ)
    theirs, _ = pywt.cwt(noise, scales, PYWT_MORLET, method="fft", precision=16)
    theirs = (np.abs(theirs) / np.sqrt(scales)[:, None])[:, INSIDE]
    ours = cwt(as_batch(noise), RATE_HZ, frequencies_hz).abs()[0, 0].numpy()[:, INSIDE]
    factor = (ours * theirs).sum() / (theirs**2).sum()
    assert np.abs(ours - factor * theirs).max() < 0.02 * ours.max()


def test_ridge_of_chirp_matches_ssqueezepy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ssqueezepy and numba, on import and use
        import ssqueezepy

        wavelet = ssqueezepy.Wavelet(("morlet", {"mu": 6.0}))
        scales = 6.0 * RATE_HZ / (2 * np.pi * np.array(FREQUENCIES_HZ[::-1]))  # in increasing order
        theirs, *_ = ssqueezepy.cwt(CHIRP, wavelet, scales=scales, fs=RATE_HZ, l1_norm=True)
    ours = cwt(as_batch(CHIRP), RATE_HZ, FREQUENCIES_HZ).abs()[0, 0].numpy()
    ours_hz, theirs_hz = (ridge_hz(each, FREQUENCIES_HZ)[INSIDE] for each in (ours, np.abs(theirs)[::-1]))
    assert np.abs(np.log(ours_hz / theirs_hz)).max() <= 1.001 * np.log(SCALE_STEP)
    assert (ours_hz == theirs_hz).mean() > 0.95


@pytest.mark.parametrize("wavelet", ["morlet", "ricker"])
def test_sinusoid_has_its_amplitude_at_every_scale(wavelet):
    frequencies_hz = [32.0, 100.0, 333.0, 700.0]
    for row, hz in enumerate(frequencies_hz):
        tone = 7 + 2.5 * np.cos(2 * np.pi * hz * TIME_S)  # the constant has no effect
        amplitude = cwt(as_batch(tone), RATE_HZ, frequencies_hz, wavelet).abs()[0, 0, row, INSIDE]
        torch.testing.assert_close(amplitude, torch.full_like(amplitude, 2.5), atol=0.02, rtol=0)


def test_real_part_of_ricker_is_mexican_hat():
    """The wavelet is `(1 - u^2) exp(-u^2 / 2)` with u = t / s; its spectrum peaks at sqrt(2) / s radians per second."""
    noise = np.random.default_rng(1).normal(size=4096)
    width_s = np.sqrt(2) / (2 * np.pi * 50)
    u = (np.arange(-300, 301) / RATE_HZ) / width_s
    hat = (1 - u**2) * np.exp(-(u**2) / 2)
    hat /= (hat * np.cos(2 * np.pi * 50 * u * width_s)).sum()  # gain 1 at 50 Hz
    expected = np.convolve(noise, hat, mode="same")
    ours = cwt(as_batch(noise), RATE_HZ, [50.0], "ricker").real[0, 0, 0].numpy()
    np.testing.assert_allclose(ours[INSIDE], expected[INSIDE], atol=1e-6)


def test_ends_are_extended_by_mirroring():
    noise = np.random.default_rng(2).normal(size=300)
    mirrored = np.concatenate((noise[1:][::-1], noise, noise[-1:], noise[1:][::-1]))
    inner = slice(299, 599)
    short = cwt(as_batch(noise), RATE_HZ, [100.0, 400.0])
    longer = cwt(as_batch(mirrored), RATE_HZ, [100.0, 400.0])[..., inner]
    torch.testing.assert_close(short, longer, atol=1e-9, rtol=0)


@pytest.mark.parametrize("wavelet", ["morlet", "ricker"])
@pytest.mark.parametrize(("n_samples", "n_times"), [(2048, 64), (2000, 50), (1001, 77)])
def test_pooled_power_is_mean_of_full_transform(wavelet, n_samples, n_times):
    signal = CHIRP[:n_samples] + 0.3 * np.random.default_rng(3).normal(size=n_samples)
    full = cwt(as_batch(signal), RATE_HZ, FREQUENCIES_HZ, wavelet).abs().square()
    pooled = cwt_power(as_batch(signal), RATE_HZ, FREQUENCIES_HZ, n_times, wavelet)
    trapezoid = (full + full.roll(-1, -1)) / 2
    expected = torch.nn.functional.adaptive_avg_pool2d(trapezoid, (64, n_times))
    error = ((pooled - expected).abs() / expected.amax(-1, keepdim=True))[
        ..., :-1
    ]  # the last cell extends beyond the end
    assert error.max() < 0.02


@pytest.mark.parametrize(("n_samples", "n_times"), [(2053, 64), (1001, 30), (300, 299)])
def test_cells_of_any_length_are_accurate_and_use_fast_fft_lengths(n_samples, n_times):
    noise = np.random.default_rng(5).normal(size=n_samples)
    spectrum = np.fft.rfft(np.concatenate((noise, noise[-1:], noise[:0:-1])))
    ratio = np.fft.rfftfreq(2 * n_samples, 1 / RATE_HZ) / np.array(FREQUENCIES_HZ)[:, None]
    gain = 2 * np.exp(-((6 * ratio - 6) ** 2) / 2) * (ratio > 0)
    fine = 2 * 32 * n_times * -(-n_samples // n_times)  # at least 32 points per sample
    power = np.abs(np.fft.ifft(spectrum * gain, fine)[:, : fine // 2] * fine / (2 * n_samples)) ** 2
    expected = power.reshape(64, n_times, -1).mean(-1)
    pooled = cwt_power(as_batch(noise), RATE_HZ, FREQUENCIES_HZ, n_times)[0, 0].numpy()
    assert (np.abs(pooled - expected) / expected.max(-1, keepdims=True)).max() < 0.02
    plan = _plan(tuple(FREQUENCIES_HZ), "morlet", RATE_HZ, n_samples, n_times, torch.device("cpu"))
    assert max(max(prime_factors(group.bins.shape[1] // n_times)) for group in plan) <= 11


def prime_factors(n: int) -> list[int]:
    smallest = [d for d in range(2, n + 1) if n % d == 0][:1]
    return [*smallest, *prime_factors(n // smallest[0])] if smallest else [1]


def test_rows_are_independent_of_batch_and_chunk_size(monkeypatch):
    batch = torch.from_numpy(np.random.default_rng(4).normal(size=(5, 2, 512)))
    full, pooled = cwt(batch, RATE_HZ, FREQUENCIES_HZ), cwt_power(batch, RATE_HZ, FREQUENCIES_HZ, 16)
    monkeypatch.setattr("whirl.dsp.wavelets._CHUNK", 2**20)
    torch.testing.assert_close(cwt(batch[3:4, 1:], RATE_HZ, FREQUENCIES_HZ), full[3:4, 1:])
    torch.testing.assert_close(cwt_power(batch[3:4, 1:], RATE_HZ, FREQUENCIES_HZ, 16), pooled[3:4, 1:])


def test_gradients():
    signals = as_batch(CHIRP[:60]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: torch.view_as_real(cwt(x, RATE_HZ, [100.0, 500.0])), signals)


@pytest.mark.parametrize("frequencies_hz", [[], [0.0], [1025.0]])
def test_rejects_invalid_frequencies(frequencies_hz):
    with pytest.raises(ValueError, match="frequencies_hz"):
        cwt(as_batch(CHIRP), RATE_HZ, frequencies_hz)
