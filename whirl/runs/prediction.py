"""Diagnosing files with a trained run or a bundle."""

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
from whirl.runs.config import Config
from whirl.runs.data import with_speeds
from whirl.runs.export import is_bundle, load_bundle, read_run
from whirl.runs.operating_range import OperatingRange, load_operating_range
from whirl.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

_FAILURES = (ValueError, OSError, ImportError)  # of one file, which the others can do without


@dataclass(frozen=True)
class Diagnosis:
    """What the network says of one recording.

    Attributes:
        file: the recording's file.
        label: name of the most probable class.
        probability: its probability, 0 to 1, the mean over the recording's windows.
        probabilities: of every class.
        n_windows: windows that were looked at.
    """

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]
    n_windows: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
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
    """A trained network with what it takes to ask it.

    Attributes:
        config: says what recordings have to be brought to.
        network: `[B, C, T] -> [B, K]`, logits.
        operating_range: states of the machines it was trained on; outside of them a warning is logged.
    """

    config: Config
    network: nn.Module
    operating_range: OperatingRange

    def diagnose(self, recordings: Sequence[Recording], files: Sequence[str | Path]) -> list[Diagnosis]:
        """Diagnose recordings that are as those of the training: same channels, rate and band.

        Args:
            recordings: at least one.
            files: what to call each of them.

        Raises:
            ValueError: a recording is shorter than a window.
        """
        classes, window = self.config.data.classes, self.config.input.window
        for recording, file in zip(recordings, files, strict=True):
            for strange in self.operating_range.out_of_range(recording):
                logger.warning("%s: %s: the diagnosis is an extrapolation", file, strange)
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
    """What a run folder or a bundle holds.

    Raises:
        FileNotFoundError: a run has no checkpoint.
        ValueError: the folder is neither, or it is broken.
    """
    if is_bundle(path):
        bundle = load_bundle(path)
        return Diagnoser(bundle.config, bundle.network, bundle.description.operating_range)
    folder = RunFolder(path)
    config, network = read_run(folder)
    return Diagnoser(config, network, load_operating_range(folder) or OperatingRange())


def predict(
    run: str | Path,
    files: Sequence[str | Path],
    sampling_rate_hz: float | None = None,
    channels: Sequence[str] | None = None,
) -> list[Diagnosis]:
    """Diagnose recordings, each brought to the rate, band, channels and window that the network was trained on.

    Args:
        run: a run folder or a bundle.
        files: recordings of any kind that can be read; rate, speed and channels are those that the manifest in their
            folder, or up to two above, tells of them, else the files' own.
        sampling_rate_hz: rate of files of which neither says it.
        channels: names of the files' channels, in their order, where the files do not name them.

    Raises:
        ValueError: a file that cannot be read, lacks a channel, is too short or sampled too slowly.
        OSError: there is no such file.
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
    """`predict` of those files that can be diagnosed, whatever the others are.

    Args:
        run: as for `predict`, as all arguments.
        files: recordings.
        sampling_rate_hz: rate of files of which neither manifest nor file says it.
        channels: names of the files' channels.

    Returns:
        The diagnoses, in the order of the files, and why each other file has none.

    Raises:
        ValueError: the folder is neither a run nor a bundle.
    """
    diagnoser = load_diagnoser(run)
    good: list[tuple[Recording, str | Path]] = []
    failures: dict[str, Exception] = {}
    for file, read in _read_each(files, sampling_rate_hz):
        try:
            if isinstance(read, Exception):
                raise read
            good.append((_as_trained(read, diagnoser.config, channels), file))
        except _FAILURES as error:
            failures[str(file)] = error
    return (diagnoser.diagnose(*zip(*good, strict=True)) if good else []), failures


def _read_each(
    files: Sequence[str | Path], sampling_rate_hz: float | None
) -> Iterator[tuple[str | Path, Recording | Exception]]:
    """Every file with its recording, or with what was wrong with it."""
    place = 0
    while place < len(files):
        try:
            for recording in read_listed(files[place:], sampling_rate_hz):
                place += 1
                yield files[place - 1], recording
        except _FAILURES as error:  # of the file at which reading stopped; it goes on behind it
            place += 1
            yield files[place - 1], error


def _as_trained(recording: Recording, config: Config, channels: Sequence[str] | None) -> Recording:
    """Channels by name, then rate and band. A single channel without a name can only be the one that is wanted."""
    wanted = config.data.channels or []
    if channels is None and len(wanted) == recording.n_channels == 1 and recording.channels == ("ch0",):
        channels = wanted
    if channels is not None:
        recording = replace(recording, channels=tuple(channels))
    if not set(wanted) <= set(recording.channels):
        raise ValueError(
            f"{recording.name}: its channels are {', '.join(recording.channels)}, the network needs "
            f"{', '.join(wanted)}; name the file's with --channels"
        )
    recordings = with_speeds([recording.select_channels(wanted)], config)
    (recording,) = to_common_rate(recordings, config.data.sampling_rate_hz, config.band_hz)
    WindowDataset([recording], None, config.input.window)  # refuses what is too short, or not finite
    return recording
