"""Tracking of a varying shaft speed in vibration, for recordings without a tachometer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.dsp.shaft_angle import at_constant_speed, turns_from_speed
from whirl.physics.shaft_speed import estimate_speed, harmonic_levels
from whirl.validation import check_number

SEGMENT_TURNS = 24
"""Turns of the shaft in a segment that has one speed; segments overlap by half."""

MIN_SEGMENTS = 5

_RANGE = 0.15  # relative, around the given speed
_STEP = 0.001  # relative, between speeds that are compared
_MAX_CHANGE = 0.02  # relative, from one segment to the next
_SMOOTHED = 5  # segments to which a straight line is fitted
_N_HARMONICS = 5
_RATE_FACTOR = 8  # sampling rate over the highest harmonic, after averaging: what folds there is 17 dB down
_NEAR = 0.045  # relative; other speeds are compared with the mean one within this range
_SAME_SPEED = 0.003  # relative


@dataclass(frozen=True, eq=False)
class SpeedTrack:
    """Speed of a shaft over time.

    Attributes:
        time_s: centers of segments in seconds from the first sample, `[K]`.
        rpm: speed in rev/min, `[K]`.
        confidence: as that of `estimate_speed`, for the mean speed in the signal resampled to a constant speed; 0 if
            another speed fits better.
    """

    time_s: np.ndarray
    rpm: np.ndarray
    confidence: float

    @property
    def variation(self) -> float:
        """Highest minus lowest speed, relative to the mean."""
        return float(np.ptp(self.rpm) / self.rpm.mean())

    def turns(self, n_samples: int, sampling_rate_hz: float, start_s: float = 0.0) -> Tensor:
        """Return the shaft angle in revolutions at every sample, float64 `[1, N]`.

        The speed is linear between the centers of segments and beyond the outer ones.

        Args:
            n_samples: N.
            sampling_rate_hz: sampling rate in Hz.
            start_s: time of the first sample.

        Example:
            >>> track = SpeedTrack(np.array([1.0, 3.0]), np.array([90.0, 150.0]), confidence=1.0)
            >>> track.turns(5, 1.0)  # from 60 to 180 rev/min in 4 s
            tensor([[0.0000, 1.2500, 3.0000, 5.2500, 8.0000]], dtype=torch.float64)
        """
        from scipy.interpolate import make_interp_spline

        time_s = start_s + np.arange(n_samples) / sampling_rate_hz
        speed = make_interp_spline(self.time_s, self.rpm, k=1)(time_s)
        return turns_from_speed(torch.from_numpy(speed)[None], sampling_rate_hz)


def track_speed(signals: Tensor, sampling_rate_hz: float, rpm: float) -> SpeedTrack | None:
    """Estimate the speed of a shaft over time from its harmonics.

    The harmonic product spectra of half-overlapping segments of 24 turns are summed along the path of speeds on which
    the sum is largest, with changes of at most 2 % from one segment to the next (dynamic programming; Viterbi 1967),
    and the path is smoothed by straight lines over five segments.

    Args:
        signals: `[C, N]`; channels are evaluated jointly.
        sampling_rate_hz: sampling rate in Hz, > 0.
        rpm: about the mean speed in rev/min, > 0; speeds within 15 % of it are compared.

    Returns:
        None if there are fewer than five segments, or if five harmonics do not lie below half the sampling rate.

    Example:
        >>> time_s = np.arange(60_000) / 6000
        >>> turns = 30 * time_s + 0.15 * time_s**2  # 1800 to 1980 rpm in 10 s
        >>> signal = sum(np.sin(2 * np.pi * h * turns) for h in range(1, 6))
        >>> signal += np.random.default_rng(0).normal(size=60_000)
        >>> track = track_speed(torch.from_numpy(signal)[None], 6000, rpm=1900)
        >>> bool((abs(track.rpm - (1800 + 18 * track.time_s)) < 9).all()), track.confidence > 0.9
        (True, True)
    """
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    top_hz = _N_HARMONICS * (1 + _RANGE) * check_number("rpm", rpm, 0, open_ends=True) / 60
    averaged = max(1, int(sampling_rate_hz / (_RATE_FACTOR * top_hz)))
    rate_hz = sampling_rate_hz / averaged
    low_rate = signals[:, : signals.shape[1] // averaged * averaged].unflatten(1, (-1, averaged)).mean(-1)
    length = round(SEGMENT_TURNS * 60 / rpm * rate_hz)
    hop = length // 2
    if rate_hz < 2 * top_hz or low_rate.shape[1] < length + (MIN_SEGMENTS - 1) * hop:
        return None
    steps = torch.arange(math.log(1 - _RANGE), math.log(1 + _RANGE), _STEP, device=signals.device)
    speeds = rpm * steps.exp()
    levels = harmonic_levels(low_rate.unfold(1, length, hop), rate_hz, speeds / 60, _N_HARMONICS).sum(0)
    path = speeds[_best_path(levels, round(_MAX_CHANGE / _STEP))].double().cpu().numpy()
    start_s = (averaged - 1) / 2 / sampling_rate_hz
    centers_s = start_s + (hop * np.arange(len(path)) + (length - 1) / 2) / rate_hz
    track = SpeedTrack(centers_s, _smoothed(path), 0.0)
    steady, mean_rpm = at_constant_speed(low_rate, track.turns(low_rate.shape[1], rate_hz, start_s), rate_hz)
    near = (mean_rpm * (1 - _NEAR), mean_rpm * (1 + _NEAR))
    found = estimate_speed(steady[None], rate_hz, near, _N_HARMONICS)
    is_same = abs(found.rpm.item() / mean_rpm - 1) < _SAME_SPEED
    return SpeedTrack(track.time_s, track.rpm, found.confidence.item() if is_same else 0.0)


def _best_path(levels: Tensor, max_change: int) -> Tensor:
    """Return the index in each row of levels `[K, S]` on the path with the largest sum."""
    total, origins = levels[0], []
    for row in levels[1:]:
        best, origin = F.max_pool1d(total[None], 2 * max_change + 1, 1, max_change, return_indices=True)
        origins.append(origin[0])
        total = row + best[0]
    path = [total.argmax()]
    for origin in reversed(origins):
        path.append(origin[path[-1]])
    return torch.stack(path[::-1])


def _smoothed(path: np.ndarray) -> np.ndarray:
    from scipy.signal import savgol_filter

    return np.asarray(savgol_filter(path, _SMOOTHED, polyorder=1))
