"""Recordings of a configuration: read from a folder, or simulated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from whirl.data.dataset import load_dataset
from whirl.data.memmap import to_mmap
from whirl.data.recording import Recording
from whirl.data.simulation import iter_simulated
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
    data = config.data
    if data.is_simulated:
        return stored(simulate_recordings(data.simulation, data.classes), config)
    return load_dataset(
        data.path,
        channels=data.channels,
        classes=data.classes,
        sampling_rate_hz=data.sampling_rate_hz,
        mmap_dir=None if data.mmap_dir == OFF else data.mmap_dir,
    )


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
