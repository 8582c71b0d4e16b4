"""Commands that are killed, or find a full disk, at any of their file-system calls; the next call completes the work.

Training is tested in `test_trainers.py` and `test_command.py`.
"""

import csv
import errno
import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.survival.killing import FORK
from whirl.cli.main import app
from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.runs.bundle import load_bundle
from whirl.runs.training import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals"),
    pytest.mark.parametrize("fault", ["kill", "disk full once", "disk stays full"]),
]
REMOVALS = ("os.remove", "os.rmdir")
CALLS = ("open", "os.chmod", "os.link", "os.mkdir", "os.rename", "os.truncate", *REMOVALS)
WRITTEN_AT_ONCE = 64
"""Bytes, so that a line of a table takes several calls."""


class Faults:
    """Kills this process, or answers that the disk is full, at a call that changes files in a folder.

    Args:
        folder: the folder.
        number: number of the call, from 0.
        fault: `"kill"`, `"disk full once"` or `"disk stays full"`.
    """

    def __init__(self, folder, number, fault):
        self.folder, self.fault, self.n_left = str(folder), fault, number

    def install(self):
        sys.addaudithook(self.hook)
        write, fsync = os.write, os.fsync
        os.write = lambda descriptor, data: self.before(write, descriptor, memoryview(data)[:WRITTEN_AT_ONCE])
        os.fsync = lambda descriptor: self.before(fsync, descriptor)

    def hook(self, event, arguments):
        if event not in CALLS or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        path = str(arguments[0])
        if not path.startswith("/") or path.startswith(self.folder):  # others are relative to an open folder
            self.count(event)

    def before(self, function, *arguments):
        self.count(function.__name__)
        return function(*arguments)

    def count(self, event):
        self.n_left -= 1
        if self.fault == "kill" and self.n_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        is_hit = self.n_left == -1 or (self.fault == "disk stays full" and self.n_left < 0)
        if is_hit and event not in REMOVALS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _interrupted(folder, number, fault, arguments):
    faults = Faults(folder, number, fault)
    faults.install()
    done = whirl(*arguments)
    has_traceback = not isinstance(done.exception, SystemExit | None)
    os._exit(99 if has_traceback else done.exit_code if faults.n_left < 0 else 100)


def is_interrupted(folder, number, fault, *arguments):
    """Run a command in a process of its own with a fault; return whether it made so many calls."""
    process = FORK.Process(target=_interrupted, args=(folder, number, fault, arguments))
    process.start()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0, 2, 100), f"call {number}: ended with {process.exitcode}"
    return process.exitcode != 100


def sweep(folder, fault, *arguments):
    """Yield after each interruption, twice in a row at the same number of calls, from a state that `folder` has."""
    start = shutil.copytree(folder, folder.with_name("start")) if folder.exists() else None
    for number in itertools.count():
        shutil.rmtree(folder, ignore_errors=True)
        if start is not None:
            shutil.copytree(start, folder)
        if not is_interrupted(folder, number, fault, *arguments):
            break
        yield number
        is_interrupted(folder, number, fault, *arguments)
        yield number
    print(f"\n{arguments[0]}, {fault}: {number} calls")
    assert number > 10


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


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two runs with other weights."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {"model": "cnn1d", "window": 512, "epochs": 1, "device": "cpu", "threads": 1, "precision": "32"}
    return [train(data, out=folder / str(seed), seed=seed, **settings).folder.path for seed in range(2)]


def rows_of(table):
    """Return the lines of a table without times; each is complete."""
    text = table.read_text()
    assert text.endswith("\n")
    header, *rows = csv.reader(text.splitlines())
    assert {len(row) for row in rows} == {len(header)}
    return [row[1:] for row in rows]


@pytest.mark.parametrize("command", ["predict", "watch"])
def test_table_has_each_file_once(command, fault, data, runs, tmp_path):
    table = tmp_path / "out" / "table.csv"
    arguments = {
        "predict": ("predict", runs[0], data, "--csv", table, "--append"),
        "watch": ("watch", data, "--run", runs[0], "--log", table, "--once"),
    }[command]
    assert whirl(*arguments).exit_code == 0
    expected = rows_of(table)
    assert len(expected) == 8
    shutil.rmtree(table.parent)
    for number in sweep(table.parent, fault, *arguments):
        kept = shutil.copytree(table.parent, tmp_path / "kept") if table.parent.exists() else None
        assert whirl(*arguments).exit_code == 0, number
        assert rows_of(table) == expected, number
        shutil.rmtree(table.parent)
        if kept is not None:
            kept.rename(table.parent)


def test_export_leaves_the_older_or_the_newer_bundle(fault, runs, tmp_path):
    out = tmp_path / "out"
    checksums = []
    for run in runs:
        export = ("export", run, "--bundle", "--out", out)
        assert whirl(*export).exit_code == 0
        checksums.append(load_bundle(out).description.weights_sha256)
    assert whirl("export", runs[0], "--bundle", "--out", out).exit_code == 0
    for number in sweep(out, fault, *export):
        assert load_bundle(out).description.weights_sha256 in checksums, number
        copy = shutil.copytree(out, tmp_path / "copy")
        assert whirl(*export[:-1], copy).exit_code == 0, number
        assert load_bundle(copy).description.weights_sha256 == checksums[1], number
        assert sorted(file.name for file in copy.iterdir()) == ["bundle.json", "model.safetensors"], number
        shutil.rmtree(copy)


def test_simulated_recordings_are_complete_or_written_again(fault, tmp_path):
    out, copy = tmp_path / "out", tmp_path / "copy"
    simulate = ("simulate", out, "--family", "rolling", "--machines", 3, "--recordings", 1, "--seconds", 0.1)
    assert whirl(*simulate).exit_code == 0
    expected = contents(out)
    shutil.rmtree(out)
    for number in sweep(out, fault, *simulate):
        if out.exists():
            shutil.copytree(out, copy)
        if not (copy / "manifest.csv").exists():
            done = whirl("simulate", copy, *simulate[2:])
            assert done.exit_code == 0, (number, done.stderr)
        assert len(load_dataset(copy)) == 12, number
        assert contents(copy) == expected, number
        shutil.rmtree(copy)


def test_ablation_continues_with_the_runs_it_has(fault, tmp_path):
    save_dataset(simulate(3, 1, ["healthy", "wear"], n_samples=16_384, sampling_rate_hz=2560), tmp_path / "data")
    options = ("--arms", "rule", "--seeds", 1, "--epochs", 1, "--labels", 1, "--window-s", 1, "--device", "cpu")
    out, copy = tmp_path / "out", tmp_path / "copy"
    ablation = ("ablation", "physics", tmp_path / "data", *options, "--out", out)
    assert whirl(*ablation).exit_code == 0
    expected = ablation_results(out)
    shutil.rmtree(out)
    for number in sweep(out, fault, *ablation):
        if out.exists():
            shutil.copytree(out, copy)
        done = whirl(*ablation[:-1], copy)
        assert done.exit_code == 0, (number, done.stderr)
        assert ablation_results(copy) == expected, number
        shutil.rmtree(copy)


def ablation_results(folder: Path):
    """Return the rows without times, the table and the figure."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    rows = [{name: value for name, value in row.items() if name != "time_s"} for row in rows]
    return rows, (folder / "table.md").read_text(), (folder / "ablation.png").read_bytes()


def contents(folder: Path):
    """Return the bytes of the files of a folder by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}
