"""Readers: files written by the libraries of each format, corrupt files, and naming conventions."""

import gzip
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat, wavfile

from whirl.data.readers.conventions import content_from_variables
from whirl.data.readers.times import rate_from_times
from whirl.data.reading import MAX_CHANNELS, READERS, read, readable_suffixes, register_reader

RATE_HZ = 25_600.0
SIGNAL = np.random.default_rng(0).normal(size=(2, 3000)).astype(np.float32)
SCALE = 8  # full scale of a sound file


def write_mat5(path):
    savemat(path, {"vib": SIGNAL.T, "fs": RATE_HZ, "shaft_rpm": 1500.0})


def write_mat4(path):
    savemat(path, {"vib": SIGNAL.T, "fs": RATE_HZ, "shaft_rpm": 1500.0}, format="4")


def write_mat5_struct(path):
    # As in the MFPT data set: `rate` is the shaft speed and `sr` the sampling rate.
    savemat(path, {"bearing": {"gs": SIGNAL[0][:, None], "sr": RATE_HZ, "rate": 25.0, "load": 270.0}})


def write_mat73(path):
    """Write a MATLAB v7.3 file: HDF5 after a header of 512 bytes, matrices transposed, texts as numbers."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["vib"] = SIGNAL  # MATLAB's [3000 x 2]
        file["vib"].attrs["MATLAB_class"] = np.bytes_("double")
        file["fs"] = np.array([[RATE_HZ]])
        file["unit"] = np.array([[ord(char)] for char in "m/s^2"], dtype=np.uint16)
        file["unit"].attrs["MATLAB_class"] = np.bytes_("char")
        file.create_group("info")["rpm"] = np.array([[1500.0]])
        file.create_group("#refs#")["a"] = np.zeros((3000, 2))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + struct.pack("<H2s", 0x0200, b"IM")
    with Path(path).open("r+b") as file:
        file.write(header)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file.attrs["sampling_rate"] = RATE_HZ
        file.attrs["rig"] = "A"
        for name, row in zip(("DE", "FE"), SIGNAL, strict=True):
            file[f"run/{name}"] = row
        file["run"].attrs["rpm"] = 1500


def write_npz(path):
    np.savez(path, signal=SIGNAL.T, fs=RATE_HZ, rpm=1500)


def write_npy(path):
    np.save(path, SIGNAL)


def write_parquet(path):
    times = np.arange(SIGNAL.shape[1]) / RATE_HZ
    pd.DataFrame({"time": times, "DE [g]": SIGNAL[0], "FE [g]": SIGNAL[1]}).to_parquet(path)


def write_wav(path):
    wavfile.write(path, int(RATE_HZ), SIGNAL.T)


def write_tdms(path):
    from nptdms import ChannelObject, RootObject, TdmsWriter

    properties = {"wf_increment": 1 / RATE_HZ, "unit_string": "g"}
    with TdmsWriter(path) as writer:
        rows = [ChannelObject("Log", name, row, properties) for name, row in zip(("DE", "FE"), SIGNAL, strict=True)]
        writer.write_segment([RootObject({"rpm": 1500.0}), *rows])


def write_uff(path, *, binary=0):
    from pyuff import UFF, prepare_58

    sets = [
        prepare_58(
            binary=binary, func_type=1, rsp_node=1, rsp_dir=direction, ref_node=0, ref_dir=0, data=row.astype(float),
            x=np.arange(len(row)) / RATE_HZ, id1="run", id2="", id3="", id4="", id5="", abscissa_spacing=1,
            abscissa_min=0.0, abscissa_inc=1 / RATE_HZ, abscissa_spec_data_type=17, ordinate_spec_data_type=12,
            ordinate_axis_units_lab="m/s^2", orddenom_spec_data_type=0, z_axis_spec_data_type=0, ver_num=0,
            load_case_id=0, rsp_ent_name="NONE", ref_ent_name="NONE", num_pts=len(row), ord_data_type=4,
        )
        for direction, row in zip((1, -3), SIGNAL, strict=True)
    ]  # fmt: skip
    UFF(str(path)).write_sets(sets, "add")


def write_unv(path):
    write_uff(path, binary=1)


def write_csv(path):
    times = np.arange(SIGNAL.shape[1]) / RATE_HZ
    pd.DataFrame({"time (ms)": 1e3 * times, "DE (g)": SIGNAL[0], "FE (g)": SIGNAL[1]}).to_csv(path, index=False)


def write_gz(path):
    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder) / "a.csv")
        path.write_bytes(gzip.compress((Path(folder) / "a.csv").read_bytes()))


def write_zst(path):
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder) / "a.csv")
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write((Path(folder) / "a.csv").read_bytes())


def write_lvm(path):
    """Write the layout of LabVIEW's Write To Measurement File, with one time column."""
    n_samples = SIGNAL.shape[1]
    lines = [
        "LabVIEW Measurement\t", "Writer_Version\t2", "Reader_Version\t2", "Separator\tTab", "Decimal_Separator\t,",
        "Multi_Headings\tNo", "X_Columns\tOne", "Time_Pref\tAbsolute", "Operator\tann", "Date\t2024/05/01",
        "***End_of_Header***\t", "\t", "Channels\t2\t\t", f"Samples\t{n_samples}\t{n_samples}\t",
        "Date\t2024/05/01\t2024/05/01\t", "Y_Unit_Label\tg\tg\t", "X_Dimension\tTime\tTime\t",
        "X0\t0,0E+0\t0,0E+0\t", f"Delta_X\t{1 / RATE_HZ}\t{1 / RATE_HZ}\t".replace(".", ","),
        "***End_of_Header***\t\t\t", "X_Value\tDE\tFE\tComment",
    ]  # fmt: skip
    for index, (first, second) in enumerate(SIGNAL.T):
        lines.append(f"{index / RATE_HZ:.9f}\t{first:.9g}\t{second:.9g}\t".replace(".", ","))
    path.write_text("\r\n".join([*lines, ""]), newline="")


