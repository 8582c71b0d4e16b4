"""Studies: where they are kept, what is refused, and that every candidate is tried to its end exactly once."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from whirl.training.trainer import Trainer
from whirl.tuning import journal
from whirl.tuning import storage as study_storage
from whirl.tuning import worker as module
from whirl.tuning.attempts import best_trial, candidates
from whirl.tuning.journal import JournalLock, StorageError
from whirl.tuning.process import this_process
from whirl.tuning.storage import open_storage
from whirl.tuning.study import describe_space, open_study
from whirl.tuning.trial import ReportToTrial, Trial
from whirl.tuning.worker import run_trials

SPACE = {
    "x": FloatDistribution(-5, 5),
    "kind": CategoricalDistribution(["a", "b", None]),
    "n": IntDistribution(1, 64, log=True),
}
DEAD = {**this_process(), "started": 1}  # this machine knows that such a process has ended


@pytest.fixture(autouse=True)
def quiet_optuna():
    optuna.logging.disable_default_handler()


def score(trial):
    return -((trial.params["x"] - 1) ** 2) + (trial.params["kind"] == "a")


def params(trials):
    return [trial.params for trial in trials]


def leave_trial(study, x, worker, state=None):
    """As a worker leaves it that dies in the middle of a trial; failed, if it is to be."""
    study.enqueue_trial({"x": x})
    trial = study.ask(SPACE)
    if worker is not None:
        trial.set_user_attr("worker", {"host": "here", "claim": "", "heartbeat": 3, "is_drawn": True} | worker)
    if state is not None:
        study.tell(trial, state=state)
    return trial.number


# -- drawing ---------------------------------------------------------------------------------------------


def test_candidates_are_those_of_a_plain_loop():
    ours = run_trials(open_study(None, seed=5), SPACE, score, 20)
    study = optuna.create_study(direction="maximize")
    for place in range(20):
        study.sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence([5, place]).generate_state(1)[0]))
        trial = study.ask(SPACE)
        study.tell(trial, score(trial))
    assert params(ours) == params(study.trials)
    assert best_trial(ours).params == study.best_params
    assert len({str(trial.params) for trial in ours}) == 20


def test_tpe_comes_nearer_than_random_draws():
    space = {name: FloatDistribution(-5, 5) for name in "abc"}
    ours, random = [], []
    for seed in range(3):
        trials = run_trials(open_study(None, seed=seed), space, lambda t: -sum(v**2 for v in t.params.values()), 50)
        ours.append(-best_trial(trials).value)
        draws = np.random.default_rng(seed).uniform(-5, 5, (50, 3))
        random.append((draws**2).sum(1).min())
    assert np.median(ours) < 0.5 * np.median(random)


def test_a_function_of_the_trial_is_a_space():
    def space(trial):
        depth = trial.suggest_int("depth", 1, 3)
        return {"widths": [trial.suggest_int(f"width{i}", 1, 9) for i in range(depth)]}

    seen = []
    run_trials(open_study(None), space, lambda trial: seen.append(trial.params["widths"]) or 0.0, 5)
    assert all(1 <= len(widths) <= 3 for widths in seen)
    assert {len(widths) for widths in seen} != {1}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_worker_that_ends_gives_its_trial_back(error, tmp_path):
    whole = run_trials(open_study(None, seed=1), SPACE, score, 16)

    def ends(trial):
        if trial.number == 12:
            raise error("now")
        return score(trial)

    with pytest.raises(error):
        run_trials(open_study(tmp_path / "study.log", seed=1), SPACE, ends, 16)
    study = open_study(tmp_path / "study.log", seed=1)
    assert candidates(study)[-1].state.name == "WAITING"
    resumed = run_trials(study, SPACE, score, 16)
    assert params(resumed) == params(whole)
    assert [trial.value for trial in resumed] == [trial.value for trial in whole]


def test_a_search_can_be_made_longer(tmp_path):
    whole = run_trials(open_study(None), SPACE, score, 15)
    run_trials(open_study(tmp_path / "study.log"), SPACE, score, 6)
    assert params(run_trials(open_study(tmp_path / "study.log"), SPACE, score, 15)) == params(whole)
    assert run_trials(open_study(tmp_path / "study.log"), SPACE, None, 15)[-1].number == 14  # nothing left to do


# -- failures --------------------------------------------------------------------------------------------


def test_a_candidate_that_fails_is_counted_and_the_search_goes_on():
    def objective(trial):
        if trial.number in (1, 3):
            raise ValueError("too wide") if trial.number == 1 else MemoryError()
        return float("nan") if trial.number == 4 else trial.params["x"]

    trials = run_trials(open_study(None), SPACE, objective, 7)
    failures = {trial.number: trial.user_attrs["failure"] for trial in trials if trial.state.name == "FAIL"}
    assert failures == {1: "ValueError: too wide", 3: "MemoryError: ", 4: "its score is nan"}
    assert len(trials) == 7


def test_no_candidate_with_a_score():
    def objective(trial):
        raise ValueError(f"cause {trial.number}")

    with pytest.raises(ValueError, match=r"none of 3 candidates has a score; the first, .*'x'.*ValueError: cause 0"):
        run_trials(open_study(None), SPACE, objective, 3)
    with pytest.raises(ValueError, match="no candidate yet"):
        best_trial([])


def test_a_candidate_that_kills_its_workers_is_given_up(tmp_path):
    runs = []

    def objective(trial):
        runs.append(trial.params["x"])
        if runs[0] == trial.params["x"]:
            raise OSError("the machine fails")
        return 1.0

    for _ in range(3):
        with pytest.raises(OSError, match="machine fails"):
            run_trials(open_study(tmp_path / "s"), SPACE, objective, 2)
    trials = run_trials(open_study(tmp_path / "s"), SPACE, objective, 2)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert len(runs) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0,), "n_trials >= 1"), ((1, 5, 5), "heartbeat_s < grace_s"), ((1, 0, 5), "0 < heartbeat_s")],
)
def test_arguments_out_of_range(arguments, words):
    n, *times = arguments
    with pytest.raises(ValueError, match=words):
        run_trials(open_study(None), SPACE, score, n, **dict(zip(("heartbeat_s", "grace_s"), times, strict=False)))


def test_spaces_that_are_none():
    with pytest.raises(TypeError, match=r"'lr': expected an Optuna distribution, got \[1, 2\]"):
        run_trials(open_study(None), {"lr": [1, 2]}, score, 1)
    with pytest.raises(ValueError, match="no parameter"):
        describe_space({})


# -- dead workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [None, optuna.trial.TrialState.FAIL], ids=["running", "failed"])
def test_what_a_dead_worker_left_is_run_again(state, tmp_path):
    """Killed in the middle of a trial, or a watcher was killed between failing it and queueing it anew."""
    study = open_study(tmp_path / "study.log")
    left = leave_trial(study, 0.25, DEAD, state)
    seen = []
    trials = run_trials(study, SPACE, lambda trial: seen.append(trial.params["x"]) or 0.0, 3)
    assert seen[0] == 0.25
    assert len(seen) == 3
    assert trials[0].user_attrs == trials[0].user_attrs | {"retry_of": left, "attempt": 2}


def test_a_silent_worker_of_another_machine_is_granted_its_grace():
    study = open_study(None)
    leave_trial(study, 0.25, {"machine": "another", "pid": 1, "started": 1})
    leave_trial(study, 0.5, None)  # killed before it said who it was
    begun, ends = time.monotonic(), {}
    run_trials(
        study, SPACE, lambda trial: ends.setdefault(trial.params["x"], time.monotonic()), 4,
        heartbeat_s=0.1, grace_s=0.6,
    )  # fmt: skip
    assert len(ends) == 4
    assert ends[0.25] - begun > 0.6


def test_a_beating_worker_is_waited_for(tmp_path):
    path, ends = tmp_path / "study.log", []
    times = {"heartbeat_s": 0.1, "grace_s": 2.0}

    def slowly(trial):
        time.sleep(2.5)
        ends.append("slow")
        return 0.0

    # Its process lives; so only its beat tells.
    study = open_study(path)
    slow = threading.Thread(target=run_trials, args=(study, SPACE, slowly, 1), kwargs=times)
    slow.start()
    while not candidates(study):
        time.sleep(0.01)
    trials = run_trials(open_study(path), SPACE, lambda trial: ends.append("quick") or 0.0, 2, **times)
    slow.join()
    assert ends == ["quick", "slow"]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]


def test_of_two_successors_one_is_run():
    study = open_study(None)
    number = leave_trial(study, 0.25, DEAD, optuna.trial.TrialState.FAIL)
    for _ in range(2):  # two watchers at once
        study.add_trial(module.retry_of(study.trials[number]))
    seen = []
    run_trials(study, SPACE, lambda trial: seen.append(trial.params["x"]) or 0.0, 2)
    assert seen.count(0.25) == 1
    assert len(seen) == 2


def test_a_worker_that_wants_fewer_candidates_takes_none_from_others():
    study = open_study(None)
    numbers = [leave_trial(study, x, DEAD, optuna.trial.TrialState.FAIL) for x in (0.25, 0.5, 0.75)]
    for number in reversed(numbers):  # a worker that wants one alone meets the last one's successor first
        study.add_trial(module.retry_of(study.trials[number]))
    seen = []
    for n_trials in (1, 3):
        run_trials(study, SPACE, lambda trial: seen.append(trial.params["x"]) or 0.0, n_trials)
    assert seen[0] == 0.25
    assert sorted(seen) == [0.25, 0.5, 0.75]
    assert [trial.state.name for trial in candidates(study)] == ["COMPLETE"] * 3


def test_another_machine_may_have_the_same_process_number(monkeypatch):
    """Where the system does not name machines, as outside Linux, a process's number is all there is."""
    monkeypatch.setattr("whirl.tuning.process._machine", lambda: None)
    monkeypatch.setattr("whirl.tuning.process._started", lambda pid: None)
    study = open_study(None)
    left = leave_trial(study, 0.25, {**this_process(), "claim": "another's"})
    watch = module._LivenessMonitor(grace_s=60)
    assert not watch.is_dead(study.trials[left])


