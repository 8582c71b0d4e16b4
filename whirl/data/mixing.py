"""Recordings of one data set made comparable: one unit in each channel, and similar lengths."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from whirl.data.recording import Recording
from whirl.data.units import conversion_factor, dimension

logger = logging.getLogger(__name__)

_VERY_SHORT = 0.1  # of the median duration
_MAX_SHORT = 8192  # samples: a longer recording is never left out


def one_unit_per_channel(recordings: Iterable[Recording]) -> Iterator[Recording]:
    """Convert the channels of all recordings to the units of the first recording that states one for them.

    Units of one dimension are converted (g is 9.80665 m/s^2). Channels of unknown unit are kept, with a warning if
    other recordings state one.

    Args:
        recordings: recordings; a generator is consumed one recording at a time.

    Raises:
        ValueError: a channel has different quantities in two recordings, such as acceleration and velocity.

    Example:
        >>> first, second = (Recording(np.ones((1, 4)), 12_000, unit=unit) for unit in ("m/s^2", "g"))
        >>> second = list(one_unit_per_channel([first, second]))[1]
        >>> second.unit, second.signal[0, 0]
        ('m/s^2', np.float32(9.80665))
    """
    targets: dict[str, tuple[str, str]] = {}
    unknown = ""
    for recording in recordings:
        units = dict(zip(recording.channels, recording.units, strict=True))
        for channel, unit in units.items():
            if unit:
                targets.setdefault(channel, (unit, recording.name))
        unknown = unknown or (recording.name if "" in units.values() else "")
        yield _converted(recording, targets)
    if unknown and targets:
        logger.warning("%s states no unit, other recordings do: %s", unknown, next(iter(targets.values()))[0])


def _converted(recording: Recording, targets: dict[str, tuple[str, str]]) -> Recording:
    wanted = [
        targets[channel][0] if unit else "" for channel, unit in zip(recording.channels, recording.units, strict=True)
    ]
    if tuple(wanted) == recording.units:
        return recording
    factors = [_factor(recording, index, targets) for index in range(recording.n_channels)]
    signal = recording.signal * np.asarray(factors, dtype=np.float32)[:, None]
    return replace(recording, signal=signal, channel_units=tuple(wanted))


def _factor(recording: Recording, index: int, targets: dict[str, tuple[str, str]]) -> float:
    channel, unit = recording.channels[index], recording.units[index]
    if not unit:
        return 1.0
    target, first = targets[channel]
    try:
        return conversion_factor(unit, target)
    except ValueError:
        kinds = [f"{each!r} ({dimension(each) or 'unknown quantity'})" for each in (unit, target)]
        raise ValueError(
            f"{recording.name}: channel {channel!r} is in {kinds[0]}, but in {kinds[1]} in {first}; select the "
            "files of one quantity in manifest.csv, or state the true unit in its unit column"
        ) from None


def without_very_short(recordings: Sequence[Recording]) -> list[Recording]:
    """Return the recordings without those that are much shorter than the others, which are named in a warning.

    A window must fit into every recording, so a single fragment would shorten the windows of all. A recording is left
    out if it is shorter than a tenth of the median, in seconds and in samples, and than 8192 samples, unless its class
    has no other recordings.

    Example:
        >>> lengths = (100_000, 100_000, 100_000, 500)
        >>> recordings = [Recording(np.zeros(n), 12_000, label="wear", source=f"{n}.csv") for n in lengths]
        >>> [recording.n_samples for recording in without_very_short(recordings)]
        [100000, 100000, 100000]
    """
    if not recordings:
        return []
    limit_s, limit = (_VERY_SHORT * median(values) for values in zip(*map(_lengths, recordings), strict=True))
    short = [each for each in recordings if each.duration_s < limit_s and each.n_samples < min(limit, _MAX_SHORT)]
    kept = [each for each in recordings if each not in short]
    left_out = [each for each in short if any(other.label == each.label for other in kept)]
    if left_out:
        names = ", ".join(f"{each.name} ({each.n_samples} samples)" for each in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        logger.warning("left out because they are much shorter than the other recordings: %s%s", names, more)
    return [each for each in recordings if each not in left_out]


def _lengths(recording: Recording) -> tuple[float, int]:
    return recording.duration_s, recording.n_samples
