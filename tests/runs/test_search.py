"""`whirl search`: its results, search spaces, invalid input, and interrupted workers."""

import base64
import gc
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.commands import Command
from whirl.cli.main import app
from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.simulation import simulate
from whirl.runs.config import make_config
from whirl.runs.data import prepare
from whirl.runs.flat import to_flat
from whirl.runs.run_folder import RunFolder
from whirl.runs.search import without_test
from whirl.runs.search_page import render_search_report
from whirl.runs.search_report import SearchReport, TrialSummary
from whirl.runs.search_space import check_space, count, preset_space

QUICK = ["--model", "wdcnn", "--epochs", "1", "--window", "1024", "--device", "cpu", "--bearing", "6205"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_rejected(done, *parts):
    assert done.exit_code == 2, done.output
    assert done.stderr.strip().splitlines()[-1].startswith("whirl: ")
    for part in parts:
        assert part in done.stderr, done.stderr


@pytest.fixture(scope="module")
def recordings():
    return simulate(6, 1, ("healthy", "inner_race", "ball"), sampling_rate_hz=10240, n_samples=4096)


@pytest.fixture(scope="module")
def data(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "rolling"
    save_dataset(recordings, folder)
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text("lr: {low: 1e-4, high: 1e-1, log: true}\nbatch_size: [16, 64]\noptimizer: [adamw, sgd]\n")
    return file


@pytest.fixture(scope="module")
def searched(data, space, tmp_path_factory):
    """Folder, standard output and log of a search of three trials of two epochs."""
    folder, log = tmp_path_factory.mktemp("searches") / "first", io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger("whirl").addHandler(handler)
    done = whirl("search", data, *QUICK, "--epochs", 2, "--trials", 3, "--space", space, "--out", folder)
    logging.getLogger("whirl").removeHandler(handler)
    assert done.exit_code == 0, done.output
    return folder, done.stdout, log.getvalue()


@pytest.fixture
def search_copy(searched, tmp_path):
    return Path(shutil.copytree(searched[0], tmp_path / "copy"))


def table_of(folder):
    return pd.read_csv(folder / "trials.csv")


# -- results ------------------------------------------------------------------------------------------------


def test_training_with_the_best_settings_reproduces_the_score(searched, tmp_path):
    folder, printed, _ = searched
    best = table_of(folder).sort_values(["rank", "trial"]).iloc[0]
    trained = whirl("train", "--config", folder / "best.yaml", "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    kept = int(np.argmin(history["val_loss"]))
    assert history["val_accuracy"][kept] == pytest.approx(best["mean_score"], abs=1e-12)
    settings = to_flat(RunFolder(tmp_path / "run").read_config())
    assert settings["lr"] == best["lr"]
    assert settings["optimizer"] == best["optimizer"]
    assert f"whirl train --config {folder / 'best.yaml'}" in printed


def test_default_settings_are_the_first_trial_and_the_best_is_not_worse(searched):
    table = table_of(searched[0])
    assert table.loc[0, ["lr", "batch_size", "optimizer"]].tolist() == [3e-3, 64, "adamw"]
    assert table["mean_score"].max() >= table.loc[0, "mean_score"]
    assert table["trial"].tolist() == [0, 1, 2]
    assert (table["epochs"] == 2).all()


def test_logs_each_trial_and_prints_the_result_with_a_caution(searched):
    _, printed, log = searched
    assert len(re.findall(r"^trial \d: [\d.]+ with lr .*best so far", log, re.MULTILINE)) == 3
    assert "epoch 1/2" not in log
    for part in ("3 trials: 3 finished", "best of 3 finished", "is optimistic", "The test part was not used"):
        assert part in printed


def test_report_warns_if_training_used_the_validation_specimens(searched, recordings, tmp_path):
    few = [recording for recording in recordings if recording.specimen in sorted({r.specimen for r in recordings})[:3]]
    save_dataset(few, tmp_path / "few")
    done = whirl("search", tmp_path / "few", *QUICK, "--trials", 1, "--out", tmp_path / "search")
    assert done.exit_code == 0, done.output
    for printed in (done.stdout, (tmp_path / "search" / "report.html").read_text()):
        assert "Training used the same specimens" in printed
    assert "Training used the same specimens" not in searched[1]


def test_scores_do_not_depend_on_the_test_part(recordings, data, space, searched, tmp_path):
    split = prepare(make_config({"data": str(data), "model": "wdcnn", "window": 1024, "bearing": "6205"})).split
    tested = {recording.specimen for recording in split.test}
    assert tested
    noise = np.random.default_rng(0)
    changed = [
        replace(recording, signal=noise.normal(size=recording.signal.shape).astype(np.float32))
        if recording.specimen in tested
        else recording
        for recording in load_dataset(data)
    ]
    save_dataset(changed, tmp_path / "data")
    options = [*QUICK, "--epochs", 2, "--trials", 3, "--space", space, "--out", tmp_path / "out"]
    done = whirl("search", tmp_path / "data", *options)
    assert done.exit_code == 0, done.output
    assert table_of(tmp_path / "out")["mean_score"].tolist() == table_of(searched[0])["mean_score"].tolist()


def test_trials_get_no_test_part(data):
    prepared = prepare(make_config({"data": str(data), "window": 1024, "bearing": "6205"}))
    assert prepared.split.test
    assert without_test(prepared).split.test == []
    assert without_test(prepared).split.train == prepared.split.train


def test_report_has_figures_and_the_command(searched):
    folder, *_ = searched
    page = (folder / "report.html").read_text()
    pictures = [base64.b64decode(found) for found in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)]
    n_scores = table_of(folder)["mean_score"].nunique()
    assert len(pictures) == (3 if n_scores > 1 else 2)  # importances require different scores
    assert all(b"<svg" in picture and b"<script" not in picture for picture in pictures)
    assert str(folder / "best.yaml") in page
    assert "://" not in page


def test_report_escapes_markup():
    script = "<script>alert(1)</script>"
    trials = [
        TrialSummary(0, {"augment": script}, "finished", 0.5, 1, 1.0, "", True),
        TrialSummary(1, {"augment": "$x"}, "finished", 0.75, 1, 1.0, "", False),
        TrialSummary(2, {"augment": script}, "failed", None, 0, None, script, False),
    ]
    page = render_search_report(
        SearchReport(
            title=script, data=script, trials=trials, space={"augment": [script, "$x"]}, defaults={"augment": script},
            epochs=1, seed=0, n_windows=4, importances={"augment": 1.0}, train_command=script, caution=script,
            notes=[script],
        )
    )  # fmt: skip
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "1 window of 4 fewer" in page
    assert "1 failed" in page


@pytest.mark.parametrize(
    ("trials", "lowest_lr", "message"),
    [
        ([(0.003, 0.5)], 1e-3, "default settings: no others were tried"),
        ([(0.003, 0.5), (0.01, 0.5)], 1e-3, "none of 1 other trial was better"),
        ([(0.01, 0.5)], 5e-3, "are outside the space and were not tried"),
        ([(0.01, 0.5)], 1e-3, "The default settings were not tried"),
    ],
    ids=["only", "best", "outside", "missing"],
)
def test_report_compares_the_best_trial_with_the_default_settings(trials, lowest_lr, message):
    default_lr = 0.003
    report = SearchReport(
        title="", data="", space={"lr": {"low": lowest_lr, "high": 0.1}}, defaults={"lr": default_lr}, epochs=1, seed=0,
        n_windows=4, importances={}, train_command="", caution="",
        trials=[
            TrialSummary(number, {"lr": lr}, "finished", score, 1, 1.0, "", lr == default_lr)
            for number, (lr, score) in enumerate(trials)
        ],
    )  # fmt: skip
    assert message in report.comparison


# -- search spaces ------------------------------------------------------------------------------------------


def test_given_settings_are_not_searched():
    config = make_config({"model": "wdcnn", "lr": 0.01})
    assert "lr" in preset_space(config)
    assert "lr" not in preset_space(config, {"lr"})
    assert "label_smoothing" not in preset_space(make_config({"model": "wdcnn", "loss": "focal"}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "no settings to search"),
        ({"lrr": [1]}, "did you mean 'lr'"),
        ({"lr": {"low": 0.1, "high": 0.1}}, "empty"),
        ({"lr": {"low": 0.0, "high": 0.1, "log": True}}, "low > 0"),
        ({"lr": {"low": -1, "high": 0.1}}, "expected a number > 0"),
        ({"lr": {"low": 0.1, "high": ".inf"}}, "expected a number"),
        ({"lr": {"low": 0.1}}, "expected low, high"),
        ({"lr": {"low": 0.1, "high": 0.2, "step": 0.1}}, "got low, high, step"),
        ({"lr": 0.1}, "expected a list"),
        ({"lr": []}, "expected a list"),
        ({"batch_size": [32, 32]}, "twice"),
        ({"batch_size": [1]}, "expected an integer >= 2"),
        ({"batch_size": {"low": 8.5, "high": 16}}, "integers"),
        ({"optimizer": ["adamw", "addam"]}, "did you mean 'adam'"),
        ({"optimizer": {"low": 0, "high": 1}}, "not a number"),
        ({"augment": [[["time_shift", 1, 1]]]}, "expected a number, a string"),
        ({"window": [1024]}, "cannot be searched: it changes the windows"),
        ({"seed": [0, 1]}, "due to chance"),
        ({"epochs": [1, 2]}, "--epochs"),
        ({"model": ["cnn1d"]}, "run a separate search"),
        ({"device": ["cpu"]}, "machine"),
        ({"lambda_freq": [1.0]}, "requires trainer 'pinn'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_rejects_invalid_space(space, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_space(space, make_config({"model": "wdcnn"}))


def test_counts_the_candidates_of_a_space():
    assert count({"batch_size": {"low": 8, "high": 16, "log": True}, "augment": [None, "light"]}) == 18
    assert count({"width": {"low": 0.5, "high": 1.0, "log": False}, "augment": [None, "light"]}) is None


# -- invalid input --------------------------------------------------------------------------------------------


def test_rejects_invalid_input_in_one_line(data, tmp_path):
    (tmp_path / "space.yaml").write_text("window: [512, 1024]")
    (tmp_path / "broken.log").write_text("no journal\n")
    nowhere = tmp_path / "nowhere"  # other errors are found before recordings are read
    assert_rejected(whirl("search", nowhere, "--model", "wdcn"), "wdcn", "wdcnn")
    assert_rejected(whirl("search", nowhere, "--trials", 0), "trials is '0', expected an integer >= 1")
    assert_rejected(whirl("search", nowhere, "--pruner", "mean"), "median, hyperband, none")
    assert_rejected(whirl("search", nowhere, "--space", tmp_path / "space.yaml"), "space.yaml: window cannot")
    assert_rejected(whirl("search", nowhere, "--storage", tmp_path / "broken.log"), "broken.log", "line 1")
    assert_rejected(whirl("search", nowhere, "--out", tmp_path / "space.yaml" / "out"), "is a file")
    assert_rejected(whirl("search", nowhere, "--out", tmp_path), "not empty")
    assert_rejected(whirl("search", "--resume"), "--resume needs --out")
    assert_rejected(whirl("search", "--resume", "--out", tmp_path), "search.yaml")
    assert_rejected(whirl("search", nowhere, "--out", tmp_path / "out"), "nowhere")
    assert not (tmp_path / "out").exists()


def test_rejects_storage_of_another_search(data, space, search_copy, tmp_path):
    storage = search_copy / "study.log"
    before = storage.read_bytes().count(b"is_drawn")
    joining = ["search", data, *QUICK, "--epochs", 2, "--space", space, "--storage", storage, "--out", tmp_path / "out"]
    assert_rejected(whirl(*joining, "--model", "cnn1d"), "settings.model", "wdcnn", "cnn1d")
    assert_rejected(whirl(*joining, "--pruner", "none"), "pruner")
    assert_rejected(whirl(*joining, "--classes", "healthy,ball"), "recordings")
    assert storage.read_bytes().count(b"is_drawn") == before


# -- resuming ------------------------------------------------------------------------------------------------


def test_finished_search_is_resumed_with_more_trials(searched, search_copy):
    done = whirl("search", "--resume", "--out", search_copy, "--trials", 4)
    assert done.exit_code == 0, done.output
    table = table_of(search_copy)
    assert len(table) == 4
    pd.testing.assert_frame_equal(
        table.head(3).drop(columns=["rank"]), table_of(searched[0]).drop(columns=["rank"]), check_dtype=False
    )


def test_rejects_resuming_with_other_settings(search_copy):
    assert_rejected(
        whirl("search", "--resume", "--out", search_copy, "--model", "cnn1d"), "with model='wdcnn', but model='cnn1d'"
    )
    assert_rejected(whirl("search", "--resume", "--out", search_copy, "--pruner", "hyperband"), "pruner='median'")


def wait_for_trial(storage, number):
    """Wait until the trial of that number has drawn its parameters."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if storage.exists() and storage.read_text().count('"is_drawn":true') > number:
            return
        time.sleep(0.01)
    raise AssertionError(f"{storage}: trial {number} did not start")


LONG = [*QUICK, "--epochs", 10, "--trials", 2, "--pruner", "none"]


def test_interrupted_trial_is_run_again_on_resume(data, tmp_path):
    folder = tmp_path / "out"

    def stop():
        wait_for_trial(folder / "study.log", 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    gc.disable()  # an exit within a callback of the garbage collector, such as that of Hypothesis, would be ignored
    try:
        stopped = whirl("search", data, *LONG, "--out", folder)
    finally:
        gc.enable()
    assert stopped.exit_code == 143, stopped.output
    assert f"resume with: whirl search --resume --out {folder}" in stopped.stdout
    assert len(table_of(folder)) == 2  # the score of the first is stored
    done = whirl("search", "--resume", "--out", folder)
    assert done.exit_code == 0, done.output
    assert "2 trials: 2 finished" in done.stdout


def test_trial_of_a_killed_worker_is_run_by_another(data, tmp_path):
    storage = tmp_path / "study.log"
    search = ["search", data, *LONG, "--trials", 3, "--storage", storage]
    worker = Command(*search, "--out", tmp_path / "killed", log_folder=tmp_path)
    wait_for_trial(storage, 0)

    def kill():
        wait_for_trial(storage, 1)
        os.kill(worker.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    done = whirl(*search, "--out", tmp_path / "running")
    assert done.exit_code == 0, done.output
    assert "3 trials: 3 finished" in done.stdout
    table = table_of(tmp_path / "running")
    assert not table.duplicated(["lr", "batch_size", "weight_decay"]).any()
    assert worker.wait().returncode == -signal.SIGKILL
    again = whirl(
        "search", "--resume", "--out", tmp_path / "killed"
    )  # all trials have ended; it writes the same results
    assert again.exit_code == 0, again.output
    pd.testing.assert_frame_equal(table_of(tmp_path / "killed"), table)


@pytest.mark.slow
def test_several_processes_train_each_trial(data, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    search = ["search", data, *QUICK, "--epochs", 4, "--trials", 12, "--out", tmp_path / "out"]
    done = subprocess.run([*launch, "-m", "whirl", *map(str, search)], env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("12 trials: ") == 1
    table = table_of(tmp_path / "out")
    assert len(table) == 12
    assert (table.loc[table["state"] == "pruned", "epochs"] < 4).all()
