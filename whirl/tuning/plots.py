"""Figures of search results: each function draws a Matplotlib figure from the table of results, or on given axes.

Figures do not use pyplot, so they need no display and leave no global state. The best candidate (the first of rank 1)
is marked in each figure. Candidates without a score (failed or pruned) are marked as such where the figure can show
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl._plotting import figure_of
from whirl.tuning.plot_scales import (
    MAX_TICKS,
    Scale,
    apply_scale,
    axis_label,
    categories,
    check_parameter,
    key_of,
    label_text,
    parameter_scale,
    rotate_long_labels,
    scale_of,
    text_of_key,
)
from whirl.tuning.results import parameter_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_POINT, _BEST, _FAILED, _COLORMAP = "#30638e", "#d1495b", "#999999", "viridis"
_STAR = {"marker": "*", "s": 190, "color": _BEST, "edgecolor": "white", "linewidth": 0.8, "zorder": 5}
_MAX_CELLS = 20


def plot_history(results: DataFrame, score_label: str = "mean score", *, ax: Axes | None = None) -> Figure:
    """Plot the score of each candidate in the order in which they were tried, and the best score so far.

    Args:
        results: table of results, see `results.results_table`; as in all figures, at least one candidate must have a
            score.
        score_label: axis label of the score, with its unit if it has one.
        ax: where to draw; None creates a figure.

    Returns:
        The figure.

    Raises:
        ValueError: no candidate has a score.

    Example:
        >>> from whirl.tuning.results import results_table
        >>> results = results_table([{"C": 0.1}, {"C": 1.0}], [0.8, 0.9], [0.02, 0.01], [1.0, 1.0])
        >>> plot_history(results).axes[0].get_xlabel()
        'candidate'
    """
    best = _best_row(results)
    axes = _axes_for(ax, "candidate", score_label)
    scores, numbers = results["mean_score"].to_numpy(float), np.arange(1, len(results) + 1)
    axes.scatter(numbers, scores, s=22, color=_POINT, label="candidate")
    axes.step(numbers, scores[_best_so_far(results)], where="post", color=_BEST, linewidth=1.2, label="best so far")
    _mark_best(axes, numbers[best], scores[best])
    _mark_failed(axes, numbers[np.isnan(scores)])
    axes.set_xlim(0.5, len(results) + 0.5)
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
    _legend(axes, is_new=ax is None)
    return figure_of(axes)


def plot_parameter(results: DataFrame, name: str, score_label: str = "mean score", *, ax: Axes | None = None) -> Figure:
    """Plot the scores over the values of one parameter, with the standard deviation over the folds.

    Args:
        results: see `plot_history`.
        name: parameter of the table. Numbers on a logarithmic scale get a logarithmic axis, other values than numbers a
            categorical one.
        score_label: see `plot_history`.
        ax: see `plot_history`.

    Returns:
        The figure.

    Raises:
        ValueError: there is no such parameter, or no candidate has a score.

    Example:
        >>> from whirl.tuning.results import results_table
        >>> results = results_table([{"C": 0.1}, {"C": 10.0}], [0.8, 0.9], [0.02, 0.01], [1.0, 1.0])
        >>> plot_parameter(results, "C").axes[0].get_xscale()
        'log'
    """
    best, scale = _best_row(results), parameter_scale(results, name)
    axes = _axes_for(ax, axis_label(name), score_label)
    apply_scale(scale, axes, "x")
    scores, spread = results["mean_score"].to_numpy(float), results["std_score"].to_numpy(float)
    style = {"fmt": "o", "markersize": 4.5, "color": _POINT, "ecolor": "#b5c9d8", "elinewidth": 1.2}
    label = "candidate" if np.isnan(spread).all() else "candidate ± std over folds"
    axes.errorbar(scale.positions, scores, yerr=np.nan_to_num(spread), label=label, **style)
    _mark_best(axes, scale.positions[best], scores[best])
    _mark_failed(axes, scale.positions[np.isnan(scores)])
    _legend(axes, is_new=ax is None)
    return figure_of(axes)


def plot_heatmap(
    results: DataFrame, name1: str, name2: str, score_label: str = "mean score", *, ax: Axes | None = None
) -> Figure:
    """Plot the best score for each pair of values of two parameters, over all values of the other parameters.

    If a parameter has more than 20 values, as after a random search, candidates are drawn as points instead of cells.

    Args:
        results: see `plot_history`.
        name1: parameter on the horizontal axis.
        name2: parameter on the vertical axis.
        score_label: see `plot_history`.
        ax: see `plot_history`.

    Returns:
        The figure.

    Raises:
        ValueError: there is no such parameter, the two are the same, or no candidate has a score.

    Example:
        >>> from whirl.tuning.results import results_table
        >>> params = [{"C": 0.1, "k": "rbf"}, {"C": 10.0, "k": "rbf"}]
        >>> figure = plot_heatmap(results_table(params, [0.8, 0.9], [0.02, 0.01], [1.0, 1.0]), "C", "k")
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('C', 'k')
    """
    if name1 == name2:
        raise ValueError(f"both parameters are {name1!r}, expected two different parameters")
    _best_row(results)
    check_parameter(results, name1)
    check_parameter(results, name2)
    columns, rows = categories(results[name1]), categories(results[name2])
    axes = _axes_for(ax, axis_label(name1), axis_label(name2))
    if max(len(columns), len(rows)) > _MAX_CELLS:
        image = _draw_points(axes, results, name1, name2)
    else:
        image = _draw_cells(axes, results, name1, name2)
    axes.figure.colorbar(image, ax=axes, label=score_label)
    _legend(axes, "lower", is_new=ax is None)
    if len(parameter_names(results)) > 2 and max(len(columns), len(rows)) <= _MAX_CELLS:
        _title(axes, "best over the other parameters", is_new=ax is None)
    return figure_of(axes)


def plot_pareto(results: DataFrame, cost_label: str = "cost", *, ax: Axes | None = None) -> Figure:
    """Plot the score of each candidate over its cost, and the front of those that no other beats in both.

    Args:
        results: table of results with the columns `cost` and `is_best`, see `ParetoOptimizer.get_results`.
        cost_label: axis label of the cost, with its unit if it has one.
        ax: see `plot_history`.

    Returns:
        The figure.

    Raises:
        ValueError: no candidate has a score.

    Example:
        >>> from whirl.tuning.results import results_table
        >>> results = results_table([{"depth": 1}, {"depth": 2}], [0.8, 0.9], [0.0, 0.0], [1.0, 1.0])
        >>> plot_pareto(results.assign(cost=[3, 7], is_best=True)).axes[0].get_xlabel()
        'cost'
    """
    _best_row(results)
    axes = _axes_for(ax, cost_label, "score")
    costs, scores = results["cost"].to_numpy(float), results["mean_score"].to_numpy(float)
    front = np.flatnonzero(results["is_best"].to_numpy(bool))
    front = front[np.lexsort((scores[front], costs[front]))]
    axes.scatter(costs, scores, s=22, color=_POINT, label="candidate")
    style: dict[str, Any] = {"color": _BEST, "linewidth": 1.2, "marker": "o", "markersize": 6}
    axes.step(costs[front], scores[front], where="post", label="Pareto front", **style)
    if 0 < 10 * np.nanmin(costs) < np.nanmax(costs):
        axes.set_xscale("log")
    _legend(axes, is_new=ax is None)
    return figure_of(axes)


def plot_importances(
    importances: Mapping[str, float], label: str = "share of the score's variance", *, ax: Axes | None = None
) -> Figure:
    """Plot the importance of each parameter as horizontal bars, the most important on top.

    Args:
        importances: importance by parameter, each >= 0.
        label: label of the horizontal axis.
        ax: see `plot_history`.

    Returns:
        The figure.

    Raises:
        ValueError: there is no parameter.

    Example:
        >>> figure = plot_importances({"lr": 0.9, "batch_size": 0.1})
        >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        ['batch_size', 'lr']
    """
    if not importances:
        raise ValueError("importances is empty, expected at least one parameter")
    ordered = sorted(importances.items(), key=lambda item: item[1])
    names, shares = [name for name, _ in ordered], [share for _, share in ordered]
    axes = _axes_for(ax, label, "parameter", height=1.2 + 0.36 * len(names))
    bars = axes.barh(range(len(names)), shares, color=[*[_POINT] * (len(names) - 1), _BEST], height=0.7)
    axes.bar_label(bars, labels=[f"{share:.2f}" for share in shares], padding=4)
    axes.set_yticks(range(len(names)), [label_text(name) for name in names])
    axes.set_xlim(0, 1.12 * max(*shares, 1e-9))
    axes.grid(visible=False, axis="y")
    return figure_of(axes)


def plot_parallel_coordinates(results: DataFrame, score_label: str = "mean score", *, ax: Axes | None = None) -> Figure:
    """Plot every candidate as a line through its parameter values, colored by its score.

    Candidates without a score are omitted; the title states how many.

    Args:
        results: see `plot_history`.
        score_label: see `plot_history`.
        ax: see `plot_history`.

    Returns:
        The figure.

    Raises:
        ValueError: no candidate has a score.

    Example:
        >>> from whirl.tuning.results import results_table
        >>> results = results_table([{"C": 0.1}, {"C": 10.0}], [0.8, 0.9], [0.02, 0.01], [1.0, 1.0])
        >>> [tick.get_text() for tick in plot_parallel_coordinates(results).axes[0].get_xticklabels()]
        ['C', 'mean score']
    """
    from matplotlib.collections import LineCollection

    best, names = _best_row(results), [*parameter_names(results), "mean_score"]
    axes = _axes_for(ax, "", "", width=max(5.0, 1.6 * len(names)))
    heights = np.stack([_draw_vertical_axis(axes, index, results, name) for index, name in enumerate(names)], axis=1)
    scores = results["mean_score"].to_numpy(float)
    positions, drawn = np.arange(len(names)), np.flatnonzero(np.isfinite(scores))
    drawn = drawn[np.argsort(-results["rank"].to_numpy()[drawn], kind="stable")]  # better candidates on top
    lines = [np.column_stack([positions, heights[row]]) for row in drawn]
    image = axes.add_collection(LineCollection(lines, cmap=_COLORMAP, array=scores[drawn], linewidths=1.1, alpha=0.75))
    axes.plot(positions, heights[best], color=_BEST, lw=2.4, marker="o", markersize=5, label=_best_text(scores[best]))
    axes.set_xticks(positions, [*map(axis_label, names[:-1]), score_label])
    axes.set(xlim=(-0.15, len(names) - 0.6), ylim=(-0.06, 1.06), yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    _legend(axes, is_new=ax is None)
    axes.figure.colorbar(image, ax=axes, label=score_label)
    if len(drawn) < len(results):
        _title(axes, f"omitted, {_without(len(results) - len(drawn))}", is_new=ax is None)
    return figure_of(axes)


def _draw_cells(axes: Axes, results: DataFrame, name1: str, name2: str) -> Any:
    columns, rows = categories(results[name1]), categories(results[name2])
    best, cells = _best_row(results), np.full((len(rows), len(columns)), np.nan)
    # Drawn from worst to best, so that the best candidate of a cell remains, and failed ones never hide others.
    for row in np.argsort(-results["rank"].to_numpy(), kind="stable"):
        cells[rows[key_of(results[name2].iloc[row])], columns[key_of(results[name1].iloc[row])]] = results[
            "mean_score"
        ].iloc[row]
    axes.set_facecolor("#dddddd")
    axes.grid(visible=False)
    image = axes.imshow(cells, cmap=_COLORMAP, aspect="auto", origin="lower")
    for axis, keys in ((axes.xaxis, columns), (axes.yaxis, rows)):
        axis.set_ticks(range(len(keys)), [text_of_key(key) for key in keys])
    rotate_long_labels(axes)
    if cells.size <= 100:
        _write_scores(axes, cells)
    x, y = columns[key_of(results[name1].iloc[best])], rows[key_of(results[name2].iloc[best])]
    axes.add_patch(_frame(x, y))
    style = {"markerfacecolor": "none", "markeredgecolor": _BEST, "markeredgewidth": 2}
    axes.plot([], [], "s", label=_best_text(cells[y, x]), **style)
    return image


def _draw_points(axes: Axes, results: DataFrame, name1: str, name2: str) -> Any:
    best, x, y = _best_row(results), parameter_scale(results, name1), parameter_scale(results, name2)
    apply_scale(x, axes, "x")
    apply_scale(y, axes, "y")
    scores = results["mean_score"].to_numpy(float)
    failed = np.isnan(scores)
    image = axes.scatter(x.positions[~failed], y.positions[~failed], c=scores[~failed], cmap=_COLORMAP, s=34)
    if failed.any():
        axes.scatter(x.positions[failed], y.positions[failed], marker="x", color=_FAILED, label=_without(failed.sum()))
    axes.scatter(x.positions[best], y.positions[best], label=_best_text(scores[best]), **_STAR)
    return image


def _draw_vertical_axis(axes: Axes, x: int, results: DataFrame, name: str) -> np.ndarray:
    """Draw the vertical axis of one parameter at `x`, and return the candidates' heights on it, 0 to 1."""
    scale = parameter_scale(results, name) if name != "mean_score" else scale_of(list(results[name]))
    values = np.log(scale.positions) if scale.log else scale.positions
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    heights = (values - low) / (high - low) if high > low else values * 0 + 0.5
    axes.axvline(x, color="#444444", linewidth=0.8, zorder=1)
    for height, text in _vertical_ticks(scale, heights):
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
        axes.text(x + 0.03, height, text, fontsize="small", va="center", bbox=box, zorder=6)
    return heights


