"""The plain trainer, and the base of every other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from whirl.augment.base import Augmentation, as_augmentation
from whirl.engine.batch import Batch, as_batch, call_model
from whirl.engine.callbacks import Callback, CallbackList
from whirl.engine.checkpoint import LAST, CheckpointWriter, SaveInterval, load_training, to_cpu
from whirl.engine.device import resolve_device
from whirl.engine.distributed import (
    all_reduce_any,
    barrier,
    broadcast_buffers,
    broadcast_weights,
    check_same_number_of_batches,
    gather,
    is_main_process,
    rank,
    world_size,
)
from whirl.engine.errors import translate_torch_errors
from whirl.engine.files import find_unserializable
from whirl.engine.loop import StepResult, Tally, fit_epochs, run_epoch
from whirl.engine.loss_guard import LossGuard
from whirl.engine.precision import FullPrecision, choose_precision
from whirl.engine.progress import ProgressBar, is_interactive
from whirl.engine.random_state import get_random_state, set_random_state
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.engine.state import TrainingState
from whirl.engine.updater import Updater

logger = logging.getLogger(__name__)

History = dict[str, list[float]]


class Trainer:
    """Trains a network: gradient accumulation, clipping, mixed precision, callbacks, exact resume.

    A trainer is data plus a step. Another one overrides `prepare_batch`, `forward`, `compute_loss` or
    `batches`, never `fit` or the loop (`whirl.engine.loop`).

    Args:
        model: the network, `[B, C, T]` to logits `[B, K]`.
        train_loader: yields `(signals, targets)`, `(signals, targets, metadata)` or a mapping with
            `signal`, `label` and metadata; targets are int64 `[B]` or float `[B, K]`.
        val_loader: the same for validation; None leaves it out.
        optimizer: None is AdamW with a learning rate of 1e-3.
        criterion: mean loss of `(logits, targets)`; None is cross entropy.
        device: `'cuda'`, `'cpu'`, `'auto'`, ...; an absent one becomes the CPU with one warning.
        callbacks: `Callback` objects, or functions called as `f(trainer, logs)` at each epoch's end.
        gradient_accumulation_steps: micro-batches per optimizer step, >= 1; exact for ragged ones.
        max_grad_norm: bound of the gradient's 2-norm; None or <= 0 turns clipping off.
        mixed_precision: True is float16 with scaling on CUDA and bfloat16 on a CPU that has it;
            `'fp16'` and `'bf16'` choose, a precision object is taken as it is.
        lr_scheduler: moved per optimizer step, epoch or validation, as its kind counts.
        checkpoint_dir: where `last.pt` (after every epoch) and `best.pt` (lowest validation loss) go;
            None saves nothing. `previous.pt` is the `last.pt` before, for a resume should that be damaged.
        augmentation: changes training batches on the device: an `Augmentation`, or a function
            `(signals, targets) -> (signals, targets)`. Where it mixes labels, the criterion gets float targets
            `[B, K]`, and accuracy counts the dominant label.
        checkpoint_every: save within epochs too, every so many batches or so much time (`100`, `'30s'`, `'10min'`), at
            the next optimizer step.
        on_nonfinite: what to do with a training batch whose loss is infinite or no number: `'raise'`; `'skip'` leaves
            it out with a warning in the log; None lets it spoil the weights. See `LossGuard`.
        max_skipped: batches that may be left out in an epoch; one more raises.

    Attributes:
        state: epoch, step, history and stop flag.
        updater: takes the optimizer steps; `updater.grad_norm` is the norm before clipping.

    Checkpoints are written in the background. One that cannot be written (a full disk) is a warning in the log, and the
    next tries again; only when `fit` ends and the last state still cannot be written, it raises.

    Raises:
        ValueError: an argument out of its range.
        TypeError: a callback that is none.

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
        self.optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-3, fused=_has_fused(self.device))
        self.lr_scheduler = lr_scheduler
        self.checkpoint_dir = None if checkpoint_dir is None else Path(checkpoint_dir)
        self.augmentation = None if augmentation is None else as_augmentation(augmentation)
        self.precision = choose_precision(mixed_precision, self.device)
        self.updater = Updater(
            self.optimizer,
            accumulation_steps=gradient_accumulation_steps,
            max_grad_norm=max_grad_norm,
            precision=self.precision,
            on_step=self._after_step,
            flags=self._local_flags,
        )
        self.state = self.new_state()
        self.callbacks = CallbackList(callbacks or [])
        self.callbacks.set_trainer(self)
        self._hooks = self.callbacks
        self._schedule_unit = None if lr_scheduler is None else scheduler_unit(lr_scheduler)
        self._guard = LossGuard(
            self.model,
            self._outputs,
            on_nonfinite,
            max_skipped,
            sources=lambda: _sources(self.train_loader),
            remedy=_remedy(self.precision),
        )
        self._writer = None if self.checkpoint_dir is None else CheckpointWriter(self.checkpoint_dir)
        self._interval = None if checkpoint_every is None else SaveInterval(checkpoint_every)
        if self._interval is not None and self._writer is None:
            raise ValueError(f"checkpoint_every is {checkpoint_every!r}, but there is no checkpoint_dir to save in")
        self._passes = 0
        self._tally: Tally | None = None
        self._epoch_random: dict[str, Any] | None = None
        self._loaded_random: dict[str, Any] | None = None
        self._unread_flags = 0

    def new_state(self) -> TrainingState:
        """The state that this trainer begins with."""
        return TrainingState()

    # -- what a trainer may override -------------------------------------------------------------------

    def prepare_batch(self, batch: Any) -> Batch:
        """Bring what the loader yields to signals, targets and metadata on the device; in training, augment it."""
        batch = as_batch(batch, self.device)
        if self.augmentation is None or not self.model.training:
            return batch
        return self.augmentation.augment(batch)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Outputs of the network for a batch: logits `[B, K]`; one whose `forward` takes `metadata` is given it."""
        return call_model(self.model, batch)

    def compute_loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, signal: torch.Tensor, metadata: dict[str, torch.Tensor]
    ) -> Any:
        """Mean loss of a batch; a trainer with named parts returns `(loss, {name: detached tensor})`."""
        return self.criterion(outputs, targets)

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """What one epoch goes through."""
        return loader

    # -- the steps -------------------------------------------------------------------------------------

    def step(self, batch: Any) -> StepResult:
        """Outputs, loss and hits of one batch; the loop does the rest."""
        batch = self.prepare_batch(batch)
        with self.precision.context():
            outputs = self.forward(batch)
            targets = batch.targets if self.augmentation is None else _as_wide_as(outputs, batch.targets)
            loss = self.compute_loss(outputs, targets, batch.signals, batch.metadata)
        loss, components = loss if isinstance(loss, tuple) else (loss, {})
        labels = targets.argmax(1) if targets.ndim > 1 else targets
        correct = (outputs.detach()[: len(labels)].argmax(1) == labels).sum()
        return StepResult(loss, len(labels), correct, components, batch)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training data.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.

        Raises:
            NonFiniteLossError: a loss or a weight that is not finite, unless `on_nonfinite` is None.
        """
        self.model.train()
        check_same_number_of_batches(self.train_loader)
        tally, resumed = self._tally or Tally(), self._tally is not None
        self._guard.begin(self.state.epoch, self._guard.skipped if resumed else 0)
        batches = self._rest_of_epoch(tally.n_batches) if resumed else self._whole_epoch()
        self._tally = tally
        try:
            run_epoch(
                self._while_workers_live(batches) if _has_workers(self.train_loader) else batches,
                self._guard.protecting(self.step),
                self.updater,
                self._hooks,
                tally=tally,
                accept_batch=self._guard.accept,
                should_stop=self._maybe_checkpoint,
            )
        finally:
            self.state.batch = tally.n_batches
        self._guard.check(tally.n_batches)
        if self.state.interrupted:
            return tally.means()
        self._tally, self.state.batch = None, 0
        self._passes += 1
        return _means(tally, "train_loader")

    def validate_epoch(self) -> dict[str, float]:
        """One pass over the validation data; the weights stay.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.

        Raises:
            ValueError: the trainer has no validation data.
        """
        if self.val_loader is None:
            raise ValueError("validate_epoch needs a val_loader, and this trainer has none")
        self.model.eval()
        broadcast_buffers(self.model)
        return _means(run_epoch(self.batches(self.val_loader), self.step), "val_loader")

    def fit(self, num_epochs: int, resume_from: str | Path | None = None) -> History:
        """Train for `num_epochs` epochs; called again, for as many more.

        An interruption (`state.interrupted`) ends the epoch at the next optimizer step and saves the
        position; one that comes during validation lets it finish. When `fit` returns, `last.pt` is on disk; when it
        raises, `last.pt` is an earlier one, whole, from which the run can be resumed.

        Args:
            num_epochs: epochs to run, >= 0.
            resume_from: a checkpoint of an interrupted run, which is finished up to `num_epochs` in all.

        Returns:
            The history: one list per logged name, one number an epoch.

        Raises:
            ValueError: a checkpoint that does not fit this trainer, a scheduler without what it follows.
            NonFiniteLossError: as `train_epoch`.
            TypeError: the optimizer, the scheduler or the network has a state that no checkpoint can hold.
            ChildProcessError: a worker process of a loader has died.
            MemoryError: the device has too little.
            OSError: the last state cannot be saved.
        """
        if num_epochs < 0:
            raise ValueError(f"num_epochs is {num_epochs}, expected >= 0")
        if self._schedule_unit == "validation" and self.val_loader is None:
            raise ValueError(
                f"{type(self.lr_scheduler).__name__} follows a validation metric, but there is no val_loader"
            )
        self.state.should_stop = False
        if resume_from is not None:
            self.load_checkpoint(resume_from)
            self.state.num_epochs = num_epochs
        else:
            self.state.num_epochs = self.state.epoch + num_epochs
        broadcast_weights(self.model)
        if all_reduce_any(self._writer is None) != (self._writer is None):
            raise ValueError("checkpoint_dir is given to some processes alone: give it to all, rank 0 alone writes")
        self._hooks = self._hooks_of_fit()
        self._hooks.set_trainer(self)
        try:
            self._check_can_be_saved()
            with translate_torch_errors(), self._writer or nullcontext():
                fit_epochs(
                    self.state,
                    train_epoch=self.train_epoch,
                    validate_epoch=None if self.val_loader is None else self.validate_epoch,
                    callbacks=self._hooks,
                    extra_logs=lambda: {"lr": float(self.optimizer.param_groups[0]["lr"])} | self.precision.logs(),
                    after_begin=self._restore_random_state,
                    after_epoch=self._after_epoch,
                )
                if self.state.interrupted and self._tally is not None:
                    self._save({}, is_best=False)
        finally:
            self._hooks = self.callbacks
        barrier()
        return self.state.history

    # -- checkpoints -----------------------------------------------------------------------------------

    def save_checkpoint(self, epoch: int, val_metrics: dict[str, float], is_best: bool) -> Path:
        """Save all that an exact resume needs as `last.pt`, and as `best.pt` when `is_best`.

        Args:
            epoch: finished epochs, kept as metadata.
            val_metrics: metrics to keep with it.
            is_best: whether these weights are the best so far.

        Returns:
            The path of `last.pt`, which is on disk then. Files appear whole or not at all.

        Raises:
            ValueError: the trainer has no `checkpoint_dir`.
            OSError: a file cannot be written.
        """
        if self._writer is None:
            raise ValueError("save_checkpoint needs a checkpoint_dir, and this trainer has none")
        self._save(val_metrics, is_best, epoch)
        self._writer.finish()
        barrier()
        return self._writer.folder / LAST

    def load_checkpoint(self, checkpoint_path: str | Path) -> dict[str, Any]:
        """Restore model, optimizer, scheduler, scaler, callbacks, random states and position.

        Where `last.pt` is damaged or missing, `previous.pt` beside it is loaded, with a warning in the log.

        Returns:
            The metadata: `epoch`, `val_metrics`, `is_best`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is broken, or belongs to another network or set of callbacks.
        """
        if self._writer is not None:
            self._writer.wait()
        state, metadata = load_training(checkpoint_path)
        try:
            self._check_kinds(state["kinds"])
            self.load_state_dict(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{checkpoint_path}: does not fit this trainer: {error}") from error
        return metadata

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs, as tensors and plain data."""
        return {
            "kinds": self._kinds(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else {},
            "precision": self.precision.state_dict(),
            "callbacks": self.callbacks.state_dict(),
            "state": self.state.state_dict(),
            "passes": self._passes,
            "n_batches": _length(self.train_loader),
            "skipped": self._guard.skipped,
            **self._own_parts(),
            "processes": self._parts_of_all(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state["scheduler"])
        self.precision.load_state_dict(state["precision"])
        self.callbacks.load_state_dict(state["callbacks"])
        self.state.load_state_dict(state["state"])
        self._guard.skipped = state.get("skipped", 0)  # not in format 1
        self._passes = state["passes"]
        own = _parts_of(state, rank())
        self._check_length(state.get("n_batches"), state["tally"] is not None)
        self._load_own_parts(own)

    def _check_can_be_saved(self) -> None:
        """Before an epoch's work may be lost: a checkpoint that could not be loaded is worth nothing."""
        foreign = None if self._writer is None else find_unserializable(self.state_dict())
        if foreign:
            raise TypeError(f"a checkpoint holds tensors and plain data alone, not this trainer's {foreign}")

    def _check_length(self, saved: int | None, within_epoch: bool) -> None:
        """Batches of another size, or parted among another number of processes, end a schedule of steps elsewhere."""
        here = _length(self.train_loader)
        if None in (saved, here) or saved == here:
            return
        if within_epoch or self._schedule_unit == "step":
            why = "within an epoch" if within_epoch else "with a schedule that counts steps"
            raise ValueError(f"it was saved {why} of {saved} batches an epoch, and here there are {here}")

    def _load_own_parts(self, own: dict[str, Any]) -> None:
        if own["random"] is not None:
            set_random_state(own["random"], self.train_loader)
        self._epoch_random, self._loaded_random, self._tally = own["epoch_random"], own["random"], None
        if own["tally"] is not None:
            self._tally = Tally()
            self._tally.load_state_dict(own["tally"], self.device)
            self.state.batch = self._tally.n_batches  # not in format 1

    def _kinds(self) -> dict[str, str]:
        """What kinds of parts a checkpoint's states belong to."""
        parts = {"optimizer": self.optimizer, "scheduler": self.lr_scheduler, "precision": self.precision}
        return {name: type(part).__name__ for name, part in parts.items()}

    def _check_kinds(self, saved: dict[str, str]) -> None:
        for name, kind in self._kinds().items():
            if saved[name] != kind:
                raise ValueError(f"its {name} is {saved[name]}, here it is {kind}")

    def _parts_of_all(self) -> list[dict[str, Any]] | None:
        """What each process has for itself, in the order of ranks; None for one process."""
        # In main memory: a device's tensors would be unpacked on that device in every process.
        return gather(to_cpu(self._own_parts())) if world_size() > 1 else None

    def _own_parts(self) -> dict[str, Any]:
        tally = self._tally.state_dict() if self._tally is not None else None
        return {
            "random": get_random_state(self.train_loader),
            "tally": tally,
            "epoch_random": self._epoch_random if tally is not None else None,
        }

    # -- the epoch's bookkeeping -----------------------------------------------------------------------

    def _hooks_of_fit(self) -> CallbackList:
        """The callbacks, without those that write unless this process does, and with a bar where somebody watches."""
        # The bar belongs to this call, not to what a checkpoint remembers.
        bar = [ProgressBar()] if is_main_process() and is_interactive() else []
        if is_main_process() and not bar:
            return self.callbacks
        return CallbackList(
            [*(callback for callback in self.callbacks if is_main_process() or not callback.rank_zero_only), *bar]
        )

    def _local_flags(self) -> tuple[float, float]:
        """Whether this process wants to leave, and whether it, the writer, wants to save."""
        leave = self.state.interrupted or self.state.interrupted_by is not None
        return float(leave), float(is_main_process() and self._is_time_to_save())

    def _is_time_to_save(self) -> bool:
        if self._interval is None or self._tally is None or self._writer is None or self._writer.is_busy:
            return False
        return self._interval.is_due(self._tally.n_batches)

    def _outputs(self, batch: Batch) -> torch.Tensor:
        with self.precision.context():
            return self.forward(batch)

    def _restore_random_state(self) -> None:
        """What hooks drew when a resumed training began, the interrupted one had not."""
        if self._loaded_random is not None:
            set_random_state(self._loaded_random, self.train_loader)

    def _whole_epoch(self) -> Iterable[Any]:
        self._loaded_random = None
        self._epoch_random = get_random_state(self.train_loader)
        set_epoch(self.train_loader, self._passes)
        return self.batches(self.train_loader)

    def _rest_of_epoch(self, done: int) -> Iterator[Any]:
        """The batches after the first `done`, in the order that the interrupted epoch had.

        A sampler that knows `start_batch` begins its next pass there; of any other loader the first batches
        are drawn again, from the random state in which the epoch began, and dropped.
        """
        # The epoch's beginning has been heard twice, and hooks may have drawn twice.
        now, self._loaded_random = self._loaded_random or get_random_state(self.train_loader), None
        set_random_state(self._epoch_random or now, self.train_loader)
        set_epoch(self.train_loader, self._passes)
        sampler = getattr(self.train_loader, "sampler", None)
        if sampler is not None and hasattr(sampler, "start_batch"):
            sampler.start_batch, done = done, 0
        batches = iter(self.batches(self.train_loader))
        if sum(1 for _ in islice(batches, done)) < done:
            raise ValueError(f"the interrupted epoch had {done} batches done, but train_loader yields fewer")
        set_random_state(now, self.train_loader)
        return batches

    def _after_step(self) -> None:
        self.state.global_step += 1
        if self._schedule_unit == "step":
            step_scheduler(self.lr_scheduler)

    def _while_workers_live(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Workers that die of the signal that interrupts the training leave it where it is."""
        try:
            with translate_torch_errors():
                yield from batches
        except ChildProcessError:
            if not self.state.interrupted or self.updater.pending:
                raise

    def _maybe_checkpoint(self) -> bool:
        """Between two optimizer steps: save when it is time; say whether to leave the epoch."""
        alone = world_size() == 1
        is_time = self._is_time_to_save() and not self.state.interrupted if alone else self._sync_stop_flags()
        if is_time and self._tally is not None and self._interval is not None:
            n_batches = self._tally.n_batches
            self._guard.check(n_batches)
            self.state.batch = n_batches
            self._save({}, is_best=False)
            self._interval.begin(n_batches)
        return self.state.interrupted

    def _sync_stop_flags(self) -> bool:
        """Leave if a process wants to; say whether to save. On an accelerator flags are read at each 16th step."""
        flags, self.updater.reduced_flags = self.updater.reduced_flags, None
        self._unread_flags += flags is not None
        if flags is None or (not flags.is_cpu and self._unread_flags < 16):
            return False
        self._unread_flags = 0
        leave, save = flags.tolist()
        self.state.interrupted = leave > 0
        return save > 0 and not self.state.interrupted

    def _save(self, val_metrics: dict[str, float], is_best: bool, epoch: int | None = None) -> None:
        """Have the state saved in the background; nothing without a `checkpoint_dir`."""
        if self._writer is not None:
            epoch = self.state.epoch if epoch is None else epoch
            metadata = {"epoch": epoch, "val_metrics": dict(val_metrics), "is_best": is_best}
            state = self.state_dict()
            if is_main_process():
                self._writer.save(state, metadata, is_best)

    def _after_epoch(self, logs: dict[str, float], is_best: bool) -> None:
        if self._schedule_unit in ("epoch", "validation"):
            step_scheduler(self.lr_scheduler, logs)
        if world_size() > 1:
            self.state.should_stop = all_reduce_any(self.state.should_stop)
            self.state.interrupted = all_reduce_any(self._local_flags()[0] > 0)
        self._save({name: value for name, value in logs.items() if name.startswith("val_")}, is_best)
        if self._interval is not None:
            self._interval.begin(batch=0)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        logger.info("epoch %d/%d  %s", self.state.epoch, self.state.num_epochs, shown)


def _parts_of(state: dict[str, Any], process: int) -> dict[str, Any]:
    """What a checkpoint kept for a process; of another number of them, only what an epoch's end leaves."""
    everyone = state.get("processes") or [state]  # format 1 knew one process
    if len(everyone) == world_size():
        return everyone[process]
    if state["tally"] is not None:
        raise ValueError(
            f"it was saved within an epoch by {len(everyone)} processes, and here are {world_size()}: batches are "
            "parted otherwise then; resume with as many, or from a checkpoint of an epoch's end"
        )
    # More processes than before draw on from what they have drawn so far.
    fresh = {"random": None, "tally": None, "epoch_random": None}
    return everyone[process] if process < len(everyone) else fresh


def _remedy(precision: FullPrecision) -> str:
    """What to try against a loss that is not finite."""
    if precision.name == FullPrecision.name:
        return "try a lower learning rate (--lr)"
    return "try full precision (--precision 32, mixed_precision=False)"


def _sources(loader: Any) -> Sequence[str]:
    """Names of the recordings that a loader's windows are cut from, through data sets around others; or none."""
    if hasattr(loader, "loaders"):  # several over the same windows, or nobody knows which of them
        parts = {tuple(_sources(part)) for part in loader.loaders.values()}
        return parts.pop() if len(parts) == 1 else ()
    data = getattr(loader, "dataset", None)
    while data is not None and not hasattr(data, "sources"):
        data = getattr(data, "dataset", getattr(data, "base_dataset", None))
    return getattr(data, "sources", ())


def _length(loader: Any) -> int | None:
    return len(loader) if hasattr(loader, "__len__") else None


def set_epoch(loader: Iterable[Any], epoch: int) -> None:
    """Tell the loader's samplers which pass comes next, where they can be told."""
    for name in ("sampler", "batch_sampler"):
        tell = getattr(getattr(loader, name, None), "set_epoch", None)
        if tell is not None:
            tell(epoch)


def _has_workers(loader: Any) -> bool:
    return getattr(loader, "num_workers", 0) > 0


def _as_wide_as(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mixed targets of a batch that lacked the last classes get their zeros."""
    if targets.ndim < 2 or outputs.ndim != 2 or targets.shape[1] >= outputs.shape[1]:
        return targets
    return F.pad(targets, (0, outputs.shape[1] - targets.shape[1]))


def _means(tally: Tally, loader_name: str) -> dict[str, float]:
    means = tally.means()
    if not means:
        raise ValueError(f"{loader_name} yielded no batch")
    return means


def _has_fused(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda", "mps")
