"""Naming conventions for formats that prescribe no structure: which variable is signal, time, rate, speed or label.

Nothing is chosen because something else could not be read or was passed over: if another array may be the vibration,
the file is refused with the names of the arrays and the remedy. What is left out on purpose is listed in the metadata
of the recording, under `left_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from whirl.data.blocks import stack_float32
from whirl.data.readers import selection, times
from whirl.data.readers.facts import (
    CHANNEL_NAMES,
    RATE_NAMES,
    STEP_NAMES,
    UNIT_NAMES,
    Facts,
    normalize_name,
    split_unit,
    to_number,
)
from whirl.data.readers.selection import Candidate
from whirl.data.readers.stacks import LABEL_NAMES, find_windows, is_label
from whirl.data.reading import Content, UnreadableError

SLASH = "\u2215"
"""Stands for a slash in a name that is not a path, see `flat_name`."""

UNNAMED_COLUMN = "column "
"""Start of the name of a column without a name, which is followed by its number."""

_INDEX_NAMES = ("index", "idx", "n", "i", "no", "nr", "sample", "samples", "sampleno", "samplenumber", "samplenr",
                "count", "counter", "cnt", "axis0", "axis1", "scan", "row", "point", "record", "recordno")  # fmt: skip
_AXIS_NAMES = ("freq", "frequency", "frequencies", "f", "order", "orders", "angle", "angles", "lag", "lags", "bins")
_MAX_TEXTS = 100_000  # texts that are tried as time stamps or labels


@dataclass(frozen=True)
class Unread:
    """Placeholder for a variable that cannot be read and may be the signal.

    Attributes:
        what: description, e.g. "a MATLAB table".
        remedy: how to export it.
    """

    what: str
    remedy: str = "export it as a plain numeric array"


@dataclass
class _Sorted:
    """Variables of a file by what they are."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    unread: dict[str, Unread] = field(default_factory=dict)


def content_from_variables(variables: Mapping[str, Any]) -> Content:
    """Find the signal, its sampling rate, channel names, unit and speed among named values.

    Time axes, counters, label columns, constants and frequency axes are not channels. Of the other arrays, those with
    names such as `signal` are the channels, or all if they have the same length and rate; `select_channels` decides
    between arrays of different rates. The longer axis of a matrix is time, or the one that has as many values as the
    time axis beside it. Arrays of windows that were cut beforehand are read with their labels. Numbers and texts
    without a known meaning become metadata. Facts belong to the arrays beside them, see `whirl.data.readers.facts`.

    Args:
        variables: arrays, numbers and texts by name. A name may include a path (`"bearing/gs"`) and a unit
            (`"DE [g]"`, `"time (ms)"`).

    Raises:
        UnreadableError: there is no numeric array, more than one could be the signal, a matrix is square, a fact is
            ambiguous, or times are not evenly spaced.

    Example:
        >>> content = content_from_variables({"fs": 12_000, "vib [g]": np.arange(8.0), "shaft_rpm": 1797, "rig": "A"})
        >>> content.signal.shape, content.sampling_rate_hz, content.channels, content.unit, content.rpm
        ((1, 8), 12000.0, ('vib',), 'g', 1797.0)
        >>> content.metadata
        {'rig': 'A'}
    """
    found = _sort(variables)
    facts = Facts(found.facts, [*found.arrays, *found.texts, *found.unread])
    windows = find_windows(found.arrays, found.texts, facts)
    if windows is not None:
        _check_unread(found, [])
        return _restore_slashes(windows)
    axes, left_out, speeds = _take_axes(found)
    left_out = [f"{name} (complex)" for name in _take_complex(found)] + left_out
    beside = selection.Axes(axes, found.arrays)
    candidates = [
        selection.make_candidate(name, array, facts, beside, found.texts) for name, array in found.arrays.items()
    ]
    _check_unread(found, candidates)
    if not candidates:
        beside_it = f", only {', '.join([*axes, *left_out][:4])}" if axes or left_out else ""
        raise UnreadableError(f"contains no numeric signal{beside_it}; export the samples as plain numeric arrays")
    chosen, passed_over = selection.select_channels(candidates)
    return _restore_slashes(_content(chosen, left_out + passed_over, facts, speeds, found.texts))


