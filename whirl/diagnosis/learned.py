"""Diagnosers that learn classes from descriptors of recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.diagnosis.descriptor_models import DescriptorModel, State
from whirl.diagnosis.descriptor_sets import DescriptorKind, Descriptors, describe
from whirl.diagnosis.registry import DIAGNOSERS
from whirl.engine.files import atomic_write
from whirl.validation import check_name


class Candidate(NamedTuple):
    """A model and the descriptors that it is trained on.

    Attributes:
        model: a name in `whirl.diagnosis.registry.DIAGNOSERS`; `"rule"` and `"family_net"` require families.
        kind: the descriptors.
    """

    model: str
    kind: DescriptorKind

    def __str__(self) -> str:
        return f"{self.model} on {self.kind}"


BEARING_CANDIDATES = (
    Candidate("rule", "families"),
    Candidate("family_net", "families"),
    Candidate("logistic_regression", "families"),
    Candidate("extra_trees", "families"),
)
"""Models for rolling bearings, simplest first."""

ROTOR_CANDIDATES = (
    Candidate("logistic_regression", "evidence"),
    Candidate("logistic_regression", "order_levels"),
    Candidate("logistic_regression", "evidence_and_levels"),
    Candidate("extra_trees", "evidence_and_levels"),
)
"""Models for rotors and journal bearings, simplest first."""


class LearnedDiagnoser:
    """A diagnoser of recordings that was trained on labeled ones.

    Args:
        candidate: the model and its descriptors.
        seed: seed of the model.

    Attributes:
        classes: names of the classes K, sorted.

    Example:
        >>> from whirl.data.simulation import simulate
        >>> recordings = simulate(3, 1, ["healthy", "inner_race", "outer_race"], n_samples=60_000)
        >>> diagnoser = LearnedDiagnoser(Candidate("rule", "families")).fit(recordings)
        >>> diagnoser.classes, diagnoser.predict_proba(recordings).shape
        (('healthy', 'inner_race', 'outer_race'), (9, 3))
    """

    def __init__(self, candidate: Candidate, seed: int = 0) -> None:
        self.candidate, self.seed = candidate, seed
        self.classes: tuple[str, ...] = ()
        self._model: DescriptorModel = DIAGNOSERS.get(candidate.model)(seed)

    def fit(
        self,
        recordings: Sequence[Recording] | Descriptors,
        labels: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> LearnedDiagnoser:
        """Train on recordings; those that cannot be described, e.g. because their speed is unknown, are left out.

        Args:
            recordings: labeled recordings, or their descriptors.
            labels: label of each; default the recordings' own.
            classes: names of all classes; default those that occur.

        Raises:
            ValueError: a label is missing or not among the classes, or no recording can be described.
        """
        if labels is None:
            labels = _own_labels(recordings)
        self.classes = tuple(sorted(set(labels))) if classes is None else tuple(classes)
        for label in dict.fromkeys(labels):
            check_name("class", label, self.classes)
        descriptors = self._describe(recordings)
        if len(labels) != descriptors.n_recordings:
            raise ValueError(f"there are {len(labels)} labels for {descriptors.n_recordings} recordings")
        targets = np.array([self.classes.index(label) for label in labels], np.intp)
        usable = np.flatnonzero(descriptors.usable)
        if not len(usable):
            raise ValueError(
                f"none of {len(labels)} recordings can be described by {self.candidate.kind}; "
                "expected a speed, and a bearing for families"
            )
        self._model.fit(descriptors.take(usable), targets[usable], self.classes)
        return self

    def predict_proba(self, recordings: Sequence[Recording] | Descriptors) -> NDArray[np.float64]:
        """Return class probabilities `[n, K]`; NaN for recordings that cannot be described.

        Raises:
            ValueError: the diagnoser has not been trained.
        """
        if not self.classes:
            raise ValueError(f"{self.candidate} has not been trained: call fit first")
        descriptors = self._describe(recordings)
        probabilities = np.full((descriptors.n_recordings, len(self.classes)), np.nan)
        usable = np.flatnonzero(descriptors.usable)
        if len(usable):
            probabilities[usable] = self._model.predict_proba(descriptors.take(usable))
        return probabilities

    def predict(self, recordings: Sequence[Recording] | Descriptors) -> list[str | None]:
        """Return the most probable class of each recording; None for those that cannot be described."""
        probabilities = self.predict_proba(recordings)
        return [None if np.isnan(row[0]) else self.classes[int(row.argmax())] for row in probabilities]

    def save(self, file: str | Path) -> None:
        """Write the trained model as a `.npz` file of plain arrays."""
        about = {"model": self.candidate.model, "kind": self.candidate.kind, "classes": self.classes, "seed": self.seed}
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about)), **self.state()}
        with atomic_write(file) as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, file: str | Path) -> LearnedDiagnoser:
        """Load what `save` wrote."""
        with np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            state = {name: stored[name] for name in stored.files if name != "about"}
        return cls.from_state(Candidate(about["model"], about["kind"]), state, about["classes"], about["seed"])

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the trained model as plain arrays."""
        return self._model.state()

    @classmethod
    def from_state(cls, candidate: Candidate, state: State, classes: Sequence[str], seed: int = 0) -> LearnedDiagnoser:
        """Restore a trained model.

        Args:
            candidate: the model and its descriptors.
            state: what `state` returned.
            classes: names of the K classes, in the order of training.
            seed: seed of the model.
        """
        diagnoser = cls(candidate, seed)
        diagnoser.classes = tuple(classes)
        diagnoser._model.load_state(state)
        return diagnoser

    def _describe(self, recordings: Sequence[Recording] | Descriptors) -> Descriptors:
        if isinstance(recordings, Descriptors):
            if recordings.kind != self.candidate.kind:
                raise ValueError(f"descriptors are {recordings.kind}, expected {self.candidate.kind}")
            return recordings
        return describe(recordings, self.candidate.kind)


def _own_labels(recordings: Sequence[Recording] | Descriptors) -> list[str]:
    if isinstance(recordings, Descriptors):
        raise ValueError("labels is None, expected a label for each of the descriptors")
    labels = [recording.label for recording in recordings]
    if None in labels:
        raise ValueError(f"{recordings[labels.index(None)].name}: has no label")
    return [str(label) for label in labels]
