"""Schedulers for convolutional networks, and `get_scheduler` with the name as its first argument."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from whirl.optim.scheduler_factory import make_scheduler
from whirl.optim.schedulers import (
    PolynomialLRScheduler as PolynomialLRScheduler,
)
from whirl.optim.schedulers import (
    WarmupScheduler as WarmupScheduler,
)
from whirl.optim.schedulers import (
    create_cosine_scheduler as create_cosine_scheduler,
)
from whirl.optim.schedulers import (
    create_cosine_warmrestarts_scheduler as create_cosine_warmrestarts_scheduler,
)
from whirl.optim.schedulers import (
    create_exponential_scheduler as create_exponential_scheduler,
)
from whirl.optim.schedulers import (
    create_multistep_scheduler as create_multistep_scheduler,
)
from whirl.optim.schedulers import (
    create_onecycle_scheduler as create_onecycle_scheduler,
)
from whirl.optim.schedulers import (
    create_plateau_scheduler as create_plateau_scheduler,
)
from whirl.optim.schedulers import (
    create_step_scheduler as create_step_scheduler,
)


def get_scheduler(scheduler_type: str, optimizer: Optimizer, **kwargs: Any) -> LRScheduler:
    """Create a scheduler by name.

    Args:
        scheduler_type: one of `whirl.optim.schedule_names()`.
        optimizer: optimizer to schedule.
        **kwargs: settings of the schedule.

    Raises:
        ValueError: the name is unknown, or a setting is out of range.
        TypeError: the arguments are swapped (`transformer_schedulers.get_scheduler` takes the optimizer first), or a
            setting is unknown or missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> get_scheduler("cosine", optimizer, num_epochs=50).T_max
        50
        >>> get_scheduler("cosine", optimizer, T_max=50)
        Traceback (most recent call last):
        TypeError: schedule 'cosine' has no setting T_max; its settings are (num_epochs, eta_min=1e-06)
    """
    return make_scheduler(scheduler_type, optimizer, kwargs, other_factory="transformer_schedulers.get_scheduler")
