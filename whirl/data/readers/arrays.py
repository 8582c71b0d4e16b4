"""NumPy's .npy and .npz."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from whirl.data.readers.conventions import content_from_variables
from whirl.data.reading import MAX_VARIABLES, Content, UnreadableError, check_size, register_reader


@register_reader(".npy")
def read_npy(path: Path) -> Content:
    """One array, or a structured one whose fields are the channels. Mapped, not loaded."""
    with _objects_refused():
        # Mode "c": pages come from the disk when they are touched, and nothing is ever written back.
        array = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    fields = array.dtype.names
    return content_from_variables({name: array[name] for name in fields} if fields else {"signal": array})


@register_reader(".npz")
def read_npz(path: Path) -> Content:
    """Named arrays: the signal, and single values such as `fs` and `rpm`."""
    # Opened here, because NumPy leaves a file open whose archive is broken.
    with _objects_refused(), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        members = archive.zip.infolist()
        if len(members) > MAX_VARIABLES:
            raise UnreadableError(f"{len(members)} arrays are no recording; save the signal alone")
        check_size(path, sum(member.file_size for member in members))
        return content_from_variables(dict(archive))


@contextmanager
def _objects_refused() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in ("Object arrays", "Python objects")):
            raise
        raise UnreadableError("it holds pickled objects, which are never loaded; save plain numeric arrays") from error
