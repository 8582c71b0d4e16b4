"""Which module of a network made the first number that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from whirl.engine.random_state import get_random_state, set_random_state


def first_nonfinite_module(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """Run a forward pass again and see whose output first holds inf or nan.

    Outputs are looked at in the order in which the modules finish, so a leaf comes before the containers around it.
    Afterwards the random states, training modes and buffers (running means of normalisations) are as before.

    Args:
        model: the network.
        run: calls `model`, in the autocast of the pass in question. On several machines it must not call through
            `DistributedDataParallel`, which waits for the others.

    Returns:
        The module's qualified name, as `model.get_submodule` takes it; the name of the network's class where only the
        network's own arithmetic is not finite; None where every output is finite, e.g. when the loss alone overflows.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
        >>> first_nonfinite_module(model, lambda: model(torch.ones(1, 2)))
        >>> _ = nn.init.constant_(model[1][1].weight, torch.inf)
        >>> first_nonfinite_module(model, lambda: model(torch.ones(1, 2)))
        '1.1'
    """
    names: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not names and not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
                names.append(name or type(module).__name__)

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in model.named_modules()]
    try:
        with preserve_state(model):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return names[0] if names else None


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Give back the random states, the training modes and the buffers as they were."""
    random_state = get_random_state()
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        set_random_state(random_state)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                setattr(module, name, buffer.copy_(values))


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)
