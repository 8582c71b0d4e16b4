"""Tests of storages: databases, proxies, and journals after crashes."""

import json
import math
import resource
import socket
import subprocess
import sys
import threading

import optuna
import pytest

from tests.tuning.studies import DEAD, SPACE, params, score
from whirl.tuning import journal
from whirl.tuning import storage as study_storage
from whirl.tuning import worker as worker_module
from whirl.tuning.journal import JournalLock, StorageError
from whirl.tuning.storage import open_storage
from whirl.tuning.study import open_study
from whirl.tuning.worker import run_trials


def test_database_storage(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    run_trials(open_study(url), SPACE, score, 3)
    assert len(run_trials(open_study(url), SPACE, score, 5)) == 5


SERVER = """
import sys, optuna
optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(sys.argv[1]), host="localhost", port=int(sys.argv[2]))
"""


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_grpc_proxy_storage(tmp_path):
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
    ("storage", "error", "message"),
    [
        ("nothing://here", ValueError, "nothing://... is not the URL of a database"),
        ("grpc://localhost", ValueError, "expected grpc://host:port"),
        ("sqlite:////proc/none/study.db", OSError, "sqlite:////proc/none/study.db cannot be used: .*unable to open"),
        ("/proc/none/study.log", OSError, "/proc/none"),
        ("/proc/version/study.log", OSError, "stored in /proc/version/study.log"),
        ("/proc", OSError, "stored in /proc"),
        ("mysql+pymysql://user:secret@localhost/x", ImportError, r"driver of mysql\+pymysql://user:\*\*\*@localhost/x"),
    ],
    ids=["scheme", "port", "sqlite", "folder", "file", "directory", "driver"],
)
def test_rejects_unusable_storage(storage, error, message):
    with pytest.raises(error, match=message):
        open_storage(storage)


def test_raises_if_grpc_proxy_does_not_respond(monkeypatch):
    monkeypatch.setattr(study_storage, "CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(ConnectionError, match=r"no gRPC proxy of Optuna responded at localhost:1 within 0\.2 s"):
        open_storage("grpc://localhost:1")


@pytest.mark.parametrize(
    ("corrupt", "line"),
    [
        (lambda lines: [*lines[:3], b"{\n", *lines[4:]], 4),
        (lambda lines: [*lines, b"{}\n"], None),
        (lambda lines: [b"lr: 0.1\n"], 1),
        (lambda lines: [b"PK\x03\x04"], 1),
        (lambda lines: [lines[0].replace(b'"op_code":0', b'"op_code":99')], None),
    ],
    ids=["middle", "last", "text", "archive", "operation"],
)
def test_corrupt_journal_is_reported_and_not_modified(corrupt, line, tmp_path):
    path = tmp_path / "study.log"
    run_trials(open_study(path), SPACE, score, 1)
    path.write_bytes(before := b"".join(corrupt(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(StorageError, match=f"study.log: line {line} is not a record" if line else "study.log"):
        open_study(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 2, 9, "zeros"])
def test_recovers_from_truncated_last_line(cut, tmp_path):
    """After a crash no complete record is lost, and Optuna's own reader accepts the repaired file."""
    path = tmp_path / "study.log"
    uninterrupted = run_trials(open_study(None), SPACE, score, 5)
    run_trials(open_study(path), SPACE, score, 3)
    journal = path.read_bytes()
    path.write_bytes(journal + b"\0" * 50 if cut == "zeros" else journal[:-cut])
    assert params(run_trials(open_study(path), SPACE, score, 5)) == params(uninterrupted)
    stock = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    trials = optuna.load_study(study_name="search", storage=stock).trials
    assert [t.params for t in trials if t.state.name == "COMPLETE"] == params(uninterrupted)
    # A record that only lacks its line break counts: the third score.
    assert len(trials) == (6 if cut in (2, 9) else 5)


def test_journal_repaired_while_being_read_is_not_corrupt(tmp_path, monkeypatch):
    path, is_record = tmp_path / "study.log", journal._is_record
    path.write_text('{"op_code":0}\n{"op_co')

    def repair_then_check(line):
        if path.read_text().endswith("co"):  # the reader has buffered the file when another worker repairs it
            path.write_text('{"op_code":0}\n       {"op_code":1}\n')
        return is_record(line)

    monkeypatch.setattr(journal, "_is_record", repair_then_check)
    journal.check_journal(path)
    journal.check_journal(path)


def test_removed_journal_is_not_created_again(tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "RETRY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(worker_module, "RELEASE_TIMEOUT_S", 0.1)

    def objective(trial):
        (tmp_path / "study.log").unlink()
        return 0.75

    with pytest.raises(OSError, match=r"the score 0.75 of trial 0, .*'x'.* was not stored: .*study.log"):
        run_trials(open_study(tmp_path / "study.log"), SPACE, objective, 1)


def test_process_retries_trial_whose_score_it_could_not_store(tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "RETRY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(worker_module, "RELEASE_TIMEOUT_S", 0.1)
    path, moved = tmp_path / "study.log", tmp_path / "moved"
    with pytest.raises(OSError, match="was not stored"):
        run_trials(open_study(path), SPACE, lambda trial: path.rename(moved) and 0.5, 1)
    moved.rename(path)
    assert run_trials(open_study(path), SPACE, lambda trial: 0.5, 1, grace_s=1e9)[0].number == 1


def test_breaks_lock_of_exited_process(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "LOCK_GRACE_S", math.inf)
    (tmp_path / "study.log.lock").write_text(json.dumps(DEAD))
    open_study(tmp_path / "study.log")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["study.log"]


@pytest.mark.parametrize("owner", ["", '"text"', json.dumps({"machine": "another", "pid": 1, "started": 1})])
def test_waits_for_lock_until_timeout_or_grace_period(owner, tmp_path, monkeypatch):
    path = tmp_path / "study.log.lock"
    path.write_text(owner)
    with pytest.raises(TimeoutError, match=r"study.log.lock has been locked for 0.2 s; delete it"):
        JournalLock(tmp_path / "study.log", wait_s=0.2).acquire()
    assert path.read_text() == owner
    monkeypatch.setattr("whirl.tuning.journal.LOCK_GRACE_S", 0.1)
    lock = JournalLock(tmp_path / "study.log", wait_s=60.0)
    assert lock.acquire()
    lock.release()
    assert not path.exists()


def test_removes_lock_file_that_cannot_be_written(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file can be created but not written, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            JournalLock(tmp_path / "study.log").acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_timeout_does_not_remove_lock_of_owner(tmp_path):
    lock = JournalLock(tmp_path / "study.log", wait_s=0.05)
    lock.acquire()
    with pytest.raises(TimeoutError):
        lock.acquire()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_lock_is_exclusive(tmp_path):
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
