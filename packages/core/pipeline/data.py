"""From a configuration to recordings that are ready to be cut into windows."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from packages.core.engine.device import resolve_device
from packages.core.engine.precision import cpu_has_bfloat16
from packages.core.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, required_band_hz
from packages.core.pipeline.config import RunConfig, SimulationConfig
from packages.core.signals.dataset import load_dataset
from packages.core.signals.leaks import Leak, guard
from packages.core.signals.recording import Recording
from packages.core.signals.resample import ANALYSER_RATIO, common_band_hz, to_common_rate
from packages.core.signals.simulate import iter_simulated
from packages.core.signals.splits import Split, split_recordings
from packages.core.signals.windows import MIN_REVOLUTIONS, MIN_WINDOW, WindowDataset, choose_window

logger = logging.getLogger(__name__)

WANTED_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 1000, 6, 40


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
        fingerprint: of what the recordings were made from, before anything was done to them.
        device: where to train.
    """

    config: RunConfig
    split: Split
    classes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    window_reason: str
    fingerprint: str
    device: torch.device

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
    return list(simulate_recordings(config.simulation, config.classes))


def simulate_recordings(config: SimulationConfig, classes: Sequence[str] | None = None) -> Iterator[Recording]:
    """Simulated recordings, one at a time.

    Raises:
        ValueError: a class that the family does not have.
    """
    family = JOURNAL_CLASSES if config.family == "journal" else ROLLING_CLASSES
    unknown = [name for name in classes or () if name not in family]
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is not simulated; known are {', '.join(family)}")
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


def prepare(config: RunConfig) -> PreparedData:
    """Load, resample, split and guard the recordings, and settle what the configuration left open.

    Raises:
        ValueError: recordings that cannot be used together, or a split that leaks.
    """
    recordings = load_recordings(config)
    fingerprint = fingerprint_of(config, recordings)
    classes = order_classes(recordings)
    rate_hz, why_rate = choose_sampling_rate(recordings, classes, config.sampling_rate_hz)
    band_hz = config.band_limit_hz or common_band_hz(recordings)
    recordings = to_common_rate(recordings, rate_hz, band_hz)
    window, why_window = choose_window(recordings, rate_hz)
    if config.window is not None:
        window, why_window = config.window, f"{config.window} samples, as asked for"
    notes = [f"sampling rate {rate_hz:g} Hz: {why_rate}", f"window: {why_window}"]
    if band_hz is not None:
        notes.append(f"band: all are low-passed at {band_hz:.0f} Hz, so that a recorder's rate tells nothing")
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
    device = resolve_device(config.device)
    hop = config.hop or max(1, window // 2)
    n_windows = sum((recording.n_samples - window) // hop + 1 for recording in split.train)
    resolved = config.model_copy(
        update={
            "window": window,
            "hop": hop,
            "batch_size": max(2, min(config.batch_size, n_windows)),
            "epochs": config.epochs or choose_epochs(math.ceil(n_windows / config.batch_size)),
            "classes": list(classes),
            "channels": list(recordings[0].channels),
            "sampling_rate_hz": rate_hz,
            "band_limit_hz": band_hz,
            "mixed_precision": _gains_from_less_precision(config, device),
            "bearing": config.bearing or (None if config.data or config.simulation.family == "journal" else "6205"),
        }
    )
    return PreparedData(resolved, split, classes, tuple(leaks), (*notes, *split.notes), why_window, fingerprint, device)


def _gains_from_less_precision(config: RunConfig, device: torch.device) -> bool:
    if config.mixed_precision is not None:
        return config.mixed_precision
    return device.type == "cuda" or (device.type == "cpu" and cpu_has_bfloat16())


def choose_epochs(steps_per_epoch: int) -> int:
    """Epochs that come to about 1000 optimizer steps: small data sets need more passes than large ones.

    Example:
        >>> [choose_epochs(steps) for steps in (1, 50, 1000)]
        [40, 20, 6]
    """
    return min(max(round(WANTED_STEPS / max(1, steps_per_epoch)), FEWEST_EPOCHS), MOST_EPOCHS)


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
    if band_hz is None or ANALYSER_RATIO * band_hz >= lowest:
        return lowest, "the lowest of the recordings; the classes need the whole band"
    # No lower than leaves a network something to see in the revolutions that a window should hold.
    floor = MIN_WINDOW / (MIN_REVOLUTIONS * 60 / min(speeds))
    rate_hz = _whole_fraction(lowest, max(ANALYSER_RATIO * band_hz, floor)) if floor < lowest else lowest
    return rate_hz, f"the classes differ below {band_hz:.0f} Hz; --sampling-rate keeps more"


def _whole_fraction(rate_hz: float, at_least_hz: float) -> float:
    """The lowest rate >= `at_least_hz` that divides `rate_hz` without rest, so that resampling is exact."""
    return rate_hz / max(1, int(rate_hz // at_least_hz))


def fingerprint_of(config: RunConfig, recordings: Sequence[Recording]) -> str:
    """Hash of the recordings as they were loaded, in order; of simulated ones, of what was simulated."""
    digest = hashlib.blake2b(digest_size=16)
    if config.data is None:
        digest.update(repr((config.simulation, [recording.source for recording in recordings])).encode())
        return digest.hexdigest()
    for recording in recordings:
        digest.update(f"{recording.label}|{recording.specimen}|{recording.sampling_rate_hz}".encode())
        digest.update(np.ascontiguousarray(recording.signal).data)
    return digest.hexdigest()


def check_same_recordings(config: RunConfig, fingerprint: str, noted: str) -> None:
    """Refuse recordings that are not those a run began with.

    Raises:
        ValueError: they differ.
    """
    if fingerprint != noted:
        where = config.data or "the simulation"
        raise ValueError(f"{where}: the recordings are not those that the run began with; start a new run")
