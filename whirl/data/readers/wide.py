"""Tables with one window per row: numbered columns `0`, `1`, ... or `x1`, `x2`, ... are the samples of a window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_NUMBERED = re.compile(r"(.*?)(\d+)")
_MIN_COLUMNS = 33  # fewer numbered columns are channels


def stack_numbered(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Join many numbered columns to one array of windows `[rows, 1, columns]`; others are returned as they are.

    Example:
        >>> stacked = stack_numbered({"label": np.zeros(2), **{f"x{i}": np.zeros(2) for i in range(64)}})
        >>> {name: values.shape for name, values in stacked.items()}
        {'label': (2,), 'x': (2, 1, 64)}
    """
    numbered: dict[str, list[str]] = {}
    for name, values in columns.items():
        match = _NUMBERED.fullmatch(name[-80:])
        if match and isinstance(values, np.ndarray) and values.dtype.kind in "fiu" and values.ndim == 1:
            numbered.setdefault(match[1], []).append(name)
    result = dict(columns)
    for prefix, names in numbered.items():
        numbers = [int(re.sub(r".*?(\d+)$", r"\1", name)) for name in names]
        if len(names) >= _MIN_COLUMNS and np.all(np.diff(numbers) == 1):
            rows = np.stack([result.pop(name) for name in names], axis=-1)
            result[prefix or "windows"] = rows[:, None]
    return result
