"""Conversion of expected fault lines, listed by class, to features and a table of expectations.

The lines of all classes become features. A line is required for the classes that list it, tolerated for a class that
lists an overlapping line, and forbidden for all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from whirl.physics.compatibility import FORBIDDEN, NEUTRAL, REQUIRED
from whirl.physics.faults import Line, Signature
from whirl.physics.features import Feature
from whirl.validation import check_name, check_number

Unit = Literal["hz", "order"]
Spectrum = Literal["both", "raw", "envelope"]
ExpectedLine = float | tuple[float, float] | Line | Signature

Kinds = tuple[Literal["raw", "envelope"], ...]

_KINDS: dict[str, Kinds] = {
    "both": ("raw", "envelope"),
    "raw": ("raw",),
    "envelope": ("envelope",),
}
_SHAFT_CLEARANCE = 0.05  # distance in orders of a search window from the nearest multiple of 1X
_SHAFT_LINE = 0.01  # a line within this distance, in orders, of a multiple of 1X is a shaft harmonic itself


class Expectations(NamedTuple):
    """Features and expectations of listed lines.

    Attributes:
        features: the F features.
        feature_pairs: `[2, L]`, indices of the two features whose maximum is the evidence of each line; None if every
            line has one feature.
        table: `[C, L]`, probability that a line is present given the class.
    """

    features: tuple[Feature, ...]
    feature_pairs: Tensor | None
    table: Tensor


class _Window(NamedTuple):
    """Search window of a line: from low to high, in `unit`, in the spectra of `kinds`."""

    low: float
    high: float
    unit: Unit
    kinds: Kinds

    def overlaps(self, other: _Window) -> bool:
        intersects = self.unit == other.unit and self.low <= other.high and other.low <= self.high
        return intersects and not set(self.kinds).isdisjoint(other.kinds)


_Expected = tuple[_Window, float]  # search window and the probability that the line is present


def expectations(
    lines: Mapping[int, Sequence[ExpectedLine] | Signature],
    n_classes: int,
    tolerance: float = 0.1,
    *,
    freq_unit: Unit = "hz",
    spectrum: Spectrum = "both",
    reference_rpm: float | None = None,
) -> Expectations:
    """Convert lines listed by class to features and a table of expectations.

    Args:
        lines: for each class index a list of lines: a number is a single line, a pair (low, high) a band, and a
            `faults.Line` or `faults.Signature` brings its own windows in orders. The class of an empty list expects
            none of the lines; the row of a class that is not listed is 0.5 throughout.
        n_classes: C.
        tolerance: half-width of the search window of a single line relative to its frequency, in (0, 1). Windows are
            narrowed so that they reach at most halfway to the next line and stay 0.05 orders away from multiples of
            the shaft speed.
        freq_unit: unit of numbers and pairs: `'hz'`, or `'order'` for multiples of the shaft speed.
        spectrum: spectrum of numbers and pairs: `'raw'`, `'envelope'` (impacts) or `'both'`.
        reference_rpm: shaft speed for which lines in Hz are given, to convert them to orders; None keeps them in Hz.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> found = expectations({0: [], 1: [25.0], 2: [75.0]}, n_classes=3, spectrum="raw", reference_rpm=1500)
        >>> [feature.name for feature in found.features]
        ['0.9-1.1 X raw', '2.7-3.3 X raw']
        >>> found.table
        tensor([[0.0800, 0.0800], [0.9000, 0.0800], [0.0800, 0.9000]])
    """
    tolerance = check_number("tolerance", tolerance, 0, 1, open_ends=True)
    check_name("freq_unit", freq_unit, get_args(Unit))
    check_name("spectrum", spectrum, _KINDS)
    per_order = float(reference_rpm) / 60 if reference_rpm and freq_unit == "hz" else 1.0
    unit = "order" if reference_rpm else freq_unit
    given = {
        index: [_expected(line, unit, per_order, _KINDS[spectrum]) for line in _flatten(listed)]
        for index, listed in lines.items()
    }
    given = _with_windows(given, tolerance)
    windows = [*dict.fromkeys(window for each in given.values() for window, _ in each)]
    rows = [
        [_probability(window, given[index]) if index in given else NEUTRAL for window in windows]
        for index in range(n_classes)
    ]
    return Expectations(*_features(windows), torch.tensor(rows).view(n_classes, len(windows)))


def _flatten(listed: Sequence[ExpectedLine] | Signature) -> list[float | tuple[float, float] | Line]:
    items = [listed] if isinstance(listed, Signature) else listed
    return [line for item in items for line in (item.lines if isinstance(item, Signature) else (item,))]


def _expected(line: float | tuple[float, float] | Line, unit: Unit, per_order: float, kinds: Kinds) -> _Expected:
    """Return the window and role of a line; a single frequency is a window of width 0."""
    if isinstance(line, Line):
        window = _Window(line.low_order, line.high_order, "order", (line.spectrum,))
        return window, REQUIRED if line.role == "required" else NEUTRAL
    is_band = isinstance(line, Sequence) or getattr(line, "ndim", 0) == 1
    low, high = map(float, line if is_band else (line, line))  # pyright: ignore[reportArgumentType]
    if not 0 < low <= high < math.inf:
        raise ValueError(f"line is {line}, expected a frequency > 0 or a pair 0 < low <= high")
    return _Window(low / per_order, high / per_order, unit, kinds), REQUIRED


def _with_windows(given: Mapping[int, list[_Expected]], tolerance: float) -> dict[int, list[_Expected]]:
    """Widen single frequencies to search windows that stay clear of other lines and of shaft harmonics."""
    centers = {(window.unit, (window.low + window.high) / 2) for each in given.values() for window, _ in each}

    def widen(window: _Window) -> _Window:
        line = window.low
        if window.high > line:
            return window
        gaps = [abs(other - line) / 2 for unit, other in centers if unit == window.unit and other != line]
        shaft_limit = _shaft_limit(line) if window.unit == "order" else math.inf
        half_width = min(tolerance * line, shaft_limit, *gaps)
        return window._replace(low=line - half_width, high=line + half_width)

    return {index: [(widen(window), role) for window, role in each] for index, each in given.items()}


def _shaft_limit(order: float) -> float:
    """Return the largest half-width, in orders, of a window that contains no multiple of 1X except the line itself."""
    distance = abs(order - round(order))
    if distance < _SHAFT_LINE:
        return 0.5 - _SHAFT_CLEARANCE
    return max(distance - _SHAFT_CLEARANCE, distance / 2)


def _probability(window: _Window, own: Sequence[_Expected]) -> float:
    """Return the probability of a line in the window for a class whose lines are `own`."""
    roles = (role if other == window else NEUTRAL for other, role in own if other.overlaps(window))
    return max(roles, default=FORBIDDEN)


def _features(windows: Sequence[_Window]) -> tuple[tuple[Feature, ...], Tensor | None]:
    """Return the features, and the indices of the first and last feature of each window."""
    by_window = [[_feature(window, kind) for kind in window.kinds] for window in windows]
    features = [*dict.fromkeys(feature for each in by_window for feature in each)]
    if all(len(each) == 1 for each in by_window):
        return tuple(features), None
    return tuple(features), torch.tensor([[features.index(each[i]) for each in by_window] for i in (0, -1)])


def _feature(window: _Window, kind: Literal["raw", "envelope"]) -> Feature:
    name = f"{window.low:.9g}-{window.high:.9g} {'X' if window.unit == 'order' else 'Hz'} {kind}"
    return Feature(name, kind, ((window.low, window.high),), unit=window.unit)
