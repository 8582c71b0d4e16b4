"""Cepstrum pre-whitening, and the squared envelope of a whitened band.

Source: Borghesani, Pennacchi, Randall, Sawalhi & Ricci (2013), Application of cepstrum pre-whitening for the diagnosis
of bearing faults under variable speed conditions, Mechanical Systems and Signal Processing 36, 370-384.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whirl.dsp.envelope import check_range
from whirl.physics.knocks import limit_knocks
from whirl.validation import check_number

_SMALLEST = 1e-12  # of a spectrum's largest part: bins below stay small instead of becoming noise


def prewhiten(spectrum: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Set the magnitude of every bin of a spectrum to one and keep its phase.

    `X / max(|X|, floor, 1e-12 m)`, where m is the largest real or imaginary part. This removes resonances and strong
    lines alike. Setting the real cepstrum to zero except at zero quefrency is the same operation, hence the name.
    Exactly periodic components, such as a gear's, sink into the noise; a bearing's impacts stay, because their spacing
    is never exact. Gradients flow to the spectrum.

    Args:
        spectrum: complex `[..., F]`.
        floor: magnitude below which a bin is considered empty and stays small, >= 0, a number or `[..., 1]`.

    Returns:
        Complex `[..., F]` of magnitude 1, or below where a bin is empty; zeros where the spectrum is all zero.

    Example:
        >>> prewhiten(torch.tensor([3 + 4j, -2 + 0j, 0j]))
        tensor([ 0.6000+0.8000j, -1.0000+0.0000j,  0.0000+0.0000j])
    """
    parts = torch.view_as_real(spectrum.resolve_conj())
    components = parts.detach().flatten(-2)
    largest = torch.maximum(components.amax(-1, keepdim=True), -components.amin(-1, keepdim=True))
    largest = largest.clamp(min=torch.finfo(parts.dtype).tiny)
    parts = parts / largest[..., None]  # whose squares neither overflow nor vanish
    squares = parts.square()
    power = squares[..., 0] + squares[..., 1]  # with `rsqrt` a third of the time of `abs` and a complex division
    smallest = (torch.as_tensor(floor).to(largest) / largest).square().clamp(min=_SMALLEST**2)
    return torch.view_as_complex(parts * power.maximum(smallest).rsqrt()[..., None])


def prewhitened_envelope(
    spectrum: Tensor,
    resolution_hz: float,
    band_hz: tuple[float, float],
    max_modulation_hz: float,
    floor: Tensor | float = 0.0,
) -> Tensor:
    """Compute how the squared envelope of a pre-whitened band swings around its mean.

    The band is cut out of the spectrum, whitened and transformed back to its analytic signal z, at a rate that just
    holds the modulations asked for. With p = |z|^2, its isolated peaks limited (`limit_knocks`), the result is `e = p /
    mean p - 1`. Choosing bins of the spectrum is an ideal band-pass and change of rate in one: content outside of the
    band, at any sampling rate, has no effect on the result. Gradients flow to the spectrum.

    Args:
        spectrum: complex `[..., F]`, of signals without their mean, as from `torch.fft.rfft`.
        resolution_hz: distance of its bins, > 0: the reciprocal of the signals' duration.
        band_hz: lower and upper edge, 0 <= low < high <= that of the spectrum.
        max_modulation_hz: modulation frequencies up to this one are free of aliasing, > 0.
        floor: magnitude below which a bin is considered empty, see `prewhiten`.

    Returns:
        `[..., M]` >= -1 with mean 0, M samples evenly spaced over the duration of the signals; -1 for a silent band.

    Raises:
        ValueError: the band is out of range, or narrower than two bins.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> signal = 0.1 * torch.randn(8192, generator=generator)  # one second
        >>> impacts = torch.arange(0, 8000, 128) + torch.randint(0, 5, (63,), generator=generator)  # 64 per second
        >>> signal[impacts] += 1
        >>> spectrum = torch.fft.rfft(signal - signal.mean())
        >>> e = prewhitened_envelope(spectrum, resolution_hz=1, band_hz=(500, 3500), max_modulation_hz=400)
        >>> torch.fft.rfft(e).abs()[:100].argmax()
        tensor(64)
    """
    check_number("resolution_hz", resolution_hz, 0, open_ends=True)
    check_number("max_modulation_hz", max_modulation_hz, 0, open_ends=True)
    low_hz, high_hz = check_range("band_hz", band_hz, spectrum.shape[-1] * resolution_hz)
    first, last = math.ceil(low_hz / resolution_hz), math.floor(high_hz / resolution_hz)
    band = spectrum[..., first : last + 1]
    n_bins = band.shape[-1]
    if n_bins < 2:
        raise ValueError(f"band_hz is {low_hz:g} to {high_hz:g}, narrower than two bins of {resolution_hz:g} Hz")
    n_kept = _fast_length(n_bins + min(n_bins, math.floor(max_modulation_hz / resolution_hz) + 1))
    analytic = torch.fft.ifft(prewhiten(band, floor), n_kept, norm="forward")
    power = analytic.real.square() + analytic.imag.square()  # three times as fast as abs().square()
    power = limit_knocks(power)
    return power / power.mean(-1, keepdim=True).clamp(min=torch.finfo(power.dtype).tiny) - 1


def _fast_length(minimum: int) -> int:
    """Return the smallest length of at least `minimum` whose prime factors are 2, 3 and 5."""
    length = minimum
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
