"""Networks by name.

Importing this module imports neither torch nor any network: a built-in network's module is imported when the network
is first asked for.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

# A built-in network's name is its module's name.
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
_FACTORIES: dict[str, Callable[..., nn.Module]] = {}

Factory = TypeVar("Factory", bound="Callable[..., nn.Module]")


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Makes a network known to `create_model` under a name.

    Decorates a class, or a function, that is called as `factory(num_classes, in_channels, **kwargs)` and returns a
    network `[B, C, T] -> logits [B, K]`. Running the same definition again, as a notebook does, replaces it.

    Args:
        name: what the network is called, e.g. on the command line.

    Raises:
        ValueError: another network already has the name.

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

    def register(factory: Factory) -> Factory:
        if _is_taken(name, factory):
            raise ValueError(f"a model named {name!r} already exists; choose another name")
        _FACTORIES[name] = factory
        return factory

    return register


def create_model(name: str, num_classes: int, in_channels: int = 1, **kwargs: Any) -> nn.Module:
    """Builds the network of that name with fresh weights.

    Args:
        name: one of `model_names()`.
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        **kwargs: the network's own arguments; see its class.

    Returns:
        A network `[B, C, T]`, for maps `[B, C, F, T]`, to logits `[B, K]`, in training mode. Weights are drawn from
        torch's global generator: seed
        it first for the same ones again.

    Raises:
        ValueError: no network has this name, or a count is not a positive integer.
        TypeError: the network takes no such argument.

    Example:
        >>> import torch
        >>> network = create_model("wdcnn", num_classes=11)
        >>> network(torch.randn(4, 1, 2048)).shape
        torch.Size([4, 11])
        >>> create_model("resnet18_1D", num_classes=11)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no model is named 'resnet18_1D'; did you mean 'resnet18_1d'? Known: ...
    """
    check_model_name(name)
    if name not in _FACTORIES:
        importlib.import_module(f"{__package__}.{name}")
    return _FACTORIES[name](num_classes=num_classes, in_channels=in_channels, **kwargs)


def check_model_name(name: str) -> None:
    """Refuses a name that no network has.

    Raises:
        ValueError: it names the nearest network and lists all.
    """
    if name not in model_names():
        raise ValueError(f"no model is named {name!r}{_nearest(name)} Known: {', '.join(model_names())}")


def model_names() -> list[str]:
    """Names that `create_model` knows, sorted.

    Example:
        >>> {"cnn1d", "patch_transformer", "resnet18_1d", "wdcnn"} <= set(model_names())
        True
    """
    return sorted({*_BUILT_IN, *_FACTORIES})


def _is_taken(name: str, factory: Callable[..., nn.Module]) -> bool:
    """Whether the name stands for another definition than this one, a built-in not imported yet included."""
    if name in _BUILT_IN and factory.__module__ != f"{__package__}.{name}":
        return True
    known = _FACTORIES.get(name, factory)
    return (known.__module__, known.__qualname__) != (factory.__module__, factory.__qualname__)


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, model_names(), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ";"
