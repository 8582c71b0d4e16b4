"""Windows that were cut beforehand: arrays `[W, C, T]` or `[W, T]` with a label for each window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from whirl.data.blocks import blocks
from whirl.data.readers.facts import UNIT_NAMES, Facts, normalize_name
from whirl.data.reading import MAX_CHANNELS, Content, UnreadableError
from whirl.data.units import normalize_unit

LABEL_NAMES = (
    "label", "labels", "y", "target", "targets", "class", "classes", "classid", "classlabel", "fault", "faults",
    "faulttype", "faultlabel", "category", "ytrain", "ytest", "labelid", "onehot",
)  # fmt: skip
"""Names of labels."""

_GROUP_NAMES = (
    "group", "groups", "specimen", "specimens", "specimenid", "bearing", "bearings", "bearingid", "machine",
    "machineid", "recording", "recordingid", "file", "files", "fileid", "run", "runid",
)  # fmt: skip
_CLASS_NAMES = ("classnames", "labelnames", "targetnames", "classes")
_MAX_CHANNELS = 32  # an array of more values per label holds windows, not a label for each sample
_MAX_CLASSES = 1000


def is_label(name: str, vector: np.ndarray, arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether an array holds labels; a `y` beside an `x` of the same length is an axis of a sensor."""
    plain = normalize_name(name)
    if plain not in LABEL_NAMES or vector.dtype.kind not in "fiu" or not _is_integer(vector):
        return False
    others = (array for other, array in arrays.items() if normalize_name(other) in ("x", "z"))
    return plain != "y" or not any(array.size == vector.size for array in others)


def find_windows(arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]], facts: Facts) -> Content | None:
    """Return the windows in a file with their labels; None if it contains none.

    Raises:
        UnreadableError: it cannot be decided which array or axis holds the windows.
    """
    labels = _labels(arrays, texts)
    stacks = [
        (name, label, axis)
        for name, array in arrays.items()
        if name not in labels
        for label, values in labels.items()
        if (axis := _window_axis(name, array, len(values))) is not None
    ]
    if not stacks:
        return None
    if len({name for name, _, _ in stacks}) > 1 or len({len(labels[label]) for _, label, _ in stacks}) > 1:
        names = ", ".join(sorted({name for name, _, _ in stacks}))
        raise UnreadableError(f"contains several arrays of windows: {names}; save one per file")
    name, label, axis = stacks[0]
    signal = _windows_first(name, np.moveaxis(arrays[name], axis, 0))
    others = [other for other in arrays if other not in (name, *labels) and arrays[other].size > 64]
    unit = str(facts.text(name, UNIT_NAMES) or "")
    rate, rpm = facts.rate(name), facts.rpm(name)
    return Content(
        signal,
        rate,
        unit=normalize_unit(unit),
        rpm=rpm,
        metadata=facts.unused() | ({"left_out": others} if others else {}),
        labels=_named(labels[label], texts),
        groups=_groups(len(signal), arrays, texts),
    )


def _labels(arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    labels = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            continue
        is_vector = array.size == max(array.shape)
        if is_vector and is_label(name, array, arrays):
            labels[name] = [str(int(value)) for value in array.ravel()]
        elif normalize_name(name) in LABEL_NAMES and array.ndim == 2 and _is_one_hot(array):
            labels[name] = [str(int(value)) for value in array.argmax(axis=1)]
    for name, values in texts.items():
        # Texts that are all different are names of channels.
        if normalize_name(name) in LABEL_NAMES and len(set(values)) < len(values):
            labels[name] = list(values)
    return labels


def _is_integer(values: np.ndarray) -> bool:
    parts = chain([values[:64]], blocks(values))  # most signals fail within the first numbers
    return values.dtype.kind in "iu" or all(bool(np.all(np.isfinite(p)) and np.all(p == np.round(p))) for p in parts)


def _is_one_hot(array: np.ndarray) -> bool:
    is_small = 1 < array.shape[1] <= _MAX_CLASSES
    return is_small and bool(np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all())


def _window_axis(name: str, array: np.ndarray, n_labels: int) -> int | None:
    """Return the axis of an array along which there is one label for each value; None if it holds no windows."""
    if n_labels < 2 or array.dtype.kind not in "fiu":
        return None
    axes = [axis for axis, size in enumerate(array.shape) if size == n_labels]
    if array.ndim == 3 and len(axes) > 1:
        raise UnreadableError(
            f"{name!r} has shape {array.shape} and {n_labels} labels, which fit several axes; save [windows, channels, "
            "samples] with different sizes"
        )
    if array.ndim == 3:
        return axes[0] if axes else None
    if array.ndim != 2 or len(axes) != 1 or 1 in array.shape:
        return None
    return axes[0] if array.shape[1 - axes[0]] > _MAX_CHANNELS else None


def _windows_first(name: str, array: np.ndarray) -> np.ndarray:
    """Return windows `[W, T]`, `[W, C, T]` or `[W, T, C]` as `[W, C, T]`."""
    if array.ndim == 2:
        return array[:, None]
    _, first, second = array.shape
    if first == second:
        raise UnreadableError(
            f"{name!r} has shape {array.shape}: channels and samples cannot be told apart; save more samples than "
            "channels"
        )
    signal = array if first < second else array.transpose(0, 2, 1)
    if signal.shape[1] > MAX_CHANNELS:
        raise UnreadableError(
            f"{name!r} has {signal.shape[1]} channels, expected at most {MAX_CHANNELS}; check its axes"
        )
    return signal


def _named(labels: list[str], texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Replace class numbers by the names of the classes if the file lists them."""
    names = next((list(values) for name, values in texts.items() if normalize_name(name) in _CLASS_NAMES), [])
    numbers = [int(label) if label.lstrip("-").isdecimal() else -1 for label in labels]
    if names and len(set(names)) == len(names) and min(numbers) >= 0 and max(numbers) < len(names):
        return tuple(names[number] for number in numbers)
    return tuple(labels)


def _groups(n_windows: int, arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the specimen of each window, if the file states it."""
    for name in [*texts, *arrays]:
        if normalize_name(name) not in _GROUP_NAMES:
            continue
        values = list(texts[name]) if name in texts else [f"{value:g}" for value in np.ravel(arrays[name])]
        if len(values) == n_windows:
            return tuple(values)
    return ()
