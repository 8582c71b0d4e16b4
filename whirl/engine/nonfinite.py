"""Find the module of a network that produced the first infinite or NaN output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from whirl.engine.modes import preserve_modes
from whirl.engine.random_state import get_random_state, set_random_state


def first_nonfinite_module(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """Repeat a forward pass and return the first module whose output has an infinity or a NaN.

    Outputs are inspected in the order in which modules finish, so a leaf comes before the containers around it.
    Random states, training modes and buffers (running means of normalization layers) are restored afterwards.

    Args:
        model: the network.
        run: calls `model` under the same autocast as the pass to repeat. With several processes it must not call
            through `DistributedDataParallel`, which would wait for the others.

    Returns:
        The qualified name of the module, as in `model.get_submodule`; the class name of the network if only its own
        arithmetic is not finite; None if every output is finite, e.g. when only the loss overflows.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
        >>> first_nonfinite_module(model, lambda: model(torch.ones(1, 2)))
        >>> _ = nn.init.constant_(model[1][1].weight, torch.inf)
        >>> first_nonfinite_module(model, lambda: model(torch.ones(1, 2)))
        '1.1'
    """
    names: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def check(module: nn.Module, inputs: Any, output: Any) -> None:
            if not names and not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
                names.append(name or type(module).__name__)

        return module.register_forward_hook(check)

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
    """Restore random states, training modes and buffers when the block ends."""
    random_state = get_random_state()
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with preserve_modes(model):
            yield
    finally:
        set_random_state(random_state)
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                setattr(module, name, buffer.copy_(values))


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)
