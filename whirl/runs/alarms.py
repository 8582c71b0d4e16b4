"""Alarm states of machines, which follow from the lines of a table of judgements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from whirl.physics.faults import ROLLING_CLASSES, signature
from whirl.validation import check_count

AlarmLevel = Literal["normal", "warning", "alarm"]

ACKNOWLEDGED = "acknowledged"
"""Status of a line that acknowledges the alarm of a machine."""

_NORMAL, _WARNING, _ALARM = 0, 1, 2
_LEVELS: tuple[AlarmLevel, ...] = ("normal", "warning", "alarm")


class Point(NamedTuple):
    """A place at which a machine is measured."""

    machine: str
    point: str


@dataclass(frozen=True)
class AlarmRule:
    """When an alarm begins and ends: after k of the last n judged recordings, so that one odd file does not ring.

    An alarm begins after k faults, a warning after k faults or doubtful faults; both end after k recordings without.

    Attributes:
        k: recordings that count, >= 1.
        n: recordings that are looked back on, >= k.
    """

    k: int = 3
    n: int = 5

    def __post_init__(self) -> None:
        check_count("on", self.k)
        if check_count("of", self.n) < self.k:
            raise ValueError(f"of is {self.n}, expected at least on, which is {self.k}")


@dataclass(frozen=True)
class AlarmState:
    """State of one point of a machine.

    Attributes:
        level: `"normal"`, `"warning"` or `"alarm"`.
        acknowledged: whether someone has acknowledged it; a rise of the level ends that.
        since: time of the line at which the level began.
        fault: class of the last faulty recording; empty if there was none.
        recent: severities of the last n judged recordings, oldest first: 0 healthy, 1 doubtful fault, 2 fault.
        n_recordings: number of judged recordings.
        last: the last line.
    """

    level: AlarmLevel = "normal"
    acknowledged: bool = False
    since: str = ""
    fault: str = ""
    recent: tuple[int, ...] = ()
    n_recordings: int = 0
    last: Mapping[str, str] = field(default_factory=dict)

    def after(self, row: Mapping[str, str], rule: AlarmRule) -> AlarmState:
        """Return the state after one more line of the table."""
        if row["status"] == ACKNOWLEDGED:
            return replace(self, acknowledged=self.level != "normal")
        if not row["probability"]:  # was not judged
            return replace(self, last=row)
        severity = severity_of(row)
        recent = (*self.recent, severity)[-rule.n :]
        state = replace(
            self,
            recent=recent,
            n_recordings=self.n_recordings + 1,
            fault=row["class"] if severity else self.fault,
            last=row,
        )
        level = _LEVELS[_next_level(_LEVELS.index(self.level), recent, rule)]
        if level == self.level:
            return state
        is_rise = _LEVELS.index(level) > _LEVELS.index(self.level)
        return replace(state, level=level, since=row["time"], acknowledged=self.acknowledged and not is_rise)


def _next_level(level: int, recent: tuple[int, ...], rule: AlarmRule) -> int:
    if sum(severity == _ALARM for severity in recent) >= rule.k:
        return _ALARM
    if sum(severity >= _WARNING for severity in recent) >= rule.k:
        return max(level, _WARNING)
    if sum(severity == _NORMAL for severity in recent) >= rule.k:
        return _NORMAL
    return level


def severity_of(row: Mapping[str, str]) -> int:
    """Return 0 for a healthy recording, 1 for a doubtful fault, 2 for a fault.

    Example:
        >>> [severity_of({"class": name, "status": status}) for name, status in
        ...  (("healthy", "doubtful"), ("ball", "doubtful"), ("ball", "ok"))]
        [0, 1, 2]
    """
    if signature(row["class"]) == signature(ROLLING_CLASSES[0]):
        return _NORMAL
    return _ALARM if row["status"] == "ok" else _WARNING


class Change(NamedTuple):
    """A change of the level of an alarm."""

    point: Point
    before: AlarmLevel
    state: AlarmState

    def __str__(self) -> str:
        place = f"{self.point.machine} ({self.point.point})" if self.point.point else self.point.machine
        fault = f": {self.state.fault}" if self.state.level != "normal" else ""
        return f"{place}: {self.before} -> {self.state.level}{fault}"


class Alarms:
    """Alarm states of all points, as they follow from the lines of a table.

    Args:
        rule: when alarms begin and end.

    Attributes:
        states: state of each point, in the order in which they occurred.

    Example:
        >>> alarms = Alarms(AlarmRule(k=2, n=3))
        >>> row = {"machine": "pump 1", "point": "DE", "class": "ball", "status": "ok", "probability": "1", "time": ""}
        >>> [str(change) for change in alarms.follow([row] * 3)]
        ['pump 1 (DE): normal -> alarm: ball']
    """

    def __init__(self, rule: AlarmRule) -> None:
        self.rule = rule
        self.states: dict[Point, AlarmState] = {}

    def follow(self, rows: Iterable[Mapping[str, str]]) -> list[Change]:
        """Take further lines into account, and return the changes of level."""
        return [change for row in rows for change in self._follow(row)]

    def _follow(self, row: Mapping[str, str]) -> list[Change]:
        changes = []
        for point in self._points_of(row):
            before = self.states.get(point, AlarmState())
            self.states[point] = before.after(row, self.rule)
            if self.states[point].level != before.level:
                changes.append(Change(point, before.level, self.states[point]))
        return changes

    def _points_of(self, row: Mapping[str, str]) -> list[Point]:
        """An acknowledgement is of all points of a machine."""
        if row["status"] == ACKNOWLEDGED:
            return [point for point in self.states if point.machine == row["machine"]]
        return [Point(row["machine"], row["point"])]
