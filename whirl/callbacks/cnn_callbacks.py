"""Callbacks that monitor learning rates and gradients, keep the best checkpoints, measure time and log metrics.

None of them waits for an accelerator within a batch, except `GradientMonitor` once every `log_interval` batches.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whirl.callbacks.callbacks import EarlyStopping
from whirl.callbacks.helpers import OptimizerSteps, check_interval, save_model
from whirl.callbacks.metric_logger import MetricLogger as MetricLogger
from whirl.engine.callbacks import Callback as Callback
from whirl.engine.callbacks import CallbackList as CallbackList
from whirl.engine.callbacks import Logs
from whirl.engine.monitor import Improvement

logger = logging.getLogger(__name__)

VANISHING_GRADIENT_NORM = 1e-7


class LearningRateMonitor(Callback):
    """Record the learning rates at the start of every `log_interval`-th epoch.

    Args:
        optimizer: the optimizer to monitor.
        log_interval: epochs between records, >= 1; epoch 0 is recorded.

    Attributes:
        history: `{epoch: [learning rate of each parameter group]}`.

    Raises:
        ValueError: `log_interval` is below 1.

    Example:
        >>> monitor = LearningRateMonitor(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
        >>> monitor.on_epoch_begin(0)
        >>> monitor.history
        {0: [0.1]}
    """

    def __init__(self, optimizer: torch.optim.Optimizer, log_interval: int = 1) -> None:
        check_interval(log_interval)
        self.optimizer = optimizer
        self.log_interval = log_interval
        self.history: dict[int, list[float]] = {}

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        is_continued = self.trainer is not None and self.trainer.state.batch > 0
        if epoch % self.log_interval == 0 and not is_continued:
            self.history[epoch] = [float(group["lr"]) for group in self.optimizer.param_groups]
            logger.info("epoch %d: learning rate %s", epoch, ", ".join(f"{rate:g}" for rate in self.history[epoch]))

    def state_dict(self) -> Logs:
        return {"history": dict(self.history)}

    def load_state_dict(self, state: Logs) -> None:
        self.history = dict(state["history"])


class GradientMonitor(Callback):
    """Record the global 2-norm of the gradient, and log a warning when it vanishes or explodes.

    The norm is the one before clipping. It is read once every `log_interval` batches, at the next optimizer step;
    between readings nothing is computed. A norm below 1e-7 counts as vanishing, one above `alert_threshold` or not
    finite as exploding.

    Args:
        model: the network to monitor.
        log_interval: batches between readings, >= 1.
        alert_threshold: norm above which the gradient counts as exploding, > 0.

    Attributes:
        history: one `{'epoch', 'batch', 'grad_norm'}` per reading.

    Raises:
        ValueError: `log_interval` is below 1 or `alert_threshold` is not positive.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> monitor = GradientMonitor(model, log_interval=1)
        >>> (3 * model.weight).sum().backward()
        >>> monitor.on_batch_end(0)
        >>> monitor.history
        [{'epoch': 0, 'batch': 0, 'grad_norm': 3.0}]
    """

    def __init__(self, model: torch.nn.Module, log_interval: int = 100, alert_threshold: float = 10.0) -> None:
        check_interval(log_interval)
        if not alert_threshold > 0:
            raise ValueError(f"alert_threshold is {alert_threshold!r}, expected a number > 0")
        self.model = model
        self.log_interval = log_interval
        self.alert_threshold = alert_threshold
        self.history: list[dict[str, Any]] = []
        self._epoch = 0
        self._batches_since_reading = 0
        self._steps = OptimizerSteps()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        # The step of an unfinished window at the end of the last epoch does not belong to the next batch.
        self._steps.since_last_batch(self.trainer)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._batches_since_reading += 1
        # Within an accumulation window the gradient is incomplete.
        stepped = self._steps.since_last_batch(self.trainer)
        if stepped and self._batches_since_reading >= self.log_interval:
            norm = self._norm()
            if norm is not None:
                self._batches_since_reading = 0
                self._record(batch, norm)

    def _norm(self) -> float | None:
        norm = None if self.trainer is None else self.trainer.updater.grad_norm
        if norm is None:
            gradients = [p.grad for p in self._trained() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients) if gradients else None
        return None if norm is None else float(norm)

    def _trained(self) -> list[torch.nn.Parameter]:
        """Return the parameters that are trained; the gradients of others may be from an earlier step."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.trainer is None:
            return parameters
        trained = {id(p) for group in self.trainer.optimizer.param_groups for p in group["params"]}
        return [p for p in parameters if id(p) in trained]

    def _record(self, batch: int, norm: float) -> None:
        self.history.append({"epoch": self._epoch, "batch": batch, "grad_norm": norm})
        if not math.isfinite(norm) or norm > self.alert_threshold:
            logger.warning(
                "epoch %d, batch %d: exploding gradient, norm %.3g (alert above %g)",
                self._epoch, batch, norm, self.alert_threshold,
            )  # fmt: skip
        elif norm < VANISHING_GRADIENT_NORM:
            logger.warning("epoch %d, batch %d: vanishing gradient, norm %.3g", self._epoch, batch, norm)

    def state_dict(self) -> Logs:
        return {"history": list(self.history), "batches_since_reading": self._batches_since_reading}

    def load_state_dict(self, state: Logs) -> None:
        self.history = list(state["history"])
        self._batches_since_reading = state["batches_since_reading"]


class ModelCheckpointCallback(Callback):
    """Keep the checkpoint files of the best `save_top_k` epochs.

    Files are named like `epoch_003_val_loss_0.1234.pt` and hold `model`, `optimizer`, `epoch` and `logs`, like those of
    `ModelCheckpoint`. A file is deleted only if this callback wrote it, in this training or in the one that it resumes,
    and only after a better one has been written. NaN is never saved; of equal values the earlier epoch is kept.

    Args:
        checkpoint_dir: folder of the files; created if it does not exist.
        model: model to save.
        optimizer: optimizer to save; None leaves it out.
        monitor: name in the epoch logs that determines the best epochs.
        mode: `'min'` if lower is better, `'max'` if higher is better.
        save_top_k: number of files to keep, >= 1.

    Attributes:
        best: best value so far; None before the first.
        best_path: file of the best value; None before the first.
        paths: all files that are kept, best first.

    Raises:
        ValueError: `mode` is unknown or `save_top_k` is below 1; at the end of an epoch, the monitored name is not in
            the logs.
        OSError: a file cannot be written at the end of an epoch; earlier files are kept.

    Example:
        >>> import tempfile
        >>> model = torch.nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = ModelCheckpointCallback(folder, model, None, save_top_k=2)
        ...     for epoch, loss in enumerate([0.9, 0.5, 0.6]):
        ...         checkpoint.on_epoch_end(epoch, {"val_loss": loss})
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['epoch_001_val_loss_0.5000.pt', 'epoch_002_val_loss_0.6000.pt']
    """

    rank_zero_only = True

    def __init__(
        self,
        checkpoint_dir: str | Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        monitor: str = "val_loss",
        mode: str = "min",
        save_top_k: int = 3,
    ) -> None:
        if save_top_k < 1:
            raise ValueError(f"save_top_k is {save_top_k!r}, expected a number of files >= 1")
        self.checkpoint_dir = Path(checkpoint_dir)
        self.model = model
        self.optimizer = optimizer
        self.improvement = Improvement(monitor, mode)
        self.save_top_k = save_top_k
        self._kept: list[tuple[float, str]] = []  # (value, file name), best first

    @property
    def best(self) -> float | None:
        return self._kept[0][0] if self._kept else None

    @property
    def best_path(self) -> Path | None:
        return self.paths[0] if self._kept else None

    @property
    def paths(self) -> list[Path]:
        return [self.checkpoint_dir / name for _, name in self._kept]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.improvement.read(logs)
        name = f"epoch_{epoch:03d}_{self.improvement.monitor.replace('/', '_')}_{value:.4f}.pt"
        others = [entry for entry in self._kept if entry[1] != name]
        rank = sum(not self.improvement.is_better(value, kept) for kept, _ in others)
        if math.isnan(value) or rank >= self.save_top_k:
            return
        save_model(self.checkpoint_dir / name, self.model, self.optimizer, epoch, logs)
        self._kept = [*others[:rank], (value, name), *others[rank:]]
        while len(self._kept) > self.save_top_k:
            (self.checkpoint_dir / self._kept.pop()[1]).unlink(missing_ok=True)

    def state_dict(self) -> Logs:
        return {"kept": list(self._kept)}

    def load_state_dict(self, state: Logs) -> None:
        self._kept = [(value, name) for value, name in state["kept"]]


class TimingCallback(Callback):
    """Measure the time of epochs and batches, and how much of it is spent waiting for data.

    Times are measured on the host without waiting for an accelerator. A batch may only have queued its work there, so
    the time of a single batch can be too short, while that of the epoch, at whose end results are read, is correct.

    Args:
        verbose: whether to log the times of each epoch.

    Attributes:
        history: one entry per epoch: `epoch`; `epoch_time_s`, including validation; `batch_p50_s` and `batch_p95_s`,
            median and 95th percentile of the time of a batch (NaN without a batch); `data_time_s`, the time between
            batches, spent waiting for the loader.

    Example:
        >>> timing = TimingCallback()
        >>> timing.on_epoch_begin(0)
        >>> for batch in range(3):
        ...     timing.on_batch_begin(batch)
        ...     timing.on_batch_end(batch)
        >>> timing.on_epoch_end(0)
        >>> 0 <= timing.history[0]["batch_p50_s"] <= timing.history[0]["epoch_time_s"]
        True
    """

    rank_zero_only = True

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose
        self.history: list[dict[str, Any]] = []
        self._begin_epoch(time.perf_counter())

    def _begin_epoch(self, now: float) -> None:
        self._epoch_began = self._batch_began = self._batch_ended = now
        self._batch_times: list[float] = []
        self._data_time = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._begin_epoch(time.perf_counter())

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._batch_began = time.perf_counter()
        self._data_time += self._batch_began - self._batch_ended

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._batch_ended = time.perf_counter()
        self._batch_times.append(self._batch_ended - self._batch_began)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        p50, p95 = np.percentile(self._batch_times or [math.nan], (50, 95)).tolist()
        entry = {
            "epoch": epoch,
            "epoch_time_s": time.perf_counter() - self._epoch_began,
            "batch_p50_s": p50,
            "batch_p95_s": p95,
            "data_time_s": self._data_time,
        }
        self.history.append(entry)
        if self.verbose and self._batch_times:
            logger.info(
                "epoch %d: %.2f s, %.2f s of it waiting for data; %d batches, median %.2f ms, 95th percentile %.2f ms",
                epoch, entry["epoch_time_s"], self._data_time, len(self._batch_times), 1e3 * p50, 1e3 * p95,
            )  # fmt: skip

    def state_dict(self) -> Logs:
        return {"history": list(self.history)}

    def load_state_dict(self, state: Logs) -> None:
        self.history = list(state["history"])


class EarlyStoppingCallback(EarlyStopping):
    """`EarlyStopping` with optional logging.

    Args:
        monitor: name in the epoch logs.
        patience: epochs to wait without improvement, >= 0; 0 stops at the first, as 1 does.
        mode: `'min'` if lower is better, `'max'` if higher is better.
        min_delta: minimum change that counts as an improvement, >= 0.
        verbose: whether to log the stop.
        restore_best_weights: put the weights of the best epoch into the network when training is complete.

    Example:
        >>> stopping = EarlyStoppingCallback(patience=1, verbose=False)
        >>> for epoch, loss in enumerate([0.5, 0.6]):
        ...     stopping.on_epoch_end(epoch, {"val_loss": loss})
        >>> stopping.should_stop
        True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        mode: str = "min",
        min_delta: float = 0.0,
        verbose: bool = True,
        *,
        restore_best_weights: bool = False,
    ) -> None:
        super().__init__(monitor, patience, mode, min_delta, restore_best_weights=restore_best_weights)
        self.verbose = verbose
