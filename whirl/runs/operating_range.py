"""The operating range of the training recordings, outside of which a diagnosis extrapolates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from whirl.data.recording import Recording
from whirl.runs.run_folder import RunFolder

Range = tuple[float, float]

TOLERANCE = 0.05
"""Relative distance from the range without a warning; motor slip alone changes the speed by a few percent."""


class PlainModel(BaseModel):
    """Strictly validated data: no unknown fields, no type conversion, finite numbers only."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, frozen=True)


class OperatingRange(PlainModel):
    """Speeds and loads of the machines that a network was trained on.

    Attributes:
        rpm: lowest and highest shaft speed, rpm; None if no speed is known.
        load: lowest and highest load by unit.

    Example:
        >>> import numpy as np
        >>> slow, fast = (Recording(np.zeros(8), 12_000, rpm=rpm, load=2, load_unit="hp") for rpm in (1730, 1797))
        >>> operating_range = OperatingRange.of([fast, slow])
        >>> operating_range
        OperatingRange(rpm=(1730.0, 1797.0), load={'hp': (2.0, 2.0)})
        >>> operating_range.out_of_range(Recording(np.zeros(8), 12_000, rpm=3600))
        ['3600 rpm (trained on 1730 to 1797 rpm)']
    """

    rpm: Range | None = None
    load: dict[str, Range] = {}

    @classmethod
    def of(cls, recordings: Iterable[Recording]) -> OperatingRange:
        """Return the range of speeds and loads that recordings state."""
        recordings = list(recordings)
        loads: dict[str, list[float]] = {}
        for recording in recordings:
            if recording.load is not None and math.isfinite(recording.load):
                loads.setdefault(recording.load_unit, []).append(recording.load)
        return cls(
            rpm=_range([recording.rpm for recording in recordings if recording.rpm is not None]),
            load={unit: (float(min(values)), float(max(values))) for unit, values in sorted(loads.items())},
        )

    def out_of_range(self, recording: Recording) -> list[str]:
        """Describe the quantities of a recording that are out of range; unknown ones are not compared."""
        pairs = [
            (recording.rpm, self.rpm, "rpm"),
            (recording.load, self.load.get(recording.load_unit), recording.load_unit),
        ]
        return [
            f"{value:g} {unit} (trained on {known[0]:g} to {known[1]:g} {unit})"
            for value, known, unit in pairs
            if value is not None and known is not None and _is_outside(value, known)
        ]


def _is_outside(value: float, known: Range) -> bool:
    return not known[0] * (1 - TOLERANCE) <= value <= known[1] * (1 + TOLERANCE)


def _range(values: list[float]) -> Range | None:
    return (float(min(values)), float(max(values))) if values else None


def load_operating_range(folder: RunFolder) -> OperatingRange | None:
    """Read the operating range saved by a run; None if there is none."""
    saved = folder.read_data().get("operating_range")
    return None if saved is None else OperatingRange.model_validate_json(json.dumps(saved))
