import itertools
import json
import math
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.data.simulation import BEARING_LENGTH_M, JOURNAL_DIAMETER_M, iter_simulated, simulate
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, signature
from whirl.physics.journal_bearing import (
    eccentricity_ratio,
    film_thickness_ratio,
    minimum_film_thickness,
    sommerfeld_number,
    walther_viscosity_pa_s,
)
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

FULL = (1.0, 1.0)  # severity


def one(label: str, rpm: float = 1800, seed: int = 0, **arguments: Any) -> Recording:
    """Simulate one recording at a given speed, by default at full severity."""
    settings: dict[str, Any] = {"severity_range": FULL, "rpm_range": (rpm, rpm)} | arguments
    return simulate(1, 1, [label], seed, **settings)[0]


def order_spectrum(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Return orders and power `[F]` of the Hann-windowed recording."""
    assert recording.rpm is not None
    signal = recording.signal[0].astype(np.float64)
    power = np.abs(np.fft.rfft((signal - signal.mean()) * np.hanning(len(signal)))) ** 2
    hz = np.fft.rfftfreq(len(signal), 1 / recording.sampling_rate_hz)
    return hz / (recording.rpm / 60), power


def envelope_spectrum(recording: Recording, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return orders and power of the squared envelope of a band given as fractions of half the sampling rate."""
    assert recording.rpm is not None
    spectrum = np.fft.rfft(recording.signal[0].astype(np.float64))
    hz = np.fft.rfftfreq(recording.n_samples, 1 / recording.sampling_rate_hz)
    fraction = hz / (recording.sampling_rate_hz / 2)
    analytic = np.zeros(recording.n_samples, complex)
    analytic[: len(spectrum)] = np.where((fraction >= low) & (fraction < high), 2 * spectrum, 0)
    envelope = np.abs(np.fft.ifft(analytic)) ** 2
    power = np.abs(np.fft.rfft((envelope / envelope.mean() - 1) * np.hanning(len(envelope)))) ** 2
    return hz / (recording.rpm / 60), power


def prominence_db(orders: np.ndarray, power: np.ndarray, order: float, half_width: float = 0.03) -> float:
    """Return the highest line near an order over the median of its neighborhood."""
    near, around = np.abs(orders - order) < half_width, np.abs(orders - order) < 0.3
    return float(10 * np.log10(power[near].max() / np.median(power[around & ~near])))


def peak_order(orders: np.ndarray, power: np.ndarray, low: float, high: float) -> float:
    inside = (orders >= low) & (orders <= high)
    return float(orders[inside][power[inside].argmax()])


def phase(recording: Recording, order: float) -> np.ndarray:
    """Return the unwrapped phase in radians of the line at an order, in a band of 10 % on either side."""
    assert recording.rpm is not None
    spectrum = np.fft.fft(recording.signal[0].astype(np.float64))
    orders = np.fft.fftfreq(recording.n_samples, 1 / recording.sampling_rate_hz) / (recording.rpm / 60)
    spectrum[(orders < 0.9 * order) | (orders > 1.1 * order)] = 0
    return np.unwrap(np.angle(np.fft.ifft(spectrum)))[2048:-2048]  # the filter rings at the ends


# ------------------------------------------------------------------------------------------- reproducible


def test_noise_has_the_requested_snr():
    """The two recordings differ in the noise only: same seed, same draws."""
    quiet, loud = (one("imbalance", snr_db_range=(snr, snr)) for snr in (60.0, 0.0))
    assert (quiet.metadata["snr_db"], loud.metadata["snr_db"]) == (60.0, 0.0)
    noise = loud.signal / loud.metadata["sensor_gain"] - quiet.signal / quiet.metadata["sensor_gain"]
    assert np.std(noise) == pytest.approx(np.std(quiet.signal / quiet.metadata["sensor_gain"]), rel=0.4)


def test_same_seed_same_bits() -> None:
    first, second = simulate(1, 1, seed=5, n_samples=4096), simulate(1, 1, seed=5, n_samples=4096)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.signal, b.signal)
        assert a.metadata == b.metadata


