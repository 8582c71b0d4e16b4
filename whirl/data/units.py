"""Units as people write them: sampling rates, intervals, shaft speeds, and the units of samples."""

from __future__ import annotations

import math
import re

# Factors to Hz, s and rpm, by unit in lower case without spaces.
_HERTZ = {
    "": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9, "1/s": 1.0, "1/sec": 1.0, "s-1": 1.0, "s^-1": 1.0,
}  # fmt: skip
_SAMPLES_PER_SECOND = re.compile(r"([kmg]?)(?:s|sa|smp|samples?|sps)(?:(?:/|per)(?:s|sec|second)|(?<=sps))")
_SECONDS = {
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3,
    "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "usec": 1e-6, "microsecond": 1e-6,
    "microseconds": 1e-6, "ns": 1e-9, "nsec": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9, "min": 60.0,
    "h": 3600.0,
}  # fmt: skip
_RPM = {
    "": 1.0, "rpm": 1.0, "1/min": 1.0, "min-1": 1.0, "min^-1": 1.0, "u/min": 1.0, "r/min": 1.0, "rev/min": 1.0,
    "cpm": 1.0, "krpm": 1e3, "hz": 60.0, "1/s": 60.0, "rps": 60.0, "r/s": 60.0, "rev/s": 60.0,
    "rad/s": 30 / math.pi,
}  # fmt: skip
# Plausible values, which decide between a decimal comma and a thousands separator.
_PLAUSIBLE = {"Hz": (100.0, 1e7), "s": (1e-7, 1e-2), "rpm": (30.0, 3e5)}
_FACTORS = {"Hz": _HERTZ, "s": _SECONDS, "rpm": _RPM}

# Dimension and factor to its SI unit, by canonical unit of samples; g is the standard acceleration of gravity.
SAMPLE_UNITS = {
    "m/s^2": ("acceleration", 1.0), "mm/s^2": ("acceleration", 1e-3), "g": ("acceleration", 9.80665),
    "mg": ("acceleration", 9.80665e-3), "ft/s^2": ("acceleration", 0.3048), "in/s^2": ("acceleration", 0.0254),
    "m/s": ("velocity", 1.0), "mm/s": ("velocity", 1e-3), "um/s": ("velocity", 1e-6), "in/s": ("velocity", 0.0254),
    "m": ("displacement", 1.0), "mm": ("displacement", 1e-3), "um": ("displacement", 1e-6),
    "mil": ("displacement", 2.54e-5), "V": ("voltage", 1.0), "mV": ("voltage", 1e-3), "A": ("current", 1.0),
    "mA": ("current", 1e-3), "Pa": ("pressure", 1.0), "kPa": ("pressure", 1e3), "bar": ("pressure", 1e5),
    "N": ("force", 1.0), "kN": ("force", 1e3), "Nm": ("torque", 1.0),
}  # fmt: skip
"""Units of samples that can be converted: dimension, and factor to the SI unit."""

VIBRATION = ("acceleration", "velocity", "displacement")
"""Dimensions of a vibration signal."""

_SPELLINGS = {
    "m/s2": "m/s^2", "m/sec^2": "m/s^2", "m/sec2": "m/s^2", "m/s/s": "m/s^2", "m*s^-2": "m/s^2", "ms^-2": "m/s^2",
    "ms-2": "m/s^2", "mps2": "m/s^2", "meter/sec^2": "m/s^2", "gn": "g", "g's": "g", "gs": "g", "g0": "g", "g_n": "g",
    "mm/s2": "mm/s^2", "mm/sec^2": "mm/s^2", "in/s2": "in/s^2", "ft/s2": "ft/s^2",
    "mm/sec": "mm/s", "mms-1": "mm/s", "mms^-1": "mm/s", "m/sec": "m/s", "ips": "in/s", "in/sec": "in/s",
    "micron": "um", "microns": "um", "mils": "mil", "volt": "V", "volts": "V", "v": "V", "ampere": "A", "n*m": "Nm",
}  # fmt: skip
_NO_UNIT = {"", "none", "-", "n/a", "na", "unknown", "nan", "null"}

_MAX_CHARS = 80  # the run time of the patterns grows with the square of the length
_QUANTITY = re.compile(
    r"\s*([-+]?(?:\d+(?:[ ',.]\d{3})*(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)[\s,;]*((?:1/)?[^\d\s].*?|)\s*"
)
_FRACTION = re.compile(r"\s*1\s*/\s*([1-9]\d*)\s*([^\d\s]*)\s*")
_THOUSANDS = re.compile(r"\d{1,3}(?:[ ']\d{3})+(?:[.,]\d+)?|\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}")


