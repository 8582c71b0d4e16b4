"""The manifest.csv of a folder of recordings: what is known of each file beside its samples."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from whirl.data.reading import read, read_content, readable_suffixes, to_recording
from whirl.data.recording import Recording

MANIFEST = "manifest.csv"

# Columns of a manifest by field, compared without case and punctuation; the first that is there counts,
# and is the one that `save_dataset` writes.
_COLUMNS = {
    "file": ("file", "filename", "path"),
    "label": ("label", "class", "fault"),
    "specimen": ("specimen", "specimen_group", "specimen_id", "bearing_id", "machine_id"),
    "rpm": ("rpm", "speed_rpm", "shaft_rpm"),
    "load": ("load",),
    "load_unit": ("load_unit",),
    "sampling_rate": ("sampling_rate", "sampling_rate_hz", "sample_rate", "fs", "fs_hz"),
    "unit": ("unit", "units"),
    "channel_names": ("channel_names", "channels"),
}
# A metadata key that would be read as one of these columns is written behind this.
_METADATA_PREFIX = "metadata."

_LOAD = re.compile(r"([-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?)\s*(.*)")

_SHOWN = 3  # offenders named in a message
_MAX_SHOWN = 300  # letters of each
# A manifest is written by hand or by a script, for files that are there.
_MAX_BYTES = 2**25
_MAX_ROWS = 100_000
_MAX_COLUMNS = 250
_MAX_LOAD = 80  # letters; the pattern takes time that grows with their square


@dataclass(frozen=True)
class Entry:
    """One recording of a data set before its file is read; what is set here overrides the file.

    Attributes:
        path: the file.
        label: name of the fault class; empty when unknown.
        specimen: name of the physical bearing or machine; None when unknown.
        rpm: shaft speed in revolutions per minute; None leaves it to the file.
        load: load on the machine, in `load_unit`; None when unknown.
        load_unit: unit of `load`.
        sampling_rate_hz: samples per second; None leaves it to the file.
        unit: unit of the samples; empty leaves it to the file.
        channels: names of the channels, or those to keep; empty leaves them to the file.
        metadata: whatever else the manifest says, by column.
    """

    path: Path
    label: str
    specimen: str | None = None
    rpm: float | None = None
    load: float | None = None
    load_unit: str = ""
    sampling_rate_hz: float | None = None
    unit: str = ""
    channels: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def read(self, sampling_rate_hz: float | None = None) -> Recording:
        """Read the file; the manifest wins where the two disagree.

        Where the speed is not the one that the file states, `metadata["rpm_in_file"]` tells that one,
        None where the file states none.

        Args:
            sampling_rate_hz: the rate to assume where neither manifest nor file states one.

        Raises:
            ValueError, FileNotFoundError, ImportError: as in `read`, or the file has other
                channels than the manifest says.
        """
        content = read_content(self.path)
        metadata = content.metadata | self.metadata
        if self.rpm is not None and self.rpm != content.rpm:
            metadata = {"rpm_in_file": content.rpm} | metadata
        merged = replace(
            content,
            sampling_rate_hz=self.sampling_rate_hz or content.sampling_rate_hz,
            rpm=self.rpm or content.rpm,
            unit=self.unit or content.unit,
            metadata=metadata,
        )
        recording = to_recording(
            self.path,
            merged,
            sampling_rate_hz,
            label=self.label or None,
            specimen=self.specimen,
            load=self.load,
            load_unit=self.load_unit,
        )
        return _with_channels(recording, self.channels)


def read_manifest(folder: str | Path) -> list[Entry]:
    """The rows of `manifest.csv` in a folder, checked against the files that are there.

    Raises:
        ValueError: a column, label or number is missing or malformed; a file is named twice, is outside of
            the folder, absent, or of unknown kind; there are more rows or columns than a manifest can have.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    header, rows = _read_table(manifest)
    columns = _known_columns(header)
    missing = [name for name in ("file", "label") if name not in columns]
    if missing:
        raise ValueError(f"{manifest}: has no column {missing[0]!r}; its columns are {_one_line(', '.join(header))}")
    problems = []
    entries = []
    for line, row in rows:
        try:
            entries.append(_entry(folder, row, columns))
            if not entries[-1].label:
                raise ValueError("the label is empty")
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    counts = Counter(entry.path for entry in entries)
    problems += [f"{path.relative_to(folder)} stands in {n} rows" for path, n in counts.items() if n > 1]
    problems += [f"{path.relative_to(folder)} {why}" for path in counts if (why := why_unreadable(path))]
    if problems:
        raise ValueError(f"{manifest}: {first_few(problems)}; correct the rows or remove them")
    return entries


