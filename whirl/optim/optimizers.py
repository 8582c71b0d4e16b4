"""Legacy factories: a deprecated `create_optimizer` that takes a model, and `create_scheduler`."""

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
    """Create an optimizer for all parameters of a model.

    Deprecated: use `cnn_optimizer.create_optimizer(optimizer_type, model.parameters(), ...)`, which this calls.

    Args:
        model: network whose parameters are optimized.
        optimizer_type: name of the optimizer.
        lr: learning rate, > 0.
        weight_decay: weight decay, >= 0.
        **kwargs: further arguments of the optimizer.

    Raises:
        TypeError: `model` is not a network.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}, expected a network (nn.Module); cnn_optimizer.create_optimizer takes "
            "the name first, and accepts parameters"
        )
    warnings.warn(
        "optimizers.create_optimizer is deprecated; use cnn_optimizer.create_optimizer",
        DeprecationWarning,
        stacklevel=2,
    )
    return cnn_optimizer.create_optimizer(optimizer_type, model.parameters(), lr, weight_decay, **kwargs)


def create_scheduler(optimizer: Optimizer, scheduler_type: str = "step", **kwargs: Any) -> LRScheduler:
    """Create a scheduler by name: `'step'`, `'cosine'`, `'plateau'`, `'onecycle'`, `'cosine_restarts'`, ...

    Args:
        optimizer: optimizer to schedule.
        scheduler_type: one of `whirl.optim.schedule_names()`.
        **kwargs: settings of the schedule; see `whirl.optim.cnn_schedulers`.

    Raises:
        ValueError: the name is unknown, or a setting is out of range.
        TypeError: the arguments are swapped (`cnn_schedulers.get_scheduler` takes the name first), or a setting is
            unknown or missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> create_scheduler(optimizer, "plateau", mode="min", patience=5).patience
        5
        >>> create_scheduler(optimizer, "cosin")
        Traceback (most recent call last):
        ValueError: unknown schedule 'cosin'; did you mean 'cosine'? Expected one of: constant, cosine,
        cosine_restarts, cosine_warmrestarts, exponential, inverse_sqrt, multistep, noam, onecycle, plateau, polynomial,
        step, warmup, warmup_cosine, warmup_linear
    """
    return make_scheduler(scheduler_type, optimizer, kwargs, other_factory="cnn_schedulers.get_scheduler")
