"""The manifest.csv of a folder of recordings: labels, speeds, bearings and other information about each file."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from whirl.data.reading import read, read_content, readable_suffixes, suffix_of, to_recordings
from whirl.data.recording import PHYSICAL_RANGES, Recording
from whirl.data.table import read_table
from whirl.data.units import normalize_unit, parse_quantity
from whirl.physics.bearings import GEOMETRY_FIELDS, ORDER_FIELDS, format_fields, normalize_bearing
from whirl.physics.rolling_bearing import ROTATING_RACES, RotatingRace
from whirl.validation import check_name

MANIFEST = "manifest.csv"

# Columns of a manifest by field, compared without case and punctuation. The first one present is used; the first name
# of each field is the one that `save_dataset` writes.
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
    "bearing": ("bearing", "bearing_designation", "bearing_type"),
    "rotating_race": ("rotating_race",),
    "n_elements": ("n_elements", "n_balls"),
    "ball_diameter": ("ball_diameter", "ball_diameter_mm", "element_diameter", "element_diameter_mm"),
    "pitch_diameter": ("pitch_diameter", "pitch_diameter_mm"),
    "contact_angle": ("contact_angle", "contact_angle_deg"),
    **{name: (name,) for name in ORDER_FIELDS},
}
# Prefix of a metadata key that would otherwise be read as one of these columns.
_METADATA_PREFIX = "metadata."

_LOAD = re.compile(r"([-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?)\s*(.*)")
_QUANTITIES = {"rpm": "rpm", "sampling_rate": "Hz"}  # unit of the columns whose cells may state one

_SHOWN = 3  # problems listed in a message
_MAX_SHOWN = 300  # characters of each
_MAX_NUMBER = 1e9  # of other numbers, e.g. fault orders and diameters in mm
_MAX_LOAD = 80  # characters; the run time of the pattern grows with their square


@dataclass(frozen=True)
class Entry:
    """One recording of a data set before its file is read; fields set here override the file.

    Attributes:
        path: the file.
        label: name of the fault class; empty if unknown.
        specimen: name of the physical bearing or machine; None if unknown.
        rpm: shaft speed in revolutions per minute; None uses that of the file.
        load: load on the machine, in `load_unit`; None if unknown.
        load_unit: unit of `load`.
        sampling_rate_hz: samples per second; None uses that of the file.
        unit: unit of the samples; empty uses that of the file.
        channels: names of the channels, or those to keep; empty uses those of the file.
        metadata: all other columns of the manifest.
        bearing: the rolling bearings near the sensors, see `Recording`; None if unknown.
        rotating_race: the race that rotates with the shaft.
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
    bearing: str | None = None
    rotating_race: RotatingRace = "inner"

    def read(self, sampling_rate_hz: float | None = None) -> Recording:
        """Read the file; where it disagrees with the manifest, the manifest has priority.

        If the speed differs from the one stated in the file, `metadata["rpm_in_file"]` holds the latter, or None if
        the file states no speed.

        Args:
            sampling_rate_hz: sampling rate to assume if neither manifest nor file states one.

        Raises:
            ValueError, FileNotFoundError, ImportError: as for `read`, or the channels in the file are not those in
                the manifest.
        """
        recordings = self.read_all(sampling_rate_hz)
        if len(recordings) > 1:
            raise ValueError(f"{self.path}: contains {len(recordings)} windows, expected one recording")
        return recordings[0]

    def read_all(self, sampling_rate_hz: float | None = None) -> list[Recording]:
        """Read the file as one recording, or as one for each window of a file of windows; otherwise as `read`."""
        content = read_content(self.path)
        metadata = content.metadata | self.metadata
        if self.rpm is not None and self.rpm != content.rpm:
            metadata = {"rpm_in_file": content.rpm} | metadata
        merged = replace(
            content,
            sampling_rate_hz=None if self.sampling_rate_hz else content.sampling_rate_hz,
            rpm=self.rpm or content.rpm,
            unit="" if self.unit else content.unit,
            channel_units=() if self.unit else content.channel_units,
            metadata=metadata,
        )
        recordings = to_recordings(
            self.path,
            merged,
            self.sampling_rate_hz or sampling_rate_hz,
            label=self.label or None,
            specimen=self.specimen,
            load=content.load if self.load is None else self.load,
            load_unit=self.load_unit or (content.load_unit if self.load is None else ""),
            bearing=self.bearing,
            rotating_race=self.rotating_race,
        )
        return [_with_units(_with_channels(recording, self.channels), self.unit) for recording in recordings]


