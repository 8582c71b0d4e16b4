"""Callbacks for early stopping, checkpoints, learning-rate schedules and experiment trackers.

All of them work in a trainer and in a hand-written loop, where you call the hooks of a `CallbackList` (see `Callback`
for their order) and check the `should_stop` of an `EarlyStopping`.
"""

from __future__ import annotations

import logging
import string
from pathlib import Path
from typing import Any

import torch

from whirl.callbacks.helpers import OptimizerSteps, has_completed, save_model, scalars
from whirl.callbacks.mlflow_logger import MLflowLogger as MLflowLogger
from whirl.callbacks.tensorboard_logger import TensorBoardLogger as TensorBoardLogger
from whirl.engine.callbacks import Callback as Callback
from whirl.engine.callbacks import Logs
from whirl.engine.monitor import Improvement
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.engine.wrappers import load_weights_into, weights_of
from whirl.validation import check_count

logger = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Stop training when a monitored value has not improved for `patience` epochs.

    In a trainer it sets `trainer.state.should_stop`; a hand-written loop checks the callback's own `should_stop`. A
    second `fit` after a stop starts with a new patience; a training that is resumed from the checkpoint of the stop
    stays stopped.

    Args:
        monitor: name in the epoch logs.
        patience: epochs to wait without improvement, >= 0; 0 stops at the first, as 1 does.
        mode: `'min'` if lower is better, `'max'` if higher is better.
        min_delta: minimum change that counts as an improvement, >= 0.
        restore_best_weights: put the weights of the best epoch into the network when training is complete, stopped or
            not. `last.pt` still holds those of the last epoch, so that it can be resumed exactly.

    Attributes:
        should_stop: whether to stop.
        wait: epochs since the last improvement.
        best: best value so far.
        best_epoch: epoch of the best value; None before the first.

    Raises:
        ValueError: `patience` or `min_delta` is negative, or `mode` is unknown; at the end of an epoch, the monitored
            name is not in the logs.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> for epoch, loss in enumerate([0.9, 0.5, 0.6, 0.7, 0.4]):
        ...     stopping.on_epoch_end(epoch, {"val_loss": loss})
        ...     if stopping.should_stop:
        ...         break
        >>> epoch, stopping.best_epoch
        (3, 1)
    """

    verbose = True

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        mode: str = "min",
        min_delta: float = 0.0,
        *,
        restore_best_weights: bool = False,
    ) -> None:
        check_count("patience", patience, 0)
        self.improvement = Improvement(monitor, mode, min_delta)
        self.restore_best_weights = restore_best_weights
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.patience = patience
        self.should_stop = False
        self.wait = 0
        self.best_epoch: int | None = None

    @property
    def best(self) -> float:
        return self.improvement.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.should_stop:
            self.should_stop, self.wait = False, 0
        elif self._is_exhausted():
            self._stop()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.improvement.update(logs):
            self.wait, self.best_epoch = 0, epoch
            if self.restore_best_weights:
                weights = weights_of(self._model())
                self.best_weights = {name: value.detach().clone() for name, value in weights.items()}
            return
        self.wait += 1
        if self._is_exhausted():
            self._stop()
            if self.verbose:
                logger.info(
                    "epoch %d: stopping, as %s has not improved on %g for %d epochs",
                    epoch, self.improvement.monitor, self.best, self.wait,
                )  # fmt: skip

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.best_weights is not None and (self.trainer is None or has_completed(self.trainer)):
            load_weights_into(self._model(), self.best_weights)

    def _model(self) -> torch.nn.Module:
        if self.trainer is None:
            raise ValueError("restore_best_weights needs a trainer; in a loop of your own use BestWeights")
        return self.trainer.model

    def _is_exhausted(self) -> bool:
        return self.wait >= max(self.patience, 1)

    def _stop(self) -> None:
        self.should_stop = True
        if self.trainer is not None:
            self.trainer.state.should_stop = True

    def state_dict(self) -> Logs:
        state = {**self.improvement.state_dict(), "wait": self.wait, "best_epoch": self.best_epoch}
        return state | ({"best_weights": self.best_weights} if self.restore_best_weights else {})

    def load_state_dict(self, state: Logs) -> None:
        self.improvement.load_state_dict(state)
        self.wait, self.best_epoch = state["wait"], state["best_epoch"]
        self.best_weights = state.get("best_weights")


class ModelCheckpoint(Callback):
    """Save the model at the end of an epoch, when a monitored value has improved or every time.

    The file holds `model` and `optimizer` (state dicts; without `optimizer` if there is none), `epoch` and `logs`. It
    is written atomically and can be loaded with `torch.load(path, weights_only=True)`. Files are never deleted; a file
    of the same name is replaced.

    Args:
        filepath: file to save; `{epoch}` (from 0) and names in the logs are filled in, optionally with a format:
            `'runs/{epoch:03d}-{val_loss:.4f}.pt'`.
        monitor: name in the epoch logs that determines the best epoch.
        save_best_only: False saves at the end of every epoch and monitors nothing.
        mode: `'min'` if lower is better, `'max'` if higher is better.
        model: model to save; None uses the trainer's.
        optimizer: optimizer to save; None uses the trainer's.

    Attributes:
        best: best value so far.
        last_path: file written last; None before the first.

    Raises:
        TypeError: `save_best_only` is not a bool.
        ValueError: `mode` is unknown or `filepath` is not a valid template; at the end of an epoch, a name to monitor
            or to fill in is not in the logs, or there is no model.
        OSError: the file cannot be written at the end of an epoch; a file of the same name is left unchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = ModelCheckpoint(f"{folder}/{{epoch}}-{{val_loss:.2f}}.pt", model=torch.nn.Linear(2, 1))
        ...     for epoch, loss in enumerate([0.9, 0.5, 0.6]):
        ...         checkpoint.on_epoch_end(epoch, {"val_loss": loss})
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['0-0.90.pt', '1-0.50.pt']
    """

    rank_zero_only = True

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        save_best_only: bool = True,
        mode: str = "min",
        *,
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        if not isinstance(save_best_only, bool):
            raise TypeError(
                f"save_best_only is {save_best_only!r}, expected True or False; mode is the fourth argument"
            )
        self.filepath = str(filepath)
        _check_template(self.filepath)
        self.improvement = Improvement(monitor, mode)
        self.save_best_only = save_best_only
        self.model = model
        self.optimizer = optimizer
        self.last_path: Path | None = None

    @property
    def best(self) -> float:
        return self.improvement.best

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_best_only and not self.improvement.update(logs):
            return
        self.last_path = self._path(epoch, scalars(logs))
        model = self.model if self.model is not None else getattr(self.trainer, "model", None)
        if model is None:
            raise ValueError("ModelCheckpoint has no model to save: give model=, or use it in a trainer")
        save_model(self.last_path, model, self.optimizer or getattr(self.trainer, "optimizer", None), epoch, logs)

    def _path(self, epoch: int, values: dict[str, float]) -> Path:
        try:
            return Path(self.filepath.format_map(values | {"epoch": epoch}))
        except KeyError as error:
            raise ValueError(
                f"filepath {self.filepath!r} has the field {error}, but the logs have {sorted(values) or 'no numbers'}"
            ) from None

    def state_dict(self) -> Logs:
        return {**self.improvement.state_dict(), "last_path": str(self.last_path) if self.last_path else None}

    def load_state_dict(self, state: Logs) -> None:
        self.improvement.load_state_dict(state)
        self.last_path = Path(state["last_path"]) if state["last_path"] else None


def _check_template(template: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"filepath {template!r} is not a valid template: {error}") from None
    if any(not field.isidentifier() for field in fields):
        raise ValueError(f"filepath {template!r} has a field without a name, expected e.g. {{val_loss:.4f}}")


class LearningRateScheduler(Callback):
    """Step a learning-rate schedule in the unit that it counts in.

    One-cycle, cyclic and Noam schedules are stepped per optimizer step, plateau schedules per validation with the
    metric that fits their mode (`val_loss` for 'min', `val_accuracy` for 'max'), all others per epoch. In a
    hand-written loop each batch is one optimizer step.

    Args:
        scheduler: a scheduler of `torch.optim.lr_scheduler` or of this package. Give it either to one such callback or
            to the trainer.

    Raises:
        TypeError: `scheduler` is not a scheduler.
        ValueError: the trainer or another callback has the same scheduler, when training begins; at the end of an
            epoch, the metric of a plateau schedule is not in the logs.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> callback = LearningRateScheduler(torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5))
        >>> optimizer.step()
        >>> callback.on_epoch_end(0)
        >>> optimizer.param_groups[0]["lr"]
        0.5
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.unit = scheduler_unit(scheduler)
        self._steps = OptimizerSteps()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        owners = self._owners()
        if len(owners) > 1:
            raise ValueError(
                f"{type(self.scheduler).__name__} is given to {' and to '.join(owners)}, which would step it more than "
                "once: give it to one of them"
            )
        self._steps.begin(self.trainer)

    def _owners(self) -> list[str]:
        """Return everything in this training that steps the scheduler."""
        owners = ["the trainer"] if getattr(self.trainer, "lr_scheduler", None) is self.scheduler else []
        callbacks = [c for c in getattr(self.trainer, "callbacks", ()) if isinstance(c, LearningRateScheduler)]
        return owners + ["a LearningRateScheduler callback" for c in callbacks if c.scheduler is self.scheduler]

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.unit == "step":
            for _ in range(self._steps.since_last_batch(self.trainer)):
                step_scheduler(self.scheduler)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.unit != "step":
            step_scheduler(self.scheduler, logs)
        elif self.trainer is not None:
            # The step of an unfinished accumulation window comes after the last batch of the epoch.
            self.on_batch_end(-1)

    def state_dict(self) -> Logs:
        return {"scheduler": self.scheduler.state_dict(), "steps_seen": self._steps.seen}

    def load_state_dict(self, state: Logs) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self._steps.seen = state["steps_seen"]
