"""What the schedulers here add to torch's: the unit they step in, and rates that are restored with their state.

A parameter group whose own rate is 0 stays at 0 under every schedule, whatever its lowest rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from whirl.engine.schedule import Unit

MIN_ONECYCLE_STEPS = 4  # optimizer steps of a one-cycle schedule: fewer cannot rise and fall


def get_rates(optimizer: Optimizer) -> list[float]:
    """The learning rate of each parameter group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Put `rates`, one per parameter group, into the optimizer; a rate that is a tensor stays that tensor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class Schedule(LRScheduler):
    """A base beside one of torch's schedulers: says its unit, and brings back its rates with its state.

    torch's `load_state_dict` leaves the optimizer's rates to the optimizer's own state, although most of torch's
    schedulers compute the next rate from the present one. Here an optimizer whose rates are those that the scheduler
    itself had put there gets the rates of the loaded state, and one-cycle's momentum; rates that came from elsewhere,
    such as the optimizer's own loaded state, stay. A state of another kind of schedule, or for another number of
    parameter groups, is a ValueError.

    Attributes:
        step_unit: what one `step()` stands for: `'step'` (of the optimizer), `'epoch'` or `'validation'`.
    """

    step_unit: Unit = "epoch"

    def get_lr(self) -> list[Any]:
        return [lr if full else full for lr, full in zip(super().get_lr(), self.base_lrs, strict=True)]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._check_state(state_dict)
        in_charge = get_rates(self.optimizer) == [float(rate) for rate in self._last_lr]
        self._load(state_dict)
        if in_charge:
            set_rates(self.optimizer, [float(rate) for rate in self._last_lr])
            _cycle_momentum(self)

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        own = self.state_dict()
        if _settings_in(state_dict) != _settings_in(own):
            theirs, ours = (", ".join(sorted(_settings_in(state))) or "nothing" for state in (state_dict, own))
            raise ValueError(
                f"the state dict is that of another schedule: it holds {theirs}, "
                f"that of a {type(self).__name__.lstrip('_')} here {ours}"
            )
        n_groups = len(state_dict.get("_last_lr", own["_last_lr"]))
        if n_groups != len(own["_last_lr"]):
            raise ValueError(
                f"the state dict is for {n_groups} parameter groups, the optimizer has {len(own['_last_lr'])}"
            )

    def _load(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)


def _settings_in(state: Mapping[str, Any]) -> set[str]:
    """Names of the public entries of a state dict, with those of its functions and of the base of a warm-up."""
    inner = [*state.get("lr_lambdas", ()), state.get("base_scheduler")]
    public = {key for key in state if not key.startswith("_")}
    return public.union(*(_settings_in(part) for part in inner if isinstance(part, Mapping)))


def _cycle_momentum(scheduler: Any) -> None:
    """Give the optimizer the momentum (or beta1) of a one-cycle schedule's state."""
    while hasattr(scheduler, "base_scheduler"):
        scheduler = scheduler.base_scheduler
    if isinstance(scheduler, OneCycleLR):
        with warnings.catch_warnings(action="ignore"):  # that get_lr() is no way to ask for the rate
            scheduler.get_lr()  # sets the momentum in passing
