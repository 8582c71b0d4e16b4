"""Diagnosis of files with a trained run or a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whirl.data.manifest import read_listed
from whirl.data.recording import Recording
from whirl.data.resampling import to_common_rate
from whirl.data.windows import WindowDataset
from whirl.diagnosis.learned import LearnedDiagnoser
from whirl.diagnosis.order_levels import MIN_REVOLUTIONS
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.engine.device import resolve_device
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.runs.bundle import is_bundle, load_bundle
from whirl.runs.config import Config
from whirl.runs.data import rolling_faults
from whirl.runs.diagnosis import known_facts
from whirl.runs.evaluation import load_trained
from whirl.runs.harmonization import complete
from whirl.runs.operating_range import OperatingRange, load_operating_range
from whirl.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

_FAILURES = (ValueError, OSError, ImportError)  # errors of one file, reported without failing the others


NOT_JUDGED = "not_judged"
"""Label of recordings that cannot be described."""


@dataclass(frozen=True)
class Diagnosis:
    """Prediction for one recording.

    Attributes:
        file: file of the recording.
        label: name of the most probable class, or `NOT_JUDGED`.
        probability: probability of that class, 0 to 1; for a network averaged over the windows of the recording. None
            if not judged.
        probabilities: probability of every class; empty if not judged.
        n_windows: number of windows; None for a model of descriptors.
        physics: verdict of the untrained diagnosis of rolling bearings, see `whirl.diagnosis`; None if no class is a
            fault of rolling bearings.
        reasons: evidence of the untrained diagnosis, and why a recording is not judged.
    """

    file: str
    label: str
    probability: float | None
    probabilities: dict[str, float]
    n_windows: int | None
    physics: str | None = None
    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain data for JSON."""
        return {
            "file": self.file,
            "class": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "windows": self.n_windows,
            "physics": self.physics,
            "reasons": list(self.reasons),
        }

    def __str__(self) -> str:
        parts = [self.file, self.label]
        if self.probability is not None:
            parts.append(f"{self.probability:.3f}")
        if self.n_windows is not None:
            parts.append(f"({self.n_windows} windows)")
        if self.physics is not None:
            parts.append(f"[untrained: {self.physics}]")
        return "\n  ".join(["  ".join(parts), *self.reasons[:1]])


@dataclass(frozen=True, eq=False)
class Diagnoser:
    """A trained network or model of descriptors with everything needed to apply it to recordings.

    Attributes:
        config: configuration; defines channels and, for a network, sampling rate, band and window.
        model: a network, which maps signals `[B, C, T]` to logits `[B, K]`, or a model of descriptors.
        operating_range: speeds and loads of the training recordings; a warning is logged outside of them.
    """

    config: Config
    model: nn.Module | LearnedDiagnoser
    operating_range: OperatingRange

    def diagnose(self, recordings: Sequence[Recording], files: Sequence[str | Path]) -> list[Diagnosis]:
        """Diagnose recordings with the channels of the training recordings, at any sampling rate.

        Args:
            recordings: at least one recording.
            files: file of each recording, for the results.

        Raises:
            ValueError: a recording is too short, or its sampling rate is too low for the network.
        """
        for recording, file in zip(recordings, files, strict=True):
            for quantity in self.operating_range.out_of_range(recording):
                logger.warning("%s: %s: the diagnosis is an extrapolation", file, quantity)
        reasons = self._reasons(recordings)
        rows = zip(files, *self._predict(recordings), reasons, strict=True)
        return [self._diagnosis(str(file), row, n, *why) for file, row, n, why in rows]

    def to_input(self, recording: Recording) -> Recording:
        """Convert a recording to the sampling rate and band of the training recordings, as a network requires.

        Raises:
            ValueError: it is shorter than a window, its sampling rate is too low, or it is not finite.
        """
        if isinstance(self.model, LearnedDiagnoser):
            return recording
        (converted,) = to_common_rate([recording], self.config.data.sampling_rate_hz, self.config.band_hz)
        WindowDataset([converted], None, self.config.input.window)  # raises if too short or not finite
        return converted

    def _predict(self, recordings: Sequence[Recording]) -> tuple[NDArray[np.float64], list[int | None]]:
        """Return class probabilities `[n, K]`, NaN where not judged, and the number of windows of each recording."""
        if isinstance(self.model, LearnedDiagnoser):
            return self.model.predict_proba(recordings), [None] * len(recordings)
        window = self.config.input.window
        data = WindowDataset([self.to_input(recording) for recording in recordings], None, window, window)
        windows = predict_windows(self.model, data, resolve_device(self.config.run.device))
        counts = np.bincount(windows.recording, minlength=len(recordings))
        return aggregate_by_recording(windows).probabilities, [int(count) for count in counts]

    def _reasons(self, recordings: Sequence[Recording]) -> list[tuple[str | None, tuple[str, ...]]]:
        """Return the verdict of the untrained diagnosis of each recording, if it applies, and its reasons."""
        if rolling_faults(self.config.data.classes):
            return [(found.verdict, found.reasons) for found in SpectralDiagnoser().diagnose(recordings)]
        return [(None, _why_no_physics(recording)) for recording in recordings]

    def _diagnosis(
        self,
        file: str,
        row: NDArray[np.float64],
        n_windows: int | None,
        physics: str | None,
        reasons: tuple[str, ...],
    ) -> Diagnosis:
        if np.isnan(row).any():
            return Diagnosis(file, NOT_JUDGED, None, {}, n_windows, physics, reasons)
        probabilities = dict(zip(self.config.data.classes, row.tolist(), strict=True))
        label = max(probabilities, key=probabilities.__getitem__)
        return Diagnosis(file, label, probabilities[label], probabilities, n_windows, physics, reasons)


def _why_no_physics(recording: Recording) -> tuple[str, ...]:
    """Return why a recording of a rotor cannot be described; empty if it can."""
    if recording.rpm is None:
        return ("no physics: the speed of the shaft is unknown; give rpm",)
    if (recording.n_revolutions or 0) < MIN_REVOLUTIONS:
        return (f"no physics: {recording.n_revolutions:.1f} revolutions of the shaft, expected {MIN_REVOLUTIONS:g}",)
    return ()


def load_diagnoser(path: str | Path) -> Diagnoser:
    """Load the diagnoser from a run folder or a bundle.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: the folder is neither a run folder nor a bundle, or it is damaged.
    """
    if is_bundle(path):
        bundle = load_bundle(path)
        return Diagnoser(bundle.config, bundle.network, bundle.description.operating_range)
    folder = RunFolder(path)
    config = folder.read_config()
    return Diagnoser(config, load_trained(folder), load_operating_range(folder) or OperatingRange())


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
    stated = known_facts(bearing, rpm)
    diagnoser = load_diagnoser(run)
    usable: list[tuple[Recording, str | Path]] = []
    failures: dict[str, Exception] = {}
    for file, read in _read_each(files, sampling_rate_hz):
        try:
            if isinstance(read, Exception):
                raise read
            recording = _match_training(replace(read, **stated), diagnoser.config, channels)
            diagnoser.to_input(recording)  # raises if this file cannot be diagnosed
            usable.append((recording, file))
        except _FAILURES as error:
            failures[str(file)] = error
    return (diagnoser.diagnose(*zip(*usable, strict=True)) if usable else []), failures


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
            f"{recording.name}: channels are {', '.join(recording.channels)}, but the network requires "
            f"{', '.join(required)}; name the channels of the file with --channels"
        )
    return complete([recording.select_channels(required)], config)[0]
