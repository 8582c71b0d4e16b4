"""From a configuration to recordings that are ready to be cut into windows."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from whirl.data.dataset import load_dataset
from whirl.data.leakage import Leak, check_leakage
from whirl.data.manifest import MANIFEST
from whirl.data.memmap import to_mmap
from whirl.data.recording import Recording
from whirl.data.resampling import ANALYSER_RATIO, common_band_hz, to_common_rate
from whirl.data.simulation import iter_simulated
from whirl.data.splits import Split, split_recordings
from whirl.data.windows import (
    MIN_REVOLUTIONS,
    MIN_WINDOW,
    WindowDataset,
    choose_window,
    known_quantities,
)
from whirl.engine.device import resolve_device
from whirl.engine.precision import cpu_has_bfloat16
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, required_band_hz, signature
from whirl.physics.rolling_bearing import BEARINGS
from whirl.physics.shaft_speed import estimate_rpm
from whirl.runs.config import RunConfig, SimulationConfig, resolved_maps
from whirl.validation import unknown_name

logger = logging.getLogger(__name__)

WANTED_STEPS, MIN_EPOCHS, MAX_EPOCHS = 1000, 6, 40


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
        unlabelled: recordings for the physics terms alone, without labels.
    """

    config: RunConfig
    split: Split
    classes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    window_reason: str
    fingerprint: str
    device: torch.device
    unlabelled: tuple[Recording, ...] = ()

    def windows(self, recordings: Sequence[Recording], hop: int | None = None) -> WindowDataset:
        """Windows over recordings of one part; without a `hop` they do not overlap."""
        window = self.config.window or 0
        return WindowDataset(recordings, self.classes, window, hop or window, quantities=self._quantities())

    def _quantities(self) -> tuple[str, ...]:
        """What all windows tell besides the speed: what the physics terms may use."""
        if self.config.trainer != "pinn":
            return ()
        return known_quantities([*self.split.train, *self.split.val, *self.split.test, *self.unlabelled])

    def summary(self) -> dict[str, Any]:
        """What a run folder notes about its recordings."""
        return {
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "notes": list(self.notes),
            "parts": {
                name: [
                    {"source": r.source, "label": r.label, "specimen": r.specimen, "content": content_of(r)}
                    for r in recordings
                ]
                for name, recordings in self.parts().items()
            },
        }

    def parts(self) -> dict[str, Sequence[Recording]]:
        """The recordings of each part, by its name."""
        known = {"train": self.split.train, "val": self.split.val, "test": self.split.test}
        return {**known, "unlabelled": self.unlabelled} if self.unlabelled else {**known}


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
            mmap_dir=config.mmap_dir,
        )
    return _kept(simulate_recordings(config.simulation, config.classes), config)


def _kept(recordings: Iterable[Recording], config: RunConfig) -> list[Recording]:
    """The recordings in memory, or on the disk where they are to be spilled."""
    return list(recordings) if config.mmap_dir is None else to_mmap(recordings, config.mmap_dir)


def load_unlabelled(config: RunConfig, channels: Sequence[str]) -> list[Recording]:
    """The recordings that physics acts on besides, without their labels.

    Raises:
        ValueError: a folder, file or manifest that cannot be used.
    """
    if config.unlabeled is None:
        return []
    rate_hz = config.sampling_rate_hz
    found = load_dataset(config.unlabeled, channels=channels, sampling_rate_hz=rate_hz, mmap_dir=config.mmap_dir)
    return [replace(recording, label=None) for recording in found]


def with_speeds(recordings: Sequence[Recording], config: RunConfig) -> list[Recording]:
    """Recordings that do not say their speed get it from their signal, if so configured.

    Raises:
        ValueError: the range of speeds is empty, or lies too high for the sampling rate.
    """
    if config.rpm_from == "manifest" or config.rpm_range is None:
        return list(recordings)
    return [
        recording if recording.rpm else _with_estimated_rpm(recording, config.rpm_range) for recording in recordings
    ]


