"""The report: what it says, that it is safe, and that a browser has nothing to complain of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from whirl.data.recording import Recording
from whirl.evaluation.report import Report, render, verdict, write_report

MakeReport = Callable[..., Report]
SCRIPT = "<script>alert(1)</script>"
ATTRIBUTE = '"><img src=http://example.org/x onerror=alert(1)>'


class Elements(HTMLParser):
    """All elements with their attributes, and the text between them."""

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


def hostile(recording: Recording) -> Recording:
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
def hostile_page(make_report: MakeReport) -> str:
    fields = dict.fromkeys(("title", "data", "command", "model", "split_by", "window_reason"), SCRIPT)
    listed = {"notes": [SCRIPT, "{{ 7 * 7 }}"], "leaks": [ATTRIBUTE], "config": {SCRIPT: {SCRIPT: ATTRIBUTE}}}
    return render(
        make_report(change=hostile, skill=0.5, versions={SCRIPT: SCRIPT}, timings_s={SCRIPT: 1.0}, **fields, **listed)
    )


@pytest.fixture(scope="module")
def report(make_report: MakeReport) -> Report:
    return make_report(notes=["the recorder clipped"], window_reason="16 revolutions")


@pytest.fixture(scope="module")
def rendered(report: Report) -> str:
    return render(report)


def test_contents_come_in_order_and_numbers_are_those_of_the_metrics(report: Report, rendered: str) -> None:
    text = Elements(rendered).text
    headings = re.findall(r"<h2>(.*?)</h2>", rendered)
    assert headings == [
        "Learning",
        "What is taken for what",
        "Class by class",
        "Does it know when it does not know?",
        "Under which conditions",
        "The hardest recordings",
        "Data card",
        "To do it again",
    ]
    metrics = report.metrics["recording"]
    assert f"{100 * metrics['accuracy']:.1f} %" in text[: text.index("Learning")]
    assert f"of {metrics['n']} test recordings from 5 specimens" in text
    assert report.command in text
    assert "the recorder clipped" in text
    assert "16 revolutions" in text
    assert "simulation.n_machines 6" in text
    assert "training 11 99 1" in text  # 9 windows of 4096 samples, 2048 apart, in 20480 samples
    assert "test 55 275 5" in text  # 5 windows side by side
    assert rendered.count("<svg") == 3 + 2 + 2 + 8


def test_it_is_written_whole_small_soon_and_always_the_same(report: Report, rendered: str, tmp_path: Path) -> None:
    began = time.process_time()
    write_report(tmp_path / "report.html", report)
    assert time.process_time() - began < 8
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == rendered
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_made_leaves_the_old_one(make_report: MakeReport, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_report(path, make_report(metrics={}))
    assert path.read_text() == "old"
    with pytest.raises(ValueError, match="test part"):
        make_report(parts={"train": []})


def test_nothing_hostile_becomes_markup(hostile_page: str) -> None:
    page = Elements(hostile_page)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert hostile_page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "{{ 7 * 7 }}" in hostile_page
    assert "$\\frac{a" in hostile_page


def test_nothing_is_fetched_from_anywhere(hostile_page: str, rendered: str) -> None:
    for page in (hostile_page, rendered):
        for _, attributes in Elements(page).elements:
            for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert (attributes.get(name) or "#").startswith(("#", "data:,"))
        assert not re.search(r"url\((?!#)|@import", page)
        assert "default-src 'none'" in page
    assert "http" not in rendered.replace("http-equiv", "")


def test_a_leaky_run_is_stamped_before_anything_else(report: Report, rendered: str) -> None:
    leaky = replace(report, leaks=[f"leak {index}" for index in range(30)])
    page = render(leaky)
    assert 'class="stamp"' not in rendered
    assert page.index('class="stamp"') < page.index('class="verdict')
    assert "leak 9<" in page
    assert "leak 10<" not in page
    assert "and 20 more" in page
    assert "says nothing about other machines" in verdict(leaky)["means"]


def test_the_verdict_reads_off_the_recordings_whether_specimens_are_new(
    report: Report, make_report: MakeReport
) -> None:
    assert "seen none of these specimens" in verdict(report)["means"]
    assert "expect" in verdict(report)["means"]
    trained = {"train": [*report.parts["train"], report.parts["test"][0]], "test": report.parts["test"]}
    assert "1 of the 5 specimens also stand in training" in verdict(replace(report, parts=trained))["means"]
    alone = replace(report, parts={"test": report.parts["test"]})
    assert "not on record" in verdict(alone)["means"]
    unknown = make_report(change=without_specimen)
    assert "not known" in verdict(unknown)["means"]
    assert verdict(unknown)["interval"].startswith("No interval: it is not known")
    assert verdict(unknown)["tested"] == "of 55 test recordings were diagnosed correctly"


def test_a_perfect_result_promises_no_perfection(make_report: MakeReport) -> None:
    sentences = verdict(make_report(skill=50))
    assert "up to 45 % of new ones" in sentences["interval"]  # 1 - 0.05 ** (1 / 5)
    assert "expect" not in sentences["means"]


def test_one_error_among_thousands_is_not_rounded_away(report: Report) -> None:
    interval = {"low": 0.99, "high": 0.99997, "reason": None, "n_specimens": 40, "stratified": False}
    almost = {**report.metrics["recording"], "intervals": {"accuracy": interval}}
    sentences = verdict(replace(report, metrics={**report.metrics, "recording": almost}))
    assert "95 % interval 99.0 % to > 99.9 %, by bootstrap over 40 specimens" in sentences["interval"]


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
def test_what_is_not_known_is_left_out(make_report: MakeReport, fields: dict[str, Any]) -> None:
    text = Elements(render(make_report(**fields))).text
    assert "None" not in text
    assert "nan" not in text.split()


class Suspects(nn.Module):
    """Suspects the first classes most, in every window."""

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


def test_what_physics_says_stands_beside_the_prediction(make_report: MakeReport) -> None:
    page = render(make_report(history=PHYSICS_HISTORY, physics=Suspects(11)))
    text = Elements(page).text
    assert page.count("<th>physics alone</th>") == 8
    # softmax of 0, -1, -2, ...
    assert text.count("physics alone healthy 63 % misalignment 23 % imbalance 9 %") == 8
    assert "loss against lines" in page
    assert "agreement with physics" in page
    assert "loss of steadiness" not in page
    silent = make_report(physics=Suspects(11), change=lambda recording: replace(recording, rpm=None))
    assert "<th>physics alone</th>" not in render(silent)
    assert "hysics alone" not in render(make_report())


# Texts that overlap or stick out of their figure. Slanted names are left to the eye: their boxes overlap, they do not.
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
def test_a_browser_shows_it_without_complaint_or_request(
    make_report: MakeReport, page: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "report.html"
    physics = Suspects({"journal": 11, "rolling": 4}[kind])
    write_report(path, make_report(kind, leaks=["a leak"], history=PHYSICS_HISTORY, physics=physics))
    for width, dark in ((1200, False), (1200, True), (390, False)):
        page.open(path, width, dark=dark)
        assert page.errors == []
        assert page.requests == [path.as_uri()]
        assert page.evaluate(MISPLACED) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == dark


def test_a_browser_runs_nothing_that_a_label_says(hostile_page: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(hostile_page, encoding="utf-8")
    page.open(path)
    assert page.errors == []
    assert page.requests == [path.as_uri()]
    assert page.evaluate("document.scripts.length + document.images.length") == 0
    assert page.evaluate("document.querySelectorAll('svg').length") == 15


def test_the_browser_would_have_told(page: Any, tmp_path: Path) -> None:
    """The two tests above can fail: a page that does fetch and complain is caught at both."""
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.log('seen'); undefined.x</script>")
    page.open(path)
    assert "http://127.0.0.1:9/x.png" in page.requests
    assert any("seen" in error for error in page.errors)
    assert any("Uncaught" in error for error in page.errors)
