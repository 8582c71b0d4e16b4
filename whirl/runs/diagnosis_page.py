"""The page of judged recordings: a table of all, and figures of those that need attention."""

from __future__ import annotations

import base64
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whirl.data.manifest import read_listed
from whirl.diagnosis.plots import plot_diagnosis
from whirl.engine.files import write_text
from whirl.evaluation.report import page_template
from whirl.runs.diagnosis import known_facts
from whirl.runs.judgement import Diagnosis

MAX_FIGURES = 20
"""Recordings with figures: faults and doubtful ones first, in order of the files."""

_STATUSES = ("ok", "doubtful", "not_judged", "unreadable")


def write_page(
    diagnoses: Sequence[Diagnosis], path: str | Path, title: str, sampling_rate_hz: float | None = None
) -> None:
    """Write an HTML page of judged recordings without scripts or external resources.

    Args:
        diagnoses: the judgements.
        path: the page.
        title: title of the page.
        sampling_rate_hz: sampling rate of files for which neither manifest nor file states one.
    """
    page = page_template("diagnoses.html").render(
        title=title,
        diagnoses=[(each, Path(each.file).name) for each in diagnoses],
        counts=_counts(diagnoses),
        figures=[_figure(each, sampling_rate_hz) for each in _most_notable(diagnoses)],
        max_figures=MAX_FIGURES,
    )
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def _counts(diagnoses: Sequence[Diagnosis]) -> list[tuple[str, int]]:
    """Return how many recordings each status and each class has."""
    statuses = Counter(each.status for each in diagnoses)
    classes = Counter(each.label for each in diagnoses if each.is_judged)
    return [*((name.replace("_", " "), statuses[name]) for name in _STATUSES if statuses[name]), *classes.most_common()]


def _most_notable(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    drawn = [each for each in diagnoses if each.status != "unreadable"]
    return sorted(drawn, key=lambda each: (each.label == "healthy", each.status == "ok"))[:MAX_FIGURES]


def _figure(found: Diagnosis, sampling_rate_hz: float | None) -> dict[str, Any]:
    (recording,) = read_listed([found.file], sampling_rate_hz)
    recording = replace(recording, **known_facts(found.bearing, found.rpm))
    return {"diagnosis": found, "name": Path(found.file).name, "image": _to_png(plot_diagnosis(recording))}


def _to_png(figure: Any) -> str:
    """Return a figure as the base64 text of a PNG image: waveforms have too many points for a page of paths."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs of names that the font lacks
        figure.savefig(image, format="png", facecolor="white")
    return base64.b64encode(image.getvalue()).decode()
