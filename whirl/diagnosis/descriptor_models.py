"""Models of descriptors, which learn classes of faults from labeled recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from whirl.diagnosis.descriptor_sets import Descriptors
from whirl.diagnosis.family_features import PARTS
from whirl.diagnosis.family_net import NOTHING, FamilyNet, train_family_net
from whirl.diagnosis.logistic import LogisticRegression, class_weights
from whirl.diagnosis.registry import register_diagnoser
from whirl.diagnosis.trees import ExtraTrees
from whirl.physics.faults import signature

State = Mapping[str, NDArray[np.generic]]

FINE_TUNING_PENALTY = 10.0
"""Weight that holds the pretrained weights of the family network in place during fine-tuning."""


class DescriptorModel(Protocol):
    """A classifier of descriptors. Its state is a dictionary of plain arrays.

    All recordings that it gets have rows of descriptors.
    """

    def fit(
        self, descriptors: Descriptors, targets: NDArray[np.integer], classes: Sequence[str]
    ) -> DescriptorModel: ...
    def predict_proba(self, descriptors: Descriptors) -> NDArray[np.float64]: ...
    def state(self) -> dict[str, NDArray[np.generic]]: ...
    def load_state(self, state: State) -> DescriptorModel: ...


def part_of(label: str) -> int:
    """Return the index in `PARTS` of the part that a label names, or `NOTHING` for any other label.

    Example:
        >>> part_of("Outer race"), part_of("IR"), part_of("normal"), part_of("cage")
        (1, 0, 3, 3)
    """
    found = signature(label)
    return next((index for index, part in enumerate(PARTS) if found == signature(part)), NOTHING)


class _Reading:
    """What each verdict means for the classes of the training part: P(class | verdict), counted and smoothed.

    Before any count, a part stands for the class that is named after it, and "no line found" for all classes alike.
    Where no class is healthy, the counts tell which faults show no line, e.g. those of rolling elements.
    """

    prior = 2.0  # pseudo-counts of a verdict

    def __init__(self) -> None:
        self.table = np.zeros((NOTHING + 1, 0))

    def fit(self, verdicts: NDArray[np.floating], targets: NDArray[np.integer], classes: Sequence[str]) -> None:
        """Count soft verdicts `[n, 4]` by class, each class with the same weight."""
        parts = np.array([part_of(label) for label in classes])
        prior = np.array([parts == part for part in range(NOTHING + 1)], dtype=float)
        unnamed = ~prior.any(axis=1)
        prior[unnamed] = 1
        prior[NOTHING] = 1
        prior /= prior.sum(axis=1, keepdims=True)
        weights = class_weights(targets, len(classes))
        counts = (verdicts * weights[:, None]).T @ np.eye(len(classes))[targets]
        table = counts + self.prior * prior
        self.table = table / table.sum(axis=1, keepdims=True)

    def __call__(self, verdicts: NDArray[np.floating]) -> NDArray[np.float64]:
        return verdicts @ self.table


@register_diagnoser("rule")
class RuleModel:
    """The untrained rule; training only counts what its verdicts mean for the classes."""

    def __init__(self, seed: int = 0) -> None:
        self.reading = _Reading()

    def fit(self, descriptors: Descriptors, targets: NDArray[np.integer], classes: Sequence[str]) -> RuleModel:
        self.reading.fit(self._verdicts(descriptors), targets, classes)
        return self

    def predict_proba(self, descriptors: Descriptors) -> NDArray[np.float64]:
        return self.reading(self._verdicts(descriptors))

    def state(self) -> dict[str, NDArray[np.generic]]:
        return {"reading": self.reading.table}

    def load_state(self, state: State) -> RuleModel:
        self.reading.table = np.asarray(state["reading"], dtype=np.float64)
        return self

    def _verdicts(self, descriptors: Descriptors) -> NDArray[np.float64]:
        _check_families(descriptors)
        return np.eye(NOTHING + 1)[descriptors.verdicts]


@register_diagnoser("family_net")
class FamilyNetModel:
    """The pretrained family network, fine-tuned; training also counts what its verdicts mean for the classes."""

    def __init__(self, seed: int = 0) -> None:
        self.net, self.reading = FamilyNet.pretrained(), _Reading()

    def fit(self, descriptors: Descriptors, targets: NDArray[np.integer], classes: Sequence[str]) -> FamilyNetModel:
        _check_families(descriptors)
        parts = np.array([part_of(label) for label in classes])[targets]
        self.net = train_family_net(
            descriptors.families, descriptors.judged, parts, FamilyNet.pretrained(), penalty=FINE_TUNING_PENALTY
        )
        self.reading.fit(self._verdicts(descriptors), targets, classes)
        return self

    def predict_proba(self, descriptors: Descriptors) -> NDArray[np.float64]:
        return self.reading(self._verdicts(descriptors))

    def state(self) -> dict[str, NDArray[np.generic]]:
        return {"reading": self.reading.table, **{f"net.{name}": value for name, value in self.net.state().items()}}

    def load_state(self, state: State) -> FamilyNetModel:
        self.reading.table = np.asarray(state["reading"], dtype=np.float64)
        weights = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
        self.net = FamilyNet.from_state(weights)
        return self

    def _verdicts(self, descriptors: Descriptors) -> NDArray[np.float64]:
        return self.net.predict_proba(descriptors.families, descriptors.judged)


def _check_families(descriptors: Descriptors) -> None:
    if descriptors.kind != "families":
        raise ValueError(f"descriptors are {descriptors.kind}, expected families: choose a model of tables for others")


class TableModel:
    """A model of tables: the mean of its probabilities over the rows of a recording."""

    def __init__(self, model: LogisticRegression | ExtraTrees) -> None:
        self.model = model

    def fit(self, descriptors: Descriptors, targets: NDArray[np.integer], classes: Sequence[str]) -> TableModel:
        self.model.fit(descriptors.values, targets[descriptors.owner], len(classes))
        return self

    def predict_proba(self, descriptors: Descriptors) -> NDArray[np.float64]:
        return descriptors.mean_over_rows(self.model.predict_proba(descriptors.values)).astype(np.float64)

    def state(self) -> dict[str, NDArray[np.generic]]:
        return self.model.state()

    def load_state(self, state: State) -> TableModel:
        self.model.load_state(state)
        return self


@register_diagnoser("logistic_regression")
def logistic_regression(seed: int = 0) -> TableModel:
    """Create a logistic regression on tables of descriptors; it does not depend on the seed."""
    return TableModel(LogisticRegression())


@register_diagnoser("extra_trees")
def extra_trees(seed: int = 0) -> TableModel:
    """Create extremely randomized trees on tables of descriptors."""
    return TableModel(ExtraTrees(seed=seed))
