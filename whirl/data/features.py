"""Features of windows for classical models, computed from the samples, the spectrum and the envelope.

All features are computed after subtracting the mean, the offset of the sensor. Features with the unit `SIGNAL` have the
unit of the signal. For standardized windows they are in standard deviations: `rms` is always 1, and the vibration level
of the machine is lost. Dimensionless features and those in Hz do not depend on gain. All features of a constant window
are 0, except those in dB.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from whirl._precision import at_least_float32
from whirl.data.windows import Windows
from whirl.dsp.envelope import amplitude_spectrum, envelope_spectrum, squared_envelope
from whirl.physics.evidence import DEMODULATION_BANDS, OrderEvidence
from whirl.physics.rolling_bearing import FaultOrders
from whirl.validation import check_batch, check_number

SIGNAL = "signal"
"""Placeholder for the unit of the signals."""

MIN_SAMPLES = 16
"""Shortest window for which features are defined, in samples."""

SPECTRUM_BANDS = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
"""Edges of the bands for the distribution of power, as fractions of the Nyquist frequency."""

RESONANCES = (0.25, 0.95)
"""Band for the envelope spectrum, as fractions of the Nyquist frequency; contains structural resonances."""

MODULATIONS = 1 / 8
"""Highest modulation frequency, as a fraction of the Nyquist frequency."""

SPEED_LINES = {"whirl": 0.44, "0.5x": 0.5, "1x": 1.0, "1.5x": 1.5, "2x": 2.0, "3x": 3.0, "4x": 4.0, "5x": 5.0}
"""Shaft orders whose amplitude is a feature; oil whirl covers orders 0.40 to 0.48."""

ENVELOPE_LINES = {"1x": 1.0, "2x": 2.0}
"""Shaft orders at which the modulation of the envelope is a feature."""

_SPEED_TOLERANCE = 0.01  # relative error of the speed, due to slip or a rounded nameplate value
_WHIRL_TOLERANCE = 0.09  # orders 0.40 to 0.48 around 0.44
_ROLLOFF = 0.85
_FLOOR = 1e-10  # relative to the mean power, -100 dB; avoids the logarithm of an empty bin
_ROUNDING = 1e-6  # a signal with a smaller peak, relative to its mean, is constant
_HANN_BINS = 1.5  # sum of squared amplitudes over the bins of a unit sinusoid under a Hann window
_MAIN_LOBE = 2  # bins on either side


class Feature(NamedTuple):
    """Description of a feature.

    Attributes:
        name: name, e.g. `"rms"`.
        unit: `"Hz"`, `"dB"`, `SIGNAL` for the unit of the signals, or `""` for dimensionless features.
    """

    name: str
    unit: str


TIME_FEATURES = (
    Feature("rms", SIGNAL),
    Feature("peak", SIGNAL),
    Feature("peak_to_peak", SIGNAL),
    Feature("crest_factor", ""),
    Feature("shape_factor", ""),
    Feature("impulse_factor", ""),
    Feature("clearance_factor", ""),
    Feature("skewness", ""),
    Feature("kurtosis", ""),
)
_SPECTRUM_SHAPE = (
    Feature("spectral_centroid", "Hz"),
    Feature("spectral_spread", "Hz"),
    Feature("spectral_skewness", ""),
    Feature("spectral_kurtosis", ""),
    Feature("spectral_rolloff", "Hz"),
    Feature("spectral_peak", "Hz"),
    Feature("spectral_entropy", ""),
    Feature("spectral_flatness", ""),
)
_MODULATION = (
    Feature("modulation_peak", "Hz"),
    Feature("modulation_depth", ""),
    Feature("modulation_entropy", ""),
)


def feature_table(
    sampling_rate_hz: float, with_speed: bool = False, orders: FaultOrders | None = None
) -> tuple[Feature, ...]:
    """Return names and units of the features of one channel, in the order of `signal_features`.

    Args:
        sampling_rate_hz: sampling rate of the signals, > 0; determines the names of the bands.
        with_speed: whether the shaft speed is known.
        orders: fault orders of a rolling bearing; require a known speed.

    Example:
        >>> features = feature_table(12_000, with_speed=True)
        >>> len(features), features[0], features[-1].name
        (42, Feature(name='rms', unit='signal'), 'envelope_2x')
        >>> [name for name, _ in features if name.startswith("power")][:2]
        ['power_0_187.5_hz', 'power_187.5_375_hz']
    """
    nyquist_hz = check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True) / 2
    edges = itertools.pairwise(SPECTRUM_BANDS)
    shares = [Feature(f"power_{_band_name(low, high, nyquist_hz)}", "") for low, high in edges]
    impacts = [Feature(f"envelope_kurtosis_{_band_name(*band, nyquist_hz)}", "") for band in DEMODULATION_BANDS]
    lines = [Feature(f"line_{name}", SIGNAL) for name in SPEED_LINES]
    modulations = [Feature(f"envelope_{name}", "") for name in ENVELOPE_LINES]
    always = (*TIME_FEATURES, *_SPECTRUM_SHAPE, *shares, *impacts, *_MODULATION)
    names = _evidence(orders, sampling_rate_hz).names if orders is not None else ()
    evidence = [Feature(f"evidence_{name.lower().replace(' ', '_')}", "dB") for name in names]
    return (*always, *lines, *modulations, *evidence) if with_speed else always


def _band_name(low: float, high: float, nyquist_hz: float) -> str:
    return f"{low * nyquist_hz:.6g}_{high * nyquist_hz:.6g}_hz"


@torch.no_grad()
def signal_features(
    signals: Tensor, sampling_rate_hz: float, rpm: Tensor | None = None, orders: FaultOrders | None = None
) -> Tensor:
    """Compute the features of every window and channel.

    The features are `time_features`, `spectral_features` and `envelope_features`; with a known shaft speed also
    `speed_features`; with fault orders of a rolling bearing also the evidence of its faults. They are computed in
    float32 or float64.

    Args:
        signals: float `[B, C, T]`, T >= 16, finite, in any unit, standardized or not.
        sampling_rate_hz: sampling rate of the signals, > 0.
        rpm: shaft speed, `[B]`, rev/min, > 0; NaN where unknown.
        orders: fault orders of a rolling bearing on the shaft, for the evidence of
            `physics.evidence.OrderEvidence.rolling` in each channel, in dB; 0 dB (half present) where unknown. On a
            real test rig, a random forest classified unseen bearings hardly better than chance with all other features,
            and three of four windows correctly with these. They need windows of about a second.

    Returns:
        Features `[B, C, F]` with the columns of `feature_table`, finite except for the speed features of windows of
        unknown speed, which are NaN.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is invalid, or there are orders without speeds; on a CPU also a speed that is not
            positive or, with orders, not supported by `OrderEvidence`.

    Example:
        >>> time_s = torch.arange(4096) / 4096
        >>> signals = 2 * torch.sin(2 * torch.pi * 100 * time_s)[None, None]
        >>> names = [name for name, _ in feature_table(4096, with_speed=True)]
        >>> found = dict(zip(names, signal_features(signals, 4096, torch.tensor([3000.0]))[0, 0].tolist()))
        >>> [round(found[name], 3) for name in ("rms", "crest_factor", "kurtosis", "spectral_peak", "line_2x")]
        [1.414, 1.414, 1.5, 100.0, 2.0]
    """
    check_batch(signals, rpm)
    if signals.shape[-1] < MIN_SAMPLES:
        raise ValueError(f"windows have {signals.shape[-1]} samples, expected at least {MIN_SAMPLES}")
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    work = at_least_float32(signals)
    blocks = [
        time_features(work),
        spectral_features(work, sampling_rate_hz),
        envelope_features(work, sampling_rate_hz),
    ]
    if rpm is not None:
        blocks.append(speed_features(work, sampling_rate_hz, rpm))
    if orders is not None:
        blocks.append(_evidence_of_channels(work, sampling_rate_hz, rpm, orders))
    return torch.cat(blocks, -1)


def _evidence_of_channels(signals: Tensor, sampling_rate_hz: float, rpm: Tensor | None, orders: FaultOrders) -> Tensor:
    if rpm is None:
        raise ValueError("rpm is None, expected the speed of every window; fault orders are multiples of it")
    rows = _evidence(orders, sampling_rate_hz)(signals.flatten(0, 1), rpm.repeat_interleave(signals.shape[1]))
    return rows.nan_to_num(0.0).view(*signals.shape[:2], -1).to(signals)


@functools.lru_cache(maxsize=8)
def _evidence(orders: FaultOrders, sampling_rate_hz: float) -> OrderEvidence:
    return OrderEvidence.rolling(sampling_rate_hz, orders)


def time_features(signals: Tensor) -> Tensor:
    """Compute features of the samples x after subtracting their mean: level and impulsiveness.

    | name | formula | sine | noise |
    |---|---|---|---|
    | rms | `sqrt(mean x^2)` | 0.71 A | |
    | peak | `max abs x` | A | |
    | peak_to_peak | `max x - min x` | 2 A | |
    | crest_factor | `peak / rms` | 1.41 | |
    | shape_factor | `rms / mean abs x` | 1.11 | 1.25 |
    | impulse_factor | `peak / mean abs x` | 1.57 | |
    | clearance_factor | `peak / (mean sqrt(abs x))^2` | 1.72 | |
    | skewness | `mean x^3 / rms^3` | 0 | 0 |
    | kurtosis | `mean x^4 / rms^4` | 1.5 | 3 |

    Impacts of a damaged rolling bearing increase all factors and the kurtosis (Dyer & Stewart 1978, J. Mech. Design
    100:229; Lei et al. 2008, Expert Systems with Applications 35:1593).

    Args:
        signals: float32 or float64 `[B, C, T]`.

    Returns:
        Features `[B, C, 9]` in the order of `TIME_FEATURES`.

    Example:
        >>> square_wave = torch.tensor([1.0, -1.0]).repeat(8)[None, None]
        >>> time_features(square_wave)
        tensor([[[1., 1., 2., 1., 1., 1., 1., 0., 1.]]])
    """
    unit, rms = _normalize_power(signals)
    size = unit.abs()
    peak, mean, root = size.amax(-1), size.mean(-1), size.sqrt().mean(-1).square()
    square = unit.square()
    range_ = unit.amax(-1) - unit.amin(-1)
    factors = (peak, _ratio(square.mean(-1), mean), _ratio(peak, mean), _ratio(peak, root))
    moments = ((square * unit).mean(-1), square.square().mean(-1))
    return torch.stack((rms, rms * peak, rms * range_, *factors, *moments), -1)


def spectral_features(signals: Tensor, sampling_rate_hz: float) -> Tensor:
    """Compute features of the power spectrum: location and spread of the power.

    p is the share of the power in a bin, from one Hann window over all samples. The F bins are those between 0 and the
    Nyquist frequency, both excluded.

    | name | formula |
    |---|---|
    | spectral_centroid, c | `sum f p`, Hz |
    | spectral_spread, s | `sqrt(sum (f - c)^2 p)`, Hz |
    | spectral_skewness | `sum (f - c)^3 p / s^3` |
    | spectral_kurtosis | `sum (f - c)^4 p / s^4`; 1.8 for white noise |
    | spectral_rolloff | lowest f below which 85 % of the power is, Hz |
    | spectral_peak | f of the strongest bin, Hz |
    | spectral_entropy | `-sum p ln p / ln F`, 0 to 1; 1 if all bins are equal |
    | spectral_flatness | `geometric mean p / mean p`, 0 to 1; 0.56 for white noise |
    | power_low_high_hz | share of the power in (low, high]; the bands of `SPECTRUM_BANDS` sum to 1 |

    Moments, rolloff and flatness: Peeters 2004, "A large set of audio features for sound description", IRCAM; for
    machines Lei et al. 2008, Expert Systems with Applications 35:1593. Entropy: Inouye et al. 1991,
    Electroencephalogr. Clin. Neurophysiol. 79:204. The kurtosis describes the shape of the spectrum, unlike
    the spectral kurtosis over time of Antoni 2006.

    Args:
        signals: float32 or float64 `[B, C, T]`, T >= 4.
        sampling_rate_hz: sampling rate, > 0.

    Returns:
        Features `[B, C, 16]`.
    """
    share, frequency = _power_shares(signals, sampling_rate_hz)
    frequency = frequency / (sampling_rate_hz / 2)  # 0 to 1: powers of Hz would exceed the range of float32
    centroid = share @ frequency
    off = frequency - centroid[..., None]
    spread = (share * off.square()).sum(-1).sqrt()
    third, fourth = (_ratio((share * off**power).sum(-1), spread**power) for power in (3, 4))
    rolloff = frequency[(share.cumsum(-1) < _ROLLOFF).sum(-1).clamp(max=len(frequency) - 1)]
    strongest = frequency[share.argmax(-1)]
    flatness = share.clamp_min(_FLOOR / len(frequency)).log().mean(-1).exp() * len(frequency)
    columns = (centroid, spread, third, fourth, rolloff, strongest, _entropy(share), flatness)
    scale = share.new_tensor([sampling_rate_hz / 2 if unit == "Hz" else 1 for _, unit in _SPECTRUM_SHAPE])
    shape = torch.stack(columns, -1) * scale * share.any(-1, keepdim=True)
    edges = torch.tensor(SPECTRUM_BANDS, device=frequency.device, dtype=frequency.dtype)
    inside = (frequency[:, None] > edges[:-1]) & (frequency[:, None] <= edges[1:])
    return torch.cat((shape, share @ inside.to(share)), -1)


def envelope_features(signals: Tensor, sampling_rate_hz: float) -> Tensor:
    """Compute features of the squared envelope e of frequency bands: strength, regularity and rate of impacts.

    | name | formula |
    |---|---|
    | envelope_kurtosis_low_high_hz | `mean e^2 / (mean e)^2`, for each of `DEMODULATION_BANDS`: 1 tone, 2 noise |
    | modulation_peak | frequency of the strongest modulation of the band `RESONANCES`, Hz |
    | modulation_depth | amplitude of that modulation, as a fraction of the mean power of the band |
    | modulation_entropy | `-sum q ln q / ln Q` with the shares q of the Q modulations in their power |

    Modulations are the bins of `whirl.dsp.envelope.envelope_spectrum` from the third one, above the main lobe of the
    window function, up to `MODULATIONS`. Kurtosis of the complex envelope: Antoni 2007, Mechanical Systems and Signal
    Processing 21:108; spectrum of the squared envelope: Randall & Antoni 2011, ibid. 25:485.

    Args:
        signals: float32 or float64 `[B, C, T]`, T >= 4.
        sampling_rate_hz: sampling rate, > 0.

    Returns:
        Features `[B, C, 7]`.
    """
    unit, _ = _normalize_power(signals)
    bands_hz = [(low * sampling_rate_hz / 2, high * sampling_rate_hz / 2) for low, high in DEMODULATION_BANDS]
    kurtosis = [squared_envelope(unit, sampling_rate_hz, band).square().mean(-1) for band in bands_hz]
    amplitude, frequency_hz = _modulations(unit, sampling_rate_hz)
    within = slice(_MAIN_LOBE + 1, max(_MAIN_LOBE + 2, int(MODULATIONS * len(frequency_hz))))
    depth, strongest = amplitude[..., within].max(-1)
    peak_hz = frequency_hz[within][strongest] * (depth > 0)
    power = amplitude[..., within].square()
    shares = _ratio(power, power.sum(-1, keepdim=True))
    return torch.stack((*kurtosis, peak_hz, depth, _entropy(shares)), -1)


def speed_features(signals: Tensor, sampling_rate_hz: float, rpm: Tensor) -> Tensor:
    """Compute features at shaft orders: amplitudes of spectral lines and of modulations of the envelope.

    | name | formula |
    |---|---|
    | line_whirl | amplitude at orders 0.40 to 0.48: oil whirl |
    | line_0.5x, line_1x, ... | amplitude of the sinusoid at that order: `rms sqrt(2 sum p)` over the line's bins |
    | envelope_1x, envelope_2x | modulation of the power in the band `RESONANCES` at that order, relative to its mean |

    p is defined as in `spectral_features`. The bins of a line are those within 1 % of its frequency, at least two on
    either side, which contain the total power of a sinusoid. Lines half an order apart are not resolved by windows of
    fewer than 8 revolutions, oil whirl and 0.5x not by those of fewer than 100. A line above the Nyquist frequency is
    0. For the lines of each fault see `whirl.physics.faults`.

    Args:
        signals: float32 or float64 `[B, C, T]`, T >= 4.
        sampling_rate_hz: sampling rate, > 0.
        rpm: shaft speed, `[B]`, rev/min, > 0; NaN where unknown.

    Returns:
        Features `[B, C, 10]`; NaN where the speed is unknown.

    Raises:
        ValueError: a speed is not positive (checked on CPU only).
    """
    if rpm.device.type == "cpu" and bool((wrong := (rpm <= 0) | rpm.isinf()).any()):
        raise ValueError(f"rpm is {rpm[wrong][0].item():g}, expected a finite number > 0, or NaN if unknown")
    share, frequency_hz = _power_shares(signals, sampling_rate_hz)
    unit, rms = _normalize_power(signals)
    amplitude, modulation_hz = _modulations(unit, sampling_rate_hz)
    rate_hz = rpm.to(share) / 60
    lines = rms[..., None] * (2 * _line_power(share, frequency_hz, rate_hz, SPEED_LINES)).sqrt()
    modulations = (_line_power(amplitude.square(), modulation_hz, rate_hz, ENVELOPE_LINES) / _HANN_BINS).sqrt()
    return torch.cat((lines, modulations), -1).masked_fill(rate_hz.isnan()[:, None, None], torch.nan)


def _line_power(power: Tensor, frequency_hz: Tensor, rate_hz: Tensor, orders: dict[str, float]) -> Tensor:
    """Sum the power `[B, C, F]` in the bins of each line, `[B, C, L]`."""
    tolerance = [_WHIRL_TOLERANCE if name == "whirl" else _SPEED_TOLERANCE for name in orders]
    centers_hz = rate_hz[:, None] * power.new_tensor(list(orders.values()))
    reach_hz = (centers_hz * power.new_tensor(tolerance)).clamp_min(
        _MAIN_LOBE * float(frequency_hz[1] - frequency_hz[0])
    )
    inside = (frequency_hz[:, None] - centers_hz[:, None]).abs() <= reach_hz[:, None]  # [B, F, L]
    return power @ inside.to(power)


def _power_shares(signals: Tensor, sampling_rate_hz: float) -> tuple[Tensor, Tensor]:
    """Return the share of the power in each bin, `[B, C, F]`, without 0 and Nyquist, and the frequencies in Hz."""
    unit, _ = _normalize_power(signals)
    amplitude, frequency_hz = amplitude_spectrum(unit, sampling_rate_hz)
    inner = slice(1, (signals.shape[-1] + 1) // 2)
    power = amplitude[..., inner].square()
    return _ratio(power, power.sum(-1, keepdim=True)), frequency_hz[inner]


def _modulations(unit: Tensor, sampling_rate_hz: float) -> tuple[Tensor, Tensor]:
    low, high = RESONANCES
    return envelope_spectrum(unit, sampling_rate_hz, (low * sampling_rate_hz / 2, high * sampling_rate_hz / 2))


def _normalize_power(signals: Tensor) -> tuple[Tensor, Tensor]:
    """Return signals with mean 0 and RMS 1, and their RMS `[B, C]`; zeros for constant signals."""
    mean = signals.mean(-1, keepdim=True)
    centered = signals - mean
    peak = centered.abs().amax(-1, keepdim=True)
    peak = peak * (peak > _ROUNDING * mean.abs())
    scaled = torch.where(peak > 0, centered / peak, 0)  # at most 1, so that squares stay in the range of float32
    rms = scaled.square().mean(-1, keepdim=True).sqrt()
    return _ratio(scaled, rms), (rms * peak).squeeze(-1)


def _entropy(shares: Tensor) -> Tensor:
    """Return the normalized Shannon entropy, 0 to 1, of shares `[..., F]` that sum to 1."""
    return torch.special.entr(shares).sum(-1) / math.log(max(shares.shape[-1], 2))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide by a non-negative tensor; 0 / 0 is 0."""
    return numerator / denominator.clamp_min(_tiny(denominator))


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny


