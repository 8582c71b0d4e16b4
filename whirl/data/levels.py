"""Levels of vibration that standards and engineers use, in physical units."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.data.units import SAMPLE_UNITS, VIBRATION, normalize_unit
from whirl.validation import check_name, check_number

Zone = Literal["A", "B", "C", "D"]
MachineGroup = Literal["group1", "group2"]
Support = Literal["rigid", "flexible"]

VELOCITY_BAND_HZ = (10.0, 1000.0)
"""Band of the velocity RMS of ISO 20816-3."""

_BOUNDARIES_MM_S: dict[tuple[str, str], tuple[float, float, float]] = {
    ("group1", "rigid"): (2.3, 4.5, 7.1),
    ("group1", "flexible"): (3.5, 7.1, 11.0),
    ("group2", "rigid"): (1.4, 2.8, 4.5),
    ("group2", "flexible"): (2.3, 4.5, 7.1),
}  # ISO 20816-3:2022, tables A.1 and A.2: A/B, B/C, C/D


@dataclass(frozen=True)
class VibrationLevels:
    """Levels of a recording: the highest over its channels of each quantity.

    Attributes:
        velocity_rms_mm_s: RMS of the velocity from 10 to 1000 Hz, mm/s; None if the sampling rate is below 2000 Hz, or
            the recording is shorter than a period of 10 Hz.
        acceleration_rms_m_s2: RMS of the acceleration about its mean, m/s^2; None unless the signal is acceleration.
        peak_m_s2: largest absolute acceleration about its mean, m/s^2; None unless the signal is acceleration.
        crest_factor: largest absolute value about the mean divided by the RMS, >= 1.
        kurtosis: fourth standardized moment, 3 for normal noise.
    """

    velocity_rms_mm_s: float | None
    acceleration_rms_m_s2: float | None
    peak_m_s2: float | None
    crest_factor: float
    kurtosis: float

    def as_dict(self) -> dict[str, float | None]:
        """Return plain data for JSON."""
        return asdict(self)


def vibration_levels(recording: Recording) -> VibrationLevels:
    """Measure the levels of a recording of acceleration, velocity or displacement.

    Acceleration is integrated and displacement is differentiated in the frequency domain: the spectrum is divided by
    `2 pi i f`, or multiplied by it, within the band.

    Args:
        recording: a recording; channels of other quantities, e.g. a tachometer, are left out.

    Raises:
        ValueError: no channel has a known unit of vibration, or a sample is not finite.

    Example:
        >>> time_s = np.arange(20_000) / 10_000
        >>> shaking = Recording(10 * np.sin(2 * np.pi * 50 * time_s), 10_000, unit="m/s^2")
        >>> levels = vibration_levels(shaking)  # 10 m/s^2 at 50 Hz are 31.8 mm/s, of which the RMS is 22.5
        >>> round(levels.velocity_rms_mm_s, 1), round(levels.acceleration_rms_m_s2, 2), round(levels.crest_factor, 3)
        (22.5, 7.07, 1.414)
        >>> iso_20816_zone(levels.velocity_rms_mm_s)
        'D'
    """
    channels = zip(recording.signal, map(normalize_unit, recording.units), strict=True)
    found = [_measure(signal, recording, unit) for signal, unit in channels if _is_vibration(unit)]
    if not found:
        units = ", ".join(dict.fromkeys(unit or "unknown" for unit in recording.units))
        known = [name for name in SAMPLE_UNITS if _is_vibration(name)]
        raise ValueError(
            f"{recording.name}: unit is {units}, expected a unit of vibration ({', '.join(known)}); state it in a "
            "column unit of the manifest"
        )
    return VibrationLevels(
        velocity_rms_mm_s=_highest(each.velocity_rms_mm_s for each in found),
        acceleration_rms_m_s2=_highest(each.acceleration_rms_m_s2 for each in found),
        peak_m_s2=_highest(each.peak_m_s2 for each in found),
        crest_factor=max(each.crest_factor for each in found),
        kurtosis=max(each.kurtosis for each in found),
    )


def _is_vibration(unit: str) -> bool:
    return SAMPLE_UNITS.get(unit, ("", 1.0))[0] in VIBRATION


def iso_20816_zone(velocity_rms_mm_s: float, group: MachineGroup = "group2", support: Support = "rigid") -> Zone:
    """Return the evaluation zone of ISO 20816-3:2022 for industrial machines of more than 15 kW at 600 to 30000 rpm.

    A: newly commissioned machines; B: acceptable for unrestricted long-term operation; C: unsatisfactory for long-term
    operation; D: severe enough to cause damage.

    Args:
        velocity_rms_mm_s: highest RMS of the velocity of the bearing housings, mm/s, finite and >= 0.
        group: `"group1"` for more than 300 kW or shaft heights of 315 mm and more, `"group2"` for 15 to 300 kW.
        support: `"rigid"` or `"flexible"`.

    Raises:
        ValueError: an argument is invalid.

    Example:
        >>> [iso_20816_zone(velocity) for velocity in (1.0, 2.0, 4.0, 5.0)]
        ['A', 'B', 'C', 'D']
    """
    check_name("group", group, ("group1", "group2"))
    check_name("support", support, ("rigid", "flexible"))
    check_number("velocity_rms_mm_s", velocity_rms_mm_s, 0)
    above = sum(velocity_rms_mm_s > boundary for boundary in _BOUNDARIES_MM_S[group, support])
    zones: tuple[Zone, ...] = ("A", "B", "C", "D")
    return zones[above]


def _measure(signal: NDArray[np.floating], recording: Recording, unit: str) -> VibrationLevels:
    dimension, factor = SAMPLE_UNITS[unit]
    samples = factor * signal.astype(np.float64)
    if not np.isfinite(samples).all():
        raise ValueError(f"{recording.name}: has samples that are NaN or infinite")
    swing = samples - samples.mean()
    rms, peak = math.sqrt(float(np.mean(swing**2))), float(np.abs(swing).max())
    is_acceleration = dimension == "acceleration"
    return VibrationLevels(
        velocity_rms_mm_s=_velocity_rms_mm_s(swing, recording.sampling_rate_hz, dimension),
        acceleration_rms_m_s2=rms if is_acceleration else None,
        peak_m_s2=peak if is_acceleration else None,
        crest_factor=peak / rms if rms > 0 else 1.0,
        kurtosis=float(np.mean(swing**4)) / rms**4 if rms > 0 else 0.0,
    )


def _velocity_rms_mm_s(swing: NDArray[np.float64], rate_hz: float, dimension: str) -> float | None:
    """Return the RMS of the velocity in the band of the standard; None if the recording does not cover it."""
    low, high = VELOCITY_BAND_HZ
    if rate_hz < 2 * high or len(swing) < rate_hz / low:
        return None
    window = np.hanning(len(swing))
    spectrum = np.fft.rfft(swing * window)
    frequency_hz = np.fft.rfftfreq(len(swing), 1 / rate_hz)
    inside = (frequency_hz >= low) & (frequency_hz <= high)
    power = {"acceleration": -1, "velocity": 0, "displacement": 1}[dimension]
    velocity = spectrum[inside] * (2 * np.pi * frequency_hz[inside]) ** power
    mean_square = 2 * np.sum(np.abs(velocity) ** 2) / len(swing) / np.sum(window**2)
    return 1000 * math.sqrt(float(mean_square))


def _highest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
