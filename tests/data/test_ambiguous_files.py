"""Files in which another array than the vibration could be read: the right one is read, or the file is refused."""

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from tests.data.layout_fuzz import describe, run_one, run_windows
from tests.security.array_cases import element, mat5
from whirl.data.readers.conventions import content_from_variables
from whirl.data.reading import UnreadableError, read, read_all

RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=4096)
OTHER = RNG.normal(size=4096)
WINDOWS = RNG.normal(size=(100, 3, 512))
LABELS = np.arange(100) % 4
# pyuff does not close the files that it writes.
UNCLOSED = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


# ------------------------------------------------------------------------------------------------ windows


def write_windows(path, windows, labels):
    if path.suffix == ".npz":
        np.savez(path, X=windows, y=labels, fs=12_000)
    elif path.suffix == ".mat":
        savemat(path, {"X": windows, "y": labels, "fs": 12_000})
    else:
        with h5py.File(path, "w") as file:
            file["X"], file["y"], file.attrs["fs"] = windows, labels, 12_000


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".h5"])
def test_windows_are_read_with_their_labels(suffix, tmp_path):
    write_windows(tmp_path / f"a{suffix}", WINDOWS, LABELS)
    recordings = read_all(tmp_path / f"a{suffix}")
    assert [recording.label for recording in recordings] == [str(label) for label in LABELS]
    np.testing.assert_allclose([recording.signal for recording in recordings], WINDOWS.astype(np.float32))
    assert {recording.sampling_rate_hz for recording in recordings} == {12_000}
    with pytest.raises(ValueError, match="contains 100 windows of 3 channels x 512 samples, expected one recording"):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("shape", [(100, 512), (100, 512, 1), (100, 1, 512), (512, 100)])
def test_windows_of_one_channel(shape, tmp_path):
    windows = RNG.normal(size=shape)
    np.savez(tmp_path / "a.npz", X=windows, y=LABELS, fs=12_000, groups=LABELS // 2)
    recordings = read_all(tmp_path / "a.npz")
    expected = windows.T if shape == (512, 100) else windows.reshape(100, 512)
    np.testing.assert_allclose([recording.signal[0] for recording in recordings], expected.astype(np.float32))
    assert {recording.specimen for recording in recordings} == {"0", "1"}


def test_windows_use_class_names_and_one_hot_labels():
    content = content_from_variables(
        {"X": WINDOWS, "y": np.eye(4)[LABELS], "class_names": np.array(["a", "b", "c", "d"])}
    )
    assert content.labels == tuple("abcd"[label] for label in LABELS)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"X": WINDOWS}, r"'X' has shape \(100, 3, 512\); windows need a label for each"),
        ({"X": WINDOWS, "y": LABELS[:99]}, r"'X' has shape \(100, 3, 512\)"),
        ({"X": np.zeros((100, 3, 100)), "y": LABELS}, "which fit several axes"),
        ({"X": np.zeros((100, 9, 9)), "y": LABELS}, "channels and samples cannot be told apart"),
        ({"X": WINDOWS, "X2": WINDOWS, "y": LABELS}, "several arrays of windows: X, X2"),
        ({"X": WINDOWS[:, 0]}, "'X' has 100 unnamed rows of 512 samples, which look like pre-cut windows"),
        ({"a": SIGNAL, "cells": [SIGNAL[:5], SIGNAL[:9]]}, "'cells' beside a is rows of different length"),
        ({"a": SIGNAL, "o": np.array([{}, {}], dtype=object)}, "'o' beside a is object of shape"),
        ({"y": LABELS}, "contains no numeric signal, only y"),
    ],
)
def test_rejects_windows_without_labels_and_other_forms(variables, message):
    with pytest.raises(UnreadableError, match=message):
        content_from_variables(variables)


