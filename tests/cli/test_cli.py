"""The `whirl` command: output, files, and messages for invalid input."""

import csv
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.commands import Command
from whirl.cli.main import app
from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.resampling import resample
from whirl.runs.flat import to_flat
from whirl.runs.run_folder import RunFolder

QUICK = [
    "--epochs",
    "1",
    "--window",
    "2048",
    "--hop",
    "2048",
    "--model",
    "wdcnn",
    "--device",
    "cpu",
    "--bearing",
    "6205",
]

STAMP = 'class="stamp"'


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "rolling"
    done = whirl(
        "simulate", folder, "--family", "rolling", "--machines", 6, "--recordings", 1, "--seconds", 0.8
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="session")
def run(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = Command("train", simulated, *QUICK, "--out", folder, log_folder=folder.parent).wait()
    assert done.returncode == 0, done.stderr
    assert f"report: {folder}" in done.stdout
    return folder


@pytest.fixture
def data(simulated, tmp_path):
    return Path(shutil.copytree(simulated, tmp_path / "data"))


def assert_rejected(done, *parts):
    """Assert exit code 2 and a message of one line with the given parts, without a traceback."""
    assert done.exit_code == 2, done.output
    assert done.stderr.strip().splitlines()[-1].startswith("whirl: ")
    assert "Traceback" not in done.output
    for part in parts:
        assert part in done.stderr, done.stderr


def test_prints_version():
    assert re.match(r"whirl \d+\.\d+\.\d+", whirl("--version").stdout)


def test_inspect_reads_simulated_folder(simulated):
    assert len(list(simulated.rglob("*.npz"))) == 6 * 4
    done = whirl("inspect", simulated)
    assert done.exit_code == 0
    for text in ("healthy", "inner_race", "outer_race", "ball", "20480"):
        assert text in done.stdout.replace(" ", "").replace(",", "") or text in done.stdout


def test_run_folder_has_all_files(run):
    names = {path.name for path in run.iterdir()}
    files = {"config.yaml", "data.json", "history.json", "metrics.json", "predictions.csv", "report.html"}
    files |= {"reliability.npz"}
    assert names == files | {"checkpoints"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"window", "recording", "baselines", "trust"}
    assert 0 <= metrics["recording"]["accuracy"] <= 1
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    n_correct = sum(row["label"] == row["predicted"] for row in rows)
    assert n_correct / len(rows) == pytest.approx(metrics["recording"]["accuracy"])
    history = json.loads((run / "history.json").read_text())
    assert len(history["train_loss"]) == 1
    page = (run / "report.html").read_text()
    assert "whirl train" in page
    config = to_flat(RunFolder(run).read_config())
    assert None not in [config[name] for name in ("window", "hop", "channels", "classes", "sampling_rate_hz")]


def test_report_states_a_missing_bearing_geometry(run, simulated, tmp_path):
    without = [option for option in QUICK if option not in ("--bearing", "6205")]
    assert whirl("train", simulated, *without, "--out", tmp_path / "out").exit_code == 0
    message = "its geometry, which was not given"
    assert message in (tmp_path / "out" / "report.html").read_text()
    assert message not in (run / "report.html").read_text()


def test_parts_share_no_specimen(run):
    parts = json.loads((run / "data.json").read_text())["parts"]
    specimens = {name: {recording["specimen"] for recording in part} for name, part in parts.items()}
    assert specimens["test"]
    assert not specimens["test"] & (specimens["train"] | specimens["val"])


def test_saved_configuration_reproduces_the_metrics(run, tmp_path):
    done = whirl("train", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again" / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_evaluate_reproduces_the_metrics(run, tmp_path):
    done = whirl("evaluate", run, "--out", tmp_path / "evaluated")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "evaluated" / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_report_on_training_data_is_stamped(run, simulated, tmp_path):
    done = whirl("evaluate", run, "--data", simulated, "--out", tmp_path / "evaluated")
    assert done.exit_code == 0, done.output
    assert STAMP in (tmp_path / "evaluated" / "report.html").read_text()
    assert STAMP not in (run / "report.html").read_text()


def test_predict_prints_one_diagnosis_per_file(run, simulated):
    files = sorted(simulated.rglob("*.npz"))[:2]
    done = whirl("predict", run, *files)
    assert done.exit_code == 0, done.output
    first_lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in first_lines] == [str(file) for file in files]
    assert "[untrained: " in first_lines[0]
    diagnoses = json.loads(whirl("predict", run, *files, "--json").stdout)
    for diagnosis, file in zip(diagnoses, files, strict=True):
        assert diagnosis["file"] == str(file)
        assert sum(diagnosis["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert diagnosis["probabilities"][diagnosis["class"]] == diagnosis["probability"]


def test_predict_reproduces_the_test_predictions(run, simulated):
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    diagnoses = json.loads(whirl("predict", run, *(row["file"] for row in rows), "--json").stdout)
    for row, diagnosis in zip(rows, diagnoses, strict=True):
        for label, probability in diagnosis["probabilities"].items():
            assert probability == pytest.approx(float(row[label]), abs=2e-6)


def test_training_and_prediction_use_the_same_band_for_mixed_sampling_rates(simulated, tmp_path):
    """Half of the machines are recorded at half the sampling rate."""
    data = tmp_path / "mixed"
    recordings = load_dataset(simulated)
    save_dataset((resample(r, 10240) if r.specimen < "machine03" else r for r in recordings), data)
    done = whirl("train", data, *QUICK, "--epochs", "6", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert to_flat(RunFolder(tmp_path / "run").read_config())["band_limit_hz"] == 4000
    test_predict_reproduces_the_test_predictions(tmp_path / "run", data)


# -- invalid input ------------------------------------------------------------------------------------------


def test_suggests_the_nearest_setting(tmp_path, simulated):
    (tmp_path / "c.yaml").write_text("epoch: 3\n")
    assert_rejected(whirl("train", simulated, "--config", tmp_path / "c.yaml"), "'epoch'", "did you mean 'epochs'")


@pytest.mark.parametrize("text", ["1: 2", "data: 5", "lr: 1", "run: 5"])
def test_rejects_invalid_values_in_a_file(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    assert_rejected(whirl("train", "--config", tmp_path / "c.yaml", "--out", tmp_path / "out"), text.split(":")[0])
    assert not (tmp_path / "out").exists()


def test_selects_loss_optimizer_schedule_and_augmentation_by_name(simulated, tmp_path):
    options = ["--loss", "focal", "--optimizer", "sgd", "--schedule", "warmup_cosine", "--augment", "heavy"]
    arguments = ["--model", "patch_transformer", "--epochs", "1", *options, "--out", tmp_path / "run"]
    done = whirl("train", simulated, *arguments)
    assert done.exit_code == 0, done.output
    settings = to_flat(RunFolder(tmp_path / "run").read_config())
    assert [settings[name] for name in ("loss", "optimizer", "schedule", "augment")] == options[1::2]


def test_trains_with_a_single_window_in_the_last_batch(simulated, run, tmp_path):
    parts = json.loads((run / "data.json").read_text())["parts"]
    n_windows = len(parts["train"]) * (int(0.8 * 20480) // 2048)
    done = whirl("train", simulated, *QUICK, "--batch-size", n_windows - 1, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--epochs", "0"], ["epochs"]),
        (["--split", "moon"], ["split", "moon"]),
        (["--model", "wdcn"], ["wdcn", "wdcnn"]),
        (["--channels", "XX"], ["XX"]),
        (["--classes", "healthy"], ["only one class", "healthy"]),
        (["--classes", "healthy,unheard_of"], ["unheard_of"]),
        (["--test-specimens", "nobody"], ["nobody"]),
        (["--window", "999999"], ["999999"]),
        (["--window", "16", "--hop", "16"], ["16"]),
        (["--bearing", "9999"], ["9999", "6205"]),
        (["--sampling-rate", "99999"], ["99999"]),
        (["--device", "abacus"], ["abacus"]),
        (["--resume"], ["--out"]),
    ],
)
def test_rejects_invalid_options_before_writing(simulated, tmp_path, arguments, parts):
    out = [] if "--resume" in arguments else ["--out", tmp_path / "out"]
    assert_rejected(whirl("train", simulated, *QUICK, *arguments, *out), *parts)
    assert not (tmp_path / "out").exists()


def test_rejects_empty_or_missing_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_rejected(whirl("train", tmp_path / "empty"), "empty")
    assert_rejected(whirl("inspect", tmp_path / "empty"), "empty")
    assert_rejected(whirl("train", tmp_path / "absent"), "absent")


def first_file(data):
    return sorted(data.rglob("*.npz"))[0]


def test_rejects_truncated_file(data, tmp_path):
    path = first_file(data)
    path.write_bytes(path.read_bytes()[:1000])
    assert_rejected(whirl("train", data, *QUICK, "--out", tmp_path / "out"), path.name)
    assert not (tmp_path / "out").exists()


def test_rejects_missing_file_of_the_manifest(data, tmp_path):
    path = first_file(data)
    path.unlink()
    assert_rejected(whirl("train", data, *QUICK, "--out", tmp_path / "out"), path.name, "manifest.csv")


def test_rejects_unknown_file_format(data, tmp_path):
    manifest = data / "manifest.csv"
    name = first_file(data).name
    (data / "signal.xyz").write_bytes(b"123")
    text = manifest.read_text()
    relative = next(line.split(",")[0] for line in text.splitlines() if name in line)
    manifest.write_text(text.replace(relative, "signal.xyz"))
    assert_rejected(whirl("train", data, *QUICK, "--out", tmp_path / "out"), "signal.xyz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rejects_samples_that_are_not_finite(data, tmp_path, value):
    path = first_file(data)
    with np.load(path) as file:
        content = dict(file)
    content["signal"] = np.array(content["signal"])
    content["signal"].flat[17] = value
    np.savez(path, **content)
    assert_rejected(whirl("train", data, *QUICK, "--out", tmp_path / "out"), path.name, "17")
    assert whirl("inspect", data).exit_code == 0


def test_rejects_output_folder_that_is_not_empty(simulated, tmp_path):
    (tmp_path / "mine.txt").write_text("content")
    assert_rejected(whirl("train", simulated, *QUICK, "--out", tmp_path), "empty", str(tmp_path))
    assert_rejected(whirl("simulate", tmp_path, "--machines", 3), "empty", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_rejects_resuming_with_other_settings(run):
    assert_rejected(whirl("train", "--resume", "--out", run, "--epochs", 7), "epochs", "7")


def test_evaluate_rejects_unknown_class(run, data):
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("inner_race", "novel_fault"))
    assert_rejected(whirl("evaluate", run, "--data", data), "novel_fault")


def test_predict_rejects_unsuitable_files(run, tmp_path):
    np.savez(tmp_path / "short.npz", signal=np.zeros((1, 100), np.float32), fs=20480)
    assert_rejected(whirl("predict", run, tmp_path / "short.npz"), "short.npz")
    two = tmp_path / "two.npz"
    np.savez(two, signal=np.zeros((2, 9000), np.float32), fs=20480, channels=["DE", "FE"])
    assert_rejected(whirl("predict", run, two), "two.npz", "DE, FE", "--channels")
    assert whirl("predict", run, two, "--channels", "other,ch0").exit_code == 3  # read, but silent
    np.savez(tmp_path / "slow.npz", signal=np.zeros((1, 9000), np.float32), fs=2000)
    assert_rejected(whirl("predict", run, tmp_path / "slow.npz"), "slow.npz")
    assert_rejected(whirl("predict", tmp_path, tmp_path / "slow.npz"), "not a run folder")
    assert_rejected(whirl("predict", run, tmp_path / "absent.npz"), "absent.npz")


def test_split_with_leakage_requires_an_option_and_is_stamped(simulated, tmp_path):
    assert_rejected(whirl("train", simulated, *QUICK, "--split", "time", "--out", tmp_path / "a"), "--allow-leakage")
    assert not (tmp_path / "a").exists()
    done = whirl("train", simulated, *QUICK, "--split", "time", "--allow-leakage", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert STAMP in (tmp_path / "a" / "report.html").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently on Windows")
def test_resume_after_ctrl_c_matches_uninterrupted_run(simulated, tmp_path):
    import torch

    arguments = ["train", simulated, *QUICK[2:], "--epochs", "20"]
    process = Command(*arguments, "--out", tmp_path / "interrupted", log_folder=tmp_path)
    while process.is_running and "\nepoch 2/" not in process.read()[1]:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130, done.stderr
    assert "--resume" in done.stdout
    assert "Traceback" not in done.stderr
    resumed = Command("train", "--resume", "--out", tmp_path / "interrupted", log_folder=tmp_path)
    uninterrupted = Command(*arguments, "--out", tmp_path / "uninterrupted", log_folder=tmp_path)
    for done in (resumed.wait(), uninterrupted.wait()):
        assert done.returncode == 0, done.stderr
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["training"]["model"]
        for name in ("interrupted", "uninterrupted")
    ]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    assert (tmp_path / "interrupted" / "metrics.json").read_text() == (
        tmp_path / "uninterrupted" / "metrics.json"
    ).read_text()
