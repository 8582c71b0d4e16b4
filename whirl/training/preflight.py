"""Checks of a trainer before it trains: parts that do not belong together, and what would show in the results only."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from whirl.engine.distributed import world_size
from whirl.engine.schedule import is_finished
from whirl.optim.sam import SAM
from whirl.training.parts import check_optimizer, trainable

logger = logging.getLogger(__name__)


def check_parts(trainer: Any) -> None:
    """Validate that the parts of a trainer belong together.

    Raises:
        TypeError: the optimizer is not an optimizer.
        ValueError: the optimizer or the schedule belongs to something else, or the schedule needs validation data.
    """
    scheduler = trainer.lr_scheduler
    if trainer._schedule_unit == "validation" and trainer.val_loader is None:
        raise ValueError(f"{type(scheduler).__name__} follows a validation metric, but val_loader is None")
    if trainer.validate_every is not None and trainer.val_loader is None:
        raise ValueError(f"validate_every is {trainer.validate_every}, but val_loader is None")
    if getattr(scheduler, "optimizer", trainer.optimizer) is not trainer.optimizer:
        raise ValueError(
            f"{type(scheduler).__name__} schedules another optimizer: create it for the trainer's optimizer"
        )
    if isinstance(trainer.optimizer, SAM) and trainer.mixed_precision == "fp16":
        raise ValueError("SAM does not support fp16, whose small gradients vanish: choose bf16 or full precision")
    check_optimizer(trainer.optimizer, trainer._trained_modules())


def warn_of_surprises(trainer: Any) -> None:
    """Log what a user would otherwise notice by the results only."""
    _warn_of_schedule(trainer)
    criterion = trainer.criterion
    if untrained_criterion(trainer.optimizer, criterion):
        logger.warning("the optimizer does not hold the parameters of the criterion, so they are not trained")
    if getattr(criterion, "reduction", None) == "sum":
        logger.warning("the loss is a sum over the batch, so its gradient grows with it: set reduction='mean'")
    sums = trainer.gradient_accumulation_steps > 1 or world_size() > 1
    if sums and trainer._objective.has_unknown_denominator:
        logger.warning(
            "%s weights or ignores samples: give it a method denominator(targets) that returns what its mean "
            "divides by, otherwise micro-batches are weighted by their numbers of samples",
            type(criterion).__name__,
        )


def _warn_of_schedule(trainer: Any) -> None:
    scheduler, state = trainer.lr_scheduler, trainer.state
    if scheduler is not None and state.epoch < state.num_epochs and is_finished(scheduler):
        logger.warning(
            "%s is at its end: training continues at the learning rate %g; create a new schedule to change it",
            type(scheduler).__name__, float(trainer.optimizer.param_groups[0]["lr"]),
        )  # fmt: skip


def untrained_criterion(optimizer: Any, criterion: Any) -> bool:
    """Return whether a criterion has trainable parameters that the optimizer does not hold."""
    if not isinstance(criterion, nn.Module):
        return False
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return any(id(parameter) not in given for parameter in trainable([criterion]))
