"""Reader of text files with columns of numbers (.csv, .tsv, .txt, .asc, .dat)."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.readers.conventions import UNNAMED_COLUMN, content_from_variables, flat_name
from whirl.data.readers.facts import split_unit
from whirl.data.readers.rows import has_equal_rows
from whirl.data.readers.times import clock_seconds, is_epoch, is_even_axis, is_sample_index
from whirl.data.readers.wide import stack_numbered
from whirl.data.reading import MAX_CHANNELS, Content, UnreadableError, register_reader
from whirl.data.units import SAMPLE_UNITS, normalize_unit, unit_factor

# Enough for any header and, after it, rows that reveal the layout.
_HEAD_BYTES = 65_536
# Channels, and further columns such as time, sample index and speed.
_MAX_COLUMNS = MAX_CHANNELS + 44
_MAX_LINE_CHARS = 65_536
_SPACES = r"\s+"

# A line that contains only numbers, with any separator.
_NUMBERS = re.compile(r'(?=.*\d)(?:[\d\s.,;+"-]|e(?=[+\-\d])|nan|inf)+', re.I)
# A date, a time of day or both at the start of a line, in any usual order of day, month and year.
_DATE = r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:\s?[AP]M)?(?:Z|[+-]\d{2}:?\d{2})?"
_STAMP = re.compile(rf'\s*"?(?:(?:{_DATE})(?:"?[T ,;\t]+"?(?:{_CLOCK}))?|{_CLOCK})"?(?=[\s,;]|$)', re.I)
# A sign that is separated from its number.
_LOOSE_SIGN = re.compile(r"([+-])[ ]+(?=[\d.])")
_COMMENT_MARKS = "#%;!*/\"' \t"
_NOTE_SEPARATOR = re.compile("[:=;,\t]")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Layout:
    """Layout of a text file."""

    encoding: str
    separator: str
    decimal: str
    first_row: int  # line index of the first row of numbers, from 0
    n_columns: int
    names: list[str]  # column names; empty without a header
    notes: dict[str, Any]  # key-value lines above the columns, such as "Sampling rate: 25600"
    n_stamps: int = 0  # leading columns with dates or times of day
    n_settings: int = 0  # leading columns that hold settings in the first rows and are empty below
    has_loose_signs: bool = False
    has_spaces: bool = True  # spaces beside separators; skipping them takes a third of the time of parsing


@register_reader(".csv", ".tsv", ".txt", ".asc", ".dat")
def read_text(path: Path) -> Content:
    """Read columns as channels, except a column of times or sample indices.

    The separator may be a semicolon, comma, tab or space, the decimal separator a point or a comma. Notes
    (`Sampling rate: 25600`), column names and units may precede the numbers. The first column may contain dates and
    times of day. Settings in the columns left of the first samples, as oscilloscopes write them, are notes. Extra
    numbers in the first row are ignored (some recorders store a bias per channel there); any other row with a different
    number of fields is an error.
    """
    layout = _detect_layout(path)
    stamps, table = _read_columns(path, layout)
    names = layout.names or [f"{UNNAMED_COLUMN}{index + 1}" for index in range(table.shape[1])]
    if not layout.names and stamps is None:
        seconds = clock_seconds(table)
        if seconds is not None:
            names, table = ["time", *names[4:]], np.column_stack([seconds, table[:, 4:]])
        elif is_sample_index(table[:, 0]) and not is_epoch(table[:, 0]):
            names, table = names[1:], table[:, 1:]
        elif is_even_axis(table[:, 0]):
            names = ["time", *names[1:]]
    columns = dict(zip(map(flat_name, names), table.T, strict=True))
    notes = {flat_name(name): value for name, value in layout.notes.items()}
    times = {} if stamps is None else {"time": stamps}
    content = content_from_variables(notes | times | stack_numbered(columns))
    return content if layout.names or "left_out" in content.metadata else replace(content, channels=())


def _detect_layout(path: Path) -> _Layout:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        is_complete = not file.read(1)
    encoding = _encoding(head)
    lines = re.split(r"\r\n|\n|\r", head.decode(encoding, errors="ignore"))
    if not is_complete:
        lines.pop()
    stamps = [_STAMP.match(line) for line in lines]
    n_stamps = 1 + any(stamp is not None and re.search("[,;\t].*:", stamp[0]) is not None for stamp in stamps[-9:])
    plain = [
        line if stamp is None else _stamp_columns(stamp[0], n_stamps) + line[stamp.end() :]
        for line, stamp in zip(lines, stamps, strict=True)
    ]
    first, after = _find_rows(plain)
    rows = [line for line in plain[first:after] if line.strip()]
    has_stamps = stamps[first] is not None and all(stamps[first:after][i] for i in range(min(len(rows), 9)))
    if not has_stamps:
        plain = lines
        first, after = _find_rows(plain)
        rows = [line for line in plain[first:after] if line.strip()]
    separator, decimal = _separator_and_decimal([_LOOSE_SIGN.sub(r"\1", row) for row in rows])
    n_columns = _n_columns(rows, separator)
    first, settings, n_settings = _settings(plain, first, separator, n_columns)
    names, header_line = _column_names(lines[:first], separator, n_columns)
    if not names and n_settings == 0:
        _check_header(lines[:first], separator, n_columns)
    _check_lines_above(lines[:first], separator, n_columns, bool(names))
    n_stamps = n_stamps if has_stamps else 0
    notes = _parse_notes(lines[:header_line]) | settings
    has_loose_signs = separator != _SPACES and any(_LOOSE_SIGN.search(row) for row in rows)
    has_spaces = any(" " in row for row in rows)
    return _Layout(
        encoding, separator, decimal, first, n_columns, names[n_stamps + n_settings :], notes, n_stamps, n_settings,
        has_loose_signs, has_spaces,
    )  # fmt: skip


def _stamp_columns(stamp: str, n_stamps: int) -> str:
    """Return zeros with the separator of a date and a time of day in separate columns."""
    separator = re.search("[,;\t]", stamp) if n_stamps > 1 else None
    return f"0{separator[0]}0" if separator else "0"


def _n_columns(rows: list[str], separator: str) -> int:
    # Not counting the first row, which may contain extra numbers.
    n_columns = Counter(len(_split(row, separator)) for row in rows[1:] or rows).most_common(1)[0][0]
    if n_columns > _MAX_COLUMNS:
        raise UnreadableError(
            f"contains {n_columns} columns, expected at most {_MAX_COLUMNS}; export one column per channel"
        )
    return n_columns


def _settings(lines: list[str], first: int, separator: str, n_columns: int) -> tuple[int, dict[str, Any], int]:
    """Return the line of the first samples, the settings left of them, and the number of columns of settings."""
    if separator == _SPACES or not lines[first].startswith(separator):
        return first, {}, 0
    n_settings = next(i for i, text in enumerate(_split(lines[first], separator)) if text)
    settings: dict[str, Any] = {}
    for index in range(first - 1, -1, -1):
        fields = _split(lines[index], separator)
        if len(fields) != n_columns or not all(isinstance(_parse_number(text), float) for text in fields[n_settings:]):
            break
        first = index
        if fields[0]:
            settings[fields[0]] = _parse_number(" ".join(text for text in fields[1:n_settings] if text))
    return first, settings, n_settings


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in head:
        raise UnreadableError("contains binary data, expected text; give the file the suffix of its format")
    try:
        head[:-4].decode("utf-8")  # a multi-byte character may be cut at the end
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _find_rows(lines: list[str]) -> tuple[int, int]:
    """Return the range of lines of the longest block of rows of numbers."""
    numeric = [bool(_NUMBERS.fullmatch(line)) or not line.strip() for line in lines]
    blocks: list[tuple[int, int, int]] = []
    start = 0
    for index in range(len(lines) + 1):
        if index == len(lines) or not numeric[index]:
            n_rows = sum(1 for line in lines[start:index] if line.strip())
            blocks.append((n_rows, start, index))
            start = index + 1
    n_rows, first, after = max(blocks, key=lambda block: block[0])
    if n_rows == 0:
        raise UnreadableError("contains no rows of numbers; export the signal as columns of numbers only")
    while not lines[first].strip():
        first += 1
    return first, after


def _separator_and_decimal(rows: list[str]) -> tuple[str, str]:
    text = "\n".join(rows)
    for separator in "\t;":
        if separator in text:
            return separator, "," if "," in text else "."
    if "," not in text:
        return _SPACES, "."
    if all(_DECIMAL_COMMA.fullmatch(number) for row in rows for number in row.split()) and (
        any(len(row.split()) > 1 for row in rows)
        # One comma per row: decimals can have a leading zero, an integer in a second column cannot.
        or any(re.search(r",0\d|^-0,", row.strip()) for row in rows)
    ):
        return _SPACES, ","
    return ",", "."


def _split(line: str, separator: str) -> list[str]:
    """Return the fields of a line; a trailing separator does not start another field."""
    fields = line.split() if separator == _SPACES else line.rstrip(f" {separator}").split(separator)
    return [field.strip().strip('"') for field in fields]


def _column_names(above: list[str], separator: str, n_columns: int) -> tuple[list[str], int]:
    """Return the column names and the index of their line; units in a line below are appended to the names."""
    if not above:
        return [], 0
    if separator == _SPACES:
        above = [re.sub(r"(?<!\s)\s+(?=[(\[])", "", line) for line in above]  # "time (s)" is one name
    last = next((line for line in reversed(above) if line.strip()), "")
    if n_columns == 1 and split_unit(last)[1] and not re.search("[:=]", last):  # one name that contains spaces
        return [last.strip(_COMMENT_MARKS)], max(i for i, line in enumerate(above) if line.strip())
    fields = [(_split(line.lstrip("#% "), separator), index) for index, line in enumerate(above) if line.strip()]
    if not fields or len(fields[-1][0]) != n_columns:
        return [], len(above)
    units = [text.strip("()[]") for text in fields[-1][0]]
    if len(fields) > 1 and len(fields[-2][0]) == n_columns and all(map(_is_unit, fields[-1][0])):
        names, index = fields[-2]
        return _make_unique([f"{name} [{unit}]" for name, unit in zip(names, units, strict=True)]), index
    names, index = fields[-1]
    return _make_unique(names), index


def _is_unit(text: str) -> bool:
    """Return whether a text is a unit, not a name: in brackets, known, or empty."""
    if not text or re.fullmatch(r"[(\[].*[)\]]", text) or normalize_unit(text) in SAMPLE_UNITS:
        return True
    try:
        return bool(unit_factor(text, "s"))
    except ValueError:
        return text.lower() in ("rpm", "hz", "%", "°c", "degc", "c", "k")


def _check_header(above: list[str], separator: str, n_columns: int) -> None:
    """Raise if there are fewer column names than fields; a title or a note above the rows is not a header."""
    line = next((line for line in reversed(above) if line.strip()), "")
    fields = _split(line, separator)
    is_note = not line or line.startswith(("#", "%")) or any(re.search(r"[:=]|^[-+.\d]", field) for field in fields)
    is_title = len(fields) == 1 and (
        fields[0].lower().strip("[]") == "data" or separator != "," or " " in split_unit(fields[0])[0]
    )
    if separator == _SPACES or is_note or is_title or len(fields) >= n_columns:
        return
    remedy = "probably decimal commas; export with decimal points, or with semicolons between the columns"
    raise UnreadableError(
        f"column names in the header: {len(fields)}, fields per row: {n_columns}; "
        + (remedy if separator == "," else "name all columns or none")
    )


def _check_lines_above(above: list[str], separator: str, n_columns: int, named: bool) -> None:
    """Raise if text interrupts the rows of numbers; a single row of numbers above the column names is a note."""
    rows = [index for index, line in enumerate(above) if _is_row(line, separator, n_columns)]
    if len(rows) > named:
        number = next(i for i in range(rows[0], len(above)) if above[i].strip() and not _NUMBERS.fullmatch(above[i]))
        raise UnreadableError(
            f"line {number + 1} is {_excerpt(above[number])}, expected a row of numbers; export columns of numbers only"
        )


def _is_row(line: str, separator: str, n_columns: int) -> bool:
    fields = _split(line, separator)
    return len(fields) == n_columns and all(isinstance(_parse_number(field), float) for field in fields)


def _excerpt(line: str) -> str:
    return repr(line.strip()[:60])


def _make_unique(names: list[str]) -> list[str]:
    """Append the column number to names that are empty or occur more than once."""
    return [name if name and names.count(name) == 1 else f"{name}{i + 1}" for i, name in enumerate(names)]


def _parse_notes(lines: list[str]) -> dict[str, Any]:
    """Return the key-value pairs in the lines above the columns; numeric values as floats."""
    notes: dict[str, Any] = {}
    for line in lines:
        key, value = [*_NOTE_SEPARATOR.split(line.lstrip(_COMMENT_MARKS), maxsplit=1), ""][:2]
        key, value = key.rstrip('" \t'), value.strip('";, \t\r')
        if key and value and '"' not in value:
            notes[key] = _parse_number(value)
    return notes


def _parse_number(text: str) -> float | str:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return text


def _read_columns(path: Path, layout: _Layout) -> tuple[list[str] | None, np.ndarray]:
    """Return the dates and times of day if there are some, and the numbers, `[N, columns]`."""
    import pandas as pd

    is_uniform = _check_rows(path, layout)
    columns = list(range(layout.n_settings, layout.n_columns))
    texts = columns[: layout.n_stamps]
    source: Any = path
    if layout.has_loose_signs:
        source = io.StringIO(_LOOSE_SIGN.sub(r"\1", path.read_text(encoding=layout.encoding, errors="replace")))
    try:
        table = pd.read_csv(
            source, sep=layout.separator, decimal=layout.decimal, encoding=layout.encoding, skiprows=layout.first_row,
            header=None, names=list(range(layout.n_columns)),
            usecols=None if is_uniform and not layout.n_settings else columns,  # slower
            index_col=False, skipinitialspace=layout.has_spaces,
            dtype=np.float64 if not texts else {column: str if column in texts else np.float64 for column in columns},
        )  # fmt: skip
    except ValueError as error:
        _check_each_row(path, layout)
        raise UnreadableError(_describe_first_text(path, layout)) from error
    if not texts:
        numbers = table.to_numpy()
        if is_uniform and np.isnan(numbers).any():  # filled by pandas, or in the file
            _check_each_row(path, layout)
        return None, numbers
    stamps = [" ".join(row) for row in zip(*(table[column] for column in texts), strict=True)]
    return stamps, table[columns[layout.n_stamps :]].to_numpy(dtype=np.float64)


def _lines_of_numbers(path: Path, layout: _Layout) -> Iterator[tuple[int, str]]:
    """Yield line numbers, from 1, and rows."""
    with path.open(encoding=layout.encoding, errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_CHARS), ""), start=1):
            if len(line) == _MAX_LINE_CHARS:
                raise UnreadableError(f"line {number} has {len(line)} characters or more; export one row per sample")
            if number > layout.first_row and not line.isspace():
                yield number, line


def _check_rows(path: Path, layout: _Layout) -> bool:
    """Raise if a row has more or fewer fields than columns; pandas would silently truncate or fill it.

    Returns:
        Whether all rows have as many fields as columns, unless one of them is filled with NaN.
    """
    is_simple = not (layout.n_stamps or layout.has_loose_signs or layout.encoding == "utf-16")
    is_uniform = is_simple and has_equal_rows(path, layout.separator, layout.n_columns, layout.first_row)
    if not is_uniform:
        _check_each_row(path, layout)
    return is_uniform


def _check_each_row(path: Path, layout: _Layout) -> None:
    separator = None if layout.separator == _SPACES else layout.separator
    for number, line in _lines_of_numbers(path, layout):
        n_fields = len((line if not layout.has_loose_signs else _LOOSE_SIGN.sub(r"\1", line)).split(separator))
        is_complete = line.endswith("\n")  # only the last line may lack a newline
        if n_fields == layout.n_columns and is_complete:
            continue
        n_filled = len(_split(line.rstrip(), layout.separator))
        if not is_complete and n_filled < layout.n_columns:
            raise UnreadableError(f"file ends in the middle of line {number}; copy or export it again")
        has_more = n_filled > layout.n_columns and (layout.names or number > layout.first_row + 1)
        if n_fields < layout.n_columns or has_more:
            raise UnreadableError(
                f"line {number}, {_excerpt(line)}, has {n_filled} fields, expected {layout.n_columns}; "
                "correct the line or export the file again"
            )


def _describe_first_text(path: Path, layout: _Layout) -> str:
    for number, line in _lines_of_numbers(path, layout):
        for field in _split(line.rstrip(), layout.separator):
            if field and isinstance(_parse_number(field.replace(layout.decimal, ".")), str):
                return f"line {number} contains {field!r}, expected only numbers; export columns of numbers only"
    return "some rows contain text, expected only numbers; export columns of numbers only"
