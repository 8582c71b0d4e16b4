"""Activations that are computed again in the backward pass instead of being stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from whirl.engine.wrappers import unwrap
from whirl.validation import unknown_name


@contextmanager
def recomputing(model: nn.Module, parts: Sequence[str]) -> Iterator[None]:
    """Within the block, do not store the activations inside parts of a network for the backward pass.

    This is gradient checkpointing: memory for the time of a second forward pass (Chen et al. 2016). Weights, running
    statistics and random draws are the same as without it.

    Args:
        model: the network.
        parts: names of modules, e.g. `"pyramid"` or `"layers.0"`.

    Raises:
        ValueError: there is no such module.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> with recomputing(network, ["0"]):
        ...     network(torch.ones(2, 4)).sum().backward()
        >>> network[0].weight.grad is not None
        True
    """
    modules = dict(unwrap(model).named_modules())
    for part in parts:
        if part not in modules or not part:
            raise ValueError(unknown_name("module", part, [name for name in modules if name]))
    chosen = [modules[part] for part in parts]
    try:
        for module in chosen:
            module.forward = partial(_forward, module, module.forward)
        yield
    finally:
        for module in chosen:
            module.__dict__.pop("forward", None)


def _forward(module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    contexts = partial(_contexts, module)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and of the second forward pass."""
    return nullcontext(), unchanged_buffers(module)


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restore running statistics when the block ends, which a second pass would update once more."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
