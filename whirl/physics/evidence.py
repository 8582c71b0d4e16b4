"""Evidence of faults in a vibration: lines over their local noise floor in dB, on the orders of the shaft.

Two spectra are looked at: the power spectrum of the signal, and that of the squared envelope of high-frequency bands,
where repeated impacts show their rate (Randall and Antoni 2011, Mechanical Systems and Signal Processing 25:485-520).
A line is the strongest bin in its window of orders; its floor is the geometric mean of the bins on both sides, which
a few strong neighbours hardly move. 0 dB is what noise alone exceeds in one window of a hundred.

One real transform of the signal serves everything: the Hann window is a sum of three neighbouring bins, and the
envelope of a band is the inverse transform of its bins alone, as long as the band is wide. Spectra are handled as real
and imaginary parts, side by side in the last axis: real arithmetic is several times faster than complex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from whirl.physics.features import ABSENT_DB, Feature, Rivalry, journal_features, rolling_features
from whirl.physics.rolling_bearing import FaultOrders
from whirl.physics.spectral_lines import DB, FALSE_ALARM, SpectralLineDetector, hann_power, power_of_

DEMODULATION_BANDS = ((0.08, 0.32), (0.25, 0.50), (0.45, 0.72), (0.65, 0.95))
"""Bands whose envelope is looked at, fractions of half the sampling rate; they overlap, so that no resonance falls
between two of them."""

STRUCTURE_BAND = (0.08, 0.95)
"""The band whose density lines of kind `"shaft"` are compared with, fractions of half the sampling rate."""

_STRETCH_S = 0.05  # stray knocks leave most stretches as long alone, impacts of bearings and bubbles reach all
_MAX_STRETCHES = 64
_MIN_AMPLITUDE = 1e-19  # its square is just above the smallest normal float32


class OrderEvidence:
    """Evidence of faults `[B, L]` in dB from signals `[B, C, N]` and their shaft speeds `[B]`.

    Lines (`kind` raw and envelope): `10 log10(peak / floor) - t`, where t is what the largest of n noise bins exceeds
    with probability a = 1 %, `10 log10(-ln(1 - (1 - a)^(1/n)))`. So a line is there above 0 dB, and noise alone lies a
    few dB below. An envelope line is that of the band that shows it best, which n allows for. The envelope's kurtosis
    is in dB over that of Gaussian noise and what 1 % of such noise exceeds; it is the median of stretches of 50 ms, so
    that a stray knock does not matter. Levels, and the lines of the shaft, which every machine shows, have no zero of
    their own: healthy machines must tell what is much (`compatibility.fit_calibration`).

    Of several channels the largest number counts: the sensor nearest to the fault speaks.

    NaN says that nothing can be known: for a speed of NaN, and for lines above what the signal holds, or within one
    bin (sampling rate / N) of another feature's line or another shaft harmonic. The latter is warned of once for each
    length of windows, with the length that would do.

    Args:
        features: what to look for.
        sampling_rate_hz: of the signals, > 0.
        bands: bands whose envelope is looked at, fractions of half the sampling rate.
        rivalries: features that exclude each other.
        max_rpm: fastest speed of the shaft; the faster, the more bins a window may hold.

    Raises:
        ValueError: a number lies outside its range, there are no features, two share a name, or what they or the
            rivalries need is missing.

    Example:
        >>> time_s = torch.arange(20480) / 20480
        >>> noise = torch.randn(20480, generator=torch.Generator().manual_seed(0))
        >>> evidence = OrderEvidence.journal(20480)
        >>> found = evidence((torch.sin(2 * torch.pi * 150 * time_s) + noise)[None], rpm=4500)[0]
        >>> [name for name, value in zip(evidence.names[:7], found) if value > 10]
        ['2X']
    """

    def __init__(
        self,
        features: Sequence[Feature],
        sampling_rate_hz: float,
        *,
        bands: Sequence[tuple[float, float]] = DEMODULATION_BANDS,
        rivalries: Sequence[Rivalry] = (),
        max_rpm: float = 6000,
    ) -> None:
        self.features, self.bands, self.rivalries = tuple(features), tuple(bands), tuple(rivalries)
        self.sampling_rate_hz, self.max_rpm = float(sampling_rate_hz), float(max_rpm)
        for name in ("sampling_rate_hz", "max_rpm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected > 0 and finite")
        if not self.features or len(set(self.names)) < len(self.names):
            raise ValueError(f"features are {self.names}, expected one or more of different names")
        if strangers := {name for rivalry in self.rivalries for name in rivalry.names} - set(self.names):
            raise ValueError(f"rivalries name {sorted(strangers)}, which are not among the features {self.names}")
        if not self.bands and any(feature.kind in ("envelope", "kurtosis") for feature in self.features):
            raise ValueError("there are no bands whose envelope could be looked at")
        if any(not 0 < low < high <= 1 for low, high in self.bands):
            raise ValueError(f"bands are {self.bands}, expected 0 < low < high <= 1 each")
        self._plans: dict[tuple[int, torch.device], _Plan] = {}

    @classmethod
    def journal(cls, sampling_rate_hz: float, *, max_rpm: float = 6000) -> OrderEvidence:
        """Evidence for rotors in journal bearings: `journal_features`, the envelope of the uppermost band."""
        # the windows almost touch, and a line leaks into the next bin with -6 dB: that must not pass for a second one
        rivalry = Rivalry(("whirl", "sub-harmonic"), share=10, leeway_db=0)
        bands = DEMODULATION_BANDS[-1:]
        return cls(journal_features(), sampling_rate_hz, bands=bands, rivalries=[rivalry], max_rpm=max_rpm)

    @classmethod
    def rolling(cls, sampling_rate_hz: float, orders: FaultOrders, *, max_rpm: float = 6000) -> OrderEvidence:
        """Evidence for a rolling bearing of known kinematics: `rolling_features`, the envelopes of four bands."""
        rivalry = Rivalry(("BPFI", "BPFO", "2BSF"), share=0.7, leeway_db=4)
        return cls(rolling_features(orders), sampling_rate_hz, rivalries=[rivalry], max_rpm=max_rpm)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the L features, all in dB."""
        return tuple(feature.name for feature in self.features)

    def with_features(self, features: Sequence[Feature]) -> OrderEvidence:
        """The same search for other features, such as `features.random_bands`."""
        options = {"bands": self.bands, "rivalries": self.rivalries, "max_rpm": self.max_rpm}
        return OrderEvidence(features, self.sampling_rate_hz, **options)

    @torch.no_grad()
    def __call__(self, signals: Tensor, rpm: Tensor | float) -> Tensor:
        """Evidence of a batch, without gradient and in float32, under autocast too.

        Args:
            signals: `[B, C, N]` or `[B, N]`, in any unit: gain, sign and offset do not matter.
            rpm: speed of the shaft, 0 < rpm <= max_rpm, `[B]` or one for all; NaN where it is not known.

        Returns:
            `[B, L]` in dB, on the device of the signals.

        Raises:
            ValueError: signals or speeds have another shape; on a CPU also a speed out of range, and windows shorter
                than one revolution. Other devices are not halted for a look at numbers: there such rows are NaN.
        """
        if signals.ndim not in (2, 3) or signals.shape[-1] < 16 or not signals.numel():
            raise ValueError(f"signals have shape {tuple(signals.shape)}, expected [B, C, N] or [B, N] with N >= 16")
        rows = signals.reshape(-1, signals.shape[-1]).float()
        rate_hz = self._rate_hz(rpm, len(signals), rows)
        plan = self._plan(rows, rate_hz)
        n_channels = len(rows) // len(signals)
        if n_channels > 1:
            rate_hz = rate_hz.repeat_interleave(n_channels)
        found = plan(rows, rate_hz)
        return found.view(len(signals), n_channels, -1).amax(1) if n_channels > 1 else found

    def _rate_hz(self, rpm: Tensor | float, n_signals: int, rows: Tensor) -> Tensor:
        """[B] turns per second, NaN where unknown."""
        speed = torch.as_tensor(rpm, dtype=torch.float32, device=rows.device)
        if speed.shape not in ((), (n_signals,)):
            raise ValueError(f"rpm has shape {tuple(speed.shape)}, expected one speed or one for each, ({n_signals},)")
        slowest = 60 * self.sampling_rate_hz / rows.shape[-1]
        if rows.device.type == "cpu":
            low, high = speed.aminmax()  # NaN if any is
            if slowest <= low.item() and high.item() <= self.max_rpm:
                return (speed / 60).expand(n_signals)
        out_of_range = (speed < slowest) | (speed > self.max_rpm)
        if rows.device.type == "cpu" and bool(out_of_range.any()):
            self._refuse(speed[out_of_range][0].item(), slowest, rows.shape[-1])
        return (speed / 60).masked_fill_(out_of_range, torch.nan).expand(n_signals)

    def _refuse(self, rpm: float, slowest: float, n_samples: int) -> None:
        if 0 < rpm < slowest:
            raise ValueError(
                f"windows of {n_samples} samples at {self.sampling_rate_hz:g} Hz are shorter than one revolution at "
                f"{rpm:g} rpm: expected at least {math.ceil(60 * self.sampling_rate_hz / rpm)} samples"
            )
        raise ValueError(f"rpm is {rpm:g}, expected 0 < rpm <= {self.max_rpm:g} (max_rpm), or NaN if it is not known")

    def _plan(self, rows: Tensor, rate_hz: Tensor) -> _Plan:
        key = (rows.shape[-1], rows.device)
        if key not in self._plans:
            self._plans[key] = _Plan(self, *key)
            self._plans[key].warn_unresolvable(rate_hz)
        return self._plans[key]


