"""`whirl train --from`: a training that starts from the network of a finished run."""

import pytest
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate
from whirl.engine.checkpoint import read_weights
from whirl.runs.config_files import load_config
from whirl.runs.run_folder import RunFolder

CLASSES = ("healthy", "misalignment", "oil_whirl")
QUICK = ("--epochs", "2", "--batch-size", "16", "--device", "cpu", "--precision", "32", "--threads", "1")


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine_tuning") / "data"
    save_dataset(simulate(6, 1, CLASSES, seed=3, sampling_rate_hz=2560, n_samples=3 * 2048), folder)
    return folder


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("fine_tuning") / "source"
    done = whirl("train", data, "--model", "wdcnn", "--window", "1024", "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    return out


def weights_of_run(out):
    return read_weights(RunFolder(out).last_checkpoint)


def changed(out, source):
    before, after = read_weights(RunFolder(source).best_checkpoint), weights_of_run(out)
    return {name.rpartition(".")[0] for name, value in after.items() if not value.equal(before[name])}


def test_fine_tunes_the_last_layer_with_the_settings_of_the_source(data, source, tmp_path):
    done = whirl("train", data, "--from", source, "--freeze", "features", "--out", tmp_path / "a", *QUICK)
    assert done.exit_code == 0, done.output
    config = RunFolder(tmp_path / "a").read_config()
    assert (config.model.name, config.input.window) == ("wdcnn", 1024)
    assert changed(tmp_path / "a", source) == {"classifier.3"}


def test_fine_tunes_for_other_classes_layer_by_layer_and_resumes(data, source, tmp_path):
    arguments = (data, "--from", source, "--freeze", "features", "--unfreeze-every", 1, "--layer-decay", 0.5)
    classes = ("--classes", ",".join(CLASSES[:2]))
    done = whirl("train", *arguments, *classes, "--out", tmp_path / "b", *QUICK)
    assert done.exit_code == 0, done.output
    weights = weights_of_run(tmp_path / "b")
    assert weights["classifier.3.weight"].shape[0] == 2
    assert weights["features.1.weight"].equal(read_weights(RunFolder(source).best_checkpoint)["features.1.weight"])
    again = whirl("train", "--resume", "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert all(value.equal(weights[name]) for name, value in weights_of_run(tmp_path / "b").items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "features"), "freeze requires pretrained"),
        (("--from", ".", "--unfreeze-every", "1"), "unfreeze_every requires freeze"),
        (("--from", "."), "not a run folder"),
        (("--from", "SOURCE", "--seed", "7"), "was trained on test data of the new one"),
        (("--from", "SOURCE", "--model", "cnn1d"), "has the weights of another network"),
        (
            ("--from", "SOURCE", "--task", "regression", "--target", "temperature_c"),
            "this run was trained for task 'multiclass', but the new one is for task 'regression'; start from a run of "
            "task 'regression', or leave --from out",
        ),
        (
            ("--teacher", "SOURCE", "--trainer", "distilled", "--task", "multilabel"),
            "this teacher was trained with task='multiclass', but the student's run has task='multilabel'",
        ),
        (("--from", "SOURCE", "--freeze", "featurs"), "did you mean 'features'?"),
    ],
)
def test_rejects_before_anything_is_written(data, source, tmp_path, options, message):
    options = [str(source) if option == "SOURCE" else option for option in options]
    done = whirl("train", data, *options, "--out", tmp_path / "c", *QUICK)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "c").exists()


def test_a_search_takes_the_settings_of_the_source(data, source, tmp_path):
    options = (data, "--from", source, "--freeze", "features", "--trials", 2, "--out", tmp_path / "search")
    done = whirl("search", *options, *QUICK)
    assert done.exit_code == 0, done.output
    best = load_config(tmp_path / "search" / "best.yaml", {})
    assert (best.model.name, best.input.window, best.model.width) == ("wdcnn", 1024, 1.0)
    assert "2 finished" in done.output
