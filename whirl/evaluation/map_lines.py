"""Lines to draw over the time-frequency map of a recording."""

from __future__ import annotations

from typing import NamedTuple

from whirl.data.recording import Recording
from whirl.physics.bearings import Bearing, UnknownBearingError, parse_bearing
from whirl.physics.faults import Line, signature

SHAFT, FAULT = "white", "#7fffd4"
"""Colors of the harmonics of the shaft and of fault lines."""


class Mark(NamedTuple):
    """A line with its name, its order of the shaft and its color."""

    name: str
    order: float
    color: str


def bearing_to_draw(recording: Recording, text: str | None) -> Bearing | None:
    """Return the bearing that is given, otherwise the first of the recording's own; None if they are unknown.

    Raises:
        ValueError: the bearing that is given is unknown or malformed.

    Example:
        >>> import numpy as np
        >>> recording = Recording(np.ones(8), 12_000, bearing="6203; 6205")
        >>> bearing_to_draw(recording, None).text, bearing_to_draw(recording, "SKF 6205-2RS").text
        ('6203', '6205')
    """
    if text is not None:
        return parse_bearing(text, recording.rotating_race)
    try:
        return next(iter(recording.bearings), None)
    except UnknownBearingError:
        return None


def has_low_orders_only(recording: Recording) -> bool:
    """Return whether the recording's class is identified only by low multiples of the shaft speed.

    Example:
        >>> import numpy as np
        >>> has_low_orders_only(Recording(np.ones(8), 12_000, label="imbalance"))
        True
    """
    known = signature(recording.label) if recording.label else None
    return known is not None and bool(known.lines) and not known.needs_high_frequency


def lines_to_draw(recording: Recording, bearing: Bearing | None) -> list[Mark]:
    """Return the fault lines of a bearing, otherwise those of the recording's class, and the harmonics of the shaft.

    Example:
        >>> import numpy as np
        >>> recording = Recording(np.ones(8), 12_000, bearing="6205")
        >>> [mark.name for mark in lines_to_draw(recording, bearing_to_draw(recording, None))][:4]
        ['BPFO', 'BPFI', '2BSF', 'FTF']
    """
    shaft = [Mark(f"{n}X", n, SHAFT) for n in range(1, 4)]
    if bearing is not None:
        orders = bearing.orders
        rates = {"BPFO": orders.bpfo, "BPFI": orders.bpfi, "2BSF": 2 * orders.bsf, "FTF": orders.ftf}
        rates |= {f"{n}x{name}": n * rates[name] for n in (2, 3) for name in ("BPFO", "BPFI")}
        return [*(Mark(name, order, FAULT) for name, order in rates.items()), *shaft]
    known = signature(recording.label) if recording.label else None
    # Classes at high frequencies may have no lines: cavitation, and rolling-bearing faults without a given bearing.
    has_signature = known is not None and (known.lines or known.needs_high_frequency)
    lines = known.lines if known is not None and has_signature else _journal_lines()
    faults = [Mark(line.name, line.order, FAULT) for line in lines if line.spectrum == "raw"]
    return faults + [mark for mark in shaft if mark.name not in {each.name for each in faults}]


def _journal_lines() -> tuple[Line, ...]:
    """Return the lines that identify faults of rotors in journal bearings: whirl, and the subharmonic of looseness."""
    lines = [line for label in ("oil_whirl", "clearance") for line in getattr(signature(label), "lines", ())]
    return tuple(line for line in lines if line.name in ("whirl", "1/2X"))