def read_listed(files: Iterable[str | Path], sampling_rate_hz: float | None = None) -> Iterator[Recording]:
    r"""Read files, each as the manifest near it tells it.

    That is the nearest one that lists the file, in its folder or up to two above; a file that none lists is read by
    itself. Other rows may be wrong, or their files absent; labels may be missing.

    Args:
        files: recordings of any kind that can be read.
        sampling_rate_hz: the rate to assume where neither manifest nor file states one.

    Yields:
        The recordings, in the order of the files.

    Raises:
        ValueError, FileNotFoundError, ImportError: as in `read`; or a manifest is no table, or tells
            nonsense of a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "run.csv")
        ...     _ = file.write_text("DE\n0.5\n-0.5\n0.25\n")
        ...     _ = Path(folder, MANIFEST).write_text("file,label,rpm,fs\nrun.csv,healthy,1500,12000\n")
        ...     (recording,) = read_listed([file])
        >>> recording.label, recording.rpm, recording.sampling_rate_hz
        ('healthy', 1500.0, 12000.0)
    """
    rows_of = cache(_rows_by_file)  # manifests are read once
    for file in map(Path, files):
        place = Path(os.path.abspath(file))  # noqa: PTH100 - a link belongs to the folder that it is in
        near = ((folder, rows_of(folder).get(PurePosixPath(place.relative_to(folder)))) for folder in place.parents[:3])
        folder, row = next(((folder, row) for folder, row in near if row is not None), (None, None))
        if folder is None or row is None:
            yield read(file, sampling_rate_hz=sampling_rate_hz)
            continue
        try:
            entry = _entry(folder, row, _known_columns(row))
        except ValueError as error:
            raise ValueError(f"{folder / MANIFEST}: the row of {place.name}: {error}; correct it") from None
        yield replace(entry, path=file).read(sampling_rate_hz)


def row_of(file: str, recording: Recording) -> dict[str, str]:
    """The row of the manifest for a recording that was written to `file`."""
    known = {
        "file": file,
        "label": recording.label or "",
        "specimen": recording.specimen or "",
        "rpm": "" if recording.rpm is None else repr(float(recording.rpm)),
        "load": "" if recording.load is None else repr(float(recording.load)),
        "load_unit": recording.load_unit,
        "sampling_rate": repr(recording.sampling_rate_hz),
        "unit": recording.unit,
        "channel_names": _joined(recording.channels),
    }
    return known | {_column_of(key): _cell_of(value) for key, value in recording.metadata.items()}


