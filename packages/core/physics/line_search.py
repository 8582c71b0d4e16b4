"""Lines in power spectra: the strongest bin of a window of orders over the noise beside it, in dB."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from packages.core.physics.features import Feature, Window

FALSE_ALARM = 0.01
"""Share of windows of noise alone in which a line reaches 0 dB."""

DB = 10 / math.log(10)
"""Decibels for each e-fold of power."""

_EULER = 0.5772156649  # log of the mean less mean of the log of a noise bin, which is exponentially distributed
_HANN_GAIN = 1.5  # power of noise in `hann_power` over that in the spectrum without a window
_LEAKAGE_BINS = 2  # a Hann line reaches as far to either side
_REACH_ORDERS = {"raw": 0.35, "envelope": 0.75}  # how far to either side of a window its floor is taken, and at least
_REACH_BINS = {"raw": 16, "envelope": 48}  # 2 x 16 bins tell it to 1 dB; the envelope's is flat, and full of lines


@dataclass(frozen=True)
class _Place:
    """A window of a feature in one of the spectra."""

    feature: int
    band: int
    window: Window
    gap: float  # to the nearest other line, in the unit of the window


class LineSearch:
    """Looks for the lines of L features in spectra that lie side by side: raw, then the envelopes of S bands.

    Every window in every spectrum is a place, W in all. Windows are searched at fixed fractions of their width, close
    enough at the fastest speed that no bin is passed over, so that one gather serves a batch of different speeds; the
    noise beside a window comes from running sums.

    Args:
        features: all of them lines, at least one.
        bin_hz: distance of two bins.
        raw_bins: bins of the raw spectrum that are sound.
        envelope_bins: of the envelope spectra.
        n_bands: S.
        max_rate_hz: fastest speed of the shaft in turns per second.
        device: where the spectra are.

    Attributes:
        raw_bins: bins to hand over of the raw spectrum, 0 if no feature is looked for there.
        envelope_bins: the same of each envelope spectrum.
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
        self.places = _places(features, n_bands)
        owners = [features[place.feature] for place in self.places]
        spectra = ["envelope" if owner.kind == "envelope" else "raw" for owner in owners]
        limits = {"raw": raw_bins, "envelope": envelope_bins}
        windows = torch.tensor([place.window for place in self.places])
        in_orders = torch.tensor([float(owner.unit == "order") for owner in owners])
        reach_orders = torch.tensor([_REACH_ORDERS[spectrum] for spectrum in spectra])
        reach_bins = torch.tensor([float(_REACH_BINS[spectrum]) for spectrum in spectra])
        fastest = (in_orders * max_rate_hz + 1 - in_orders) / bin_hz  # bins per unit of the window
        reach = torch.maximum(reach_orders * max_rate_hz / bin_hz, reach_bins) + _LEAKAGE_BINS
        needed = {"raw": 0, "envelope": 0}
        for spectrum, bins in zip(spectra, (windows[:, 1] * fastest + reach).tolist(), strict=True):
            needed[spectrum] = min(max(needed[spectrum], math.ceil(bins) + 2), limits[spectrum])
        self.raw_bins, self.envelope_bins = needed["raw"], needed["envelope"]

        def tensor(values: Sequence[float] | Sequence[bool] | Sequence[int]) -> Tensor:
            return torch.tensor(values, device=device)

        starts = [place.band * needed["envelope"] + needed["raw"] if place.band >= 0 else 0 for place in self.places]
        self.first = tensor(starts)
        self.last = tensor([float(needed[spectrum] - 2) for spectrum in spectra])  # the last bin lacks a neighbour
        self.per_hz, self.fixed = (in_orders / bin_hz).to(device), ((1 - in_orders) / bin_hz).to(device)
        self.fewest = 1 / tensor([place.gap for place in self.places])
        self.most = tensor([limits[spectrum] - 1.0 for spectrum in spectra]) / windows[:, 1].to(device)
        widest = ((windows[:, 1] - windows[:, 0]) * fastest).max().item()
        fractions = torch.linspace(0, 1, math.ceil(widest) + 1 if widest > 1 else 2)
        self.points = torch.lerp(windows[:, :1], windows[:, 1:], fractions).to(device)  # [W, n]
        self.edges = windows.T.repeat_interleave(2, 0).to(device)  # [4, W]: low, low, high, high
        self.signs = tensor([-1.0, 1.0, -1.0, 1.0])[:, None]
        self.outward = tensor([-1.0, 0.0, 0.0, 1.0])[:, None]
        self.margin = _LEAKAGE_BINS * tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
        self.reach_per_hz, self.reach_bins = (reach_orders / bin_hz).to(device), reach_bins.to(device)
        self.width = (windows[:, 1] - windows[:, 0]).to(device)
        self.over_density = tensor([owner.kind == "shaft" for owner in owners])
        self.has_zero = tensor([float(feature.kind != "shaft") for feature in features])
        self.is_max = tensor([feature.combine == "max" for feature in features])[:, None]
        grouping = _grouping(self.features, self.places, n_bands)
        self.members, self.shares, self.tries = (each.to(device) for each in grouping)

    def __call__(self, spectra: Tensor, rate_hz: Tensor) -> Tensor:
        """Evidence, of each feature in the spectrum that shows it best.

        Args:
            spectra: output of `hann_power`, `[R, raw_bins + S * envelope_bins]`, of signals scaled such that the power
                of what lines of kind `"shaft"` are compared with is 1 in each bin without a window.
            rate_hz: `[R]`, turns per second.

        Returns:
            `[R, L]` in dB, NaN where a line lies above the spectrum or within a bin of another line.
        """
        bins = torch.addcmul(self.fixed, rate_hz[:, None], self.per_hz)  # [R, W] for each unit of the windows
        log_power = log_of(spectra)
        floor = self._floor(log_power, bins, rate_hz).masked_fill_(self.over_density, math.log(_HANN_GAIN))
        at = (bins[..., None] * self.points).round_().clamp_min_(1).minimum(self.last[:, None]).long()
        peak = log_power.gather(1, at.add_(self.first[:, None]).flatten(1)).view(at.shape).amax(-1)
        unknown = (bins < self.fewest) | (bins > self.most)
        ratio = (peak - floor).masked_fill_(unknown, torch.nan)[:, self.members]  # [R, L, S, windows]
        combined = torch.where(self.is_max, ratio.amax(-1), (ratio * self.shares).sum(-1)).amax(-1)
        threshold = _log_noise_maximum((self.width * bins + 1) @ self.tries) * self.has_zero
        return DB * (combined - threshold)

    def _floor(self, log_power: Tensor, bins: Tensor, rate_hz: Tensor) -> Tensor:
        """[R, W] log of the mean noise on both sides of the windows, bin 0 left out."""
        reach = torch.maximum(rate_hz[:, None] * self.reach_per_hz, self.reach_bins)
        edges = torch.addcmul(self.margin, bins[:, None], self.edges).addcmul_(reach[:, None], self.outward)
        edges = edges.clamp_min_(0).minimum(self.last).long()  # sums run from the bin after an edge to the next edge
        counts = (edges * self.signs).sum(1).clamp_min_(1)
        sums = log_power.cumsum(1).gather(1, (edges + self.first).flatten(1)).view(edges.shape)
        return (sums * self.signs).sum(1) / counts + _EULER

    def warn_of_unknown(self, slowest_hz: float, fastest_hz: float) -> None:
        """Say what cannot be known at these speeds, and what would help."""
        rates_hz = torch.tensor([[slowest_hz], [fastest_hz]], device=self.fixed.device)
        bins = self.fixed + rates_hz * self.per_hz
        blurred, beyond = bins[0] < self.fewest, bins[1] > self.most
        if blurred.any():
            needed_s = (self.fewest / bins[0])[blurred].max().item() / self.bin_hz
            warnings.warn(
                f"windows of {1 / self.bin_hz:.3g} s are too short to part {self._names(blurred)} from neighbouring "
                f"lines at {60 * slowest_hz:.0f} rpm, so nothing is known of them: {math.ceil(1000 * needed_s) / 1000} "
                "s would do",
                stacklevel=6,
            )
        if beyond.any():
            warnings.warn(
                f"{self._names(beyond)} at {60 * fastest_hz:.0f} rpm lie above the end of their spectrum, so nothing "
                "is known of them: sample faster",
                stacklevel=6,
            )

    def _names(self, chosen: Tensor) -> str:
        names = [
            self.features[place.feature].name for place, it in zip(self.places, chosen.tolist(), strict=True) if it
        ]
        return ", ".join(dict.fromkeys(names))


