"""Callbacks that stop, save, schedule and log; each works in a trainer and in a hand-written loop.

The hooks and their order are those of `Callback`. In a hand-written loop, call the hooks of a `CallbackList`
and look at the `should_stop` of whatever may stop.
"""

from __future__ import annotations

import logging
import numbers
import os
import string
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from whirl._distribution import install_hint
from whirl.engine.callbacks import Callback as Callback
from whirl.engine.callbacks import Logs
from whirl.engine.checkpoint import to_cpu
from whirl.engine.files import save_checkpoint_file
from whirl.engine.monitor import Improvement
from whirl.engine.schedule import scheduler_unit, step_scheduler

logger = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Stop when a monitored number has not improved for `patience` epochs.

    In a trainer it sets `trainer.state.should_stop`; a hand-written loop looks at its own `should_stop`.
    A training begun anew after a stop gets a fresh patience; one resumed from a checkpoint of the stop stays
    stopped.

    Args:
        monitor: name in the epoch logs.
        patience: epochs without improvement that are borne, >= 0; 0 stops at the first, as 1 does.
        mode: `'min'` where lower is better, `'max'` where higher is.
        min_delta: change that counts as an improvement, >= 0.

    Attributes:
        should_stop: whether to stop.
        wait: epochs since the last improvement.
        best: best value so far.
        best_epoch: its epoch; None before the first.

    Raises:
        ValueError: `patience` or `min_delta` is negative, `mode` is unknown; at an epoch's end, the
            monitored name is not in the logs.

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
        self, monitor: str = "val_loss", patience: int = 10, mode: str = "min", min_delta: float = 0.0
    ) -> None:
        if patience < 0:
            raise ValueError(f"patience is {patience!r}, expected a number of epochs >= 0")
        self.improvement = Improvement(monitor, mode, min_delta)
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
        elif self._patience_is_over():
            self._stop()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.improvement.update(logs):
            self.wait, self.best_epoch = 0, epoch
            return
        self.wait += 1
        if self._patience_is_over():
            self._stop()
            if self.verbose:
                logger.info(
                    "epoch %d: stopping, as %s has not improved on %g for %d epochs",
                    epoch, self.improvement.monitor, self.best, self.wait,
                )  # fmt: skip

    def _patience_is_over(self) -> bool:
        return self.wait >= max(self.patience, 1)

    def _stop(self) -> None:
        self.should_stop = True
        if self.trainer is not None:
            self.trainer.state.should_stop = True

    def state_dict(self) -> Logs:
        return {**self.improvement.state_dict(), "wait": self.wait, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Logs) -> None:
        self.improvement.load_state_dict(state)
        self.wait, self.best_epoch = state["wait"], state["best_epoch"]


class ModelCheckpoint(Callback):
    """Save the model at the epoch's end, when a monitored number has improved or every time.

    The file holds `model` and `optimizer` (state dictionaries; `optimizer` where one is known), `epoch` and
    `logs`, is written whole or not at all, and loads with `torch.load(path, weights_only=True)`. Files are
    never deleted; one of the same name is replaced.

    Args:
        filepath: where to save; `{epoch}` (from 0) and names in the logs are filled in, with a format where
            given: `'runs/{epoch:03d}-{val_loss:.4f}.pt'`.
        monitor: name in the epoch logs that decides what is best.
        save_best_only: False saves at every epoch's end; nothing is monitored then.
        mode: `'min'` where lower is better, `'max'` where higher is.
        model: what to save; None takes the trainer's.
        optimizer: saved beside it; None takes the trainer's.

    Attributes:
        best: best value so far.
        last_path: file written last; None before the first.

    Raises:
        ValueError: `mode` is unknown or `filepath` no valid template; at an epoch's end, a name that is
            monitored or to be filled in is not in the logs, or there is no model.
        OSError: at an epoch's end, the file cannot be written; one of the same name stays.

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
        self.filepath = str(filepath)
        _reject_bad_template(self.filepath)
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
                f"filepath {self.filepath!r} names {error}, but the logs hold {sorted(values) or 'nothing'}"
            ) from None

    def state_dict(self) -> Logs:
        return {**self.improvement.state_dict(), "last_path": str(self.last_path) if self.last_path else None}

    def load_state_dict(self, state: Logs) -> None:
        self.improvement.load_state_dict(state)
        self.last_path = Path(state["last_path"]) if state["last_path"] else None


class LearningRateScheduler(Callback):
    """Move a learning-rate schedule in the unit it counts in.

    One-cycle, cyclic and Noam schedules move per optimizer step, plateau schedules per validation on the
    metric that fits their mode (`val_loss` to be lowered, `val_accuracy` to be raised), all others per epoch.
    In a hand-written loop each batch is one optimizer step.

    Args:
        scheduler: a scheduler of `torch.optim.lr_scheduler` or of this package. It belongs either to one such
            callback or to the trainer.

    Raises:
        TypeError: it is no scheduler.
        ValueError: when training begins, the trainer or another callback has the same scheduler; at an epoch's
            end, the metric of a plateau schedule is not in the logs.

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
        holders = self._holders()
        if len(holders) > 1:
            raise ValueError(
                f"{type(self.scheduler).__name__} is given to {' and to '.join(holders)}, "
                "and would move more than once: give it to one of them"
            )
        self._steps.begin(self.trainer)

    def _holders(self) -> list[str]:
        """Who in this training moves the scheduler."""
        holders = ["the trainer"] if getattr(self.trainer, "lr_scheduler", None) is self.scheduler else []
        callbacks = [c for c in getattr(self.trainer, "callbacks", ()) if isinstance(c, LearningRateScheduler)]
        return holders + ["a LearningRateScheduler callback" for c in callbacks if c.scheduler is self.scheduler]

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.unit == "step":
            for _ in range(self._steps.since_last_batch(self.trainer)):
                step_scheduler(self.scheduler)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.unit != "step":
            step_scheduler(self.scheduler, logs)
        elif self.trainer is not None:
            # The step of an unfinished accumulation window comes after the epoch's last batch.
            self.on_batch_end(-1)

    def state_dict(self) -> Logs:
        return {"scheduler": self.scheduler.state_dict(), "steps_seen": self._steps.seen}

    def load_state_dict(self, state: Logs) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self._steps.seen = state["steps_seen"]