def test_a_worker_taken_for_dead_drops_its_result(tmp_path, caplog):
    other, seen = (
        optuna.load_study(study_name="search", storage=(open_study(tmp_path / "s"), open_storage(tmp_path / "s"))[1]),
        [],
    )

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


def test_a_worker_taken_for_dead_while_it_draws_goes_on():
    study, drawn = open_study(None), []

    def space(trial):
        drawn.append(trial.number)
        if trial.number == 0:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return {"x": trial.suggest_float("x", 0, 1)}

    trials = run_trials(study, space, lambda trial: trial.params["x"], 2)
    assert drawn == [0, 1, 2]
    assert [trial.number for trial in trials] == [1, 2]


def test_many_workers_try_each_candidate_once(tmp_path):
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


def test_a_signal_that_comes_when_the_score_is_there_does_not_lose_it(monkeypatch):
    tell, asked = module._Worker._tell, []

    def interrupted(*arguments):
        if not asked:
            asked.append(arguments)
            raise SystemExit(143)
        return tell(*arguments)

    monkeypatch.setattr(module._Worker, "_tell", interrupted)
    study = open_study(None)
    with pytest.raises(SystemExit):
        run_trials(study, SPACE, lambda trial: 0.75, 1)
    assert [(trial.state.name, trial.value) for trial in study.trials] == [("COMPLETE", 0.75)]


