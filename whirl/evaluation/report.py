"""The report of a run: one self-contained HTML page without scripts or external resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from whirl.data.recording import Recording
from whirl.engine.history import History
from whirl.evaluation.figures import (
    plot_confusion_matrix,
    plot_learning_curve,
    plot_reliability_diagram,
    plot_risk_coverage,
    to_svg,
)
from whirl.evaluation.hard_cases import HardCase, annotated_spectrum, hardest_recordings, physics_verdict
from whirl.evaluation.prediction import Predictions
from whirl.evaluation.verdict import verdict
from whirl.physics.bearings import parse_bearings
from whirl.physics.faults import ROLLING_CLASSES
from whirl.physics.rolling_bearing import FaultOrders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
_CURVES = {"loss": "loss", "accuracy": "accuracy", "mae": "mean absolute error", "lr": "learning rate"}
# Terms of the loss of a physics-informed training, and the agreement between physics and network.
_PHYSICS_CURVES = {
    "classification_loss": "classification loss",
    "freq_loss": "frequency loss",
    "sommerfeld_loss": "Sommerfeld (load ranking) loss",
    "temporal_loss": "temporal smoothness loss",
    "physics_agreement": "agreement with physics",
}
_PART_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportFacts:
    """Content of a report of any task. Labels, names and messages may contain any text; they are escaped.

    Attributes:
        title: title of the page.
        data: short description of the recordings.
        command: command that reproduces the result.
        config: all settings by name, possibly nested.
        model: name of the network.
        n_parameters: number of trainable parameters; None for a model of descriptors.
        history: values per epoch of `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy`, `lr`, and of the terms
            that a physics-informed training logs; all optional.
        metrics: metrics by level, `"recording"` and, for a network, `"window"`; and scores of simple diagnosers by name
            as `"baselines"`, optional.
        parts: recordings of `"train"`, `"val"` and `"test"`; only the last is required.
        split_by: what the parts do not share: `"specimen"`, `"recording"` or `"time"`.
        window: samples in a window.
        hops: samples between the starts of consecutive windows, by part; by default windows do not overlap.
        window_reason: explanation of the window length.
        notes: choices and warnings that are relevant for the interpretation.
        leaks: accepted leaks from training into test data; they are shown prominently.
        timings_s: duration in seconds by step.
        versions: software versions by name.

    Raises:
        ValueError: there is no test part.
    """

    title: str
    data: str
    command: str
    config: Mapping[str, Any]
    model: str
    n_parameters: int | None
    history: Mapping[str, Sequence[float | None]]
    metrics: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Sequence[Recording]]
    split_by: str
    window: int
    hops: Mapping[str, int] = field(default_factory=dict)
    window_reason: str = ""
    notes: Sequence[str] = ()
    leaks: Sequence[str] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.parts.get("test"):
            raise ValueError(f"parts are {list(self.parts)}, expected a non-empty test part")

    @property
    def is_unseen(self) -> bool:
        """Whether no test specimen occurs in the training data, according to the recordings and not the settings."""
        test = {recording.specimen for recording in self.parts["test"]}
        trained = {recording.specimen for name in ("train", "val") for recording in self.parts.get(name, ())}
        return "train" in self.parts and not self.leaks and None not in test and not test & trained


@dataclass(frozen=True, kw_only=True, eq=False)
class Report(ReportFacts):
    """Content of a report of a classification; `metrics` are those of `metrics.compute_metrics`.

    Attributes:
        classes: names of the K classes.
        predictions: predictions for the test recordings, see `aggregate_by_recording`; they index `parts["test"]`.
        better_baselines: sentences about simple diagnosers that surpass the trained one, for the top of the page.
        orders: kinematics of the rolling bearing; None if there is none.
        physics: module that classifies windows by physical evidence, see `hard_cases.physics_verdict`; None if the
            classes have no known signatures.
    """

    classes: Sequence[str]
    predictions: Predictions
    better_baselines: Sequence[str] = ()
    orders: FaultOrders | None = None
    physics: nn.Module | None = None


def page_template(name: str, **filters: Callable[..., str]) -> Any:
    """Load a page template with HTML escaping; undefined variables raise an error."""
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


@dataclass(frozen=True)
class Drawings:
    """What takes longest in a report, and stays the same if other diagnosers are added for comparison.

    Attributes:
        figures: markup of the figures by name.
        hard_cases: the hardest recordings, each as (case, spectrum, markup, classes by physical evidence).
    """

    figures: dict[str, Any]
    hard_cases: list[tuple[HardCase, Any, Any, list[tuple[str, float]]]]


def draw(report: Report) -> Drawings:
    """Draw the figures of a report, and the spectra of its hardest recordings."""
    return Drawings(_figures(report), _hard_cases(report))


def render_report(report: Report, drawings: Drawings | None = None) -> str:
    """Render a report as an HTML page, with its drawings if they exist already."""
    drawings = drawings or draw(report)
    return render_page(
        "report.html",
        report,
        summary=summarize(report),
        baselines=report.metrics.get("baselines", {}),
        better=report.better_baselines,
        figures=drawings.figures,
        per_class=list(_per_class(report)),
        hard_cases=drawings.hard_cases,
        lacks_bearing=report.orders is None and not {*ROLLING_CLASSES[1:]}.isdisjoint(report.classes),
        class_counts=_class_counts(report),
    )


def render_page(template: str, report: ReportFacts, **content: Any) -> str:
    """Render a template with what the reports of all tasks have in common, and with further content by name."""
    filters = {"percent": _percent, "number": _number, "quantity": _quantity, "score": _score}
    page = page_template(template, **filters).render(
        report=report,
        levels=[(name, report.metrics[name]) for name in _levels(report)],
        parts=[_part(report, name) for name in report.parts],
        settings=list(_flatten(report.config)),
        **content,
    )
    # File names may contain surrogates of undecodable bytes, which UTF-8 cannot encode.
    return page.encode("utf-8", "replace").decode("utf-8")


def _percent(share: float | None, digits: int = 0) -> str:
    """Format a share as percentage; values below 1 are never rounded to 100 %."""
    if share is None:
        return "–"
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        text = f"> {100 - 10**-digits:.{digits}f}"
    return f"{text} %"


def _number(count: int) -> str:
    """Format a count with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u202f")


