"""The report of a run: one HTML file that needs no network, no script and no explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from whirl.data.recording import Recording
from whirl.engine.files import write_text
from whirl.evaluation import figures
from whirl.evaluation.hard_cases import HardCase, evidence, hardest, physics_verdict
from whirl.evaluation.prediction import Predictions
from whirl.physics.faults import ROLLING_CLASSES
from whirl.physics.rolling_bearing import FaultOrders

TEMPLATES = Path(__file__).parent / "templates"
# Parts of a physics-informed training's loss, and how far physics and the network agree.
_PHYSICS_CURVES = {
    "classification_loss": "loss of classification",
    "freq_loss": "loss against lines",
    "sommerfeld_loss": "loss against load ranking",
    "temporal_loss": "loss of steadiness",
    "physics_agreement": "agreement with physics",
}
_PART_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """All that a report tells; labels, names and messages may hold anything, they are escaped.

    Attributes:
        title: heading.
        data: what the recordings are, in a few words.
        command: what to type to get the same result.
        config: all settings, by name, possibly nested.
        classes: names of the K classes.
        model: name of the network.
        n_parameters: number of its trainable weights.
        history: values per epoch of `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy`, `lr`, and of what a
            physics-informed training logs; any may be absent.
        metrics: from `metrics.evaluate`.
        predictions: of the test recordings, after the vote; they point into `parts["test"]`.
        parts: recordings of `"train"`, `"val"` and `"test"`; only the last must be there.
        split_by: what the parts do not share: `"specimen"`, `"recording"` or `"time"`.
        window: samples in a window.
        hops: samples from one window to the next, by part; a part not named takes windows side by side.
        window_reason: why the window is that long.
        notes: choices and warnings to be read with the result.
        leaks: leaks from training into test data that were allowed; they stamp the report.
        orders: kinematics of the rolling bearing, if there is one.
        physics: judges windows by the evidence alone, see `hard_cases.physics_verdict`; None where physics does
            not know the classes.
        timings_s: seconds, by what they were spent on.
        versions: of software, by name.

    Raises:
        ValueError: there is no test part.
    """

    title: str
    data: str
    command: str
    config: Mapping[str, Any]
    classes: Sequence[str]
    model: str
    n_parameters: int
    history: Mapping[str, Sequence[float | None]]
    metrics: Mapping[str, Mapping[str, Any]]
    predictions: Predictions
    parts: Mapping[str, Sequence[Recording]]
    split_by: str
    window: int
    hops: Mapping[str, int] = field(default_factory=dict)
    window_reason: str = ""
    notes: Sequence[str] = ()
    leaks: Sequence[str] = ()
    orders: FaultOrders | None = None
    physics: nn.Module | None = None
    timings_s: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.parts.get("test"):
            raise ValueError(f"a report needs a test part, got {list(self.parts)}")


def write_report(path: str | Path, report: Report) -> None:
    """Write the report as one HTML file, whole or not at all."""
    write_text(path, render(report))


def page_template(name: str, **filters: Callable[..., str]) -> Any:
    """A template of a page, in which text of strangers is escaped, and what is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def render(report: Report) -> str:
    """The report as an HTML page."""
    page = page_template("report.html", percent=_percent, number=_number, quantity=_quantity).render(
        report=report,
        verdict=verdict(report),
        levels=[(name, report.metrics[name]) for name in ("recording", "window")],
        figures=_figures(report),
        per_class=list(_per_class(report)),
        hard_cases=_hard_cases(report),
        lacks_bearing=report.orders is None and not {*ROLLING_CLASSES[1:]}.isdisjoint(report.classes),
        parts=[_part(report, name) for name in report.parts],
        class_counts=_class_counts(report),
        settings=list(_flatten(report.config)),
    )
    # File names may hold bytes that are no text; they must not keep the report from being written.
    return page.encode("utf-8", "replace").decode("utf-8")


