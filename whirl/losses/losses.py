"""Objectives for classification: focal loss, label smoothing, and data with physics in one sum.

`focal_loss` and `smoothed_cross_entropy` are pure functions; the classes here and those in `cnn_losses` are a few
lines over them. With logits `[B, K]`, p = softmax(logits), and targets that are labels `[B]` or probabilities
`[B, K]` (soft targets y):

* Half-precision logits are computed in float32; losses are float32 (float64 for float64). Loss and gradient are finite
  for all logits of which no difference overflows, in float32 those within ±1e38; beyond, soft targets make nan.
* `reduction` is `'none'` (a loss per sample `[B]`), `'sum'`, or `'mean'`. Means are torch's: over the samples,
  except that labels with class weights w are averaged as Σ w_t · loss / Σ w_t. Where all labels of a batch weigh 0,
  that is 0 with a gradient of 0 (in torch nan).
* A label outside 0..K-1 raises on the CPU. An accelerator's kernel finds it by itself: looking at the labels here
  would make every training step wait. No label is left out; torch's -100 is out of range like any other.
* Soft targets and class weights given to a function are taken as they come, for the same reason: no row is checked for
  its sum, no weight for its sign. The classes check their weights once.
* Where a number is expected, a tensor is refused: no gradient would reach it.

Only torch and NumPy are imported.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Reduction = Literal["none", "mean", "sum"]

# cross_entropy always ignores one label; no data set has this one.
_IGNORE_INDEX = torch.iinfo(torch.int64).min


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = None,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy that turns from samples already classified well to those that are not.

    FL = -α_t (1 - p_t)^γ log p_t (Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5) with softmax
    probabilities; for soft targets Σ_k -y_k α_k (1 - p_k)^γ log p_k. `gamma=0` is cross entropy weighted by `alpha`.

    Args:
        logits: `[B, K]`, any real numbers.
        targets: labels `[B]` in 0..K-1 or probabilities `[B, K]`.
        alpha: weight per class `[K]`, each >= 0, which also weighs the mean over labels as in `F.cross_entropy`; or
            one factor >= 0 for the whole loss; None is 1.
        gamma: focusing exponent γ, >= 0.
        reduction: `'none'`, `'mean'` or `'sum'`.

    Returns:
        The loss, >= 0: a scalar, or `[B]` for `'none'`.

    Raises:
        TypeError: `alpha` is neither a number nor a tensor, `gamma` is no number, or the logits are not floating-point.
        ValueError: shapes that do not fit, a label out of range, a negative number, or an unknown reduction.

    Example:
        >>> logits = torch.tensor([0.9, 0.1]).log()[None]  # p = 0.9 for class 0
        >>> focal_loss(logits, torch.tensor([0]))  # (1 - 0.9)² · -ln 0.9
        tensor(0.0011)
    """
    if isinstance(alpha, Real):
        return check_non_negative(alpha, "alpha") * focal_loss(logits, targets, None, gamma, reduction)
    gamma = check_gamma(gamma)
    check_reduction(reduction)
    logits, targets = _matched(logits, targets)
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
    """Cross entropy against targets mixed with the uniform distribution.

    Σ_k -w_k y'_k log p_k with y' = (1 - ε) y + ε / K (Szegedy et al. 2016, Rethinking the Inception Architecture,
    sec. 7); torch's own kernel computes it.

    Args:
        logits: `[B, K]`, any real numbers.
        targets: labels `[B]` in 0..K-1 or probabilities `[B, K]`.
        smoothing: ε, the share of the uniform distribution, in [0, 1).
        weight: weight per class `[K]`, each >= 0; None is 1.
        reduction: `'none'`, `'mean'` or `'sum'`.

    Returns:
        The loss, >= 0: a scalar, or `[B]` for `'none'`.

    Raises:
        TypeError: `weight` is no tensor, `smoothing` no number, or the logits are not floating-point.
        ValueError: shapes that do not fit, a label out of range, `smoothing` outside [0, 1), or an unknown reduction.

    Example:
        >>> logits = torch.tensor([0.9, 0.1]).log()[None]
        >>> smoothed_cross_entropy(logits, torch.tensor([0]), smoothing=0.2)  # 0.9 · -ln 0.9 + 0.1 · -ln 0.1
        tensor(0.3251)
    """
    smoothing = check_smoothing(smoothing)
    check_reduction(reduction)
    logits, targets = _matched(logits, targets)
    weight = _weight_like(weight, logits, "weight")
    if weight is None or reduction != "mean" or targets.is_floating_point():
        return _cross_entropy(logits, targets, weight=weight, reduction=reduction, label_smoothing=smoothing)
    total = _cross_entropy(logits, targets, weight=weight, reduction="sum", label_smoothing=smoothing)
    return _weighted_mean(total, weight.index_select(0, targets))


