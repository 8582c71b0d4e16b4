"""When a run can be trusted: calibration, prediction sets, and how unusual a recording is for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whirl.data.recording import Recording
from whirl.diagnosis.calibration import PredictionSets, fit_temperature, scale_temperature
from whirl.diagnosis.descriptor_sets import DescriptorKind, Descriptors
from whirl.diagnosis.learned import LearnedDiagnoser
from whirl.diagnosis.novelty import NoveltyDetector
from whirl.diagnosis.selection import (
    MAX_FOLDS,
    assign_folds,
    group_recordings,
    held_out_probabilities,
    suitable_candidates,
)
from whirl.engine.files import atomic_write
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.evaluation.values import mean_by_recording, predict_values
from whirl.runs.data import PreparedData
from whirl.runs.descriptors import PartDescriptors
from whirl.runs.run_folder import RunFolder
from whirl.runs.typical_error import TypicalError

logger = logging.getLogger(__name__)

FALSE_ALARM_RATE = 0.02
"""Share of recordings of known classes that are rejected as unlike the training recordings."""

COVERAGE = 0.9
"""Share of specimens whose prediction set contains the true class."""

MIN_STATES = 20
"""Held-out specimens, each counted once for each of its classes, below which sets would contain nearly all classes."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """What a run knows about its own predictions, from specimens that were held out.

    Attributes:
        temperature: temperature by which probabilities are calibrated; 1 leaves them.
        sets: prediction sets at the coverage `COVERAGE`; None if nothing could be held out.
        novelty: detector of unknown faults and other machines; None if nothing could be held out.
        kind: descriptors that it uses beside the features of the signal; None uses these alone.
        rate_hz: lowest sampling rate of the training recordings.
        shows_noise: whether a training recording shows nothing but noise.
        typical_error: the error to expect of a predicted number; None for classes.
    """

    temperature: float = 1.0
    sets: PredictionSets | None = None
    novelty: NoveltyDetector | None = None
    kind: DescriptorKind | None = None
    rate_hz: float = 0.0
    shows_noise: bool = False
    typical_error: TypicalError | None = None

    def calibrate(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return calibrated probabilities `[n, K]`; the most probable class stays the same."""
        probabilities = np.asarray(probabilities, np.float64)
        return probabilities if self.temperature == 1 else scale_temperature(probabilities, self.temperature)

    def p_values(
        self, descriptors: PartDescriptors, part: str, probabilities: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return how probable recordings as unusual as those of a part are among known ones, `[n]`, NaN if unknown.

        Args:
            descriptors: descriptors of the part.
            part: name of the part.
            probabilities: class probabilities before calibration, `[n, K]`.
        """
        p_values = np.full(len(descriptors.parts[part]), np.nan)
        if self.novelty is None:
            return p_values
        features = _features(descriptors, part, self.kind, self.rate_hz)
        if features.shape[1] != len(self.novelty.distances.center):  # another number of channels
            return p_values
        known = np.isfinite(features).all(axis=1) & ~np.isnan(probabilities[:, 0])
        if known.any():
            scores = _entropy(probabilities[known]) if self.novelty.known.shape[1] > _N_DISTANCES else None
            p_values[known] = self.novelty.p_values(features[known], scores)
        return p_values

    def save(self, folder: RunFolder) -> None:
        """Write plain arrays to the run folder."""
        sets = None if self.sets is None else [self.sets.threshold, self.sets.coverage, self.sets.n_specimens]
        about = {
            "temperature": self.temperature,
            "sets": sets,
            "kind": self.kind,
            "rate_hz": self.rate_hz,
            "shows_noise": self.shows_noise,
            "typical_error": None if self.typical_error is None else asdict(self.typical_error),
        }
        state: dict[str, Any] = {} if self.novelty is None else self.novelty.state()
        with atomic_write(folder.reliability_file) as stream:
            np.savez_compressed(stream, about=np.array(json.dumps(about)), **state)

    @classmethod
    def load(cls, folder: RunFolder) -> Reliability:
        """Load what `save` wrote; a run without it has none of these properties."""
        if not folder.reliability_file.is_file():
            return cls()
        with np.load(folder.reliability_file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            state = {name: stored[name] for name in stored.files if name != "about"}
        sets = None if about["sets"] is None else PredictionSets(*about["sets"])
        novelty = NoveltyDetector.from_state(state) if state else None
        kind, rate_hz = about["kind"], about["rate_hz"]
        error = TypicalError(**about["typical_error"]) if about.get("typical_error") else None
        return cls(about["temperature"], sets, novelty, kind, rate_hz, about["shows_noise"], error)


_N_DISTANCES = 2  # of a NoveltyDetector without further scores


def determine_reliability(model: nn.Module | LearnedDiagnoser, data: PreparedData) -> Reliability:
    """Determine the reliability of a trained model from held-out recordings of its training and validation parts.

    A model of descriptors is trained again on folds of specimens; a network is applied to its validation part. The test
    part is not used.
    """
    if isinstance(model, LearnedDiagnoser):
        return reliability_of_diagnoser(model, data.descriptors, data.classes)
    known = data.descriptors.parts["train"]
    is_number, kind = data.config.is_regression, _kind_that_suits(known)
    targets = np.zeros(len(known), np.intp) if is_number else _targets(known, data.classes)
    temperature, sets = (1.0, None) if is_number else _calibration(*_held_out_by_validation(model, data))
    groups = group_recordings(known, targets)[1]
    found = _with_novelty(temperature, sets, kind, data.descriptors, targets, groups, None)
    return replace(found, typical_error=_typical_error(model, data)) if is_number else found


def _typical_error(model: nn.Module, data: PreparedData) -> TypicalError:
    """Determine the error of predicted numbers from the validation part."""
    found = mean_by_recording(predict_values(model, data.windows(data.split.val), data.device))
    return TypicalError.of(found.errors, _specimens(data.split.val), data.split.val_by == "specimen")


def reliability_of_diagnoser(
    model: LearnedDiagnoser, descriptors: PartDescriptors, classes: Sequence[str]
) -> Reliability:
    """Determine the reliability of a model of descriptors, which is trained again on folds of specimens.

    Args:
        model: the trained model.
        descriptors: descriptors of the recordings that it was trained on, as the part `"train"`.
        classes: names of the K classes.
    """
    known = descriptors.parts["train"]
    targets = _targets(known, classes)
    probabilities, groups = _held_out_by_folds(model, descriptors, classes, targets)
    temperature, sets = _calibration(probabilities, targets, groups)
    kind = "families" if model.candidate.kind == "families" else "evidence_and_levels"
    return _with_novelty(temperature, sets, kind, descriptors, targets, groups, _entropy(probabilities))


def _with_novelty(
    temperature: float,
    sets: PredictionSets | None,
    kind: DescriptorKind | None,
    descriptors: PartDescriptors,
    targets: NDArray[np.intp],
    groups: NDArray[np.integer],
    scores: NDArray[np.float64] | None,
) -> Reliability:
    known = descriptors.parts["train"]
    rate_hz = min(recording.sampling_rate_hz for recording in known)
    novelty = _novelty(_features(descriptors, "train", kind, rate_hz), targets, groups, scores)
    return Reliability(temperature, sets, novelty, kind, rate_hz, descriptors.shows_noise)


def _kind_that_suits(recordings: Sequence[Recording]) -> DescriptorKind | None:
    suitable = suitable_candidates(recordings)
    return suitable[-1].kind if suitable else None


def _targets(recordings: Sequence[Recording], classes: Sequence[str]) -> NDArray[np.intp]:
    return np.array([classes.index(str(recording.label)) for recording in recordings], np.intp)


def _held_out_by_folds(
    model: LearnedDiagnoser, descriptors: PartDescriptors, classes: Sequence[str], targets: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Return probabilities `[n, K]`, NaN if nothing can be held out, and the group of each recording, `[n]`."""
    _, groups = group_recordings(descriptors.parts["train"], targets)
    if not len(groups):
        return np.full((len(targets), len(classes)), np.nan), groups
    ordered = sorted(classes)
    places = np.array([ordered.index(name) for name in classes])
    probabilities = descriptors.held_out.get((model.candidate, model.seed))
    if probabilities is None or probabilities.shape != (len(targets), len(classes)):  # as `choose_candidate` does it
        folds = assign_folds(groups, places[targets], MAX_FOLDS, model.seed)
        described = descriptors.get("train", model.candidate.kind)
        probabilities = held_out_probabilities(model.candidate, described, places[targets], ordered, folds, model.seed)
    return probabilities[:, places], groups


def _held_out_by_validation(
    model: nn.Module, data: PreparedData
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.integer]]:
    recordings = data.split.val
    windows = predict_windows(model, data.windows(recordings), data.device)
    targets = _targets(recordings, data.classes)
    return aggregate_by_recording(windows).probabilities, targets, _specimens(recordings)


