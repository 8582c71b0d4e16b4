"""Schedulers for transformers, and `get_scheduler` with the optimizer as its first argument."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from whirl.optim.scheduler_factory import make_scheduler
from whirl.optim.warmup_schedulers import (
    WarmupCosineScheduler as WarmupCosineScheduler,
)
from whirl.optim.warmup_schedulers import (
    create_constant_schedule as create_constant_schedule,
)
from whirl.optim.warmup_schedulers import (
    create_inverse_sqrt_schedule as create_inverse_sqrt_schedule,
)
from whirl.optim.warmup_schedulers import (
    create_noam_schedule as create_noam_schedule,
)
from whirl.optim.warmup_schedulers import (
    create_warmup_cosine_schedule as create_warmup_cosine_schedule,
)
from whirl.optim.warmup_schedulers import (
    create_warmup_linear_schedule as create_warmup_linear_schedule,
)


def get_scheduler(optimizer: Optimizer, scheduler_type: str, **kwargs: Any) -> LRScheduler:
    """Create a scheduler by name.

    Args:
        optimizer: optimizer to schedule.
        scheduler_type: one of `whirl.optim.schedule_names()`.
        **kwargs: settings of the schedule.

    Raises:
        ValueError: the name is unknown, or a setting is out of range.
        TypeError: the arguments are swapped (`cnn_schedulers.get_scheduler` takes the name first), or a setting is
            unknown or missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> get_scheduler(optimizer, "warmup_cosine", warmup_epochs=4, total_epochs=50).get_last_lr()
        [0.2]
    """
    return make_scheduler(scheduler_type, optimizer, kwargs, other_factory="cnn_schedulers.get_scheduler")
