"""Learning-rate schedules simulated without training, and their plots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from whirl.engine.files import atomic_write, write_text
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.optim.scheduler_base import get_rates
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.validation import check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]  # (epochs passed, rate of the next optimizer step)


def simulate_schedule(
    name: str,
    epochs: int,
    steps_per_epoch: int = 100,
    lr: float = 1e-3,
    metrics: Sequence[float] | None = None,
    **settings: Any,
) -> Curve:
    """The rates that a training would see, from the real scheduler, moved as the engine moves it.

    Args:
        name: one of `schedule_names()`.
        epochs: length of the training, >= 1.
        steps_per_epoch: optimizer steps in each epoch, >= 1.
        lr: the optimizer's own rate, > 0.
        metrics: value of the validation metric after each epoch, `[epochs]`; a plateau schedule needs it.
        **settings: the schedule's own; others are as in `create_training_scheduler`.

    Returns:
        One pair (epochs passed, rate) for each optimizer step.

    Raises:
        ValueError: no such name, a value out of its range, a plateau schedule without metrics, a rate that no float
            holds.
        TypeError: an unknown or a missing setting.

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
            f"the schedule {name!r} follows a validation metric, which is not known before training: "
            f"simulate_schedule can draw it for assumed metrics, one for each of {epochs} epochs"
        )
    if unit != "validation" and metrics is not None:
        raise ValueError(f"metrics are given, but the schedule {name!r} follows none")
    curve: Curve = []
    for epoch in range(epochs):
        for step in range(steps_per_epoch):
            curve.append((epoch + step / steps_per_epoch, get_rates(optimizer)[0]))
            optimizer.step()
            if unit == "step":
                step_scheduler(scheduler)
        if unit != "step":
            step_scheduler(scheduler, dict.fromkeys(("val_loss", "val_accuracy"), metrics[epoch]) if metrics else None)
    for epoch, rate in curve:
        check_number(f"the rate of the schedule {name!r} at epoch {epoch:g}", rate, 0)
    return curve


def plot_curve(curve: Curve, title: str = "") -> Figure:
    """A figure of the rate over the epochs.

    Example:
        >>> figure = plot_curve(simulate_schedule("cosine", epochs=10))
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('epoch', 'learning rate')
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="epoch", ylabel="learning rate", ylim=(0, 1.05 * _peak(curve)[1]))
    axes.plot(*zip(*curve, strict=True), drawstyle="steps-post")
    axes.grid(alpha=0.3)
    return figure


def plot_schedule(name: str, epochs: int, **settings: Any) -> Figure:
    """A figure of the schedule of that name; the arguments are those of `simulate_schedule`."""
    return plot_curve(simulate_schedule(name, epochs, **settings), title=name)


def ascii_plot(curve: Curve, width: int = 60, height: int = 6) -> str:
    """The curve in characters, and its first, peak and last rate.

    Args:
        curve: as `simulate_schedule` returns it.
        width: columns, >= 1.
        height: lines, each in eighths, >= 1.

    Example:
        >>> print(ascii_plot(simulate_schedule("warmup_linear", 4, 1, lr=1.0), width=4, height=2))
              1 | █▃
              0 |███▅
        epoch 0               0.5  first
        epoch 1                 1  peak
        epoch 2            0.6667
        epoch 3            0.3333  last
    """
    peak = _peak(curve)
    columns = [curve[(2 * i + 1) * len(curve) // (2 * width)][1] for i in range(width)]
    eighths = [round(8 * height * (rate / peak[1])) for rate in columns]
    lines = []
    for line in reversed(range(height)):
        label = f"{peak[1]:.4g}" if line == height - 1 else "0" if line == 0 else ""
        blocks = "".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, n - 8 * line))] for n in eighths)
        lines.append(f"{label:>10} |{blocks}".rstrip())
    return "\n".join([*lines, *_few_values(curve, peak)])


def _peak(curve: Curve) -> tuple[float, float]:
    """The first point of the highest rate."""
    return max(curve, key=lambda point: point[1])


def _few_values(curve: Curve, peak: tuple[float, float]) -> list[str]:
    """Lines for the first, the highest and the last point, and for those at the quarters."""
    remarks = {curve[0]: "first", curve[-1]: "last"}
    remarks[peak] = "  ".join(filter(None, [remarks.get(peak), "peak"]))
    quarters = [curve[len(curve) * i // 4] for i in range(4)]
    return [
        f"epoch {epoch:<8.4g} {rate:>10.4g}  {remarks.get((epoch, rate), '')}".rstrip()
        for epoch, rate in sorted({*quarters, *remarks})
    ]


def save_curve(curve: Curve, path: str | Path, title: str = "") -> None:
    """Write the curve as a table (`.csv`, columns epoch and lr) or as a picture (`.png`, `.svg`, `.pdf`).

    Raises:
        ValueError: `path` ends in none of these.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        write_text(path, "epoch,lr\n" + "".join(f"{epoch!r},{rate!r}\n" for epoch, rate in curve))
    elif suffix in (".png", ".svg", ".pdf"):
        picture = io.BytesIO()
        plot_curve(curve, title).savefig(picture, format=suffix[1:])
        with atomic_write(path) as file:
            file.write(picture.getbuffer())
    else:
        raise ValueError(f"{path}: a curve is saved as .csv, .png, .svg or .pdf, not as {suffix!r}")
