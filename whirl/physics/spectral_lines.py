"""Detection of spectral lines: the strongest bin of a search window relative to the noise floor around it, in dB."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whirl.physics.features import Feature, Window

FALSE_ALARM = 0.01
"""Fraction of search windows with noise alone in which the evidence exceeds 0 dB."""

DB = 10 / math.log(10)
"""Decibels per e-fold of power."""

_EULER = 0.5772156649  # log of the mean minus mean of the log of an exponentially distributed noise bin
_HANN_GAIN = 1.5  # noise power in `hann_power` relative to that in the spectrum without a window
_LEAKAGE_BINS = 2  # a line leaks into this many bins on either side of its peak under a Hann window
# Width of the noise floor on either side of a search window, in orders and at least in bins. 2 x 16 bins give the floor
# to 1 dB; that of the envelope spectrum is flat and contains many lines.
_FLOOR_ORDERS = {"raw": 0.35, "envelope": 0.75}
_FLOOR_BINS = {"raw": 16, "envelope": 48}


@dataclass(frozen=True)
class _SearchWindow:
    """Window of a feature in one of the spectra."""

    feature: int  # index
    band: int  # index of the envelope spectrum, -1 for the raw spectrum
    window: Window
    gap: float  # distance to the nearest other line, in the unit of the window


class SpectralLineDetector:
    """Detector of the lines of L features in concatenated spectra: the raw spectrum, then the envelopes of S bands.

    There are W search windows, one for each window of a feature in each of its spectra. A window is sampled at fixed
    fractions of its width, spaced at most one bin apart at the highest speed, so that one gather serves a batch of
    different speeds; the noise floor comes from cumulative sums. Everything that does not depend on the speed is
    precomputed, since for short signals the number of operations costs more than their arithmetic.

    Args:
        features: features that are lines, at least one.
        bin_hz: spacing of the bins.
        raw_bins: number of valid bins of the raw spectrum.
        envelope_bins: number of valid bins of each envelope spectrum.
        n_bands: S.
        max_rate_hz: highest shaft speed in revolutions per second.
        device: device of the spectra.

    Attributes:
        raw_bins: number of bins of the raw spectrum that `__call__` expects, 0 if it is not searched.
        envelope_bins: the same for each envelope spectrum.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        bin_hz: float,
        raw_bins: int,
        envelope_bins: int,
        n_bands: int,
        max_rate_hz: float,
        device: torch.device,
    ) -> None:
        self.features, self.bin_hz = tuple(features), bin_hz
        self.search_windows = _search_windows(features, n_bands)
        owners = [features[each.feature] for each in self.search_windows]
        spectra = ["envelope" if owner.kind == "envelope" else "raw" for owner in owners]
        limits = {"raw": raw_bins, "envelope": envelope_bins}
        windows = torch.tensor([each.window for each in self.search_windows])
        in_orders = torch.tensor([float(owner.unit == "order") for owner in owners])
        floor_orders = torch.tensor([_FLOOR_ORDERS[spectrum] for spectrum in spectra])
        floor_bins = torch.tensor([float(_FLOOR_BINS[spectrum]) for spectrum in spectra])
        scale = (in_orders * max_rate_hz + 1 - in_orders) / bin_hz  # bins per unit of the window at the highest speed
        reach = torch.maximum(floor_orders * max_rate_hz / bin_hz, floor_bins) + _LEAKAGE_BINS
        needed = {"raw": 0, "envelope": 0}
        for spectrum, bins in zip(spectra, (windows[:, 1] * scale + reach).tolist(), strict=True):
            needed[spectrum] = min(max(needed[spectrum], math.ceil(bins) + 2), limits[spectrum])
        self.raw_bins, self.envelope_bins = needed["raw"], needed["envelope"]

        def tensor(values: Sequence[float] | Sequence[bool] | Sequence[int]) -> Tensor:
            return torch.tensor(values, device=device)

        bands = [each.band for each in self.search_windows]
        starts = [band * needed["envelope"] + needed["raw"] if band >= 0 else 0 for band in bands]
        self.first = tensor([float(start) for start in starts])
        self.second = self.first + 1
        self.last = self.first + tensor([float(needed[spectrum] - 2) for spectrum in spectra])  # has both neighbors
        # bins per unit of a window: fixed + per_hz * rate_hz, with limits between which its line can be measured
        self.per_hz, self.fixed = (in_orders / bin_hz).to(device), ((1 - in_orders) / bin_hz).to(device)
        self.min_scale = 1 / tensor([each.gap for each in self.search_windows])
        self.max_scale = tensor([limits[spectrum] - 1.0 for spectrum in spectra]) / windows[:, 1].to(device)
        widest = ((windows[:, 1] - windows[:, 0]) * scale).max().item()
        fractions = torch.linspace(0, 1, math.ceil(widest) + 1 if widest > 1 else 2)[:, None]
        low, high = windows.T
        self.points = torch.lerp(low, high, fractions).to(device)  # [n, W]
        # [4, W]: where the sums of the floor below and above the window start, exclusively, and where the two end
        self.edges = torch.stack([low, high, low, high]).to(device)
        self.margin = _LEAKAGE_BINS * tensor([-1.0, 1.0, -1.0, 1.0])[:, None]
        self.outward = tensor([-1.0, 0.0, 0.0, 1.0])[:, None]
        self.floor_bins_per_hz, self.floor_bins = (floor_orders / bin_hz).to(device), floor_bins.to(device)
        # shaft lines are relative to a density, not to a local floor: dividing its sum by infinity makes it 0
        self.min_count = tensor([math.inf if owner.kind == "shaft" else 1.0 for owner in owners])
        self.offset = tensor([math.log(_HANN_GAIN) if feature.kind == "shaft" else _EULER for feature in features])
        self.has_zero = tensor([float(feature.kind != "shaft") for feature in features])
        self.is_max = tensor([feature.combine == "max" for feature in features])
        members, weights, trials = _grouping(self.features, self.search_windows, n_bands)
        self.members, self.weights = members.flatten().to(device), weights.to(device)
        trials = trials.to(device)
        width = (high - low).to(device)[:, None] * trials
        self.fixed_trials = (self.fixed[:, None] * width + trials).sum(0)
        self.trials_per_hz = (self.per_hz[:, None] * width).sum(0)

    def __call__(self, power: Tensor, rate_hz: Tensor) -> Tensor:
        """Compute the evidence of each feature in the spectrum that shows it best.

        Args:
            power: output of `hann_power`, `[R, raw_bins + S * envelope_bins]` without the last bin; overwritten. The
                signals must be scaled so that the structural band, the reference of lines of kind `"shaft"`, has a
                power of 1 per bin without a window.
            rate_hz: `[R]`, revolutions per second.

        Returns:
            `[R, L]`, natural logarithm of power; NaN where a line lies above the spectrum or within one bin of another
            line.
        """
        rate = rate_hz[:, None]
        scale = torch.addcmul(self.fixed, rate, self.per_hz)  # [R, W], bins per unit of the windows
        log_power = log_(power)
        at = (scale[:, None] * self.points).round_().add_(self.first).clamp_(self.second, self.last).long()
        peak = log_power.gather(1, at.flatten(1)).view(at.shape).amax(1)
        unknown = scale.clamp(self.min_scale, self.max_scale) != scale
        ratio = peak.sub_(self._floor(log_power, scale, rate)).masked_fill_(unknown, torch.nan)
        each = ratio.index_select(1, self.members).view(-1, *self.weights.shape)  # [R, windows, S, L]
        combined = torch.where(self.is_max, each.amax(1), (each * self.weights).sum(1)).amax(1)
        threshold = _log_noise_maximum(torch.addcmul(self.fixed_trials, rate, self.trials_per_hz))
        return combined.sub_(torch.addcmul(self.offset, threshold, self.has_zero))

    def _floor(self, log_power: Tensor, scale: Tensor, rate: Tensor) -> Tensor:
        """Return the mean log power [R, W] on both sides of the windows, without bin 0; 0 for shaft lines."""
        reach = (rate * self.floor_bins_per_hz).maximum(self.floor_bins)
        edges = torch.addcmul(self.margin, scale[:, None], self.edges).addcmul_(reach[:, None], self.outward)
        edges = edges.floor_().add_(self.first).clamp_(self.first, self.last)
        sums = log_power.cumsum(1).gather(1, edges.flatten(1).long()).view(edges.shape)
        return _sum_both_sides(sums).div_(_sum_both_sides(edges).maximum(self.min_count))

    def warn_unresolvable(self, slowest_hz: float, fastest_hz: float) -> None:
        """Warn about features that cannot be measured at these speeds, with the remedy."""
        rates_hz = torch.tensor([[slowest_hz], [fastest_hz]], device=self.fixed.device)
        scale = self.fixed + rates_hz * self.per_hz
        unresolved, above = scale[0] < self.min_scale, scale[1] > self.max_scale
        if unresolved.any():
            needed_s = (self.min_scale / scale[0])[unresolved].max().item() / self.bin_hz
            warnings.warn(
                f"windows of {1 / self.bin_hz:.3g} s are too short to resolve {self._names(unresolved)} from adjacent "
                f"lines at {60 * slowest_hz:.0f} rpm, so their evidence is NaN; use windows of at least "
                f"{math.ceil(1000 * needed_s) / 1000} s",
                stacklevel=6,
            )
        if above.any():
            warnings.warn(
                f"{self._names(above)} at {60 * fastest_hz:.0f} rpm lie above the highest frequency of their spectrum, "
                "so their evidence is NaN; use a higher sampling rate",
                stacklevel=6,
            )

    def _names(self, chosen: Tensor) -> str:
        chosen_windows = [each for each, is_in in zip(self.search_windows, chosen.tolist(), strict=True) if is_in]
        return ", ".join(dict.fromkeys(self.features[each.feature].name for each in chosen_windows))


