"""The forms in which a batch may come."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch


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
    """Bring what a loader yields to one form, on the device; a missing channel axis is added.

    Args:
        batch: `(signals, targets)`, `(signals, targets, metadata)`, or a mapping with `signal`, `label`
            and metadata keys.
        device: where to move the tensors.

    Raises:
        TypeError: another form.
        ValueError: signals and targets differ in number.

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
            raise TypeError("targets [B] are floats: expected class indices, or class weights [B, K]")
        targets = targets.long()
    if len(signals) != len(targets):
        raise ValueError(f"a batch has {len(signals)} signals but {len(targets)} targets")
    if device.type != "cpu":
        signals = signals.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        metadata = {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in metadata.items()}
    return Batch(signals, targets, metadata)


def call_model(model: torch.nn.Module, batch: Batch) -> Any:
    """Outputs of a network for a batch; one whose `forward` has a parameter `metadata` is given the batch's."""
    if _takes_metadata(type(getattr(model, "module", model))):
        return model(batch.signals, metadata=batch.metadata)
    return model(batch.signals)


@functools.cache
def _takes_metadata(kind: type[torch.nn.Module]) -> bool:
    return "metadata" in inspect.signature(kind.forward).parameters


def _parts(batch: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    if isinstance(batch, Mapping):
        if "signal" not in batch or "label" not in batch:
            raise TypeError(f"a batch mapping needs 'signal' and 'label'; it has {sorted(map(str, batch))}")
        metadata = {key: value for key, value in batch.items() if key not in ("signal", "label")}
        return batch["signal"], batch["label"], metadata
    if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        metadata = batch[2] if len(batch) == 3 else {}
        if not isinstance(metadata, Mapping):
            raise TypeError(f"the third part of a batch is {type(metadata).__name__}, expected tensors by name")
        return batch[0], batch[1], dict(metadata)
    raise TypeError(
        "a batch is (signals, targets), (signals, targets, metadata) or a mapping with 'signal' and 'label', "
        f"not {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
    )
