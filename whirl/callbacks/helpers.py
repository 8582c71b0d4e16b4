"""What several callbacks use: numbers of the logs, files of a model, counts of optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whirl.engine.checkpoint import to_cpu
from whirl.engine.files import save_checkpoint_file
from whirl.engine.history import scalars as scalars
from whirl.engine.wrappers import weights_of


class OptimizerSteps:
    """Count optimizer steps between batches: those of the trainer, or one per batch in a hand-written loop.

    Attributes:
        seen: steps of the trainer counted so far; None before the first.

    Example:
        >>> steps = OptimizerSteps()
        >>> steps.begin(None)
        >>> steps.since_last_batch(None)
        1
    """

    def __init__(self) -> None:
        self.seen: int | None = None

    def begin(self, trainer: Any) -> None:
        """Start at the trainer's current step, or continue the count of an interrupted training."""
        # A count beyond the trainer's steps belongs to another training.
        if trainer is not None and (self.seen is None or self.seen > trainer.state.global_step):
            self.seen = trainer.state.global_step

    def since_last_batch(self, trainer: Any) -> int:
        """Return the number of steps since the last call."""
        if trainer is None:
            return 1
        steps = trainer.state.global_step - (self.seen or 0)
        self.seen = trainer.state.global_step
        return steps


def has_completed(trainer: Any) -> bool:
    """Return whether a training has ended by itself: not by an interruption or a failure."""
    state = trainer.state
    return not state.interrupted and (state.should_stop or state.epoch >= state.num_epochs)


def save_model(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    epoch: int,
    logs: Mapping[str, Any] | None,
) -> None:
    """Write the checkpoint file of a model atomically.

    Args:
        path: file to write; missing folders are created.
        model: its state dict is saved as `model`.
        optimizer: saved as `optimizer`; None leaves it out.
        epoch: index of the finished epoch, from 0.
        logs: the numbers among them are saved as `logs`.
    """
    checkpoint = {"model": weights_of(model), "epoch": epoch, "logs": scalars(logs)}
    if optimizer is not None:
        checkpoint["optimizer"] = optimizer.state_dict()
    save_checkpoint_file(path, to_cpu(checkpoint))


def check_interval(log_interval: int) -> None:
    """Raise ValueError if an interval is not positive."""
    if log_interval < 1:
        raise ValueError(f"log_interval is {log_interval!r}, expected an integer >= 1")
