"""Base class of all schedulers: adds the unit in which they step, and restores learning rates with the state.

Parameter groups with a learning rate of 0 stay at 0 under every schedule, also with a minimum learning rate above 0.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from whirl.engine.schedule import Unit

_TORCH_SETTINGS = {
    name
    for kind in vars(lr_scheduler).values()
    if isinstance(kind, type) and issubclass(kind, LRScheduler)
    for name in inspect.signature(kind).parameters
}
_SETTINGS = (_TORCH_SETTINGS | {"warmup_epochs", "warmup_steps", "timescale", "floor", "d_model"}) - {
    "last_epoch",
    "verbose",
}
"""Keys of state dicts by which schedules are told apart; all others may differ between versions of torch."""

MIN_ONECYCLE_STEPS = 4  # in optimizer steps; a shorter one-cycle schedule cannot increase and decrease


def get_learning_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each parameter group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def set_learning_rates(optimizer: Optimizer, learning_rates: Sequence[float]) -> None:
    """Set the learning rate of each parameter group; one that is held in a tensor is modified in place."""
    for group, lr in zip(optimizer.param_groups, learning_rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


class Schedule(LRScheduler):
    """Mixin for torch's schedulers: defines their unit, and restores learning rates with their state.

    In torch, `load_state_dict` does not restore the optimizer's learning rates, although most schedulers compute the
    next learning rate from the current one. Here, loading a state also restores the learning rates (and the momentum of
    one-cycle), provided that the optimizer's learning rates are still those set by this scheduler. Learning rates from
    elsewhere, e.g. from the optimizer's own state dict, are kept.

    A parameter group that is added to the optimizer later follows the schedule from its own learning rate, at the next
    step; one-cycle schedules take it as the peak of the group.

    `load_state_dict` raises `ValueError` for the state of another kind of schedule or of another number of parameter
    groups. Keys that this version does not have, such as the `verbose` of older versions of torch, are ignored.

    Attributes:
        step_unit: what one call of `step()` stands for: `'step'` (of the optimizer), `'epoch'` or `'validation'`.
    """

    step_unit: Unit = "epoch"

    def get_lr(self) -> list[Any]:
        self._adopt_new_groups()
        return [lr if base_lr else base_lr for lr, base_lr in zip(super().get_lr(), self.base_lrs, strict=True)]

    def _adopt_new_groups(self) -> None:
        """Include parameter groups that were added to the optimizer since the last step."""
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            group.setdefault("initial_lr", float(group["lr"]))
            self.base_lrs.append(group["initial_lr"])
            self._last_lr.append(float(group["lr"]))
            self._adopt(group)

    def _adopt(self, group: dict[str, Any]) -> None:
        """Set what else a schedule stores for a parameter group."""

    def state_dict(self) -> dict[str, Any]:
        self._adopt_new_groups()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._adopt_new_groups()
        self._check_state(state_dict)
        own = self.state_dict()
        state_dict = {key: value for key, value in state_dict.items() if key in own}
        set_by_scheduler = get_learning_rates(self.optimizer) == [float(lr) for lr in self._last_lr]
        self._load(state_dict)
        if set_by_scheduler:
            set_learning_rates(self.optimizer, [float(lr) for lr in self._last_lr])
            _restore_momentum(self)

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        own = self.state_dict()
        if _setting_names(state_dict) & _SETTINGS != _setting_names(own) & _SETTINGS:
            found, expected = (", ".join(sorted(_setting_names(state))) or "nothing" for state in (state_dict, own))
            raise ValueError(
                f"the state dict belongs to another schedule: it has {found}, "
                f"expected those of {type(self).__name__.lstrip('_')}: {expected}"
            )
        n_groups = len(state_dict.get("_last_lr", own["_last_lr"]))
        if n_groups != len(own["_last_lr"]):
            raise ValueError(
                f"the state dict has {n_groups} parameter groups, but the optimizer has {len(own['_last_lr'])}"
            )

    def _load(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)


def _setting_names(state: Mapping[str, Any]) -> set[str]:
    """Return the public keys of a state dict, of its lambda functions, and of the base scheduler of a warmup."""
    nested = [*state.get("lr_lambdas", ()), state.get("base_scheduler")]
    public = {key for key in state if not key.startswith("_")}
    return public.union(*(_setting_names(each) for each in nested if isinstance(each, Mapping)))


def _restore_momentum(scheduler: Any) -> None:
    """Set the optimizer's momentum (or beta1) to that of a one-cycle schedule."""
    while hasattr(scheduler, "base_scheduler"):
        scheduler = scheduler.base_scheduler
    if isinstance(scheduler, OneCycleLR):
        with warnings.catch_warnings(action="ignore"):  # torch warns about calls of get_lr() outside step()
            scheduler.get_lr()  # sets the momentum as a side effect
