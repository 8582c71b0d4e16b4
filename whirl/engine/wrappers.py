"""Networks inside wrappers: `torch.compile`, `DistributedDataParallel`, `DataParallel`, averaged and user-defined ones.

A wrapped network gets the same inputs as the plain one, and their checkpoints load into each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

_WITH_MODULE = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
_COMPILED = "_orig_mod"
_takes_metadata: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers of torch; any other network is returned unchanged.

    Example:
        >>> network = nn.Linear(2, 1)
        >>> unwrap(nn.DataParallel(network)) is network
        True
    """
    while True:
        if _COMPILED in model._modules:
            model = model.get_submodule(_COMPILED)
        elif isinstance(model, _WITH_MODULE):
            model = model.module
        else:
            return model


def takes_metadata(model: nn.Module) -> bool:
    """Return whether a network should be called with the keyword argument `metadata`.

    This is so if `forward`, of the network or of the one inside its wrappers, has a parameter `metadata`. A `forward`
    with `**kwargs` is assumed to pass them on, so that it is enough if a child module takes metadata.

    Example:
        >>> takes_metadata(nn.Linear(2, 1))
        False
    """
    if model not in _takes_metadata:
        _takes_metadata[model] = _accepts_metadata(unwrap(model))
    return _takes_metadata[model]


def _accepts_metadata(network: nn.Module) -> bool:
    try:
        parameters = inspect.signature(network.forward).parameters
    except (TypeError, ValueError):  # a network in TorchScript
        return False
    keywords = [name for name, parameter in parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
    return "metadata" in parameters.keys() - set(keywords) or (
        bool(keywords) and any(map(takes_metadata, network.children()))
    )


def weights_of(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of the network inside wrappers, with the names of the plain network.

    Example:
        >>> list(weights_of(nn.DataParallel(nn.Linear(2, 1))))
        ['weight', 'bias']
    """
    state = unwrap(model).state_dict()
    if not any(_COMPILED in name.split(".") for name in state):
        return state
    return {_plain(name): value for name, value in state.items()}


def load_weights_into(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load weights that were saved from a plain or wrapped network into a plain or wrapped network.

    Raises:
        RuntimeError: the names or shapes differ.
    """
    network = unwrap(model)
    own = {_plain(name): name for name in network.state_dict()}
    given = {_plain(name): value for name, value in weights.items()}
    if not given.keys() & own.keys():
        given = {name.removeprefix("module."): value for name, value in given.items() if name != "n_averaged"}
    renamed = {own.get(name, name): value for name, value in given.items()}
    # A state dict of torch also holds the versions of the modules.
    network.load_state_dict(weights if renamed.keys() == weights.keys() else renamed)


def _plain(name: str) -> str:
    """Return the name that a parameter has without `torch.compile`."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)