def write_mf4(path):
    from asammdf import MDF, Signal

    times = np.arange(SIGNAL.shape[1]) / RATE_HZ
    with MDF(version="4.10" if path.suffix == ".mf4" else "3.30") as file:
        file.append([Signal(row, times, name=name, unit="g") for name, row in zip(("DE", "FE"), SIGNAL, strict=True)])
        saved = file.save(path.with_suffix(".tmp"), overwrite=True)
    Path(saved).replace(path)


def write_flac(path):
    import soundfile

    subtype = "PCM_24" if path.suffix == ".flac" else "FLOAT"
    soundfile.write(path, (SIGNAL / SCALE).T, int(RATE_HZ), subtype=subtype)


FORMATS = [
    # writer, suffix, channels, unit, rpm, rows of SIGNAL
    (write_mat5, ".mat", ("vib0", "vib1"), "", 1500, 2),
    (write_mat4, ".mat", ("vib0", "vib1"), "", 1500, 2),
    (write_mat5_struct, ".mat", ("gs",), "g", 1500, 1),
    (write_mat73, ".mat", ("vib0", "vib1"), "m/s^2", 1500, 2),
    (write_hdf5, ".h5", ("DE", "FE"), "", 1500, 2),
    (write_npz, ".npz", ("ch0", "ch1"), "", 1500, 2),
    (write_npy, ".npy", ("ch0", "ch1"), "", None, 2),
    (write_parquet, ".parquet", ("DE", "FE"), "g", None, 2),
    (write_wav, ".wav", ("ch0", "ch1"), "", None, 2),
    (write_tdms, ".tdms", ("DE", "FE"), "g", 1500, 2),
    (write_uff, ".uff", ("1+X", "1-Z"), "m/s^2", None, 2),
    (write_unv, ".unv", ("1+X", "1-Z"), "m/s^2", None, 2),
    (write_csv, ".csv", ("DE", "FE"), "g", None, 2),
    (write_gz, ".csv.gz", ("DE", "FE"), "g", None, 2),
    (write_zst, ".csv.zst", ("DE", "FE"), "g", None, 2),
    (write_lvm, ".lvm", ("DE", "FE"), "g", None, 2),
    (write_mf4, ".mf4", ("DE", "FE"), "g", None, 2),
    (write_mf4, ".mdf", ("DE", "FE"), "g", None, 2),
    (write_flac, ".flac", ("ch0", "ch1"), "", None, 2),
    (write_flac, ".w64", ("ch0", "ch1"), "", None, 2),
]
ALL_FORMATS = pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: f"{fmt[0].__name__}{fmt[1]}")
# pyuff does not close the files that it writes.
IGNORE_UNCLOSED_FILES = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@IGNORE_UNCLOSED_FILES
@ALL_FORMATS
def test_reads_files_written_by_each_library(fmt, tmp_path):
    write, suffix, channels, unit, rpm, n_channels = fmt
    path = tmp_path / f"run{suffix}"
    write(path)
    recording = read(path, sampling_rate_hz=RATE_HZ if suffix == ".npy" else 1.0)
    scale = SCALE if suffix in (".flac", ".w64") else 1
    tolerance = 2.0**-24 if suffix == ".flac" else 0
    np.testing.assert_allclose(recording.signal, SIGNAL[:n_channels] / scale, rtol=1e-6, atol=tolerance)
    assert recording.signal.dtype == np.float32
    assert recording.sampling_rate_hz == RATE_HZ, "the rate in the file overrides the assumed one"
    assert (recording.channels, recording.unit, recording.rpm) == (channels, unit, rpm)
    assert recording.source == str(path)
    assert recording.label is None


