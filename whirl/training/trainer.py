"""The base trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whirl.augment.base import Augmentation
from whirl.engine.autosave import Autosave
from whirl.engine.batch import Batch, as_batch, call_model, pad_targets
from whirl.engine.callbacks import Callback
from whirl.engine.consensus import StepConsensus
from whirl.engine.determinism import deterministic_algorithms
from whirl.engine.device import resolve_device
from whirl.engine.distributed import (
    barrier,
    broadcast_buffers,
    broadcast_weights,
    check_same_number_of_batches,
)
from whirl.engine.epoch_metrics import EpochMetrics, Metrics
from whirl.engine.errors import translate_torch_errors
from whirl.engine.history import History
from whirl.engine.interrupt import finish_batch_in_notebook, until_workers_exit
from whirl.engine.limits import Limits
from whirl.engine.loop import StepResult, Tally, fit_epochs, run_epoch, split_loss, validate
from whirl.engine.loss_guard import LossGuard, recording_sources, remedy_for
from whirl.engine.modes import TrainingModes
from whirl.engine.monitor import Improvement, direction_of
from whirl.engine.objective import SAMPLE_WEIGHT
from whirl.engine.precision import FullPrecision, choose_precision
from whirl.engine.progress import active_callbacks
from whirl.engine.recompute import recomputing, unchanged_buffers
from whirl.engine.replay import EpochReplay
from whirl.engine.schedule import step_scheduler
from whirl.engine.state import TrainingState
from whirl.engine.summary import training_facts
from whirl.engine.updater import Updater
from whirl.engine.wrappers import unwrap
from whirl.optim.sam import SAM
from whirl.training.parts import check_optimizer, default_optimizer
from whirl.training.preflight import check_parts, warn_of_surprises
from whirl.training.resumable import Resumable
from whirl.validation import check_count

logger = logging.getLogger(__name__)


class Trainer(Resumable):
    """Train a network with gradient accumulation, clipping, mixed precision, callbacks and exact resume.

    The loop is the same for every trainer (`whirl.engine.loop`). A subclass overrides these hooks, and nothing else:
    `new_state`, `batches`, `prepare_batch`, `forward`, `compute_loss`, `epoch_context`, `summarize`, and `state_dict`
    with `load_state_dict`.

    Args:
        model: network, `[B, C, T]` to logits `[B, K]`.
        train_loader: yields `(signals, targets)`, `(signals, targets, metadata)` or a mapping with
            `signal`, `label` and metadata; targets are int64 `[B]` or float `[B, K]`, or what the task needs. Metadata
            `sample_weight` `[B]` are factors of the samples' losses (see `Objective.loss`).
        val_loader: the same for validation; None disables validation.
        optimizer: None is AdamW with a learning rate of 1e-3, for the parameters of the network and of the criterion.
        criterion: mean loss of `(outputs, targets)`; None is cross entropy, or what fits the stated task. Its
            parameters are in checkpoints.
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
        task: `'multiclass'`, `'binary'`, `'multilabel'` or `'regression'`, which determines accuracy; `'auto'` finds it
            from the criterion and the targets (see `whirl.engine.objective`).
        max_steps: optimizer steps in all; the epoch that reaches them ends there, is validated and saved.
        limit_train_batches: training batches per epoch, a number or a fraction of the loader's; None uses all.
        limit_val_batches: the same for validation.
        metrics: further metrics of training and validation, e.g. `['f1_macro', 'auroc']`; functions and objects of
            torchmetrics too (see `whirl.engine.epoch_metrics`).
        best_by: name in the logs that determines `best.pt`, e.g. `'val_f1_macro'`; None is the validation loss.
        validate_every: validate within epochs too, after every so many optimizer steps. These validations can determine
            `best.pt` and are in `state.step_history`; callbacks and schedules follow those at the ends of epochs.
        compile: True compiles the network with `torch.compile`; a mapping has its arguments, e.g.
            `{"mode": "max-autotune"}`. Checkpoints, metadata and exports are as of the plain network.
        deterministic: use only algorithms that give the same bits in every run (see `deterministic_algorithms`).
        recompute: names of modules whose activations are computed again in the backward pass, to save memory (see
            `whirl.engine.recompute`).
        fast_dev_run: to try out code: one epoch of one batch, or of so many, for training and validation each, without
            checkpoints and without the callbacks that write files.

    Attributes:
        state: epoch, step, history and stop flag.
        updater: takes the optimizer steps; `updater.grad_norm` is the norm before clipping.
        replay: the position in the training data.
        modes: which parts of the network stay in evaluation mode while it is trained.
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
        task: str = "auto",
        max_steps: int | None = None,
        limit_train_batches: float | None = None,
        limit_val_batches: float | None = None,
        metrics: Metrics = (),
        best_by: str | None = None,
        fast_dev_run: bool | int = False,
        validate_every: int | None = None,
        compile: bool | Mapping[str, Any] = False,
        deterministic: bool = False,
        recompute: Sequence[str] = (),
    ) -> None:
        self.device = resolve_device(device)
        self.compile = compile
        self.deterministic = deterministic
        self.recompute = recompute
        self.validate_every = None if validate_every is None else check_count("validate_every", validate_every)
        self.model = model
        self.train_loader = train_loader
        self.val_loader = val_loader
        self._set_objective(criterion, task)
        if optimizer is None:
            optimizer = default_optimizer(self._trained_modules(), self.device)
        check_optimizer(optimizer, self._trained_modules())
        self.state = self.new_state()
        self.kinds: dict[str, str] = {}
        self.lr_scheduler = lr_scheduler
        self.metrics = metrics
        self._new_tally()  # checks the metrics
        self.replay = EpochReplay(self._new_tally)
        self.augmentation = augmentation
        self.callbacks = callbacks or []
        self.fast_dev_run = bool(fast_dev_run)
        if fast_dev_run:
            limit_train_batches = limit_val_batches = int(fast_dev_run)
            checkpoint_dir = checkpoint_every = None
        self.limits = Limits(max_steps, limit_train_batches, limit_val_batches)
        self._best_by = None if best_by is None else Improvement(best_by, direction_of(best_by) or "min")
        self.modes = TrainingModes()
        self._consensus = StepConsensus(self._is_save_due)
        self._autosave = Autosave(checkpoint_dir, checkpoint_every)
        precision = choose_precision(mixed_precision, self.device)
        self.updater = Updater(
            optimizer,
            accumulation_steps=gradient_accumulation_steps,
            max_grad_norm=max_grad_norm,
            precision=precision,
            on_step=self._after_step,
            flags=lambda: self._consensus.flags(self.state),
        )
        self._guard = LossGuard(
            unwrap(self.model),
            self._outputs,
            on_nonfinite,
            max_skipped,
            sources=lambda: recording_sources(self.train_loader),
            remedy=remedy_for(precision),
        )
        self._last_fit = ""

    # -- hooks for subclasses --------------------------------------------------------------------------

    def new_state(self) -> TrainingState:
        """Return the state that training starts with."""
        return TrainingState()

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Return what an epoch iterates over, in training and validation."""
        return loader

    def prepare_batch(self, batch: Any) -> Batch:
        """Convert what the loader yields to signals, targets and metadata on the device; augment it in training."""
        batch = as_batch(batch, self.device, float_targets=self._objective.takes_float_targets)
        if self.augmentation is None or not self.model.training:
            return batch
        return self.augmentation.augment(batch)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the outputs for a batch, e.g. logits `[B, K]`; a network that takes metadata gets them."""
        return call_model(self.model, batch)

    def compute_loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, signal: torch.Tensor, metadata: dict[str, torch.Tensor]
    ) -> Any:
        """Return the mean loss of a batch, or `(loss, {name: detached tensor})` to log means of further values."""
        return self._objective.loss(outputs, targets, metadata.get(SAMPLE_WEIGHT))

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
        result = self._result(batch)
        if isinstance(self.optimizer, SAM) and self.model.training:
            with unchanged_buffers(self.model):
                result.loss = self.optimizer.sharpen(result.loss, lambda: self._result(batch).loss)
        return result

    def _result(self, batch: Batch) -> StepResult:
        with self.precision.context():
            outputs = self.forward(batch)
            targets = self._objective.fit_targets(outputs, batch.targets)
            if self.augmentation is not None:
                targets = pad_targets(targets, outputs)
            loss, components = split_loss(self.compute_loss(outputs, targets, batch.signals, batch.metadata))
        n_correct, n_counted = self._objective.score(outputs, targets)
        weight = self._objective.denominator(targets)
        predictions = (outputs, targets) if self.metrics else None
        return StepResult(loss, len(targets), n_correct, n_counted, weight, components, batch, predictions)

    def train_epoch(self) -> dict[str, float]:
        """Train on all batches once.

        Returns:
            Means over the samples: `loss`, for a classification `accuracy` (a fraction), and components of the loss.

        Raises:
            NonFiniteLossError: a loss or a weight is infinite or NaN, unless `on_nonfinite` is None.
        """
        with self.epoch_context(), recomputing(self.model, self.recompute):
            self.modes.train(self.model)
            check_same_number_of_batches(self.train_loader)
            self._guard.begin(self.state.epoch, skipped=self._guard.skipped if self.replay.tally else 0)
            tally, batches = self.replay.start(self.train_loader, self.batches)
            batches = self.limits.of_training(batches, self.train_loader, tally.n_batches)
            if getattr(self.train_loader, "num_workers", 0) > 0:
                batches = until_workers_exit(batches, self._may_end)
            step, accept = self._guard.protecting(self.step), self._guard.accept
            self._ignores_stop = self.state.should_stop  # from before this epoch, when it is called by hand
            try:
                run_epoch(
                    batches, step, self.updater, self._hooks,
                    tally=tally, accept_batch=accept, should_stop=self._should_end_epoch,
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
            Means over the samples: `loss`, for a classification `accuracy` (a fraction), and components of the loss.

        Raises:
            ValueError: the trainer has no validation data.
        """
        if self.val_loader is None:
            raise ValueError("validate_epoch needs a val_loader, but val_loader is None")
        self.model.eval()
        broadcast_buffers(self.model)
        batches = self.limits.of_validation(self.batches(self.val_loader), self.val_loader)
        tally = run_epoch(batches, self.step, tally=self._new_tally())
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
        self._begin_fit(num_epochs, resume_from)
        try:
            with (
                translate_torch_errors(),
                self._autosave,
                finish_batch_in_notebook(self.state),
                deterministic_algorithms(self.deterministic),
            ):
                fit_epochs(
                    self.state,
                    train_epoch=self.train_epoch,
                    validate_epoch=None if self.val_loader is None else self.validate_epoch,
                    callbacks=self._hooks,
                    after_begin=lambda: self.replay.restore_random_state(self.train_loader, self.val_loader),
                    extra_logs=self._extra_logs,
                    step_schedule=self._step_schedule,
                    save=self._save_epoch,
                )
                if self.state.interrupted and self.replay.tally is not None:
                    self._save({}, is_best=False)
            self._last_fit = "interrupted" if self.state.interrupted else ""
        except BaseException:
            self._last_fit = "failed"
            raise
        finally:
            self._hooks = self.callbacks
        barrier()
        return self.state.history

    def _begin_fit(self, num_epochs: int, resume_from: str | Path | None) -> None:
        """Check that the parts belong together, and put the trainer where the training begins."""
        if num_epochs < 0:
            raise ValueError(f"num_epochs is {num_epochs}, expected an integer >= 0")
        num_epochs = min(num_epochs, 1) if self.fast_dev_run else num_epochs
        check_parts(self)
        self._recover()
        if resume_from is not None:
            self.load_checkpoint(resume_from)
        self.state.num_epochs = num_epochs if resume_from is not None else self.state.epoch + num_epochs
        self.state.should_stop = self.limits.is_reached(self.state.global_step)
        warn_of_surprises(self)
        for module in self._trained_modules():
            broadcast_weights(module)
        self._autosave.check(self.state_dict)
        self._hooks = active_callbacks(self.callbacks, with_writers=not self.fast_dev_run)
        self._hooks.set_trainer(self)

    def _recover(self) -> None:
        """Continue after an interruption, and start the epoch over after a failure."""
        if self._last_fit == "interrupted":
            self.state.interrupted, self.state.interrupted_by = False, None
        elif self._last_fit == "failed" and self.replay.tally is not None:
            logger.warning("the last fit failed in epoch %d: starting this epoch over", self.state.epoch)
            self.replay.restart()
            self.state.batch = 0
        self._last_fit = ""

    @property
    def history(self) -> History:
        """The history: one list per logged name, one number per epoch."""
        return self.state.history

    def _display_facts(self) -> dict[str, Any]:
        return training_facts(self)

    def _outputs(self, batch: Batch) -> torch.Tensor:
        """Return the outputs without wrappers, which would ignore hooks or wait for other processes."""
        model, self._model = self._model, unwrap(self._model)
        try:
            with self.precision.context(), torch.compiler.set_stance("force_eager"):
                return self.forward(batch)
        finally:
            self._model = model

    def _may_end(self) -> bool:
        """Whether the epoch can end here without losing a part of an accumulation window."""
        return self.state.interrupted and not self.updater.pending

    def _new_tally(self) -> Tally:
        return Tally(EpochMetrics(self.metrics, self._objective) if self.metrics else None)

    def _should_end_epoch(self) -> bool:
        """Validate and save if it is due; return whether the epoch ends here."""
        self._validate_within_epoch()
        interrupted = self._save_or_stop()
        if self.limits.is_reached(self.state.global_step):
            self.state.should_stop = True
            return True
        return interrupted or (self._consensus.ends_epoch and not self._ignores_stop)

    def _validate_within_epoch(self) -> None:
        every, steps = self.validate_every, self.state.step_history.get("step", [])
        step = self.state.global_step
        if every is None or step % every or step in (0, *steps[-1:]):
            return
        logs = {f"val_{name}": value for name, value in validate(self.validate_epoch, self._hooks).items()}
        self.modes.train(self.model)
        self._save_best_within_epoch(logs, self.state.record_step(logs))

    def _after_step(self) -> None:
        self.state.global_step += 1
        if self._schedule_unit == "step":
            step_scheduler(self.lr_scheduler)

    def _step_schedule(self, logs: dict[str, float]) -> None:
        if self._schedule_unit in ("epoch", "validation"):
            step_scheduler(self.lr_scheduler, logs)

    def _extra_logs(self) -> dict[str, float]:
        return {"lr": float(self.optimizer.param_groups[0]["lr"])} | self.precision.logs()
