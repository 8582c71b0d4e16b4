"""Tables of text: CSV files as editors and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

# A table is written by hand or by a script, for existing files.
_MAX_BYTES = 2**25
_MAX_ROWS = 100_000
_MAX_COLUMNS = 250


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read the column names, and the rows with their line numbers.

    Columns are separated by commas, semicolons or tabs, or as a first line `sep=;` of Excel states.

    Raises:
        ValueError: the file is not a table, or has too many rows or columns.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path}: is larger than {_MAX_BYTES / 1e6:.0f} MB; split the data set")
        lines = list(io.StringIO(_decoded(path.read_bytes()), newline=""))
        stated = re.fullmatch(r"sep=(.)\s*", lines[0]) if lines else None
        lines = lines[1:] if stated else lines
        delimiter = stated[1] if stated else max(",;\t", key=lines[0].count) if lines else ","
        reader = csv.DictReader(lines, delimiter=delimiter, restval="")
        header = list(reader.fieldnames or ())
        if len(header) > _MAX_COLUMNS or len(lines) > _MAX_ROWS:
            raise ValueError(
                f"{path}: has {len(header)} columns and {len(lines)} lines, expected at most {_MAX_COLUMNS} and "
                f"{_MAX_ROWS}; split the data set"
            )
        rows = [(reader.line_num, {k: v for k, v in row.items() if k}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error}); save it as CSV in UTF-8") from error
    return header, [(line, row) for line, row in rows if any(row.values())]


def _decoded(data: bytes) -> str:
    """Decode UTF-8, UTF-16 with a mark, or the code page of CSV files from a Western Excel; not binary data."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in data:
            raise
        return data.decode("cp1252")
