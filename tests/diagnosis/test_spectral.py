"""Diagnosis of recordings without training."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.diagnosis.rule import Thresholds
from whirl.diagnosis.spectral import SpectralDiagnoser, diagnose
from whirl.physics.bearings import parse_bearing
from whirl.physics.rolling_bearing import BEARINGS, BearingGeometry, fault_orders


@pytest.fixture(scope="module")
def outer(simulate_fault):
    return simulate_fault("outer_race", ratio_db=3)


@pytest.mark.parametrize("part", ["inner_race", "outer_race", "ball"])
@pytest.mark.parametrize(("rpm", "rate"), [(600, 12_000), (1797, 25_600), (3600, 51_200)])
def test_names_the_part_at_any_speed_and_sampling_rate(part, rpm, rate, simulate_fault):
    found = diagnose(simulate_fault(part, rpm=rpm, sampling_rate_hz=rate, ratio_db=6, turns=100))
    assert found.verdict == part
    assert found.leading.evidence.significance_db > 5


@pytest.mark.parametrize("part", ["inner_race", "outer_race"])
@pytest.mark.parametrize("turns", [11, 14])
def test_few_turns_are_enough_for_a_clear_fault(part, turns, simulate_fault):
    """The spectrum has room for few combs of no family, which alone do not tell how rare such lines are."""
    found = [diagnose(simulate_fault(part, bearing="NU205", turns=turns, ratio_db=6, seed=seed)) for seed in range(3)]
    assert {each.verdict for each in found} == {part}
    sound = [diagnose(simulate_fault(None, bearing="NU205", turns=turns, seed=seed)) for seed in range(8)]
    assert {each.verdict for each in sound} == {"no_line_found"}


@pytest.mark.parametrize("n_knocks", [1, 3, 10])
def test_isolated_knocks_hide_no_fault(n_knocks, simulate_fault):
    """The spectrum of one impact is flat, so that a strong one buries the lines of the impacts that repeat."""
    recording = simulate_fault("outer_race", ratio_db=6, turns=100)
    ring = 100 * np.sin(1.1 * np.arange(60)) * np.exp(-np.arange(60) / 12)
    signal = recording.signal.copy()
    for start in np.random.default_rng(0).integers(1000, signal.shape[1] - 1000, n_knocks):
        signal[0, start : start + 60] += ring
    found = diagnose(replace(recording, signal=signal))
    assert found.verdict == "outer_race"
    assert found.leading.evidence.depth_db == pytest.approx(diagnose(recording).leading.evidence.depth_db, abs=2)


@pytest.mark.parametrize("rpm", [600, 1797])
def test_shaft_lines_alone_are_not_a_fault(rpm, simulate_fault):
    found = diagnose(simulate_fault(None, rpm=rpm))
    assert found.verdict == "no_line_found"
    assert "does not mean that the bearing is healthy" in found.reasons[0]


def test_the_bearing_can_be_given_in_any_form(outer):
    geometry = BEARINGS["6205"]
    forms = ["SKF 6205-2RS", parse_bearing("6205"), geometry, fault_orders(geometry), ["6205"]]
    results = [diagnose(replace(outer, bearing=None), bearing=form) for form in forms]
    assert {result.verdict for result in results} == {"outer_race"}
    assert {result.families["BPFO"].significance_db for result in results} == {
        results[0].families["BPFO"].significance_db
    }


def test_arguments_take_precedence_over_the_recording(outer):
    wrong = diagnose(outer, bearing="6203", rpm=1000)
    assert wrong.rpm == 1000
    assert wrong.bearing == "6203"
    assert wrong.verdict != "outer_race"


def test_each_recording_is_evaluated_with_its_own_bearing(simulate_fault):
    recordings = [
        simulate_fault("outer_race", bearing=bearing, rpm=rpm, ratio_db=6)
        for bearing, rpm in (("6205", 1500), ("6203", 2100))
    ]
    found = SpectralDiagnoser().diagnose(recordings)
    assert [each.verdict for each in found] == ["outer_race", "outer_race"]
    assert [each.bearing for each in found] == ["6205", "6203"]


def test_every_channel_and_bearing_is_evaluated(outer):
    quiet = np.random.default_rng(1).normal(size=outer.n_samples)
    both = replace(outer, signal=np.stack((quiet, outer.signal[0])), channels=("FE", "DE"), bearing="6203; 6205")
    found = diagnose(both)
    assert [(each.channel, each.bearing) for each in found.results] == [
        ("FE", "6203"), ("FE", "6205"), ("DE", "6203"), ("DE", "6205"),
    ]  # fmt: skip
    assert [each.verdict for each in found.results][:2] == ["no_line_found", "no_line_found"]
    assert (found.verdict, found.channel, found.bearing) == ("outer_race", "DE", "6205")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rpm": None}, "no physics: the speed of the shaft is unknown"),
        ({"bearing": None}, "no physics: the bearing is unknown"),
        ({"bearing": "Acme 17"}, "no physics: "),
    ],
)
def test_speed_and_bearing_are_never_guessed(outer, change, reason):
    found = diagnose(replace(outer, **change))
    assert found.verdict == "not_judged"
    assert found.reasons[0].startswith(reason)
    assert not found.families


def test_an_unknown_bearing_beside_a_known_one(outer):
    found = diagnose(replace(outer, bearing="6205; Acme 17"))
    assert [each.verdict for each in found.results] == ["outer_race", "not_judged"]
    assert found.verdict == "outer_race"


@pytest.mark.parametrize("signal", [np.zeros, np.ones, lambda n: np.full(n, np.nan)])
def test_dead_channels_are_not_evaluated(signal, outer):
    found = diagnose(replace(outer, signal=signal(outer.n_samples)[None]))
    assert found.verdict == "not_judged"


def test_a_clipped_fault_is_not_evaluated(outer):
    limit = 2 * outer.signal.std()
    found = diagnose(replace(outer, signal=outer.signal.clip(-limit, limit)))
    assert found.verdict == "not_judged"
    assert "clipped" in found.reasons[0]


@pytest.mark.parametrize("form", [str, BEARINGS.get, lambda name: fault_orders(BEARINGS[name])])
def test_a_given_bearing_has_the_rotating_race_of_the_recording(form, outer):
    """The lines of the race that turns through the load zone have sidebands, those of the other have none."""
    found = diagnose(replace(outer, rotating_race="outer"), bearing=form("6205"))
    assert found.families["BPFO"].sidebands_db is not None
    assert found.families["BPFI"].sidebands_db is None


def test_a_speed_beyond_the_sampling_rate_is_refused(outer):
    found = diagnose(outer, rpm=1e7)
    assert found.verdict == "not_judged"
    assert found.reasons[0].startswith("the shaft turns 166667 times in a second, more than half the sampling rate")


def test_short_recordings_give_the_reason(outer):
    def of_turns(turns):
        return diagnose(outer.cut(0, round(turns * 60 / outer.rpm * outer.sampling_rate_hz)))

    assert of_turns(5).verdict == "not_judged"
    assert f"holds 5.0 turns of the shaft at {outer.rpm:g} rpm, expected at least 10" in of_turns(5).reasons[0]
    assert any("only 15 turns" in reason for reason in of_turns(15).reasons)
    assert not any("only" in reason for reason in of_turns(25).reasons)


@pytest.mark.parametrize("change", [lambda x: x + 100, lambda x: 1e4 * x, lambda x: -x, lambda x: 1e-5 * x - 3e-4])
def test_gain_and_offset_do_not_change_the_verdict(change, simulate_fault):
    for part in ("inner_race", None):
        recording = simulate_fault(part)
        other = replace(recording, signal=change(recording.signal.astype(float)))
        assert diagnose(other).verdict == diagnose(recording).verdict


def test_other_thresholds(outer):
    strict = SpectralDiagnoser(thresholds=Thresholds(significance_db=40))
    assert strict.diagnose([outer])[0].verdict == "no_line_found"


def test_false_alarm_rates_in_noise_are_as_stated():
    """White, pink and band-limited noise: the probabilities are as stated before the other thresholds of the rule."""
    rng = np.random.default_rng(0)
    recordings = []
    for index in range(240):
        spectrum = np.fft.rfft(rng.normal(size=60_000))
        frequency = np.arange(len(spectrum)) / len(spectrum)
        low = rng.uniform(0, 0.5)
        shape = (1, 1 / np.sqrt(frequency + 1e-4), (frequency > low) & (frequency < low + 0.3))[index % 3]
        recordings.append(Recording(np.fft.irfft(spectrum * shape), 12_000, rpm=rng.uniform(300, 3000), bearing="6205"))
    found = SpectralDiagnoser().diagnose(recordings)
    assert sum(each.leading.is_fault for each in found) <= 2
    names = ("BPFI", "BPFO", "2BSF")
    stated = [min(each.families[name].false_alarm_probability or 1 for name in names) for each in found]
    for probability in (0.5, 0.1, 0.02):
        counted = np.mean(np.array(stated) < probability)
        assert abs(counted - probability) < 4 * math.sqrt(probability / 240)


def test_as_dict_is_plain_data(outer):
    found = diagnose(replace(outer, bearing="6205; 6203"))
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["file"] == "outer_race.mat"
    assert plain["verdict"] == "outer_race"
    assert set(plain["families"]) == {"BPFI", "BPFO", "2BSF", "FTF"}
    assert {"significance_db", "depth_db", "slip", "harmonics_db"} <= set(plain["families"]["BPFO"])
    assert len(plain["results"]) == 2
    hidden = plain["results"][1]["families"]["2BSF"]  # of a 6203
    assert hidden["significance_db"] is None
    assert hidden["reason"]


def test_geometry_given_for_a_large_bearing(simulate_fault):
    geometry = BearingGeometry(36, 18, 400)
    recording = simulate_fault("outer_race", bearing=geometry, rpm=240, turns=100, ratio_db=6)
    assert diagnose(recording, bearing=geometry).verdict == "outer_race"


@pytest.mark.parametrize("rpm", [0, -5, float("nan")])
def test_rejects_an_impossible_speed(outer, rpm):
    with pytest.raises(ValueError, match="rpm is"):
        diagnose(outer, rpm=rpm)


def test_rejects_an_unknown_bearing(outer):
    with pytest.raises(ValueError, match="Acme"):
        diagnose(outer, bearing="Acme 17")


def test_reads_a_file(outer, tmp_path):
    path = tmp_path / "run.npz"
    np.savez(path, signal=outer.signal, fs=outer.sampling_rate_hz, rpm=outer.rpm)
    assert diagnose(path, bearing="6205").verdict == "outer_race"
