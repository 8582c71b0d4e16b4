"""Augmentations that know vibration: what the shaft, the structure, the sensor and the neighbourhood may vary.

Each takes a batch of windows `[B, C, T]`, float, in any unit, and returns another of the same shape, type and device.
Draws are made per sample on the signals' device. The input is never changed, gradients flow to it, and half precision
is computed in float32 inside.

Every function says what it keeps, what it breaks, and which fault classes of `whirl.physics.faults` it may
erase: an augmentation that erases the fault but keeps the label teaches an error.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from whirl.dsp.interpolation import interpolate, raised_cosine
from whirl.validation import check_batch, check_floating, check_number

Noise = Literal["white", "pink"]


def speed_jitter(
    signals: Tensor, max_change: float = 0.03, rpm: Tensor | None = None, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor | None]:
    """Windows as if the time axis ran faster or slower: `y(t) = x(a t)` moves every frequency f to a f.

    The factor a is uniform in 1 ± `max_change`, one per sample. With `rpm` scaled by it all fault orders stay.
    Band-limited, by `whirl.dsp.interpolation`: what a faster time axis would push above half the sampling
    rate is removed, not folded back.

    The length stays. A slower axis (a < 1) needs a share a of the window, read from a random offset. A faster one needs
    more samples than there are: a share of at most `max_change` of the window, split at random between its ends, is
    its mirror image.

    Keeps: orders, amplitudes, envelope orders, waveform; all lines of one sample relative to one another.
    Breaks: whatever does not follow the shaft moves too: structural resonances, mains hum, a whip locked at the
    critical speed. Forces do not follow the speed (an unbalance grows with its square). For a < 1 the band above a
    times half the sampling rate is left empty. Within the mirrored share phases jump and impacts ring backwards.
    May erase: no line. But without `rpm`, what goes by orders is off by `max_change`: `clearance` at 1/2X comes to
    look like `oil_whirl` (0.485X is 3 % below), `inner_race`, `outer_race` and `ball` leave their windows at 2 %.

    Args:
        signals: float `[B, C, T]`.
        max_change: largest relative change of the time axis, in [0, 1).
        rpm: shaft speed of each sample, `[B]`, rev/min; NaN where unknown stays NaN.
        generator: of the signals' device; None is torch's own.

    Returns:
        The windows `[B, C, T]`, and `rpm` times the factor, `[B]`; None without `rpm`.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape, or `max_change`, is another.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 200 / 2048 * torch.arange(2048)).expand(4, 1, -1)
        >>> rpm = torch.full((4,), 3000.0)
        >>> changed, rpm = speed_jitter(tone, 0.03, rpm, generator=torch.Generator().manual_seed(0))
        >>> (200 * rpm / 3000).round(decimals=1)  # where the line is now, Hz
        tensor([200.0000, 203.2000, 195.1000, 195.6000])
        >>> torch.fft.rfft(changed * torch.hann_window(2048)).abs().argmax(-1).flatten()
        tensor([200, 203, 195, 196])
    """
    check_batch(signals, rpm)
    if not 0 <= max_change < 1:
        raise ValueError(f"max_change is {max_change!r}, expected at least 0 and below 1")
    change, share = _uniform(-1, 1, (2, len(signals)), signals, generator)
    factor = 1 + max_change * change
    # of the time that is left over (or missing) a random share lies before the window
    start = (signals.shape[-1] - 1) * (1 - factor) * (1 - share) / 2
    read = interpolate(_at_least_float32(signals), start, factor, signals.shape[-1]).to(signals.dtype)
    return read, None if rpm is None else rpm * factor


def band_stop(
    signals: Tensor,
    sampling_rate_hz: float,
    max_width_hz: float | None = None,
    center_range_hz: tuple[float, float] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Windows without a random frequency band, as behind a structure that does not pass it.

    With centre c and width w the gain is 0 within `|f - c| <= 0.4 w`, 1 outside `|f - c| >= 0.5 w`, and a raised cosine
    between. The width is uniform in 0 to `max_width_hz`, the centre uniform in `center_range_hz`, one of each per
    sample, the same for all channels. The filter has no phase and takes the window as one period: of a line that does
    not close upon itself, bursts at the two ends remain, in all 20 to 35 dB below it (50 dB through a Hann window).

    Keeps: amplitude and phase of everything outside the band.
    Breaks: the spectrum's continuity; impacts ring at the edges of the band. A band at 0 Hz removes the mean.
    May erase: any fault whose lines all lie within it: at low frequencies `imbalance`, `misalignment`, `oil_whirl` and
    `bent_shaft` have one to three lines a few Hz wide; at high ones the resonance that carries `inner_race`,
    `outer_race`, `ball`, `lubrication` or `cavitation`, or the floor of `wear`. Keep the widest band narrower than what
    a class can lose, or the centres out of the band of a single line.

    Args:
        signals: float `[B, C, T]`.
        sampling_rate_hz: samples per second, > 0.
        max_width_hz: the widest band, 0 to half the sampling rate; default: a tenth of that.
        center_range_hz: lowest and highest centre, within 0 and half the sampling rate; default: all of it.
        generator: of the signals' device; None is torch's own.

    Returns:
        The filtered windows, `[B, C, T]`.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape is another, the rate is not positive, or a frequency lies outside its range.

    Example:
        >>> noise = torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(0))
        >>> stopped = band_stop(noise, 4096, 400, (1000, 1000), generator=torch.Generator().manual_seed(0))
        >>> gain = torch.fft.rfft(stopped).abs() / torch.fft.rfft(noise).abs()
        >>> bool(gain[..., 995:1005].max() < 1e-4), round(float(gain[..., 1300]), 3)
        (True, 1.0)
    """
    check_batch(signals)
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    nyquist_hz = sampling_rate_hz / 2
    max_width_hz = nyquist_hz / 10 if max_width_hz is None else max_width_hz
    if not 0 <= max_width_hz <= nyquist_hz:
        raise ValueError(f"max_width_hz is {max_width_hz}, expected 0 to {nyquist_hz:g} (half the sampling rate)")
    low_hz, high_hz = (0, nyquist_hz) if center_range_hz is None else center_range_hz
    if not 0 <= low_hz <= high_hz <= nyquist_hz:
        raise ValueError(f"center_range_hz is {center_range_hz}, expected low <= high within 0 and {nyquist_hz:g} Hz")
    center = _uniform(low_hz / nyquist_hz, high_hz / nyquist_hz, (len(signals),), signals, generator)
    width = _uniform(0, max_width_hz / nyquist_hz, (len(signals),), signals, generator)
    return _without_band(_at_least_float32(signals), center, width).to(signals.dtype)


