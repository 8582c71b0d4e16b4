"""Envelopes of batches of signals, and their spectra."""

from __future__ import annotations

import torch
from torch import Tensor

from packages.core.signals.checks import check_batch, check_number


def analytic(signals: Tensor) -> Tensor:
    """The analytic signal: the positive half of the spectrum, doubled (Gabor 1946); its real part is the signal.

    Args:
        signals: float32 or float64 `[..., T]`.

    Returns:
        Complex, of the same shape.

    Example:
        >>> tone = torch.cos(2 * torch.pi * 0.125 * torch.arange(64))
        >>> bool((analytic(tone).abs() - 1).abs().max() < 1e-5)
        True
    """
    n_samples = signals.shape[-1]
    weights = signals.new_full((n_samples // 2 + 1,), 2)
    weights[0] = 1
    if n_samples % 2 == 0:
        weights[-1] = 1  # neither 0 nor half the sampling rate has a mirror image
    return torch.fft.ifft(torch.fft.rfft(signals) * weights, n_samples)


def squared_envelope(signals: Tensor, sampling_rate_hz: float, band_hz: tuple[float, float]) -> Tensor:
    """Squared envelope of a band, relative to its mean: impacts that make a resonance ring stand up from it.

    As `spectra.squared_envelope`, for batches and differentiable, and of the window and its mirror image, so that what
    the ends jump by is not taken for an impact.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        sampling_rate_hz: of the signals, > 0.
        band_hz: lower and upper edge, 0 <= low < high <= half the sampling rate.

    Returns:
        `[B, C, T]`, >= 0, of mean 1; zeros where the band is silent.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is another.
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


def envelope_spectrum(signals: Tensor, sampling_rate_hz: float, band_hz: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Amplitude spectrum of the squared envelope of a band (Randall & Antoni 2011, MSSP 25:485), under a Hann window.

    A line of height m means that the power in the band swings by a share m of its mean.

    Args:
        signals: as for `squared_envelope`.
        sampling_rate_hz: as for `squared_envelope`.
        band_hz: as for `squared_envelope`.

    Returns:
        Amplitudes `[B, C, F]`, dimensionless, and their frequencies in Hz, `[F]`, 0 to half the sampling rate.

    Raises:
        TypeError: as `squared_envelope`.
        ValueError: as `squared_envelope`.

    Example:
        >>> time_s = torch.arange(8192) / 8192
        >>> swell = (1 + 0.4 * torch.cos(2 * torch.pi * 50 * time_s)).sqrt()
        >>> signal = swell * torch.sin(2 * torch.pi * 2000 * time_s)
        >>> amplitude, frequencies_hz = envelope_spectrum(signal[None, None], 8192, band_hz=(1000, 3000))
        >>> frequencies_hz[amplitude[0, 0].argmax()], round(amplitude.max().item(), 3)
        (tensor(50.), 0.4)
    """
    envelope = squared_envelope(signals, sampling_rate_hz, band_hz)
    return amplitude_spectrum(envelope, sampling_rate_hz)


def amplitude_spectrum(values: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Amplitudes `[..., N // 2 + 1]` of the sinusoids in real values `[..., N]`, less their mean, under a Hann window.

    Args:
        values: `[..., N]`.
        rate: of the values, samples per second, or per revolution.

    Returns:
        Amplitudes in the unit of the values, and their frequencies in cycles per second, or revolution.
    """
    n = values.shape[-1]
    weights = torch.hann_window(n, dtype=values.dtype, device=values.device)
    spectrum = torch.fft.rfft((values - values.mean(-1, keepdim=True)) * (2 / weights.sum() * weights))
    return spectrum.abs(), torch.arange(n // 2 + 1, device=values.device) * (rate / n)


def check_range(name: str, limits: tuple[float, float], most: float) -> tuple[float, float]:
    """Refuses what is not a pair 0 <= low < high <= most."""
    low, high = limits
    if not 0 <= low < high <= most:
        raise ValueError(f"{name} is {low:g} to {high:g}, expected 0 <= low < high <= {most:g}")
    return check_number(name, low, 0), check_number(name, high, 0)
