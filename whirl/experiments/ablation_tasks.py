"""Settings and windows of the physics ablation, simulated or from a folder of recordings."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whirl.data.dataset import load_dataset
from whirl.data.recording import Recording
from whirl.data.resampling import to_common_rate
from whirl.data.simulation import simulate
from whirl.data.windows import WindowDataset
from whirl.losses.evidence_consistency import FORMS
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.physics.rolling_bearing import BEARINGS, FaultOrders, fault_orders
from whirl.runs.data import rolling_faults
from whirl.validation import check_count, check_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AblationSetting:
    """Settings that all runs of an ablation share.

    Attributes:
        labels: labeled windows per class; 0 for all available ones.
        epochs: passes over the unlabeled windows; every arm takes the same number of steps.
        batch_size: labeled windows per step, and as many unlabeled ones.
        lr: peak learning rate of the one-cycle schedule.
        weight: weight lambda of the frequency term.
        form: form of the frequency term: `log`, `linear`, `set` or `kl`.
        schedule: schedule of lambda: `constant`, `linear`, `cosine`, `exponential` or `step`.
        trust: whether to correct the physics by the labeled windows.
        network: name of the network; in arms with evidence or orders, of its backbone for the waveform.
        bearing: designation of a rolling bearing; None for a journal bearing.
        device: device to train on.
        data: description of the data; an ablation can only be resumed on the same data.
        recordings: hashes of the recordings, see `whirl.runs.fingerprint`; empty for simulated ones.
    """

    labels: int = 5
    epochs: int = 10
    batch_size: int = 32
    lr: float = 3e-3
    weight: float = 1.0
    form: str = "log"
    schedule: str = "constant"
    trust: bool = True
    network: str = "wdcnn"
    bearing: str | None = None
    device: str = "auto"
    data: str = "simulated"
    recordings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_count("labels", self.labels, minimum=0)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size, minimum=2)
        check_name("form", self.form, FORMS)
        if self.bearing is not None:
            check_name("bearing", self.bearing, BEARINGS)

    @property
    def orders(self) -> FaultOrders | None:
        """Fault orders of the bearing; None for a journal bearing."""
        return None if self.bearing is None else fault_orders(BEARINGS[self.bearing])


@dataclass(frozen=True)
class Task:
    """The windows of one run.

    Attributes:
        labeled: windows whose labels are used; `labeled.dataset` contains the windows of all training recordings.
        unlabeled: windows whose labels are not used.
        test: windows of specimens that occur in neither of the two.
    """

    labeled: WindowSubset
    unlabeled: WindowSubset
    test: WindowSubset

    @property
    def classes(self) -> tuple[str, ...]:
        """Label of each class index."""
        return self.test.dataset.classes or ()

    @property
    def sampling_rate_hz(self) -> float:
        """Sampling rate of all windows."""
        return self.test.dataset.sampling_rate_hz


class WindowSubset(torch.utils.data.Dataset):
    """Selected windows of a data set, indexed by complete batches.

    Args:
        dataset: the data set.
        indices: indices of the windows, int64 `[W]`; they may repeat.
    """

    def __init__(self, dataset: WindowDataset, indices: Tensor) -> None:
        self.dataset, self.indices = dataset, indices

    @property
    def targets(self) -> Tensor:
        """Class of each window, `[W]`."""
        return self.dataset.targets[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Tensor) -> Any:
        return self.dataset[self.indices[index]]

    def repeat(self, n_windows: int) -> WindowSubset:
        """Return the windows, repeated to a length of `n_windows`."""
        times = math.ceil(n_windows / len(self))
        return WindowSubset(self.dataset, self.indices.repeat(times)[:n_windows])

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all signals `[W, C, T]`, targets `[W]` and speeds `[W]` in rev/min."""
        signals, targets, metadata = self.dataset[self.indices]
        return signals, targets, metadata["rpm"]


# -- simulated journal bearings ------------------------------------------------------------------------------

CONDITIONS: dict[str, dict[str, tuple[float, float]]] = {
    "few": {},
    "speed_shift": {"labeled_rpm": (1200, 1800), "test_rpm": (2600, 3600)},
    "noise": {"snr_db_range": (-6.0, 0.0)},
}
"""Conditions of simulated journal bearings: default settings; labels at low and tests at high speed; noise with 0 to
6 dB more power than the vibration."""

N_MACHINES, N_TEST_MACHINES, RATE_HZ, WINDOW = 18, 6, 2560, 4096


def simulated_tasks(setting: AblationSetting) -> Callable[[str, int], Task]:
    """Return a function that creates the task of a condition and a seed by `simulated_task`."""
    return lambda condition, seed: simulated_task(condition, setting.labels, seed)


def simulated_task(condition: str, labels: int, seed: int) -> Task:
    """Simulate 12 machines for training and 6 for testing, with windows of 1.6 s at 2560 Hz.

    Args:
        condition: one of `CONDITIONS`.
        labels: labeled windows per class; 0 for all available ones.
        seed: random seed of the simulation and of the labeled windows.

    Raises:
        ValueError: the condition is unknown.
    """
    check_name("condition", condition, CONDITIONS)
    settings = CONDITIONS[condition]
    recordings = simulate(
        N_MACHINES,
        seed=seed,
        sampling_rate_hz=RATE_HZ,
        n_samples=2 * WINDOW,
        snr_db_range=settings.get("snr_db_range", (5.0, 20.0)),
    )
    tested = {f"machine{index:02d}" for index in range(N_MACHINES - N_TEST_MACHINES, N_MACHINES)}
    train = [recording for recording in recordings if recording.specimen not in tested]
    test = [recording for recording in recordings if recording.specimen in tested]
    return make_task(
        train,
        [recording for recording in test if _is_in_range(recording, settings.get("test_rpm"))],
        JOURNAL_CLASSES,
        WINDOW,
        labels,
        seed,
        can_be_labeled=lambda recording: _is_in_range(recording, settings.get("labeled_rpm")),
    )


