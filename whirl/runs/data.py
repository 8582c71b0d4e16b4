"""Preparation of recordings: reading, harmonizing, splitting, and the choices left to the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from whirl._parallel import map_in_threads
from whirl.data.leakage import Leak, check_leakage
from whirl.data.manifest import MANIFEST
from whirl.data.recording import Recording
from whirl.data.splits import Split, split_recordings
from whirl.data.value_windows import ValueWindows, target_of
from whirl.data.windows import WindowDataset, known_quantities
from whirl.diagnosis.selection import Choice
from whirl.engine.device import resolve_device
from whirl.engine.objective import SAMPLE_WEIGHT
from whirl.physics.faults import ROLLING_CLASSES, signature
from whirl.runs.choices import (
    choose_representation,
    fastest_precision,
    order_labels,
    resolve_epochs,
    span_of_speeds,
)
from whirl.runs.config import Config, ResolvedConfig, resolve
from whirl.runs.descriptions import OFF, UNKNOWN
from whirl.runs.descriptors import (
    PartDescriptors,
    candidates_for,
    choose_model,
    have_weights,
    leaves_model_open,
    training_part,
    why_no_descriptors,
)
from whirl.runs.fingerprint import (
    check_same_inputs,
    combine,
    content_of,
    fingerprint_inputs,
    hash_plain,
    library_versions,
    warn_of_other_versions,
)
from whirl.runs.harmonization import CommonForm, choose_common_form, complete, harmonize, notes_on_speed
from whirl.runs.maps import resolved_maps
from whirl.runs.methods import PhysicsMethod
from whirl.runs.reading import read_recordings
from whirl.runs.run_folder import RunFolder
from whirl.runs.value_split import split_by_value

logger = logging.getLogger(__name__)

Loaded = tuple[list[Recording], list[Recording]]
"""Labeled and unlabeled recordings as read."""


@dataclass(frozen=True)
class PreparedData:
    """Recordings at one sampling rate, split and checked for leakage, and the configuration with every choice made.

    Attributes:
        config: the resolved configuration.
        split: training, validation and test recordings.
        classes: label of each class index; empty if a number is predicted.
        leaks: the leaks found; empty unless leakage is allowed.
        notes: choices and their reasons, to show to the user.
        window_reason: reason for the window length.
        inputs: hashes of the recordings as loaded, by what they state; see `whirl.runs.fingerprint`.
        device: device for training.
        descriptors: descriptors of the recordings before resampling.
        unlabeled: unlabeled recordings for the physics terms only.
    """

    config: ResolvedConfig
    split: Split
    classes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    window_reason: str
    inputs: Mapping[str, str]
    device: torch.device
    descriptors: PartDescriptors
    unlabeled: tuple[Recording, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of the recordings as loaded."""
        return combine(self.inputs)

    def windows(self, recordings: Sequence[Recording], hop: int | None = None) -> WindowDataset:
        """Cut the recordings of a part into windows, which do not overlap by default."""
        window, quantities = self.config.input.window, self._quantities()
        hop = hop or window
        if not self.config.is_regression:
            return WindowDataset(recordings, self.classes, window, hop, quantities=quantities)
        values = [target_of(recording, self.config.data.target) for recording in recordings]
        return ValueWindows(recordings, values, window, hop, quantities=quantities)

    def _quantities(self) -> tuple[str, ...]:
        """Return the quantities besides the speed that windows provide: weights, and those for the physics terms."""
        known = known_quantities([*self.split.train, *self.split.val, *self.split.test, *self.unlabeled])
        return known if self.config.training.method.kind == "pinn" else tuple({SAMPLE_WEIGHT} & {*known})

    def summary(self) -> dict[str, Any]:
        """Return the metadata of the recordings for the run folder."""
        return {
            "fingerprint": self.fingerprint,
            "inputs": dict(self.inputs),
            "versions": library_versions(),
            "classes": list(self.classes),
            "notes": list(self.notes),
            "window_reason": self.window_reason,
            "parts": {
                name: [
                    {"source": r.source, "label": r.label, "specimen": r.specimen, "content": content}
                    for r, content in zip(recordings, map_in_threads(content_of, recordings), strict=True)
                ]
                for name, recordings in self.parts().items()
            },
        }

    def parts(self) -> dict[str, Sequence[Recording]]:
        """Return the recordings of each part by its name."""
        labeled = {"train": self.split.train, "val": self.split.val, "test": self.split.test}
        return {**labeled, "unlabeled": self.unlabeled} if self.unlabeled else {**labeled}


