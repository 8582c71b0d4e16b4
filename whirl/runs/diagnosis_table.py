"""A CSV file of judgements that grows line by line and survives a kill at any time."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from whirl._csv import safe_cell
from whirl._locks import lock_descriptor
from whirl.runs.judgement import Diagnosis

COLUMNS = (
    "time", "file", "class", "probability", "status", "physics", "prediction_set", "typicality", "machine", "point",
    "rpm", "bearing", "velocity_rms_mm_s", "acceleration_rms_m_s2", "peak_m_s2", "crest_factor", "kurtosis",
    "reasons", "evidence", "probabilities", "faults", "value", "low", "high", "typical_error",
)  # fmt: skip
"""Columns of a table of judgements, in order."""


class DiagnosisTable:
    """A CSV file with a line for each judged file.

    Lines are appended and synchronized to the disk. A line that a kill has cut off is removed when the file is opened
    again, so that its recording is judged again, and no recording has two lines.

    Args:
        path: the file; created if it does not exist.
        append: continue an existing file; otherwise it must not exist.

    Attributes:
        files: files that have a line.

    Raises:
        ValueError: the file exists and `append` is false, it is another kind of file, or another process writes to it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "judged.csv"
        >>> with DiagnosisTable(path) as table:
        ...     table.append([Diagnosis("a.npy", "ball", 0.9, {"ball": 0.9, "healthy": 0.1}, 4)])
        >>> DiagnosisTable(path, append=True).files
        {'a.npy'}
    """

    def __init__(self, path: str | Path, append: bool = False) -> None:
        self.path = Path(path)
        if not append and self.path.exists() and self.path.stat().st_size:
            raise ValueError(f"{path}: exists; add --append to judge new files only, or choose another file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = _open_locked(self.path)
        try:
            content = os.read(self._descriptor, os.fstat(self._descriptor).st_size)
            _check_header(content, self.path)
            complete = content[: content.rfind(b"\n") + 1]
            self.rows = _read_rows(complete)
            os.ftruncate(self._descriptor, len(complete))
            self.files = {row["file"] for row in self.rows}
            if os.fstat(self._descriptor).st_size == 0:
                self._write([",".join(COLUMNS) + "\n"])
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> DiagnosisTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def __contains__(self, file: str | Path) -> bool:
        return safe_cell(str(file)) in self.files

    def append(self, diagnoses: Iterable[Diagnosis], time: str = "") -> None:
        """Append a line for each diagnosis.

        Args:
            diagnoses: the diagnoses.
            time: when they were made, ISO 8601.
        """
        rows = [row_of(each, time) for each in diagnoses]
        self._write([_line(row) for row in rows])
        self.rows += rows
        self.files |= {row["file"] for row in rows}

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            data = memoryview("".join(lines).encode("utf-8", "surrogateescape"))
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)


def row_of(found: Diagnosis, time: str = "") -> dict[str, str]:
    """Return the cells of a diagnosis by column; what is unknown is empty."""
    facts = found.as_dict()
    levels, number = facts["levels"] or {}, facts["number"] or {}
    cells = {
        **{name: facts[name] for name in COLUMNS if name in facts},
        **{name: each[name] for each in (levels, number) for name in COLUMNS if name in each},
        "time": time,
        "prediction_set": " ".join(found.prediction_set or ()),
        "reasons": "; ".join(found.reasons),
        "evidence": "; ".join(found.evidence),
        "probabilities": _by_name(found.probabilities),
        "faults": _by_name(found.faults),
    }
    return {name: _cell(cells.get(name)) for name in COLUMNS}


def _by_name(probabilities: Mapping[str, float]) -> str:
    """Return probabilities by class or fault as text, `ball 0.9; healthy 0.1`."""
    return "; ".join(f"{name} {probability:.6g}" for name, probability in probabilities.items())


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else safe_cell(str(value))


def _line(row: dict[str, str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([row[name] for name in COLUMNS])
    return text.getvalue()


def _check_header(content: bytes, path: Path) -> None:
    """Validate that the first line is the header or its beginning, if a kill has cut it off."""
    header = ",".join(COLUMNS).encode()
    first, newline, _ = content.partition(b"\n")
    if not (first.rstrip(b"\r") == header if newline else header.startswith(first)):
        raise ValueError(f"{path}: is not a table of judgements by this version of whirl; choose another file")


def _read_rows(content: bytes) -> list[dict[str, str]]:
    """Read the complete lines of a table."""
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    return [row for row in csv.DictReader(lines) if None not in row.values()]


def _open_locked(path: Path) -> int:
    """Open and lock a table. The lock would end if this process opened and closed the file a second time."""
    binary = getattr(os, "O_BINARY", 0)  # Windows would translate line breaks
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o666)
    try:
        lock_descriptor(descriptor)
    except OSError:
        os.close(descriptor)
        raise ValueError(f"{path}: another process writes to it; end that or choose another file") from None
    return descriptor
