"""Fault features of a vibration signal: groups of spectral lines, band levels and the kurtosis of the envelope."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from whirl.physics.faults import JOURNAL_CLASSES, Line, signature
from whirl.physics.rolling_bearing import FaultOrders

Window = tuple[float, float]

ABSENT_DB = -10.0
"""Evidence in dB of a line that is certainly absent."""

_LOW_BAND, _MID_BAND, _HIGH_BAND = (0.08, 0.40), (0.42, 0.62), (0.64, 0.92)  # fractions of half the sampling rate
_SHAFT_BAND, _STRUCTURE_BAND = (1e-6, 0.08), (0.08, 0.95)


@dataclass(frozen=True)
class Feature:
    """Definition of one fault feature.

    Attributes:
        name: name of the feature.
        kind: what is measured.

            - `"raw"`, `"envelope"`: lines in the spectrum of the signal or of its squared envelope, relative to the
              noise floor around them.
            - `"shaft"`: lines in the spectrum of the signal relative to the power density of the structural band, 0.08
              to 0.95 of half the sampling rate; for lines that every machine shows, weak or strong.
            - `"level"`: power density of a band relative to that of another band.
            - `"kurtosis"`: impulsiveness of the envelope z, `mean(|z|^4) / mean(|z|^2)^2`.
        windows: search windows (low, high) with 0 < low < high: one or more for lines, in `unit`; for a level the band
            and the reference band, as fractions of half the sampling rate; none for the kurtosis.
        combine: how the lines of several windows are combined: `"mean"` in dB for lines that appear together, `"max"`
            for alternatives.
        unit: unit of the windows of lines: orders of shaft speed, or Hz.

    Raises:
        ValueError: the windows do not match the kind.
    """

    name: str
    kind: Literal["raw", "shaft", "envelope", "level", "kurtosis"]
    windows: tuple[Window, ...] = ()
    combine: Literal["mean", "max"] = "mean"
    unit: Literal["order", "hz"] = "order"

    def __post_init__(self) -> None:
        # NumPy scalars and float64 tensors would change the dtype of the evidence
        windows = tuple((float(low), float(high)) for low, high in self.windows)
        object.__setattr__(self, "windows", windows)
        if any(not 0 < low < high for low, high in self.windows):
            raise ValueError(f"feature {self.name!r} has windows {self.windows}, expected 0 < low < high")
        n_windows, n_expected = len(self.windows), {"level": "2", "kurtosis": "0"}.get(self.kind, "at least 1")
        if not {"level": n_windows == 2, "kurtosis": n_windows == 0}.get(self.kind, n_windows > 0):
            raise ValueError(
                f"feature {self.name!r} has {n_windows} windows, expected {n_expected} for kind {self.kind!r}"
            )
        if self.kind == "level" and max(high for _, high in self.windows) > 1:
            raise ValueError(f"level {self.name!r} has bands {self.windows}, expected 0 < low < high <= 1")

    @property
    def is_line(self) -> bool:
        """Whether the feature is a group of spectral lines."""
        return self.kind in ("raw", "shaft", "envelope")


@dataclass(frozen=True)
class LateralInhibition:
    """Mutually exclusive features: a fault shows one of them, so the strongest suppresses the others.

    With evidence e in dB: `e <- e - strength * max(0, strongest - e - margin_db)`, but not below `ABSENT_DB`.

    Attributes:
        names: names of the features.
        strength: factor of the suppression.
        margin_db: distance below the strongest feature, in dB, within which a feature is not suppressed.
    """

    names: tuple[str, ...]
    strength: float
    margin_db: float


def journal_features() -> tuple[Feature, ...]:
    """Return the eleven features that distinguish the faults of a rotor in journal bearings.

    Example:
        >>> [feature.name for feature in journal_features()]
        ['whirl', 'sub-harmonic', 'inter-harmonic', '1X', '2X', '3X', '5X-8X', 'mid level', 'high level',
         'envelope kurtosis', '1X envelope']
    """
    lines = {line.name: line for label in JOURNAL_CLASSES for line in _lines_of(label)}

    def windows(*names: str) -> tuple[Window, ...]:
        return tuple((lines[name].low_order, lines[name].high_order) for name in names)

    return (
        Feature("whirl", "raw", windows("whirl")),
        Feature("sub-harmonic", "raw", windows("1/2X", "1/3X"), combine="max"),
        Feature("inter-harmonic", "raw", windows("3/2X", "5/2X", "4/3X", "7/3X"), combine="max"),
        *(Feature(name, "shaft", windows(name)) for name in ("1X", "2X", "3X")),
        Feature("5X-8X", "raw", windows("5X", "6X", "7X", "8X")),
        Feature("mid level", "level", (_MID_BAND, _LOW_BAND)),
        Feature("high level", "level", (_HIGH_BAND, _LOW_BAND)),
        Feature("envelope kurtosis", "kurtosis"),
        Feature("1X envelope", "envelope", windows("1X envelope")),
    )


def rolling_features(orders: FaultOrders) -> tuple[Feature, ...]:
    """Return the five features that distinguish the faults of a rolling bearing.

    They are one line for each fault, the impulsiveness of the envelope, and the level of structural vibration relative
    to that of the shaft.

    Args:
        orders: fault orders of the bearing.

    Example:
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> [feature.name for feature in rolling_features(fault_orders(BEARINGS["6205"]))]
        ['BPFI', 'BPFO', '2BSF', 'envelope kurtosis', 'structure level']
    """
    main = [_lines_of(label, orders)[0] for label in ("inner_race", "outer_race", "ball")]
    lines = (Feature(line.name, "envelope", ((line.low_order, line.high_order),)) for line in main)
    return (
        *lines,
        Feature("envelope kurtosis", "kurtosis"),
        Feature("structure level", "level", (_STRUCTURE_BAND, _SHAFT_BAND)),
    )


def random_bands(features: Sequence[Feature], seed: int) -> tuple[Feature, ...]:
    """Move the windows of all features to random positions: a negative control without physical meaning.

    Windows keep their width and name. Windows of lines stay below 1.5 times the highest true edge of their kind and
    outside all true windows of that kind; bands of levels may lie anywhere.

    Args:
        features: features to copy.
        seed: seed of the random positions.

    Returns:
        The features with moved windows.

    Raises:
        ValueError: the true windows leave no room for a window of the same width.

    Example:
        >>> (moved,) = random_bands([Feature("1X", "raw", ((0.985, 1.015),))], seed=0)
        >>> (low, high), = moved.windows
        >>> round(high - low, 6), 0.985 < high and low < 1.015
        (0.03, False)
    """
    rng = random.Random(seed)
    occupied = {
        kind: [window for each in features if (each.kind, each.unit) == kind for window in each.windows]
        for kind in {(each.kind, each.unit) for each in features}
    }
    return tuple(
        replace(
            each,
            windows=tuple(_move_window(window, each, occupied[each.kind, each.unit], rng) for window in each.windows),
        )
        for each in features
    )


def _move_window(window: Window, feature: Feature, occupied: list[Window], rng: random.Random) -> Window:
    width = window[1] - window[0]
    lowest, highest = (
        (min(low for low, _ in occupied) / 2, 1.5 * max(high for _, high in occupied)) if feature.is_line else (0, 1)
    )
    for _ in range(1000):
        low = rng.uniform(lowest, highest - width)
        if not feature.is_line or all(low + width < start or end < low for start, end in occupied):
            return low, low + width
    raise ValueError(f"feature {feature.name!r}: no room for a random window of width {width:g} between {occupied}")


def _lines_of(label: str, orders: FaultOrders | None = None) -> tuple[Line, ...]:
    found = signature(label, orders)
    return found.lines if found else ()