def test_a_score_waits_for_a_storage_that_is_locked(tmp_path):
    lock = JournalLock(tmp_path / "study.log")

    def objective(trial):
        lock.acquire()
        threading.Timer(0.5, lock.release).start()
        return 1.0

    begun = time.monotonic()
    assert run_trials(open_study(tmp_path / "study.log"), SPACE, objective, 1)[0].value == 1.0
    assert time.monotonic() - begun > 0.5


def test_the_first_candidate_of_equals_is_best_though_it_was_tried_again():
    study = open_study(None)
    leave_trial(study, 0.25, DEAD, optuna.trial.TrialState.FAIL)
    study.enqueue_trial({"x": 0.5})
    trials = run_trials(study, SPACE, lambda trial: 1.0, 2)
    assert [trial.params["x"] for trial in trials] == [0.25, 0.5]
    assert best_trial(trials).params["x"] == 0.25


# -- pruning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["median", "hyperband", None])
def test_a_bad_training_is_ended_early(pruner):
    torch.manual_seed(0)
    signals = torch.randn(64, 1, 8)
    batch = (signals, (signals.mean((1, 2)) > 0).long())

    def objective(trial):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        report = ReportToTrial(trial)
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"])
        trainer = Trainer(model, [batch], [batch], optimizer=optimizer, device="cpu", callbacks=[report])
        trainer.fit(9)
        epochs[trial.number] = trainer.state.epoch
        assert report.pruned == (trainer.state.epoch < 9)
        return trainer.state.history["val_accuracy"][-1]

    epochs = {}
    study = open_study(None, pruner=pruner)
    for lr in [3.0, 1.0, 2.0, 1.5, 2.5, 3.5, 1e-9, 1e-9]:
        study.enqueue_trial({"lr": lr})
    trials = run_trials(study, {"lr": FloatDistribution(1e-9, 10, log=True)}, objective, 8)
    pruned = {trial.number for trial in trials if trial.state.name == "PRUNED"}
    assert pruned == {number for number, n_epochs in epochs.items() if n_epochs < 9}
    assert bool(pruned) == (pruner is not None)
    assert best_trial(trials).number not in {6, 7}
    if pruner == "median":
        assert pruned >= {6, 7}


