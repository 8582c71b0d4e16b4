"""Checkpoints of a trainer: what they hold, when they are saved, and how they are loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.callbacks.averaging import evaluated_callback
from whirl.engine.autosave import Autosave
from whirl.engine.batch import n_batches_of
from whirl.engine.checkpoint import check_kinds, load_training, to_cpu
from whirl.engine.consensus import StepConsensus, gather_process_states, select_process_state
from whirl.engine.distributed import barrier
from whirl.engine.files import find_unserializable
from whirl.engine.history import scalars
from whirl.engine.monitor import Improvement
from whirl.engine.replay import check_n_batches
from whirl.engine.state import TrainingState
from whirl.engine.wrappers import load_weights_into, weights_of
from whirl.training.partial_loading import load_what_fits
from whirl.training.parts import TrainerParts

logger = logging.getLogger(__name__)

_MISFITS = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)


class Resumable(TrainerParts):
    """Base of trainers: saves everything that an exact resume needs, and restores it."""

    train_loader: Any
    val_loader: Any
    state: TrainingState
    kinds: dict[str, str]
    _autosave: Autosave
    _consensus: StepConsensus
    _best_by: Improvement | None

    @property
    def checkpoint_dir(self) -> Path | None:
        """Folder of the checkpoints, or None."""
        return self._autosave.folder

    def save_checkpoint(self, epoch: int, val_metrics: dict[str, Any], is_best: bool) -> Path:
        """Save everything that an exact resume needs as `last.pt`, and as `best.pt` if `is_best`.

        Args:
            epoch: number of finished epochs, kept as metadata.
            val_metrics: metrics, kept as metadata: numbers, text and containers of them; arrays become tensors.
            is_best: whether these weights are the best so far.

        Returns:
            The path of `last.pt`, which is then on disk. Files are complete or absent, never partial.

        Raises:
            TypeError: the metrics hold something that could not be loaded again.
            ValueError: the trainer has no `checkpoint_dir`.
            OSError: a file cannot be written.
        """
        val_metrics = _with_tensors(val_metrics)
        unserializable = find_unserializable(val_metrics)
        if unserializable:
            raise TypeError(f"val_metrics{unserializable}, expected numbers, text, arrays or containers of them")
        self._save(val_metrics, is_best, epoch)
        path = self._autosave.finish()
        barrier()
        return path

    def load_checkpoint(self, checkpoint_path: str | Path, *, strict: bool = True) -> dict[str, Any]:
        """Restore model, optimizer, scheduler, loss scale, callbacks, random states and position.

        If `last.pt` is damaged or missing, `previous.pt` beside it is loaded, with a warning in the log. A checkpoint
        that is refused changes nothing.

        Args:
            checkpoint_path: the file.
            strict: False loads the weights of the network in any case, and of everything else what fits, e.g. on a
                machine with another precision, with another optimizer or other callbacks; a warning in the log names
                the rest. For the weights alone there is `whirl.engine.load_weights`.

        Returns:
            The metadata: `epoch`, `val_metrics`, `is_best`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is damaged, or belongs to another network, or with `strict` to a trainer with other
                parts.
        """
        self._autosave.wait()
        state, metadata = load_training(checkpoint_path)
        before = to_cpu(self.state_dict())
        try:
            if strict:
                check_kinds(state["kinds"], self._all_kinds())
                self.load_state_dict(state)
            elif missing := load_what_fits(self, state):
                logger.warning("%s: not taken over: %s", checkpoint_path, "; ".join(missing))
        except _MISFITS as error:
            self.load_state_dict(before)
            raise ValueError(f"{checkpoint_path}: does not fit this trainer: {error}") from error
        return metadata

    def state_dict(self) -> dict[str, Any]:
        """Return everything that an exact resume needs, as tensors and plain data."""
        own = self.replay.state_dict(self.train_loader, self.val_loader)
        return {
            "kinds": self._all_kinds(),
            "model": weights_of(self.model),
            "criterion": self.criterion.state_dict() if isinstance(self.criterion, nn.Module) else {},
            "task": self.task,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else {},
            "precision": self.precision.state_dict(),
            "callbacks": self.callbacks.state_dict(),
            "evaluated": evaluated_callback(self.callbacks),
            "state": self.state.state_dict(),
            "best": {} if self._best_by is None else self._best_by.state_dict(),
            "passes": self.replay.passes,
            "n_batches": n_batches_of(self.train_loader),
            "skipped": self._guard.skipped,
            **own,
            "processes": gather_process_states(own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_weights_into(self.model, state["model"])
        self._load_criterion(state)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state["scheduler"])
        self.precision.load_state_dict(state["precision"])
        self.callbacks.load_state_dict(state["callbacks"])
        self._load_progress(state)

    def _load_criterion(self, state: dict[str, Any]) -> None:
        # Checkpoints of earlier versions have no state of the criterion.
        if isinstance(self.criterion, nn.Module) and "criterion" in state:
            self.criterion.load_state_dict(state["criterion"])

    def _load_progress(self, state: dict[str, Any]) -> None:
        """Restore what has been done, and the position in the data."""
        own = select_process_state(state)
        check_n_batches(
            self.train_loader,
            state.get("n_batches"),
            within_epoch=state["tally"] is not None,
            schedule_counts_steps=self._schedule_unit == "step",
        )
        self.replay.load_state_dict(own, self.train_loader, self.device)
        self.replay.passes = state["passes"]
        self.state.load_state_dict(state["state"])
        if self._best_by is not None and state.get("best"):
            self._best_by.load_state_dict(state["best"])
        self._objective.task = state.get("task", self.task)
        self._guard.skipped = state.get("skipped", 0)  # not in format 1
        if self.replay.tally is not None:
            self.state.batch = self.replay.tally.n_batches  # not in format 1

    def _all_kinds(self) -> dict[str, str]:
        parts = {"optimizer": self.optimizer, "scheduler": self.lr_scheduler, "precision": self.precision}
        return {name: type(part).__name__ for name, part in parts.items()} | self.kinds

    def _is_save_due(self) -> bool:
        return self.replay.tally is not None and self._autosave.is_due(self.replay.tally.n_batches)

    def _save_or_stop(self) -> bool:
        """Save between two optimizer steps if a checkpoint is due; return whether to interrupt the epoch."""
        if self._consensus.update(self.state, self.updater):
            self._save_within_epoch({}, is_best=False)
        return self.state.interrupted

    def _save_within_epoch(self, val_metrics: dict[str, float], is_best: bool) -> None:
        tally = self.replay.tally
        if tally is not None:
            self._guard.check(tally.n_batches)
            self.state.batch = tally.n_batches
            self._save(val_metrics, is_best)
            self._autosave.begin_interval(tally.n_batches)

    def _save_best_within_epoch(self, logs: dict[str, float], has_lowest_loss: bool) -> None:
        is_best = has_lowest_loss if self._best_by is None else self._best_by.update(logs)
        if is_best:
            self._save_within_epoch(logs, is_best)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        logger.info("epoch %d, step %d  %s", self.state.epoch + 1, self.state.global_step, shown)

    def _save_epoch(self, logs: dict[str, Any], has_lowest_loss: bool) -> None:
        numbers = scalars(logs)
        is_best = has_lowest_loss if self._best_by is None else self._best_by.update(numbers)
        self._save({name: value for name, value in numbers.items() if name.startswith("val_")}, is_best)
        self._autosave.begin_interval(0)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        logger.info("epoch %d/%d  %s", self.state.epoch, self.state.num_epochs, shown)

    def _save(self, val_metrics: dict[str, Any], is_best: bool, epoch: int | None = None) -> None:
        """Save in the background, if there is a `checkpoint_dir`."""
        epoch = self.state.epoch if epoch is None else epoch
        metadata = {"epoch": epoch, "val_metrics": dict(val_metrics), "is_best": is_best}
        self._autosave.save(self.state_dict, metadata, is_best)


def _with_tensors(value: Any) -> Any:
    """Return metrics with tensors in place of numeric arrays, which a checkpoint cannot hold."""
    if isinstance(value, dict):
        return {name: _with_tensors(item) for name, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(value.copy())
    if type(value) in (list, tuple):
        return type(value)([_with_tensors(item) for item in value])
    return value
