"""What names usually mean where a file format leaves them free."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from whirl.data.reading import Content, UnreadableError

logger = logging.getLogger(__name__)

# Compared without case, unit, path and punctuation; the first that is there counts. `rate` comes last:
# beside another rate it is often the shaft's.
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
# Letters looked at: the patterns take time that grows with the square of the length.
_MAX_UNIT = 80
_MAX_QUANTITY = 80


def content_from_variables(variables: Mapping[str, Any]) -> Content:
    """Find the signal among named values, and what they say about it.

    Args:
        variables: arrays, numbers and texts by name. A name may carry a path (`"bearing/gs"`) and a
            unit (`"DE [g]"`, `"time (ms)"`).

    Returns:
        The longest numeric arrays as channels, those alone that are called `signal` or the like where
        there are such. The longer axis of a matrix is time. Arrays called `time` and `rpm` are no
        channels. Numbers and texts that mean nothing known become metadata.

    Raises:
        UnreadableError: there is no numeric array, a matrix is square, or times do not rise evenly.

    Example:
        >>> content = content_from_variables({"fs": 12_000, "vib [g]": np.arange(8.0), "shaft_rpm": 1797, "rig": "A"})
        >>> content.signal.shape, content.sampling_rate_hz, content.channels, content.unit, content.rpm
        ((1, 8), 12000.0, ('vib',), 'g', 1797.0)
        >>> content.metadata
        {'rig': 'A'}
    """
    arrays, scalars = _sort_out(variables)
    rate = _first_positive(scalars, RATE_NAMES)
    step = _first_positive(scalars, STEP_NAMES)
    if rate is None and step is not None:
        rate = whole(1 / step)
    time = _find(arrays, TIME_NAMES)
    if time is not None and arrays[time].ndim == 1:
        rate = rate or _rate_of_times(time, arrays[time])
        del arrays[time]
    rpm = _rpm(arrays, scalars)
    signal, channels, unit = _signal(arrays)
    names = _find(scalars, CHANNEL_NAMES)
    if names is not None:
        channels = tuple(str(name) for name in np.atleast_1d(scalars.pop(names)))
    named_unit = _find(scalars, UNIT_NAMES)
    if named_unit is not None:
        unit = str(scalars.pop(named_unit))
    if len(channels) != len(signal):
        channels = ()
    return Content(signal, rate, channels, unit, rpm, metadata=scalars)


def plain(name: str) -> str:
    """A name without path, unit, case and punctuation.

    Example:
        >>> plain("bearing/Sampling_Rate [Hz]"), plain("X105RPM")
        ('samplingrate', 'x105rpm')
    """
    return re.sub(r"[\W_]", "", split_unit(name)[0].rsplit("/", 1)[-1]).lower()


def split_unit(name: str) -> tuple[str, str]:
    """A name and the unit it carries in brackets.

    Example:
        >>> split_unit("Acc X [m/s^2]"), split_unit("DE")
        (('Acc X', 'm/s^2'), ('DE', ''))
    """
    name = name.strip()
    match = _UNIT_IN_BRACKETS.search(name[-_MAX_UNIT:])
    return (name[: -len(match[0])].strip(), match[1].strip()) if match else (name, "")


def rate_of_times(seconds: np.ndarray, tolerance: float = 0.5) -> float | None:
    """Sampling rate in Hz of sample times `[N]`; None where they do not rise evenly.

    Args:
        seconds: the times.
        tolerance: how far, in steps, a time may lie off its place: written times are rounded.

    Example:
        >>> rate_of_times(np.array([0.0, 5e-5, 1e-4, 1.5e-4]))
        20000.0
        >>> rate_of_times(np.array([0.0, 1.0, 5.0])) is None
        True
    """
    times = np.asarray(seconds, dtype=np.float64)
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    if not (np.isfinite(step) and step > 0):
        return None
    off_place = np.abs(times - (times[0] + step * np.arange(len(times)))).max()
    return whole(1 / step) if off_place <= tolerance * step else None


def whole(rate: float) -> float:
    """The integer where `rate` is one but for rounding, else `rate` itself."""
    return float(round(rate)) if abs(rate - round(rate)) <= 1e-6 * rate else float(rate)


def counts_samples(column: np.ndarray) -> bool:
    """Whether `[N]` numbers are just the running number of the sample."""
    return len(column) > 1 and bool(np.all(np.diff(column) == 1))


def channels_first(matrix: np.ndarray) -> np.ndarray:
    """`[C, N]` from a vector or a matrix either way round: the longer axis is time.

    Example:
        >>> channels_first(np.zeros((100, 3))).shape, channels_first(np.zeros(100)).shape
        ((3, 100), (1, 100))
    """
    matrix = np.atleast_2d(matrix)
    if matrix.shape[0] == matrix.shape[1]:
        raise UnreadableError(f"a {matrix.shape[0]} x {matrix.shape[1]} matrix does not show which axis is time")
    return matrix if matrix.shape[1] > matrix.shape[0] else matrix.T


def _sort_out(variables: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays that could be channels, and single values; the rest (cells, objects, tables) is left."""
    arrays: dict[str, np.ndarray] = {}
    scalars: dict[str, Any] = {}
    for name, value in variables.items():
        array = np.asarray(value)
        names_channels = plain(name) in CHANNEL_NAMES and array.dtype.kind in "US"
        if (array.size == 1 and array.dtype.kind in "bfiuUS") or names_channels:
            scalars[name] = array.ravel().tolist() if array.size > 1 else array.item()
        elif array.size > 1 and array.dtype.kind in "fiucmM" and np.squeeze(array).ndim <= 2:
            arrays[name] = np.squeeze(array)
        else:
            logger.debug("%s (%s %s) is no signal", name, array.dtype, array.shape)
    return arrays, scalars


