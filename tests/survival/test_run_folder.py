"""What would be in vain is refused before the recordings are read, and a finished run says so."""

import os

import pytest

from whirl.runs.config import make_config, resolve
from whirl.runs.run_folder import RunFolder, resolve_run
from whirl.runs.training import train_run


@pytest.mark.parametrize("every", ["5parsecs", "0", "-3", "0s", "min"])
def test_an_interval_that_is_none_is_refused_with_the_settings(every):
    with pytest.raises(ValueError, match=r"checkpoint_every is .*expected a number of batches >= 1 or a time"):
        make_config({"checkpoint_every": every})


def refused(folder, kind):
    """Before the recordings are looked for, which are not there."""
    with pytest.raises(kind) as caught:
        train_run(make_config({"data": "nowhere"}), folder)
    assert caught.value.filename == str(folder)


def test_an_output_folder_below_a_file_is_refused_first(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "run", NotADirectoryError)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written_is_refused_first(tmp_path):
    tmp_path.chmod(0o500)
    refused(tmp_path / "run", PermissionError)


def test_an_output_folder_is_not_made_by_looking_at_it(tmp_path):
    RunFolder(tmp_path / "a" / "run").check_empty()
    assert list(tmp_path.iterdir()) == []


def test_only_what_nothing_depends_on_may_change_on_resume(tmp_path):
    folder = RunFolder(tmp_path)
    choices = {
        "model": "wdcnn", "window": 1024, "hop": 512, "classes": ["a", "b"], "channels": ["DE"], "sampling_rate_hz": 12_000,
        "band_limit_hz": "off", "rpm_range": "unknown", "precision": "32", "bearing": "unknown", "threads": 1,
    }  # fmt: skip
    folder.initialize(resolve(make_config({"epochs": 3, "num_workers": 2}), **choices), {})
    config, _ = resolve_run({"num_workers": 0}, None, tmp_path, resume=True)
    assert (config.run.num_workers, config.training.epochs) == (0, 3)
    with pytest.raises(ValueError, match="was started with epochs=3, but epochs=4 was given"):
        resolve_run({"epochs": 4}, None, tmp_path, resume=True)
