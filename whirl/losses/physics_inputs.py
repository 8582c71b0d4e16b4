"""Helpers for the inputs of physics losses: logits, and metadata of each window."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whirl._precision import at_least_float32

Metadata = Mapping[str, Any]
"""Tensors, arrays or lists `[B]` by name, or numbers that hold for the entire batch; machines may be named."""


def class_index(key: int | str, classes: Sequence[str] | None) -> int:
    """Return the index of a class that is given by index or by name.

    Raises:
        KeyError: there is no such class.

    Example:
        >>> class_index("wear", ["healthy", "wear"])
        1
    """
    if isinstance(key, str) and key in (classes or ()):
        return list(classes or ()).index(key)
    if isinstance(key, str) or key < 0 or (classes is not None and key >= len(classes)):
        raise KeyError(f"unknown class {key!r}; expected an index into, or a name of, the classes {classes}")
    return int(key)


def full_precision(predictions: Tensor) -> Tensor:
    """Return float64 predictions unchanged, and all others as float32.

    Raises:
        ValueError: the predictions are not floating-point numbers.
    """
    if not predictions.is_floating_point():
        raise ValueError(f"predictions have dtype {predictions.dtype}, expected floating-point logits")
    return at_least_float32(predictions)


def class_logits(predictions: Tensor, n_classes: int) -> Tensor:
    """Return the first `n_classes` columns of the logits in full precision.

    Further columns belong to classes without expectations and are dropped.

    Raises:
        ValueError: the predictions are not `[B, C]` with C >= `n_classes`, or not floating-point numbers.
    """
    if predictions.ndim != 2 or predictions.shape[1] < n_classes:
        raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected logits [B, C >= {n_classes}]")
    return full_precision(predictions)[:, :n_classes]


def first_available(names: Sequence[str], metadata: Metadata) -> str:
    """Return the first of several alternative names that the metadata contain, or an empty string."""
    return next((name for name in names if name in metadata), "")


def per_window(metadata: Metadata, name: str, n_windows: int, device: torch.device) -> Tensor:
    """Return metadata values as `[B]`, expanding a single value for the entire batch; names are numbered.

    Raises:
        ValueError: there is neither a single value nor one per window.
    """
    given = metadata[name]
    if not isinstance(given, Tensor) and (names := np.asarray(given)).dtype.kind in "USO":
        given = np.unique(names, return_inverse=True)[1]
    values = torch.as_tensor(given, device=device)
    if values.shape not in ((), (n_windows,)):
        raise ValueError(f"metadata {name!r} has shape {tuple(values.shape)}, expected one value or ({n_windows},)")
    return values if values.ndim else values.expand(n_windows)


class WarnOnce:
    """Warns why a loss is 0, the first time it happens."""

    def __init__(self, name: str) -> None:
        self.name, self.warned = name, False

    def __call__(self, reason: str | None) -> None:
        if reason and not self.warned:
            self.warned = True
            warnings.warn(f"the {self.name} loss is 0: {reason}", stacklevel=3)
