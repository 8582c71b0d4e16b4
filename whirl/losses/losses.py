"""Classification losses: focal loss, label smoothing, and a weighted sum of data and physics losses.

`focal_loss` and `smoothed_cross_entropy` are pure functions; the classes here and those in `cnn_losses` are thin
wrappers around them. Throughout, logits are `[B, K]`, p = softmax(logits), and targets are either labels `[B]` or
probabilities `[B, K]` (soft targets y):

* Half-precision logits are computed in float32; losses are float32 (float64 for float64 logits). Loss and gradient are
  finite as long as no difference of two logits overflows, in float32 for logits within ±1e38; beyond, soft targets
  give NaN.
* `reduction` is `'none'` (one loss per sample, `[B]`), `'sum'` or `'mean'`. As in torch, the mean is taken over the
  samples, except that with labels and class weights w it is Σ w_t · loss / Σ w_t. If all labels of a batch have
  weight 0, the mean is 0 with gradient 0 (torch returns NaN).
* A label outside 0..K-1 raises `ValueError` on the CPU. On an accelerator the kernel detects it: checking labels here
  would force a synchronization in every training step. There is no ignore index; torch's -100 is out of range.
* For the same reason, soft targets and class weights passed to a function are not checked: rows need not sum to 1 and
  weights may have any sign. The classes check their weights once, on construction.
* Scalar arguments are numbers or zero-dimensional arrays or tensors; tensors that require a gradient are rejected,
  since none would reach them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from whirl._display import format_attributes
from whirl.losses.checks import (
    Reduction,
    check_gamma,
    check_non_negative,
    check_reduction,
    check_smoothing,
    check_weight_tensor,
    copy_class_weights,
)
from whirl.validation import unwrap_scalar

_MAX_IMPLIED_CLASSES = 10_000  # larger labels are more likely names, such as dates, than indices

# F.cross_entropy always ignores one label; this one does not occur in any dataset.
_IGNORE_INDEX = torch.iinfo(torch.int64).min


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = None,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Compute the focal loss, a cross entropy that down-weights samples that are already classified well.

    FL = -α_t (1 - p_t)^γ log p_t (Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5) with softmax
    probabilities; for soft targets Σ_k -y_k α_k (1 - p_k)^γ log p_k. `gamma=0` is cross entropy weighted by `alpha`.

    Args:
        logits: unnormalized scores, float `[B, K]`.
        targets: labels `[B]` in 0..K-1 or probabilities `[B, K]`.
        alpha: weight per class `[K]`, each >= 0, which for labels also weights the mean as in `F.cross_entropy`; or
            a single factor >= 0 by which the loss is multiplied. None means 1.
        gamma: focusing exponent γ, >= 0.
        reduction: `'none'`, `'mean'` or `'sum'`.

    Returns:
        The loss, >= 0: a scalar, or `[B]` for `'none'`.

    Raises:
        TypeError: `alpha` is neither a number nor a tensor, `gamma` is not a number, or the logits are not
            floating-point.
        ValueError: the shapes do not match, a label is out of range, `alpha` or `gamma` is negative, or the reduction
            is unknown.

    Example:
        >>> logits = torch.tensor([0.9, 0.1]).log()[None]  # p = 0.9 for class 0
        >>> focal_loss(logits, torch.tensor([0]))  # (1 - 0.9)² · -ln 0.9
        tensor(0.0011)
    """
    if isinstance(alpha := unwrap_scalar(alpha), Real):
        return check_non_negative(alpha, "alpha") * focal_loss(logits, targets, None, gamma, reduction)
    gamma = check_gamma(gamma)
    check_reduction(reduction)
    logits, targets = _validated(logits, targets)
    weight = _weight_like(alpha, logits, "alpha")
    if targets.is_floating_point():
        if weight is not None:
            targets = targets * weight
        log_p = F.log_softmax(logits, dim=1)
        return _reduce(-(targets * (log_p * _focus(log_p, gamma))).sum(dim=1), reduction)
    losses = _cross_entropy(logits, targets, reduction="none")
    losses = losses * _focus(-losses, gamma)
    return _reduce(losses, reduction, None if weight is None else weight.index_select(0, targets))