def _is_in_range(recording: Recording, rpm: tuple[float, float] | None) -> bool:
    return rpm is None or rpm[0] <= (recording.rpm or 0) <= rpm[1]


# -- recordings in a folder ----------------------------------------------------------------------------------


def load_known(
    data: str | Path,
    bearing: str | None = None,
    *,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sampling_rate_hz: float | None = None,
    without: Sequence[str] = (),
) -> list[Recording]:
    """Load the recordings of known speed in a folder.

    Args:
        data: folder of recordings.
        bearing: designation of a rolling bearing; None for a journal bearing.
        channels: names of the channels to use; None for all.
        classes: labels to use; None for all.
        sampling_rate_hz: sampling rate of files that state none.
        without: specimens to omit.

    Raises:
        ValueError: the folder cannot be read, no speed is known, or the bearing is required.
    """
    recordings = load_dataset(data, channels=channels, classes=classes, sampling_rate_hz=sampling_rate_hz)
    recordings = [recording for recording in recordings if recording.specimen not in without]
    known = [recording for recording in recordings if recording.rpm is not None]
    if not known:
        raise ValueError(f"{data}: physics requires rpm, which no recording has; add a column rpm to manifest.csv")
    rolling = rolling_faults([str(recording.label) for recording in known])
    if rolling and bearing is None:
        raise ValueError(f"{data}: the lines of class {rolling[0]!r} depend on the bearing; name it with --bearing")
    if len(known) < len(recordings):
        logger.info("omitting %d of %d recordings without rpm", len(recordings) - len(known), len(recordings))
    return known


def folder_tasks(recordings: Sequence[Recording], labels: int, window_s: float = 1.0) -> Callable[[str, int], Task]:
    """Return a function that creates the task of a seed by `folder_task`.

    Args:
        recordings: labeled recordings of known speed, see `load_known`.
        labels: labeled windows per class; 0 for all available ones.
        window_s: length of a window in seconds.
    """
    rate_hz = min(recording.sampling_rate_hz for recording in recordings)
    resampled = to_common_rate(recordings, rate_hz, None)
    return lambda condition, seed: folder_task(resampled, labels, seed, round(window_s * rate_hz))


def folder_task(recordings: Sequence[Recording], labels: int, seed: int, window: int) -> Task:
    """Assign one specimen of each class to labeled windows, one to the test and the others to unlabeled windows.

    The roles are drawn for each seed. The windows of the labeled specimen are also used as unlabeled windows. A
    specimen that is tested in one class is omitted from training in all classes.

    Args:
        recordings: labeled recordings of known specimens.
        labels: labeled windows per class; 0 for all available ones.
        seed: random seed of the roles and of the labeled windows.
        window: samples in a window.

    Raises:
        ValueError: a class has fewer than two specimens.
    """
    classes = tuple(sorted({str(recording.label) for recording in recordings}))
    specimens_of = {label: {str(r.specimen) for r in recordings if r.label == label} for label in classes}
    for label in classes:
        if len(specimens_of[label]) < 2:
            raise ValueError(f"class {label!r} has 1 specimen, expected at least 2, for training and for testing")
    # One order for all classes, so that machines with several faults keep their role.
    order = np.random.default_rng(seed).permutation(sorted(set().union(*specimens_of.values()))).tolist()
    tested = {label: next(name for name in order if name in specimens_of[label]) for label in classes}
    held_out = set(tested.values())
    remaining = {label: [name for name in order if name in specimens_of[label] - held_out] for label in classes}
    return make_task(
        [r for r in recordings if str(r.specimen) not in held_out],
        [r for r in recordings if tested[str(r.label)] == str(r.specimen)],
        classes,
        window,
        labels,
        seed,
        can_be_labeled=lambda r: remaining[str(r.label)][0] == str(r.specimen),
    )


def make_task(
    train: Sequence[Recording],
    test: Sequence[Recording],
    classes: Sequence[str],
    window: int,
    labels: int,
    seed: int,
    can_be_labeled: Callable[[Recording], bool] = lambda recording: True,
) -> Task:
    """Draw the labeled windows and create a task.

    Args:
        train: recordings for training.
        test: recordings of other specimens.
        classes: label of each class index.
        window: samples in a window.
        labels: labeled windows per class; 0 for all available ones.
        seed: random seed.
        can_be_labeled: whether the label of a recording may be used.

    Raises:
        ValueError: a class has too few windows, or there is no test recording.
    """
    if not test:
        raise ValueError("test is empty, expected at least one recording")
    dataset, tested = WindowDataset(train, classes, window, window // 2), WindowDataset(test, classes, window)
    allowed = torch.tensor([can_be_labeled(recording) for recording in train])[dataset.recording_index]
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for index, label in enumerate(classes):
        candidates = order[(dataset.targets[order] == index) & allowed[order]]
        required = max(labels, 1)
        if len(candidates) < required:
            raise ValueError(f"class {label!r} has {len(candidates)} windows to label, expected at least {required}")
        chosen.append(candidates[:labels] if labels else candidates)
    return Task(
        WindowSubset(dataset, torch.cat(chosen)),
        WindowSubset(dataset, torch.arange(len(dataset))),
        WindowSubset(tested, torch.arange(len(tested))),
    )