def _joined(names: Sequence[str]) -> str:
    """Names with spaces between; with bars behind where a name itself holds a space or another separator."""
    joined = " ".join(names)
    return joined if _split_names(joined) == tuple(names) else "".join(f"{name}|" for name in names)


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows of cells by column; the first rows' columns come first."""
    columns = dict.fromkeys(column for row in rows for column in row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def why_unreadable(path: Path) -> str:
    """Why a file of a data set cannot be read, as far as can be told without opening it."""
    try:
        if not path.is_file():
            return "is no regular file" if path.exists() else "is not there"
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, links in a circle
        return f"cannot be looked up ({getattr(error, 'strerror', error)})"
    if path.suffix.lower() not in readable_suffixes():
        return f"is of unknown kind (expected one of: {', '.join(readable_suffixes())})"
    return ""


def first_few(things: Sequence[str]) -> str:
    """The first few things, and how many more there are."""
    more = len(things) - _SHOWN
    return "; ".join(map(_one_line, things[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def _one_line(text: str) -> str:
    """A text as a message shows it; cells and file names may hold line breaks."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _with_channels(recording: Recording, names: tuple[str, ...]) -> Recording:
    """The named channels of a recording, or its channels renamed where it has none of these names."""
    if not names or names == recording.channels:
        return recording
    if set(names) <= set(recording.channels):
        return recording.select_channels(names)
    if len(names) != recording.n_channels:
        raise ValueError(
            f"{recording.name}: the manifest names the channels {' '.join(names)}, "
            f"the file has {' '.join(recording.channels)}; correct channel_names"
        )
    return replace(recording, channels=names)


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and rows with their line numbers."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path}: is larger than {_MAX_BYTES / 1e6:.0f} MB; split the data set")
        lines = list(io.StringIO(_decoded(path.read_bytes()), newline=""))
        reader = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count) if lines else ",", restval="")
        header = list(reader.fieldnames or ())
        if len(header) > _MAX_COLUMNS or len(lines) > _MAX_ROWS:
            raise ValueError(
                f"{path}: has {len(header)} columns and {len(lines)} lines, expected at most {_MAX_COLUMNS} and "
                f"{_MAX_ROWS}; split the data set"
            )
        rows = [(reader.line_num, {k: v for k, v in row.items() if k}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error}); save it as such") from error
    return header, [(line, row) for line, row in rows if any(row.values())]


def _rows_by_file(folder: Path) -> dict[PurePosixPath, dict[str, str]]:
    """Rows of a folder's manifest by the file that each names, the first where there are several."""
    if not (folder / MANIFEST).is_file():
        return {}
    header, rows = _read_table(folder / MANIFEST)
    column = _known_columns(header).get("file")
    return {} if column is None else {_relative(row[column].strip()): row for _, row in reversed(rows)}


def _decoded(data: bytes) -> str:
    """UTF-8, or what a Western Excel writes as CSV; binary data are neither."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in data:
            raise
        return data.decode("cp1252")


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower())


def _known_columns(header: Iterable[str]) -> dict[str, str]:
    """The column of each field that has one."""
    written: dict[str, str] = {}
    for name in header:
        written.setdefault(_plain(name), name)
    found = {key: next((written[name] for name in names if name in written), None) for key, names in _COLUMNS.items()}
    return {key: name for key, name in found.items() if name is not None}


def _entry(folder: Path, row: dict[str, str], columns: dict[str, str]) -> Entry:
    cells = {key: row[name].strip() for key, name in columns.items()}
    others = {name: text for name, text in row.items() if name not in columns.values() and text}
    metadata = {name.removeprefix(_METADATA_PREFIX): _parse(text) for name, text in others.items()}
    load, load_unit = _load(cells.get("load", ""))
    if load is None and cells.get("load"):
        metadata["load_condition"] = cells["load"]
    return Entry(
        path=folder / _inside(cells["file"]),
        label=cells.get("label", ""),
        specimen=cells.get("specimen") or None,
        rpm=_number(cells, "rpm"),
        load=load,
        load_unit=cells.get("load_unit") or load_unit,
        sampling_rate_hz=_number(cells, "sampling_rate"),
        unit=cells.get("unit", ""),
        channels=_split_names(cells.get("channel_names", "")),
        metadata=metadata,
    )


def _inside(name: str) -> PurePosixPath:
    """A file's path relative to the folder; one that leads out of it is refused."""
    path = _relative(name)
    if not name or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"file {_shown(name)} is not a path within the folder")
    return path


def _relative(name: str) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(name.replace("\\", "/")) if name else "")


def _number(cells: dict[str, str], key: str) -> float | None:
    """A number above 0, None for an empty cell."""
    text = cells.get(key, "")
    if not text or text.lower() == "nan":
        return None
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{key} is {_shown(text)}, expected a number above 0 or nothing")
    return number


def _load(text: str) -> tuple[float | None, str]:
    """A number and the unit behind it ("2 hp"); None where the text does not begin with a number."""
    match = _LOAD.fullmatch(text) if len(text) <= _MAX_LOAD else None
    load = float(match[1].replace(",", ".")) if match else float("nan")
    return (load, match[2].strip()) if match and math.isfinite(load) else (None, "")


def _shown(text: str) -> str:
    """A cell as a message shows it."""
    return repr(text if len(text) <= _MAX_LOAD else f"{text[:_MAX_LOAD]}…")


def _parse(text: str) -> Any:
    """A cell of metadata: what JSON reads as a number, truth value, list or quoted text, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _split_names(text: str) -> tuple[str, ...]:
    separator = next((mark for mark in "|;," if mark in text), None)
    return tuple(name.strip() for name in text.split(separator) if name.strip())


def _column_of(key: str) -> str:
    return f"{_METADATA_PREFIX}{key}" if _plain(key) in {name for names in _COLUMNS.values() for name in names} else key


def _cell_of(value: Any) -> str:
    """A value as a cell that `_parse` reads back as the same value."""
    if isinstance(value, str) and value and _parse(value) is value:
        return value
    return json.dumps(value, default=_plain_data)


def _plain_data(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
