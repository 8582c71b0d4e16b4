"""Tests of the report: content, safety, and rendering in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from whirl.data.recording import Recording
from whirl.engine.files import write_text
from whirl.evaluation.report import Report, draw, render_report, summarize

MakeReport = Callable[..., Report]
SCRIPT = "<script>alert(1)</script>"
ATTRIBUTE = '"><img src=http://example.org/x onerror=alert(1)>'


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def without_specimen(recording: Recording) -> Recording:
    return replace(recording, specimen=None)


def with_unsafe_text(recording: Recording) -> Recording:
    labels = {
        "healthy": SCRIPT,
        "misalignment": "$\\frac{a",
        "imbalance": ATTRIBUTE,
        "wear": "{{ 7 * 7 }} 轴承",
        "clearance": "\udcff\0",
    }
    return replace(
        recording,
        label=labels.get(str(recording.label), recording.label),
        source=f"/data/{SCRIPT}/\udcff.mat",
        specimen=f"{recording.specimen}{ATTRIBUTE}",
        unit=f"{SCRIPT}\udcff",
        channels=(SCRIPT,),
        load_unit=SCRIPT,
    )


@pytest.fixture(scope="module")
def unsafe_page(make_report: MakeReport) -> str:
    fields = dict.fromkeys(("title", "data", "command", "model", "split_by", "window_reason"), SCRIPT)
    nested = {"notes": [SCRIPT, "{{ 7 * 7 }}"], "leaks": [ATTRIBUTE], "config": {SCRIPT: {SCRIPT: ATTRIBUTE}}}
    return render_report(
        make_report(
            change=with_unsafe_text, skill=0.5, versions={SCRIPT: SCRIPT}, timings_s={SCRIPT: 1.0}, **fields, **nested
        )
    )


@pytest.fixture(scope="module")
def report(make_report: MakeReport) -> Report:
    return make_report(notes=["the recorder clipped"], window_reason="16 revolutions")


@pytest.fixture(scope="module")
def rendered(report: Report) -> str:
    return render_report(report)


def test_sections_are_in_order_and_show_the_metrics(report: Report, rendered: str) -> None:
    text = Elements(rendered).text
    headings = re.findall(r"<h2>(.*?)</h2>", rendered)
    assert headings == [
        "Learning curves",
        "Confusion matrix",
        "Per-class metrics",
        "Calibration",
        "Accuracy by operating condition",
        "Misclassified recordings",
        "Data set",
        "Reproduce this result",
    ]
    metrics = report.metrics["recording"]
    assert f"{100 * metrics['accuracy']:.1f} %" in text[: text.index("Learning curves")]
    assert f"of {metrics['n']} test recordings from 5 specimens" in text
    assert report.command in text
    assert "the recorder clipped" in text
    assert "16 revolutions" in text
    assert "simulation.n_machines 6" in text
    assert "training 11 99 1" in text  # 9 windows of 4096 samples, 2048 apart, in 20480 samples
    assert "test 55 275 5" in text  # 5 windows without overlap
    assert rendered.count("<svg") == 3 + 2 + 2 + 8


def test_page_is_small_and_deterministic(report: Report, rendered: str) -> None:
    assert render_report(report) == rendered


def test_page_with_drawings_at_hand_is_the_same(report: Report, rendered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = draw(report)
    monkeypatch.setattr("whirl.evaluation.report.to_svg", None)
    assert render_report(report, drawings) == rendered
    assert len(rendered.encode()) < 3_000_000


def test_failed_report_does_not_replace_existing_file(make_report: MakeReport, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_text(path, render_report(make_report(metrics={})))
    assert path.read_text() == "old"
    with pytest.raises(ValueError, match="expected a non-empty test part"):
        make_report(parts={"train": []})


def test_unsafe_text_is_escaped(unsafe_page: str) -> None:
    page = Elements(unsafe_page)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert unsafe_page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "{{ 7 * 7 }}" in unsafe_page
    assert "$\\frac{a" in unsafe_page


def test_page_requests_no_resources(unsafe_page: str, rendered: str) -> None:
    for page in (unsafe_page, rendered):
        for _, attributes in Elements(page).elements:
            for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert (attributes.get(name) or "#").startswith(("#", "data:,"))
        assert not re.search(r"url\((?!#)|@import", page)
        assert "default-src 'none'" in page
    assert "http" not in rendered.replace("http-equiv", "")


def test_data_leakage_is_shown_first(report: Report, rendered: str) -> None:
    leaky = replace(report, leaks=[f"leak {index}" for index in range(30)])
    page = render_report(leaky)
    assert 'class="stamp"' not in rendered
    assert page.index('class="stamp"') < page.index('class="summary')
    assert "leak 9<" in page
    assert "leak 10<" not in page
    assert "and 20 more" in page
    assert "not an estimate for other machines" in summarize(leaky)["interpretation"]


def test_summary_states_whether_specimens_are_new(report: Report, make_report: MakeReport) -> None:
    assert "The test specimens do not occur in the training data" in summarize(report)["interpretation"]
    assert "expect" in summarize(report)["interpretation"]
    trained = {"train": [*report.parts["train"], report.parts["test"][0]], "test": report.parts["test"]}
    interpretation = summarize(replace(report, parts=trained))["interpretation"]
    assert "1 of the 5 specimens also occur in the training data" in interpretation
    alone = replace(report, parts={"test": report.parts["test"]})
    assert "It is unknown whether" in summarize(alone)["interpretation"]
    unknown = make_report(change=without_specimen)
    assert "specimens of some recordings are unknown" in summarize(unknown)["interpretation"]
    assert summarize(unknown)["interval"].startswith("No confidence interval: the specimens of some recordings")
    assert summarize(unknown)["accuracy"] == "of 55 test recordings were classified correctly"


def test_perfect_result_has_no_interval(make_report: MakeReport) -> None:
    summary = summarize(make_report(skill=50))
    assert "up to 45 % of new specimens" in summary["interval"]  # 1 - 0.05 ** (1 / 5)
    assert "expect" not in summary["interpretation"]


def test_accuracy_below_one_is_not_rounded_to_100_percent(report: Report) -> None:
    interval = {"low": 0.99, "high": 0.99997, "reason": None, "n_specimens": 40, "stratified": False}
    almost = {**report.metrics["recording"], "intervals": {"accuracy": interval}}
    summary = summarize(replace(report, metrics={**report.metrics, "recording": almost}))
    assert "95 % confidence interval 99.0 % to > 99.9 %, by bootstrap over 40 specimens" in summary["interval"]


@pytest.mark.parametrize(
    "fields",
    [
        {"history": {}, "change": without_specimen},
        {"history": {"train_loss": [1.0], "lr": [1e-3]}},
        {"history": {"train_loss": [None, float("nan")], "val_loss": [None, None]}},
        {"change": lambda r: replace(r, rpm=None, load=None, load_unit="", unit="", metadata={"severity": "high"})},
        {"orders": None, "kind": "rolling", "config": {}, "hops": {}},
    ],
)
def test_unknown_values_are_omitted(make_report: MakeReport, fields: dict[str, Any]) -> None:
    text = Elements(render_report(make_report(**fields))).text
    assert "None" not in text
    assert "nan" not in text.split()


class DecreasingLogits(nn.Module):
    """Returns the same logits for every window, highest for the first class."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.logits = -torch.arange(n_classes).float()

    def forward(self, signals: torch.Tensor, metadata: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.logits.expand(len(signals), -1)


PHYSICS_HISTORY = {
    f"{part}_{name}": values
    for part in ("train", "val")
    for name, values in {
        "loss": [3.0, 2.0, 1.0],
        "classification_loss": [2.0, 1.5, 1.0],
        "freq_loss": [1.5, 1.2, 1.1],
        "temporal_loss": [0.0, 0.0, 0.0],
        "physics_agreement": [0.2, 0.4, 0.6],
    }.items()
}


def test_physics_verdict_is_shown_next_to_prediction(make_report: MakeReport) -> None:
    page = render_report(make_report(history=PHYSICS_HISTORY, physics=DecreasingLogits(11)))
    text = Elements(page).text
    assert page.count("<th>physics only</th>") == 8
    # softmax of 0, -1, -2, ...
    assert text.count("physics only healthy 63 % misalignment 23 % imbalance 9 %") == 8
    assert "frequency loss" in page
    assert "agreement with physics" in page
    assert "temporal smoothness loss" not in page
    without_speed = make_report(physics=DecreasingLogits(11), change=lambda recording: replace(recording, rpm=None))
    assert "<th>physics only</th>" not in render_report(without_speed)
    assert "hysics only" not in render_report(make_report())


# Texts that overlap or exceed their figure, except rotated ones, whose bounding boxes overlap although they do not.
MISPLACED = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(text => [text, text.getBoundingClientRect()]);
  const outside = texts.filter(([_, box]) => Math.max(
    frame.left - box.left, box.right - frame.right, frame.top - box.top, box.bottom - frame.bottom) > 2);
  const width = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = (a, b) => Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  const upright = texts.filter(([text]) => !text.hasAttribute('transform'));
  const overlapping = upright.filter(([_, a], i) =>
    upright.slice(i + 1).some(([_, b]) => width(a, b) > 1 && height(a, b) > 2));
  return [...outside, ...overlapping].map(([text]) => text.textContent);
})
"""


@pytest.mark.parametrize("kind", ["journal", "rolling"])
def test_browser_reports_no_errors_requests_or_overlaps(
    make_report: MakeReport, page: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "report.html"
    physics = DecreasingLogits({"journal": 11, "rolling": 4}[kind])
    report = make_report(kind, leaks=["a leak"], history=PHYSICS_HISTORY, physics=physics)
    path.write_text(render_report(report), encoding="utf-8")
    for width, dark in ((1200, False), (1200, True), (390, False)):
        page.open(path, width, dark=dark)
        assert page.errors == []
        assert page.requests == [path.as_uri()]
        assert page.evaluate(MISPLACED) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == dark


def test_browser_does_not_execute_labels(unsafe_page: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / "unsafe.html"
    path.write_text(unsafe_page, encoding="utf-8")
    page.open(path)
    assert page.errors == []
    assert page.requests == [path.as_uri()]
    assert page.evaluate("document.scripts.length + document.images.length") == 0
    assert page.evaluate("document.querySelectorAll('svg').length") == 15


def test_browser_detects_requests_and_errors(page: Any, tmp_path: Path) -> None:
    """Check that the two tests above can fail, by a page with a request and an error."""
    path = tmp_path / "invalid.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.log('seen'); undefined.x</script>")
    page.open(path)
    assert "http://127.0.0.1:9/x.png" in page.requests
    assert any("seen" in error for error in page.errors)
    assert any("Uncaught" in error for error in page.errors)