def noise_threshold_db(n_bins: Tensor) -> Tensor:
    """What the largest of n independent noise bins exceeds in 1 % of cases, in dB over their mean.

    The power of a noise bin is exponentially distributed, so the threshold is `-ln(1 - (1 - a)^(1/n))` times its mean;
    with `(1 - a)^(1/n) ~ 1 + ln(1 - a) / n`, good to 0.005 dB, that is `ln n - ln(-ln(1 - a))`.

    Example:
        >>> noise_threshold_db(torch.tensor([1.0, 5.0, 21.0]))
        tensor([6.6277, 7.9306, 8.8336])
    """
    return DB * _log_noise_maximum(n_bins)


def _log_noise_maximum(n_bins: Tensor) -> Tensor:
    return n_bins.log().add_(-math.log(-math.log1p(-FALSE_ALARM))).log_()


def hann_power(spectra: Tensor) -> Tensor:
    """Power of Hann-windowed signals, `[R, F]`, from their spectra without a window; the outermost bins are not sound.

    `X[k] - (X[k - 1] + X[k + 1]) / 2` is twice the spectrum of the signal times `(1 - cos(2 pi t / N)) / 2`.
    """
    windowed = spectra.clone()
    windowed[:, 1:].sub_(spectra[:, :-1], alpha=0.5)
    windowed[:, :-1].sub_(spectra[:, 1:], alpha=0.5)
    return power_of(windowed)


