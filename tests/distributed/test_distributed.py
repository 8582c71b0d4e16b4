"""Several processes train as one: the same weights, every sample once, agreement on stops, skips and saves."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.engine.state import TrainingState

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
EXACT = 1e-12
TIMEOUT_S = 600

pytestmark = pytest.mark.timeout(1800)


def torchrun(*arguments, restarts: int = 0) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "--max-restarts", str(restarts), *map(str, arguments)]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        torchrun(*arguments, **options), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=TIMEOUT_S
    )


@pytest.fixture(scope="module", autouse=True)
def temporary_folder(tmp_path_factory):
    """Set the folder for temporary files, where the launcher of torch leaves folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("processes") / "found.json"
    done = run(WORKER, out)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize("setting", ["plain", "accumulated", "unclipped", "weighted", "balanced", "ignoring", "synced"])
def test_two_processes_equal_one_with_twice_the_batch(found, setting):
    assert found["world"] == 2
    assert found[setting]["weights"] < EXACT
    assert max(found[setting]["history"].values()) < EXACT


def test_weights_equal_those_of_torch_ddp(found):
    assert found["ddp"] < EXACT


def test_missing_gradient_of_one_process_counts_as_zero(found):
    used, sometimes, never, totals = found["missing"]
    assert (used, sometimes, never, totals) == ([3.0, 3.0], [1.0, 1.0], None, [21.0])


def test_counts_are_exact_with_half_precision_weights(found):
    assert found["counts"] == [2002.0]  # bfloat16 cannot represent 1001


def test_processes_start_and_end_with_the_same_weights(found):
    assert found["broadcast"] == 0
    assert found["same_on_all_ranks"]
    assert found["one_history"]


@pytest.mark.parametrize("case", range(5), ids=[2, 3, 29, 101, 112])
def test_every_sample_is_validated_and_trained_on_once(found, case):
    assert found["coverage"][case]["once"]
    assert found["coverage"][case]["loss"] < EXACT


def test_all_processes_skip_the_same_batch(found):
    assert found["skip"]["skipped"] == [1, 1]
    assert found["skip"]["same"]
    assert found["skip"]["weights"] < EXACT


def test_stop_on_one_rank_stops_all(found):
    assert found["stopped"] == [1, 1]


def test_overflow_on_one_rank_skips_the_step_of_all(found):
    first, second = found["fp16"]["logs"]
    assert first == second == {"scale": 2.0**15, "skipped_steps": 1}
    assert found["fp16"]["steps"] == [4, 4]  # of 5
    assert found["fp16"]["same"]


def test_rejects_loaders_of_unequal_length(found):
    unequal, unknown = found["unequal"]
    assert "has 5, 4 batches" in unequal
    assert "no length" in unknown


def test_signal_to_one_rank_stops_all_after_the_same_batch(found):
    assert found["interrupted"]["position"] == [[1, 9, True]] * 2  # received in the 7th batch; windows have 3 batches
    assert found["interrupted"]["resumed"] == 0
    assert all(found["interrupted"]["history"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_repeated_by_torchrun_counts_once(monkeypatch, number):
    state = TrainingState()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with finish_batch_on_interrupt(state):
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert state.interrupted_by == number
        now += 3
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            signal.raise_signal(number)


def test_another_number_of_processes_resumes_from_the_end_of_an_epoch_only(found):
    assert found["two_to_one"]["end"] == ["finished", 4]
    assert found["one_to_two"] == [["finished", 4]] * 2
    outcome, why = found["two_to_one"]["open"]
    assert outcome == "rejected"
    assert "by 2 processes, but 1 are running" in why


# -- the command line ----------------------------------------------------------------------------------------

QUICK = ["--window", 2048, "--hop", 2048, "--model", "wdcnn", "--device", "cpu", "--bearing", "6205"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "rolling"
    size = ["--family", "rolling", "--machines", "6", "--recordings", "1", "--seconds", "0.8"]
    subprocess.run([sys.executable, "-m", "whirl", "simulate", folder, *size], check=True, cwd=ROOT)
    return folder


@pytest.mark.slow
def test_command_trains_and_one_process_writes(data, tmp_path):
    done = run("-m", "whirl", "train", data, *QUICK, "--epochs", 2, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for output, text in ((done.stdout, "report: "), (done.stderr, "epoch 1/2"), (done.stderr, "training wdcnn")):
        assert sum(text in line for line in output.splitlines()) == 1, output
    files = {str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file()}
    written = {"config.yaml", "data.json", "history.json", "metrics.json", "predictions.csv", "report.html"}
    assert files == written | {f"checkpoints/{name}.pt" for name in ("last", "best", "previous")}
    assert len(json.loads((tmp_path / "run/history.json").read_text())["train_loss"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [["--model", "nonsense"], ["--classes", "nonsense"]], ids=["settings", "data"])
def test_error_is_reported_once(data, tmp_path, mistake):
    done = run("-m", "whirl", "train", data, *mistake, "--out", tmp_path / "run")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("whirl: ")]
    assert len(errors) == 1, done.stderr
    assert "nonsense" in errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_killed_rank_stops_all(tmp_path):
    done = run(WORKER, "kill", tmp_path)
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert (tmp_path / "last.pt").is_file()


def processes_of(launcher: int) -> dict[str, int]:
    """Return the process of each rank."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        found |= {variable[5:]: int(child) for variable in variables if variable.startswith("RANK=")}
    return found


def started(arguments: list, checkpoint: Path, **options) -> subprocess.Popen:
    """Start a run and wait until it has written a checkpoint."""
    command = torchrun("-m", "whirl", "train", *arguments, **options)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + TIMEOUT_S
    while not checkpoint.is_file() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    assert checkpoint.is_file(), running.communicate()[1]
    return running


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
def test_torchrun_resumes_after_a_kill(data, tmp_path):
    arguments = [data, *QUICK, "--epochs", 30, "--out", tmp_path / "run"]
    running = started(arguments, tmp_path / "run/checkpoints/last.pt", restarts=1)
    os.kill(processes_of(running.pid)["1"], signal.SIGKILL)
    output, errors = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, errors
    assert output.count("report: ") == 1
    assert len(json.loads((tmp_path / "run/history.json").read_text())["train_loss"]) == 30
    assert sum("epoch 1/30" in line for line in errors.splitlines()) == 1, errors  # it did not start from the beginning


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "scheduler"])
def test_signal_to_all_processes_saves_within_the_epoch(data, tmp_path, number):
    """As from a terminal or a scheduler: torchrun also gets the signal and forwards it to the processes again."""
    arguments = [data, *QUICK, "--epochs", 3000, "--batch-size", 4, "--out", tmp_path / "run"]
    running = started(arguments, tmp_path / "run/checkpoints/last.pt")
    os.killpg(running.pid, number)
    with contextlib.suppress(ProcessLookupError):
        output, errors = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode != 0
    assert "whirl train --resume" in output, errors
