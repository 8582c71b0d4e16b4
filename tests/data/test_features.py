"""Features of windows: comparison with NumPy, SciPy and closed forms, and invariances."""

import itertools
import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

from whirl.data.features import (
    SIGNAL,
    SPECTRUM_BANDS,
    TIME_FEATURES,
    envelope_features,
    feature_table,
    signal_features,
    spectral_features,
    speed_features,
    time_features,
)
from whirl.physics.evidence import DEMODULATION_BANDS, OrderEvidence
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

RATE_HZ = 8192.0
NAMES = [feature.name for feature in feature_table(RATE_HZ, with_speed=True)]
RPM = torch.tensor([1800.0, 2400.0])
ORDERS = fault_orders(BEARINGS["6205"])


def batch(n: int = 4096) -> torch.Tensor:
    """Return noise, and noise with impacts, with an offset, `[2, 2, n]`."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(2, 2, n, generator=generator, dtype=torch.float64)
    signals[1, :, 64::128] += 8
    return signals + 3


def by_name(features: torch.Tensor, names: list[str] = NAMES) -> dict[str, np.ndarray]:
    """Return the columns by name."""
    return dict(zip(names, features.movedim(-1, 0).numpy(), strict=False))


def sine(frequency_hz: float, amplitude: float = 1.0, n: int = 4096) -> torch.Tensor:
    time_s = torch.arange(n, dtype=torch.float64) / RATE_HZ
    return amplitude * torch.sin(2 * torch.pi * frequency_hz * time_s)[None, None]


def test_time_features_equal_numpy_and_scipy():
    signals = batch()
    found = by_name(time_features(signals), [feature.name for feature in TIME_FEATURES])
    x = (signals - signals.mean(-1, keepdim=True)).numpy()
    rms, peak, mean = np.sqrt((x**2).mean(-1)), np.abs(x).max(-1), np.abs(x).mean(-1)
    expected = {
        "rms": x.std(-1),
        "peak": peak,
        "peak_to_peak": np.ptp(x, -1),
        "crest_factor": peak / rms,
        "shape_factor": rms / mean,
        "impulse_factor": peak / mean,
        "clearance_factor": peak / np.sqrt(np.abs(x)).mean(-1) ** 2,
        "skewness": scipy.stats.skew(x, -1),
        "kurtosis": scipy.stats.kurtosis(x, -1, fisher=False),
    }
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("n", [4096, 4095, 16, 17])
def test_spectral_features_equal_scipy_periodogram(n):
    signals = batch(n)
    found = by_name(spectral_features(signals, RATE_HZ), NAMES[9:25])
    f, power = scipy.signal.periodogram(signals.numpy(), RATE_HZ, "hann", detrend="constant")
    inner = (f > 0) & (f < RATE_HZ / 2)
    f, power = f[inner], power[..., inner]
    p = power / power.sum(-1, keepdims=True)
    centroid = p @ f
    off = f - centroid[..., None]
    spread = np.sqrt((p * off**2).sum(-1))
    expected = {
        "spectral_centroid": centroid,
        "spectral_spread": spread,
        "spectral_skewness": (p * off**3).sum(-1) / spread**3,
        "spectral_kurtosis": (p * off**4).sum(-1) / spread**4,
        "spectral_rolloff": f[(p.cumsum(-1) >= 0.85).argmax(-1)],
        "spectral_peak": f[p.argmax(-1)],
        "spectral_entropy": scipy.stats.entropy(p, axis=-1) / np.log(len(f)),
        "spectral_flatness": scipy.stats.gmean(power, axis=-1) / power.mean(-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, err_msg=name)
    edges = np.array(SPECTRUM_BANDS) * RATE_HZ / 2
    for low, high in itertools.pairwise(edges):
        expected_share = p[..., (f > low) & (f <= high)].sum(-1)
        np.testing.assert_allclose(found[f"power_{low:g}_{high:g}_hz"], expected_share, rtol=1e-9, atol=1e-15)


def test_envelope_features_equal_numpy():
    signals = batch()
    found = by_name(envelope_features(signals, RATE_HZ), NAMES[25:32])
    x = (signals - signals.mean(-1, keepdim=True)).numpy()

    def envelope(low: float, high: float) -> np.ndarray:
        spectrum = np.fft.fft(np.concatenate((x, x[..., ::-1]), -1))
        shares = np.fft.fftfreq(2 * 4096, 0.5)
        spectrum[..., (shares < low) | (shares > high)] = 0
        power = np.abs(np.fft.ifft(spectrum)[..., :4096]) ** 2
        return power / power.mean(-1, keepdims=True)

    for (low, high), name in zip(DEMODULATION_BANDS, NAMES[25:29], strict=True):
        e = envelope(low, high)
        assert name == f"envelope_kurtosis_{low * RATE_HZ / 2:g}_{high * RATE_HZ / 2:g}_hz"
        np.testing.assert_allclose(found[name], (e**2).mean(-1), rtol=1e-9)
    f, power = scipy.signal.periodogram(envelope(0.25, 0.95), RATE_HZ, "hann", detrend="constant", scaling="spectrum")
    f, power = f[3:256], power[..., 3:256]  # up to an eighth of the Nyquist frequency
    np.testing.assert_allclose(found["modulation_peak"], f[power.argmax(-1)])
    np.testing.assert_allclose(found["modulation_depth"], np.sqrt(2 * power.max(-1)), rtol=1e-9)
    np.testing.assert_allclose(found["modulation_entropy"], scipy.stats.entropy(power, axis=-1) / np.log(253))


@pytest.mark.parametrize("frequency_hz", [500.7, 700.3])
def test_sine_has_textbook_values(frequency_hz):
    found = {name: value.item() for name, value in by_name(signal_features(sine(frequency_hz, 3.0), RATE_HZ)).items()}
    assert found["rms"] == pytest.approx(3 / math.sqrt(2), rel=1e-3)
    assert found["peak_to_peak"] == pytest.approx(6, rel=2e-2)
    assert found["crest_factor"] == pytest.approx(math.sqrt(2), rel=2e-2)
    assert found["shape_factor"] == pytest.approx(math.pi / math.sqrt(8), rel=1e-3)
    assert found["clearance_factor"] == pytest.approx(1.7187, rel=2e-2)
    assert found["kurtosis"] == pytest.approx(1.5, rel=2e-3)
    assert found["spectral_peak"] == pytest.approx(frequency_hz, abs=1)
    assert found["spectral_centroid"] == pytest.approx(frequency_hz, abs=1)
    assert found["spectral_flatness"] < 0.001
    assert found["power_512_1024_hz" if frequency_hz > 600 else "power_256_512_hz"] > 0.8


def test_white_noise_has_expected_values():
    noise = torch.randn(64, 1, 8192, generator=torch.Generator().manual_seed(0))
    found = {name: value.mean() for name, value in by_name(signal_features(noise, RATE_HZ)).items()}
    assert found["kurtosis"] == pytest.approx(3, abs=0.03)
    assert found["shape_factor"] == pytest.approx(math.sqrt(math.pi / 2), rel=2e-3)
    assert found["spectral_centroid"] == pytest.approx(RATE_HZ / 4, rel=5e-3)
    assert found["spectral_spread"] == pytest.approx(RATE_HZ / 2 / math.sqrt(12), rel=5e-3)
    assert found["spectral_kurtosis"] == pytest.approx(1.8, rel=5e-3)
    assert found["spectral_flatness"] == pytest.approx(math.exp(-np.euler_gamma), rel=5e-3)
    for name in NAMES[25:29]:
        assert found[name] == pytest.approx(2, rel=0.02)


def test_impacts_show_in_the_resonance_band_at_their_rate():
    time_s = torch.arange(8192, dtype=torch.float64) / RATE_HZ
    ring = torch.exp(-600 * (time_s % (1 / 64))) * torch.sin(2 * torch.pi * 3000 * time_s)
    signal = (ring + 0.1 * torch.randn(8192, generator=torch.Generator().manual_seed(0)))[None, None]
    found = {name: value.item() for name, value in by_name(signal_features(signal, RATE_HZ)).items()}
    assert found["modulation_peak"] == 64
    assert found["modulation_depth"] > 1
    assert max(NAMES[25:29], key=lambda name: found[name]) == "envelope_kurtosis_2662.4_3891.2_hz"


@pytest.mark.parametrize("order", [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
def test_shaft_line_has_the_amplitude_of_its_sinusoid(order):
    shaft_hz = 47.3
    noise = 0.01 * torch.randn(1, 1, 32768, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal = sine(order * shaft_hz, 0.7, 32768) + noise
    rpm = torch.tensor([60 * shaft_hz * 1.004])  # a slightly wrong speed
    found = by_name(speed_features(signal, RATE_HZ, rpm), NAMES[32:])
    for name, value in found.items():
        expected = 0.7 if name == f"line_{order:g}x" else 0
        if name.startswith("line"):
            assert value.item() == pytest.approx(expected, abs=0.01), name


def test_separates_oil_whirl_from_half_order_and_finds_modulation():
    shaft_hz = 64.0
    time_s = torch.arange(32768, dtype=torch.float64) / RATE_HZ
    modulation = 1 + 0.3 * torch.cos(2 * torch.pi * shaft_hz * time_s)
    carrier = modulation.sqrt() * torch.sin(2 * torch.pi * 2500 * time_s)
    signal = sine(0.46 * shaft_hz, 2.0, n=32768) + carrier
    found = by_name(speed_features(signal, RATE_HZ, torch.tensor([60 * shaft_hz])), NAMES[32:])
    assert found["line_whirl"].item() == pytest.approx(2, rel=0.01)
    assert found["line_0.5x"].item() < 0.05
    assert found["envelope_1x"].item() == pytest.approx(0.3, rel=0.02)
    assert found["envelope_2x"].item() < 0.02


def test_unknown_speed_gives_nan_and_lines_above_nyquist_are_zero():
    features = signal_features(batch(), RATE_HZ, torch.tensor([math.nan, 120_000.0]))
    assert features[0, :, 32:].isnan().all()
    assert features[0, :, :32].isfinite().all()
    found = by_name(features[1])
    assert (found["line_3x"] == 0).all()  # 6000 Hz
    assert (found["line_2x"] > 0).all()


def test_evidence_is_computed_per_channel():
    signals = batch(16384).float()
    features = signal_features(signals, RATE_HZ, torch.tensor([1800.0, math.nan]), ORDERS)
    names = [feature.name for feature in feature_table(RATE_HZ, True, ORDERS)]
    assert names[-5:] == [
        "evidence_" + name for name in ("bpfi", "bpfo", "2bsf", "envelope_kurtosis", "structure_level")
    ]
    for channel in range(2):
        expected = OrderEvidence.rolling(RATE_HZ, ORDERS)(signals[:1, channel], 1800.0)
        torch.testing.assert_close(features[:1, channel, -5:], expected)
    assert (features[1, :, -5:-2] == 0).all()  # unknown without the speed
    with pytest.raises(ValueError, match="rpm is None, expected the speed"):
        signal_features(signals, RATE_HZ, None, ORDERS)


@pytest.mark.parametrize("gain", [1e-12, 0.3, -5.0, 1e12])
def test_invariance_to_gain_sign_and_offset(gain):
    signals = batch().float() - 3
    original, changed = (signal_features(x, RATE_HZ, RPM) for x in (signals, gain * (signals + 1)))
    unit = torch.tensor([abs(gain) if feature.unit == SIGNAL else 1 for feature in feature_table(RATE_HZ, True)])
    unit[NAMES.index("skewness")] = math.copysign(1, gain)
    torch.testing.assert_close(changed, original * unit, rtol=2e-3, atol=1e-4 * min(abs(gain), 1))


def test_invariance_to_time_shift():
    signals = batch()
    original, shifted = (signal_features(x, RATE_HZ) for x in (signals, signals.roll(640, -1)))
    torch.testing.assert_close(shifted[..., :9], original[..., :9])
    stationary = [i for i, name in enumerate(NAMES[:32]) if "peak" not in name and "depth" not in name]
    torch.testing.assert_close(shifted[..., stationary], original[..., stationary], rtol=0.1, atol=0.05)


def test_windows_and_channels_are_independent():
    signals = batch()
    together = signal_features(signals, RATE_HZ, RPM)
    for i in range(2):
        for channel in range(2):
            single = signal_features(signals[i : i + 1, channel : channel + 1], RATE_HZ, RPM[i : i + 1])
            torch.testing.assert_close(together[i, channel], single[0, 0])


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e20, 1e-30])
@pytest.mark.parametrize("n", [16, 2048])
def test_constant_window_has_zero_features(constant, n):
    assert not signal_features(torch.full((2, 1, n), constant), RATE_HZ, RPM).any()


@pytest.mark.parametrize("n", [16, 17, 31, 2048])
@pytest.mark.parametrize("exponent", [-18, 0, 18])
def test_features_are_finite_at_any_scale(n, exponent):
    impulse = torch.zeros(n)
    impulse[n // 2] = 1
    noise = torch.randn(n, generator=torch.Generator().manual_seed(0))
    signals = torch.stack((impulse, noise, torch.arange(n) % 2.0))[:, None] * 10.0**exponent
    features = signal_features(signals, RATE_HZ, torch.full((3,), 3000.0))
    assert features.isfinite().all()
    assert (features[:, 0, 0] > 0).all()


def test_single_precision_equals_double():
    single, double = (signal_features(x, RATE_HZ, RPM) for x in (batch().float(), batch()))
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)
    half = signal_features(batch().bfloat16(), RATE_HZ)
    torch.testing.assert_close(half, signal_features(batch().bfloat16().float(), RATE_HZ))


@pytest.mark.parametrize("with_speed", [False, True])
def test_names_are_unique_and_match_the_columns(with_speed):
    table = feature_table(25_600, with_speed)
    features = signal_features(batch(), 25_600, RPM if with_speed else None)
    assert len({feature.name for feature in table}) == len(table) == features.shape[-1]
    assert {feature.unit for feature in table} == {SIGNAL, "Hz", ""}


@pytest.mark.parametrize(
    ("signals", "rate_hz", "rpm", "message"),
    [
        (torch.ones(2, 64), RATE_HZ, None, r"shape \[2, 64\]"),
        (torch.ones(2, 1, 15), RATE_HZ, None, "15 samples, expected at least 16"),
        (torch.ones(2, 1, 64), 0.0, None, "sampling_rate_hz is 0"),
        (torch.ones(2, 1, 64), RATE_HZ, RPM[:1], r"rpm has shape \[1\]"),
        (torch.ones(2, 1, 64), RATE_HZ, torch.tensor([1800.0, -1.0]), "rpm is -1"),
    ],
)
def test_rejects_invalid_input(signals, rate_hz, rpm, message):
    with pytest.raises(ValueError, match=message):
        signal_features(signals, rate_hz, rpm)


def test_rejects_integer_signals():
    with pytest.raises(TypeError, match="floating-point"):
        signal_features(torch.ones(2, 1, 64, dtype=torch.int64), RATE_HZ)
