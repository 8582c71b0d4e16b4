"""Outputs for other targets than unrelated classes: compound faults, levels, two classes with one logit, numbers.

Each wraps a network. All but that of numbers return logits of the classes, so that losses, metrics, reports and exports
are those of a classification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl._precision import at_least_float32

SEPARATOR = "+"
"""Separates the faults in the label of a compound fault."""

_NO_FAULT = ("healthy", "normal")
_MIN_GAP = 1e-3


def faults_of(label: str) -> tuple[str, ...]:
    """Return the faults that a label names, sorted; none for a healthy machine.

    Example:
        >>> faults_of("inner_race+ball"), faults_of("healthy")
        (('ball', 'inner_race'), ())
    """
    parts = [part.strip() for part in label.split(SEPARATOR)]
    return tuple(sorted({part for part in parts if part and part not in _NO_FAULT}))


def single_faults(classes: Sequence[str]) -> list[str]:
    """Return all faults that occur in labels, sorted.

    Raises:
        ValueError: two labels name the same faults, or none names a fault.

    Example:
        >>> single_faults(["healthy", "ball", "inner_race+ball"])
        ['ball', 'inner_race']
    """
    seen: dict[tuple[str, ...], str] = {}
    for name in classes:
        first = seen.setdefault(faults_of(name), name)
        if first != name:
            raise ValueError(f"the labels {first!r} and {name!r} name the same faults: use one of them")
    faults = sorted({fault for name in classes for fault in faults_of(name)})
    if not faults:
        raise ValueError(f"no label names a fault, only {', '.join(classes)}")
    return faults


def membership(classes: Sequence[str]) -> Tensor:
    """Return which faults each label names, 0 or 1, `[K, L]`.

    Example:
        >>> membership(["healthy", "ball", "inner_race+ball"])
        tensor([[0., 0.],
                [1., 0.],
                [1., 1.]])
    """
    faults = single_faults(classes)
    return torch.tensor([[float(fault in faults_of(name)) for fault in faults] for name in classes])


class CompoundFaults(nn.Module):
    """A network with one logit for each single fault, for labels such as `inner_race+ball`.

    The logit of a label is the sum of the logits of its faults: the faults are independent given the signal, and
    probabilities are those of independent faults, among the labels that occur. With all combinations as labels, cross
    entropy is the binary cross entropy of the faults. A fault is learned from all labels that name it, so that a
    combination can be recognized of which there are few or no training recordings.

    Args:
        network: network with L outputs, see `single_faults`.
        classes: the K labels.

    Raises:
        ValueError: no label names a fault, or two labels name the same faults.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        >>> CompoundFaults(network, ["healthy", "ball", "inner_race", "inner_race+ball"])(torch.randn(5, 1, 8)).shape
        torch.Size([5, 4])
    """

    members: Tensor

    def __init__(self, network: nn.Module, classes: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("members", membership(classes), persistent=False)

    def forward(self, signals: Tensor, **keywords: Any) -> Tensor:
        """Return the logits of the labels `[B, K]`; a network that takes metadata gets them."""
        logits = at_least_float32(self.network(signals, **keywords))
        return (logits.unsqueeze(1) * self.members).sum(2)  # a matrix product would be rounded by autocast


class OrdinalLevels(nn.Module):
    """A network with one output, for K levels in an order, e.g. severities (proportional odds; McCullagh 1980).

    P(level <= k) = sigmoid(threshold_k - output), with K - 1 learned thresholds in increasing order. Cross entropy is
    then the likelihood of the levels; an error by two levels costs more than one by a single level.

    Args:
        network: network with one output.
        n_levels: number of levels K, >= 2.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 1))
        >>> logits = OrdinalLevels(network, 4)(torch.randn(5, 1, 8))
        >>> torch.allclose(logits.exp().sum(1), torch.ones(5))
        True
    """

    def __init__(self, network: nn.Module, n_levels: int) -> None:
        super().__init__()
        self.network = network
        self.first = nn.Parameter(torch.tensor(-(n_levels - 2) / 2))
        self.gaps = nn.Parameter(torch.full((n_levels - 2,), 0.5413))  # softplus of it is 1

    def forward(self, signals: Tensor, **keywords: Any) -> Tensor:
        """Return the log probabilities of the levels `[B, K]`; a network that takes metadata gets them."""
        output = at_least_float32(self.network(signals, **keywords))
        first, gaps = at_least_float32(self.first), F.softplus(at_least_float32(self.gaps)) + _MIN_GAP
        thresholds = torch.cat([first.reshape(1), first + gaps.cumsum(0)])
        # P(a < level <= b) = sigmoid(b - x) sigmoid(x - a) (1 - exp(a - b))
        at_most, above = F.logsigmoid(thresholds - output), F.logsigmoid(output - thresholds)
        return F.pad(at_most, (0, 1)) + F.pad(above, (1, 0)) + F.pad(torch.log(-torch.expm1(-gaps)), (1, 1))


class OneLogit(nn.Module):
    """A network with one output, the logit of the second of two classes.

    The logit of the first class is 0, so that softmax is the sigmoid of the output, and cross entropy is the binary
    cross entropy.

    Args:
        network: network with one output.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 1))
        >>> signals = torch.randn(5, 1, 8)
        >>> torch.allclose(OneLogit(network)(signals).softmax(1)[:, 1], network(signals)[:, 0].sigmoid())
        True
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, signals: Tensor, **keywords: Any) -> Tensor:
        """Return the logits of the classes `[B, 2]`; a network that takes metadata gets them."""
        return F.pad(self.network(signals, **keywords), (1, 0))


