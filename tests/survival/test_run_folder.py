"""Invalid output folders and settings are rejected before recordings are read."""

import os

import pytest

from whirl.runs.config import make_config, resolve
from whirl.runs.run_folder import RunFolder, resolve_run
from whirl.runs.training import train_run


@pytest.mark.parametrize("every", ["5parsecs", "0", "-3", "0s", "min"])
def test_rejects_an_invalid_interval_with_the_settings(every):
    with pytest.raises(ValueError, match=r"checkpoint_every is .*expected a number of batches >= 1 or a time"):
        make_config({"checkpoint_every": every})


def check_rejected(folder, kind):
    """The error names the folder; the recordings, which do not exist, have not been searched for."""
    with pytest.raises(kind) as caught:
        train_run(make_config({"data": "nowhere"}), folder)
    assert caught.value.filename == str(folder)


def test_rejects_an_output_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    check_rejected(tmp_path / "file" / "run", NotADirectoryError)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_rejects_an_output_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    check_rejected(tmp_path / "run", PermissionError)


def test_check_does_not_create_the_output_folder(tmp_path):
    RunFolder(tmp_path / "a" / "run").check_empty()
    assert list(tmp_path.iterdir()) == []


def test_resume_accepts_changes_without_effect_on_the_result_only(tmp_path):
    folder = RunFolder(tmp_path)
    choices = {
        "model": "wdcnn", "window": 1024, "hop": 512, "classes": ["a", "b"], "channels": ["DE"],
        "sampling_rate_hz": 12_000, "band_limit_hz": "off", "rpm_range": "unknown", "precision": "32",
        "bearing": "unknown", "threads": 1, "descriptors": "off",
    }  # fmt: skip
    folder.initialize(resolve(make_config({"epochs": 3, "num_workers": 2}), **choices), {})
    config, _ = resolve_run({"num_workers": 0}, None, tmp_path, resume=True)
    assert (config.run.num_workers, config.training.epochs) == (0, 3)
    with pytest.raises(ValueError, match="was started with epochs=3, but epochs=4 was given"):
        resolve_run({"epochs": 4}, None, tmp_path, resume=True)
