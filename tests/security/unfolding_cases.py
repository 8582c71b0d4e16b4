"""Small files that unfold: other compressions, references to one large value, sizes that only a page states."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.security.cases import GIGABYTE, SIGNAL, case, deflated_zeros, write_file
from tests.security.table_cases import varint

LARGE = 8_000_000  # characters of a text
N_REFERENCES = 2000


# ------------------------------------------------------------------------------------------------------------ NumPy


def npz_compressed_by(folder: Path, method: int) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w", method) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file,
            {"descr": "<f4", "fortran_order": False, "shape": (2**23,)},  # within the limit of its size
        )
        for _ in range(32):
            file.write(bytes(2**20))
    return folder / "a.npz"


@case("'x.npy' is compressed by a method that NumPy never uses")
def npz_of_bzip2(folder: Path) -> Path:
    return npz_compressed_by(folder, zipfile.ZIP_BZIP2)


@case("'x.npy' is compressed by a method that NumPy never uses")
def npz_of_lzma(folder: Path) -> Path:
    return npz_compressed_by(folder, zipfile.ZIP_LZMA)


# ------------------------------------------------------------------------------------------------------------- HDF5


def repeat_first_reference(path: Path, length: int, n_references: int) -> Path:
    """Let all elements of an array of texts refer to the first one, of the given length."""
    data = bytearray(path.read_bytes())
    start = data.index(struct.pack("<I", length))
    data[start : start + 16 * n_references] = data[start : start + 16] * n_references
    return write_file(path, bytes(data))


@case("no numeric signal")
def hdf5_texts_of_one_object(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        texts = file.create_dataset("x", shape=(250,), dtype=h5py.string_dtype())
        texts[0] = "a" * LARGE
    return repeat_first_reference(folder / "a.h5", LARGE, 250)


@case("")
def hdf5_attribute_of_one_object(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = SIGNAL
        names = np.array(["a" * LARGE, *[""] * (N_REFERENCES - 1)], dtype=object)
        file["x"].attrs.create("names", names, dtype=h5py.string_dtype())
    return repeat_first_reference(folder / "a.h5", LARGE, N_REFERENCES)


@case("")
def hdf5_attribute_of_numbers_of_one_object(folder: Path) -> Path:
    kind = h5py.vlen_dtype(np.float64)
    rows = np.empty(N_REFERENCES, dtype=object)
    rows[:] = [np.zeros(LARGE // 8), *[np.zeros(0)] * (N_REFERENCES - 1)]
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = SIGNAL
        file["x"].attrs.create("rows", rows, dtype=kind)
    return repeat_first_reference(folder / "a.h5", LARGE // 8, N_REFERENCES)


@case("'x' is a table with texts or rows of variable length")
def hdf5_table_of_one_object(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        kind = np.dtype([("text", h5py.string_dtype())])
        file.create_dataset("x", shape=(N_REFERENCES,), dtype=kind)[0] = ("a" * LARGE,)
    return repeat_first_reference(folder / "a.h5", LARGE, N_REFERENCES)


def hdf5_of_filters(path: Path, chunk: bytes, *filters: int) -> Path:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1000,))
    for each in filters:
        settings.set_filter(each, h5py.h5z.FLAG_OPTIONAL, (9,) if each == 1 else (4, 261, 4000))
    with h5py.File(path, "w") as file:
        data = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((1000,)), settings)
        data.write_direct_chunk((0,), chunk)
    return path


LZF = 32_000


@case("compressed more than once")
def hdf5_lzf_behind_deflate(folder: Path) -> Path:
    zeros = b"\x00\x00" + b"\xe0\xff\x00" * 4_000_000  # a byte, and copies of it, 264 at a time
    return hdf5_of_filters(folder / "a.h5", zlib.compress(zeros), LZF, 1)


@case("a chunk of '/x' is larger than it declares")
def hdf5_lzf_that_expands(folder: Path) -> Path:
    return hdf5_of_filters(folder / "a.h5", b"\x00\x00" + b"\xe0\xff\x00" * 4_000_000, LZF)


@case("stored with the filter 307")
def hdf5_of_unknown_filter(folder: Path) -> Path:
    return hdf5_of_filters(folder / "a.h5", bytes(100), 307)


# ---------------------------------------------------------------------------------------------------------- Parquet


@case("declares .* MB of data")
def parquet_page_of_a_gigabyte(folder: Path) -> Path:
    """Only the header of the page states its size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(3000.0)}), path, compression="gzip", use_dictionary=False, version="1.0")
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = path.read_bytes()
    begin, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    footer = data[end:-8]
    stream = b"\x1f\x8b\x08" + bytes(7) + deflated_zeros(GIGABYTE)
    header = data[begin : data.index(b"\x1f\x8b", begin)]
    sizes = [varint(n - len(header)) for n in (column.total_compressed_size, column.total_uncompressed_size)]
    assert all(header.count(size) == 1 for size in sizes)
    header = header.replace(sizes[0], varint(len(stream))).replace(sizes[1], varint(GIGABYTE))
    footer = footer.replace(varint(column.total_compressed_size), varint(len(header) + len(stream)))
    return write_file(path, data[:begin] + header + stream + footer + struct.pack("<I", len(footer)) + b"PAR1")


@case("")
def parquet_of_one_long_text(folder: Path) -> Path:
    """A dictionary stores a text once for all rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, dtype=np.int32)), ["a" * 4_000_000])
    table = pa.table({"x": np.random.default_rng(0).normal(size=3000), "note": text})
    pq.write_table(table, folder / "a.parquet", store_schema=False)
    return folder / "a.parquet"


# -------------------------------------------------------------------------------------------------------------- MDF


@case("decompresses to more than it declares")
def mdf_bomb_in_a_block(folder: Path) -> Path:
    from asammdf import MDF, Signal

    with MDF(version="4.10") as file:
        samples = np.random.default_rng(0).normal(size=3000)
        file.append([Signal(samples, np.arange(3000) / 1000, name="x")])
        saved = file.save(folder / "a.mf4", compression=1)
    data = Path(saved).read_bytes()
    begin = data.index(b"##DZ")
    stream = b"\x78\x9c" + deflated_zeros(GIGABYTE) + struct.pack(">I", (GIGABYTE % 65521) << 16 | 1)
    header = bytearray(data[begin : begin + 48])
    header[8:16] = struct.pack("<Q", 48 + len(stream))
    header[40:48] = struct.pack("<Q", len(stream))
    return write_file(folder / "a.mf4", _moved_to_end(data, begin, bytes(header) + stream))


def _moved_to_end(data: bytes, begin: int, block: bytes) -> bytes:
    """Append a block and let the links to another one point to it."""
    end: Any = len(data) + -len(data) % 8
    return data.replace(struct.pack("<Q", begin), struct.pack("<Q", end)).ljust(end, b"\0") + block