def _with_estimated_rpm(recording: Recording, rpm_range: tuple[float, float]) -> Recording:
    signal = torch.from_numpy(recording.signal)[None]
    return replace(recording, rpm=estimate_rpm(signal, recording.sampling_rate_hz, rpm_range).item())


def simulate_recordings(config: SimulationConfig, classes: Sequence[str] | None = None) -> Iterator[Recording]:
    """Simulated recordings, one at a time.

    Raises:
        ValueError: a class that the family does not have.
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


def prepare(config: RunConfig) -> PreparedData:
    """Load, resample, split and guard the recordings, and settle what the configuration left open.

    Raises:
        ValueError: recordings that cannot be used together, or a split that leaks.
    """
    recordings = load_recordings(config)
    classes = order_classes(recordings)
    _check_bearing(config, classes)
    unlabelled = load_unlabelled(config, recordings[0].channels)
    fingerprint = fingerprint_of(config, recordings, unlabelled)
    loaded, n_labelled = [*recordings, *unlabelled], len(recordings)
    everything = with_speeds(loaded, config)
    rate_hz, why_rate = choose_sampling_rate(everything, classes, config.sampling_rate_hz)
    band_hz = config.band_limit_hz or common_band_hz(everything)
    if band_hz is not None or any(recording.sampling_rate_hz != rate_hz for recording in everything):
        everything = _kept((to_common_rate([r], rate_hz, band_hz)[0] for r in everything), config)
    window, why_window = choose_window(everything, rate_hz)
    if config.window is not None:
        window, why_window = config.window, _asked_window(config.window, rate_hz, everything)
    notes = [f"sampling rate {rate_hz:g} Hz: {why_rate}", f"window: {why_window}"]
    if band_hz is not None:
        notes.append(f"band: all are low-passed at {band_hz:.0f} Hz, so that a recorder's rate tells nothing")
    notes += _notes_on_speed(config, loaded)
    if config.uses_speed:
        _check_revolution(everything, window)
    recordings, unlabelled = everything[:n_labelled], everything[n_labelled:]
    split = split_recordings(
        recordings,
        by=config.split,
        test_specimens=config.test_specimens,
        test_fraction=config.test_fraction,
        val_fraction=config.val_fraction,
        window_s=window / rate_hz,
        seed=config.seed,
    )
    leaks = check_leakage(split, allow_leakage=config.allow_leakage)
    if unlabelled:
        beside = Split(unlabelled, [], split.test, by=split.by, val_by=split.val_by)
        leaks += check_leakage(beside, allow_leakage=config.allow_leakage)
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
            "rpm_range": config.rpm_range or _span_of_speeds(everything),
            "representation": _choose_representation(config, everything),
            "precision": config.precision or _fastest_precision(device),
            "bearing": config.bearing or (None if config.data or config.simulation.family == "journal" else "6205"),
        }
    )
    resolved = resolved.model_copy(update={"maps": resolved_maps(resolved)})
    notes += split.notes
    return PreparedData(
        resolved, split, classes, tuple(leaks), tuple(notes), why_window, fingerprint, device, tuple(unlabelled)
    )


def rolling_faults(labels: Sequence[str]) -> list[str]:
    """Those whose lines follow from the geometry of a rolling bearing."""
    rolling = [signature(name) for name in ROLLING_CLASSES[1:]]
    return [label for label in labels if signature(label) in rolling]


def _check_bearing(config: RunConfig, classes: Sequence[str]) -> None:
    """Refuse to look for faults whose lines depend on a geometry that nobody has told."""
    faults = rolling_faults(classes)
    looks = config.model == "hybrid_pinn" or (config.trainer == "pinn" and config.lambda_freq > 0)
    if faults and looks and config.bearing is None and config.data is not None:
        raise ValueError(
            f"the lines of {', '.join(faults)} follow from the geometry of the rolling bearing: name it with --bearing "
            f"(expected one of: {', '.join(BEARINGS)})"
        )


def _notes_on_speed(config: RunConfig, recordings: Sequence[Recording]) -> list[str]:
    n_unknown = sum(recording.rpm is None for recording in recordings)
    if n_unknown and config.rpm_from == "signal" and config.rpm_range:
        low, high = config.rpm_range
        said = f"estimated from the signal, between {low:g} and {high:g} rpm"
    elif n_unknown and config.uses_speed:
        said = "not known, so physics says nothing of them"
    else:
        return []
    return [f"speed: that of {n_unknown} of {len(recordings)} recordings is {said}"]


def _check_revolution(recordings: Sequence[Recording], window: int) -> None:
    """Refuse windows in which the slowest shaft does not turn once."""
    for recording in recordings:
        least = math.ceil(60 * recording.sampling_rate_hz / recording.rpm) if recording.rpm else 0
        if window < least:
            raise ValueError(
                f"windows of {window} samples are shorter than one revolution of {recording.name} at "
                f"{recording.rpm:g} rpm: expected --window {least} or more"
            )


def _choose_representation(config: RunConfig, recordings: Sequence[Recording]) -> Any:
    """Maps over orders need the speed of every recording; where several kinds are wanted, the others do without."""
    unknown = next((recording for recording in recordings if not recording.rpm), None)
    if unknown is None or "order" not in config.representations:
        return config.representations if config.representation == "multi" else config.representation
    if config.representation == "multi":
        return [kind for kind in config.representations if kind != "order"]
    raise ValueError(
        f"{unknown.name}: its speed is not known, and order maps need it: add a column rpm to {MANIFEST}, estimate it "
        "with --rpm-from signal, or choose another --representation"
    )


def _span_of_speeds(recordings: Sequence[Recording]) -> tuple[float, float] | None:
    speeds = [recording.rpm for recording in recordings if recording.rpm is not None]
    return (min(speeds), max(speeds)) if speeds else None


def _fastest_precision(device: torch.device) -> Literal["32", "bf16", "fp16"]:
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bfloat16() else "32"


def choose_epochs(steps_per_epoch: int) -> int:
    """Epochs that come to about 1000 optimizer steps: small data sets need more passes than large ones.

    Example:
        >>> [choose_epochs(steps) for steps in (1, 50, 1000)]
        [40, 20, 6]
    """
    return min(max(round(WANTED_STEPS / max(1, steps_per_epoch)), MIN_EPOCHS), MAX_EPOCHS)


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


def fingerprint_of(config: RunConfig, recordings: Sequence[Recording], unlabelled: Sequence[Recording] = ()) -> str:
    """Hash of the recordings as they were loaded, in order; of simulated ones, of what was simulated."""
    digest = hashlib.blake2b(digest_size=16)
    if config.data is None:
        digest.update(repr((config.simulation, [recording.source for recording in recordings])).encode())
    for recording in [*(() if config.data is None else recordings), *unlabelled]:
        digest.update(f"{recording.label}|{recording.specimen}|{recording.sampling_rate_hz}".encode())
        digest.update(np.ascontiguousarray(recording.signal).data)
    return digest.hexdigest()


def content_of(recording: Recording) -> str:
    """Hash of a recording's samples: equal for equal ones, whatever they are called and wherever they lie."""
    return hashlib.blake2b(np.ascontiguousarray(recording.signal).data, digest_size=8).hexdigest()


def _asked_window(window: int, rate_hz: float, recordings: Sequence[Recording]) -> str:
    speeds = [recording.rpm for recording in recordings if recording.rpm is not None]
    if not speeds:
        return f"{window} samples, as asked for"
    turns = window / rate_hz * min(speeds) / 60
    held = f"{turns:.1f} revolutions of the slowest recording; {MIN_REVOLUTIONS} are wanted"
    return f"{window} samples, as asked for: {held}"


def check_same_recordings(config: RunConfig, fingerprint: str, noted: str) -> None:
    """Refuse recordings that are not those a run began with.

    Raises:
        ValueError: they differ.
    """
    if fingerprint != noted:
        where = config.data or "the simulation"
        raise ValueError(f"{where}: the recordings are not those that the run began with; start a new run")
