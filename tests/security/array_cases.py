"""Malicious files with arrays: pickles, NumPy, MATLAB and HDF5."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.security.cases import GIGABYTE, SIGNAL, Bomb, Member, case, deflated_zeros, write_file, zip_of

# ------------------------------------------------------------------------------------------------------- pickles


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


@case("too many references")
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
