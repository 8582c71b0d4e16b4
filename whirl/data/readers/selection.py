"""Selection of the channels among the arrays of a file, by shape, sampling rate and name."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whirl.data.readers import times
from whirl.data.readers.facts import (
    CHANNEL_NAMES,
    UNIT_NAMES,
    Facts,
    agreed_rate,
    is_shaft_speed,
    named_unit,
    normalize_name,
    scopes,
    split_unit,
)
from whirl.data.reading import MAX_CHANNELS, UnreadableError
from whirl.data.units import VIBRATION, dimension, normalize_unit, unit_factor

SIGNAL_NAMES = ("signal", "signals", "vibration", "vibrations", "acceleration", "waveform")
"""Names of the signal; arrays of other names beside it are left out."""

UNNAMED = (*SIGNAL_NAMES, "samples", "data")
"""Names that say nothing about a channel."""

_VIBRATION_WORD = re.compile(r"vib|acc(?:el)?(?![a-z])|accel|beschl|schwing|signal|waveform|gs$", re.I)
# Rows of a matrix; more are windows unless they are named, or have a time axis beside them.
_MAX_UNNAMED = 32
_MAX_UNNAMED_SHORT, _MAX_WINDOW = 8, 8192
_SHORT = 64  # samples: a shorter array beside a long one holds parameters
_SHORT_RATIO = 8


@dataclass(frozen=True, eq=False)
class Candidate:
    """An array that may be channels.

    Attributes:
        name: path in the file.
        rows: samples, `[C, N]`.
        rate: sampling rate in Hz; None if nothing beside the array states one.
        units: unit of each channel.
        channels: name of each channel; empty if they are numbered.
    """

    name: str
    rows: np.ndarray
    rate: float | None
    units: tuple[str, ...]
    channels: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Number of samples."""
        return self.rows.shape[1]

    @property
    def is_vibration(self) -> bool:
        """Whether name or unit say that this is a vibration."""
        return is_vibration(self.name) or any(dimension(unit) in VIBRATION for unit in self.units)