def test_labels_for_each_sample_are_not_a_channel():
    content = content_from_variables({"X": np.stack([SIGNAL, OTHER], axis=1), "label": np.arange(4096) // 1024})
    np.testing.assert_array_equal(content.signal, [SIGNAL, OTHER])
    assert content.metadata["left_out"] == ["label (label)"]


def test_parquet_list_column_is_read_as_windows(tmp_path):
    frame = pd.DataFrame({"vibration": list(WINDOWS[:, 0]), "label": LABELS})
    frame.to_parquet(tmp_path / "a.parquet")
    recordings = read_all(tmp_path / "a.parquet", sampling_rate_hz=12_000)
    np.testing.assert_allclose([r.signal[0] for r in recordings], WINDOWS[:, 0].astype(np.float32))
    assert [r.label for r in recordings] == [str(label) for label in LABELS]
    frame.assign(vibration=[row[: 100 + i] for i, row in enumerate(WINDOWS[:, 0])]).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: 'vibration'.* is a column of lists of different length"):
        read(tmp_path / "b.parquet", sampling_rate_hz=12_000)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_numbered_columns_are_windows(suffix, tmp_path):
    frame = pd.DataFrame(WINDOWS[:, 0, :200], columns=[str(i) for i in range(200)]).assign(label=LABELS)
    path = tmp_path / f"a{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    recordings = read_all(path, sampling_rate_hz=12_000)
    np.testing.assert_allclose([r.signal[0] for r in recordings], WINDOWS[:, 0, :200], rtol=1e-5)
    assert [r.label for r in recordings] == [str(label) for label in LABELS]


def opaque(name, kind):
    """Return a MATLAB variable of a class that is stored as a handle of six numbers."""
    flags = element(6, np.array([17, 0], dtype="<u4").tobytes())
    dimensions = element(6, np.array([13, 0], dtype="<u4").tobytes()) + element(5, np.array([6, 1], "<i4").tobytes())
    handle = element(6, np.array([3707764736, 2, 1, 1, 1, 1], dtype="<u4").tobytes())
    array = element(14, dimensions + element(1, b"") + handle)
    texts = b"".join(element(1, text) for text in (name, b"MCOS", kind))
    return element(14, flags + texts + array)


def test_matlab_table_is_refused_and_a_string_is_not_a_signal(tmp_path):
    savemat(tmp_path / "plain.mat", {"vib": SIGNAL, "fs": 12_000.0})
    signal = (tmp_path / "plain.mat").read_bytes()[128:]
    (tmp_path / "a.mat").write_bytes(mat5(signal, opaque(b"T", b"table")))
    with pytest.raises(ValueError, match=r"'T' beside .*vib.* is a MATLAB table, which may be the signal; export it"):
        read(tmp_path / "a.mat")
    (tmp_path / "b.mat").write_bytes(mat5(opaque(b"T", b"timetable")))
    with pytest.raises(ValueError, match=r"b\.mat: 'T' is a MATLAB timetable, .* in MATLAB with .*writetimetable"):
        read(tmp_path / "b.mat", sampling_rate_hz=12_000)
    (tmp_path / "c.mat").write_bytes(mat5(signal, opaque(b"comment", b"string")))
    np.testing.assert_allclose(read(tmp_path / "c.mat").signal[0], SIGNAL.astype(np.float32))


@pytest.mark.parametrize("kind", ["table", "string"])
def test_matlab_objects_in_v73(kind, tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["T"] = np.array([[3707764736, 2, 1, 1, 1, 1]], dtype=np.uint32)
        file["T"].attrs["MATLAB_class"] = np.bytes_(kind)
        file["T"].attrs["MATLAB_object_decode"] = np.int32(3)
        file["vib"], file["fs"] = SIGNAL, 12_000.0
    if kind == "string":
        assert read(tmp_path / "a.mat").channels == ("vib",)
        return
    with pytest.raises(ValueError, match="'T' beside vib is a MATLAB table"):
        read(tmp_path / "a.mat")


def test_matlab_cells(tmp_path):
    cells = np.empty(3, dtype=object)
    for index in range(3):
        cells[index] = SIGNAL[index * 1000 : index * 1000 + 1000]
    savemat(tmp_path / "a.mat", {"runs": cells, "label": [0, 1, 1], "fs": 12_000.0})
    assert [recording.label for recording in read_all(tmp_path / "a.mat")] == ["0", "1", "1"]
    savemat(tmp_path / "b.mat", {"runs": cells, "fs": 12_000.0})
    with pytest.raises(ValueError, match=r"'runs' has shape \(3, 1, 1000\); windows need a label for each"):
        read(tmp_path / "b.mat")
    cells[2] = SIGNAL[:900]
    savemat(tmp_path / "c.mat", {"runs": cells, "fs": 12_000.0})
    with pytest.raises(ValueError, match="several arrays of different lengths may be the signal"):
        read(tmp_path / "c.mat")


def test_variable_length_rows_in_hdf5_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = file.create_dataset("vib", (2,), dtype=h5py.vlen_dtype(np.float64))
        rows[0], rows[1] = SIGNAL[:10], SIGNAL[:20]
        file["label"], file.attrs["fs"] = np.arange(50) % 3, 12_000
    with pytest.raises(ValueError, match="'vib' is rows of variable length"):
        read(tmp_path / "a.h5")


# ------------------------------------------------------------------------------------------------ rates


def write_tdms(path, groups):
    from nptdms import ChannelObject, RootObject, TdmsWriter

    with TdmsWriter(path) as writer:
        writer.write_segment([RootObject({"operator": "Ann"}), *(ChannelObject(*each) for each in groups)])


def test_tdms_channels_keep_their_own_sampling_rate(tmp_path):
    fast, slow = {"wf_increment": 1 / 12_000, "unit_string": "g"}, {"wf_increment": 1.0, "unit_string": "degC"}
    for order in (1, -1):
        groups = [("Vib", "DE", SIGNAL, fast), ("Vib", "FE", OTHER, fast), ("Log", "Temp", SIGNAL[:100], slow)]
        write_tdms(tmp_path / "a.tdms", groups[::order])
        recording = read(tmp_path / "a.tdms")
        assert (recording.sampling_rate_hz, recording.unit) == (12_000, "g")
        assert set(recording.channels) == {"DE", "FE"}
        assert recording.metadata["left_out"] == ["Log/Temp (1 Hz, 100 samples)"]


def test_tdms_ignores_a_stale_index(tmp_path):
    write_tdms(tmp_path / "a.tdms", [("Vib", "DE", SIGNAL[:2000], {"wf_increment": 1e-3})])
    from nptdms import TdmsFile  # writes the index as LabVIEW does

    index = (tmp_path / "a.tdms").read_bytes()
    TdmsFile.read(tmp_path / "a.tdms")
    write_tdms(tmp_path / "a.tdms", [("Vib", "DE", SIGNAL, {"wf_increment": 1e-4})])
    (tmp_path / "a.tdms_index").write_bytes(b"TDSh" + index[4:])
    recording = read(tmp_path / "a.tdms")
    assert (recording.n_samples, recording.sampling_rate_hz) == (4096, 10_000)


@pytest.mark.parametrize("status", ["unscaled", "scaled"])
def test_tdms_scaling_that_cannot_be_applied_is_refused(status, tmp_path):
    properties = {
        "wf_increment": 1e-4, "NI_Number_Of_Scales": 1, "NI_Scale[0]_Scale_Type": "Exotic", "NI_Scaling_Status": status,
    }  # fmt: skip
    write_tdms(tmp_path / "a.tdms", [("Vib", "DE", np.arange(4096, dtype=np.int16) % 99, properties)])
    if status == "scaled":
        assert read(tmp_path / "a.tdms").n_samples == 4096
        return
    with pytest.raises(ValueError, match="channel 'DE' has the scaling 'Exotic', which npTDMS cannot apply"):
        read(tmp_path / "a.tdms")


@pytest.mark.parametrize(
    ("variables", "rate", "channels"),
    [
        ({"slow/fs": 1, "slow/temp": OTHER[:100], "fast/fs": 25_600, "fast/DE": SIGNAL}, 25_600, ("DE",)),
        ({"fast/DE": SIGNAL, "fast/info/fs": 25_600, "slow/info/fs": 10, "slow/T": OTHER}, 25_600, ("DE",)),
        ({"S/x_values/increment": 1 / 25_600, "S/y_values/values": SIGNAL}, 25_600, ("values",)),
        ({"fs": 50, "acc [g]": SIGNAL, "acc/dt": 1e-4}, 10_000, ("acc",)),
        ({"a": SIGNAL, "fs": np.full(4096, 25_600)}, 25_600, ("a",)),
        ({"a": SIGNAL, "Ts": 1e-4}, 10_000, ("a",)),
        ({"a": SIGNAL, "dt_ms": 0.1}, 10_000, ("a",)),
        ({"a": SIGNAL, "fs_khz": 25.6}, 25_600, ("a",)),
        ({"a": SIGNAL, "Sample rate": "51.2 kS/s"}, 51_200, ("a",)),
        ({"a": SIGNAL, "fs": "50 MS/s"}, 50e6, ("a",)),
        ({"a": SIGNAL, "fs": "25,600 Hz"}, 25_600, ("a",)),
        ({"a": SIGNAL, "time_ms": np.arange(4096) / 25.6}, 25_600, ("a",)),
        ({"a": SIGNAL, "time [µs]": np.arange(4096) * 100}, 10_000, ("a",)),
        ({"a": SIGNAL, "t (ns)": np.arange(4096) * 100_000}, 10_000, ("a",)),
        ({"a": SIGNAL, "timestamp": 1.7e9 + np.arange(4096) / 2000}, 2000, ("a",)),
        ({"a": SIGNAL, "timestamp": 1_700_000_000_000 + np.arange(4096) * 2}, 500, ("a",)),
        ({"a": SIGNAL, "timestamp": 1_700_000_000_000_000_000 + np.arange(4096) * 100_000}, 10_000, ("a",)),
        ({"Data1_time_DE": np.arange(4096) / 25_600, "Data1_DE": SIGNAL}, 25_600, ("Data1_DE",)),
        ({"signal": np.stack([np.arange(4096) / 5120, SIGNAL], axis=1)}, 5120, ("signal",)),
    ],
    ids=str,
)
def test_sampling_rate_is_that_beside_the_signal(variables, rate, channels):
    content = content_from_variables(variables)
    assert content.sampling_rate_hz == pytest.approx(rate, rel=1e-6)
    assert content.channels in (channels, ())
    np.testing.assert_array_equal(content.signal[-1], SIGNAL)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"a": SIGNAL, "fs": 12_000, "sampling_rate": 25_600}, "states different sampling rates: 'fs'"),
        ({"a": SIGNAL, "fs": 12_000, "time": np.arange(4096) / 25_600}, "states different sampling rates"),
        ({"a": SIGNAL, "fs": 12_000, "dt": 1e-3}, "states different sampling rates"),
        ({"a": SIGNAL, "fs": "25 fps"}, "'fs' is '25 fps': unknown unit 'fps'"),
        ({"a": SIGNAL, "fs": "1,250 kHz"}, "can be read as 1250 Hz or 1.25e"),
        ({"a": SIGNAL, "time [furlong]": np.arange(4096.0)}, "unknown unit 'furlong'"),
        ({"x/fs": 12_000, "x/a": SIGNAL, "y/fs": 25_600, "y/b": OTHER}, "several arrays of different sampling rates"),
        ({"x/fs": 12_000, "x/a": SIGNAL, "y/b": OTHER}, "several arrays of different sampling rates"),
        ({"a": SIGNAL, "b": OTHER[:1000]}, "several arrays of different lengths may be the signal: a .*b .*save"),
    ],
    ids=str,
)
def test_rejects_contradictions(variables, message):
    with pytest.raises(UnreadableError, match=message):
        content_from_variables(variables)


