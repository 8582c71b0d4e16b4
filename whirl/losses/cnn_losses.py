"""Losses for training CNNs, and a factory that creates them by name.

`FocalLoss` and `LabelSmoothingCrossEntropy` differ from the classes of the same name in `losses` only in their
arguments: here `FocalLoss` takes a single factor instead of class weights, and `LabelSmoothingCrossEntropy` takes class
weights. `CrossEntropyLoss` has the arguments of `torch.nn.CrossEntropyLoss`. All three are computed by the functions of
`losses`, whose module docstring describes targets, precision and reductions; `SupConLoss` is computed by
`contrastive.supervised_contrastive_loss`.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from whirl._display import format_attributes
from whirl.losses.checks import (
    Reduction,
    check_gamma,
    check_non_negative,
    check_reduction,
    check_smoothing,
    check_temperature,
    copy_class_weights,
)
from whirl.losses.contrastive import supervised_contrastive_loss
from whirl.losses.imbalanced import LogitAdjustedCrossEntropy
from whirl.losses.losses import focal_loss, smoothed_cross_entropy, sum_of_weights
from whirl.losses.multilabel import MultilabelBCELoss
from whirl.losses.ordinal import RankedProbabilityLoss
from whirl.validation import check_ignore_index, check_name


class CrossEntropyLoss(nn.Module):
    """Cross entropy with the arguments of `torch.nn.CrossEntropyLoss`, called as `criterion(logits, targets)`.

    Unlike torch's class it validates its inputs, computes half precision in float32, and by default ignores no label.
    See `losses.smoothed_cross_entropy`.

    Args:
        weight: weight per class `[K]`, each >= 0; registered as a buffer. None means 1.
        label_smoothing: weight of the uniform distribution, in [0, 1).
        reduction: `'none'`, `'mean'` (weighted by `weight` over labels) or `'sum'`.
        ignore_index: label of windows without a label, see `losses`; None if there are none.

    Raises:
        TypeError: `weight` is not a tensor, or `label_smoothing` is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> CrossEntropyLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    task = "multiclass"
    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = check_ignore_index(ignore_index)
        self.label_smoothing = check_smoothing(label_smoothing)
        check_reduction(reduction)
        self.register_buffer("weight", copy_class_weights(weight, "weight"))
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "weight", "label_smoothing", "reduction", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(
            logits, targets, self.label_smoothing, self.weight, self.reduction, ignore_index=self.ignore_index
        )

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the sum of the labels' weights; None if it is the number of samples."""
        return sum_of_weights(self.weight, targets, self.ignore_index)


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross entropy with label smoothing and class weights, called as `criterion(logits, targets)`.

    See `losses.smoothed_cross_entropy`.

    Args:
        smoothing: weight of the uniform distribution, in [0, 1).
        weight: weight per class `[K]`, each >= 0; registered as a buffer. None means 1.
        reduction: `'none'`, `'mean'` (weighted by `weight` over labels) or `'sum'`.
        ignore_index: label of windows without a label, see `losses`; None if there are none.

    Raises:
        TypeError: `weight` is not a tensor, or `smoothing` is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> criterion = LabelSmoothingCrossEntropy(smoothing=0.1, weight=torch.tensor([1.0, 3.0]))
        >>> criterion(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # ln 2
        tensor(0.6931)
    """

    task = "multiclass"
    weight: Tensor | None

    def __init__(
        self,
        smoothing: float = 0.1,
        weight: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.smoothing = check_smoothing(smoothing)
        check_reduction(reduction)
        self.reduction: Reduction = reduction
        self.ignore_index = check_ignore_index(ignore_index)
        self.register_buffer("weight", copy_class_weights(weight, "weight"))

    def extra_repr(self) -> str:
        return format_attributes(self, "smoothing", "weight", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(
            logits, targets, self.smoothing, self.weight, self.reduction, ignore_index=self.ignore_index
        )

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the sum of the labels' weights; None if it is the number of samples."""
        return sum_of_weights(self.weight, targets, self.ignore_index)


class FocalLoss(nn.Module):
    """Focal loss with a single factor for all classes, called as `criterion(logits, targets)`.

    See `losses.focal_loss`.

    Args:
        alpha: factor by which the loss is multiplied, >= 0.
        gamma: focusing exponent, >= 0.
        reduction: `'none'`, `'mean'` or `'sum'`.
        ignore_index: label of windows without a label, see `losses`; None if there are none.

    Raises:
        TypeError: `alpha` is a tensor (for class weights use `losses.FocalLoss`), or an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> FocalLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))  # 0.25 · (1 - 1/2)² · ln 2
        tensor(0.0433)
    """

    task = "multiclass"

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = check_ignore_index(ignore_index)
        if isinstance(alpha, Tensor) and alpha.ndim:
            raise TypeError(f"alpha is {alpha!r}, expected a number; for class weights use losses.FocalLoss")
        self.alpha = check_non_negative(alpha, "alpha")
        self.gamma = check_gamma(gamma)
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        return format_attributes(self, "alpha", "gamma", "reduction", "ignore_index")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.alpha, self.gamma, self.reduction, ignore_index=self.ignore_index)

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean divides by: the number of labels; None if it is the number of samples."""
        return sum_of_weights(None, targets, self.ignore_index)


class SupConLoss(nn.Module):
    """Mean supervised contrastive loss, called as `criterion(features, labels)`.

    Features are `[B, D]`, or `[B, V, D]` for V views of each sample; labels are integers `[B]`. See
    `contrastive.supervised_contrastive_loss`.

    Args:
        temperature: divisor of the cosine similarities, > 0.
        ignore_index: label of windows without a label, which are left out; None if there are none.

    Raises:
        TypeError: `temperature` is not a number.
        ValueError: `temperature` is not positive, or not finite.

    Example:
        >>> import torch
        >>> SupConLoss(temperature=1.0)(torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]))  # ln(e + 2) - 1
        tensor(0.5514)
    """

    def __init__(self, temperature: float = 0.1, *, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = check_ignore_index(ignore_index)
        self.temperature = check_temperature(temperature)

    def extra_repr(self) -> str:
        return format_attributes(self, "temperature", "ignore_index")

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return supervised_contrastive_loss(features, labels, self.temperature, ignore_index=self.ignore_index)


_CRITERIA: dict[str, type[nn.Module]] = {
    "ce": CrossEntropyLoss,
    "label_smoothing": LabelSmoothingCrossEntropy,
    "focal": FocalLoss,
    "supcon": SupConLoss,
    "logit_adjusted": LogitAdjustedCrossEntropy,
    "ordinal": RankedProbabilityLoss,
    "multilabel": MultilabelBCELoss,
}


def create_criterion(name: str, **kwargs: Any) -> nn.Module:
    """Create a criterion by name.

    Args:
        name: `'ce'` (`CrossEntropyLoss`), `'label_smoothing'` (`LabelSmoothingCrossEntropy`), `'focal'` (`FocalLoss`),
            `'supcon'` (`SupConLoss`), `'logit_adjusted'` (`LogitAdjustedCrossEntropy`), `'ordinal'`
            (`RankedProbabilityLoss`) or `'multilabel'` (`MultilabelBCELoss`).
        **kwargs: arguments of that class.

    Returns:
        The criterion.

    Raises:
        ValueError: the name is unknown, or an argument is out of range.
        TypeError: the criterion does not accept a keyword argument.

    Example:
        >>> create_criterion("focal", gamma=1.5).gamma
        1.5
        >>> create_criterion("focal", smoothing=0.1)
        Traceback (most recent call last):
        TypeError: unexpected argument 'smoothing' of criterion 'focal'; expected one of: alpha, gamma, reduction,
        ignore_index
    """
    check_name("criterion", name, _CRITERIA)
    accepted = inspect.signature(_CRITERIA[name]).parameters
    unknown = [repr(keyword) for keyword in kwargs if keyword not in accepted]
    if unknown:
        raise TypeError(
            f"unexpected argument {', '.join(unknown)} of criterion {name!r}; expected one of: {', '.join(accepted)}"
        )
    return _CRITERIA[name](**kwargs)
