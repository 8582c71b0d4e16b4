"""Optuna's journal in one file, made to bear what happens to files that several machines write.

A record is a line of JSON. What a crash or a full disk leaves is an unfinished last line: it was never acknowledged,
readers pass over it, and the next writer overwrites it with blanks, after which Optuna's own readers take the file too.
Nothing else in a journal is ever changed, and nothing of it is unpickled.
"""

from __future__ import annotations

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

LOCK_GRACE_S = 10.0  # appending takes milliseconds; and far less than what a silent worker is granted
LOCK_WAIT_S = 60.0
TRIAL_STATE = 6  # a record's `op_code`, when a trial begins, is pruned, fails, or has its score
FIRST_BYTES = b'{"op_code":'


class StorageError(OSError):
    """The storage of a study cannot be used, and trying again will not help."""


class JournalLock(OptunaLock):
    """A lock file, made exclusively, which works on network file systems (NFS from version 3).

    One whose owner is known to have ended is taken over at once; one that has not changed for 10 s, by the clock of
    who waits, too.

    Args:
        path: the journal.
        wait_s: how long to wait at most.
    """

    def __init__(self, path: Path, wait_s: float = LOCK_WAIT_S) -> None:
        self._file = path.with_name(path.name + ".lock")
        self._wait_s = wait_s
        self._owned = ""

    def acquire(self) -> bool:
        """Wait for the lock.

        Raises:
            TimeoutError: others kept it; the message names the file.
            OSError: no file can be made there.
        """
        begun = since = time.monotonic()
        seen, pause_s = None, 0.001
        while not self._create():
            owner, now = self._owner(), time.monotonic()
            if owner != seen:
                seen, since = owner, now
            if owner is not None and (_has_ended(owner) or now - since > LOCK_GRACE_S):
                self._break_stale_lock(owner)
            if now - begun > self._wait_s:
                raise TimeoutError(
                    f"{self._file} has locked the study for {self._wait_s:g} s; delete it if no search is running"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.25)
        return True

    def release(self) -> None:
        """Remove the lock file, unless another has taken it over."""
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
        except OSError:  # as on a full disk; others would have to wait for nobody
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
        aside = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        try:
            self._file.rename(aside)
            if aside.read_text(encoding="utf-8", errors="replace") != owner:
                os.link(aside, self._file)  # another was quicker, and this lock is its new one
            aside.unlink()
        except OSError as error:
            logger.debug("%s could not be taken over: %s", self._file, error)
        else:
            logger.info("%s was left by a process that has ended or hangs: taken over", self._file)


def _has_ended(owner: str) -> bool:
    try:
        return has_exited(json.loads(owner))
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


class Journal(JournalFileBackend):
    """The file of an `optuna.storages.JournalStorage`.

    Args:
        path: the file; made where there is none, as is its folder.

    Raises:
        StorageError: it is not a journal, or is corrupted; it is left as it is.
        TimeoutError: others keep it locked.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_of_writers = JournalLock(self._path)
        super().__init__(str(self._path), self._lock_of_writers)
        check_journal(self._path)
        os.close(self._open())
        self._lock_of_writers.acquire()  # told here, not in the middle of a trial, where none can be made
        self._lock_of_writers.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """As Optuna's, but a record that is spoilt is named."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError:
            check_journal(self._path)
            raise

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records behind what is whole of the file, and, with a trial's end, wait for the disk.

        What comes before a trial's end lasts with it; alone, it is worth nothing after a power cut.
        """
        records = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock_of_writers.acquire()
        try:
            handle = self._open()
            try:
                repair_truncated_record(self._path)
                while records:
                    records = records[os.write(handle, records) :]
                if any(log["op_code"] == TRIAL_STATE for log in logs):
                    os.fsync(handle)
            finally:
                os.close(handle)
        finally:
            self._lock_of_writers.release()

    def _open(self) -> int:
        """For appending to it; a journal that someone removed is not begun anew."""
        return os.open(self._path, os.O_WRONLY | os.O_APPEND)


def repair_truncated_record(path: Path) -> None:
    r"""Blank out an unfinished last line; end it where only the line's end is missing.

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
        begin, tail = _last_line(file)
        if not tail.strip(b" "):
            return
        file.seek(begin)
        if _is_record(tail):
            file.write(tail + b"\n")
        else:
            logger.warning("%s ends within a record, as after a crash: %r is blanked out", path, tail[:200])
            file.write(b" " * len(tail))


def _last_line(file: Any) -> tuple[int, bytes]:
    """Where what follows the last end of a line begins, and what it is."""
    end = begin = file.seek(0, os.SEEK_END)
    tail = b""
    while begin > 0 and b"\n" not in tail:
        begin = max(0, begin - 65536)
        file.seek(begin)
        tail = file.read(end - begin)
    tail = tail.rpartition(b"\n")[2]
    return end - len(tail), tail


def check_journal(path: Path) -> None:
    """Refuse a file that is not a journal, or one with a spoilt record, naming the line.

    What others add or mend meanwhile is not judged: of that a part may have been read before, and the rest after.

    Raises:
        StorageError: it is so.
    """
    with path.open("rb") as file:
        rest = os.fstat(file.fileno()).st_size
        for number, line in enumerate(file, 1):
            rest -= len(line)
            if rest < 0:
                return
            is_intact = line.endswith(b"\n")
            if not (_is_record(line) if is_intact else _may_become_record(line)):
                raise StorageError(
                    f"{path}: line {number} is not a record of a study: {line[:60]!r}; nothing was changed, "
                    "restore the file from a copy or name another"
                )


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("op_code"), int)


def _may_become_record(line: bytes) -> bool:
    """Whether an unfinished line is the beginning of a record, or zeros, or blanks, as a crash leaves them."""
    begin = line.lstrip(b" ")
    return not begin.strip(b"\0") or begin.startswith(FIRST_BYTES) or FIRST_BYTES.startswith(begin.rstrip(b"\0"))