def _vertical_ticks(scale: Scale, heights: np.ndarray) -> list[tuple[float, str]]:
    texts = {}
    for height, position in zip(heights, scale.positions, strict=True):
        if math.isfinite(height):
            texts[float(height)] = scale.labels[int(position)] if scale.labels else f"{position:.3g}"
    ordered = sorted(texts.items())
    if len(ordered) <= 6 or (scale.labels and len(ordered) <= MAX_TICKS):
        return ordered
    return [ordered[0], ordered[-1]]


def _axes_for(ax: Axes | None, x_label: str, y_label: str, width: float = 7, height: float = 4) -> Axes:
    """Return the caller's axes, or those of a new figure, with labels and a grid."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height), layout="constrained").add_subplot() if ax is None else ax
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def _mark_best(axes: Axes, x: float, y: float) -> None:
    axes.scatter(x, y, label=_best_text(y), **_STAR)


def _mark_failed(axes: Axes, positions: np.ndarray) -> None:
    """Mark candidates without a score (failed or pruned) at the lower edge."""
    if len(positions):
        edge = axes.get_xaxis_transform()
        height, label = np.full(len(positions), 0.02), _without(len(positions))
        axes.scatter(positions, height, marker="x", color=_FAILED, transform=edge, label=label)


def _without(n_candidates: int) -> str:
    return f"without a score: {n_candidates}"


def _legend(axes: Axes, where: str = "upper", *, is_new: bool) -> None:
    """Add a legend at the edge of a new figure, or above the caller's axes."""
    if is_new:
        location: Any = f"outside {where} center"
        axes.figure.legend(loc=location, ncols=4, frameon=False)
    else:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small")