def test_low_sampling_rate_must_be_confirmed(tmp_path):
    np.savez(tmp_path / "a.npz", signal=SIGNAL, fs=0.8)
    with pytest.raises(ValueError, match=r"a\.npz: states a sampling rate of 0\.8 Hz, expected at least 100 Hz"):
        read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"--sampling-rate 0\.8"):
        read(tmp_path / "a.npz", sampling_rate_hz=2000)
    assert read(tmp_path / "a.npz", sampling_rate_hz=0.8).sampling_rate_hz == 0.8


# ------------------------------------------------------------------------------------------------ speeds, units, axes


@pytest.mark.parametrize(
    ("facts", "rpm"),
    [
        ({"rpm": 1500}, 1500), ({"shaft_speed": "25 Hz"}, 1500), ({"speed [Hz]": 25.0}, 1500),
        ({"max_rpm": 3000}, None), ({"belt_rpm": 200, "fan_rpm": 900}, None),
        ({"rated rpm": 3000, "motor_rpm": 1480}, 1480), ({"speed": 25.0}, None),
        ({"rpm": np.full(4096, 1480.0)}, 1480), ({"max_rpm": np.full(4096, 3000.0)}, None),
        ({"speed": "1,500 1/min"}, 1500), ({"speed": "3 m/s"}, None),
    ],
    ids=str,
)  # fmt: skip
def test_speed_is_that_of_the_shaft(facts, rpm):
    content = content_from_variables({"a": SIGNAL, "fs": 12_000, **facts})
    assert content.rpm == (None if rpm is None else pytest.approx(rpm))
    assert content.channels == ("a",)