def prepare(config: Config, loaded: Loaded | None = None, checked: PreparedData | None = None) -> PreparedData:
    """Read, split, check and harmonize the recordings, and make every choice left to the data.

    Args:
        config: the settings.
        loaded: labeled and unlabeled recordings, if they were read already.
        checked: the same recordings prepared for another model, whose leaks and descriptors are used if all parts have
            the same specimens.

    Raises:
        ValueError: the recordings cannot be used together, or the split has leaks.
    """
    recordings, unlabeled = loaded or read_recordings(config)
    classes = order_labels(config, recordings)
    _check_bearing(config, classes)
    inputs = inputs_of(config, recordings, unlabeled)
    read = [*recordings, *unlabeled]
    recordings, unlabeled = (complete(part, config) for part in (recordings, unlabeled))
    notes = notes_on_speed(config, read, [*recordings, *unlabeled])
    candidates = candidates_for(config, recordings)
    common = choose_common_form(config, [*recordings, *unlabeled], classes, keeps_recordings=bool(candidates))
    originals = _split(config, recordings, common)
    split, unlabeled = _harmonized_split(originals, common, config), harmonize(unlabeled, common, config)
    is_checked = split.by == "specimen" and checked is not None and _specimens(split) == _specimens(checked.split)
    leaks = checked.leaks if checked and is_checked else _check_leakage(config, split, unlabeled)
    device = resolve_device(config.run.device)
    parts = {"train": training_part(originals), "test": originals.test}
    descriptors = checked.descriptors if checked and is_checked else PartDescriptors(parts)
    choice = choose_model(config, candidates, descriptors) if candidates else None
    return PreparedData(
        _resolve(config, classes, split, common, device, choice),
        split,
        classes,
        leaks,
        (
            *common.notes,
            *notes,
            *_notes_on_task(config, classes),
            *_notes_on_model(config, recordings, choice),
            *split.notes,
        ),
        common.window_reason,
        inputs,
        device,
        descriptors,
        tuple(unlabeled),
    )


def _harmonized_split(originals: Split, common: CommonForm, config: Config) -> Split:
    parts = {name: harmonize(part, common, config) for name, part in _parts_of(originals).items()}
    return replace(originals, **parts)


def _specimens(split: Split) -> tuple[str, list[set[str | None]]]:
    """Return what a split by specimen is determined by."""
    return split.val_by, [{recording.specimen for recording in part} for part in _parts_of(split).values()]


def _parts_of(split: Split) -> dict[str, list[Recording]]:
    return {"train": split.train, "val": split.val, "test": split.test}


def _split(config: Config, recordings: Sequence[Recording], common: CommonForm) -> Split:
    stated = config.split.test_specimens
    split = partial(
        split_recordings,
        by=config.split.by,
        test_specimens=stated if isinstance(stated, list) else None,
        test_fraction=config.split.test_fraction,
        val_fraction=config.split.val_fraction,
        window_s=common.window_s,
        seed=config.run.seed,
    )
    return split_by_value(recordings, config.data.target, split) if config.is_regression else split(recordings)


def _check_leakage(config: Config, split: Split, unlabeled: Sequence[Recording]) -> tuple[Leak, ...]:
    leaks = check_leakage(split, allow_leakage=config.split.allow_leakage)
    if unlabeled:
        beside = Split(list(unlabeled), [], split.test, by=split.by, val_by=split.val_by)
        leaks += check_leakage(beside, allow_leakage=config.split.allow_leakage)
    return tuple(leaks)


def _resolve(
    config: Config,
    classes: Sequence[str],
    split: Split,
    common: CommonForm,
    device: torch.device,
    choice: Choice | None,
) -> ResolvedConfig:
    recordings = [*split.train, *split.val, *split.test]
    hop, n_windows = _count_windows(config, split, common.window)
    rate_hz = common.rate_hz or min(recording.sampling_rate_hz for recording in recordings)
    representation = choose_representation(config, recordings)
    return resolve(
        config,
        **_chosen_model(config, choice),
        window=common.window,
        hop=hop,
        batch_size=max(2, min(config.training.batch_size, n_windows)),
        epochs=resolve_epochs(config, n_windows),
        classes=list(classes) or [config.data.target],
        channels=list(split.train[0].channels),
        sampling_rate_hz=rate_hz,
        band_limit_hz=OFF if common.band_hz is None else common.band_hz,
        rpm_range=config.physics.rpm_range or span_of_speeds(recordings),
        representation=representation,
        maps=resolved_maps(config, representation, rate_hz),
        precision=config.run.precision or fastest_precision(device),
        bearing=config.physics.bearing or _simulated_bearing(config),
        threads=config.run.threads or 1,
    )


