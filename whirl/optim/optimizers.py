"""The factories of old: an optimizer for a whole model (deprecated), and a scheduler by name."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from whirl.optim import cnn_optimizer
from whirl.optim.scheduler_factory import make_scheduler


def create_optimizer(
    model: nn.Module, optimizer_type: str = "adam", lr: float = 1e-3, weight_decay: float = 0, **kwargs: Any
) -> Optimizer:
    """Deprecated: use `cnn_optimizer.create_optimizer(optimizer_type, model.parameters(), ...)`, which this calls.

    Raises:
        TypeError: `model` is no network.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}, expected a network (nn.Module); cnn_optimizer.create_optimizer takes "
            "the name first, and parameters too"
        )
    warnings.warn(
        "optimizers.create_optimizer is deprecated: use cnn_optimizer.create_optimizer",
        DeprecationWarning,
        stacklevel=2,
    )
    return cnn_optimizer.create_optimizer(optimizer_type, model.parameters(), lr, weight_decay, **kwargs)


def create_scheduler(optimizer: Optimizer, scheduler_type: str = "step", **kwargs: Any) -> LRScheduler:
    """The scheduler of that name: `'step'`, `'cosine'`, `'plateau'`, `'onecycle'`, `'cosine_restarts'`, ...

    Args:
        optimizer: whose rates it moves.
        scheduler_type: one of `whirl.optim.schedule_names()`.
        **kwargs: the schedule's own arguments; see `whirl.optim.cnn_schedulers`.

    Raises:
        ValueError: no schedule has this name, or a value is out of its range.
        TypeError: swapped arguments (`cnn_schedulers.get_scheduler` takes the name first), an unknown keyword, or a
            required one that is missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> create_scheduler(optimizer, "plateau", mode="min", patience=5).patience
        5
        >>> create_scheduler(optimizer, "cosin")
        Traceback (most recent call last):
        ValueError: unknown schedule 'cosin'; did you mean 'cosine'? Expected one of: cosine, cosine_restarts,
        cosine_warmrestarts, exponential, noam, onecycle, plateau, polynomial, step, warmup, warmup_cosine,
        warmup_linear
    """
    return make_scheduler(scheduler_type, optimizer, kwargs, other_factory="cnn_schedulers.get_scheduler")
