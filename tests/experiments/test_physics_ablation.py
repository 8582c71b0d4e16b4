"""The study: who is labelled, who is tested, that it goes on where it was stopped, and what it refuses."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from whirl.data.recording import Recording
from whirl.experiments.physics_ablation import (
    ARMS,
    StudySetting,
    balanced_accuracy,
    folder_task,
    simulated_task,
    study_physics,
    table,
)

RNG = np.random.default_rng(0)


def recordings(labels=("a", "b"), specimens=3, n=2):
    """Each specimen turns at a speed of its own."""
    names = [f"{label}{i}" for label in labels for i in range(specimens)]
    return [
        Recording(
            RNG.standard_normal(512), 1000.0, label=name[0], specimen=name, rpm=600.0 + names.index(name), source=name
        )
        for name in names
        for _ in range(n)
    ]


def speeds(windows):
    return set(windows.whole()[2].tolist())


@pytest.mark.parametrize("seed", range(6))
def test_no_specimen_has_two_roles(seed):
    pool = recordings()
    task = folder_task(pool, labels=2, seed=seed, window=128)
    assert len(speeds(task.test)) == len(speeds(task.labelled)) == 2
    assert speeds(task.test).isdisjoint(speeds(task.unlabelled))
    assert speeds(task.labelled) <= speeds(task.unlabelled)
    assert np.bincount(task.labelled.targets).tolist() == [2, 2]


def test_seeds_draw_different_roles():
    pool = recordings()
    tests = {frozenset(speeds(folder_task(pool, 2, seed, 128).test)) for seed in range(20)}
    assert len(tests) >= 6


def test_a_machine_tested_in_one_class_is_not_learnt_from_in_another():
    shared = [
        Recording(r.signal, 1000.0, label=r.label, specimen=str(r.specimen)[1], rpm=600.0 + int(str(r.specimen)[1]))
        for r in recordings(specimens=3)
    ]
    for seed in range(4):
        task = folder_task(shared, labels=1, seed=seed, window=128)
        assert len(speeds(task.test)) == 1
        assert speeds(task.test).isdisjoint(speeds(task.unlabelled))


def test_a_speed_shift_labels_slow_and_tests_fast():
    task = simulated_task("speed_shift", labels=3, seed=1)
    _, _, slow = task.labelled.whole()
    _, _, fast = task.test.whole()
    _, _, every = task.unlabelled.whole()
    assert slow.max() <= 1800
    assert fast.min() >= 2600
    assert every.max() > 2600
    assert np.bincount(task.labelled.targets).tolist() == [3] * 11


def test_balanced_accuracy_is_scikit_learns():
    targets, predicted = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
    assert balanced_accuracy(targets, predicted, 6) == pytest.approx(balanced_accuracy_score(targets, predicted))


@pytest.fixture(scope="module")
def task():
    return simulated_task("few", labels=3, seed=0)


def test_a_study_keeps_its_runs_and_goes_on(task, tmp_path):
    asked = []

    def tasks(condition, seed):
        asked.append(seed)
        return task

    arguments = (["few"], ["evidence", "rule", "physics"])
    setting = StudySetting(labels=3, epochs=1, device="cpu")
    study_physics(tasks, *arguments, [0], setting, tmp_path)
    results = study_physics(tasks, *arguments, [0, 1], setting, tmp_path)
    assert asked == [0, 1]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted((row["arm"], row["seed"]) for row in rows) == sorted(
        (arm, seed) for arm in ("ce", *arguments[1]) for seed in (0, 1)
    )
    found = {row["arm"]: row["balanced_accuracy"] for row in rows if row["seed"] == 0}
    assert results["few"]["rule"].mean == pytest.approx(found["rule"])  # the rule draws nothing
    assert found["evidence"] > 0.5
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() == table(results)
    assert table(results).count("\n") == 2 + 4


def test_half_a_line_of_a_killed_study_is_run_again(task, tmp_path):
    setting = StudySetting(labels=3, epochs=1, device="cpu")
    study_physics(lambda c, s: task, ["few"], ["rule"], [0], setting, tmp_path)
    file = tmp_path / "results.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    file.write_text(whole[0] + whole[1][:20])
    results = study_physics(lambda c, s: task, ["few"], ["rule"], [0], setting, tmp_path)
    assert results["few"]["rule"].n_runs == 1
    assert len(file.read_text().splitlines()) == 2


def test_what_a_study_refuses(task, tmp_path):
    study_physics(lambda c, s: task, ["few"], ["rule"], [0], StudySetting(epochs=1, device="cpu"), tmp_path)
    with pytest.raises(ValueError, match="holds a study of other settings"):
        study_physics(lambda c, s: task, ["few"], ["rule"], [0], StudySetting(epochs=2), tmp_path)
    with pytest.raises(ValueError, match="unknown arm 'magic'; expected one of: ce, physics"):
        study_physics(lambda c, s: task, ["few"], ["magic"], [0], StudySetting(), tmp_path)
    with pytest.raises(ValueError, match="unknown condition 'x'; expected one of: few"):
        simulated_task("x", 5, 0)
    with pytest.raises(ValueError, match="class 'a' has 1 specimen"):
        folder_task(recordings(specimens=1), 2, 0, 128)
    with pytest.raises(ValueError, match=r"class 'a' has .* windows to label, expected at least 500"):
        folder_task(recordings(), 500, 0, 128)
    with pytest.raises(ValueError, match="unknown bearing '1'"):
        StudySetting(bearing="1")


def test_every_arm_is_run(task):
    setting = StudySetting(labels=3, epochs=1, batch_size=64, device="cpu")
    for name, arm in ARMS.items():
        predicted = arm(task, setting, 0)
        assert predicted.shape == (len(task.test),), name
        assert set(predicted) <= set(range(11))
