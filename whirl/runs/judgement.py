"""The judgement of a recording: class, probability, evidence, and why it is doubtful."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from whirl.data.levels import VibrationLevels

Status = Literal["ok", "doubtful", "not_judged", "unreadable"]

NOT_JUDGED = "not_judged"
"""Class of recordings that cannot be judged."""


@dataclass(frozen=True)
class PredictedNumber:
    """A predicted number and its error, e.g. a severity or a remaining life.

    Attributes:
        target: what it is.
        value: the predicted number, the mean over the windows of the recording.
        low: lower end of the interval that contains the true number of 90 % of new specimens; None if the run has too
            few held-out specimens for an interval.
        high: upper end.
        typical_error: mean absolute error of held-out recordings; None if unknown.
    """

    target: str
    value: float
    low: float | None = None
    high: float | None = None
    typical_error: float | None = None

    def __str__(self) -> str:
        """Return the number with its interval, otherwise with its typical error.

        Example:
            >>> str(PredictedNumber("severity", 0.52, typical_error=0.1)), str(PredictedNumber("days", 9.0, 7.0, 11.0))
            ('0.52 (typical error 0.1)', '9 [7, 11]')
        """
        if self.low is not None and self.high is not None:
            return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}" + (f" (typical error {self.typical_error:.3g})" if self.typical_error else "")


@dataclass(frozen=True)
class Diagnosis:
    """The judgement of one recording.

    Attributes:
        file: file of the recording.
        label: name of the most probable class, or of the predicted number, or `NOT_JUDGED`.
        probability: calibrated probability of that class, 0 to 1; for a network the mean over the windows of the
            recording. None if not judged.
        probabilities: probability of every class; empty if not judged.
        n_windows: number of windows; None for a model of descriptors.
        physics: verdict of the untrained diagnosis of rolling bearings, see `whirl.diagnosis`; None if no class is a
            fault of rolling bearings.
        status: `"ok"`; `"doubtful"` if there is a reason not to trust the class; `"not_judged"` if the signal, or what
            is known of it, does not allow a judgement; `"unreadable"` if the file cannot be used.
        reasons: why the status is not `"ok"`; empty otherwise.
        evidence: reasons of the untrained diagnosis.
        prediction_set: classes that are as probable as the true one is in the stated share of known specimens; None if
            the run has no such sets.
        typicality: share of known recordings that are at least as unusual, 0 to 1; None if unknown.
        rpm: speed of the shaft, rpm; None if unknown.
        bearing: bearing of the recording; None if unknown.
        machine: specimen of the recording; None if unknown.
        point: channels of the recording.
        levels: levels of vibration; None if the unit is unknown.
        faults: probability of each single fault, for compound faults; empty otherwise.
        number: the predicted number, for a run that predicts one; then there are no probabilities.
    """

    file: str
    label: str
    probability: float | None
    probabilities: dict[str, float]
    n_windows: int | None
    physics: str | None = None
    status: Status = "ok"
    reasons: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    prediction_set: tuple[str, ...] | None = None
    typicality: float | None = None
    rpm: float | None = None
    bearing: str | None = None
    machine: str | None = None
    point: str = ""
    levels: VibrationLevels | None = None
    faults: dict[str, float] = field(default_factory=dict)
    number: PredictedNumber | None = None

    @classmethod
    def unreadable(cls, file: str, reason: str) -> Diagnosis:
        """Return the judgement of a file that cannot be used."""
        return cls(file, NOT_JUDGED, None, {}, None, status="unreadable", reasons=(reason,))

    @property
    def is_judged(self) -> bool:
        """Whether a class was named, or a number predicted."""
        return self.probability is not None or self.number is not None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "file": self.file,
            "class": self.label if self.number is None else None,
            "probability": self.probability,
            "status": self.status,
            "reasons": list(self.reasons),
            "physics": self.physics,
            "evidence": list(self.evidence),
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "typicality": self.typicality,
            "rpm": self.rpm,
            "bearing": self.bearing,
            "machine": self.machine,
            "point": self.point,
            "levels": None if self.levels is None else self.levels.as_dict(),
            "windows": self.n_windows,
            "probabilities": self.probabilities,
            "faults": self.faults,
            "number": None if self.number is None else asdict(self.number),
        }

    def __str__(self) -> str:
        parts = [self.file, self.label]
        if self.number is not None:
            parts.append(str(self.number))
        if self.probability is not None:
            parts.append(f"{self.probability:.3f}")
        if self.n_windows is not None:
            parts.append(f"({self.n_windows} windows)")
        if self.physics is not None:
            parts.append(f"[untrained: {self.physics}]")
        if self.status != "ok" and self.status != self.label:
            parts.append(self.status)
        faults = ", ".join(f"{name} {probability:.3f}" for name, probability in self.faults.items())
        lines = ["  ".join(parts), *([f"single faults: {faults}"] if faults else []), *self.reasons, *self.evidence[:1]]
        return "\n  ".join(lines)