def _chosen_model(config: Config, choice: Choice | None) -> dict[str, str]:
    model, descriptors = choice.candidate if choice else (config.model_name, OFF)
    return {"model": model, "descriptors": descriptors}


def _count_windows(config: Config, split: Split, window: int) -> tuple[int, int]:
    """Return the hop between training windows, and their number."""
    hop = config.input.hop or max(1, window // 2)
    return hop, sum((recording.n_samples - window) // hop + 1 for recording in split.train)


def _simulated_bearing(config: Config) -> str:
    """Return the bearing of simulated rolling-bearing machines, or that it is unknown."""
    return "6205" if config.data.is_simulated and config.data.simulation.family == "rolling" else UNKNOWN


def _notes_on_task(config: Config, classes: Sequence[str]) -> list[str]:
    if config.training.task != "binary":
        return []
    threshold = config.evaluation.threshold
    return [f"binary: {classes[1]!r} is predicted above a calibrated probability of {threshold:g}, else {classes[0]!r}"]


def _notes_on_model(config: Config, recordings: Sequence[Recording], choice: Choice | None) -> list[str]:
    if choice is not None:
        return [f"model: {choice.reason}"]
    missing = why_no_descriptors(recordings)
    if config.model.name is None and leaves_model_open(config) and not missing and have_weights(recordings):
        return [f"model: {config.model_name}, because models of physical descriptors do not take {SAMPLE_WEIGHT}"]
    if config.model.name is not None or not missing:
        return []
    return [
        f"model: {config.model_name}, because {missing}. With a column rpm, and bearing for rolling bearings, in "
        f"{MANIFEST}, physics would be tried first: it carries over to machines that training has not seen"
    ]


def rolling_faults(labels: Sequence[str]) -> list[str]:
    """Return the labels whose fault frequencies depend on the geometry of a rolling bearing."""
    rolling = [signature(name) for name in ROLLING_CLASSES[1:]]
    return [label for label in labels if signature(label) in rolling]


def _check_bearing(config: Config, classes: Sequence[str]) -> None:
    """Validate that the bearing is known if its fault frequencies are used."""
    faults, method = rolling_faults(classes), config.training.method
    uses_lines = config.model_name == "hybrid_pinn" or (isinstance(method, PhysicsMethod) and method.lambda_freq > 0)
    if faults and uses_lines and config.physics.bearing is None and not config.data.is_simulated:
        raise ValueError(
            f"the frequencies of {', '.join(faults)} depend on the geometry of the rolling bearing; state it with "
            "--bearing, e.g. 6205"
        )


# -- fingerprints --------------------------------------------------------------------------------------------


def inputs_of(config: Config, recordings: Sequence[Recording], unlabeled: Sequence[Recording] = ()) -> dict[str, str]:
    """Hash the recordings as loaded, by what they state; for simulated ones, the settings of the simulation."""
    if not config.data.is_simulated:
        return fingerprint_inputs(recordings, unlabeled)
    simulated = [config.data.simulation.model_dump(), [recording.source for recording in recordings]]
    return {"simulation": hash_plain(simulated)} | (fingerprint_inputs((), unlabeled) if unlabeled else {})


def check_same_recordings(data: PreparedData, folder: RunFolder) -> None:
    """Validate that the recordings are those that a run was started with, and warn of other versions.

    Raises:
        ValueError: the recordings have changed.
    """
    saved = folder.read_data()
    where = "the simulation" if data.config.data.is_simulated else data.config.data.path
    check_same_inputs(where, data.inputs, saved)
    warn_of_other_versions(folder.path, saved.get("versions", {}))


def prepare_run(folder: RunFolder) -> PreparedData:
    """Prepare the recordings of a run again.

    Raises:
        ValueError: the recordings cannot be read, or have changed since the run.
    """
    data = prepare(folder.read_config())
    check_same_recordings(data, folder)
    return with_recorded_notes(data, folder)


def with_recorded_notes(data: PreparedData, folder: RunFolder) -> PreparedData:
    """Return recordings prepared again with the reasons of the run's own choices, which it now reads as settings."""
    saved = folder.read_data()
    return replace(data, notes=tuple(saved["notes"]), window_reason=saved.get("window_reason", data.window_reason))
