"""The command under signals, and under `torchrun` when a rank dies: what it says, and that nothing is lost."""

import logging
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.survival.killing import FORK, exit_code, flat, preload

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals")
NETWORK = ["--model", "wdcnn", "--window", "2048", "--hop", "1024", "--epochs", "12", "--device", "cpu"]
SETTINGS = [*NETWORK, "--augment", "medium", "--checkpoint-every", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """For `torchrun`, whose launcher leaves folders among the temporary files."""
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
def whole(recordings, tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert finished(whirl(folder.parent, "train", recordings, *SETTINGS, "--out", folder)) == 0
    return folder


def whirl(log_folder, *arguments):
    """`python -m whirl` in a process forked off here, which saves the interpreter's start."""
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
    return exit_code(process, 120)


def wait_for(path, process):
    """Until the training has saved something."""
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until
        assert process.exitcode is None
        time.sleep(0.01)


def results(folder):
    """The last checkpoint but for times and what nothing draws from, so that it is not seeded; the test's results."""
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
def test_a_signal_saves_and_says_how_to_go_on_to_the_same_bits(signum, code, recordings, whole, tmp_path):
    folder, damaged = tmp_path / "run", tmp_path / "damaged"
    process = whirl(tmp_path, "train", recordings, *SETTINGS, "--out", folder)
    wait_for(folder / "checkpoints" / "previous.pt", process)
    time.sleep(random.Random(code).uniform(0, 0.1))
    os.killpg(process.pid, signum)
    assert finished(process) == code, (tmp_path / "stderr").read_text()
    assert f"go on with: whirl train --resume --out {folder}" in (tmp_path / "stdout").read_text()
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    shutil.copytree(folder, damaged)
    assert resumed(folder, tmp_path) == 0
    assert same(folder, whole)
    assert results(folder) == results(whole)
    if signum == signal.SIGTERM:
        last = damaged / "checkpoints" / "last.pt"
        last.write_bytes(last.read_bytes()[:-1])
        assert resumed(damaged, tmp_path) == 0
        assert "going on from the checkpoint before it" in (tmp_path / "stderr").read_text()
        assert results(damaged) == results(whole)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are found in /proc")
def test_a_killed_worker_is_one_line_and_the_run_resumes_without_workers(recordings, whole, tmp_path):
    """Resumed once more, it says that nothing is left to train."""
    folder = tmp_path / "run"
    process = whirl(tmp_path, "train", recordings, *SETTINGS, "--workers", 2, "--out", folder)
    wait_for(folder / "checkpoints" / "previous.pt", process)
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(worker), signal.SIGKILL)
    assert finished(process) == 2
    told = (tmp_path / "stderr").read_text()
    assert told.splitlines()[-1].startswith("whirl: a worker process of a data loader died")
    assert "Traceback" not in told
    assert resumed(folder, tmp_path, "--workers", 0) == 0, (tmp_path / "stderr").read_text()
    assert results(folder) == results(whole)
    assert "is finished" not in (tmp_path / "stderr").read_text()
    assert resumed(folder, tmp_path) == 0
    assert "is finished after its 12 epochs" in (tmp_path / "stderr").read_text()
    assert results(folder) == results(whole)


@pytest.mark.slow
def test_a_second_signal_leaves_at_once_and_nothing_is_lost(recordings, whole, tmp_path):
    """Both are waiting when the stopped process goes on, so that the second always finds it at work."""
    folder = tmp_path / "run"
    process = whirl(tmp_path, "train", recordings, *SETTINGS, "--out", folder)
    wait_for(folder / "checkpoints" / "last.pt", process)
    for signum in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        os.kill(process.pid, signum)
    assert finished(process) in (130, 143)
    assert "stopped and saved" not in (tmp_path / "stdout").read_text()
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert resumed(folder, tmp_path) == 0
    assert results(folder) == results(whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_starts_a_dead_rank_again_and_ends_in_the_same_bits(recordings, tmp_path):
    """The real launcher: a random rank gets SIGKILL once, `--max-restarts 1` does the rest."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder, restarts in ((whole, 0), (broken, 1)):
        command = ["-m", "whirl", "train", str(recordings), *SETTINGS, "--out", str(folder)]
        with (tmp_path / f"{folder.name}.log").open("w") as log:
            launcher = subprocess.Popen(
                [*TORCHRUN, "--max-restarts", str(restarts), *command], stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            if restarts:
                while not (folder / "checkpoints" / "previous.pt").exists():
                    assert launcher.poll() is None
                    time.sleep(0.05)
                os.kill(pid_of_rank(random.Random(5).randrange(2), launcher.pid), signal.SIGKILL)
            assert launcher.wait(400) == 0, (tmp_path / f"{folder.name}.log").read_text()
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
    assert (tmp_path / "broken.log").read_text().count("training wdcnn") == 2
    assert same(broken, whole)
    assert results(broken) == results(whole)


def pid_of_rank(rank, launcher):
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0".encode() in b"\0" + (folder / "environ").read_bytes():
                return int(folder.name)
        except (OSError, IndexError):  # it has just ended
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_signal_to_torchrun_saves_and_the_run_goes_on_in_the_same_bits(recordings, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = [*TORCHRUN, "-m", "whirl", "train"]
    for folder in (whole, broken):
        launcher = subprocess.Popen(
            [*command, str(recordings), *SETTINGS, "--out", str(folder)], start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if folder is whole:
            assert launcher.wait(400) == 0
    while not (broken / "checkpoints" / "previous.pt").exists():
        assert launcher.poll() is None
        time.sleep(0.05)
    os.kill(launcher.pid, signal.SIGTERM)
    assert launcher.wait(120) != 0
    assert not (broken / "metrics.json").exists()
    done = subprocess.run([*command, "--resume", "--out", str(broken)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert results(broken) == results(whole)
