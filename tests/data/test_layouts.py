"""Public data sets in the layout in which they are published: names of folders and files, contents of files."""

import numpy as np
import pytest
from scipy.io import savemat

from whirl.data.dataset import list_dataset, load_dataset

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2560, 8)).round(3)


def save_text(path, table, separator=",", head="", trailing=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (separator.join(f"{value:g}" for value in row) + trailing for row in table)
    path.write_text(head + "\n".join(rows) + "\n")


def save_mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def facts(recording):
    return recording.label, recording.specimen, recording.rpm, recording.load, recording.load_unit


def write_paderborn(root):
    """Write a structure with arrays of structures X (time axes) and Y (channels), named like the file."""
    rates = [("force", 4), ("phase_current_1", 64), ("phase_current_2", 64), ("speed", 4),
             ("temp_2_bearing_module", 0.01), ("torque", 4), ("vibration_1", 64)]  # fmt: skip
    for bearing in ("K001", "KA01", "KI14"):
        stem = f"N15_M07_F10_{bearing}_1"
        y = np.zeros(len(rates), dtype=[("Name", object), ("Type", object), ("Data", object), ("Raster", object)])
        for index, (name, per_ms) in enumerate(rates):
            data = RNG.normal(size=(1, max(int(40 * per_ms), 5)))
            data = (
                data + 1500
                if name == "speed"
                else X[None, :, 0][:, : int(40 * per_ms)]
                if name == "vibration_1"
                else data
            )
            y[index] = (name, "Real", data, "HostService")
        x = np.zeros(1, dtype=[("Name", object), ("Data", object)])
        x[0] = ("HostService", np.arange(160)[None] / 4000)
        save_mat(
            root / bearing / f"{stem}.mat", **{stem: {"Info": {"Date": "2014"}, "X": x, "Y": y, "Description": "x"}}
        )


def test_paderborn(tmp_path):
    write_paderborn(tmp_path)
    healthy, outer, inner = load_dataset(tmp_path)
    assert [each.label for each in (healthy, outer, inner)] == ["healthy", "outer_race", "inner_race"]
    assert (outer.specimen, outer.load, outer.load_unit, outer.bearing) == ("KA01", 0.7, "Nm", "6203")
    assert outer.rpm == pytest.approx(1500, abs=1)
    assert outer.metadata["radial_force_n"] == 1000
    assert outer.channels == ("vibration_1", "phase_current_1", "phase_current_2")
    assert (outer.sampling_rate_hz, outer.units) == (64_000, ("", "A", "A"))
    np.testing.assert_allclose(outer.signal[0], X[:, 0], rtol=1e-6)
    assert "force (4000 Hz)" in outer.metadata["left_out"]


def test_mfpt(tmp_path):
    for folder, name, rate in (
        ("1 - Three Baseline Conditions", "baseline_1", 97_656.0),
        ("3 - Seven More Outer Race Fault Conditions", "OuterRaceFault_vload_1", 48_828.0),
        ("4 - Seven Inner Race Fault Conditions", "InnerRaceFault_vload_1", 48_828.0),
    ):
        bearing = {"sr": rate, "gs": X[:, :1], "load": 270.0, "rate": 25.0}
        save_mat(tmp_path / folder / f"{name}.mat", bearing=bearing)
    save_mat(tmp_path / "6 - Real World Examples" / "OilPumpShaftBearing.mat", bearing={"sr": 1.0, "gs": X[:, :1]})
    recordings = load_dataset(tmp_path)
    assert [facts(each)[0::2] for each in recordings] == [
        ("healthy", 1500, "lbs"), ("outer_race", 1500, "lbs"), ("inner_race", 1500, "lbs"),
    ]  # fmt: skip
    assert [each.sampling_rate_hz for each in recordings] == [97_656, 48_828, 48_828]
    assert {(each.unit, each.load) for each in recordings} == {("g", 270)}


def test_xjtu_sy(tmp_path):
    head = "Horizontal_vibration_signals,Vertical_vibration_signals\n"
    for condition, run in (("35Hz12kN", "Bearing1_1"), ("37.5Hz11kN", "Bearing2_3")):
        for snapshot in (1, 2, 10):
            save_text(tmp_path / "XJTU-SY" / condition / run / f"{snapshot}.csv", X[:, :2], head=head)
    recordings = load_dataset(tmp_path / "XJTU-SY")
    assert {facts(each) for each in recordings} == {
        (None, "Bearing1_1", 2100, 12, "kN"), (None, "Bearing2_3", 2250, 11, "kN"),
    }  # fmt: skip
    assert {(each.sampling_rate_hz, each.unit, each.channels) for each in recordings} == {
        (25_600, "g", ("horizontal", "vertical"))
    }
    assert sorted(each.metadata["time_s"] for each in recordings) == [0, 0, 60, 60, 540, 540]


@pytest.mark.parametrize(("test", "n_channels"), [("1st_test", 8), ("2nd_test", 4), ("3rd_test/4th_test/txt", 4)])
def test_ims(test, n_channels, tmp_path):
    for name in ("2003.10.22.12.06.24", "2003.10.22.12.09.13"):
        save_text(tmp_path / "IMS" / test / name, X[:, :n_channels], "\t")
    recordings = load_dataset(tmp_path / "IMS")
    assert [each.metadata["time"] for each in recordings] == ["2003-10-22T12:06:24", "2003-10-22T12:09:13"]
    assert facts(recordings[0]) == (None, f"test{test[0]}", 2000, 6000, "lbs")
    assert (recordings[0].sampling_rate_hz, recordings[0].n_channels) == (20_000, n_channels)
    assert recordings[0].channels[0] == ("bearing1_x" if n_channels == 8 else "bearing1")
    np.testing.assert_allclose(recordings[0].signal, X[:, :n_channels].T, rtol=1e-6)


@pytest.mark.parametrize("separator", [",", ";"])
def test_femto(separator, tmp_path):
    micros = 999_000 + np.arange(2560) / 25_600 * 1e6
    clock = np.stack(
        [np.full(2560, 9), np.full(2560, 39) + (micros >= 1e6) * 0, 5 + micros // 1e6, micros % 1e6 // 1], 1
    )
    for part, run in (("Learning_set", "Bearing1_1"), ("Full_Test_Set", "Bearing2_4")):
        lines = [
            separator.join([*(f"{v:.0f}" for v in c), *(f"{v:.3f}" for v in x[:2])])
            for c, x in zip(clock, X, strict=True)
        ]
        folder = tmp_path / part / run
        folder.mkdir(parents=True)
        (folder / "acc_00003.csv").write_text("\n".join([*lines, ""]))
        (folder / "temp_00001.csv").write_text("9,39,39,0,70.1\n9,39,39,1,70.2\n")
    first, second = sorted(load_dataset(tmp_path), key=lambda each: each.specimen or "")
    assert facts(first) == (None, "Bearing1_1", 1800, 4000, "N")
    assert facts(second) == (None, "Bearing2_4", 1650, 4200, "N")
    assert (first.channels, first.sampling_rate_hz, first.unit) == (("horizontal", "vertical"), 25_600, "g")
    assert (first.metadata["time_s"], first.metadata["part"]) == (20, "Learning_set")
    np.testing.assert_allclose(first.signal, X[:, :2].T, atol=1e-6)


def test_jnu(tmp_path):
    for name in ("n600_3_2", "ib800_2", "ob1000_2", "tb600_2"):
        save_text(tmp_path / f"{name}.csv", X[:, :1])
    recordings = {each.label: each for each in load_dataset(tmp_path)}
    assert {label: each.rpm for label, each in recordings.items()} == {
        "healthy": 600, "inner_race": 800, "outer_race": 1000, "ball": 600,
    }  # fmt: skip
    assert {each.sampling_rate_hz for each in recordings.values()} == {50_000}


@pytest.mark.parametrize("separator", ["\t", ","])
def test_seu(separator, tmp_path):
    head = "".join(f"Header line {n}{separator}\n" for n in range(15)) + "Data\n"
    save_text(tmp_path / "bearingset" / "inner_20_0.csv", X, separator, head, separator)
    save_text(tmp_path / "gearset" / "Miss_30_2.csv", X, separator, head, separator)
    inner, gear = load_dataset(tmp_path)
    assert facts(inner) == ("inner_race", None, 1200, 0, "V")
    assert facts(gear) == ("gear_missing_tooth", None, 1800, 2, "V")
    assert (inner.sampling_rate_hz, inner.channels[:2]) == (5120, ("motor_vibration", "planetary_x"))
    np.testing.assert_allclose(inner.signal, X.T, rtol=1e-6)


def test_hust(tmp_path):
    for stem in ("N400", "IB704"):
        save_mat(tmp_path / f"{stem}.mat", data=X[:, :1], fs=24.5)
    compound, healthy = load_dataset(tmp_path)
    assert facts(compound) == ("inner_race_ball", "IB7", 1470, 400, "W")
    assert facts(healthy) == ("healthy", "N4", 1470, 0, "W")
    assert (compound.sampling_rate_hz, compound.n_samples, compound.unit) == (51_200, 2560, "g")


def test_ottawa_2018(tmp_path):
    save_mat(tmp_path / "Healthy" / "H-A-1.mat", Channel_1=X[:, :1], Channel_2=X[:, 1:2])
    save_mat(tmp_path / "Inner" / "I-C-2.mat", Channel_1=X[:, :1], Channel_2=X[:, 1:2])
    healthy, inner = load_dataset(tmp_path)
    assert (healthy.label, inner.label, inner.metadata["speed_profile"]) == ("healthy", "inner_race", "inc_dec")
    assert (inner.channels, inner.sampling_rate_hz) == (("accelerometer", "encoder"), 200_000)
    assert inner.rpm is None


def test_ottawa_uored(tmp_path):
    table = X[:, :5].copy()
    table[:, 2:4] = 0
    table[0, 2:4] = 1750, 400
    for stem in ("I_1_0", "I_1_1", "C_16_2"):
        save_mat(tmp_path / "data" / f"{stem}.mat", **{stem: table})
    recordings = {(each.specimen, each.metadata["severity"]): each for each in load_dataset(tmp_path)}
    assert {key: each.label for key, each in recordings.items()} == {
        ("bearing 1", "healthy"): "healthy", ("bearing 1", "developing"): "inner_race",
        ("bearing 16", "faulty"): "cage",
    }  # fmt: skip
    one = recordings["bearing 16", "faulty"]
    assert (one.rpm, one.load, one.units, one.sampling_rate_hz) == (1750, 400, ("m/s^2", "V", "°C"), 42_000)
    np.testing.assert_allclose(one.signal, table[:, [0, 1, 4]].T, rtol=1e-6)


def test_mafaulda(tmp_path):
    for place in (
        "normal/12.288.csv", "imbalance/6g/13.9264.csv", "horizontal-misalignment/0.5mm/14.336.csv",
        "underhang/outer_race/20g/15.1552.csv", "overhang/cage_fault/0g/60.8256.csv",
    ):  # fmt: skip
        save_text(tmp_path / place, X)
    recordings = {each.label: each for each in load_dataset(tmp_path)}
    assert recordings.keys() == {"healthy", "imbalance", "misalignment", "outer_race", "cage"}
    outer = recordings["outer_race"]
    assert outer.rpm == pytest.approx(60 * 15.1552)
    assert (outer.metadata["severity"], outer.metadata["position"]) == ("20g", "underhang")
    assert (outer.sampling_rate_hz, outer.channels[0], outer.unit) == (50_000, "tachometer", "V")


# ------------------------------------------------------------------------------------------------ other folders


def test_folders_of_parts_are_not_classes(tmp_path):
    for place in ("train/healthy/a.csv", "test/wear/b.csv", "Validation_set/wear/c.csv"):
        save_text(tmp_path / place, X[:, :1])
    entries = {entry.path.name: entry for entry in list_dataset(tmp_path)}
    assert {name: entry.label for name, entry in entries.items()} == {
        "a.csv": "healthy", "b.csv": "wear", "c.csv": "wear",
    }  # fmt: skip
    assert [entry.specimen for entry in entries.values()] == [None] * 3
    assert entries["a.csv"].metadata == {"part": "train"}


@pytest.mark.parametrize("folders", [("35Hz12kN", "40Hz10kN"), ("1500rpm", "3000rpm"), ("load_1", "load_2")])
def test_folders_of_conditions_are_refused(folders, tmp_path):
    for name in folders:
        save_text(tmp_path / name / "a.csv", X[:, :1])
    with pytest.raises(
        ValueError, match=r"state operating conditions, not classes; add a manifest\.csv.*--write-manifest"
    ):
        list_dataset(tmp_path)


def test_numbered_classes_are_classes(tmp_path):
    for name in ("0", "1", "B007"):
        save_text(tmp_path / name / "a.csv", X[:, :1])
    assert [entry.label for entry in list_dataset(tmp_path)] == ["0", "1", "B007"]


def test_litter_of_systems_is_skipped(tmp_path):
    save_text(tmp_path / "wear" / "a.csv", X[:, :1])
    for litter in ("__MACOSX/wear/._a.csv", "wear/Thumbs.db", "wear/.DS_Store", "@eaDir/x.csv", "wear/~$a.csv",
                   "wear/a.tdms_index", "wear/desktop.ini", "wear/a.csv~"):  # fmt: skip
        (tmp_path / litter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / litter).write_bytes(b"\0\1")
    assert [entry.path.name for entry in list_dataset(tmp_path)] == ["a.csv"]