def smoothed_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Compute the cross entropy against targets that are mixed with the uniform distribution.

    Σ_k -w_k y'_k log p_k with y' = (1 - ε) y + ε / K (Szegedy et al. 2016, Rethinking the Inception Architecture,
    sec. 7), computed by `F.cross_entropy`.

    Args:
        logits: unnormalized scores, float `[B, K]`.
        targets: labels `[B]` in 0..K-1 or probabilities `[B, K]`.
        smoothing: ε, the weight of the uniform distribution, in [0, 1).
        weight: weight per class `[K]`, each >= 0. None means 1.
        reduction: `'none'`, `'mean'` or `'sum'`.

    Returns:
        The loss, >= 0: a scalar, or `[B]` for `'none'`.

    Raises:
        TypeError: `weight` is not a tensor, `smoothing` is not a number, or the logits are not floating-point.
        ValueError: the shapes do not match, a label is out of range, `smoothing` is outside [0, 1), or the reduction
            is unknown.

    Example:
        >>> logits = torch.tensor([0.9, 0.1]).log()[None]
        >>> smoothed_cross_entropy(logits, torch.tensor([0]), smoothing=0.2)  # 0.9 · -ln 0.9 + 0.1 · -ln 0.1
        tensor(0.3251)
    """
    smoothing = check_smoothing(smoothing)
    check_reduction(reduction)
    logits, targets = _validated(logits, targets)
    weight = _weight_like(weight, logits, "weight")
    if weight is None or reduction != "mean" or targets.is_floating_point():
        return _cross_entropy(logits, targets, weight=weight, reduction=reduction, label_smoothing=smoothing)
    total = _cross_entropy(logits, targets, weight=weight, reduction="sum", label_smoothing=smoothing)
    return _weighted_mean(total, weight.index_select(0, targets))


class FocalLoss(nn.Module):
    """Focal loss with class weights, called as `criterion(logits, targets)`; see `focal_loss`.

    Args:
        alpha: weight per class `[K]`, each >= 0, e.g. from `compute_class_weights`; registered as a buffer. None
            means 1.
        gamma: focusing exponent, >= 0.
        reduction: `'none'`, `'mean'` (weighted by `alpha` over labels) or `'sum'`.

    Raises:
        TypeError: `alpha` is not a tensor (for a single factor use `cnn_losses.FocalLoss`), or `gamma` is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> criterion = FocalLoss(alpha=torch.tensor([1.0, 3.0]))
        >>> criterion(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # (1 - 1/2)² · ln 2
        tensor(0.1733)
    """

    task = "multiclass"
    alpha: Tensor | None

    def __init__(self, alpha: Tensor | None = None, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.gamma = check_gamma(gamma)
        check_reduction(reduction)
        self.register_buffer("alpha", copy_class_weights(alpha, "alpha"))
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "alpha", "gamma", "reduction")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.alpha, self.gamma, self.reduction)

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the sum of the labels' weights; None if it is the number of samples."""
        return sum_of_weights(self.alpha, targets)


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross entropy with label smoothing, called as `criterion(logits, targets)`; see `smoothed_cross_entropy`.

    Args:
        smoothing: weight of the uniform distribution, in [0, 1).
        reduction: `'none'`, `'mean'` or `'sum'`.

    Raises:
        TypeError: `smoothing` is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> LabelSmoothingCrossEntropy(smoothing=0.1)(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    task = "multiclass"

    def __init__(self, smoothing: float = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.smoothing = check_smoothing(smoothing)
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "smoothing", "reduction")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, targets, self.smoothing, reduction=self.reduction)


class PhysicsInformedLoss(nn.Module):
    """Weighted sum of a data loss and a physics loss: w_d · data + w_p · physics.

    Args:
        data_weight: w_d, >= 0.
        physics_weight: w_p, >= 0; 0 excludes the physics loss from the sum, even if it is infinite or NaN.
        data_criterion: called as `data_criterion(predictions, targets)`, returns a scalar tensor. None means cross
            entropy.

    Raises:
        TypeError: a weight is not a number.
        ValueError: a weight is negative or not finite.

    Example:
        >>> criterion = PhysicsInformedLoss(physics_weight=0.5)
        >>> logits, targets = torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])
        >>> criterion(logits, targets, lambda predictions: predictions.square().mean() + 1.0)  # ln 2 + 0.5
        tensor(1.1931)
        >>> criterion.components(logits, targets)
        {'data_loss': tensor(0.6931), 'physics_loss': tensor(0.), 'total_loss': tensor(0.6931)}
    """

    def __init__(
        self,
        data_weight: float = 1.0,
        physics_weight: float = 0.1,
        *,
        data_criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.data_weight = check_non_negative(data_weight, "data_weight")
        self.physics_weight = check_non_negative(physics_weight, "physics_weight")
        self.data_criterion = LabelSmoothingCrossEntropy(smoothing=0.0) if data_criterion is None else data_criterion

    def extra_repr(self) -> str:
        return format_attributes(self, "data_weight", "physics_weight")

    def forward(
        self, predictions: Tensor, targets: Tensor, physics_loss: Tensor | Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        return self.components(predictions, targets, physics_loss)["total_loss"]

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean of the data criterion divides by; None if it is the number of samples."""
        from whirl.engine.objective import Objective

        return Objective(self.data_criterion).denominator(targets)

    @property
    def task(self) -> str | None:
        """The task of the data criterion."""
        from whirl.engine.objective import Objective

        return Objective(self.data_criterion).task

    def components(
        self, predictions: Tensor, targets: Tensor, physics_loss: Tensor | Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute the sum and its terms.

        Args:
            predictions: input of the data criterion, by default logits `[B, K]`.
            targets: targets of the data criterion, by default labels `[B]` or probabilities `[B, K]`.
            physics_loss: a scalar tensor, or a function that computes one from the predictions. None means 0.

        Returns:
            Scalar tensors `data_loss` and `physics_loss`, both before weighting, and `total_loss`.

        Raises:
            TypeError: the physics loss is not a tensor.
            ValueError: a term is not a scalar.
        """
        data = _scalar(self.data_criterion(predictions, targets), "data_loss")
        if physics_loss is None:
            physics_loss = torch.zeros_like(data)
        elif callable(physics_loss):
            physics_loss = physics_loss(predictions)
        physics = _scalar(physics_loss, "physics_loss")
        total = data if self.data_weight == 1 else self.data_weight * data  # saves a kernel, forward and backward
        if self.physics_weight:
            total = torch.add(total, physics, alpha=self.physics_weight)
        return {"data_loss": data, "physics_loss": physics, "total_loss": total}


def compute_class_weights(labels: NDArray[Any] | Sequence[int] | Tensor, num_classes: int | None = None) -> Tensor:
    """Compute weights under which all classes contribute equally: w_c = N / (K · n_c) for n_c labels of class c.

    This is the `'balanced'` heuristic (King and Zeng 2001). Averaged over the labels, the weights are 1.

    Args:
        labels: integers `[N]` in 0..K-1, N >= 1.
        num_classes: number of classes K, >= 1. None means the largest label plus 1, for labels below 10,000.

    Returns:
        float32 `[K]`, on the CPU. A class without labels gets weight 0, and a warning is issued.

    Raises:
        TypeError: the labels, or `num_classes`, are not integers.
        ValueError: there are no labels, they are not `[N]`, or one is outside 0..K-1.

    Example:
        >>> compute_class_weights([0, 0, 0, 1])
        tensor([0.6667, 2.0000])
    """
    num_classes = unwrap_scalar(num_classes)
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, Integral)):
        raise TypeError(f"num_classes is {num_classes!r}, expected an integer")
    counts = np.bincount(_as_int_labels(labels, num_classes), minlength=num_classes or 0)
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        names = ", ".join(map(str, absent[:10])) + (f" and {absent.size - 10} more" if absent.size > 10 else "")
        warnings.warn(f"no labels of class {names} (of {len(counts)}): the class weight is 0", stacklevel=2)
    balanced = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, balanced, 0.0)).float()


