"""Levels of vibration of files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whirl._csv import safe_cell
from whirl.data.levels import VibrationLevels, Zone, iso_20816_zone, vibration_levels
from whirl.data.manifest import read_listed
from whirl.data.units import normalize_unit
from whirl.engine.files import write_text
from whirl.runs.diagnosis import list_recordings
from whirl.runs.output_files import check_outputs


@dataclass(frozen=True)
class FileLevels:
    """Levels of one file.

    Attributes:
        file: the file.
        levels: its levels.
        zone: zone of ISO 20816-3; None if the machine group or the velocity is unknown.
    """

    file: str
    levels: VibrationLevels
    zone: Zone | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"file": self.file, **self.levels.as_dict(), "zone": self.zone}

    def __str__(self) -> str:
        found = self.levels
        parts = [
            None if found.velocity_rms_mm_s is None else f"velocity {found.velocity_rms_mm_s:.3g} mm/s RMS",
            None if self.zone is None else f"zone {self.zone}",
            None
            if found.acceleration_rms_m_s2 is None
            else f"acceleration {found.acceleration_rms_m_s2:.3g} m/s^2 RMS",
            None if found.peak_m_s2 is None else f"peak {found.peak_m_s2:.3g} m/s^2",
            f"crest factor {found.crest_factor:.3g}",
            f"kurtosis {found.kurtosis:.3g}",
        ]
        return f"{self.file}  {', '.join(part for part in parts if part)}"


def measure_files(paths: Sequence[str | Path], options: Any) -> tuple[list[FileLevels], dict[str, Exception]]:
    """Measure files; one that fails does not affect the others.

    Args:
        paths: files, folders, manifests and patterns.
        options: settings, see `whirl.runs.command_options.LevelsSection`.

    Returns:
        The levels in the order of the files, and why each other file has none.

    Raises:
        ValueError: the table cannot be used; nothing has been measured then.
        OSError: a path does not exist, or the table cannot be written.
    """
    files = list_recordings(paths)
    check_outputs([options.csv], files)
    found, failures = [], {}
    for file in files:
        try:
            found.append(_measure(file, options))
        except (ValueError, OSError, ImportError) as error:
            failures[str(file)] = error
    if options.csv is not None:
        write_text(options.csv, to_csv(found))
    return found, failures


def _measure(file: Path, options: Any) -> FileLevels:
    (recording,) = read_listed([file], options.sampling_rate_hz)
    if options.unit is not None and not recording.unit and not recording.channel_units:
        recording = replace(recording, unit=normalize_unit(options.unit))
    levels = vibration_levels(recording)
    velocity, group = levels.velocity_rms_mm_s, options.machine_group
    zone = None if velocity is None or group is None else iso_20816_zone(velocity, group, options.support)
    return FileLevels(str(file), levels, zone)


def to_csv(found: Sequence[FileLevels]) -> str:
    """Write levels as CSV, one line per file; what is unknown is empty.

    Example:
        >>> print(to_csv([FileLevels("a.npy", VibrationLevels(1.5, None, None, 3.0, 3.1), "B")]))
        file,velocity_rms_mm_s,acceleration_rms_m_s2,peak_m_s2,crest_factor,kurtosis,zone
        a.npy,1.5,,,3.0,3.1,B
        <BLANKLINE>
    """
    names = list(FileLevels("", VibrationLevels(None, None, None, 1.0, 0.0), None).as_dict())
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(each.as_dict() | {"file": safe_cell(each.file)} for each in found)
    return text.getvalue()
