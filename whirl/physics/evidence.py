"""Evidence of faults in a vibration signal: spectral lines at orders of the shaft, in dB over the local noise floor.

Two kinds of spectra are searched: the power spectrum of the signal, and that of the squared envelope of high-frequency
bands, which shows the rate of repeated impacts (Randall and Antoni 2011, Mechanical Systems and Signal Processing
25:485-520). A line is the strongest bin in its window of orders; its noise floor is the geometric mean of the bins on
both sides, which is robust to a few strong lines. Noise alone exceeds 0 dB in one window out of a hundred.

One real FFT of the signal is enough: the Hann window is a sum of three adjacent bins, and the envelope of a band is
the inverse transform of its bins alone, of a length that depends on the width of the band. Spectra are stored as real
and imaginary parts in the last axis, since real arithmetic is several times faster than complex arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from statistics import NormalDist

import torch
from torch import Tensor

from whirl.physics.features import ABSENT_DB, Feature, LateralInhibition, journal_features, rolling_features
from whirl.physics.knocks import limit_knocks
from whirl.physics.rolling_bearing import FaultOrders
from whirl.physics.spectral_lines import DB, FALSE_ALARM, SpectralLineDetector, hann_power, power_of_
from whirl.validation import check_name, check_number

DEMODULATION_BANDS = ((0.08, 0.32), (0.25, 0.50), (0.45, 0.72), (0.65, 0.95))
"""Bands whose envelope is computed, as fractions of half the sampling rate; they overlap so that no resonance lies
between two of them."""

STRUCTURE_BAND = (0.08, 0.95)
"""Band whose power density is the reference of lines of kind `"shaft"`, as fractions of half the sampling rate."""

_SEGMENT_S = 0.05  # an isolated knock affects few segments of this length; bearing impacts and cavitation affect all
_MAX_SEGMENTS = 64
_EMPTY = 1e-6  # of the largest magnitude: rounding errors of float32 are no content
_MIN_AMPLITUDE = 1e-19  # its square is just above the smallest normal float32


class OrderEvidence:
    """Detector of fault features: signals `[B, C, N]` and shaft speeds `[B]` to evidence `[B, L]` in dB.

    - Lines (`kind` `"raw"` and `"envelope"`): `10 log10(peak / floor) - t`, where t is the threshold that the largest
      of n noise bins exceeds with probability a = 1 %, `10 log10(-ln(1 - (1 - a)^(1/n)))`. A value above 0 dB indicates
      a line; noise alone lies a few dB below. For an envelope line the band that shows it best counts, and n includes
      the bins of all bands.
    - Kurtosis of the envelope: relative to the value that 1 % of windows of Gaussian noise exceed. It is the median
      over segments of 50 ms, so that an isolated knock has no effect.
    - Levels and lines of kind `"shaft"`, which every machine shows, have no absolute zero: their baseline must be
      fitted to healthy machines (`compatibility.fit_calibration`).

    If there are several channels, the maximum over the channels is returned, which favors the sensor nearest to the
    fault.

    The evidence is NaN if it cannot be measured: for a speed of NaN, for lines above the highest frequency, and for
    lines within one bin (sampling rate / N) of another feature's line or another shaft harmonic. A warning for the last
    case is issued once per window length and states the length needed.

    Args:
        features: features to measure.
        sampling_rate_hz: sampling rate of the signals, > 0.
        bands: bands whose envelope is computed, as fractions of half the sampling rate.
        inhibitions: groups of mutually exclusive features.
        max_rpm: highest shaft speed; the higher, the more bins a search window may contain.
        prewhiten: whether the envelopes are those of the pre-whitened signal, with isolated knocks limited (see
            `whirl.dsp.prewhitened_envelope`), so that resonances and shaft lines have no effect on them. Only lines of
            the envelope keep their meaning then.

    Raises:
        ValueError: an argument lies outside its range, there are no features, two have the same name, an envelope
            feature has no bands, an inhibition names an unknown feature, or features of another kind are to be measured
            in a pre-whitened signal.

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
        inhibitions: Sequence[LateralInhibition] = (),
        max_rpm: float = 6000,
        prewhiten: bool = False,
    ) -> None:
        self.features, self.inhibitions, self.prewhiten = tuple(features), tuple(inhibitions), prewhiten
        self.bands = tuple((float(low), float(high)) for low, high in bands)
        self.sampling_rate_hz, self.max_rpm = float(sampling_rate_hz), float(max_rpm)
        for name in ("sampling_rate_hz", "max_rpm"):
            check_number(name, getattr(self, name), 0, open_ends=True)
        if not self.features or len(set(self.names)) < len(self.names):
            raise ValueError(f"features are {self.names}, expected at least one, with distinct names")
        for name in (name for group in self.inhibitions for name in group.names):
            check_name("feature in inhibitions", name, self.names)
        if not self.bands and any(feature.kind in ("envelope", "kurtosis") for feature in self.features):
            raise ValueError("bands are empty, expected at least one for features of the envelope")
        if any(not 0 < low < high <= 1 for low, high in self.bands):
            raise ValueError(f"bands are {self.bands}, expected pairs 0 < low < high <= 1")
        others = [feature.name for feature in self.features if feature.kind != "envelope"]
        if prewhiten and others:
            raise ValueError(f"{', '.join(others)}: expected only lines of the envelope in a pre-whitened signal")
        self._plans: dict[tuple[int, torch.device], _Plan] = {}

    @classmethod
    def journal(cls, sampling_rate_hz: float, *, max_rpm: float = 6000) -> OrderEvidence:
        """Create a detector for rotors in journal bearings: `journal_features`, the envelope of the uppermost band.

        Args:
            sampling_rate_hz: sampling rate of the signals, > 0.
            max_rpm: highest shaft speed.
        """
        # The two windows almost touch, and a line leaks into the adjacent bin at -6 dB, which is not a second line.
        inhibition = LateralInhibition(("whirl", "sub-harmonic"), strength=10, margin_db=0)
        bands = DEMODULATION_BANDS[-1:]
        return cls(journal_features(), sampling_rate_hz, bands=bands, inhibitions=[inhibition], max_rpm=max_rpm)

    @classmethod
    def rolling(
        cls, sampling_rate_hz: float, orders: FaultOrders, *, max_rpm: float = 6000, prewhiten: bool = False
    ) -> OrderEvidence:
        """Create a detector for a rolling bearing: `rolling_features`, the envelopes of four bands.

        Args:
            sampling_rate_hz: sampling rate of the signals, > 0.
            orders: fault orders of the bearing.
            max_rpm: highest shaft speed.
            prewhiten: whether to measure the lines of the faults alone, in the pre-whitened signal.
        """
        features = [each for each in rolling_features(orders) if each.is_line or not prewhiten]
        inhibition = LateralInhibition(("BPFI", "BPFO", "2BSF"), strength=0.7, margin_db=4)
        return cls(features, sampling_rate_hz, inhibitions=[inhibition], max_rpm=max_rpm, prewhiten=prewhiten)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the L features."""
        return tuple(feature.name for feature in self.features)

    def with_features(self, features: Sequence[Feature]) -> OrderEvidence:
        """Return a detector with the same settings for other features, such as `features.random_bands`."""
        options = {"bands": self.bands, "inhibitions": self.inhibitions, "max_rpm": self.max_rpm}
        return OrderEvidence(features, self.sampling_rate_hz, **options, prewhiten=self.prewhiten)

    @torch.no_grad()
    def __call__(self, signals: Tensor, rpm: Tensor | float) -> Tensor:
        """Compute the evidence of a batch, without gradients and in float32, also under autocast.

        Args:
            signals: `[B, C, N]` or `[B, N]`, in any unit: gain, sign and offset have no effect.
            rpm: shaft speed, 0 < rpm <= max_rpm, `[B]` or one for all; NaN if unknown.

        Returns:
            `[B, L]` in dB, on the device of the signals.

        Raises:
            ValueError: the signals or speeds have a wrong shape. On a CPU also if a speed is out of range, or a window
                shorter than one revolution; on other devices, where this check would force a synchronization, such
                rows are NaN.
        """
        if signals.ndim not in (2, 3) or signals.shape[-1] < 16 or not signals.numel():
            raise ValueError(f"signals have shape {tuple(signals.shape)}, expected [B, C, N] or [B, N] with N >= 16")
        rows = _with_zeros_for_constants(signals.reshape(-1, signals.shape[-1]).float())
        rate_hz = self._rate_hz(rpm, len(signals), rows)
        plan = self._plan(rows, rate_hz)
        n_channels = len(rows) // len(signals)
        if n_channels > 1:
            rate_hz = rate_hz.repeat_interleave(n_channels)
        found = plan(rows, rate_hz)
        return found.view(len(signals), n_channels, -1).amax(1) if n_channels > 1 else found

    def _rate_hz(self, rpm: Tensor | float, n_signals: int, rows: Tensor) -> Tensor:
        """Return revolutions per second [B], NaN where unknown."""
        speed = torch.as_tensor(rpm, dtype=torch.float32, device=rows.device)
        if speed.shape not in ((), (n_signals,)):
            raise ValueError(f"rpm has shape {tuple(speed.shape)}, expected a number or shape ({n_signals},)")
        slowest = 60 * self.sampling_rate_hz / rows.shape[-1]
        if rows.device.type == "cpu":
            low, high = speed.aminmax()  # NaN if any speed is NaN
            if slowest <= low.item() and high.item() <= self.max_rpm:
                return (speed / 60).expand(n_signals)
        out_of_range = (speed < slowest) | (speed > self.max_rpm)
        if rows.device.type == "cpu" and bool(out_of_range.any()):
            self._raise_speed_error(speed[out_of_range][0].item(), slowest, rows.shape[-1])
        return (speed / 60).masked_fill_(out_of_range, torch.nan).expand(n_signals)

    def _raise_speed_error(self, rpm: float, slowest: float, n_samples: int) -> None:
        if 0 < rpm < slowest:
            raise ValueError(
                f"windows of {n_samples} samples at {self.sampling_rate_hz:g} Hz are shorter than one revolution at "
                f"{rpm:g} rpm: expected at least {math.ceil(60 * self.sampling_rate_hz / rpm)} samples"
            )
        raise ValueError(f"rpm is {rpm:g}, expected 0 < rpm <= {self.max_rpm:g} (max_rpm), or NaN if unknown")

    def _plan(self, rows: Tensor, rate_hz: Tensor) -> _Plan:
        key = (rows.shape[-1], rows.device)
        if key not in self._plans:
            self._plans[key] = _Plan(self, *key)
            self._plans[key].warn_unresolvable(rate_hz)
        return self._plans[key]


def _with_zeros_for_constants(rows: Tensor) -> Tensor:
    """Return rows `[R, N]` with constant ones, e.g. of a dead sensor, as zeros.

    The spectrum of a constant consists of rounding errors, which look like lines far above the noise.
    """
    some = rows[:, :: max(1, rows.shape[-1] // 64)]
    if rows.is_cpu and not bool((some == rows[:, :1]).all(1).any()):  # elsewhere, this check would wait
        return rows
    return rows.masked_fill((rows == rows[:, :1]).all(1, keepdim=True), 0)


def _without_autograd() -> AbstractContextManager[None]:
    """Avoid autograd's overhead, which dominates for many operations on small tensors.

    The transforms of `torch.func` do not support inference mode.
    """
    return torch.no_grad() if torch._C._are_functorch_transforms_active() else torch.inference_mode()


class _Plan:
    """Precomputed indices and constants of an `OrderEvidence` for one window length on one device."""

    def __init__(self, evidence: OrderEvidence, n_samples: int, device: torch.device) -> None:
        features, half = evidence.features, n_samples / 2
        bin_hz, duration_s = evidence.sampling_rate_hz / n_samples, n_samples / evidence.sampling_rate_hz
        groups = [
            [index for index, feature in enumerate(features) if feature.kind in kinds]
            for kinds in (("raw", "shaft", "envelope"), ("level",), ("kurtosis",))
        ]
        lines, level, kurtosis = ([features[index] for index in group] for group in groups)
        self.prewhiten = evidence.prewhiten
        self.order = torch.tensor([index for group in groups for index in group], device=device).argsort()
        self.spans = [_span(band, half) for band in evidence.bands]
        widths = [stop - start for start, stop in self.spans]
        n_modulation = min(widths, default=1)
        arguments = (lines, bin_hz, int(half), n_modulation, len(widths), evidence.max_rpm / 60, device)
        self.lines = SpectralLineDetector(*arguments) if lines else None
        self.raw_bins, self.envelope_bins = (self.lines.raw_bins, self.lines.envelope_bins) if self.lines else (0, 0)
        # modulation at frequencies above the bandwidth is aliased, but not into the bins that are searched
        self.envelope_length = _fast_length(max(widths, default=1) + self.envelope_bins + 1)
        self.n_kurtosis = len(kurtosis)
        bands = [STRUCTURE_BAND, *(window for feature in level for window in feature.windows)]
        distinct = [*dict.fromkeys(bands)]
        self.density_spans = [_span(band, half) for band in distinct]
        self.per_root_bin = torch.tensor([(stop - start) ** -0.5 for start, stop in self.density_spans], device=device)
        indices = torch.tensor([distinct.index(band) for band in bands], device=device)
        self.level_bands, self.reference_bands = indices[1::2], indices[2::2]
        self.n_segments = min(max(round(duration_s / _SEGMENT_S), 1), _MAX_SEGMENTS, self.envelope_length)
        self.segment_length = self.envelope_length // self.n_segments
        # natural logarithms to dB: of the power of lines, the amplitude of levels, and the square root of kurtosis / n
        units = [DB if feature.is_line else 2 * DB for feature in features]
        kurtosis_shift = DB * math.log(self.segment_length) - _noise_kurtosis_db(widths, self.n_segments)
        shifts = [kurtosis_shift if feature.kind == "kurtosis" else 0.0 for feature in features]
        self.unit_db, self.shift_db = torch.tensor(units, device=device), torch.tensor(shifts, device=device)
        self.inhibitions = [
            (torch.tensor([evidence.names.index(name) for name in group.names], device=device), group)
            for group in evidence.inhibitions
        ]

    def __call__(self, rows: Tensor, rate_hz: Tensor) -> Tensor:
        """Compute the evidence [R, L] of rows [R, N].

        There are no matrix products, since autocast would run them in low precision.
        """
        spectrum = torch.view_as_real(torch.fft.rfft(rows))
        if self.prewhiten:
            spectrum = _prewhiten(spectrum)
        amplitudes = self._amplitudes(spectrum)
        spectra, sums, norms = self._spectra(spectrum, amplitudes[:, :1, None].reciprocal())
        with _without_autograd():
            evidence = self._evidence_db(amplitudes, spectra, sums, norms, rate_hz)
        return evidence.masked_fill(rate_hz.isnan()[:, None], torch.nan)

    def _amplitudes(self, spectrum: Tensor) -> Tensor:
        """Return the root mean square [R, bands] of the bins of each band whose density is used, > 0."""
        bands = [spectrum[:, start:stop] for start, stop in self.density_spans]
        norms = torch.stack([torch.linalg.vector_norm(band, dim=(1, 2)) for band in bands], 1)
        return norms.mul_(self.per_root_bin).clamp_min_(_MIN_AMPLITUDE)

    def _spectra(self, spectrum: Tensor, gain: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Compute the spectra to search, and sums and norms of the squared envelopes.

        Bands are processed one by one, since all of them together would not fit into the processor's cache.

        Args:
            spectrum: [R, N / 2 + 1, 2].
            gain: factor of the spectrum, [R, 1, 1].

        Returns:
            Concatenated spectra [R, 1 + raw_bins + S * envelope_bins, 2] of the signal and of the squared envelope u of
            each band, after one empty bin and with zeros at frequency 0; and the sum and the norm of u in each segment,
            [R, n_segments] for each band.
        """
        spectra = spectrum.new_zeros(len(spectrum), 1 + self.raw_bins + len(self.spans) * self.envelope_bins, 2)
        if self.raw_bins:
            torch.mul(spectrum[:, 1 : self.raw_bins], gain, out=spectra[:, 2 : self.raw_bins + 1])
        sums, norms, first = [], [], 1 + self.raw_bins
        for start, stop in self.spans if self.envelope_bins or self.n_kurtosis else ():
            # |z| is invariant to a frequency shift, so the band may start at bin 0
            band = spectrum.new_zeros(len(spectrum), self.envelope_length, 2)
            torch.mul(spectrum[:, start:stop], gain, out=band[:, : stop - start])
            envelope = power_of_(torch.view_as_real(torch.fft.ifft(torch.view_as_complex(band), norm="ortho")))
            if self.prewhiten:
                envelope = limit_knocks(envelope)
            if self.envelope_bins:
                modulation = torch.view_as_real(torch.fft.rfft(envelope, norm="ortho"))
                spectra[:, first + 1 : first + self.envelope_bins].copy_(modulation[:, 1 : self.envelope_bins])
                first += self.envelope_bins
            segments = envelope[:, : self.segment_length * self.n_segments]
            segments = segments.unflatten(1, (self.n_segments, self.segment_length))
            sums.append(segments.sum(-1))
            norms.append(torch.linalg.vector_norm(segments, dim=-1))
        return spectra, sums, norms

    def _evidence_db(
        self, amplitudes: Tensor, spectra: Tensor, sums: list[Tensor], norms: list[Tensor], rate_hz: Tensor
    ) -> Tensor:
        """Return the evidence [R, L]; rows of unknown speed are meaningless."""
        found = [self.lines(hann_power(spectra), rate_hz.nan_to_num(1.0))] if self.lines else []
        if len(self.level_bands):
            levels = amplitudes.log()
            found.append(levels.index_select(1, self.level_bands) - levels.index_select(1, self.reference_bands))
        if self.n_kurtosis:
            found += [self._log_peakedness(sums, norms)] * self.n_kurtosis
        evidence = torch.addcmul(self.shift_db, torch.cat(found, 1).index_select(1, self.order), self.unit_db)
        return self._inhibit(evidence)

    def _log_peakedness(self, sums: list[Tensor], norms: list[Tensor]) -> Tensor:
        """Return the log of norm over sum, [R, 1], in the band where it is largest; its minimum is `n^-1/2`."""
        peakedness = torch.stack(norms, 1).div_(torch.stack(sums, 1).clamp_min_(_MIN_AMPLITUDE))
        return peakedness.median(-1).values.amax(1, keepdim=True).clamp_min_(self.segment_length**-0.5).log_()

    def _inhibit(self, evidence: Tensor) -> Tensor:
        for members, group in self.inhibitions:
            each = evidence.index_select(1, members)
            strongest = each.nan_to_num(nan=-torch.inf).amax(1, keepdim=True)
            reduced = each.minimum(each.lerp(strongest - group.margin_db, -group.strength))
            evidence.index_copy_(1, members, reduced.maximum(each.clamp_max(ABSENT_DB)))
        return evidence

    def warn_unresolvable(self, rate_hz: Tensor) -> None:
        """Warn about features that cannot be measured at the lowest and the highest of these speeds."""
        rates = rate_hz[rate_hz.isfinite()]
        if self.lines and len(rates):
            self.lines.warn_unresolvable(rates.min().item(), rates.max().item())