def read_manifest(folder: str | Path) -> list[Entry]:
    """Read the `manifest.csv` of a folder and validate it against the files in the folder.

    Columns are described in `load_dataset`.

    Raises:
        ValueError: a column, label, number or bearing is missing or malformed; a file is listed twice, is outside the
            folder, missing, or of an unknown format; there are too many rows or columns for a manifest.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    header, rows = read_table(manifest)
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
    problems += [f"{path.relative_to(folder)} is listed in {n} rows" for path, n in counts.items() if n > 1]
    problems += [f"{path.relative_to(folder)} {why}" for path in counts if (why := why_unreadable(path))]
    if problems:
        raise ValueError(f"{manifest}: {first_few(problems)}; correct the rows or remove them")
    return entries


def read_listed(files: Iterable[str | Path], sampling_rate_hz: float | None = None) -> Iterator[Recording]:
    r"""Read files, each with the information that the nearest manifest has about it.

    The manifest is looked for in the folder of the file and up to two folders above; the nearest one that lists the
    file is used. A file that is not listed is read on its own. Other rows may be invalid or their files missing, and
    labels may be missing.

    Args:
        files: recordings in any supported format.
        sampling_rate_hz: sampling rate to assume if neither manifest nor file states one.

    Yields:
        The recordings, in the order of the files.

    Raises:
        ValueError, FileNotFoundError, ImportError: as for `read`; or a manifest is not a table, or its row for a file
            is invalid.

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
    rows_of = cache(rows_by_file)  # manifests are read once
    for file in map(Path, files):
        place = Path(os.path.abspath(file))  # noqa: PTH100 - a link belongs to the folder that contains it
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
    """Return the manifest row of a recording that was written to `file`."""
    bearing = {"bearing": recording.bearing, "rotating_race": recording.rotating_race} if recording.bearing else {}
    known = {
        "file": file,
        "label": recording.label or "",
        "specimen": recording.specimen or "",
        "rpm": "" if recording.rpm is None else repr(float(recording.rpm)),
        "load": "" if recording.load is None else repr(float(recording.load)),
        "load_unit": recording.load_unit,
        "sampling_rate": repr(recording.sampling_rate_hz),
        "unit": "|".join(recording.channel_units) or recording.unit,
        "channel_names": _join_names(recording.channels),
        **bearing,
    }
    return known | {_column_of(key): _cell_of(value) for key, value in recording.metadata.items()}


def _join_names(names: Sequence[str]) -> str:
    """Names separated by spaces, or each followed by a bar if a name itself contains a separator."""
    joined = " ".join(names)
    return joined if _split_names(joined) == tuple(names) else "".join(f"{name}|" for name in names)


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows, given as cells by column; columns are in order of first appearance."""
    columns = dict.fromkeys(column for row in rows for column in row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def why_unreadable(path: Path) -> str:
    """Return why a file cannot be read, without opening it; empty if it seems readable."""
    try:
        if not path.is_file():
            return "is not a regular file" if path.exists() else "does not exist"
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, circular links
        return f"cannot be accessed ({getattr(error, 'strerror', error)})"
    if suffix_of(path) not in readable_suffixes():
        return f"has an unknown format (expected one of: {', '.join(readable_suffixes())})"
    return ""


def first_few(things: Sequence[str]) -> str:
    """Join the first few texts and the number of the remaining ones."""
    more = len(things) - _SHOWN
    return "; ".join(map(_one_line, things[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def _one_line(text: str) -> str:
    """A text for a message: cells and file names can contain line breaks."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _with_channels(recording: Recording, names: tuple[str, ...]) -> Recording:
    """Select the named channels, or rename the channels if the recording has other names."""
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


def _with_units(recording: Recording, unit: str) -> Recording:
    """Set the unit of all channels, or one for each channel ("g|m/s^2")."""
    if not unit:
        return recording
    units = tuple(normalize_unit(each) for each in unit.split("|"))
    if len(units) not in (1, recording.n_channels):
        raise ValueError(
            f"{recording.name}: the manifest states the units {' '.join(units)} for the channels "
            f"{' '.join(recording.channels)}; state one unit, or one for each channel separated by |"
        )
    return replace(recording, channel_units=units if len(units) > 1 else units * recording.n_channels)


def rows_by_file(folder: Path) -> dict[PurePosixPath, dict[str, str]]:
    """Return the rows of the manifest in a folder by file, in its order; of several rows for one file, the first.

    Nothing is checked but that the manifest is a table; without a manifest there are no rows.

    Example:
        >>> rows_by_file(Path("no such folder"))
        {}
    """
    if not (folder / MANIFEST).is_file():
        return {}
    header, rows = read_table(folder / MANIFEST)
    column = _known_columns(header).get("file")
    if column is None:
        return {}
    files = [_relative(row[column].strip()) for _, row in rows]
    first = {file: row for file, (_, row) in zip(reversed(files), reversed(rows), strict=True)}
    return {file: first[file] for file in files}


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_")