class FocalLoss(nn.Module):
    """`focal_loss` with a weight per class; called as `criterion(logits, targets)`.

    Args:
        alpha: weight per class `[K]`, each >= 0, for instance from `compute_class_weights`; a buffer. None is 1.
        gamma: focusing exponent, >= 0.
        reduction: `'none'`, `'mean'` (weighted by `alpha` over labels) or `'sum'`.

    Raises:
        TypeError: `alpha` is no tensor (the loss with one factor is `cnn_losses.FocalLoss`), or `gamma` no number.
        ValueError: an argument is out of range.

    Example:
        >>> criterion = FocalLoss(alpha=torch.tensor([1.0, 3.0]))
        >>> criterion(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # (1 - 1/2)² · ln 2
        tensor(0.1733)
    """

    alpha: Tensor | None

    def __init__(self, alpha: Tensor | None = None, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.gamma = check_gamma(gamma)
        check_reduction(reduction)
        self.register_buffer("alpha", copy_class_weights(alpha, "alpha"))
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.alpha, self.gamma, self.reduction)


class LabelSmoothingCrossEntropy(nn.Module):
    """`smoothed_cross_entropy` without class weights; called as `criterion(logits, targets)`.

    Args:
        smoothing: share of the uniform distribution, in [0, 1).
        reduction: `'none'`, `'mean'` or `'sum'`.

    Raises:
        TypeError: `smoothing` is no number.
        ValueError: an argument is out of range.

    Example:
        >>> LabelSmoothingCrossEntropy(smoothing=0.1)(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    def __init__(self, smoothing: float = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.smoothing = check_smoothing(smoothing)
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, targets, self.smoothing, reduction=self.reduction)


class PhysicsInformedLoss(nn.Module):
    """Weighted sum of what the data say and what physics says: w_d · data + w_p · physics.

    Args:
        data_weight: w_d, >= 0.
        physics_weight: w_p, >= 0; 0 leaves physics out of the sum, infinite or not.
        data_criterion: called as `(predictions, targets)`, returns a scalar; None is cross entropy.

    Raises:
        TypeError: a weight is no number.
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

    def forward(
        self, predictions: Tensor, targets: Tensor, physics_loss: Tensor | Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        return self.components(predictions, targets, physics_loss)["total_loss"]

    def components(
        self, predictions: Tensor, targets: Tensor, physics_loss: Tensor | Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The sum and its terms.

        Args:
            predictions: what the data criterion takes, logits `[B, K]` by default.
            targets: labels `[B]` or probabilities `[B, K]` by default.
            physics_loss: a scalar tensor, or a function that computes it from the predictions; None is 0.

        Returns:
            Scalars `data_loss` and `physics_loss`, both before weighting, and `total_loss`.

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
        total = data if self.data_weight == 1 else self.data_weight * data  # a kernel less each way
        if self.physics_weight:
            total = torch.add(total, physics, alpha=self.physics_weight)
        return {"data_loss": data, "physics_loss": physics, "total_loss": total}


def compute_class_weights(labels: NDArray[Any] | Sequence[int] | Tensor, num_classes: int | None = None) -> Tensor:
    """Weights that make all classes count alike: w_c = N / (K · n_c), n_c the number of labels of class c.

    The `'balanced'` heuristic (King and Zeng 2001); over the labels the weights average to 1.

    Args:
        labels: integers `[N]` in 0..K-1, N >= 1.
        num_classes: number of classes K, >= 1; None takes the largest label for the last class.

    Returns:
        float32 `[K]`, on the CPU. A class without labels gets 0, with a warning.

    Raises:
        TypeError: the labels, or their number of classes, are not integers.
        ValueError: there are none, they are not `[N]`, or one lies outside 0..K-1.

    Example:
        >>> compute_class_weights([0, 0, 0, 1])
        tensor([0.6667, 2.0000])
    """
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, Integral)):
        raise TypeError(f"num_classes is {num_classes!r}, expected an integer")
    counts = np.bincount(_as_int_labels(labels, num_classes), minlength=num_classes or 0)
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        names = ", ".join(map(str, absent))
        warnings.warn(f"no label is of class {names} (of {len(counts)}): its weight is 0", stacklevel=2)
    balanced = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, balanced, 0.0)).float()


def check_non_negative(value: Any, name: str) -> float:
    """A finite number >= 0, as a plain float.

    Args:
        value: the number; no tensor, for no gradient would reach it.
        name: what the caller calls it.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or not finite.
    """
    if not 0 <= (number := _number(value, name)) < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a number >= 0")
    return number


def check_gamma(gamma: float) -> float:
    """A focusing exponent: `check_non_negative`."""
    return check_non_negative(gamma, "gamma")


def check_smoothing(smoothing: float) -> float:
    """A share of the uniform distribution that leaves something of the target, as a plain float.

    Raises:
        TypeError: it is no number.
        ValueError: it lies outside [0, 1).
    """
    if not 0 <= (number := _number(smoothing, "smoothing")) < 1:
        raise ValueError(f"smoothing is {smoothing!r}, expected a number in [0, 1)")
    return number


def check_temperature(temperature: float) -> float:
    """What divides logits or similarities, as a plain float.

    Raises:
        TypeError: it is no number, but for instance a parameter.
        ValueError: it is not finite and above 0.
    """
    if not 0 < (number := _number(temperature, "temperature")) < math.inf:
        raise ValueError(f"temperature is {temperature!r}, expected a number > 0")
    return number


