"""Logit adjustment: cross entropy for classes whose frequencies in training and in use differ."""

from __future__ import annotations

from torch import Tensor, nn

from whirl._display import format_attributes
from whirl.losses.checks import Reduction, check_non_negative, check_reduction, check_weight_tensor, copy_class_weights
from whirl.losses.losses import smoothed_cross_entropy, sum_of_weights, validated, weight_like
from whirl.validation import check_ignore_index


def logit_adjusted_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    priors: Tensor,
    tau: float = 1.0,
    reduction: Reduction = "mean",
    *,
    ignore_index: int | None = None,
) -> Tensor:
    """Compute the cross entropy of the logits z + τ log π, for classes with shares π in the training data.

    The network then learns scores z as if all classes were equally frequent, and their maximum minimizes the balanced
    error. Unlike class weights, this holds also for data that the network fits perfectly (Menon et al. 2021, Long-Tail
    Learning via Logit Adjustment, eq. 10). Predict with z, without adjustment.

    Args:
        logits: unnormalized scores z, float `[B, K]`.
        targets: labels `[B]` in 0..K-1 or probabilities `[B, K]`.
        priors: share of each class in the training data, `[K]`, each > 0, e.g. from `class_priors`; any positive
            multiple, such as counts, gives the same loss.
        tau: strength τ of the adjustment, >= 0; 0 is cross entropy.
        reduction: `'none'`, `'mean'` or `'sum'`.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Returns:
        The loss, >= 0: a scalar, or `[B]` for `'none'`.

    Raises:
        TypeError: `priors` are not a tensor, `tau` is not a number, or the logits are not floating-point.
        ValueError: the shapes do not match, a label is out of range, `tau` is negative, or the reduction is unknown.

    Example:
        >>> import torch
        >>> logits, label = torch.zeros(1, 2), torch.tensor([1])
        >>> logit_adjusted_cross_entropy(logits, label, torch.tensor([0.75, 0.25]))  # -ln 0.25
        tensor(1.3863)
    """
    tau = check_non_negative(tau, "tau")
    logits, targets = validated(logits, targets)
    adjustment = weight_like(priors, logits, "priors")
    adjusted = logits if adjustment is None else logits + tau * adjustment.log()
    return smoothed_cross_entropy(adjusted, targets, 0.0, reduction=reduction, ignore_index=ignore_index)


class LogitAdjustedCrossEntropy(nn.Module):
    """Logit-adjusted cross entropy, called as `criterion(logits, targets)`; see `logit_adjusted_cross_entropy`.

    In evaluation mode, which trainers set for validation, the loss is adjusted as well, so that it is comparable with
    that of the training.

    Args:
        priors: share of each class in the training data, `[K]`, each > 0; registered as a buffer.
        tau: strength of the adjustment, >= 0.
        reduction: `'none'`, `'mean'` or `'sum'`.
        ignore_index: label of windows without a label; None if there are none.

    Raises:
        TypeError: `priors` are not a tensor, or `tau` is not a number.
        ValueError: a prior is not positive, or an argument is out of range.

    Example:
        >>> import torch
        >>> criterion = LogitAdjustedCrossEntropy(torch.tensor([0.75, 0.25]))
        >>> criterion(torch.zeros(1, 2), torch.tensor([1]))
        tensor(1.3863)
    """

    task = "multiclass"
    priors: Tensor

    def __init__(
        self, priors: Tensor, tau: float = 1.0, reduction: Reduction = "mean", *, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.tau = check_non_negative(tau, "tau")
        check_reduction(reduction)
        check_weight_tensor(priors, "priors")
        if not bool((priors > 0).all()):
            raise ValueError(f"priors are {priors.tolist()}, expected a share > 0 for each class")
        self.register_buffer("priors", copy_class_weights(priors, "priors"))
        self.reduction: Reduction = reduction
        self.ignore_index = check_ignore_index(ignore_index)

    def extra_repr(self) -> str:
        return format_attributes(self, "priors", "tau", "reduction", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logit_adjusted_cross_entropy(
            logits, targets, self.priors, self.tau, self.reduction, ignore_index=self.ignore_index
        )

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the number of labels; None if it is the number of samples."""
        return sum_of_weights(None, targets, self.ignore_index)
