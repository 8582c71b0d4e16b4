"""Reader of NumPy files (.npy, .npz)."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from whirl.data.readers.conventions import content_from_variables, flat_name
from whirl.data.reading import MAX_VARIABLES, Content, UnreadableError, check_size, register_reader

# NumPy parses headers with `ast`, which in Python < 3.11.5 fails in two threads at once (CPython issue 106905).
_PARSING = threading.Lock()
_MAPPED_BYTES = 2**24  # size from which an array of an archive is mapped


@register_reader(".npy")
def read_npy(path: Path) -> Content:
    """Read one array, or a structured array whose fields are the channels; memory-mapped until it is converted."""
    _check_format(path, np.lib.format.MAGIC_PREFIX)
    with _reject_objects(), _PARSING:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # pages are read from disk on access
        if array.dtype == np.float32 and array.flags.c_contiguous:  # needs no conversion: takes its memory only once
            array = np.load(path, allow_pickle=False)
    fields = array.dtype.names
    variables = {flat_name(name): array[name] for name in fields} if fields else {"signal": array}
    return content_from_variables(variables)


@register_reader(".npz")
def read_npz(path: Path) -> Content:
    """Read named arrays: the signal, and scalars such as `fs` and `rpm`."""
    _check_format(path, b"PK")
    # Opened here because NumPy does not close the file if the archive is corrupt.
    with _reject_objects(), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        members = archive.zip.infolist()
        if len(members) > MAX_VARIABLES:
            raise UnreadableError(
                f"contains {len(members)} arrays, expected at most {MAX_VARIABLES}; save the signal alone"
            )
        other = [m.filename for m in members if m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
        if other:  # decompressed without a limit
            raise UnreadableError(f"{other[0][:40]!r} is compressed by a method that NumPy never uses; save it again")
        check_size(path, sum(member.file_size for member in members))
        return content_from_variables({name: _read_member(archive, name) for name in archive})


def _read_member(archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """Read an array of an archive; a large one is decompressed to a temporary file, which is mapped."""
    zipped = cast(zipfile.ZipFile, archive.zip)  # None once it is closed
    member = zipped.NameToInfo.get(f"{name}.npy")
    if member is None or member.file_size < _MAPPED_BYTES or os.name != "posix":  # others cannot delete mapped files
        with _PARSING:
            array = archive[name]
        if member is not None and isinstance(array, bytes):  # what NumPy does not recognize
            raise ValueError(f"{name}.npy is not an array in NumPy's format")
        return array
    try:
        with zipped.open(member) as source, tempfile.TemporaryFile() as plain:
            shutil.copyfileobj(source, plain)
            plain.seek(0)
            mapped = _map(plain)
    except OSError as error:
        raise UnreadableError(
            f"needs {member.file_size / 1e6:.3g} MB in the folder of temporary files ({error.strerror or error}); "
            "free space there, or set TMPDIR to another folder"
        ) from error
    if mapped is not None:
        return mapped
    with _PARSING:
        return archive[name]


def _map(file: IO[bytes]) -> np.ndarray | None:
    """Map an array in NumPy's format; None for objects and for rare versions of the format."""
    if np.lib.format.read_magic(file) != (1, 0):
        return None
    with _PARSING:
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        return None
    order = "F" if is_fortran else "C"
    return np.asarray(np.memmap(file, dtype, "r", offset=file.tell(), shape=shape, order=order))


def _check_format(path: Path, signature: bytes) -> None:
    """Validate the first bytes: NumPy takes all other files for pickles, and advises to unpickle them."""
    with path.open("rb") as file:
        if file.read(len(signature)) != signature:
            raise ValueError("not in NumPy's format")


@contextmanager
def _reject_objects() -> Iterator[None]:
    """Translate NumPy's error for pickled objects."""
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in ("Object arrays", "Python objects")):
            raise
        raise UnreadableError("contains pickled objects, which are never loaded; save plain numeric arrays") from error
