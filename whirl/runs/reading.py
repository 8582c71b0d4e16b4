"""Recordings of a configuration: read from a folder, or simulated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from whirl.data.dataset import load_dataset
from whirl.data.memmap import to_mmap
from whirl.data.recording import Recording
from whirl.data.simulation import iter_simulated
from whirl.data.table import read_table
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.runs.config import Config
from whirl.runs.methods import PhysicsMethod
from whirl.runs.sections import OFF, SimulationSection
from whirl.validation import unknown_name

logger = logging.getLogger(__name__)


def read_recordings(config: Config) -> tuple[list[Recording], list[Recording]]:
    """Read the labeled recordings of a configuration, or simulate them, and the unlabeled ones.

    Raises:
        ValueError: a folder, file or manifest cannot be used.
    """
    recordings = load_recordings(config)
    return recordings, load_unlabeled(config, recordings[0].channels)


def load_recordings(config: Config) -> list[Recording]:
    """Read the labeled recordings of a configuration, or simulate them.

    Raises:
        ValueError: a folder, file or manifest cannot be used.
    """
    data, classes = config.data, None if config.is_regression else config.data.classes
    if data.is_simulated:
        return stored(simulate_recordings(data.simulation, classes), config)
    is_corrected = data.corrections != OFF
    recordings = load_dataset(
        data.path,
        channels=data.channels,
        classes=None if is_corrected else classes,
        sampling_rate_hz=data.sampling_rate_hz,
        mmap_dir=None if data.mmap_dir == OFF else data.mmap_dir,
    )
    return correct_labels(recordings, data.corrections, classes) if is_corrected else recordings


def correct_labels(
    recordings: Sequence[Recording], file: str | Path, classes: Sequence[str] | None = None
) -> list[Recording]:
    """Replace labels by those of a table, and log how many changed.

    Args:
        recordings: the recordings.
        file: CSV file with the columns `file` and `label`; a file is named by its path, or by the last parts of it.
        classes: classes to keep afterwards; None keeps all.

    Raises:
        ValueError: the table lacks a column or a label, or names no recording, or several of them.
    """
    path, new = Path(file), [recording.label for recording in recordings]
    header, rows = read_table(path)
    if not {"file", "label"} <= set(header):
        raise ValueError(f"{path}: has the columns {', '.join(header)}, expected file and label")
    parts = [Path(recording.source).parts for recording in recordings]
    for line, row in rows:
        wanted = Path(row["file"]).parts
        found = [place for place, each in enumerate(parts) if wanted and each[-len(wanted) :] == wanted]
        if len(found) != 1 or not row["label"].strip():
            what = f"{len(found)} recordings are called {row['file']!r}" if row["label"].strip() else "label is empty"
            raise ValueError(f"{path}, line {line}: {what}, expected one recording and a label")
        new[found[0]] = row["label"].strip()
    corrected = [replace(recording, label=label) for recording, label in zip(recordings, new, strict=True)]
    n_changed = sum(a.label != b.label for a, b in zip(recordings, corrected, strict=True))
    logger.info("%s: %d of %d labels are corrected", path, n_changed, len(corrected))
    return [recording for recording in corrected if classes is None or recording.label in classes]


def stored(recordings: Iterable[Recording], config: Config) -> list[Recording]:
    """Return the recordings in memory, or memory-mapped if so configured."""
    return list(recordings) if config.data.mmap_dir == OFF else to_mmap(recordings, config.data.mmap_dir)


def load_unlabeled(config: Config, channels: Sequence[str]) -> list[Recording]:
    """Read the recordings for the physics terms only, without their labels.

    Raises:
        ValueError: a folder, file or manifest cannot be used.
    """
    method = config.training.method
    if not isinstance(method, PhysicsMethod) or method.unlabeled == OFF:
        return []
    found = load_dataset(
        method.unlabeled,
        channels=channels,
        sampling_rate_hz=config.data.sampling_rate_hz,
        mmap_dir=None if config.data.mmap_dir == OFF else config.data.mmap_dir,
    )
    return [replace(recording, label=None) for recording in found]


def simulate_recordings(config: SimulationSection, classes: Sequence[str] | None = None) -> Iterator[Recording]:
    """Simulate recordings, one at a time.

    Raises:
        ValueError: the family does not have one of the classes.
    """
    family = JOURNAL_CLASSES if config.family == "journal" else ROLLING_CLASSES
    unknown = [name for name in classes or () if name not in family]
    if unknown:
        raise ValueError(unknown_name("simulated class", unknown[0], family))
    chosen = [name for name in family if classes is None or name in classes]
    logger.info(
        "simulating %d machines x %d classes x %d recordings of %g s",
        config.n_machines,
        len(chosen),
        config.recordings_per_class,
        config.duration_s,
    )
    return iter_simulated(
        config.n_machines,
        config.recordings_per_class,
        chosen,
        config.seed,
        config.sampling_rate_hz,
        round(config.duration_s * config.sampling_rate_hz),
        snr_db_range=config.snr_db_range,
    )
