"""Text of search reports: values, candidates, counts and durations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_value(value: Any) -> str:
    """Format the value of a setting.

    Example:
        >>> format_value(0.0012345), format_value(None), format_value("adamw")
        ('0.00123', 'none', 'adamw')
    """
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value is None else str(value)


def format_candidate(candidate: Mapping[str, Any]) -> str:
    """Format the values of a candidate in one line.

    Example:
        >>> format_candidate({"lr": 0.0012345, "augment": None})
        'lr 0.00123, augment none'
    """
    return ", ".join(f"{name} {format_value(value)}" for name, value in candidate.items())


def format_range(values: dict[str, Any] | list[Any]) -> str:
    """Format what is searched of one setting: a range or a list of values.

    Example:
        >>> format_range({"low": 1e-4, "high": 0.1, "log": True}), format_range([32, 64])
        ('0.0001 to 0.1, logarithmic', '32, 64')
    """
    if isinstance(values, list):
        return ", ".join(map(format_value, values))
    scale = ", logarithmic" if values.get("log") else ""
    return f"{format_value(values['low'])} to {format_value(values['high'])}{scale}"


def format_count(n: int, noun: str) -> str:
    """Format a number with its noun.

    Example:
        >>> format_count(1, "trial"), format_count(2, "trial")
        ('1 trial', '2 trials')
    """
    return f"{n} {noun}{'' if n == 1 else 's'}"


def format_duration(seconds: float | None) -> str:
    """Format a duration in seconds, minutes or hours.

    Example:
        >>> format_duration(0.52), format_duration(75), format_duration(8000), format_duration(None)
        ('0.52 s', '1.2 min', '2.2 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