def test_each_channel_keeps_its_unit(tmp_path):
    frame = pd.DataFrame({"DE [g]": SIGNAL, "FE [m/s²]": OTHER})
    frame.to_parquet(tmp_path / "a.parquet")
    recording = read(tmp_path / "a.parquet", sampling_rate_hz=12_000)
    assert (recording.units, recording.unit) == (("g", "m/s^2"), "")
    assert recording.select_channels(["FE"]).unit == "m/s^2"


@pytest.mark.parametrize(
    ("extra", "left_out"),
    [
        ({"n": np.arange(4096)}, ["n (index)"]),
        ({"axis1": np.arange(4096)}, ["axis1 (index)"]),
        ({"count": np.arange(0, 8192, 2)}, ["count (index)"]),
        ({"const": np.full(4096, 3.0)}, ["const (constant)"]),
        ({"freq": np.linspace(0, 5000, 4096)}, ["freq (axis)"]),
        ({"angle": np.linspace(0, 7, 4096) ** 2}, ["angle (axis)"]),
        ({"total": np.cumsum(np.abs(OTHER))}, ["total (monotone)"]),
        ({"fault": np.arange(4096) % 3}, ["fault (label)"]),
        ({"spectrum": np.fft.fft(SIGNAL)}, ["spectrum (complex)"]),
        ({"bpfo": np.arange(9.0) ** 2}, ["bpfo (no sampling rate, 9 samples)"]),
    ],
    ids=str,
)
def test_what_is_not_a_channel_is_left_out_and_named(extra, left_out):
    content = content_from_variables({"a": SIGNAL, "b": OTHER, **extra})
    assert content.channels == ("a", "b")
    assert [text.replace("12000 Hz", "no sampling rate") for text in content.metadata["left_out"]] == left_out


