"""Expected fault lines, as an engineer lists them by class, made into features to look for and a table of expectations.

The lines of all classes are looked for. Each is required of the classes that list it, tolerated of a class with an
overlapping one, and forbidden to the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from whirl.physics.compatibility import FORBIDDEN, NEUTRAL, REQUIRED
from whirl.physics.faults import Line, Signature
from whirl.physics.features import Feature

Unit = Literal["hz", "order"]
Spectrum = Literal["both", "raw", "envelope"]
ExpectedLine = float | tuple[float, float] | Line | Signature

Kinds = tuple[Literal["raw", "envelope"], ...]

_KINDS: dict[str, Kinds] = {
    "both": ("raw", "envelope"),
    "raw": ("raw",),
    "envelope": ("envelope",),
}
_SHAFT_CLEARANCE = 0.05  # orders that a search window keeps from a multiple of 1X,
_SHAFT_LINE = 0.01  # unless its line lies so near to one that it is one


class Expectations(NamedTuple):
    """What to look for, and what each class expects of it.

    Attributes:
        features: the F features.
        looks: `[2, L]`, the two features of which the stronger is the line; None if the lines are the features.
        table: `[C, L]`, probability that a line is there given the class.
    """

    features: tuple[Feature, ...]
    looks: Tensor | None
    table: Tensor


class _Window(NamedTuple):
    """Where a line is looked for: from low to high, in `unit`, in the spectra of `kinds`."""

    low: float
    high: float
    unit: Unit
    kinds: Kinds

    def overlaps(self, other: _Window) -> bool:
        touching = self.unit == other.unit and self.low <= other.high and other.low <= self.high
        return touching and not set(self.kinds).isdisjoint(other.kinds)


_Expected = tuple[_Window, float]  # where, and the probability that the line is there


def expectations(
    lines: Mapping[int, Sequence[ExpectedLine] | Signature],
    n_classes: int,
    tolerance: float = 0.1,
    *,
    freq_unit: Unit = "hz",
    spectrum: Spectrum = "both",
    reference_rpm: float | None = None,
) -> Expectations:
    """Features and table of listed lines.

    Args:
        lines: for each class index a list of lines: a number is a line, a pair (low, high) a band, a `faults.Line` or
            `faults.Signature` speaks for itself (in orders). An empty list expects none of the lines; nothing is known
            of a class left out, its row is 0.5.
        n_classes: C.
        tolerance: half-width of the search about a line, as a share of its frequency, in (0, 1); never more than half
            the way to the next line, nor nearer than 0.05 orders to a multiple of shaft speed.
        freq_unit: of numbers and pairs, `'hz'` or `'order'`, multiples of shaft speed.
        spectrum: where numbers and pairs are looked for: `'raw'`, `'envelope'` (impacts) or `'both'`.
        reference_rpm: the speed that lines in Hz are given for; they then become orders.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> found = expectations({0: [], 1: [25.0], 2: [75.0]}, n_classes=3, spectrum="raw", reference_rpm=1500)
        >>> [feature.name for feature in found.features]
        ['0.9-1.1 X raw', '2.7-3.3 X raw']
        >>> found.table
        tensor([[0.0800, 0.0800], [0.9000, 0.0800], [0.0800, 0.9000]])
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}, expected in (0, 1)")
    if freq_unit not in ("hz", "order") or spectrum not in _KINDS:
        raise ValueError(f"freq_unit is {freq_unit!r} and spectrum {spectrum!r}, expected hz, order; {[*_KINDS]}")
    per_order = reference_rpm / 60 if reference_rpm and freq_unit == "hz" else 1.0
    unit = "order" if reference_rpm else freq_unit
    given = {
        index: [_expected(line, unit, per_order, _KINDS[spectrum]) for line in _one_by_one(listed)]
        for index, listed in lines.items()
    }
    given = _widened(given, tolerance)
    windows = [*dict.fromkeys(window for each in given.values() for window, _ in each)]
    rows = [
        [_probability(window, given[index]) if index in given else NEUTRAL for window in windows]
        for index in range(n_classes)
    ]
    return Expectations(*_features(windows), torch.tensor(rows).view(n_classes, len(windows)))


def _one_by_one(listed: Sequence[ExpectedLine] | Signature) -> list[float | tuple[float, float] | Line]:
    items = [listed] if isinstance(listed, Signature) else listed
    return [line for item in items for line in (item.lines if isinstance(item, Signature) else (item,))]


def _expected(line: float | tuple[float, float] | Line, unit: Unit, per_order: float, kinds: Kinds) -> _Expected:
    """A single frequency is a window without width."""
    if isinstance(line, Line):
        window = _Window(line.low_order, line.high_order, "order", (line.spectrum,))
        return window, REQUIRED if line.role == "required" else NEUTRAL
    low, high = line if isinstance(line, (tuple, list)) else (line, line)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"an expected line is {line}, expected a frequency > 0 or a pair 0 < low <= high")
    return _Window(low / per_order, high / per_order, unit, kinds), REQUIRED


def _widened(given: Mapping[int, list[_Expected]], tolerance: float) -> dict[int, list[_Expected]]:
    """Single frequencies get windows, no wider than keeps them off other lines and the shaft's harmonics."""
    middles = {(window.unit, (window.low + window.high) / 2) for each in given.values() for window, _ in each}

    def widened(window: _Window) -> _Window:
        line = window.low
        if window.high > line:
            return window
        gaps = [abs(other - line) / 2 for unit, other in middles if unit == window.unit and other != line]
        beside_shaft = _room_beside_shaft(line) if window.unit == "order" else math.inf
        half_width = min(tolerance * line, beside_shaft, *gaps)
        return window._replace(low=line - half_width, high=line + half_width)

    return {index: [(widened(window), role) for window, role in each] for index, each in given.items()}


def _room_beside_shaft(order: float) -> float:
    """How far a window may reach from a line without taking in a multiple of 1X that is not the line itself."""
    distance = abs(order - round(order))
    if distance < _SHAFT_LINE:
        return 0.5 - _SHAFT_CLEARANCE
    return max(distance - _SHAFT_CLEARANCE, distance / 2)


def _probability(window: _Window, own: Sequence[_Expected]) -> float:
    """That a line is in the window, for a class with lines of its own."""
    found = (role if mine == window else NEUTRAL for mine, role in own if mine.overlaps(window))
    return max(found, default=FORBIDDEN)


def _features(windows: Sequence[_Window]) -> tuple[tuple[Feature, ...], Tensor | None]:
    """What to look for, and for each window the first and last of its features."""
    of_window = [[_feature(window, kind) for kind in window.kinds] for window in windows]
    features = [*dict.fromkeys(feature for each in of_window for feature in each)]
    if all(len(each) == 1 for each in of_window):
        return tuple(features), None
    return tuple(features), torch.tensor([[features.index(each[i]) for each in of_window] for i in (0, -1)])


def _feature(window: _Window, kind: Literal["raw", "envelope"]) -> Feature:
    name = f"{window.low:.9g}-{window.high:.9g} {'X' if window.unit == 'order' else 'Hz'} {kind}"
    return Feature(name, kind, ((window.low, window.high),), unit=window.unit)
