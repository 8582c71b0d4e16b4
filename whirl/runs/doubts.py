"""Reasons not to judge a recording, and not to trust its judgement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.diagnosis.order_levels import MIN_REVOLUTIONS
from whirl.diagnosis.results import FAULTS, RecordingDiagnosis
from whirl.diagnosis.signal_quality import why_unusable
from whirl.physics.faults import ROLLING_CLASSES, signature
from whirl.runs.descriptors import shows_noise
from whirl.runs.harmonization import CLEAR_SPEED_CONFIDENCE, RPM_CONFIDENCE
from whirl.runs.judgement import Diagnosis
from whirl.runs.operating_range import OperatingRange
from whirl.runs.reliability import FALSE_ALARM_RATE, Reliability


def why_not_judged(
    recording: Recording, row: NDArray[np.float64], physics: RecordingDiagnosis | None, unusable: Mapping[str, str]
) -> tuple[str, ...]:
    """Return why a recording cannot be judged; empty if it can.

    Args:
        recording: the recording.
        row: its class probabilities `[K]`, NaN if it could not be described.
        physics: its untrained diagnosis, if there is one.
        unusable: see `unusable_channels`.
    """
    if len(unusable) == recording.n_channels:
        return tuple(dict.fromkeys(unusable.values()))
    if not np.isnan(row).any():
        return ()
    reasons = () if physics is None else tuple(dict.fromkeys(each.reasons[0] for each in physics.results))
    return reasons or (_why_not_described(recording, unusable),)


def _why_not_described(recording: Recording, unusable: Mapping[str, str]) -> str:
    """Return why a recording of a rotor cannot be described."""
    if not np.isfinite(recording.signal).all():
        return "; ".join(f"channel {name}: {reason}" for name, reason in unusable.items())
    if recording.rpm is None:
        return f"no physics: the speed of the shaft is {_unknown_speed(recording)}; give rpm"
    return (
        f"no physics: {recording.n_revolutions or 0:.1f} revolutions of the shaft, expected at least "
        f"{MIN_REVOLUTIONS:g}"
    )


def _unknown_speed(recording: Recording) -> str:
    confidence = recording.metadata.get(RPM_CONFIDENCE)
    return "unknown" if confidence is None else f"not clear from the signal (confidence {confidence:.2f})"


def unusable_channels(recording: Recording) -> dict[str, str]:
    """Return why channels cannot be evaluated, by their name; those that can be are left out."""
    found = zip(recording.channels, map(why_unusable, recording.signal), strict=True)
    return {name: reason for name, reason in found if reason is not None}


def doubts_of(
    found: Diagnosis,
    recording: Recording,
    unusable: Mapping[str, str],
    classes: Sequence[str],
    operating_range: OperatingRange,
    reliability: Reliability,
) -> tuple[str, ...]:
    """Return the reasons not to trust a judgement; empty if there are none.

    Args:
        found: the judgement.
        recording: the recording.
        unusable: see `unusable_channels`.
        classes: classes that the diagnoser was trained on.
        operating_range: operating range of its training recordings.
        reliability: its reliability.
    """
    return (
        *_doubts_of_signal(recording, unusable, reliability),
        *(f"{each}: the diagnosis is an extrapolation" for each in operating_range.out_of_range(recording)),
        *_doubts_of_speed(recording, operating_range),
        *_doubts_of_model(found),
        *_doubts_of_physics(found, classes),
    )


def _doubts_of_signal(recording: Recording, unusable: Mapping[str, str], reliability: Reliability) -> Iterator[str]:
    for name, reason in unusable.items():
        yield f"channel {name}: {reason}"
    if not reliability.shows_noise and shows_noise(recording):
        yield "the signal is noise without a line or an impact: no machine is visible in it"


def _doubts_of_speed(recording: Recording, operating_range: OperatingRange) -> Iterator[str]:
    if recording.rpm is None and operating_range.rpm is not None:
        yield f"the speed of the shaft is {_unknown_speed(recording)}, in training it was known; give rpm"
    confidence = recording.metadata.get(RPM_CONFIDENCE, 1.0)
    if recording.rpm is not None and confidence < CLEAR_SPEED_CONFIDENCE:
        yield f"the speed of the shaft, {recording.rpm:.0f} rpm by the signal, has a confidence of {confidence:.2f}"


def _doubts_of_model(found: Diagnosis) -> Iterator[str]:
    if found.typicality is not None and found.typicality <= FALSE_ALARM_RATE:
        share = f"{100 * found.typicality:.2g} %" if found.typicality >= 1e-4 else "less than 0.01 %"
        yield f"unlike the training recordings: {share} of known ones are as unusual"
    if found.prediction_set is not None and len(found.prediction_set) > 1:
        yield f"cannot be told apart: {', '.join(found.prediction_set)}"


def _doubts_of_physics(found: Diagnosis, classes: Sequence[str]) -> Iterator[str]:
    """A fault that physics shows and the model does not, and faults of a model that has seen no healthy machine."""
    if found.physics in FAULTS and signature(found.label) != signature(found.physics):
        known = "" if any(signature(each) == signature(found.physics) for each in classes) else ", unknown in training"
        yield f"the untrained diagnosis shows {found.physics}{known}"
    if not _knows_healthy(classes) and not (
        found.physics in FAULTS and signature(found.label) == signature(found.physics)
    ):
        yield "no healthy machine was in the training part, so a healthy one is called a fault"


def _knows_healthy(classes: Sequence[str]) -> bool:
    """Whether healthy is among the classes, or none of them is a fault that is known by name."""
    known = {signature(name) for name in classes} - {None}
    return not known or signature(ROLLING_CLASSES[0]) in known
