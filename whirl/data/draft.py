"""A first manifest of a folder: from folder and file names, and from what the files state, to be corrected by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whirl.data.dataset import data_files
from whirl.data.labels import known_class, similar_labels
from whirl.data.layouts import is_condition, part_of, recognize_layout
from whirl.data.manifest import Entry, row_of, write_manifest

_COLUMNS = ("file", "label", "specimen", "rpm", "load", "sampling_rate", "unit")
_FIELD = re.compile(r"\{(\w+)\}")
_SEPARATORS = r"[_\-. ]+"
# Neither the end of a longer number, as 5 of 0.5hp, nor the beginning of a word, as in 1normal.
_NUMBER_WITH_UNIT = re.compile(r"(?<!\d)(?<!\d[.,])(\d+(?:[.,]\d+)?)\s*(rpm|hz|hp|kn|kw|nm|n|w|lbs)(?![a-z])", re.I)


def draft_manifest(folder: str | Path, pattern: str | None = None) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows of a first manifest, and remarks about what to correct.

    The label comes from the pattern, from the layout of a known public data set, from the folders (not from folders of
    parts such as `train`, nor of conditions such as `35Hz12kN`), or from a word in the file name that is a known
    class. Speed and load come from parts of the name with a unit (`1500rpm`), everything else from the file.

    Args:
        folder: folder of recordings.
        pattern: names of columns in the file name or in the path, e.g. `"{label}_{specimen}_{load}.csv"`. None looks
            for one.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there are no recordings, or the pattern fits none.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("ball_B1_2hp", "normal_B2_2hp"):
        ...         np.savez(Path(folder) / f"{name}.npz", signal=np.arange(64.0), fs=12_000)
        ...     rows, remarks = draft_manifest(folder, "{label}_{specimen}_{load}")
        >>> [(row["file"], row["label"], row["specimen"], row["load"]) for row in rows]
        [('ball_B1_2hp.npz', 'ball', 'B1', '2 hp'), ('normal_B2_2hp.npz', 'healthy', 'B2', '2 hp')]
        >>> remarks
        ["label 'normal' is written as the known class 'healthy' (1 file)"]
    """
    folder = Path(folder)
    paths = data_files(folder)
    if not paths:
        raise ValueError(f"{folder}: contains no recordings to list")
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    entries = {entry.path: entry for entry in recognize_layout(folder, paths) or []}
    expression = None if pattern is None else _expression(pattern)
    rows, remarks, renamed = [], [], Counter[tuple[str, str]]()
    for path, name in names.items():
        found = _from_pattern(expression, name) if expression is not None else _from_names(name, entries.get(path))
        if expression is not None and not found:
            remarks.append(f"{name}: does not fit the pattern {pattern!r}")
        label = found.get("label", "")
        known = known_class(label)
        if known is not None and known != label:
            renamed[label, known] += 1
            found = found | {"label": known}
        rows.append(_row(path, name, found, entries.get(path), remarks))
    if expression is not None and len(remarks) >= len(paths):
        raise ValueError(f"{folder}: the pattern {pattern!r} fits no file, e.g. {next(iter(names.values()))!r}")
    remarks += [
        f"label {old!r} is written as the known class {new!r} ({n} file{'s' * (n > 1)})"
        for (old, new), n in renamed.items()
    ]
    remarks += [f"label {sentence}" for sentence in similar_labels(row["label"] for row in rows if row["label"])]
    n_missing = sum(not row["label"] for row in rows)
    return rows, remarks + ([f"{n_missing} files have no label; add it or remove their rows"] if n_missing else [])


def write_draft(folder: str | Path, out: str | Path, pattern: str | None = None) -> list[str]:
    """Write a first manifest and return remarks about what to correct; see `draft_manifest`.

    Raises:
        FileExistsError: the file exists.
        FileNotFoundError, ValueError: as for `draft_manifest`.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; choose another name")
    rows, remarks = draft_manifest(folder, pattern)
    write_manifest(out, rows)
    return [*remarks, f"{len(rows)} rows are in {out}; correct it and save it as manifest.csv in {folder}"]


def _expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; without a suffix, any suffix fits."""
    fields = _FIELD.findall(pattern)
    if not fields or len(set(fields)) < len(fields):
        raise ValueError(f"pattern is {pattern!r}, expected different names in braces, e.g. '{{label}}_{{specimen}}'")
    parts = [
        re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^/]+?)" for index, part in enumerate(_FIELD.split(pattern))
    ]
    suffix = "" if re.search(r"\.\w+$", pattern) else r"(?:\.\w+)*"
    return re.compile(f"(?:^|.*/){''.join(parts)}{suffix}")


def _from_pattern(expression: re.Pattern[str], name: str) -> dict[str, str]:
    match = expression.fullmatch(name)
    return {} if match is None else match.groupdict()


def _from_names(name: str, entry: Entry | None) -> dict[str, str]:
    """Return what the folders and words of a path say."""
    if entry is not None:
        return {"label": entry.label}
    *folders, file = name.split("/")
    classes = [folder for folder in folders if not part_of(folder) and not is_condition(folder)]
    stem = re.sub(r"\.\w+$", "", file)
    words = re.split(_SEPARATORS, stem)
    label = classes[0] if classes else next((word for word in words if known_class(word)), "")
    specimen = {"specimen": classes[1]} if len(classes) > 1 else {}
    return {"label": label, **specimen, **_conditions([*folders, stem])}


def _conditions(names: Sequence[str]) -> dict[str, str]:
    """Return speed and load from the first numbers with a unit."""
    found: dict[str, str] = {}
    for number, unit in (match for name in names for match in _NUMBER_WITH_UNIT.findall(name)):
        if unit.lower() in ("rpm", "hz"):
            found.setdefault("rpm", f"{float(number.replace(',', '.')) * (60 if unit.lower() == 'hz' else 1):g}")
        else:
            found.setdefault("load", f"{number} {unit}")
    return found


def _row(path: Path, name: str, found: Mapping[str, str], entry: Entry | None, remarks: list[str]) -> dict[str, str]:
    """Return a row with what the file states and what its name says."""
    facts: dict[str, Any] = dict.fromkeys(_COLUMNS, "")
    try:
        recording = (entry or Entry(path, label="")).read_all()[0]
        stated = row_of(name, replace(recording, metadata={}))
        facts |= {key: value for key, value in stated.items() if value}
    except ValueError as error:
        remarks.append(str(error).replace(str(path), name))
    spoken = {key: _spaced(value) if key == "load" else value for key, value in found.items() if value}
    return facts | {"file": name} | spoken


def _spaced(load: str) -> str:
    """Return a load with a space before its unit."""
    return re.sub(r"^(\d+(?:[.,]\d+)?)\s*(\w*)$", r"\1 \2", load).strip()
