"""The page of files: its formats are those of the readers, and each limit is tested where it is named."""

import re
from pathlib import Path

import numpy as np
import pytest

from whirl.data.reading import READERS, read, readable_suffixes

PAGE = Path(__file__).parents[2] / "docs" / "files.md"
ROWS = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `.")]
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
    for place in LIMITS.values():
        file, name = place.split(": ")
        assert f"def {name}" in (Path(__file__).parent / f"{file}.py").read_text(encoding="utf-8")


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
    from tests.data.layout_fuzz import Layout, Truth, write_uff

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
