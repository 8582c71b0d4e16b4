"""One folder has one writer, and a kill at any moment leaves a folder that can be used."""

import errno
import itertools
import json
import os
import runpy
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from tempfile import mkdtemp
from types import ModuleType

import numpy as np
import pytest

from whirl import _locks
from whirl._locks import LOCK, locked
from whirl.data import dataset
from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.recording import Recording
from whirl.engine import files
from whirl.engine.callbacks import Callback
from whirl.runs.evaluation import evaluate
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import train

SETTINGS = {"model": "cnn1d", "window": 512, "epochs": 2, "device": "cpu", "threads": 1}
HOLD = """
import sys, pathlib
from whirl._locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "recordings"
    rng = np.random.default_rng(0)
    save_dataset(
        (
            Recording(rng.normal(size=2048), 2048, label=label, specimen=f"{label}{index}")
            for label in ("healthy", "wear")
            for index in range(4)
        ),
        folder,
    )
    return folder


def test_lock_of_windows_keeps_the_position(tmp_path, monkeypatch):
    """A table is read and cut off after it was locked; msvcrt locks from the position on."""
    positions = []
    msvcrt = ModuleType("msvcrt")
    msvcrt.LK_NBLCK = 2
    msvcrt.locking = lambda descriptor, mode, n_bytes: positions.append(os.lseek(descriptor, 0, os.SEEK_CUR))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "msvcrt", msvcrt)
        patch.setattr(os, "name", "nt")
        lock_descriptor = runpy.run_path(_locks.__file__)["lock_descriptor"]
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    (tmp_path / "table.csv").write_text("file\n")
    with (tmp_path / "table.csv").open("r+b") as file:
        lock_descriptor(file.fileno())
        assert file.read() == b"file\n"
    assert positions[0] > 2**20


@contextmanager
def holding(folder):
    """Start another process that holds the lock of a folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
        process.communicate()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    with holding(tmp_path / "run") as process:
        yield process


def test_second_writer_is_refused_by_name(holder, data, tmp_path):
    message = rf"run: is in use by process {holder.pid} on '.+'; wait for it or choose another --out"
    with pytest.raises(ValueError, match=message), locked(tmp_path / "run"):
        pass
    with pytest.raises(ValueError, match=message):
        train(data, out=tmp_path / "run", **SETTINGS)
    holder.kill()
    holder.wait()
    with locked(tmp_path / "run"):  # a lock ends with its process
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


class Remove(Callback):
    """Moves a folder away after a batch, and counts the batches."""

    def __init__(self, folder):
        self.folder, self.n_batches = folder, 0

    def on_batch_end(self, batch, logs=None):
        self.n_batches += 1
        if self.n_batches == 2:
            self.folder.rename(self.folder.with_name("moved"))


