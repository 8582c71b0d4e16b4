"""Figures of an evaluation: learning curves, confusion matrix, reliability diagram and spectrum with expected lines.

Each `plot_*` function returns a Matplotlib figure, which needs neither a display nor pyplot, or draws on the axes that
it is given. `to_svg` converts a figure to an element of an HTML page, which adapts to dark mode, print and the fonts of
the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl._display import printable
from whirl._plotting import (
    FONT_SIZE,
    INK,
    MUTED,
    ON_SHADE,
    OTHER,
    PLAIN,
    RULE,
    TRUE,
    above,
    axes_for,
    figure_of,
    label_y_above,
    style,
    text_width,
)
from whirl.engine.history import plot_learning_curve as plot_learning_curve
from whirl.physics.faults import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colors that a page replaces by variables of its style sheet.
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    TRUE: "var(--true)",
    OTHER: "var(--other)",
    ON_SHADE: "var(--on-shade)",
}
_MAX_CHARS = 24
_CELL, _ROW = 31, 26  # points: side of a cell of a confusion matrix, and height of a row of marks above a spectrum
_SMALL = FONT_SIZE - 1
_PERCENT = ([0, 0.5, 1], ["0", "50", "100"])


def to_svg(figure: Figure, title: str) -> str:
    """Convert a figure to an `<svg>` element for an HTML page, without references to other addresses.

    Colors of the figures of this module become the CSS variables `--ink`, `--muted`, `--rule`, `--true`, `--other` and
    `--on-shade`, the background becomes transparent, and labels are text in the font of the page.

    Args:
        figure: any Matplotlib figure.
        title: accessible name of the figure.

    Example:
        >>> svg = to_svg(plot_confusion_matrix([[5, 1], [0, 7]], ["healthy", "wear"]), "confusion matrix")
        >>> svg.startswith("<svg"), "var(--true)" in svg
        (True, True)
    """
    from io import StringIO

    text = StringIO()
    with style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    width, height = figure.get_size_inches() * 72
    svg = text.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda match: _adapt_tag(match.group()), body)
    body = re.sub(r"\n\s*", "\n", body)
    label = re.sub(r"[^\w ,.-]", "", title)
    head = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
    return f'{head} aria-label="{label}">{body.strip()}'


def _adapt_tag(tag: str) -> str:
    """Adapt a tag to a page with several figures and its own style sheet and fonts."""
    tag = re.sub(r' id="[\w.]+_\d+"', "", tag.replace("xlink:href", "href"))  # numbered ids would repeat
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag.replace("font-family: 'DejaVu Sans'; ", ""))
    return re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match.group()], tag)


def shorten(name: str, max_chars: int = _MAX_CHARS) -> str:
    """Shorten a name to fit a figure, with an ellipsis in the middle, and replace characters that cannot be drawn.

    Example:
        >>> shorten("oil_whirl"), shorten("a_name_that_would_never_fit_anywhere")
        ('oil_whirl', 'a_name_that_…it_anywhere')
    """
    name = printable(name)
    if len(name) <= max_chars:
        return name
    half = (max_chars - 1) // 2
    return f"{name[: max_chars - 1 - half]}…{name[-half:]}"


def plot_confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """Plot a confusion matrix, with cells shaded by their share of the row.

    Correct predictions on the diagonal have a different color than errors; cells with a count of 0 are empty.

    Args:
        counts: counts `[K][K]`, rows are true classes.
        classes: names of the K classes.
        ax: where to draw; None creates a figure whose size depends on the number of classes.

    Returns:
        The figure.

    Raises:
        ValueError: the counts are not `[K][K]`.

    Example:
        >>> axes = plot_confusion_matrix([[5, 1], [0, 7]], ["healthy", "wear"]).axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel(), [text.get_text() for text in axes.texts]
        ('predicted class', 'true class', ['5', '1', '7'])
    """
    table, k = np.asarray(counts), len(classes)
    if table.shape != (k, k) or not k:
        raise ValueError(f"counts have shape {table.shape}, expected ({k}, {k}) for {k} classes, at least one")
    names = [shorten(name) for name in classes]
    longest = max(map(text_width, names))
    left, bottom, side = 28 + longest, 40 + 0.7 * longest, k * _CELL
    with axes_for(ax, left + side + 8, 8 + side + bottom, left=left, right=8, top=8, bottom=bottom) as axes:
        shares = table / np.maximum(table.sum(1, keepdims=True), 1)
        for row, column in zip(*np.nonzero(table), strict=True):
            _draw_cell(axes, row, column, int(table[row, column]), shares[row, column])
        axes.set(xlim=(0, k), ylim=(k, 0), xticks=np.arange(k) + 0.5, yticks=np.arange(k) + 0.5, aspect="equal")
        axes.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor", color=INK, **PLAIN)
        axes.set_yticklabels(names, color=INK, **PLAIN)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.hlines(np.arange(k + 1), 0, k, color=RULE, linewidth=0.6, zorder=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted class", loc="right")
        axes.set_ylabel("true class", loc="top")
        return figure_of(axes)


def _draw_cell(axes: Axes, row: int, column: int, count: int, share: float) -> None:
    from matplotlib.patches import Rectangle

    color = TRUE if row == column else OTHER
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=color, alpha=0.12 + 0.78 * share, linewidth=0))
    ink, size = ON_SHADE if share > 0.5 else INK, min(_SMALL, 44 / len(str(count)))
    axes.text(column + 0.5, row + 0.5, f"{count}", color=ink, ha="center", va="center", fontsize=size)


def plot_reliability_diagram(curve: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Figure:
    """Plot a reliability diagram: accuracy over confidence, with the number of predictions per bin below.

    Each bin is connected to its position under perfect calibration, the diagonal.

    Args:
        curve: bins, see `metrics.reliability_curve`.
        ax: where to draw; the number of predictions is drawn on inset axes below it, which need as much space as a
            third of its height. None creates a figure.

    Returns:
        The figure.

    Raises:
        ValueError: there are no bins.

    Example:
        >>> bins = [{"low": 0.0, "high": 1.0, "n": 4, "confidence": 0.75, "accuracy": 0.5}]
        >>> plot_reliability_diagram(bins).axes[0].lines[-1].get_xydata().tolist()
        [[0.75, 0.5]]
    """
    if not curve:
        raise ValueError("curve is empty, expected at least one bin")
    with axes_for(ax, 340, 330, left=52, right=20, top=30, bottom=118) as axes:
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1)
        for entry in curve:
            if entry["n"]:
                _draw_gap(axes, entry["confidence"], entry["accuracy"])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=[])
        axes.set_yticks(*_PERCENT)
        counts = axes.inset_axes((0, -0.4, 1, 0.27))
        _draw_counts(counts, curve)
        if ax is None:
            axes.spines["bottom"].set_visible(False)
            label_y_above(axes, "accuracy, %", 8)
        else:
            axes.set_ylabel("accuracy, %")
        return figure_of(axes)


def plot_risk_coverage(curve: Sequence[Mapping[str, float]], *, ax: Axes | None = None) -> Figure:
    """Plot the error rate of the most certain recordings over their share.

    Args:
        curve: points, see `verdict.risk_coverage`.
        ax: where to draw; None creates a figure.

    Returns:
        The figure.

    Example:
        >>> plot_risk_coverage([{"share": 0.5, "risk": 0.0}, {"share": 1.0, "risk": 0.1}]).axes[0].get_xlabel()
        'share of recordings, the most certain first, %'
    """
    with axes_for(ax, 340, 240, left=52, right=20, top=30, bottom=52) as axes:
        axes.plot([point["share"] for point in curve], [point["risk"] for point in curve], color=TRUE, linewidth=1.5)
        highest = max(0.05, *(point["risk"] for point in curve))
        axes.set(xlim=(0, 1.02), ylim=(0, 1.1 * highest), xlabel="share of recordings, the most certain first, %")
        axes.set_xticks(*_PERCENT)
        axes.set_yticks([0, highest], ["0", f"{100 * highest:.0f}"])
        if ax is None:
            label_y_above(axes, "error rate, %", 8)
        else:
            axes.set_ylabel("error rate, %")
        return figure_of(axes)


def plot_values(values: Sequence[float], targets: Sequence[float], name: str, *, ax: Axes | None = None) -> Figure:
    """Plot predicted over true numbers, with the line on which both are equal.

    Args:
        values: predicted numbers, at least one.
        targets: true numbers.
        name: what they are numbers of.
        ax: where to draw; None creates a figure.

    Returns:
        The figure.

    Example:
        >>> plot_values([0.2, 0.9], [0.0, 1.0], "severity").axes[0].get_xlabel()
        'true severity'
    """
    with axes_for(ax, 340, 300, left=60, right=20, top=30, bottom=52) as axes:
        ends = [min(*values, *targets), max(*values, *targets)]
        axes.plot(ends, ends, color=RULE, linewidth=1)
        axes.plot(targets, values, color=TRUE, marker="o", markersize=5, alpha=0.6, linestyle="none")
        axes.set_xlabel(f"true {shorten(name)}", **PLAIN)
        axes.locator_params(nbins=5)
        if ax is None:
            label_y_above(axes, f"predicted {shorten(name)}", 8)
        else:
            axes.set_ylabel(f"predicted {shorten(name)}", **PLAIN)
        return figure_of(axes)


def _draw_gap(axes: Axes, confidence: float, accuracy: float) -> None:
    """Draw one bin, connected to its position under perfect calibration."""
    color = OTHER if accuracy < confidence else TRUE
    axes.plot([confidence, confidence], [confidence, accuracy], color=color, linewidth=1)
    axes.plot(confidence, accuracy, color=color, marker="o", markersize=5, clip_on=False)


def _draw_counts(axes: Axes, curve: Sequence[Mapping[str, Any]]) -> None:
    """Draw a bar chart of the number of predictions in each bin."""
    centers = [(entry["low"] + entry["high"]) / 2 for entry in curve]
    axes.bar(centers, [entry["n"] for entry in curve], width=0.8 / len(curve), color=MUTED, alpha=0.6)
    highest = max(1, *(entry["n"] for entry in curve))
    axes.set(xlim=(0, 1.02), ylim=(0, highest), yticks=[0, highest])
    axes.set_xticks(*_PERCENT)
    axes.set_xlabel("confidence, %", loc="right")
    axes.set_title("predictions per bin", loc="left", fontsize="medium", color=MUTED, pad=4)
    axes.spines[["left", "top", "right"]].set_visible(False)


@dataclass(frozen=True)
class Expectation:
    """The expected spectral lines of a class, for drawing.

    Attributes:
        lines: lines of the class in the drawn spectrum, in orders of shaft speed.
        true: whether this is the true class, rather than a wrongly predicted one.
    """

    lines: tuple[Line, ...]
    true: bool


def plot_spectrum(
    x: np.ndarray,
    y: np.ndarray,
    x_label: str,
    y_label: str,
    expectations: Sequence[Expectation] = (),
    *,
    ax: Axes | None = None,
) -> Figure:
    """Plot a spectrum with the expected lines of one or two classes.

    Each class has a row of marks above the spectrum, bold for its required lines and thin for its optional ones. The
    search windows of required lines are also shaded in the spectrum.

    Args:
        x: orders or frequencies, `[F]`, increasing.
        y: amplitudes, `[F]`.
        x_label: name and unit of x.
        y_label: name and unit of y.
        expectations: expected lines of the classes; empty if the shaft speed is unknown.
        ax: where to draw; each class needs 26 points above it. None creates a figure.

    Returns:
        The figure.

    Example:
        >>> orders = np.linspace(0, 10, 1000)
        >>> figure = plot_spectrum(orders, np.exp(-((orders - 1) ** 2) * 500), "order of shaft speed", "amplitude, g")
        >>> figure.axes[0].get_xlabel()
        'order of shaft speed'
    """
    rows = [expectation for expectation in expectations if expectation.lines]
    marked = _ROW * len(rows)
    with axes_for(ax, 420, 210 + marked, left=56, right=14, top=24 + marked, bottom=44) as axes:
        axes.plot(x, y, color=INK, linewidth=0.8)
        span = y.max() - y.min() or 1
        axes.set(xlim=(x[0], x[-1]), ylim=(y.min() - 0.02 * span, y.max() + 0.05 * span))
        axes.set_xlabel(x_label, loc="right", **PLAIN)
        if ax is None:
            label_y_above(axes, y_label, 5)
        else:
            axes.set_ylabel(y_label, **PLAIN)
        for row, expectation in enumerate(reversed(rows)):
            _draw_marks(axes, expectation, (20 if ax is None else 0) + _ROW * row)
        return figure_of(axes)


def _draw_marks(axes: Axes, expectation: Expectation, bottom: float) -> None:
    """Draw the marks of one class above the spectrum, `bottom` points above it."""
    color, transform = TRUE if expectation.true else OTHER, above(axes)
    visible = [line for line in expectation.lines if axes.get_xlim()[0] <= line.order <= axes.get_xlim()[1]]
    for role, width in (("required", 2.5), ("optional", 1)):
        orders = [line.order for line in visible if line.role == role]
        options = {"color": color, "linewidth": width, "transform": transform, "clip_on": False}
        axes.vlines(orders, bottom + 2, bottom + 10, **options)
    for line in visible:
        if line.role == "required":
            axes.axvspan(line.low_order, line.high_order, color=color, alpha=0.22, linewidth=0, zorder=0)
    for line in _lines_to_label(visible, axes):
        axes.text(
            line.order, bottom + 13, line.name, transform=transform, color=color, ha="center", fontsize=_SMALL, **PLAIN
        )


def _lines_to_label(lines: Sequence[Line], axes: Axes) -> Iterator[Line]:
    """Yield lines whose names do not overlap, giving priority to required lines and then to short names."""
    taken: list[tuple[float, float]] = []
    points = 72 / axes.figure.dpi
    left, right = axes.bbox.xmin * points, axes.bbox.xmax * points
    for line in sorted(lines, key=lambda line: (line.role != "required", len(line.name), line.order)):
        center, half = axes.transData.transform((line.order, 0))[0] * points, text_width(line.name, _SMALL) / 2
        low, high = center - half, center + half
        inside = low > left - 40 and high < right + 14
        if inside and all(high + 4 < start or low - 4 > end for start, end in taken):
            taken.append((low, high))
            yield line
