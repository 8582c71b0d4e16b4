"""Physically motivated augmentations of vibration: variations of the shaft, structure, sensor and surroundings.

Each function takes a batch of windows, float `[B, C, T]` in any unit, and returns a batch of the same shape, dtype and
device. Random draws are independent for every sample. Inputs are never modified, gradients are propagated, and half
precision is computed in float32 internally.

An augmentation that erases a fault but keeps its label teaches the network an error. Every function therefore documents
what it preserves, what it breaks, and which fault classes of `whirl.physics.faults` it may erase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from whirl._precision import at_least_float32
from whirl.dsp.interpolation import interpolate, raised_cosine
from whirl.validation import check_batch, check_floating, check_name, check_number

Noise = Literal["white", "pink"]


def speed_jitter(
    signals: Tensor, max_change: float = 0.03, rpm: Tensor | None = None, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor | None]:
    """Stretch or compress the time axis of each sample: `y(t) = x(a t)` moves every frequency f to a f.

    The factor a is uniform in 1 ± `max_change`, one per sample. Since `rpm` is scaled by it, all fault orders are
    preserved. The interpolation of `whirl.dsp.interpolation` is band-limited: frequencies that would exceed half the
    sampling rate are removed instead of aliased.

    The length is preserved. For a < 1, only a fraction a of the window is needed, and is taken from a random offset.
    For a > 1, more samples are needed than there are: a fraction of at most `max_change` of the window, split randomly
    between its two ends, is filled by reflection.

    Preserves: orders, amplitudes, envelope orders, waveform; all lines of one sample relative to one another.
    Breaks: everything that does not follow the shaft moves as well: structural resonances, mains hum, oil whip locked
    to the critical speed. Forces do not follow the speed (an unbalance grows with its square). For a < 1 the band above
    a times half the sampling rate is empty. In the reflected part phases jump and the ringing of impacts is reversed.
    May erase: no line. But without `rpm`, orders are wrong by up to `max_change`: `clearance` at 1/2X resembles
    `oil_whirl` (0.485X is 3 % below), and `inner_race`, `outer_race` and `ball` leave their windows at 2 %.

    Args:
        signals: float `[B, C, T]`.
        max_change: maximum relative change of the time axis, in [0, 1).
        rpm: shaft speed of each sample, `[B]`, rev/min; unknown speeds (NaN) remain NaN.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        The windows `[B, C, T]`, and `rpm` multiplied by the factors, `[B]`, or None without `rpm`.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: a shape is invalid, or `max_change` is out of range.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 200 / 2048 * torch.arange(2048)).expand(4, 1, -1)
        >>> rpm = torch.full((4,), 3000.0)
        >>> changed, rpm = speed_jitter(tone, 0.03, rpm, generator=torch.Generator().manual_seed(0))
        >>> (200 * rpm / 3000).round(decimals=1)  # new frequency of the line in Hz
        tensor([200.0000, 203.2000, 195.1000, 195.6000])
        >>> torch.fft.rfft(changed * torch.hann_window(2048)).abs().argmax(-1).flatten()
        tensor([200, 203, 195, 196])
    """
    check_batch(signals, rpm)
    if not 0 <= max_change < 1:
        raise ValueError(f"max_change is {max_change!r}, expected a number in [0, 1)")
    max_change = float(max_change)
    change, offset = _uniform(-1, 1, (2, len(signals)), signals, generator)
    factor = 1 + max_change * change
    # the unused (or missing) time is split randomly between the two ends of the window
    start = (signals.shape[-1] - 1) * (1 - factor) * (1 - offset) / 2
    stretched = interpolate(at_least_float32(signals), start, factor, signals.shape[-1]).to(signals.dtype)
    return stretched, None if rpm is None else rpm * factor


def band_stop(
    signals: Tensor,
    sampling_rate_hz: float,
    max_width_hz: float | None = None,
    center_range_hz: tuple[float, float] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Remove a random frequency band, as if the structure did not transmit it.

    With center c and width w, the gain is 0 for `|f - c| <= 0.4 w`, 1 for `|f - c| >= 0.5 w`, and a raised cosine in
    between. The width is uniform between 0 and `max_width_hz` and the center is uniform in `center_range_hz`, one of
    each per sample, equal for all channels. The filter is zero-phase and treats the window as one period. Of a line
    that is not periodic in the window, bursts remain at both ends, with a total of 20 to 35 dB below the line (50 dB
    with a Hann window).

    Preserves: amplitude and phase of everything outside the band.
    Breaks: the continuity of the spectrum; impacts ring at the edges of the band. A band at 0 Hz removes the mean.
    May erase: any fault whose lines are all within the band. At low frequencies `imbalance`, `misalignment`,
    `oil_whirl` and `bent_shaft` have one to three lines a few Hz wide; at high frequencies there are the resonance that
    carries `inner_race`, `outer_race`, `ball`, `lubrication` or `cavitation`, and the noise floor of `wear`. Choose
    `max_width_hz` smaller than what a class can lose, or exclude the band of a single line with `center_range_hz`.

    Args:
        signals: float `[B, C, T]`.
        sampling_rate_hz: sampling rate in Hz, > 0.
        max_width_hz: maximum width of the band, between 0 and half the sampling rate. None means 5 % of the sampling
            rate.
        center_range_hz: lowest and highest center, between 0 and half the sampling rate. None means all of this range.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        The filtered windows, `[B, C, T]`.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: a shape is invalid, the sampling rate is not positive, or a frequency is out of range.

    Example:
        >>> noise = torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(0))
        >>> stopped = band_stop(noise, 4096, 400, (1000, 1000), generator=torch.Generator().manual_seed(0))
        >>> gain = torch.fft.rfft(stopped).abs() / torch.fft.rfft(noise).abs()
        >>> bool(gain[..., 995:1005].max() < 1e-4), round(float(gain[..., 1300]), 3)
        (True, 1.0)
    """
    check_batch(signals)
    sampling_rate_hz = check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    nyquist_hz = sampling_rate_hz / 2
    max_width_hz = nyquist_hz / 10 if max_width_hz is None else max_width_hz
    if not 0 <= max_width_hz <= nyquist_hz:
        raise ValueError(
            f"max_width_hz is {max_width_hz}, expected a number in [0, {nyquist_hz:g}] (half the sampling rate)"
        )
    low_hz, high_hz = (0, nyquist_hz) if center_range_hz is None else center_range_hz
    if not 0 <= low_hz <= high_hz <= nyquist_hz:
        raise ValueError(f"center_range_hz is {center_range_hz}, expected low <= high in [0, {nyquist_hz:g}] Hz")
    center = _uniform(low_hz / nyquist_hz, high_hz / nyquist_hz, (len(signals),), signals, generator)
    width = _uniform(0, max_width_hz / nyquist_hz, (len(signals),), signals, generator)
    return _remove_band(at_least_float32(signals), center, width).to(signals.dtype)