def sum_of_weights(weight: Tensor | None, targets: Tensor) -> Tensor | None:
    """Return the sum of the class weights `[K]` of labels `[B]`; None without weights, and for probabilities `[B, K]`.

    Example:
        >>> sum_of_weights(torch.tensor([1.0, 3.0]), torch.tensor([0, 1, 1]))
        tensor(7.)
    """
    return None if weight is None or targets.is_floating_point() else weight[targets].sum()


def _focus(log_p: Tensor, gamma: float) -> Tensor:
    """Compute (1 - p)^γ elementwise from log p."""
    error = 1 - log_p.exp()  # expm1 would not be more accurate: log_softmax has already rounded 1 - p
    if gamma < 1:  # the derivative of error^γ is infinite at 0
        error = error.clamp_min(torch.finfo(error.dtype).tiny)
    return error.pow(gamma)


def _cross_entropy(logits: Tensor, targets: Tensor, **kwargs: Any) -> Tensor:
    """Compute the cross entropy without an ignore index, and name a label that is out of range."""
    try:
        return F.cross_entropy(logits, targets, ignore_index=_IGNORE_INDEX, **kwargs)
    except IndexError:  # raised by torch's CPU kernel, which checks every label
        n_classes = logits.shape[1]
        wrong = targets[(targets < 0) | (targets >= n_classes)]
        raise ValueError(
            f"label {int(wrong[0])} is outside 0..{n_classes - 1}: the logits have {n_classes} classes"
        ) from None


