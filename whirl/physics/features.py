"""What to look for in a vibration: features, each a group of lines, a band level or the envelope's impulsiveness."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from whirl.physics.faults import JOURNAL_CLASSES, Line, signature
from whirl.physics.rolling_bearing import FaultOrders

Window = tuple[float, float]

ABSENT_DB = -10.0
"""Evidence, in dB, of a line that is certainly not there."""

_LOW, _MIDDLE, _HIGH = (0.08, 0.40), (0.42, 0.62), (0.64, 0.92)  # fractions of half the sampling rate
_SHAFT, _STRUCTURE = (1e-6, 0.08), (0.08, 0.95)


@dataclass(frozen=True)
class Feature:
    """One number of evidence.

    Attributes:
        name: what it is called.
        kind: `"raw"` or `"envelope"`, lines in the spectrum of the signal or of its squared envelope, over the noise
            beside them; `"shaft"`, lines in the spectrum of the signal over the density of the band where structure
            rings, 0.08 to 0.95 of half the sampling rate: for lines that every machine has, weak or strong;
            `"level"`, the power density of a band over that of another;
            `"kurtosis"`, impulsiveness of the envelope z, `mean(|z|^4) / mean(|z|^2)^2`.
        windows: where to look, (low, high) with 0 < low < high: one or more windows of orders of shaft speed, or of Hz;
            for a level the band and the one it is compared with, in fractions of half the sampling rate; none for the
            kurtosis.
        combine: how the lines of several windows become one number: `"mean"` in dB, for a family that comes together,
            `"max"` for alternatives.
        unit: of the windows of lines.

    Raises:
        ValueError: the windows do not fit the kind.
    """

    name: str
    kind: Literal["raw", "shaft", "envelope", "level", "kurtosis"]
    windows: tuple[Window, ...] = ()
    combine: Literal["mean", "max"] = "mean"
    unit: Literal["order", "hz"] = "order"

    def __post_init__(self) -> None:
        if any(not 0 < low < high for low, high in self.windows):
            raise ValueError(f"feature {self.name!r} has windows {self.windows}, expected 0 < low < high")
        n_windows = len(self.windows)
        if not {"level": n_windows == 2, "kurtosis": n_windows == 0}.get(self.kind, n_windows > 0):
            raise ValueError(f"feature {self.name!r} of kind {self.kind!r} cannot have {n_windows} windows")
        if self.kind == "level" and max(high for _, high in self.windows) > 1:
            raise ValueError(f"level {self.name!r} has bands {self.windows}, expected them within 0 and 1")

    @property
    def is_line(self) -> bool:
        """Whether it is looked for in a spectrum."""
        return self.kind in ("raw", "shaft", "envelope")


@dataclass(frozen=True)
class Rivalry:
    """Features of which a fault shows but one: the strongest takes from the others (lateral inhibition).

    With evidence e in dB: `e <- e - share * max(0, strongest - e - leeway_db)`, but not below `ABSENT_DB`.
    """

    names: tuple[str, ...]
    share: float
    leeway_db: float


def journal_features() -> tuple[Feature, ...]:
    """The eleven features that tell the faults of a rotor in journal bearings apart.

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
        Feature("mid level", "level", (_MIDDLE, _LOW)),
        Feature("high level", "level", (_HIGH, _LOW)),
        Feature("envelope kurtosis", "kurtosis"),
        Feature("1X envelope", "envelope", windows("1X envelope")),
    )


def rolling_features(orders: FaultOrders) -> tuple[Feature, ...]:
    """The five features that tell the faults of a rolling bearing apart: a line each, impulses, and how
    loud structure rings against the shaft.

    Example:
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> [feature.name for feature in rolling_features(fault_orders(BEARINGS["6205"]))]
        ['BPFI', 'BPFO', '2BSF', 'envelope kurtosis', 'structure level']
    """
    main = [_lines_of(label, orders)[0] for label in ("inner_race", "outer_race", "ball")]
    lines = (Feature(line.name, "envelope", ((line.low_order, line.high_order),)) for line in main)
    return (*lines, Feature("envelope kurtosis", "kurtosis"), Feature("structure level", "level", (_STRUCTURE, _SHAFT)))


def random_bands(features: Sequence[Feature], seed: int) -> tuple[Feature, ...]:
    """The same features, each window moved to a random place: a control that knows no physics.

    Windows keep their width and name. Those of lines stay below 1.5 times the highest true edge of their kind and
    clear of all true windows of the kind; bands of levels go anywhere.

    Raises:
        ValueError: the true windows leave no room for one as wide.

    Example:
        >>> (moved,) = random_bands([Feature("1X", "raw", ((0.985, 1.015),))], seed=0)
        >>> (low, high), = moved.windows
        >>> round(high - low, 6), 0.985 < high and low < 1.015
        (0.03, False)
    """
    rng = random.Random(seed)
    taken = {
        kind: [window for each in features if (each.kind, each.unit) == kind for window in each.windows]
        for kind in {(each.kind, each.unit) for each in features}
    }
    return tuple(
        replace(each, windows=tuple(_moved(window, each, taken[each.kind, each.unit], rng) for window in each.windows))
        for each in features
    )


def _moved(window: Window, feature: Feature, taken: list[Window], rng: random.Random) -> Window:
    width = window[1] - window[0]
    least, most = (
        (min(low for low, _ in taken) / 2, 1.5 * max(high for _, high in taken)) if feature.is_line else (0, 1)
    )
    for _ in range(1000):
        low = rng.uniform(least, most - width)
        if not feature.is_line or all(low + width < start or end < low for start, end in taken):
            return low, low + width
    raise ValueError(f"feature {feature.name!r}: no room for a random window of width {width:g} between {taken}")


def _lines_of(label: str, orders: FaultOrders | None = None) -> tuple[Line, ...]:
    found = signature(label, orders)
    return found.lines if found else ()
