"""Resampling to a common sampling rate and band, so that the recorder does not leak the label.

Signals are low-pass filtered before decimation by a linear-phase Kaiser-window FIR filter (Oppenheim & Schafer,
*Discrete-Time Signal Processing*, 3rd ed., section 7.5.3) in polyphase form, so events keep their time and frequencies
above the new Nyquist frequency are not aliased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from whirl.data.recording import Recording
from whirl.validation import check_number

STOPBAND_DB = 80.0
"""Stop-band attenuation in dB (pass-band ripple: 0.001 dB)."""

PASSBAND = 0.9
"""Pass-band edge of `resample` as a fraction of the new Nyquist frequency."""

ANALYSER_RATIO = 2.56
"""Ratio of sampling rate to highest valid frequency in vibration analyzers, due to the roll-off of their anti-alias
filter."""

RATE_TOLERANCE = 0.01
"""Largest relative increase of the sampling rate that `resample` accepts."""

CLOCK_TOLERANCE = 1e-4
"""Relative difference below which two sampling rates are equal; resampling ratios have terms up to 10 000."""


def resample(recording: Recording, sampling_rate_hz: float) -> Recording:
    """Resample a recording to a lower sampling rate with an anti-alias filter.

    Frequencies up to 0.9 of the new Nyquist frequency are preserved to 0.01 dB; frequencies above the new Nyquist
    frequency are attenuated by 80 dB. Time origin and phase are preserved. `start_sample` is scaled to the new rate.

    Args:
        recording: a recording with a sampling rate of at least `sampling_rate_hz`, with a clock tolerance of 1 %.
        sampling_rate_hz: the new sampling rate, > 0.

    Returns:
        A recording of `ceil(N * ratio)` samples. If the rates are equal, the signal is not copied.

    Raises:
        ValueError: the sampling rate is not positive, or exceeds that of the recording. Upsampling is rejected because
            it leaves the top of the new band empty, which would identify the upsampled recordings.

    Example:
        >>> recording = Recording(np.ones((1, 48_000)), sampling_rate_hz=48_000, start_sample=96_000)
        >>> slower = resample(recording, 12_000)
        >>> slower.n_samples, slower.start_sample, slower.duration_s
        (12000, 24000, 1.0)
    """
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    ratio = Fraction(sampling_rate_hz / recording.sampling_rate_hz).limit_denominator(round(1 / CLOCK_TOLERANCE))
    if ratio > 1 + RATE_TOLERANCE:
        raise ValueError(
            f"{recording.name}: sampled at {recording.sampling_rate_hz:g} Hz, cannot be upsampled to "
            f"{sampling_rate_hz:g} Hz (the empty top band would identify the recording); choose a sampling rate of at "
            f"most {recording.sampling_rate_hz:g} Hz"
        )
    if ratio == 1:
        return replace(recording, sampling_rate_hz=sampling_rate_hz)
    from scipy.signal import resample_poly

    up, down = ratio.numerator, ratio.denominator
    nyquist = 1 / max(up, down)  # the lower of both Nyquist frequencies, in units of up * rate / 2
    taps = _low_pass_taps(PASSBAND * nyquist, nyquist)
    signal = resample_poly(recording.signal, up, down, axis=-1, window=taps, padtype="mean")
    return replace(
        recording,
        signal=signal,
        sampling_rate_hz=sampling_rate_hz,
        start_sample=round(recording.start_sample * ratio),
    )


def band_limit(recording: Recording, limit_hz: float) -> Recording:
    """Low-pass filter a recording without changing its sampling rate.

    Frequencies up to `limit_hz` and the mean are preserved to 0.01 dB; frequencies above 1.1 times `limit_hz` are
    attenuated by 80 dB.

    Args:
        recording: the recording.
        limit_hz: pass-band edge in Hz, > 0. If 1.1 times this limit exceeds the Nyquist frequency, the recording is
            returned unchanged.

    Raises:
        ValueError: the limit is not positive.

    Example:
        >>> recording = Recording(np.random.default_rng(0).normal(size=(1, 4096)), sampling_rate_hz=12_000)
        >>> spectrum = np.abs(np.fft.rfft(band_limit(recording, 3000).signal[0] * np.hanning(4096)))
        >>> bool(spectrum[1200:].max() < 1e-3 * spectrum[:1000].max())  # bin 1200 is 3516 Hz
        True
    """
    if not limit_hz > 0:
        raise ValueError(f"limit_hz is {limit_hz}, expected a number > 0")
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
    """Return the band of the slowest recorder if sampling rates differ, otherwise None.

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
    """Resample recordings to a common sampling rate and, if their rates differ, limit them to a common band.

    Resampling alone leaves a difference between recorders: the anti-alias filter of a recorder rolls off below its
    Nyquist frequency, so a recording made at the common rate has an empty top band and a decimated one does not. This
    identifies the recorder and often the class. All recordings are therefore low-pass filtered to the band of the
    slowest recorder, its sampling rate / 2.56 by the convention of vibration analyzers.

    Args:
        recordings: any number of recordings.
        sampling_rate_hz: the common sampling rate, > 0. Default: the lowest rate of the recordings.
        band_hz: upper edge of the common band, > 0. Default: `common_band_hz(recordings)`. For prediction, pass the
            band of the training recordings.

    Returns:
        The recordings in the same order; unchanged if all have the common rate.

    Raises:
        ValueError: a recording has a sampling rate more than 1 % below the common rate.

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
    """Return the taps of a low-pass filter, float32 `[odd]`; edges in units of the Nyquist frequency."""
    n_taps = math.ceil((STOPBAND_DB - 7.95) / (2.285 * math.pi * (stop_edge - pass_edge))) | 1
    cutoff = (pass_edge + stop_edge) / 2
    taps = np.sinc(cutoff * (np.arange(n_taps) - n_taps // 2)) * np.kaiser(n_taps, 0.1102 * (STOPBAND_DB - 8.7))
    return (taps / taps.sum()).astype(np.float32)
