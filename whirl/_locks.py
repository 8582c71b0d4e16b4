"""Exclusive locks of folders: one folder has one writer."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the lock file in a folder. It is removed at the end; the lock of a killed process ends with the process."""

# A byte far behind the text, so that others can read the text on systems where locked bytes cannot be read.
_LOCKED_BYTE = 2**30


class FolderLock:
    """The lock of a folder that this process holds; see `locked`."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self.file = folder / LOCK
        self.descriptor = descriptor

    def is_in_folder(self) -> bool:
        """Return whether the folder still has the file that was locked."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.file.stat())
        except OSError:
            return False

    def check(self) -> None:
        """Validate that the folder is still the one that was locked.

        Raises:
            ValueError: the folder was deleted or replaced.
        """
        if not self.is_in_folder():
            raise ValueError(f"{self.folder}: the folder was deleted or replaced while this process used it")


@contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Hold the lock of a folder, which is created if it does not exist.

    The lock ends with the process, however it ends.

    Args:
        folder: the folder.

    Raises:
        ValueError: another process holds the lock; the message names its host and process number.
        OSError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)) as lock:
        ...     lock.check()
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder)
    try:
        yield lock
    finally:
        if lock.is_in_folder():
            with suppress(OSError):  # Windows does not remove open files
                lock.file.unlink()
        os.close(lock.descriptor)


def _acquire(folder: Path) -> FolderLock:
    while True:
        lock = FolderLock(folder, os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            lock_descriptor(lock.descriptor)
        except (BlockingIOError, PermissionError):
            owner = _owner(lock.descriptor)
            os.close(lock.descriptor)
            raise ValueError(f"{folder}: is in use by {owner}; wait for it or choose another --out") from None
        except OSError as error:
            logger.debug("%s: the file system has no locks (%s); nothing prevents a second writer", folder, error)
        if lock.is_in_folder():
            _write_owner(lock.descriptor)
            return lock
        os.close(lock.descriptor)  # its owner has just removed it


def _write_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())


def _owner(descriptor: int) -> str:
    """Describe the process that holds the lock."""
    owner: Any = {}
    with suppress(ValueError, RecursionError, OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        owner = json.loads(os.read(descriptor, 1000))
    if isinstance(owner, dict) and {"host", "pid"} <= owner.keys():
        return f"process {owner['pid']!r} on {owner['host']!r}"
    return "another process"


if os.name == "nt":  # pragma: no cover

    def lock_descriptor(descriptor: int) -> None:
        """Lock an open file until it is closed or the process ends; `OSError` if another process has locked it."""
        import msvcrt

        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)  # it locks from the position on
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)

else:

    def lock_descriptor(descriptor: int) -> None:
        """Lock an open file until it is closed or the process ends; `OSError` if another process has locked it."""
        import fcntl

        # Unlike that of flock, this lock is not inherited by the loader's worker processes, which may outlive this one.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)