def test_same_seed_same_bits_with_any_number_of_threads() -> None:
    # a length at which BLAS rounds differently with two threads, in one recording out of ten
    code = (
        "import hashlib\n"
        "from whirl.data.simulation import JOURNAL_CLASSES, ROLLING_CLASSES, iter_simulated\n"
        "bits = hashlib.sha256()\n"
        "for classes in (JOURNAL_CLASSES, ROLLING_CLASSES):\n"
        "    for recording in iter_simulated(20, 1, classes, n_samples=10_006):\n"
        "        bits.update(recording.signal.tobytes())\n"
        "        bits.update(repr(sorted(recording.metadata.items())).encode())\n"
        "print(bits.hexdigest())"
    )

    def bits(n_threads: int) -> str:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(n_threads))
        root = Path(__file__).parents[2]
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=os.environ | threads
        ).stdout

    assert bits(1) == bits(2)


# Standard deviation, mean absolute difference of neighboring samples, and sample 1000, for seed 5 and 4096 samples.
JOURNAL_VALUES = {
    "healthy": (0.10594798801635977, 0.1292340838763708, -0.02338154800236225),
    "misalignment": (0.09921536366761556, 0.020190990114213856, 0.0978998914361),
    "imbalance": (0.2223816647541459, 0.11943099684990552, -0.22217541933059692),
    "clearance": (0.16218521653514895, 0.06819270764817557, -0.2528107464313507),
    "lubrication": (0.0310816281520107, 0.03666335884109253, 0.01924665831029415),
    "cavitation": (0.08823767854504852, 0.06682314534679565, 0.04660492017865181),
    "wear": (0.22408096885212894, 0.23225363643375999, 0.0725533664226732),
    "oil_whirl": (0.0633145890879581, 0.041621374844639396, 0.07020015269517899),
    "misalignment_imbalance": (0.8084628419731129, 0.3669238038247358, -0.8503988981246948),
    "wear_lubrication": (0.33405905514289974, 0.374398019749976, -0.16141362488269806),
    "cavitation_clearance": (0.36017179515718845, 0.19288114983541835, 0.11130489408969879),
}


def test_journal_machines_are_the_same_in_every_version() -> None:
    """Published results and trained models refer to these recordings."""
    for recording in simulate(1, 1, seed=5, n_samples=4096):
        signal = recording.signal[0].astype(np.float64)
        values = (signal.std(), np.abs(np.diff(signal)).mean(), signal[1000])
        assert values == pytest.approx(JOURNAL_VALUES[recording.label or ""], rel=2e-3)  # a step of 12 bits


def test_another_seed_gives_another_machine() -> None:
    a, b = one("healthy", seed=0, n_samples=4096), one("healthy", seed=1, n_samples=4096)
    assert abs(np.corrcoef(a.signal[0], b.signal[0])[0, 1]) < 0.9
    assert a.metadata["radial_clearance_m"] != b.metadata["radial_clearance_m"]


@pytest.mark.parametrize("classes", [JOURNAL_CLASSES, ROLLING_CLASSES])
def test_recording_is_independent_of_the_other_requested_ones(classes: tuple[str, ...]) -> None:
    every = {r.source: r for r in simulate(3, 2, classes, seed=7, n_samples=2048)}
    some = simulate(2, 1, classes[:0:-2], seed=7, n_samples=2048)
    assert {r.label for r in some} == set(classes[:0:-2])
    for recording in some:
        np.testing.assert_array_equal(recording.signal, every[recording.source].signal)
        assert recording.metadata == every[recording.source].metadata


def test_all_recordings_differ() -> None:
    recordings = simulate(3, 2, n_samples=2048)
    assert len({r.signal.tobytes() for r in recordings}) == len({r.source for r in recordings}) == 3 * 2 * 11
    worst = np.abs(np.corrcoef(np.concatenate([r.signal for r in recordings if r.label == "cavitation"])))
    assert np.max(worst - np.eye(len(worst))) < 0.9


