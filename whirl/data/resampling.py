"""Recordings of different sampling rates, brought to a common one without telling them apart by it.

A change of rate is a low-pass and a choice of samples. The low-pass here is a linear-phase Kaiser-window FIR filter
(Oppenheim & Schafer, *Discrete-Time Signal Processing*, 3rd ed., section 7.5.3), run as a polyphase filter, so events
stay where they are in time and nothing above the new Nyquist frequency folds back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from whirl.data.recording import Recording

STOPBAND_DB = 80.0
"""Attenuation of everything that could fold back, in dB (pass-band ripple: 0.001 dB)."""

PASSBAND = 0.9
"""Share of the new Nyquist frequency that `resample` keeps unchanged."""

ANALYSER_RATIO = 2.56
"""Sampling rate over highest valid frequency in vibration analysers; above lies the anti-alias filter's roll-off."""

RATE_TOLERANCE = 0.01
"""Relative difference of two sampling rates up to which the lower one may be brought to the higher."""

CLOCK_TOLERANCE = 1e-4
"""Relative difference of two sampling rates below which they are one: 10 000 is the largest ratio term."""


def resample(recording: Recording, sampling_rate_hz: float) -> Recording:
    """The recording at another, lower sampling rate, band-limited.

    The band up to 0.9 of the new Nyquist frequency is kept to 0.01 dB; from the new Nyquist frequency on everything is
    80 dB down. Time zero and phase stay. `start_sample` is scaled to the new rate.

    Args:
        recording: a recording at `sampling_rate_hz` or above (1 % below is taken as clock tolerance).
        sampling_rate_hz: the new rate, > 0.

    Returns:
        A recording of `ceil(N * ratio)` samples, or the very same one where its rate is already right.

    Raises:
        ValueError: the rate is not positive, or above the recording's own. Upsampling would leave the new top band
            empty, and an empty band tells which recordings were upsampled.

    Example:
        >>> recording = Recording(np.ones((1, 48_000)), sampling_rate_hz=48_000, start_sample=96_000)
        >>> slower = resample(recording, 12_000)
        >>> slower.n_samples, slower.start_sample, slower.duration_s
        (12000, 24000, 1.0)
    """
    if not (math.isfinite(sampling_rate_hz) and sampling_rate_hz > 0):
        raise ValueError(f"sampling rate is {sampling_rate_hz} Hz, expected > 0")
    ratio = Fraction(sampling_rate_hz / recording.sampling_rate_hz).limit_denominator(round(1 / CLOCK_TOLERANCE))
    if ratio > 1 + RATE_TOLERANCE:
        raise ValueError(
            f"{recording.name}: sampled at {recording.sampling_rate_hz:g} Hz, cannot go up to {sampling_rate_hz:g} Hz "
            "(the new top band would be empty and give the recording away); choose a rate of at most "
            f"{recording.sampling_rate_hz:g} Hz"
        )
    if ratio == 1:
        return replace(recording, sampling_rate_hz=sampling_rate_hz)
    from scipy.signal import resample_poly

    up, down = ratio.numerator, ratio.denominator
    nyquist = 1 / max(up, down)  # the lower of both Nyquist frequencies on the filter's axis, where 1 is up * rate / 2
    taps = _low_pass_taps(PASSBAND * nyquist, nyquist)
    signal = resample_poly(recording.signal, up, down, axis=-1, window=taps, padtype="mean")
    return replace(
        recording,
        signal=signal,
        sampling_rate_hz=sampling_rate_hz,
        start_sample=round(recording.start_sample * ratio),
    )


