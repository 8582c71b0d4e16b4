"""Comparison of a given shaft speed with the lines of the shaft in the signal."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from whirl.data.recording import Recording
from whirl.diagnosis.signal_quality import why_unusable
from whirl.dsp.shaft_angle import at_constant_speed
from whirl.dsp.speed_track import track_speed
from whirl.physics.shaft_speed import estimate_speed

_RANGE = 0.045  # relative, around the given speed: the slip of loaded motors, and rounded speeds
_NOTABLE = 0.01  # relative: fault lines further off leave the range in which they are searched for
_UNSTEADY = 0.015  # relative: lines of a speed that varies less stay sharp enough, see docs/results/unseen_bearings.md
_CLEAR = 0.8  # confidence, see `estimate_speed`
_SAME_SPEED = 0.003  # relative
_MAX_POLE_PAIRS = 6
_N_HARMONICS = 5
_MAX_SAMPLES = 2**19  # in which a constant speed is searched for
_MAX_FOLLOWED = 2**24

MAX_SPEED_HZ = 200.0
"""Given speeds up to this may be in Hz instead of rpm."""


class SpeedCheck(NamedTuple):
    """Comparison of a given speed with the lines of the shaft.

    Attributes:
        recording: the recording to evaluate: the given one, unless the lines clearly show another speed; then it has
            that speed or, if the speed varies, is resampled to its mean.
        remark: what was seen, if that is not the given speed.
    """

    recording: Recording
    remark: str | None = None


def check_speed(recording: Recording) -> SpeedCheck:
    """Compare the given speed of a recording with the lines of the shaft in it.

    Speeds of name plates and test plans differ from the real ones by up to a few percent, as far as a fault's lines
    are from each other. The signal is compared with speeds within 4.5 % of the given one; a deviation above 1 % counts
    if the confidence is above 0.8. Near a synchronous speed (50 or 60 Hz by 1 to 6 pairs of poles) the lines may be
    those of the mains, so that the given speed is kept. A speed that varies by 1.5 to 30 % within the recording is
    followed if the given one is among them and the confidence is above 0.8, see `track_speed`.

    Args:
        recording: a recording. Speeds of those with more than 16,777,216 samples are not followed.

    Example:
        >>> import numpy as np
        >>> time_s = np.arange(100_000) / 10_000
        >>> signal = sum(np.sin(2 * np.pi * 29.2 * h * time_s) for h in range(1, 6))
        >>> signal += np.random.default_rng(0).normal(size=100_000)
        >>> check = check_speed(Recording(signal, 10_000, rpm=1800))
        >>> check.recording.rpm, check.remark
        (1752.0, 'evaluated at 1752 rpm, where the lines of the shaft lie, 2.7 % below the given 1800')
        >>> check_speed(Recording(signal, 10_000, rpm=1750)).remark
    """
    given, rate_hz = recording.rpm or 0.0, recording.sampling_rate_hz
    usable = [not why_unusable(signal[:_MAX_SAMPLES]) for signal in recording.signal]
    if not any(usable) or not _is_in_band(given, rate_hz):
        return SpeedCheck(recording)
    signals = torch.from_numpy(recording.signal[usable])  # a copy, also of arrays that are read-only
    check = _other_speed(recording, signals[:, :_MAX_SAMPLES])
    return _followed(check.recording, signals) or (check if check.remark else _in_hz(recording, signals))


def _other_speed(recording: Recording, signals: Tensor) -> SpeedCheck:
    """Return the recording with the speed of the shaft's lines in signals `[C, N]`, if that clearly is another one."""
    given = recording.rpm or 0.0
    found, confidence = _speed_near(given, signals, recording.sampling_rate_hz)
    deviation = found / given - 1
    if confidence < _CLEAR or abs(deviation) < _NOTABLE:
        return SpeedCheck(recording)
    where = f"{100 * abs(deviation):.1f} % {'above' if deviation > 0 else 'below'} the given {given:g}"
    if _is_synchronous(found):
        remark = f"lines of the shaft or of the mains fit {found:.0f} rpm, {where}; give the real speed"
        return SpeedCheck(recording, remark)
    remark = f"evaluated at {found:.0f} rpm, where the lines of the shaft lie, {where}"
    return SpeedCheck(replace(recording, rpm=round(found, 1)), remark)


def _followed(recording: Recording, signals: Tensor) -> SpeedCheck | None:
    """Return the recording resampled to a constant speed, if its speed clearly varies in signals `[C, N]`."""
    if signals.shape[1] > _MAX_FOLLOWED:
        return None
    track = track_speed(signals, recording.sampling_rate_hz, recording.rpm or 0.0)
    if track is None or track.confidence < _CLEAR or track.variation < _UNSTEADY:
        return None
    slowest, fastest = track.rpm.min(), track.rpm.max()
    if not slowest * (1 - _NOTABLE) < (recording.rpm or 0.0) < fastest * (1 + _NOTABLE):
        return None  # lines of another shaft or of the mains
    turns = track.turns(recording.signal.shape[1], recording.sampling_rate_hz)
    steady, rpm = at_constant_speed(torch.tensor(recording.signal), turns, recording.sampling_rate_hz)
    for channel, signal in zip(steady.numpy(), recording.signal, strict=True):
        if why_unusable(signal):
            channel[:] = signal  # resampled, it might not show anymore that it is clipped
    remark = f"the speed varies between {slowest:.0f} and {fastest:.0f} rpm; evaluated over the angle of the shaft"
    return SpeedCheck(replace(recording, signal=steady.numpy(), rpm=round(rpm, 1)), remark)


def _in_hz(recording: Recording, signals: Tensor) -> SpeedCheck:
    """Return the recording with a remark, if the lines of the shaft clearly lie at 60 times its low speed."""
    given, rate_hz = recording.rpm or 0.0, recording.sampling_rate_hz
    if given > MAX_SPEED_HZ or not _is_in_band(60 * given, rate_hz):
        return SpeedCheck(recording)
    found, confidence = _speed_near(60 * given, signals[:, :_MAX_SAMPLES], rate_hz)
    if confidence < _CLEAR:
        return SpeedCheck(recording)
    return SpeedCheck(
        recording, f"the lines of the shaft fit {found:.0f} rpm; if the given {given:g} is in Hz, give that"
    )


def _is_in_band(rpm: float, rate_hz: float) -> bool:
    """Return whether the harmonics of speeds near one lie below half the sampling rate."""
    return 0 < rpm * (1 + _RANGE) < 60 * rate_hz / 2 / _N_HARMONICS


def _speed_near(rpm: float, signals: Tensor, rate_hz: float) -> tuple[float, float]:
    """Return the speed of signals `[C, N]` near a given one, and its confidence."""
    estimate = estimate_speed(signals[None], rate_hz, (rpm * (1 - _RANGE), rpm * (1 + _RANGE)), _N_HARMONICS)
    return estimate.rpm.item(), estimate.confidence.item()


def _is_synchronous(rpm: float) -> bool:
    """Return whether harmonics of the mains fit a speed as well as those of a shaft."""
    return any(
        abs(rpm * pole_pairs / (60 * mains_hz) - 1) < _SAME_SPEED
        for mains_hz in (50, 60)
        for pole_pairs in range(1, _MAX_POLE_PAIRS + 1)
    )
