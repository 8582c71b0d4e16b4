"""Reader of compressed files: `run.csv.gz`, `run.csv.zst`."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.reading import Content, UnreadableError, allowed_bytes, find_reader, register_reader

_BLOCK_BYTES = 2**20


@register_reader(".gz", ".zst")
def read_compressed(path: Path) -> Content:
    """Decompress to a temporary file of the inner name (`run.csv`), and read that."""
    inner = path.with_suffix("").name
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / inner
        reader = find_reader(plain)
        if reader is read_compressed:
            raise UnreadableError("is compressed more than once; save it with one compression")
        with _open(path) as source, plain.open("wb") as target:
            _copy(source, target, allowed_bytes(path))
        content = reader(plain)
        # Copied, because the file that it may map is deleted.
        return replace(content, signal=np.array(content.signal))


def _open(path: Path) -> Any:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(f"reading .zst needs pyarrow: {install_hint('parquet')}") from error
    return pa.input_stream(str(path), compression="zstd")


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> None:
    shutil.copyfileobj(_Limited(source, limit), target, _BLOCK_BYTES)  # pyright: ignore[reportArgumentType] - read() only


class _Limited:
    """A stream that raises when more than a number of bytes is read from it."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.stream = stream
        self.rest = limit

    def read(self, n_bytes: int) -> bytes:
        data = self.stream.read(n_bytes)
        self.rest -= len(data)
        if self.rest < 0:
            raise UnreadableError("declares much more data than its size allows; save it without compression")
        return bytes(data)