def _known_columns(header: Iterable[str]) -> dict[str, str]:
    """Column of each field that the table has."""
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
    numbers = _bearing_numbers(cells)
    if numbers and cells.get("bearing"):
        metadata["bearing_designation"] = cells["bearing"]
    race = cells.get("rotating_race", "").lower() or "inner"
    check_name("rotating_race", race, ROTATING_RACES)
    return Entry(
        path=_existing(folder / _inside(cells["file"])),
        label=cells.get("label", ""),
        specimen=cells.get("specimen") or None,
        rpm=_number(cells, "rpm"),
        load=load,
        load_unit=cells.get("load_unit") or load_unit,
        sampling_rate_hz=_number(cells, "sampling_rate"),
        unit=cells.get("unit", ""),
        channels=_split_names(cells.get("channel_names", "")),
        metadata=metadata,
        bearing=normalize_bearing(numbers or cells.get("bearing", "")) or None,
        rotating_race=race,  # pyright: ignore[reportArgumentType] - checked above
    )


def _bearing_numbers(cells: Mapping[str, str]) -> str:
    """Fault orders if the row has them, else the geometry, as one text; empty if the row has neither."""
    for fields in (ORDER_FIELDS, GEOMETRY_FIELDS):
        given = {name: number for name in fields if (number := _number(cells, name, can_be_zero=True)) is not None}
        if given:
            return format_fields(tuple(given), tuple(given.values()))
    return ""


def _existing(path: Path) -> Path:
    """Return a path as the file system writes it: systems compose accented letters in different ways."""
    if path.name.isascii() or len(path.name) > _MAX_SHOWN or path.exists():
        return path
    forms = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((form for form in forms if form.exists()), path)


def _inside(name: str) -> PurePosixPath:
    """Path relative to the folder; a path out of the folder is rejected."""
    path = _relative(name)
    if not name or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"file {_shown(name)} is not a path within the folder")
    return path


def _relative(name: str) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(name.replace("\\", "/")) if name else "")


def _number(cells: Mapping[str, str], key: str, *, can_be_zero: bool = False) -> float | None:
    """A number above 0, or not below it; None for an empty cell."""
    text = cells.get(key, "")
    if not text or text.lower() == "nan":
        return None
    number = _value(key, text)
    if not 0 <= number < float("inf") or (number == 0 and not can_be_zero):
        raise ValueError(
            f"{key} is {_shown(text)}, expected a number {'>= 0' if can_be_zero else '> 0'} or an empty cell"
        )
    lowest, highest = PHYSICAL_RANGES.get("sampling_rate_hz" if key == "sampling_rate" else key, (0.0, _MAX_NUMBER))
    if not lowest <= number <= highest:
        raise ValueError(f"{key} is {_shown(text)}, expected {lowest:g} to {highest:g} or an empty cell")
    return number


def _value(key: str, text: str) -> float:
    """The number in a cell; NaN if it has none."""
    if key in _QUANTITIES:
        return _quantity(key, text)
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _quantity(key: str, text: str) -> float:
    """A speed or sampling rate, which may have a unit or separated thousands; NaN if it is not a number."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        number = parse_quantity(text, "", _QUANTITIES[key])
    except ValueError as error:
        raise ValueError(f"{key} is {_shown(text)}: {error}") from None
    return math.nan if number is None else number


def _load(text: str) -> tuple[float | None, str]:
    """A number and the unit that follows it ("2 hp"); None if the text does not begin with a number."""
    match = _LOAD.fullmatch(text) if len(text) <= _MAX_LOAD else None
    load = float(match[1].replace(",", ".")) if match else float("nan")
    return (load, match[2].strip()) if match and math.isfinite(load) else (None, "")


def _shown(text: str) -> str:
    """A cell for a message."""
    return repr(text if len(text) <= _MAX_LOAD else f"{text[:_MAX_LOAD]}…")


def _parse(text: str) -> Any:
    """Parse a cell of metadata: a JSON number, boolean, list or quoted text, otherwise the text itself."""
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
    """Format a value as a cell that `_parse` reads back as the same value."""
    if isinstance(value, str) and value and _parse(value) is value:
        return value
    return json.dumps(value, default=_plain_data)


def _plain_data(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
