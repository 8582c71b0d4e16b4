"""Tests of the figures: content, accessibility and safety of the SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from whirl.evaluation import figures

UNSAFE_LABELS = [
    "<script>alert(1)</script>",
    "$\\frac{a",
    '" onload="alert(1)',
    "轴承 ☃",
    "a&amp;b",
    "x" * 200,
    "\udcff\0\n\u202e",
]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def example_bins() -> list[dict]:
    return [
        {"low": m / 15, "high": (m + 1) / 15, "n": m, "confidence": (m + 0.5) / 15, "accuracy": 0.5 if m else None}
        for m in range(15)
    ]


def all_figures() -> dict[str, str]:
    x = np.linspace(0.1, 10, 300)
    return {
        "learning": figures.learning_curve({"training": [2.0, 1.0], "validation": [2.0, 1.5]}, "loss", best_epoch=1),
        "confusion": figures.confusion_matrix([[5, 1], [0, 7]], ["a", "b"], "confusion"),
        "reliability": figures.reliability_diagram(example_bins(), "reliability"),
        "spectrum": figures.spectrum(x, np.sin(x), "order", "dB", [], "spectrum"),
    }


@pytest.mark.parametrize("name", ["learning", "confusion", "reliability", "spectrum"])
def test_figures_are_self_contained_inline_svg(name: str) -> None:
    svg = all_figures()[name]
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "http" not in svg
    assert "<metadata" not in svg
    assert not re.search(r'id="[^"]*_\d', svg)  # numbered ids would repeat on a page with several figures
    assert "DejaVu" not in svg
    assert not re.search(r"#0000\d\d", svg)  # all placeholder colors are replaced
    assert "var(--" in svg
    references = re.findall(r'(?:url\(#|href="#)([^")]+)', svg)
    assert set(references) <= set(re.findall(r'id="([^"]+)"', svg))


def test_figures_are_deterministic() -> None:
    assert all_figures() == all_figures()


def test_figures_do_not_change_matplotlib_settings() -> None:
    before = dict(mpl.rcParams)
    all_figures()
    assert dict(mpl.rcParams) == before


def test_figures_ignore_user_matplotlib_settings() -> None:
    expected = all_figures()["confusion"]
    with mpl.rc_context({"text.usetex": True, "font.size": 40, "svg.fonttype": "path"}):
        assert all_figures()["confusion"] == expected


def test_confusion_matrix_shows_nonzero_counts_with_shades() -> None:
    svg = figures.confusion_matrix([[50, 0, 3], [0, 0, 0], [1, 0, 7]], ["a", "b", "c"], "t")
    assert sorted(text for text in texts(svg) if text.isdigit()) == ["1", "3", "50", "7"]
    shades = re.findall(r"fill: var\(--(true|other)\); opacity: ([\d.]+)", svg)
    assert [color for color, _ in shades] == ["true", "other", "other", "true"]
    expected = [0.12 + 0.78 * share for share in (50 / 53, 3 / 53, 1 / 8, 7 / 8)]
    assert [float(opacity) for _, opacity in shades] == pytest.approx(expected)


@pytest.mark.parametrize("name", UNSAFE_LABELS)
def test_labels_are_escaped(name: str) -> None:
    svg = figures.confusion_matrix([[1, 0], [0, 1]], [name, "b"], "t")
    root = ElementTree.fromstring(svg)
    assert figures.shorten(name) in texts(svg)
    assert {element.tag for element in root.iter()} <= {
        "svg",
        "g",
        "path",
        "text",
        "defs",
        "style",
        "use",
        "clipPath",
        "rect",
    }
    assert not [key for element in root.iter() for key in element.keys() if key.startswith("on")]  # noqa: SIM118


def test_shorten_keeps_both_ends() -> None:
    assert figures.shorten("oil_whirl") == "oil_whirl"
    assert len(figures.shorten("x" * 50)) == 24
    assert figures.shorten("bearing_outer_race_021_mil").startswith("bearing_")
    assert figures.shorten("bearing_outer_race_021_mil").endswith("_021_mil")


@pytest.mark.parametrize(
    "values", [[1.0], [1.0, 1.0], [float("nan"), 1.0, None], [1e-9, 1e9], [None, None], list(range(300))]
)
def test_learning_curve_accepts_any_history(values: list[float | None]) -> None:
    svg = figures.learning_curve({"training": values, "validation": values[::-1]}, "loss", best_epoch=0)
    assert "epoch" in texts(svg)


def test_curve_labels_do_not_overlap() -> None:
    svg = figures.learning_curve({"training": [0.0, 1.0], "validation": [0.0, 1.0]}, "accuracy")
    heights = {
        element.text: float(element.get("y", "nan"))
        for element in ElementTree.fromstring(svg).iter("text")
        if element.text in ("training", "validation")
    }
    assert abs(heights["training"] - heights["validation"]) > 12