def _reduce(losses: Tensor, reduction: Reduction, sample_weights: Tensor | None = None) -> Tensor:
    """Reduce losses `[B]` with sample weights `[B]` as `F.cross_entropy` does."""
    if sample_weights is not None:
        if reduction == "mean":
            return _weighted_mean(losses.dot(sample_weights), sample_weights)
        losses = losses * sample_weights
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def _weighted_mean(total: Tensor, sample_weights: Tensor) -> Tensor:
    """Divide the sum of weighted losses by the sum of the weights `[B]`; 0 if all weights are 0."""
    weight = sample_weights.sum()
    return total / weight.masked_fill(weight == 0, math.inf)


def _validated(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits in at least float32, and labels as int64 or probabilities in the dtype of the logits."""
    if not (isinstance(logits, Tensor) and isinstance(targets, Tensor) and logits.is_floating_point()):
        kinds = [value.dtype if isinstance(value, Tensor) else type(value).__name__ for value in (logits, targets)]
        raise TypeError(
            f"logits are {kinds[0]} and targets are {kinds[1]}, expected a floating-point tensor and a tensor"
        )
    soft = targets.is_floating_point()
    if logits.ndim != 2 or targets.shape != (logits.shape if soft else logits.shape[:1]):
        raise ValueError(
            f"logits have shape {list(logits.shape)} and targets have shape {list(targets.shape)} ({targets.dtype}), "
            "expected logits [B, K] with integer labels [B] or floating-point probabilities [B, K]"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, _cast(targets, logits.dtype if soft else torch.int64)


def _weight_like(weight: Any, logits: Tensor, name: str) -> Tensor | None:
    if weight is None:
        return None
    check_weight_tensor(weight, name)
    if weight.shape != logits.shape[1:]:
        raise ValueError(
            f"{name} has shape {list(weight.shape)}, expected [{logits.shape[1]}]: "
            f"the logits have {logits.shape[1]} classes"
        )
    return _cast(weight, logits.dtype)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # a no-op `to` takes about a microsecond


def _scalar(loss: Any, name: str) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"{name} is {loss!r}, expected a scalar tensor")
    if loss.ndim:
        raise ValueError(f"{name} has shape {list(loss.shape)}, expected a scalar")
    return loss


def _as_int_labels(labels: Any, num_classes: int | None) -> NDArray[np.int64]:
    """Return labels as int64 `[N]`, all of them in 0..K-1."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"labels have shape {list(values.shape)}, expected [N] with N >= 1")
    if values.dtype.kind not in "iu":
        raise TypeError(f"labels have dtype {values.dtype}, expected integers")
    lowest, highest = int(values.min()), int(values.max())
    if num_classes is None and highest >= _MAX_IMPLIED_CLASSES:
        raise ValueError(
            f"labels range up to {highest}, expected class indices below {_MAX_IMPLIED_CLASSES}; number the classes "
            "with np.unique(labels, return_inverse=True), or give num_classes"
        )
    if lowest < 0 or (num_classes is not None and highest >= num_classes):
        expected = "integers >= 0" if num_classes is None else f"0..{num_classes - 1} (num_classes={num_classes})"
        raise ValueError(f"labels range from {lowest} to {highest}, expected {expected}")
    return values.astype(np.int64)