def test_iterator_is_lazy_and_matches_simulate() -> None:
    endless = iter_simulated(10**9, 1, ["wear"], n_samples=1024)
    for lazy, listed in zip(itertools.islice(endless, 3), simulate(3, 1, ["wear"], n_samples=1024), strict=True):
        np.testing.assert_array_equal(lazy.signal, listed.signal)


# ------------------------------------------------------------------------------------------- contents of a recording


@pytest.mark.parametrize("classes", [JOURNAL_CLASSES, ROLLING_CLASSES])
def test_every_machine_is_recorded_in_every_class(classes: tuple[str, ...]) -> None:
    recordings = simulate(3, 2, classes, n_samples=1024)
    counts = {(r.specimen, r.label): 0 for r in recordings}
    assert set(counts) == set(itertools.product(("machine00", "machine01", "machine02"), classes))
    for recording in recordings:
        assert recording.unit == "g"
        assert recording.load_unit == "N"
        assert recording.load is not None
        assert recording.rpm is not None
        assert 1200 <= recording.rpm <= 3600
        assert recording.signal.shape == (1, 1024)
        assert recording.signal.dtype == np.float32
        assert recording.metadata["machine"] == recording.specimen


def test_defaults_are_five_seconds_at_20480_hz() -> None:
    recording = next(iter_simulated())
    assert (recording.n_samples, recording.sampling_rate_hz, recording.label) == (102_400, 20_480, "healthy")


def test_ground_truth_is_json_and_source_is_a_file_name() -> None:
    for recording in (*simulate(1, 1, n_samples=1024), *simulate(1, 1, ROLLING_CLASSES, n_samples=1024)):
        assert {type(value) for value in recording.metadata.values()} <= {float, str}
        assert json.loads(json.dumps(recording.metadata)) == recording.metadata
        assert set(recording.source) <= set(string.ascii_letters + string.digits + "_")


def test_ground_truth_agrees_with_the_physics() -> None:
    for recording in simulate(4, 1, n_samples=1024):
        truth = recording.metadata
        assert truth["viscosity_pa_s"] == pytest.approx(walther_viscosity_pa_s(truth["temperature_c"]))
        assert recording.rpm is not None
        assert recording.load is not None
        S = sommerfeld_number(
            truth["viscosity_pa_s"],
            recording.rpm,
            recording.load,
            JOURNAL_DIAMETER_M,
            BEARING_LENGTH_M,
            truth["radial_clearance_m"],
        )
        assert truth["sommerfeld"] == pytest.approx(S)
        e = eccentricity_ratio(S, BEARING_LENGTH_M / JOURNAL_DIAMETER_M)
        assert truth["eccentricity"] == pytest.approx(e)
        h_min_m = minimum_film_thickness(truth["radial_clearance_m"], e)
        full = film_thickness_ratio(h_min_m, 0.6e-6, 0.8e-6)
        starved = 1 - 0.95 * truth["severity"] * ("lubrication" in (recording.label or ""))
        assert truth["film_ratio"] == pytest.approx(full * starved)


def test_severity() -> None:
    recordings = simulate(12, 1, n_samples=256)
    assert all(r.metadata["severity"] == 0 for r in recordings if r.label == "healthy")
    severities = [r.metadata["severity"] for r in recordings if r.label != "healthy"]
    assert 0.2 <= min(severities) < 0.3
    assert 0.9 < max(severities) <= 1
    assert one("wear", severity_range=(0.4, 0.4), n_samples=256).metadata["severity"] == 0.4


def test_only_lightly_loaded_bearings_whirl() -> None:
    whirling = simulate(60, 1, ["oil_whirl"], n_samples=64)
    assert max(r.metadata["eccentricity"] for r in whirling) < 0.8


