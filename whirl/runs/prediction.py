"""Diagnosis of files with a trained run or a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from whirl.data.manifest import read_listed
from whirl.data.recording import Recording
from whirl.data.resampling import to_common_rate
from whirl.data.windows import WindowDataset
from whirl.engine.device import resolve_device
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.runs.bundle import is_bundle, load_bundle
from whirl.runs.config import Config
from whirl.runs.data import with_speeds
from whirl.runs.factory import load_run_network
from whirl.runs.operating_range import OperatingRange, load_operating_range
from whirl.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

_FAILURES = (ValueError, OSError, ImportError)  # errors of one file, reported without failing the others


@dataclass(frozen=True)
class Diagnosis:
    """Prediction of the network for one recording.

    Attributes:
        file: file of the recording.
        label: name of the most probable class.
        probability: probability of that class, 0 to 1, averaged over the windows of the recording.
        probabilities: probability of every class.
        n_windows: number of windows.
    """

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]
    n_windows: int

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain data for JSON."""
        return {
            "file": self.file,
            "class": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "windows": self.n_windows,
        }

    def __str__(self) -> str:
        return f"{self.file}  {self.label}  {self.probability:.3f}  ({self.n_windows} windows)"


@dataclass(frozen=True, eq=False)
class Diagnoser:
    """A trained network with everything needed to apply it to recordings.

    Attributes:
        config: configuration; defines channels, sampling rate, band and window.
        network: maps signals `[B, C, T]` to logits `[B, K]`.
        operating_range: speeds and loads of the training recordings; a warning is logged outside of them.
    """

    config: Config
    network: nn.Module
    operating_range: OperatingRange

    def diagnose(self, recordings: Sequence[Recording], files: Sequence[str | Path]) -> list[Diagnosis]:
        """Diagnose recordings with the channels, sampling rate and band of the training recordings.

        Args:
            recordings: at least one recording.
            files: file of each recording, for the results.

        Raises:
            ValueError: a recording is shorter than a window.
        """
        classes, window = self.config.data.classes, self.config.input.window
        for recording, file in zip(recordings, files, strict=True):
            for quantity in self.operating_range.out_of_range(recording):
                logger.warning("%s: %s: the diagnosis is an extrapolation", file, quantity)
        data = WindowDataset(recordings, None, window, window)
        windows = predict_windows(self.network, data, resolve_device(self.config.run.device))
        by_recording = aggregate_by_recording(windows)
        return [
            Diagnosis(
                file=str(files[recording]),
                label=classes[int(row.argmax())],
                probability=float(row.max()),
                probabilities=dict(zip(classes, row.tolist(), strict=True)),
                n_windows=int((windows.recording == recording).sum()),
            )
            for row, recording in zip(by_recording.probabilities, by_recording.recording, strict=True)
        ]


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
    config, network = load_run_network(folder)
    return Diagnoser(config, network, load_operating_range(folder) or OperatingRange())


def predict(
    run: str | Path,
    files: Sequence[str | Path],
    sampling_rate_hz: float | None = None,
    channels: Sequence[str] | None = None,
) -> list[Diagnosis]:
    """Diagnose recordings, each converted to the sampling rate, band, channels and window of the network.

    Args:
        run: a run folder or a bundle.
        files: recordings in any supported format. Sampling rate, speed and channels are taken from the manifest in
            the folder of the file or up to two folders above, otherwise from the file itself.
        sampling_rate_hz: sampling rate of files for which neither states one.
        channels: names of the files' channels, in order, for files that do not name them.

    Raises:
        ValueError: a file cannot be read, lacks a channel, is too short, or its sampling rate is too low.
        OSError: a file does not exist.
    """
    diagnoses, failures = predict_files(run, files, sampling_rate_hz, channels)
    if failures:
        raise next(iter(failures.values()))
    return diagnoses


def predict_files(
    run: str | Path,
    files: Sequence[str | Path],
    sampling_rate_hz: float | None = None,
    channels: Sequence[str] | None = None,
) -> tuple[list[Diagnosis], dict[str, Exception]]:
    """Diagnose recordings as `predict` does, collecting the errors of files that cannot be diagnosed.

    Args:
        run: a run folder or a bundle.
        files: recordings.
        sampling_rate_hz: sampling rate of files for which neither manifest nor file states one.
        channels: names of the files' channels.

    Returns:
        The diagnoses in the order of the files, and the error of each other file.

    Raises:
        ValueError: the folder is neither a run nor a bundle.
    """
    diagnoser = load_diagnoser(run)
    usable: list[tuple[Recording, str | Path]] = []
    failures: dict[str, Exception] = {}
    for file, read in _read_each(files, sampling_rate_hz):
        try:
            if isinstance(read, Exception):
                raise read
            usable.append((_match_training(read, diagnoser.config, channels), file))
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
    """Select the channels by name and convert to the sampling rate and band of the training recordings.

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
    recordings = with_speeds([recording.select_channels(required)], config)
    (recording,) = to_common_rate(recordings, config.data.sampling_rate_hz, config.band_hz)
    WindowDataset([recording], None, config.input.window)  # raises if too short or not finite
    return recording
