"""The operating range of the training recordings, outside of which a diagnosis extrapolates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from whirl.data.recording import Recording
from whirl.data.units import SAMPLE_UNITS
from whirl.runs.run_folder import RunFolder

Range = tuple[float, float]

TOLERANCE = 0.05
"""Relative distance from the range without a warning; motor slip alone changes the speed by a few percent."""

LEVEL_FACTOR = 4.0
"""Factor to the quietest and loudest recording without a warning: machines differ, and a wrong gain by more."""


class PlainModel(BaseModel):
    """Strictly validated data: no unknown fields, no type conversion, finite numbers only."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, frozen=True)


class OperatingRange(PlainModel):
    """Speeds, loads, sampling rates and levels of the recordings that a diagnoser was trained on.

    Attributes:
        rpm: lowest and highest shaft speed, rpm; None if no speed is known.
        load: lowest and highest load by unit.
        sampling_rate_hz: lowest and highest sampling rate; None if unknown.
        level: lowest and highest RMS about the mean by unit, in SI units where the unit is known.

    Example:
        >>> import numpy as np
        >>> wave = np.tile([1, -1], 8)
        >>> slow, fast = (Recording(wave, 12_000, unit="g", rpm=rpm, load=2, load_unit="hp") for rpm in (1730, 1797))
        >>> operating_range = OperatingRange.of([fast, slow])
        >>> operating_range.rpm, operating_range.load, operating_range.level
        ((1730.0, 1797.0), {'hp': (2.0, 2.0)}, {'m/s^2': (9.80665, 9.80665)})
        >>> operating_range.out_of_range(Recording(wave, 12_000, unit="m/s^2", rpm=3600))
        ['3600 rpm (trained on 1730 to 1797 rpm)', 'level 1 m/s^2 RMS (trained on 9.8 to 9.8 m/s^2)']
    """

    rpm: Range | None = None
    load: dict[str, Range] = {}
    sampling_rate_hz: Range | None = None
    level: dict[str, Range] = {}

    @classmethod
    def of(cls, recordings: Iterable[Recording]) -> OperatingRange:
        """Return the range of what recordings state, and of their levels."""
        recordings = list(recordings)
        loads: dict[str, list[float]] = {}
        levels: dict[str, list[float]] = {}
        for recording in recordings:
            if recording.load is not None and math.isfinite(recording.load):
                loads.setdefault(recording.load_unit, []).append(recording.load)
            unit, level = level_of(recording)
            if math.isfinite(level):
                levels.setdefault(unit, []).append(level)
        return cls(
            rpm=_range([recording.rpm for recording in recordings if recording.rpm is not None]),
            load=_ranges(loads),
            sampling_rate_hz=_range([recording.sampling_rate_hz for recording in recordings]),
            level=_ranges(levels),
        )

    def out_of_range(self, recording: Recording) -> list[str]:
        """Describe the quantities of a recording that are out of range; unknown ones are not compared."""
        pairs = [
            (recording.rpm, self.rpm, "rpm"),
            (recording.load, self.load.get(recording.load_unit), recording.load_unit),
        ]
        found = [
            f"{value:g} {unit} (trained on {known[0]:g} to {known[1]:g} {unit})"
            for value, known, unit in pairs
            if value is not None and known is not None and _is_outside(value, known)
        ]
        return [*found, *self._rate_out_of_range(recording), *self._level_out_of_range(recording)]

    def _rate_out_of_range(self, recording: Recording) -> list[str]:
        """A higher rate holds all that a lower one does."""
        lowest, rate_hz = (self.sampling_rate_hz or (0.0,))[0], recording.sampling_rate_hz
        if rate_hz >= lowest * (1 - TOLERANCE):
            return []
        return [f"sampling rate {rate_hz:g} Hz (trained on {lowest:g} Hz and more)"]

    def _level_out_of_range(self, recording: Recording) -> list[str]:
        unit, level = level_of(recording)
        known = self.level.get(unit)
        if known is None:
            stated = [name for name in self.level if name]
            return (
                [f"unit {unit} (trained on {', '.join(stated)})"] if unit and stated and not self.level.get("") else []
            )
        if known[0] / LEVEL_FACTOR <= level <= known[1] * LEVEL_FACTOR:
            return []
        return [f"level {level:.2g} {unit} RMS (trained on {known[0]:.2g} to {known[1]:.2g} {unit})".replace("  ", " ")]


def level_of(recording: Recording) -> tuple[str, float]:
    """Return the unit and the RMS about the mean over all channels, in SI units where the unit is known.

    Example:
        >>> import numpy as np
        >>> level_of(Recording(np.tile([1, -1], 8), 12_000, unit="mm/s"))
        ('m/s', 0.001)
    """
    dimension, factor = SAMPLE_UNITS.get(recording.unit, (None, 1.0))
    unit = next((name for name, known in SAMPLE_UNITS.items() if known == (dimension, 1.0)), recording.unit)
    return unit, factor * float(np.sqrt(np.var(recording.signal, axis=-1, dtype=np.float64).mean()))


def _is_outside(value: float, known: Range) -> bool:
    low, high = (end + sign * TOLERANCE * abs(end) for end, sign in zip(known, (-1, 1), strict=True))
    return not low <= value <= high


def _range(values: list[float]) -> Range | None:
    return (float(min(values)), float(max(values))) if values else None


def _ranges(values: Mapping[str, Sequence[float]]) -> dict[str, Range]:
    return {unit: (float(min(each)), float(max(each))) for unit, each in sorted(values.items())}


def load_operating_range(folder: RunFolder) -> OperatingRange | None:
    """Read the operating range saved by a run; None if there is none."""
    saved = folder.read_data().get("operating_range")
    return None if saved is None else OperatingRange.model_validate_json(json.dumps(saved))
