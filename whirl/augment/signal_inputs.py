"""Shapes of the inputs of signal augmentations."""

from __future__ import annotations

import torch
from torch import Tensor

from whirl.validation import check_floating

Labels = Tensor | int
"""Class indices `[B]`, class weights `[B, K]`, or the index of a single signal."""


def check_signal(signal: Tensor) -> None:
    """Validate a signal `[..., T]`.

    Raises:
        TypeError: it is not a floating-point tensor.
        ValueError: it has no axis, or an axis is empty.
    """
    check_floating("signal", signal)
    if signal.ndim == 0 or signal.numel() == 0:
        raise ValueError(f"signal has shape {list(signal.shape)}, expected [B, C, T], none empty")


def as_signal_batch(signal: Tensor) -> Tensor:
    """Validate a signal and return it as `[B, C, T]`, if possible as a view.

    `[B, T]` gets a channel axis, `[T]` is a single signal, and further axes before the last one are channels.
    """
    check_signal(signal)
    if signal.ndim == 3:
        return signal
    return signal.flatten(1, -2) if signal.ndim > 3 else signal.reshape(-1, 1, signal.shape[-1])


def as_label_batch(label: Labels, batch: Tensor) -> Tensor:
    """Return the labels as a tensor with one entry per signal of the batch.

    Raises:
        ValueError: the number of labels is not that of the signals.
    """
    labels = label if isinstance(label, Tensor) else torch.as_tensor(label, device=batch.device)
    labels = labels[None] if labels.ndim == 0 else labels
    if len(labels) != len(batch):
        raise ValueError(f"labels have shape {list(labels.shape)}, expected one for each of {len(batch)} signals")
    return labels
