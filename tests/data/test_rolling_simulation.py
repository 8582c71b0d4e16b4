"""Simulated machines on rolling bearings: geometry, load zone, other rotating parts and faint faults."""

from typing import Any

import numpy as np
import pytest

from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.recording import Recording
from whirl.data.rolling_simulation import draw_geometry, draw_rolling_machine, load_distribution
from whirl.data.simulation import simulate
from whirl.data.synthesis import draw_machine
from whirl.physics.bearings import parse_bearing
from whirl.physics.faults import ROLLING_CLASSES
from whirl.physics.rolling_bearing import BearingGeometry, fault_orders

FAULTS = ROLLING_CLASSES[1:]


def envelope_lines(recording: Recording, orders: list[float], low: float = 0.40, high: float = 0.62) -> list[float]:
    """Return how far lines stand above their neighborhood in the squared envelope spectrum of a band, in dB."""
    assert recording.rpm is not None
    spectrum = np.fft.rfft(recording.signal[0].astype(np.float64))
    fraction = np.linspace(0, 1, len(spectrum))
    analytic = np.zeros(recording.n_samples, complex)
    analytic[: len(spectrum)] = np.where((fraction >= low) & (fraction < high), 2 * spectrum, 0)
    envelope = np.abs(np.fft.ifft(analytic)) ** 2
    power = np.abs(np.fft.rfft((envelope / envelope.mean() - 1) * np.hanning(len(envelope)))) ** 2
    axis = np.fft.rfftfreq(recording.n_samples, 1 / recording.sampling_rate_hz) / (recording.rpm / 60)
    return [
        float(10 * np.log10(power[np.abs(axis - o) < 0.04].max() / np.median(power[np.abs(axis - o) < 0.35])))
        for o in orders
    ]


def one(label: str, seed: int = 0, **arguments: Any) -> Recording:
    """Simulate one quiet recording at full severity and 1800 rpm."""
    settings: dict[str, Any] = {"severity_range": (1, 1), "rpm_range": (1800, 1800), "snr_db_range": (40, 40)}
    return simulate(1, 1, [label], seed, **(settings | arguments))[0]


def test_recordings_state_their_bearing() -> None:
    assert {r.bearing for r in simulate(1, 1, ROLLING_CLASSES, n_samples=64)} == {"6205"}
    assert one("ball", bearing="SKF 6203-2Z", n_samples=64).bearing == "6203"
    geometry = BearingGeometry(12, 10, 60)
    assert one("ball", bearing=geometry, n_samples=64).bearings[0].geometry == geometry
    assert simulate(1, 1, ["wear"], n_samples=64)[0].bearing is None


def test_random_bearings_differ_between_machines_and_not_between_recordings() -> None:
    recordings = simulate(5, 2, ROLLING_CLASSES, seed=3, bearing="random", n_samples=64)
    by_machine = {r.specimen: {o.bearing for o in recordings if o.specimen == r.specimen} for r in recordings}
    assert all(len(bearings) == 1 for bearings in by_machine.values())
    assert len(set.union(*by_machine.values())) == 5
    for recording in recordings:
        (bearing,) = recording.bearings
        assert bearing.orders.bpfo == pytest.approx(recording.metadata["bpfo"])


def test_random_geometries_cover_common_bearings() -> None:
    geometries = [draw_geometry(np.random.default_rng(seed)) for seed in range(300)]
    orders = np.array([[o.bpfo, o.bpfi] for o in map(fault_orders, geometries)])
    assert np.quantile(orders[:, 0], (0.05, 0.95)) == pytest.approx((2.9, 9), rel=0.25)
    assert 6 <= min(g.n_elements for g in geometries) <= 7
    assert 18 <= max(g.n_elements for g in geometries) <= 24
    assert 0.2 < np.mean([g.contact_angle_deg > 0 for g in geometries]) < 0.4


def test_a_saved_simulation_keeps_its_bearings(tmp_path) -> None:
    recordings = simulate(2, 1, ROLLING_CLASSES, bearing="random", n_samples=64, rotating_race="outer")
    save_dataset(recordings, tmp_path / "set")
    for before, after in zip(recordings, load_dataset(tmp_path / "set"), strict=True):
        assert (after.bearing, after.rotating_race) == (before.bearing, "outer")
        assert after.metadata == before.metadata


def test_healthy_alone_is_a_rolling_machine_if_a_bearing_is_given() -> None:
    (alone,) = simulate(1, 1, ["healthy"], bearing="6205", n_samples=256)
    with_faults = simulate(1, 1, ROLLING_CLASSES, bearing="6205", n_samples=256)[0]
    np.testing.assert_array_equal(alone.signal, with_faults.signal)
    assert simulate(1, 1, ["healthy"], n_samples=64)[0].bearing is None