def _quantity(value: float, unit: str = "") -> str:
    """Format a value with three significant digits and a unit."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} {unit}".strip()


def _score(value: float | None) -> str:
    """Format a score or a number with four significant digits."""
    return "–" if value is None else f"{value:.4g}"


def summarize(report: Report) -> dict[str, str]:
    """Summarize the result in sentences: `verdict`, `accuracy`, `interval` and `interpretation`.

    Whether the test specimens occur in the training data is derived from the recordings, not from the settings.
    """
    metrics = report.metrics["recording"]
    n_specimens = metrics["n_specimens"]
    of_specimens = f" from {_counted(n_specimens, 'specimen')}" if n_specimens else ""
    return {
        "verdict": verdict(report.metrics, report.better_baselines, report.is_unseen),
        "accuracy": f"of {_counted(metrics['n'], 'test recording')}{of_specimens} were classified correctly",
        "interval": _interval_sentence(metrics["intervals"]["accuracy"]),
        "interpretation": _interpretation(report, metrics["intervals"]["accuracy"]),
    }


def _counted(n: int, noun: str) -> str:
    return f"{_number(n)} {noun}{'' if n == 1 else 's'}"


def _interval_sentence(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return f"No confidence interval: {interval['reason']}."
    stratified = ", stratified by class" if interval["stratified"] else ""
    return (
        f"95 % confidence interval {_percent(interval['low'], 1)} to {_percent(interval['high'], 1)}, "
        f"by bootstrap over {interval['n_specimens']} specimens{stratified}."
    )


def _interpretation(report: Report, interval: Mapping[str, Any]) -> str:
    if report.leaks:
        return "Training and test data overlap. The accuracy is not an estimate for other machines."
    test = {recording.specimen for recording in report.parts["test"]}
    if "train" not in report.parts:
        return "It is unknown whether the network was trained on these specimens."
    if None in test:
        return (
            "The specimens of some recordings are unknown, so training and test data may contain the same machines. "
            "Expect a lower accuracy on new machines."
        )
    trained = {recording.specimen for name in ("train", "val") for recording in report.parts.get(name, ())}
    seen = test & trained
    if seen:
        return (
            f"{len(seen)} of the {_counted(len(test), 'specimen')} also occur in the training data, at other times. "
            "The accuracy applies to known machines; expect a lower one on new machines."
        )
    expected = ""
    if interval["low"] is not None:
        expected = (
            f" On new specimens of this kind under the same conditions, expect an accuracy of "
            f"{_percent(interval['low'])} to {_percent(interval['high'])}."
        )
    return f"The test specimens do not occur in the training data.{expected}"


def _figures(report: Report) -> dict[str, Any]:
    """Draw all figures of the report except the spectra."""
    levels = {name: report.metrics[name] for name in _levels(report)}
    confusion = {name: plot_confusion_matrix(level["confusion"], report.classes) for name, level in levels.items()}
    reliability = {name: plot_reliability_diagram(level["reliability"]) for name, level in levels.items()}
    risk = report.metrics.get("trust", {}).get("risk_coverage")
    return {
        "risk": embed(plot_risk_coverage(risk), "error rate of the most certain recordings") if risk else None,
        "learning": learning_figures(report),
        "confusion": {name: embed(figure, f"confusion matrix of {name}s") for name, figure in confusion.items()},
        "reliability": {name: embed(figure, f"reliability diagram of {name}s") for name, figure in reliability.items()},
    }


def learning_figures(report: ReportFacts) -> list[Any]:
    """Draw the learning curves of a report, as markup."""
    return [embed(figure, f"{label} by epoch") for label, figure in _learning_curves(report.history)]


def _levels(report: ReportFacts) -> list[str]:
    """Return the levels of the metrics: recordings, and windows if a network classified these."""
    return [name for name in ("recording", "window") if name in report.metrics]


def embed(figure: Figure, title: str) -> Any:
    """Return a figure as markup for a page template."""
    from markupsafe import Markup

    return Markup(to_svg(figure, title))


def _learning_curves(values: Mapping[str, Sequence[float | None]]) -> Iterator[tuple[str, Figure]]:
    """Draw loss, accuracy, learning rate and the terms of a physics-informed training, as far as they were logged."""
    logged: Any = values
    history = History(logged)
    curves = {label: history.curves(quantity) for quantity, label in _CURVES.items()}
    physics = {label: history.curves(quantity) for quantity, label in _PHYSICS_CURVES.items()}
    enabled = {label: terms for label, terms in physics.items() if any(map(any, terms.values()))}  # others are 0
    for label, lines in (curves | enabled).items():
        if lines:
            yield label, plot_learning_curve(lines, label, history.best_epoch)


def _per_class(report: Report) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table per class, with the class it is most often confused with."""
    recording, window = report.metrics["recording"], report.metrics.get("window")
    confusion = np.array(recording["confusion"])
    np.fill_diagonal(confusion, 0)
    for index, name in enumerate(report.classes):
        confused_with = int(confusion[index].argmax())
        n_confused = int(confusion[index, confused_with])
        yield {
            "name": name,
            "recording": recording["per_class"][name],
            "window": None if window is None else window["per_class"][name],
            "confused_with": report.classes[confused_with] if n_confused else None,
            "n_confused": n_confused,
        }