def power_of(values: Tensor) -> Tensor:
    """Squared magnitude of complex values."""
    return values.real.square().add_(values.imag.square())  # several times faster than abs or view_as_real


def log_of(power: Tensor) -> Tensor:
    """Natural logarithm, finite at 0."""
    return power.clamp_min(torch.finfo(power.dtype).tiny).log_()


def _places(features: Sequence[Feature], n_bands: int) -> list[_Place]:
    return [
        _Place(index, band, window, gap)
        for index, feature in enumerate(features)
        for band in (range(n_bands) if feature.kind == "envelope" else (-1,))
        for window, gap in zip(feature.windows, _gaps(feature, features), strict=True)
    ]


def _gaps(feature: Feature, features: Sequence[Feature]) -> list[float]:
    """Distance of each window's middle to the nearest line of its spectrum that is not its own."""
    rivals = [
        sum(window) / 2
        for each in features
        if each is not feature and each.unit == feature.unit
        if (each.kind == "envelope") == (feature.kind == "envelope")
        for window in each.windows
    ]
    gaps = []
    for low, high in feature.windows:
        shaft = range(math.ceil(high) + 2) if feature.unit == "order" else (0,)
        gaps.append(min(abs(at - (low + high) / 2) for at in (*rivals, *shaft) if not low <= at <= high))
    return gaps


def _grouping(features: Sequence[Feature], places: Sequence[_Place], n_bands: int) -> tuple[Tensor, Tensor, Tensor]:
    """How places make features.

    Returns:
        Indices [L, S or 1, most] of a feature's windows in each band, the first repeated where there are fewer; the
        shares of each in a mean; and [W, L], by how much a place adds to the trials that noise has.
    """
    most = max(len(feature.windows) for feature in features)
    members = torch.zeros(len(features), max(n_bands, 1), most, dtype=torch.long)
    shares = torch.zeros(members.shape)
    tries = torch.zeros(len(places), len(features))
    for index, feature in enumerate(features):
        n_windows = len(feature.windows)
        shares[index, :, :n_windows] = 1 / n_windows
        for band in range(members.shape[1]):
            searched = band if feature.kind == "envelope" else -1
            own = [at for at, place in enumerate(places) if (place.feature, place.band) == (index, searched)]
            members[index, band] = torch.tensor(own + own[:1] * (most - n_windows))
            tries[own, index] = 1 if feature.combine == "max" else 1 / n_windows
    return members, shares, tries