def test_wear_and_looseness_open_the_clearance() -> None:
    clearances = {r.label: r.metadata["radial_clearance_m"] for r in simulate(1, 1, severity_range=FULL, n_samples=64)}
    healthy = clearances["healthy"]
    assert clearances["imbalance"] == healthy
    assert clearances["wear"] == pytest.approx(1.3 * healthy)
    assert clearances["clearance"] == clearances["cavitation_clearance"] == pytest.approx(1.8 * healthy)


# ------------------------------------------------------------------------------------------- journal bearings


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


# ------------------------------------------------------------------------------------------- any rate and length


@pytest.mark.parametrize("classes", [JOURNAL_CLASSES, ROLLING_CLASSES])
@pytest.mark.parametrize(("rate_hz", "n_samples"), [(20_480, 16), (2560, 4096), (12_000, 4097), (51_200, 3001)])
def test_any_rate_and_length(classes: tuple[str, ...], rate_hz: float, n_samples: int) -> None:
    for recording in simulate(1, 1, classes, sampling_rate_hz=rate_hz, n_samples=n_samples):
        assert recording.signal.shape == (1, n_samples)
        assert recording.sampling_rate_hz == rate_hz
        assert np.all(np.isfinite(recording.signal))
        assert recording.signal.std() > 0


def test_low_sampling_rates_show_the_same_orders() -> None:
    orders, power = order_spectrum(one("oil_whirl", sampling_rate_hz=2560, n_samples=12_800))
    assert 0.41 <= peak_order(orders, power, 0.2, 0.9) <= 0.485


def test_harmonics_above_the_nyquist_frequency_are_not_aliased() -> None:
    # 45 Hz at 400 Hz sampling: 5X = 225 Hz would appear at 175 Hz, 3.89X
    orders, power = order_spectrum(one("clearance", 2700, sampling_rate_hz=400, n_samples=4000))
    assert prominence_db(orders, power, 2) > 15
    assert prominence_db(orders, power, 175 / 45) < 15


def test_recordings_have_twelve_bits() -> None:
    for recording in simulate(1, 1, n_samples=8192):
        levels = np.unique(recording.signal.astype(np.float64))
        n_steps = np.rint((levels[-1] - levels[0]) / np.diff(levels).min())
        steps = levels * n_steps / (levels[-1] - levels[0])
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert np.abs(steps).max() <= 2**11


# ------------------------------------------------------------------------------------------- difficulty


def _level_and_shape(recording: Recording) -> np.ndarray:
    """Return the logarithms of RMS, crest factor and kurtosis, `[3]`."""
    signal = recording.signal[0].astype(np.float64)
    signal -= signal.mean()
    rms = np.sqrt(np.mean(signal**2))
    return np.log([rms, np.abs(signal).max() / rms, np.mean(signal**4) / rms**4])


def _spectral_features(recording: Recording) -> np.ndarray:
    """Return lines on orders, band levels and envelope features, independent of the gain."""
    assert recording.rpm is not None
    orders, power = order_spectrum(recording)
    fraction = orders / orders[-1]
    power = power / power[fraction > 0.1].mean()

    def line(spectrum: np.ndarray, low: float, high: float) -> float:
        first, last = np.searchsorted(orders, (low, high))
        return math.log(spectrum[first : max(last, first + 1)].max() + 1e-12)

    lines = [line(power, 0.98 * n - 0.01, 1.02 * n + 0.01) for n in range(1, 10)]
    lines += [line(power, 0.98 * q, 1.02 * q) for q in (1 / 3, 1 / 2, 4 / 3, 3 / 2, 7 / 3, 5 / 2)]
    lines += [line(power, 0.41, 0.485), math.log(np.median(power[(orders > 0.2) & (orders < 8)]))]
    edges = np.linspace(0.06, 0.96, 16)
    bands = [math.log(power[(fraction >= a) & (fraction < b)].mean()) for a, b in itertools.pairwise(edges)]
    groups = [max(bands[2:5]) - min(bands), max(bands[6:9]) - min(bands), max(bands[10:14]) - min(bands)]
    envelopes = []
    for low, high in ((0.15, 0.32), (0.40, 0.60), (0.64, 0.92)):
        _, envelope = envelope_spectrum(recording, low, high)
        slow = line(envelope, 0.4 * 60 / recording.rpm, 2.2 * 60 / recording.rpm)
        floor = math.log(np.median(envelope[(orders > 1.2) & (orders < 4)]))
        envelopes += [line(envelope, 0.98, 1.02) - floor, slow - floor, floor]
    harmonics = [lines[n] - lines[0] for n in (1, 2)] + [lines[1] - lines[2]]
    return np.array([*lines, *bands, *groups, *envelopes, *harmonics, math.log(recording.rpm)])


