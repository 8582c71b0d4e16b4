"""Tests of the figures: drawn values, axes of the caller, and accessibility and safety of the SVG."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from whirl.evaluation import figures
from whirl.evaluation.figures import (
    Expectation,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_reliability_diagram,
    plot_spectrum,
    to_svg,
)
from whirl.physics.faults import Line

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


X = np.linspace(0.1, 10, 300)
LINES = (Line("1X", 0.9, 1.1, "required", "raw"), Line("2X", 1.9, 2.1, "optional", "raw"))
EXPECTED = [Expectation(LINES, true=True), Expectation((Line("3X", 2.9, 3.1, "required", "raw"),), true=False)]
CURVES = {"training": [2.0, 1.0], "validation": [2.0, 1.5]}
PLOTS: dict[str, Callable[..., Figure]] = {
    "learning": lambda ax=None: plot_learning_curve(CURVES, "loss", best_epoch=1, ax=ax),
    "confusion": lambda ax=None: plot_confusion_matrix([[5, 1], [0, 7]], ["a", "b"], ax=ax),
    "reliability": lambda ax=None: plot_reliability_diagram(example_bins(), ax=ax),
    "spectrum": lambda ax=None: plot_spectrum(X, np.sin(X), "order", "amplitude, dB", EXPECTED, ax=ax),
}


def all_figures() -> dict[str, str]:
    return {name: to_svg(plot(), name) for name, plot in PLOTS.items()}


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


@pytest.mark.parametrize("name", ["learning", "confusion", "reliability", "spectrum"])
def test_figures_are_self_contained_inline_svg(name: str) -> None:
    svg = to_svg(PLOTS[name](), name)
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "http" not in svg
    assert "<metadata" not in svg
    assert not re.search(r'id="[^"]*_\d', svg)  # numbered ids would repeat on a page with several figures
    assert "DejaVu" not in svg
    assert not re.search(r"#(?!000000)[0-9a-f]{6}", svg)  # all colors are variables of the page
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
    unusual = {"text.usetex": True, "font.size": 40, "svg.fonttype": "path", "savefig.bbox": "tight", "axes.grid": True}
    with mpl.rc_context(unusual):
        assert all_figures()["confusion"] == expected


def test_confusion_matrix_shows_nonzero_counts_with_shades() -> None:
    svg = to_svg(plot_confusion_matrix([[50, 0, 3], [0, 0, 0], [1, 0, 7]], ["a", "b", "c"]), "t")
    assert sorted(text for text in texts(svg) if text.isdigit()) == ["1", "3", "50", "7"]
    shades = re.findall(r"fill: var\(--(true|other)\); opacity: ([\d.]+)", svg)
    assert [color for color, _ in shades] == ["true", "other", "other", "true"]
    expected = [0.12 + 0.78 * share for share in (50 / 53, 3 / 53, 1 / 8, 7 / 8)]
    assert [float(opacity) for _, opacity in shades] == pytest.approx(expected)


@pytest.mark.parametrize("name", UNSAFE_LABELS)
def test_labels_are_escaped(name: str) -> None:
    svg = to_svg(plot_confusion_matrix([[1, 0], [0, 1]], [name, "b"]), name)
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
    svg = to_svg(plot_learning_curve({"training": values, "validation": values[::-1]}, "loss", best_epoch=0), "t")
    assert "epoch" in texts(svg)


def test_curve_labels_do_not_overlap() -> None:
    svg = to_svg(plot_learning_curve({"training": [0.0, 1.0], "validation": [0.0, 1.0]}, "accuracy"), "t")
    heights = {
        element.text: float(element.get("y", "nan"))
        for element in ElementTree.fromstring(svg).iter("text")
        if element.text in ("training", "validation")
    }
    assert abs(heights["training"] - heights["validation"]) > 12


def cells(axes: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position()[::-1]: text.get_text() for text in axes.texts}


def test_confusion_matrix_draws_the_counts() -> None:
    counts = [[50, 0, 3], [0, 0, 0], [1, 123_456, 7]]
    axes = plot_confusion_matrix(counts, ["a", "b", "c"]).axes[0]
    expected = {(i + 0.5, j + 0.5): f"{n}" for i, row in enumerate(counts) for j, n in enumerate(row) if n}
    assert cells(axes) == expected
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 3), (3, 0))


def test_reliability_diagram_draws_the_bins() -> None:
    bins = example_bins()
    axes = plot_reliability_diagram(bins).axes[0]
    points = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "o"]
    assert points == [[entry["confidence"], entry["accuracy"]] for entry in bins if entry["n"]]
    assert [bar.get_height() for bar in axes.child_axes[0].patches] == [entry["n"] for entry in bins]
    assert axes.get_ylabel() == "accuracy, %"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "50", "100"]
    assert axes.child_axes[0].get_xlabel() == "confidence, %"


def test_spectrum_draws_the_values_and_the_expected_lines() -> None:
    axes = plot_spectrum(X, np.sin(X), "order", "amplitude, dB", EXPECTED).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.column_stack([X, np.sin(X)]))
    marks = [
        (to_hex(marks.get_color()[0]), [segment[0][0] for segment in marks.get_segments()])
        for marks in axes.collections
        if len(marks.get_segments())
    ]
    assert marks == [(figures.OTHER, [3.0]), (figures.TRUE, [1.0]), (figures.TRUE, [2.0])]
    assert [text.get_text() for text in axes.texts] == ["3X", "1X", "2X"]
    assert [(shade.get_x(), shade.get_x() + shade.get_width()) for shade in axes.patches] == [(2.9, 3.1), (0.9, 1.1)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("order", "amplitude, dB")


def test_spectrum_leaves_out_lines_beyond_its_range() -> None:
    beyond = Expectation((Line("20X", 19.9, 20.1, "required", "raw"), *LINES), true=True)
    axes = plot_spectrum(X, np.sin(X), "order", "dB", [beyond]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1X", "2X"]


@pytest.mark.parametrize("name", PLOTS)
def test_figure_stands_alone(name: str) -> None:
    figure = PLOTS[name]()
    assert isinstance(figure, Figure)
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    before = png(figure)
    to_svg(figure, name)
    assert png(figure) == before  # embedding it leaves it unchanged
    tight = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(tight.x0, tight.y0, width - tight.x1, height - tight.y1) >= 0  # nothing is cut off


@pytest.mark.parametrize("name", PLOTS)
def test_draws_on_given_axes(name: str) -> None:
    whole = Figure(layout="constrained")
    part = whole.subfigures(1, 2)[1]
    other, axes = part.subplots(1, 2)
    other.set_title("other")
    axes.set_title("title")
    assert PLOTS[name](ax=axes) is whole
    assert len(whole.axes) == 2
    assert axes.get_title() == "title"
    assert axes.get_xlabel() or axes.child_axes[0].get_xlabel()
    assert axes.get_ylabel()
    png(whole)


@pytest.mark.parametrize("label", UNSAFE_LABELS)
@pytest.mark.filterwarnings("ignore:Glyph .* missing:UserWarning")
def test_labels_on_given_axes_are_not_parsed(label: str) -> None:
    for draw in (
        lambda ax: plot_confusion_matrix([[1, 0], [0, 1]], [label, "b"], ax=ax),
        lambda ax: plot_learning_curve({figures.shorten(label): [1.0, 2.0]}, figures.shorten(label), ax=ax),
        lambda ax: plot_spectrum(X, X, figures.shorten(label), figures.shorten(label), ax=ax),
    ):
        png(draw(Figure().add_subplot()))


def test_arguments_are_not_changed() -> None:
    arguments = [[[5, 1], [0, 7]], ["a", "b"], example_bins(), CURVES, X, np.sin(X)]
    before = copy.deepcopy(arguments)
    plot_confusion_matrix(*arguments[:2])
    plot_reliability_diagram(arguments[2])
    plot_learning_curve(arguments[3], "loss")
    plot_spectrum(*arguments[4:], "x", "y", EXPECTED)
    np.testing.assert_equal(arguments, before)


@pytest.mark.parametrize("classes", [[], ["a"], ["a", "b", "c"]])
def test_confusion_matrix_rejects_other_shapes(classes: list[str]) -> None:
    with pytest.raises(ValueError, match="counts have shape"):
        plot_confusion_matrix([[1, 0], [0, 1]], classes)
    with pytest.raises(ValueError, match="curve is empty"):
        plot_reliability_diagram([])


def test_any_figure_is_embedded() -> None:
    figure = Figure()
    figure.add_subplot(title="a <b> #1f66b0", facecolor="red").plot([1, 2])
    svg = to_svg(figure, 'a "title" <b>')
    assert ElementTree.fromstring(svg).get("aria-label") == "a title b"
    assert "a <b> #1f66b0" in texts(svg)  # a color in a text is left as it is