class _Plan:
    """The indices and matrices of an `OrderEvidence` for one length of signals on one device."""

    def __init__(self, evidence: OrderEvidence, n_samples: int, device: torch.device) -> None:
        features, half = evidence.features, n_samples / 2
        bin_hz, duration_s = evidence.sampling_rate_hz / n_samples, n_samples / evidence.sampling_rate_hz
        groups = [
            [index for index, feature in enumerate(features) if feature.kind in kinds]
            for kinds in (("raw", "shaft", "envelope"), ("level",), ("kurtosis",))
        ]
        lines, level, kurtosis = ([features[index] for index in group] for group in groups)
        self.order = torch.tensor([index for group in groups for index in group], device=device).argsort()
        self.spans = [_span(band, half) for band in evidence.bands]
        widths = [stop - start for start, stop in self.spans]
        n_modulation = min(widths, default=1)
        search = (lines, bin_hz, int(half), n_modulation, len(widths), evidence.max_rpm / 60, device)
        self.lines = SpectralLineDetector(*search) if lines else None
        self.raw_bins, self.envelope_bins = (self.lines.raw_bins, self.lines.envelope_bins) if self.lines else (0, 0)
        # modulation faster than a band is wide folds back, but not onto the bins that are searched
        self.envelope_length = _fast_length(max(widths, default=1) + self.envelope_bins + 1)
        self.n_kurtosis = len(kurtosis)
        bands = [STRUCTURE_BAND, *(window for feature in level for window in feature.windows)]
        different = [*dict.fromkeys(bands)]
        self.density_spans = [_span(band, half) for band in different]
        self.per_root_bin = torch.tensor([(stop - start) ** -0.5 for start, stop in self.density_spans], device=device)
        chosen = torch.tensor([different.index(band) for band in bands], device=device)
        self.loud, self.quiet = chosen[1::2], chosen[2::2]
        self.n_stretches = min(max(round(duration_s / _STRETCH_S), 1), _MAX_STRETCHES, self.envelope_length)
        self.n_each = self.envelope_length // self.n_stretches
        # decibels from logarithms of the power of lines, the amplitude of levels, and the square root of kurtosis / n
        units = [DB if feature.is_line else 2 * DB for feature in features]
        most = DB * math.log(self.n_each) - _noise_kurtosis_db(widths, self.n_stretches)
        shifts = [most if feature.kind == "kurtosis" else 0.0 for feature in features]
        self.unit_db, self.shift_db = torch.tensor(units, device=device), torch.tensor(shifts, device=device)
        self.rivalries = [
            (torch.tensor([evidence.names.index(name) for name in rivalry.names], device=device), rivalry)
            for rivalry in evidence.rivalries
        ]

    def __call__(self, rows: Tensor, rate_hz: Tensor) -> Tensor:
        """Evidence [R, L] of rows [R, N]; nothing in it is a product of matrices, which autocast would make coarse."""
        spectrum = torch.view_as_real(torch.fft.rfft(rows))
        amplitudes = self._amplitudes(spectrum)
        spectra, sums, norms = self._spectra(spectrum, amplitudes[:, :1, None].reciprocal())
        # many operations on few numbers: inference mode spares them the bookkeeping, which costs more than the numbers
        with torch.inference_mode():
            evidence = self._evidence_db(amplitudes, spectra, sums, norms, rate_hz)
        return evidence.masked_fill(rate_hz.isnan()[:, None], torch.nan)

    def _amplitudes(self, spectrum: Tensor) -> Tensor:
        """[R, bands] root mean square of the bins of each band whose density counts, > 0."""
        bands = [spectrum[:, start:stop] for start, stop in self.density_spans]
        norms = torch.stack([torch.linalg.vector_norm(band, dim=(1, 2)) for band in bands], 1)
        return norms.mul_(self.per_root_bin).clamp_min_(_MIN_AMPLITUDE)

    def _spectra(self, spectrum: Tensor, gain: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """What lines are looked for in, side by side after one empty bin, and how large the envelopes are.

        Band after band, because all at once would not fit into the processor's cache.

        Args:
            spectrum: [R, N / 2 + 1, 2].
            gain: [R, 1, 1], for the spectrum.

        Returns:
            Spectra [R, 1 + raw_bins + S * envelope_bins, 2], 0 at frequency 0, of the signal and of the squared
            envelope u of each band; and of each band sum and norm of u, [R, stretches].
        """
        spectra = spectrum.new_zeros(len(spectrum), 1 + self.raw_bins + len(self.spans) * self.envelope_bins, 2)
        if self.raw_bins:
            torch.mul(spectrum[:, 1 : self.raw_bins], gain, out=spectra[:, 2 : self.raw_bins + 1])
        sums, norms, first = [], [], 1 + self.raw_bins
        for start, stop in self.spans if self.envelope_bins or self.n_kurtosis else ():
            # |z| does not care where on the axis its band lies
            band = spectrum.new_zeros(len(spectrum), self.envelope_length, 2)
            torch.mul(spectrum[:, start:stop], gain, out=band[:, : stop - start])
            envelope = power_of_(torch.view_as_real(torch.fft.ifft(torch.view_as_complex(band), norm="ortho")))
            if self.envelope_bins:
                modulation = torch.view_as_real(torch.fft.rfft(envelope, norm="ortho"))
                spectra[:, first + 1 : first + self.envelope_bins].copy_(modulation[:, 1 : self.envelope_bins])
                first += self.envelope_bins
            stretches = envelope[:, : self.n_each * self.n_stretches].unflatten(1, (self.n_stretches, self.n_each))
            sums.append(stretches.sum(-1))
            norms.append(torch.linalg.vector_norm(stretches, dim=-1))
        return spectra, sums, norms

    def _evidence_db(
        self, amplitudes: Tensor, spectra: Tensor, sums: list[Tensor], norms: list[Tensor], rate_hz: Tensor
    ) -> Tensor:
        """[R, L] where the speed is known."""
        found = [self.lines(hann_power(spectra), rate_hz.nan_to_num(1.0))] if self.lines else []
        if len(self.loud):
            levels = amplitudes.log()
            found.append(levels.index_select(1, self.loud) - levels.index_select(1, self.quiet))
        if self.n_kurtosis:
            found += [self._log_peakedness(sums, norms)] * self.n_kurtosis
        evidence = torch.addcmul(self.shift_db, torch.cat(found, 1).index_select(1, self.order), self.unit_db)
        return self._inhibited(evidence)

    def _log_peakedness(self, sums: list[Tensor], norms: list[Tensor]) -> Tensor:
        """[R, 1] log of norm over sum in the band where it is largest; of n equal values it is least, `n^-1/2`."""
        peakedness = torch.stack(norms, 1).div_(torch.stack(sums, 1).clamp_min_(_MIN_AMPLITUDE))
        return peakedness.median(-1).values.amax(1, keepdim=True).clamp_min_(self.n_each**-0.5).log_()

    def _inhibited(self, evidence: Tensor) -> Tensor:
        for members, rivalry in self.rivalries:
            each = evidence.index_select(1, members)
            strongest = each.nan_to_num(nan=-torch.inf).amax(1, keepdim=True)
            reduced = each.minimum(each.lerp(strongest - rivalry.leeway_db, -rivalry.share))
            evidence.index_copy_(1, members, reduced.maximum(each.clamp_max(ABSENT_DB)))
        return evidence

    def warn_unresolvable(self, rate_hz: Tensor) -> None:
        """Say what cannot be known at the slowest and the fastest of these speeds."""
        rates = rate_hz[rate_hz.isfinite()]
        if self.lines and len(rates):
            self.lines.warn_unresolvable(rates.min().item(), rates.max().item())


def _noise_kurtosis_db(widths: Sequence[int], n_stretches: int) -> float:
    """What the kurtosis of Gaussian noise exceeds, in dB, in 1 % of cases in any of the bands.

    From n independent values the kurtosis of a complex Gaussian is 2 with variance 4 / n; taken as the median of
    stretches, its variance is pi / 2 times that.
    """
    if not widths:
        return 0.0
    deviation = 2 * math.sqrt((math.pi / 2 if n_stretches > 1 else 1) / min(widths))
    return 10 * math.log10(2 + NormalDist().inv_cdf(1 - FALSE_ALARM / len(widths)) * deviation)


def _span(band: tuple[float, float], half: float) -> tuple[int, int]:
    """First bin of a band and the one after its last, at least one bin; `half` is the bin of half the sampling rate."""
    start = math.ceil(band[0] * half)
    return start, max(math.floor(band[1] * half), start) + 1


def _fast_length(least: int) -> int:
    """The smallest power of 2 times 1, 3, 5, 9 or 15 that is >= least: a length that transforms fast."""
    return min(odd << max(math.ceil(math.log2(least / odd)), 0) for odd in (1, 3, 5, 9, 15))
