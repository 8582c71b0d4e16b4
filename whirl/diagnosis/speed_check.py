"""Comparison of a given shaft speed with the lines of the shaft in the signal."""

from __future__ import annotations

import numpy as np
import torch

from whirl.data.recording import Recording
from whirl.diagnosis.signal_quality import why_unusable
from whirl.physics.shaft_speed import estimate_speed

_RANGE = 0.045  # relative, around the given speed: the slip of loaded motors, and rounded speeds
_NOTABLE = 0.01  # relative: fault lines further off leave the range in which they are searched for
_CLEAR = 0.8  # confidence, see `estimate_speed`
_N_HARMONICS = 5
_MAX_SAMPLES = 2**19


def other_speed(recording: Recording) -> str | None:
    """Return a remark where the lines of the shaft clearly lie at another speed than the given one, else None.

    Speeds of name plates and test plans differ from the real ones by up to a few percent, as far as a fault's lines
    are from each other. The signal is compared with speeds within 4.5 % of the given one; a deviation above 1 % counts,
    if the confidence is above 0.8. Lines of the mains or of gears near a harmonic may mislead, so that the remark is a
    question to the user, and no speed is replaced.

    Args:
        recording: a recording with a speed.

    Example:
        >>> time_s = np.arange(100_000) / 10_000
        >>> signal = sum(np.sin(2 * np.pi * 29.2 * h * time_s) for h in range(1, 6))
        >>> signal += np.random.default_rng(0).normal(size=100_000)
        >>> other_speed(Recording(signal, 10_000, rpm=1800))
        'the lines of the shaft lie at 1752 rpm, 2.7 % below the given 1800; if that is nominal, give the real speed'
        >>> other_speed(Recording(signal, 10_000, rpm=1750))
    """
    given = recording.rpm or 0.0
    speeds = (given * (1 - _RANGE), given * (1 + _RANGE))
    usable = [signal[:_MAX_SAMPLES] for signal in recording.signal if not why_unusable(signal)]
    if not usable or not 0 < speeds[1] < 60 * recording.sampling_rate_hz / 2 / _N_HARMONICS:
        return None
    signals = torch.from_numpy(np.stack(usable))[None]
    found, confidence = (each.item() for each in estimate_speed(signals, recording.sampling_rate_hz, speeds))
    deviation = found / given - 1
    if confidence < _CLEAR or abs(deviation) < _NOTABLE:
        return None
    side = "above" if deviation > 0 else "below"
    return (
        f"the lines of the shaft lie at {found:.0f} rpm, {100 * abs(deviation):.1f} % {side} the given {given:g}; "
        "if that is nominal, give the real speed"
    )
