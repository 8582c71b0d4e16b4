"""The page of watched machines: their alarms, and trends of their levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whirl.engine.files import write_text
from whirl.evaluation.report import page_template
from whirl.runs.alarms import Alarms, Point, severity_of

_TRENDS = {"velocity_rms_mm_s": "velocity RMS / mm/s", "kurtosis": "kurtosis"}
_SHOWN = 100  # recordings of a trend
_WIDTH, _HEIGHT = 160, 36  # of a trend, pixels
_ORDER = ("alarm", "warning", "normal")


def write_watch_page(alarms: Alarms, rows: Sequence[Mapping[str, str]], path: str | Path, title: str) -> None:
    """Write an HTML page with a line for each watched point, alarms first.

    Args:
        alarms: alarm states.
        rows: lines of the table of judgements.
        path: the page.
        title: name of what is watched.
    """
    by_point: dict[Point, list[Mapping[str, str]]] = {}
    for row in rows:
        by_point.setdefault(Point(row["machine"], row["point"]), []).append(row)
    lines = [_line(point, alarms, by_point.get(point, [])) for point in alarms.states]
    lines.sort(key=lambda line: (_ORDER.index(line["state"].level), line["point"]))
    page = page_template("watch.html").render(title=title, lines=lines, trends=_TRENDS.values(), rule=alarms.rule)
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def _line(point: Point, alarms: Alarms, rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    judged = [row for row in rows if row["probability"]]
    return {
        "point": point,
        "state": alarms.states[point],
        "trends": [_trend([row[name] for row in judged[-_SHOWN:]]) for name in _TRENDS],
        "severities": [severity_of(row) for row in judged[-_SHOWN:]],
    }


def _trend(values: Sequence[str]) -> dict[str, Any] | None:
    """Return the points of a polyline and the last value; None without values."""
    known = [(place, float(value)) for place, value in enumerate(values) if value]
    if not known:
        return None
    highest = max(value for _, value in known) or 1.0
    step = _WIDTH / max(len(values) - 1, 1)
    points = " ".join(f"{place * step:.1f},{_HEIGHT - value / highest * (_HEIGHT - 2):.1f}" for place, value in known)
    return {"points": points, "last": known[-1][1], "highest": highest, "width": _WIDTH, "height": _HEIGHT}
