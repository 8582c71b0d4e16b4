"""Training and evaluation mode of networks, restored when a block ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def preserve_modes(*models: nn.Module) -> Iterator[None]:
    """Restore the mode of every module when the block ends, also after an error.

    `model.train(was_training)` is not enough: it would put submodules that were in evaluation mode on purpose, such as
    frozen batch normalization, into the mode of the outermost module.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
        >>> with preserve_modes(model):
        ...     _ = model.train()
        >>> model.training, model[1].training
        (True, False)
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Put networks in evaluation mode for the block, then restore the mode of every module.

    Example:
        >>> model = nn.Dropout()
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    with preserve_modes(*models):
        for model in models:
            model.eval()
        yield
