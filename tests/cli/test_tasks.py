"""`whirl train --task`: compound faults and levels, from training to reports, predictions and exports."""

import csv
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate
from whirl.runs.prediction import predict
from whirl.runs.run_folder import RunFolder

QUICK = (
    "--model", "wdcnn", "--window", "1024", "--epochs", "2", "--batch-size", "16", "--device", "cpu",
    "--precision", "32", "--threads", "1",
)  # fmt: skip
COMPOUND = {
    "healthy": "healthy",
    "misalignment": "misalignment",
    "imbalance": "imbalance",
    "misalignment_imbalance": "imbalance+misalignment",
}
TWO = {"wear": "wear", "healthy": "normal"}
LEVELS = {"healthy": "healthy", "wear": "wear 10", "imbalance": "wear 7", "oil_whirl": "wear 2.5"}


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def save(folder, labels):
    recordings = simulate(6, 1, tuple(labels), seed=3, sampling_rate_hz=2560, n_samples=3 * 2048)
    save_dataset([replace(recording, label=labels[recording.label]) for recording in recordings], folder)
    return folder


def table(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def trained(data, out, task, *options):
    done = whirl("train", data, "--task", task, "--out", out, *QUICK, *options)
    assert done.exit_code == 0, done.output
    return done.output, json.loads((out / "metrics.json").read_text())["recording"]


@pytest.mark.parametrize("task", ["multilabel", "ordinal"])
def test_trains_reports_predicts_and_exports(task, tmp_path):
    data, out = save(tmp_path / "data", COMPOUND if task == "multilabel" else LEVELS), tmp_path / "run"
    output, metrics = trained(data, out, task)
    report = (out / "report.html").read_text()
    if task == "multilabel":
        assert set(metrics["per_fault"]) == {"imbalance", "misalignment"}
        assert "Single faults" in report
        assert "misalignment         F1" in output
    else:
        assert RunFolder(out).read_config().data.classes == ["healthy", "wear 2.5", "wear 7", "wear 10"]
        assert 0 <= metrics["levels"]["mean_absolute_error"] <= 3
        assert "quadratic" in report
        assert "mean error in levels" in output
    files = sorted(data.glob("*.npz"))[:3]
    diagnoses = predict(out, files)
    if task == "multilabel":
        _check_single_faults(diagnoses, out, files)
    assert set(diagnoses[0].probabilities) == set(RunFolder(out).read_config().data.classes)
    assert whirl("export", out, "--bundle").exit_code == 0
    assert [each.probabilities for each in predict(out / "bundle", files)] == [d.probabilities for d in diagnoses]
    for command in [("export", out, "--torch"), ("evaluate", out)] if task == "ordinal" else []:
        done = whirl(*command)
        assert done.exit_code == 0, done.output


def _check_single_faults(diagnoses, out, files):
    """The probability of a fault is that of all labels that name it, in Python, JSON, CSV and text."""
    for each in diagnoses:
        both = each.probabilities["imbalance+misalignment"]
        assert each.faults == pytest.approx({name: both + each.probabilities[name] for name in each.faults})
        assert set(each.faults) == {"imbalance", "misalignment"}
    shown = json.loads(whirl("predict", out, files[0], "--json", "--csv", out / "judged.csv").stdout)[0]
    assert shown["faults"] == diagnoses[0].faults
    (row,) = table(out / "judged.csv")
    pairs = dict(pair.rsplit(" ", 1) for pair in row["faults"].split("; "))
    assert {name: float(value) for name, value in pairs.items()} == pytest.approx(diagnoses[0].faults, rel=1e-5)
    assert len(row["probabilities"].split("; ")) == 4
    assert "single faults: imbalance 0." in str(diagnoses[0])


def test_predicts_a_number(tmp_path):
    data, out = save(tmp_path / "data", LEVELS), tmp_path / "run"
    output, metrics = trained(data, out, "regression", "--target", "severity")
    assert RunFolder(out).read_config().training.loss == "mse"
    errors = [float(row["predicted"]) - float(row["target"]) for row in table(out / "predictions.csv")]
    assert metrics["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), rel=1e-6)
    assert "compared with the mean of the training targets" in output
    assert "severity" in (out / "report.html").read_text()
    files = sorted(data.glob("*.npz"))[:3]
    found = predict(out, files)
    assert all(each.number.target == "severity" and each.number.typical_error > 0 for each in found)
    assert (found[0].as_dict()["class"], found[0].probability) == (None, None)
    assert whirl("export", out, "--bundle").exit_code == 0
    assert [each.number for each in predict(out / "bundle", files)] == [each.number for each in found]
    assert whirl("predict", out, *files, "--report", out / "judged.html").exit_code == 0
    assert str(found[0].number) in (out / "judged.html").read_text()
    assert json.loads(whirl("predict", out, files[0], "--json").stdout)[0]["number"]["value"] == found[0].number.value
    for refused in (("compare", out, out), ("watch", data, "--run", out, "--log", out / "log.csv", "--once")):
        done = whirl(*refused)
        assert (done.exit_code, "predicts a number" in done.stderr) == (2, True)


def test_levels_may_be_stated_in_their_order(tmp_path):
    labels = {"healthy": "low", "wear": "medium", "imbalance": "high"}
    data = save(tmp_path / "data", labels)
    trained(data, tmp_path / "run", "ordinal", "--classes", "low,medium,high")
    assert RunFolder(tmp_path / "run").read_config().data.classes == ["low", "medium", "high"]
    done = whirl("train", data, "--task", "ordinal", "--out", tmp_path / "other", *QUICK)
    assert done.exit_code == 2
    assert "state the order of all labels with --classes" in done.stderr


def test_two_classes_with_one_logit(tmp_path):
    data, out = save(tmp_path / "data", TWO), tmp_path / "run"
    output, metrics = trained(data, out, "binary", "--threshold", "0.2")
    assert RunFolder(out).read_config().data.classes == ["normal", "wear"]
    positive = metrics["positive"]
    assert (positive["class"], positive["threshold"]) == ("wear", 0.2)
    assert "is predicted above a probability of 0.2" in (out / "report.html").read_text()
    assert "wear                 F1" in output
    files = sorted(data.glob("*.npz"))
    for each in predict(out, files):
        assert each.label == ("wear" if each.probabilities["wear"] > 0.2 else "normal")
        assert each.probability == each.probabilities[each.label]
    assert whirl("export", out, "--bundle").exit_code == 0
    assert [str(each) for each in predict(out / "bundle", files)] == [str(each) for each in predict(out, files)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "binary"), "task 'binary' is for two classes, but there are 4"),
        (("--threshold", "0.3"), "threshold requires task 'binary'"),
        (("--task", "multilabel", "--model", "rule"), "task is a setting of networks"),
        (("--task", "ordinal", "--representation", "multi"), "has several"),
        (("--task", "regression"), "name a column of the manifest that has one with --target; numbers are in severity"),
        (("--task", "regression", "--target", "severity", "--model", "rule"), "task is a setting of networks"),
    ],
)
def test_rejects_tasks_that_do_not_fit(tmp_path, options, message):
    data = save(tmp_path / "data", COMPOUND)
    done = whirl("train", data, *options, "--out", tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert message in done.stderr
