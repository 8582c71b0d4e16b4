"""Tests of workers: sampling, failed candidates, dead workers, and that every candidate is completed once."""

import math
import os
import signal
import threading
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from tests.tuning.studies import DEAD, SPACE, params, score
from whirl.tuning import worker as worker_module
from whirl.tuning.attempts import best_trial, candidates, enqueue_first
from whirl.tuning.journal import JournalLock
from whirl.tuning.process import this_process
from whirl.tuning.storage import open_storage
from whirl.tuning.study import describe_space, open_study
from whirl.tuning.worker import run_trials


def leave_trial(study, x, worker, state=None):
    """Add a trial as left by a worker that died in the middle of it, optionally in a final state."""
    study.enqueue_trial({"x": x})
    trial = study.ask(SPACE)
    if worker is not None:
        trial.set_user_attr("worker", {"host": "here", "claim": "", "heartbeat": 3, "is_drawn": True} | worker)
    if state is not None:
        study.tell(trial, state=state)
    return trial.number


# -- sampling --------------------------------------------------------------------------------------------


def test_candidates_match_plain_optuna_loop():
    ours = run_trials(open_study(None, seed=5), SPACE, score, 20)
    study = optuna.create_study(direction="maximize")
    for index in range(20):
        study.sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence([5, index]).generate_state(1)[0]))
        trial = study.ask(SPACE)
        study.tell(trial, score(trial))
    assert params(ours) == params(study.trials)
    assert best_trial(ours).params == study.best_params
    assert len({str(trial.params) for trial in ours}) == 20


def test_tpe_beats_random_search():
    space = {name: FloatDistribution(-5, 5) for name in "abc"}
    ours, random = [], []
    for seed in range(3):
        trials = run_trials(open_study(None, seed=seed), space, lambda t: -sum(v**2 for v in t.params.values()), 50)
        ours.append(-best_trial(trials).value)
        draws = np.random.default_rng(seed).uniform(-5, 5, (50, 3))
        random.append((draws**2).sum(1).min())
    assert np.median(ours) < 0.5 * np.median(random)


def test_space_as_function_of_trial():
    def space(trial):
        depth = trial.suggest_int("depth", 1, 3)
        return {"widths": [trial.suggest_int(f"width{i}", 1, 9) for i in range(depth)]}

    seen = []
    run_trials(open_study(None), space, lambda trial: seen.append(trial.params["widths"]) or 0.0, 5)
    assert all(1 <= len(widths) <= 3 for widths in seen)
    assert {len(widths) for widths in seen} != {1}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_worker_releases_its_trial_on_error(error, tmp_path):
    uninterrupted = run_trials(open_study(None, seed=1), SPACE, score, 16)

    def fails(trial):
        if trial.number == 12:
            raise error("now")
        return score(trial)

    with pytest.raises(error):
        run_trials(open_study(tmp_path / "study.log", seed=1), SPACE, fails, 16)
    study = open_study(tmp_path / "study.log", seed=1)
    assert candidates(study)[-1].state.name == "WAITING"
    resumed = run_trials(study, SPACE, score, 16)
    assert params(resumed) == params(uninterrupted)
    assert [trial.value for trial in resumed] == [trial.value for trial in uninterrupted]


def test_extends_search(tmp_path):
    uninterrupted = run_trials(open_study(None), SPACE, score, 15)
    run_trials(open_study(tmp_path / "study.log"), SPACE, score, 6)
    assert params(run_trials(open_study(tmp_path / "study.log"), SPACE, score, 15)) == params(uninterrupted)
    assert run_trials(open_study(tmp_path / "study.log"), SPACE, None, 15)[-1].number == 14  # already complete


# -- failures --------------------------------------------------------------------------------------------


