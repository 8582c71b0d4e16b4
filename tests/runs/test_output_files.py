"""Files that commands write never replace what they read."""

import numpy as np
import pytest
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.runs.output_files import check_outputs


@pytest.mark.parametrize(
    "arguments",
    [
        ["levels", "a.npz", "--csv", "a.npz"],
        ["levels", "a.npz", "--csv", "manifest.csv"],
        ["predict", "run", "a.npz", "--report", "a.npz"],
        ["predict", "run", "a.npz", "--csv", "judged.csv", "--report", "judged.csv"],
        ["watch", ".", "--run", "run", "--log", "judged.csv", "--page", "judged.csv"],
    ],
    ids=" ".join,
)
def test_commands_refuse_to_replace_what_they_read(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.random.default_rng(0).standard_normal(40_000), fs=12_000.0)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "would be replaced" in done.stderr or "to be written twice" in done.stderr
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_link_to_a_recording_is_that_recording(tmp_path):
    recording, link = tmp_path / "a.csv", tmp_path / "link"
    recording.write_text("x")
    link.symlink_to(recording)
    with pytest.raises(ValueError, match="link: is read as a recording"):
        check_outputs([link], [recording])
    check_outputs([tmp_path / "new" / "b.csv", None], [recording])
    assert not (tmp_path / "new").exists()
