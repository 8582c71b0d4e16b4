"""What is needed to evaluate the diagnoser of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whirl.data.recording import Recording
from whirl.runs.data import PreparedData
from whirl.runs.descriptors import PartDescriptors
from whirl.runs.reliability import Reliability
from whirl.runs.sections import OFF

Metrics = dict[str, dict[str, Any]]
"""Metrics by level, and what belongs to them, as in `metrics.json`."""


@dataclass(frozen=True)
class EvaluationTask:
    """Everything needed to evaluate a network.

    Attributes:
        data: recordings of the run, with its configuration.
        test: recordings to evaluate on.
        source: short description of these recordings.
        leaks: what they share with the training part.
        notes: choices and warnings to show with the result.
        descriptors: descriptors of the training and test recordings.
        reliability: calibration and known range of the diagnoser.
        command: command that reproduces the result.
        history: training history, one list of numbers per logged name.
        timings_s: durations in seconds, by step.
        extrapolations: warnings of recordings outside of the operating range of the training part.
    """

    data: PreparedData
    test: Sequence[Recording]
    source: str
    leaks: Sequence[str]
    notes: Sequence[str]
    descriptors: PartDescriptors
    reliability: Reliability
    command: str
    history: Mapping[str, Sequence[float | None]]
    timings_s: Mapping[str, float]
    extrapolations: Sequence[str] = ()

    @property
    def n_not_described(self) -> int:
        """Number of test recordings that a model of descriptors cannot judge."""
        kind: Any = self.data.config.model.descriptors
        return 0 if kind == OFF else int((~self.descriptors.get("test", kind).usable).sum())

    @property
    def warnings(self) -> list[str]:
        """Caveats to show with the scores."""
        missing = [label for label in self.data.classes if label not in {recording.label for recording in self.test}]
        warnings = [f"the test part has no recording of {', '.join(missing)}"] if missing else []
        warnings += self.extrapolations
        if self.leaks:
            warnings.append(f"test data were used in training ({len(self.leaks)} leaks; the first: {self.leaks[0]})")
        if any(recording.specimen is None for recording in self.test):
            warnings.append("some specimens are unknown, so one specimen may be in both training and test parts")
        if self.n_not_described:
            warnings.append(
                f"{self.n_not_described} of {len(self.test)} recordings cannot be described (unknown speed or bearing, "
                "or an unusable signal); all classes are equally probable for them"
            )
        return warnings
