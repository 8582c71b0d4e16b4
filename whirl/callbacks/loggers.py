"""Callbacks that log to experiment trackers: TensorBoard and MLflow."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whirl._distribution import install_hint
from whirl.callbacks.helpers import scalars
from whirl.engine.callbacks import Callback, Logs


class _ExperimentLogger(Callback):
    """Base class of callbacks that log to an external tracker, whose failures never abort training."""

    rank_zero_only = True

    def __init__(self) -> None:
        self._is_down = False

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action`; if it fails, warn and log nothing more in this training."""
        if self._is_down:
            return
        try:
            action(*arguments)
        except Exception as error:
            self._is_down = True
            warnings.warn(
                f"{type(self).__name__} failed and logs nothing more in this training: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


class TensorBoardLogger(_ExperimentLogger):
    """Write the epoch logs as TensorBoard scalars: `train/loss`, `val/accuracy`, `lr`, ...

    A folder shows one training run: entries of an earlier or interrupted run for the same epochs are superseded. If the
    folder cannot be written, there is one warning and training continues.

    Args:
        log_dir: folder of the event files.

    Raises:
        ImportError: TensorBoard is not installed, when training begins.

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
        _summary_writer()  # raises before the first epoch if the package is missing

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


def _tag(name: str) -> str:
    """Return TensorBoard's name, grouped by part: `val_loss` becomes `val/loss`."""
    part, _, rest = name.partition("_")
    return f"{part}/{rest}" if part in ("train", "val") and rest else name


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(f"TensorBoardLogger needs TensorBoard: {install_hint('tensorboard')}") from None
    return SummaryWriter


class MLflowLogger(_ExperimentLogger):
    """Log a training as an MLflow run: parameters once, the epoch logs as metrics with the epoch as step.

    The run ends as FINISHED, as FAILED if training raised an error, as KILLED if it was interrupted. A resumed training
    continues the same run. If the tracking server cannot be reached, there is one warning and training continues.

    Args:
        experiment_name: experiment to log to; created if it does not exist.
        run_name: name of the run; None lets MLflow choose.
        tracking_uri: where to log, e.g. `'sqlite:///mlflow.db'`; None uses MLflow's own setting
            (`mlflow.set_tracking_uri` or the environment variable `MLFLOW_TRACKING_URI`).

    Attributes:
        run_id: MLflow's identifier of the run; None before it is created.

    Raises:
        ImportError: MLflow is not installed, when training begins.

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


@contextmanager
def _short_mlflow_timeouts() -> Iterator[None]:
    """Let MLflow give up on a silent server within seconds, instead of minutes, in the block.

    Settings that the user has made in the environment take precedence.
    """
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    added = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def training_parameters(trainer: Any) -> dict[str, Any]:
    """Return the parameters of a run, as far as the trainer has them: network, size, optimizer, rate, batch size.

    Example:
        >>> import torch
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
    """Return the batch size of a loader that batches by itself, or whose sampler yields complete batches."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return next((size for owner in owners if (size := getattr(owner, "batch_size", None)) is not None), None)
