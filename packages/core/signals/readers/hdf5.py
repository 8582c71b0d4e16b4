"""HDF5, and with it MATLAB's v7.3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from packages.core.signals.read import Content, register_reader
from packages.core.signals.readers.conventions import content_from_variables

# Attributes of the format itself (MATLAB, PyTables, dimension scales), which say nothing of the recording.
_FORMAT_ATTRIBUTES = ("MATLAB", "H5PATH", "CLASS", "TITLE", "VERSION", "NAME", "DIMENSION", "REFERENCE", "PYTABLES")


@register_reader(".h5", ".hdf5", ".hdf")
def read_hdf5(path: Path) -> Content:
    """Data sets in any group are candidates for the signal; attributes count as single values."""
    return content_from_variables(read_variables(path))


def read_variables(path: Path) -> dict[str, Any]:
    """Every numeric or text data set and attribute, by its path in the file."""
    import h5py

    variables: dict[str, Any] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.startswith("#"):  # the innards of MATLAB's cells and tables
            return
        for key, value in item.attrs.items():
            if not key.startswith(_FORMAT_ATTRIBUTES):
                variables[f"{name}/{key}".lstrip("/")] = value.decode() if isinstance(value, bytes) else value
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            variables[name] = _value(item)

    with h5py.File(path, "r") as file:
        collect("", file)
        file.visititems(collect)
    return variables


def _value(item: Any) -> Any:
    import h5py

    if item.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(code) for code in np.ravel(item[()]))
    return item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
