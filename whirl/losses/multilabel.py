"""Binary cross entropy and focal loss for several faults at once, each of them present or absent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl._display import format_attributes
from whirl._precision import at_least_float32
from whirl.losses.checks import (
    Reduction,
    check_gamma,
    check_reduction,
    check_smoothing,
    check_weight_tensor,
    copy_class_weights,
)
from whirl.validation import check_number


def multilabel_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    pos_weight: Tensor | None = None,
    gamma: float = 0.0,
    alpha: float | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Compute the binary cross entropy or focal loss of K independent labels.

    With p_t the probability of the target, 1 for present and 0 for absent, the loss of a label is
    -α_t (1 - p_t)^γ log p_t (Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5); γ = 0 is binary cross
    entropy. Labels that are NaN are unknown and excluded: their loss is 0, and the mean is taken over the others.

    Args:
        logits: unnormalized scores, float `[B, K]`.
        targets: 0 for absent, 1 for present, a probability, or NaN for unknown, float `[B, K]`.
        pos_weight: factor of the loss of each label where it is present, `[K]`, each >= 0. None means 1.
        gamma: focusing exponent γ, >= 0.
        alpha: α_t is `alpha` where a label is present and 1 - `alpha` where it is absent, in [0, 1]. None means 1.
        label_smoothing: ε; targets y become (1 - ε) y + ε / 2, in [0, 1).
        reduction: `'none'`, `'mean'` over all known labels, or `'sum'`.

    Returns:
        The loss, >= 0: a scalar, or `[B, K]` for `'none'`.

    Raises:
        TypeError: the logits or targets are not floating-point tensors, or an argument is not a number.
        ValueError: the shapes differ, or an argument is out of range.

    Example:
        >>> logits = torch.tensor([[0.9, 0.9]]).logit()
        >>> multilabel_loss(logits, torch.tensor([[1.0, torch.nan]]), gamma=2.0)  # (1 - 0.9)² · -ln 0.9
        tensor(0.0011)
    """
    gamma, smoothing = check_gamma(gamma), check_smoothing(label_smoothing)
    check_reduction(reduction)
    logits, targets, known = _validated(logits, targets)
    smoothed = targets * (1 - smoothing) + smoothing / 2 if smoothing else targets
    weight = _weight_of_present(pos_weight, logits)
    losses = F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weight, reduction="none")
    if gamma:
        p = logits.sigmoid()
        error = (p + targets - 2 * p * targets).clamp_min(torch.finfo(p.dtype).tiny)  # 1 - p_t
        losses = losses * error.pow(gamma)
    if alpha is not None:
        alpha = check_number("alpha", alpha, 0, 1)
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    losses = losses.masked_fill(~known, 0)
    if reduction == "none":
        return losses
    return losses.sum() / known.sum().clamp_min(1) if reduction == "mean" else losses.sum()


def _validated(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits in at least float32, targets with 0 where they are unknown, and a mask of those that are known."""
    for name, tensor in (("logits", logits), ("targets", targets)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} are {kind}, expected a floating-point tensor")
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"logits have shape {list(logits.shape)} and targets have shape {list(targets.shape)}, expected [B, K]"
        )
    logits = at_least_float32(logits)
    known = ~targets.isnan()
    return logits, targets.to(logits.dtype).masked_fill(~known, 0), known


def _weight_of_present(pos_weight: Tensor | None, logits: Tensor) -> Tensor | None:
    if pos_weight is None:
        return None
    check_weight_tensor(pos_weight, "pos_weight")
    if pos_weight.shape != logits.shape[1:]:
        raise ValueError(f"pos_weight has shape {list(pos_weight.shape)}, expected [{logits.shape[1]}]")
    return pos_weight.to(logits.dtype)


class MultilabelBCELoss(nn.Module):
    """Binary cross entropy or focal loss of several labels, called as `criterion(logits, targets)`.

    See `multilabel_loss`. Labels that are NaN are unknown and excluded, also from the accuracy that trainers report.

    Args:
        pos_weight: factor of the loss of each label where it is present, `[K]`, each >= 0; registered as a buffer.
        gamma: focusing exponent, >= 0; 0 is binary cross entropy.
        alpha: weight of present labels relative to 1 - `alpha` of absent ones, in [0, 1]. None means 1 for both.
        label_smoothing: share of the targets that is replaced by 1/2, in [0, 1).
        reduction: `'none'`, `'mean'` over all known labels, or `'sum'`.

    Raises:
        TypeError: `pos_weight` is not a tensor, or an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> MultilabelBCELoss()(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, torch.nan]]))  # ln 2
        tensor(0.6931)
    """

    task = "multilabel"
    ignores_nan = True
    pos_weight: Tensor | None

    def __init__(
        self,
        pos_weight: Tensor | None = None,
        gamma: float = 0.0,
        alpha: float | None = None,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.register_buffer("pos_weight", copy_class_weights(pos_weight, "pos_weight"))
        self.gamma = check_gamma(gamma)
        self.alpha = None if alpha is None else check_number("alpha", alpha, 0, 1)
        self.label_smoothing = check_smoothing(label_smoothing)
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "pos_weight", "gamma", "alpha", "label_smoothing", "reduction")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return multilabel_loss(
            logits,
            targets,
            pos_weight=self.pos_weight,
            gamma=self.gamma,
            alpha=self.alpha,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )

    def denominator(self, targets: Tensor) -> Tensor:
        """Return what the mean divides by: the number of known labels."""
        return (~targets.isnan()).sum()
