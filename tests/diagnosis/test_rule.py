"""The decision rule without training, and the text of its verdicts."""

from dataclasses import replace

import pytest

from whirl.diagnosis.results import FamilyEvidence
from whirl.diagnosis.rule import Thresholds, apply_rule

LEVELS = (16.0, 15.0, 14.0)
INNER = FamilyEvidence("BPFI", "inner_race", 5.415, 15.0, -8.0, 0.0, LEVELS, 9.0, 1e-5, (240.0, 5760.0))
OUTER = FamilyEvidence("BPFO", "outer_race", 3.585, 18.0, -6.0, 0.0, LEVELS, None, 1e-6, (240.0, 5760.0))
BALL = FamilyEvidence("2BSF", "ball", 4.713, 1.0, -30.0, 0.0, LEVELS, 0.0, 0.9, (240.0, 5760.0))
CAGE = FamilyEvidence("FTF", "cage", 0.398, 25.0, -3.0, 0.0, LEVELS, None, 1e-6, (240.0, 5760.0))
HIDDEN = FamilyEvidence("2BSF", "ball", 3.988, reason="lines at 3.99, 7.98, 11.96 X fall on whole orders of the shaft")


def decide(*families, **thresholds):
    return apply_rule({family.name: family for family in families}, Thresholds(**thresholds))


def test_the_most_significant_family_wins():
    verdict, reasons = decide(INNER, OUTER, BALL)
    assert verdict == "outer_race"
    assert reasons[0] == "outer race: lines at 3.58, 7.17, 10.75 X, 18 dB above the floor, 50 % modulation"
    assert reasons[2].startswith("also inner race: lines at 5.42, 10.83, 16.25 X")


def test_a_family_that_stands_out_by_lines_of_the_fault_alone_is_not_named():
    """With a slip of 1 %, three times BPFO of a 6205 is twice its BPFI."""
    inner = replace(INNER, significance_db=25.0, harmonics_db=(24.0, 26.0, 25.0))
    shared = replace(OUTER, slip=0.0101, significance_db=11.0, harmonics_db=(4.0, 3.0, 26.0))
    verdict, reasons = decide(inner, shared)
    assert verdict == "inner_race"
    assert not [reason for reason in reasons if "outer race" in reason]


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"significance_db": 4.9}, "a fault needs more than 5 dB"),
        ({"depth_db": -12.1}, "a fault needs more than 25 % modulation"),
        ({"false_alarm_probability": 0.02}, "a false-alarm probability of at most 0.01 instead of 0.02"),
        ({"false_alarm_probability": None}, "a fault needs more turns of the shaft"),
    ],
)
def test_a_fault_passes_every_threshold(change, missing):
    verdict, reasons = decide(replace(OUTER, **change), BALL)
    assert verdict == "no_line_found"
    assert missing in reasons[0]
    assert reasons[0].endswith("This does not mean that the bearing is healthy")


def test_a_weaker_family_that_passes_is_named_if_the_stronger_one_does_not():
    verdict, _ = decide(replace(OUTER, depth_db=-20.0), INNER)
    assert verdict == "inner_race"


def test_the_cage_does_not_decide():
    assert decide(CAGE, BALL)[0] == "no_line_found"


def test_hidden_families_are_reported():
    verdict, reasons = decide(INNER, HIDDEN)
    assert verdict == "inner_race"
    assert reasons[-1] == "ball not judged: lines at 3.99, 7.98, 11.96 X fall on whole orders of the shaft"
    assert decide(HIDDEN) == ("not_judged", (reasons[-1],))


def test_a_hidden_harmonic_is_reported():
    third = replace(OUTER, harmonics_db=(16.0, 15.0, None), reason="line at 10.75 X falls beyond the band")
    _, reasons = decide(third)
    assert reasons[0].startswith("outer race: lines at 3.58, 7.17 X")
    assert reasons[-1] == "outer race: line at 10.75 X falls beyond the band"


@pytest.mark.parametrize(("sidebands_db", "part"), [(9.0, "ball"), (0.3, "outer_race")])
def test_of_two_families_in_the_same_lines_sidebands_decide(sidebands_db, part):
    """A line at 3.39 belongs to order 3.40 or 3.36, depending on the slip; only an element has sidebands at FTF."""
    outer = replace(OUTER, order=3.40, slip=-0.002, significance_db=18.0)
    ball = replace(BALL, order=3.36, slip=0.010, significance_db=18.4, depth_db=-6.0, false_alarm_probability=1e-6)
    verdict, reasons = decide(outer, replace(ball, sidebands_db=sidebands_db))
    assert verdict == part
    other, slip = ("outer race", -0.2) if part == "ball" else ("ball", 1.0)
    assert f"the same lines fit the {other} with a slip of {slip} %" in reasons


def test_of_two_families_in_the_same_lines_with_sidebands_the_one_with_less_slip_is_named():
    inner = replace(INNER, slip=-0.002)
    ball = replace(INNER, name="2BSF", part="ball", order=5.36, slip=0.008, significance_db=15.2)
    assert decide(inner, ball)[0] == "inner_race"
    assert decide(replace(inner, slip=-0.012), ball)[0] == "ball"
