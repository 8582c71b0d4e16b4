"""Simulated recordings: reproducibility, ground truth, rates, lengths and invalid arguments."""

import itertools
import json
import math
import os
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.simulated_spectra import FULL, one, order_spectrum, peak_order, prominence_db
from whirl.data.simulation import BEARING_LENGTH_M, JOURNAL_DIAMETER_M, iter_simulated, simulate
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.journal_bearing import (
    eccentricity_ratio,
    film_thickness_ratio,
    minimum_film_thickness,
    sommerfeld_number,
    walther_viscosity_pa_s,
)

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
        "    for recording in iter_simulated(4, 1, classes, n_samples=10_006):\n"
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
