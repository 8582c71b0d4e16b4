"""Axes of figures of searches: positions, ticks and labels of parameter values of any type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.tuning.results import is_number, parameter_names
from whirl.validation import check_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

MAX_TICKS = 25

_UNITS = {"_hz": "Hz", "_s": "s", "_mm": "mm", "_db": "dB"}
_MAX_CHARS = 24


@dataclass(frozen=True)
class Scale:
    """Positions of a parameter's values on an axis.

    Attributes:
        positions: position of each candidate; NaN if it does not have the parameter.
        labels: tick labels of the positions 0, 1, ... of a categorical axis; None for a numeric axis.
        log: whether a numeric axis is logarithmic.
    """

    positions: np.ndarray
    labels: list[str] | None
    log: bool


def parameter_scale(results: DataFrame, name: str) -> Scale:
    """Return the positions of the values of a parameter in a table of results."""
    check_parameter(results, name)
    return scale_of(list(results[name]))


def scale_of(values: Sequence[Any]) -> Scale:
    """Return the positions of values: on a numeric axis if all are finite numbers, otherwise on a categorical one."""
    present = [value for value in values if not _is_missing(value)]
    if present and all(is_number(value) and math.isfinite(value) for value in present):
        numbers = np.array([float(value) if not _is_missing(value) else np.nan for value in values])
        return Scale(numbers, None, _spread_by_ratios(numbers[np.isfinite(numbers)]))
    keys = categories(values)
    return Scale(np.array([keys[key_of(value)] for value in values], float), [text_of_key(key) for key in keys], False)


def _spread_by_ratios(numbers: np.ndarray) -> bool:
    """Return whether the median is closer to the geometric than to the arithmetic mean of the extremes."""
    distinct = np.unique(numbers)
    low, middle, high = distinct[0], distinct[(len(distinct) - 1) // 2], distinct[-1]
    if low <= 0 or high / low < 10:
        return False
    return abs(math.log(middle / math.sqrt(low * high))) < abs(math.log(middle / ((low + high) / 2)))


def categories(values: Any) -> dict[tuple[int, float, str], int]:
    """Return the index of each distinct value: numbers in ascending order, then all others by their text."""
    return {key: index for index, key in enumerate(sorted({key_of(value) for value in values}))}


def key_of(value: Any) -> tuple[int, float, str]:
    """Return a sort key that identifies a value of any type, even an unhashable one."""
    if _is_missing(value):
        return 2, 0.0, "not set"
    if is_number(value) and not math.isnan(value):
        return 0, float(value), f"{value:.4g}"
    return 1, 0.0, str(value)


def _is_missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def text_of_key(key: tuple[int, float, str]) -> str:
    """Return the label of a key, see `key_of`."""
    return label_text(key[2])


def label_text(value: object) -> str:
    """Format a label: shortened to a maximum length, and with dollar signs escaped for Matplotlib."""
    text = " ".join(str(value).split()).replace("$", r"\$")
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}…"


def axis_label(name: str) -> str:
    """Return the label of an axis: the name of the parameter, with the unit that its suffix states.

    Example:
        >>> axis_label("window_s")
        'window_s (s)'
    """
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), None)
    return f"{label_text(name)} ({unit})" if unit else label_text(name)


def apply_scale(scale: Scale, axes: Axes, which: str) -> None:
    """Set scale, ticks and limits of the axis `"x"` or `"y"`."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if scale.log:
        axes.set(**{f"{which}scale": "log"})
    if scale.labels is not None:
        step = math.ceil(len(scale.labels) / MAX_TICKS)
        axis.set_ticks(range(0, len(scale.labels), step), scale.labels[::step])
        axes.set(**{f"{which}lim": (-0.5, len(scale.labels) - 0.5)})
        rotate_long_labels(axes)


def rotate_long_labels(axes: Axes) -> None:
    """Rotate the labels of the horizontal axis if they would overlap."""
    labels = axes.get_xticklabels()
    if sum(len(label.get_text()) for label in labels) > 48:
        for label in labels:
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def check_parameter(results: DataFrame, name: str) -> None:
    """Raise `ValueError` if the table of results does not have the parameter."""
    check_name("parameter", name, parameter_names(results))
