"""Reader of NumPy files (.npy, .npz)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from whirl.data.readers.conventions import content_from_variables, flat_name
from whirl.data.reading import MAX_VARIABLES, Content, UnreadableError, check_size, register_reader


@register_reader(".npy")
def read_npy(path: Path) -> Content:
    """Read one array, or a structured array whose fields are the channels; memory-mapped until it is converted."""
    with _reject_objects():
        # Copy-on-write: pages are read from disk on access, and nothing is ever written back.
        array = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
        if array.dtype == np.float32 and array.flags.c_contiguous:  # needs no conversion: takes its memory only once
            array = np.load(path, allow_pickle=False)
    fields = array.dtype.names
    variables = {flat_name(name): array[name] for name in fields} if fields else {"signal": array}
    return content_from_variables(variables)


@register_reader(".npz")
def read_npz(path: Path) -> Content:
    """Read named arrays: the signal, and scalars such as `fs` and `rpm`."""
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
        return content_from_variables(dict(archive))


@contextmanager
def _reject_objects() -> Iterator[None]:
    """Translate NumPy's error for pickled objects."""
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in ("Object arrays", "Python objects")):
            raise
        raise UnreadableError("contains pickled objects, which are never loaded; save plain numeric arrays") from error
