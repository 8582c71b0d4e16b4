"""A short description of a training: network, data, optimizer, precision and progress."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from whirl.engine.batch import n_batches_of
from whirl.engine.wrappers import unwrap


def training_facts(trainer: Any) -> dict[str, Any]:
    """Return values by name that describe a trainer, without reading data or tensors.

    Sizes of loaders and data sets that have no length, and parameters that are not initialized yet, are None.
    """
    optimizer, scheduler = trainer.optimizer, trainer.lr_scheduler
    network = unwrap(trainer.model)
    return {
        "model": type(network),
        "n_parameters": _n_parameters(network),
        **_sizes("train", trainer.train_loader),
        **_sizes("val", trainer.val_loader),
        "optimizer": type(optimizer),
        "lr": optimizer.param_groups[0]["lr"],
        "lr_scheduler": None if scheduler is None else type(scheduler),
        "precision": trainer.precision.name,
        "device": str(trainer.device),
        "epochs": trainer.state.epoch,
    }


def _n_parameters(network: nn.Module) -> int | None:
    parameters = list(network.parameters())
    return None if any(map(is_lazy, parameters)) else sum(parameter.numel() for parameter in parameters)


def _sizes(part: str, loader: Any) -> dict[str, int | None]:
    samples = n_batches_of(getattr(loader, "dataset", None))
    return {f"{part}_batches": n_batches_of(loader), f"{part}_samples": samples}
