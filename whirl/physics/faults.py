"""Fault classes and their signatures: the spectral lines of each class in orders of shaft speed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from whirl.physics.rolling_bearing import FaultOrders

JOURNAL_CLASSES: tuple[str, ...] = (
    "healthy",
    "misalignment",
    "imbalance",
    "clearance",
    "lubrication",
    "cavitation",
    "wear",
    "oil_whirl",
    "misalignment_imbalance",
    "wear_lubrication",
    "cavitation_clearance",
)
"""Health states of a rotor in journal bearings; the last three are combinations of two faults."""

ROLLING_CLASSES: tuple[str, ...] = ("healthy", "inner_race", "outer_race", "ball")
"""Health states of a rolling-element bearing."""


@dataclass(frozen=True)
class Line:
    """Spectral line of a fault, as a search window of orders.

    Attributes:
        name: name of the line, e.g. `"2X"` or `"BPFO"`.
        low_order: lower edge of the search window, orders of shaft speed, > 0.
        high_order: upper edge, > low_order.
        role: `"required"` for lines that the fault always shows, `"optional"` for lines that it may show. Looseness
            shows halves (1/2X, 3/2X, ...) or thirds (1/3X, 4/3X, ...), rarely both, but both are marked as required.
        spectrum: `"raw"` for the spectrum of the signal, `"envelope"` for the spectrum of the squared envelope of a
            high-frequency band.
    """

    name: str
    low_order: float
    high_order: float
    role: Literal["required", "optional"]
    spectrum: Literal["raw", "envelope"]

    @property
    def order(self) -> float:
        """Center of the window in orders of shaft speed."""
        return (self.low_order + self.high_order) / 2


@dataclass(frozen=True)
class Signature:
    """Signature of a fault class in the vibration.

    Attributes:
        lines: spectral lines of the class; empty if it has none.
        needs_high_frequency: whether part of the evidence lies in structural resonances, at frequencies far above the
            lines.
        summary: one-sentence description for the report.
    """

    lines: tuple[Line, ...]
    needs_high_frequency: bool
    summary: str


def _raw_line(name: str, order: float, half_width: float, role: Literal["required", "optional"] = "required") -> Line:
    return Line(name, order - half_width, order + half_width, role, "raw")


def _optional(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    return tuple(Line(line.name, line.low_order, line.high_order, "optional", line.spectrum) for line in lines)


_1X, _2X, _3X = _raw_line("1X", 1, 0.015), _raw_line("2X", 2, 0.02), _raw_line("3X", 3, 0.025)
_SHAFT_LINES = (_1X, _2X, _3X)
_MISALIGNMENT = (_2X, _3X)
_SUBHARMONICS = tuple(_raw_line(f"{n}/{q}X", n / q, 0.01 * n / q) for q in (2, 3) for n in (1, 1 + q, 1 + 2 * q))
_HIGH_HARMONICS = tuple(_raw_line(f"{n}X", n, 0.005 * n) for n in (5, 6, 7, 8))
_CLEARANCE = (*_SUBHARMONICS, *_optional(_SHAFT_LINES), *_HIGH_HARMONICS)
_FRICTION = (Line("1X envelope", 0.985, 1.015, "required", "envelope"),)

_JOURNAL: dict[str, Signature] = {
    "healthy": Signature((), False, "Only weak shaft harmonics and a low broadband noise floor."),
    "misalignment": Signature(
        (*_MISALIGNMENT, *_optional((_1X,))), False, "Coupling reaction forces: 2X and 3X are prominent relative to 1X."
    ),
    "imbalance": Signature((_1X,), False, "Centrifugal force at 1X that grows with the square of the speed."),
    "clearance": Signature(
        _CLEARANCE,
        False,
        "Looseness limits the motion: sub-harmonics at exactly 1/2X or 1/3X and a long series of harmonics.",
    ),
    "lubrication": Signature(
        _FRICTION,
        True,
        "Starved oil film: high-frequency friction noise modulated at 1X, and metal contacts.",
    ),
    "cavitation": Signature(
        (), True, "Collapsing vapour bubbles: random high-frequency bursts that are not synchronous with the shaft."
    ),
    "wear": Signature(_optional(_SHAFT_LINES), True, "Raised mid-frequency noise floor that fluctuates slowly."),
    "oil_whirl": Signature(
        (Line("whirl", 0.41, 0.485, "required", "raw"),),
        False,
        "The journal whirls with the oil film at 0.42 to 0.48 of shaft speed, under light load.",
    ),
    "misalignment_imbalance": Signature(_SHAFT_LINES, False, "1X of imbalance with 2X and 3X of misalignment."),
    "wear_lubrication": Signature(
        (*_optional(_SHAFT_LINES), *_FRICTION),
        True,
        "Raised mid-frequency noise floor of wear with friction noise modulated at 1X.",
    ),
    "cavitation_clearance": Signature(
        _CLEARANCE, True, "Sub-harmonics and harmonics of looseness with random high-frequency bursts."
    ),
    "bent_shaft": Signature((_1X, *_optional((_2X,))), False, "The bow rotates with the shaft: 1X, often with 2X."),
}

_ROLLING_SUMMARY = {
    "inner_race": "Impacts at BPFI, modulated at 1X as the defect passes through the load zone (sidebands at 1X).",
    "outer_race": "Uniform impacts at BPFO from a defect that stays in the load zone.",
    "ball": "Impacts at 2 x BSF, modulated by the cage rotation (sidebands at FTF); often hardly visible.",
}

_ALIASES = {
    "normal": "healthy",
    "good": "healthy",
    "misaligned": "misalignment",
    "unbalance": "imbalance",
    "looseness": "clearance",
    "whirl": "oil_whirl",
    "ir": "inner_race",
    "inner": "inner_race",
    "or": "outer_race",
    "outer": "outer_race",
    "rolling_element": "ball",
}

_SLIP, _OVERSPEED = 0.02, 0.007  # relative deviation of real fault rates from the kinematic ones
_SHAFT_CLEARANCE = 0.035  # orders around each multiple of 1X that shaft modulation occupies in the envelope spectrum


def signature(label: str, orders: FaultOrders | None = None) -> Signature | None:
    """Return the signature of a fault class, or None if the label is unknown.

    Case, spaces and hyphens in the label are ignored, and common synonyms are recognized (`"normal"`, `"IR"`,
    `"unbalance"`, ...).

    Args:
        label: name of the class.
        orders: kinematics of the rolling bearing; without it the signatures of rolling-bearing faults have no lines.

    Example:
        >>> [line.name for line in signature("misalignment").lines]
        ['2X', '3X', '1X']
        >>> signature("Normal").lines, signature("gear_crack")
        ((), None)
    """
    name = _canonical(label)
    if name in _ROLLING_SUMMARY:
        lines = _rolling_lines(orders)[name] if orders is not None else ()
        return Signature(lines, True, _ROLLING_SUMMARY[name])
    return _JOURNAL.get(name)


def required_band_hz(labels: Iterable[str], max_rpm: float) -> float | None:
    """Return the highest frequency in Hz that is needed to distinguish the classes.

    Args:
        labels: names of the classes.
        max_rpm: highest shaft speed, > 0.

    Returns:
        The frequency, or None if the full bandwidth is needed: a class has evidence in structural resonances, a label
        is unknown, or no class has any line.

    Raises:
        ValueError: the speed is not positive.

    Example:
        >>> round(required_band_hz(["healthy", "imbalance", "misalignment"], max_rpm=3000), 2)
        151.25
        >>> required_band_hz(["healthy", "cavitation"], max_rpm=3000) is None
        True
    """
    if not max_rpm > 0:
        raise ValueError(f"max_rpm is {max_rpm}, expected a number > 0")
    signatures = [signature(label) for label in labels]
    if any(each is None or each.needs_high_frequency for each in signatures):
        return None
    highest = max((line.high_order for each in signatures if each for line in each.lines), default=0)
    return highest * max_rpm / 60 or None


def _canonical(label: str) -> str:
    name = label.strip().lower().replace(" ", "_").replace("-", "_")
    return _ALIASES.get(name, name)


def _rolling_lines(orders: FaultOrders) -> dict[str, tuple[Line, ...]]:
    """Return the envelope lines of each rolling class, without harmonics and sidebands that other lines overlap."""
    main = {"inner_race": ("BPFI", orders.bpfi), "outer_race": ("BPFO", orders.bpfo), "ball": ("2BSF", 2 * orders.bsf)}
    sideband = {"inner_race": ("1X", 1.0), "ball": ("FTF", orders.ftf)}
    lines = {}
    for label, (name, order) in main.items():
        competing = [
            _envelope_line("", h * other_order)
            for other, (_, other_order) in main.items()
            if other != label
            for h in range(1, 7)
        ]
        extra = {f"{h}x{name}": h * order for h in (2, 3)}
        if label in sideband:
            step_name, step = sideband[label]
            extra |= {f"{name}-{step_name}": order - step, f"{name}+{step_name}": order + step}
        own = [_envelope_line(each, at) for each, at in extra.items() if abs(at - round(at)) >= _SHAFT_CLEARANCE]
        first = _envelope_line(name, order, "optional" if label == "ball" else "required")
        lines[label] = (first, *(line for line in own if not any(_overlap(line, other) for other in competing)))
    return lines


def _envelope_line(name: str, order: float, role: Literal["required", "optional"] = "optional") -> Line:
    """Return an envelope line whose window allows for slip."""
    return Line(name, order * (1 - _SLIP), order * (1 + _OVERSPEED), role, "envelope")


def _overlap(a: Line, b: Line) -> bool:
    return a.low_order <= b.high_order and b.low_order <= a.high_order
