"""Malicious files: code execution, memory exhaustion, hangs and path traversal end in a one-line error."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MAX_S, MAX_MB = 2.0, 500.0
GIGABYTE = 2**30
SIGNAL = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)


class Case(NamedTuple):
    """A malicious file.

    Attributes:
        write: writes the file into a folder of its own and returns the path to read.
        how: name of the reader, see `read_worker.readers`.
        message: pattern of the error message; empty for a file that is read without an error.
    """

    write: Callable[[Path], Path]
    how: str
    message: str


CASES: dict[str, Case] = {}


def case(message: str, how: str = "recording") -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    def register(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES[write.__name__] = Case(write, how, message)
        return write

    return register


def write_file(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Result of each case; cases after one that crashed the worker process are missing."""
    if sys.platform != "linux":
        pytest.skip("peak memory is read from Linux's /proc")
    root = tmp_path_factory.mktemp("malicious")
    paths = {}
    for name, malicious in CASES.items():
        (root / name).mkdir()
        paths[name] = malicious.write(root / name)
    requests = "".join(json.dumps({"how": CASES[name].how, "path": str(path)}) + "\n" for name, path in paths.items())
    worker = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("read_worker.py"))],
        input=requests, capture_output=True, text=True, check=False, timeout=200, cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = dict(zip(CASES, map(json.loads, worker.stdout.splitlines()), strict=False))
    assert found, worker.stderr
    return {name: result | {"path": str(paths[name]), "root": root} for name, result in found.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", CASES)


def test_malicious_file_gives_one_line_error_within_limits(case_name: str, results: dict[str, dict[str, Any]]) -> None:
    assert case_name in results, "the worker process crashed on this file or an earlier one"
    result, message = results[case_name], CASES[case_name].message
    assert not list(result["root"].rglob("canary*")), "code in a file was executed"
    assert result["cpu_s"] < MAX_S
    assert result["peak_mb"] < MAX_MB
    if not message:
        assert result["error"] == ""
        return
    assert result["error"] in ("ValueError", "FileNotFoundError"), result["message"]
    assert re.search(message, result["message"]), result["message"]
    assert result["path"] in result["message"]
    assert "\n" not in result["message"]
    assert len(result["message"]) < 1000


# ------------------------------------------------------------------------------------------------------- pickles


class Bomb:
    """Creates a file in its folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "canary")

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


@case("not a readable checkpoint", how="checkpoint")
def pickle_in_a_checkpoint(folder: Path) -> Path:
    import torch

    path = folder / "checkpoints" / "last.pt"
    path.parent.mkdir()
    torch.save({"model": {}, "epoch": Bomb(folder)}, path)
    return path


@case("pickled objects, which are never loaded")
def pickle_in_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.array([Bomb(folder)] * 9, dtype=object))
    return folder / "a.npy"


@case("pickled objects, which are never loaded")
def pickle_in_npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", signal=np.array([Bomb(folder)] * 9, dtype=object))
    return folder / "a.npz"


@case("corrupt or truncated .npz")
def pickle_as_npz(folder: Path) -> Path:
    import pickle

    return write_file(folder / "a.npz", pickle.dumps(Bomb(folder)))


# ------------------------------------------------------------------------------------------------------- NumPy


def npy(header: str, data: bytes = bytes(800), length: int | None = None) -> bytes:
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length or len(header) + 1) + header.encode() + b"\n" + data


@case(r"corrupt or truncated \.npy")
def npy_of_1e12_samples(folder: Path) -> Path:
    return write_file(folder / "a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"))


@case(r"corrupt or truncated \.npy")
def npy_of_negative_samples(folder: Path) -> Path:
    return write_file(folder / "a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 2)}"))


@case("no numeric signal|corrupt or truncated")
def npy_of_1e12_samples_without_size(folder: Path) -> Path:
    return write_file(folder / "a.npy", npy("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,)}"))


@case(r"corrupt or truncated \.npy")
def npy_header_with_code(folder: Path) -> Path:
    code = f"open({str(folder / 'canary')!r}, 'w')"
    return write_file(folder / "a.npy", npy(f"{{'descr': {code}, 'fortran_order': False, 'shape': (9,)}}"))


@case(r"corrupt or truncated \.npy|does not fit in memory")
def npy_header_nested(folder: Path) -> Path:
    return write_file(folder / "a.npy", npy("{'descr': " + "(" * 4000 + ")" * 4000 + "}"))


@case(r"corrupt or truncated \.npy")
def npy_header_of_4_gigabytes(folder: Path) -> Path:
    return write_file(folder / "a.npy", npy("{}", length=2**32 - 9))


def deflated_zeros(n_bytes: int, before: bytes = b"") -> bytes:
    """Return a raw deflate stream of `before` and zeros, built by repeating one block."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = deflate.compress(before) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return first + block * (n_bytes // 2**20) + deflate.flush()


class Member(NamedTuple):
    name: str
    stream: bytes
    n_bytes: int
    method: int = 8  # deflated


def zip_of(*members: Member) -> bytes:
    """Return a ZIP archive with the given declared sizes; the checksums are wrong."""
    data, directory = b"", b""
    for name, stream, n_bytes, method in members:
        fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, zlib.crc32(stream), len(stream), n_bytes, len(name), 0)
        directory += (
            b"PK\1\2" + struct.pack("<H", 20) + fields + bytes(10) + struct.pack("<I", len(data)) + name.encode()
        )
        data += b"PK\3\4" + fields + name.encode() + stream
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(data), 0)
    return data + directory + b"PK\5\6" + end


