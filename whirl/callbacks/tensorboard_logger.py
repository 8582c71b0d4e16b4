"""A callback that logs to TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whirl._distribution import install_hint
from whirl.callbacks.helpers import OptimizerSteps, scalars
from whirl.callbacks.loggers import ExperimentLogger, as_text, to_pixels
from whirl.callbacks.registry import RunResults
from whirl.engine.callbacks import Logs

_MAX_CHARS = 500


class TensorBoardLogger(ExperimentLogger):
    """Write the epoch logs as TensorBoard scalars: `train/loss`, `val/accuracy`, `lr`, `gradient_norm/mean`, ...

    A folder shows one training run: entries of an earlier or interrupted run for the same epochs are superseded. If the
    folder cannot be written, there is one warning and training continues. The norm of the gradient, before clipping,
    is logged as mean and maximum over the steps of an epoch, if the trainer clips gradients.

    Args:
        log_dir: folder of the event files.
        hparams: settings for TensorBoard's view of hyperparameters, written by `log_results`.

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

    def __init__(self, log_dir: str | Path = "runs", *, hparams: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.log_dir = log_dir
        self.hparams = hparams
        self._writer: Any = None
        self._norms = _GradientNorms()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.is_down = False
        _summary_writer()  # raises before the first epoch if the package is missing

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._norms.begin(self.trainer, epoch)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._norms.add(self.trainer)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._attempt(self._write, epoch, scalars(logs))

    def state_dict(self) -> Logs:
        return self._norms.state_dict()

    def load_state_dict(self, state: Logs) -> None:
        if state:  # earlier versions had none
            self._norms.load_state_dict(state)

    def _write(self, epoch: int, values: dict[str, float]) -> None:
        if self._writer is None:
            self._writer = _open_writer(self.log_dir, purge_step=epoch)
        for name, value in {**values, **self._norms.summary()}.items():
            self._writer.add_scalar(_tag(name), value, epoch)
        self._writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)
            self._writer = None

    def log_results(self, results: RunResults) -> None:
        """Write the metrics as scalars and with the hyperparameters, and the figures as images."""
        self._attempt(self._write_results, results)

    def _write_results(self, results: RunResults) -> None:
        step = self._n_epochs
        metrics = {_tag(name): value for name, value in results.metrics.items()}
        with _open_writer(self.log_dir) as writer:
            for tag, value in metrics.items():
                writer.add_scalar(tag, value, step)
            for name, figure in results.figures.items():
                writer.add_image(name, to_pixels(figure), step, dataformats="HWC")
            if self.hparams is not None:
                for summary in _hparams_summaries(self.hparams, metrics):
                    writer.file_writer.add_summary(summary)


class _GradientNorms:
    """Mean and maximum of the gradient norm over the steps of an epoch, without waiting for the device."""

    def __init__(self) -> None:
        self._steps = OptimizerSteps()
        self._is_restored = False
        self._reset(-1)

    def _reset(self, epoch: int) -> None:
        self._epoch, self._n, self._sum, self._max = epoch, 0, torch.zeros(()), torch.zeros(())

    def begin(self, trainer: Any, epoch: int) -> None:
        """Start an epoch, or continue the one of the checkpoint that was loaded."""
        if not self._is_restored or self._epoch != epoch:
            self._reset(epoch)
        self._is_restored = False
        # The step of an unfinished window at the end of the last epoch does not belong to the next batch.
        self._steps.since_last_batch(trainer)

    def add(self, trainer: Any) -> None:
        norm = None if trainer is None else trainer.updater.grad_norm
        if norm is None or not self._steps.since_last_batch(trainer):
            return
        norm = norm.detach()
        self._sum, self._max = self._sum.to(norm.device) + norm, torch.maximum(self._max.to(norm.device), norm)
        self._n += 1

    def state_dict(self) -> Logs:
        return {"epoch": self._epoch, "n": self._n, "sum": float(self._sum), "max": float(self._max)}

    def load_state_dict(self, state: Logs) -> None:
        self._is_restored, self._epoch, self._n = True, state["epoch"], state["n"]
        self._sum, self._max = torch.tensor(state["sum"]), torch.tensor(state["max"])

    def summary(self) -> dict[str, float]:
        if not self._n:
            return {}
        return {"gradient_norm/mean": float(self._sum) / self._n, "gradient_norm/max": float(self._max)}


def _tag(name: str) -> str:
    """Return TensorBoard's name, grouped by part: `val_loss` becomes `val/loss`."""
    part, _, rest = name.partition("_")
    return f"{part}/{rest}" if part in ("train", "val", "test") and rest else name


def _hparams_summaries(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[Any, ...]:
    """Return the summaries of `SummaryWriter.add_hparams`, which would write them to another folder."""
    from torch.utils.tensorboard.summary import hparams

    values = {
        name: value if isinstance(value, bool | int | float) else as_text(value, _MAX_CHARS)
        for name, value in settings.items()
    }
    return hparams(values, dict(metrics))


def _open_writer(folder: str | Path, **options: Any) -> Any:
    """Open another event file, which TensorBoard reads after those that are there.

    TensorBoard reads files by name, and names begin with the second of their creation. Within one second they end in a
    counter that is compared as text (10 before 9), so a new file waits for the next second.
    """
    seconds = {path.name.split(".")[3] for path in Path(folder).glob("events.out.tfevents.*.*")}
    while f"{int(time.time()):010d}" in seconds:
        time.sleep(0.02)
    return _summary_writer()(str(folder), **options)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(f"TensorBoardLogger needs TensorBoard: {install_hint('tensorboard')}") from None
    return SummaryWriter
