"""Output of the command on terminals and in pipes, whatever characters their encoding lacks."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.commands import Command
from whirl.data.recording import Recording
from whirl.evaluation.prediction import Predictions
from whirl.runs.evaluation import predictions_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings and a run whose names have characters outside of the encodings."""
    path = tmp_path_factory.mktemp("Ωμέγα")
    for name in ("Lagerschaden_ä", "健康"):
        (path / "data" / name).mkdir(parents=True)
        np.savez(path / "data" / name / "a.npz", vibration=np.random.default_rng(0).normal(size=9000), fs=12_000.0)
    run = path / "runs" / "Ω"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        "data: {path: 健康}\nmodel: {name: wdcnn}\ntraining: {method: {kind: plain}}\n", encoding="utf-8"
    )
    (run / "data.json").write_text("{}")
    return path


def whirl(folder, arguments, encoding="utf-8"):
    words = [folder / word if word in ("data", "runs/") else word for word in arguments]
    return Command(*words, log_folder=folder, encoding=encoding).wait()


@pytest.mark.parametrize(
    ("arguments", "encoding", "code"),
    [
        (["train", "--help"], "ascii", 0),
        (["train", "--help"], "cp1252", 0),
        (["inspect", "data"], "ascii", 0),
        (["runs", "runs/"], "ascii", 0),
        (["schedule", "cosine", "--epochs", "4"], "cp1252", 0),
        (["predict", "Ω", "健康.mat"], "cp1252", 2),
        (["train", "--Ω"], "ascii", 2),
    ],
    ids=["help-ascii", "help-cp1252", "inspect", "runs", "schedule", "predict", "usage"],
)
def test_output_does_not_fail_for_characters_that_the_encoding_lacks(arguments, encoding, code, folder):
    done = whirl(folder, arguments, encoding)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("whirl: ") if code else done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals exist on POSIX only")
def test_table_on_a_terminal_does_not_fail_either(folder):
    terminal, end = os.openpty()
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "whirl", "runs", str(folder / "runs")]
    done = subprocess.run(command, env=environment, stdout=end, stderr=subprocess.PIPE)
    os.close(end)
    output = os.read(terminal, 100_000)
    os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert b"wdcnn" in output


def test_runs_leaves_out_folders_that_cannot_be_read(folder):
    other = folder / "runs" / "another tool"
    other.mkdir()
    (other / "config.yaml").write_text("x: 1\n")
    (other / "data.json").write_text("{}")
    done = whirl(folder, ["runs", "runs/"])
    assert done.returncode == 0, done.stderr
    assert "another tool: left out, not readable as a run folder" in done.stderr
    assert "wdcnn" in done.stdout


def test_labels_cannot_control_the_terminal(tmp_path):
    rng = np.random.default_rng(0)
    for index, label in enumerate(("\x1b[31mred\x1b]0;title\x07", "=2+5\u202e")):
        np.savez(tmp_path / f"{index}\x1b[2J.npz", vibration=rng.normal(size=9000), fs=12_000.0)
        with (tmp_path / "manifest.csv").open("a", encoding="utf-8") as file:
            file.write("file,label\n" * (index == 0) + f"{index}\x1b[2J.npz,{label}\n")
    done = whirl(tmp_path, ["inspect", tmp_path])
    assert "\\x1b[31mred\\x1b]0;title\\x07" in done.stdout
    assert r"=2+5\u202e" in done.stdout
    (tmp_path / "0\x1b[2J.npz").write_bytes(b"damaged")
    failed = whirl(tmp_path, ["train", tmp_path])
    assert failed.returncode == 2
    assert r"0\x1b[2J.npz" in failed.stderr
    assert not {"\x1b", "\x07"} & {*done.stdout, *done.stderr, *failed.stdout, *failed.stderr}


def test_spreadsheets_do_not_run_labels():
    predicted = Predictions(np.eye(2), np.array([0, 1]), np.array([0, 1]))
    recordings = [Recording(np.zeros(8), 1000, label=label, source="+1.csv") for label in ("=1+1", "@x")]
    rows = predictions_table(predicted, recordings, ("=1+1", "@x")).splitlines()
    assert rows[0] == "file,specimen,label,predicted,'=1+1,'@x"
    assert [row.split(",")[:4] for row in rows[1:]] == [
        ["'+1.csv", "", "'=1+1", "'=1+1"], ["'+1.csv", "", "'@x", "'@x"],
    ]  # fmt: skip
