"""Numbers in columns: .csv, .tsv, .txt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.readers.conventions import (
    TIME_UNITS,
    content_from_variables,
    counts_samples,
    rate_of_times,
    split_unit,
)
from whirl.data.reading import MAX_CHANNELS, Content, UnreadableError, register_reader

# Enough to hold any header and, behind it, rows that show how the file is written.
_HEAD_BYTES = 65_536
# Columns beside the channels: time, running number, speed, ...
_MAX_COLUMNS = MAX_CHANNELS + 44
_MAX_LINE_LETTERS = 65_536
_SPACES = r"\s+"

# A line of numbers only, whatever separates them.
_NUMBERS = re.compile(r'(?=.*\d)(?:[\d\s.,;+"-]|e(?=[+\-\d])|nan|inf)+', re.I)
_SEPARATOR_OF_NOTES = re.compile("[:=;,\t]")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Layout:
    """How a text file is written."""

    encoding: str
    separator: str
    decimal: str
    first_row: int  # line number of the first row of numbers, from 0
    n_columns: int
    names: list[str]  # of the columns; empty without a header
    notes: dict[str, Any]  # what lines such as "Sampling rate: 25600" above the columns say


@register_reader(".csv", ".tsv", ".txt")
def read_text(path: Path) -> Content:
    """Columns are channels; a column of times or running numbers is none.

    Semicolons, commas, tabs or spaces separate, decimals have a point or a comma. Above the numbers there may
    be notes (`Sampling rate: 25600`), names, and units. Numbers that only the first row has (some
    recorders put a bias per channel there) are left out; any other row that does not fit is refused.
    """
    layout = _layout_of(path)
    table = _read_numbers(path, layout)
    names = layout.names or [f"column {index + 1}" for index in range(layout.n_columns)]
    if counts_samples(table[:, 0]):
        names, table = names[1:], table[:, 1:]
    elif _are_times(table[:, 0]):
        names = [f"time [{split_unit(names[0])[1]}]", *names[1:]]
    content = content_from_variables(layout.notes | dict(zip(names, table.T, strict=True)))
    return content if layout.names else replace(content, channels=())


def _are_times(column: np.ndarray) -> bool:
    """Whether numbers rise too evenly for a vibration; a few may do so by chance."""
    return len(column) >= 8 and rate_of_times(column, tolerance=0.25) is not None


def _layout_of(path: Path) -> _Layout:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        whole_file = not file.read(1)
    encoding = _encoding(head)
    lines = re.split(r"\r\n|\n|\r", head.decode(encoding, errors="ignore"))
    if not whole_file:
        lines.pop()
    first, after = _rows(lines)
    rows = [line for line in lines[first:after] if line.strip()]
    separator, decimal = _separator_and_decimal(rows)
    # Not the first row: it may hold more numbers than the columns have.
    n_columns = Counter(len(_split(row, separator)) for row in rows[1:] or rows).most_common(1)[0][0]
    if n_columns > _MAX_COLUMNS:
        raise UnreadableError(f"{n_columns} columns are no recording; export one column per channel")
    names, first_name = _names(lines[:first], separator, n_columns)
    if not names:
        _check_header(lines[:first], separator, n_columns)
    _check_above(lines[:first], separator, n_columns, bool(names))
    return _Layout(encoding, separator, decimal, first, n_columns, names, _notes(lines[:first_name]))


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in head:
        raise UnreadableError("it holds binary data, not text; give the file the suffix of its kind")
    try:
        head[:-4].decode("utf-8")  # the last character may be cut
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _rows(lines: list[str]) -> tuple[int, int]:
    """Where the longest block of rows of numbers begins and ends."""
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
        raise UnreadableError("there are no rows of numbers in it; export the signal as columns of numbers only")
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
        # One comma a row: an integer is not written with a leading zero, the decimals are.
        or any(re.search(r",0\d|^-0,", row.strip()) for row in rows)
    ):
        return _SPACES, ","
    return ",", "."


def _split(line: str, separator: str) -> list[str]:
    """The fields of a line; a separator at its end closes the last field and opens none."""
    fields = line.split() if separator == _SPACES else line.rstrip(f" {separator}").split(separator)
    return [field.strip().strip('"') for field in fields]


def _names(above: list[str], separator: str, n_columns: int) -> tuple[list[str], int]:
    """Names of the columns, and the line they stand in; a line of units below them joins the names."""
    if separator == _SPACES:
        above = [re.sub(r"(?<!\s)\s+(?=[(\[])", "", line) for line in above]  # "time (s)" is one name
    fields = [(_split(line.lstrip("#% "), separator), index) for index, line in enumerate(above) if line.strip()]
    if not fields or len(fields[-1][0]) != n_columns:
        return [], len(above)
    units = [text.strip("()[]") for text in fields[-1][0]]
    if len(fields) > 1 and len(fields[-2][0]) == n_columns and units[0].lower() in TIME_UNITS:
        names, index = fields[-2]
        return _unique([f"{name} [{unit}]" for name, unit in zip(names, units, strict=True)]), index
    names, index = fields[-1]
    return _unique(names), index


def _check_header(above: list[str], separator: str, n_columns: int) -> None:
    """Refuse names that are fewer than the fields of the rows; a title or a note above the rows names nothing."""
    line = next((line for line in reversed(above) if line.strip()), "")
    fields = _split(line, separator)
    is_note = not line or line.startswith(("#", "%")) or any(re.search(r"[:=]|^[-+.\d]", field) for field in fields)
    is_title = len(fields) == 1 and (separator != "," or " " in split_unit(fields[0])[0])
    if separator == _SPACES or is_note or is_title or len(fields) >= n_columns:
        return
    cause = "most likely decimal commas between commas; export with decimal points, or semicolons between the columns"
    raise UnreadableError(
        f"names in its header: {len(fields)}, fields in its rows: {n_columns}; "
        + (cause if separator == "," else "name every column or none")
    )


def _check_above(above: list[str], separator: str, n_columns: int, named: bool) -> None:
    """Refuse text amid the rows of numbers; one row of numbers above the names is a note."""
    rows = [index for index, line in enumerate(above) if _is_row(line, separator, n_columns)]
    if len(rows) > named:
        number = next(i for i in range(rows[0], len(above)) if above[i].strip() and not _NUMBERS.fullmatch(above[i]))
        raise UnreadableError(
            f"line {number + 1} amid the rows of numbers is {_shown(above[number])}; export columns of numbers only"
        )


def _is_row(line: str, separator: str, n_columns: int) -> bool:
    fields = _split(line, separator)
    return len(fields) == n_columns and all(isinstance(_number(field), float) for field in fields)


def _shown(line: str) -> str:
    return repr(line.strip()[:60])


def _unique(names: list[str]) -> list[str]:
    """Names that occur more than once, or are empty, are told apart by their column's number."""
    return [name if name and names.count(name) == 1 else f"{name}{i + 1}" for i, name in enumerate(names)]