def flat_name(name: str) -> str:
    """Return a name in which slashes do not separate groups; those of its unit are kept."""
    plain, unit = split_unit(name)
    return plain.replace("/", SLASH) + (f" [{unit}]" if unit else "")


def _restore_slashes(content: Content) -> Content:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(each) for each in value]
        return value.replace(SLASH, "/") if isinstance(value, str) else value

    metadata = {plain(name): plain(value) for name, value in content.metadata.items()}
    return replace(content, channels=tuple(map(plain, content.channels)), metadata=metadata)


def _sort(variables: Mapping[str, Any]) -> _Sorted:
    found = _Sorted()
    for name, value in variables.items():
        _sort_one(name, value, found)
    return found


def _sort_one(name: str, value: Any, found: _Sorted) -> None:
    if value is None or isinstance(value, Unread):
        if value is not None:
            found.unread[name] = value
        return
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different length
        found.unread[name] = Unread("rows of different length")
        return
    kind = array.dtype.kind
    if array.dtype.names:
        for key in array.dtype.names:
            _sort_one(f"{name}/{key}", array[key], found)
    elif array.size == 0:
        return
    elif array.size == 1 and kind in "bfiuUS" and normalize_name(name) not in CHANNEL_NAMES:
        found.facts[name] = _decoded(array.item())
    elif kind in "US" or (kind == "O" and all(isinstance(each, (str, bytes)) for each in array.flat)):
        found.texts[name] = [str(_decoded(each)) for each in array.ravel()[:_MAX_TEXTS]]
    elif kind == "b":
        found.texts[name] = [str(each) for each in array.ravel()[:_MAX_TEXTS]]
    elif kind in "fiucmM" and not _is_vector_fact(name, array, found):
        found.arrays[name] = array
    elif kind not in "fiucmM":
        found.unread[name] = Unread(f"{array.dtype.name} of shape {array.shape}")


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_vector_fact(name: str, array: np.ndarray, found: _Sorted) -> bool:
    """Add a rate or interval that is stored once per sample or channel to the facts."""
    if normalize_name(name) not in (*RATE_NAMES, *STEP_NAMES) or array.dtype.kind not in "fiu":
        return False
    if array.flat[0] != array.flat[-1] or np.ptp(array):
        return False
    found.facts[name] = array.flat[0].item()
    return True


def _take_axes(found: _Sorted) -> tuple[dict[str, np.ndarray], list[str], dict[str, np.ndarray]]:
    """Remove and return the time axes; and what is left out; and the speeds of the shaft by name."""
    axes: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    speeds: dict[str, np.ndarray] = {}
    for name, texts in list(found.texts.items()):
        if len(texts) > 1 and times.is_time_name(name) and (stamps := times.parse_dates(texts)) is not None:
            axes[name] = stamps
            del found.texts[name]
    vectors = {name: np.ravel(array) for name, array in found.arrays.items() if max(array.shape) == array.size}
    roles = {name: _role(name, vector, found) for name, vector in vectors.items()}
    n_signals = sum(role in ("signal", "constant", "monotone") for role in roles.values())
    n_signals += len(found.arrays) - len(vectors)
    varying = n_signals > sum(role in ("constant", "monotone") for role in roles.values())
    for name, role in roles.items():
        if role == "signal" or (role in ("constant", "monotone") and not varying):
            continue
        array = found.arrays.pop(name)
        if role == "time":
            axes[name] = np.ravel(array)
        elif role == "speed":
            speeds[name] = np.ravel(array)
        else:
            left_out.append(f"{split_unit(name)[0]} ({role})")
    return axes, left_out, speeds


