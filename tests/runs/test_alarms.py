"""Alarm states, as they follow from sequences of judgements."""

import pytest

from whirl.runs.alarms import ACKNOWLEDGED, AlarmRule, Alarms, Point


def row(label, status="ok", machine="pump", point="DE", time=""):
    judged = status in ("ok", "doubtful")
    return {
        "machine": machine,
        "point": point,
        "class": label if judged else "not_judged",
        "status": status,
        "probability": "0.9" if judged else "",
        "time": time,
        "file": "",
    }


SHORT = {"h": row("healthy"), "F": row("ball"), "d": row("ball", "doubtful"), "n": row("", "not_judged")}
SHORT["A"] = row("", ACKNOWLEDGED)


@pytest.mark.parametrize(
    ("history", "level"),
    [
        ("", "normal"),
        ("hhhhh", "normal"),
        ("hhFhhhFhhh", "normal"),  # one odd file now and then does not ring
        ("hhFFF", "alarm"),
        ("FhFhF", "alarm"),
        ("FhhFhhF", "normal"),
        ("FnnnFnnnF", "alarm"),  # what was not judged does not count
        ("ddd", "warning"),
        ("dFd", "warning"),
        ("FFFd", "alarm"),
        ("FFFhh", "alarm"),
        ("FFFhhh", "normal"),
        ("FFFhhFhh", "normal"),
        ("FFFAhh", "alarm"),
        ("dddFFF", "alarm"),
    ],
)
def test_level_after_a_history(history, level):
    alarms = Alarms(AlarmRule(3, 5))
    alarms.follow(SHORT[each] for each in history)
    assert {state.level for state in alarms.states.values()} <= {level}


def test_following_line_by_line_gives_the_same_changes_as_at_once():
    history = [SHORT[each] for each in "hhFFFhdhhhFdFFAhhhh"]
    at_once, one_by_one = Alarms(AlarmRule()), Alarms(AlarmRule())
    changes = at_once.follow(history)
    assert [change for each in history for change in one_by_one.follow([each])] == changes
    assert [str(change).split(": ", 1)[1] for change in changes] == [
        "normal -> alarm: ball", "alarm -> normal", "normal -> warning: ball", "warning -> alarm: ball",
        "alarm -> normal",
    ]  # fmt: skip


def test_acknowledgement_lasts_until_the_level_rises():
    alarms = Alarms(AlarmRule(2, 3))
    point = Point("pump", "DE")
    alarms.follow([row("ball", "doubtful"), row("ball", "doubtful"), row("", ACKNOWLEDGED, point="")])
    assert alarms.states[point].level == "warning"
    assert alarms.states[point].acknowledged
    alarms.follow([row("ball"), row("ball")])
    assert alarms.states[point].level == "alarm"
    assert not alarms.states[point].acknowledged


def test_machines_and_points_are_independent():
    alarms = Alarms(AlarmRule(2, 3))
    alarms.follow([row("ball"), row("ball", point="NDE"), row("ball", machine="fan"), row("ball", machine="fan")])
    assert {point: state.level for point, state in alarms.states.items()} == {
        ("pump", "DE"): "normal", ("pump", "NDE"): "normal", ("fan", "DE"): "alarm",
    }  # fmt: skip


def test_change_states_when_it_began_and_what_was_found():
    alarms = Alarms(AlarmRule(2, 3))
    (change,) = alarms.follow([row("ball", time="t1"), row("inner_race", time="t2")])
    assert (change.before, change.state.level, change.state.since) == ("normal", "alarm", "t2")
    assert str(change) == "pump (DE): normal -> alarm: inner_race"


@pytest.mark.parametrize(("k", "n"), [(0, 5), (6, 5), (1.5, 5)])
def test_rejects_impossible_rules(k, n):
    with pytest.raises((ValueError, TypeError)):
        AlarmRule(k, n)