@case("declares .* MB of data but is .* MB in size")
def zip_bomb_in_npz(folder: Path) -> Path:
    header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (268435456,)}", b"")
    stream = deflated_zeros(GIGABYTE, header)
    return write_file(folder / "a.npz", zip_of(Member("signal.npy", stream, GIGABYTE + len(header))))


@case(r"corrupt or truncated \.npz")
def zip_bomb_that_declares_little(folder: Path) -> Path:
    header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (268435456,)}", b"")
    return write_file(folder / "a.npz", zip_of(Member("signal.npy", deflated_zeros(GIGABYTE, header), 1000)))


@case("contains 20000 arrays, expected at most 10000")
def npz_of_20000_members(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for index in range(20_000):
            archive.writestr(zipfile.ZipInfo(f"{index}.npy"), b"")
    return folder / "a.npz"


@case("")  # members are never extracted to disk
def zip_slip(folder: Path) -> Path:
    np.savez(folder / "a.npz", **{"../../canary": SIGNAL})
    return folder / "a.npz"


@case("declares .* MB of data|not a readable checkpoint", how="checkpoint")
def zip_bomb_in_a_checkpoint(folder: Path) -> Path:
    import torch

    small = io.BytesIO()
    torch.save({"weight": torch.zeros(9)}, small)
    members = []
    with zipfile.ZipFile(small) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            is_weight = name.endswith("data/0")
            bomb = Member(name, deflated_zeros(GIGABYTE), GIGABYTE)
            members.append(bomb if is_weight else Member(name, data, len(data), method=0))
    return write_file(folder / "last.pt", zip_of(*members))


# ------------------------------------------------------------------------------------------------------- MATLAB


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(kind: int, shape: tuple[int, ...], *parts: bytes, name: bytes = b"x") -> bytes:
    flags = element(6, struct.pack("<II", kind, 0))
    return element(14, flags + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name) + b"".join(parts))


