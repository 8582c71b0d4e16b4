"""The page of files: its formats are those of the readers, and each limit is tested where it is named."""

import re
from pathlib import Path

import numpy as np
import pytest

from whirl.data.reading import READERS, read, readable_suffixes

PAGE = Path(__file__).parents[2] / "docs" / "files.md"
ROWS = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `.")]
# Tests of the columns "what is read" and "where facts come from", by the first suffix of the row.
READ = {
    ".mat": ["test_reading: write_mat4", "test_reading: write_mat5_struct", "test_reading: write_mat73",
             "test_ambiguous_files: test_matlab_cells"],
    ".h5": ["test_reading: write_hdf5", "test_ambiguous_files: test_compound_table_in_hdf5",
            "test_ambiguous_files: test_pandas_frame_in_hdf5"],
    ".npz": ["test_reading: write_npz", "test_reading: test_fields_of_structured_npy_are_channels"],
    ".parquet": ["test_reading: write_parquet", "test_ambiguous_files: test_parquet_list_column"],
    ".csv": ["test_text_reader: test_all_text_layouts_give_the_same_numbers"],
    ".lvm": ["test_reading: write_lvm"],
    ".tdms": ["test_ambiguous_files: test_tdms_channels_keep", "test_files_page: test_tdms_samples_are_scaled"],
    ".uff": ["test_reading: write_uff", "test_reading: write_unv"],
    ".mf4": ["test_reading: write_mf4", "test_files_page: test_mdf_samples_are_physical"],
    ".wav": ["test_wav_reader: test_reads_chunks", "test_wav_reader: test_reads_wide_integers",
             "test_wav_reader: test_reads_floats"],
    ".flac": ["test_reading: write_flac"],
    ".gz": ["test_reading: write_gz", "test_reading: write_zst"],
}  # fmt: skip
FACTS = {
    ".mat": ["test_reading: write_mat5_struct", "test_reading: write_mat73"],
    ".h5": ["test_reading: write_hdf5", "test_ambiguous_files: test_sampling_rate_is_that_beside"],
    ".npz": ["test_reading: write_npz"],
    ".parquet": ["test_files_page: test_parquet_schema_states_facts", "test_reading: write_parquet",
                 "test_ambiguous_files: test_unnamed_datetime_index_is_the_time"],
    ".csv": ["test_text_variants: test_reads_text_as_recorders_write_it", "test_reading: write_csv"],
    ".lvm": ["test_reading: write_lvm"],
    ".tdms": ["test_ambiguous_files: test_tdms_channels_keep"],
    ".uff": ["test_reading: write_uff"],
    ".mf4": ["test_reading: write_mf4"],
    ".wav": ["test_reading: write_wav", "test_reading: test_wav_integers_are_scaled"],
    ".flac": ["test_reading: write_flac"],
    ".gz": ["test_reading: write_gz"],
}  # fmt: skip
# Test by phrase in the column of limits, as "file: name".
LIMITS = {
    "tables, timetables and objects are refused": "test_ambiguous_files: test_matlab_table_is_refused",
    "rows of variable length are refused": "test_ambiguous_files: test_variable_length_rows_in_hdf5",
    "pickled objects are never loaded": "test_reading: test_never_loads_pickles",
    "lists of different length are refused": "test_ambiguous_files: test_parquet_list_column",
    "text between the rows is refused": "test_text_reader: test_rejects_text_without_signal",
    "several segments or time columns are refused": "test_files_page: test_lvm_limits",
    "scalings that npTDMS cannot apply are refused": "test_ambiguous_files: test_tdms_scaling",
    "channels must agree in length and time step": "test_files_page: test_uff_limits",
    "structured channels are refused": "test_files_page: test_mdf_limits",
    "compressed and truncated files are refused": "test_wav_reader: test_rejects_damaged",
    "truncated files are refused": "test_reading: test_rejects_truncated_file",
    "nested compression and large expansion are refused": "test_files_page: test_compressed_limits",
}


def test_lists_every_format():
    listed = {suffix for row in ROWS for suffix in re.findall(r"`(\.\w+)`", row[0])}
    ours = {name for name in readable_suffixes() if READERS.get(name).__module__.startswith("whirl.data.readers.")}
    assert listed == ours


def test_every_limit_has_a_test():
    limits = [row[3].strip().split(":")[0] for row in ROWS]
    assert sorted(limits) == sorted(LIMITS)
    check_tests_exist(LIMITS.values())


@pytest.mark.parametrize("tests", [READ, FACTS], ids=["what is read", "where facts come from"])
def test_every_format_has_tests(tests):
    assert [re.findall(r"`(\.\w+)`", row[0])[0] for row in ROWS] == list(tests)
    check_tests_exist(place for places in tests.values() for place in places)


def check_tests_exist(places):
    for place in places:
        file, name = place.split(": ")
        assert f"def {name}" in (Path(__file__).parent / f"{file}.py").read_text(encoding="utf-8"), place


def test_tdms_samples_are_scaled(tmp_path):
    from nptdms import ChannelObject, TdmsWriter

    counts = np.random.default_rng(0).integers(-99, 99, 4096, dtype=np.int16)
    scale = {"NI_Number_Of_Scales": 1, "NI_Scaling_Status": "unscaled", "NI_Scale[0]_Scale_Type": "Linear",
             "NI_Scale[0]_Linear_Slope": 0.5, "NI_Scale[0]_Linear_Y_Intercept": 2.0,
             "NI_Scale[0]_Linear_Input_Source": 0xFFFFFFFF, "wf_increment": 1e-4, "unit_string": "g"}  # fmt: skip
    with TdmsWriter(tmp_path / "a.tdms") as writer:
        writer.write_segment([ChannelObject("Log", "DE", counts, scale)])
    recording = read(tmp_path / "a.tdms")
    np.testing.assert_array_equal(recording.signal[0], 0.5 * counts + 2)
    assert (recording.sampling_rate_hz, recording.unit) == (10_000, "g")


def test_mdf_samples_are_physical(tmp_path):
    from asammdf import MDF, Signal

    counts = np.random.default_rng(0).integers(-99, 99, 4096, dtype=np.int16)
    channel = Signal(counts, np.arange(4096) / 12_000, name="DE", unit="g", conversion={"a": 0.5, "b": 2.0})
    with MDF(version="4.10") as file:
        file.append([channel])
        file.save(tmp_path / "a.mf4")
    recording = read(tmp_path / "a.mf4")
    np.testing.assert_array_equal(recording.signal[0], 0.5 * counts + 2)
    assert recording.unit == "g"


def test_parquet_schema_states_facts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"DE": np.random.default_rng(0).normal(size=4096)})
    pq.write_table(table.replace_schema_metadata({"fs": "12 kHz", "unit": "g", "rpm": "1480"}), tmp_path / "a.parquet")
    recording = read(tmp_path / "a.parquet")
    assert (recording.sampling_rate_hz, recording.unit, recording.rpm) == (12_000, "g", 1480)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LabVIEW Measurement\n***End_of_Header***\n", "contains 0 segments"),
        ("LabVIEW Measurement\n" + "***End_of_Header***\n" * 3, "contains 2 segments"),
        ("LabVIEW Measurement\nX_Columns\tMulti\n" + "***End_of_Header***\n" * 2, "has several time columns"),
        ("1\t2\n", "has no header 'LabVIEW Measurement'"),
    ],
)
def test_lvm_limits(text, message, tmp_path):
    (tmp_path / "a.lvm").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.lvm: {message}"):
        read(tmp_path / "a.lvm")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_uff_limits(tmp_path):
    from tests.data.generated_layouts import Layout, Truth
    from tests.data.written_layouts import write_uff

    rng = np.random.default_rng(0)
    truth = Truth({"a": rng.normal(size=300), "b": rng.normal(size=400)}, "g", 12_000.0)
    write_uff(tmp_path / "a.uff", Layout({}, truth, ()), rng)
    with pytest.raises(ValueError, match="channels differ in length or time step"):
        read(tmp_path / "a.uff")


def test_mdf_limits(tmp_path):
    from asammdf import MDF, Signal

    table = np.zeros(300, dtype=[("x", "f8"), ("y", "f8")])
    with MDF(version="4.10") as file:
        file.append([Signal(table, np.arange(300) / 12_000, name="pair")])
        file.save(tmp_path / "a.mf4")
    with pytest.raises(ValueError, match="is a structured channel"):
        read(tmp_path / "a.mf4")


def test_compressed_limits(tmp_path):
    (tmp_path / "a.csv.gz.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="is compressed more than once"):
        read(tmp_path / "a.csv.gz.gz")
