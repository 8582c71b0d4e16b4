"""Reader of LabVIEW measurement files (.lvm), a text format of National Instruments."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.readers.conventions import content_from_variables, flat_name
from whirl.data.readers.facts import to_number
from whirl.data.reading import MAX_CHANNELS, Content, UnreadableError, register_reader

_END = "***End_of_Header***"
_SEPARATORS = {"Tab": "\t", "Comma": ",", "Semicolon": ";"}
_MAX_HEADER_LINES = 200


@register_reader(".lvm")
def read_lvm(path: Path) -> Content:
    """Read the channels of one segment, with the interval `Delta_X` and the unit `Y_Unit_Label` of each."""
    import pandas as pd

    text = path.read_text(encoding="utf-8-sig", errors="replace")
    file_header, separator, text = text.partition(_END)
    settings = dict(line.split(_separator_of(line), 1) for line in file_header.splitlines() if _separator_of(line))
    if not separator or not file_header.startswith("LabVIEW Measurement"):
        raise UnreadableError("has no header 'LabVIEW Measurement'; export the file again, or rename it to .txt")
    if text.count(_END) != 1:
        raise UnreadableError(f"contains {text.count(_END)} segments, expected 1; export one segment per file")
    if settings.get("X_Columns", "One").strip() == "Multi":
        raise UnreadableError("has several time columns (X_Columns Multi); export it with one time column")
    mark = _SEPARATORS.get(settings.get("Separator", "Tab").strip(), "\t")
    header, _, table = text.partition(_END)
    rows = {fields[0].strip(): fields[1:] for line in header.splitlines() if len(fields := line.split(mark)) > 1}
    lines = table.lstrip(f"{mark}\r\n ").split("\n", 1)
    n_channels = int(float(rows.get("Channels", ["0"])[0] or 0))
    if not 1 <= n_channels <= MAX_CHANNELS or len(lines) < 2:
        raise UnreadableError(f"declares {n_channels} channels, expected 1 to {MAX_CHANNELS}; export it again")
    names = [name.strip() for name in lines[0].split(mark)][1 : 1 + n_channels]
    decimal = settings.get("Decimal_Separator", ".").strip() or "."
    try:
        data = pd.read_csv(
            io.StringIO(lines[1]), sep=mark, decimal=decimal, header=None, names=list(range(n_channels + 2)),
            usecols=range(1, n_channels + 1), index_col=False, dtype=np.float64,
        ).to_numpy()  # fmt: skip
    except ValueError as error:
        raise UnreadableError("contains text, expected only numbers; export the file again") from error
    return content_from_variables(_variables(names, data, rows, decimal))


def _variables(names: list[str], data: np.ndarray, rows: dict[str, list[str]], decimal: str) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    declared = [int(float(text or 0)) for text in rows.get("Samples", [])][: len(names)]
    if any(n not in (0, len(data)) for n in declared):
        raise UnreadableError(f"declares {max(declared)} samples but contains {len(data)}; copy or export it again")
    for index, name in enumerate(names):
        path = flat_name(name or f"channel {index + 1}")
        unit = _cell(rows, "Y_Unit_Label", index)
        step = _cell(rows, "Delta_X", index).replace(decimal, ".")
        variables[f"{path}/dt"] = to_number("dt", step, "s") or 0.0
        variables[f"{path} [{unit}]" if unit else path] = data[:, index]
    return variables


def _cell(rows: dict[str, list[str]], key: str, index: int) -> str:
    cells = rows.get(key, [])
    return cells[index].strip() if index < len(cells) else ""


def _separator_of(line: str) -> str:
    return next((mark for mark in "\t,;" if mark in line), "")
