"""Tests of the physics ablation: roles of specimens, resuming, and invalid arguments."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from whirl._locks import LOCK
from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.experiments.ablation_arms import ARMS
from whirl.experiments.ablation_report import format_table
from whirl.experiments.ablation_tasks import RATE_HZ, WINDOW, AblationSetting, folder_task, make_task, simulated_task
from whirl.experiments.physics_ablation import run_physics_ablation
from whirl.physics.faults import JOURNAL_CLASSES

RNG = np.random.default_rng(0)


def recordings(labels=("a", "b"), specimens=3, n=2):
    """Create recordings in which each specimen has a different speed."""
    names = [f"{label}{i}" for label in labels for i in range(specimens)]
    return [
        Recording(
            RNG.standard_normal(512), 1000.0, label=name[0], specimen=name, rpm=600.0 + names.index(name), source=name
        )
        for name in names
        for _ in range(n)
    ]


def speeds(windows):
    return set(windows.tensors()[2].tolist())


@pytest.mark.parametrize("seed", range(6))
def test_specimens_have_one_role(seed):
    pool = recordings()
    task = folder_task(pool, labels=2, seed=seed, window=128)
    assert len(speeds(task.test)) == len(speeds(task.labeled)) == 2
    assert speeds(task.test).isdisjoint(speeds(task.unlabeled))
    assert speeds(task.labeled) <= speeds(task.unlabeled)
    assert np.bincount(task.labeled.targets).tolist() == [2, 2]


def test_seeds_draw_different_roles():
    pool = recordings()
    tests = {frozenset(speeds(folder_task(pool, 2, seed, 128).test)) for seed in range(20)}
    assert len(tests) >= 6


def test_machine_tested_in_one_class_is_not_trained_in_another():
    shared = [
        Recording(r.signal, 1000.0, label=r.label, specimen=str(r.specimen)[1], rpm=600.0 + int(str(r.specimen)[1]))
        for r in recordings(specimens=3)
    ]
    for seed in range(4):
        task = folder_task(shared, labels=1, seed=seed, window=128)
        assert len(speeds(task.test)) == 1
        assert speeds(task.test).isdisjoint(speeds(task.unlabeled))


def test_speed_shift_labels_low_and_tests_high_speeds():
    task = simulated_task("speed_shift", labels=3, seed=1)
    _, _, labeled_rpm = task.labeled.tensors()
    _, _, test_rpm = task.test.tensors()
    _, _, unlabeled_rpm = task.unlabeled.tensors()
    assert labeled_rpm.max() <= 1800
    assert test_rpm.min() >= 2600
    assert unlabeled_rpm.max() > 2600
    assert np.bincount(task.labeled.targets).tolist() == [3] * 11


@pytest.fixture(scope="module")
def task():
    """A task like that of `simulated_task("few", 3, 0)`, with 6 machines instead of 18."""
    pool = simulate(6, sampling_rate_hz=RATE_HZ, n_samples=2 * WINDOW)
    test = [recording for recording in pool if recording.specimen in ("machine04", "machine05")]
    train = [recording for recording in pool if recording not in test]
    return make_task(train, test, JOURNAL_CLASSES, WINDOW, labels=3, seed=0)


def test_resumes_and_keeps_finished_runs(task, tmp_path):
    created = []

    def tasks(condition, seed):
        created.append(seed)
        return task

    arguments = (["few"], ["evidence", "rule", "physics"])
    setting = AblationSetting(labels=3, epochs=1, device="cpu")
    run_physics_ablation(tasks, *arguments, [0], setting, tmp_path)
    results = run_physics_ablation(tasks, *arguments, [0, 1], setting, tmp_path)
    assert created == [0, 1]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted((row["arm"], row["seed"]) for row in rows) == sorted(
        (arm, seed) for arm in ("ce", *arguments[1]) for seed in (0, 1)
    )
    found = {row["arm"]: row["balanced_accuracy"] for row in rows if row["seed"] == 0}
    assert results["few"]["rule"].mean == pytest.approx(found["rule"])  # the rule is deterministic
    assert found["evidence"] > 0.5
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() == format_table(results)
    assert format_table(results).count("\n") == 2 + 4


def test_reruns_truncated_result_of_killed_ablation(task, tmp_path):
    setting = AblationSetting(labels=3, epochs=1, device="cpu")
    run_physics_ablation(lambda c, s: task, ["few"], ["rule"], [0], setting, tmp_path)
    file = tmp_path / "results.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:20])
    results = run_physics_ablation(lambda c, s: task, ["few"], ["rule"], [0], setting, tmp_path)
    assert results["few"]["rule"].n_runs == 1
    assert len(file.read_text().splitlines()) == 2


ABLATION_THAT_WAITS = """
import sys
from whirl.experiments.ablation_tasks import AblationSetting
from whirl.experiments.physics_ablation import run_physics_ablation
def tasks(condition, seed):
    print("started", flush=True)
    sys.stdin.read()
run_physics_ablation(tasks, ["few"], ["rule"], [0], AblationSetting(epochs=1, device="cpu"), sys.argv[1])
"""


def test_second_ablation_in_a_folder_is_refused_by_name(task, tmp_path):
    run = partial(run_physics_ablation, lambda c, s: task, ["few"], ["rule"], [0])
    out, setting = tmp_path / "run", AblationSetting(epochs=1, device="cpu")
    command = [sys.executable, "-c", ABLATION_THAT_WAITS, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"started\n"
        before = sorted(out.iterdir())
        with pytest.raises(ValueError, match=rf"run: is in use by process {first.pid} on '.+'; wait for it or choose"):
            run(setting, out)
        assert sorted(out.iterdir()) == before
        first.kill()
    run(setting, out)  # the lock ended with its process
    assert not (out / LOCK).exists()


def test_deleted_folder_is_noticed_after_the_run(task, tmp_path):
    def tasks(condition, seed):
        (tmp_path / "run").rename(tmp_path / "moved")
        return task

    with pytest.raises(ValueError, match="run: the folder was deleted or replaced while this process used it"):
        run_physics_ablation(tasks, ["few"], [], [0], AblationSetting(epochs=1, device="cpu"), tmp_path / "run")


def test_rejects_invalid_arguments(task, tmp_path):
    run_physics_ablation(lambda c, s: task, ["few"], ["rule"], [0], AblationSetting(epochs=1, device="cpu"), tmp_path)
    with pytest.raises(ValueError, match="contains an ablation with other settings"):
        run_physics_ablation(lambda c, s: task, ["few"], ["rule"], [0], AblationSetting(epochs=2), tmp_path)
    with pytest.raises(ValueError, match="unknown arm 'magic'; expected one of: ce, physics"):
        run_physics_ablation(lambda c, s: task, ["few"], ["magic"], [0], AblationSetting(), tmp_path)
    with pytest.raises(ValueError, match="unknown condition 'x'; expected one of: few"):
        simulated_task("x", 5, 0)
    with pytest.raises(ValueError, match="class 'a' has 1 specimen"):
        folder_task(recordings(specimens=1), 2, 0, 128)
    with pytest.raises(ValueError, match=r"class 'a' has .* windows to label, expected at least 500"):
        folder_task(recordings(), 500, 0, 128)
    with pytest.raises(ValueError, match="unknown bearing '1'"):
        AblationSetting(bearing="1")


def test_runs_every_arm(task):
    setting = AblationSetting(labels=3, epochs=1, batch_size=64, device="cpu")
    for name, arm in ARMS.items():
        predicted = arm(task, setting, 0)
        assert predicted.shape == (len(task.test),), name
        assert set(predicted) <= set(range(11))
