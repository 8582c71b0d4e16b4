"""Numbers in columns: .csv, .tsv, .txt."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from packages.core.signals.read import Content, UnreadableError, register_reader
from packages.core.signals.readers.conventions import (
    TIME_UNITS,
    content_from_variables,
    counts_samples,
    rate_of_times,
    split_unit,
)

# Enough to hold any header and, behind it, rows that show how the file is written.
_HEAD_BYTES = 65_536
_SPACES = r"\s+"

# A line of numbers only, whatever separates them.
_NUMBERS = re.compile(r'(?=.*\d)(?:[\d\s.,;+"-]|e(?=[+\-\d])|nan|inf)+', re.I)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_KEY_AND_VALUE = re.compile(r"[#%\"\s]*([^:=;,\t]*[^:=;,\t\s])\s*[:=;,\t]\s*\"?([^\"]*?)[\";,\s]*")


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
    recorders put a bias per channel there) are left out.
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
    n_columns = len(_split(rows[min(1, len(rows) - 1)], separator))
    names, first_name = _names(lines[:first], separator, n_columns)
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
        # One comma a row: a whole number is not written with a leading zero, the decimals are.
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
        above = [re.sub(r"\s+(?=[(\[])", "", line) for line in above]  # "time (s)" is one name
    fields = [(_split(line.lstrip("#% "), separator), index) for index, line in enumerate(above) if line.strip()]
    if not fields or len(fields[-1][0]) != n_columns:
        return [], len(above)
    units = [text.strip("()[]") for text in fields[-1][0]]
    if len(fields) > 1 and len(fields[-2][0]) == n_columns and units[0].lower() in TIME_UNITS:
        names, index = fields[-2]
        return _unique([f"{name} [{unit}]" for name, unit in zip(names, units, strict=True)]), index
    names, index = fields[-1]
    return _unique(names), index


def _unique(names: list[str]) -> list[str]:
    """Names that occur more than once, or are empty, are told apart by their column's number."""
    return [name if name and names.count(name) == 1 else f"{name}{i + 1}" for i, name in enumerate(names)]


def _notes(lines: list[str]) -> dict[str, Any]:
    """Keys and values in the lines above the columns, numbers as numbers."""
    notes: dict[str, Any] = {}
    for line in lines:
        match = _KEY_AND_VALUE.fullmatch(line)
        if match and match[2]:
            notes[match[1]] = _number(match[2])
    return notes


def _number(text: str) -> float | str:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return text


def _read_numbers(path: Path, layout: _Layout) -> np.ndarray:
    """The rows of numbers, `[N, columns]`."""
    import pandas as pd

    columns = list(range(layout.n_columns))

    def parse(dtype: type) -> pd.DataFrame:
        return pd.read_csv(
            path, sep=layout.separator, decimal=layout.decimal, encoding=layout.encoding, skiprows=layout.first_row,
            header=None, names=columns, usecols=columns, index_col=False, dtype=dtype, skipinitialspace=True,
        )  # fmt: skip

    try:
        table = parse(np.float64).to_numpy()
    except ValueError as error:
        raise UnreadableError(_first_word(parse(str), layout)) from error
    if np.isnan(table[-1]).any() and _breaks_off(path, layout):
        raise UnreadableError(f"it breaks off in row {len(table)}; copy or export it again")
    return table


def _first_word(table: Any, layout: _Layout) -> str:
    import pandas as pd

    for column in table:
        texts: Any = table[column].dropna().str.replace(layout.decimal, ".").str.strip()
        numbers: Any = pd.to_numeric(texts, errors="coerce")
        wrong = texts[numbers.isna()]
        if len(wrong):
            return f"row {wrong.index[0] + 1} of the numbers holds {wrong.iloc[0]!r}; export columns of numbers only"
    return "its rows are not all numbers; export columns of numbers only"


def _breaks_off(path: Path, layout: _Layout) -> bool:
    """Whether the last line lacks its end and fields."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _HEAD_BYTES))
        tail = file.read().decode(layout.encoding, errors="ignore")
    return not tail.endswith(("\n", "\r")) and len(_split(tail.splitlines()[-1], layout.separator)) < layout.n_columns
