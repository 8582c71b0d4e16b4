"""Reader of HDF5 files (.h5, .hdf5, .hdf), also used for MATLAB v7.3."""

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

# Attributes of the format itself (MATLAB, PyTables, dimension scales), which do not describe the recording.
_FORMAT_ATTRIBUTES = ("MATLAB", "H5PATH", "CLASS", "TITLE", "VERSION", "NAME", "DIMENSION", "REFERENCE", "PYTABLES")
# Nested groups; the time to visit them grows with the square of the depth.
_MAX_DEPTH = 32
_MAX_CHARS = 10_000
_DEFLATE = 1  # filter id H5Z_FILTER_DEFLATE
_MAX_DEFLATE_RATIO = 1032  # highest compression ratio of zlib, https://zlib.net/zlib_tech.html


@register_reader(".h5", ".hdf5", ".hdf")
def read_hdf5(path: Path) -> Content:
    """Read data sets of all groups as candidates for the signal; attributes count as scalars."""
    return content_from_variables(read_variables(path))


def read_variables(path: Path) -> dict[str, Any]:
    """Return every numeric or text data set and attribute, by its path in the file.

    Links to other files are not followed.

    Raises:
        UnreadableError: there are too many or too deeply nested groups, the data are larger than the file can contain,
            or a data set is stored in another file.
    """
    import h5py

    variables: dict[str, Any] = {}
    data_sets: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.startswith("#"):  # internals of MATLAB cells and tables
            return
        if name.count("/") > _MAX_DEPTH or len(variables) + len(data_sets) > MAX_VARIABLES:
            raise UnreadableError(
                f"contains more than {MAX_VARIABLES} variables or {_MAX_DEPTH} levels of groups; save the signal alone"
            )
        for key, value in item.attrs.items():
            if not key.startswith(_FORMAT_ATTRIBUTES):
                variables[f"{name}/{key}".lstrip("/")] = value.decode() if isinstance(value, bytes) else value
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            data_sets[name] = item

    with h5py.File(path, "r") as file:
        collect("", file)
        file.visititems(collect)
        # Chunks that were never written are expanded to their fill value.
        check_size(path, sum(item.nbytes for item in data_sets.values()))
        for name, item in data_sets.items():
            _check_storage(path, item)
            variables[name] = _value(item)
    return variables


def _check_storage(path: Path, item: h5py.Dataset) -> None:
    """Raise if samples are stored in another file, or if chunks decompress to more than they declare."""
    if item.external or item.is_virtual:
        raise UnreadableError(f"the samples of {item.name!r} are stored in another file; save them in this file")
    if item.chunks is None:
        return
    check_size(path, math.prod(item.chunks) * item.dtype.itemsize)
    filters = item.id.get_create_plist()
    n_deflated = sum(filters.get_filter(index)[0] == _DEFLATE for index in range(filters.get_nfilters()))
    if n_deflated > 1:
        raise UnreadableError(f"{item.name!r} is compressed more than once; save it without compression")
    if n_deflated:
        _check_chunks(item)


def _check_chunks(item: h5py.Dataset) -> None:
    """Raise if a chunk decompresses to more than it declares: HDF5 inflates it without a limit.

    Only chunks that are large on disk can expand to a harmful size.
    """
    large: list[tuple[int, ...]] = []

    def find_large(chunk: Any) -> None:
        if chunk.size * _MAX_DEFLATE_RATIO > ALWAYS_ALLOWED_BYTES:
            large.append(chunk.chunk_offset)

    item.id.chunk_iter(find_large)
    n_declared = math.prod(item.chunks or ()) * item.dtype.itemsize
    for offset in large:
        _, stored = item.id.read_direct_chunk(offset)
        if len(zlib.decompressobj().decompress(stored, n_declared + 1)) > n_declared:
            raise UnreadableError(
                f"a chunk of {item.name!r} decompresses to more than it declares; copy or export it again"
            )


def _value(item: h5py.Dataset) -> Any:
    """Return the numbers or text of a data set; None for texts that are too long for a name or note."""
    import h5py

    is_char = item.attrs.get("MATLAB_class") == b"char"
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if (is_char and math.prod(item.shape) > _MAX_CHARS) or (is_text and math.prod(item.shape) > MAX_CHANNELS):
        return None
    if is_char:
        return "".join(chr(code) for code in np.ravel(item[()]))
    return item.asstr()[()] if is_text else item[()]