def _specimens(recordings: Sequence[Recording]) -> NDArray[np.integer]:
    """Return the number of each recording's specimen, `[n]`; a recording of an unknown one is its own."""
    return np.unique([recording.specimen or recording.source for recording in recordings], return_inverse=True)[1]


def _calibration(
    probabilities: NDArray[np.float64], targets: NDArray[np.intp], groups: NDArray[np.integer]
) -> tuple[float, PredictionSets | None]:
    known = ~np.isnan(probabilities[:, 0])
    if not known.any():
        return 1.0, None
    # A specimen counts once for each of its classes, as for the detector of unusual recordings.
    states = np.unique(np.stack([groups[known], targets[known]]), axis=1, return_inverse=True)[1].ravel()
    temperature = fit_temperature(probabilities[known], targets[known], states)
    if states.max() + 1 < MIN_STATES:
        return temperature, None
    calibrated = scale_temperature(probabilities[known], temperature)
    return temperature, PredictionSets.fit(calibrated, targets[known], states, coverage=COVERAGE)


def _novelty(
    features: NDArray[np.float64],
    targets: NDArray[np.intp],
    groups: NDArray[np.integer],
    scores: NDArray[np.float64] | None,
) -> NoveltyDetector | None:
    if not len(groups):
        return None
    table = features if scores is None else np.column_stack([features, scores])
    known = np.flatnonzero(np.isfinite(table).all(axis=1))
    try:
        return NoveltyDetector(
            features[known],
            np.unique(targets[known], return_inverse=True)[1],
            np.unique(groups[known], return_inverse=True)[1],
            None if scores is None else scores[known],
        )
    except ValueError as error:
        logger.info("unusual recordings will not be recognized: %s", error)
        return None


def _entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy of each row in nats, `[n, 1]`, raised by a little so that it is never 0."""
    known = np.maximum(probabilities, 1e-12)
    return -(known * np.log(known)).sum(axis=1, keepdims=True) + 1e-3


def _features(
    descriptors: PartDescriptors, part: str, kind: DescriptorKind | None, rate_hz: float
) -> NDArray[np.float64]:
    """Return features of the signal, and those of its descriptors, `[n, F]`; NaN where there are none."""
    of_signals = descriptors.of_waveforms(part, rate_hz)
    if kind is None:
        return of_signals
    return np.column_stack([of_signals, _of_recordings(descriptors.get(part, cast("DescriptorKind", kind)))])


def _of_recordings(descriptors: Descriptors) -> NDArray[np.float64]:
    """Return one row of descriptors for each recording, `[n, F]`."""
    if descriptors.kind == "families":
        rows = descriptors.families.reshape(descriptors.n_recordings, -1).astype(np.float64)
        is_judged = np.asarray(descriptors.judged.any(axis=1))
        return np.where(is_judged[:, None], rows, np.nan)
    return descriptors.mean_over_rows(descriptors.values).astype(np.float64)
