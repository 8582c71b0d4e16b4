"""The trainer for convolutional networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whirl.engine.callbacks import Callback
from whirl.engine.device import resolve_device
from whirl.engine.precision import FullPrecision, choose_precision
from whirl.training.trainer import Trainer

logger = logging.getLogger(__name__)


class CNNTrainer(Trainer):
    """A `Trainer` with mixed precision by default, a learning-rate schedule and checkpoints.

    Args:
        model: see `Trainer`, as for all arguments not listed here.
        mixed_precision: as in `Trainer`; if the device does not support it, an info line is logged.
        lr_scheduler: stepped per optimizer step, epoch or validation, depending on its kind.
        checkpoint_dir: where to save `last.pt` (after every epoch) and `best.pt` (lowest validation loss);
            None saves nothing.
        **options: further keyword arguments of `Trainer`: `augmentation`, `checkpoint_every`, `on_nonfinite`, ...

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.randn(32, 1, 64), torch.arange(32) % 2)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=16)
        >>> model = nn.Sequential(nn.Conv1d(1, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(228, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> halve = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        >>> trainer = CNNTrainer(model, loader, None, optimizer, device="cpu", lr_scheduler=halve)
        >>> trainer.fit(3)["lr"]
        [0.1, 0.05, 0.025]
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
        lr_scheduler: Any = None,
        max_grad_norm: float | None = 1.0,
        gradient_accumulation_steps: int = 1,
        mixed_precision: bool | str | FullPrecision = True,
        checkpoint_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        device = resolve_device(device)
        # A warning would be wrong, because mixed precision is the default here and need not have been requested.
        precision = choose_precision(mixed_precision, device, on_unsupported=logger.info)
        super().__init__(
            model,
            train_loader,
            val_loader,
            optimizer,
            criterion,
            device,
            callbacks,
            gradient_accumulation_steps,
            max_grad_norm,
            precision,
            lr_scheduler=lr_scheduler,
            checkpoint_dir=checkpoint_dir,
            **options,
        )
