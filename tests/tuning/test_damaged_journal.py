"""Damaged and hostile journals: the file is named, or the intact trials are kept; the file is not changed."""

import json

import pytest

from tests.tuning.studies import SPACE, score
from whirl.tuning.attempts import best_trial, candidates
from whirl.tuning.study import open_study
from whirl.tuning.worker import run_trials

SET_STATE, SET_ATTRIBUTE, CREATE_STUDY = 6, 8, 0


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.log"
    run_trials(open_study(path), SPACE, score, 3)
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def changed(records, op_code, **values):
    """Change the last record of a kind."""
    index = max(i for i, record in enumerate(records) if record["op_code"] == op_code)
    return [*records[:index], records[index] | values, *records[index + 1 :]]


@pytest.mark.parametrize("values", [{}, "\x1b[31m", [None], ["x"], [1.0, 2.0], [1e999]], ids=str)
def test_damaged_score_leaves_the_trial_out(values, records, tmp_path):
    path = tmp_path / "study.log"
    write(path, changed(records, SET_STATE, values=values))
    before = path.read_bytes()
    trials = candidates(open_study(path))
    assert [trial.number for trial in trials] == [0, 1]
    assert best_trial(trials).number in (0, 1)
    assert path.read_bytes().startswith(before)  # opening a study appends a record


@pytest.mark.parametrize("attributes", [{"worker": "x"}, {"worker": {"pid": 3}}, {"attempt": []}, {"retry_of": {}}])
def test_damaged_attribute_leaves_the_trial_out(attributes, records, tmp_path):
    write(tmp_path / "study.log", changed(records, SET_ATTRIBUTE, user_attr=attributes))
    assert [trial.number for trial in candidates(open_study(tmp_path / "study.log"))] == [0, 1]


@pytest.mark.parametrize(
    "record",
    [
        '{"op_code":0,"a":' + "[" * 100_000, "[" * 100_000, '{"op_code":' + "1" * 5000 + "}",
        "x", "[]", '{"op_code":"0"}',
        '{"op_code":6,"trial_id":"x"}', '{"op_code":4,"study_id":77}', '{"op_code":5,"trial_id":[]}',
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_hostile_record_names_the_file(record, records, tmp_path):
    path = tmp_path / "study.log"
    write(path, records)
    path.write_text(path.read_text() + record + "\n")
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"study\.log"):
        open_study(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("directions", [[], [1], [2, 2]])
def test_study_of_other_directions_is_refused(directions, records, tmp_path):
    write(tmp_path / "study.log", [records[0] | {"directions": directions}, *records[1:]])
    with pytest.raises(ValueError, match=r"study\.log minimizes its values, expected one that maximizes a score"):
        open_study(tmp_path / "study.log")


def test_journal_cut_anywhere_keeps_the_complete_trials(records, tmp_path):
    path = tmp_path / "study.log"
    write(path, records)
    data = path.read_bytes()
    for end in range(0, len(data), 211):
        path.write_bytes(data[:end])
        complete = [json.loads(line) for line in data[:end].splitlines(keepends=True) if line.endswith(b"\n")]
        n_scores = sum(record["op_code"] == SET_STATE for record in complete)
        trials = candidates(open_study(path))
        assert [trial.number for trial in trials if trial.state.name == "COMPLETE"] == list(range(n_scores))
