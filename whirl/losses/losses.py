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
  would force a synchronization in every training step.
* Windows without a label have the label `ignore_index`: their loss is 0, and the mean is taken over the others. By
  default no label is ignored; torch's -100 is then out of range.
* For the same reason, soft targets and class weights passed to a function are not checked: rows need not sum to 1 and
  weights may have any sign. The classes check their weights once, on construction.
* Scalar arguments are numbers or zero-dimensional arrays or tensors; tensors that require a gradient are rejected,
  since none would reach them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl._display import format_attributes
from whirl._precision import at_least_float32
from whirl.losses.checks import (
    Reduction,
    check_gamma,
    check_non_negative,
    check_reduction,
    check_smoothing,
    check_weight_tensor,
    copy_class_weights,
)
from whirl.losses.class_weights import compute_class_weights as compute_class_weights
from whirl.validation import check_ignore_index, unwrap_scalar

# F.cross_entropy always ignores one label; this one does not occur in any dataset.
_NO_INDEX = torch.iinfo(torch.int64).min


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = None,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
    *,
    ignore_index: int | None = None,
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
        ignore_index: label of windows without a label, which are excluded; None if there are none.

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
        return check_non_negative(alpha, "alpha") * focal_loss(
            logits, targets, None, gamma, reduction, ignore_index=ignore_index
        )
    gamma = check_gamma(gamma)
    check_reduction(reduction)
    logits, targets = validated(logits, targets)
    weight = weight_like(alpha, logits, "alpha")
    if targets.is_floating_point():
        if weight is not None:
            targets = targets * weight
        log_p = F.log_softmax(logits, dim=1)
        return reduce_losses(-(targets * (log_p * _focus(log_p, gamma))).sum(dim=1), reduction)
    losses = label_losses(logits, targets, ignore_index)
    losses = losses * _focus(-losses, gamma)
    return reduce_losses(losses, reduction, weights_of(targets, weight, ignore_index))


def smoothed_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    ignore_index: int | None = None,
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
        ignore_index: label of windows without a label, which are excluded; None if there are none.

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
    logits, targets = validated(logits, targets)
    weight = weight_like(weight, logits, "weight")
    settings: dict[str, Any] = {"weight": weight, "label_smoothing": smoothing}
    has_weights = (weight is not None or ignore_index is not None) and not targets.is_floating_point()
    if reduction != "mean" or not has_weights:
        return label_losses(logits, targets, ignore_index, reduction=reduction, **settings)
    total = label_losses(logits, targets, ignore_index, reduction="sum", **settings)
    weights = weights_of(targets, weight, ignore_index)
    return total if weights is None else _weighted_mean(total, weights)


class FocalLoss(nn.Module):
    """Focal loss with class weights, called as `criterion(logits, targets)`; see `focal_loss`.

    Args:
        alpha: weight per class `[K]`, each >= 0, e.g. from `compute_class_weights`; registered as a buffer. None
            means 1.
        gamma: focusing exponent, >= 0.
        reduction: `'none'`, `'mean'` (weighted by `alpha` over labels) or `'sum'`.
        ignore_index: label of windows without a label, see `losses`; None if there are none.

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

    def __init__(
        self,
        alpha: Tensor | None = None,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = check_ignore_index(ignore_index)
        self.gamma = check_gamma(gamma)
        check_reduction(reduction)
        self.register_buffer("alpha", copy_class_weights(alpha, "alpha"))
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "alpha", "gamma", "reduction", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.alpha, self.gamma, self.reduction, ignore_index=self.ignore_index)

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the sum of the labels' weights; None if it is the number of samples."""
        return sum_of_weights(self.alpha, targets, self.ignore_index)


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross entropy with label smoothing, called as `criterion(logits, targets)`; see `smoothed_cross_entropy`.

    Args:
        smoothing: weight of the uniform distribution, in [0, 1).
        reduction: `'none'`, `'mean'` or `'sum'`.
        ignore_index: label of windows without a label, see `losses`; None if there are none.

    Raises:
        TypeError: `smoothing` is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> LabelSmoothingCrossEntropy(smoothing=0.1)(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    task = "multiclass"

    def __init__(
        self, smoothing: float = 0.1, reduction: Reduction = "mean", *, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.ignore_index = check_ignore_index(ignore_index)
        self.smoothing = check_smoothing(smoothing)
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "smoothing", "reduction", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(
            logits, targets, self.smoothing, reduction=self.reduction, ignore_index=self.ignore_index
        )

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the number of labels; None if it is the number of samples."""
        return sum_of_weights(None, targets, self.ignore_index)


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
    def ignore_index(self) -> int | None:
        """The label of windows without a label in the data criterion."""
        return getattr(self.data_criterion, "ignore_index", None)

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


def sum_of_weights(weight: Tensor | None, targets: Tensor, ignore_index: int | None = None) -> Tensor | None:
    """Return the sum of the weights of labels `[B]`; None if it is B, and for probabilities `[B, K]`.

    Example:
        >>> sum_of_weights(torch.tensor([1.0, 3.0]), torch.tensor([0, 1, 1, -1]), ignore_index=-1)
        tensor(7.)
    """
    weights = weights_of(targets, weight, ignore_index)
    return None if weights is None else weights.sum()


def weights_of(targets: Tensor, weight: Tensor | None, ignore_index: int | None) -> Tensor | None:
    """Return the weights of labels `[B]`, 0 for those that are ignored; None if all are 1, and for probabilities."""
    if targets.is_floating_point() or (weight is None and ignore_index is None):
        return None
    if ignore_index is None:
        return None if weight is None else weight[targets]
    kept = targets != ignore_index
    if weight is None:
        return kept.float()
    return weight[targets.masked_fill(~kept, 0)] * kept


def _focus(log_p: Tensor, gamma: float) -> Tensor:
    """Compute (1 - p)^γ elementwise from log p."""
    error = 1 - log_p.exp()  # expm1 would not be more accurate: log_softmax has already rounded 1 - p
    if gamma < 1:  # the derivative of error^γ is infinite at 0
        error = error.clamp_min(torch.finfo(error.dtype).tiny)
    return error.pow(gamma)


def label_losses(
    logits: Tensor, targets: Tensor, ignore_index: int | None = None, *, reduction: Reduction = "none", **settings: Any
) -> Tensor:
    """Compute `F.cross_entropy` of labels or probabilities, 0 for ignored labels, and name a label out of range."""
    ignored = _NO_INDEX if ignore_index is None else ignore_index
    try:
        return F.cross_entropy(logits, targets, ignore_index=ignored, reduction=reduction, **settings)
    except IndexError:  # raised by torch's CPU kernel, which checks every label
        n_classes = logits.shape[1]
        wrong = targets[((targets < 0) | (targets >= n_classes)) & (targets != ignored)]
        raise ValueError(
            f"label {int(wrong[0])} is outside 0..{n_classes - 1}: the logits have {n_classes} classes"
        ) from None


def reduce_losses(losses: Tensor, reduction: Reduction, sample_weights: Tensor | None = None) -> Tensor:
    """Reduce losses `[B]` with sample weights `[B]` as `F.cross_entropy` does."""
    if sample_weights is not None:
        sample_weights = _cast(sample_weights, losses.dtype)
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


def validated(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
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
    logits = at_least_float32(logits)
    return logits, _cast(targets, logits.dtype if soft else torch.int64)


def weight_like(weight: Any, logits: Tensor, name: str) -> Tensor | None:
    """Validate class weights `[K]` passed to a function, and return them in the dtype of the logits."""
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
