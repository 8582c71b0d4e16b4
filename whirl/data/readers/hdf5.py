"""Reader of HDF5 files (.h5, .hdf5, .hdf), also used for MATLAB v7.3."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.data.readers.conventions import Unread, content_from_variables
from whirl.data.reading import (
    ALWAYS_ALLOWED_BYTES,
    MAX_CHANNELS,
    MAX_VARIABLES,
    Content,
    UnreadableError,
    allowed_bytes,
    check_size,
    register_reader,
)

if TYPE_CHECKING:
    import h5py

# Attributes of the format that are used.
_USED_ATTRIBUTES = ("MATLAB_class", "MATLAB_object_decode", "MATLAB_empty")
# Attributes of the format itself (MATLAB, PyTables, dimension scales), which do not describe the recording.
_FORMAT_ATTRIBUTES = ("MATLAB", "H5PATH", "CLASS", "TITLE", "VERSION", "NAME", "DIMENSION", "REFERENCE", "PYTABLES")
_MISSING_ATTRIBUTES = ("_FillValue", "missing_value")
# Nested groups; the time to visit them grows with the square of the depth.
_MAX_DEPTH = 32
_MAX_CHARS = 10_000
MATLAB_TEXTS = (
    "string",
    "datetime",
    "duration",
    "calendarDuration",
    "categorical",
    "containers.Map",
    "function_handle",
)
"""MATLAB classes that never hold the signal."""
MATLAB_REMEDY = (
    "export it in MATLAB with writetable (writetimetable for a timetable), or save its values as plain arrays: "
    "x = T.Variables; save('run.mat', 'x')"
)
"""How to export a table, timetable or other object."""
# Filters by their number, https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32_000
_CHECKSUM_BYTES = 4
MAX_DEFLATE_RATIO = 1032  # highest compression ratio of zlib, https://zlib.net/zlib_tech.html


@register_reader(".h5", ".hdf5", ".hdf")
def read_hdf5(path: Path) -> Content:
    """Read data sets of all groups as candidates for the signal; attributes count as facts beside their data set."""
    return content_from_variables(read_variables(path))


def read_variables(path: Path) -> dict[str, Any]:
    """Return every data set and attribute by its path in the file; fields of compound tables are separate variables.

    Links to other files are not followed. MATLAB cells and arrays of structures are resolved. What cannot be read, such
    as MATLAB tables and rows of variable length, is an `Unread`.

    Raises:
        UnreadableError: there are too many or too deeply nested groups, the data are larger than the file can contain,
            or a data set is stored in another file.
    """
    import h5py

    variables: dict[str, Any] = {}
    data_sets: dict[str, tuple[h5py.Dataset, dict[str, Any]]] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.startswith("#"):  # internals of MATLAB cells and tables
            return
        if name.count("/") > _MAX_DEPTH or len(variables) + len(data_sets) > MAX_VARIABLES:
            raise UnreadableError(
                f"contains more than {MAX_VARIABLES} variables or {_MAX_DEPTH} levels of groups; save the signal alone"
            )
        attributes = _attributes(path, item)
        for key, value in attributes.items():
            if not key.startswith(_FORMAT_ATTRIBUTES):
                variables[f"{name}/{key}".lstrip("/")] = value.decode() if isinstance(value, bytes) else value
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            data_sets[name] = item, attributes

    with h5py.File(path, "r") as file:
        collect("", file)
        file.visititems(collect)
        # Chunks that were never written are expanded to their fill value.
        check_size(path, sum(item.nbytes for item, _ in data_sets.values()))
        values = _Values(path, variables)
        for name, (item, attributes) in data_sets.items():
            values.add(name, item, attributes)
    return _with_pandas_names(variables)


class _Values:
    """Adds the values of data sets to variables; references of MATLAB cells and structures are followed."""

    def __init__(self, path: Path, variables: dict[str, Any]) -> None:
        self.path = path
        self.variables = variables
        self.n_references = 0

    def add(self, name: str, item: h5py.Dataset, attributes: dict[str, Any], depth: int = 0) -> None:
        import h5py

        _check_storage(self.path, item)
        kind = _text(attributes.get("MATLAB_class", b"object"))
        if h5py.check_ref_dtype(item.dtype) is not None:
            self._add_references(name, item, kind == "cell", depth)
        elif attributes.get("MATLAB_object_decode") is not None:
            if kind not in MATLAB_TEXTS:
                self.variables[name] = Unread(f"a MATLAB {kind}", MATLAB_REMEDY)
        elif h5py.check_vlen_dtype(item.dtype) is not None and h5py.check_string_dtype(item.dtype) is None:
            self.variables[name] = Unread("rows of variable length", "save one data set for each recording")
        elif item.dtype.names and item.dtype.hasobject:
            remedy = "save its columns as numbers or texts of fixed length"
            self.variables[name] = Unread("a table with texts or rows of variable length", remedy)
        elif item.dtype.names:
            table = item[()]
            self.variables |= {f"{name}/{key}": np.asarray(table[key]) for key in item.dtype.names}
        elif not attributes.get("MATLAB_empty"):
            self.variables[name] = _value(item, kind == "char")
            _check_missing(name, self.variables[name], attributes)

    def _add_references(self, name: str, item: h5py.Dataset, is_cell: bool, depth: int) -> None:
        import h5py

        self.n_references += math.prod(item.shape)
        if depth > _MAX_DEPTH or self.n_references > MAX_VARIABLES:
            raise UnreadableError(f"{name[:40]!r} has too many references; save the signal alone")
        for index, reference in enumerate(np.ravel(item[()]), start=1):
            target = item.file[reference] if reference else None
            place = name if item.size == 1 else _place(name, index, is_cell)
            if isinstance(target, h5py.Group):
                for key, child in target.items():
                    self._add_target(f"{place}/{key}", child, depth)
            elif target is not None:
                self._add_target(place, target, depth)

    def _add_target(self, name: str, target: Any, depth: int) -> None:
        import h5py

        if isinstance(target, h5py.Dataset):
            if target.shape is not None:
                check_size(self.path, target.nbytes)
                self.add(name, target, _attributes(self.path, target), depth + 1)
        else:
            self.variables[name] = Unread("a nested structure in a cell", MATLAB_REMEDY)


def _attributes(path: Path, item: Any) -> dict[str, Any]:
    """Return the attributes of a group or data set, except those that are only for HDF5 itself or may not fit.

    Texts of variable length are references to values elsewhere in the file, of any size and possibly to the same one.
    """
    import h5py

    attributes: dict[str, Any] = {}
    for name in item.attrs:
        if name.startswith(_FORMAT_ATTRIBUTES) and name not in _USED_ATTRIBUTES:
            continue
        stored = item.attrs.get_id(name)
        if stored.dtype.hasobject:
            is_text = h5py.check_string_dtype(stored.dtype) is not None
            if not is_text or math.prod(stored.shape) * path.stat().st_size > allowed_bytes(path):
                continue
        attributes[name] = item.attrs[name]
    return attributes


def _place(name: str, index: int, is_cell: bool) -> str:
    """Return the path of an element of a cell, or of the field of an array of structures: `c{2}`, `Y(2)/Data`."""
    group, _, leaf = name.rpartition("/")
    return f"{name}{{{index}}}" if is_cell or not group else f"{group}({index})/{leaf}"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _with_pandas_names(variables: dict[str, Any]) -> dict[str, Any]:
    """Name the columns of a data frame that pandas wrote (`block0_values`) by its `block0_items`."""
    for name in list(variables):
        if name.endswith("_items") and f"{name[: -len('items')]}values" in variables:
            variables[f"{name[: -len('items')]}values/channels"] = np.atleast_1d(variables.pop(name)).astype(str)
            axis = f"{name.rpartition('/')[0]}/axis0"
            variables.pop(axis, None)
    return variables


def _check_storage(path: Path, item: h5py.Dataset) -> None:
    """Raise if samples are stored in another file, or if chunks decompress to more than they declare."""
    if item.external or item.is_virtual:
        raise UnreadableError(f"the samples of {item.name!r} are stored in another file; save them in this file")
    if item.chunks is None:
        return
    check_size(path, math.prod(item.chunks) * item.dtype.itemsize)
    settings = item.id.get_create_plist()
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    if unknown := set(filters) - {_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF}:
        raise UnreadableError(f"{item.name!r} is stored with the filter {min(unknown)}; save it with gzip or without")
    if filters.count(_DEFLATE) + filters.count(_LZF) > 1:
        raise UnreadableError(f"{item.name!r} is compressed more than once; save it without compression")
    if _DEFLATE in filters:
        _check_deflated_chunks(item)
    if _LZF in filters:
        _check_lzf_chunks(item)


def _check_deflated_chunks(item: h5py.Dataset) -> None:
    """Raise if a chunk decompresses to more than it declares: HDF5 inflates it without a limit.

    Only chunks that are large on disk can expand to a harmful size.
    """
    large: list[tuple[int, ...]] = []

    def find_large(chunk: Any) -> None:
        if chunk.size * MAX_DEFLATE_RATIO > ALWAYS_ALLOWED_BYTES:
            large.append(chunk.chunk_offset)

    item.id.chunk_iter(find_large)
    n_declared = math.prod(item.chunks or ()) * item.dtype.itemsize
    for offset in large:
        _, stored = item.id.read_direct_chunk(offset)
        if len(zlib.decompressobj().decompress(stored, n_declared + 1)) > n_declared:
            raise UnreadableError(
                f"a chunk of {item.name!r} decompresses to more than it declares; copy or export it again"
            )


def _check_lzf_chunks(item: h5py.Dataset) -> None:
    """Raise if a chunk is larger than what it declares to expand to; LZF stores what it cannot compress as it is."""
    n_declared = math.prod(item.chunks or ()) * item.dtype.itemsize

    def check(chunk: Any) -> None:
        if chunk.size > n_declared + _CHECKSUM_BYTES:
            raise UnreadableError(f"a chunk of {item.name!r} is larger than it declares; copy or export it again")

    item.id.chunk_iter(check)


def _value(item: h5py.Dataset, is_char: bool) -> Any:
    """Return the numbers or text of a data set; None for texts that are too long for a name or note."""
    import h5py

    is_text = h5py.check_string_dtype(item.dtype) is not None
    if (is_char and math.prod(item.shape) > _MAX_CHARS) or (is_text and math.prod(item.shape) > MAX_CHANNELS):
        return None
    if is_char:
        return "".join(chr(code) for code in np.ravel(item[()]))
    return _texts(item) if is_text else item[()]


def _check_missing(name: str, values: Any, attributes: dict[str, Any]) -> None:
    """Raise if an array holds the value that marks missing samples (CF conventions 1.11, section 2.5.1)."""
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.number):
        return
    for mark in _MISSING_ATTRIBUTES:
        marked = np.asarray(attributes.get(mark, ""))
        n_missing = int(np.isin(values, marked).sum()) if np.issubdtype(marked.dtype, np.number) else 0
        if n_missing:
            raise UnreadableError(
                f"{n_missing} of {values.size} samples of {name!r} are missing (their value is that of the attribute "
                f"{mark}); export a part without gaps"
            )


def _texts(item: h5py.Dataset) -> Any:
    """Return a text or an array of texts, read one by one: all may refer to one long text; None if one is long."""
    texts = np.empty(item.shape, dtype=object)
    for index in np.ndindex(item.shape):
        texts[index] = item.asstr(errors="replace")[index]
        if len(texts[index]) > _MAX_CHARS:
            return None
    return texts[()]
