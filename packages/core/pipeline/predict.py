"""Diagnosing files with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packages.core.engine.checkpoint import load_weights
from packages.core.engine.device import resolve_device
from packages.core.evaluation.predict import predict, vote
from packages.core.models.registry import create_model
from packages.core.pipeline.run_folder import RunFolder
from packages.core.signals.read import read_recording
from packages.core.signals.recording import Recording
from packages.core.signals.resample import to_common_rate
from packages.core.signals.windows import WindowDataset


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


def predict_files(
    run: str | Path, files: Sequence[str | Path], sampling_rate_hz: float | None = None
) -> list[Diagnosis]:
    """Diagnose recordings, each brought to the rate, channels and window that the network was trained on.

    Args:
        run: a run folder.
        files: recordings of any kind that can be read.
        sampling_rate_hz: rate of files that do not say theirs.

    Raises:
        ValueError: a file that cannot be read, lacks a channel, is too short or sampled too slowly.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    classes, window = config.classes or [], config.window or 0
    recordings = [
        _as_trained(read_recording(file, sampling_rate_hz=sampling_rate_hz), config.channels, config.sampling_rate_hz)
        for file in files
    ]
    model = create_model(config.model, len(classes), len(config.channels or ()))
    load_weights(model, folder.best_checkpoint)
    windows = predict(model, WindowDataset(recordings, None, window, window), resolve_device(config.device))
    votes = vote(windows)
    return [
        Diagnosis(
            file=str(files[recording]),
            label=classes[int(row.argmax())],
            probability=float(row.max()),
            probabilities=dict(zip(classes, row.tolist(), strict=True)),
            n_windows=int((windows.recording == recording).sum()),
        )
        for row, recording in zip(votes.probabilities, votes.recording, strict=True)
    ]


def _as_trained(recording: Recording, channels: Sequence[str] | None, rate_hz: float | None) -> Recording:
    """The channels by name; where the file names none of them but has as many, in order."""
    if channels and any(name in recording.channels for name in channels):
        recording = recording.select_channels(channels)
    if channels and recording.n_channels != len(channels):
        raise ValueError(f"{recording.name}: has {recording.n_channels} channels, the network needs {list(channels)}")
    return recording if rate_hz is None else to_common_rate([recording], rate_hz)[0]
