"""Comparison of runs, prediction of files with a run, and a run as a teacher."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from whirl.engine.files import write_text
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.models.registry import create_model, register_model
from whirl.runs.comparison import compare_runs
from whirl.runs.config import make_config, with_settings
from whirl.runs.data import prepare
from whirl.runs.evaluation import predictions_table
from whirl.runs.prediction import predict, predict_files
from whirl.runs.run_folder import RunFolder
from whirl.runs.sections import SimulationSection
from whirl.runs.teacher import check_teacher, load_teacher, make_distillation_trainer
from whirl.runs.trainers import make_trainer

SIMULATION = SimulationSection(n_machines=4, recordings_per_class=1, duration_s=0.5)
BASE = make_config(
    {"simulation": SIMULATION, "model": "wdcnn", "window": 1024, "epochs": 1, "device": "cpu", "threads": 1}
)


@register_model("half_wdcnn")
def half_wdcnn(num_classes, in_channels=1):
    return create_model("wdcnn", num_classes, in_channels, width=0.5)


@pytest.fixture(scope="module")
def data():
    return prepare(BASE)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two finished runs without reports, which take seconds to render."""
    path = tmp_path_factory.mktemp("runs")
    for name, model in (("a", "wdcnn"), ("b", "half_wdcnn")):
        folder, run = RunFolder(path / name), replace(data, config=with_settings(data.config, model=model))
        folder.initialize(run.config, run.summary())
        trainer = make_trainer(run, folder)
        trainer.fit(1)
        by_recording = aggregate_by_recording(predict_windows(trainer.model, run.windows(run.split.test)))
        write_text(folder.predictions_file, predictions_table(by_recording, run.split.test, run.classes))
    return path


@pytest.fixture
def copies(runs, tmp_path):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    return tmp_path


def set_predictions(run, predicted_of):
    """Replace the predictions in the table of a run."""
    file = RunFolder(run).predictions_file
    with file.open() as text:
        rows = list(csv.DictReader(text))
    for index, row in enumerate(rows):
        row["predicted"] = predicted_of(index, row["label"])
    with file.open("w") as text:
        table = csv.DictWriter(text, rows[0])
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def test_comparison_matches_manual_counts(copies):
    """Run a is wrong on the first recording and b on the last six; both are correct on all others."""
    a, b = copies / "a", copies / "b"
    n = set_predictions(a, lambda index, label: "other" if index == 0 else label)
    set_predictions(b, lambda index, label: "other" if index >= n - 6 else label)
    found = compare_runs(a, b)
    assert found.n_recordings == n == 11
    assert (found.a.accuracy, found.b.accuracy) == (pytest.approx(10 / 11), pytest.approx(5 / 11))
    assert found.agreement == pytest.approx(4 / 11)
    assert (found.test.n_only_a, found.test.n_only_b) == (6, 1)
    assert found.test.p_value == pytest.approx(0.125)
    assert found.a.parameters > 3 * found.b.parameters
    assert found.a.size_bytes > 2 * found.b.size_bytes
    assert found.a.latency_s > 0 < found.b.latency_s
    assert found.a.window_s == pytest.approx(0.05, rel=0.3)
    for card in (found.a, found.b):
        assert card.latency_quartiles_s[0] <= card.latency_s <= card.latency_quartiles_s[1]
    assert found.latency_ratio == tuple(sorted(found.latency_ratio))
    text = str(found)
    for part in ("0.909", "0.455", "0.364", "sign-flip test over", "54,371", "ms", "kB", "half_wdcnn"):
        assert part in text


@pytest.mark.parametrize(("ratio", "is_noise"), [((0.9, 1.02, 1.1), True), ((1.2, 1.3, 1.4), False)])
def test_reports_latency_differences_within_noise(runs, ratio, is_noise):
    found = replace(compare_runs(runs / "a", runs / "a"), latency_ratio=ratio)
    assert ("the difference is within the noise" in str(found)) is is_noise
    assert f"{ratio[1]:.3g} ({ratio[0]:.3g} to {ratio[2]:.3g})" in str(found)


