"""Time axes: numbers in any unit, time stamps since 1970, and dates as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from whirl.data.blocks import blocks
from whirl.data.readers.facts import TIME_NAMES, named_unit, normalize_name, round_if_close
from whirl.data.reading import UnreadableError
from whirl.data.units import unit_factor

# Time stamps since 1970 of the years 2001 to 2286, by their unit.
_EPOCHS = ((1e9, 1.0), (1e12, 1e-3), (1e15, 1e-6), (1e18, 1e-9))
_TIME_WORD = re.compile(r"time|zeit|temps|stamp|epoch", re.I)
# Units of a column of sample numbers.
_COUNTS = ("samples", "sample", "pts", "points", "counts", "#", "n")


def rate_from_times(times: np.ndarray, tolerance: float = 0.5, factor: float = 1.0) -> float | None:
    """Return the sampling rate in Hz of sample times, or None if they are not evenly spaced and increasing.

    Args:
        times: sample times, `[N]`.
        tolerance: largest deviation of a time from its even position, in sampling intervals; times in files are
            rounded.
        factor: unit of the times, in s.

    Example:
        >>> rate_from_times(np.array([0.0, 5e-5, 1e-4, 1.5e-4]))
        20000.0
        >>> rate_from_times(np.array([0.0, 1.0, 5.0])) is None
        True
    """
    if len(times) < 2 or not times[-1] > times[0]:
        return None
    # Integers are subtracted as such: floats would round time stamps in ns.
    wide = np.int64 if times.dtype.kind in "iu" else np.float64
    first = wide(times[0])
    step = float(wide(times[-1]) - first) * factor / (len(times) - 1)
    if not np.isfinite(step):
        return None
    start = 0
    for part in blocks(times):
        seconds = (part.astype(wide) - first) * factor
        deviation = np.abs(seconds - step * np.arange(start, start + len(part))).max()
        if not deviation <= tolerance * step:
            return None
        start += len(part)
    return round_if_close(1 / step)


def is_sample_index(column: np.ndarray) -> bool:
    """Return whether numbers `[N]` only count the samples."""
    return len(column) > 1 and _all_pairs(column, lambda earlier, later: later - earlier == 1)


def is_increasing(column: np.ndarray) -> bool:
    """Return whether every number is larger than the one before."""
    return len(column) > 1 and _all_pairs(column, np.less)


def is_even_axis(column: np.ndarray) -> bool:
    """Return whether numbers are too evenly spaced for a vibration; fewer than 8 may be so by chance."""
    return len(column) >= 8 and _all_pairs(column, np.less_equal) and rate_from_times(column, 0.25) is not None


def _all_pairs(column: np.ndarray, condition: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> bool:
    """Return whether all pairs of successive numbers fulfil a condition; most signals fail within the first numbers."""
    parts = chain([column[:64]], blocks(column, overlap=1))
    return all(bool(np.all(condition(part[:-1], part[1:]))) for part in parts)


def is_time_name(name: str) -> bool:
    """Return whether a name is one for a time axis, e.g. `time`, `t [s]` or `Data1_time_DE`."""
    return normalize_name(name) in TIME_NAMES or bool(_TIME_WORD.search(name.rsplit("/", 1)[-1][-80:]))


def is_epoch(times: np.ndarray) -> bool:
    """Return whether numbers have the size of time stamps since 1970."""
    return any(low <= times[0] < 10 * low for low, _ in _EPOCHS)


def _epoch_factor(times: np.ndarray) -> float:
    return next((factor for low, factor in _EPOCHS if low <= times[0] < 10 * low), 1.0)


def rate_of(name: str, times: np.ndarray) -> float | None:
    """Return the sampling rate of a time axis; None if it counts samples.

    Without a unit, numbers of the size of time stamps since 1970 are in s, ms, µs or ns, and all others in s.

    Raises:
        UnreadableError: the times are not evenly spaced, or the unit in the name is not a unit of time.

    Example:
        >>> rate_of("time [ms]", np.array([5.0, 5.5, 6.0]))
        2000.0
    """
    if times.dtype.kind in "mM":
        times, factor = (times - times[0]) / np.timedelta64(1, "ns"), 1e-9
    else:
        factor = _unit_in_seconds(name, times)
    if factor is None:
        return None
    rate = rate_from_times(times, factor=factor)
    if rate is None:
        raise UnreadableError(
            f"the times in {name!r} are not evenly spaced (missing samples?); export evenly sampled data"
        )
    return rate


def _unit_in_seconds(name: str, times: np.ndarray) -> float | None:
    """Return the unit of a time axis in s; None if it counts samples."""
    unit = named_unit(name)
    if unit.lower() in _COUNTS or (not unit and not is_epoch(times) and is_sample_index(times)):
        return None
    try:
        return unit_factor(unit, "s") if unit else _epoch_factor(times)
    except ValueError as error:
        raise UnreadableError(f"the times in {name!r}: {error}; correct the unit") from None


def clock_seconds(table: np.ndarray) -> np.ndarray | None:
    """Return the times of rows that begin with hour, minute, second and microsecond, in s; None for other rows.

    Args:
        table: columns of a file, `[N, columns]`.

    Example:
        >>> rows = np.array([[9.0, 39, 59, 999_900, 0.5], [9, 39, 59, 999_950, 0.1], [9, 40, 0, 0, 0.2]])
        >>> np.diff(clock_seconds(rows)).round(6)
        array([5.e-05, 5.e-05])
    """
    if table.shape[1] < 5 or len(table) < 2:
        return None
    clock, limits = table[:, :4], np.array([24, 60, 60, 1e6])
    if not (np.all(clock[:64] == np.round(clock[:64])) and np.all((clock >= 0) & (clock < limits))):
        return None
    seconds = clock @ np.array([3600.0, 60.0, 1.0, 1e-6])
    return seconds if np.ptp(clock[:, 0]) <= 1 and is_increasing(seconds) else None


def parse_dates(texts: Sequence[str]) -> np.ndarray | None:
    """Convert dates and times of day to datetime64[ns]; None if the first text is not one.

    Decimal commas and times of day that pass midnight are understood.

    Example:
        >>> parse_dates(["2024-05-01 10:00:00,000", "2024-05-01 10:00:00,020"])
        array(['2024-05-01T10:00:00.000000000', '2024-05-01T10:00:00.020000000'],
              dtype='datetime64[ns]')
    """
    if not len(texts) or not re.search(r"\d\s*[:T]\s*\d", texts[0][:40]):
        return None
    import pandas as pd

    plain = [text.strip().replace(",", ".") for text in texts]
    is_time_of_day = re.fullmatch(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?", plain[0]) is not None
    if is_time_of_day:  # without a date, any date will do
        plain = [f"2000-01-01 {text}" for text in plain]
    try:
        # Day or month first does not matter for the intervals between samples.
        stamps = pd.to_datetime(plain, format="ISO8601" if plain[0][:4].isdecimal() else "mixed")
    except (ValueError, TypeError, OverflowError):
        return None
    values = stamps.tz_localize(None).to_numpy().astype("datetime64[ns]")
    if is_time_of_day:
        days = np.concatenate(([0], np.cumsum(np.diff(values) < np.timedelta64(0, "ns"))))
        values = values + days * np.timedelta64(1, "D")
    return values