def test_failed_candidate_is_counted_and_search_continues():
    def objective(trial):
        if trial.number in (1, 3):
            raise ValueError("too wide") if trial.number == 1 else MemoryError()
        return float("nan") if trial.number == 4 else trial.params["x"]

    trials = run_trials(open_study(None), SPACE, objective, 7)
    failures = {trial.number: trial.user_attrs["failure"] for trial in trials if trial.state.name == "FAIL"}
    assert failures == {1: "ValueError: too wide", 3: "MemoryError: ", 4: "its score is nan"}
    assert len(trials) == 7


def test_raises_if_no_candidate_has_a_score():
    def objective(trial):
        raise ValueError(f"cause {trial.number}")

    with pytest.raises(ValueError, match=r"none of 3 candidates has a score; the first, .*'x'.*ValueError: cause 0"):
        run_trials(open_study(None), SPACE, objective, 3)
    with pytest.raises(ValueError, match="no candidate yet"):
        best_trial([])


def test_candidate_fails_after_three_dead_workers(tmp_path):
    runs = []

    def objective(trial):
        runs.append(trial.params["x"])
        if runs[0] == trial.params["x"]:
            raise OSError("the machine failed")
        return 1.0

    for _ in range(3):
        with pytest.raises(OSError, match="machine failed"):
            run_trials(open_study(tmp_path / "s"), SPACE, objective, 2)
    trials = run_trials(open_study(tmp_path / "s"), SPACE, objective, 2)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert len(runs) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "n_trials is 0, expected an integer >= 1"),
        ((1, 5, 5), "heartbeat_s < grace_s"),
        ((1, 0, 5), "0 < heartbeat_s"),
    ],
)
def test_rejects_arguments_out_of_range(arguments, message):
    n, *times = arguments
    with pytest.raises(ValueError, match=message):
        run_trials(open_study(None), SPACE, score, n, **dict(zip(("heartbeat_s", "grace_s"), times, strict=False)))


def test_rejects_invalid_spaces():
    with pytest.raises(TypeError, match=r"range of parameter 'lr' is \[1, 2\], expected an Optuna distribution"):
        run_trials(open_study(None), {"lr": [1, 2]}, score, 1)
    with pytest.raises(ValueError, match="search space is empty"):
        describe_space({})


# -- dead workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [None, optuna.trial.TrialState.FAIL], ids=["running", "failed"])
def test_trial_of_dead_worker_is_retried(state, tmp_path):
    """A worker was killed in the middle of a trial, or another between failing the trial and queueing its retry."""
    study = open_study(tmp_path / "study.log")
    number = leave_trial(study, 0.25, DEAD, state)
    seen = []
    trials = run_trials(study, SPACE, lambda trial: seen.append(trial.params["x"]) or 0.0, 3)
    assert seen[0] == 0.25
    assert len(seen) == 3
    assert trials[0].user_attrs == trials[0].user_attrs | {"retry_of": number, "attempt": 2}


def test_worker_of_other_machine_counts_as_dead_after_grace_period():
    study = open_study(None)
    leave_trial(study, 0.25, {"machine": "another", "pid": 1, "started": 1})
    leave_trial(study, 0.5, None)  # killed before it stored its process
    started, ends = time.monotonic(), {}
    run_trials(
        study, SPACE, lambda trial: ends.setdefault(trial.params["x"], time.monotonic()), 4,
        heartbeat_s=0.1, grace_s=0.6,
    )  # fmt: skip
    assert len(ends) == 4
    assert ends[0.25] - started > 0.6


def test_waits_for_worker_with_heartbeat(tmp_path):
    path, ends = tmp_path / "study.log", []
    times = {"heartbeat_s": 0.1, "grace_s": 5.0}

    def slowly(trial):
        time.sleep(5.5)
        ends.append("slow")
        return 0.0

    # The process of both workers is alive, so only the heartbeat matters.
    study = open_study(path)
    slow = threading.Thread(target=run_trials, args=(study, SPACE, slowly, 1), kwargs=times)
    slow.start()
    while not candidates(study):
        time.sleep(0.01)
    trials = run_trials(open_study(path), SPACE, lambda trial: ends.append("quick") or 0.0, 2, **times)
    slow.join()
    assert ends == ["quick", "slow"]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]


