"""The report's figures, each a pure function from numbers to inline SVG.

Colours are CSS variables and text is text, so that a figure follows the page into dark mode, into print and into the
reader's font. Matplotlib draws them on `Figure` objects, without pyplot and without any global state left behind.
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

# Colours that occur nowhere else stand for the variables of the style sheet until the SVG is written.
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
    "text.parse_math": False,  # labels are the user's: a dollar sign is a dollar sign
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
_MAX_LETTERS = 24
_LEFT, _RIGHT, _RAIL = 56, 14, 26  # pixels beside a spectrum, and of the marks of one class above it


@contextmanager
def _drawing() -> Iterator[None]:
    """Matplotlib in our style; a glyph that its own font lacks is no problem, as the reader's font draws it."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _canvas(width: float, height: float) -> Figure:
    """An empty figure, measured in CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72)


def _axes(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes that leave the given margins, in pixels."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element for an HTML page, with nothing in it that names another address."""
    from io import StringIO

    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    width, height = figure.get_size_inches() * 72
    svg = text.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r' id="[\w.]+_\d+"', "", body)  # running numbers would repeat from figure to figure
    body = body.replace("font-family: 'DejaVu Sans'; ", "")  # the page's font takes its place
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"\n\s*", "\n", body)
    body = re.sub(r"#00000[1-6]", lambda match: _VARIABLES[match.group()], body)
    head = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
    return f'{head} aria-label="{title}">{body.strip()}'


def shorten(name: str, most: int = _MAX_LETTERS) -> str:
    """A name that fits a figure and can be drawn; what is cut away leaves an ellipsis in the middle.

    Example:
        >>> shorten("oil_whirl"), shorten("a_name_that_would_never_fit_anywhere")
        ('oil_whirl', 'a_name_that_…it_anywhere')
    """
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{name[: most - 1 - half]}…{name[-half:]}"


def learning_curve(curves: Mapping[str, Sequence[float | None]], label: str, best_epoch: int | None = None) -> str:
    """One quantity over the epochs, for example the loss in training and in validation.

    Args:
        curves: values per epoch by name; the first is drawn as the lesser one. Values that are not finite
            leave a gap.
        label: what is drawn.
        best_epoch: epoch to mark, counted from 0.
    """
    with _drawing():
        figure = _canvas(340, 220)
        axes = _axes(figure, left=52, right=76, top=36, bottom=36)
        colors = dict(zip(curves, [MUTED, TRUE] if len(curves) > 1 else [TRUE], strict=False))
        for name, values in curves.items():
            series = np.array(values, dtype=float)
            epochs = np.arange(1, len(series) + 1)
            axes.plot(epochs, series, color=colors[name], linewidth=1.6, marker="o" if len(series) < 3 else "")
        _as_int_labels(axes, max(map(len, curves.values())))
        if best_epoch is not None:
            axes.axvline(best_epoch + 1, color=RULE, linewidth=1, zorder=0)
            _note(axes, best_epoch + 1, "best")
        axes.set_title(label, loc="left", fontsize=12, color=INK, pad=18)
        axes.set_xlabel("epoch", loc="right")
        _label_ends(axes, curves, colors)
        return _svg(figure, f"{_plain(label)} by epoch")


def _plain(label: str) -> str:
    """A name of ours as an attribute's value."""
    return re.sub(r"[^\w ,.-]", "", label)


def _as_int_labels(axes: Axes, n_epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5 if n_epochs < 3 else 1, n_epochs + 0.5 if n_epochs < 3 else n_epochs)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _note(axes: Axes, x: float, text: str) -> None:
    """A word above the axes at x."""
    axes.annotate(
        text, (x, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", color=MUTED, ha="center"
    )


def _label_ends(axes: Axes, curves: Mapping[str, Sequence[float | None]], colors: Mapping[str, str]) -> None:
    """Name each curve at its right end, far enough apart to be read."""
    ends = {}
    for name, values in curves.items():
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if finite:
            ends[name] = axes.transData.transform((0, finite[-1]))[1]
    heights = _spread(list(ends.values()), 14, axes.bbox.ymax - 8)
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


def _spread(heights: list[float], gap: float, ceiling: float) -> list[float]:
    """Heights moved as little as it takes to keep `gap` between neighbours and all below the ceiling."""
    moved = [min(height, ceiling) for height in heights]
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for below, above in pairwise(order):
        moved[above] = min(max(moved[above], moved[below] + gap), ceiling)
    for above, below in pairwise(reversed(order)):
        moved[below] = min(moved[below], moved[above] - gap)
    return moved


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> str:
    """Counts of true class (row) against predicted class (column), shaded by their share of the row.

    The diagonal, which is right, has another colour than the rest, which is wrong; empty cells stay empty.
    """
    with _drawing():
        table = np.asarray(counts)
        k, cell = len(classes), 34
        names = [shorten(name) for name in classes]
        margin = 16 + 6.1 * max(map(len, names))
        figure = _canvas(margin + k * cell + 8, 26 + k * cell + 0.72 * margin)
        axes = _axes(figure, left=margin, right=8, top=26, bottom=0.72 * margin)
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
    """Accuracy against confidence, with the number of predictions in each bin below.

    Args:
        curve: as from `metrics.reliability_curve`.
        title: what was judged.
    """
    with _drawing():
        figure = _canvas(340, 330)
        axes = _axes(figure, left=52, right=20, top=26, bottom=112)
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1)
        for entry in curve:
            if entry["n"]:
                _draw_gap(axes, entry["confidence"], entry["accuracy"])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=[], yticks=[0, 0.5, 1])
        axes.set_yticklabels(["0", "50 %", "100 %"])
        axes.spines["bottom"].set_visible(False)
        axes.set_title("share that is right", loc="left", color=MUTED, fontsize=11)
        _draw_counts(_axes(figure, left=52, right=20, top=236, bottom=40), curve)
        return _svg(figure, _plain(title))


