"""The forms that a batch may have, and how to hand it to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from whirl.engine.wrappers import takes_metadata


class Batch(NamedTuple):
    """A batch on the device.

    Attributes:
        signals: `[B, C, T]`, or `[B, C, F, T]` for time-frequency maps.
        targets: class indices int64 `[B]`, or class weights float `[B, K]`.
        metadata: further tensors `[B]` by name, e.g. `rpm`.
    """

    signals: torch.Tensor
    targets: torch.Tensor
    metadata: dict[str, torch.Tensor]


def as_batch(batch: Any, device: torch.device) -> Batch:
    """Convert what a loader yields to a `Batch` on the device, adding a missing channel axis.

    Args:
        batch: `(signals, targets)`, `(signals, targets, metadata)`, or a mapping with `signal`, `label`
            and metadata keys.
        device: where to move the tensors.

    Raises:
        TypeError: the batch has another form.
        ValueError: the numbers of signals and targets differ.

    Example:
        >>> batch = as_batch((torch.zeros(4, 2048), torch.zeros(4, dtype=torch.int32)), torch.device("cpu"))
        >>> batch.signals.shape, batch.targets.dtype
        (torch.Size([4, 1, 2048]), torch.int64)
    """
    signals, targets, metadata = _parts(batch)
    if signals.ndim == 2:
        signals = signals.unsqueeze(1)
    if targets.ndim == 1 and targets.dtype != torch.int64:
        if targets.is_floating_point():
            raise TypeError(f"targets [B] are {targets.dtype}, expected integer class indices [B] or weights [B, K]")
        targets = targets.long()
    if len(signals) != len(targets):
        raise ValueError(f"a batch has {len(signals)} signals but {len(targets)} targets")
    if device.type != "cpu":
        signals = signals.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        metadata = {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in metadata.items()}
    return Batch(signals, targets, metadata)


def _parts(batch: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    if isinstance(batch, Mapping):
        if "signal" not in batch or "label" not in batch:
            raise TypeError(f"a batch has the keys {sorted(map(str, batch))}, expected 'signal' and 'label' among them")
        metadata = {key: value for key, value in batch.items() if key not in ("signal", "label")}
        return batch["signal"], batch["label"], metadata
    if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        metadata = batch[2] if len(batch) == 3 else {}
        if not isinstance(metadata, Mapping):
            raise TypeError(f"the metadata of a batch are a {type(metadata).__name__}, expected tensors by name")
        return batch[0], batch[1], dict(metadata)
    size = f" of {len(batch)} elements" if isinstance(batch, (tuple, list)) else ""
    raise TypeError(
        f"a batch is a {type(batch).__name__}{size}, expected (signals, targets), (signals, targets, metadata) or a "
        "mapping with 'signal' and 'label'"
    )


def call_model(model: torch.nn.Module, batch: Batch) -> Any:
    """Return the outputs of a network for a batch, passing the metadata if it takes them (see `takes_metadata`)."""
    if takes_metadata(model):
        return model(batch.signals, metadata=batch.metadata)
    return model(batch.signals)


def pad_targets(targets: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Append zeros to class weights `[B, K']` up to the K classes of the logits; return class indices unchanged.

    Augmentation that mixes labels returns only as many columns as its batch has classes.

    Example:
        >>> pad_targets(torch.tensor([[0.25, 0.75]]), outputs=torch.zeros(1, 3))
        tensor([[0.2500, 0.7500, 0.0000]])
    """
    if targets.ndim < 2 or outputs.ndim != 2 or targets.shape[1] >= outputs.shape[1]:
        return targets
    return F.pad(targets, (0, outputs.shape[1] - targets.shape[1]))


def count_correct(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the logits `[B, K]` whose largest entry is the target's class, 0-dimensional, without a gradient.

    Class weights `[B, K]` count as their largest entry; outputs beyond the last target are ignored.

    Example:
        >>> count_correct(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor(1)
    """
    labels = targets.argmax(1) if targets.ndim > 1 else targets
    return (outputs.detach()[: len(labels)].argmax(1) == labels).sum()


def n_batches_of(loader: Any) -> int | None:
    """Return the number of batches in an epoch, or None if the loader has no length."""
    try:
        return len(loader)
    except TypeError:
        return None
