"""Naming conventions for formats that prescribe no structure: which variable is signal, rate, speed or unit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from whirl.data.reading import Content, UnreadableError

logger = logging.getLogger(__name__)

# Names are normalized before comparison (see `normalize_name`); the first match wins. `rate` comes last: beside another
# rate it is often the shaft speed.
RATE_NAMES = (
    "fs", "samplingrate", "samplerate", "samplingfrequency", "samplefrequency", "sr", "fshz", "sampleratehz",
    "samplingratehz", "rate",
)  # fmt: skip
STEP_NAMES = ("dt", "wfincrement", "timestep", "deltat", "sampleinterval", "samplinginterval", "samplingperiod")
TIME_NAMES = ("time", "t", "times", "timestamp", "elapsedtime", "seconds")
SIGNAL_NAMES = ("signal", "signals", "vibration", "acceleration", "waveform", "samples", "data")
CHANNEL_NAMES = ("channels", "channelnames")
UNIT_NAMES = ("unit", "units")

TIME_UNITS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_FACTORS = {**TIME_UNITS, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "rpm": 1.0}
_QUANTITY = re.compile(r"\s*([-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?)\s*(\S*)\s*")
_UNIT_IN_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]$")
# Characters matched: the run time of the patterns grows with the square of the length.
_MAX_UNIT_CHARS = 80
_MAX_QUANTITY_CHARS = 80


def content_from_variables(variables: Mapping[str, Any]) -> Content:
    """Find the signal, its sampling rate, channel names, unit and speed among named values.

    The longest numeric arrays are the channels; if arrays have names such as `signal`, only those are considered. The
    longer axis of a matrix is time. Arrays named `time` or `rpm` are not channels. Numbers and texts without a known
    meaning become metadata.

    Args:
        variables: arrays, numbers and texts by name. A name may include a path (`"bearing/gs"`) and a unit
            (`"DE [g]"`, `"time (ms)"`).

    Raises:
        UnreadableError: there is no numeric array, a matrix is square, or times are not evenly spaced.

    Example:
        >>> content = content_from_variables({"fs": 12_000, "vib [g]": np.arange(8.0), "shaft_rpm": 1797, "rig": "A"})
        >>> content.signal.shape, content.sampling_rate_hz, content.channels, content.unit, content.rpm
        ((1, 8), 12000.0, ('vib',), 'g', 1797.0)
        >>> content.metadata
        {'rig': 'A'}
    """
    arrays, scalars = _split_arrays_and_scalars(variables)
    rate = _pop_positive(scalars, RATE_NAMES)
    step = _pop_positive(scalars, STEP_NAMES)
    if rate is None and step is not None:
        rate = round_if_close(1 / step)
    time = _find_name(arrays, TIME_NAMES)
    if time is not None and arrays[time].ndim == 1:
        rate = rate or _rate_from_time_array(time, arrays[time])
        del arrays[time]
    rpm = _pop_rpm(arrays, scalars)
    signal, channels, unit = _select_signal(arrays)
    names = _find_name(scalars, CHANNEL_NAMES)
    if names is not None:
        channels = tuple(str(name) for name in np.atleast_1d(scalars.pop(names)))
    named_unit = _find_name(scalars, UNIT_NAMES)
    if named_unit is not None:
        unit = str(scalars.pop(named_unit))
    if len(channels) != len(signal):
        channels = ()
    return Content(signal, rate, channels, unit, rpm, metadata=scalars)


def normalize_name(name: str) -> str:
    """Return a name in lower case without path, unit and punctuation.

    Example:
        >>> normalize_name("bearing/Sampling_Rate [Hz]"), normalize_name("X105RPM")
        ('samplingrate', 'x105rpm')
    """
    return re.sub(r"[\W_]", "", split_unit(name)[0].rsplit("/", 1)[-1]).lower()


def split_unit(name: str) -> tuple[str, str]:
    """Split a name into the name proper and its unit in brackets, empty if there is none.

    Example:
        >>> split_unit("Acc X [m/s^2]"), split_unit("DE")
        (('Acc X', 'm/s^2'), ('DE', ''))
    """
    name = name.strip()
    match = _UNIT_IN_BRACKETS.search(name[-_MAX_UNIT_CHARS:])
    return (name[: -len(match[0])].strip(), match[1].strip()) if match else (name, "")


def rate_from_times(seconds: np.ndarray, tolerance: float = 0.5) -> float | None:
    """Return the sampling rate in Hz of sample times, or None if they are not evenly spaced and increasing.

    Args:
        seconds: sample times, `[N]`, in s.
        tolerance: largest deviation of a time from its even position, in sampling intervals; times in files are
            rounded.

    Example:
        >>> rate_from_times(np.array([0.0, 5e-5, 1e-4, 1.5e-4]))
        20000.0
        >>> rate_from_times(np.array([0.0, 1.0, 5.0])) is None
        True
    """
    times = np.asarray(seconds, dtype=np.float64)
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    if not (np.isfinite(step) and step > 0):
        return None
    deviation = np.abs(times - (times[0] + step * np.arange(len(times)))).max()
    return round_if_close(1 / step) if deviation <= tolerance * step else None


def round_if_close(rate: float) -> float:
    """Round a rate to an integer if they differ only by rounding errors."""
    return float(round(rate)) if abs(rate - round(rate)) <= 1e-6 * rate else float(rate)


def is_sample_index(column: np.ndarray) -> bool:
    """Return whether numbers `[N]` only count the samples."""
    return len(column) > 1 and bool(np.all(np.diff(column) == 1))


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


def _split_arrays_and_scalars(variables: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays that may be channels, and scalars; other values (cells, objects, tables) are ignored."""
    arrays: dict[str, np.ndarray] = {}
    scalars: dict[str, Any] = {}
    for name, value in variables.items():
        array = np.asarray(value)
        is_channel_list = normalize_name(name) in CHANNEL_NAMES and array.dtype.kind in "US"
        if (array.size == 1 and array.dtype.kind in "bfiuUS") or is_channel_list:
            scalars[name] = array.ravel().tolist() if array.size > 1 else array.item()
        elif array.size > 1 and array.dtype.kind in "fiucmM" and np.squeeze(array).ndim <= 2:
            arrays[name] = np.squeeze(array)
        else:
            logger.debug("ignored %s (%s %s): not a signal", name, array.dtype, array.shape)
    return arrays, scalars


