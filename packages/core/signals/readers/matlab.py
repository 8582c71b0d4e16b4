"""MATLAB's .mat, v4 to v7.3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from packages.core.signals.read import Content, register_reader
from packages.core.signals.readers import cwru
from packages.core.signals.readers.conventions import content_from_variables


@register_reader(".mat")
def read_mat(path: Path) -> Content:
    """Variables, and fields of structures, are candidates for the signal."""
    variables = _read_variables(path)
    if cwru.is_cwru(variables):
        return cwru.content(path.stem, variables)
    return content_from_variables(variables)


def _read_variables(path: Path) -> dict[str, Any]:
    import h5py

    # v7.3 is HDF5 behind a MATLAB header of 512 bytes.
    if h5py.is_hdf5(path):
        from packages.core.signals.readers.hdf5 import read_variables

        return read_variables(path)
    from scipy.io import loadmat

    variables: dict[str, Any] = {}
    for name, value in loadmat(path).items():
        if not name.startswith("__"):
            _flatten(name, value, variables)
    return variables


def _flatten(name: str, value: Any, variables: dict[str, Any]) -> None:
    """Put an array, or each field of a (nested) structure, under its path into `variables`."""
    if not isinstance(value, np.ndarray) or value.dtype.names is None:
        variables[name] = value
        return
    for index, element in enumerate(value.flat):
        path = name if value.size == 1 else f"{name}({index + 1})"
        for key in value.dtype.names:
            _flatten(f"{path}/{key}", element[key], variables)
