"""Levels at orders of the shaft and in bands, relative to the signal: features of rotors and journal bearings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.physics.evidence import OrderEvidence
from whirl.physics.features import ABSENT_DB
from whirl.physics.order_levels import level_names as level_names
from whirl.physics.order_levels import relative_order_levels
from whirl.validation import check_number

LEVEL_REVOLUTIONS = 16.0
"""Shaft revolutions in a window of `order_levels`."""

EVIDENCE_REVOLUTIONS = 128.0
"""Shaft revolutions in a window of `order_evidence`: whirl at 0.48X and looseness at 1/2X are 2.6 bins apart there."""

MIN_REVOLUTIONS = 4.0
"""Recordings with fewer shaft revolutions have no features."""

_MAX_WINDOWS = 8  # of a recording, evenly spread over it


def order_levels(recording: Recording) -> NDArray[np.float32]:
    """Compute the levels of shaft lines and octave bands in windows of 16 revolutions.

    Levels are relative to the power of the channel, so they do not depend on the gain, and lines follow the speed. The
    share of each channel in the total power is added if there are several.

    Args:
        recording: a recording of known speed, with at least `MIN_REVOLUTIONS` revolutions of the shaft.

    Returns:
        `[W, F]` in dB, for at most 8 windows that overlap by half or less; F is 20 for each channel, and one more if
        there are several.

    Raises:
        ValueError: the speed is unknown, or the recording is too short.

    Example:
        >>> time_s = np.arange(20_000) / 10_000
        >>> levels = order_levels(Recording(np.sin(2 * np.pi * 25 * time_s), 10_000, rpm=1500))
        >>> levels.shape, level_names(1)[2], abs(levels[0, 2]) < 0.5
        ((5, 20), '1X', np.True_)
    """
    import torch

    windows = torch.from_numpy(_windows(recording, LEVEL_REVOLUTIONS)).double()
    rpm = _rpm(recording)
    speeds = torch.full((len(windows),), rpm, dtype=torch.float64)
    levels = relative_order_levels(windows, speeds, recording.sampling_rate_hz, max_rpm=rpm)
    return levels.numpy().astype(np.float32)


def order_evidence(recording: Recording) -> NDArray[np.float32]:
    """Compute the evidence of rotor and journal-bearing faults in windows of 128 revolutions.

    Args:
        recording: as for `order_levels`.

    Returns:
        `[W, 11]` in dB for at most 8 windows that overlap by half or less, see `whirl.physics.journal_features`;
        evidence that cannot be measured is `ABSENT_DB`.

    Raises:
        ValueError: the speed is unknown, or the recording is too short.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=80_000)
        >>> order_evidence(Recording(noise, 10_000, rpm=1500)).shape
        (2, 11)
    """
    with ignore_unresolved_lines():
        return order_evidence_with_warnings(recording)


def order_evidence_with_warnings(recording: Recording) -> NDArray[np.float32]:
    """Compute the evidence as `order_evidence` does, and warn of lines that a short window cannot resolve."""
    import torch

    windows = torch.from_numpy(_windows(recording, EVIDENCE_REVOLUTIONS))
    evidence = OrderEvidence.journal(recording.sampling_rate_hz, max_rpm=max(6000.0, _rpm(recording)))
    return torch.nan_to_num(evidence(windows, rpm=_rpm(recording)), nan=ABSENT_DB).numpy()


@contextmanager
def ignore_unresolved_lines() -> Iterator[None]:
    """Ignore warnings of lines that a short window cannot resolve; not to be entered in several threads at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _windows(recording: Recording, revolutions: float) -> NDArray[np.float32]:
    """Cut at most 8 windows `[W, C, N]` that overlap by half or less; a shorter recording is one window."""
    available = recording.n_revolutions or 0.0
    if available < MIN_REVOLUTIONS:
        raise ValueError(
            f"{recording.name}: {'the speed is unknown' if recording.rpm is None else f'{available:.1f} revolutions'}, "
            f"expected a speed and at least {MIN_REVOLUTIONS:g} revolutions"
        )
    length = min(math.ceil(revolutions * 60 / _rpm(recording) * recording.sampling_rate_hz), recording.n_samples)
    starts = np.arange(0, recording.n_samples - length + 1, max(1, length // 2))
    if len(starts) > _MAX_WINDOWS:
        starts = starts[np.linspace(0, len(starts) - 1, _MAX_WINDOWS).astype(int)]
    return np.stack([recording.signal[:, start : start + length] for start in starts])


def _rpm(recording: Recording) -> float:
    return check_number("rpm", recording.rpm or 0.0, 0, open_ends=True)
