"""Objectives as CNN training names them, and a factory by name.

The twins of `losses` with other arguments: `FocalLoss` takes one factor instead of class weights,
`LabelSmoothingCrossEntropy` takes class weights, and `CrossEntropyLoss` has the arguments of torch's. They are computed
by the functions of `losses`, whose module tells of targets, precision and means; `SupConLoss` by
`contrastive.supervised_contrastive_loss`.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from whirl.losses.contrastive import supervised_contrastive_loss
from whirl.losses.losses import (
    Reduction,
    check_gamma,
    check_non_negative,
    check_reduction,
    check_smoothing,
    check_temperature,
    copy_class_weights,
    focal_loss,
    smoothed_cross_entropy,
)
from whirl.validation import check_name


class CrossEntropyLoss(nn.Module):
    """`losses.smoothed_cross_entropy` with the arguments of torch's; called as `criterion(logits, targets)`.

    Beside torch's it checks what it gets, computes half precision in float32, and leaves out no label.

    Args:
        weight: weight per class `[K]`, each >= 0; a buffer. None is 1.
        label_smoothing: share of the uniform distribution, in [0, 1).
        reduction: `'none'`, `'mean'` (weighted over labels) or `'sum'`.

    Raises:
        TypeError: `weight` is no tensor, or `label_smoothing` no number.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> CrossEntropyLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, label_smoothing: float = 0.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.label_smoothing = check_smoothing(label_smoothing)
        check_reduction(reduction)
        self.register_buffer("weight", copy_class_weights(weight, "weight"))
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, targets, self.label_smoothing, self.weight, self.reduction)


class LabelSmoothingCrossEntropy(nn.Module):
    """`losses.smoothed_cross_entropy`, averaged; called as `criterion(logits, targets)`.

    Args:
        smoothing: share of the uniform distribution, in [0, 1).
        weight: weight per class `[K]`, each >= 0; a buffer. None is 1.

    Raises:
        TypeError: `weight` is no tensor, or `smoothing` no number.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> criterion = LabelSmoothingCrossEntropy(smoothing=0.1, weight=torch.tensor([1.0, 3.0]))
        >>> criterion(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(self, smoothing: float = 0.1, weight: Tensor | None = None) -> None:
        super().__init__()
        self.smoothing = check_smoothing(smoothing)
        self.register_buffer("weight", copy_class_weights(weight, "weight"))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, targets, self.smoothing, self.weight)


class FocalLoss(nn.Module):
    """`losses.focal_loss` with one factor for all classes; called as `criterion(logits, targets)`.

    Args:
        alpha: factor of the loss, >= 0.
        gamma: focusing exponent, >= 0.
        reduction: `'none'`, `'mean'` or `'sum'`.

    Raises:
        TypeError: `alpha` is a tensor (the loss with class weights is `losses.FocalLoss`), or a number is none.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> FocalLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # 0.25 · (1 - 1/2)² · ln 2
        tensor(0.0433)
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if isinstance(alpha, Tensor):
            raise TypeError(f"alpha is {alpha!r}, expected a number; losses.FocalLoss takes class weights")
        self.alpha = check_non_negative(alpha, "alpha")
        self.gamma = check_gamma(gamma)
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.alpha, self.gamma, self.reduction)


class SupConLoss(nn.Module):
    """`contrastive.supervised_contrastive_loss`, averaged; called as `criterion(features, labels)`.

    Features are `[B, D]`, or `[B, V, D]` for V views of each sample; labels are integers `[B]`.

    Args:
        temperature: divides the cosine similarities, > 0.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: `temperature` is not finite and above 0.

    Example:
        >>> import torch
        >>> SupConLoss(temperature=1.0)(torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]))  # ln(e + 2) - 1
        tensor(0.5514)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return supervised_contrastive_loss(features, labels, self.temperature)


_CRITERIA: dict[str, type[nn.Module]] = {
    "ce": CrossEntropyLoss,
    "label_smoothing": LabelSmoothingCrossEntropy,
    "focal": FocalLoss,
    "supcon": SupConLoss,
}


def create_criterion(name: str, **kwargs: Any) -> nn.Module:
    """Builds the criterion of that name.

    Args:
        name: `'ce'`, `'label_smoothing'`, `'focal'` or `'supcon'`.
        **kwargs: the criterion's own arguments; see its class.

    Raises:
        ValueError: no criterion has this name, or an argument is out of range.
        TypeError: the criterion takes no such argument.

    Example:
        >>> create_criterion("focal", gamma=1.5).gamma
        1.5
        >>> create_criterion("focal", smoothing=0.1)
        Traceback (most recent call last):
        TypeError: criterion 'focal' takes no argument 'smoothing'; it takes alpha, gamma, reduction
    """
    check_name("criterion", name, _CRITERIA)
    accepted = inspect.signature(_CRITERIA[name]).parameters
    unknown = [repr(keyword) for keyword in kwargs if keyword not in accepted]
    if unknown:
        raise TypeError(f"criterion {name!r} takes no argument {', '.join(unknown)}; it takes {', '.join(accepted)}")
    return _CRITERIA[name](**kwargs)
