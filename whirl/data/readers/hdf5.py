"""HDF5, and with it MATLAB's v7.3."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.data.readers.conventions import content_from_variables
from whirl.data.reading import (
    ALWAYS_ALLOWED_BYTES,
    MAX_CHANNELS,
    MAX_VARIABLES,
    Content,
    UnreadableError,
    check_size,
    register_reader,
)

if TYPE_CHECKING:
    import h5py

# Attributes of the format itself (MATLAB, PyTables, dimension scales), which say nothing of the recording.
_FORMAT_ATTRIBUTES = ("MATLAB", "H5PATH", "CLASS", "TITLE", "VERSION", "NAME", "DIMENSION", "REFERENCE", "PYTABLES")
# Groups within groups; the time to visit them grows with the square.
_MAX_DEPTH = 32
_MAX_CHARS = 10_000
_DEFLATE = 1  # number of the filter (H5Z_FILTER_DEFLATE)
_MAX_DEFLATED = 1032  # zlib's highest ratio, https://zlib.net/zlib_tech.html


@register_reader(".h5", ".hdf5", ".hdf")
def read_hdf5(path: Path) -> Content:
    """Data sets in any group are candidates for the signal; attributes count as single values."""
    return content_from_variables(read_variables(path))


def read_variables(path: Path) -> dict[str, Any]:
    """Every numeric or text data set and attribute, by its path in the file; links out of the file are not followed."""
    import h5py

    variables: dict[str, Any] = {}
    data_sets: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.startswith("#"):  # the innards of MATLAB's cells and tables
            return
        if name.count("/") > _MAX_DEPTH or len(variables) + len(data_sets) > MAX_VARIABLES:
            raise UnreadableError("groups so many or so deep are no recording; save the signal alone")
        for key, value in item.attrs.items():
            if not key.startswith(_FORMAT_ATTRIBUTES):
                variables[f"{name}/{key}".lstrip("/")] = value.decode() if isinstance(value, bytes) else value
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            data_sets[name] = item

    with h5py.File(path, "r") as file:
        collect("", file)
        file.visititems(collect)
        # Chunks that were never written are unfolded to their fill value.
        check_size(path, sum(item.nbytes for item in data_sets.values()))
        for name, item in data_sets.items():
            _check_storage(path, item)
            variables[name] = _value(item)
    return variables


def _check_storage(path: Path, item: h5py.Dataset) -> None:
    """Refuse samples that lie in another file, and chunks that unfold to more than they declare."""
    if item.external or item.is_virtual:
        raise UnreadableError(f"the samples of {item.name!r} lie in another file; save them in this one")
    if item.chunks is None:
        return
    check_size(path, math.prod(item.chunks) * item.dtype.itemsize)
    filters = item.id.get_create_plist()
    n_deflated = sum(filters.get_filter(index)[0] == _DEFLATE for index in range(filters.get_nfilters()))
    if n_deflated > 1:
        raise UnreadableError(f"{item.name!r} is compressed more than once; save it without compression")
    if n_deflated:
        _check_chunks(path, item)


def _check_chunks(path: Path, item: h5py.Dataset) -> None:
    """HDF5 inflates all that a chunk holds, however much that is; only large chunks can hold too much."""
    large: list[tuple[int, ...]] = []

    def find_large(chunk: Any) -> None:
        if chunk.size * _MAX_DEFLATED > ALWAYS_ALLOWED_BYTES:
            large.append(chunk.chunk_offset)

    item.id.chunk_iter(find_large)
    n_declared = math.prod(item.chunks or ()) * item.dtype.itemsize
    for offset in large:
        _, stored = item.id.read_direct_chunk(offset)
        if len(zlib.decompressobj().decompress(stored, n_declared + 1)) > n_declared:
            raise UnreadableError(f"a chunk of {item.name!r} unfolds to more than it declares; copy or export it again")


def _value(item: h5py.Dataset) -> Any:
    """Numbers as they are; texts as text, or None where they are longer than any name or note."""
    import h5py

    is_letters = item.attrs.get("MATLAB_class") == b"char"
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if (is_letters and math.prod(item.shape) > _MAX_CHARS) or (is_text and math.prod(item.shape) > MAX_CHANNELS):
        return None
    if is_letters:
        return "".join(chr(code) for code in np.ravel(item[()]))
    return item.asstr()[()] if is_text else item[()]
