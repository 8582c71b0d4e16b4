"""The `whirl` command as a user meets it: what it prints, writes and says of bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

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
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


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
    command = [sys.executable, "-m", "whirl", "train", str(simulated), *QUICK, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert f"report: {folder}" in done.stdout
    return folder


@pytest.fixture
def data(simulated, tmp_path):
    return Path(shutil.copytree(simulated, tmp_path / "data"))


def refused(done, *parts):
    """One line, exit code 2, no traceback, with the parts that tell the user what to mend."""
    assert done.exit_code == 2, done.output
    assert done.stderr.strip().splitlines()[-1].startswith("whirl: ")
    assert "Traceback" not in done.output
    for part in parts:
        assert part in done.stderr, done.stderr


def test_version():
    assert re.match(r"whirl \d+\.\d+\.\d+", whirl("--version").stdout)


def test_simulate_writes_a_folder_that_inspect_reads(simulated):
    assert len(list(simulated.rglob("*.npz"))) == 6 * 4
    shown = whirl("inspect", simulated)
    assert shown.exit_code == 0
    for text in ("healthy", "inner_race", "outer_race", "ball", "20480"):
        assert text in shown.stdout.replace(" ", "").replace(",", "") or text in shown.stdout


def test_a_run_folder_holds_what_it_promises(run):
    names = {path.name for path in run.iterdir()}
    files = {"config.yaml", "data.json", "history.json", "metrics.json", "predictions.csv", "report.html"}
    assert names == files | {"checkpoints"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"window", "recording"}
    assert 0 <= metrics["recording"]["accuracy"] <= 1
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(metrics["recording"]["accuracy"])
    history = json.loads((run / "history.json").read_text())
    assert len(history["train_loss"]) == 1
    page = (run / "report.html").read_text()
    assert "whirl train" in page
    config = to_flat(RunFolder(run).read_config())
    assert None not in [config[name] for name in ("window", "hop", "channels", "classes", "sampling_rate_hz")]


def test_the_report_says_when_it_cannot_draw_the_lines_of_a_bearing(run, simulated, tmp_path):
    without = [option for option in QUICK if option not in ("--bearing", "6205")]
    assert whirl("train", simulated, *without, "--out", tmp_path / "out").exit_code == 0
    said = "its geometry, which was not given"
    assert said in (tmp_path / "out" / "report.html").read_text()
    assert said not in (run / "report.html").read_text()


def test_no_test_machine_was_seen_in_training(run):
    parts = json.loads((run / "data.json").read_text())["parts"]
    specimens = {name: {recording["specimen"] for recording in part} for name, part in parts.items()}
    assert specimens["test"]
    assert not specimens["test"] & (specimens["train"] | specimens["val"])


def test_the_written_configuration_runs_again_to_the_same_numbers(run, tmp_path):
    done = whirl("train", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again" / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_evaluate_gives_the_same_metrics_again(run, tmp_path):
    done = whirl("evaluate", run, "--out", tmp_path / "judged")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "judged" / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_evaluate_on_training_data_is_stamped(run, simulated, tmp_path):
    done = whirl("evaluate", run, "--data", simulated, "--out", tmp_path / "judged")
    assert done.exit_code == 0, done.output
    assert STAMP in (tmp_path / "judged" / "report.html").read_text()
    assert STAMP not in (run / "report.html").read_text()


def test_predict_names_a_class_for_each_file(run, simulated):
    files = sorted(simulated.rglob("*.npz"))[:2]
    done = whirl("predict", run, *files)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 2
    diagnoses = json.loads(whirl("predict", run, *files, "--json").stdout)
    for diagnosis, file in zip(diagnoses, files, strict=True):
        assert diagnosis["file"] == str(file)
        assert sum(diagnosis["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert diagnosis["probabilities"][diagnosis["class"]] == diagnosis["probability"]


def test_predict_says_what_the_examination_said(run, simulated):
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    diagnoses = json.loads(whirl("predict", run, *(row["file"] for row in rows), "--json").stdout)
    for row, diagnosis in zip(rows, diagnoses, strict=True):
        for label, probability in diagnosis["probabilities"].items():
            assert probability == pytest.approx(float(row[label]), abs=2e-6)


def test_recorders_of_different_rates_are_made_alike_in_training_and_after(simulated, tmp_path):
    """Half of the machines are recorded at half the rate; prediction must see the band that training saw."""
    data = tmp_path / "mixed"
    recordings = load_dataset(simulated)
    save_dataset((resample(r, 10240) if r.specimen < "machine03" else r for r in recordings), data)
    done = whirl("train", data, *QUICK, "--epochs", "6", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert to_flat(RunFolder(tmp_path / "run").read_config())["band_limit_hz"] == 4000
    test_predict_says_what_the_examination_said(tmp_path / "run", data)


# -- bad input ---------------------------------------------------------------------------------------------


def test_an_unknown_setting_names_the_nearest(tmp_path, simulated):
    (tmp_path / "c.yaml").write_text("epoch: 3\n")
    refused(whirl("train", simulated, "--config", tmp_path / "c.yaml"), "'epoch'", "did you mean 'epochs'")


@pytest.mark.parametrize("text", ["1: 2", "data: 5", "lr: 1", "run: 5"])
def test_odd_values_in_a_file_are_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    refused(whirl("train", "--config", tmp_path / "c.yaml", "--out", tmp_path / "out"), text.split(":")[0])
    assert not (tmp_path / "out").exists()


def test_loss_optimizer_schedule_and_augmentation_are_a_word_each(simulated, tmp_path):
    options = ["--loss", "focal", "--optimizer", "sgd", "--schedule", "warmup_cosine", "--augment", "heavy"]
    arguments = ["--model", "patch_transformer", "--epochs", "1", *options, "--out", tmp_path / "run"]
    done = whirl("train", simulated, *arguments)
    assert done.exit_code == 0, done.output
    settings = to_flat(RunFolder(tmp_path / "run").read_config())
    assert [settings[name] for name in ("loss", "optimizer", "schedule", "augment")] == options[1::2]


def test_a_single_window_in_the_last_batch_is_no_obstacle(simulated, run, tmp_path):
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
def test_bad_options_are_named_and_nothing_is_written(simulated, tmp_path, arguments, parts):
    out = [] if "--resume" in arguments else ["--out", tmp_path / "out"]
    refused(whirl("train", simulated, *QUICK, *arguments, *out), *parts)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(whirl("train", tmp_path / "empty"), "empty")
    refused(whirl("inspect", tmp_path / "empty"), "empty")
    refused(whirl("train", tmp_path / "absent"), "absent")


def first_file(data):
    return sorted(data.rglob("*.npz"))[0]


def test_a_truncated_file(data, tmp_path):
    path = first_file(data)
    path.write_bytes(path.read_bytes()[:1000])
    refused(whirl("train", data, *QUICK, "--out", tmp_path / "out"), path.name)
    assert not (tmp_path / "out").exists()


def test_a_file_that_the_manifest_names_but_is_absent(data, tmp_path):
    path = first_file(data)
    path.unlink()
    refused(whirl("train", data, *QUICK, "--out", tmp_path / "out"), path.name, "manifest.csv")


def test_a_file_of_unknown_kind(data, tmp_path):
    manifest = data / "manifest.csv"
    name = first_file(data).name
    (data / "signal.xyz").write_bytes(b"123")
    text = manifest.read_text()
    relative = next(line.split(",")[0] for line in text.splitlines() if name in line)
    manifest.write_text(text.replace(relative, "signal.xyz"))
    refused(whirl("train", data, *QUICK, "--out", tmp_path / "out"), "signal.xyz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(data, tmp_path, value):
    path = first_file(data)
    with np.load(path) as file:
        content = dict(file)
    content["signal"] = np.array(content["signal"])
    content["signal"].flat[17] = value
    np.savez(path, **content)
    refused(whirl("train", data, *QUICK, "--out", tmp_path / "out"), path.name, "17")
    assert whirl("inspect", data).exit_code == 0


def test_an_output_folder_that_is_not_empty(simulated, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    refused(whirl("train", simulated, *QUICK, "--out", tmp_path), "empty", str(tmp_path))
    refused(whirl("simulate", tmp_path, "--machines", 3), "empty", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_of_another_configuration_is_not_resumed(run):
    refused(whirl("train", "--resume", "--out", run, "--epochs", 7), "epochs", "7")


def test_a_recording_that_training_never_saw_the_like_of(run, data):
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("inner_race", "novel_fault"))
    refused(whirl("evaluate", run, "--data", data), "novel_fault")


def test_files_that_cannot_be_diagnosed(run, tmp_path):
    np.savez(tmp_path / "short.npz", signal=np.zeros((1, 100), np.float32), fs=20480)
    refused(whirl("predict", run, tmp_path / "short.npz"), "short.npz")
    two = tmp_path / "two.npz"
    np.savez(two, signal=np.zeros((2, 9000), np.float32), fs=20480, channels=["DE", "FE"])
    refused(whirl("predict", run, two), "two.npz", "DE, FE", "--channels")
    assert whirl("predict", run, two, "--channels", "other,ch0").exit_code == 0
    np.savez(tmp_path / "slow.npz", signal=np.zeros((1, 9000), np.float32), fs=2000)
    refused(whirl("predict", run, tmp_path / "slow.npz"), "slow.npz")
    refused(whirl("predict", tmp_path, tmp_path / "slow.npz"), "not a run folder")
    refused(whirl("predict", run, tmp_path / "absent.npz"), "absent.npz")


def test_a_leaky_split_is_refused_and_allowed_only_with_a_stamp(simulated, tmp_path):
    refused(whirl("train", simulated, *QUICK, "--split", "time", "--out", tmp_path / "a"), "--allow-leakage")
    assert not (tmp_path / "a").exists()
    done = whirl("train", simulated, *QUICK, "--split", "time", "--allow-leakage", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert STAMP in (tmp_path / "a" / "report.html").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="signals work otherwise on Windows")
def test_ctrl_c_saves_says_how_to_resume_and_resuming_ends_in_the_same_bits(simulated, tmp_path):
    import torch

    arguments = [str(simulated), *QUICK[2:], "--epochs", "20"]
    command = [sys.executable, "-m", "whirl", "train", *arguments, "--out", str(tmp_path / "broken")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume" in stdout
    assert "Traceback" not in stderr
    for extra in (["--resume", "--out", tmp_path / "broken"], [*arguments, "--out", tmp_path / "whole"]):
        subprocess.run(
            [sys.executable, "-m", "whirl", "train", *map(str, extra)],
            check=True, capture_output=True, env=ONE_THREAD,
        )  # fmt: skip
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["training"]["model"]
        for name in ("broken", "whole")
    ]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    assert (tmp_path / "broken" / "metrics.json").read_text() == (tmp_path / "whole" / "metrics.json").read_text()