@pytest.mark.parametrize(("n_epochs", "ended_in"), [(2, None), (3, None), (4, 2), (9, 6)])
def test_nothing_is_ended_in_the_first_two_thirds_nor_in_the_last_epoch(n_epochs, ended_in):
    class Doomed(Trial):
        def should_prune(self):
            return True

    trial = Doomed(0, {})
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    batch = (torch.randn(4, 1, 8), torch.tensor([0, 1, 0, 1]))
    trainer = Trainer(model, [batch], [batch], device="cpu", callbacks=[ReportToTrial(trial)])
    trainer.fit(n_epochs)
    assert trial.is_pruned == (ended_in is not None)
    assert trainer.state.epoch == (n_epochs if ended_in is None else ended_in + 1)


def test_a_metric_that_is_not_reported():
    trial = Trial(0, {})
    with pytest.raises(ValueError, match="no 'val_f1' to report, only loss"):
        ReportToTrial(trial, "val_f1").on_epoch_end(0, {"loss": 1.0})


def test_trial_pruned_counts_as_pruned():
    def objective(trial):
        trial.report(0.3, step=0)
        if trial.number == 1:
            raise optuna.TrialPruned
        return 1.0

    assert [t.state.name for t in run_trials(open_study(None), SPACE, objective, 2)] == ["COMPLETE", "PRUNED"]


# -- storages --------------------------------------------------------------------------------------------


