"""Figures of the report, each a pure function from numbers to inline SVG.

Colors are CSS variables and labels are SVG text, so figures adapt to dark mode, print and the fonts of the page. They
are drawn on Matplotlib `Figure` objects without pyplot, and leave no global state.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.physics.faults import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholder colors, replaced by variables of the style sheet when the SVG is written.
INK, MUTED, RULE = "#000001", "#000002", "#000003"
TRUE, OTHER, ON_SHADE = "#000004", "#000005", "#000006"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    TRUE: "var(--true)",
    OTHER: "var(--other)",
    ON_SHADE: "var(--on-shade)",
}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "whirl",
    "text.usetex": False,
    "text.parse_math": False,  # labels come from users and may contain dollar signs
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 1,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.facecolor": "none",
    "axes.xmargin": 0,
    "figure.facecolor": "none",
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}
_MAX_CHARS = 24
_LEFT, _RIGHT, _ROW = 56, 14, 26  # pixels: margins of a spectrum, and height of a row of line marks above it


@contextmanager
def _drawing() -> Iterator[None]:
    """Apply the style of the figures, and ignore glyphs that Matplotlib's font lacks: the browser draws the text."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _new_figure(width: float, height: float) -> Figure:
    """Create an empty figure, measured in CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72)


def _add_axes(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Add axes with the given margins, in pixels."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def _svg(figure: Figure, title: str) -> str:
    """Return the figure as an `<svg>` element for an HTML page, without references to other addresses."""
    from io import StringIO

    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    width, height = figure.get_size_inches() * 72
    svg = text.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r' id="[\w.]+_\d+"', "", body)  # numbered ids would repeat across the figures of a page
    body = body.replace("font-family: 'DejaVu Sans'; ", "")  # use the font of the page
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"\n\s*", "\n", body)
    body = re.sub(r"#00000[1-6]", lambda match: _VARIABLES[match.group()], body)
    head = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
    return f'{head} aria-label="{title}">{body.strip()}'


def shorten(name: str, max_chars: int = _MAX_CHARS) -> str:
    """Shorten a name to fit a figure, with an ellipsis in the middle, and replace characters that cannot be drawn.

    Example:
        >>> shorten("oil_whirl"), shorten("a_name_that_would_never_fit_anywhere")
        ('oil_whirl', 'a_name_that_…it_anywhere')
    """
    name = "".join(char if char.isprintable() else "\ufffd" for char in name)
    if len(name) <= max_chars:
        return name
    half = (max_chars - 1) // 2
    return f"{name[: max_chars - 1 - half]}…{name[-half:]}"


def learning_curve(curves: Mapping[str, Sequence[float | None]], label: str, best_epoch: int | None = None) -> str:
    """Plot a quantity over the epochs, for example the loss in training and in validation.

    Args:
        curves: values per epoch by name; the first of several curves is drawn in a muted color. Values that are not
            finite leave a gap.
        label: title of the figure.
        best_epoch: epoch to mark, counted from 0.

    Returns:
        An `<svg>` element.
    """
    with _drawing():
        figure = _new_figure(340, 220)
        axes = _add_axes(figure, left=52, right=76, top=36, bottom=36)
        colors = dict(zip(curves, [MUTED, TRUE] if len(curves) > 1 else [TRUE], strict=False))
        for name, values in curves.items():
            series = np.array(values, dtype=float)
            epochs = np.arange(1, len(series) + 1)
            axes.plot(epochs, series, color=colors[name], linewidth=1.6, marker="o" if len(series) < 3 else "")
        _set_epoch_axis(axes, max(map(len, curves.values())))
        if best_epoch is not None:
            axes.axvline(best_epoch + 1, color=RULE, linewidth=1, zorder=0)
            _note(axes, best_epoch + 1, "best")
        axes.set_title(label, loc="left", fontsize=12, color=INK, pad=18)
        axes.set_xlabel("epoch", loc="right")
        _label_ends(axes, curves, colors)
        return _svg(figure, f"{_plain(label)} by epoch")


def _plain(label: str) -> str:
    """Remove characters from a title that are not safe in an attribute."""
    return re.sub(r"[^\w ,.-]", "", label)


def _set_epoch_axis(axes: Axes, n_epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5 if n_epochs < 3 else 1, n_epochs + 0.5 if n_epochs < 3 else n_epochs)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _note(axes: Axes, x: float, text: str) -> None:
    """Write a short text above the axes at x."""
    axes.annotate(
        text, (x, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", color=MUTED, ha="center"
    )


def _label_ends(axes: Axes, curves: Mapping[str, Sequence[float | None]], colors: Mapping[str, str]) -> None:
    """Label each curve at its right end, without overlap."""
    ends = {}
    for name, values in curves.items():
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if finite:
            ends[name] = axes.transData.transform((0, finite[-1]))[1]
    heights = _separate(list(ends.values()), 14, axes.bbox.ymax - 8)
    bottom = axes.bbox.ymin
    for name, height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            (1, 0),
            (6, height - bottom),
            xycoords="axes fraction",
            textcoords="offset pixels",
            color=colors[name],
            va="center",
        )


def _separate(heights: list[float], gap: float, ceiling: float) -> list[float]:
    """Move heights apart until neighbors are `gap` apart and all are below the ceiling."""
    moved = [min(height, ceiling) for height in heights]
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for below, above in pairwise(order):
        moved[above] = min(max(moved[above], moved[below] + gap), ceiling)
    for above, below in pairwise(reversed(order)):
        moved[below] = min(moved[below], moved[above] - gap)
    return moved


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> str:
    """Draw a confusion matrix, with cells shaded by their share of the row.

    Correct predictions on the diagonal have a different color than errors; cells with a count of 0 are empty.

    Args:
        counts: counts `[K][K]`, rows are true classes.
        classes: names of the K classes.
        title: accessible name of the figure.

    Returns:
        An `<svg>` element.
    """
    with _drawing():
        table = np.asarray(counts)
        k, cell = len(classes), 34
        names = [shorten(name) for name in classes]
        margin = 16 + 6.1 * max(map(len, names))
        figure = _new_figure(margin + k * cell + 8, 26 + k * cell + 0.72 * margin)
        axes = _add_axes(figure, left=margin, right=8, top=26, bottom=0.72 * margin)
        shares = table / np.maximum(table.sum(1, keepdims=True), 1)
        for row, column in zip(*np.nonzero(table), strict=True):
            _draw_cell(axes, row, column, int(table[row, column]), shares[row, column])
        axes.set(xlim=(0, k), ylim=(k, 0), xticks=np.arange(k) + 0.5, yticks=np.arange(k) + 0.5)
        axes.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor", color=INK)
        axes.set_yticklabels(names, color=INK)
        axes.tick_params(length=0)
        axes.hlines(np.arange(k + 1), 0, k, color=RULE, linewidth=0.6, zorder=0)
        axes.spines[:].set_visible(False)
        axes.text(0, -0.25, "predicted →", color=MUTED)
        axes.text(-0.15, -0.25, "true ↓", color=MUTED, ha="right")
        return _svg(figure, _plain(title))


def _draw_cell(axes: Axes, row: int, column: int, count: int, share: float) -> None:
    from matplotlib.patches import Rectangle

    color = TRUE if row == column else OTHER
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=color, alpha=0.12 + 0.78 * share, linewidth=0))
    ink = ON_SHADE if share > 0.5 else INK
    axes.text(column + 0.5, row + 0.5, f"{count}", color=ink, ha="center", va="center", fontsize=10)


def reliability_diagram(curve: Sequence[Mapping[str, Any]], title: str) -> str:
    """Draw a reliability diagram: accuracy over confidence, with the number of predictions per bin below.

    Args:
        curve: bins, see `metrics.reliability_curve`.
        title: accessible name of the figure.

    Returns:
        An `<svg>` element.
    """
    with _drawing():
        figure = _new_figure(340, 330)
        axes = _add_axes(figure, left=52, right=20, top=26, bottom=112)
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1)
        for entry in curve:
            if entry["n"]:
                _draw_gap(axes, entry["confidence"], entry["accuracy"])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=[], yticks=[0, 0.5, 1])
        axes.set_yticklabels(["0", "50 %", "100 %"])
        axes.spines["bottom"].set_visible(False)
        axes.set_title("accuracy", loc="left", color=MUTED, fontsize=11)
        _draw_counts(_add_axes(figure, left=52, right=20, top=236, bottom=40), curve)
        return _svg(figure, _plain(title))


def _draw_gap(axes: Axes, confidence: float, accuracy: float) -> None:
    """Draw one bin, connected to its position under perfect calibration."""
    color = OTHER if accuracy < confidence else TRUE
    axes.plot([confidence, confidence], [confidence, accuracy], color=color, linewidth=1)
    axes.plot(confidence, accuracy, color=color, marker="o", markersize=5, clip_on=False)


def _draw_counts(axes: Axes, curve: Sequence[Mapping[str, Any]]) -> None:
    """Draw a bar chart of the number of predictions in each bin."""
    centers = [(entry["low"] + entry["high"]) / 2 for entry in curve]
    axes.bar(centers, [entry["n"] for entry in curve], width=0.8 / len(curve), color=MUTED, alpha=0.6)
    highest = max(entry["n"] for entry in curve)
    axes.set(xlim=(0, 1.02), ylim=(0, highest), xticks=[0, 0.5, 1], yticks=[0, highest])
    axes.set_xticklabels(["0", "50 %", "100 %"])
    axes.set_xlabel("confidence", loc="right")
    axes.spines["left"].set_visible(False)


@dataclass(frozen=True)
class Expectation:
    """The expected spectral lines of a class, for drawing.

    Attributes:
        lines: lines of the class in the drawn spectrum, in orders of shaft speed.
        true: whether this is the true class, rather than a wrongly predicted one.
    """

    lines: tuple[Line, ...]
    true: bool


def spectrum(
    x: np.ndarray, y: np.ndarray, x_label: str, y_label: str, expectations: Sequence[Expectation], title: str
) -> str:
    """Plot a spectrum with the expected lines of one or two classes.

    Each class has a row of marks above the spectrum, bold for its required lines and thin for its optional ones. The
    search windows of required lines are also shaded in the spectrum.

    Args:
        x: orders or frequencies, `[F]`, increasing.
        y: amplitudes, `[F]`.
        x_label: name and unit of x.
        y_label: name and unit of y.
        expectations: expected lines of the classes; empty if the shaft speed is unknown.
        title: accessible name of the figure.

    Returns:
        An `<svg>` element.
    """
    with _drawing():
        rows = [expectation for expectation in expectations if expectation.lines]
        figure = _new_figure(450, 205 + _ROW * len(rows))
        axes = _add_axes(figure, left=_LEFT, right=_RIGHT, top=22 + _ROW * len(rows), bottom=38)
        axes.plot(x, y, color=INK, linewidth=0.8)
        span = y.max() - y.min() or 1
        axes.set(xlim=(x[0], x[-1]), ylim=(y.min() - 0.02 * span, y.max() + 0.05 * span))
        axes.set_xlabel(x_label, loc="right")
        axes.text(0, 1, f"{y_label}\n", transform=axes.transAxes, color=MUTED, va="bottom", linespacing=0.4)
        for row, expectation in enumerate(rows):
            _draw_marks(figure, axes, expectation, top=_ROW * row)
        return _svg(figure, _plain(title))


def _draw_marks(figure: Figure, axes: Axes, expectation: Expectation, top: float) -> None:
    """Draw the marks of one class above the spectrum, `top` pixels below the edge of the figure."""
    height = figure.get_size_inches()[1] * 72
    marks = _add_axes(figure, left=_LEFT, right=_RIGHT, top=top, bottom=height - top - _ROW)
    marks.set(xlim=axes.get_xlim(), ylim=(0, _ROW))
    marks.set_axis_off()
    color = TRUE if expectation.true else OTHER
    for role, width in (("required", 2.5), ("optional", 1)):
        marks.vlines(
            [line.order for line in expectation.lines if line.role == role], 2, 10, color=color, linewidth=width
        )
    for line in expectation.lines:
        if line.role == "required":
            axes.axvspan(line.low_order, line.high_order, color=color, alpha=0.22, linewidth=0, zorder=0)
    for line in _lines_to_label(expectation.lines, marks):
        marks.text(line.order, 13, line.name, color=color, ha="center", fontsize=10)


def _lines_to_label(lines: Sequence[Line], marks: Axes) -> Iterator[Line]:
    """Yield lines whose names do not overlap, giving priority to required lines and then to short names."""
    taken: list[tuple[float, float]] = []
    width = marks.bbox.width
    for line in sorted(lines, key=lambda line: (line.role != "required", len(line.name), line.order)):
        center = marks.transData.transform((line.order, 0))[0] - marks.bbox.xmin
        low, high = center - 3.4 * len(line.name), center + 3.4 * len(line.name)
        inside = low > -_LEFT and high < width + _RIGHT
        if inside and all(high + 4 < left or low - 4 > right for left, right in taken):
            taken.append((low, high))
            yield line