@IGNORE_UNCLOSED_FILES
@ALL_FORMATS
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.999])
def test_rejects_truncated_file(fmt, share, tmp_path):
    write, suffix, *_ = fmt
    complete, truncated = tmp_path / f"complete{suffix}", tmp_path / f"truncated{suffix}"
    write(complete)
    content = complete.read_bytes()
    content = content[: int(share * len(content))]
    if suffix == ".csv" and share:
        content = content[: content.rindex(b",")]  # in text only an incomplete row is detectable
    truncated.write_bytes(content)
    with pytest.raises(ValueError, match=rf"truncated\{suffix}: .*; ") as caught:
        read(truncated, sampling_rate_hz=RATE_HZ)
    assert "\n" not in str(caught.value)


def test_every_registered_suffix_is_tested():
    shipped = {name for name in readable_suffixes() if READERS.get(name).__module__.startswith("whirl.data.readers.")}
    assert shipped == {Path(f"a{fmt[1]}").suffix for fmt in FORMATS} | {".txt", ".tsv", ".asc", ".dat", ".hdf5", ".hdf"}


def test_rejects_second_reader_for_a_suffix():
    with pytest.raises(ValueError, match=r"a file type named '\.csv' already exists"):
        register_reader(".csv")(lambda path: read(path))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0, 16384, -32768, 32767], dtype=np.int16), [0, 0.5, -1, 32767 / 32768]),
        (np.array([128, 192, 0, 255], dtype=np.uint8), [0, 0.5, -1, 127 / 128]),
        (np.array([0, 2**30, -(2**31), 2**31 - 1], dtype=np.int32), [0, 0.5, -1, 1 - 2.0**-31]),
        (np.array([0.0, 0.5, -3.0, 2.0], dtype=np.float32), [0, 0.5, -3, 2]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_wav_integers_are_scaled_to_full_scale(samples, expected, tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, samples)
    np.testing.assert_allclose(read(tmp_path / "a.wav").signal, [expected], rtol=1e-7)


@pytest.mark.parametrize("write", [write_npy, write_wav])
@pytest.mark.parametrize("damage", ["overwritten", "truncated"])
def test_samples_do_not_change_with_their_file(write, damage, tmp_path):
    path = tmp_path / f"a.{write.__name__[6:]}"
    write(path)
    signal = read(path, sampling_rate_hz=RATE_HZ).signal
    with path.open("r+b") as file:
        if damage == "truncated":
            file.truncate(200)
        else:
            file.seek(200)
            file.write(bytes(SIGNAL.nbytes - 200))
    np.testing.assert_array_equal(signal, SIGNAL)
    signal[0, 0] = 99


def test_fields_of_structured_npy_are_channels(tmp_path):
    table = np.zeros(100, dtype=[("t", "f8"), ("X", "f4"), ("Y", "i2")])
    table["t"], table["X"], table["Y"] = np.arange(100) / 500, np.arange(100) % 7, np.arange(100) % 3
    np.save(tmp_path / "a.npy", table)
    recording = read(tmp_path / "a.npy")
    assert (recording.channels, recording.sampling_rate_hz) == (("X", "Y"), 500)
    np.testing.assert_array_equal(recording.signal, [np.arange(100) % 7, np.arange(100) % 3])


# ---------------------------------------------------------------------------------------------- conventions


def test_longer_axis_is_time():
    for matrix in (SIGNAL, SIGNAL.T):
        np.testing.assert_array_equal(content_from_variables({"data": matrix}).signal, SIGNAL)


@pytest.mark.parametrize(
    ("variables", "rate"),
    [
        ({"Fs": 100}, 100),
        ({"sampling_rate": "25,6 kHz"}, 25600),
        ({"dt": 1e-3}, 1000),
        ({"dt [ms]": 0.5}, 2000),
        ({"rate": 25.0, "sr": 97656}, 97656),
        ({"rate": 97656.25}, 97656.25),
        ({"fs": 0, "t": np.arange(3000) / 50}, 50),
        ({"Time (us)": np.arange(3000) * 20}, 50_000),
        ({"timestamp": np.datetime64("2024-01-01T00:00") + np.arange(3000) * np.timedelta64(250, "us")}, 4000),
        ({"time": np.arange(3000)}, None),
        ({"fs": float("nan")}, None),
    ],
    ids=str,
)
def test_finds_sampling_rate(variables, rate):
    content = content_from_variables({"x": SIGNAL[0], **variables})
    assert content.sampling_rate_hz == (None if rate is None else pytest.approx(rate))
    assert content.channels == ("x",)


def test_longest_arrays_are_the_signal_unless_one_is_named_signal():
    long, short = np.zeros(100), np.zeros(10)
    assert content_from_variables({"a": long, "b": short, "c": long}).channels == ("a", "c")
    assert content_from_variables({"a": long, "g/signal": short}).signal.shape == (1, 10)
    assert content_from_variables({"r1/DE": long, "r2/DE": long}).channels == ("r1/DE", "r2/DE")


def test_detects_missing_samples_in_rounded_times():
    times = np.arange(1000) / 25_600
    assert rate_from_times(np.round(times, 5)) == pytest.approx(25_600, rel=1e-3)
    assert rate_from_times(np.delete(times, slice(300, 303))) is None


def test_keeps_metadata(tmp_path):
    write_hdf5(tmp_path / "a.h5")
    assert read(tmp_path / "a.h5").metadata == {"rig": "A"}


# --------------------------------------------------------------------------------------------------- invalid files


def test_rejects_unknown_suffix_and_missing_file(tmp_path):
    (tmp_path / "a.xyz").write_text("1")
    with pytest.raises(ValueError, match=r"a\.xyz: unknown file type '\.xyz'; convert it to one of: \.asc, \.csv, "):
        read(tmp_path / "a.xyz")
    with pytest.raises(FileNotFoundError, match=r"b\.csv: no such file"):
        read(tmp_path / "b.csv")


def test_error_for_missing_sampling_rate_names_the_remedy(tmp_path):
    write_npy(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.npy: .*sampling rate; add a sampling_rate column .*--sampling-rate"):
        read(tmp_path / "a.npy")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_never_loads_pickles(suffix, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / f"a{suffix}"
    bomb = np.array([Bomb(str(trace))] * 9, dtype=object)
    np.save(path, bomb) if suffix == ".npy" else np.savez(path, signal=bomb)
    with pytest.raises(ValueError, match=r"pickled objects, which are never loaded; save plain"):
        read(path, sampling_rate_hz=1)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 9)) * 1j, "samples are complex, expected real numbers; export the time signal"),
        (np.array(["a", "b"]), "no numeric signal"),
        (np.zeros((4, 4)), "the time axis of a 4 x 4 matrix is ambiguous"),
        (np.zeros((MAX_CHANNELS + 1, 2048)), "257 channels of 2048 samples look like pre-cut windows"),
        (np.zeros((0, 9)), "no numeric signal"),
        (np.zeros((3, 4, 5)), "has shape \\(3, 4, 5\\); windows need a label for each"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_rejects_arrays_without_signal(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{message}"):
        read(tmp_path / "a.npy", sampling_rate_hz=1)


def test_readers_accept_nan(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, np.nan, np.inf]))
    assert read(tmp_path / "a.npy", sampling_rate_hz=1).signal[0, 0] == 1


@pytest.mark.parametrize(
    ("module", "suffix", "extra"),
    [
        ("pyarrow", ".parquet", "parquet"),
        ("nptdms", ".tdms", "tdms"),
        ("pyuff", ".uff", "uff"),
        ("asammdf", ".mf4", "mdf"),
        ("soundfile", ".flac", "soundfile"),
    ],
)
def test_error_names_missing_extra(module, suffix, extra, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"  # simulate a missing package
        f"from whirl.data.reading import read; read({str(path)!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ImportError: reading {suffix} needs" in result.stderr
    assert f"pip install 'whirl-diagnostics[{extra}]'" in result.stderr


def test_readers_import_heavy_libraries_lazily():
    code = (
        "import sys; from whirl.data.reading import readable_suffixes; readable_suffixes()\n"
        "heavy = {'scipy', 'pandas', 'h5py', 'pyarrow', 'nptdms', 'pyuff', 'asammdf', 'soundfile', 'torch'}\n"
        "print(*heavy & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