def _role(name: str, vector: np.ndarray, found: _Sorted) -> str:
    """Return what a vector is: signal, time, speed, or why it is not a channel."""
    plain = normalize_name(name)
    if vector.dtype.kind in "mM" or _is_named_time(name, plain, vector):
        return "time"
    if vector.dtype.kind == "c":
        return "signal"
    if selection.is_speed(name):
        return "speed"
    if selection.is_other_speed(name):
        return "another speed"
    if is_label(name, vector, found.arrays):
        return "label"
    if selection.is_vibration(name):
        return "signal"
    if not times.is_epoch(vector) and times.is_sample_index(vector) and (len(vector) >= 8 or plain in _INDEX_NAMES):
        return "index"
    if times.is_increasing(vector):
        return _role_of_increasing(name, plain, vector)
    return "constant" if _is_constant(vector) and not name.startswith(UNNAMED_COLUMN) else "signal"


def _is_constant(vector: np.ndarray) -> bool:
    return vector[0] == vector[-1] and np.ptp(vector[:64]) == 0 and np.ptp(vector) == 0


def _is_named_time(name: str, plain: str, vector: np.ndarray) -> bool:
    """Return whether a name is that of a time axis; a short one (`T`) may also be a temperature."""
    if plain not in times.TIME_NAMES or selection.is_vibration(name):
        return False
    return len(plain) > 1 or times.is_increasing(vector)


def _role_of_increasing(name: str, plain: str, vector: np.ndarray) -> str:
    if times.is_time_name(name) or times.is_epoch(vector):
        return "time"
    if plain in _INDEX_NAMES:
        return "index"
    if plain in _AXIS_NAMES or times.is_even_axis(vector):
        return "axis"
    return "monotone" if len(vector) >= 16 else "signal"


def _take_complex(found: _Sorted) -> list[str]:
    """Remove and return complex arrays if there are real ones; a spectrum is not the signal."""
    spectra = [name for name, array in found.arrays.items() if array.dtype.kind == "c"]
    if len(spectra) == len(found.arrays):
        return []
    for name in spectra:
        del found.arrays[name]
    return spectra


def _check_unread(found: _Sorted, chosen: list[Candidate]) -> None:
    """Raise if something that could not be read may be the signal."""
    for name, unread in found.unread.items():
        beside = f" beside {', '.join(each.name for each in chosen[:3])}" if chosen else ""
        raise UnreadableError(f"{name!r}{beside} is {unread.what}, which may be the signal; {unread.remedy}")


def _content(
    chosen: list[Candidate],
    left_out: list[str],
    facts: Facts,
    speeds: dict[str, np.ndarray],
    texts: dict[str, list[str]],
) -> Content:
    signal = _stack([each.rows for each in chosen])
    units = tuple(unit for each in chosen for unit in each.units)
    speed = _mean_speed(speeds)
    rpm = facts.rpm(chosen[0].name) or speed
    for name, values in texts.items():
        if normalize_name(name) in (*CHANNEL_NAMES, *UNIT_NAMES, *LABEL_NAMES):
            continue
        if len(values) <= 256:
            facts.values[name] = values
    metadata = facts.unused() | ({"left_out": left_out} if left_out else {})
    return Content(signal, chosen[0].rate, selection.channel_names(chosen), "", rpm, metadata, units)


def _stack(signals: list[np.ndarray]) -> np.ndarray:
    if len(signals) == 1:
        return signals[0]
    is_real = all(signal.dtype.kind in "fiu" for signal in signals)
    return stack_float32(signals) if is_real else np.concatenate(signals)


def _mean_speed(speeds: dict[str, np.ndarray]) -> float | None:
    """Return the mean of a speed channel in rpm; None if several differ."""
    means = {name: to_number(name, float(np.mean(values)), "rpm") for name, values in speeds.items()}
    found = [mean for mean in means.values() if mean is not None]
    return found[0] if found and max(found) - min(found) <= 0.01 * max(found) else None
