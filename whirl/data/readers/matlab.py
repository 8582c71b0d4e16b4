"""Reader of MATLAB files (.mat), v4 to v7.3."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from whirl.data.readers import cwru
from whirl.data.readers.conventions import Unread, content_from_variables
from whirl.data.readers.hdf5 import MATLAB_REMEDY, MATLAB_TEXTS
from whirl.data.readers.public import read_public
from whirl.data.reading import Content, UnreadableError, allowed_bytes, check_size, register_reader

_CORRUPT = "inconsistent data elements; copy or export it again"
_HEADER_BYTES = 128
# Data types and array classes, "MAT-File Format", The MathWorks, tables 1-1 and 1-3.
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_CELL, _STRUCT, _OBJECT, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 5, 16, 17
_CONTAINERS = {_CELL, _STRUCT, _OBJECT, _FUNCTION, _OPAQUE}
# Nested structures; SciPy recurses without a limit and overflows the stack.
_MAX_DEPTH = 32
# An array may have as many values as it has bytes, and this many in any case: elements of a structure without fields
# take no space.
_ALWAYS_ALLOWED_VALUES = 65_536


@register_reader(".mat")
def read_mat(path: Path) -> Content:
    """Read variables, and fields of structures, as candidates for the signal."""
    variables = _read_variables(path)
    if cwru.is_cwru(variables):
        return cwru.content_from_record(path.stem, variables)
    return read_public(path.stem, variables) or content_from_variables(variables)


def _read_variables(path: Path) -> dict[str, Any]:
    import h5py

    # v7.3 is HDF5 after a MATLAB header of 512 bytes.
    if h5py.is_hdf5(path):
        from whirl.data.readers.hdf5 import read_variables

        return read_variables(path)
    from scipy.io import loadmat

    variables: dict[str, Any] = {}
    for name, value in loadmat(_validated_source(path)).items():
        if not name.startswith("__"):
            _flatten(name, value, variables)
    return variables


def _flatten(name: str, value: Any, variables: dict[str, Any]) -> None:
    """Add an array, or each field of a (nested) structure and element of a cell, to `variables` under its path."""
    from scipy.io.matlab import MatlabFunction, MatlabOpaque

    if isinstance(value, MatlabOpaque):
        _add_object(name, value, variables)
    elif isinstance(value, MatlabFunction) or value is None:
        return
    elif hasattr(value, "tocoo"):
        variables[name] = Unread("a sparse matrix", "export it with full(...)")
    elif not isinstance(value, np.ndarray):
        variables[name] = value
    elif value.dtype.names is not None:
        for index, element in enumerate(value.flat):
            path = name if value.size == 1 else f"{name}({index + 1})"
            for key in value.dtype.names:
                _flatten(f"{path}/{key}", element[key], variables)
    elif value.dtype == object:
        _flatten_cell(name, list(value.flat), variables)
    else:
        variables[name] = value


def _flatten_cell(name: str, elements: list[Any], variables: dict[str, Any]) -> None:
    if len(elements) == 1:
        _flatten(name, elements[0], variables)
    elif elements and all(isinstance(each, np.ndarray) and each.dtype.kind == "U" for each in elements):
        variables[name] = np.array(["".join(map(str, each.flat)) for each in elements])
    elif _are_windows(elements):
        # Not channels unless labels say that they are windows.
        variables[name] = np.stack([np.atleast_2d(np.squeeze(each)) for each in elements])
    else:
        for index, element in enumerate(elements):
            _flatten(f"{name}{{{index + 1}}}", element, variables)


def _are_windows(elements: list[Any]) -> bool:
    shapes = {each.shape if isinstance(each, np.ndarray) and each.dtype.kind in "fiu" else None for each in elements}
    return len(shapes) == 1 and None not in shapes and elements[0].size > 1


def _add_object(name: str, value: Any, variables: dict[str, Any]) -> None:
    """Add a placeholder for an object whose values SciPy does not decode; its numbers are a handle."""
    names: Any = value.ravel()[0] if value.dtype.names else None
    fields = value.dtype.names or ()
    own_name, kind = [_plain_text(names[key]) if key in fields else "" for key in ("s0", "s2")]
    if kind not in MATLAB_TEXTS:
        variables[own_name or name] = Unread(f"a MATLAB {kind or 'object'}", MATLAB_REMEDY)


def _plain_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# --------------------------------------------------------------------- validation before SciPy allocates memory


class _Element(NamedTuple):
    kind: int
    body: memoryview


def _validated_source(path: Path) -> Path | io.BytesIO:
    """Return the file, or its decompressed bytes, after checking that it declares no more data than it contains.

    SciPy trusts the sizes that a file declares, decompresses without a limit, and crashes the process on deeply nested
    structures and on unknown data types.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r").data
    if 0 in data[:4]:  # v4 has neither compression nor nesting
        return path
    order = "<" if data[126:128] == b"IM" else ">"
    parts = [data[:_HEADER_BYTES]]
    position, n_bytes, compressed = _HEADER_BYTES, 0, False
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start, position = position, position + 8 + size
        part = data[start:position]
        if kind == _COMPRESSED:
            compressed = True
            part = memoryview(zlib.decompressobj().decompress(part[8:], allowed_bytes(path) + 1))
        parts.append(part)
        n_bytes += len(part)
        check_size(path, n_bytes)
        for variable in _elements(part, order):
            _check_matrix(variable, order)
    return io.BytesIO(b"".join(parts)) if compressed else path


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yield consecutive data elements, each aligned to 8 bytes."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + 8
        if kind >> 16:  # small data element format: up to 4 bytes are stored in the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        if start + size > len(data) or (start % 8 and (size > 4 or kind == _MATRIX)):
            raise UnreadableError(_CORRUPT)
        yield _Element(kind, data[start : start + size])
        position = start + size + -(start + size) % 8