class ScaledOutput(nn.Module):
    """A network with one output, for a number, e.g. a severity or a remaining life.

    The network computes a standardized number, so that it trains alike for any unit; its weights are saved with the
    mean and the standard deviation.

    Args:
        network: network with one output.

    Example:
        >>> head = ScaledOutput(nn.Flatten())
        >>> head.standardize(torch.tensor([1000.0, 3000.0]))
        >>> head(torch.tensor([[0.0], [1.0]])).tolist()
        [[2000.0], [3000.0]]
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift", torch.tensor(0.0))
        self.register_buffer("scale", torch.tensor(1.0))

    def standardize(self, targets: Tensor) -> None:
        """Set mean and standard deviation to those of the training targets.

        Raises:
            ValueError: all targets are equal.
        """
        deviation, mean = torch.std_mean(targets.double(), correction=0)
        if not deviation > 1e-12 * mean.abs():
            raise ValueError(f"all training targets are {mean:g}, so there is nothing to learn")
        self.shift.copy_(mean)
        self.scale.copy_(deviation)

    def forward(self, signals: Tensor, **keywords: Any) -> Tensor:
        """Return the numbers `[B, 1]` in the unit of the targets; a network that takes metadata gets them."""
        return self.shift + self.scale * at_least_float32(self.network(signals, **keywords))


Create = Callable[[int], nn.Module]

HEADS: dict[str, Callable[[Sequence[str], Create], nn.Module]] = {
    "multiclass": lambda classes, create: create(len(classes)),
    "binary": lambda _, create: OneLogit(create(1)),
    "multilabel": lambda classes, create: CompoundFaults(create(len(single_faults(classes))), classes),
    "ordinal": lambda classes, create: OrdinalLevels(create(1), len(classes)),
    "regression": lambda _, create: ScaledOutput(create(1)),
}
"""Creates the network of each task from the labels, and from a function that creates it with a number of outputs."""


def with_head(task: str, classes: Sequence[str], create: Create) -> nn.Module:
    """Create a network with the outputs that a task needs.

    Args:
        task: one of `HEADS`: `'multiclass'`, `'binary'`, `'multilabel'` for compound faults, `'ordinal'` for levels,
            `'regression'` for a number.
        classes: the K labels; for levels in their order, for a number its name.
        create: creates the network, given its number of outputs.

    Returns:
        A network with logits `[B, K]`, or numbers `[B, 1]`.

    Raises:
        ValueError: as for `CompoundFaults`.
    """
    return HEADS[task](classes, create)