def _unseen_machine_predictions(features: np.ndarray, recordings: list[Recording]) -> np.ndarray:
    """Predict labels of machines held out from the training of logistic regression, four folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=0.1))
    labels = [r.label for r in recordings]
    machines = [r.specimen for r in recordings]
    return np.asarray(cross_val_predict(model, features, labels, groups=machines, cv=GroupKFold(4)))


def _accuracy(features: np.ndarray, recordings: list[Recording]) -> float:
    return float(np.mean(_unseen_machine_predictions(features, recordings) == [r.label for r in recordings]))


@pytest.fixture(scope="module")
def two_seconds() -> list[Recording]:
    return simulate(16, 2, n_samples=40_960, seed=11)


def test_level_crest_factor_and_kurtosis_do_not_reveal_the_class(two_seconds: list[Recording]) -> None:
    features = np.array([_level_and_shape(r) for r in two_seconds])
    assert _accuracy(features[:, :1], two_seconds) < 0.2
    assert _accuracy(features, two_seconds) < 0.45


def test_spectrum_reveals_the_class(two_seconds: list[Recording]) -> None:
    assert _accuracy(np.array([_spectral_features(r) for r in two_seconds]), two_seconds) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_default_recordings_are_classified_except_the_mildest_faults(seed: int) -> None:
    recordings = simulate(seed=seed)
    predicted = _unseen_machine_predictions(np.array([_spectral_features(r) for r in recordings]), recordings)
    right = predicted == [r.label for r in recordings]
    severity = np.array([r.metadata["severity"] for r in recordings])
    assert right.mean() > 0.93
    assert right[severity > 0.5].mean() > 0.96
    mild = (severity > 0) & (severity < 0.35)
    assert right[mild].mean() < 0.95
    missed = np.mean(predicted[mild] == "healthy")
    assert 0.01 < missed < 0.3


# ------------------------------------------------------------------------------------------- invalid arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_machines": 0}, "n_machines is 0, expected >= 1"),
        ({"recordings_per_class": 0}, "recordings_per_class is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"n_samples": 3}, "n_samples is 3"),
        ({"sampling_rate_hz": 0}, "sampling_rate_hz is 0"),
        ({"sampling_rate_hz": math.nan}, "sampling_rate_hz is nan"),
        ({"rpm_range": (0, 100)}, "rpm_range"),
        ({"rpm_range": (2000, 1000)}, "rpm_range"),
        ({"severity_range": (0.5, 1.5)}, "severity_range"),
        ({"severity_range": (0.5, 0.2)}, "severity_range"),
        ({"snr_db_range": (5, float("inf"))}, "snr_db_range"),
        ({"snr_db_range": (5, 0)}, "snr_db_range"),
        ({"classes": ()}, "classes"),
        ({"classes": "wear"}, "classes is 'wear'"),
        ({"classes": ("wear", "wear")}, "different class names"),
        ({"classes": ("wear", "ball")}, "neither all of"),
        ({"classes": ("healthy", "worn_out")}, "worn_out"),
        ({"bearing": "6299"}, "unknown bearing '6299'"),
        ({"rotating_race": "both"}, "unknown rotating_race 'both'"),
    ],
)
def test_rejects_invalid_arguments_before_simulating(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iter_simulated(**arguments)
