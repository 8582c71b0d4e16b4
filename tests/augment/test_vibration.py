import inspect
import math

import numpy as np
import pytest
import torch
from scipy import signal as scipy_signal
from scipy.stats import kstest, kurtosis

from whirl.augment import vibration
from whirl.data.simulation import simulate
from whirl.dsp.spectra import amplitude_spectrum, squared_envelope_spectrum

RATE_HZ = 2048
BANK = torch.randn(5, 2, 300, generator=torch.Generator().manual_seed(9)) + 3

OPERATIONS = {
    "speed": lambda x, generator=None: vibration.speed_jitter(x, 0.05, generator=generator)[0],
    "band": lambda x, generator=None: vibration.band_stop(x, RATE_HZ, 500, generator=generator),
    "surrogate": vibration.random_phase_surrogate,
    "gain": vibration.sensor_gain_and_offset,
    "white": vibration.additive_machine_noise,
    "pink": lambda x, generator=None: vibration.additive_machine_noise(x, color="pink", generator=generator),
    "bank": lambda x, generator=None: vibration.additive_machine_noise(x, noise=BANK.to(x.device), generator=generator),
    "flip": vibration.polarity_flip,
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def tone(frequency_hz: float, n_samples: int = 2048, phase: float = 0.3, dtype=torch.float64) -> torch.Tensor:
    time_s = torch.arange(n_samples, dtype=torch.float64) / RATE_HZ
    return torch.sin(2 * math.pi * frequency_hz * time_s + phase).to(dtype)[None, None]


def peak(signal: torch.Tensor) -> tuple[float, float]:
    """Return frequency in Hz (resolution 1/32 bin) and amplitude of the strongest line."""
    window = np.hanning(signal.numel())
    spectrum = np.abs(np.fft.rfft(signal.flatten().double().numpy() * window, 32 * signal.numel()))
    index = spectrum.argmax()
    return index * RATE_HZ / (32 * signal.numel()), 2 * spectrum[index] / window.sum()


# all augmentations


@each_operation
def test_is_reproducible_and_does_not_modify_input(operation):
    signals = noise(6, 2, 64)
    before = signals.clone()
    first, again, other = (operation(signals, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(signals, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == signals.shape
    state = torch.get_rng_state()
    operation(signals, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


@each_operation
def test_samples_are_independent(operation):
    signals = noise(1, 2, 256).expand(64, -1, -1)
    changed = operation(signals, generator=seeded())
    n_different = len(torch.unique(changed, dim=0))
    assert (
        n_different == 2 if operation is vibration.polarity_flip else n_different > 60
    )  # a narrow band may contain no bin
    other_first = torch.cat((10 * signals[:1], signals[1:]))
    torch.testing.assert_close(operation(other_first, generator=seeded())[1:], changed[1:])


@each_operation
@pytest.mark.parametrize("n_samples", [1, 2, 3, 7, 101])
def test_accepts_any_length(operation, n_samples):
    changed = operation(noise(4, 2, n_samples))
    assert changed.shape == (4, 2, n_samples)
    assert changed.isfinite().all()


@each_operation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_is_computed_in_float32(operation, dtype):
    signals = noise(3, 2, 64).to(dtype)
    changed = operation(signals, generator=seeded())
    assert changed.dtype == dtype
    torch.testing.assert_close(changed, operation(signals.float(), generator=seeded()).to(dtype))


@each_operation
def test_autocast_has_no_effect(operation):
    signals = noise(3, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = operation(signals, generator=seeded())
    assert torch.equal(autocast, operation(signals, generator=seeded()))


@each_operation
def test_gradients_are_correct_and_finite(operation):
    signals = noise(2, 2, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: operation(x, generator=seeded()), (signals,))
    silent = torch.zeros(2, 2, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(operation(silent).sum(), silent)
    assert gradient.isfinite().all()


@each_operation
def test_never_reads_values_on_the_host(operation):
    signals = torch.empty(4, 2, 64, device="meta")  # has no values; reading one raises
    assert operation(signals).shape == (4, 2, 64)


@each_operation
def test_rejects_invalid_signals(operation):
    with pytest.raises(TypeError, match="int64"):
        operation(torch.ones(2, 1, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[1, 8\], expected \[batch, channels, samples\]"):
        operation(torch.ones(1, 8))
    with pytest.raises(ValueError, match="expected"):
        operation(torch.ones(2, 1, 0))
    with pytest.raises(ValueError, match="none empty"):
        operation(torch.ones(0, 1, 8))


def test_every_function_documents_its_physical_effects():
    functions = inspect.getmembers(vibration, inspect.isfunction)
    public = [f for name, f in functions if f.__module__ == vibration.__name__ and not name.startswith("_")]
    assert len(public) == 6
    for function in public:
        assert all(
            word in (function.__doc__ or "") for word in ("Preserves:", "Breaks:", "May erase:", "Raises:", "Example:")
        )


# speed_jitter


def test_speed_jitter_scales_lines_and_rpm_equally():
    rpm = torch.full((400,), 3000.0)
    rpm[5] = math.nan
    signals = tone(200, dtype=torch.float32).expand(400, 1, -1)
    changed, scaled = vibration.speed_jitter(signals, 0.03, rpm, generator=seeded())
    assert scaled is not None
    assert scaled[5].isnan()
    factors = scaled / 3000
    for factor, signal in zip(factors[:5], changed[:5], strict=True):
        assert abs(peak(signal)[0] - 200 * factor.item()) < 0.5
    known = factors[~factors.isnan()].numpy()
    assert 0.97 - 1e-6 <= known.min() < 0.971
    assert 1.029 < known.max() <= 1.03 + 1e-6
    assert kstest(known, "uniform", (0.97, 0.06)).pvalue > 0.01


def test_speed_jitter_preserves_orders_of_a_simulated_fault():
    (recording,) = simulate(1, 1, ["misalignment"], seed=4, n_samples=40_960, severity_range=(1, 1))
    assert recording.rpm is not None
    signals = torch.from_numpy(recording.signal).expand(8, 1, -1)
    changed, rpm = vibration.speed_jitter(signals, 0.03, torch.full((8,), recording.rpm), generator=seeded())
    assert rpm is not None

    def second_order(signal: torch.Tensor, rpm: float) -> tuple[float, float]:
        frequency_hz, amplitude = amplitude_spectrum(signal[0].numpy(), recording.sampling_rate_hz, 1)
        orders = frequency_hz / (rpm / 60)
        nearby = np.abs(orders - 2) < 0.15
        return orders[nearby][amplitude[nearby].argmax()], amplitude[nearby].max()

    order, amplitude = second_order(signals[0], recording.rpm)
    assert order == pytest.approx(2, abs=0.03)
    for signal, new_rpm in zip(changed, rpm.tolist(), strict=True):
        new_order, new_amplitude = second_order(signal, new_rpm)
        assert abs(new_order - order) < 60 / recording.rpm  # one bin
        assert 20 * np.log10(new_amplitude / amplitude) == pytest.approx(0, abs=1)
    orders_without_scaling = [second_order(signal, recording.rpm)[0] for signal in changed]
    assert np.ptp(orders_without_scaling) > 0.05


# band_stop


def test_band_stop_removes_only_its_band():
    signals = noise(4, 1, 65_536)
    center, width = torch.tensor([0.1, 0.35, 0.5, 0.9]), torch.tensor([0.02, 0.1, 0.2, 0.05])
    stopped = vibration._remove_band(signals, center, width)
    for before, after, c, w in zip(signals, stopped, center.tolist(), width.tolist(), strict=True):
        frequency, power = scipy_signal.welch(before[0].numpy(), 2, nperseg=4096, window="blackmanharris")
        power_after = scipy_signal.welch(after[0].numpy(), 2, nperseg=4096, window="blackmanharris")[1]
        level_db = 10 * np.log10(power_after / power)
        leak = 4 * 2 / 4096
        assert level_db[np.abs(frequency - c) < 0.4 * w - leak].max() < -40
        assert np.abs(level_db[np.abs(frequency - c) > 0.5 * w + leak]).max() < 0.1
    spectrum, spectrum_after = (torch.fft.rfft(x)[1, 0].abs() for x in (signals, stopped))
    assert (spectrum_after[int(0.32 * 32_768) : int(0.38 * 32_768)] < 1e-5 * spectrum.mean()).all()


def test_band_stop_draws_bands_uniformly():
    impulse = torch.zeros(512, 1, 4096)
    impulse[..., 0] = 1
    gain = torch.fft.rfft(vibration.band_stop(impulse, 8192, 400, (1000, 3000), generator=seeded())).abs()[:, 0]
    removed = 1 - gain.numpy()  # bins of 2 Hz; a band of width w removes 0.9 w in total
    frequency_hz = np.arange(2049) * 2
    width_hz = removed.sum(1) * 2 / 0.9
    wide = width_hz > 20
    center_hz = removed[wide] @ frequency_hz / removed[wide].sum(1)
    assert kstest(width_hz, "uniform", (0, 400)).pvalue > 0.01
    assert kstest(center_hz, "uniform", (1000, 2000)).pvalue > 0.01
    unchanged = vibration.band_stop(impulse, 8192, 0, generator=seeded())  # no center falls on a bin
    torch.testing.assert_close(unchanged, impulse, atol=1e-6, rtol=0)
    default = torch.fft.rfft(vibration.band_stop(impulse, 8192, generator=seeded())).abs()[:, 0]
    assert 300 < (1 - default).sum(1).max() * 2 / 0.9 <= 410


# random_phase_surrogate


@pytest.mark.parametrize("n_samples", [2048, 2047])
def test_surrogate_preserves_spectra_but_not_the_waveform(n_samples):
    impulsive = noise(4, 2, n_samples) ** 5 + 5
    surrogate = vibration.random_phase_surrogate(impulsive, generator=seeded())
    before, after = (torch.fft.rfft(x.double()) for x in (impulsive, surrogate))
    torch.testing.assert_close(after.abs().square(), before.abs().square(), rtol=1e-4, atol=0)
    torch.testing.assert_close(after[:, 0] * after[:, 1].conj(), before[:, 0] * before[:, 1].conj(), rtol=1e-3, atol=2)
    torch.testing.assert_close(surrogate.mean(-1), impulsive.mean(-1))
    assert kurtosis(impulsive.numpy(), axis=-1).min() > 20
    assert np.abs(kurtosis(surrogate.numpy(), axis=-1)).max() < 0.6
    rotation = (after[:, 0] / before[:, 0]).angle()[:, 1 : n_samples // 2].flatten().numpy()
    assert kstest(rotation, "uniform", (-math.pi, 2 * math.pi)).pvalue > 0.01


def test_surrogate_erases_envelope_line_of_impacts():
    pulses = np.zeros(8192)
    spacing_s = 0.02 * (
        1 + 0.01 * np.random.default_rng(0).normal(size=49)
    )  # rolling elements slip, so this is not an exact comb
    pulses[(8192 * np.cumsum(spacing_s)).astype(int)] = 1
    time_s = np.arange(100) / 8192
    impacts = np.convolve(pulses, np.exp(-600 * time_s) * np.sin(2 * np.pi * 2000 * time_s))[:8192]

    def line(signal: np.ndarray) -> float:
        frequency_hz, amplitude = squared_envelope_spectrum(signal, 8192, (1500, 2500))
        return amplitude[(frequency_hz > 48) & (frequency_hz < 52)].max()

    surrogate = vibration.random_phase_surrogate(torch.from_numpy(impacts)[None, None], generator=seeded())
    assert line(impacts) > 1
    assert line(surrogate[0, 0].numpy()) < 0.2 * line(impacts)


def test_surrogates_of_one_or_two_samples_are_unchanged():
    for n_samples in (1, 2):
        signals = noise(3, 2, n_samples)
        torch.testing.assert_close(vibration.random_phase_surrogate(signals), signals)


# sensor_gain_and_offset


def test_gain_and_offset_are_uniform_per_sample_and_channel():
    signals = 0.5 * tone(64, dtype=torch.float32).expand(400, 2, -1) + 1
    changed = vibration.sensor_gain_and_offset(signals, 3, 0.2, generator=seeded())
    gain = (changed.std(-1) / signals.std(-1)).double()
    offset = (changed.mean(-1) - gain * signals.mean(-1)) / (0.5 / math.sqrt(2))
    for values, bound in ((20 * torch.log10(gain), 3), (offset, 0.2)):
        assert values.abs().max() <= bound * (1 + 1e-4)
        assert kstest(values.flatten().numpy(), "uniform", (-bound, 2 * bound)).pvalue > 0.01
        assert abs(np.corrcoef(values.T.numpy())[0, 1]) < 0.15
    torch.testing.assert_close(vibration.sensor_gain_and_offset(signals, 0, 0), signals)


# additive_machine_noise


def snr_db(signals: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(signals.var(-1) / (noisy - signals).var(-1))


@pytest.mark.parametrize("keywords", [{}, {"color": "pink"}, {"noise": BANK.double()}], ids=["white", "pink", "bank"])
def test_noise_has_exact_snr_in_each_channel(keywords):
    signals = noise(200, 2, 256, dtype=torch.float64) * torch.tensor([[1.0], [1e-3]]) + 7
    exact = snr_db(signals, vibration.additive_machine_noise(signals, -5, **keywords))
    torch.testing.assert_close(exact, torch.full_like(exact, -5), atol=1e-6, rtol=0)
    noisy = vibration.additive_machine_noise(signals, (10, 30), generator=seeded(), **keywords)
    drawn = snr_db(signals, noisy)
    torch.testing.assert_close(drawn[:, 0], drawn[:, 1], atol=1e-6, rtol=0)
    assert kstest(drawn[:, 0].numpy(), "uniform", (10, 20)).pvalue > 0.01
    torch.testing.assert_close(noisy.mean(-1), signals.mean(-1))


@pytest.mark.parametrize(("color", "slope"), [("white", 0), ("pink", -1)])
def test_noise_has_given_color(color, slope):
    signals = tone(100).expand(16, 1, -1).repeat(1, 1, 8)
    added = vibration.additive_machine_noise(signals, 0, color=color, generator=seeded()) - signals
    frequency_hz, power = scipy_signal.welch(added[:, 0].numpy(), RATE_HZ, nperseg=2048)
    inner = slice(4, 1000)
    fitted = np.polyfit(np.log(frequency_hz[inner]), np.log(power.mean(0)[inner]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.05)
    assert np.abs(kurtosis(added.numpy(), axis=-1)).max() < 0.3


def test_measured_noise_is_drawn_from_random_rows_and_positions():
    rows = torch.stack([torch.arange(100.0) ** 2 + 10_000 * k for k in range(3)])[:, None]
    signals = noise(600, 1, 60)
    added = (vibration.additive_machine_noise(signals, 0, noise=rows, generator=seeded()) - signals)[:, 0].double()
    # the start s of a section of a parabola follows from slope / curvature after centering
    slope, curvature = added[:, -1] - added[:, 0], added[:, 2] - 2 * added[:, 1] + added[:, 0]
    position = (slope / curvature * 2 / 59 - 59) / 2
    assert set(position.round().int().tolist()) == set(range(41))
    sections = vibration._draw_sections(rows, signals, seeded())[:, 0]
    assert torch.bincount((sections[:, 0] // 10_000).long()).min() > 150


def test_no_noise_is_added_without_vibration():
    constant = torch.full((2, 1, 32), 5.0)
    assert torch.equal(vibration.additive_machine_noise(constant, 0), constant)
    single = noise(2, 1, 1)
    assert torch.equal(vibration.additive_machine_noise(single, 0), single)
    signals = noise(2, 1, 32)
    assert torch.equal(vibration.additive_machine_noise(signals, 0, noise=torch.zeros(1, 1, 40)), signals)


# polarity_flip


def test_polarity_flip_flips_samples_with_given_probability():
    signals = noise(2000, 2, 4)
    sign = vibration.polarity_flip(signals, 0.3, generator=seeded()) / signals
    assert (sign == sign[:, :1, :1]).all()
    assert sign[:, 0, 0].lt(0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(vibration.polarity_flip(signals, 0), signals)
    assert torch.equal(vibration.polarity_flip(signals, 1), -signals)


# invalid input

S = torch.ones(2, 1, 8)
INVALID = {
    "change 1": (lambda: vibration.speed_jitter(S, 1.0), "max_change is 1.0"),
    "change nan": (lambda: vibration.speed_jitter(S, math.nan), "max_change"),
    "rpm length": (lambda: vibration.speed_jitter(S, rpm=torch.ones(3)), r"rpm has shape \[3\].*\[2\]"),
    "rate 0": (lambda: vibration.band_stop(S, 0), "sampling_rate_hz is 0"),
    "rate nan": (lambda: vibration.band_stop(S, math.nan), "sampling_rate_hz"),
    "width < 0": (lambda: vibration.band_stop(S, 100, -1), "max_width_hz is -1"),
    "width > Nyquist": (lambda: vibration.band_stop(S, 100, 51), r"expected a number in \[0, 50\]"),
    "center reversed": (lambda: vibration.band_stop(S, 100, 5, (20, 10)), "low <= high"),
    "center > Nyquist": (lambda: vibration.band_stop(S, 100, 5, (20, 60)), r"in \[0, 50\] Hz"),
    "gain < 0": (lambda: vibration.sensor_gain_and_offset(S, -1), "gain_db is -1"),
    "offset inf": (lambda: vibration.sensor_gain_and_offset(S, 1, math.inf), "offset is inf"),
    "snr reversed": (lambda: vibration.additive_machine_noise(S, (30, 10)), "the lower first"),
    "snr nan": (lambda: vibration.additive_machine_noise(S, math.nan), "snr_db is nan"),
    "color": (lambda: vibration.additive_machine_noise(S, color="brown"), "'brown'"),  # pyright: ignore
    "bank short": (lambda: vibration.additive_machine_noise(S, noise=torch.ones(3, 1, 7)), ">= 8"),
    "bank channels": (lambda: vibration.additive_machine_noise(S, noise=torch.ones(3, 2, 9)), r"\[3, 2, 9\]"),
    "probability": (lambda: vibration.polarity_flip(S, 1.5), r"1.5, expected a number in \[0, 1\]"),
}


@pytest.mark.parametrize(("call", "message"), INVALID.values(), ids=INVALID)
def test_rejects_invalid_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rejects_integer_noise():
    with pytest.raises(TypeError, match=r"noise is a tensor of torch\.int64"):
        vibration.additive_machine_noise(S, noise=torch.ones(3, 1, 9, dtype=torch.int64))


# GPU


@pytest.mark.gpu
def test_gpu_matches_cpu_for_equal_draws():
    signals = noise(4, 2, 2000)
    quarter = torch.tensor([0.25, 0.5, 0.75, 1.0])
    angles = 6 * torch.rand(4, 1, 1001, generator=seeded())
    calls = {
        "band": (vibration._remove_band, signals, quarter, 0.1 * quarter),
        "surrogate": (vibration._rotate_phases, signals, angles),
        "noise": (vibration._add_noise, signals, noise(4, 2, 2000, seed=2), 20 * quarter[:, None, None]),
    }
    for function, *tensors in calls.values():
        on_gpu = function(*(t.cuda() for t in tensors)).cpu()
        torch.testing.assert_close(on_gpu, function(*tensors), atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
@each_operation
def test_is_reproducible_on_gpu(operation):
    signals = noise(4, 2, 64).cuda()
    first, again = (operation(signals, generator=torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert first.is_cuda
    assert torch.equal(first, again)
