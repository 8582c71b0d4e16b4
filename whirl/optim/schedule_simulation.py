"""Simulation of learning-rate schedules without training, and output as a table or a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from whirl._plotting import PLAIN, figure_of
from whirl.engine.files import atomic_write, write_text
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.optim.scheduler_base import get_learning_rates
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.validation import check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
"""Pairs (completed epochs, learning rate of the next optimizer step)."""

_TABLE_ROWS = 10


def simulate_schedule(
    name: str,
    epochs: int,
    steps_per_epoch: int = 100,
    lr: float = 1e-3,
    metrics: Sequence[float] | None = None,
    **settings: Any,
) -> Curve:
    """Compute the learning rates of a training by stepping the actual scheduler as a trainer does.

    Args:
        name: one of `schedule_names()`.
        epochs: number of epochs, >= 1.
        steps_per_epoch: number of optimizer steps per epoch, >= 1.
        lr: learning rate of the optimizer, > 0.
        metrics: assumed validation metric after each epoch, `[epochs]`; required by plateau schedules, and invalid for
            all others.
        **settings: settings of the schedule. Those that are not given have the defaults of
            `create_training_scheduler`.

    Returns:
        One pair (completed epochs, learning rate) per optimizer step.

    Raises:
        ValueError: the name is unknown, an argument is out of range, metrics are missing or not applicable, or a
            learning rate exceeds the range of float.
        TypeError: a setting is unknown or missing.

    Example:
        >>> curve = simulate_schedule("warmup_linear", epochs=5, steps_per_epoch=1, lr=1.0, warmup_epochs=1)
        >>> [rate for epoch, rate in curve]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """
    lr = check_number("lr", lr, 0, open_ends=True)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = create_training_scheduler(name, optimizer, epochs, steps_per_epoch, **settings)
    unit = scheduler_unit(scheduler)
    if unit == "validation" and (metrics is None or len(metrics) != epochs):
        raise ValueError(
            f"schedule {name!r} depends on a validation metric, which is unknown before training; "
            f"call simulate_schedule with assumed metrics, one for each of {epochs} epochs"
        )
    if unit != "validation" and metrics is not None:
        raise ValueError(f"metrics are given, but schedule {name!r} does not depend on a metric")
    curve: Curve = []
    for epoch in range(epochs):
        for step in range(steps_per_epoch):
            curve.append((epoch + step / steps_per_epoch, get_learning_rates(optimizer)[0]))
            optimizer.step()
            if unit == "step":
                step_scheduler(scheduler)
        if unit != "step":
            step_scheduler(scheduler, dict.fromkeys(("val_loss", "val_accuracy"), metrics[epoch]) if metrics else None)
    for epoch, rate in curve:
        check_number(f"learning rate of schedule {name!r} at epoch {epoch:g}", rate, 0)
    return curve


def format_schedule(curve: Curve) -> str:
    """Format a schedule as a table with the first, the last, the peak and evenly spaced learning rates.

    Args:
        curve: result of `simulate_schedule`.

    Example:
        >>> print(format_schedule(simulate_schedule("warmup_linear", 4, 1, lr=1.0)))
           epoch  learning rate
               0            0.5  first
               1              1  peak
               2         0.6667
               3         0.3333  last
    """
    peak = _peak(curve)
    rows = {curve[len(curve) * i // _TABLE_ROWS] for i in range(_TABLE_ROWS)} | {curve[-1], peak}
    labels = {curve[0]: "first", curve[-1]: "last"}
    labels[peak] = ", ".join(filter(None, [labels.get(peak), "peak"]))
    lines = [f"{epoch:8.4g}  {rate:13.4g}  {labels.get((epoch, rate), '')}".rstrip() for epoch, rate in sorted(rows)]
    return "\n".join([f"{'epoch':>8}  learning rate", *lines])


def plot_curve(curve: Curve, title: str = "", *, ax: Axes | None = None) -> Figure:
    """Plot the learning rate over the epochs.

    Args:
        curve: result of `simulate_schedule`.
        title: title of the figure.
        ax: where to draw; None creates a figure.

    Returns:
        The figure.

    Example:
        >>> figure = plot_curve(simulate_schedule("cosine", epochs=10))
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('epoch', 'learning rate')
    """
    from matplotlib.figure import Figure

    axes = Figure(figsize=(7, 3.5), layout="constrained").add_subplot() if ax is None else ax
    axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.05 * _peak(curve)[1]))
    if title:
        axes.set_title(title, **PLAIN)
    axes.plot(*zip(*curve, strict=True), drawstyle="steps-post")
    axes.grid(alpha=0.3)
    return figure_of(axes)


def save_curve(curve: Curve, path: str | Path, title: str = "") -> None:
    """Save a schedule as a table (`.csv` with columns epoch and lr) or as a figure (`.png`, `.svg`, `.pdf`).

    Args:
        curve: result of `simulate_schedule`.
        path: file to write.
        title: title of the figure.

    Raises:
        ValueError: the suffix of `path` is not supported.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        write_text(path, "epoch,lr\n" + "".join(f"{epoch!r},{rate!r}\n" for epoch, rate in curve))
    elif suffix in (".png", ".svg", ".pdf"):
        image = io.BytesIO()
        plot_curve(curve, title).savefig(image, format=suffix[1:])
        with atomic_write(path) as file:
            file.write(image.getbuffer())
    else:
        raise ValueError(f"{path} has suffix {suffix!r}, expected .csv, .png, .svg or .pdf")


def _peak(curve: Curve) -> tuple[float, float]:
    """Return the first point with the highest learning rate."""
    return max(curve, key=lambda point: point[1])