def _title(axes: Axes, text: str, *, is_new: bool) -> None:
    """Set the title, above the legend."""
    axes.set_title(text, fontsize="medium", pad=None if is_new else 24)


def _best_text(score: float) -> str:
    return f"best: {score:.4g}"


def _frame(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, edgecolor=_BEST, linewidth=2.5)


def _write_scores(axes: Axes, cells: np.ndarray) -> None:
    """Write the score into each cell, in a color with enough contrast."""
    low, high = np.nanmin(cells), np.nanmax(cells)
    for (row, column), score in np.ndenumerate(cells):
        if np.isnan(score):
            axes.text(column, row, "–", ha="center", va="center", color="#666666")
        else:
            dark = high > low and (score - low) / (high - low) < 0.6
            axes.text(column, row, f"{score:.3f}", ha="center", va="center", color="white" if dark else "black")


def _best_row(results: DataFrame) -> int:
    if np.isnan(results["mean_score"].to_numpy(float)).all():
        raise ValueError(f"none of the {len(results)} candidates has a score, expected at least one")
    return int(results["rank"].to_numpy().argmin())


def _best_so_far(results: DataFrame) -> np.ndarray:
    """Return for each candidate the row of the best candidate up to it."""
    ranks = results["rank"].to_numpy()
    return np.array([int(ranks[: row + 1].argmin()) for row in range(len(ranks))])
