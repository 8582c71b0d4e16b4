"""What all learning-rate schedules share: their formulas, their names, what ours add to torch's, and their drawing.

A formula is a pure function of the step, counted from 0, to a factor of the full rate. What a step is, an epoch or
an optimizer step, is the scheduler's `step_unit`. Every linear warm-up of this package is `warmup`. A parameter group
whose own rate is 0 stays at 0 under every schedule, whatever its lowest rate.
"""

from __future__ import annotations

import inspect
import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from packages.core.engine.files import atomic_write, write_text
from packages.core.engine.schedule import Unit, scheduler_unit, step_scheduler
from packages.core.signals.checks import check_count, check_name, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]  # (epochs passed, rate of the optimizer step that comes next)
LEAST_CYCLE = 4  # optimizer steps of a one-cycle schedule: fewer cannot rise and fall

# -- formulas ------------------------------------------------------------------------------------------------


def warmup(step: int, warmup_steps: int) -> float:
    """Linear rise: (step + 1) / (warmup_steps + 1), then 1.

    No step has factor 0, and the full rate comes first at step `warmup_steps`.

    Example:
        >>> [warmup(step, 3) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / (warmup_steps + 1))


def polynomial(step: int, total_steps: int, power: float = 1.0, floor: float = 0.0) -> float:
    """From 1 at step 0 to `floor` at `total_steps` and after: floor + (1 - floor) (1 - step / total_steps)^power.

    Example:
        >>> [polynomial(step, 4, power=2) for step in range(6)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    return _descent((1 - _progress(step, total_steps)) ** power, floor)


def cosine(step: int, total_steps: int, floor: float = 0.0) -> float:
    """From 1 at step 0 to `floor` at `total_steps` and after: floor + (1 - floor) (1 + cos(pi step / total_steps)) / 2.

    Loshchilov & Hutter 2017, SGDR, eq. 5.

    Example:
        >>> [round(cosine(step, 4, floor=0.1), 4) for step in (0, 2, 4, 5)]
        [1.0, 0.55, 0.1, 0.1]
    """
    return _descent((1 + math.cos(math.pi * _progress(step, total_steps))) / 2, floor)


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, floor: float = 0.0) -> float:
    """`warmup` for `warmup_steps`, then `cosine` over the rest: `floor` at `total_steps` and after.

    Example:
        >>> [round(warmup_cosine(step, 1, 5), 4) for step in range(7)]
        [0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return cosine(step - warmup_steps, total_steps - warmup_steps, floor)


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """`warmup` for `warmup_steps`, then a straight line to 0 at `total_steps` and after.

    Example:
        >>> [warmup_linear(step, 1, 5) for step in range(7)]
        [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return polynomial(step - warmup_steps, total_steps - warmup_steps)


def noam(step: int, d_model: float, warmup_steps: int) -> float:
    """d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5) with s = step + 1, as the paper counts steps from 1.

    Vaswani et al. 2017, Attention Is All You Need, eq. 3: rises up to s = warmup_steps, then falls without end.

    Example:
        >>> noam(0, 16, 4), noam(3, 16, 4), noam(15, 16, 4)
        (0.03125, 0.125, 0.0625)
    """
    s = step + 1
    return d_model**-0.5 * min(s**-0.5, s * warmup_steps**-1.5)


def _progress(step: int, total_steps: int) -> float:
    return step / total_steps if step < total_steps else 1.0


def _descent(height: float, floor: float) -> float:
    """`height` in [0, 1] between `floor` and 1, both met exactly."""
    return floor * (1 - height) + height


# -- ranges --------------------------------------------------------------------------------------------------


def check_warmup(warmup_epochs: int, total_epochs: int) -> tuple[int, int]:
    """Both as plain ints; a ValueError unless 0 <= warmup_epochs <= total_epochs and there is an epoch at all."""
    total_epochs = check_count("total_epochs", total_epochs)
    warmup_epochs = check_count("warmup_epochs", warmup_epochs, 0)
    if warmup_epochs > total_epochs:
        raise ValueError(f"warmup_epochs is {warmup_epochs}, expected at most total_epochs, which is {total_epochs}")
    return warmup_epochs, total_epochs


# -- what ours add to torch's schedulers ---------------------------------------------------------------------


def get_rates(optimizer: Optimizer) -> list[float]:
    """The learning rate of each parameter group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Put `rates`, one per parameter group, into the optimizer; a rate that is a tensor stays that tensor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class Schedule(LRScheduler):
    """A base beside one of torch's schedulers: says its unit, and brings back its rates with its state.

    torch's `load_state_dict` leaves the optimizer's rates to the optimizer's own state, although most of torch's
    schedulers compute the next rate from the present one. Here an optimizer whose rates are those that the scheduler
    itself had put there gets the rates of the loaded state, and one-cycle's momentum; rates that came from elsewhere,
    such as the optimizer's own loaded state, stay. A state of another kind of schedule, or for another number of
    parameter groups, is a ValueError.

    Attributes:
        step_unit: what one `step()` stands for: `'step'` (of the optimizer), `'epoch'` or `'validation'`.
    """

    step_unit: Unit = "epoch"

    def get_lr(self) -> list[Any]:
        return [lr if full else full for lr, full in zip(super().get_lr(), self.base_lrs, strict=True)]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._check_state(state_dict)
        in_charge = get_rates(self.optimizer) == [float(rate) for rate in self._last_lr]
        self._load(state_dict)
        if in_charge:
            set_rates(self.optimizer, [float(rate) for rate in self._last_lr])
            _cycle_momentum(self)

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        own = self.state_dict()
        if _settings_in(state_dict) != _settings_in(own):
            theirs, ours = (", ".join(sorted(_settings_in(state))) or "nothing" for state in (state_dict, own))
            raise ValueError(
                f"the state dict is that of another schedule: it holds {theirs}, "
                f"that of a {type(self).__name__.lstrip('_')} here {ours}"
            )
        n_groups = len(state_dict.get("_last_lr", own["_last_lr"]))
        if n_groups != len(own["_last_lr"]):
            raise ValueError(
                f"the state dict is for {n_groups} parameter groups, the optimizer has {len(own['_last_lr'])}"
            )

    def _load(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)


def _settings_in(state: Mapping[str, Any]) -> set[str]:
    """Names of the public entries of a state dict, with those of its functions and of the base of a warm-up."""
    inner = [*state.get("lr_lambdas", ()), state.get("base_scheduler")]
    public = {key for key in state if not key.startswith("_")}
    return public.union(*(_settings_in(part) for part in inner if isinstance(part, Mapping)))


def _cycle_momentum(scheduler: Any) -> None:
    """Give the optimizer the momentum (or beta1) of a one-cycle schedule's state."""
    while hasattr(scheduler, "base_scheduler"):
        scheduler = scheduler.base_scheduler
    if isinstance(scheduler, OneCycleLR):
        with warnings.catch_warnings(action="ignore"):  # that get_lr() is no way to ask for the rate
            scheduler.get_lr()  # sets the momentum in passing


# -- names ---------------------------------------------------------------------------------------------------


def _factories() -> dict[str, Callable[..., LRScheduler]]:
    from packages.core.training import cnn_schedulers as cnn
    from packages.core.training import transformer_schedulers as transformer

    return {
        "step": cnn.create_step_scheduler,
        "exponential": cnn.create_exponential_scheduler,
        "polynomial": cnn.PolynomialLRScheduler,
        "cosine": cnn.create_cosine_scheduler,
        "cosine_restarts": cnn.create_cosine_warmrestarts_scheduler,
        "cosine_warmrestarts": cnn.create_cosine_warmrestarts_scheduler,
        "onecycle": cnn.create_onecycle_scheduler,
        "plateau": cnn.create_plateau_scheduler,
        "warmup": cnn.WarmupScheduler,
        "warmup_cosine": transformer.create_warmup_cosine_schedule,
        "warmup_linear": transformer.create_warmup_linear_schedule,
        "noam": transformer.create_noam_schedule,
    }


def schedule_names() -> list[str]:
    """Every name that `make_scheduler` and the factories over it know."""
    return sorted(_factories())


def make_scheduler(name: str, optimizer: Optimizer, settings: Mapping[str, Any], swapped: str) -> LRScheduler:
    """The scheduler of that name; every factory by name is this one, with its own order of arguments.

    Args:
        name: one of `schedule_names()`.
        optimizer: whose rates it moves.
        settings: the schedule's own arguments.
        swapped: the factory whose order of arguments is the other one, for the error that a swap gets.

    Raises:
        ValueError: no schedule has this name, or a setting is out of its range.
        TypeError: swapped arguments, an unknown setting, or a required one that is missing.
    """
    if isinstance(name, Optimizer) and isinstance(optimizer, str):
        raise TypeError(f"the optimizer and the name {optimizer!r} are swapped; that is the order of {swapped}")
    if not isinstance(name, str):
        raise TypeError(f"scheduler_type is {name!r}, expected a name: {', '.join(schedule_names())}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}, expected a torch.optim.Optimizer")
    check_settings(name, settings)
    missing = [key for key, value in _parameters(name).items() if value.default is value.empty and key not in settings]
    if missing:
        raise TypeError(f"the schedule {name!r} needs {', '.join(missing)}; its settings are {_accepted(name)}")
    return _factories()[name](optimizer, **settings)


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Refuses what is no setting of the schedule of that name.

    Raises:
        ValueError: no schedule has this name.
        TypeError: a setting is unknown.
    """
    unknown = [key for key in settings if key not in _parameters(name)]
    if unknown:
        raise TypeError(f"the schedule {name!r} takes no {', '.join(unknown)}; its settings are {_accepted(name)}")


def _accepted(name: str) -> str:
    parameters = _parameters(name).values()
    return f"({', '.join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)})"


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """The settings of the schedule of that name."""
    check_name("schedule", name, schedule_names())
    parameters = dict(inspect.signature(_factories()[name]).parameters)
    del parameters["optimizer"]
    return parameters


def schedule_training(
    name: str, optimizer: Optimizer, epochs: int, steps_per_epoch: int, **settings: Any
) -> LRScheduler:
    """The scheduler of that name over a whole training.

    Settings that are given win. Others that depend on the length of a training follow it, not their own defaults:

    * cosine, polynomial, one-cycle and the warmed ones end with it; a warm-up takes a tenth of it, at least one.
    * one-cycle peaks at each group's own rate. Fewer than 4 optimizer steps have no room for a cycle: the rate stays.
    * noam peaks at the optimizer's rate: d_model = 1 / warmup_steps.
    * step: `step_size` is a third of the epochs, rounded up, which makes three levels.
    * cosine_restarts: one restart, `T_mult` times as long as the first period; `T_0` is rounded up, so the training
      ends with the second period or up to `T_mult` epochs before.
    * plateau: `patience` is a tenth of the epochs, at least one.

    Args:
        name: one of `schedule_names()`.
        optimizer: whose rates it moves.
        epochs: length of the training, >= 1.
        steps_per_epoch: optimizer steps in each epoch, >= 1.
        **settings: the schedule's own.

    Raises:
        ValueError: no such name, a value out of its range.
        TypeError: an unknown or a missing setting.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        >>> schedule_training("onecycle", optimizer, epochs=3, steps_per_epoch=10).total_steps
        30
    """
    epochs, steps_per_epoch = check_count("epochs", epochs), check_count("steps_per_epoch", steps_per_epoch)
    check_settings(name, settings)
    n_steps = epochs * steps_per_epoch
    if name == "onecycle" and "total_steps" not in settings and n_steps < LEAST_CYCLE:
        return make_scheduler("step", optimizer, {"gamma": 1.0}, swapped="schedule_training")
    warmup_steps = check_count("warmup_steps", settings.get("warmup_steps", max(1, n_steps // 10)))
    whole = {
        "num_epochs": epochs,
        "total_epochs": epochs,
        "total_steps": n_steps,
        "max_lr": get_rates(optimizer),
        "warmup_epochs": max(1, epochs // 10),
        "warmup_steps": warmup_steps,
        "d_model": 1 / warmup_steps,
        "step_size": math.ceil(epochs / 3),
        "T_0": math.ceil(epochs / (1 + check_count("T_mult", settings.get("T_mult", 2)))),
        "patience": max(1, epochs // 10),
    }
    derived = {key: whole[key] for key in _parameters(name) if key in whole}
    return make_scheduler(name, optimizer, derived | settings, swapped="schedule_training")


# -- drawing -------------------------------------------------------------------------------------------------


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
        **settings: the schedule's own; others are as in `schedule_training`.

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
    scheduler = schedule_training(name, optimizer, epochs, steps_per_epoch, **settings)
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


def describe_curve(curve: Curve, width: int = 60, height: int = 6) -> str:
    """The curve in characters, and its first, peak and last rate.

    Args:
        curve: as `simulate_schedule` returns it.
        width: columns, >= 1.
        height: lines, each in eighths, >= 1.

    Example:
        >>> print(describe_curve(simulate_schedule("warmup_linear", 4, 1, lr=1.0), width=4, height=2))
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
