"""Bearings in a manifest: designations, geometry columns, order columns, and the way back to disk."""

from pathlib import Path

import numpy as np
import pytest

from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.manifest import read_listed, read_manifest, rows_by_file
from whirl.data.recording import Recording
from whirl.physics.rolling_bearing import BearingGeometry


def read_row(folder: Path, columns: str, cells: str) -> Recording:
    """Read the only recording of a data set whose manifest has further columns."""
    np.savez(folder / "a.npz", signal=np.arange(64.0), fs=1000)
    (folder / "manifest.csv").write_text(f"file,label,{columns}\na.npz,wear,{cells}\n", encoding="utf-8")
    (recording,) = load_dataset(folder)
    return recording


@pytest.mark.parametrize(
    ("columns", "cells", "bearing"),
    [
        ("bearing", "SKF 6205-2RS", "6205"),
        ("Bearing Type", "6205 2Z/C3", "6205"),
        ("bearing", "6205; 6203", "6205; 6203"),
        ("bearing", "", None),
        ("bearing", "Acme 17", "Acme 17"),
        ("bearing", '"9, 7.94, 39.04"', "n_elements=9, ball_diameter=7.94, pitch_diameter=39.04, contact_angle=0.0"),
        (
            "n_elements,ball_diameter,pitch_diameter,contact_angle",
            "9,7.94,39.04,0",
            "n_elements=9, ball_diameter=7.94, pitch_diameter=39.04, contact_angle=0.0",
        ),
        (
            "n_balls,ball_diameter_mm,Pitch Diameter [mm]",
            "9,7.94,39.04",
            "n_elements=9, ball_diameter=7.94, pitch_diameter=39.04, contact_angle=0.0",
        ),
        ("n_elements,ball_diameter,pitch_diameter,contact_angle", ",,,", None),
        ("BPFO,BPFI,BSF,FTF", "3.585,5.415,2.357,0.398", "bpfo=3.585, bpfi=5.415, bsf=2.357, ftf=0.398"),
    ],
)
def test_bearing_columns(columns: str, cells: str, bearing: str | None, tmp_path: Path) -> None:
    recording = read_row(tmp_path, columns, cells)
    assert recording.bearing == bearing
    assert recording.metadata == {}


@pytest.mark.parametrize(
    ("columns", "cells", "rpm", "sampling_rate_hz"),
    [
        ("rpm", '"1,797"', 1797.0, 1000.0),
        ("rpm", '"1797,5"', 1797.5, 1000.0),
        ("rpm", "29.95 Hz", 1797.0, 1000.0),
        ("rpm", "3121.936474180501", 3121.936474180501, 1000.0),
        ("rpm,sampling_rate", '1500,"25,600"', 1500.0, 25600.0),
        ("rpm,sampling_rate", "1500,51.2 kS/s", 1500.0, 51200.0),
    ],
)
def test_speeds_and_sampling_rates_are_read_as_people_write_them(
    columns: str, cells: str, rpm: float, sampling_rate_hz: float, tmp_path: Path
) -> None:
    recording = read_row(tmp_path, columns, cells)
    assert (recording.rpm, recording.sampling_rate_hz) == (rpm, sampling_rate_hz)


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("rpm", "25 bar", "line 2: rpm is '25 bar': unknown unit 'bar', expected a unit of rpm"),
        ("sampling_rate", '"100,000"', "line 2: sampling_rate is '100,000': .* can be read as 100 Hz or 100000 Hz"),
    ],
)
def test_ambiguous_speeds_and_sampling_rates_name_the_line(
    columns: str, cells: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_row(tmp_path, columns, cells)


def test_numbers_have_priority_over_the_designation(tmp_path: Path) -> None:
    recording = read_row(tmp_path, "bearing,n_elements,ball_diameter,pitch_diameter", "Acme 17,8,6.75,28.5")
    (bearing,) = recording.bearings
    assert bearing.geometry == BearingGeometry(8, 6.75, 28.5)
    assert recording.metadata == {"bearing_designation": "Acme 17"}


def test_rotating_race(tmp_path: Path) -> None:
    assert read_row(tmp_path, "bearing,rotating_race", "6205,Outer").rotating_race == "outer"
    assert read_row(tmp_path, "bearing,rotating_race", "6205,").rotating_race == "inner"


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("n_elements,ball_diameter,pitch_diameter", "9,41,40", "line 2: .*element_diameter_mm is 41.0"),
        ("n_elements,ball_diameter,pitch_diameter", "9,7.94,", "line 2: .*has no pitch_diameter"),
        ("n_elements,ball_diameter,pitch_diameter", "9,-1,40", "line 2: ball_diameter is '-1', expected a number >= 0"),
        ("bpfo,bpfi,bsf", "3.585,5.415,2.357", "line 2: .*has no ftf"),
        ("bpfo,bpfi,bsf,ftf", "107,162,70.6,11.9", "line 2: .*ftf is 11.9.*not in Hz"),
        ("bearing,rotating_race", "6205,both", "line 2: unknown rotating_race 'both'"),
    ],
)
def test_invalid_bearing_columns_name_the_line(columns: str, cells: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_row(tmp_path, columns, cells)


@pytest.mark.parametrize(
    "bearing",
    [None, "6205", "6205; 6203", "9, 7.94, 39.04, 12.5", "bpfo=3.585 bpfi=5.415 bsf=2.357 ftf=0.398", "Acme 17"],
)
@pytest.mark.parametrize("race", ["inner", "outer"])
def test_saved_bearings_are_read_back(bearing: str | None, race: str, tmp_path: Path) -> None:
    metadata = {"bpfo": 3.0, "bearing_type": "ball"}  # names of columns with a meaning
    one = Recording(
        np.ones(32),
        8000,
        label="wear",
        metadata=metadata,
        bearing=bearing,
        rotating_race=race,  # pyright: ignore[reportArgumentType]
    )
    save_dataset([one], tmp_path / "set")
    (again,) = load_dataset(tmp_path / "set")
    assert (again.bearing, again.metadata) == (one.bearing, metadata)
    if bearing:
        assert again.rotating_race == race
    assert ("bearing" in (tmp_path / "set" / "manifest.csv").read_text().splitlines()[0].split(",")) == bool(bearing)


def test_entries_and_single_files_have_their_bearing(tmp_path: Path) -> None:
    read_row(tmp_path, "bearing,rotating_race", "SKF 6205,outer")
    (entry,) = read_manifest(tmp_path)
    assert (entry.bearing, entry.rotating_race) == ("6205", "outer")
    (recording,) = read_listed([tmp_path / "a.npz"])
    assert (recording.bearing, recording.rotating_race) == ("6205", "outer")


def test_files_are_listed_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,label\nb.npz,x\na.npz,x\nb.npz,y\n", encoding="utf-8")
    rows = rows_by_file(tmp_path)
    assert [(str(file), row["label"]) for file, row in rows.items()] == [("b.npz", "x"), ("a.npz", "x")]