def _draw_gap(axes: Axes, confidence: float, accuracy: float) -> None:
    """One bin, tied to where it would lie if the network kept what it claims."""
    color = OTHER if accuracy < confidence else TRUE
    axes.plot([confidence, confidence], [confidence, accuracy], color=color, linewidth=1)
    axes.plot(confidence, accuracy, color=color, marker="o", markersize=5, clip_on=False)


def _draw_counts(axes: Axes, curve: Sequence[Mapping[str, Any]]) -> None:
    """Number of predictions in each bin."""
    centers = [(entry["low"] + entry["high"]) / 2 for entry in curve]
    axes.bar(centers, [entry["n"] for entry in curve], width=0.8 / len(curve), color=MUTED, alpha=0.6)
    most = max(entry["n"] for entry in curve)
    axes.set(xlim=(0, 1.02), ylim=(0, most), xticks=[0, 0.5, 1], yticks=[0, most])
    axes.set_xticklabels(["0", "50 %", "100 %"])
    axes.set_xlabel("confidence", loc="right")
    axes.spines["left"].set_visible(False)


@dataclass(frozen=True)
class Expectation:
    """The lines that a class should show, for drawing.

    Attributes:
        lines: its lines, in orders of shaft speed, all of the spectrum that is drawn.
        true: whether it is the true class, rather than a wrongly predicted one.
    """

    lines: tuple[Line, ...]
    true: bool


def spectrum(
    x: np.ndarray, y: np.ndarray, x_label: str, y_label: str, expectations: Sequence[Expectation], title: str
) -> str:
    """A spectrum with the lines that one or two classes should show.

    Each class has a rail of marks above the spectrum, bold for its required lines and thin for its optional
    ones; the search windows of the required lines are shaded through the spectrum too.

    Args:
        x: orders or frequencies, `[F]`, rising.
        y: amplitudes, `[F]`.
        x_label: name and unit of x.
        y_label: name and unit of y.
        expectations: the classes to draw; none where the shaft speed is not known.
        title: what is drawn.
    """
    with _drawing():
        rails = [expectation for expectation in expectations if expectation.lines]
        figure = _canvas(450, 205 + _RAIL * len(rails))
        axes = _axes(figure, left=_LEFT, right=_RIGHT, top=22 + _RAIL * len(rails), bottom=38)
        axes.plot(x, y, color=INK, linewidth=0.8)
        span = y.max() - y.min() or 1
        axes.set(xlim=(x[0], x[-1]), ylim=(y.min() - 0.02 * span, y.max() + 0.05 * span))
        axes.set_xlabel(x_label, loc="right")
        axes.text(0, 1, f"{y_label}\n", transform=axes.transAxes, color=MUTED, va="bottom", linespacing=0.4)
        for row, expectation in enumerate(rails):
            _draw_rail(figure, axes, expectation, top=_RAIL * row)
        return _svg(figure, _plain(title))


def _draw_rail(figure: Figure, axes: Axes, expectation: Expectation, top: float) -> None:
    """The marks of one class above the spectrum, `top` pixels below the figure's edge."""
    height = figure.get_size_inches()[1] * 72
    rail = _axes(figure, left=_LEFT, right=_RIGHT, top=top, bottom=height - top - _RAIL)
    rail.set(xlim=axes.get_xlim(), ylim=(0, _RAIL))
    rail.set_axis_off()
    color = TRUE if expectation.true else OTHER
    for role, width in (("required", 2.5), ("optional", 1)):
        rail.vlines(
            [line.order for line in expectation.lines if line.role == role], 2, 10, color=color, linewidth=width
        )
    for line in expectation.lines:
        if line.role == "required":
            axes.axvspan(line.low_order, line.high_order, color=color, alpha=0.22, linewidth=0, zorder=0)
    for line in _nameable(expectation.lines, rail):
        rail.text(line.order, 13, line.name, color=color, ha="center", fontsize=10)


def _nameable(lines: Sequence[Line], rail: Axes) -> Iterator[Line]:
    """The lines whose names have room beside each other; required ones go first, then those with short names."""
    taken: list[tuple[float, float]] = []
    width = rail.bbox.width
    for line in sorted(lines, key=lambda line: (line.role != "required", len(line.name), line.order)):
        center = rail.transData.transform((line.order, 0))[0] - rail.bbox.xmin
        low, high = center - 3.4 * len(line.name), center + 3.4 * len(line.name)
        inside = low > -_LEFT and high < width + _RIGHT
        if inside and all(high + 4 < left or low - 4 > right for left, right in taken):
            taken.append((low, high))
            yield line