def parse_quantity(text: str, unit: str, target: str) -> float | None:
    """Convert a number with a unit to Hz, s or rpm.

    Args:
        text: a number and, optionally, its unit, such as `"51.2 kS/s"`, `"25,600 Hz"` or `"0,04 ms"`.
        unit: the unit if the text states none, e.g. from the name of the value.
        target: `"Hz"` (a sampling rate), `"s"` (a time) or `"rpm"` (a shaft speed).

    Returns:
        The value in `target`; None if the text does not begin with a number.

    Raises:
        ValueError: the unit is not a unit of `target`, or a comma can be a decimal or a thousands separator.

    Example:
        >>> [parse_quantity(text, "", "Hz") for text in ("51.2 kS/s", "50 MS/s", "25,600 Hz", "25,6 kHz")]
        [51200.0, 50000000.0, 25600.0, 25600.0]
        >>> parse_quantity("25 Hz", "", "rpm"), parse_quantity("20", "us", "s")
        (1500.0, 2e-05)
    """
    text = text[:_MAX_CHARS]
    if fraction := _FRACTION.fullmatch(text):
        return unit_factor(fraction[2] or unit, target) / float(fraction[1])
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    factor = unit_factor(match[2] or unit, target)
    values = {number * factor for number in _readings(match[1].strip(" ,."))}
    low, high = _PLAUSIBLE[target]
    if len(values) > 1:
        values = {value for value in values if low <= value <= high} or values
    if len(values) > 1:
        raise ValueError(f"{text.strip()!r} can be read as {' or '.join(f'{v:g} {target}' for v in sorted(values))}")
    return float(f"{values.pop():.15g}") if values else None


def unit_factor(unit: str, target: str) -> float:
    """Return the factor from a unit to Hz, s or rpm.

    Raises:
        ValueError: the unit is not a unit of `target`.

    Example:
        >>> unit_factor("kS/s", "Hz"), unit_factor("ms", "s"), unit_factor("Hz", "rpm")
        (1000.0, 0.001, 60.0)
    """
    plain = unit.strip().strip("[]()").replace(" ", "")
    factor = _FACTORS[target].get(plain.lower())
    if factor is None and target == "Hz" and (match := _SAMPLES_PER_SECOND.fullmatch(plain.lower())):
        factor = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}[match[1]]
    # "mHz" is a thousandth, "MHz" a million.
    if factor is None or (target == "Hz" and plain.startswith("m") and factor == 1e6):
        expected = ", ".join(name for name in list(_FACTORS[target])[1:6])
        raise ValueError(f"unknown unit {unit.strip()!r}, expected a unit of {target} such as {expected}")
    return factor


def _readings(number: str) -> set[float]:
    """Return the values that a number with separators can have."""
    plain = re.sub(r"[ ']", "", number)
    if _THOUSANDS.fullmatch(number.lstrip("+-")):
        last = max(plain.rfind("."), plain.rfind(","))
        is_grouped_by_comma = plain.count(",") > 1 or "." in plain[last : last + 1]
        return {float(plain.replace(",", "") if is_grouped_by_comma else plain.replace(",", "."))}
    if re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", plain):
        return {float(plain.replace(",", "")), float(plain.replace(",", "."))}
    try:
        return {float(plain.replace(",", "."))}
    except ValueError:
        return set()


def normalize_unit(unit: str) -> str:
    """Return one spelling for each unit of samples; an unknown unit is kept as written.

    Example:
        >>> normalize_unit("m/s²"), normalize_unit("[mm/sec]"), normalize_unit("G's"), normalize_unit("°C")
        ('m/s^2', 'mm/s', 'g', '°C')
    """
    written = unit.strip().strip("[]()").strip()
    plain = re.sub(r"\s", "", written).replace("²", "^2").replace("**", "^").replace("·", "*").replace("⋅", "*")
    plain = plain.replace("µ", "u").replace("μ", "u").replace("⁻", "-")
    if plain.lower() in _NO_UNIT:
        return ""
    if plain in SAMPLE_UNITS:
        return plain
    return _SPELLINGS.get(plain, _SPELLINGS.get(plain.lower(), "g" if plain == "G" else written))


def dimension(unit: str) -> str:
    """Return the physical dimension of a unit of samples, e.g. `"acceleration"`; empty if it is unknown.

    Example:
        >>> dimension("g"), dimension("mm/s"), dimension("°C")
        ('acceleration', 'velocity', '')
    """
    return SAMPLE_UNITS.get(normalize_unit(unit), ("", 1.0))[0]


def conversion_factor(unit: str, target: str) -> float:
    """Return the factor from one unit of samples to another of the same dimension.

    Raises:
        ValueError: a unit is unknown, or the dimensions differ.

    Example:
        >>> conversion_factor("g", "m/s²"), round(conversion_factor("in/s", "mm/s"), 6)
        (9.80665, 25.4)
    """
    unit, target = normalize_unit(unit), normalize_unit(target)
    if unit == target:
        return 1.0
    unknown = next((name for name in (unit, target) if name not in SAMPLE_UNITS), None)
    if unknown is not None:
        raise ValueError(f"unit {unknown!r} cannot be converted, expected one of: {', '.join(SAMPLE_UNITS)}")
    (kind, factor), (target_kind, target_factor) = SAMPLE_UNITS[unit], SAMPLE_UNITS[target]
    if kind != target_kind:
        raise ValueError(f"{unit!r} ({kind}) cannot be converted to {target!r} ({target_kind})")
    return factor / target_factor
