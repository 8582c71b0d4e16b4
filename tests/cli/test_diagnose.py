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