def _find(names: Mapping[str, Any], wanted: tuple[str, ...]) -> str | None:
    """The first of `names` that means one of `wanted`, in the order of `wanted`."""
    meaning: dict[str, str] = {}
    for name in names:
        meaning.setdefault(plain(name), name)
    return next((meaning[word] for word in wanted if word in meaning), None)


def _first_positive(scalars: dict[str, Any], wanted: tuple[str, ...]) -> float | None:
    """Take out the number that means one of `wanted`; None where there is none above 0."""
    name = _find(scalars, wanted)
    return None if name is None else _positive(name, scalars.pop(name))


def _positive(name: str, value: Any) -> float | None:
    """A number, or a text such as "25,6 kHz", in Hz, s or rpm; None unless above 0."""
    unit = split_unit(name)[1]
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value[:_MAX_QUANTITY])
        if match is None:
            return None
        value, unit = match[1].replace(",", "."), match[2] or unit
    number = float(value) * _FACTORS.get(unit.lower(), 1.0)
    return number if np.isfinite(number) and number > 0 else None


def _rate_of_times(name: str, times: np.ndarray) -> float | None:
    """Sampling rate of an array called time; None where it only counts samples."""
    if times.dtype.kind in "mM":
        seconds = (times - times[0]) / np.timedelta64(1, "s")
    elif counts_samples(times):
        return None
    else:
        seconds = times * TIME_UNITS.get(split_unit(name)[1].lower(), 1.0)
    rate = rate_of_times(seconds)
    if rate is None:
        raise UnreadableError(
            f"the times in {name!r} do not rise evenly (samples missing?); export evenly sampled data"
        )
    return rate


def _rpm(arrays: dict[str, np.ndarray], scalars: dict[str, Any]) -> float | None:
    """Take out the shaft speed: a number whose name ends in rpm, or the mean of such a channel."""
    for values in (scalars, arrays):
        name = next((name for name in values if plain(name).endswith("rpm")), None)
        if name is not None:
            value = values.pop(name)
            return _positive(name, np.mean(value) if isinstance(value, np.ndarray) else value)
    return None


def _signal(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Channels `[C, N]`, their names, and their unit."""
    numeric = {name: array for name, array in arrays.items() if array.dtype.kind not in "mM"}
    if not numeric:
        raise UnreadableError("there is no numeric signal in it; export the samples as plain numeric arrays")
    named = {name: array for name, array in numeric.items() if plain(name) in SIGNAL_NAMES}
    candidates = named or numeric
    length = max(max(array.shape) for array in candidates.values())
    chosen = {name: channels_first(array) for name, array in candidates.items() if max(array.shape) == length}
    left = sorted(set(numeric) - set(chosen))
    if left:
        logger.debug("taken as the signal: %s; left: %s", list(chosen), left)
    signal = next(iter(chosen.values())) if len(chosen) == 1 else np.concatenate(list(chosen.values()))
    return signal, _channel_names(chosen), _common_unit(chosen)


def _channel_names(chosen: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Names of the channels: the arrays' last name where that tells them apart, numbered in a matrix."""
    if len(chosen) == 1 and plain(next(iter(chosen))) in SIGNAL_NAMES:
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
