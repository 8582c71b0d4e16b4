"""Class weights for losses of imbalanced data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whirl.validation import check_ignore_index, check_number, implied_num_classes, unwrap_scalar

Labels = NDArray[Any] | Sequence[int] | Tensor


def compute_class_weights(labels: Labels, num_classes: int | None = None, *, ignore_index: int | None = None) -> Tensor:
    """Compute weights under which all classes contribute equally: w_c = N / (K · n_c) for n_c labels of class c.

    This is the `'balanced'` heuristic (King and Zeng 2001). Averaged over the labels, the weights are 1.

    Args:
        labels: integers `[N]` in 0..K-1, N >= 1.
        num_classes: number of classes K, >= 1. None means the largest label plus 1, for labels below 10,000.
        ignore_index: label of windows without a label, which are not counted; None if there are none.

    Returns:
        float32 `[K]`, on the CPU. A class without labels gets weight 0, and a warning is issued.

    Raises:
        TypeError: the labels, or `num_classes`, are not integers.
        ValueError: there are no labels, they are not `[N]`, or one is outside 0..K-1.

    Example:
        >>> compute_class_weights([0, 0, 0, 1])
        tensor([0.6667, 2.0000])
    """
    counts = _count_labels(labels, num_classes, ignore_index)
    return _as_weights(counts.sum() / (len(counts) * np.maximum(counts, 1)), counts)


def effective_number_weights(
    labels: Labels, num_classes: int | None = None, *, beta: float = 0.999, ignore_index: int | None = None
) -> Tensor:
    """Compute class-balanced weights: w_c proportional to (1 - β) / (1 - β^n_c), for n_c labels of class c.

    (1 - β^n) / (1 - β) is the effective number of n overlapping samples: windows of the same machine resemble each
    other, so that many of them count less than their number. The sum of the weights is K, as in the authors' code
    (Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples). `beta=0` gives equal weights; towards 1
    the weights become proportional to those of `compute_class_weights`.

    Args:
        labels: see `compute_class_weights`.
        num_classes: see `compute_class_weights`.
        beta: β, in [0, 1).
        ignore_index: see `compute_class_weights`.

    Returns:
        float32 `[K]`, on the CPU, e.g. for `FocalLoss(alpha=...)`. A class without labels gets weight 0, and a warning
        is issued.

    Raises:
        TypeError: see `compute_class_weights`.
        ValueError: see `compute_class_weights`, or `beta` is out of range.

    Example:
        >>> effective_number_weights([0, 0, 0, 1], beta=0.5)  # 1 / 1.75 and 1 / 1, scaled to a sum of 2
        tensor([0.7273, 1.2727])
    """
    if not check_number("beta", beta, 0) < 1:
        raise ValueError(f"beta is {beta!r}, expected a number in [0, 1)")
    counts = _count_labels(labels, num_classes, ignore_index)
    effective = -np.expm1(np.maximum(counts, 1) * np.log1p(float(beta) - 1)) if beta else np.ones(len(counts))
    weights = np.where(counts > 0, 1 / effective, 0.0)
    return _as_weights(weights * len(counts) / weights.sum(), counts)


def class_priors(labels: Labels, num_classes: int | None = None, *, ignore_index: int | None = None) -> Tensor:
    """Compute the share of each class among the labels.

    Args:
        labels: see `compute_class_weights`.
        num_classes: see `compute_class_weights`.
        ignore_index: see `compute_class_weights`.

    Returns:
        float32 `[K]`, with a sum of 1, on the CPU.

    Raises:
        TypeError: see `compute_class_weights`.
        ValueError: see `compute_class_weights`.

    Example:
        >>> class_priors([0, 0, 0, 1])
        tensor([0.7500, 0.2500])
    """
    counts = _count_labels(labels, num_classes, ignore_index)
    return torch.from_numpy(counts / counts.sum()).float()


def _as_weights(weights: NDArray[Any], counts: NDArray[Any]) -> Tensor:
    """Return the weights, 0 with a warning for classes without labels."""
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        names = ", ".join(map(str, absent[:10])) + (f" and {absent.size - 10} more" if absent.size > 10 else "")
        warnings.warn(f"no labels of class {names} (of {len(counts)}): the class weight is 0", stacklevel=3)
    return torch.from_numpy(np.where(counts > 0, weights, 0.0)).float()


def _count_labels(labels: Labels, num_classes: int | None, ignore_index: int | None) -> NDArray[np.int64]:
    """Return the number of labels of each class, `[K]`."""
    num_classes, ignored = unwrap_scalar(num_classes), check_ignore_index(ignore_index)
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, Integral)):
        raise TypeError(f"num_classes is {num_classes!r}, expected an integer")
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim == 1 and ignored is not None:
        values = values[values != ignored]
    if values.ndim != 1 or not values.size:
        raise ValueError(f"labels have shape {list(values.shape)}, expected [N] with N >= 1")
    if values.dtype.kind not in "iu":
        raise TypeError(f"labels have dtype {values.dtype}, expected integers")
    _check_range(int(values.min()), int(values.max()), num_classes)
    return np.bincount(values.astype(np.int64), minlength=num_classes or 0)


def _check_range(lowest: int, highest: int, num_classes: int | None) -> None:
    if num_classes is None:
        implied_num_classes(highest)
    if lowest < 0 or (num_classes is not None and highest >= num_classes):
        expected = "integers >= 0" if num_classes is None else f"0..{num_classes - 1} (num_classes={num_classes})"
        raise ValueError(f"labels range from {lowest} to {highest}, expected {expected}")
