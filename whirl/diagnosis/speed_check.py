"""Comparison of a given shaft speed with the lines of the shaft in the signal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whirl.data.recording import Recording
from whirl.diagnosis.signal_quality import why_unusable
from whirl.physics.shaft_speed import estimate_speed

_RANGE = 0.045  # relative, around the given speed: the slip of loaded motors, and rounded speeds
_WIDER_RANGE = 0.06  # for the speed of a part of the recording
_NOTABLE = 0.01  # relative: fault lines further off leave the range in which they are searched for
_UNSTEADY = 0.02  # relative: from here on lines smear, see docs/results/unseen_bearings.md
_CLEAR = 0.8  # confidence, see `estimate_speed`
_SAME_SPEED = 0.003  # relative
_MAX_POLE_PAIRS = 6
_N_HARMONICS = 5
_MAX_SAMPLES = 2**19


class SpeedCheck(NamedTuple):
    """Comparison of a given speed with the lines of the shaft.

    Attributes:
        rpm: speed to use in rev/min: the given one, unless the lines clearly lie elsewhere; None if none was given.
        remark: what was seen, if that is another speed than the given one.
    """

    rpm: float | None
    remark: str | None = None


def check_speed(recording: Recording) -> SpeedCheck:
    """Compare the given speed of a recording with the lines of the shaft in it.

    Speeds of name plates and test plans differ from the real ones by up to a few percent, as far as a fault's lines
    are from each other. The signal is compared with speeds within 4.5 % of the given one; a deviation above 1 % counts
    if the confidence is above 0.8. Near a synchronous speed (50 or 60 Hz by 1 to 6 pairs of poles) the lines may be
    those of the mains, so that the given speed is kept.

    Args:
        recording: a recording; its first 524,288 samples are used.

    Example:
        >>> time_s = np.arange(100_000) / 10_000
        >>> signal = sum(np.sin(2 * np.pi * 29.2 * h * time_s) for h in range(1, 6))
        >>> signal += np.random.default_rng(0).normal(size=100_000)
        >>> check = check_speed(Recording(signal, 10_000, rpm=1800))
        >>> check.rpm, check.remark
        (1752.0, 'evaluated at 1752 rpm, where the lines of the shaft lie, 2.7 % below the given 1800')
        >>> check_speed(Recording(signal, 10_000, rpm=1750))
        SpeedCheck(rpm=1750, remark=None)
    """
    signals = _usable_signals(recording)
    given = recording.rpm
    if signals is None or given is None:
        return SpeedCheck(given)
    speeds = (given * (1 - _RANGE), given * (1 + _RANGE))
    found, confidence = (each.item() for each in estimate_speed(signals[None], recording.sampling_rate_hz, speeds))
    deviation = found / given - 1
    if confidence < _CLEAR or abs(deviation) < _NOTABLE:
        return SpeedCheck(given)
    where = f"{100 * abs(deviation):.1f} % {'above' if deviation > 0 else 'below'} the given {given:g}"
    if _is_synchronous(found):
        return SpeedCheck(
            given, f"lines of the shaft or of the mains fit {found:.0f} rpm, {where}; give the real speed"
        )
    return SpeedCheck(round(found, 1), f"evaluated at {found:.0f} rpm, where the lines of the shaft lie, {where}")


def varying_speed_remark(recording: Recording) -> str | None:
    """Return a remark where the speeds of thirds of a recording clearly differ by more than 2 %, else None.

    Args:
        recording: a recording with a speed; its first 524,288 samples are used.
    """
    signals = _usable_signals(recording)
    if signals is None:
        return None
    given = recording.rpm or 0.0
    thirds = signals.unfold(-1, signals.shape[-1] // 3, signals.shape[-1] // 3)[:, :3].transpose(0, 1)
    speeds = (given * (1 - _WIDER_RANGE), given * (1 + _WIDER_RANGE))
    rpm, confidence = (each.tolist() for each in estimate_speed(thirds, recording.sampling_rate_hz, speeds))
    slowest, fastest = min(rpm), max(rpm)
    if min(confidence) < _CLEAR or fastest / slowest < 1 + _UNSTEADY:
        return None
    return (
        f"the speed of the shaft varies between {slowest:.0f} and {fastest:.0f} rpm, so that fault lines smear; "
        "choose a steadier part of the recording"
    )


def _is_synchronous(rpm: float) -> bool:
    """Return whether harmonics of the mains fit a speed as well as those of a shaft."""
    return any(
        abs(rpm * pole_pairs / (60 * mains_hz) - 1) < _SAME_SPEED
        for mains_hz in (50, 60)
        for pole_pairs in range(1, _MAX_POLE_PAIRS + 1)
    )


def _usable_signals(recording: Recording) -> Tensor | None:
    """Return the usable channels `[C, N]`; None if there are none, or if the harmonics lie outside the band."""
    given, rate_hz = recording.rpm or 0.0, recording.sampling_rate_hz
    usable = [signal[:_MAX_SAMPLES] for signal in recording.signal if not why_unusable(signal)]
    if not usable or not 0 < given * (1 + _WIDER_RANGE) < 60 * rate_hz / 2 / _N_HARMONICS:
        return None
    return torch.from_numpy(np.stack(usable))
