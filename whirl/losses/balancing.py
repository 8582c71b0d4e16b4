"""How much the physics terms weigh against classification, over a run and against each other.

A schedule is a pure function of progress. A balancer looks at the losses themselves; what it remembers are tensors on
the losses' device, so that it never waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

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
    """Share of the physics terms' final weights that an epoch uses; 1 in the last epoch.

    With progress u = epoch / (num_epochs - 1): linear u; cosine (1 - cos πu) / 2; exponential
    (1 - e^(-5u)) / (1 - e^(-5)); step 0, then 1/2 from u = 0.4 and 1 from u = 0.7; constant 1.

    Args:
        schedule: one of the five names.
        epoch: counted from 0.
        num_epochs: epochs of the run; epochs past it keep 1, and a run of one epoch uses 1.

    Raises:
        ValueError: an unknown schedule.

    Example:
        >>> [round(lambda_multiplier("cosine", epoch, 5), 3) for epoch in range(5)]
        [0.0, 0.146, 0.5, 0.854, 1.0]
    """
    check_name("lambda_schedule", schedule, LAMBDA_SCHEDULES)
    progress = 1.0 if num_epochs < 2 else min(epoch / (num_epochs - 1), 1.0)
    return LAMBDA_SCHEDULES[schedule](progress)


class Balancer:
    """Factors on the physics terms that follow the losses; this one leaves them at 1.

    Attributes:
        every: steps from one look at the losses to the next.
    """

    every = 1

    def __init__(self) -> None:
        self.steps = 0
        self.memory: dict[str, Tensor] = {}

    def __call__(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> dict[str, Tensor]:
        """Factors for this step, by term; they carry no gradient.

        Args:
            data_loss: classification loss with its graph.
            terms: physics losses with their graphs, not weighted.
            shared: parameters that all terms reach, for balancers that compare gradients.
        """
        if self.steps % self.every == 0:
            before = dict(self.memory)
            self.update(data_loss, terms, shared)
            self._sync_factors(before)
        self.steps += 1
        one = torch.ones((), device=data_loss.device)
        return {name: self.memory.get(f"factor/{name}", one).to(data_loss.device) for name in terms}

    def update(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        """Set `memory["factor/<term>"]`."""

    def _sync_factors(self, before: dict[str, Tensor]) -> None:
        """Take the mean over processes, so that all weigh alike; what is not finite then is forgotten again."""
        means = all_reduce_mean(list(self.memory.values()))
        for name, mean in zip(self.memory, means, strict=True):
            old = before.get(name, torch.ones_like(mean))
            self.memory[name] = torch.where(mean.isfinite(), mean, old)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain data and tensors."""
        return {"steps": self.steps, "memory": dict(self.memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.steps, self.memory = state["steps"], dict(state["memory"])


class GradNorm(Balancer):
    """Brings a term's gradient to the size of classification's: f <- 0.9 f + 0.1 min(|g_data| / |g_term|, 10).

    The learning-rate annealing of S. Wang, Y. Teng, P. Perdikaris: "Understanding and Mitigating Gradient Flow
    Pathologies in Physics-Informed Neural Networks", SIAM J. Sci. Comput. 43 (2021), with the gradients' 2-norms on the
    last shared layer, every 10 steps, and the ratio bounded by 10. Starts at f = 1.
    """

    every = 10

    def update(self, data_loss: Tensor, terms: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        if not data_loss.requires_grad:
            return
        goal = _gradient_norm(data_loss, shared)
        for name, term in terms.items():
            ratio = (goal / _gradient_norm(term, shared).clamp_min(1e-12)).clamp_max(10.0)
            factor = self.memory.get(f"factor/{name}", torch.ones_like(ratio))
            self.memory[f"factor/{name}"] = 0.9 * factor + 0.1 * ratio


def _gradient_norm(loss: Tensor, shared: Sequence[Tensor]) -> Tensor:
    found = torch.autograd.grad(loss.float(), shared, retain_graph=True, allow_unused=True)
    return torch.nn.utils.get_total_norm([g.detach().float() for g in found if g is not None] or [loss.new_zeros(())])


class SoftAdapt(Balancer):
    """Weighs up a loss that falls slower than the others: w = softmax(0.1 r / sum|r|), factor w_term / w_data.

    r is the relative change of each loss, smoothed with 0.9, from one look to the next. After A. Heydari et al.:
    "SoftAdapt", arXiv:1912.12355, in its normalised form.
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
    (1 - a) lb(t, t-1) with a = 0.999 and rho one with probability 0.999, else zero; factor w_term / w_data.
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
    """A balancer by name: `'none'`, `'gradnorm'`, `'softadapt'`, `'relobralo'`.

    Raises:
        ValueError: an unknown name.
    """
    check_name("balancing", name, BALANCERS)
    return BALANCERS[name]()
