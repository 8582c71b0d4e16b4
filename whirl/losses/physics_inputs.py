"""What physics losses are given: logits, and what is known of each window."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Metadata = Mapping[str, Any]
"""Tensors `[B]` by name, or numbers that hold for the whole batch."""


def class_index(key: int | str, classes: Sequence[str] | None) -> int:
    """Index of a class that is given by index or name.

    Raises:
        KeyError: there is no such class.

    Example:
        >>> class_index("wear", ["healthy", "wear"])
        1
    """
    if isinstance(key, str) and key in (classes or ()):
        return list(classes or ()).index(key)
    if isinstance(key, str) or key < 0 or (classes is not None and key >= len(classes)):
        raise KeyError(f"class {key!r} is none of the classes {classes}")
    return int(key)


def full_precision(predictions: Tensor) -> Tensor:
    """Predictions in float64 if they are, else in float32.

    Raises:
        ValueError: they are no floating point numbers.
    """
    if not predictions.is_floating_point():
        raise ValueError(f"predictions are {predictions.dtype}, expected logits")
    return predictions if predictions.dtype == torch.float64 else predictions.float()


def class_logits(predictions: Tensor, n_classes: int) -> Tensor:
    """`[B, n_classes]` in full precision; further columns are classes of which nothing is expected.

    Raises:
        ValueError: predictions have another shape, or are no floating point numbers.
    """
    if predictions.ndim != 2 or predictions.shape[1] < n_classes:
        raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected logits [B, C >= {n_classes}]")
    return full_precision(predictions)[:, :n_classes]


def first_known(names: Sequence[str], metadata: Metadata) -> str:
    """The first of alternative names that the metadata have, or an empty string."""
    return next((name for name in names if name in metadata), "")


def per_window(metadata: Metadata, name: str, n_windows: int, device: torch.device) -> Tensor:
    """`[B]` values of metadata that may hold one for all.

    Raises:
        ValueError: there is neither one value nor one for each window.
    """
    values = torch.as_tensor(metadata[name], device=device)
    if values.shape not in ((), (n_windows,)):
        raise ValueError(f"metadata {name!r} has shape {tuple(values.shape)}, expected one value or ({n_windows},)")
    return values if values.ndim else values.expand(n_windows)


class WarnOnce:
    """Says why a loss is 0, the first time that it is."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, False

    def __call__(self, reason: str | None) -> None:
        if reason and not self.said:
            self.said = True
            warnings.warn(f"the {self.name} loss is 0: {reason}", stacklevel=3)