def band_limit(recording: Recording, limit_hz: float) -> Recording:
    """The recording without what lies above `limit_hz`, at its own sampling rate.

    The band up to `limit_hz` and the mean are kept to 0.01 dB; from 1.1 times `limit_hz` on everything is 80 dB down.

    Args:
        recording: any recording.
        limit_hz: highest frequency kept, > 0. A limit without room for the roll-off below the Nyquist frequency
            changes nothing.

    Raises:
        ValueError: the limit is not positive.

    Example:
        >>> recording = Recording(np.random.default_rng(0).normal(size=(1, 4096)), sampling_rate_hz=12_000)
        >>> spectrum = np.abs(np.fft.rfft(band_limit(recording, 3000).signal[0] * np.hanning(4096)))
        >>> bool(spectrum[1200:].max() < 1e-3 * spectrum[:1000].max())  # bin 1200 is 3516 Hz
        True
    """
    if not limit_hz > 0:
        raise ValueError(f"frequency limit is {limit_hz} Hz, expected > 0")
    nyquist_hz = recording.sampling_rate_hz / 2
    if 1.1 * limit_hz > nyquist_hz:
        return recording
    from scipy.signal import oaconvolve

    taps = _low_pass_taps(limit_hz / nyquist_hz, 1.1 * limit_hz / nyquist_hz)[None]
    mean = recording.signal.mean(axis=-1, keepdims=True)
    delay = taps.shape[1] // 2
    filtered = oaconvolve(recording.signal - mean, taps, axes=-1)[:, delay : delay + recording.n_samples]
    return replace(recording, signal=filtered + mean)


def common_band_hz(recordings: Sequence[Recording]) -> float | None:
    """What the slowest recorder passes, where recorders of different rates must be made alike; else None.

    Example:
        >>> fast, slow = (Recording(np.zeros(8), rate) for rate in (48_000, 12_800))
        >>> common_band_hz([fast, slow]), common_band_hz([slow, slow])
        (5000.0, None)
    """
    rates_hz = [recording.sampling_rate_hz for recording in recordings]
    is_mixed = max(rates_hz) > min(rates_hz) * (1 + CLOCK_TOLERANCE)
    return min(rates_hz) / ANALYSER_RATIO if is_mixed else None


def to_common_rate(
    recordings: Sequence[Recording], sampling_rate_hz: float | None = None, band_hz: float | None = None
) -> list[Recording]:
    """All recordings at one sampling rate and, where their rates differed, with one common band.

    Where original rates differ, resampling alone does not make recordings alike: a recorder's anti-alias filter rolls
    off below its Nyquist frequency, so a recording that came at the common rate is empty at the top where a decimated
    one is not, and that alone names the recorder, often the class. All are therefore low-passed by one filter to what
    the slowest recorder passes: its rate / 2.56, the convention of vibration analysers.

    Args:
        recordings: any number, of any rates.
        sampling_rate_hz: the common rate, > 0; default: the lowest there is.
        band_hz: the common band, > 0; default: `common_band_hz` of them. Recordings that come later are
            brought to the band of those that a network was trained on.

    Returns:
        The recordings in the same order. Where all have the common rate already, untouched.

    Raises:
        ValueError: a recording is sampled more than 1 % below the common rate.

    Example:
        >>> fast = Recording(np.zeros((1, 4800)), sampling_rate_hz=48_000)
        >>> slow = Recording(np.zeros((1, 1200)), sampling_rate_hz=12_000)
        >>> [(r.sampling_rate_hz, r.n_samples) for r in to_common_rate([fast, slow])]
        [(12000.0, 1200), (12000.0, 1200)]
    """
    if not recordings:
        return []
    common_hz = sampling_rate_hz or min(recording.sampling_rate_hz for recording in recordings)
    band_hz = band_hz or common_band_hz(recordings)
    resampled = [resample(recording, common_hz) for recording in recordings]
    return resampled if band_hz is None else [band_limit(recording, band_hz) for recording in resampled]


def _low_pass_taps(pass_edge: float, stop_edge: float) -> np.ndarray:
    """Taps `[odd]` of a low-pass between two frequencies given in units of the Nyquist frequency, float32."""
    n_taps = math.ceil((STOPBAND_DB - 7.95) / (2.285 * math.pi * (stop_edge - pass_edge))) | 1
    cutoff = (pass_edge + stop_edge) / 2
    taps = np.sinc(cutoff * (np.arange(n_taps) - n_taps // 2)) * np.kaiser(n_taps, 0.1102 * (STOPBAND_DB - 8.7))
    return (taps / taps.sum()).astype(np.float32)
