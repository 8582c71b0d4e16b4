"""Weights of the physics terms relative to the classification loss: schedules over epochs, and adaptive balancers.

A schedule is a pure function of training progress. A balancer derives its factors from the losses themselves. Its state
is kept in tensors on the device of the losses, so that it never forces a synchronization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from whirl._display import Displayed
from whirl.engine.distributed import all_reduce_mean
from whirl.validation import check_name

LAMBDA_SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
    "exponential": lambda u: (1 - math.exp(-5 * u)) / (1 - math.exp(-5)),
    "step": lambda u: 0.0 if u < 0.4 else 0.5 if u < 0.7 else 1.0,
    "constant": lambda u: 1.0,
}


def lambda_multiplier(schedule: str, epoch: int, num_epochs: int) -> float:
    """Compute the factor by which the final weights of the physics terms are multiplied in an epoch.

    The factor is 1 in the last epoch. With progress u = epoch / (num_epochs - 1) it is:

    - `'linear'`: u
    - `'cosine'`: (1 - cos πu) / 2
    - `'exponential'`: (1 - e^(-5u)) / (1 - e^(-5))
    - `'step'`: 0, then 1/2 from u = 0.4 and 1 from u = 0.7
    - `'constant'`: 1

    Args:
        schedule: one of the five names.
        epoch: index of the epoch, from 0.
        num_epochs: number of epochs of the run. The factor is 1 in later epochs, and in a run of one epoch.

    Raises:
        ValueError: the schedule is unknown.

    Example:
        >>> [round(lambda_multiplier("cosine", epoch, 5), 3) for epoch in range(5)]
        [0.0, 0.146, 0.5, 0.854, 1.0]
    """
    check_name("lambda_schedule", schedule, LAMBDA_SCHEDULES)
    progress = 1.0 if num_epochs < 2 else min(epoch / (num_epochs - 1), 1.0)
    return LAMBDA_SCHEDULES[schedule](progress)


class Balancer(Displayed):
    """Base class: computes factors for the physics terms from the losses. The base class itself returns factors of 1.

    Attributes:
        every: number of steps between two updates of the factors.
    """

    every = 1

    def __init__(self) -> None:
        self.steps = 0
        self.memory: dict[str, Tensor] = {}

    def _display_facts(self) -> dict[str, Any]:
        factors = tuple(name.removeprefix("factor/") for name in self.memory if name.startswith("factor/"))
        return {"every": self.every, "steps": self.steps, "terms": factors}

    def __call__(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the factors for this step, by term, without gradient.

        Args:
            data_loss: classification loss, with its graph.
            terms: unweighted physics losses, with their graphs.
            shared: parameters that all terms depend on, for balancers that compare gradients.
        """
        if self.steps % self.every == 0:
            before = dict(self.memory)
            self.update(data_loss, terms, shared)
            self._sync_factors(before)
        self.steps += 1
        one = torch.ones((), device=data_loss.device)
        return {name: self.memory.get(f"factor/{name}", one).to(data_loss.device) for name in terms}

    def update(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        """Update `memory["factor/<term>"]` for every term."""

    def _sync_factors(self, before: dict[str, Tensor]) -> None:
        """Average the state over all processes, so that they use equal factors; discard values that are not finite."""
        means = all_reduce_mean(list(self.memory.values()))
        for name, mean in zip(self.memory, means, strict=True):
            old = before.get(name, torch.ones_like(mean))
            self.memory[name] = torch.where(mean.isfinite(), mean, old)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {"steps": self.steps, "memory": dict(self.memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self.steps, self.memory = state["steps"], dict(state["memory"])


class GradNorm(Balancer):
    """Scales each term so that its gradient norm matches that of the classification loss.

    f <- 0.9 f + 0.1 min(|g_data| / |g_term|, 10), starting at f = 1. This is the learning-rate annealing of S. Wang,
    Y. Teng, P. Perdikaris: "Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural
    Networks", SIAM J. Sci. Comput. 43 (2021), with 2-norms of the gradients on the last shared layer, updated every
    10 steps, and the ratio bounded by 10.
    """

    every = 10

    def update(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        if not data_loss.requires_grad:
            return
        target = _gradient_norm(data_loss, shared)
        for name, term in terms.items():
            ratio = (target / _gradient_norm(term, shared).clamp_min(1e-12)).clamp_max(10.0)
            factor = self.memory.get(f"factor/{name}", torch.ones_like(ratio))
            self.memory[f"factor/{name}"] = 0.9 * factor + 0.1 * ratio


def _gradient_norm(loss: Tensor, shared: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(loss.float(), shared, retain_graph=True, allow_unused=True)
    used = [gradient.detach().float() for gradient in gradients if gradient is not None]
    return torch.nn.utils.get_total_norm(used or [loss.new_zeros(())])


class SoftAdapt(Balancer):
    """Increases the weight of losses that decrease more slowly than the others.

    w = softmax(0.1 r / sum|r|), with the factor w_term / w_data, where r is the relative change of each loss between
    two updates, after exponential smoothing with 0.9. Normalized variant of A. Heydari et al.: "SoftAdapt",
    arXiv:1912.12355.
    """

    def update(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        losses = _stacked(data_loss, terms)
        before = self.memory.get("smoothed", losses)
        smoothed = 0.9 * before + 0.1 * losses
        self.memory["smoothed"] = smoothed
        change = (smoothed - before) / before.abs().clamp_min(1e-12)
        weights = torch.softmax(0.1 * change / change.abs().sum().clamp_min(1e-12), 0)
        _set_factors(self.memory, terms, weights)


class ReLoBRaLo(Balancer):
    """Relative loss balancing with random lookback.

    lb(t, t') = m softmax(L_i(t) / L_i(t')) over the m losses; w(t) = a (rho w(t-1) + (1 - rho) lb(t, 0)) +
    (1 - a) lb(t, t-1) with a = 0.999 and rho = 1 with probability 0.999, else 0; the factor is w_term / w_data.
    R. Bischof, M. Kraus: "Multi-Objective Loss Balancing for Physics-Informed Deep Learning", arXiv:2110.09813, eq. 11.
    """

    def update(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        losses = _stacked(data_loss, terms)
        first, last = self.memory.setdefault("first", losses), self.memory.get("last", losses)
        weights = self.memory.get("weights", torch.ones_like(losses))
        past = weights if torch.rand(()).item() < 0.999 else _relative(losses, first)
        self.memory["weights"] = 0.999 * past + 0.001 * _relative(losses, last)
        self.memory["last"] = losses
        _set_factors(self.memory, terms, self.memory["weights"])


def _stacked(data_loss: Tensor, terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([data_loss.detach().float(), *(term.detach().float() for term in terms.values())])


def _relative(now: Tensor, then: Tensor) -> Tensor:
    return len(now) * torch.softmax(now / then.clamp_min(1e-12), 0)


def _set_factors(memory: dict[str, Tensor], terms: Mapping[str, Tensor], weights: Tensor) -> None:
    for name, weight in zip(terms, weights[1:], strict=True):
        memory[f"factor/{name}"] = weight / weights[0]


BALANCERS: dict[str, type[Balancer]] = {
    "none": Balancer,
    "gradnorm": GradNorm,
    "softadapt": SoftAdapt,
    "relobralo": ReLoBRaLo,
}


def create_balancer(name: str) -> Balancer:
    """Create a balancer by name: `'none'`, `'gradnorm'`, `'softadapt'` or `'relobralo'`.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> balancer = create_balancer("softadapt")
        >>> data, physics = torch.tensor(1.0), {"freq_loss": torch.tensor(2.0)}
        >>> balancer(data, physics, shared=[])  # nothing has changed yet
        {'freq_loss': tensor(1.)}
    """
    check_name("balancing", name, BALANCERS)
    return BALANCERS[name]()
