"""First manifests from names and files."""

import numpy as np
import pytest

from whirl.data.dataset import load_dataset
from whirl.data.draft import draft_manifest, write_draft
from whirl.data.labels import known_class, similar_labels


def write(folder, *names, **known):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, signal=np.random.default_rng(0).normal(size=2048), **{"fs": 12_000, **known})


def test_pattern_gives_columns(tmp_path):
    write(tmp_path, "Unwucht_M1_2hp.npz", "normal_M2_0.5kN.npz", unit="g", rpm=1500)
    rows, remarks = draft_manifest(tmp_path, "{label}_{specimen}_{load}.npz")
    assert [(row["label"], row["specimen"], row["load"], row["rpm"], row["unit"]) for row in rows] == [
        ("imbalance", "M1", "2 hp", "1500.0", "g"), ("healthy", "M2", "0.5 kN", "1500.0", "g"),
    ]  # fmt: skip
    assert "label 'Unwucht' is written as the known class 'imbalance' (1 file)" in remarks


def test_pattern_may_name_folders_and_reports_other_files(tmp_path):
    write(tmp_path, "P1/ball/a1.npz", "P2/cage/a2.npz", "other.npz")
    rows, remarks = draft_manifest(tmp_path, "{specimen}/{label}/{name}.npz")
    assert [row.get("label") for row in rows] == ["ball", "cage", ""]
    assert [row.get("name") for row in rows] == ["a1", "a2", None]
    assert "other.npz: does not fit the pattern" in remarks[0]
    with pytest.raises(ValueError, match="fits no file"):
        draft_manifest(tmp_path, "{label}+{load}")
    with pytest.raises(ValueError, match="expected different names in braces"):
        draft_manifest(tmp_path, "label")


def test_folders_and_words_are_found_without_a_pattern(tmp_path):
    write(tmp_path, "train/1500rpm/a_IR_2hp.npz", "test/25Hz/b_normal_0hp.npz", "train/900rpm/b.npz")
    rows, remarks = draft_manifest(tmp_path)
    found = {row["file"]: (row["label"], row["rpm"], row["load"]) for row in rows}
    assert found == {
        "train/1500rpm/a_IR_2hp.npz": ("inner_race", "1500", "2 hp"),
        "test/25Hz/b_normal_0hp.npz": ("healthy", "1500", "0 hp"),
        "train/900rpm/b.npz": ("", "900", ""),
    }
    assert remarks[-1] == "1 files have no label; add it or remove their rows"


@pytest.mark.parametrize(
    ("name", "rpm", "load"),
    [
        ("ball_29.95Hz_10Nm", "1797", "10 Nm"),
        ("ball_0.5hp", "", "0.5 hp"),
        ("ball_1,5kW_1500rpm", "1500", "1,5 kW"),
        ("run.12.ball.300lbs", "", "300 lbs"),
        ("outer 1500 rpm", "1500", ""),
        ("1normal_7whirl", "", ""),
    ],
)
def test_conditions_are_complete_numbers_with_a_complete_unit(tmp_path, name, rpm, load):
    write(tmp_path, f"{name}.npz")
    ((row,), _) = draft_manifest(tmp_path)
    assert (row["rpm"], row["load"]) == (rpm, load)


def test_draft_is_read_after_it_is_corrected(tmp_path):
    write(tmp_path, "ball/S1/a.npz", "normal/S2/b.npz")
    remarks = write_draft(tmp_path, tmp_path / "draft.csv")
    assert remarks[-1].startswith("2 rows are in")
    (tmp_path / "draft.csv").rename(tmp_path / "manifest.csv")
    assert [(r.label, r.specimen) for r in load_dataset(tmp_path)] == [("ball", "S1"), ("healthy", "S2")]
    with pytest.raises(FileExistsError, match="exists already"):
        write_draft(tmp_path, tmp_path / "manifest.csv")


def test_unreadable_files_are_listed_with_a_remark(tmp_path):
    write(tmp_path, "ball/a.npz")
    (tmp_path / "ball" / "b.csv").write_text("nothing\n")
    rows, remarks = draft_manifest(tmp_path)
    assert [row["file"] for row in rows] == ["ball/a.npz", "ball/b.csv"]
    assert remarks[0].startswith("ball/b.csv: contains no rows of numbers")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Innenring", "inner_race"), ("outer-race", "outer_race"), ("Wälzkörper", "ball"),
        ("désalignement", "misalignment"),
        ("正常", "healthy"), ("GOOD", "healthy"), ("desbalanceo", "imbalance"), ("B007", None),
    ],
)  # fmt: skip
def test_labels_are_known_in_several_languages(label, name):
    assert known_class(label) == name


def test_similar_labels_are_reported_but_not_numbered_ones():
    assert similar_labels(["ball", "ball", "Ball", "bal"]) == [
        "'Ball' (1 file): did you mean 'ball'?", "'bal' (1 file): did you mean 'ball'?",
    ]  # fmt: skip
    assert similar_labels(["B007", "B014", "inner_race", "outer_race"]) == []
    assert similar_labels(["inner_race", "IR"]) == ["'IR' (1 file): did you mean 'inner_race'?"]


def test_command_writes_a_manifest(tmp_path):
    from typer.testing import CliRunner

    from whirl.cli.main import app

    write(tmp_path / "data", "ball_M1.npz", "normal_M2.npz")
    out = tmp_path / "manifest.csv"
    options = ["--write-manifest", str(out), "--pattern", "{label}_{specimen}.npz"]
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "data"), *options])
    assert done.exit_code == 0, done.output
    assert "2 rows are in" in done.output
    assert out.read_text().startswith("file,label,specimen,rpm,load,sampling_rate,unit")