def random_phase_surrogate(signals: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Replace each window by stationary noise with the same power spectrum (a phase-randomized surrogate).

    `y = irfft(|X_k| exp(i (arg X_k + phi_k)))` with phi uniform in 0 to 2 pi, drawn per sample and frequency and shared
    by all channels (Theiler et al. 1992, Physica D 58:77; Prichard & Theiler 1994, Phys. Rev. Lett. 73:951). The mean
    and the component at half the sampling rate are unchanged, and therefore also windows of one or two samples.

    Preserves: the periodogram of each channel and the cross spectra of all channels, and therefore all lines, their
    amplitudes, the RMS value, and the phases between sensors.
    Breaks: the waveform becomes Gaussian and stationary. Lines between two bins begin to beat, since the ends of the
    window do not match. Only exactly periodic components remain periodic (a comb of lines remains a comb).
    May erase: all impulsive and modulated evidence. `inner_race`, `outer_race` and `ball` lose their envelope lines
    (their impacts slip, so they are not an exact comb), `lubrication` its friction bursts once per revolution,
    `cavitation` its bursts, `wear` its slow fluctuation, and `clearance` the clipped waveform (its lines remain). Only
    `imbalance`, `misalignment`, `oil_whirl` and `bent_shaft` are unaffected: use it for these classes, or to create
    negative examples of the others.

    Args:
        signals: float `[B, C, T]`.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        The surrogates, `[B, C, T]`.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: the shape is invalid.

    Example:
        >>> impact = torch.zeros(1, 1, 64)
        >>> impact[..., 20] = 8
        >>> surrogate = random_phase_surrogate(impact, generator=torch.Generator().manual_seed(0))
        >>> expected, power = (torch.fft.rfft(x).abs().square() for x in (impact, surrogate))
        >>> torch.allclose(power, expected, rtol=1e-4), bool(surrogate.abs().max() < 5)
        (True, True)
    """
    check_batch(signals)
    n_bins = signals.shape[-1] // 2 + 1
    angles = _uniform(0, 2 * math.pi, (len(signals), 1, n_bins), signals, generator)
    return _rotate_phases(at_least_float32(signals), angles).to(signals.dtype)


def sensor_gain_and_offset(
    signals: Tensor, gain_db: float = 3.0, offset: float = 0.1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Simulate a sensor with another sensitivity and bias: `y = 10^(g/20) x + b rms(x)`.

    g is uniform in ± `gain_db` and b is uniform in ± `offset`, both drawn per sample and channel; rms is computed about
    the mean.

    Preserves: waveform, all ratios within a channel, orders, envelope.
    Breaks: the ratios between channels (which determine orbits and mode shapes) and the absolute level.
    May erase: evidence that is in the level only: a weak `imbalance`, `bent_shaft` or `wear` differs from a healthy
    machine by a higher 1X or noise floor. Standardization after this augmentation removes gain and offset
    (`WindowDataset` standardizes before it).

    Args:
        signals: float `[B, C, T]`.
        gain_db: maximum absolute gain in dB, >= 0.
        offset: maximum absolute offset as a fraction of the RMS value of the channel, >= 0.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        The windows, `[B, C, T]`.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: the shape is invalid, or `gain_db` or `offset` is negative.

    Example:
        >>> signals = torch.tensor([[[-1.0, 1.0]]]).expand(2, 1, 2)
        >>> scaled = sensor_gain_and_offset(signals, 6.0, 0.0, generator=torch.Generator().manual_seed(0))
        >>> (20 * scaled[..., 1].log10()).flatten().round(decimals=2)  # dB
        tensor([-0.0400,  3.2200])
    """
    check_batch(signals)
    gain_db = check_number("gain_db", gain_db, 0)
    offset = check_number("offset", offset, 0)
    relative_gain, relative_offset = _uniform(-1, 1, (2, *signals.shape[:2], 1), signals, generator)
    values = at_least_float32(signals)
    bias = offset * relative_offset * _rms(_centered(values))
    return (values * _amplitude(gain_db * relative_gain) + bias).to(signals.dtype)


def additive_machine_noise(
    signals: Tensor,
    snr_db: float | tuple[float, float] = (10.0, 30.0),
    *,
    color: Noise = "white",
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Add noise of other machines and of the measuring chain, at a given signal-to-noise ratio.

    `y = x + n`, where n is scaled such that `10 log10(var(x) / var(n))` equals the drawn ratio exactly in each channel;
    the ratio is uniform between the two bounds, one per sample. The noise has zero mean. Channels without vibration
    (constant, or of a single sample) are unchanged, as are channels for which a silent section of `noise` is drawn.

    Preserves: the signal itself, its phases and lines.
    Breaks: the relation between channels, since `color` noise is independent in each of them (measured noise keeps its
    own relation).
    May erase: evidence below the noise: first the envelope lines of `ball`, `inner_race` and `outer_race` at low
    severity, then `lubrication` and `cavitation`, which are visible in weak high-frequency bands. White noise affects
    these most, and pink noise the low orders of `oil_whirl` and `clearance`. A raised noise floor also resembles
    `wear`.

    Args:
        signals: float `[B, C, T]`.
        snr_db: signal-to-noise ratio in dB, or its lower and upper bound.
        color: `"white"` (constant power per Hz) or `"pink"` (power proportional to 1/f); unused with `noise`.
        noise: measured noise to use instead, float `[M, C, N]` with N >= T on the device of the signals, at the same
            sampling rate. Each sample gets a section from a random row and position.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        The noisy windows, `[B, C, T]`.

    Raises:
        TypeError: the signals or `noise` are not floating-point tensors.
        ValueError: a shape is invalid, the bounds are reversed or not finite, or `color` is unknown.

    Example:
        >>> tone = torch.sin(torch.arange(100.0)).expand(1, 1, -1)
        >>> added = additive_machine_noise(tone, 20) - tone
        >>> round(float(10 * torch.log10(tone.var() / added.var())), 3)  # dB
        20.0
    """
    check_batch(signals)
    low_db, high_db = snr_db if isinstance(snr_db, Sequence) else (snr_db, snr_db)
    if not (math.isfinite(low_db) and math.isfinite(high_db) and low_db <= high_db):
        raise ValueError(f"snr_db is {snr_db!r}, expected a finite number, or two finite numbers, the lower first")
    if noise is None:
        check_name("color", color, ("white", "pink"))
    drawn_snr_db = _uniform(low_db, high_db, (len(signals), 1, 1), signals, generator)
    values = at_least_float32(signals)
    if noise is not None:
        added = _draw_sections(noise, signals, generator).to(values.dtype)
    elif color == "white":
        added = torch.randn(signals.shape, dtype=values.dtype, device=signals.device, generator=generator)
    else:
        added = _pink_noise(values, generator)
    return _add_noise(values, added, drawn_snr_db).to(signals.dtype)


def polarity_flip(signals: Tensor, probability: float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """Flip the sign of random samples, in all channels together, as if the sensors were mounted the other way round.

    Preserves: all spectra, envelopes, orders, levels, and the phases between channels.
    Breaks: the direction of impacts and of one-sided (rubbing, clipped) motion: the sign of the skewness.
    May erase: no class that is visible in a spectrum; of `clearance` only the side of the impacts.

    Args:
        signals: float `[B, C, T]`.
        probability: probability of flipping the sign, in [0, 1].
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        The windows, `[B, C, T]`.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: the shape is invalid, or the probability is outside [0, 1].

    Example:
        >>> polarity_flip(torch.ones(5, 1, 1), generator=torch.Generator().manual_seed(0)).flatten()
        tensor([-1.,  1., -1., -1., -1.])
    """
    check_batch(signals)
    probability = check_number("probability", probability, 0, 1)
    flipped = _uniform(0, 1, (len(signals), 1, 1), signals, generator) < probability
    return signals * (1 - 2 * flipped.to(signals.dtype))


def _uniform(
    low: float, high: float, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    low, high = float(low), float(high)
    return low + (high - low) * torch.rand(shape, dtype=dtype, device=like.device, generator=generator)


def _centered(signals: Tensor) -> Tensor:
    return signals - signals.mean(-1, keepdim=True)


def _rms(signals: Tensor) -> Tensor:
    return torch.linalg.vector_norm(signals, dim=-1, keepdim=True) / math.sqrt(signals.shape[-1])


def _amplitude(level_db: Tensor) -> Tensor:
    return torch.pow(10, level_db / 20)


def _remove_band(signals: Tensor, center: Tensor, width: Tensor) -> Tensor:
    """Remove a band with center and width `[B]`, both in units of half the sampling rate."""
    n_samples = signals.shape[-1]
    frequency = torch.arange(n_samples // 2 + 1, device=signals.device, dtype=signals.dtype) * (2 / n_samples)
    distance = (frequency - center[:, None]).abs()
    half_width = width[:, None].clamp(min=torch.finfo(width.dtype).tiny) / 2
    gain = raised_cosine((distance / half_width - 0.8) / 0.2)
    return torch.fft.irfft(torch.fft.rfft(signals) * gain[:, None], n=n_samples)


def _rotate_phases(signals: Tensor, angles: Tensor) -> Tensor:
    """Rotate the phases of the spectrum `[B, C, F]` by angles `[B, 1, F]`, except for the mean and the Nyquist bin."""
    n_samples = signals.shape[-1]
    bins = torch.arange(angles.shape[-1], device=signals.device)
    angles = angles * ((bins > 0) & (2 * bins < n_samples))
    rotation = torch.polar(torch.ones_like(angles), angles)
    return torch.fft.irfft(torch.fft.rfft(signals) * rotation, n=n_samples)


def _pink_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return Gaussian noise with power proportional to 1/f, at an arbitrary level."""
    n_samples = like.shape[-1]
    shape, dtype = (*like.shape[:2], n_samples // 2 + 1), like.dtype.to_complex()
    spectrum = torch.randn(shape, dtype=dtype, device=like.device, generator=generator)
    bins = torch.arange(shape[-1], dtype=like.dtype, device=like.device)
    return torch.fft.irfft(spectrum * bins.clamp(min=1).rsqrt(), n=n_samples)


def _draw_sections(bank: Tensor, signals: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a random section `[C, T]` of a random row of the noise `[M, C, N]` for each sample."""
    check_floating("noise", bank)
    n_samples = signals.shape[-1]
    if bank.ndim != 3 or len(bank) == 0 or bank.shape[1] != signals.shape[1] or bank.shape[2] < n_samples:
        raise ValueError(f"noise has shape {list(bank.shape)}, expected [rows, {signals.shape[1]}, >= {n_samples}]")
    sections = bank.unfold(-1, n_samples, 1).transpose(1, 2)  # [M, N - T + 1, C, T], a view
    row, position = (
        torch.randint(n, (len(signals),), device=signals.device, generator=generator) for n in sections.shape[:2]
    )
    return sections[row, position]


def _add_noise(signals: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """Add noise, scaled in each channel to a signal-to-noise ratio in dB, `[B, 1, 1]`."""
    noise = _centered(noise)
    unit = noise / _rms(noise).clamp(min=torch.finfo(noise.dtype).tiny)
    return signals + unit * (_rms(_centered(signals)) * _amplitude(-snr_db))