def test_a_database(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    run_trials(open_study(url), SPACE, score, 3)
    assert len(run_trials(open_study(url), SPACE, score, 5)) == 5


SERVER = """
import sys, optuna
optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(sys.argv[1]), host="localhost", port=int(sys.argv[2]))
"""


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_proxy(tmp_path):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", SERVER, f"sqlite:///{tmp_path}/study.db", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        run_trials(open_study(f"grpc://localhost:{port}"), SPACE, score, 3)
        assert len(run_trials(open_study(f"grpc://localhost:{port}"), SPACE, score, 5)) == 5
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("storage", "error", "words"),
    [
        ("nothing://here", ValueError, "nothing://... is not a database's URL"),
        ("grpc://localhost", ValueError, "expected grpc://host:port"),
        ("sqlite:////proc/none/study.db", OSError, "sqlite:////proc/none/study.db cannot be used: .*unable to open"),
        ("/proc/none/study.log", OSError, "/proc/none"),
        ("/proc/version/study.log", OSError, "kept in /proc/version/study.log"),
        ("/proc", OSError, "kept in /proc"),
        ("mysql+pymysql://user:secret@localhost/x", ImportError, r"driver of mysql\+pymysql://user:\*\*\*@localhost/x"),
    ],
    ids=["scheme", "port", "sqlite", "folder", "file", "directory", "driver"],
)
def test_storages_that_cannot_be(storage, error, words):
    with pytest.raises(error, match=words):
        open_storage(storage)


