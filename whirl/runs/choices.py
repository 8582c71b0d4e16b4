"""Settings chosen from the data: sampling rate, window, epochs, representation, precision."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch

from whirl.data.manifest import MANIFEST
from whirl.data.recording import Recording
from whirl.data.resampling import ANALYSER_RATIO
from whirl.data.windows import MIN_REVOLUTIONS, MIN_WINDOW, choose_window
from whirl.engine.precision import cpu_has_bfloat16
from whirl.models.heads import faults_of, single_faults
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, required_band_hz
from whirl.runs.config import Config
from whirl.runs.descriptions import UNKNOWN
from whirl.runs.methods import MapsMethod, ProgressiveMethod

TARGET_STEPS, MIN_EPOCHS, MAX_EPOCHS = 1000, 6, 40


def order_classes(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """Return the labels of the recordings: known fault classes in their standard order, then the others by name.

    Raises:
        ValueError: a recording has no label, or there are fewer than two classes.
    """
    labels = Counter(recording.label for recording in recordings)
    if None in labels:
        unlabeled = next(recording for recording in recordings if recording.label is None)
        raise ValueError(f"{unlabeled.name}: has no label, but training requires one for every recording")
    if len(labels) < 2:
        raise ValueError(f"only one class, {next(iter(labels))!r}; training requires at least two")
    known = [label for label in dict.fromkeys((*JOURNAL_CLASSES, *ROLLING_CLASSES)) if label in labels]
    return (*known, *sorted(label for label in labels if label not in known))  # type: ignore[type-var]


def order_labels(config: Config, recordings: Sequence[Recording]) -> tuple[str, ...]:
    """Return the labels of the recordings in the order that the task needs.

    Levels, and two classes with one logit, are in the order of the stated classes. Otherwise levels are in the order of
    the one number in each label, `healthy` being the lowest, and of two classes the healthy one is the first.

    For numbers there are no labels.

    Raises:
        ValueError: there are fewer than two classes, the order of levels is unknown, labels name the same faults, or
            there are more than two classes for one logit.
    """
    if config.is_regression:
        return ()
    labels, task, stated = order_classes(recordings), config.training.task, config.data.classes
    if task == "multilabel":
        single_faults(labels)
    if task == "binary" and len(labels) != 2:
        raise ValueError(
            f"task 'binary' is for two classes, but there are {len(labels)} ({', '.join(labels)}): choose two with "
            "--classes, or task 'multiclass'"
        )
    if task in ("binary", "ordinal") and stated is not None:
        return tuple(sorted(labels, key=stated.index))
    if task == "binary":
        return tuple(sorted(labels, key=lambda label: bool(faults_of(label))))
    return _by_level(labels) if task == "ordinal" else labels


def _by_level(labels: Sequence[str]) -> tuple[str, ...]:
    levels = {_level(label): label for label in labels}
    if len(levels) < len(labels):
        raise ValueError(f"several labels have the same level: {', '.join(sorted(set(labels) - set(levels.values())))}")
    return tuple(levels[level] for level in sorted(levels))


def _level(label: str) -> float:
    numbers = re.findall(r"\d+(?:\.\d+)?", label)
    if not faults_of(label):
        return -math.inf
    if len(numbers) != 1:
        raise ValueError(
            f"the level of label {label!r} is unknown, as it has {len(numbers)} numbers: state the order of all labels "
            "with --classes, from the lowest to the highest"
        )
    return float(numbers[0])


def choose_sampling_rate(
    recordings: Sequence[Recording], classes: Sequence[str], stated_hz: float | None = None
) -> tuple[float, str]:
    """Choose the sampling rate for all recordings, and give the reason.

    This is the lowest sampling rate of the recordings. If the classes differ only in the harmonics of the shaft, it is
    reduced to what these harmonics require.

    Args:
        recordings: the recordings.
        classes: labels to distinguish; empty to predict a number.
        stated_hz: the sampling rate that the user states, which takes precedence.
    """
    if stated_hz is not None:
        return stated_hz, "as stated"
    lowest = min(recording.sampling_rate_hz for recording in recordings)
    if not classes:
        return lowest, "the lowest of the recordings"
    speeds = [recording.rpm for recording in recordings if recording.rpm is not None]
    band_hz = required_band_hz(classes, max(speeds)) if len(speeds) == len(recordings) else None
    if band_hz is None or ANALYSER_RATIO * band_hz >= lowest:
        return lowest, "the lowest of the recordings; the classes require the full band"
    # A window of the minimum number of revolutions must have enough samples for a network.
    floor = MIN_WINDOW / (MIN_REVOLUTIONS * 60 / min(speeds))
    rate_hz = _integer_fraction(lowest, max(ANALYSER_RATIO * band_hz, floor)) if floor < lowest else lowest
    return rate_hz, f"the classes differ below {band_hz:.0f} Hz; --sampling-rate keeps more"


def _integer_fraction(rate_hz: float, at_least_hz: float) -> float:
    """Return the lowest rate >= `at_least_hz` that divides `rate_hz`, so that resampling is exact."""
    return rate_hz / max(1, int(rate_hz // at_least_hz))


def resolve_window(config: Config, recordings: Sequence[Recording], rate_hz: float) -> tuple[int, str]:
    """Choose the window length in samples, and give the reason."""
    method = config.training.method
    stated = method.stages[-1][0] if isinstance(method, ProgressiveMethod) else config.input.window
    if stated is None:
        return choose_window(recordings, rate_hz)
    return stated, _stated_window(stated, rate_hz, recordings)


def _stated_window(window: int, rate_hz: float, recordings: Sequence[Recording]) -> str:
    speeds = [recording.rpm for recording in recordings if recording.rpm is not None]
    if not speeds:
        return f"{window} samples, as stated"
    turns = window / rate_hz * min(speeds) / 60
    return f"{window} samples, as stated: {turns:.1f} revolutions of the slowest recording (advised: {MIN_REVOLUTIONS})"


def check_revolution(recordings: Sequence[Recording], window: int, rate_hz: float) -> None:
    """Validate that a window covers at least one revolution of the slowest shaft.

    Raises:
        ValueError: it is shorter.
    """
    for recording in recordings:
        minimum = math.ceil(60 * rate_hz / recording.rpm) if recording.rpm else 0
        if window < minimum:
            raise ValueError(
                f"windows of {window} samples are shorter than one revolution of {recording.name} at "
                f"{recording.rpm:g} rpm: expected --window {minimum} or more"
            )


def resolve_epochs(config: Config, n_windows: int) -> int:
    """Choose the number of epochs for a number of training windows."""
    method = config.training.method
    if isinstance(method, ProgressiveMethod):
        return sum(n_epochs for _, n_epochs in method.stages)
    return config.training.epochs or choose_epochs(math.ceil(n_windows / config.training.batch_size))


def choose_epochs(steps_per_epoch: int) -> int:
    """Return the number of epochs for about 1000 optimizer steps, between 6 and 40.

    Example:
        >>> [choose_epochs(steps) for steps in (1, 50, 1000)]
        [40, 20, 6]
    """
    return min(max(round(TARGET_STEPS / max(1, steps_per_epoch)), MIN_EPOCHS), MAX_EPOCHS)


def choose_representation(config: Config, recordings: Sequence[Recording]) -> Any:
    """Resolve the kinds of maps; order maps require the speed of every recording, and `multi` omits them without it.

    Raises:
        ValueError: order maps are configured, but a speed is unknown.
    """
    method = config.training.method
    if not isinstance(method, MapsMethod):
        return None
    unknown = next((recording for recording in recordings if not recording.rpm), None)
    if unknown is None or "order" not in method.kinds:
        return method.kinds if method.representation == "multi" else method.representation
    if method.representation == "multi":
        return [kind for kind in method.kinds if kind != "order"]
    raise ValueError(
        f"{unknown.name}: the speed is unknown, but order maps require it; add a column rpm to {MANIFEST}, estimate it "
        "with --rpm-from signal, or choose another --representation"
    )


def span_of_speeds(recordings: Sequence[Recording]) -> Any:
    """Return the lowest and highest speed stated by recordings, or `"unknown"`."""
    speeds = [recording.rpm for recording in recordings if recording.rpm is not None]
    return (min(speeds), max(speeds)) if speeds else UNKNOWN


def fastest_precision(device: torch.device) -> Literal["32", "bf16", "fp16"]:
    """Return the lowest precision that the device supports in hardware."""
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bfloat16() else "32"