class _ExperimentLogger(Callback):
    """A callback that talks to something outside, whose failure must not cost a training."""

    rank_zero_only = True

    def __init__(self) -> None:
        self._is_down = False

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action`; when it fails, warn, and attempt nothing more in this training."""
        if self._is_down:
            return
        try:
            action(*arguments)
        except Exception as error:
            self._is_down = True
            warnings.warn(
                f"{type(self).__name__} logs nothing more in this training, which goes on: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


class TensorBoardLogger(_ExperimentLogger):
    """Write the epoch logs as TensorBoard scalars: `train/loss`, `val/accuracy`, `lr` and so on.

    One folder shows one training: what an earlier one left there for the same epochs is superseded, also by
    a resumed training. When the folder cannot be written, there is one warning and the training goes on.

    Args:
        log_dir: folder of the event files.

    Raises:
        ImportError: when training begins, TensorBoard is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     board = TensorBoardLogger(folder)
        ...     board.on_epoch_end(0, {"train_loss": 0.7, "lr": 1e-3})
        ...     board.on_train_end()
        ...     len(list(Path(folder).glob("events.out.tfevents.*")))
        1
    """

    def __init__(self, log_dir: str | Path = "runs") -> None:
        super().__init__()
        self.log_dir = log_dir
        self._writer: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._is_down = False
        _summary_writer()  # a missing package shows before the first epoch, not after it

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._attempt(self._write, epoch, scalars(logs))

    def _write(self, epoch: int, values: dict[str, float]) -> None:
        if self._writer is None:
            self._writer = _summary_writer()(str(self.log_dir), purge_step=epoch)
        for name, value in values.items():
            self._writer.add_scalar(_tag(name), value, epoch)
        self._writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)
            self._writer = None


class MLflowLogger(_ExperimentLogger):
    """Log a training as an MLflow run: parameters once, the epoch logs as metrics with the epoch as step.

    The run ends as FINISHED, as FAILED when the training raised, as KILLED when it was interrupted. A resumed
    training goes on in the same run. When the tracker cannot be reached, there is one warning and the
    training goes on.

    Args:
        experiment_name: experiment to log to; created where it does not exist.
        run_name: name of the run; None lets MLflow choose.
        tracking_uri: where to log, e.g. `'sqlite:///mlflow.db'`; None follows MLflow's own setting
            (`mlflow.set_tracking_uri` or the environment variable `MLFLOW_TRACKING_URI`).

    Attributes:
        run_id: MLflow's name of the run; None before it began.

    Raises:
        ImportError: when training begins, MLflow is not installed.

    Example:
        >>> MLflowLogger("bearings", run_name="wdcnn", tracking_uri="sqlite:///mlflow.db").run_id is None
        True
    """

    def __init__(self, experiment_name: str, run_name: str | None = None, *, tracking_uri: str | None = None) -> None:
        super().__init__()
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self.run_id: str | None = None
        self._client: Any = None
        self._exception_before: BaseException | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ImportError(f"MLflowLogger needs MLflow: {install_hint('mlflow')}") from None
        self._is_down = False
        self._exception_before = sys.exception()
        self._attempt(self._begin, MlflowClient)

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> None:
        with _short_mlflow_timeouts():
            super()._attempt(action, *arguments)

    def _begin(self, client: Callable[..., Any]) -> None:
        self._client = client(self.tracking_uri)
        if self.run_id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return
        run = self._client.create_run(self._experiment_id(), run_name=self.run_name)
        self.run_id = run.info.run_id
        for name, value in training_parameters(self.trainer).items():
            self._client.log_param(self.run_id, name, value)

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self.experiment_name)
        return experiment.experiment_id if experiment else self._client.create_experiment(self.experiment_name)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._attempt(self._log, epoch, scalars(logs))

    def _log(self, epoch: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, epoch) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.run_id is not None:
            self._attempt(self._end, self._status())

    def _end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)

    def _status(self) -> str:
        exception = sys.exception()
        if exception is not None and exception is not self._exception_before:
            return "FAILED" if isinstance(exception, Exception) else "KILLED"
        interrupted = self.trainer is not None and self.trainer.state.interrupted
        return "KILLED" if interrupted else "FINISHED"

    def state_dict(self) -> Logs:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: Logs) -> None:
        self.run_id = state["run_id"]


class OptimizerSteps:
    """Counts optimizer steps between batches: the trainer's, or one a batch in a hand-written loop.

    Attributes:
        seen: steps of the trainer already told of; None before the first.

    Example:
        >>> steps = OptimizerSteps()
        >>> steps.begin(None)
        >>> steps.since_last_batch(None)
        1
    """

    def __init__(self) -> None:
        self.seen: int | None = None

    def begin(self, trainer: Any) -> None:
        """Count from where training stands, or go on from a count that an interruption left behind it."""
        # A count beyond where training stands belongs to another training.
        if trainer is not None and (self.seen is None or self.seen > trainer.state.global_step):
            self.seen = trainer.state.global_step

    def since_last_batch(self, trainer: Any) -> int:
        """Steps since it was last asked."""
        if trainer is None:
            return 1
        steps = trainer.state.global_step - (self.seen or 0)
        self.seen = trainer.state.global_step
        return steps


def scalars(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """The numbers in `logs` as plain floats; what is no number is left out.

    Example:
        >>> scalars({"val_loss": torch.tensor(0.5), "epoch": 3, "note": "warm"})
        {'val_loss': 0.5, 'epoch': 3.0}
    """
    return {name: float(value) for name, value in (logs or {}).items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def save_model(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    epoch: int,
    logs: Mapping[str, Any] | None,
) -> None:
    """Write a model's checkpoint file, whole or not at all.

    Args:
        path: where; folders are made.
        model: its state dictionary is saved as `model`.
        optimizer: saved as `optimizer`; None leaves it out.
        epoch: epoch just finished, from 0.
        logs: its numbers, saved as `logs`.
    """
    checkpoint = {"model": model.state_dict(), "epoch": epoch, "logs": scalars(logs)}
    if optimizer is not None:
        checkpoint["optimizer"] = optimizer.state_dict()
    save_checkpoint_file(path, to_cpu(checkpoint))


def training_parameters(trainer: Any) -> dict[str, Any]:
    """What a run is made of, as far as `trainer` tells: network, size, optimizer, rate, batch size.

    Example:
        >>> from types import SimpleNamespace
        >>> training_parameters(SimpleNamespace(model=torch.nn.Linear(3, 1)))
        {'model': 'Linear', 'n_parameters': 4}
    """
    parameters: dict[str, Any] = {}
    model, optimizer = getattr(trainer, "model", None), getattr(trainer, "optimizer", None)
    if model is not None:
        parameters |= {"model": type(model).__name__, "n_parameters": sum(p.numel() for p in model.parameters())}
    if optimizer is not None:
        parameters |= {"optimizer": type(optimizer).__name__, "lr": float(optimizer.param_groups[0]["lr"])}
    batch_size = _batch_size(getattr(trainer, "train_loader", None))
    return parameters if batch_size is None else parameters | {"batch_size": batch_size}


def _batch_size(loader: Any) -> int | None:
    """Of a loader that batches by itself, or whose sampler yields whole batches."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return next((size for owner in owners if (size := getattr(owner, "batch_size", None)) is not None), None)


def _reject_bad_template(template: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"filepath {template!r} is no valid template: {error}") from None
    if any(not field.isidentifier() for field in fields):
        raise ValueError(f"filepath {template!r} has a field without a name: expected e.g. {{val_loss:.4f}}")


def _tag(name: str) -> str:
    """TensorBoard's name: grouped by part, `val_loss` becomes `val/loss`."""
    part, _, rest = name.partition("_")
    return f"{part}/{rest}" if part in ("train", "val") and rest else name


@contextmanager
def _short_mlflow_timeouts() -> Iterator[None]:
    """Within the block MLflow gives up on a silent server in seconds, where by default it tries for minutes.

    What the user has set in the environment holds.
    """
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    added = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(f"TensorBoardLogger needs TensorBoard: {install_hint('tensorboard')}") from None
    return SummaryWriter
