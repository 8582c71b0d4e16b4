"""`whirl diagnose` names faulty parts of bearings without training."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("diagnose") / "data"
    save_dataset(
        simulate(1, 1, ("healthy", "outer_race"), seed=3, bearing="6205", severity_range=(1, 1), snr_db_range=(20, 20)),
        path,
    )
    return path


def whirl(*arguments):
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)])


def test_names_the_faulty_race_of_a_folder_with_a_manifest(folder, tmp_path):
    done = whirl(folder, "--json", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    found = {("outer" if "outer" in row["file"] else "healthy"): row for row in json.loads(done.stdout)}
    assert found["outer"]["verdict"] == "outer_race"
    assert found["healthy"]["verdict"] == "no_line_found"
    for row in found.values():
        assert {"file", "channel", "rpm", "bearing", "verdict", "reasons", "families"} <= set(row)
        assert {"significance_db", "depth_db", "slip", "harmonics_db"} <= set(row["families"]["BPFO"])
    with (tmp_path / "out.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_text_states_the_lines(folder):
    done = whirl(next(folder.rglob("*outer*.npz")))
    assert done.exit_code == 0, done.output
    assert "outer race: lines at 3.5" in done.stdout


@pytest.mark.parametrize("samples", [np.zeros(40_000), np.full(40_000, 3.0)], ids=["zeros", "constant"])
def test_dead_sensor_is_not_evaluated(samples, tmp_path):
    np.savez(tmp_path / "dead.npz", x=samples, fs=12_000.0)
    (row,) = json.loads(whirl(tmp_path / "dead.npz", "--bearing", "6205", "--rpm", 1797, "--json").stdout)
    assert row["verdict"] == "not_judged"
    assert row["reasons"]


@pytest.mark.parametrize("missing", ["--bearing", "--rpm"])
def test_an_unknown_speed_or_bearing_is_never_guessed(missing, tmp_path):
    np.savez(tmp_path / "noise.npz", x=np.random.default_rng(0).standard_normal(40_000), fs=12_000.0)
    known = {"--bearing": "6205", "--rpm": "1797"}
    del known[missing]
    (row,) = json.loads(
        whirl(tmp_path / "noise.npz", *(word for pair in known.items() for word in pair), "--json").stdout
    )
    assert row["verdict"] == "not_judged"
    assert "no physics" in " ".join(row["reasons"])


@pytest.mark.parametrize(
    ("options", "part"), [(["--bearing", "6250x"], "6250x"), (["--bearing", "6205", "--rpm", "-3"], "rpm")]
)
def test_bad_input_is_one_line(options, part, folder):
    done = whirl(folder, *options)
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert part in done.stderr


def test_a_picture_is_written(folder, tmp_path):
    done = whirl(next(folder.rglob("*outer*.npz")), "--plot", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def recording(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).standard_normal(40_000), fs=12_000.0)
    return tmp_path / "a.npz"


def test_a_folder_may_have_the_suffix_of_a_picture(recording, tmp_path):
    (tmp_path / "b.png").mkdir()
    done = whirl(recording, "--bearing", "6205", "--rpm", 1797, "--plot", tmp_path / "b.png")
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "b.png").glob("*.png"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--plot", "x.jpg"], "x.jpg: unsupported image format; expected one of: .png, .svg, .pdf, or a folder"),
        (["--plot", "x.png"], "x.png: is one picture, but there are 2 files; give a folder"),
        (["--plot", "manifest.csv"], "manifest.csv: unsupported image format"),
        (["--plot", "README"], "README: is a file, expected an image"),
        (["--csv", "a.npz"], "a.npz: is read as a recording and would be replaced"),
        (["--csv", "manifest.csv"], "manifest.csv: is read as the manifest and would be replaced"),
        (["--csv", "folder"], "folder: is a folder, expected a file to write"),
        (["--csv", "README/out.csv"], "README: Not a directory"),
    ],
)
def test_outputs_are_refused_before_any_work(recording, options, part, monkeypatch):
    monkeypatch.setattr("whirl.runs.diagnosis.diagnose_files", None)
    folder = recording.parent
    content = recording.read_bytes()
    (folder / "folder").mkdir()
    (folder / "README").write_text("text")
    (folder / "b.npz").write_bytes(content)
    done = whirl(recording, folder / "b.npz", options[0], folder / options[1])
    assert done.exit_code == 2, done.output
    assert part in done.stderr
    assert recording.read_bytes() == content
    assert not (folder / "x.jpg").exists()


def test_a_file_that_cannot_be_read_is_named_although_a_picture_is_wanted(tmp_path):
    (tmp_path / "a.npz").write_text("text")
    done = whirl(tmp_path / "a.npz", "--plot", tmp_path / "x.png")
    assert done.exit_code == 2
    assert "a.npz: " in done.stderr.splitlines()[-1]
    assert "picture" not in done.stderr
