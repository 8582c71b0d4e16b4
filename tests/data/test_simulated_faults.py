"""Every simulated fault shows its signature, and no other."""

import math

import numpy as np
import pytest

from tests.data.simulated_spectra import envelope_spectrum, one, order_spectrum, peak_order, phase, prominence_db
from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, signature
from whirl.physics.rolling_bearing import BEARINGS, fault_orders


@pytest.mark.parametrize("rpm", [1300, 2100, 3500])
def test_shaft_line_is_at_the_recorded_speed(rpm: float) -> None:
    orders, power = order_spectrum(one("imbalance", rpm))
    assert peak_order(orders, power, 0.5, 1.5) == pytest.approx(1, abs=0.012)


def test_imbalance_grows_with_the_square_of_speed() -> None:
    slow, fast = (one("imbalance", rpm, n_samples=204_800) for rpm in (600, 1200))
    amplitudes = []
    for recording in (slow, fast):
        orders, power = order_spectrum(recording)
        amplitudes.append(math.sqrt(power[np.abs(orders - 1) < 0.04].sum()))
    # far below the first critical speed (70..80 Hz) resonance adds 4 to 6 %
    assert amplitudes[1] / amplitudes[0] == pytest.approx(4 * 1.05, rel=0.03)


def test_misalignment_raises_2x_and_3x_above_1x() -> None:
    for seed in range(4):
        orders, power = order_spectrum(one("misalignment", seed=seed))
        line = [power[np.abs(orders - n) < 0.03 * n].max() for n in (1, 2, 3)]
        assert line[1] > line[0]
        assert line[2] > line[0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rpm", [1400, 3300])
def test_oil_whirl_peaks_at_042_to_048_of_shaft_speed(rpm: float, seed: int) -> None:
    recording = one("oil_whirl", rpm, seed)
    orders, power = order_spectrum(recording)
    peak = peak_order(orders, power, 0.2, 0.9)
    assert peak == pytest.approx(recording.metadata["whirl_ratio"], rel=0.03)
    assert 0.41 <= peak <= 0.485
    assert prominence_db(orders, power, recording.metadata["whirl_ratio"]) > 15


def test_healthy_machine_has_shaft_lines_and_no_subharmonics() -> None:
    orders, power = order_spectrum(one("healthy"))
    assert prominence_db(orders, power, 1) > 15
    assert max(prominence_db(orders, power, order) for order in (0.45, 0.5, 1 / 3, 1.5)) < 15


def test_whip_stays_at_the_first_critical_speed() -> None:
    frequencies_hz = []
    for rpm in (12_000, 15_000):
        recording = one("oil_whirl", rpm)
        orders, power = order_spectrum(recording)
        frequencies_hz.append(peak_order(orders, power, 0.2, 0.48) * rpm / 60)
        assert recording.metadata["whirl_ratio"] * rpm / 60 == pytest.approx(frequencies_hz[-1], rel=0.03)
    assert frequencies_hz[0] == pytest.approx(frequencies_hz[1], rel=0.02)
    assert 69 < frequencies_hz[0] < 81


@pytest.mark.parametrize("seed", range(6))
def test_looseness_is_phase_locked_to_the_shaft_and_whirl_is_not(seed: int) -> None:
    def slip_turns(recording: Recording, order: float, ratio: float) -> float:
        """Return how far the line at an order drifts from `ratio` times the shaft revolutions."""
        drift = phase(recording, order) - ratio * phase(recording, 1)
        return float(np.ptp(drift) / (2 * np.pi))

    loose, whirling = one("clearance", seed=seed), one("oil_whirl", seed=seed)
    q = loose.metadata["sub_harmonic_order"]
    assert q in (1 / 2, 1 / 3)
    assert slip_turns(loose, q, q) < 0.2
    assert slip_turns(whirling, whirling.metadata["whirl_ratio"], 0.5) > 1


def test_looseness_has_subharmonics_at_one_half_or_one_third() -> None:
    kinds = {r.metadata["sub_harmonic_order"] for r in simulate(20, 1, ["clearance"], n_samples=64)}
    assert kinds == {1 / 2, 1 / 3}


@pytest.mark.parametrize("label", ["clearance", "cavitation_clearance"])
def test_looseness_has_many_harmonics(label: str) -> None:
    recording = one(label, seed=2)
    orders, power = order_spectrum(recording)
    q = recording.metadata["sub_harmonic_order"]
    for order in (q, 1 + q, 2 + q, *range(1, 9)):
        assert prominence_db(orders, power, order, half_width=0.03 + 0.01 * order) > 10, order


def test_starved_film_is_modulated_once_per_revolution_and_cavitation_is_not() -> None:
    for seed in range(4):
        rubbing, bursting = one("lubrication", seed=seed), one("cavitation", seed=seed)
        assert prominence_db(*envelope_spectrum(rubbing, 0.64, 0.92), 1) > 20
        orders, power = envelope_spectrum(bursting, 0.64, 0.92)
        assert max(prominence_db(orders, power, n) for n in (1, 2, 3)) < 20


def test_cavitation_is_impulsive_at_high_frequency() -> None:
    def band_kurtosis(recording: Recording) -> float:
        spectrum = np.fft.rfft(recording.signal[0].astype(np.float64))
        spectrum[: int(0.64 * len(spectrum))] = 0
        band = np.fft.irfft(spectrum)
        return float(np.mean(band**4) / np.mean(band**2) ** 2)

    for seed in range(3):
        assert band_kurtosis(one("cavitation", seed=seed)) > 6


def test_wear_raises_the_mid_frequencies_with_slow_modulation() -> None:
    for seed in range(3):
        worn = one("wear", seed=seed)
        orders, power = order_spectrum(worn)
        fraction = orders / orders[-1]
        middle, below = (fraction > 0.40) & (fraction < 0.60), (fraction > 0.31) & (fraction < 0.36)
        assert power[middle].mean() > 2 * power[below].mean()
        orders, power = envelope_spectrum(worn, 0.40, 0.60)
        assert worn.rpm is not None
        assert 0.4 < peak_order(orders, power, 0, 0.2) * worn.rpm / 60 < 2.1


@pytest.mark.parametrize("label", ["misalignment_imbalance", "cavitation_clearance", "wear_lubrication"])
def test_combined_faults_show_both_signatures(label: str) -> None:
    recording = one(label, 2400)
    orders, power = order_spectrum(recording)
    if label == "misalignment_imbalance":
        assert min(prominence_db(orders, power, n, 0.05) for n in (1, 2, 3)) > 20
    elif label == "wear_lubrication":
        assert prominence_db(*envelope_spectrum(recording, 0.64, 0.92), 1) > 20
        fraction = orders / orders[-1]
        middle, below = (fraction > 0.40) & (fraction < 0.60), (fraction > 0.31) & (fraction < 0.36)
        assert power[middle].mean() > 2 * power[below].mean()
    else:
        assert prominence_db(orders, power, recording.metadata["sub_harmonic_order"]) > 15
        high, mid = orders / orders[-1] > 0.64, (orders / orders[-1] > 0.31) & (orders / orders[-1] < 0.36)
        assert power[high].mean() > power[mid].mean()


def test_resonances_belong_to_the_machine() -> None:
    def resonances_db(recording: Recording) -> np.ndarray:
        _, power = order_spectrum(recording)
        return 10 * np.log10(power[1:].reshape(100, -1).mean(axis=1))

    recordings = simulate(6, 2, ["healthy"], seed=1)
    curves = np.array([resonances_db(r) for r in recordings]) @ (np.eye(100) - 0.01)
    alike = np.corrcoef(curves[:, 10:]).reshape(6, 2, 6, 2)[:, 0, :, 1]
    same, other = np.diag(alike), alike[~np.eye(6, dtype=bool)]
    assert same.mean() > other.mean() + 0.1


# ------------------------------------------------------------------------------------------- rolling bearings


@pytest.mark.parametrize("bearing", ["6205", "6203"])
@pytest.mark.parametrize("seed", range(3))
def test_outer_race_fault_has_bpfo_harmonics_without_sidebands(bearing: str, seed: int) -> None:
    recording = one("outer_race", seed=seed, bearing=BEARINGS[bearing])
    line = fault_orders(BEARINGS[bearing]).bpfo * (1 - recording.metadata["slip"])
    orders, power = envelope_spectrum(recording, 0.40, 0.62)
    assert peak_order(orders, power, 0.5, 1.5 * line) == pytest.approx(line, rel=0.01)
    for harmonic in (1, 2, 3):
        assert prominence_db(orders, power, harmonic * line, 0.02 * harmonic * line) > 15
    assert max(prominence_db(orders, power, line + side, 0.05) for side in (-1, 1)) < 15


@pytest.mark.parametrize("seed", range(3))
def test_inner_race_fault_has_bpfi_with_shaft_sidebands(seed: int) -> None:
    recording = one("inner_race", seed=seed)
    line = recording.metadata["bpfi"] * (1 - recording.metadata["slip"])
    orders, power = envelope_spectrum(recording, 0.40, 0.62)
    assert peak_order(orders, power, 4.9, 5.9) == pytest.approx(line, rel=0.01)
    assert min(prominence_db(orders, power, at, 0.06) for at in (1, line - 1, line, line + 1)) > 15


@pytest.mark.parametrize("seed", range(3))
def test_ball_fault_has_twice_bsf_with_cage_sidebands(seed: int) -> None:
    recording = one("ball", seed=seed)
    line, cage = 2 * recording.metadata["bsf"] * (1 - recording.metadata["slip"]), recording.metadata["ftf"]
    orders, power = envelope_spectrum(recording, 0.40, 0.62)
    assert prominence_db(orders, power, line, 0.06) > 15
    assert min(prominence_db(orders, power, at, 0.05) for at in (cage, line - cage, line + cage)) > 10


def test_healthy_rolling_bearing_has_no_fault_line() -> None:
    for seed in range(4):
        recording = simulate(1, 1, ROLLING_CLASSES, seed, rpm_range=(1800, 1800))[0]
        assert recording.label == "healthy"
        orders, power = envelope_spectrum(recording, 0.40, 0.62)
        lines = (recording.metadata["bpfo"], recording.metadata["bpfi"], 2 * recording.metadata["bsf"])
        assert max(prominence_db(orders, power, line, 0.05) for line in lines) < 15


@pytest.mark.parametrize("label", sorted({*JOURNAL_CLASSES, *ROLLING_CLASSES} - {"clearance", "cavitation_clearance"}))
def test_required_lines_of_each_signature_are_present(label: str) -> None:
    recording = one(label, 2400, seed=3)
    bands = ((0.40, 0.62), (0.64, 0.92))
    spectra = {"raw": [order_spectrum(recording)], "envelope": [envelope_spectrum(recording, *band) for band in bands]}
    found = signature(label, fault_orders(BEARINGS["6205"]))
    assert found is not None
    for line in (line for line in found.lines if line.role == "required"):
        half_width = (line.high_order - line.low_order) / 2
        assert max(prominence_db(*each, line.order, half_width) for each in spectra[line.spectrum]) > 20, line
