"""Atomic writing of files, and checkpoint files with a checksum."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import pickle
import pickletools
import tempfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

# A checkpoint is a zip archive whose comment is the checksum of all bytes before it, so any zip reader can open it.
_ZIP_END, _ZIP_END_LENGTH = b"PK\x05\x06", 22
_MARK = b"sha256:"
_CHECKSUM_LENGTH = len(_MARK) + 64


@contextmanager
def atomic_write(path: str | Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path` completely or not at all.

    The bytes are written to a temporary file in the same folder, flushed to the disk and renamed in one step. If the
    block fails, the temporary file is removed and an existing file under `path` is left unchanged. A process that is
    killed while writing leaves its temporary file behind, under a hidden name.

    Args:
        path: file to write; missing folders are created.
        previous: name in the same folder under which to keep the current file.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "a.txt") as file:
        ...         _ = file.write(b"complete")
        ...     (Path(folder) / "a.txt").read_text()
        'complete'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temp_path = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates private files; give the result the permissions of any other new file.
        Path(temp_path).chmod(0o666 & ~_umask())
        if previous is not None and path.is_file():
            _link_backup(path, previous)
        Path(temp_path).replace(path)
    except BaseException as error:
        Path(temp_path).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # names the file in "no space left on device"
        raise
    _sync_folder(path.parent)


def _link_backup(path: Path, previous: Path) -> None:
    """Give a file a second name; it exists under at least one of the two at every moment."""
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:  # the file system does not support links
        path.replace(previous)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # on some network file systems


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def check_writable(path: str | Path) -> None:
    """Validate that a folder exists and can be written to, or can be created, without changing it.

    Raises:
        OSError: it cannot be created or written to.

    Example:
        >>> check_writable(f"{tempfile.gettempdir()}/new/folder")
    """
    path = Path(path)
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        error.filename = str(path)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(to_json_safe(value), indent=2) + "\n")


def to_json_safe(value: Any) -> Any:
    """Convert `value` for JSON: NaN and infinities become None, tensors and NumPy arrays lists and numbers.

    Example:
        >>> to_json_safe({"loss": float("nan"), "rates": (0.1, 0.2)})
        {'loss': None, 'rates': [0.1, 0.2]}
    """
    if isinstance(value, dict):
        return {str(key): to_json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_safe(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json_safe(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def save_checkpoint_file(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Save a dictionary of tensors and plain data with a checksum, atomically."""
    content = pack_checkpoint(checkpoint)
    with atomic_write(path) as file:
        file.write(content)


def pack_checkpoint(checkpoint: dict[str, Any]) -> memoryview:
    """Return the bytes of a checkpoint file: what `torch.save` writes, followed by its SHA-256."""
    # In memory first: torch reports a full disk as an obscure RuntimeError, writing the bytes as an OSError.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(-2, io.SEEK_END)
    buffer.write(_CHECKSUM_LENGTH.to_bytes(2, "little"))  # the last field of a zip archive is its comment's length
    with buffer.getbuffer() as content:
        checksum = hashlib.sha256(content).hexdigest()
    buffer.write(_MARK + checksum.encode())
    return buffer.getbuffer()


_GLOBALS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("torch", "Size"),
    ("torch", "device"),
}
"""Classes and functions that checkpoints of tensors and plain data refer to, besides the types of storage."""


def load_checkpoint_file(path: str | Path) -> dict[str, Any]:
    """Load what `save_checkpoint_file` saved, into main memory, without executing code from it.

    Files of earlier versions, without a checksum, are loaded too.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged (even by a single bit) or contains objects other than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: checkpoint not found")
    try:
        with path.open("rb") as file:
            _verify_checksum(file)
            _check_stored(file)
            _check_globals(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message explains at length how to load the file unsafely.
        is_pickle = isinstance(error, pickle.UnpicklingError)
        detail = _NOT_PLAIN if is_pickle else " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {detail})") from error


_NOT_PLAIN = "it contains objects other than tensors and plain data"
_PLAIN = (type(None), bool, int, float, str, torch.Size, torch.device)
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple)


def find_unserializable(value: Any, path: str = "") -> str | None:
    """Return path and type of the first object in `value` that `load_checkpoint_file` would reject, or None.

    Example:
        >>> find_unserializable({"best": {"value": 0.5, "seen": {3, 4}}})
        "['best']['seen'], a set"
        >>> find_unserializable([torch.ones(2), {(1, "a"): None}])
    """
    if isinstance(value, np.generic):  # saved as a Python number
        value = value.item()
    if isinstance(value, torch.Tensor) or type(value) in _PLAIN:
        return None
    if type(value) not in _CONTAINERS:
        return f"{path}, a {type(value).__qualname__}"
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found = f"{path}, a key {key!r}" if find_unserializable(key) else find_unserializable(item, f"{path}[{key!r}]")
        if found:
            return found
    return None


def is_intact(path: Path) -> bool:
    """Return whether `path` is a checkpoint file with the correct checksum."""
    try:
        with path.open("rb") as file:
            _verify_checksum(file)
    except (OSError, ValueError):
        return False
    return True


def _verify_checksum(file: IO[bytes]) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _ZIP_END_LENGTH))
    tail = file.read()
    if tail.startswith(_ZIP_END) and tail.endswith(b"\0\0"):
        return  # an archive without a comment: written by an earlier version
    rest = max(0, size - _CHECKSUM_LENGTH)
    file.seek(rest)
    mark, checksum = file.read(len(_MARK)), file.read()
    if mark != _MARK:
        raise ValueError("its end is missing or damaged")
    if _sha256(file, rest).encode() != checksum:
        raise ValueError("its checksum does not match: the file is damaged")


def _sha256(file: IO[bytes], length: int) -> str:
    """Compute the SHA-256 of the first `length` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (part := file.read(min(length, 1 << 20))):
        digest.update(part)
        length -= len(part)
    return digest.hexdigest()


def _check_stored(file: IO[bytes]) -> None:
    """Raise if the archive would need more memory than its size; torch does not compress."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, unlike any checkpoint")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its parts are larger than the file")


def _check_globals(file: IO[bytes]) -> None:
    """Raise if the file calls anything but tensors; torch would also allow e.g. `bytearray(2**40)`."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        content = archive.read(names[0]) if len(names) == 1 else b""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            _check_global(*str(argument).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL":
            raise ValueError(_NOT_PLAIN)  # torch writes pickle protocol 2, which does not have this opcode


def _check_global(module: str, name: str) -> None:
    is_storage = module == "torch" and name.endswith("Storage") and name != "UntypedStorage"
    if not is_storage and (module, name) not in _GLOBALS:
        raise ValueError(f"{_NOT_PLAIN}: {module}.{name}")