def set_specimens(run, specimen_of):
    """Replace the specimens in the table of a run."""
    file = RunFolder(run).predictions_file
    with file.open() as text:
        rows = list(csv.DictReader(text))
    with file.open("w") as text:
        table = csv.DictWriter(text, rows[0])
        table.writeheader()
        table.writerows(row | {"specimen": specimen_of(index)} for index, row in enumerate(rows))


@pytest.mark.parametrize(
    ("specimen_of", "n_specimens", "caution"),
    [
        (lambda index: f"m{index}", 11, "McNemar's exact test: p = 1, not significant"),
        (lambda index: f"m{index % 2}", 2, "sign-flip test over 2 specimens: p = 1, not significant\n"),
        (lambda index: "m" * (index % 2), None, "if no two recordings are of one specimen (specimens are unknown)"),
    ],
    ids=["one recording each", "shared", "unknown"],
)
def test_p_value_states_the_number_of_specimens(copies, specimen_of, n_specimens, caution):
    set_specimens(copies / "a", specimen_of)
    found = compare_runs(copies / "a", copies / "a")
    assert found.n_specimens == n_specimens
    assert caution in str(found)


def test_run_agrees_with_itself(runs):
    found = compare_runs(runs / "a", runs / "a")
    assert (found.agreement, found.test.p_value) == (1.0, 1.0)


def update_metadata(run, **facts):
    RunFolder(run).update_metadata(**facts)


def test_rejects_runs_that_cannot_be_compared(copies):
    a, b = copies / "a", copies / "b"
    with pytest.raises(ValueError, match="not a run folder"):
        compare_runs(a, copies / "c")
    parts = RunFolder(b).read_data()["parts"]
    update_metadata(b, parts=parts | {"test": parts["val"]})
    with pytest.raises(ValueError, match="different test parts: 11 recordings only in the first"):
        compare_runs(a, b)
    update_metadata(b, fingerprint="another")
    with pytest.raises(ValueError, match="fingerprints differ"):
        compare_runs(a, b)
    config = RunFolder(b).config_file
    config.write_text(config.read_text().replace("  - healthy\n", ""))
    with pytest.raises(ValueError, match="only one of them has healthy"):
        compare_runs(a, b)


def test_rejects_missing_or_truncated_predictions(copies):
    file = RunFolder(copies / "b").predictions_file
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"\(11 rows\).*\(10 rows\)"):
        compare_runs(copies / "a", copies / "b")
    file.write_text("nothing\n1\n")
    with pytest.raises(ValueError, match=r"predictions\.csv: cannot be read"):
        compare_runs(copies / "a", copies / "b")
    file.unlink()
    with pytest.raises(ValueError, match=r"no predictions\.csv"):
        compare_runs(copies / "a", copies / "b")


# -- prediction of files -----------------------------------------------------------------------------


def test_unreadable_files_do_not_affect_other_files(runs, tmp_path):
    names = ["a.npy", "missing.npy", "b.npy", "short.npy", "broken.npy", "c.npy"]
    files = [tmp_path / name for name in names]
    for index, length in ((0, 20_480), (2, 30_000), (3, 50), (5, 20_480)):
        np.save(files[index], np.random.default_rng(index).normal(size=length))
    files[4].write_bytes(b"no array")
    diagnoses, failures = predict_files(runs / "a", files, sampling_rate_hz=20_480)
    assert [d.file for d in diagnoses] == [str(files[index]) for index in (0, 2, 5)]
    assert [*failures] == [str(files[index]) for index in (1, 3, 4)]
    assert all(Path(file).name in str(error) for file, error in failures.items())
    usable = [files[index] for index in (0, 2, 5)]
    assert [d.as_dict() for d in diagnoses] == [d.as_dict() for d in predict(runs / "a", usable, 20_480)]
    with pytest.raises(OSError, match=r"missing\.npy"):
        predict(runs / "a", files, 20_480)
    assert predict_files(runs / "a", files[1:2])[0] == []