def _log_noise_maximum(n_bins: Tensor) -> Tensor:
    """Return the log of what the largest of n independent noise bins exceeds in 1 % of cases, relative to their mean.

    The power of a noise bin is exponentially distributed, so the threshold is `-ln(1 - (1 - a)^(1/n))` times its mean;
    with `(1 - a)^(1/n) ~ 1 + ln(1 - a) / n`, accurate to 0.005 dB, that is `ln n - ln(-ln(1 - a))`.
    """
    return n_bins.log().add_(-math.log(-math.log1p(-FALSE_ALARM))).log_()


def hann_power(spectra: Tensor) -> Tensor:
    """Compute the power of Hann-windowed signals, `[R, F - 2]`, in all but the outermost bins.

    `X[k] - (X[k - 1] + X[k + 1]) / 2` is twice the spectrum of the signal times `(1 - cos(2 pi t / N)) / 2`.

    Args:
        spectra: `[R, F, 2]`, real and imaginary parts of the spectrum without a window.
    """
    return power_of_(spectra[:, 1:-1].sub(spectra[:, :-2] + spectra[:, 2:], alpha=0.5))


def power_of_(parts: Tensor) -> Tensor:
    """Compute the squared magnitude `[...]` of real and imaginary parts `[..., 2]`, which are overwritten."""
    squares = parts.square_()  # complex arithmetic and strided squares are several times slower
    return squares[..., 0] + squares[..., 1]