def evidence_features(
    windows: Windows, evidence: Callable[[Tensor, Tensor], Tensor], batch_size: int = 256, unknown_db: float = 0.0
) -> Tensor:
    """Compute the evidence of faults in every window, e.g. for scikit-learn.

    Args:
        windows: a `WindowDataset` or a subset of one.
        evidence: a `whirl.physics.evidence.OrderEvidence`, whose `names` are the columns.
        batch_size: number of windows processed at once, >= 1.
        unknown_db: value that replaces NaN, where the evidence is unknown; 0 dB means half present.

    Returns:
        Evidence `[W, L]` in dB, float32.

    Example:
        >>> import numpy as np
        >>> from whirl.physics.evidence import OrderEvidence
        >>> from whirl.data.recording import Recording
        >>> from whirl.data.windows import WindowDataset
        >>> turns = 25 * np.arange(20480) / 2560
        >>> rng = np.random.default_rng(0)
        >>> recording = Recording(np.sin(4 * np.pi * turns) + rng.standard_normal(20480), 2560, rpm=1500, label="a")
        >>> search = OrderEvidence.journal(2560)
        >>> features = evidence_features(WindowDataset([recording], ["a"], window=4096), search)
        >>> features.shape, search.names[int(features[0, :7].argmax())]
        (torch.Size([5, 11]), '2X')
    """
    rows = torch.arange(len(windows)).split(batch_size)
    return torch.cat([_batch_evidence(windows[row], evidence) for row in rows]).nan_to_num(unknown_db)


def _batch_evidence(batch: Any, evidence: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    signals, _, metadata = batch
    return evidence(signals, metadata["rpm"])
