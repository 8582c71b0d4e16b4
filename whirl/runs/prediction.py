"""Diagnosis of files with a trained run or a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whirl.data.levels import VibrationLevels, vibration_levels
from whirl.data.manifest import read_listed
from whirl.data.recording import Recording
from whirl.data.resampling import to_common_rate
from whirl.data.windows import WindowDataset
from whirl.diagnosis.descriptor_sets import of_diagnoses
from whirl.diagnosis.learned import LearnedDiagnoser
from whirl.diagnosis.results import RecordingDiagnosis
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.engine.device import resolve_device
from whirl.evaluation.prediction import aggregate_by_recording, decide, predict_windows
from whirl.evaluation.target_scores import fault_probabilities
from whirl.evaluation.values import mean_by_recording, predict_values
from whirl.runs.bundle import is_bundle, load_bundle
from whirl.runs.config import Config
from whirl.runs.data import rolling_faults
from whirl.runs.descriptors import PartDescriptors
from whirl.runs.diagnosis import known_facts
from whirl.runs.doubts import doubts_of, unusable_channels, why_not_judged
from whirl.runs.evaluation import load_trained
from whirl.runs.harmonization import check_convertible, complete
from whirl.runs.judgement import NOT_JUDGED, Diagnosis, PredictedNumber
from whirl.runs.operating_range import OperatingRange, load_operating_range
from whirl.runs.reliability import Reliability
from whirl.runs.run_folder import RunFolder

_FAILURES = (ValueError, OSError, ImportError)  # errors of one file, reported without failing the others

BATCH = 32
"""Files that are read before they are judged together."""


@dataclass(frozen=True, eq=False)
class Diagnoser:
    """A trained network or model of descriptors with everything needed to apply it to recordings.

    Attributes:
        config: configuration; defines channels and, for a network, sampling rate, band and window.
        model: a network, which maps signals `[B, C, T]` to logits `[B, K]` or numbers `[B, 1]`, or a model of
            descriptors.
        operating_range: speeds, loads, rates and levels of the training recordings; others are doubtful.
        reliability: calibration and known range of the model.
    """

    config: Config
    model: nn.Module | LearnedDiagnoser
    operating_range: OperatingRange
    reliability: Reliability = field(default_factory=Reliability)

    def diagnose(self, recordings: Sequence[Recording], files: Sequence[str | Path]) -> list[Diagnosis]:
        """Diagnose recordings with the channels of the training recordings, at any sampling rate.

        Args:
            recordings: at least one recording.
            files: file of each recording, for the results.

        Raises:
            ValueError: a recording is too short, or its sampling rate is too low for the network.
        """
        physics = self._physics(recordings)
        descriptors = PartDescriptors({_FILES: recordings})
        if physics is not None:
            descriptors.add(_FILES, of_diagnoses(physics))
        raw, n_windows = self._predict(recordings, descriptors)
        p_values = self.reliability.p_values(descriptors, _FILES, raw)
        rows = zip(recordings, files, self.reliability.calibrate(raw), p_values, n_windows, strict=True)
        untrained = [None] * len(recordings) if physics is None else physics
        return [self._judge(*row, found) for row, found in zip(rows, untrained, strict=True)]

    def to_input(self, recording: Recording) -> Recording:
        """Convert a recording to the sampling rate and band of the training recordings, as a network requires.

        Raises:
            ValueError: it is shorter than a window, its sampling rate is too low, or it is not finite.
        """
        if isinstance(self.model, LearnedDiagnoser):
            return recording
        check_convertible(recording, self.config)
        (converted,) = to_common_rate([recording], self.config.data.sampling_rate_hz, self.config.band_hz)
        WindowDataset([converted], None, self.config.input.window)  # raises if it is not finite
        return converted

    def _physics(self, recordings: Sequence[Recording]) -> list[RecordingDiagnosis] | None:
        """Return the untrained diagnosis of each recording; None if no class is a fault of rolling bearings."""
        return SpectralDiagnoser().diagnose(recordings) if rolling_faults(self.config.data.classes) else None

    def _predict(
        self, recordings: Sequence[Recording], descriptors: PartDescriptors
    ) -> tuple[NDArray[np.float64], list[int | None]]:
        """Return class probabilities `[n, K]`, NaN where not judged, and the number of windows of each recording.

        For a run that predicts a number, these are the numbers `[n, 1]`.
        """
        if isinstance(self.model, LearnedDiagnoser):
            described = descriptors.get(_FILES, self.model.candidate.kind)
            return self.model.predict_proba(described), [None] * len(recordings)
        window = self.config.input.window
        data = WindowDataset([self.to_input(recording) for recording in recordings], None, window, window)
        device = resolve_device(self.config.run.device)
        if self.config.is_regression:
            windows = predict_values(self.model, data, device)
            found = mean_by_recording(windows).values[:, None]
        else:
            windows = predict_windows(self.model, data, device)
            found = aggregate_by_recording(windows).probabilities
        return found, np.bincount(windows.recording, minlength=len(recordings)).tolist()

    def _judge(
        self,
        recording: Recording,
        file: str | Path,
        row: NDArray[np.float64],
        p_value: float,
        n_windows: int | None,
        physics: RecordingDiagnosis | None,
    ) -> Diagnosis:
        found = Diagnosis(
            file=str(file),
            label=NOT_JUDGED,
            probability=None,
            probabilities={},
            n_windows=n_windows,
            physics=None if physics is None else physics.verdict,
            evidence=() if physics is None or physics.verdict == NOT_JUDGED else physics.reasons,
            rpm=recording.rpm,
            bearing=recording.bearing,
            machine=recording.specimen,
            point=" ".join(recording.channels),
            levels=_levels(recording),
        )
        unusable = unusable_channels(recording)
        reasons = why_not_judged(recording, row, physics, unusable)
        if reasons:
            return replace(found, status="not_judged", reasons=reasons)
        found = replace(found, typicality=None if np.isnan(p_value) else float(p_value))
        found = self._with_number(found, row) if self.config.is_regression else self._with_class(found, row)
        classes, known = self.config.data.classes, self.operating_range
        doubts = doubts_of(found, recording, unusable, classes, known, self.reliability)
        return replace(found, status="doubtful" if doubts else "ok", reasons=doubts)

    def _with_number(self, found: Diagnosis, row: NDArray[np.float64]) -> Diagnosis:
        error, value = self.reliability.typical_error, float(row[0])
        half_width = None if error is None else error.half_width
        number = PredictedNumber(
            self.config.data.target,
            value,
            *((None, None) if half_width is None else (value - half_width, value + half_width)),
            typical_error=None if error is None else error.mean_absolute,
        )
        return replace(found, label=number.target, number=number)

    def _with_class(self, found: Diagnosis, row: NDArray[np.float64]) -> Diagnosis:
        classes, sets = self.config.data.classes, self.reliability.sets
        best = int(decide(row, self.config.evaluation.threshold))
        members = None if sets is None else sets.contains(row)
        return replace(
            found,
            label=classes[best],
            probability=float(row[best]),
            probabilities=dict(zip(classes, row.tolist(), strict=True)),
            prediction_set=None if members is None else tuple(np.array(classes)[members].tolist()),
            faults=self._faults(row),
        )

    def _faults(self, row: NDArray[np.float64]) -> dict[str, float]:
        """Return the probability of each single fault of compound faults."""
        if self.config.training.task != "multilabel":
            return {}
        return {name: float(each[0]) for name, each in fault_probabilities(row[None], self.config.data.classes).items()}


def _levels(recording: Recording) -> VibrationLevels | None:
    try:
        return vibration_levels(recording)
    except ValueError:  # the unit is unknown, or a sample is not finite, which is a reason of its own
        return None


_FILES = "files"  # name of the part of the recordings to diagnose


def load_diagnoser(path: str | Path) -> Diagnoser:
    """Load the diagnoser from a run folder or a bundle.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: the folder is neither a run folder nor a bundle, or it is damaged.
    """
    if is_bundle(path):
        bundle = load_bundle(path)
        return Diagnoser(bundle.config, bundle.network, bundle.description.operating_range, bundle.reliability)
    folder = RunFolder(path)
    config = folder.read_config()
    known = load_operating_range(folder) or OperatingRange()
    return Diagnoser(config, load_trained(folder), known, Reliability.load(folder))


def predict(
    run: str | Path,
    files: Sequence[str | Path],
    sampling_rate_hz: float | None = None,
    channels: Sequence[str] | None = None,
    *,
    bearing: str | None = None,
    rpm: float | None = None,
) -> list[Diagnosis]:
    """Diagnose recordings, each by its own bearing and speed and with the channels of the training recordings.

    Args:
        run: a run folder or a bundle.
        files: recordings in any supported format. Sampling rate, speed, bearing and channels are taken from the
            manifest in the folder of the file or up to two folders above, otherwise from the file itself.
        sampling_rate_hz: sampling rate of files for which neither states one.
        channels: names of the files' channels, in order, for files that do not name them.
        bearing: the bearing of all files, see `whirl.physics.parse_bearings`.
        rpm: speed of the shaft in all files, > 0.

    Raises:
        ValueError: a file cannot be read, lacks a channel, is too short, or its sampling rate is too low; or `bearing`
            or `rpm` is invalid.
        OSError: a file does not exist.
    """
    diagnoses, failures = predict_files(run, files, sampling_rate_hz, channels, bearing=bearing, rpm=rpm)
    if failures:
        raise next(iter(failures.values()))
    return diagnoses


def predict_files(
    run: str | Path,
    files: Sequence[str | Path],
    sampling_rate_hz: float | None = None,
    channels: Sequence[str] | None = None,
    *,
    bearing: str | None = None,
    rpm: float | None = None,
) -> tuple[list[Diagnosis], dict[str, Exception]]:
    """Diagnose recordings as `predict` does, collecting the errors of files that cannot be diagnosed.

    Args:
        run: a run folder or a bundle.
        files: recordings.
        sampling_rate_hz: sampling rate of files for which neither manifest nor file states one.
        channels: names of the files' channels.
        bearing: the bearing of all files.
        rpm: speed of the shaft in all files, > 0.

    Returns:
        The diagnoses in the order of the files, and the error of each other file.

    Raises:
        ValueError: the folder is neither a run nor a bundle, or `bearing` or `rpm` is invalid.
    """
    stated = StatedFacts(sampling_rate_hz, channels, bearing, rpm)
    found = list(iter_diagnoses(load_diagnoser(run), files, stated))
    diagnoses = [each for _, each in found if isinstance(each, Diagnosis)]
    return diagnoses, {str(file): each for file, each in found if isinstance(each, Exception)}


@dataclass(frozen=True)
class StatedFacts:
    """What a user states of all files.

    Attributes:
        sampling_rate_hz: sampling rate of files for which neither manifest nor file states one.
        channels: names of the files' channels, in order, for files that do not name them.
        bearing: the bearing of all files, see `whirl.physics.parse_bearings`; None takes that of manifest or file.
        rpm: speed of the shaft in all files, > 0; None takes that of manifest or file.

    Raises:
        ValueError: `bearing` or `rpm` is invalid.
    """

    sampling_rate_hz: float | None = None
    channels: Sequence[str] | None = None
    bearing: str | None = None
    rpm: float | None = None

    def __post_init__(self) -> None:
        known_facts(self.bearing, self.rpm)


def iter_diagnoses(
    diagnoser: Diagnoser, files: Iterable[str | Path], stated: StatedFacts
) -> Iterator[tuple[str | Path, Diagnosis | Exception]]:
    """Diagnose files in batches, with the memory of one batch; a file that fails does not affect the others.

    Args:
        diagnoser: the diagnoser.
        files: recordings.
        stated: what is known of them beside their manifest.

    Yields:
        Each file in order, with its diagnosis or the error of reading or converting it.
    """
    remaining = iter(files)
    while batch := list(islice(remaining, BATCH)):
        yield from _diagnose_batch(diagnoser, batch, stated)


def _diagnose_batch(
    diagnoser: Diagnoser, files: Sequence[str | Path], stated: StatedFacts
) -> Iterator[tuple[str | Path, Diagnosis | Exception]]:
    outcomes: list[Recording | Exception] = []
    for _, read in _read_each(files, stated.sampling_rate_hz):
        try:
            if isinstance(read, Exception):
                raise read
            recording = replace(read, **known_facts(stated.bearing, stated.rpm))
            recording = _match_training(recording, diagnoser.config, stated.channels)
            diagnoser.to_input(recording)  # raises if this file cannot be diagnosed
            outcomes.append(recording)
        except _FAILURES as error:
            outcomes.append(error)
    usable = [(each, file) for each, file in zip(outcomes, files, strict=True) if isinstance(each, Recording)]
    diagnosed = iter(diagnoser.diagnose(*zip(*usable, strict=True)) if usable else [])
    for file, outcome in zip(files, outcomes, strict=True):
        yield file, outcome if isinstance(outcome, Exception) else next(diagnosed)


def _read_each(
    files: Sequence[str | Path], sampling_rate_hz: float | None
) -> Iterator[tuple[str | Path, Recording | Exception]]:
    """Yield each file with its recording, or with the error of reading it."""
    index = 0
    while index < len(files):
        try:
            for recording in read_listed(files[index:], sampling_rate_hz):
                index += 1
                yield files[index - 1], recording
        except _FAILURES as error:  # reading stopped at this file: continue with the next one
            index += 1
            yield files[index - 1], error


def _match_training(recording: Recording, config: Config, channels: Sequence[str] | None) -> Recording:
    """Select the channels by name, and complete speed and bearing as for the training recordings.

    A single unnamed channel is used for a network with one channel.
    """
    required = config.data.channels or []
    if channels is None and len(required) == recording.n_channels == 1 and recording.channels == ("ch0",):
        channels = required
    if channels is not None:
        recording = replace(recording, channels=tuple(channels))
    if not set(required) <= set(recording.channels):
        raise ValueError(
            f"{recording.name}: channels are {', '.join(recording.channels)}, but the run was trained on "
            f"{', '.join(required)}; name the channels of the file with --channels"
        )
    return complete([recording.select_channels(required)], config)[0]
