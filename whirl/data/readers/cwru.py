"""Bearing records of Case Western Reserve University (CWRU), with corrections of known errata.

The website numbers its records, and each file is named after its record's number (`105.mat`). The variables in a file
are `X<number>_DE_time` (drive end), `_FE_` (fan end), `_BA_` (base), in g, and `X<number>RPM`. The files do not state
their sampling rate; the tables on the website do. Source: https://engineering.case.edu/bearingdatacenter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from whirl.data.reading import Content, UnreadableError

_CHANNELS = ("DE", "FE", "BA")
_VARIABLE = re.compile(r"X(\d{3})_(DE|FE|BA)_time")

# The normal baseline, then the table "48k drive end bearing fault data": inner race, ball, and outer race
# at 6, 3 and 12 o'clock. 173 is not a record, but the number in the variables of 174.mat. All others are 12 kHz.
_RECORDS_AT_48_KHZ = {
    *range(97, 101),
    *range(109, 113), *range(122, 126), *range(135, 139), *range(148, 152), *range(161, 165),
    *range(173, 178), *range(189, 193), *range(201, 205),
    213, 214, 215, 217, *range(226, 230), *range(238, 242), *range(250, 254), *range(262, 266),
}  # fmt: skip

# 158.mat states 1773 rpm (load 1), but its shaft harmonics are those of 1797 rpm (load 0).
_TRUE_RPM = {158: 1797.0}
# 3001 to 3008 state no speed: inner race and ball, at loads of 0 to 3 hp each.
_NOMINAL_RPM = {3001 + record: rpm for record, rpm in enumerate((1797.0, 1772.0, 1750.0, 1730.0) * 2)}


def is_cwru(variables: Iterable[str]) -> bool:
    """Return whether these are the variable names of a CWRU record."""
    return any(_VARIABLE.fullmatch(name) for name in variables)


def content_from_record(stem: str, variables: Mapping[str, Any]) -> Content:
    """Return the record in a file, with errata corrected.

    Where the returned speed differs from the stored one, `metadata["rpm_in_file"]` holds the stored speed, or None if
    the file states none.

    Args:
        stem: file name without suffix; if it is a number, it is the record's number.
        variables: variables in the file, by name.

    Raises:
        UnreadableError: the channels differ in length, or the file contains several records and its name selects none.

    Example:
        >>> variables = {"X097_DE_time": np.zeros((8, 1)), "X097RPM": np.array([[1796]])}
        >>> content_from_record("97", variables).sampling_rate_hz
        48000.0
    """
    stored_number = _stored_number(stem, variables)
    record = int(stem) if stem.isdecimal() else int(stored_number)
    channels = tuple(name for name in _CHANNELS if f"X{stored_number}_{name}_time" in variables)
    rows = [np.ravel(variables[f"X{stored_number}_{name}_time"]) for name in channels]
    if len({row.shape for row in rows}) > 1:
        raise UnreadableError(f"channels {list(channels)} differ in length; select one of them in manifest.csv")
    stored_rpm = _stored_rpm(stored_number, variables)
    rpm = _TRUE_RPM.get(record, stored_rpm if stored_rpm is not None else _NOMINAL_RPM.get(record))
    return Content(
        signal=np.stack(rows),
        sampling_rate_hz=48_000.0 if record in _RECORDS_AT_48_KHZ else 12_000.0,
        channels=channels,
        unit="g",
        rpm=rpm,
        metadata={} if rpm == stored_rpm else {"rpm_in_file": stored_rpm},
    )


def _stored_number(stem: str, variables: Mapping[str, Any]) -> str:
    """Return the record number in the variable names: that of the file name, or the only one present.

    174.mat contains `X173_...`, 3001.mat to 3008.mat contain `X048_...` to `X059_...`, and 99.mat also contains the
    signals of record 98.
    """
    numbers = {match[1] for name in variables if (match := _VARIABLE.fullmatch(name))}
    own = stem.zfill(3)
    if own in numbers:
        return own
    if len(numbers) > 1:
        raise UnreadableError(f"contains the records {sorted(numbers)}; name the file after the one to read")
    return numbers.pop()


def _stored_rpm(number: str, variables: Mapping[str, Any]) -> float | None:
    value = variables.get(f"X{number}RPM")
    return None if value is None else float(np.ravel(value)[0])
