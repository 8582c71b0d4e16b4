"""Lines in power spectra: the strongest bin of a window of orders over the noise beside it, in dB."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whirl.physics.features import Feature, Window

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


class SpectralLineDetector:
    """Looks for the lines of L features in spectra that lie side by side: raw, then the envelopes of S bands.

    Every window in every spectrum is a place, W in all. Windows are searched at fixed fractions of their width, close
    enough at the fastest speed that no bin is passed over, so that one gather serves a batch of different speeds; the
    noise beside a window comes from running sums. All that does not depend on the speed is laid out beforehand, since
    on short signals the number of operations costs more than their arithmetic.

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
        self.first = tensor([float(start) for start in starts])
        self.second = self.first + 1
        self.last = self.first + tensor([float(needed[spectrum] - 2) for spectrum in spectra])  # lacks no neighbour
        self.per_hz, self.fixed = (in_orders / bin_hz).to(device), ((1 - in_orders) / bin_hz).to(device)
        self.fewest = 1 / tensor([place.gap for place in self.places])
        self.most = tensor([limits[spectrum] - 1.0 for spectrum in spectra]) / windows[:, 1].to(device)
        widest = ((windows[:, 1] - windows[:, 0]) * fastest).max().item()
        fractions = torch.linspace(0, 1, math.ceil(widest) + 1 if widest > 1 else 2)[:, None]
        low, high = windows.T
        self.points = torch.lerp(low, high, fractions).to(device)  # [n, W]
        # [4, W] where sums begin, below and above the window, and where they end; they begin after the bin at the edge
        self.edges = torch.stack([low, high, low, high]).to(device)
        self.margin = _LEAKAGE_BINS * tensor([-1.0, 1.0, -1.0, 1.0])[:, None]
        self.outward = tensor([-1.0, 0.0, 0.0, 1.0])[:, None]
        self.reach_per_hz, self.reach_bins = (reach_orders / bin_hz).to(device), reach_bins.to(device)
        # lines over a density have no noise beside them: their sums are divided by infinity
        self.least_count = tensor([math.inf if owner.kind == "shaft" else 1.0 for owner in owners])
        self.offset = tensor([math.log(_HANN_GAIN) if feature.kind == "shaft" else _EULER for feature in features])
        self.has_zero = tensor([float(feature.kind != "shaft") for feature in features])
        self.is_max = tensor([feature.combine == "max" for feature in features])
        members, shares, tries = _grouping(self.features, self.places, n_bands)
        self.members, self.shares = members.flatten().to(device), shares.to(device)
        tries = tries.to(device)
        width = (high - low).to(device)[:, None] * tries
        self.fixed_trials = (self.fixed[:, None] * width + tries).sum(0)
        self.trials_per_hz = (self.per_hz[:, None] * width).sum(0)

    def __call__(self, power: Tensor, rate_hz: Tensor) -> Tensor:
        """Evidence, of each feature in the spectrum that shows it best.

        Args:
            power: output of `hann_power`, `[R, raw_bins + S * envelope_bins]` but for the last bin, of signals scaled
                such that the power of what lines of kind `"shaft"` are compared with is 1 in each bin without a window;
                overwritten.
            rate_hz: `[R]`, turns per second.

        Returns:
            `[R, L]`, natural logarithm of power, NaN where a line lies above the spectrum or within a bin of another
            line.
        """
        rate = rate_hz[:, None]
        bins = torch.addcmul(self.fixed, rate, self.per_hz)  # [R, W] for each unit of the windows
        log_power = log_of_(power)
        at = (bins[:, None] * self.points).round_().add_(self.first).clamp_(self.second, self.last).long()
        peak = log_power.gather(1, at.flatten(1)).view(at.shape).amax(1)
        unknown = bins.clamp(self.fewest, self.most) != bins
        ratio = peak.sub_(self._floor(log_power, bins, rate)).masked_fill_(unknown, torch.nan)
        each = ratio.index_select(1, self.members).view(-1, *self.shares.shape)  # [R, windows, S, L]
        combined = torch.where(self.is_max, each.amax(1), (each * self.shares).sum(1)).amax(1)
        threshold = _log_noise_maximum(torch.addcmul(self.fixed_trials, rate, self.trials_per_hz))
        return combined.sub_(torch.addcmul(self.offset, threshold, self.has_zero))

    def _floor(self, log_power: Tensor, bins: Tensor, rate: Tensor) -> Tensor:
        """[R, W] mean of the log of the noise on both sides of the windows, bin 0 left out; 0 for shaft lines."""
        reach = (rate * self.reach_per_hz).maximum(self.reach_bins)
        edges = torch.addcmul(self.margin, bins[:, None], self.edges).addcmul_(reach[:, None], self.outward)
        edges = edges.floor_().add_(self.first).clamp_(self.first, self.last)
        sums = log_power.cumsum(1).gather(1, edges.flatten(1).long()).view(edges.shape)
        return _between(sums).div_(_between(edges).maximum(self.least_count))

    def warn_unresolvable(self, slowest_hz: float, fastest_hz: float) -> None:
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
    """Power of Hann-windowed signals, `[R, F - 2]`, of all but the outermost bins.

    `X[k] - (X[k - 1] + X[k + 1]) / 2` is twice the spectrum of the signal times `(1 - cos(2 pi t / N)) / 2`.

    Args:
        spectra: `[R, F, 2]`, real and imaginary part without a window.
    """
    return power_of_(spectra[:, 1:-1].sub(spectra[:, :-2] + spectra[:, 2:], alpha=0.5))


def power_of_(parts: Tensor) -> Tensor:
    """Squared magnitude `[...]` of real and imaginary parts `[..., 2]`, which are overwritten."""
    squares = parts.square_()  # complex arithmetic, and squares of every other number, are several times slower
    return squares[..., 0] + squares[..., 1]


def log_of_(power: Tensor) -> Tensor:
    """Natural logarithm in place, finite at 0."""
    return power.clamp_min_(torch.finfo(power.dtype).tiny).log_()


def _between(edges: Tensor) -> Tensor:
    """[R, W] total on both sides of each window, from running totals [R, 4, W] at `SpectralLineDetector.edges`."""
    return (edges[:, 2:] - edges[:, :2]).sum(1)


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
        Indices [most, S or 1, L] of a feature's windows in each band, the first repeated where there are fewer; the
        shares of each in a mean; and [W, L], by how much a place adds to the trials that noise has.
    """
    most = max(len(feature.windows) for feature in features)
    members = torch.zeros(most, max(n_bands, 1), len(features), dtype=torch.long)
    shares = torch.zeros(members.shape)
    tries = torch.zeros(len(places), len(features))
    for index, feature in enumerate(features):
        n_windows = len(feature.windows)
        shares[:n_windows, :, index] = 1 / n_windows
        for band in range(members.shape[1]):
            searched = band if feature.kind == "envelope" else -1
            own = [at for at, place in enumerate(places) if (place.feature, place.band) == (index, searched)]
            members[:, band, index] = torch.tensor(own + own[:1] * (most - n_windows))
            tries[own, index] = 1 if feature.combine == "max" else 1 / n_windows
    return members, shares, tries