def test_runs_only_one_of_two_retries():
    study = open_study(None)
    number = leave_trial(study, 0.25, DEAD, optuna.trial.TrialState.FAIL)
    for _ in range(2):  # two workers queue a retry at once
        study.add_trial(worker_module.retry_of(study.trials[number]))
    seen = []
    run_trials(study, SPACE, lambda trial: seen.append(trial.params["x"]) or 0.0, 2)
    assert seen.count(0.25) == 1
    assert len(seen) == 2


def test_worker_with_fewer_trials_leaves_retries_to_others():
    study = open_study(None)
    numbers = [leave_trial(study, x, DEAD, optuna.trial.TrialState.FAIL) for x in (0.25, 0.5, 0.75)]
    for number in reversed(numbers):  # a worker with n_trials=1 finds the retry of the last candidate first
        study.add_trial(worker_module.retry_of(study.trials[number]))
    seen = []
    for n_trials in (1, 3):
        run_trials(study, SPACE, lambda trial: seen.append(trial.params["x"]) or 0.0, n_trials)
    assert seen[0] == 0.25
    assert sorted(seen) == [0.25, 0.5, 0.75]
    assert [trial.state.name for trial in candidates(study)] == ["COMPLETE"] * 3


def test_same_process_number_on_other_machine_is_not_dead(monkeypatch):
    """Outside Linux, machine and start time are unknown, and only the process number is stored."""
    monkeypatch.setattr("whirl.tuning.process._machine", lambda: None)
    monkeypatch.setattr("whirl.tuning.process._started", lambda pid: None)
    study = open_study(None)
    number = leave_trial(study, 0.25, {**this_process(), "claim": "other"})
    monitor = worker_module._LivenessMonitor(grace_s=60)
    assert not monitor.is_dead(study.trials[number])


def test_worker_with_reclaimed_trial_drops_its_result(tmp_path, caplog):
    open_study(tmp_path / "s")
    other, seen = optuna.load_study(study_name="search", storage=open_storage(tmp_path / "s")), []

    def objective(trial):
        seen.append(trial.params)
        if len(seen) == 1:
            other.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            trial.report(0.5, step=0)
            assert trial.is_lost
            assert trial.should_prune()
        return float(len(seen))

    trials = run_trials(open_study(tmp_path / "s"), SPACE, objective, 1)
    assert [trial.value for trial in trials] == [2.0]
    assert seen[0] == seen[1]
    assert "dropped" in caplog.text


def test_continues_if_trial_is_reclaimed_while_sampling():
    study, drawn = open_study(None), []

    def space(trial):
        drawn.append(trial.number)
        if trial.number == 0:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return {"x": trial.suggest_float("x", 0, 1)}

    trials = run_trials(study, space, lambda trial: trial.params["x"], 2)
    assert drawn == [0, 1, 2]
    assert [trial.number for trial in trials] == [1, 2]