@pytest.mark.parametrize(("every", "n_batches"), [(None, 7), (3, 3)])
def test_deleted_folder_is_noticed_at_the_next_checkpoint(every, n_batches, data, tmp_path):
    """An epoch has 7 batches."""
    remove = Remove(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run: the folder was deleted or replaced while this process used it"):
        train(data, out=tmp_path / "run", callbacks=[remove], batch_size=4, checkpoint_every=every, **SETTINGS)
    assert remove.n_batches == n_batches


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    train(data, out=folder.path, **SETTINGS)
    return folder


def initialize_and_stop(folder, finished, operation, monkeypatch):
    """Begin a run; the process stops at a file operation without any cleaning up."""
    counter = itertools.count()

    def stop(function):
        def stopped(*args, **kwargs):
            if next(counter) == operation:
                raise Killed
            return function(*args, **kwargs)

        return stopped

    with monkeypatch.context() as patch, folder.locked(), pytest.raises(Killed):
        patch.setattr(files.tempfile, "mkstemp", stop(files.tempfile.mkstemp))
        patch.setattr(files.os, "fsync", stop(files.os.fsync))
        patch.setattr(files.Path, "chmod", stop(files.Path.chmod))
        patch.setattr(files.Path, "replace", stop(files.Path.replace))
        patch.setattr(files.Path, "unlink", lambda *a, **k: None)
        folder.initialize(finished.read_config(), finished.read_data())


@pytest.mark.parametrize("operation", range(10))
def test_kill_while_a_run_begins_leaves_a_usable_folder(operation, finished, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    initialize_and_stop(folder, finished, operation, monkeypatch)
    if not folder.config_file.is_file():
        folder.check_empty()
        with folder.locked():
            folder.initialize(finished.read_config(), finished.read_data())
    with folder.locked():
        assert folder.read_config() == finished.read_config()
        assert folder.read_data() == finished.read_data()
    assert not list(folder.path.glob(".*"))


def test_run_starts_in_a_folder_whose_run_was_killed_at_its_beginning(data, finished, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    initialize_and_stop(folder, finished, 6, monkeypatch)
    assert folder.data_file.is_file()
    train(data, out=folder.path, **SETTINGS)
    assert (folder.path / "predictions.csv").read_text() == (finished.path / "predictions.csv").read_text()


@pytest.mark.parametrize("moment", range(8))
def test_kill_while_recordings_are_written_leaves_a_usable_folder(moment, tmp_path, monkeypatch):
    recordings = [Recording(np.ones(64) * index, 2048, label="wear", specimen=str(index)) for index in range(3)]
    counter = itertools.count()

    def stop(function):
        def stopped(*args, **kwargs):
            if next(counter) == moment:
                raise Killed
            return function(*args, **kwargs)

        return stopped

    with monkeypatch.context() as patch, pytest.raises(Killed):  # nothing is cleaned up
        patch.setattr(
            dataset.tempfile, "TemporaryDirectory", lambda dir, prefix: nullcontext(mkdtemp(None, prefix, dir))
        )
        patch.setattr(dataset, "_write_recording", stop(dataset._write_recording))
        patch.setattr(dataset, "write_manifest", stop(dataset.write_manifest))
        patch.setattr(dataset.Path, "replace", stop(dataset.Path.replace))
        patch.setattr(dataset.Path, "unlink", lambda *a, **k: None)
        save_dataset(recordings, tmp_path)
    save_dataset(recordings, tmp_path)
    assert [each.specimen for each in load_dataset(tmp_path)] == ["0", "1", "2"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("moment", range(4))
def test_full_disk_while_recordings_are_moved_leaves_a_usable_folder(moment, tmp_path, monkeypatch):
    recordings = [Recording(np.ones(64) * index, 2048, label="wear", specimen=str(index)) for index in range(3)]
    counter, replace = itertools.count(), dataset.Path.replace

    def fail(path, target):
        if next(counter) == moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(dataset.Path, "replace", fail)
        save_dataset(recordings, tmp_path)
    assert list(tmp_path.iterdir()) == []
    save_dataset(recordings, tmp_path)
    assert len(load_dataset(tmp_path)) == 3


def test_evaluation_does_not_write_into_a_folder_in_use(finished):
    expected = finished.metrics_file.stat().st_mtime_ns
    with holding(finished.path) as other, pytest.raises(ValueError, match=f"is in use by process {other.pid} on"):
        evaluate(finished.path)
    assert finished.metrics_file.stat().st_mtime_ns == expected
    evaluate(finished.path)
    assert finished.metrics_file.stat().st_mtime_ns > expected


def test_link_to_no_folder_is_refused(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "absent")
    with pytest.raises(ValueError, match="run: is a link to no folder; create it"):
        RunFolder(tmp_path / "run").check_empty()


def test_other_files_are_kept(data, tmp_path):
    (tmp_path / "data.json").write_text("[1]")
    with pytest.raises(ValueError, match="the output folder is not empty"):
        RunFolder(tmp_path).check_empty()
    (tmp_path / "data.json").unlink()
    np.savez(tmp_path / "mine.npz", x=1)
    (tmp_path / ".partial-mine").mkdir()
    with pytest.raises(ValueError, match="is not an empty folder"):
        save_dataset([], tmp_path)
    assert (tmp_path / "mine.npz").exists()


def test_report_that_cannot_be_drawn_does_not_cost_the_metrics(finished, monkeypatch):
    expected = finished.metrics_file.read_text()
    finished.metrics_file.unlink()

    def fail(report):
        raise ValueError("cannot be drawn")

    with monkeypatch.context() as patch:
        patch.setattr("whirl.runs.evaluation.draw", fail)
        with pytest.raises(ValueError, match="cannot be drawn"):
            evaluate(finished.path)
    assert finished.metrics_file.read_text() == expected