def test_a_proxy_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(study_storage, "CONNECT_S", 0.2)
    with pytest.raises(ConnectionError, match=r"no gRPC proxy of Optuna answers at localhost:1 within 0\.2 s"):
        open_storage("grpc://localhost:1")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: [*lines[:3], b"{\n", *lines[4:]], 4),
        (lambda lines: [*lines, b"{}\n"], None),
        (lambda lines: [b"lr: 0.1\n"], 1),
        (lambda lines: [b"PK\x03\x04"], 1),
        (lambda lines: [lines[0].replace(b'"op_code":0', b'"op_code":99')], None),
    ],
    ids=["middle", "last", "text", "archive", "operation"],
)
def test_a_spoilt_journal_is_named_and_left_alone(spoil, line, tmp_path):
    path = tmp_path / "study.log"
    run_trials(open_study(path), SPACE, score, 1)
    path.write_bytes(before := b"".join(spoil(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(StorageError, match=f"study.log: line {line} is not a record" if line else "study.log"):
        open_study(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 2, 9, "zeros"])
def test_an_unfinished_last_line_is_survived(cut, tmp_path):
    """As a crash leaves it; nothing whole is lost, and Optuna's own reader takes the file afterwards."""
    path = tmp_path / "study.log"
    whole = run_trials(open_study(None), SPACE, score, 5)
    run_trials(open_study(path), SPACE, score, 3)
    journal = path.read_bytes()
    path.write_bytes(journal + b"\0" * 50 if cut == "zeros" else journal[:-cut])
    assert params(run_trials(open_study(path), SPACE, score, 5)) == params(whole)
    stock = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    trials = optuna.load_study(study_name="search", storage=stock).trials
    assert [t.params for t in trials if t.state.name == "COMPLETE"] == params(whole)
    # A record that lacks nothing but the line's end counts: the third score.
    assert len(trials) == (6 if cut in (2, 9) else 5)


def test_a_journal_that_is_mended_while_it_is_read_is_not_spoilt(tmp_path, monkeypatch):
    path, judge = tmp_path / "study.log", journal._is_record
    path.write_text('{"op_code":0}\n{"op_co')

    def mend_then_judge(line):
        if path.read_text().endswith("co"):  # all of it is in the reader's buffer, and another comes
            path.write_text('{"op_code":0}\n       {"op_code":1}\n')
        return judge(line)

    monkeypatch.setattr(journal, "_is_record", mend_then_judge)
    journal.check_journal(path)
    journal.check_journal(path)


def test_a_journal_that_is_removed_is_not_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "PATIENCE_S", 0.1)
    monkeypatch.setattr(module, "RELEASE_TIMEOUT_S", 0.1)

    def objective(trial):
        (tmp_path / "study.log").unlink()
        return 0.75

    with pytest.raises(OSError, match=r"the score 0.75 of trial 0, .*'x'.* was not stored: .*study.log"):
        run_trials(open_study(tmp_path / "study.log"), SPACE, objective, 1)


def test_a_score_that_was_not_stored_is_found_at_once_by_the_same_process(tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "PATIENCE_S", 0.1)
    monkeypatch.setattr(module, "RELEASE_TIMEOUT_S", 0.1)
    path, aside = tmp_path / "study.log", tmp_path / "aside"
    with pytest.raises(OSError, match="was not stored"):
        run_trials(open_study(path), SPACE, lambda trial: path.rename(aside) and 0.5, 1)
    aside.rename(path)
    begun = time.monotonic()
    assert run_trials(open_study(path), SPACE, lambda trial: 0.5, 1)[0].number == 1
    assert time.monotonic() - begun < 5


def test_a_lock_whose_owner_has_ended_is_taken_over(tmp_path):
    (tmp_path / "study.log.lock").write_text(json.dumps(DEAD))
    begun = time.monotonic()
    open_study(tmp_path / "study.log")
    assert time.monotonic() - begun < 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["study.log"]


@pytest.mark.parametrize("owner", ["", '"text"', json.dumps({"machine": "another", "pid": 1, "started": 1})])
def test_a_lock_that_stays(owner, tmp_path, monkeypatch):
    path = tmp_path / "study.log.lock"
    path.write_text(owner)
    with pytest.raises(TimeoutError, match=r"study.log.lock has locked the study for 0.2 s; delete it"):
        JournalLock(tmp_path / "study.log", wait_s=0.2).acquire()
    assert path.read_text() == owner
    monkeypatch.setattr("whirl.tuning.journal.LOCK_GRACE_S", 0.1)
    lock = JournalLock(tmp_path / "study.log", wait_s=2.0)
    assert lock.acquire()
    lock.release()
    assert not path.exists()


def test_a_lock_that_cannot_be_written_is_left_to_nobody(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (0, before[1])
    )  # a file can be made, but nothing written, as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            JournalLock(tmp_path / "study.log").acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_who_waits_for_a_lock_does_not_take_it_from_its_owner(tmp_path):
    lock = JournalLock(tmp_path / "study.log", wait_s=0.05)
    lock.acquire()
    with pytest.raises(TimeoutError):
        lock.acquire()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_is_kept_by_who_lives(tmp_path):
    locks, counts = [JournalLock(tmp_path / "study.log") for _ in range(4)], []

    def count(lock):
        for _ in range(20):
            lock.acquire()
            counts.append(len(counts))
            (tmp_path / "inside").touch(exist_ok=False)
            (tmp_path / "inside").unlink()
            lock.release()

    threads = [threading.Thread(target=count, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == list(range(80))


def test_a_study_with_other_settings_is_not_joined(tmp_path):
    path = tmp_path / "study.log"
    fingerprint = {"model": "wdcnn", "space": describe_space(SPACE), "classes": ["a", "b"]}
    open_study(path, fingerprint=fingerprint)
    open_study(path, fingerprint=fingerprint)
    narrower = describe_space(SPACE | {"x": FloatDistribution(-4, 5)})
    with pytest.raises(
        ValueError, match=r"other settings \(space.x.low: -5.0 there, -4.0 here; pruner: median there, None"
    ):
        open_study(path, pruner=None, fingerprint=fingerprint | {"space": narrower})
    with pytest.raises(ValueError, match="classes: nothing there, a here"):
        open_study(path, "second", fingerprint={"classes": "a"}) and open_study(path, "third") and open_study(
            path, "third", fingerprint={"classes": "a"}
        )


def test_studies_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown pruner 'best', expected one of median, hyperband"):
        open_study(None, pruner="best")
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        open_study(None, seed=-1)
    optuna.create_study(storage=open_storage(tmp_path / "s"), study_name="search")
    with pytest.raises(ValueError, match="minimises"):
        open_study(tmp_path / "s")


def test_sigterm_gives_the_trial_back(tmp_path):
    def objective(trial):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0.0

    with pytest.raises(SystemExit, match="143"):
        run_trials(open_study(tmp_path / "s"), SPACE, objective, 2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert candidates(open_study(tmp_path / "s"))[0].state.name == "WAITING"