def log_(power: Tensor) -> Tensor:
    """Compute the natural logarithm in place, finite at 0."""
    return power.clamp_min_(torch.finfo(power.dtype).tiny).log_()


def _sum_both_sides(edges: Tensor) -> Tensor:
    """Return totals [R, W] on both sides of each window from running totals [R, 4, W] at their edges."""
    return (edges[:, 2:] - edges[:, :2]).sum(1)


def _search_windows(features: Sequence[Feature], n_bands: int) -> list[_SearchWindow]:
    return [
        _SearchWindow(index, band, window, gap)
        for index, feature in enumerate(features)
        for band in (range(n_bands) if feature.kind == "envelope" else (-1,))
        for window, gap in zip(feature.windows, _gaps(feature, features), strict=True)
    ]


def _gaps(feature: Feature, features: Sequence[Feature]) -> list[float]:
    """Return the distance of each window's center to the nearest other line of its spectrum."""
    other_lines = [
        sum(window) / 2
        for each in features
        if each is not feature and each.unit == feature.unit
        if (each.kind == "envelope") == (feature.kind == "envelope")
        for window in each.windows
    ]
    gaps = []
    for low, high in feature.windows:
        shaft = range(math.ceil(high) + 2) if feature.unit == "order" else (0,)
        gaps.append(min(abs(at - (low + high) / 2) for at in (*other_lines, *shaft) if not low <= at <= high))
    return gaps


def _grouping(
    features: Sequence[Feature], search_windows: Sequence[_SearchWindow], n_bands: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Map search windows to features.

    Returns:
        Indices [max windows, S or 1, L] of a feature's search windows in each band, padded with the first; their
        weights in a mean, of the same shape; and [W, L], the contribution of a search window to the number of noise
        bins that a feature's maximum is taken over.
    """
    max_windows = max(len(feature.windows) for feature in features)
    members = torch.zeros(max_windows, max(n_bands, 1), len(features), dtype=torch.long)
    weights = torch.zeros(members.shape)
    trials = torch.zeros(len(search_windows), len(features))
    for index, feature in enumerate(features):
        n_windows = len(feature.windows)
        weights[:n_windows, :, index] = 1 / n_windows
        for band in range(members.shape[1]):
            searched = band if feature.kind == "envelope" else -1
            own = [at for at, each in enumerate(search_windows) if (each.feature, each.band) == (index, searched)]
            members[:, band, index] = torch.tensor(own + own[:1] * (max_windows - n_windows))
            trials[own, index] = 1 if feature.combine == "max" else 1 / n_windows
    return members, weights, trials