def _percent(share: float | None, digits: int = 0) -> str:
    """A share as text, never rounded up to a perfection that is none."""
    if share is None:
        return "–"
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        text = f"> {100 - 10**-digits:.{digits}f}"
    return f"{text} %"


def _number(count: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u202f")


def _quantity(value: float, unit: str = "") -> str:
    """Three significant digits and a unit."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} {unit}".strip()


def verdict(report: Report) -> dict[str, str]:
    """The result in plain sentences: what was `tested`, the `interval`, and what it all `means`.

    Whether the test specimens are new to the network is read off the recordings, not off the settings.
    """
    metrics = report.metrics["recording"]
    n_specimens = metrics["n_specimens"]
    of_specimens = f" from {_counted(n_specimens, 'specimen')}" if n_specimens else ""
    return {
        "tested": f"of {_counted(metrics['n'], 'test recording')}{of_specimens} were diagnosed correctly",
        "interval": _interval_sentence(metrics["intervals"]["accuracy"]),
        "means": _meaning(report, metrics["intervals"]["accuracy"]),
    }


def _counted(n: int, noun: str) -> str:
    return f"{_number(n)} {noun}{'' if n == 1 else 's'}"


def _interval_sentence(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return f"No interval: {interval['reason']}."
    within = ", each class by itself" if interval["stratified"] else ""
    return (
        f"95 % interval {_percent(interval['low'], 1)} to {_percent(interval['high'], 1)}, "
        f"by bootstrap over {interval['n_specimens']} specimens{within}."
    )


def _meaning(report: Report, interval: Mapping[str, Any]) -> str:
    if report.leaks:
        return "Test data were seen in training. The figure says nothing about other machines."
    test = {recording.specimen for recording in report.parts["test"]}
    if "train" not in report.parts:
        return "Whether the network was trained on these specimens is not on record here."
    if None in test:
        return (
            "The specimens of some recordings are not known, so the network may have been trained on the very machines "
            "it is tested on. Expect less on a new machine."
        )
    trained = {recording.specimen for name in ("train", "val") for recording in report.parts.get(name, ())}
    seen = test & trained
    if seen:
        return (
            f"{len(seen)} of the {_counted(len(test), 'specimen')} also stand in training, at other times. The figure "
            "says how well known machines are recognised again; expect less on a new one."
        )
    expected = ""
    if interval["low"] is not None:
        expected = (
            f" Over new specimens like these, in the same conditions, expect {_percent(interval['low'])} to "
            f"{_percent(interval['high'])} of recordings to be diagnosed correctly."
        )
    return f"The network has seen none of these specimens before.{expected}"


def _figures(report: Report) -> dict[str, Any]:
    """All SVG of the report but the spectra."""
    from markupsafe import Markup

    levels = {name: report.metrics[name] for name in ("recording", "window")}
    return {
        "learning": [Markup(svg) for svg in _learning_curves(report.history)],
        "confusion": {
            name: Markup(figures.confusion_matrix(level["confusion"], report.classes, f"confusion of {name}s"))
            for name, level in levels.items()
        },
        "reliability": {
            name: Markup(figures.reliability_diagram(level["reliability"], f"reliability of {name}s"))
            for name, level in levels.items()
        },
    }


def _learning_curves(history: Mapping[str, Sequence[float | None]]) -> Iterator[str]:
    val_loss = np.array(history.get("val_loss", ()), dtype=float)
    best = int(np.nanargmin(val_loss)) if np.isfinite(val_loss).any() else None
    for quantity in ("loss", "accuracy"):
        if curves := _in_both_parts(history, quantity):
            yield figures.learning_curve(curves, quantity, best)
    if _has_values(history.get("lr")):
        yield figures.learning_curve({"rate": history["lr"]}, "learning rate", best)
    for quantity, label in _PHYSICS_CURVES.items():
        curves = _in_both_parts(history, quantity)
        if any(any(values) for values in curves.values()):  # a term that is turned off is 0
            yield figures.learning_curve(curves, label, best)


def _in_both_parts(history: Mapping[str, Sequence[float | None]], quantity: str) -> dict[str, Sequence[float | None]]:
    names = {"training": f"train_{quantity}", "validation": f"val_{quantity}"}
    return {name: history[key] for name, key in names.items() if _has_values(history.get(key))}


def _has_values(values: Sequence[float | None] | None) -> bool:
    return bool(np.isfinite(np.array(values or (), dtype=float)).any())


def _per_class(report: Report) -> Iterator[dict[str, Any]]:
    """Rows of the table per class, with the class it is most often taken for."""
    recording, window = report.metrics["recording"], report.metrics["window"]
    confusion = np.array(recording["confusion"])
    np.fill_diagonal(confusion, 0)
    for index, name in enumerate(report.classes):
        rival = int(confusion[index].argmax())
        yield {
            "name": name,
            "recording": recording["per_class"][name],
            "window": window["per_class"][name],
            "rival": report.classes[rival] if confusion[index, rival] else None,
            "n_rival": int(confusion[index, rival]),
        }


def _hard_cases(report: Report) -> list[tuple[HardCase, Any, Any, list[tuple[str, float]]]]:
    """The hardest recordings with their spectra and what physics says, as (case, evidence, svg, classes)."""
    from markupsafe import Markup

    cases = hardest(report.predictions, report.parts["test"], report.classes)
    seen = [(case, evidence(case, report.classes, report.orders)) for case in cases]
    said = _physics_says(cases, report)
    return [(case, proof, Markup(proof.svg), classes) for (case, proof), classes in zip(seen, said, strict=True)]


def _physics_says(cases: Sequence[HardCase], report: Report) -> list[list[tuple[str, float]]]:
    if report.physics is None:
        return [[] for _ in cases]
    return physics_verdict(cases, report.classes, report.physics, report.window)


def _part(report: Report, name: str) -> dict[str, Any]:
    """What one part of the split holds."""
    recordings = report.parts[name]
    specimens = {recording.specimen for recording in recordings}
    return {
        "name": _PART_NAMES.get(name, name),
        "n_recordings": len(recordings),
        "n_windows": sum(_n_windows(report, name, recording) for recording in recordings),
        "specimens": sorted(specimen for specimen in specimens if specimen is not None),
        "n_without_specimen": sum(recording.specimen is None for recording in recordings),
        "minutes": sum(recording.duration_s for recording in recordings) / 60,
        "speed": _span([recording.rpm for recording in recordings], "rpm"),
        "loads": [
            _span([r.load for r in recordings if r.load_unit == unit], unit)
            for unit in sorted({recording.load_unit for recording in recordings})
        ],
    }


def _n_windows(report: Report, part: str, recording: Recording) -> int:
    hop = report.hops.get(part, report.window)
    return max(0, 1 + (recording.n_samples - report.window) // hop)


def _span(values: Sequence[float | None], unit: str) -> str:
    """Range of the known values, and how many are not known."""
    known = [value for value in values if value is not None]
    n_unknown = len(values) - len(known)
    if not known:
        return "not known"
    low, high = _quantity(min(known)), _quantity(max(known))
    span = low if low == high else f"{low} to {high}"
    return f"{span} {unit}".rstrip() + (f", {n_unknown} not known" if n_unknown else "")


def _class_counts(report: Report) -> list[tuple[str, list[tuple[int, int]]]]:
    """Recordings and windows of each class in each part."""
    return [
        (
            label,
            [
                (
                    sum(recording.label == label for recording in recordings),
                    sum(_n_windows(report, name, recording) for recording in recordings if recording.label == label),
                )
                for name, recordings in report.parts.items()
            ],
        )
        for label in report.classes
    ]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings with dotted names, as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)