def _find_name(names: Mapping[str, Any], wanted: tuple[str, ...]) -> str | None:
    """Return the first of `names` whose normalized form is in `wanted`, in the order of `wanted`."""
    by_normalized: dict[str, str] = {}
    for name in names:
        by_normalized.setdefault(normalize_name(name), name)
    return next((by_normalized[word] for word in wanted if word in by_normalized), None)


def _pop_positive(scalars: dict[str, Any], wanted: tuple[str, ...]) -> float | None:
    """Remove the number named by one of `wanted` and return it; None if there is none above 0."""
    name = _find_name(scalars, wanted)
    return None if name is None else _parse_positive(name, scalars.pop(name))


def _parse_positive(name: str, value: Any) -> float | None:
    """Convert a number, or a text such as "25,6 kHz", to Hz, s or rpm; None unless above 0."""
    unit = split_unit(name)[1]
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value[:_MAX_QUANTITY_CHARS])
        if match is None:
            return None
        value, unit = match[1].replace(",", "."), match[2] or unit
    number = float(value) * _FACTORS.get(unit.lower(), 1.0)
    return number if np.isfinite(number) and number > 0 else None


def _rate_from_time_array(name: str, times: np.ndarray) -> float | None:
    """Return the sampling rate of an array named `time`; None if it only counts samples."""
    if times.dtype.kind in "mM":
        seconds = (times - times[0]) / np.timedelta64(1, "s")
    elif is_sample_index(times):
        return None
    else:
        seconds = times * TIME_UNITS.get(split_unit(name)[1].lower(), 1.0)
    rate = rate_from_times(seconds)
    if rate is None:
        raise UnreadableError(
            f"the times in {name!r} are not evenly spaced (missing samples?); export evenly sampled data"
        )
    return rate


def _pop_rpm(arrays: dict[str, np.ndarray], scalars: dict[str, Any]) -> float | None:
    """Remove the shaft speed and return it: a number whose name ends in rpm, or the mean of such a channel."""
    for values in (scalars, arrays):
        name = next((name for name in values if normalize_name(name).endswith("rpm")), None)
        if name is not None:
            value = values.pop(name)
            return _parse_positive(name, np.mean(value) if isinstance(value, np.ndarray) else value)
    return None


def _select_signal(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Return the channels `[C, N]`, their names, and their unit."""
    numeric = {name: array for name, array in arrays.items() if array.dtype.kind not in "mM"}
    if not numeric:
        raise UnreadableError("contains no numeric signal; export the samples as plain numeric arrays")
    named = {name: array for name, array in numeric.items() if normalize_name(name) in SIGNAL_NAMES}
    candidates = named or numeric
    length = max(max(array.shape) for array in candidates.values())
    chosen = {name: channels_first(array) for name, array in candidates.items() if max(array.shape) == length}
    ignored = sorted(set(numeric) - set(chosen))
    if ignored:
        logger.debug("used as the signal: %s; ignored: %s", list(chosen), ignored)
    signal = next(iter(chosen.values())) if len(chosen) == 1 else np.concatenate(list(chosen.values()))
    return signal, _channel_names(chosen), _common_unit(chosen)


def _channel_names(chosen: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Return channel names: array names without path where these are unique, numbered for the rows of a matrix."""
    if len(chosen) == 1 and normalize_name(next(iter(chosen))) in SIGNAL_NAMES:
        return ()
    full = [split_unit(name)[0] for name in chosen]
    short = [name.rsplit("/", 1)[-1] for name in full]
    names = short if len(set(short)) == len(short) else full
    return tuple(
        name if len(rows) == 1 else f"{name}{row}"
        for name, rows in zip(names, chosen.values(), strict=True)
        for row in range(len(rows))
    )


def _common_unit(chosen: dict[str, np.ndarray]) -> str:
    units = {split_unit(name)[1] for name in chosen}
    return units.pop() if len(units) == 1 else ""
