"""Envelopes and amplitude spectra of batches of signals."""

from __future__ import annotations

import torch
from torch import Tensor

from whirl.validation import check_batch, check_number


def analytic(signals: Tensor) -> Tensor:
    """Compute the analytic signal, whose real part is the signal (Gabor 1946).

    Its spectrum is twice the positive half of the signal's spectrum.

    Args:
        signals: float32 or float64 `[..., T]`.

    Returns:
        Complex tensor of the same shape.

    Example:
        >>> tone = torch.cos(2 * torch.pi * 0.125 * torch.arange(64))
        >>> bool((analytic(tone).abs() - 1).abs().max() < 1e-5)
        True
    """
    n_samples = signals.shape[-1]
    weights = signals.new_full((n_samples // 2 + 1,), 2)
    weights[0] = 1
    if n_samples % 2 == 0:
        weights[-1] = 1  # frequency 0 and the Nyquist frequency have no negative counterpart
    return torch.fft.ifft(torch.fft.rfft(signals) * weights, n_samples)


def squared_envelope(signals: Tensor, sampling_rate_hz: float, band_hz: tuple[float, float]) -> Tensor:
    """Compute the squared envelope of a band relative to its mean, in which impacts that excite a resonance stand out.

    It is `|z|^2 / mean(|z|^2)`, where z is the analytic signal of the band: the spectrum outside the band and at
    negative frequencies is set to zero, doubled and transformed back. The window is first extended by its mirror image,
    so that a jump between its ends does not look like an impact. Gradients flow to the signals.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        sampling_rate_hz: sampling rate of the signals, > 0.
        band_hz: lower and upper edge, 0 <= low < high <= half the sampling rate.

    Returns:
        `[B, C, T]`, >= 0, with mean 1; zeros if the band contains no signal.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is invalid.

    Example:
        >>> tone = torch.cos(2 * torch.pi * 1000 / 4096 * torch.arange(4096))[None, None]
        >>> bool((squared_envelope(tone, 4096, band_hz=(800, 1200))[..., 500:-500] - 1).abs().max() < 0.02)
        True
    """
    check_batch(signals)
    low_hz, high_hz = check_range("band_hz", band_hz, sampling_rate_hz / 2)
    n_samples = signals.shape[-1]
    spectrum = torch.fft.rfft(torch.cat((signals, signals.flip(-1)), -1))
    bins_hz = torch.arange(n_samples + 1, device=signals.device) * (sampling_rate_hz / (2 * n_samples))
    inside = ((bins_hz >= low_hz) & (bins_hz <= high_hz)).to(signals.dtype)
    band = torch.fft.ifft(spectrum * (2 * inside), 2 * n_samples)[..., :n_samples]
    power = band.real.square() + band.imag.square()
    return power / power.mean(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)


def envelope_spectrum(
    signals: Tensor, sampling_rate_hz: float, band_hz: tuple[float, float], resolution_hz: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the amplitude spectrum of the squared envelope of a band, which shows the impact rates of bearing faults.

    The envelope is relative to its mean, so the result does not depend on the gain: a line of height m means that the
    power in the band is modulated by a fraction m of its mean. Randall and Antoni 2011, Mechanical Systems and Signal
    Processing 25:485.

    Args:
        signals: see `squared_envelope`; use at least 20 revolutions to resolve fault lines from shaft harmonics.
        sampling_rate_hz: see `squared_envelope`.
        band_hz: see `squared_envelope`.
        resolution_hz: see `resolution` of `amplitude_spectrum`.

    Returns:
        Amplitudes `[B, C, F]`, dimensionless, >= 0, and their frequencies in Hz, `[F]`, 0 to half the sampling rate.

    Raises:
        TypeError: see `squared_envelope`.
        ValueError: see `squared_envelope` and `amplitude_spectrum`.

    Example:
        >>> time_s = torch.arange(8192) / 8192
        >>> modulation = (1 + 0.4 * torch.cos(2 * torch.pi * 50 * time_s)).sqrt()
        >>> signal = modulation * torch.sin(2 * torch.pi * 2000 * time_s)
        >>> amplitude, frequencies_hz = envelope_spectrum(signal[None, None], 8192, band_hz=(1000, 3000))
        >>> frequencies_hz[amplitude[0, 0].argmax()], round(amplitude.max().item(), 3)
        (tensor(50.), 0.4)
    """
    envelope = squared_envelope(signals, sampling_rate_hz, band_hz)
    return amplitude_spectrum(envelope, sampling_rate_hz, resolution_hz)


def amplitude_spectrum(values: Tensor, rate: float, resolution: float | None = None) -> tuple[Tensor, Tensor]:
    """Compute the amplitude spectrum, averaged over Hann-windowed segments with 50 % overlap (Welch 1967).

    The mean of each segment is subtracted. The amplitude is the root of the mean power, so a stationary sinusoid of
    amplitude a gives a peak of height a for any segment length. Gradients flow to the values.

    Args:
        values: float32 or float64 `[..., N]`, N >= 4.
        rate: sampling rate of the values, in samples per second or per revolution, > 0.
        resolution: spacing of the bins in the unit of the rate, > 0. None, or a finer resolution than the values allow,
            uses a single segment.

    Returns:
        Amplitudes (zero to peak) in the unit of the values, `[..., F]`, and their frequencies in cycles per second or
        per revolution, `[F]`, from 0 to half the rate.

    Raises:
        ValueError: there are fewer than 4 values, or the rate or resolution is not positive.

    Example:
        >>> time_s = torch.arange(2048) / 2048
        >>> amplitude, frequencies_hz = amplitude_spectrum(3 * torch.sin(2 * torch.pi * 100 * time_s), 2048)
        >>> frequencies_hz[amplitude.argmax()], round(amplitude.max().item(), 3)
        (tensor(100.), 3.0)
    """
    length = _segment_length(values.shape[-1], rate, resolution)
    segments = values.unfold(-1, length, length // 2)
    weights = torch.hann_window(length, dtype=values.dtype, device=values.device)
    spectra = torch.fft.rfft((segments - segments.mean(-1, keepdim=True)) * (2 / weights.sum() * weights))
    # the norm has a finite gradient at empty bins, unlike the root of a mean
    amplitudes = torch.linalg.vector_norm(spectra, dim=-2) / spectra.shape[-2] ** 0.5
    if length % 2 == 0:
        amplitudes = torch.cat(
            (amplitudes[..., :-1], amplitudes[..., -1:] / 2), -1
        )  # the Nyquist bin has no negative counterpart
    bins = torch.arange(length // 2 + 1, dtype=values.dtype, device=values.device)
    return amplitudes, bins * (rate / length)


def _segment_length(n_values: int, rate: float, resolution: float | None) -> int:
    if n_values < 4:
        raise ValueError(f"values have {n_values} samples, expected at least 4")
    check_number("sampling rate", rate, 0, open_ends=True)
    if resolution is None:
        return n_values
    return min(max(round(rate / check_number("resolution", resolution, 0, open_ends=True)), 4), n_values)


def check_range(name: str, limits: tuple[float, float], maximum: float) -> tuple[float, float]:
    """Validate a pair 0 <= low < high <= maximum."""
    low, high = limits
    if not 0 <= low < high <= maximum:
        raise ValueError(f"{name} is {(low, high)}, expected 0 <= low < high <= {maximum:g}")
    return check_number(name, low, 0), check_number(name, high, 0)
