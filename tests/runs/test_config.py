"""Configurations: validation, files, and resuming."""

import pytest

from whirl.runs.config import make_config, resolve
from whirl.runs.config_files import load_config, read_yaml, write_config
from whirl.runs.run_folder import RunFolder, resolve_run


def resolved(**settings):
    """A resolved configuration."""
    choices = {
        "model": "wdcnn", "window": 1024, "hop": 512, "epochs": 1, "classes": ["a", "b"], "channels": ["DE"],
        "sampling_rate_hz": 12_000, "band_limit_hz": "off", "rpm_range": "unknown", "precision": "32",
        "bearing": "unknown", "threads": 1, "descriptors": "off",
    }  # fmt: skip
    return resolve(make_config({}), **choices | settings)


def test_file_round_trip_keeps_the_configuration(tmp_path):
    policy = [[["time_shift", 1.0, 0.5], ["mixup", 0.5, 0.2]], []]
    config = make_config({"epochs": 3, "classes": ["a", "b"], "simulation": {"n_machines": 5}, "augment": policy})
    write_config(tmp_path / "c.yaml", config)
    assert load_config(tmp_path / "c.yaml", {}) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 1}, "did you mean 'epochs'"),
        ({"simulation": {"n_machine": 5}}, "did you mean 'n_machines'"),
        ({"zzzz": 1}, "expected one of"),
        ({"epochs": 0}, "epochs"),
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"split": "random"}, "random"),
        ({"lr": "fast"}, "fast"),
        ({"augment": "strong"}, "unknown preset 'strong'; expected one of: light, medium, heavy"),
        ({"augment": [[["flip", 1, 1]]]}, "unknown operation 'flip'"),
        ({"augment": [[["scale", 2, 1]]]}, "probability of 'scale' is 2"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'.*xpected one of: .*adamw.*"),
        ({"schedule": "warmup"}, "unknown schedule 'warmup'.*xpected one of: constant, cosine, .*"),
        ({"loss": "focal", "label_smoothing": 0.1}, "label_smoothing requires loss 'ce'"),
    ],
)
def test_rejects_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(settings)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "!!python/object/apply:os.system ['true']\n", "just text"])
def test_rejects_file_without_a_mapping(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml"):
        read_yaml(path)


def test_options_override_the_file_and_a_new_folder_is_named_by_the_network(tmp_path):
    (tmp_path / "c.yaml").write_text("training: {epochs: 3}\nrun: {seed: 5}\n")
    config, folder = resolve_run({"epochs": 7, "model": "wdcnn"}, tmp_path / "c.yaml", None, resume=False)
    assert (config.training.epochs, config.run.seed) == (7, 5)
    assert folder.parts[0] == "runs"
    assert folder.name.endswith("wdcnn")


def test_resumed_run_keeps_its_configuration(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.initialize(resolved(epochs=4), {})
    assert resolve_run({}, None, folder.path, resume=True)[0].training.epochs == 4
    with pytest.raises(ValueError, match="was started with epochs=4, but epochs=5 was given"):
        resolve_run({"epochs": 5}, None, folder.path, resume=True)
    with pytest.raises(ValueError, match="not a run folder"):
        resolve_run({}, None, tmp_path, resume=True)


def test_a_run_that_stopped_before_its_first_checkpoint_can_be_resumed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.initialize(resolved(), {})
    with pytest.raises(ValueError, match="not empty; choose another --out or continue with --resume"):
        folder.check_empty()
    assert resolve_run({}, None, folder.path, resume=True)[1] == folder.path