class Axes:
    """Time axes of a file; like a fact, an axis belongs to the arrays that it stands beside.

    Args:
        axes: times by path.
        arrays: paths of the arrays that are not time axes.
    """

    def __init__(self, axes: Mapping[str, np.ndarray], arrays: Iterable[str]) -> None:
        occupied = {scope for array in arrays for scope in scopes(array)}
        self._by_scope: dict[str, dict[str, np.ndarray]] = {}
        for name, values in axes.items():
            scope = next((scope for scope in scopes(name)[1:] if scope in occupied), "")
            self._by_scope.setdefault(scope, {})[name] = values

    def beside(self, array: str, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the time axes in the nearest group that has some with as many values as the array."""
        for scope in scopes(array)[1:]:
            here = {name: values for name, values in self._by_scope.get(scope, {}).items() if len(values) in shape}
            if here:
                return here
        return {}


def is_vibration(name: str) -> bool:
    """Return whether a name or its unit is that of a vibration, e.g. `acc_x` or `DE [g]`."""
    path, unit = split_unit(name)
    leaf = path.rsplit("/", 1)[-1]
    is_time = re.search(r"time|zeit|stamp", leaf, re.I) is not None
    return not is_time and (dimension(unit) in VIBRATION or _VIBRATION_WORD.search(leaf[-80:]) is not None)


def is_speed(name: str) -> bool:
    """Return whether an array is the speed of the shaft, by its name (`rpm`, `speed [Hz]`)."""
    if is_shaft_speed(name):
        return True
    plain, unit = normalize_name(name), named_unit(name)
    if plain not in ("speed", "shaftspeed", "rotationalspeed", "drehzahl") or not unit:
        return False
    try:
        unit_factor(unit, "rpm")
    except ValueError:
        return False
    return True


def is_other_speed(name: str) -> bool:
    """Return whether an array is a limit or setting of the speed, e.g. `max_rpm`."""
    return normalize_name(name).endswith("rpm") and not is_shaft_speed(name)


def make_candidate(
    name: str, array: np.ndarray, facts: Facts, axes: Axes, texts: Mapping[str, Sequence[str]]
) -> Candidate:
    """Orient an array as `[C, N]` and find its sampling rate, units and channel names.

    Raises:
        UnreadableError: the shape is that of windows or ambiguous, or facts contradict each other.
    """
    own_axes = axes.beside(name, array.shape)
    names = _texts_beside(name, texts, CHANNEL_NAMES)
    rows = _orient(name, array, {len(axis) for axis in own_axes.values()}, len(names))
    names = names if len(names) == len(rows) else []
    rows, column_rate, kept = _take_time_row(name, rows, names)
    names = [names[row] for row in kept] if names else []
    if not names and not own_axes and _look_like_windows(rows):
        raise UnreadableError(
            f"{name!r} has {len(rows)} unnamed rows of {rows.shape[1]} samples, which look like pre-cut windows; add "
            "a label for each, or export complete recordings"
        )
    _check_scaling(name, rows, facts)
    rates = {axis: rate for axis, values in own_axes.items() if len(values) == rows.shape[1]
             if (rate := times.rate_of(axis, values)) is not None}  # fmt: skip
    if column_rate is not None:
        rates[f"the time column of {name}"] = column_rate
    stated = facts.rate(name)
    if stated is not None:
        rates = {"sampling rate": stated} | rates
    return Candidate(
        name, rows, agreed_rate(rates) if rates else None, _units(name, len(rows), facts, texts), tuple(names)
    )


def _look_like_windows(rows: np.ndarray) -> bool:
    """Return whether unnamed rows are too many or too short for channels; more than `MAX_CHANNELS` are no channels."""
    n_rows, n_samples = rows.shape
    is_short = n_rows > _MAX_UNNAMED_SHORT and n_samples <= _MAX_WINDOW
    return n_rows <= MAX_CHANNELS and (n_rows > _MAX_UNNAMED or is_short)


def select_channels(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """Choose, of at least one candidate, those that form the recording: all of one length and rate.

    Arrays that are named as the signal are chosen before others. Among different sampling rates, the vibration is
    chosen, or the only one of at least 100 Hz. Arrays of at most 64 samples beside others are parameters.

    Returns:
        The chosen candidates in the order of the file, and descriptions of the others.

    Raises:
        UnreadableError: none can be chosen with certainty.
    """
    left_out: list[str] = []
    rest = _keep(candidates, [each for each in candidates if normalize_name(each.name) in SIGNAL_NAMES], left_out)
    longest = max(each.length for each in rest)
    rest = _keep(rest, [each for each in rest if not _is_short(each, longest)], left_out)
    rest = _keep(rest, _one_group(rest, lambda each: _rounded(each.rate), "sampling rates", _is_fast), left_out)
    rest = _keep(rest, _one_group(rest, lambda each: each.length, "lengths", lambda each: False), left_out)
    if len({each.name for each in rest if len(each.rows) > _MAX_UNNAMED}) and len(rest) > 1:
        raise UnreadableError(f"several matrices may be the signal: {_listed(rest)}; save one of them alone")
    return rest, left_out


def channel_names(chosen: Sequence[Candidate]) -> tuple[str, ...]:
    """Return channel names: array names without path where these are unique, numbered for the rows of a matrix."""
    if len(chosen) == 1 and chosen[0].channels:
        return chosen[0].channels
    if len(chosen) == 1 and normalize_name(chosen[0].name) in UNNAMED:
        return ()
    full = [split_unit(each.name)[0] for each in chosen]
    short = [name.rsplit("/", 1)[-1] for name in full]
    names = short if len(set(short)) == len(short) else distinct(full)
    return tuple(
        channel
        for name, each in zip(names, chosen, strict=True)
        for channel in (
            each.channels or ([name] if len(each.rows) == 1 else [f"{name}{i}" for i in range(len(each.rows))])
        )
    )


def channels_first(matrix: np.ndarray) -> np.ndarray:
    """Return a vector or matrix as `[C, N]`; the longer axis is time.

    Raises:
        UnreadableError: the matrix is square.

    Example:
        >>> channels_first(np.zeros((100, 3))).shape, channels_first(np.zeros(100)).shape
        ((3, 100), (1, 100))
    """
    matrix = np.atleast_2d(matrix)
    if matrix.shape[0] == matrix.shape[1]:
        raise UnreadableError(
            f"the time axis of a {matrix.shape[0]} x {matrix.shape[1]} matrix is ambiguous; "
            "export more samples than channels"
        )
    return matrix if matrix.shape[1] > matrix.shape[0] else matrix.T


def _orient(name: str, array: np.ndarray, n_times: set[int], n_names: int) -> np.ndarray:
    """Return an array as `[C, N]`; a time axis or channel names beside it state which axis is time."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    while array.ndim > 2 and array.shape[-1] == 1 and array.ndim > 2 and array.shape[-2] == 1:
        array = array[..., 0]
    if array.ndim > 2:
        raise UnreadableError(
            f"{name!r} has shape {array.shape}; windows need a label for each (an array 'label' of as many values), "
            "other signals shape [channels, samples]"
        )
    if array.ndim < 2 or 1 in array.shape:
        return np.reshape(array, (1, -1))
    is_time = [size in n_times for size in array.shape]
    if n_names and not any(is_time):
        is_time = [array.shape[1] == n_names, array.shape[0] == n_names]
    if is_time[0] != is_time[1]:
        return array.T if is_time[0] else array
    return channels_first(array)


def _take_time_row(name: str, rows: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, float | None, list[int]]:
    """Remove a time axis or counter from the channels of a matrix; return its sampling rate."""
    kept = list(range(len(rows)))
    if len(rows) < 2 or len(rows) > _MAX_UNNAMED or rows.dtype.kind not in "fiu" or rows.shape[1] < 8:
        return rows, None, kept
    axes = [i for i, row in enumerate(rows) if times.is_sample_index(row) or times.is_even_axis(row)]
    if len(axes) == len(rows) or not axes:
        return rows, None, kept
    if len(axes) > 1:
        raise UnreadableError(f"{name!r} contains several time axes (columns {axes}); export one")
    axis = rows[axes[0]]
    kept.remove(axes[0])
    first, last = kept[0], kept[-1]
    is_range = last - first + 1 == len(kept)  # a slice copies nothing
    others = rows[first : last + 1] if is_range else rows[kept]
    return others, times.rate_of(names[axes[0]] if names else "time", axis), kept


def _texts_beside(name: str, texts: Mapping[str, Sequence[str]], wanted: tuple[str, ...]) -> list[str]:
    for scope in scopes(name):
        for each, values in texts.items():
            if normalize_name(each) in wanted and scopes(each)[1] == scope:
                return [str(value).strip() for value in values]
    return []


def _units(name: str, n_channels: int, facts: Facts, texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    several = _texts_beside(name, texts, UNIT_NAMES)
    if len(several) == n_channels:
        return tuple(map(normalize_unit, several))
    unit = split_unit(name)[1] or facts.text(name, UNIT_NAMES) or ""
    return (normalize_unit(str(unit)),) * n_channels


def _check_scaling(name: str, rows: np.ndarray, facts: Facts) -> None:
    factor, _, stated_by = facts.scaling(name)
    if rows.dtype.kind in "iu" and factor != 1:
        raise UnreadableError(
            f"{name!r} contains whole numbers beside {stated_by!r} = {factor:g}; export the scaled samples, or remove "
            f"{stated_by!r} if they are scaled"
        )


def _keep(candidates: Sequence[Candidate], wanted: Sequence[Candidate], left_out: list[str]) -> list[Candidate]:
    """Return the wanted candidates, or all if there are none; describe the others in `left_out`."""
    if not wanted:
        return list(candidates)
    left_out += [_described(each) for each in candidates if each not in wanted]
    return list(wanted)


def _described(each: Candidate) -> str:
    rate = f"{each.rate:g} Hz" if each.rate else "no sampling rate"
    return f"{split_unit(each.name)[0]} ({rate}, {each.length} samples)"


def _listed(candidates: Sequence[Candidate]) -> str:
    more = f" and {len(candidates) - 4} more" if len(candidates) > 4 else ""
    return ", ".join(map(_described, candidates[:4])) + more


def _is_short(each: Candidate, longest: int) -> bool:
    return each.length <= _SHORT and each.length * _SHORT_RATIO <= longest and not is_vibration(each.name)


def _is_fast(each: Candidate) -> bool:
    return each.rate is not None and each.rate >= 100


def _rounded(rate: float | None) -> Hashable:
    return None if rate is None else float(f"{rate:.4g}")


def _one_group(
    candidates: Sequence[Candidate],
    key: Callable[[Candidate], Hashable],
    what: str,
    is_likely: Callable[[Candidate], bool],
) -> list[Candidate]:
    """Return the only group of equal keys, or the only one that is a vibration or likely."""
    keys = dict.fromkeys(map(key, candidates))
    if len(keys) < 2:
        return list(candidates)
    vibration = {key(each) for each in candidates if each.is_vibration}
    likely = {key(each) for each in candidates if is_likely(each)}
    if len(vibration) == 1:
        (wanted,) = vibration
    elif len(vibration) > 1 and None not in vibration and what == "sampling rates":
        wanted = max(vibration)  # pyright: ignore[reportArgumentType] - rates
    elif not vibration and len(likely) == 1 and None not in keys:
        (wanted,) = likely
    else:
        raise UnreadableError(
            f"several arrays of different {what} may be the signal: {_listed(candidates)}; save the signal alone, or "
            "name it 'signal'"
        )
    if wanted is None:
        raise UnreadableError(
            f"the sampling rate of the signal is not stated, but others are: {_listed(candidates)}; save the signal "
            "alone with its sampling rate 'fs'"
        )
    return [each for each in candidates if key(each) == wanted]


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Append a number to names that occur more than once.

    Example:
        >>> distinct(["1+X", "1+X", "2+X"])
        ('1+X.1', '1+X.2', '2+X')
    """
    several = {name for name in names if names.count(name) > 1}
    return tuple(f"{name}.{names[: i + 1].count(name)}" if name in several else name for i, name in enumerate(names))
