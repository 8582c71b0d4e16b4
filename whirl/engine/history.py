"""The history of a training run, and its learning curves."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

from whirl._display import Displayed, cell, html_table
from whirl._plotting import INK, MUTED, OTHER, PLAIN, RULE, TRUE, axes_for, figure_of, label_y_above, text_width
from whirl.validation import unknown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PARTS = {"train": "training", "val": "validation"}
ACCURACY_ALIASES = {"train_acc": "train_accuracy", "val_acc": "val_accuracy"}
_LINE_PT = 14  # minimum distance of two labels of curves, in points


class History(Displayed, dict[str, list[float]]):
    """The history of a training run: a dict with one list per logged name, and in it one number per epoch.

    It shows itself in one line, and in a notebook as a table with the first epoch, the last one and the one with the
    lowest validation loss.

    Example:
        >>> history = History(train_loss=[0.9, 0.5, 0.2], val_loss=[1.0, 0.6, 0.7], lr=[0.1, 0.1, 0.01])
        >>> history["lr"][-1], history.best_epoch
        (0.01, 1)
        >>> history
        History(epochs=3, train_loss=0.2, val_loss=0.7, lr=0.01, lowest_val_loss=0.6)
        >>> history.plot("loss").axes[0].get_ylabel()
        'loss'
    """

    def __missing__(self, name: str) -> list[float]:
        """Return the values of `train_acc` and `val_acc`, other names of the accuracies."""
        if name in ACCURACY_ALIASES and ACCURACY_ALIASES[name] in self:
            return self[ACCURACY_ALIASES[name]]
        raise KeyError(name)

    @property
    def best_epoch(self) -> int | None:
        """Index of the epoch with the lowest validation loss, from 0; None if no epoch has a finite one."""
        losses = {epoch: loss for epoch, loss in enumerate(self.get("val_loss", ())) if _is_finite(loss)}
        return min(losses, key=losses.__getitem__, default=None)

    def curves(self, quantity: str) -> dict[str, list[float]]:
        """Return the finite curves of a quantity.

        Args:
            quantity: name of a list, such as `"lr"`, or what follows `train_` and `val_`, such as `"loss"`.

        Returns:
            The values per epoch by `"training"` and `"validation"`, or by `quantity`; curves without a finite value are
            left out.

        Example:
            >>> History(train_loss=[2.0, 1.0], val_loss=[2.0, 1.5], lr=[0.1, 0.1]).curves("loss")
            {'training': [2.0, 1.0], 'validation': [2.0, 1.5]}
        """
        names = {quantity: quantity, **{label: f"{part}_{quantity}" for part, label in _PARTS.items()}}
        found = {label: self[name] for label, name in names.items() if name in self}
        return {label: values for label, values in found.items() if any(map(_is_finite, values))}

    def plot(self, quantity: str = "loss", ax: Axes | None = None) -> Figure:
        """Plot a quantity over the epochs, in training and in validation.

        Args:
            quantity: what to plot, see `curves`.
            ax: where to draw; None creates a figure.

        Returns:
            The figure.

        Raises:
            ValueError: the history has no finite values of the quantity.
        """
        curves = self.curves(quantity)
        if not curves:
            parts = tuple(f"{part}_" for part in _PARTS)
            names = dict.fromkeys(name.split("_", 1)[1] if name.startswith(parts) else name for name in self)
            raise ValueError(
                f"{quantity} has no finite value" if quantity in names else unknown_name("quantity", quantity, names)
            )
        return plot_learning_curve(curves, quantity, self.best_epoch, ax=ax)

    def _n_epochs(self) -> int:
        return max(map(len, self.values()), default=0)

    def _display_facts(self) -> dict[str, Any]:
        last = {name: values[-1] for name, values in self.items() if values}
        best = {} if self.best_epoch is None else {"lowest_val_loss": self["val_loss"][self.best_epoch]}
        return {"epochs": self._n_epochs(), **last, **best}

    def _display_table(self) -> str:
        n_epochs, best = self._n_epochs(), self.best_epoch
        columns = {0: "epoch 1", n_epochs - 1: f"epoch {n_epochs}"}
        if best is not None:
            columns[best] = f"epoch {best + 1}, lowest val_loss"
        epochs = sorted(epoch for epoch in columns if epoch >= 0)
        rows = [[name, *(_number(values, epoch) for epoch in epochs)] for name, values in self.items()]
        return html_table(rows, ["", *(columns[epoch] for epoch in epochs)] if rows else [], "History")


def scalars(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the numbers in `logs` as floats, without other values.

    Example:
        >>> import torch
        >>> scalars({"val_loss": torch.tensor(0.5), "epoch": 3, "note": "warm"})
        {'val_loss': 0.5, 'epoch': 3.0}
    """
    return {name: float(value) for name, value in (logs or {}).items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (getattr(value, "ndim", None) == 0 and hasattr(value, "item"))


def _number(values: Sequence[float | None], epoch: int) -> str:
    value = values[epoch] if epoch < len(values) else None
    return "–" if value is None else cell(value)


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def plot_learning_curve(
    curves: Mapping[str, Sequence[float | None]], label: str, best_epoch: int | None = None, *, ax: Axes | None = None
) -> Figure:
    """Plot a quantity over the epochs, for example the loss in training and in validation.

    Args:
        curves: values per epoch by name; the first of several curves is drawn in a muted color. Values that are None or
            not finite leave a gap.
        label: label of the vertical axis, with the unit if there is one.
        best_epoch: epoch to mark as the best, counted from 0; None marks none.
        ax: where to draw; None creates a figure.

    Returns:
        The figure.

    Raises:
        ValueError: there are no curves.

    Example:
        >>> figure = plot_learning_curve({"training": [2.0, 1.0], "validation": [2.0, 1.5]}, "loss", best_epoch=1)
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]]
        [[2.0, 1.0], [2.0, 1.5]]
    """
    if not curves:
        raise ValueError("curves is empty, expected at least one")
    right = 14 + max(map(text_width, curves))
    with axes_for(ax, 340, 220, left=56, right=right, top=44, bottom=44) as axes:
        colors = dict(zip(curves, cycle([MUTED, TRUE, OTHER, INK] if len(curves) > 1 else [TRUE]), strict=False))
        for name, values in curves.items():
            numbers = [math.nan if value is None else float(value) for value in values]
            marker = "o" if len(numbers) < 3 else ""
            axes.plot(range(1, len(numbers) + 1), numbers, color=colors[name], linewidth=1.6, marker=marker)
        _set_epoch_axis(axes, max(map(len, curves.values())))
        if best_epoch is not None:
            _mark_epoch(axes, best_epoch + 1, "best")
        axes.set_xlabel("epoch", loc="right")
        if ax is None:
            label_y_above(axes, label, 22, color=INK)
        else:
            axes.set_ylabel(label, **PLAIN)
        _label_ends(axes, curves, colors)
        return figure_of(axes)


def _set_epoch_axis(axes: Axes, n_epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    margin = 0.5 if n_epochs < 3 else 0
    axes.set_xlim(1 - margin, max(n_epochs, 1) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _mark_epoch(axes: Axes, epoch: int, name: str) -> None:
    """Draw a vertical line at an epoch, with its name above the axes."""
    axes.axvline(epoch, color=RULE, linewidth=1, zorder=0)
    top = axes.secondary_xaxis("top")  # a title that is added later is placed above it
    top.set_xticks([epoch], [name], color=MUTED)
    top.tick_params(length=0, pad=4)
    top.spines[:].set_visible(False)


def _label_ends(axes: Axes, curves: Mapping[str, Sequence[float | None]], colors: Mapping[str, str]) -> None:
    """Name each curve at its right end, without overlap."""
    ends = {}
    for name, values in curves.items():
        finite = [value for value in values if _is_finite(value)]
        if finite:
            ends[name] = axes.transData.transform((1, finite[-1]))[1]
    pixels = axes.figure.dpi / 72
    bottom, top = axes.bbox.ymin, axes.bbox.ymax
    heights = _separate(list(ends.values()), _LINE_PT * pixels, top - 8 * pixels)
    for name, height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            (1, 0),
            (6, (height - bottom) / pixels),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colors[name],
            va="center",
            annotation_clip=False,
            **PLAIN,
        )


def _separate(heights: list[float], gap: float, ceiling: float) -> list[float]:
    """Move heights apart until neighbors are `gap` apart and all are below the ceiling."""
    moved = [min(height, ceiling) for height in heights]
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for below, upper in pairwise(order):
        moved[upper] = min(max(moved[upper], moved[below] + gap), ceiling)
    for upper, below in pairwise(reversed(order)):
        moved[below] = min(moved[below], moved[upper] - gap)
    return moved
