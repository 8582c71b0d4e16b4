"""Files of public data sets whose contents differ from the naming conventions: Paderborn, MFPT, HUST and Ottawa."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from whirl.data.reading import Content, UnreadableError

# Paderborn, https://groups.uni-paderborn.de/kat/BearingDataCenter: sampling rates of the channels in Hz.
_PADERBORN_RATES = {
    "vibration_1": 64_000.0, "phase_current_1": 64_000.0, "phase_current_2": 64_000.0,
    "force": 4_000.0, "speed": 4_000.0, "torque": 4_000.0, "temp_2_bearing_module": 1.0,
}  # fmt: skip
_PADERBORN_UNITS = {"vibration_1": "", "phase_current_1": "A", "phase_current_2": "A"}
_PADERBORN_FIELD = re.compile(r"([^/]+)/Y\((\d+)\)/(Name|Data)")

# HUST (Hanoi), doi.org/10.17632/cbv7jyx4p9: the variable `fs` is the shaft speed in Hz.
_HUST_STEM = re.compile(r"(?:N|I|O|B|IB|IO|OB)[4-8]0[024]")
_HUST_RATE_HZ = 51_200.0
# Ottawa 2018, doi.org/10.17632/v43hmbwxpm, and UORED-VAFCLS, doi.org/10.17632/y2px5tg92h.
_OTTAWA_STEM = re.compile(r"[HIOBC]-[ABCD]-\d")
_OTTAWA_RATE_HZ = 200_000.0
_UORED_STEM = re.compile(r"[HIOBC]_\d+_[012]")
_UORED_RATE_HZ = 42_000.0


def read_public(stem: str, variables: Mapping[str, Any]) -> Content | None:
    """Return the content of a MATLAB file of one of the data sets; None for any other file.

    Args:
        stem: file name without suffix.
        variables: variables in the file, by path.

    Example:
        >>> content = read_public("IB704", {"data": np.arange(90.0), "fs": 24.9})
        >>> content.sampling_rate_hz, round(content.rpm)
        (51200.0, 1494)
    """
    for read in (_paderborn, _mfpt, _hust, _ottawa, _uored):
        content = read(stem, variables)
        if content is not None:
            return content
    return None


def _paderborn(stem: str, variables: Mapping[str, Any]) -> Content | None:
    """Read the vibration and the currents; force, speed, torque and temperature are sampled more slowly."""
    fields: dict[str, dict[str, Any]] = {}
    for path, value in variables.items():
        if match := _PADERBORN_FIELD.fullmatch(path):
            fields.setdefault(match[2], {})[match[3]] = value
    channels = {_text(each["Name"]): np.ravel(each["Data"]) for each in fields.values() if len(each) == 2}
    if "vibration_1" not in channels or not set(channels) <= set(_PADERBORN_RATES):
        return None
    names = tuple(name for name in _PADERBORN_UNITS if name in channels)
    length = len(channels["vibration_1"])
    names = tuple(name for name in names if len(channels[name]) == length)
    _check_rasters(variables, length)
    left_out = [f"{name} ({_PADERBORN_RATES[name]:g} Hz)" for name in channels if name not in names]
    rpm = float(np.mean(channels["speed"])) if "speed" in channels else None
    return Content(
        np.stack([channels[name] for name in names]),
        _PADERBORN_RATES["vibration_1"],
        names,
        rpm=rpm if rpm and rpm > 0 else None,
        metadata={"left_out": left_out},
        channel_units=tuple(_PADERBORN_UNITS[name] for name in names),
    )


def _check_rasters(variables: Mapping[str, Any], length: int) -> None:
    """Raise if the time axis of the vibration contradicts its sampling rate."""
    for path, value in variables.items():
        times = np.ravel(value) if re.fullmatch(r"[^/]+/X\(\d+\)/Data", path) and isinstance(value, np.ndarray) else []
        if len(times) == length and length > 1:
            rate = (length - 1) / float(times[-1] - times[0])
            if abs(rate / _PADERBORN_RATES["vibration_1"] - 1) > 0.01:
                raise UnreadableError(f"{path!r} states {rate:g} Hz, expected 64000 Hz; state the rate in manifest.csv")


def _mfpt(stem: str, variables: Mapping[str, Any]) -> Content | None:
    """Read `gs`; `sr` is the sampling rate, `rate` the shaft speed in Hz and `load` the load in lbs."""
    facts = {path.removeprefix("bearing/"): value for path, value in variables.items() if path.startswith("bearing/")}
    if not {"gs", "sr", "rate"} <= facts.keys():
        return None
    rate_hz, load = _number(facts["rate"]), _number(facts.get("load"))
    return Content(
        np.reshape(facts["gs"], (1, -1)),
        _number(facts["sr"]),
        ("gs",),
        "g",
        rpm=60 * rate_hz if rate_hz else None,
        load=load,
        load_unit="lbs" if load is not None else "",
    )


def _hust(stem: str, variables: Mapping[str, Any]) -> Content | None:
    speed_hz = _number(variables.get("fs"))
    if set(variables) != {"data", "fs"} or not _HUST_STEM.fullmatch(stem) or speed_hz is None or speed_hz >= 100:
        return None
    return Content(np.reshape(variables["data"], (1, -1)), _HUST_RATE_HZ, ("vibration",), "g", rpm=60 * speed_hz)


def _ottawa(stem: str, variables: Mapping[str, Any]) -> Content | None:
    """Read the accelerometer and the pulses of the encoder; the speed varies."""
    if set(variables) != {"Channel_1", "Channel_2"} or not _OTTAWA_STEM.fullmatch(stem):
        return None
    rows = [np.ravel(variables[name]) for name in ("Channel_1", "Channel_2")]
    return Content(np.stack(rows), _OTTAWA_RATE_HZ, ("accelerometer", "encoder"))


def _uored(stem: str, variables: Mapping[str, Any]) -> Content | None:
    """Read a matrix of five columns; speed and load are in its first row only."""
    table = next(iter(variables.values())) if len(variables) == 1 else None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] != 5 or not _UORED_STEM.fullmatch(stem):
        return None
    rpm, load = float(table[0, 2]), float(table[0, 3])
    return Content(
        table[:, [0, 1, 4]].T,
        _UORED_RATE_HZ,
        ("accelerometer", "acoustic", "temperature_difference"),
        rpm=rpm if rpm > 0 else None,
        channel_units=("m/s^2", "V", "°C"),
        load=load,
        load_unit="N",
    )


def _text(value: Any) -> str:
    return "".join(map(str, np.ravel(value))) if isinstance(value, np.ndarray) else str(value)


def _number(value: Any) -> float | None:
    """Return a number that is stored as a number or as text; None if it is not one."""
    try:
        return float(_text(value).strip()) if np.size(value) == 1 and value is not None else None
    except ValueError:
        return None