def test_parallel_workers_run_each_candidate_once(tmp_path):
    seen = []

    def worker():
        run_trials(open_study(tmp_path / "study.log"), SPACE, lambda trial: seen.append(str(trial.params)) or 0.0, 12)

    threads = [threading.Thread(target=worker) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = open_study(tmp_path / "study.log")
    assert len(seen) == len(set(seen)) == 12
    assert sum(trial.state.name == "COMPLETE" for trial in study.trials) == 12
    assert all("cancelled" in trial.user_attrs for trial in study.trials if trial.state.name != "COMPLETE")


def test_signal_after_training_does_not_lose_score(monkeypatch):
    tell, calls = worker_module._Worker._tell, []

    def interrupted(*arguments):
        if not calls:
            calls.append(arguments)
            raise SystemExit(143)
        return tell(*arguments)

    monkeypatch.setattr(worker_module._Worker, "_tell", interrupted)
    study = open_study(None)
    with pytest.raises(SystemExit):
        run_trials(study, SPACE, lambda trial: 0.75, 1)
    assert [(trial.state.name, trial.value) for trial in study.trials] == [("COMPLETE", 0.75)]


def test_storing_a_score_waits_for_locked_storage(tmp_path):
    lock = JournalLock(tmp_path / "study.log")

    def objective(trial):
        lock.acquire()
        threading.Timer(0.5, lock.release).start()
        return 1.0

    started = time.monotonic()
    assert run_trials(open_study(tmp_path / "study.log"), SPACE, objective, 1)[0].value == 1.0
    assert time.monotonic() - started > 0.5


def test_first_of_equal_candidates_is_best_even_if_retried():
    study = open_study(None)
    leave_trial(study, 0.25, DEAD, optuna.trial.TrialState.FAIL)
    study.enqueue_trial({"x": 0.5})
    trials = run_trials(study, SPACE, lambda trial: 1.0, 2)
    assert [trial.params["x"] for trial in trials] == [0.25, 0.5]
    assert best_trial(trials).params["x"] == 0.25


def test_sigterm_releases_the_trial(tmp_path):
    def objective(trial):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0.0

    with pytest.raises(SystemExit, match="143"):
        run_trials(open_study(tmp_path / "s"), SPACE, objective, 2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert candidates(open_study(tmp_path / "s"))[0].state.name == "WAITING"


# -- ending early ----------------------------------------------------------------------------------------


def test_stop_ends_search_before_the_next_candidate():
    study = open_study(None)

    def stop_in_third(trial):
        if trial.number == 2:
            study.stop()
        return score(trial)

    assert len(run_trials(study, SPACE, stop_in_third, 9)) == 3
    assert len(run_trials(study, SPACE, score, 5)) == 5  # a later call continues the search


def test_patience_ends_search_without_progress():
    values = [1.0, 2.0, 2.0, 1.5, math.nan, 3.0]
    trials = run_trials(open_study(None), SPACE, lambda trial: values[trial.number], 6, patience=3)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]


def test_timeout_ends_search_after_a_candidate(monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("whirl.tuning.limits.time.monotonic", lambda: next(clock))
    assert 1 <= len(run_trials(open_study(None), SPACE, score, 50, timeout_s=100, grace_s=1e9)) < 50


def test_waiting_candidates_are_no_results_of_a_stopped_search():
    study = open_study(None)
    for x in (0.1, 0.2, 0.3):
        study.enqueue_trial({"x": x})

    def stop(trial):
        study.stop()
        return score(trial)

    assert [trial.params["x"] for trial in run_trials(study, SPACE, stop, 9)] == [0.1]


@pytest.mark.parametrize("storage", [False, True])
def test_initial_candidate_that_two_workers_enqueued_at_once_is_tried_once(storage, tmp_path):
    study = open_study(tmp_path / "study.log" if storage else None)
    for _ in range(2):  # both have seen an empty study
        study.enqueue_trial({"x": 0.25}, user_attrs={"initial": {"x": 0.25}})
    enqueue_first(study, {"x": 0.25})
    trials = run_trials(study, SPACE, score, 3)
    assert len(trials) == len({trial.params["x"] for trial in trials}) == 3
    assert trials[0].params["x"] == 0.25
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_retry_of_a_worker_that_died_before_drawing_keeps_enqueued_parameters(tmp_path):
    study = open_study(tmp_path / "study.log")
    study.enqueue_trial({"x": 0.25, "kind": "b"})
    trial = study.ask()
    trial.set_user_attr("worker", DEAD | {"host": "here", "claim": "", "heartbeat": 0, "is_drawn": False})
    first, *_ = run_trials(open_study(tmp_path / "study.log"), SPACE, score, 2)
    assert (first.params["x"], first.params["kind"]) == (0.25, "b")
