"""Runs with physics terms: logs, results, resuming, and invalid input."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from whirl.callbacks.callbacks import TensorBoardLogger
from whirl.cli.main import app
from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate
from whirl.engine.callbacks import Callback
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.runs.config import make_config, with_settings
from whirl.runs.data import prepare
from whirl.runs.evaluation import evaluate
from whirl.runs.factory import physics_baseline
from whirl.runs.flat import to_flat
from whirl.runs.harmonization import with_speeds
from whirl.runs.prediction import predict
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import train_run

CLASSES = ("healthy", "misalignment", "imbalance", "lubrication", "oil_whirl")
QUICK = {"model": "wdcnn", "epochs": 2, "batch_size": 16, "device": "cpu", "threads": 1, "precision": "32"}

# Some machines rotate so slowly that a window of 16 revolutions cannot resolve all lines.
pytestmark = pytest.mark.filterwarnings("ignore:windows of .* are too short to resolve:UserWarning")


@pytest.fixture(scope="module")
def recordings():
    return simulate(8, 1, CLASSES, seed=2, sampling_rate_hz=2560, n_samples=2 * 4096)


def of_machines(recordings, first, last):
    return [r for r in recordings if first <= int(r.specimen.removeprefix("machine")) <= last]


@pytest.fixture(scope="module")
def data(recordings, tmp_path_factory):
    """Machines 0 to 4; only the manifest states the speed, not the files."""
    folder = tmp_path_factory.mktemp("data") / "labeled"
    save_dataset(of_machines(recordings, 0, 4), folder)
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            content = {name: file[name] for name in file if name != "rpm"}
        np.savez(path, **content)
    return folder


@pytest.fixture(scope="module")
def unlabeled(recordings, tmp_path_factory):
    """Machines 5 to 7 with invalid labels, which must not be used, and without the oil temperature."""
    folder = tmp_path_factory.mktemp("data") / "unlabeled"
    save_dataset((replace(r, label="?", metadata={}) for r in of_machines(recordings, 5, 7)), folder)
    return folder


def config(data, **settings):
    return make_config({"data": str(data), "trainer": "pinn", **QUICK, **settings})


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["training"]["model"]


def have_equal_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def test_loss_terms_are_in_history_tensorboard_and_report(data, tmp_path):
    run, events = tmp_path / "run", tmp_path / "events"
    settings = config(data, lambda_sommerfeld=0.5)
    train_run(settings, run, callbacks=[TensorBoardLogger(events)])
    history = json.loads((run / "history.json").read_text())
    accumulator = EventAccumulator(str(events)).Reload()
    for name in ("freq_loss", "sommerfeld_loss", "physics_loss", "classification_loss", "lambda"):
        logged = [event.value for event in accumulator.Scalars(f"train/{name}")]
        assert logged == pytest.approx(history[f"train_{name}"], rel=1e-6)
    assert history["train_lambda"] == [1, 1]
    assert min(history["train_freq_loss"] + history["train_sommerfeld_loss"]) > 0
    page = (run / "report.html").read_text()
    for text in ("frequency loss", "load ranking", "agreement with physics", "<th>physics only</th>"):
        assert text in page
    assert "temporal smoothness loss" not in page  # a term with weight 0
    assert to_flat(RunFolder(run).read_config())["lambda_sommerfeld"] == 0.5


class InterruptSecondEpoch(Callback):
    """Interrupts the training in the middle of the second epoch."""

    def on_batch_end(self, batch, logs=None):
        if self.trainer.state.epoch == 1 and batch == 1:
            self.trainer.state.interrupted = True


def test_resume_with_unlabeled_windows_matches_uninterrupted_run(data, unlabeled, tmp_path):
    settings = config(data, model="hybrid_pinn", epochs=3, augment="light", unlabeled=str(unlabeled))
    uninterrupted = train_run(settings, tmp_path / "uninterrupted")
    assert train_run(settings, tmp_path / "interrupted", callbacks=[InterruptSecondEpoch()]).metrics is None
    resumed = train_run(RunFolder(tmp_path / "interrupted").read_config(), tmp_path / "interrupted", resume=True)
    assert have_equal_weights(tmp_path / "uninterrupted", tmp_path / "interrupted")
    assert resumed.metrics == uninterrupted.metrics
    without = train_run(with_settings(settings, unlabeled="off"), tmp_path / "without")
    assert not have_equal_weights(tmp_path / "uninterrupted", without.folder.path)


def test_zero_weights_match_plain_training(data, tmp_path):
    train_run(config(data, lambda_freq=0), tmp_path / "a")
    plain = make_config({"data": str(data), **QUICK})
    train_run(plain, tmp_path / "b")
    assert have_equal_weights(tmp_path / "a", tmp_path / "b")
    settings = to_flat(RunFolder(tmp_path / "b").read_config())
    assert not [name for name in settings if name.startswith("lambda") or name == "unlabeled"]
    report = (tmp_path / "b" / "report.html").read_text()
    assert "frequency loss" not in report
    assert "<th>physics only</th>" in report


@pytest.mark.parametrize("model", ["hybrid_pinn", "order_cnn"])
def test_network_that_uses_the_speed_reproduces_its_predictions(data, tmp_path, model):
    run = tmp_path / "run"
    settings = make_config({"data": str(data), **QUICK, "model": model, "epochs": 1})
    train_run(settings, run)
    evaluate(run, out=tmp_path / "again")
    assert (tmp_path / "again" / "metrics.json").read_text() == (run / "metrics.json").read_text()
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    files = [row["file"] for row in rows]
    for row, diagnosis in zip(rows, predict(run, files), strict=True):
        for label, probability in diagnosis.probabilities.items():
            assert probability == pytest.approx(float(row[label]), abs=2e-6)
    shutil.copy(files[0], tmp_path / "alone.npz")  # without the manifest, the speed is unknown
    (alone,) = predict(run, [tmp_path / "alone.npz"])
    assert alone.probabilities[alone.label] != pytest.approx(float(rows[0][alone.label]), abs=1e-4)


def test_windows_provide_operating_point_only_for_physics(data, unlabeled):
    prepared = prepare(config(data, unlabeled=str(unlabeled)))
    for part in (prepared.split.train, prepared.unlabeled):
        metadata = prepared.windows(part)[:2][2]
        assert list(metadata) == ["recording", "start", "rpm", "sommerfeld", "load", "temperature"]
        assert bool(metadata["sommerfeld"].isnan().all()) == (part is prepared.unlabeled)
    plain = prepare(make_config({"data": str(data), **QUICK}))
    assert list(plain.windows(plain.split.train)[:2][2]) == ["recording", "start", "rpm"]


def test_labels_of_unlabeled_recordings_are_ignored(data, unlabeled):
    prepared = prepare(config(data, unlabeled=str(unlabeled)))
    assert prepared.classes == CLASSES
    assert {recording.label for recording in prepared.unlabeled} == {None}
    assert [part["specimen"] for part in prepared.summary()["parts"]["unlabeled"]][::5] == [
        "machine05",
        "machine06",
        "machine07",
    ]
    assert prepared.fingerprint != prepare(config(data)).fingerprint


def test_physics_baseline_is_above_chance_and_uniform_for_impossible_speeds(data):
    prepared = prepare(make_config({"data": str(data), **QUICK}))
    physics = physics_baseline(prepared)
    recordings = [*prepared.split.val, *prepared.split.test]
    by_recording = aggregate_by_recording(predict_windows(physics, prepared.windows(recordings)))
    assert (by_recording.predicted == by_recording.targets).mean() > 0.5  # of five classes
    signals = prepared.windows(recordings)[:4][0]
    logits = physics(signals, {"rpm": torch.tensor([1.0, 1e5, torch.nan, 70.0])})
    assert torch.allclose(logits, logits[:, :1].expand(-1, 5), atol=1e-5)


def test_unknown_labels_have_no_physics_baseline(recordings, tmp_path):
    save_dataset((replace(r, label=f"state {r.label}") for r in of_machines(recordings, 0, 4)), tmp_path / "named")
    assert physics_baseline(prepare(make_config({"data": str(tmp_path / "named"), **QUICK}))) is None


def without_speed(recordings, folder):
    save_dataset((replace(recording, rpm=None) for recording in recordings), folder)
    return folder


def test_unknown_speeds_are_estimated_from_the_signal(recordings, tmp_path):
    faulty = [r for r in recordings if 2000 <= (r.rpm or 0) <= 3600 and r.label in ("imbalance", "misalignment")]
    stated, truth = replace(faulty[0], rpm=1234.5), np.array([r.rpm for r in faulty])
    settings = config("x", rpm_from="signal", rpm_range=(1900, 3700))
    estimated = with_speeds([*(replace(r, rpm=None) for r in faulty), stated], settings)
    assert estimated[-1].rpm == 1234.5
    found = np.array([r.rpm or np.nan for r in estimated[:-1]])
    is_known = np.isfinite(found)
    assert is_known.mean() > 0.6
    assert np.mean(np.abs(found / truth - 1)[is_known] < 0.01) > 0.9
    confidences = np.array([r.metadata["rpm_confidence"] for r in estimated[:-1]])
    assert np.array_equal(confidences >= 0.5, is_known)
    folder = without_speed(recordings, tmp_path / "no_speed")
    prepared = prepare(config(folder, rpm_from="signal", rpm_range=(1900, 3700)))
    estimated, unclear = (note for note in prepared.notes if note.startswith("speed:"))
    assert "estimated from the signal, between 1900 and 3700 rpm, with a confidence of 0." in estimated
    assert "not clear from the signal" in unclear
    speeds = [recording.rpm for recording in prepared.split.train if recording.rpm is not None]
    assert speeds
    assert all(1900 <= rpm <= 3700 for rpm in speeds)


# -- invalid input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": "plain", "lambda_freq": 2}, "lambda_freq requires trainer 'pinn'"),
        ({"trainer": "plain", "unlabeled": "x"}, "unlabeled requires trainer 'pinn'"),
        ({"trainer": "pinn", "lambda_freq": -1}, "lambda_freq"),
        ({"trainer": "pinn", "lambda_schedule": "linaer"}, "unknown lambda_schedule 'linaer'"),
        ({"trainer": "cn"}, "trainer"),
        ({"rpm_from": "signal"}, "rpm_from 'signal' requires rpm_range"),
        ({"rpm_range": [3000, 1000]}, "lowest <= highest"),
    ],
)
def test_rejects_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(settings)


def assert_rejected(done, folder, *parts):
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("whirl: ")
    for part in parts:
        assert part in last
    assert not folder.exists()


def test_rejects_terms_without_a_gradient_before_writing(recordings, data, tmp_path):
    no_speed, out = without_speed(of_machines(recordings, 0, 4), tmp_path / "no_speed"), tmp_path / "out"
    options = ["--trainer", "pinn", "--model", "wdcnn", "--epochs", 1, "--out", out]
    assert_rejected(whirl("train", no_speed, *options), out, "freq_loss", "rpm")
    (tmp_path / "c.yaml").write_text("training: {method: {kind: pinn, lambda_sommerfeld: 1}}\n")
    no_metadata = tmp_path / "no_metadata"
    save_dataset((replace(r, metadata={}, load=None) for r in of_machines(recordings, 0, 4)), no_metadata)
    assert_rejected(
        whirl("train", no_metadata, *options, "--config", tmp_path / "c.yaml"), out, "sommerfeld_loss", "'load'"
    )


def test_faults_of_a_rolling_bearing_require_its_geometry(tmp_path):
    folder, out = tmp_path / "rolling", tmp_path / "out"
    save_dataset(simulate(4, 1, ("healthy", "inner_race", "ball"), n_samples=20_480), folder)
    for option in (["--trainer", "pinn"], ["--model", "hybrid_pinn"]):
        assert_rejected(whirl("train", folder, *option, "--out", out), out, "inner_race, ball", "--bearing", "6205")
    options = ["--trainer", "pinn", "--model", "wdcnn", "--epochs", 1, "--out", out]
    done = whirl("train", folder, *options, "--bearing", "6205", "--lambda-freq", 0.3)
    assert done.exit_code == 0, done.output
    assert to_flat(RunFolder(out).read_config())["lambda_freq"] == 0.3


def test_rejects_unlabeled_recordings_of_a_test_specimen(recordings, data, tmp_path):
    out = tmp_path / "out"
    options = ["--trainer", "pinn", "--unlabeled", data, "--test-specimens", "machine02", "--out", out]
    assert_rejected(whirl("train", data, *options), out, "machine02", "--allow-leakage")


def test_rejects_windows_shorter_than_one_revolution(data, tmp_path):
    out = tmp_path / "out"
    assert_rejected(
        whirl("train", data, "--trainer", "pinn", "--window", 64, "--out", out), out, "one revolution", "--window"
    )
