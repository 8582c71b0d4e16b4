"""Training and evaluation mode of networks, restored when a block ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


class TrainingModes:
    """Puts a network in training mode, except for parts that are in evaluation mode on purpose.

    These are the modules in evaluation mode within a network in training mode, such as frozen batch normalization. They
    are remembered while the complete network is in evaluation mode, and trained again after `model.train()`.

    Example:
        >>> modes, model = TrainingModes(), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
        >>> modes.train(model)
        >>> _ = model.eval()
        >>> modes.train(model)
        >>> model.training, model[0].training, model[1].training
        (True, True, False)
    """

    def __init__(self) -> None:
        self._frozen: list[nn.Module] = []

    def train(self, model: nn.Module) -> None:
        """Put `model` in training mode."""
        if model.training:
            self._frozen = [module for module in model.modules() if not module.training]
        model.train()
        for module in self._frozen:
            module.training = False

    def release(self, modules: Iterable[nn.Module]) -> None:
        """Put modules in training mode together with the network again, also while it is in evaluation mode."""
        released = set(modules)
        self._frozen = [module for module in self._frozen if module not in released]


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
