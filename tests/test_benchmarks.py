"""The harness of the benchmarks measures correctly, and every benchmark uses it."""

import ast
import itertools
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import _harness

    return _harness


class FakeClock:
    """A clock that the measured calls advance."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def call(self, *seconds):
        """Return a call that takes these durations in turn."""
        durations = itertools.cycle(seconds)

        def run():
            self.now += next(durations)

        return run


def test_measures_the_seconds_of_one_call(harness):
    clock = FakeClock()
    assert harness.timed(clock.call(3.0), clock=clock)() == 3.0
    assert harness.timed(clock.call(1.0, 3.0), clock=clock, n_calls=4)() == 2.0


def test_calls_until_the_minimum_time_has_passed(harness):
    clock = FakeClock()
    assert harness.timed(clock.call(1.0), clock=clock, min_s=4.5)() == 1.0
    assert clock.now == 5.0


def test_warmup_calls_are_not_timed(harness):
    clock = FakeClock()
    assert harness.timed(clock.call(10.0, 1.0), clock=clock, warmup_calls=1)() == 1.0


def test_warmup_rounds_are_discarded(harness):
    clock = FakeClock()
    seconds = harness.measure({"a": clock.call(9.0, 1.0, 2.0), "b": clock.call(5.0)}, rounds=2, clock=clock)
    assert seconds == {"a": [1.0, 2.0], "b": [5.0, 5.0]}


def test_every_round_runs_each_variant_once_in_random_order(harness):
    calls = []
    harness.interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=5, warmup_rounds=0)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, 15, 3)]
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len(set(rounds)) > 1


def test_ratio_is_the_median_of_the_ratios_within_a_round(harness):
    # The machine is slower in the last round; the ratio of the medians would be 4.
    assert harness.median_ratio([2.0, 4.0, 9.0], [1.0, 1.0, 9.0]) == 2.0


def test_last_line_is_json_without_nan(harness, capsys):
    goals = {"a": "<= 2", "not measured": "<= 1"}
    harness.print_results({"a": 1.5, "b": float("inf")}, goals, intervals={"a": (1.0, float("nan"))})
    assert json.loads(capsys.readouterr().out) == {
        "ratios": {"a": 1.5, "b": None},
        "goals": {"a": "<= 2"},
        "intervals": {"a": [1.0, None]},
    }


def test_results_of_other_settings_are_not_mixed(harness, tmp_path):
    path = tmp_path / "results.jsonl"
    few, many = (harness.ResultsFile(path, {"epochs": epochs, "model": "cnn1d"}) for epochs in (1, 20))
    assert few.rows() == []
    few.append({"seed": 0, "score": 0.5})
    many.append({"seed": 0, "score": 0.9})
    assert [row["score"] for row in many.rows()] == [0.9]


def test_missing_recordings_are_named(harness, monkeypatch, tmp_path):
    monkeypatch.delenv("WHIRL_REAL_DATA", raising=False)
    with pytest.raises(SystemExit, match="WHIRL_REAL_DATA to the folder that holds cwru_12k_de"):
        harness.real_data("cwru_12k_de")
    monkeypatch.setenv("WHIRL_REAL_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="no such folder"):
        harness.real_data("cwru_12k_de")
    (tmp_path / "cwru_12k_de").mkdir()
    assert harness.real_data("cwru_12k_de") == str(tmp_path / "cwru_12k_de")
    assert harness.real_data("cwru_12k_de", "elsewhere") == "elsewhere"


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda p: p.name)
def test_benchmark_uses_the_harness_and_states_goals(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "_harness"
        for alias in node.names
    }
    assert {"configure", "make_parser", "print_results"} <= imported
    stated = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert "GOALS" in stated
    assert f"benchmarks/{path.name}" in (ast.get_docstring(tree) or "")