@pytest.mark.parametrize(("rotating_race", "modulated"), [("inner", "inner_race"), ("outer", "outer_race")])
def test_faults_of_the_rotating_race_have_shaft_sidebands(rotating_race: str, modulated: str) -> None:
    for label, name in (("inner_race", "bpfi"), ("outer_race", "bpfo")):
        recording = one(label, seed=1, rotating_race=rotating_race)
        line = recording.metadata[name] * (1 - recording.metadata["slip"])
        sidebands = np.mean(envelope_lines(recording, [line - 1, line + 1]))
        assert (sidebands > 18) == (label == modulated), (label, sidebands)


def test_rotating_outer_race_changes_the_cage_of_random_bearings() -> None:
    inner, outer = (one("ball", bearing="random", rotating_race=race, n_samples=64) for race in ("inner", "outer"))
    assert inner.bearing == outer.bearing
    assert outer.metadata["ftf"] == pytest.approx(1 - inner.metadata["ftf"])


def test_severity_sets_the_level_of_the_impacts() -> None:
    levels = [
        [one("outer_race", seed, severity_range=(s, s), n_samples=4096).metadata["fault_db"] for s in (0, 0.1, 0.5, 1)]
        for seed in range(4)
    ]
    assert np.mean(np.diff(levels, axis=1), axis=0) == pytest.approx([20.8, 13.3, 6], abs=0.2)


def test_the_faintest_faults_have_no_line() -> None:
    strong, faint = (
        [
            envelope_lines(recording, [recording.metadata["bpfo"] * (1 - recording.metadata["slip"])])[0]
            for recording in (one("outer_race", seed, severity_range=(s, s)) for seed in range(4))
        ]
        for s in (1, 0)
    )
    assert min(strong) > 20
    assert max(faint) < 15


def test_healthy_machines_can_have_strong_shaft_lines_and_other_parts() -> None:
    parts = [
        draw_rolling_machine(0, draw_machine(0, index), parse_bearing("6205"), "inner").surroundings
        for index in range(200)
    ]
    levels = np.array([p.shaft_level for p in parts])
    assert np.quantile(levels, 0.9) > 6 * np.quantile(levels, 0.1)
    for name in ("gear_level", "belt_level", "motor_level", "flow_level", "neighbor_level"):
        present = np.mean([getattr(p, name) > 0 for p in parts])
        assert 0.05 < present < 0.75, name


def test_impacts_of_a_neighbor_are_not_lines_of_the_bearing() -> None:
    for index in range(100):
        machine = draw_rolling_machine(1, draw_machine(1, index), None, "inner")
        orders = machine.bearing.orders
        for line in (orders.bpfi, orders.bpfo, 2 * orders.bsf):
            assert abs(machine.surroundings.neighbor_order / line - 1) > 0.02


@pytest.mark.parametrize("zone", [0.3, 0.5, 0.8, 1.5])
def test_load_distribution(zone: float) -> None:
    turns = np.linspace(0, 1, 3601)[:-1]
    load = load_distribution(turns, zone)
    assert load.max() == load[0] == 1
    assert np.mean(load > 0) == pytest.approx(1 if zone > 1 else np.arccos(1 - 2 * zone) / np.pi, abs=1e-3)
    np.testing.assert_allclose(load[1:], load[:0:-1], atol=1e-12)


@pytest.mark.parametrize("label", FAULTS)
def test_ground_truth_of_a_fault(label: str) -> None:
    truth = one(label, n_samples=4096).metadata
    assert -0.003 <= truth["slip"] <= 0.015
    assert np.isfinite(truth["fault_db"])
    assert {"bpfo", "bpfi", "bsf", "ftf", "snr_db", "severity"} <= set(truth)
    assert "fault_db" not in one("healthy", bearing="6205", n_samples=4096).metadata


def test_healthy_bearings_have_faint_lines() -> None:
    """Waviness and dents of healthy races are visible in a quiet recording, far below a fault."""
    levels = []
    for seed in range(8):
        sound, faulty = (one(label, seed, bearing="6205") for label in ("healthy", "outer_race"))
        line = [(1 - r.metadata["slip"]) * r.metadata["bpfo"] for r in (sound, faulty)]
        levels.append([envelope_lines(r, [at])[0] for r, at in zip((sound, faulty), line, strict=True)])
    sound_db, faulty_db = np.median(levels, axis=0)
    assert faulty_db > sound_db + 10
