"""Sharpness-aware minimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from whirl.validation import check_number

_EPSILON = 1e-12


class SAM(Optimizer):
    """Sharpness-aware minimization around any optimizer (Foret et al. 2021).

    A step follows the gradient at the weights w + rho g / |g|, where the loss is highest near w to first order, so that
    training prefers flat minima. Every micro-batch is computed twice, so a step takes twice as long. With several
    micro-batches or processes each has a perturbation of its own, as in the paper.

    `whirl.training.Trainer` and its subclasses support it with `mixed_precision` off or `'bf16'`. The second pass does
    not change running statistics.

    Args:
        optimizer: takes the steps; its groups and state are those of this one.
        rho: length of the perturbation, > 0.

    Raises:
        ValueError: `rho` is not positive.

    Example:
        >>> from whirl.training import Trainer
        >>> batch = (torch.randn(16, 1, 4), torch.arange(16) % 2)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> optimizer = SAM(torch.optim.AdamW(model.parameters(), lr=0.01), rho=0.05)
        >>> len(Trainer(model, [batch], optimizer=optimizer, device="cpu").fit(3)["train_loss"])
        3
    """

    def __init__(self, optimizer: Optimizer, rho: float = 0.05) -> None:
        self.optimizer = optimizer
        self.rho = check_number("rho", rho, 0, open_ends=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.optimizer.defaults

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return f"SAM({self.optimizer!r}, rho={self.rho})"

    def sharpen(self, loss: Tensor, loss_again: Callable[[], Tensor]) -> Tensor:
        """Return the loss of a batch with the gradient at the perturbed weights.

        Args:
            loss: loss with its graph.
            loss_again: computes the loss of the same batch with the weights that it finds.
        """
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        before = [parameter.detach().clone() for parameter in parameters]
        self._perturb(parameters, gradients)
        try:
            gradients = torch.autograd.grad(loss_again(), parameters, allow_unused=True)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, before)
        return _WithGradients.apply(loss.detach(), gradients, *parameters)  # type: ignore[return-value]

    @torch.no_grad()
    def _perturb(self, parameters: list[Tensor], gradients: tuple[Tensor | None, ...]) -> None:
        pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
        scale = self.rho / (get_total_norm([gradient for _, gradient in pairs]) + _EPSILON)
        for parameter, gradient in pairs:
            parameter.add_(gradient * scale)


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor | None, ...], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None, *(None if gradient is None else gradient * factor for gradient in ctx.gradients)