def _hard_cases(report: Report) -> list[tuple[HardCase, Any, Any, list[tuple[str, float]]]]:
    """Return the hardest recordings as (case, spectrum, svg, classes by physical evidence)."""
    from markupsafe import Markup

    cases = hardest_recordings(report.predictions, report.parts["test"], report.classes)
    spectra = [annotated_spectrum(case, report.classes, _orders_of(case.recording) or report.orders) for case in cases]
    verdicts = _physics_verdicts(cases, report)
    return [
        (case, spectrum, Markup(spectrum.svg), verdict)
        for case, spectrum, verdict in zip(cases, spectra, verdicts, strict=True)
    ]


def _orders_of(recording: Recording) -> FaultOrders | None:
    """Return the fault orders of a recording's own bearing; None if it states none that is known."""
    try:
        return parse_bearings(recording.bearing or "", recording.rotating_race)[0].orders
    except ValueError:
        return None


def _physics_verdicts(cases: Sequence[HardCase], report: Report) -> list[list[tuple[str, float]]]:
    if report.physics is None:
        return [[] for _ in cases]
    return physics_verdict(cases, report.classes, report.physics, report.window)


def _part(report: ReportFacts, name: str) -> dict[str, Any]:
    """Describe one part of the split."""
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


def _n_windows(report: ReportFacts, part: str, recording: Recording) -> int:
    hop = report.hops.get(part, report.window)
    return max(0, 1 + (recording.n_samples - report.window) // hop)


def _span(values: Sequence[float | None], unit: str) -> str:
    """Format the range of the known values, and the number of unknown ones."""
    known = [value for value in values if value is not None]
    n_unknown = len(values) - len(known)
    if not known:
        return "unknown"
    low, high = _quantity(min(known)), _quantity(max(known))
    span = low if low == high else f"{low} to {high}"
    return f"{span} {unit}".rstrip() + (f", {n_unknown} unknown" if n_unknown else "")


def _class_counts(report: Report) -> list[tuple[str, list[tuple[int, int]]]]:
    """Count recordings and windows of each class in each part."""
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
    """Yield settings with dotted names and text values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)