def _check_matrix(matrix: _Element, order: str, depth: int = 0) -> None:
    """Raise if an array lacks the elements that SciPy would read, or has more values than bytes."""
    if depth > _MAX_DEPTH:
        raise UnreadableError(f"structures are nested more than {_MAX_DEPTH} levels deep; save the signal alone")
    if matrix.kind != _MATRIX:
        raise UnreadableError(_CORRUPT)
    if not matrix.body:  # an empty cell
        return
    parts = list(_elements(matrix.body, order))
    flags = struct.unpack(f"{order}II", parts[0].body)[0]
    kind, is_complex = flags & 0xFF, flags >> 11 & 1
    known = _NUMBERS | {_MATRIX} if kind in _CONTAINERS else _NUMBERS
    n_parts = _n_parts(kind, parts, order, n_bytes=len(matrix.body)) + is_complex
    if not _CELL <= kind <= _OPAQUE or len(parts) != n_parts or not known.issuperset(part.kind for part in parts):
        raise UnreadableError(_CORRUPT)
    for part in parts[3:]:
        if part.kind == _MATRIX:
            _check_matrix(part, order, depth + 1)


def _n_parts(kind: int, parts: list[_Element], order: str, n_bytes: int) -> int:
    """Return the number of elements of a real array of a class: flags, dimensions, name, and class-specific ones."""
    if kind == _OPAQUE:  # flags, three names, one array; no dimensions
        return 5
    dimensions = struct.unpack(f"{order}{len(parts[1].body) // 4}i", parts[1].body)
    n_values = math.prod(dimensions)
    if min(dimensions) < 0 or (n_values > max(n_bytes, _ALWAYS_ALLOWED_VALUES) and kind != _SPARSE):
        raise UnreadableError(_CORRUPT)
    if kind == _CELL:
        return 3 + n_values
    if kind in (_STRUCT, _OBJECT):  # an object's class name, length of the field names, field names
        first = 4 if kind == _OBJECT else 3
        (length,) = struct.unpack(f"{order}i", parts[first].body)
        return first + 2 + n_values * (len(parts[first + 1].body) // length)
    return 6 if kind == _SPARSE else 4