def check_reduction(reduction: str) -> None:
    """Refuses an unknown reduction.

    Raises:
        ValueError: it is not `'none'`, `'mean'` or `'sum'`.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}, expected 'none', 'mean' or 'sum'")


def copy_class_weights(weights: Tensor | None, name: str) -> Tensor | None:
    """A copy of class weights `[K]`, fit to be a buffer; None stays None.

    Args:
        weights: `[K]`, each finite and >= 0.
        name: what the caller calls them.

    Raises:
        TypeError: they are not a tensor.
        ValueError: they are not `[K]`, or one is negative or not finite.
    """
    if weights is None:
        return None
    _check_tensor(weights, name)
    if weights.ndim != 1:
        raise ValueError(f"{name} has the shape {list(weights.shape)}, expected one weight per class [K]")
    if not bool(((weights >= 0) & (weights < math.inf)).all()):
        raise ValueError(f"{name} is {weights.tolist()}, expected finite weights >= 0")
    return weights.detach().clone()


def _number(value: Any, name: str) -> float:
    if type(value) is float:  # the usual case, without the microsecond of the question below
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}, expected a number")
    return float(value)


def _check_tensor(weights: Any, name: str) -> None:
    if not isinstance(weights, Tensor):
        raise TypeError(f"{name} is {weights!r}, expected a tensor of one weight per class [K]")


def _focus(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p)^γ, elementwise, from log p."""
    miss = 1 - log_p.exp()  # expm1 would gain nothing: log_softmax has rounded 1 - p already
    if gamma < 1:  # the slope of miss^γ is infinite at 0
        miss = miss.clamp_min(torch.finfo(miss.dtype).tiny)
    return miss.pow(gamma)


def _cross_entropy(logits: Tensor, targets: Tensor, **kwargs: Any) -> Tensor:
    """Cross entropy that ignores no label and names one out of range."""
    try:
        return F.cross_entropy(logits, targets, ignore_index=_IGNORE_INDEX, **kwargs)
    except IndexError:  # torch's CPU kernel looks at every label anyway
        n_classes = logits.shape[1]
        wrong = targets[(targets < 0) | (targets >= n_classes)]
        raise ValueError(
            f"label {int(wrong[0])} lies outside 0..{n_classes - 1}: the logits have {n_classes} classes"
        ) from None


def _reduce(losses: Tensor, reduction: Reduction, sample_weights: Tensor | None = None) -> Tensor:
    """Losses `[B]`, times their weights `[B]`, put together as torch's `cross_entropy` does."""
    if sample_weights is not None:
        if reduction == "mean":
            return _weighted_mean(losses.dot(sample_weights), sample_weights)
        losses = losses * sample_weights
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def _weighted_mean(total: Tensor, sample_weights: Tensor) -> Tensor:
    """The weighted losses' sum over that of their weights `[B]`; 0 where all weigh 0."""
    weight = sample_weights.sum()
    return total / weight.masked_fill(weight == 0, math.inf)


def _matched(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 at least; labels as int64, or probabilities in the type of the logits."""
    if not (isinstance(logits, Tensor) and isinstance(targets, Tensor) and logits.is_floating_point()):
        kinds = [thing.dtype if isinstance(thing, Tensor) else type(thing).__name__ for thing in (logits, targets)]
        raise TypeError(f"logits are {kinds[0]} and targets {kinds[1]}, expected floating-point logits, both tensors")
    soft = targets.is_floating_point()
    if logits.ndim != 2 or targets.shape != (logits.shape if soft else logits.shape[:1]):
        raise ValueError(
            f"logits have the shape {list(logits.shape)} and targets {list(targets.shape)} ({targets.dtype}), "
            "expected logits [B, K] with whole-number labels [B] or floating-point probabilities [B, K]"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, _cast(targets, logits.dtype if soft else torch.int64)


def _weight_like(weight: Any, logits: Tensor, name: str) -> Tensor | None:
    if weight is None:
        return None
    _check_tensor(weight, name)
    if weight.shape != logits.shape[1:]:
        raise ValueError(
            f"{name} has the shape {list(weight.shape)}, expected [{logits.shape[1]}]: "
            f"the logits have {logits.shape[1]} classes"
        )
    return _cast(weight, logits.dtype)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # `to` takes a microsecond to find nothing to do


def _scalar(loss: Any, name: str) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"{name} is {loss!r}, expected a scalar tensor")
    if loss.ndim:
        raise ValueError(f"{name} has the shape {list(loss.shape)}, expected a scalar")
    return loss


def _as_int_labels(labels: Any, num_classes: int | None) -> NDArray[np.int64]:
    """Labels int64 `[N]` in 0..K-1."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"labels have the shape {list(values.shape)}, expected [N] with N >= 1")
    if values.dtype.kind not in "iu":
        raise TypeError(f"labels are {values.dtype}, expected integers")
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or (num_classes is not None and highest >= num_classes):
        expected = "integers >= 0" if num_classes is None else f"0..{num_classes - 1} (num_classes={num_classes})"
        raise ValueError(f"labels reach from {lowest} to {highest}, expected {expected}")
    return values.astype(np.int64)
