"""Formats of files, recognized by their first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

_SIGNATURES = {
    b"\x93NUMPY": (".npy",),
    b"\x89HDF\r\n\x1a\n": (".h5", ".hdf5", ".hdf", ".mat"),
    b"MATLAB 5.0 MAT-file": (".mat",),
    b"MATLAB 7.3 MAT-file": (".mat", ".h5", ".hdf5", ".hdf"),
    b"RIFF": (".wav",),
    b"TDSm": (".tdms",),
    b"PAR1": (".parquet",),
    b"fLaC": (".flac",),
    b"MDF     ": (".mf4", ".mdf"),
    b"\x1f\x8b": (".gz",),
    b"\x28\xb5\x2f\xfd": (".zst",),
}


def suffixes_by_signature(path: Path) -> tuple[str, ...]:
    """Return the suffixes of a file's format as its first bytes show it, the usual one first; empty if unknown.

    Args:
        path: an existing file.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "a.npy", np.zeros(3))
        ...     suffixes_by_signature(Path(folder) / "a.npy")
        ('.npy',)
    """
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(b"PK\x03\x04"):
        return (".npz",) if _has_arrays(path) else ()  # documents of office programs are archives as well
    return next((suffixes for signature, suffixes in _SIGNATURES.items() if start.startswith(signature)), ())


def _has_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
