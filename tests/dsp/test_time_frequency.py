import json

import numpy as np
import pytest
import torch
from scipy import signal as scipy_signal

from whirl.dsp.envelope import envelope_spectrum
from whirl.dsp.short_time_fourier import stft
from whirl.dsp.time_frequency import DYNAMIC_RANGE_DB, KINDS, SCALES, TimeFrequency, decibel

RATE_HZ = 2048
BATCH = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 2048)))
RPM = {"rpm": torch.tensor([1500.0, 1800.0, 2400.0])}


def tone(frequency_hz: float, n_samples: int = 2048, amplitude: float = 1.0) -> torch.Tensor:
    return amplitude * torch.cos(2 * torch.pi * frequency_hz * torch.arange(n_samples) / RATE_HZ)[None, None]


@pytest.mark.parametrize("window", ["hann", "blackmanharris", ("kaiser", 8.6)], ids=str)
@pytest.mark.parametrize(("length", "hop"), [(128, 32), (255, 100), (64, 64)])
def test_stft_matches_scipy(window, length, hop):
    ours = stft(BATCH, RATE_HZ, window, length, hop)
    weights = scipy_signal.get_window(window, length)
    reference = scipy_signal.ShortTimeFFT(
        weights, hop, RATE_HZ, scale_to="magnitude", phase_shift=-(length // 2), fft_mode="onesided"
    )
    middle = slice(-(-length // hop), -(-length // hop) - 2 * length // hop)
    theirs = 2 * reference.stft(BATCH.numpy(), p0=0, p1=ours.values.shape[-1], padding="even")
    np.testing.assert_allclose(np.abs(ours.values.numpy())[..., middle], np.abs(theirs)[..., middle], atol=1e-12)
    np.testing.assert_allclose(ours.frequencies.numpy(), reference.f, atol=1e-3)
    np.testing.assert_allclose(ours.times_s.numpy(), hop * np.arange(len(ours.times_s)) / RATE_HZ, rtol=1e-12)


def test_stft_preserves_energy_of_frames():
    """Parseval's theorem holds for each column."""
    length, hop, weights = 128, 32, scipy_signal.get_window("hann", 128)
    values = stft(BATCH, RATE_HZ, "hann", length, hop).values * (weights.sum() / 2)
    two_sided = torch.full((65, 1), 2.0)
    two_sided[[0, -1]] = 1
    energy = (values.abs().square() * two_sided).sum(-2) / length
    frame = BATCH[1, 1, 5 * hop - 64 : 5 * hop + 64].numpy() * weights
    assert energy[1, 1, 5].item() == pytest.approx((frame**2).sum(), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_samples", [2048, 1999])
def test_maps_have_documented_shape_axes_and_scale(kind, n_samples):
    representation = TimeFrequency(kind, RATE_HZ, n_frequencies=40, n_times=48)
    signals = BATCH[..., :n_samples].float()
    maps = representation(signals, RPM)
    assert maps.shape == (3, 2, 40, 48)
    assert maps.dtype == torch.float32
    assert maps.is_contiguous()
    torch.testing.assert_close(maps.mean((2, 3)), torch.zeros(3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.std((2, 3), correction=0), torch.ones(3, 2), atol=1e-3, rtol=0)
    times_s = representation.times_s(n_samples)
    assert times_s.shape == (48,)
    torch.testing.assert_close(times_s.mean().item(), n_samples / RATE_HZ / 2, atol=1e-6, rtol=0)
    assert representation.frequencies.shape == (40,)
    assert bool((representation.frequencies.diff() > 0).all())
    # independent of other samples in the batch and of the gain of a channel
    torch.testing.assert_close(
        representation(7e-4 * signals[1:2, :1], {"rpm": RPM["rpm"][1:2]}), maps[1:2, :1], atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("kind", ["stft", "cwt", "wvd"])
@pytest.mark.parametrize("frequency_hz", [256.0, 400.0])
def test_tone_appears_in_its_row_with_its_amplitude(kind, frequency_hz):
    representation = TimeFrequency(kind, RATE_HZ, 256, 16, scale="magnitude", standardize=False)
    magnitude = representation(tone(frequency_hz, amplitude=3.0))[0, 0, :, 8]
    peak_hz = representation.frequencies[magnitude.argmax()]
    assert abs(peak_hz - frequency_hz) <= representation.frequencies.diff().max()
    assert magnitude.max().item() == pytest.approx(3, rel=0.01)
    power = TimeFrequency(kind, RATE_HZ, 256, 16, scale="power", standardize=False)(tone(frequency_hz, amplitude=3.0))
    assert power[0, 0, :, 8].max().item() == pytest.approx(9, rel=0.02)


@pytest.mark.parametrize("kind", ["stft", "cwt", "wvd"])
def test_impulse_appears_in_its_column(kind):
    signals = torch.zeros(1, 1, 2048)
    signals[..., 1200] = 1
    maps = TimeFrequency(kind, RATE_HZ, 64, 64, frequency_range=(200, 900), scale="power", standardize=False)(signals)
    assert abs(maps.sum((0, 1, 2)).argmax().item() - 1200 // 32) <= 1


@pytest.mark.parametrize("kind", ["stft", "wvd", "envelope"])
@pytest.mark.parametrize("frequency_range", [(0, 1024), (100, 500), (900, 1024), (1.5, 300.7)])
def test_frequency_range_selects_part_of_axis(kind, frequency_range):
    frequencies = TimeFrequency(kind, RATE_HZ, 32, frequency_range=frequency_range).frequencies
    step = (frequency_range[1] - frequency_range[0]) / 32
    assert len(frequencies) == 32
    assert abs(frequencies[0] - frequency_range[0]) <= step
    assert abs(frequencies[-1] + step - frequency_range[1]) <= 1.1 * step
    assert frequencies[-1] <= 1024


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_gradients(kind, scale):
    frequency_range = {"order": (0, 4), "envelope": (0, 25)}.get(kind)
    representation = TimeFrequency(kind, 100.0, 12, 10, scale=scale, frequency_range=frequency_range)
    metadata = {"rpm": torch.tensor([300.0], dtype=torch.float64)}
    signals = BATCH[:1, :1, :120].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda batch: representation(batch, metadata), signals)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_constant_window_gives_finite_maps_and_gradients(kind, scale, constant):
    signals = torch.full((3, 1, 2048), constant, requires_grad=True)
    maps = TimeFrequency(kind, RATE_HZ, scale=scale)(signals, RPM)
    (gradient,) = torch.autograd.grad(maps.square().sum(), signals)
    assert maps.isfinite().all()
    assert gradient.isfinite().all()
    if constant == 0:
        assert not maps.any()


def test_decibels_have_floor_below_strongest_cell():
    power = torch.tensor([1.0, 1e-3, 1e-12, 0.0])[None, None, None]
    torch.testing.assert_close(decibel(power).flatten(), torch.tensor([0.0, -30, -DYNAMIC_RANGE_DB, -DYNAMIC_RANGE_DB]))


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_float32(kind):
    representation = TimeFrequency(kind, RATE_HZ)
    signals = BATCH.bfloat16()
    expected = representation(signals.float(), RPM)
    assert representation(signals, RPM).dtype == torch.bfloat16
    torch.testing.assert_close(representation(signals, RPM), expected.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(representation(signals.float(), RPM), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_config_is_json_compatible_and_recreates_representation(kind):
    first = TimeFrequency(kind, 12_000, 48, 32, window=("tukey", 0.25), wavelet="ricker", band_hz=(1000, 4000))
    again = TimeFrequency(**json.loads(json.dumps(first.config)))
    metadata = {"rpm": RPM["rpm"] * 5}
    assert torch.equal(again(BATCH.float(), metadata), first(BATCH.float(), metadata))
    assert again.config == first.config
    assert not list(first.parameters())
    assert not first.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_cached_in_inference_mode_can_be_used_in_training(kind):
    representation = TimeFrequency(kind, 1777.0)  # a rate without cached tensors
    with torch.inference_mode():
        representation(BATCH.float(), RPM)
    signals = BATCH.float().requires_grad_()
    torch.autograd.grad(representation(signals, RPM).square().sum(), signals)


def test_envelope_spectrum_and_map_show_impact_rate():
    impacts = torch.zeros(4096, dtype=torch.float64)
    impacts[::32] = 1  # 64 per second
    ring = torch.exp(-0.2 * torch.arange(30)) * torch.sin(2 * torch.pi * 0.3 * torch.arange(30))
    signal = torch.nn.functional.conv1d(impacts[None, None], ring[None, None].double(), padding=29)[..., :4096]
    amplitude, frequencies_hz = envelope_spectrum(signal, RATE_HZ, (400, 900))
    assert frequencies_hz[amplitude.argmax()] == 64
    representation = TimeFrequency("envelope", RATE_HZ, 64, 8, band_hz=(400, 900), scale="power", standardize=False)
    at_hz = representation.frequencies[representation(signal)[0, 0].mean(1).argmax()]
    assert abs(at_hz - 64) <= 2  # one row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sftf"}, "did you mean 'stft'"),
        ({"scale": "dB"}, "unknown scale 'dB'; did you mean 'db'"),
        ({"wavelet": "haar"}, "unknown wavelet 'haar'"),
        ({"n_frequencies": 1}, "n_frequencies is 1"),
        ({"n_times": 0}, "n_times is 0"),
        ({"frequency_range": (100, 7000)}, "frequency_range"),
        ({"kind": "cwt", "frequency_range": (0, 100)}, "frequency_range"),
        ({"kind": "envelope", "band_hz": (4000, 3000)}, "band_hz"),
        ({"sampling_rate_hz": -1}, "sampling_rate_hz"),
    ],
)
def test_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimeFrequency(**({"kind": "stft", "sampling_rate_hz": 12_000} | arguments))


def test_rejects_windows_that_cannot_be_mapped():
    with pytest.raises(ValueError, match="32 samples, expected more than 64 for a window of 128"):
        TimeFrequency("stft", RATE_HZ)(torch.ones(1, 1, 32))
    with pytest.raises(ValueError, match="metadata has no 'rpm'"):
        TimeFrequency("order", RATE_HZ)(torch.ones(1, 1, 2048))
    with pytest.raises(ValueError, match="rpm is nan"):
        TimeFrequency("order", RATE_HZ)(torch.ones(1, 1, 2048), {"rpm": torch.tensor([torch.nan])})
    with pytest.raises(ValueError, match=r"1\.67 turns at 100 rpm"):
        TimeFrequency("order", RATE_HZ)(torch.ones(1, 1, 2048), {"rpm": torch.tensor([100.0])})
    with pytest.raises(TypeError, match="floating"):
        TimeFrequency("stft", RATE_HZ)(torch.ones(1, 1, 2048, dtype=torch.int32))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_matches_cpu(kind):
    representation = TimeFrequency(kind, RATE_HZ)
    signals, metadata = BATCH.float(), {"rpm": RPM["rpm"].cuda()}
    maps = representation(signals.cuda(), metadata)
    assert maps.is_cuda
    torch.testing.assert_close(maps.cpu(), representation(signals, RPM), atol=2e-3, rtol=0)