def _notes(lines: list[str]) -> dict[str, Any]:
    """Keys and values in the lines above the columns, numbers as numbers."""
    notes: dict[str, Any] = {}
    for line in lines:
        key, value = [*_SEPARATOR_OF_NOTES.split(line, maxsplit=1), ""][:2]
        key, value = key.lstrip('#%" \t').rstrip(), value.strip('";, \t\r')
        if key and value and '"' not in value:
            notes[key] = _number(value)
    return notes


def _number(text: str) -> float | str:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return text


def _read_numbers(path: Path, layout: _Layout) -> np.ndarray:
    """The rows of numbers, `[N, columns]`."""
    import pandas as pd

    _check_rows(path, layout)
    columns = list(range(layout.n_columns))
    try:
        return pd.read_csv(
            path, sep=layout.separator, decimal=layout.decimal, encoding=layout.encoding, skiprows=layout.first_row,
            header=None, names=columns, usecols=columns, index_col=False, dtype=np.float64, skipinitialspace=True,
        ).to_numpy()  # fmt: skip
    except ValueError as error:
        raise UnreadableError(_first_word(path, layout)) from error


def _lines_of_numbers(path: Path, layout: _Layout) -> Iterator[tuple[int, str]]:
    """Rows with their line numbers, from 1."""
    with path.open(encoding=layout.encoding, errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_LETTERS), ""), start=1):
            if len(line) == _MAX_LINE_LETTERS:
                raise UnreadableError(f"line {number} has {len(line)} letters or more; export one row per sample")
            if number > layout.first_row and not line.isspace():
                yield number, line


def _check_rows(path: Path, layout: _Layout) -> None:
    """Refuse a row with more or fewer fields than there are columns; pandas would cut or fill it silently."""
    separator = None if layout.separator == _SPACES else layout.separator
    for number, line in _lines_of_numbers(path, layout):
        n_fields = len(line.split(separator))
        whole = line.endswith("\n")  # only the last line may lack its end
        if n_fields == layout.n_columns and whole:
            continue
        n_filled = len(_split(line.rstrip(), layout.separator))
        if not whole and n_filled < layout.n_columns:
            raise UnreadableError(f"it breaks off in line {number}; copy or export it again")
        has_more = n_filled > layout.n_columns and (layout.names or number > layout.first_row + 1)
        if n_fields < layout.n_columns or has_more:
            raise UnreadableError(
                f"line {number}, {_shown(line)}, has {n_filled} instead of {layout.n_columns} fields; "
                "mend the line or export the file again"
            )


def _first_word(path: Path, layout: _Layout) -> str:
    for number, line in _lines_of_numbers(path, layout):
        for field in _split(line.rstrip(), layout.separator):
            if field and isinstance(_number(field.replace(layout.decimal, ".")), str):
                return f"line {number} amid the rows of numbers holds {field!r}; export columns of numbers only"
    return "its rows are not all numbers; export columns of numbers only"
