"""From a configuration to recordings that are ready to be cut into windows."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packages.core.engine.device import resolve_device
from packages.core.engine.precision import cpu_has_bfloat16
from packages.core.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, required_band_hz
from packages.core.pipeline.config import RunConfig, SimulationConfig
from packages.core.signals.dataset import load_dataset, save_dataset
from packages.core.signals.leaks import Leak, guard
from packages.core.signals.recording import Recording
from packages.core.signals.resample import to_common_rate
from packages.core.signals.simulate import iter_simulated, simulate
from packages.core.signals.splits import Split, split_recordings
from packages.core.signals.windows import WindowDataset, choose_window

logger = logging.getLogger(__name__)

# A signal is sampled at 2.56 times the highest frequency of interest: the usual margin of analysers' filters.
SAMPLES_PER_CYCLE = 2.56


@dataclass(frozen=True)
class PreparedData:
    """Recordings at one rate, split and guarded, with every choice that was left to the data.

    Attributes:
        config: the configuration with nothing left open.
        split: training, validation and test recordings.
        classes: label of each class index.
        leaks: what the guard found; empty unless leakage is allowed.
        notes: choices and their reasons, for people.
        window_reason: why the window is as long as it is.
        fingerprint: hash of all samples and labels.
    """

    config: RunConfig
    split: Split
    classes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    window_reason: str
    fingerprint: str

    def windows(self, recordings: Sequence[Recording], hop: int | None = None) -> WindowDataset:
        """Windows over recordings of one part; without a `hop` they do not overlap."""
        window = self.config.window or 0
        return WindowDataset(recordings, self.classes, window, hop or window)

    def summary(self) -> dict[str, Any]:
        """What a run folder notes about its recordings."""
        parts = {"train": self.split.train, "val": self.split.val, "test": self.split.test}
        return {
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "notes": list(self.notes),
            "parts": {
                name: [{"source": r.source, "label": r.label, "specimen": r.specimen} for r in recordings]
                for name, recordings in parts.items()
            },
        }


def load_recordings(config: RunConfig) -> list[Recording]:
    """The recordings that a configuration names, or simulated ones where it names none.

    Raises:
        ValueError: a folder, file or manifest that cannot be used; the message says which and why.
    """
    if config.data is not None:
        return load_dataset(
            config.data,
            channels=config.channels,
            classes=config.classes,
            sampling_rate_hz=config.sampling_rate_hz,
        )
    return simulate_recordings(config.simulation, config.classes)


def simulate_recordings(config: SimulationConfig, classes: Sequence[str] | None = None) -> list[Recording]:
    """Simulated recordings in memory."""
    family = _family(config)
    unknown = [name for name in classes or () if name not in family]
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is not simulated; known are {', '.join(family)}")
    chosen = [name for name in family if classes is None or name in classes]
    n_samples = round(config.duration_s * config.sampling_rate_hz)
    logger.info(
        "simulating %d machines x %d classes x %d recordings of %g s",
        config.n_machines,
        len(chosen),
        config.recordings_per_class,
        config.duration_s,
    )
    return simulate(
        config.n_machines,
        config.recordings_per_class,
        chosen,
        config.seed,
        config.sampling_rate_hz,
        n_samples,
    )


def _family(config: SimulationConfig) -> tuple[str, ...]:
    return JOURNAL_CLASSES if config.family == "journal" else ROLLING_CLASSES


def write_simulation(config: SimulationConfig, folder: str | Path) -> int:
    """Write simulated recordings and their manifest into a new or empty folder, one at a time.

    Returns:
        The number of recordings.
    """
    family, n_samples = _family(config), round(config.duration_s * config.sampling_rate_hz)
    recordings = iter_simulated(
        config.n_machines, config.recordings_per_class, family, config.seed, config.sampling_rate_hz, n_samples
    )
    save_dataset(recordings, folder)
    return config.n_machines * config.recordings_per_class * len(family)


def prepare(config: RunConfig) -> PreparedData:
    """Load, resample, split and guard the recordings, and settle what the configuration left open.

    Raises:
        ValueError: recordings that cannot be used together, or a split that leaks.
    """
    recordings = load_recordings(config)
    notes: list[str] = []
    classes = order_classes(recordings)
    rate_hz, why_rate = choose_sampling_rate(recordings, classes, config.sampling_rate_hz)
    recordings = to_common_rate(recordings, rate_hz)
    window, why_window = choose_window(recordings, rate_hz)
    if config.window is not None:
        window, why_window = config.window, f"{config.window} samples, as asked for"
    notes += [f"sampling rate {rate_hz:g} Hz: {why_rate}", f"window: {why_window}"]
    split = split_recordings(
        recordings,
        by=config.split,
        test_specimens=config.test_specimens,
        test_fraction=config.test_fraction,
        val_fraction=config.val_fraction,
        window_s=window / rate_hz,
        seed=config.seed,
    )
    leaks = guard(split, allow_leakage=config.allow_leakage)
    resolved = config.model_copy(
        update={
            "window": window,
            "hop": config.hop or max(1, window // 2),
            "classes": list(classes),
            "channels": list(recordings[0].channels),
            "sampling_rate_hz": rate_hz,
            "mixed_precision": _gains_from_less_precision(config),
            "bearing": config.bearing or (None if config.data or config.simulation.family == "journal" else "6205"),
        }
    )
    fingerprint = fingerprint_of(recordings)
    return PreparedData(resolved, split, classes, tuple(leaks), (*notes, *split.notes), why_window, fingerprint)


def _gains_from_less_precision(config: RunConfig) -> bool:
    if config.mixed_precision is not None:
        return config.mixed_precision
    device = resolve_device(config.device)
    return device.type == "cuda" or (device.type == "cpu" and cpu_has_bfloat16())


def order_classes(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """The labels that occur: those the physics knows in its order, then the others by name.

    Raises:
        ValueError: a recording has no label, or there are fewer than two classes.
    """
    labels = Counter(recording.label for recording in recordings)
    if None in labels:
        unlabelled = next(recording for recording in recordings if recording.label is None)
        raise ValueError(f"{unlabelled.name}: has no label, and training needs one for every recording")
    if len(labels) < 2:
        raise ValueError(f"only one class, {next(iter(labels))!r}: training needs at least two")
    known = [label for label in dict.fromkeys((*JOURNAL_CLASSES, *ROLLING_CLASSES)) if label in labels]
    return (*known, *sorted(label for label in labels if label not in known))  # type: ignore[type-var]


def choose_sampling_rate(
    recordings: Sequence[Recording], classes: Sequence[str], asked_hz: float | None = None
) -> tuple[float, str]:
    """The rate to bring all recordings to, and why.

    The lowest rate that occurs; where the classes differ in the lines of the shaft alone, only as much
    of it as holds those lines.
    """
    if asked_hz is not None:
        return asked_hz, "as asked for"
    lowest = min(recording.sampling_rate_hz for recording in recordings)
    speeds = [recording.rpm for recording in recordings if recording.rpm is not None]
    band_hz = required_band_hz(classes, max(speeds)) if len(speeds) == len(recordings) else None
    if band_hz is None or SAMPLES_PER_CYCLE * band_hz >= lowest:
        return lowest, "the lowest of the recordings; the classes need the whole band"
    needed = SAMPLES_PER_CYCLE * band_hz
    return _whole_fraction(lowest, needed), f"the classes differ below {band_hz:.0f} Hz"


def _whole_fraction(rate_hz: float, at_least_hz: float) -> float:
    """The lowest rate >= `at_least_hz` that divides `rate_hz` without rest, so that resampling is exact."""
    return rate_hz / max(1, int(rate_hz // at_least_hz))


def fingerprint_of(recordings: Sequence[Recording]) -> str:
    """Hash of all samples, labels and specimens, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for recording in recordings:
        digest.update(f"{recording.label}|{recording.specimen}|{recording.sampling_rate_hz}".encode())
        digest.update(np.ascontiguousarray(recording.signal).data)
    return digest.hexdigest()
