"""Networks by name.

Importing this module imports neither torch nor any network: the module of a built-in network is imported when the
network is first created.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from whirl.registry import Registry

if TYPE_CHECKING:
    from torch import nn

# The name of a built-in network is the name of its module.
_BUILT_IN = (
    "cnn1d",
    "cnn2d",
    "hybrid_pinn",
    "multi_tfr",
    "order_cnn",
    "patch_transformer",
    "resnet18_1d",
    "resnet18_2d",
    "wdcnn",
)
MODELS: Registry[Callable[..., Any]] = Registry(
    "model", {name: f"{__package__}.{name}" for name in _BUILT_IN}, group="whirl.models"
)

Factory = TypeVar("Factory", bound="Callable[..., nn.Module]")


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Add a network to those that `create_model` can create.

    Decorates a class or function that is called as `factory(num_classes, in_channels, **kwargs)` and returns a network
    `[B, C, T] -> logits [B, K]`. Running the same definition again, as a notebook does, replaces it.

    Args:
        name: the network's name, e.g. on the command line.

    Raises:
        ValueError: another network already has this name.

    Example:
        >>> import torch
        >>> @register_model("mean_and_spread")
        ... class MeanAndSpread(torch.nn.Module):
        ...     def __init__(self, num_classes, in_channels=1):
        ...         super().__init__()
        ...         self.classifier = torch.nn.Linear(2 * in_channels, num_classes)
        ...
        ...     def forward(self, signals):
        ...         return self.classifier(torch.cat([signals.mean(-1), signals.std(-1)], dim=1))
        >>> create_model("mean_and_spread", num_classes=4)(torch.zeros(8, 1, 2048)).shape
        torch.Size([8, 4])
    """
    return MODELS.register(name)  # pyright: ignore[reportReturnType]


def create_model(name: str, num_classes: int, in_channels: int = 1, **kwargs: Any) -> nn.Module:
    """Create a network with newly initialized weights.

    Args:
        name: one of `list_models()`.
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        **kwargs: further arguments of the network; see its class.

    Returns:
        A network in training mode that maps signals `[B, C, T]`, or maps `[B, C, F, T]`, to logits `[B, K]`. Weights
        are drawn from torch's global generator.

    Raises:
        ValueError: no network has this name, or a count is not a positive integer.
        TypeError: the network has no such argument.

    Example:
        >>> import torch
        >>> network = create_model("wdcnn", num_classes=11)
        >>> network(torch.randn(4, 1, 2048)).shape
        torch.Size([4, 11])
        >>> create_model("resnet18_1D", num_classes=11)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: unknown model 'resnet18_1D'; did you mean 'resnet18_1d'? Expected one of: ...
    """
    return MODELS.get(name)(num_classes=num_classes, in_channels=in_channels, **kwargs)


def check_model_name(name: str) -> None:
    """Raise ValueError if no network has this name; the message suggests the nearest one."""
    MODELS.check(name)


def list_models() -> list[str]:
    """List the names that `create_model` knows, sorted.

    Example:
        >>> {"cnn1d", "patch_transformer", "resnet18_1d", "wdcnn"} <= set(list_models())
        True
    """
    return MODELS.names()
