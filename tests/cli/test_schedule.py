"""`whirl schedule` prints or saves a learning-rate schedule."""

import csv
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from whirl.cli.main import app


def whirl(*arguments):
    return CliRunner().invoke(app, ["schedule", *map(str, arguments)])


def test_prints_a_table_of_learning_rates():
    done = whirl("warmup_cosine", "--epochs", 50)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["epoch", "learning", "rate"]
    assert ["0", "0.0001667", "first"] in lines  # a sixth of 1e-3: the warmup takes a tenth of the epochs
    assert ["5", "0.001", "peak"] in lines
    assert lines[-1][-1] == "last"


def test_saves_a_table_with_the_given_settings(tmp_path):
    path = tmp_path / "curve.csv"
    settings = ["--option", "min_lr=1e-2", "--option", "power=1"]
    done = whirl("polynomial", "--epochs", 4, "--lr", 0.05, "--steps-per-epoch", 1, *settings, "--out", path)
    assert done.exit_code == 0, done.output
    with path.open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.05, 0.04, 0.03, 0.02])


def test_saves_a_figure(tmp_path):
    done = whirl("onecycle", "--epochs", 4, "--out", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["warmup_cosin"], "did you mean 'warmup_cosine'"),
        (["cosine", "--option", "T_max=5"], "has no setting T_max; its settings are (num_epochs"),
        (["cosine", "--option", "eta_min"], "expected name=value"),
        (["cosine", "--option", "eta_min=low"], "eta_min is 'low'"),
        (["cosine", "--option", "=5"], "'=5': expected name=value"),
        (["step", "--option", "gamma=0.1", "--option", "gamma=0.2"], "gamma was given twice"),
        (["step", "--option", "lr=1"], "has no setting lr; its settings are (step_size"),
        (["step", "--option", "name=cosine"], "has no setting name"),
        (["step", "--option", "optimizer=sgd"], "has no setting optimizer"),
        (["plateau", "--option", "metrics=1"], "has no setting metrics"),
        (["exponential", "--option", "gamma=1e300"], "is inf, expected a finite number"),
        (["noam", "--option", "d_model=1", "--option", f"warmup_steps=1{'0' * 400}"], "too large"),
        (["step", "--lr", "inf"], "lr is inf"),
        (["cosine", "--lr", "nan"], "lr is nan"),
        (["plateau"], "depends on a validation metric"),
        (["warmup"], "base_scheduler"),
        (["cosine", "--out", "curve.xyz"], "curve.xyz"),
        (["cosine", "--steps-per-epoch", "10000000000"], "expected at most 10000000"),
    ],
)
def test_invalid_input_is_reported_in_one_line(arguments, part):
    done = whirl(*arguments, "--epochs", 5)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("whirl: ")
    assert len(done.stderr.splitlines()) == 1
    assert part in done.stderr


def test_prints_learning_rates_near_the_largest_float():
    done = whirl("cosine", "--epochs", 5, "--lr", "1e308")
    assert done.exit_code == 0, done.output
    assert "1e+308" in done.stdout


def test_help_does_not_import_torch():
    code = """
import sys
from whirl.cli.main import main
sys.argv = ["whirl", "schedule", "--help"]
try:
    main()
except SystemExit as done:
    print(done.code, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--steps-per-epoch" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False"
