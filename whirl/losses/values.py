"""Losses of numbers, for regression."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from whirl.validation import check_name, check_number

VALUE_LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}
"""Losses of `whirl train --task regression` by name."""


class StandardizedLoss(nn.Module):
    """A loss of numbers in units of the standard deviation of the training targets.

    Always predicting their mean has a squared error of 1, whatever their unit, so that learning rates and the
    transition of the Huber loss need no change.

    Args:
        name: one of `VALUE_LOSSES`.
        scale: standard deviation of the training targets, > 0.
        reduction: `'mean'`, `'sum'` or `'none'`.

    Example:
        >>> import torch
        >>> StandardizedLoss("mse", scale=10.0)(torch.tensor([5.0]), torch.tensor([15.0]))
        tensor(1.)
    """

    task = "regression"

    def __init__(self, name: str = "mse", scale: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        check_name("loss", name, VALUE_LOSSES)
        self.name = name
        self.scale = check_number("scale", scale, 0, open_ends=True)
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of outputs and targets of the same shape."""
        return VALUE_LOSSES[self.name](outputs / self.scale, targets / self.scale, reduction=self.reduction)