def test_whole_numbers_beside_a_scale_are_refused():
    counts = (1000 * SIGNAL).astype(np.int16)
    with pytest.raises(UnreadableError, match=r"whole numbers beside 'scale_factor'.*export the scaled samples"):
        content_from_variables({"a": counts, "scale_factor": 0.001})
    assert content_from_variables({"a": SIGNAL, "sensitivity": 0.001}).channels == ("a",)
    assert content_from_variables({"a": counts, "gain": 1}).channels == ("a",)


@pytest.mark.parametrize("mark", ["_FillValue", "missing_value"])
def test_samples_that_are_marked_as_missing_are_refused(mark, tmp_path):
    counts = (1000 * SIGNAL).astype(np.int16)
    for n_missing in (0, 3):
        counts[:n_missing] = -32768
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["vib"] = counts
            file["vib"].attrs[mark] = np.int16(-32768)
        if n_missing:
            with pytest.raises(ValueError, match=rf"3 of 4096 samples of 'vib' are missing .*{mark}.*without gaps"):
                read(tmp_path / "a.h5", sampling_rate_hz=12_000)
        else:
            np.testing.assert_array_equal(read(tmp_path / "a.h5", sampling_rate_hz=12_000).signal[0], counts)


def test_time_axis_states_which_axis_of_a_short_matrix_is_time():
    content = content_from_variables({"a": RNG.normal(size=(12, 5)), "time": np.arange(5) / 1000})
    assert (content.signal.shape, content.sampling_rate_hz) == ((12, 5), 1000)


