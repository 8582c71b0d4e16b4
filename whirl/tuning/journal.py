"""Optuna's journal storage in one file, with recovery from crashes of processes and machines that share it.

Everything here is on the public interface of `optuna.storages.journal`; records are written and read by Optuna. What
Optuna 5 does not do, and this module adds:

- A crash or a full disk may leave a truncated last line, after which Optuna refuses the journal, see
  https://github.com/optuna/optuna/issues/5138. Its write was never acknowledged, so the next writer overwrites it with
  blanks, which Optuna's readers skip. Nothing else in a journal is ever changed, and nothing is unpickled.
- Optuna breaks the lock of a process that was killed after 30 s; here it is broken at once on the same machine, since a
  worker that waits that long counts as dead itself.
- Optuna creates a journal that was removed anew, without the study, and an error in it names neither file nor line.

A journal has no heartbeats either, https://github.com/optuna/optuna/issues/6615; see `worker`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalFileOpenLock as OptunaLock

from whirl.tuning.process import has_exited, this_process

logger = logging.getLogger(__name__)

LOCK_GRACE_S = 10.0  # appending takes milliseconds; far less than the grace period of a worker without heartbeat
LOCK_WAIT_S = 60.0


class StorageError(OSError):
    """The storage of a study is unusable, and retrying will not help."""


class JournalLock(OptunaLock):
    """A lock file that is created exclusively, which works on network file systems (NFS version 3 or later).

    A lock is broken at once if its owner is known to have exited, or if it has not changed for 10 s by the clock of the
    waiting process. Once it is held, a truncated last record of the journal is repaired.

    Args:
        path: path of the journal; the lock file is next to it, with the suffix `.lock`.
        wait_s: longest time to wait, in seconds.
    """

    def __init__(self, path: Path, wait_s: float = LOCK_WAIT_S) -> None:
        self._journal = path
        self._file = path.with_name(path.name + ".lock")
        self._wait_s = wait_s
        self._owned = ""

    def acquire(self) -> bool:
        """Wait for the lock.

        Raises:
            TimeoutError: other processes held the lock for too long; the message names the file.
            OSError: the lock file cannot be created.
        """
        started = since = time.monotonic()
        seen, pause_s = None, 0.001
        while not self._create():
            owner, now = self._owner(), time.monotonic()
            if owner != seen:
                seen, since = owner, now
            if owner is not None and (_owner_has_exited(owner) or now - since > LOCK_GRACE_S):
                self._break_stale_lock(owner)
            if now - started > self._wait_s:
                raise TimeoutError(
                    f"{self._file} has been locked for {self._wait_s:g} s; delete it if no search is running"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.25)
        try:
            if self._journal.exists():
                repair_truncated_record(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Remove the lock file, unless another process has broken the lock."""
        if self._owner() == self._owned:
            self._file.unlink(missing_ok=True)

    def _create(self) -> bool:
        owner = json.dumps(this_process() | {"lock": uuid.uuid4().hex})
        try:
            handle = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(owner)
        except OSError:  # e.g. disk full; others would wait for a lock without an owner
            self._file.unlink(missing_ok=True)
            raise
        self._owned = owner
        return True

    def _owner(self) -> str | None:
        try:
            return self._file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def _break_stale_lock(self, owner: str) -> None:
        temp_path = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        try:
            self._file.rename(temp_path)
            if temp_path.read_text(encoding="utf-8", errors="replace") != owner:
                os.link(temp_path, self._file)  # another process broke the lock first, and this is its new one
            temp_path.unlink()
        except OSError as error:
            logger.debug("cannot break the lock %s: %s", self._file, error)
        else:
            logger.info("broke the stale lock %s: its owner has exited or hangs", self._file)


def _owner_has_exited(owner: str) -> bool:
    try:
        return has_exited(json.loads(owner))
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


class Journal(JournalFileBackend):
    """File backend of an `optuna.storages.JournalStorage`.

    Args:
        path: path of the file; file and folder are created if missing.

    Raises:
        StorageError: the file is not a journal, or is corrupt; it is not modified.
        TimeoutError: other processes keep the file locked.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write_lock = JournalLock(self._path)
        super().__init__(str(self._path), self._write_lock)
        check_journal(self._path)
        self._write_lock.acquire()  # fail here instead of in the middle of a trial if nothing can be written
        self._write_lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read records as Optuna does, but name a corrupt one in the error."""
        try:
            yield from super().read_logs(log_number_from)
        except (ValueError, RecursionError):
            check_journal(self._path)
            raise

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records as Optuna does, but do not create a journal again that was removed."""
        if not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))
        super().append_logs(logs)


def repair_truncated_record(path: Path) -> None:
    r"""Overwrite a truncated last line with blanks; if only its line break is missing, add that. The lock must be held.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "study.log"
        ...     _ = path.write_text('{"op_code":0}\n{"op_co')
        ...     repair_truncated_record(path)
        ...     path.read_text()
        '{"op_code":0}\n       '
    """
    with path.open("r+b") as file:
        start, tail = _last_line(file)
        if not tail.strip(b" "):
            return
        file.seek(start)
        if _is_record(tail):
            file.write(tail + b"\n")
        else:
            logger.warning("%s ends with a truncated record, overwriting it with blanks: %r", path, tail[:200])
            file.write(b" " * len(tail))


def _last_line(file: Any) -> tuple[int, bytes]:
    """Return position and content of what follows the last line break."""
    end = start = file.seek(0, os.SEEK_END)
    tail = b""
    while start > 0 and b"\n" not in tail:
        start = max(0, start - 65536)
        file.seek(start)
        tail = file.read(end - start)
    tail = tail.rpartition(b"\n")[2]
    return end - len(tail), tail


def check_journal(path: Path) -> None:
    """Validate that a file is a journal without corrupt records.

    What other processes append or repair meanwhile is not checked, since it may have been read only in part.

    Raises:
        StorageError: a line is not a record; the message names it.
    """
    with path.open("rb") as file:
        unread = os.fstat(file.fileno()).st_size
        for number, line in enumerate(file, 1):
            unread -= len(line)
            if unread < 0:
                return
            is_intact = line.endswith(b"\n")
            if not (_is_record(line) if is_intact else _may_become_record(line)):
                raise StorageError(
                    f"{path}: line {number} is not a record of a study: {line[:60]!r}; the file was not modified, "
                    "restore it from a backup or choose another file"
                )


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict)


def _may_become_record(line: bytes) -> bool:
    """Return whether a truncated line is the start of a record, or zeros or blanks, which a crash may leave."""
    start = line.lstrip(b" ")
    return not start.strip(b"\0") or start.startswith(b"{")