def mat5(*variables: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + struct.pack("<H2s", 0x0100, b"IM") + b"".join(variables)


CELL, CHAR, DOUBLE = 1, 4, 6


@case("declares .* MB of data but is .* MB in size")
def mat_bomb(folder: Path) -> Path:
    start = matrix(DOUBLE, (GIGABYTE // 8, 1))[8:] + struct.pack("<II", 9, GIGABYTE)
    before = struct.pack("<II", 14, len(start) + GIGABYTE) + start
    checksum = zlib.adler32(bytes(1), zlib.adler32(before))  # arbitrary: the limit is reached before the checksum
    stream = b"\x78\x9c" + deflated_zeros(GIGABYTE, before) + struct.pack(">I", checksum)
    return write_file(folder / "a.mat", mat5(struct.pack("<II", 15, len(stream)) + stream))


@case("nested more than 32 levels deep")
def mat_nested_20000_deep(folder: Path) -> Path:
    """SciPy overflows the stack, which crashes the process."""
    size = len(matrix(DOUBLE, (1, 1), element(9, bytes(8)), name=b""))
    headers = []
    for _ in range(20_000):
        start = matrix(CELL, (1, 1), name=b"")[8:]
        headers.append(struct.pack("<II", 14, len(start) + size) + start)
        size += len(headers[-1])
    inside = matrix(DOUBLE, (1, 1), element(9, bytes(8)), name=b"")
    return write_file(folder / "a.mat", mat5(b"".join(reversed(headers)) + inside))


@case("inconsistent data elements")
def mat_nested_with_wrong_lengths(folder: Path) -> Path:
    """SciPy ignores the lengths of nested arrays."""
    inside = matrix(DOUBLE, (1, 1), element(9, bytes(8)), name=b"")
    for _ in range(20_000):
        inside = struct.pack("<II", 14, 8) + matrix(CELL, (1, 1), name=b"")[8:] + inside[:56]
    return write_file(folder / "a.mat", mat5(element(14, inside)))


@case("inconsistent data elements")
def mat_numbers_of_unknown_type(folder: Path) -> Path:
    """SciPy looks the type up without a check, which crashes the process."""
    return write_file(folder / "a.mat", mat5(matrix(DOUBLE, (9, 1), element(0, bytes(72)))))


@case("inconsistent data elements")
def mat_of_1e9_cells(folder: Path) -> Path:
    return write_file(folder / "a.mat", mat5(matrix(CELL, (1_000_000_000, 1))))


@case("inconsistent data elements")
def mat_of_1e9_characters(folder: Path) -> Path:
    return write_file(folder / "a.mat", mat5(matrix(CHAR, (1, 1_000_000_000), element(4, b""))))


@case("inconsistent data elements")
def mat_of_1e18_numbers(folder: Path) -> Path:
    return write_file(folder / "a.mat", mat5(matrix(DOUBLE, (2_000_000_000,) * 2, element(9, bytes(80)))))


@case(r"corrupt or truncated \.mat|inconsistent data elements")
def mat_element_of_4_gigabytes(folder: Path) -> Path:
    return write_file(folder / "a.mat", mat5(matrix(DOUBLE, (9, 1), struct.pack("<II", 9, 2**32 - 8) + bytes(72))))


@case(r"corrupt or truncated \.mat|does not fit in memory")
def mat4_of_1e12_samples(folder: Path) -> Path:
    return write_file(folder / "a.mat", struct.pack("<5i", 0, 1_000_000, 1_000_000, 0, 2) + b"x\0" + bytes(800))


def mat73(path: Path) -> Path:
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + struct.pack("<H2s", 0x0200, b"IM"))
    return path


@case("declares 4e.06 MB of data")
def mat73_of_1e12_samples(folder: Path) -> Path:
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        file.create_dataset("x", shape=(10**12,), dtype="f4", chunks=(1000,), fillvalue=1.0)
    return mat73(folder / "a.mat")


@case("no numeric signal")
def mat73_references_to_themselves(folder: Path) -> Path:
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        cells = file.create_dataset("x", shape=(100,), dtype=h5py.ref_dtype)
        cells[:] = cells.ref
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
    return mat73(folder / "a.mat")


# ------------------------------------------------------------------------------------------------------- HDF5


@case("declares 4e.06 MB of data")
def hdf5_of_1e12_samples(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", shape=(2, 10**12 // 2), dtype="f4", chunks=(1, 1000), fillvalue=1.0)
    return folder / "a.h5"


@case("declares 8e.06 MB of data")
def hdf5_of_1e12_samples_never_written(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", shape=(10**12,), dtype="f8")
    return folder / "a.h5"


@case("declares .* MB of data")
def hdf5_of_many_large_data_sets(folder: Path) -> Path:
    """Each data set alone is within the limit."""
    with h5py.File(folder / "a.h5", "w") as file:
        for index in range(100):
            file.create_dataset(f"x{index}", shape=(2**22,), dtype="f8", chunks=(1000,))
    return folder / "a.h5"


@case("declares .* MB of data")
def hdf5_chunk_of_a_gigabyte(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("x", shape=(100,), maxshape=(None,), chunks=(2**28,), dtype="f4", compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(100)))
    return folder / "a.h5"


@case("decompresses to more than it declares")
def hdf5_bomb_in_a_chunk(folder: Path) -> Path:
    stream = b"\x78\x9c" + deflated_zeros(GIGABYTE) + struct.pack(">I", (GIGABYTE % 65521) << 16 | 1)
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("x", shape=(1000,), chunks=(1000,), dtype="f4", compression="gzip")
        data.id.write_direct_chunk((0,), stream)
    return folder / "a.h5"


@case("compressed more than once")
def hdf5_bomb_in_a_bomb(folder: Path) -> Path:
    stream = b"\x78\x9c" + deflated_zeros(GIGABYTE) + struct.pack(">I", (GIGABYTE % 65521) << 16 | 1)
    with h5py.File(folder / "a.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1000,))
        settings.set_deflate(9)
        settings.set_deflate(9)
        data = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((1000,)), settings)
        data.write_direct_chunk((0,), zlib.compress(stream))
    return folder / "a.h5"


@case("more than 10000 variables or 32 levels of groups")
def hdf5_1000_groups_deep(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w", libver="latest") as file:
        group: Any = file
        for _ in range(1000):
            group = group.create_group("g")
        group["x"] = SIGNAL
    return folder / "a.h5"


@case("no numeric signal")
def hdf5_circular_links(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        group = file.create_group("a/b")
        group["up"], file["a/self"] = file["a"], file["a"]
        file["soft"], file["dangling"] = h5py.SoftLink("/soft"), h5py.SoftLink("/nowhere")
    return folder / "a.h5"


@case("no numeric signal")
def hdf5_links_to_another_file(folder: Path) -> Path:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = SIGNAL
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(folder / "secret.h5"), "x")
    return folder / "a.h5"


@case("are stored in another file")
def hdf5_samples_in_another_file(folder: Path) -> Path:
    secret = write_file(folder / "secret", b"password" * 100)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", shape=(800,), dtype="u1", external=[(str(secret), 0, 800)])
    return folder / "a.h5"


@case("are stored in another file")
def hdf5_virtual_samples(folder: Path) -> Path:
    layout = h5py.VirtualLayout(shape=(300,), dtype="f4")
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = SIGNAL[0]
        layout[:] = h5py.VirtualSource(file["x"])
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    return folder / "a.h5"


@case("no numeric signal|corrupt or truncated")
def hdf5_char_array_of_30e6(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", shape=(30_000_000,), dtype="u2", chunks=(100_000,))
        file["x"].attrs["MATLAB_class"] = np.bytes_("char")
    return folder / "a.h5"


# ------------------------------------------------------------------------------------------------------- WAV


def wav(data_size: int = 800, channels: int = 2, rate: int = 100, bits: int = 16, riff: bytes = b"RIFF") -> bytes:
    width = channels * bits // 8 & 0xFFFF
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * width, width, bits)
    sizes = b"ds64" + struct.pack("<IQQQI", 28, 10**18, 10**18, 10**17, 0) if riff == b"RF64" else b""
    chunks = sizes + b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data_size) + bytes(800)
    return riff + struct.pack("<I", 836) + b"WAVE" + chunks


@case("")  # streaming recorders write this size; the samples present are read
def wav_of_4_gigabytes(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(data_size=2**32 - 4))


@case(r"corrupt or truncated \.wav|does not fit in memory")
def wav_of_1e18_bytes(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(data_size=2**32 - 1, riff=b"RF64"))


@case(r"corrupt or truncated \.wav")
def wav_without_channels(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(channels=0))


@case("65535 channels|corrupt or truncated")
def wav_of_65535_channels(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(channels=65535))


@case(r"corrupt or truncated \.wav")
def wav_without_bits(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(bits=0))


@case("does not state its sampling rate", how="dataset")
def wav_of_0_hz(folder: Path) -> Path:
    write_file(folder / "x" / "a.wav", wav(rate=0))
    return folder


# ------------------------------------------------------------------------------------------------------- Parquet


@case("declares .* MB of data")
def parquet_of_equal_values(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": np.zeros(10_000_000)}), folder / "a.parquet")
    return folder / "a.parquet"


def varint(number: int) -> bytes:
    """Encode an integer as in Thrift's compact protocol."""
    number, digits = 2 * number, []
    while number:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits[:-1], digits[-1] & 127])


@case("declares .* MB of data")
def parquet_with_false_row_count(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_rows = 1_100_000
    pq.write_table(pa.table({"x": np.zeros(n_rows)}), folder / "a.parquet", row_group_size=n_rows)
    data = (folder / "a.parquet").read_bytes()
    assert data.count(varint(n_rows)) >= 2
    return write_file(folder / "a.parquet", data.replace(varint(n_rows), varint(130_000_000)))


# ------------------------------------------------------------------------------------------------------- TDMS, UFF


@case("declares .* MB of data|corrupt|ends in the middle")
def tdms_of_1e12_samples(folder: Path) -> Path:
    from nptdms import ChannelObject, TdmsWriter

    with TdmsWriter(folder / "a.tdms") as writer:
        writer.write_segment([ChannelObject("g", "c", SIGNAL[0])])
    data = (folder / "a.tdms").read_bytes()
    n_samples = struct.pack("<Q", SIGNAL.shape[1])
    assert data.count(n_samples) == 1
    return write_file(folder / "a.tdms", data.replace(n_samples, struct.pack("<Q", 10**12)))


@case("corrupt or truncated")
def tdms_of_4e9_objects(folder: Path) -> Path:
    body = struct.pack("<I", 2**32 - 1) + bytes(100)
    lead_in = b"TDSm" + struct.pack("<IIQQ", 2 | 4 | 8, 4713, len(body), len(body))
    return write_file(folder / "a.tdms", lead_in + body)


# ------------------------------------------------------------------------------------------------------- text


@case("no rows of numbers")
def csv_of_1e6_columns(folder: Path) -> Path:
    return write_file(folder / "a.csv", ("1," * 999_999 + "1\n") * 3)


@case("contains 10000 columns, expected at most 300")
def csv_of_30000_columns_in_the_head(folder: Path) -> Path:
    return write_file(folder / "a.csv", ("1," * 9_999 + "1\n") * 20)


@case("characters or more")
def csv_line_of_500_megabytes(folder: Path) -> Path:
    path = write_file(folder / "a.csv", "a,b\n" + "1,2\n" * 20_000)
    os.truncate(path, 500_000_000)
    return path


@case("binary data")
def csv_of_500_megabytes_of_zeros(folder: Path) -> Path:
    path = write_file(folder / "a.csv", "")
    os.truncate(path, 500_000_000)
    return path


@case("expected only numbers|ends in the middle|fields")
def csv_with_nul_after_the_head(folder: Path) -> Path:
    return write_file(folder / "a.csv", "a,b\n" + "1,2\n" * 20_000 + "1,\0\0\n" + "1,2\n" * 9)


@case("no rows of numbers|no numeric signal|fields|binary")
def csv_that_is_slow_to_match(folder: Path) -> Path:
    lines = [" " * 9000 + "x", "k:" + "," * 9000 + "x", "(" * 9000, '"' * 9000, "#" * 9000 + " ", "1" * 9000 + "x"]
    return write_file(folder / "a.csv", "\n".join([*lines, "1 2", "3"]))


@case(r"is inf at sample 2", how="dataset")
def csv_of_huge_numbers(folder: Path) -> Path:
    write_file(folder / "x" / "a.csv", "# fs = 10\n1.0\n2.0\n1e300\n4.0\n1.0\n")
    return folder


@case(r"is nan at sample 1", how="dataset")
def csv_of_nan(folder: Path) -> Path:
    write_file(folder / "x" / "a.csv", "# fs = 10\n1.0;2\nnan;1\n1.5;3\n4.0;2\n1.0;2\n")
    return folder


# ------------------------------------------------------------------------------------------------------- manifests


def dataset(folder: Path, manifest: str | bytes) -> Path:
    np.savez(folder / "a.npz", signal=SIGNAL, fs=100)
    return write_file(folder / "manifest.csv", manifest).parent


OUTSIDE = ["../secret.npz", "../../etc/passwd", "/etc/passwd", "x/../../secret.npz", r"..\secret.npz", "C:/secret.npz"]


@case(r"not a path within the folder.*and 3 more", how="dataset")
def manifest_with_paths_outside(folder: Path) -> Path:
    np.savez(folder / "secret.npz", signal=SIGNAL, fs=100)
    (folder / "data").mkdir()
    return dataset(folder / "data", "file,label\n" + "".join(f"{name},x\n" for name in OUTSIDE))


@case(r"cannot be accessed|does not exist", how="dataset")
def circular_symlink(folder: Path) -> Path:
    (folder / "x").mkdir()
    (folder / "x" / "a.csv").symlink_to("a.csv")
    return folder


@case("does not exist|cannot be accessed", how="dataset")
def manifest_with_impossible_names(folder: Path) -> Path:
    return dataset(folder, f"file,label\n{'n' * 5000}.csv,x\na\x01.csv,x\n")


@case("250", how="dataset")
def manifest_of_1e6_columns(folder: Path) -> Path:
    return dataset(folder, "file,label" + ",x" * 1_000_000 + "\na.npz,x\n")


@case("at most", how="dataset")
def manifest_of_many_columns_and_rows(folder: Path) -> Path:
    return dataset(folder, "file,label" + ",x" * 60_000 + "\n" + "a\n" * 100_000)


@case("at most", how="dataset")
def manifest_of_1e6_rows(folder: Path) -> Path:
    return dataset(folder, "file,label\n" + "a,x\n" * 1_000_000)


@case("is larger than", how="dataset")
def manifest_of_500_megabytes(folder: Path) -> Path:
    dataset(folder, "file,label\na.npz,x\n")
    os.truncate(folder / "manifest.csv", 500_000_000)
    return folder


@case("", how="dataset")
def manifest_with_nested_cells(folder: Path) -> Path:
    return dataset(folder, f"file,label,note,load\na.npz,x,{'[' * 100_000},1e999\n")


@case("", how="dataset")
def manifest_that_is_slow_to_match(folder: Path) -> Path:
    load = "1" * 100_000
    return dataset(folder, f'file,label,load\na.npz,x,"{load}\n{load[:9]}"\n')


@case("rpm is 'inf', expected a number > 0", how="dataset")
def manifest_of_infinite_speed(folder: Path) -> Path:
    return dataset(folder, "file,label,rpm\na.npz,x,inf\na.npz,x,1e999\na.npz,x,-1\n")


@case("field larger than field limit", how="dataset")
def manifest_with_a_cell_of_a_megabyte(folder: Path) -> Path:
    return dataset(folder, f"file,label\na.npz,{'x' * 1_000_000}\n")


# --------------------------------------------------------------------------------------------- not regular files


@case("not a regular file")
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.csv")
    return folder / "a.csv"


@case("is not a regular file", how="dataset")
def a_pipe_in_a_manifest(folder: Path) -> Path:
    os.mkfifo(folder / "b.csv")
    return dataset(folder, "file,label\nb.csv,x\n")


@case("is not a regular file", how="dataset")
def a_pipe_in_a_class(folder: Path) -> Path:
    (folder / "x").mkdir()
    os.mkfifo(folder / "x" / "a.csv")
    return folder


@case("not a regular file")
def a_device(folder: Path) -> Path:
    (folder / "a.csv").symlink_to("/dev/zero")
    return folder / "a.csv"


@case("not a regular file")
def a_folder_as_a_recording(folder: Path) -> Path:
    (folder / "a.csv").mkdir()
    return folder / "a.csv"


@case("no such file")
def an_impossible_name(folder: Path) -> Path:
    return folder / "a\0b.csv"


# ------------------------------------------------------------------------------------------------------- settings


@case("could not determine a constructor", how="settings")
def yaml_with_a_tag(folder: Path) -> Path:
    code = f"open({str(folder / 'canary')!r}, 'w')"
    return write_file(folder / "config.yaml", f"epochs: !!python/object/apply:eval [{code!r}]\n")


def billion_laughs(first: str, line: str, n: int = 9) -> str:
    """Return lines that each reference the previous one ten times."""
    aliases = [", ".join([f"*a{index}"] * 10) for index in range(n)]
    return first + "".join(line.format(index + 1, names) for index, names in enumerate(aliases))


@case("cannot be read as YAML", how="settings")
def yaml_of_nested_aliases(folder: Path) -> Path:
    return write_file(folder / "config.yaml", billion_laughs("a0: &a0 [x]\n", "a{0}: &a{0} [{1}]\n") + "classes: *a9\n")


@case("cannot be read as YAML", how="settings")
def yaml_of_nested_merges(folder: Path) -> Path:
    return write_file(folder / "config.yaml", billion_laughs("a0: &a0 {k: v}\n", "a{0}: &a{0}\n  <<: [{1}]\n"))


@case("cannot be read as YAML", how="settings")
def yaml_nested(folder: Path) -> Path:
    return write_file(folder / "config.yaml", "classes: " + "[" * 50_000)


@case("cannot be read as YAML", how="settings")
def yaml_of_a_long_number(folder: Path) -> Path:
    return write_file(folder / "config.yaml", "epochs: " + "1" * 5000)


@case("cannot be read as YAML", how="settings")
def yaml_of_an_invalid_date(folder: Path) -> Path:
    return write_file(folder / "config.yaml", "data: 2024-13-45\n")


@case("cannot be read as YAML", how="settings")
def yaml_of_500_megabytes(folder: Path) -> Path:
    path = write_file(folder / "config.yaml", "epochs: 1\n")
    os.truncate(path, 500_000_000)
    return path


@case("cannot be read as YAML", how="settings")
def yaml_in_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "config.yaml")
    return folder / "config.yaml"