def test_pandas_frame_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:  # the layout of DataFrame.to_hdf
        group = file.create_group("df")
        group["axis0"] = group["block0_items"] = np.array([b"DE", b"FE"])
        group["axis1"] = np.arange(4096)
        group["block0_values"] = np.stack([SIGNAL, OTHER], axis=1)
    recording = read(tmp_path / "a.h5", sampling_rate_hz=12_000)
    assert recording.channels == ("DE", "FE")
    np.testing.assert_allclose(recording.signal, np.float32([SIGNAL, OTHER]))


def test_compound_table_in_hdf5(tmp_path):
    table = np.zeros(4096, dtype=[("time", "f8"), ("DE", "f8"), ("FE", "f8")])
    table["time"], table["DE"], table["FE"] = np.arange(4096) / 2000, SIGNAL, OTHER
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["run"] = table
    recording = read(tmp_path / "a.h5")
    assert (recording.channels, recording.sampling_rate_hz) == (("DE", "FE"), 2000)


def test_unnamed_datetime_index_is_the_time(tmp_path):
    index = pd.date_range("2024-01-01", periods=4096, freq="100us")
    pd.DataFrame({"DE": SIGNAL}, index=index).to_parquet(tmp_path / "a.parquet")
    recording = read(tmp_path / "a.parquet")
    assert (recording.channels, recording.sampling_rate_hz) == (("DE",), 10_000)


# ------------------------------------------------------------------------------------------------ generated layouts


@UNCLOSED
def test_generated_layouts_are_read_right_or_refused(tmp_path):
    verdicts = [run_one(seed, tmp_path) for seed in range(250)]
    wrong = [describe(seed, verdict[0], *verdict[2:]) for seed, verdict in enumerate(verdicts) if verdict[1] == "wrong"]
    assert not wrong, "\n".join(wrong)
    assert sum(verdict == "read" for _, verdict, *_ in verdicts) > 150


@UNCLOSED
def test_generated_layouts_with_nothing_else_are_read(tmp_path):
    verdicts = [run_one(seed, tmp_path, with_decoys=False) for seed in range(150)]
    others = [describe(seed, each[0], *each[2:]) for seed, each in enumerate(verdicts) if each[1] != "read"]
    assert not others, "\n".join(others)


def test_generated_windows_are_read_right_or_refused(tmp_path):
    verdicts = [run_windows(seed, tmp_path) for seed in range(100)]
    assert [message for verdict, message in verdicts if verdict == "wrong"] == []
    assert sum(verdict == "read" for verdict, _ in verdicts) > 60
