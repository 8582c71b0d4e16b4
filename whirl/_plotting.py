"""Matplotlib figures without pyplot: their style, and drawing on new axes or on those of the caller.

Figures need no display and leave no global state. A new figure gets the style of this module; axes of the caller keep
theirs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

# Colors of text, secondary text, frames, correct and wrong predictions, and text on a dark shade.
INK, MUTED, RULE, TRUE, OTHER, ON_SHADE = "#1c2126", "#646c75", "#cfd3d8", "#1f66b0", "#c2500f", "#fffffe"

FONT_SIZE = 12
POINTS_PER_INCH = 72
PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
"""Text properties for labels that come from users and may contain dollar signs."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "whirl",
    "text.usetex": False,
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": FONT_SIZE,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 1,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.facecolor": "none",
    "axes.xmargin": 0,
    "figure.facecolor": "white",
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "savefig.bbox": "standard",
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style, and ignore glyphs that Matplotlib's font lacks: in an SVG the browser draws the text."""
    from matplotlib import rc_context

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


@contextmanager
def axes_for(
    ax: Axes | None, width: float, height: float, *, left: float, right: float, top: float, bottom: float
) -> Iterator[Axes]:
    """Yield the caller's axes, or if there are none the axes of a new figure, to draw on in its style.

    Args:
        ax: axes of the caller, or None.
        width: width of the new figure in points.
        height: height of the new figure in points.
        left: left margin of the new axes in points.
        right: right margin of the new axes in points.
        top: upper margin of the new axes in points.
        bottom: lower margin of the new axes in points.
    """
    if ax is not None:
        yield ax
        return
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), dpi=2 * POINTS_PER_INCH)
        size = ((width - left - right) / width, (height - top - bottom) / height)
        yield figure.add_axes((left / width, bottom / height, *size))


def figure_of(axes: Axes) -> Figure:
    """Return the figure of axes, also of axes in a sub-figure."""
    return axes.figure.figure  # type: ignore[return-value]


def above(axes: Axes) -> Transform:
    """Return the transform with data coordinates in x, and points above the axes in y."""
    from matplotlib.transforms import Affine2D, BboxTransformTo, ScaledTranslation, blended_transform_factory

    points = Affine2D().scale(1 / POINTS_PER_INCH) + axes.figure.dpi_scale_trans
    return blended_transform_factory(axes.transData, points + ScaledTranslation(0, 1, BboxTransformTo(axes.bbox)))


def label_y_above(axes: Axes, label: str, points: float, **properties: Any) -> None:
    """Label the y axis horizontally, above its upper end."""
    from matplotlib.transforms import ScaledTranslation

    axes.set_ylabel(label, rotation=0, ha="left", va="bottom", **PLAIN, **properties)
    offset = ScaledTranslation(0, points / POINTS_PER_INCH, axes.figure.dpi_scale_trans)
    axes.yaxis.set_label_coords(0, 1, transform=axes.transAxes + offset)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Return the width of a text in points, in the font of the style."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with style():
        font = FontProperties(family="DejaVu Sans", size=size)
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width