def _prewhiten(spectrum: Tensor) -> Tensor:
    """Set the magnitude of all bins [R, F, 2] to one; those of a silent signal stay zero."""
    magnitude = torch.linalg.vector_norm(spectrum, dim=-1, keepdim=True)
    empty = (_EMPTY * magnitude.amax(1, keepdim=True)).clamp_min_(_MIN_AMPLITUDE)
    return spectrum / magnitude.maximum(empty)


def _noise_kurtosis_db(widths: Sequence[int], n_segments: int) -> float:
    """Return the threshold in dB that the kurtosis of Gaussian noise exceeds in 1 % of cases in any of the bands.

    The kurtosis of n independent values of a complex Gaussian has mean 2 and variance 4 / n; the median over segments
    has pi / 2 times that variance.
    """
    if not widths:
        return 0.0
    deviation = 2 * math.sqrt((math.pi / 2 if n_segments > 1 else 1) / min(widths))
    return 10 * math.log10(2 + NormalDist().inv_cdf(1 - FALSE_ALARM / len(widths)) * deviation)


def _span(band: tuple[float, float], half: float) -> tuple[int, int]:
    """Return the first bin of a band and the one after its last, at least one; `half` is the bin of half the rate."""
    start = math.ceil(band[0] * half)
    return start, max(math.floor(band[1] * half), start) + 1


def _fast_length(minimum: int) -> int:
    """Return the smallest power of 2 times 1, 3, 5, 9 or 15 that is >= minimum: a length with a fast FFT."""
    return min(odd << max(math.ceil(math.log2(minimum / odd)), 0) for odd in (1, 3, 5, 9, 15))
