"""`whirl train` with maps, teachers, progressive stages and reduced precision."""

import json

import numpy as np
import pytest
import torch
from matplotlib import image
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.runs.config import make_config
from whirl.runs.data import prepare
from whirl.runs.factory import new_model
from whirl.runs.flat import to_flat
from whirl.runs.prediction import predict
from whirl.runs.run_folder import RunFolder
from whirl.runs.trainers import make_trainer
from whirl.training.knowledge_distillation import DistillationTrainer
from whirl.training.progressive_resizing import ProgressiveResizingTrainer
from whirl.training.spectrogram_trainer import MultiTFRTrainer, SpectrogramTrainer, load_representation

CLASSES = ("healthy", "misalignment", "oil_whirl")
QUICK = ("--epochs", "2", "--batch-size", "16", "--device", "cpu", "--precision", "32", "--seed", "1")


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_modes") / "data"
    save_dataset(simulate(6, 1, CLASSES, seed=3, sampling_rate_hz=2560, n_samples=3 * 2048), folder)
    return folder


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("train_modes") / "teacher"
    done = whirl("train", data, "--model", "wdcnn", "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    return out


def assert_rejected(done, *parts):
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("kind", ["stft", "order", "multi"])
def test_bundle_of_a_map_network_predicts_the_same_from_waveforms(data, tmp_path, kind):
    out = tmp_path / "run"
    done = whirl("train", data, "--representation", kind, "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    settings = to_flat(RunFolder(out).read_config())
    assert settings["model"] == ("multi_tfr" if kind == "multi" else "cnn2d")
    files = sorted(data.glob("*.npz"))[:3]
    diagnoses = predict(out, files)
    assert whirl("export", out, "--bundle").exit_code == 0
    for diagnosis, bundled in zip(diagnoses, predict(out / "bundle", files), strict=True):
        assert diagnosis.probabilities == bundled.probabilities


def test_settings_select_the_trainer(data, teacher, tmp_path):
    kinds = {
        SpectrogramTrainer: {"representation": "cwt", "specaugment": False},
        MultiTFRTrainer: {"representation": ["stft", "order"]},
        DistillationTrainer: {"teacher": str(teacher), "model": "wdcnn", "width": 0.5},
        ProgressiveResizingTrainer: {"progressive": [[1024, 1], [2048, 1]], "model": "wdcnn"},
    }
    for kind, settings in kinds.items():
        config = make_config({"data": str(data), "epochs": 2, "batch_size": 16, "device": "cpu", "seed": 1} | settings)
        trainer = make_trainer(prepare(config), RunFolder(tmp_path))
        assert type(trainer) is kind
        if kind is SpectrogramTrainer:
            assert not trainer.use_specaugment


def test_distills_a_run_and_compares_student_with_teacher(data, teacher, tmp_path):
    out = tmp_path / "student"
    done = whirl("train", data, "--model", "wdcnn", "--width", "0.5", "--teacher", teacher, "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    history = json.loads((out / "history.json").read_text())
    assert history["train_soft_loss"][-1] > 0
    compared = whirl("compare", teacher, out)
    assert compared.exit_code == 0, compared.output
    for word in ("accuracy", "agree", "sign-flip test", "parameters", "ms"):
        assert word in compared.output


def test_rejects_teacher_trained_on_test_specimens(data, teacher, tmp_path):
    quick = [*QUICK[:-1], "2"]
    other = whirl("train", data, "--model", "wdcnn", "--teacher", teacher, "--out", tmp_path / "run", *quick)
    assert_rejected(other, "was trained on", "test data of the student")
    assert not (tmp_path / "run").exists()


def test_rejects_teacher_trained_on_renamed_test_recordings(data, teacher, tmp_path):
    """The student's data are copies of the recordings with other names and without specimens, split by another seed."""
    for index, file in enumerate(sorted(data.glob("*.npz"))):
        label = file.name.rsplit("_", 1)[0]
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label / f"{index}.npz").write_bytes(file.read_bytes())
    quick = [*QUICK[:-1], "2"]
    student = ("--model", "wdcnn", "--teacher", teacher, "--out", tmp_path / "run")
    assert_rejected(whirl("train", tmp_path / "data", *student, *quick), "was trained on", "test data of the student")


def test_run_saves_all_arguments_of_its_maps(data, tmp_path):
    maps = "{stft: {n_frequencies: 32, n_times: 48}}"
    (tmp_path / "maps.yaml").write_text(f"training: {{method: {{kind: maps, representation: stft, maps: {maps}}}}}\n")
    out = tmp_path / "run"
    done = whirl("train", data, "--config", tmp_path / "maps.yaml", "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    settings = to_flat(RunFolder(out).read_config())
    assert settings["maps"]["stft"]["n_times"] == 48
    assert settings["maps"]["stft"]["scale"] == "db"  # defaults too, so that later defaults do not change old runs
    network, saved = new_model(RunFolder(out).read_config()), load_representation(out / "checkpoints" / "best.pt")
    assert network.representation.config == saved.config


@pytest.mark.parametrize(
    "maps", ["{cwt: {}}", "{stft: {rows: 3}}", "{stft: {n_frequencies: 100000}}", "{stft: {frequency_range: [3, 1]}}"]
)
def test_rejects_invalid_maps(data, tmp_path, maps):
    (tmp_path / "maps.yaml").write_text(f"training: {{method: {{kind: maps, representation: stft, maps: {maps}}}}}\n")
    assert_rejected(
        whirl("train", data, "--config", tmp_path / "maps.yaml", "--out", tmp_path / "run"), "maps.yaml", ""
    )
    assert not (tmp_path / "run").exists()


def test_progressive_stages_set_the_window(data, tmp_path):
    out = tmp_path / "run"
    stages = ("--progressive", "1024:1,2048:2")
    done = whirl("train", data, "--model", "wdcnn", *stages, "--out", out, *QUICK[2:])
    assert done.exit_code == 0, done.output
    history = json.loads((out / "history.json").read_text())
    assert history["length"] == [1024, 2048, 2048]
    assert to_flat(RunFolder(out).read_config())["window"] == 2048


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--progressive", "1024"), ("length:epochs",)),
        (("--progressive", "2048:1,1024:1"), ("increasing length",)),
        (("--progressive", "512:1,2048:1", "--model", "wdcnn"), ("cannot take signals of 512",)),
        (("--progressive", "1024:1,2048:1", "--window", "4096"), ("window is 4096", "2048")),
        (
            ("--progressive", "1024:1,2048:1", "--progressive-method", "interpolate", "--model", "order_cnn"),
            ("sampling rate", "order_cnn"),
        ),
        (("--progressive-method", "truncate"), ("progressive is required",)),
        (("--alpha", "0.5"), ("teacher is required",)),
        (("--no-specaugment",), ("representation is required",)),
        (("--representation", "stft", "--model", "wdcnn"), ("wdcnn", "cnn2d")),
        (("--model", "cnn2d"), ("cnn2d", "waveforms")),
        (("--representation", "wavelet"), ("representation", "wavelet")),
        (("--representation", "stft", "--trainer", "pinn"), ("representation requires trainer 'maps'", "pinn")),
        (("--teacher", "nowhere"), ("nowhere", "not a run folder")),
        (("--width", "0.5", "--model", "patch_transformer"), ("width", "wdcnn")),
        (("--precision", "fp8"), ("precision", "fp8")),
        (("--checkpoint-every", "soon"), ("checkpoint_every", "soon")),
        (("--on-nonfinite", "ignore"), ("on_nonfinite", "ignore")),
    ],
)
def test_rejects_invalid_combinations_before_writing(data, tmp_path, arguments, parts):
    assert_rejected(whirl("train", data, *arguments, "--out", tmp_path / "run", "--device", "cpu"), *parts)
    assert not (tmp_path / "run").exists()


def test_order_maps_require_the_speed_and_multi_omits_them_without_it(tmp_path):
    recordings = simulate(6, 1, CLASSES, seed=3, sampling_rate_hz=2560, n_samples=2 * 2048)
    for recording in recordings:
        object.__setattr__(recording, "rpm", None)
    save_dataset(recordings, tmp_path / "data")
    assert_rejected(
        whirl("train", tmp_path / "data", "--representation", "order", "--out", tmp_path / "run"), "speed", "rpm"
    )
    config = make_config({"data": str(tmp_path / "data"), "representation": "multi", "device": "cpu"})
    assert "order" not in prepare(config).config.representations


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_trains_in_reduced_precision(data, tmp_path, precision):
    out = tmp_path / "run"
    quick = [precision if word == "32" else word for word in QUICK]
    done = whirl("train", data, "--model", "wdcnn", "--out", out, *quick)
    assert done.exit_code == 0, done.output
    history = json.loads((out / "history.json").read_text())
    assert ("scale" in history) == (precision == "fp16")


def test_memory_mapped_recordings_give_identical_weights(data, teacher, tmp_path):
    out = tmp_path / "run"
    options = ("--mmap-dir", tmp_path / "disk", "--checkpoint-every", "2")
    done = whirl("train", data, "--model", "wdcnn", "--out", out, *options, *QUICK)
    assert done.exit_code == 0, done.output
    mapped, in_memory = (torch.load(f / "checkpoints" / "best.pt", weights_only=True) for f in (out, teacher))
    for name, weight in in_memory["training"]["model"].items():
        assert torch.equal(mapped["training"]["model"][name], weight), name
    assert list((tmp_path / "disk").iterdir()) == []


def test_show_draws_a_recording(data, tmp_path):
    file, picture = sorted(data.glob("oil*.npz"))[0], tmp_path / "map.png"
    done = whirl("show", file, "--representation", "stft", "--out", picture)
    assert done.exit_code == 0, done.output
    pixels = image.imread(picture)
    assert pixels.shape[0] > 300
    assert np.ptp(pixels[..., :3]) > 0.5
    assert_rejected(whirl("show", file, "--representation", "psd"), "psd", "stft")
    assert_rejected(whirl("show", file, "--low", "3"), "--high")


def test_loaded_teacher_reproduces_the_predictions_of_its_run(data, teacher):
    config = RunFolder(teacher).read_config()
    prepared = prepare(config)
    from whirl.runs.teacher import load_teacher

    network = load_teacher(teacher, prepared)
    by_recording = aggregate_by_recording(predict_windows(network, prepared.windows(prepared.split.test)))
    rows = (teacher / "predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[3] for row in rows] == [prepared.classes[k] for k in by_recording.predicted]
