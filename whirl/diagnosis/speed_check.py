"""Comparison of a given shaft speed with the lines of the shaft in the signal."""

from __future__ import annotations

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
_N_HARMONICS = 5
_MAX_SAMPLES = 2**19


def speed_remark(recording: Recording) -> str | None:
    """Return a remark where the lines of the shaft show another speed than the given one, or a varying one, else None.

    Speeds of name plates and test plans differ from the real ones by up to a few percent, as far as a fault's lines
    are from each other. The signal is compared with speeds within 4.5 % of the given one; a deviation above 1 % counts,
    and so does a difference above 2 % between thirds of the recording, if the confidence is above 0.8. Lines of the
    mains or of gears near a harmonic may mislead, so that the remark is for the user to judge, and no speed is
    replaced.

    Args:
        recording: a recording with a speed; its first 524,288 samples are used.

    Example:
        >>> time_s = np.arange(100_000) / 10_000
        >>> signal = sum(np.sin(2 * np.pi * 29.2 * h * time_s) for h in range(1, 6))
        >>> signal += np.random.default_rng(0).normal(size=100_000)
        >>> speed_remark(Recording(signal, 10_000, rpm=1800))
        'the lines of the shaft lie at 1752 rpm, 2.7 % below the given 1800; if that is nominal, give the real speed'
        >>> speed_remark(Recording(signal, 10_000, rpm=1750))
    """
    given, rate_hz = recording.rpm or 0.0, recording.sampling_rate_hz
    usable = [signal[:_MAX_SAMPLES] for signal in recording.signal if not why_unusable(signal)]
    if not usable or not 0 < given * (1 + _WIDER_RANGE) < 60 * rate_hz / 2 / _N_HARMONICS:
        return None
    signals = torch.from_numpy(np.stack(usable))
    return _varying(signals, rate_hz, given) or _elsewhere(signals, rate_hz, given)


def _varying(signals: Tensor, rate_hz: float, given: float) -> str | None:
    """Return a remark where the thirds of signals `[C, N]` have clearly different speeds."""
    thirds = signals.unfold(-1, signals.shape[-1] // 3, signals.shape[-1] // 3)[:, :3].transpose(0, 1)
    speeds = (given * (1 - _WIDER_RANGE), given * (1 + _WIDER_RANGE))
    rpm, confidence = (each.tolist() for each in estimate_speed(thirds, rate_hz, speeds))
    slowest, fastest = min(rpm), max(rpm)
    if min(confidence) < _CLEAR or fastest / slowest < 1 + _UNSTEADY:
        return None
    return (
        f"the speed of the shaft varies between {slowest:.0f} and {fastest:.0f} rpm, so that fault lines smear; "
        "choose a steadier part of the recording"
    )


def _elsewhere(signals: Tensor, rate_hz: float, given: float) -> str | None:
    """Return a remark where the speed of signals `[C, N]` is clearly not the given one."""
    speeds = (given * (1 - _RANGE), given * (1 + _RANGE))
    found, confidence = (each.item() for each in estimate_speed(signals[None], rate_hz, speeds))
    deviation = found / given - 1
    if confidence < _CLEAR or abs(deviation) < _NOTABLE:
        return None
    side = "above" if deviation > 0 else "below"
    return (
        f"the lines of the shaft lie at {found:.0f} rpm, {100 * abs(deviation):.1f} % {side} the given {given:g}; "
        "if that is nominal, give the real speed"
    )
