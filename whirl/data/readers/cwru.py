"""What is known of the bearing records of Case Western Reserve University (CWRU), and their errata.

The site numbers its records, and a record's file is named after its number (`105.mat`). The variables
inside are `X<number>_DE_time` (drive end), `_FE_` (fan end), `_BA_` (base), in g, and `X<number>RPM`.
The files do not say their sampling rate: the site's tables do.
Source: https://engineering.case.edu/bearingdatacenter.
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
# at 6, 3 and 12 o'clock. 173 is no record, but the number inside 174.mat. All others are 12 kHz.
_RECORDS_AT_48_KHZ = {
    *range(97, 101),
    *range(109, 113), *range(122, 126), *range(135, 139), *range(148, 152), *range(161, 165),
    *range(173, 178), *range(189, 193), *range(201, 205),
    213, 214, 215, 217, *range(226, 230), *range(238, 242), *range(250, 254), *range(262, 266),
}  # fmt: skip

# 158.mat stores 1773 rpm (load 1), but its shaft harmonics stand at 1797 rpm (load 0).
_TRUE_RPM = {158: 1797.0}
# 3001 to 3008 store no speed: inner race and ball, at loads of 0 to 3 hp each.
_NOMINAL_RPM = {3001 + record: rpm for record, rpm in enumerate((1797.0, 1772.0, 1750.0, 1730.0) * 2)}


def is_cwru(variables: Iterable[str]) -> bool:
    """Whether these are the variables of a CWRU record."""
    return any(_VARIABLE.fullmatch(name) for name in variables)


def content(stem: str, variables: Mapping[str, Any]) -> Content:
    """The record in a file, with the errata put right.

    Where the speed given here is not the one stored, `metadata["rpm_in_file"]` holds the stored one,
    None where there is none.

    Args:
        stem: name of the file without suffix; it is the record's number where it is a number.
        variables: the file's variables.

    Example:
        >>> content("97", {"X097_DE_time": np.zeros((8, 1)), "X097RPM": np.array([[1796]])}).sampling_rate_hz
        48000.0
    """
    inside = _number_inside(stem, variables)
    record = int(stem) if stem.isdecimal() else int(inside)
    channels = tuple(name for name in _CHANNELS if f"X{inside}_{name}_time" in variables)
    rows = [np.ravel(variables[f"X{inside}_{name}_time"]) for name in channels]
    if len({row.shape for row in rows}) > 1:
        raise UnreadableError(f"channels {list(channels)} differ in length; name the one to keep in manifest.csv")
    stored = _stored_rpm(inside, variables)
    rpm = _TRUE_RPM.get(record, stored if stored is not None else _NOMINAL_RPM.get(record))
    return Content(
        signal=np.stack(rows),
        sampling_rate_hz=48_000.0 if record in _RECORDS_AT_48_KHZ else 12_000.0,
        channels=channels,
        unit="g",
        rpm=rpm,
        metadata={} if rpm == stored else {"rpm_in_file": stored},
    )


def _number_inside(stem: str, variables: Mapping[str, Any]) -> str:
    """The number that the variables carry: the file's own, or the only one there is.

    174.mat holds `X173_...`, 3001.mat to 3008.mat hold `X048_...` to `X059_...`, and 99.mat also holds
    the signals of record 98.
    """
    numbers = {match[1] for name in variables if (match := _VARIABLE.fullmatch(name))}
    own = stem.zfill(3)
    if own in numbers:
        return own
    if len(numbers) > 1:
        raise UnreadableError(f"it holds the records {sorted(numbers)}; name the file after the one that is meant")
    return numbers.pop()


def _stored_rpm(inside: str, variables: Mapping[str, Any]) -> float | None:
    value = variables.get(f"X{inside}RPM")
    return None if value is None else float(np.ravel(value)[0])
