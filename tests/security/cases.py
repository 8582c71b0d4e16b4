"""Registry of malicious files, and helpers to write them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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


class Bomb:
    """Creates a file in its folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "canary")

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


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
