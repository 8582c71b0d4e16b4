"""The forms that a batch may have, and how to hand it to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import torch
from torch.nn import functional as F

from whirl.engine.wrappers import takes_metadata, unwrap


class Batch(NamedTuple):
    """A batch on the device.

    Attributes:
        signals: `[B, C, T]`, or `[B, C, F, T]` for time-frequency maps.
        targets: class indices int64 `[B]`, class weights float `[B, K]`, or numbers to predict.
        metadata: further tensors `[B]` by name, e.g. `rpm`.
    """

    signals: torch.Tensor
    targets: torch.Tensor
    metadata: dict[str, torch.Tensor]


def as_batch(batch: Any, device: torch.device, *, float_targets: bool = False) -> Batch:
    """Convert what a loader yields to a `Batch` on the device, adding a missing channel axis.

    Args:
        batch: `(signals, targets)`, `(signals, targets, metadata)`, or a mapping with `signal`, `label`
            and metadata keys.
        device: where to move the tensors.
        float_targets: accept floating-point targets `[B]`, e.g. of a regression.

    Raises:
        TypeError: the batch has another form, or holds something other than tensors.
        ValueError: the numbers of signals and targets differ.

    Example:
        >>> batch = as_batch((torch.zeros(4, 2048), torch.zeros(4, dtype=torch.int32)), torch.device("cpu"))
        >>> batch.signals.shape, batch.targets.dtype
        (torch.Size([4, 1, 2048]), torch.int64)
    """
    signals, targets, metadata = _parts(batch)
    if not (isinstance(signals, torch.Tensor) and isinstance(targets, torch.Tensor)):
        _raise_no_tensors(signals, targets)
    if signals.ndim == 2:
        signals = signals.unsqueeze(1)
    if targets.ndim == 1 and targets.dtype != torch.int64:
        if not targets.is_floating_point():
            targets = targets.long()
        elif not float_targets:
            raise TypeError(f"targets [B] are {targets.dtype}, expected integer class indices [B] or weights [B, K]")
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


def _raise_no_tensors(signals: Any, targets: Any) -> NoReturn:
    name, value = ("targets", targets) if isinstance(signals, torch.Tensor) else ("signals", signals)
    raise TypeError(
        f"the {name} of a batch are a {type(value).__name__}, expected a tensor: use torch.as_tensor, or a DataLoader, "
        "which collates arrays and numbers to tensors"
    )


def call_model(model: torch.nn.Module, batch: Batch) -> Any:
    """Return the logits of a network for a batch, passing the metadata if it takes them (see `takes_metadata`).

    Raises:
        TypeError: the network returns neither a tensor nor a mapping with `logits`.
    """
    outputs = model(batch.signals, metadata=batch.metadata) if takes_metadata(model) else model(batch.signals)
    return outputs if isinstance(outputs, torch.Tensor) else _logits(outputs, model)


def _logits(outputs: Any, model: torch.nn.Module) -> torch.Tensor:
    """Return the entry `logits` of a mapping, or of an object such as the outputs of the transformers library."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    found = f"the keys {sorted(map(str, outputs))}" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
    raise TypeError(
        f"{type(unwrap(model)).__name__} returns {found}, expected a tensor of logits or a mapping with the key "
        "'logits': return the logits alone, or override Trainer.forward"
    )


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


def n_batches_of(loader: Any) -> int | None:
    """Return the number of batches in an epoch, or None if the loader has no length."""
    try:
        return len(loader)
    except TypeError:
        return None