def random_phase_surrogate(signals: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Stationary noise with the power spectrum of each window, and nothing else of it.

    `y = irfft(|X_k| exp(i (arg X_k + phi_k)))` with phi uniform in 0 to 2 pi, drawn per sample and frequency and shared
    by its channels (Theiler et al. 1992, Physica D 58:77; Prichard & Theiler 1994, Phys. Rev. Lett. 73:951). Mean and
    the component at half the sampling rate stay, so windows of one or two samples come back as they are.

    Keeps: the periodogram of each channel and the cross spectra of all channels, hence every line, its amplitude,
    the RMS value, and phases between sensors.
    Breaks: the waveform: everything becomes Gaussian and stationary, and lines beside a bin start to beat as the ends
    of the window do not meet. Only what repeats exactly still does (a comb of lines stays a comb).
    May erase: all impulsive and modulated evidence. `inner_race`, `outer_race` and `ball` lose their envelope lines
    (their impacts slip, so they are no comb), `lubrication` its friction bursts once per turn, `cavitation` its bursts,
    `wear` its slow waver, `clearance` the clipped waveform (its lines stay). Only `imbalance`, `misalignment`,
    `oil_whirl` and `bent_shaft` are what they were: use it for those, or as an example of what is not the fault.

    Args:
        signals: float `[B, C, T]`.
        generator: of the signals' device; None is torch's own.

    Returns:
        The surrogates, `[B, C, T]`.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: the shape is another.

    Example:
        >>> knock = torch.zeros(1, 1, 64)
        >>> knock[..., 20] = 8
        >>> surrogate = random_phase_surrogate(knock, generator=torch.Generator().manual_seed(0))
        >>> power, kept = (torch.fft.rfft(x).abs().square() for x in (knock, surrogate))
        >>> torch.allclose(kept, power, rtol=1e-4), bool(surrogate.abs().max() < 5)
        (True, True)
    """
    check_batch(signals)
    n_bins = signals.shape[-1] // 2 + 1
    angles = _uniform(0, 2 * math.pi, (len(signals), 1, n_bins), signals, generator)
    return _with_phases(_at_least_float32(signals), angles).to(signals.dtype)


def sensor_gain_and_offset(
    signals: Tensor, gain_db: float = 3.0, offset: float = 0.1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Windows as of a sensor with another sensitivity and bias: `y = 10^(g/20) x + b rms(x)`.

    g is uniform in ± `gain_db`, b in ± `offset`, both drawn per sample and channel; rms is taken about the mean.

    Keeps: waveform, all ratios within a channel, orders, envelope.
    Breaks: the ratios between channels (from which orbits and mode shapes are read) and the absolute level.
    May erase: what only the level tells: a weak `imbalance`, `bent_shaft` or `wear` is a healthy machine with more 1X
    or floor. Windows standardised afterwards (`WindowDataset` standardises before) lose gain and offset again.

    Args:
        signals: float `[B, C, T]`.
        gain_db: largest gain up or down, dB, >= 0.
        offset: largest offset as a share of the channel's RMS value, >= 0.
        generator: of the signals' device; None is torch's own.

    Returns:
        The windows, `[B, C, T]`.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: the shape is another, or a range is negative.

    Example:
        >>> signals = torch.tensor([[[-1.0, 1.0]]]).expand(2, 1, 2)
        >>> louder = sensor_gain_and_offset(signals, 6.0, 0.0, generator=torch.Generator().manual_seed(0))
        >>> (20 * louder[..., 1].log10()).flatten().round(decimals=2)  # dB
        tensor([-0.0400,  3.2200])
    """
    check_batch(signals)
    check_number("gain_db", gain_db, 0)
    check_number("offset", offset, 0)
    drawn_db, share = _uniform(-1, 1, (2, *signals.shape[:2], 1), signals, generator)
    work = _at_least_float32(signals)
    bias = offset * share * _rms(_centered(work))
    return (work * _amplitude(gain_db * drawn_db) + bias).to(signals.dtype)


def additive_machine_noise(
    signals: Tensor,
    snr_db: float | tuple[float, float] = (10.0, 30.0),
    *,
    color: Noise = "white",
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Windows with noise of other machines and of the measuring chain, at a given signal-to-noise ratio.

    `y = x + n`, where n is scaled so that `10 log10(var(x) / var(n))` is the drawn ratio exactly, in each channel; the
    ratio is uniform between the two bounds, one per sample. The noise has no mean. A channel without
    vibration (a constant, or one sample) stays as it is, as does one whose drawn stretch of the bank is silent.

    Keeps: the signal itself, its phases and lines.
    Breaks: the relation between channels, as `color` noise is independent in each (a bank keeps its own).
    May erase: what it buries: first the envelope lines of `ball`, `inner_race` and `outer_race` at low severity, then
    `lubrication` and `cavitation`, which live in weak high-frequency bands (white noise hits them hardest, pink noise
    the low orders of `oil_whirl` and `clearance`). A raised floor is also what `wear` looks like.

    Args:
        signals: float `[B, C, T]`.
        snr_db: the ratio in dB, or its lowest and highest value.
        color: `"white"`, the same power in each Hz, or `"pink"`, power proportional to 1/f; not used with `noise`.
        noise: a bank of measured noise instead, float `[M, C, N]` on the signals' device, N >= T, at the same sampling
            rate; each sample gets a stretch from a random row and place.
        generator: of the signals' device; None is torch's own.

    Returns:
        The noisy windows, `[B, C, T]`.

    Raises:
        TypeError: signals or bank are not floating point.
        ValueError: a shape is another, the bounds are reversed or not finite, or the colour is unknown.

    Example:
        >>> tone = torch.sin(torch.arange(100.0)).expand(1, 1, -1)
        >>> added = additive_machine_noise(tone, 20) - tone
        >>> round(float(10 * torch.log10(tone.var() / added.var())), 3)  # dB
        20.0
    """
    check_batch(signals)
    low_db, high_db = (snr_db, snr_db) if isinstance(snr_db, (int, float)) else snr_db
    if not (math.isfinite(low_db) and math.isfinite(high_db) and low_db <= high_db):
        raise ValueError(f"snr_db is {snr_db!r}, expected a finite number, or two with the lower first")
    drawn_db = _uniform(low_db, high_db, (len(signals), 1, 1), signals, generator)
    work = _at_least_float32(signals)
    if noise is not None:
        added = _stretches(noise, signals, generator).to(work.dtype)
    elif color == "white":
        added = torch.randn(signals.shape, dtype=work.dtype, device=signals.device, generator=generator)
    elif color == "pink":
        added = _pink(work, generator)
    else:
        raise ValueError(f"color is {color!r}, expected 'white' or 'pink'")
    return _add_at(work, added, drawn_db).to(signals.dtype)


def polarity_flip(signals: Tensor, probability: float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """Windows as of sensors mounted the other way round: some samples, all channels together, change sign.

    Keeps: all spectra, envelopes, orders, levels, and the phases between channels.
    Breaks: the direction of impacts and of one-sided (rubbing, clipped) motion: the sign of the skewness.
    May erase: no class that shows in a spectrum; of `clearance` only which side knocks.

    Args:
        signals: float `[B, C, T]`.
        probability: of a change of sign, in [0, 1].
        generator: of the signals' device; None is torch's own.

    Returns:
        The windows, `[B, C, T]`.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: the shape is another, or the probability lies outside [0, 1].

    Example:
        >>> polarity_flip(torch.ones(5, 1, 1), generator=torch.Generator().manual_seed(0)).flatten()
        tensor([-1.,  1., -1., -1., -1.])
    """
    check_batch(signals)
    check_number("probability", probability, 0, 1)
    flipped = _uniform(0, 1, (len(signals), 1, 1), signals, generator) < probability
    return signals * (1 - 2 * flipped.to(signals.dtype))


def _at_least_float32(signals: Tensor) -> Tensor:
    return signals if signals.dtype == torch.float64 else signals.float()


def _uniform(
    low: float, high: float, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return low + (high - low) * torch.rand(shape, dtype=dtype, device=like.device, generator=generator)


def _centered(signals: Tensor) -> Tensor:
    return signals - signals.mean(-1, keepdim=True)


def _rms(signals: Tensor) -> Tensor:
    return torch.linalg.vector_norm(signals, dim=-1, keepdim=True) / math.sqrt(signals.shape[-1])


def _amplitude(level_db: Tensor) -> Tensor:
    return torch.pow(10, level_db / 20)


def _without_band(signals: Tensor, center: Tensor, width: Tensor) -> Tensor:
    """Signals without a band of centre and width `[B]`, in units of half the sampling rate."""
    n_samples = signals.shape[-1]
    frequency = torch.arange(n_samples // 2 + 1, device=signals.device, dtype=signals.dtype) * (2 / n_samples)
    distance = (frequency - center[:, None]).abs()
    half_width = width[:, None].clamp(min=torch.finfo(width.dtype).tiny) / 2
    gain = raised_cosine((distance / half_width - 0.8) / 0.2)
    return torch.fft.irfft(torch.fft.rfft(signals) * gain[:, None], n=n_samples)


def _with_phases(signals: Tensor, angles: Tensor) -> Tensor:
    """Signals with their spectrum `[B, C, F]` turned by angles `[B, 1, F]`, mean and Nyquist component left real."""
    n_samples = signals.shape[-1]
    bins = torch.arange(angles.shape[-1], device=signals.device)
    angles = angles * ((bins > 0) & (2 * bins < n_samples))
    turn = torch.polar(torch.ones_like(angles), angles)
    return torch.fft.irfft(torch.fft.rfft(signals) * turn, n=n_samples)


def _pink(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gaussian noise with power proportional to 1 / f, of any level."""
    n_samples = like.shape[-1]
    shape, dtype = (*like.shape[:2], n_samples // 2 + 1), like.dtype.to_complex()
    spectrum = torch.randn(shape, dtype=dtype, device=like.device, generator=generator)
    bins = torch.arange(shape[-1], dtype=like.dtype, device=like.device)
    return torch.fft.irfft(spectrum * bins.clamp(min=1).rsqrt(), n=n_samples)


def _stretches(bank: Tensor, signals: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random stretch `[C, T]` of a random row of the bank `[M, C, N]` for each sample."""
    check_floating("noise", bank)
    n_samples = signals.shape[-1]
    if bank.ndim != 3 or len(bank) == 0 or bank.shape[1] != signals.shape[1] or bank.shape[2] < n_samples:
        raise ValueError(
            f"noise has shape {list(bank.shape)}, expected [rows, {signals.shape[1]}, at least {n_samples}]"
        )
    stretches = bank.unfold(-1, n_samples, 1).transpose(1, 2)  # [M, N - T + 1, C, T], a view
    row, place = (
        torch.randint(n, (len(signals),), device=signals.device, generator=generator) for n in stretches.shape[:2]
    )
    return stretches[row, place]


def _add_at(signals: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """Signals with the noise at a ratio of variances in dB, `[B, 1, 1]`, in each channel."""
    noise = _centered(noise)
    unit = noise / _rms(noise).clamp(min=torch.finfo(noise.dtype).tiny)
    return signals + unit * (_rms(_centered(signals)) * _amplitude(-snr_db))
