import math
import warnings

import numpy as np
import pytest
import torch
from scipy import signal as scipy_signal

from whirl.physics.evidence import OrderEvidence
from whirl.physics.features import Feature, LateralInhibition, journal_features, random_bands, rolling_features
from whirl.physics.rolling_bearing import BEARINGS, fault_orders
from whirl.physics.spectral_lines import DB, _log_noise_maximum

ORDERS = fault_orders(BEARINGS["6205"])
RATE_HZ, N = 8192, 16384
BIN_HZ = RATE_HZ / N
TIME_S = np.arange(N) / RATE_HZ


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tone(hz: float, amplitude: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(amplitude * np.sin(2 * np.pi * hz * TIME_S + 0.4)).float()


def line_db(power: np.ndarray, low: float, high: float, reach: float, n_spectra: int = 1) -> float:
    """Compute the evidence of a line by its definition; low, high and reach are in bins of the power spectrum."""
    below = power[math.floor(low - 2 - reach) + 1 : math.floor(low - 2) + 1]
    above = power[math.floor(high + 2) + 1 : math.floor(high + 2 + reach) + 1]
    floor = np.exp(np.log(np.concatenate([below, above])).mean() + np.euler_gamma)
    peak = power[round(low) : round(high) + 1].max()
    n_bins = n_spectra * (high - low + 1)
    return 10 * np.log10(peak / floor) - 10 * np.log10(-np.log(1 - 0.99 ** (1 / n_bins)))


def test_raw_line_matches_scipy_periodogram() -> None:
    x = tone(24.1, 0.3) + noise(N)
    rpm, window = 1500.0, (0.93, 0.99)
    _, power = scipy_signal.periodogram(x.double().numpy(), RATE_HZ, "hann", detrend="constant")
    bins = 25 / BIN_HZ
    expected = line_db(power, window[0] * bins, window[1] * bins, 0.35 * bins)
    found = OrderEvidence([Feature("line", "raw", (window,))], RATE_HZ)(x[None], rpm)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(expected, abs=0.01)
    assert expected > 10


def test_envelope_line_matches_scipy_hilbert() -> None:
    x = (1 + 0.5 * tone(108.0)) * noise(N)
    rpm, window, bands = 1500.0, (4.28, 4.36), ((0.2, 0.45), (0.5, 0.7))
    bins, spectrum = 25 / BIN_HZ, np.fft.rfft(x.double().numpy())
    fraction = np.linspace(0, 1, len(spectrum))
    expected = []
    for low, high in bands:
        band = np.fft.irfft(spectrum * ((fraction >= low) & (fraction <= high)), N)
        envelope = np.abs(scipy_signal.hilbert(band)) ** 2
        _, power = scipy_signal.periodogram(envelope, RATE_HZ, "hann", detrend="constant")
        expected.append(line_db(power, window[0] * bins, window[1] * bins, 48, n_spectra=2))
    found = OrderEvidence([Feature("line", "envelope", (window,))], RATE_HZ, bands=bands)(x[None], rpm)
    assert found.item() == pytest.approx(max(expected), abs=0.01)
    assert max(expected) > 5


def test_shaft_line_in_white_noise_matches_closed_form() -> None:
    # with hann_power: a line of amplitude a has power (a N / 2)^2, noise of variance 1 has 1.5 N in each bin
    found = OrderEvidence([Feature("1X", "shaft", ((0.985, 1.015),))], RATE_HZ)((tone(25, 0.5) + noise(N))[None], 1500)
    assert found.item() == pytest.approx(10 * math.log10(0.5**2 * N / (4 * 1.5)), abs=0.3)


def test_level_of_amplified_band() -> None:
    loud = np.fft.rfft(noise(N).numpy())
    loud[int(0.64 * N / 2) : int(0.92 * N / 2) + 1] *= 10
    x = torch.from_numpy(np.fft.irfft(loud, N)).float()
    features = [
        Feature("high", "level", ((0.64, 0.92), (0.08, 0.40))),
        Feature("mid", "level", ((0.42, 0.62), (0.08, 0.40))),
    ]
    assert OrderEvidence(features, RATE_HZ)(x[None], 1500)[0].tolist() == pytest.approx([20, 0], abs=0.5)


def test_kurtosis_detects_bursts_and_ignores_isolated_knock() -> None:
    quiet, knocked, bursts = noise(N), noise(N), noise(N)
    knocked[5000:5040] *= 50
    bursts[::64] *= 30
    found = OrderEvidence([Feature("kurtosis", "kurtosis")], RATE_HZ)(torch.stack([quiet, knocked, bursts]), 1500)[:, 0]
    assert abs(found[0]) < 1
    assert abs(found[1] - found[0]) < 0.1
    assert found[2] > 3


@pytest.mark.parametrize("n_samples", [2048, 8192])
@pytest.mark.parametrize("kind", ["journal", "rolling", "whitened"])
def test_false_alarm_rate_in_noise(kind: str, n_samples: int) -> None:
    evidence = make(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = evidence(noise(1500, n_samples, seed=1), 2400)
    has_zero = [feature.kind in ("raw", "envelope", "kurtosis") for feature in evidence.features]
    false_alarm_rate = (found[:, has_zero] > 0).float().mean(0)
    assert false_alarm_rate.max() < 0.035
    assert (false_alarm_rate > 0).any()


def make(kind: str) -> OrderEvidence:
    if kind == "journal":
        return OrderEvidence.journal(RATE_HZ)
    return OrderEvidence.rolling(RATE_HZ, ORDERS, prewhiten=kind == "whitened")


def machine(n: int = 6) -> torch.Tensor:
    """Shaft lines, whirl and modulated noise at 1500 rpm."""
    modulation = 1 + 0.7 * tone(89.5)  # BPFO; all tones here have an integer number of cycles
    return tone(25) + 0.3 * tone(50) + 0.2 * tone(11.5) + 0.3 * modulation * noise(n, N)


@pytest.mark.parametrize("kind", ["journal", "rolling", "whitened"])
@pytest.mark.parametrize(
    "change",
    [lambda x: 7 * x, lambda x: 1e-12 * x, lambda x: 1e9 * x, lambda x: -x, lambda x: x + 5],
    ids=["gain", "tiny", "huge", "sign", "offset"],
)
def test_is_invariant_to_gain_sign_and_offset(change, kind: str) -> None:
    evidence, x = make(kind), machine()
    torch.testing.assert_close(evidence(change(x), 1500), evidence(x, 1500), atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", ["journal", "rolling", "whitened"])
def test_lines_are_invariant_to_window_start(kind: str) -> None:
    evidence, x = make(kind), machine()
    before, after = evidence(x, 1500), evidence(x.roll(3000, -1), 1500)
    lines = before > 12
    assert (lines.sum(1) >= (3 if kind == "journal" else 1)).all()
    assert (after - before)[lines].abs().max() < 2.5


def test_evidence_of_orders_does_not_depend_on_speed() -> None:
    lines = []
    for rpm in (1200, 2400, 3600):
        x = tone(rpm / 60, 0.3) + tone(0.45 * rpm / 60, 0.3) + tone(2 * rpm / 60, 0.1)
        lines.append(make("journal")(x + noise(16, N), rpm)[:, [0, 3, 4]].mean(0))
    lines = torch.stack(lines)
    assert (lines.amax(0) - lines.amin(0)).max() < 2
    assert (lines > 10).all()


def test_batch_equals_single_samples_and_channels_give_maximum() -> None:
    evidence, x = make("rolling"), machine(4)
    rpm = torch.tensor([1500.0, 1400.0, 1600.0, 1500.0])
    each = torch.cat([evidence(x[i : i + 1], rpm[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(evidence(x, rpm), each, atol=1e-3, rtol=0)
    torch.testing.assert_close(evidence(x[:, None], rpm), each, atol=1e-3, rtol=0)
    channels = evidence(torch.stack([x, noise(4, N, seed=3)], 1), rpm)
    other = evidence(noise(4, N, seed=3), rpm)
    torch.testing.assert_close(channels, torch.maximum(each, other), atol=1e-3, rtol=0)


def test_returns_float32_without_gradient_under_autocast() -> None:
    evidence, x = make("journal"), machine(2)
    with torch.autocast("cpu", torch.bfloat16):
        found = evidence(x.clone().requires_grad_(), 1500)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, evidence(x, 1500))


def test_mutually_exclusive_features_are_suppressed() -> None:
    whirl, half = (OrderEvidence.journal(RATE_HZ)((tone(25 * o) + 0.3 * noise(N))[None], 1500)[0] for o in (0.45, 0.5))
    assert whirl[0] > 20 > 0 > whirl[1]
    assert half[1] > 20 > 0 > half[0]


def test_unknown_speed_gives_nan_for_its_row_only() -> None:
    x = machine(2)
    found = make("rolling")(x, torch.tensor([1500.0, math.nan]))
    assert found[1].isnan().all()
    torch.testing.assert_close(found[:1], make("rolling")(x[:1], 1500.0), atol=1e-3, rtol=0)
    assert make("rolling")(x, math.nan).isnan().all()


@pytest.mark.parametrize("rpm", [0.0, -1500.0, 6001.0, math.inf])
def test_rejects_speed_out_of_range(rpm: float) -> None:
    with pytest.raises(ValueError, match=r"rpm is .*, expected 0 < rpm <= 6000"):
        make("journal")(machine(2), torch.tensor([1500.0, rpm]))


def test_window_shorter_than_revolution_states_required_length() -> None:
    evidence = make("journal")
    with pytest.raises(ValueError, match="shorter than one revolution at 1500 rpm: expected at least 328 samples"):
        evidence(noise(1, 300), 1500)


@pytest.mark.parametrize("shape", [(16,), (2, 8), (2, 1, 1, 64), (0, 64)])
def test_rejects_signals_of_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="signals have shape"):
        make("journal")(torch.zeros(shape), 1500)


def test_rejects_speeds_of_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"rpm has shape \(3,\)"):
        make("journal")(machine(2), torch.full((3,), 1500.0))


def test_prewhitened_evidence_measures_the_lines_alone_whatever_filter_the_signal_has_passed() -> None:
    evidence, x = make("whitened"), machine()
    assert evidence.names == ("BPFI", "BPFO", "2BSF")
    spectrum = torch.fft.rfft(x)
    filtered = torch.fft.irfft(spectrum * torch.linspace(0.01, 1, spectrum.shape[-1]).square(), N)
    torch.testing.assert_close(evidence(filtered, 1500), evidence(x, 1500), atol=0.2, rtol=0)
    assert (evidence(x, 1500)[:, 1] > 3).all()


def test_prewhitened_evidence_is_not_hidden_by_a_knock() -> None:
    x = machine()
    x[:, 4000] += 300
    assert (make("whitened")(x, 1500)[:, 1] > 3).all()
    assert (make("rolling")(x, 1500)[:, 1] < 3).any()


@pytest.mark.parametrize("kind", ["journal", "whitened"])
def test_zero_signal_gives_finite_low_evidence(kind: str) -> None:
    found = make(kind)(torch.zeros(1, N), 1500)
    assert found.isfinite().all()
    assert (found[0, :3] <= 0).all()


@pytest.mark.parametrize("value", [0.1, 3.0, -1000.7])
@pytest.mark.parametrize("n_samples", [10_000, 12_345, N])
def test_constant_channel_is_no_evidence(value: float, n_samples: int) -> None:
    """A Fourier transform rounds, so that the spectrum of a constant is not zero for every length."""
    evidence, alive = make("journal"), noise(1, 1, n_samples)
    constant = torch.full((1, 1, n_samples), value)
    assert torch.equal(evidence(constant, 1500), evidence(torch.zeros(1, 1, n_samples), 1500))
    assert torch.equal(
        evidence(torch.cat([alive, constant], 1), 1500), evidence(torch.cat([alive, 0 * alive], 1), 1500)
    )


def test_warns_once_of_unresolvable_lines_with_required_length() -> None:
    evidence = make("journal")
    with pytest.warns(
        UserWarning, match=r"resolve whirl, sub-harmonic .* at 1500 rpm.*; use windows of at least 0\.762 s"
    ):
        found = evidence(noise(2, 4096), torch.tensor([1500.0, 3000.0]))
    evidence(noise(2, 4096), 1500.0)  # a second warning would be an error
    assert found[0].isnan().nonzero().flatten().tolist() == [0, 1]
    assert evidence(noise(1, math.ceil(0.763 * RATE_HZ)), 1500.0).isfinite().all()


def test_lines_above_spectrum_are_nan() -> None:
    evidence = OrderEvidence([Feature("45X", "raw", ((44.9, 45.1),)), Feature("1X", "raw", ((0.98, 1.02),))], RATE_HZ)
    with pytest.warns(UserWarning, match="45X at 6000 rpm lie above"):
        found = evidence(machine(2), torch.tensor([6000.0, 5000.0]))  # 4500 and 3750 Hz, half the rate is 4096 Hz
    assert found.isnan().tolist() == [[True, False], [False, False]]


def test_lines_in_hz_do_not_depend_on_speed() -> None:
    evidence = OrderEvidence([Feature("whip", "raw", ((70.0, 80.0),), unit="hz")], RATE_HZ)
    assert (evidence((tone(75) + noise(2, N)), torch.tensor([1200.0, 3300.0])) > 20).all()


def test_noise_threshold_matches_exact_formula() -> None:
    exact = [10 * math.log10(-math.log(1 - 0.99 ** (1 / n))) for n in (1, 5, 21, 300)]
    found = DB * _log_noise_maximum(torch.tensor([1.0, 5, 21, 300]))
    assert found.tolist() == pytest.approx(exact, abs=0.006)


def test_random_bands_keep_widths_and_avoid_true_windows() -> None:
    for features in (journal_features(), rolling_features(ORDERS)):
        moved = random_bands(features, seed=4)
        assert moved == random_bands(features, seed=4) != random_bands(features, seed=5)
        assert [each.name for each in moved] == [each.name for each in features]
        for old, new in zip(features, moved, strict=True):
            assert [b - a for a, b in new.windows] == pytest.approx([b - a for a, b in old.windows])
            if old.is_line:
                true = [w for each in features if each.kind == old.kind for w in each.windows]
                assert not any(a <= high and low <= b for a, b in new.windows for low, high in true)


def test_random_bands_do_not_detect_fault() -> None:
    x, true = machine(), make("rolling")
    control = true.with_features(random_bands(true.features, seed=0))
    assert true(x, 1500.0)[:, 1].median() > 10 > control(x, 1500.0)[:, 1].median()


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "raw", ((1, 1),)),
        ("a", "raw", ()),
        ("a", "level", ((0.1, 0.2),)),
        ("a", "level", ((0.1, 0.2), (0.5, 1.1))),
        ("a", "kurtosis", ((0.1, 0.2),)),
    ],
)
def test_rejects_invalid_features(arguments) -> None:
    with pytest.raises(ValueError, match="'a'"):
        Feature(*arguments)


def test_rejects_invalid_arguments() -> None:
    for rate_hz, max_rpm in ((0, 6000), (1e4, math.nan), (math.inf, 6000)):
        with pytest.raises(ValueError, match="expected a finite number > 0"):
            OrderEvidence([], rate_hz, max_rpm=max_rpm)
    with pytest.raises(ValueError, match="distinct names"):
        OrderEvidence([Feature("a", "kurtosis")] * 2, 1e4)
    with pytest.raises(ValueError, match="bands"):
        OrderEvidence([Feature("a", "kurtosis")], 1e4, bands=[(0.5, 1.2)])
    with pytest.raises(ValueError, match="bands are empty"):
        OrderEvidence([Feature("a", "kurtosis")], 1e4, bands=[])
    with pytest.raises(ValueError, match="a: expected only lines of the envelope in a pre-whitened signal"):
        OrderEvidence([Feature("a", "kurtosis")], 1e4, prewhiten=True)
    with pytest.raises(ValueError, match="unknown feature in inhibitions 'b'"):
        OrderEvidence([Feature("a", "kurtosis")], 1e4, inhibitions=[LateralInhibition(("a", "b"), 1, 0)])
