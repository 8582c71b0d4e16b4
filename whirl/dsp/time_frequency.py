"""Time-frequency maps of batches, on the device of the batch: what a two-dimensional network, or a person, looks at."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl.dsp.envelope import check_range, squared_envelope
from whirl.dsp.shaft_angle import order_frames
from whirl.dsp.short_time_fourier import WindowName, amplitude_window, stft
from whirl.dsp.wavelets import WAVELETS, cwt_power, geometric_frequencies
from whirl.dsp.wigner import wigner_ville
from whirl.validation import check_batch, check_count, check_name, check_number

KINDS = ("stft", "cwt", "wvd", "envelope", "order")
SCALES = ("db", "magnitude", "power")

DYNAMIC_RANGE_DB = 80.0
"""Depth of a map in dB, below its strongest cell: what is weaker is drawn up to there."""

_SILENCE = 1e-20  # power that stands for none at all: -200 dB
_RANGES = {  # of rows by default, as shares of the sampling rate
    "stft": (0.0, 0.5),
    "cwt": (1 / 1024, 0.45),  # from two waves in a window of 2048 to clear of the filter against aliasing
    "wvd": (0.0, 0.5),
    "envelope": (0.0, 1 / 16),
}
_ORDERS = (0.0, 16.0)
_RESONANCES = (0.25, 0.95)  # band to demodulate by default, as shares of half the sampling rate
_ORDER_MARGIN = 1.05  # samples in a turn beyond what the highest order needs: they are cut off gradually


_MAX_LAGS = 4096  # of a Wigner-Ville distribution, whose memory grows with them times the samples


class _Axis(NamedTuple):
    """Rows in equal steps: `n_frequencies` bins, from `first` on, of a transform over `n_fft` samples."""

    rate: float  # Hz, or samples in a turn
    n_fft: int
    first: int


class TimeFrequency(nn.Module):
    """Signals as time-frequency maps, to stand in front of a network.

    | kind | rows | map |
    |---|---|---|
    | `stft` | Hz, equal steps | short-time Fourier transform; the window is as long as the steps allow |
    | `cwt` | Hz, equal ratios | wavelet transform |
    | `wvd` | Hz, equal steps | smoothed pseudo Wigner-Ville distribution |
    | `envelope` | Hz of modulation | short-time Fourier transform of a band's squared envelope |
    | `order` | multiples of shaft speed | short-time Fourier transform over the shaft's angle |

    The power of each cell is scaled, by default to dB, and by default every map, of each sample and channel, is then
    brought to mean 0 and standard deviation 1, as a network wants it; a constant map becomes zeros. dB are floored
    `DYNAMIC_RANGE_DB` below the map's strongest cell, so a silent window is finite.

    It has no weights and no state. Half precision is computed in float32, also under autocast; maps have the type of
    the signals. Gradients flow to the signals.

    Args:
        kind: one of `KINDS`.
        sampling_rate_hz: of the signals, > 0.
        n_frequencies: rows F, >= 2.
        n_times: columns T', >= 1; fewer where the window has fewer samples.
        scale: `"db"`, `"magnitude"` or `"power"`.
        frequency_range: lowest and highest frequency, Hz, 0 <= low < high <= half the sampling rate (orders >= 0 for an
            order map, 0 < low for a `cwt`). The last row of equal steps lies one step below high. By default 0 to half
            the sampling rate; for a `cwt` 1/1024 to 0.45 of it; for an `envelope` 0 to 1/16 of it; orders 0 to 16.
        band_hz: band to demodulate for an `envelope`, Hz; default 0.25 to 0.95 of half the sampling rate, where
            structure rings. For an `order` map None is the signal itself, and a band its squared envelope there.
        window: of `stft`, `envelope` and `order`, see `stft`.
        wavelet: of `cwt`, see `wavelets.cwt`.
        standardize: whether each map is brought to mean 0 and standard deviation 1.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> representation = TimeFrequency("cwt", sampling_rate_hz=12_000)
        >>> maps = representation(torch.randn(8, 1, 2048))
        >>> maps.shape, representation.frequencies[-1]
        (torch.Size([8, 1, 64, 64]), tensor(5400.))
        >>> TimeFrequency(**representation.config).config == representation.config
        True
    """

    def __init__(
        self,
        kind: str,
        sampling_rate_hz: float,
        n_frequencies: int = 64,
        n_times: int = 64,
        *,
        scale: str = "db",
        frequency_range: Sequence[float] | None = None,
        band_hz: Sequence[float] | None = None,
        window: WindowName = "hann",
        wavelet: str = "morlet",
        standardize: bool = True,
    ) -> None:
        super().__init__()
        check_name("representation", kind, KINDS)
        check_name("scale", scale, SCALES)
        check_name("wavelet", wavelet, WAVELETS)
        self.kind, self.scale, self.wavelet, self.standardize = kind, scale, wavelet, standardize
        self.sampling_rate_hz = check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
        self.n_frequencies = check_count("n_frequencies", n_frequencies, minimum=2)
        self.n_times = check_count("n_times", n_times)
        self.window = window
        self.frequency_range = self._range(frequency_range)
        self.band_hz = self._band(band_hz)

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which `TimeFrequency(**config)` builds the same again."""
        return {
            "kind": self.kind,
            "sampling_rate_hz": self.sampling_rate_hz,
            "n_frequencies": self.n_frequencies,
            "n_times": self.n_times,
            "scale": self.scale,
            "frequency_range": list(self.frequency_range),
            "band_hz": self.band_hz and list(self.band_hz),
            "window": self.window if isinstance(self.window, str) else list(self.window),
            "wavelet": self.wavelet,
            "standardize": self.standardize,
        }

    @property
    def frequencies(self) -> Tensor:
        """Of the rows of a map, `[F]`, rising, in Hz, or orders for an order map."""
        if self.kind == "cwt":
            return torch.tensor(self._geometric)
        axis = self._axis
        return (axis.first + torch.arange(self.n_frequencies)) * (axis.rate / axis.n_fft)

    def times_s(self, n_samples: int) -> Tensor:
        """Middles of a map's columns, `[T']`, in seconds from the first of `n_samples` samples."""
        n_times = min(self.n_times, n_samples)
        return (torch.arange(n_times) + 0.5) * (n_samples / n_times / self.sampling_rate_hz)

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None) -> Tensor:
        """Maps of a batch.

        Args:
            signals: float `[B, C, T]`.
            metadata: for an order map `"rpm"`, rev/min, `[B]`, or at every sample, `[B, T]`.

        Returns:
            `[B, C, F, T']` of the signals' type.

        Raises:
            TypeError: the signals are not floating point.
            ValueError: a shape is another, or the window too short for the map.
        """
        check_batch(signals)
        with torch.autocast(signals.device.type, enabled=False):
            work = signals if signals.dtype == torch.float64 else signals.float()
            maps = self._scaled(self._power(work, metadata))
            return (_standardized(maps) if self.standardize else maps).to(signals.dtype)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())

    def _range(self, given: Sequence[float] | None) -> tuple[float, float]:
        rate_hz, is_order = self.sampling_rate_hz, self.kind == "order"
        shares = _ORDERS if is_order else _RANGES[self.kind]
        low, high = given or (share if is_order else share * rate_hz for share in shares)
        most = math.inf if is_order else rate_hz / 2
        if not 0 <= low < high <= most or high == math.inf or (self.kind == "cwt" and low == 0):
            expected = "0 <= low < high" if is_order else f"low < high, both from 0 to {most:g}"
            raise ValueError(f"frequency_range of {self.kind!r} is {(low, high)}, expected {expected}")
        return float(low), float(high)

    def _band(self, given: Sequence[float] | None) -> tuple[float, float] | None:
        if given is None and self.kind != "envelope":
            return None
        nyquist_hz = self.sampling_rate_hz / 2
        low, high = given or (share * nyquist_hz for share in _RESONANCES)
        return check_range("band_hz", (low, high), nyquist_hz)

    @functools.cached_property
    def _geometric(self) -> list[float]:
        return geometric_frequencies(*self.frequency_range, self.n_frequencies)

    @functools.cached_property
    def _axis(self) -> _Axis:
        """The transform of which rows in equal steps are bins."""
        low, high = self.frequency_range
        step = (high - low) / self.n_frequencies
        first = round(low / step)
        if self.kind == "order":
            n_fft = 2 * math.ceil(_ORDER_MARGIN * high / step)
            return _Axis(n_fft * step, n_fft, first)
        # lags of a Wigner-Ville distribution count twice, so its bins end at half the sampling rate
        rate = self.sampling_rate_hz / (2 if self.kind == "wvd" else 1)
        n_fft = round(rate / step)
        n_bins = n_fft if self.kind == "wvd" else n_fft // 2 + 1
        return _Axis(rate, n_fft, min(first, n_bins - self.n_frequencies))

    def _power(self, signals: Tensor, metadata: Mapping[str, Tensor] | None) -> Tensor:
        """Squared amplitudes, `[B, C, F, T']`."""
        if self.kind == "cwt":
            return cwt_power(signals, self.sampling_rate_hz, self._geometric, self.n_times, self.wavelet)
        if self.kind == "wvd":
            return self._wigner_ville(signals)
        if self.band_hz is not None:
            signals = squared_envelope(signals, self.sampling_rate_hz, self.band_hz)
            signals = signals - signals.mean(-1, keepdim=True)
        if self.kind == "order":
            return self._order_power(signals, metadata)
        n_fft = self._axis.n_fft
        hop = max(1, min(n_fft // 4, self._hop(signals)))
        return self._rows_of(stft(signals, self.sampling_rate_hz, self.window, n_fft, hop, hop // 2).values)

    def _order_power(self, signals: Tensor, metadata: Mapping[str, Tensor] | None) -> Tensor:
        if metadata is None or "rpm" not in metadata:
            raise ValueError(
                "an order map needs the speed of the shaft: metadata with 'rpm', [batch] or [batch, samples]"
            )
        axis, n_times = self._axis, min(self.n_times, signals.shape[-1])
        frames = order_frames(signals, metadata["rpm"], self.sampling_rate_hz, n_times, axis.n_fft, axis.rate)
        weights = amplitude_window(self.window, frames.shape[-1], frames)
        return self._rows_of(torch.fft.rfft(frames * weights).mT)

    def _wigner_ville(self, signals: Tensor) -> Tensor:
        axis, hop = self._axis, self._hop(signals)
        if axis.n_fft > _MAX_LAGS:
            raise ValueError(
                f"rows {axis.rate / axis.n_fft:.3g} Hz apart need {axis.n_fft} lags, more than {_MAX_LAGS}: choose a "
                "wider frequency_range, or another kind of map"
            )
        reach = (axis.n_fft - 1) // 2
        half = max(
            hop, reach // 2
        )  # of the window in time: smoothing in frequency alone leaves much between components
        margin = min(reach + half, signals.shape[-1] - 1)  # the ends are continued by mirroring
        values = wigner_ville(
            F.pad(signals, (margin, margin), mode="reflect"),
            self.sampling_rate_hz,
            axis.n_fft,
            _bell(2 * reach + 1, signals.dtype, signals.device),
            _bell(2 * half + 1, signals.dtype, signals.device),
            hop,
            margin + hop // 2,
        )
        n_columns = 1 + (signals.shape[-1] - 1 - hop // 2) // hop
        rows = values[:, :, axis.first : axis.first + self.n_frequencies, :n_columns]
        return _pool(rows, self.n_times)

    def _hop(self, signals: Tensor) -> int:
        return max(1, signals.shape[-1] // self.n_times)

    def _rows_of(self, values: Tensor) -> Tensor:
        first = self._axis.first
        rows = values[:, :, first : first + self.n_frequencies]
        return _pool(rows.real.square() + rows.imag.square(), self.n_times)

    def _scaled(self, power: Tensor) -> Tensor:
        if self.scale == "power":
            return power
        if self.scale == "magnitude":
            return power.clamp_min(_SILENCE).sqrt()  # a root has no slope at 0
        return decibel(power)


def decibel(power: Tensor) -> Tensor:
    """`10 log10` of maps' power, floored `DYNAMIC_RANGE_DB` below each map's strongest cell, and at -200.

    Args:
        power: `[B, C, F, T']`.

    Example:
        >>> decibel(torch.tensor([[[[1.0, 100.0, 0.0]]]]))
        tensor([[[[  0.,  20., -60.]]]])
    """
    floor = power.amax((-2, -1), keepdim=True) * 10 ** (-DYNAMIC_RANGE_DB / 10)
    return 10 * torch.maximum(power, floor.clamp_min(_SILENCE)).log10()


def _standardized(maps: Tensor) -> Tensor:
    """Each map with mean 0 and standard deviation 1; what varies by less than a millionth of its mean becomes 0."""
    normal, mean, inverse_deviation = torch.native_layer_norm(maps.contiguous(), maps.shape[-2:], None, None, 1e-30)
    return normal * (mean.abs() * inverse_deviation <= 1e6)


def _pool(power: Tensor, n_times: int) -> Tensor:
    """No more than `n_times` columns, each the mean of those it covers."""
    if power.shape[-1] <= n_times:
        return power
    return F.adaptive_avg_pool2d(power, (power.shape[-2], n_times))


@functools.lru_cache(maxsize=32)
def _bell(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A Hann window of odd length without zeros at its ends, of sum 1."""
    with torch.inference_mode(False):  # made for an evaluation, it must serve a training too
        weights = torch.hann_window(length + 2, periodic=False, dtype=torch.float64)[1:-1]
        return (weights / weights.sum()).to(device, dtype)
