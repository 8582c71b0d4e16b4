"""The command under signals, and under `torchrun` when a rank is killed: output, exit code and exact resume."""

import logging
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.survival.killing import FORK, TIMEOUT_S, exit_code, flat, preload

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals"),
    pytest.mark.timeout(3600),
]
NETWORK = ["--model", "wdcnn", "--window", "2048", "--hop", "1024", "--epochs", "12", "--device", "cpu"]
SETTINGS = [*NETWORK, "--augment", "medium", "--checkpoint-every", "2"]
FINISHED = re.compile("run already finished.*\nto train longer than 12 epochs")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """Set the folder for temporary files, where the launcher of `torchrun` leaves folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        yield


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "rolling"
    arguments = ["simulate", folder, "--family", "rolling", "--machines", 6, "--recordings", 1, "--seconds", 0.8]
    assert finished(whirl(tmp_path_factory.mktemp("log"), *arguments)) == 0
    return folder


@pytest.fixture(scope="module")
def uninterrupted(recordings, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert finished(whirl(folder.parent, "train", recordings, *SETTINGS, "--out", folder)) == 0
    return folder


def whirl(log_folder, *arguments):
    """Run `python -m whirl` in a forked process, which saves starting an interpreter."""
    preload()
    process = FORK.Process(target=_whirl, args=(log_folder, [str(argument) for argument in arguments]))
    process.start()
    return process


def _whirl(log_folder, arguments):
    os.setpgrp()
    torch.set_num_threads(1)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(log_folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    logging.getLogger().handlers.clear()  # pytest's
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115 (pytest has others)
    sys.argv = ["whirl", *arguments]
    try:
        runpy.run_module("whirl", run_name="__main__")
    finally:
        sys.stdout.flush()


def finished(process):
    return exit_code(process, TIMEOUT_S)


def wait_for(path, has_ended):
    """Wait until the training has written a file."""
    until = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < until, f"{path} was not written"
        assert not has_ended()
        time.sleep(0.01)


def wait_for_process(path, process):
    wait_for(path, lambda: process.exitcode is not None)


def wait_for_launcher(path, launcher):
    wait_for(path, lambda: launcher.poll() is not None)


def results(folder):
    """Return the last checkpoint, without times and generators that are not seeded, and the test results."""
    checkpoint = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    leaves = flat(checkpoint, str(folder)).items()
    plain = {name: str(leaf) for name, leaf in leaves if "random/python" not in name and "random/numpy" not in name}
    return plain | {name: (folder / name).read_text() for name in ("metrics.json", "predictions.csv")}


def tensors(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["training"]["model"]


def same(a, b):
    return all(map(torch.equal, tensors(a).values(), tensors(b).values()))


def resumed(folder, log_folder, *more):
    return finished(whirl(log_folder, "train", "--resume", "--out", folder, *more))


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_signal_saves_and_the_run_resumes_with_the_same_bits(signum, code, recordings, uninterrupted, tmp_path):
    folder, damaged = tmp_path / "run", tmp_path / "damaged"
    process = whirl(tmp_path, "train", recordings, *SETTINGS, "--out", folder)
    wait_for_process(folder / "checkpoints" / "previous.pt", process)
    time.sleep(random.Random(code).uniform(0, 0.1))
    os.killpg(process.pid, signum)
    assert finished(process) == code, (tmp_path / "stderr").read_text()
    assert f"whirl train --resume --out {folder}" in (tmp_path / "stdout").read_text()
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    shutil.copytree(folder, damaged)
    assert resumed(folder, tmp_path) == 0
    assert same(folder, uninterrupted)
    assert results(folder) == results(uninterrupted)
    if signum == signal.SIGTERM:
        last = damaged / "checkpoints" / "last.pt"
        last.write_bytes(last.read_bytes()[:-1])
        assert resumed(damaged, tmp_path) == 0
        assert "resuming from the checkpoint before it" in (tmp_path / "stderr").read_text()
        assert results(damaged) == results(uninterrupted)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are found in /proc")
def test_killed_worker_is_reported_in_one_line_and_the_run_resumes(recordings, uninterrupted, tmp_path):
    """A second resume reports that the run is finished."""
    folder = tmp_path / "run"
    process = whirl(tmp_path, "train", recordings, *SETTINGS, "--workers", 2, "--out", folder)
    wait_for_process(folder / "checkpoints" / "previous.pt", process)
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(worker), signal.SIGKILL)
    assert finished(process) == 2
    errors = (tmp_path / "stderr").read_text()
    assert errors.splitlines()[-1].startswith("whirl: a worker process of a data loader died")
    assert "Traceback" not in errors
    assert resumed(folder, tmp_path, "--workers", 0) == 0, (tmp_path / "stderr").read_text()
    assert results(folder) == results(uninterrupted)
    assert not FINISHED.search((tmp_path / "stderr").read_text())
    assert resumed(folder, tmp_path) == 0
    assert FINISHED.search((tmp_path / "stderr").read_text())
    assert results(folder) == results(uninterrupted)


@pytest.mark.slow
def test_second_signal_stops_immediately_and_the_run_resumes(recordings, uninterrupted, tmp_path):
    """Both signals are pending when the stopped process continues, so the second one always interrupts it."""
    folder = tmp_path / "run"
    process = whirl(tmp_path, "train", recordings, *SETTINGS, "--out", folder)
    wait_for_process(folder / "checkpoints" / "last.pt", process)
    for signum in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        os.kill(process.pid, signum)
    assert finished(process) in (130, 143)
    assert "whirl train --resume" not in (tmp_path / "stdout").read_text()
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert resumed(folder, tmp_path) == 0
    assert results(folder) == results(uninterrupted)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank_and_ends_with_the_same_bits(recordings, tmp_path):
    """A random rank gets SIGKILL once; `--max-restarts 1` restarts it."""
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder, restarts in ((uninterrupted, 0), (killed, 1)):
        command = ["-m", "whirl", "train", str(recordings), *SETTINGS, "--out", str(folder)]
        with (tmp_path / f"{folder.name}.log").open("w") as log:
            launcher = subprocess.Popen(
                [*TORCHRUN, "--max-restarts", str(restarts), *command], stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            if restarts:
                wait_for_launcher(folder / "checkpoints" / "previous.pt", launcher)
                os.kill(pid_of_rank(random.Random(5).randrange(2), launcher.pid), signal.SIGKILL)
            assert launcher.wait(TIMEOUT_S) == 0, (tmp_path / f"{folder.name}.log").read_text()
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
    assert (tmp_path / "killed.log").read_text().count("training wdcnn") == 2
    assert same(killed, uninterrupted)
    assert results(killed) == results(uninterrupted)


def pid_of_rank(rank, launcher):
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0".encode() in b"\0" + (folder / "environ").read_bytes():
                return int(folder.name)
        except (OSError, IndexError):  # the process has just ended
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
def test_signal_to_torchrun_saves_and_the_run_resumes_with_the_same_bits(recordings, tmp_path):
    uninterrupted, interrupted = tmp_path / "uninterrupted", tmp_path / "interrupted"
    command = [*TORCHRUN, "-m", "whirl", "train"]
    for folder in (uninterrupted, interrupted):
        launcher = subprocess.Popen(
            [*command, str(recordings), *SETTINGS, "--out", str(folder)], start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if folder is uninterrupted:
            assert launcher.wait(TIMEOUT_S) == 0
    wait_for_launcher(interrupted / "checkpoints" / "previous.pt", launcher)
    os.kill(launcher.pid, signal.SIGTERM)
    assert launcher.wait(TIMEOUT_S) != 0
    assert not (interrupted / "metrics.json").exists()
    done = subprocess.run(
        [*command, "--resume", "--out", str(interrupted)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert results(interrupted) == results(uninterrupted)
