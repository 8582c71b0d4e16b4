"""Writing files so that nothing is ever lost or half there."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` whole, or not at all.

    The bytes go to a file aside in the same folder, are flushed to the disk, and take their name in
    one step. When the block fails, the file aside is removed and what stood under `path` stays.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "a.txt") as file:
        ...         _ = file.write(b"whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a result is as readable as any other file of the user's.
        Path(aside).chmod(0o666 & ~_umask())
        Path(aside).replace(path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # "no space left on device" says where
        raise
    _sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=2) + "\n")


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become None, tensors and NumPy numbers plain ones.

    Example:
        >>> finite({"loss": float("nan"), "rates": (0.1, 0.2)})
        {'loss': None, 'rates': [0.1, 0.2]}
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def save_checkpoint_file(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Save a dictionary of tensors and plain data, whole or not at all."""
    # Through memory: torch reports a full disk as an obscure RuntimeError, a file as what it is.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint_file(path: str | Path) -> dict[str, Any]:
    """Load what `save_checkpoint_file` saved, into main memory, without executing anything in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken or holds more than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from error
