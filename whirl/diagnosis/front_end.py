"""From a signal to the spectrum of its pre-whitened squared envelope over orders of the shaft."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from whirl.dsp.envelope_orders import modulation_power
from whirl.dsp.prewhitening import prewhitened_envelope
from whirl.dsp.turn_segments import SEGMENT_TURNS, overlapping_segments, segment_length, taper_ends
from whirl.validation import check_number

BASE_BAND_HZ = 6000.0
"""Upper edge of the lowest band: it whitens to the same result at any sampling rate from twice this on."""

_BASE_ORDERS = 60.0  # the lowest band holds as many orders even of fast shafts
_EDGES = (0.04, 0.96)  # of the lowest band, without rumble and the roll-off of an anti-alias filter
_HALF_OCTAVE = 2**0.5  # a narrower rest at the top joins the band below
_EMPTY = 1e-7  # of the strongest band's power: what a filter or resampling left
_LEAST_OCCUPIED = 0.1  # of a band: a narrower rest below a filter's edge shows few modulations
_STRONG_BINS = 0.98  # quantile of the bins that is the power of a band, although noise may fill little of it
_USABLE_MODULATION = 0.8  # of a band's width: at faster modulations both a line and its floor vanish
_SAMPLED = 8  # every so many bins tell the level of a band
_CHUNK_SAMPLES = 2**21  # worked on at once


@dataclass(frozen=True, eq=False)
class EnvelopeOrders:
    """Spectrum of the squared envelope of one band of a signal, over orders of the shaft.

    Attributes:
        power: squared amplitude of the modulation, 1 for 100 %, mean over segments, `[K]`.
        bins_per_order: bins in one order, which are the turns in a segment.
        n_segments: segments averaged, half overlapping.
        band_hz: band whose envelope it is.
        impulsiveness: mean square of the envelope's swing: 1 for noise, more for impacts, less for tones.
    """

    power: Tensor
    bins_per_order: float
    n_segments: int
    band_hz: tuple[float, float]
    impulsiveness: float

    @property
    def max_order(self) -> float:
        """Highest order in the spectrum."""
        return (len(self.power) - 1) / self.bins_per_order


class _BandSums(NamedTuple):
    """Sums over segments, of one band."""

    power: Tensor  # [K], of the envelope's spectrum
    swing: float  # mean square of the envelope
    occupied: float  # share of the band that is not empty


class _Band(NamedTuple):
    """What was found in one band, in chunks of segments."""

    band_hz: tuple[float, float]
    parts: Sequence[_BandSums]
    n_segments: int

    @property
    def occupied_hz(self) -> float:
        """Width of the band without its empty bins."""
        return self._mean("occupied") * (self.band_hz[1] - self.band_hz[0])

    def spectrum(self, turns: float, resolution_hz: float) -> EnvelopeOrders:
        """Return the mean spectrum, up to the modulations that the content of the band can have."""
        n_bins = int(_USABLE_MODULATION * self.occupied_hz / resolution_hz) + 1
        power = torch.stack([part.power for part in self.parts]).sum(0)[:n_bins] / self.n_segments
        return EnvelopeOrders(power, turns, self.n_segments, self.band_hz, self._mean("swing"))

    def _mean(self, name: str) -> float:
        return sum(getattr(part, name) for part in self.parts) / self.n_segments


def analysis_bands(sampling_rate_hz: float, rpm: float) -> list[tuple[float, float]]:
    """Return the bands in which a signal is demodulated.

    The lowest reaches to 6 kHz (or 60 orders of the shaft, or half the sampling rate), at any sampling rate: within it
    a resonance competes with the same noise whatever the rate. The bands above are octaves, so that a resonance at
    10 kHz is found where the sampling rate allows.

    Args:
        sampling_rate_hz: sampling rate in Hz, > 0.
        rpm: speed of the shaft in rev/min, > 0.

    Example:
        >>> analysis_bands(12_000, rpm=1800)
        [(240.0, 5760.0)]
        >>> analysis_bands(51_200, rpm=1800)
        [(240.0, 5760.0), (5760.0, 11520.0), (11520.0, 24576.0)]
    """
    nyquist_hz = check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True) / 2
    top_hz = min(nyquist_hz, max(BASE_BAND_HZ, _BASE_ORDERS * check_number("rpm", rpm, 0, open_ends=True) / 60))
    bands = [(_EDGES[0] * top_hz, _EDGES[1] * top_hz)]
    highest_hz = _EDGES[1] * nyquist_hz
    while highest_hz > _HALF_OCTAVE * bands[-1][1]:
        bands.append((bands[-1][1], min(2 * bands[-1][1], highest_hz)))
    bands[-1] = (bands[-1][0], highest_hz)
    return bands


def envelope_orders(
    signal: Tensor, sampling_rate_hz: float, rpm: float, max_order: float = 40.0, n_turns: float = SEGMENT_TURNS
) -> list[EnvelopeOrders]:
    """Compute the envelope spectra of one channel over orders of the shaft, one for each band that is not empty.

    Half-overlapping segments of whole turns, faded in and out, are pre-whitened one by one, and the power spectra of
    their squared envelopes are averaged. Isolated knocks are limited. Gradients flow to the signal.

    Args:
        signal: float32 or float64 `[N]`.
        sampling_rate_hz: sampling rate in Hz, > 0.
        rpm: speed of the shaft in rev/min, > 0.
        max_order: highest order wanted; what a band cannot hold is left out.
        n_turns: turns in a segment, >= 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> swell = 1 + torch.cos(2 * torch.pi * 3.5 * 30 * torch.arange(120_000) / 12_000)
        >>> (found,) = envelope_orders(swell * torch.randn(120_000, generator=generator), 12_000, rpm=1800)
        >>> round(found.power.argmax().item() / found.bins_per_order, 3), found.n_segments
        (3.5, 14)
    """
    length = segment_length(len(signal), sampling_rate_hz, rpm, n_turns)
    resolution_hz, turning_hz = sampling_rate_hz / length, rpm / 60
    bands = analysis_bands(sampling_rate_hz, rpm)
    sums = []
    n_segments = 0
    for chunk in overlapping_segments(signal, length).split(max(1, _CHUNK_SAMPLES // length)):
        spectrum = torch.fft.rfft(taper_ends(chunk - chunk.mean(-1, keepdim=True)))
        n_segments += len(chunk)
        sums.append(_sums_over_segments(spectrum, resolution_hz, bands, max_order * turning_hz))
    turns = length * turning_hz / sampling_rate_hz
    by_band = [_Band(band_hz, parts, n_segments) for band_hz, parts in zip(bands, zip(*sums, strict=True), strict=True)]
    widest = max(by_band, key=lambda band: band.occupied_hz)
    return [
        band.spectrum(turns, resolution_hz)
        for band in by_band
        if band is widest or band.occupied_hz >= _LEAST_OCCUPIED * (band.band_hz[1] - band.band_hz[0])
    ]


def _sums_over_segments(
    spectrum: Tensor, resolution_hz: float, bands_hz: Sequence[tuple[float, float]], max_modulation_hz: float
) -> list[_BandSums]:
    """Return the sums of each band over segments `[M, F]`."""
    samples = [_sampled_power(spectrum, resolution_hz, band_hz) for band_hz in bands_hz]
    strongest = torch.stack([_quantile(power, _STRONG_BINS) for power in samples]).amax(0)
    empty = _EMPTY * strongest[:, None]
    found = []
    for band_hz, sample in zip(bands_hz, samples, strict=True):
        max_hz = min(max_modulation_hz, _USABLE_MODULATION * (band_hz[1] - band_hz[0]))
        envelopes = prewhitened_envelope(spectrum, resolution_hz, band_hz, max_hz, empty.sqrt())
        power = modulation_power(envelopes)[..., : int(max_hz / resolution_hz) + 1].sum(0)
        occupied = (sample > empty).float().mean(-1).sum()
        found.append(_BandSums(power, float(envelopes.detach().square().mean(-1).sum()), float(occupied)))
    return found


def _sampled_power(spectrum: Tensor, resolution_hz: float, band_hz: tuple[float, float]) -> Tensor:
    """Return the power of some bins of a band, `[M, B]`."""
    low, high = (round(edge / resolution_hz) for edge in band_hz)
    sample = spectrum[..., low : high + 1 : _SAMPLED].detach()
    return sample.real.square() + sample.imag.square()


def _quantile(values: Tensor, share: float) -> Tensor:
    """Return the value that a share of the last axis does not exceed; `torch.quantile` sorts, which takes longer."""
    return values.kthvalue(math.ceil(share * values.shape[-1]), -1).values
