"""Facts beside arrays: sampling rate, sampling interval, shaft speed, unit and channel names, found by their names.

A fact belongs to the arrays that it stands beside. Names contain paths: the fact `run/fs` belongs to the arrays of the
group `run`, and `run/DE/unit` to the array `run/DE`. An array uses the nearest fact, and a fact in a group without
arrays (`run/info/fs`) belongs to the nearest group around it that has some.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from whirl.data.reading import UnreadableError
from whirl.data.units import parse_quantity, unit_factor

# Normalized names (see `normalize_name`). `rate` comes last: beside another rate it is often the shaft speed.
RATE_NAMES = (
    "fs", "samplingrate", "samplerate", "samplingfrequency", "samplefrequency", "samplingfreq", "samplefreq", "fsample",
    "samplespersecond", "acquisitionrate", "scanrate", "abtastrate", "abtastfrequenz", "sr", "rate",
)  # fmt: skip
STEP_NAMES = (
    "dt", "wfincrement", "timestep", "deltat", "sampleinterval", "samplinginterval", "samplingperiod", "sampleperiod",
    "sampletime", "tsample", "tinc", "xincrement", "xinc", "deltax", "ts",
)  # fmt: skip
TIME_NAMES = (
    "time", "t", "times", "timestamp", "timestamps", "elapsedtime", "seconds", "zeit", "timeaxis", "timevector",
    "datetime", "xvalue", "xtime",
)  # fmt: skip
CHANNEL_NAMES = ("channels", "channelnames", "channelname")
UNIT_NAMES = ("unit", "units", "unitstring", "yunit", "yunits", "yunitlabel")
# A whole-number signal beside one of these holds the counts of a converter, not physical values.
SCALE_NAMES = (
    "scale", "scalefactor", "scaling", "scalingfactor", "gain", "sensitivity", "lsb", "calibration",
    "calibrationfactor", "slope", "conversionfactor", "voltsperbit", "voltspercount", "resolution",
)  # fmt: skip
OFFSET_NAMES = ("addoffset",)

_RPM_NAMES = ("rpm", "shaftrpm", "rpmshaft", "speedrpm", "rpmspeed", "shaftspeedrpm")
_SPEED_NAMES = ("shaftspeed", "rotationalspeed", "rotationspeed", "speed", "drehzahl", "shaftfrequency", "fr")
# Speeds that are not those of the shaft during the recording.
_OTHER_SPEED = re.compile(r"max|min(?!ute)|rated|nominal|limit|target|setpoint|synchron|critical|trip")
# "time_ms", "fs_khz": a unit without brackets.
_UNIT_SUFFIX = re.compile(r"^(.*\w)[_ ](hz|khz|mhz|s|sec|ms|us|ns)$", re.I)
_UNIT_IN_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]$")
# Characters matched: the run time of the patterns grows with the square of the length.
_MAX_UNIT_CHARS = 80
_RATE_TOLERANCE = 0.01


def split_unit(name: str) -> tuple[str, str]:
    """Split a name into the name proper and its unit in brackets, empty if there is none.

    Example:
        >>> split_unit("Acc X [m/s^2]"), split_unit("DE")
        (('Acc X', 'm/s^2'), ('DE', ''))
    """
    name = name.strip()
    match = _UNIT_IN_BRACKETS.search(name[-_MAX_UNIT_CHARS:])
    return (name[: -len(match[0])].strip(), match[1].strip()) if match else (name, "")


def normalize_name(name: str) -> str:
    """Return a name in lower case without path, unit and punctuation.

    Example:
        >>> normalize_name("bearing/Sampling_Rate [Hz]"), normalize_name("X105RPM"), normalize_name("time_ms")
        ('samplingrate', 'x105rpm', 'time')
    """
    return re.sub(r"[\W_]", "", _leaf_and_unit(name)[0]).lower()


def named_unit(name: str) -> str:
    """Return the unit in the name of a fact: in brackets, or after an underscore (`dt_ms`); empty if there is none."""
    return _leaf_and_unit(name)[1]


def _leaf_and_unit(name: str) -> tuple[str, str]:
    path, unit = split_unit(name)
    leaf = path.rsplit("/", 1)[-1]
    match = None if unit else _UNIT_SUFFIX.fullmatch(leaf[-_MAX_UNIT_CHARS:])
    return (match[1], match[2]) if match else (leaf, unit)


def scopes(name: str) -> list[str]:
    """Return the path of an array or fact and the groups around it, nearest first; the file is `""`.

    Example:
        >>> scopes("run/acc/DE [m/s^2]")
        ['run/acc/DE', 'run/acc', 'run', '']
    """
    parts = split_unit(name)[0].split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)] + [""]


class Facts:
    """Numbers and texts of a file, found by array and name.

    Args:
        values: numbers and texts by path.
        arrays: paths of all arrays of the file, also of those that are not channels.

    Example:
        >>> facts = Facts({"slow/fs": 1.0, "fast/info/fs": 25_600.0}, ["slow/temperature", "fast/DE"])
        >>> facts.rate("fast/DE"), facts.rate("slow/temperature")
        (25600.0, 1.0)
    """

    def __init__(self, values: Mapping[str, Any], arrays: Iterable[str]) -> None:
        self.values = dict(values)
        self.used: set[str] = set()
        occupied = {scope for array in arrays for scope in scopes(array)}
        self._by_scope: dict[str, dict[str, list[str]]] = {}
        for name in values:
            scope = next((scope for scope in scopes(name)[1:] if scope in occupied), "")
            self._by_scope.setdefault(scope, {}).setdefault(normalize_name(name), []).append(name)

    def rate(self, array: str) -> float | None:
        """Return the sampling rate of an array in Hz; None if no fact beside it states one.

        Raises:
            UnreadableError: facts in the same place contradict each other, or have an unknown unit.
        """
        for scope in scopes(array):
            steps = {name: 1 / step for name, step in self._numbers(scope, STEP_NAMES, "s").items()}
            stated = self._numbers(scope, RATE_NAMES[:-1], "Hz") | steps | self._increments(scope)
            rates = stated or self._numbers(scope, RATE_NAMES[-1:], "Hz")
            if rates:
                self.used |= rates.keys()
                return agreed_rate(rates)
        return None

    def rpm(self, array: str) -> float | None:
        """Return the shaft speed at an array in rev/min; None if it is not stated or stated with different values."""
        for scope in scopes(array):
            here = self._by_scope.get(scope, {})
            exact = self._numbers(scope, _RPM_NAMES, "rpm")
            others = tuple(name for name in here if is_shaft_speed(name))
            speeds = exact or self._numbers(scope, others, "rpm") or self._speeds(scope)
            if speeds:
                low, high = min(speeds.values()), max(speeds.values())
                if high - low > _RATE_TOLERANCE * high:
                    return None
                self.used |= speeds.keys()
                return next(iter(speeds.values()))
        return None

    def text(self, array: str, names: tuple[str, ...]) -> Any:
        """Return the nearest fact with one of the names; None if there is none."""
        for scope in scopes(array):
            here = self._by_scope.get(scope, {})
            found = [name for word in names if word in here for name in here[word]]
            if found:
                self.used.add(found[0])
                return self.values[found[0]]
        return None

    def scaling(self, array: str) -> tuple[float, float, str]:
        """Return factor, offset and name of the scaling stated beside an array; 1, 0 and "" if there is none."""
        for scope in scopes(array)[:2]:
            here = self._by_scope.get(scope, {})
            found = [name for word in SCALE_NAMES if word in here for name in here[word]]
            offset = next((here[word][0] for word in OFFSET_NAMES if word in here), None)
            for name in found:
                value = self.values[name]
                if isinstance(value, (int, float)) and value != 1:
                    return float(value), float(self.values[offset]) if offset else 0.0, name
        return 1.0, 0.0, ""

    def unused(self) -> dict[str, Any]:
        """Return the facts that were not used, by name."""
        return {name: value for name, value in self.values.items() if name not in self.used}

    def _numbers(self, scope: str, wanted: tuple[str, ...], target: str) -> dict[str, float]:
        here = self._by_scope.get(scope, {})
        found = [name for word in wanted if word in here for name in here[word]]
        numbers = {name: to_number(name, self.values[name], target) for name in found}
        # A "ts" of seconds or more is a time stamp.
        return {
            name: number
            for name, number in numbers.items()
            if number is not None and not (normalize_name(name) == "ts" and number >= 1)
        }

    def _increments(self, scope: str) -> dict[str, float]:
        """Return rates from the increment of an axis, e.g. `x_values/increment`."""
        names = self._by_scope.get(scope, {}).get("increment", [])
        of_time = [name for name in names if re.search(r"(?:^|/)(?:x|t|time|x_?values?)/increment$", name, re.I)]
        steps = {name: to_number(name, self.values[name], "s") for name in of_time}
        return {name: 1 / step for name, step in steps.items() if step}

    def _speeds(self, scope: str) -> dict[str, float]:
        """Return speeds that state their unit."""
        here = self._by_scope.get(scope, {})
        names = [name for word in _SPEED_NAMES if word in here for name in here[word]]
        with_unit = [
            name for name in names if named_unit(name) or re.search(r"[a-zA-Z]", f"{self.values[name]}".lstrip("-+eE"))
        ]
        speeds = {}
        for name in with_unit:
            try:
                speeds[name] = to_number(name, self.values[name], "rpm")
            except UnreadableError:  # the speed of something else, such as a belt in m/s
                continue
        return {name: speed for name, speed in speeds.items() if speed is not None}


def is_shaft_speed(name: str) -> bool:
    """Return whether a name is that of a shaft speed in rpm; `max_rpm` and `rated_rpm` are not.

    Example:
        >>> is_shaft_speed("Motor RPM"), is_shaft_speed("max_rpm")
        (True, False)
    """
    plain = normalize_name(name)
    return plain.endswith("rpm") and not _OTHER_SPEED.search(plain.removesuffix("rpm"))


def to_number(name: str, value: Any, target: str) -> float | None:
    """Convert a fact to Hz, s or rpm; None if it is not a number above 0.

    Raises:
        UnreadableError: the unit is unknown.
    """
    unit = named_unit(name)
    try:
        if isinstance(value, str):
            number = parse_quantity(value, unit, target) if re.match(r"\s*[-+.\d]", value) else None
        elif isinstance(value, (bool, list)) or value is None:
            return None
        else:
            number = float(value) * unit_factor(unit, target)
    except ValueError as error:
        if isinstance(value, str) and re.search(r"\d\s*[-:]\s*\d", value):  # a date
            return None
        raise UnreadableError(f"{name!r} is {value!r}: {error}; correct it, or export the file again") from None
    return number if number is not None and np.isfinite(number) and number > 0 else None


def agreed_rate(rates: Mapping[str, float]) -> float:
    """Return the sampling rate that several facts state.

    Raises:
        UnreadableError: they differ by more than 1 %.
    """
    low, high = min(rates.values()), max(rates.values())
    if high - low > _RATE_TOLERANCE * high:
        stated = ", ".join(f"{name!r} ({rate:g} Hz)" for name, rate in list(rates.items())[:4])
        raise UnreadableError(f"states different sampling rates: {stated}; remove the wrong ones")
    return round_if_close(next(iter(rates.values())))


def round_if_close(rate: float) -> float:
    """Round a rate to an integer if they differ only by rounding errors."""
    return float(round(rate)) if abs(rate - round(rate)) <= 1e-6 * rate else float(rate)
