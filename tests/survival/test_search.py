"""Searches whose workers are killed: every candidate is evaluated exactly once."""

import json
import os
import random
import signal
import sys
import time
from collections import Counter

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import nn

from tests.survival.killing import TIMEOUT_S, end_group, in_own_process
from whirl.engine.distributed import process_group, rank
from whirl.training.trainer import Trainer
from whirl.tuning.attempts import best_trial
from whirl.tuning.study import open_study
from whirl.tuning.trial import ReportToTrial
from whirl.tuning.worker import run_trials

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals"),
    pytest.mark.timeout(3600),
]
SPACE = {"x": FloatDistribution(-5, 5), "kind": CategoricalDistribution(["a", "b"])}
N_TRIALS = 14


def score(params):
    return -((params["x"] - 1) ** 2) + (params["kind"] == "a")


def search(folder, kill_in=None, storage=None, n_trials=N_TRIALS, wait_for=None):
    """Run trials and record them in a log; kill this process during the `kill_in`th trial that it starts.

    A worker with `wait_for` starts its third trial only when that file exists.
    """
    optuna.logging.disable_default_handler()
    started = []

    def objective(trial):
        started.append(trial.number)
        write(folder, "started", trial)
        if len(started) == kill_in:
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if wait_for is not None and len(started) == 3:
            until = time.monotonic() + TIMEOUT_S
            while not wait_for.exists():
                assert time.monotonic() < until
                time.sleep(0.01)
        write(folder, "done", trial)
        return score(trial.params)

    study = open_study(storage or folder / "study.log", seed=7)
    run_trials(study, SPACE, objective, n_trials, heartbeat_s=0.5, grace_s=30)


def write(folder, event, trial):
    with (folder / "trials.log").open("a") as file:
        file.write(json.dumps([event, trial.number, trial.params, os.getpid()]) + "\n")


def logged(folder, event):
    lines = map(json.loads, (folder / "trials.log").read_text().splitlines())
    return [line for line in lines if line[0] == event]


def completed(folder, storage=None):
    return [
        trial for trial in open_study(storage or folder / "study.log", seed=7).trials if trial.state.name == "COMPLETE"
    ]


def check_each_evaluated_once(folder, storage=None):
    done = Counter(json.dumps(params) for _, _, params, _ in logged(folder, "done"))
    assert len(done) == N_TRIALS
    assert set(done.values()) == {1}
    trials = completed(folder, storage)
    assert Counter(json.dumps(trial.params) for trial in trials) == done
    assert all(trial.value == score(trial.params) for trial in trials)
    assert {json.dumps(params) for _, _, params, _ in logged(folder, "started")} == set(done)


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_one_of_two_workers_is_killed_during_a_trial(kind, tmp_path):
    storage = None if kind == "journal" else f"sqlite:///{tmp_path}/study.db"
    workers = [
        in_own_process(search, tmp_path, 3, storage),
        in_own_process(search, tmp_path, None, storage, N_TRIALS, tmp_path / "killed"),
    ]
    for worker in workers:
        worker.join(TIMEOUT_S)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0]
    check_each_evaluated_once(tmp_path, storage)
    assert len(logged(tmp_path, "started")) == N_TRIALS + 1
    assert len({pid for *_, pid in logged(tmp_path, "done")}) == 2


@pytest.mark.parametrize("kill_in", [2, 13])
def test_restarted_worker_draws_the_same_candidates(kill_in, tmp_path):
    worker = in_own_process(search, tmp_path, kill_in)
    worker.join(TIMEOUT_S)
    assert worker.exitcode == -signal.SIGKILL
    search(tmp_path)
    uninterrupted = run_trials(open_study(None, seed=7), SPACE, lambda trial: score(trial.params), N_TRIALS)
    assert [trial.params for trial in completed(tmp_path)] == [trial.params for trial in uninterrupted]
    check_each_evaluated_once(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_workers_are_killed_at_random_times(seed, tmp_path):
    """Killed from outside, until the study is finished."""
    draw, n_killed = random.Random(seed), 0
    until = time.monotonic() + TIMEOUT_S
    workers = [in_own_process(search, tmp_path, None, None, 40) for _ in range(3)]
    while any(worker.exitcode != 0 for worker in workers):
        assert time.monotonic() < until
        time.sleep(draw.uniform(0, 0.4))
        i = draw.randrange(3)
        if n_killed < 12 and workers[i].exitcode is None:
            end_group(workers[i])
            n_killed += 1
            workers[i] = in_own_process(search, tmp_path, None, None, 40)
    trials = completed(tmp_path)
    assert len(trials) == 40
    assert all(trial.value == score(trial.params) for trial in trials)
    assert len({json.dumps(trial.params) for trial in trials}) == 40


def search_on_ranks(folder):
    """Both ranks train each candidate; the pruner stops unpromising ones; the third candidate fails on both."""
    torch.set_num_threads(1)
    optuna.logging.disable_default_handler()
    torch.manual_seed(0)
    signals = torch.randn(64, 1, 8)
    batch = (signals, (signals.mean((1, 2)) > 0).long())

    def objective(trial):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"])
        report = ReportToTrial(trial)
        trainer = Trainer(model, [batch], [batch], optimizer=optimizer, device="cpu", callbacks=[report])
        trainer.fit(4)
        with (folder / f"rank{rank()}").open("a") as file:
            file.write(json.dumps([trial.number, trial.params, trainer.state.epoch, report.pruned]) + "\n")
        if trial.number == 2:
            raise ValueError("on both")
        return trainer.state.history["val_accuracy"][-1]

    with process_group(torch.device("cpu")):
        study = open_study(folder / "study.log", seed=1)
        assert (study is None) == (rank() == 1)
        trials = run_trials(study, {"lr": FloatDistribution(1e-9, 10, log=True)}, objective, 12)
        (folder / f"best{rank()}").write_text(json.dumps(best_trial(trials).params))


def launch(folder):
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", max_restarts=0, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", monitor_interval=0.05,
    )  # fmt: skip
    elastic_launch(config, search_on_ranks)(folder)


def test_two_ranks_train_the_same_candidates_and_stop_together(tmp_path):
    process = in_own_process(launch, tmp_path)
    process.join(TIMEOUT_S)
    ended = process.exitcode
    end_group(process)
    assert ended == 0
    ranks = [(tmp_path / f"rank{i}").read_text().splitlines() for i in range(2)]
    assert ranks[0] == ranks[1]
    runs = [json.loads(line) for line in ranks[0]]
    trials = open_study(tmp_path / "study.log", seed=1).trials
    assert [number for number, *_ in runs] == list(range(12)) == [trial.number for trial in trials]
    assert [params for _, params, *_ in runs] == [trial.params for trial in trials]
    pruned = [number for number, _, epochs, is_pruned in runs if is_pruned and epochs < 4]
    assert pruned == [trial.number for trial in trials if trial.state.name == "PRUNED"] != []
    assert trials[2].user_attrs["failure"] == "ValueError: on both"
    assert (tmp_path / "best0").read_text() == (tmp_path / "best1").read_text()
