"""The base trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whirl._display import Displayed
from whirl.augment.base import Augmentation, as_augmentation
from whirl.engine.autosave import Autosave
from whirl.engine.batch import Batch, as_batch, call_model, count_correct, n_batches_of, pad_targets
from whirl.engine.callbacks import Callback, CallbackList
from whirl.engine.checkpoint import check_kinds, load_training
from whirl.engine.consensus import StepConsensus, gather_process_states, select_process_state
from whirl.engine.device import resolve_device
from whirl.engine.distributed import (
    barrier,
    broadcast_buffers,
    broadcast_weights,
    check_same_number_of_batches,
)
from whirl.engine.errors import translate_torch_errors
from whirl.engine.history import History
from whirl.engine.interrupt import until_workers_exit
from whirl.engine.loop import StepResult, fit_epochs, run_epoch, split_loss
from whirl.engine.loss_guard import LossGuard, recording_sources, remedy_for
from whirl.engine.precision import FullPrecision, choose_precision
from whirl.engine.progress import active_callbacks
from whirl.engine.replay import EpochReplay, check_n_batches
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.engine.state import TrainingState
from whirl.engine.summary import training_facts
from whirl.engine.updater import Updater
from whirl.engine.wrappers import load_weights_into, unwrap, weights_of

logger = logging.getLogger(__name__)


class Trainer(Displayed):
    """Train a network with gradient accumulation, clipping, mixed precision, callbacks and exact resume.

    The loop is the same for every trainer (`whirl.engine.loop`). A subclass overrides these hooks, and nothing else:
    `new_state`, `batches`, `prepare_batch`, `forward`, `compute_loss`, `epoch_context`, `summarize`, and `state_dict`
    with `load_state_dict`.

    Args:
        model: network, `[B, C, T]` to logits `[B, K]`.
        train_loader: yields `(signals, targets)`, `(signals, targets, metadata)` or a mapping with
            `signal`, `label` and metadata; targets are int64 `[B]` or float `[B, K]`.
        val_loader: the same for validation; None disables validation.
        optimizer: None is AdamW with a learning rate of 1e-3.
        criterion: mean loss of `(logits, targets)`; None is cross entropy.
        device: `'cuda'`, `'cpu'`, `'auto'`, ...; if it is absent, the CPU is used with one warning.
        callbacks: `Callback` objects, or functions called as `f(trainer, logs)` at the end of each epoch.
        gradient_accumulation_steps: micro-batches per optimizer step, >= 1; exact for batches of unequal size.
        max_grad_norm: bound of the gradient's 2-norm; None or <= 0 disables clipping.
        mixed_precision: True is float16 with loss scaling on CUDA and bfloat16 on a CPU that supports it;
            `'fp16'` and `'bf16'` select a type, a precision object is used unchanged.
        lr_scheduler: stepped per optimizer step, epoch or validation, depending on its kind.
        checkpoint_dir: where to save `last.pt` (after every epoch) and `best.pt` (lowest validation loss);
            None saves nothing. `previous.pt` is the `last.pt` before, used to resume if `last.pt` is damaged.
        augmentation: changes training batches on the device: an `Augmentation`, or a function
            `(signals, targets) -> (signals, targets)`. If it mixes labels, the criterion gets float targets
            `[B, K]`, and accuracy counts the dominant label.
        checkpoint_every: save within epochs too, after a number of batches or an amount of time (`100`, `'30s'`,
            `'10min'`), at the next optimizer step.
        on_nonfinite: what to do with a training batch whose loss is infinite or NaN: `'raise'`; `'skip'` leaves
            it out with a warning in the log; None disables the check. See `LossGuard`.
        max_skipped: batches that may be skipped per epoch; one more raises.

    Attributes:
        state: epoch, step, history and stop flag.
        updater: takes the optimizer steps; `updater.grad_norm` is the norm before clipping.
        replay: the position in the training data.
        kinds: further names by part that a checkpoint must have been saved with, e.g. of a teacher.

    Checkpoints are written in the background. If one cannot be written (e.g. the disk is full), a warning is logged and
    the next save tries again; `fit` raises only if the last state still cannot be saved when it ends.

    Raises:
        ValueError: an argument is out of range.
        TypeError: a callback is neither a `Callback` nor a function.

    Example:
        >>> signals, targets = torch.randn(64, 1, 128), torch.arange(64) % 2
        >>> signals[targets == 1] *= 3
        >>> data = torch.utils.data.TensorDataset(signals.abs().mean(2), targets)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=16)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        >>> trainer = Trainer(model, loader, loader, torch.optim.Adam(model.parameters(), lr=0.3), device="cpu")
        >>> history = trainer.fit(20)
        >>> history["val_accuracy"][-1]
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        criterion: nn.Module | Callable[..., torch.Tensor] | None = None,
        device: str | torch.device = "cuda",
        callbacks: list[Callback | Callable[..., Any]] | None = None,
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float | None = 1.0,
        mixed_precision: bool | str | FullPrecision = False,
        *,
        lr_scheduler: Any = None,
        checkpoint_dir: str | Path | None = None,
        augmentation: Augmentation | Callable[..., Any] | None = None,
        checkpoint_every: int | str | None = None,
        on_nonfinite: str | None = "raise",
        max_skipped: int = 10,
    ) -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device)
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.criterion = criterion if criterion is not None else nn.CrossEntropyLoss()
        if isinstance(self.criterion, nn.Module):
            self.criterion.to(self.device)
        fused = self.device.type in ("cpu", "cuda", "mps")
        self.optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
        self.lr_scheduler = lr_scheduler
        self.augmentation = None if augmentation is None else as_augmentation(augmentation)
        self.precision = choose_precision(mixed_precision, self.device)
        self.state = self.new_state()
        self.callbacks = CallbackList(callbacks or [])
        self.callbacks.set_trainer(self)
        self.kinds: dict[str, str] = {}
        self._hooks = self.callbacks
        self.replay = EpochReplay()
        self._consensus = StepConsensus(self._is_save_due)
        self._autosave = Autosave(checkpoint_dir, checkpoint_every)
        self.checkpoint_dir = self._autosave.folder
        self.updater = Updater(
            self.optimizer,
            accumulation_steps=gradient_accumulation_steps,
            max_grad_norm=max_grad_norm,
            precision=self.precision,
            on_step=self._after_step,
            flags=lambda: self._consensus.flags(self.state),
        )
        self._guard = LossGuard(
            unwrap(self.model),
            self._outputs,
            on_nonfinite,
            max_skipped,
            sources=lambda: recording_sources(self.train_loader),
            remedy=remedy_for(self.precision),
        )

    @property
    def lr_scheduler(self) -> Any:
        """The learning-rate scheduler, or None."""
        return self._lr_scheduler

    @lr_scheduler.setter
    def lr_scheduler(self, scheduler: Any) -> None:
        self._schedule_unit = None if scheduler is None else scheduler_unit(scheduler)
        self._lr_scheduler = scheduler

    # -- hooks for subclasses --------------------------------------------------------------------------

    def new_state(self) -> TrainingState:
        """Return the state that training starts with."""
        return TrainingState()

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Return what an epoch iterates over, in training and validation."""
        return loader

    def prepare_batch(self, batch: Any) -> Batch:
        """Convert what the loader yields to signals, targets and metadata on the device; augment it in training."""
        batch = as_batch(batch, self.device)
        if self.augmentation is None or not self.model.training:
            return batch
        return self.augmentation.augment(batch)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits `[B, K]` of a batch; metadata are passed to a network whose `forward` takes `metadata`."""
        return call_model(self.model, batch)

    def compute_loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, signal: torch.Tensor, metadata: dict[str, torch.Tensor]
    ) -> Any:
        """Return the mean loss of a batch, or `(loss, {name: detached tensor})` to log means of further values."""
        return self.criterion(outputs, targets)

    def epoch_context(self) -> AbstractContextManager[Any]:
        """Return a context manager that surrounds each training epoch."""
        return nullcontext()

    def summarize(self, means: dict[str, float]) -> dict[str, float]:
        """Return the metrics of a training or validation epoch, given the means over its samples."""
        return means

    # -- training and validation -----------------------------------------------------------------------

    def step(self, batch: Any) -> StepResult:
        """Compute outputs, loss and number of correct predictions of one batch; the loop does the rest."""
        batch = self.prepare_batch(batch)
        with self.precision.context():
            outputs = self.forward(batch)
            targets = batch.targets if self.augmentation is None else pad_targets(batch.targets, outputs)
            loss, components = split_loss(self.compute_loss(outputs, targets, batch.signals, batch.metadata))
        return StepResult(loss, len(targets), count_correct(outputs, targets), components, batch)

    def train_epoch(self) -> dict[str, float]:
        """Train on all batches once.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.

        Raises:
            NonFiniteLossError: a loss or a weight is infinite or NaN, unless `on_nonfinite` is None.
        """
        with self.epoch_context():
            self.model.train()
            check_same_number_of_batches(self.train_loader)
            self._guard.begin(self.state.epoch, skipped=self._guard.skipped if self.replay.tally else 0)
            tally, batches = self.replay.start(self.train_loader, self.batches)
            if getattr(self.train_loader, "num_workers", 0) > 0:
                batches = until_workers_exit(batches, self._may_end)
            step, accept = self._guard.protecting(self.step), self._guard.accept
            try:
                run_epoch(
                    batches, step, self.updater, self._hooks,
                    tally=tally, accept_batch=accept, should_stop=self._save_or_stop,
                )  # fmt: skip
            finally:
                self.state.batch = tally.n_batches
            self._guard.check(tally.n_batches)
            if self.state.interrupted:
                return self.summarize(tally.means())
            self.replay.finish()
            self.state.batch = 0
            return self.summarize(tally.means(source="train_loader"))

    def validate_epoch(self) -> dict[str, float]:
        """Evaluate the network on the validation data.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.

        Raises:
            ValueError: the trainer has no validation data.
        """
        if self.val_loader is None:
            raise ValueError("validate_epoch needs a val_loader, but val_loader is None")
        self.model.eval()
        broadcast_buffers(self.model)
        tally = run_epoch(self.batches(self.val_loader), self.step)
        return self.summarize(tally.means(source="val_loader"))

    def fit(self, num_epochs: int, resume_from: str | Path | None = None) -> History:
        """Train for `num_epochs` epochs; a second call adds as many more.

        An interruption (`state.interrupted`) ends the epoch at the next optimizer step and saves the position; one that
        arrives during validation lets the validation finish. When `fit` returns, `last.pt` is on disk. When it raises,
        `last.pt` is an earlier checkpoint from which the run can be resumed.

        Args:
            num_epochs: epochs to run, >= 0.
            resume_from: checkpoint of an interrupted run, which is continued up to `num_epochs` in total.

        Returns:
            The history: one list per logged name, one number per epoch.

        Raises:
            ValueError: the checkpoint does not fit this trainer, or a scheduler lacks the metric that it follows.
            NonFiniteLossError: as in `train_epoch`.
            TypeError: the optimizer, the scheduler or the network has a state that a checkpoint cannot hold.
            ChildProcessError: a worker process of a loader died.
            MemoryError: the device has too little memory.
            OSError: the last state cannot be saved.
        """
        if num_epochs < 0:
            raise ValueError(f"num_epochs is {num_epochs}, expected an integer >= 0")
        if self._schedule_unit == "validation" and self.val_loader is None:
            raise ValueError(f"{type(self.lr_scheduler).__name__} follows a validation metric, but val_loader is None")
        self.state.should_stop = False
        if resume_from is not None:
            self.load_checkpoint(resume_from)
        self.state.num_epochs = num_epochs if resume_from is not None else self.state.epoch + num_epochs
        broadcast_weights(self.model)
        self._autosave.check(self.state_dict)
        self._hooks = active_callbacks(self.callbacks)
        self._hooks.set_trainer(self)
        try:
            with translate_torch_errors(), self._autosave:
                fit_epochs(
                    self.state,
                    train_epoch=self.train_epoch,
                    validate_epoch=None if self.val_loader is None else self.validate_epoch,
                    callbacks=self._hooks,
                    after_begin=lambda: self.replay.restore_random_state(self.train_loader),
                    extra_logs=self._extra_logs,
                    step_schedule=self._step_schedule,
                    save=self._save_epoch,
                )
                if self.state.interrupted and self.replay.tally is not None:
                    self._save({}, is_best=False)
        finally:
            self._hooks = self.callbacks
        barrier()
        return self.state.history

    def _display_facts(self) -> dict[str, Any]:
        return training_facts(self)

    def _outputs(self, batch: Batch) -> torch.Tensor:
        """Return the outputs without wrappers, which would ignore hooks or wait for other processes."""
        model, self.model = self.model, unwrap(self.model)
        try:
            with self.precision.context():
                return self.forward(batch)
        finally:
            self.model = model

    def _may_end(self) -> bool:
        """Whether the epoch can end here without losing a part of an accumulation window."""
        return self.state.interrupted and not self.updater.pending

    def _after_step(self) -> None:
        self.state.global_step += 1
        if self._schedule_unit == "step":
            step_scheduler(self.lr_scheduler)

    def _step_schedule(self, logs: dict[str, float]) -> None:
        if self._schedule_unit in ("epoch", "validation"):
            step_scheduler(self.lr_scheduler, logs)

    def _extra_logs(self) -> dict[str, float]:
        return {"lr": float(self.optimizer.param_groups[0]["lr"])} | self.precision.logs()

    # -- checkpoints -----------------------------------------------------------------------------------

    def save_checkpoint(self, epoch: int, val_metrics: dict[str, float], is_best: bool) -> Path:
        """Save everything that an exact resume needs as `last.pt`, and as `best.pt` if `is_best`.

        Args:
            epoch: number of finished epochs, kept as metadata.
            val_metrics: metrics, kept as metadata.
            is_best: whether these weights are the best so far.

        Returns:
            The path of `last.pt`, which is then on disk. Files are complete or absent, never partial.

        Raises:
            ValueError: the trainer has no `checkpoint_dir`.
            OSError: a file cannot be written.
        """
        self._save(val_metrics, is_best, epoch)
        path = self._autosave.finish()
        barrier()
        return path

    def load_checkpoint(self, checkpoint_path: str | Path) -> dict[str, Any]:
        """Restore model, optimizer, scheduler, loss scale, callbacks, random states and position.

        If `last.pt` is damaged or missing, `previous.pt` beside it is loaded, with a warning in the log.

        Returns:
            The metadata: `epoch`, `val_metrics`, `is_best`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is damaged, or belongs to another network or another set of callbacks.
        """
        self._autosave.wait()
        state, metadata = load_training(checkpoint_path)
        try:
            check_kinds(state["kinds"], self._all_kinds())
            self.load_state_dict(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{checkpoint_path}: does not fit this trainer: {error}") from error
        return metadata

    def state_dict(self) -> dict[str, Any]:
        """Return everything that an exact resume needs, as tensors and plain data."""
        own = self.replay.state_dict(self.train_loader)
        return {
            "kinds": self._all_kinds(),
            "model": weights_of(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else {},
            "precision": self.precision.state_dict(),
            "callbacks": self.callbacks.state_dict(),
            "state": self.state.state_dict(),
            "passes": self.replay.passes,
            "n_batches": n_batches_of(self.train_loader),
            "skipped": self._guard.skipped,
            **own,
            "processes": gather_process_states(own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_weights_into(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state["scheduler"])
        self.precision.load_state_dict(state["precision"])
        self.callbacks.load_state_dict(state["callbacks"])
        self.state.load_state_dict(state["state"])
        self._guard.skipped = state.get("skipped", 0)  # not in format 1
        self.replay.passes = state["passes"]
        own = select_process_state(state)
        check_n_batches(
            self.train_loader,
            state.get("n_batches"),
            within_epoch=state["tally"] is not None,
            schedule_counts_steps=self._schedule_unit == "step",
        )
        self.replay.load_state_dict(own, self.train_loader, self.device)
        if self.replay.tally is not None:
            self.state.batch = self.replay.tally.n_batches  # not in format 1

    def _all_kinds(self) -> dict[str, str]:
        parts = {"optimizer": self.optimizer, "scheduler": self.lr_scheduler, "precision": self.precision}
        return {name: type(part).__name__ for name, part in parts.items()} | self.kinds

    def _is_save_due(self) -> bool:
        return self.replay.tally is not None and self._autosave.is_due(self.replay.tally.n_batches)

    def _save_or_stop(self) -> bool:
        """Save between two optimizer steps if a checkpoint is due; return whether to end the epoch."""
        is_due, tally = self._consensus.update(self.state, self.updater), self.replay.tally
        if is_due and tally is not None:
            self._guard.check(tally.n_batches)
            self.state.batch = tally.n_batches
            self._save({}, is_best=False)
            self._autosave.begin_interval(tally.n_batches)
        return self.state.interrupted

    def _save_epoch(self, logs: dict[str, float], is_best: bool) -> None:
        self._save({name: value for name, value in logs.items() if name.startswith("val_")}, is_best)
        self._autosave.begin_interval(0)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        logger.info("epoch %d/%d  %s", self.state.epoch, self.state.num_epochs, shown)

    def _save(self, val_metrics: dict[str, float], is_best: bool, epoch: int | None = None) -> None:
        """Save in the background, if there is a `checkpoint_dir`."""
        epoch = self.state.epoch if epoch is None else epoch
        metadata = {"epoch": epoch, "val_metrics": dict(val_metrics), "is_best": is_best}
        self._autosave.save(self.state_dict, metadata, is_best)
