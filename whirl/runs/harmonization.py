"""One sampling rate, band and window for the recordings of a run, and speeds and bearings that they do not state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from whirl.data.recording import Recording
from whirl.data.resampling import RATE_TOLERANCE, common_band_hz, to_common_rate
from whirl.physics.shaft_speed import estimate_speed
from whirl.runs.choices import check_revolution, choose_sampling_rate, resolve_window
from whirl.runs.config import Config
from whirl.runs.descriptors import with_bearing
from whirl.runs.reading import stored
from whirl.runs.sections import OFF

RPM_CONFIDENCE = "rpm_confidence"
"""Entry in the metadata of recordings whose speed was estimated."""

MIN_SPEED_CONFIDENCE = 0.5
"""Below, other speeds together are as probable as the estimate, and the speed is unknown."""

CLEAR_SPEED_CONFIDENCE = 0.8
"""Above, all estimates of simulated machines were right; see `whirl.physics.shaft_speed.estimate_speed`."""


@dataclass(frozen=True)
class CommonForm:
    """What the recordings of a run have in common once they are harmonized.

    Attributes:
        rate_hz: sampling rate; None leaves each recording at its own.
        band_hz: cutoff of the low-pass filter; None if there is none.
        window: samples per window.
        window_s: length of a window in seconds.
        window_reason: reason for the window length.
        notes: choices and their reasons.
    """

    rate_hz: float | None
    band_hz: float | None
    window: int
    window_s: float
    window_reason: str
    notes: list[str]


def complete(recordings: Sequence[Recording], config: Config) -> list[Recording]:
    """Add the configured bearing, and estimated speeds, to recordings that do not state theirs."""
    return with_bearing(with_speeds(recordings, config), config)


def choose_common_form(
    config: Config, recordings: Sequence[Recording], classes: Sequence[str], keeps_recordings: bool = False
) -> CommonForm:
    """Choose the sampling rate, band and window for all recordings.

    Args:
        config: the settings.
        recordings: all recordings, with their speeds.
        classes: labels to distinguish.
        keeps_recordings: whether recordings keep their own sampling rates, as for models of descriptors.

    Raises:
        ValueError: the recordings cannot be used together, or a window is shorter than a revolution.
    """
    rate_hz, rate_reason = choose_sampling_rate(recordings, classes, config.data.sampling_rate_hz)
    notes = [f"sampling rate {rate_hz:g} Hz: {rate_reason}"]
    band_hz = _band_of(config, recordings)
    if keeps_recordings:
        rate_hz, band_hz = min(recording.sampling_rate_hz for recording in recordings), None
        notes = ["sampling rate: each recording keeps its own"]
    window, window_reason = resolve_window(config, recordings, rate_hz)
    if config.uses_speed:
        check_revolution(recordings, window, rate_hz)
    if not keeps_recordings:
        notes.append(f"window: {window_reason}")
    if band_hz is not None:
        notes.append(
            f"band: all recordings are low-passed at {band_hz:.0f} Hz, so that sampling rates do not reveal labels"
        )
    common_rate_hz = None if keeps_recordings else rate_hz
    return CommonForm(common_rate_hz, band_hz, window, window / rate_hz, window_reason, notes)


def harmonize(recordings: Sequence[Recording], common: CommonForm, config: Config) -> list[Recording]:
    """Bring recordings to the common sampling rate and band; those that have it already stay as they are."""
    rate_hz, band_hz = common.rate_hz, common.band_hz
    if rate_hz is None or (band_hz is None and all(r.sampling_rate_hz == rate_hz for r in recordings)):
        return list(recordings)
    return stored((to_common_rate([recording], rate_hz, band_hz)[0] for recording in recordings), config)


def check_convertible(recording: Recording, config: Config) -> None:
    """Validate that a recording can be converted to the sampling rate and the windows that a run was trained with.

    Args:
        recording: the recording.
        config: settings of the run, with every choice made.

    Raises:
        ValueError: its sampling rate is lower, or it is shorter than a window.
    """
    own_hz, window = recording.sampling_rate_hz, config.input.window
    rate_hz = config.data.sampling_rate_hz or own_hz
    if rate_hz > own_hz * (1 + RATE_TOLERANCE):
        raise ValueError(
            f"{recording.name}: sampled at {own_hz:g} Hz, but the run was trained at {rate_hz:g} Hz; record at this "
            f"rate or a higher one, or train another run at {own_hz:g} Hz"
        )
    if window and math.ceil(recording.n_samples * rate_hz / own_hz) < window:
        raise ValueError(
            f"{recording.name}: lasts {recording.duration_s:.3g} s, but the windows of the run last "
            f"{window / rate_hz:.3g} s; record at least as long, or train another run with a shorter window"
        )


def _band_of(config: Config, recordings: Sequence[Recording]) -> float | None:
    stated = config.data.band_limit_hz
    if stated == OFF:
        return None
    return common_band_hz(recordings) if stated is None else float(stated)


def with_speeds(recordings: Sequence[Recording], config: Config) -> list[Recording]:
    """Estimate the speed of recordings that do not state it, if so configured.

    An estimate whose confidence is below `MIN_SPEED_CONFIDENCE` is not used; the confidence is in the metadata as
    `"rpm_confidence"`.

    Raises:
        ValueError: the range of speeds is empty, or too high for the sampling rate.
    """
    speeds = config.physics.rpm_range
    if config.physics.rpm_from == "manifest" or not isinstance(speeds, tuple):
        return list(recordings)
    return [recording if recording.rpm else _with_estimated_rpm(recording, speeds) for recording in recordings]


def _with_estimated_rpm(recording: Recording, rpm_range: tuple[float, float]) -> Recording:
    signal = torch.from_numpy(recording.signal)[None]
    rpm, confidence = (each.item() for each in estimate_speed(signal, recording.sampling_rate_hz, rpm_range))
    metadata = {**recording.metadata, RPM_CONFIDENCE: round(confidence, 3)}
    return replace(recording, rpm=rpm if confidence >= MIN_SPEED_CONFIDENCE else None, metadata=metadata)


def notes_on_speed(config: Config, recordings: Sequence[Recording], completed: Sequence[Recording]) -> list[str]:
    """Return notes on recordings whose speed is unknown or estimated; none if all speeds are known.

    Args:
        config: the settings.
        recordings: the recordings as read.
        completed: the same recordings with estimated speeds, see `complete`.
    """
    speeds, n = config.physics.rpm_range, len(recordings)
    n_unknown = sum(recording.rpm is None for recording in recordings)
    unknown = "unknown, so physics is not applied to them"
    if n_unknown and config.physics.rpm_from == "signal" and isinstance(speeds, tuple):
        found = [r.metadata[RPM_CONFIDENCE] for r in completed if RPM_CONFIDENCE in r.metadata and r.rpm is not None]
        source = f"estimated from the signal, between {speeds[0]:g} and {speeds[1]:g} rpm"
        stated = f", with a confidence of {min(found):.2f} to {max(found):.2f}" if found else ""
        notes = [f"speed: that of {len(found)} of {n} recordings is {source}{stated}"]
        n_unclear = n_unknown - len(found)
        unclear = f"speed: that of {n_unclear} of {n} recordings is not clear from the signal (confidence below "
        return notes + ([f"{unclear}{MIN_SPEED_CONFIDENCE:g}) and stays {unknown}"] if n_unclear else [])
    if n_unknown and config.uses_speed:
        return [f"speed: that of {n_unknown} of {n} recordings is {unknown}"]
    return []