# -- a run as a teacher --------------------------------------------------------------------------------


def test_teacher_has_the_weights_of_the_best_checkpoint(runs, data):
    teacher = load_teacher(runs / "a", data)
    saved = torch.load(RunFolder(runs / "a").best_checkpoint, weights_only=True)["training"]["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [("classes", ["x"]), ("channels", ["x"]), ("sampling_rate_hz", 7.0), ("band_limit_hz", 5.0), ("window", 512)],
)
def test_rejects_teacher_with_other_inputs_or_outputs(runs, data, name, value):
    other = replace(data, config=with_settings(data.config, **{name: value}))
    with pytest.raises(ValueError, match=f"this teacher was trained with {name}="):
        load_teacher(runs / "a", other)


def test_rejects_unsuitable_teacher_before_recordings_are_read(copies, data, tmp_path):
    config = make_config({"simulation": SIMULATION, "model": "wdcnn", "teacher": str(copies / "a")})
    check_teacher(BASE)  # without a teacher
    check_teacher(config)
    check_teacher(with_settings(config, window=1024, classes=list(data.classes)[::-1]))
    for name, value in {
        "window": 512,
        "classes": ["healthy", "wear"],
        "channels": ["x"],
        "sampling_rate_hz": 7.0,
    }.items():
        with pytest.raises(ValueError, match=f"this teacher was trained with {name}="):
            check_teacher(with_settings(config, **{name: value}))
    with pytest.raises(ValueError, match=r"nowhere: not a run folder"):
        check_teacher(with_settings(config, teacher=str(tmp_path / "nowhere")))
    shutil.rmtree(RunFolder(copies / "a").checkpoints)
    with pytest.raises(ValueError, match="this teacher has no checkpoint yet"):
        check_teacher(config)


def test_rejects_teacher_trained_on_test_data(copies, data):
    other = replace(data, split=replace(data.split, test=data.split.train))
    with pytest.raises(ValueError, match="trained on test data of the student"):
        load_teacher(copies / "a", other)
    load_teacher(copies / "a", replace(other, config=with_settings(data.config, allow_leakage=True)))
    # Recordings are identified by their samples, regardless of the fingerprint of their data set.
    update_metadata(copies / "a", fingerprint="another data set")
    with pytest.raises(ValueError, match="trained on test data of the student"):
        load_teacher(copies / "a", other)


def parts_of(trainer):
    names = ("model", "optimizer", "criterion", "train_loader", "val_loader", "device", "lr_scheduler")
    return {name: getattr(trainer, name) for name in (*names, "checkpoint_dir", "augmentation")}


def test_distillation_keeps_the_other_trainer_arguments(runs, data, tmp_path):
    parts = parts_of(make_trainer(data, RunFolder(tmp_path)))
    trainer = make_distillation_trainer(parts, load_teacher(runs / "a", data), temperature=2.0, alpha=0.5)
    assert parts_of(trainer) == parts | {"criterion": trainer.criterion}
    assert trainer.criterion.hard_criterion is parts["criterion"]
    assert trainer.cache_teacher
    assert {"train_soft_loss", "train_hard_loss", "val_loss"} <= set(trainer.fit(1))
    assert RunFolder(tmp_path).best_checkpoint.is_file()


def test_teacher_logits_of_augmented_windows_are_not_cached(runs, data, tmp_path):
    augmented = replace(data, config=with_settings(data.config, augment="light"))
    parts = parts_of(make_trainer(augmented, RunFolder(tmp_path)))
    assert not make_distillation_trainer(parts, load_teacher(runs / "a", data)).cache_teacher
