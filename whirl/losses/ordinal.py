"""A loss for ordered classes, such as severities: a prediction costs more the further it is from the label."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from whirl._display import format_attributes
from whirl.losses.checks import Reduction, check_reduction, copy_class_weights
from whirl.losses.losses import reduce_losses, sum_of_weights, validated, weight_like, weights_of
from whirl.validation import check_ignore_index


def ranked_probability_loss(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    *,
    ignore_index: int | None = None,
) -> Tensor:
    """Compute the ranked probability score: Σ_k (P_k - Y_k)², with the cumulative sums P of p and Y of the target.

    Classes must be numbered in their order, e.g. by severity. A certain prediction costs the number of steps between it
    and the label, whereas cross entropy does not depend on which wrong class is predicted. The score is minimized by
    the true probabilities (Epstein 1969, A Scoring System for Probability Forecasts of Ranked Categories); it is also
    called the squared earth mover's distance (Hou et al. 2016). For two classes it is (p_1 - y_1)², half the Brier
    score.

    Args:
        logits: unnormalized scores of K ordered classes, float `[B, K]`, K >= 2.
        targets: labels `[B]` in 0..K-1 or probabilities `[B, K]`.
        weight: weight per class `[K]` of labels, each >= 0. None means 1.
        reduction: `'none'`, `'mean'` or `'sum'`.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Returns:
        The loss, from 0 to K - 1: a scalar, or `[B]` for `'none'`.

    Raises:
        TypeError: the logits are not floating-point, or `weight` is not a tensor.
        ValueError: the shapes do not match, a label is out of range, or the reduction is unknown.

    Example:
        >>> import torch
        >>> certain = 100 * torch.eye(4)  # of classes 0, 1, 2 and 3
        >>> ranked_probability_loss(certain, torch.zeros(4).long(), reduction="none")
        tensor([0., 1., 2., 3.])
    """
    check_reduction(reduction)
    logits, targets = validated(logits, targets)
    weights = weights_of(targets, weight_like(weight, logits, "weight"), ignore_index)
    if not targets.is_floating_point():
        targets = _one_hot(targets, logits, ignore_index)
    gaps = (logits.softmax(1) - targets).cumsum(1)[:, :-1]  # the last sums are both 1
    return reduce_losses(gaps.square().sum(1), reduction, weights)


def _one_hot(labels: Tensor, like: Tensor, ignore_index: int | None) -> Tensor:
    """Return labels as probabilities; ignored ones count as class 0, and have weight 0."""
    n_classes = like.shape[1]
    if ignore_index is not None:
        labels = labels.masked_fill(labels == ignore_index, 0)
    if labels.is_cpu and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        wrong = labels[(labels < 0) | (labels >= n_classes)]
        raise ValueError(f"label {int(wrong[0])} is outside 0..{n_classes - 1}: the logits have {n_classes} classes")
    return F.one_hot(labels, n_classes).to(like.dtype)


class RankedProbabilityLoss(nn.Module):
    """Ranked probability score of ordered classes, called as `criterion(logits, targets)`.

    See `ranked_probability_loss`.

    Args:
        weight: weight per class `[K]`, each >= 0; registered as a buffer. None means 1.
        reduction: `'none'`, `'mean'` (weighted by `weight` over labels) or `'sum'`.
        ignore_index: label of windows without a label; None if there are none.

    Raises:
        TypeError: `weight` is not a tensor.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> RankedProbabilityLoss()(torch.zeros(1, 2), torch.tensor([0]))  # (1/2 - 1)²
        tensor(0.2500)
    """

    task = "multiclass"
    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, reduction: Reduction = "mean", *, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.register_buffer("weight", copy_class_weights(weight, "weight"))
        self.reduction: Reduction = reduction
        self.ignore_index = check_ignore_index(ignore_index)

    def extra_repr(self) -> str:
        return format_attributes(self, "weight", "reduction", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return ranked_probability_loss(logits, targets, self.weight, self.reduction, ignore_index=self.ignore_index)

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the sum of the labels' weights; None if it is the number of samples."""
        return sum_of_weights(self.weight, targets, self.ignore_index)
