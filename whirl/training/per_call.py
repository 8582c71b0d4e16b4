"""Base of trainers whose methods take loaders and a schedule as arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from whirl.training.trainer import Trainer


class PerCallTrainer(Trainer):
    """A `Trainer` that takes loaders and a learning-rate schedule per call, for loops written by hand.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> trainer, batch = PerCallTrainer(model, (), device="cpu"), (torch.randn(8, 1, 4), torch.arange(8) % 2)
        >>> first = trainer.train_epoch([batch], epoch=0)
        >>> trainer.evaluate([batch])["loss"] < first["loss"]
        True
    """

    def train_epoch(self, train_loader: Iterable[Any] | None = None, epoch: int | None = None) -> dict[str, float]:
        """Train on all batches once.

        Args:
            train_loader: replaces the trainer's own; None keeps it.
            epoch: index of this pass over the data, from 0, for samplers that shuffle by it; None continues counting.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.
        """
        if train_loader is not None:
            self.train_loader = train_loader
        if epoch is not None:
            self.replay.passes = epoch
        return super().train_epoch()

    def evaluate(self, val_loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate the network on other data; the trainer keeps its own validation data.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.
        """
        own, self.val_loader = self.val_loader, val_loader
        try:
            return self.validate_epoch()
        finally:
            self.val_loader = own

    def use_scheduler(self, scheduler: Any) -> None:
        """Set the learning-rate scheduler, unless the trainer has another one; None keeps it.

        Raises:
            ValueError: the trainer has another scheduler.
        """
        if scheduler is None:
            return
        if self.lr_scheduler not in (None, scheduler):
            raise ValueError(
                f"scheduler is a {type(scheduler).__name__}, but the trainer has the lr_scheduler "
                f"{type(self.lr_scheduler).__name__} already: give one of them"
            )
        self.lr_scheduler = scheduler
