"""Time-frequency maps of batches, on the device of the batch, as input of 2-D networks and for figures."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl._precision import at_least_float32
from whirl.dsp.envelope import check_range, squared_envelope
from whirl.dsp.shaft_angle import order_frames
from whirl.dsp.short_time_fourier import WindowName, amplitude_window, stft
from whirl.dsp.wavelets import WAVELETS, cwt_power, geometric_frequencies
from whirl.dsp.wigner import wigner_ville
from whirl.validation import check_batch, check_count, check_name, check_number

KINDS = ("stft", "cwt", "wvd", "envelope", "order")
SCALES = ("db", "magnitude", "power")

DYNAMIC_RANGE_DB = 80.0
"""Dynamic range of a map in dB: weaker cells are raised to this distance below the strongest cell."""

_MIN_POWER = 1e-20  # -200 dB
_RANGES = {  # default frequency range relative to the sampling rate
    "stft": (0.0, 0.5),
    "cwt": (1 / 1024, 0.45),  # from two cycles in a window of 2048 to below the transition of an anti-aliasing filter
    "wvd": (0.0, 0.5),
    "envelope": (0.0, 1 / 16),
}
_ORDERS = (0.0, 16.0)
_RESONANCE_BAND = (0.25, 0.95)  # default band to demodulate, relative to half the sampling rate
_ORDER_MARGIN = 1.05  # samples per revolution relative to twice the highest order, for the transition of the low-pass
_MAX_LAGS = 4096  # of a Wigner-Ville distribution, whose memory is proportional to lags times samples


class _Axis(NamedTuple):
    """Equally spaced rows: `n_frequencies` bins from `first` on of a transform of `n_fft` samples."""

    rate: float  # samples per second or per revolution
    n_fft: int
    first: int


class TimeFrequency(nn.Module):
    """Time-frequency representation: a module that converts signals to maps, for use in front of a network.

    | kind | rows | map |
    |---|---|---|
    | `stft` | Hz, linear | short-time Fourier transform; the window is as long as the spacing of the rows allows |
    | `cwt` | Hz, logarithmic | wavelet transform |
    | `wvd` | Hz, linear | smoothed pseudo Wigner-Ville distribution |
    | `envelope` | modulation frequency in Hz, linear | short-time Fourier transform of the squared envelope of a band |
    | `order` | orders of shaft speed, linear | short-time Fourier transform over the shaft angle |

    The power of each cell is scaled, by default to dB with a floor `DYNAMIC_RANGE_DB` below the strongest cell, so that
    a window of zeros gives finite values. By default every map, of each sample and channel, is then standardized to
    mean 0 and standard deviation 1; a constant map becomes zeros.

    The module has no parameters and no state. Half precision is computed in float32, also under autocast; maps have the
    dtype of the signals. Gradients flow to the signals.

    Args:
        kind: one of `KINDS`.
        sampling_rate_hz: sampling rate of the signals, > 0.
        n_frequencies: number of rows F, >= 2.
        n_times: number of columns T', >= 1, limited to the number of samples of the window.
        scale: `"db"`, `"magnitude"` or `"power"`.
        frequency_range: lowest and highest frequency in Hz, 0 <= low < high <= half the sampling rate (orders >= 0 for
            an order map, 0 < low for a `cwt`). The last of linearly spaced rows lies one step below high. Default: 0 to
            half the sampling rate; for a `cwt` 1/1024 to 0.45 of the sampling rate; for an `envelope` 0 to 1/16 of it;
            for an order map orders 0 to 16.
        band_hz: band to demodulate for an `envelope`, in Hz; default 0.25 to 0.95 of half the sampling rate, the range
            of structural resonances. For an `order` map None uses the signal itself, and a band its squared envelope.
        window: window of `stft`, `envelope` and `order`, see `stft`.
        wavelet: wavelet of `cwt`, see `wavelets.cwt`.
        standardize: whether to standardize each map to mean 0 and standard deviation 1.

    Raises:
        ValueError: an argument is out of range, or a name is unknown.

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
        """Arguments as JSON-compatible data; `TimeFrequency(**config)` creates an equal representation."""
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
        """Frequencies of the rows of a map, `[F]`, increasing, in Hz, or orders for an order map."""
        if self.kind == "cwt":
            return torch.tensor(self._geometric)
        axis = self._axis
        return (axis.first + torch.arange(self.n_frequencies)) * (axis.rate / axis.n_fft)

    def times_s(self, n_samples: int) -> Tensor:
        """Return the centers of the columns of a map of `n_samples` samples, `[T']`, in seconds from the first."""
        n_times = min(self.n_times, n_samples)
        return (torch.arange(n_times) + 0.5) * (n_samples / n_times / self.sampling_rate_hz)

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None) -> Tensor:
        """Compute the maps of a batch.

        Args:
            signals: float `[B, C, T]`.
            metadata: must contain `"rpm"` for an order map, the shaft speed in rev/min, `[B]`, or at every sample,
                `[B, T]`.

        Returns:
            `[B, C, F, T']` with the dtype of the signals.

        Raises:
            TypeError: the signals are not floating point.
            ValueError: a shape is invalid, the window is too short for the map, or the speed is missing.
        """
        check_batch(signals)
        with torch.autocast(signals.device.type, enabled=False):
            work = at_least_float32(signals)
            maps = self._scale(self._power(work, metadata))
            return (_standardize(maps) if self.standardize else maps).to(signals.dtype)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())

    def _range(self, given: Sequence[float] | None) -> tuple[float, float]:
        rate_hz, is_order = self.sampling_rate_hz, self.kind == "order"
        low, high = given or (_ORDERS if is_order else (fraction * rate_hz for fraction in _RANGES[self.kind]))
        maximum = math.inf if is_order else rate_hz / 2
        if not 0 <= low < high <= maximum or high == math.inf or (self.kind == "cwt" and low == 0):
            lower = "0 < low" if self.kind == "cwt" else "0 <= low"
            expected = f"{lower} < high" if is_order else f"{lower} < high <= {maximum:g}"
            raise ValueError(f"frequency_range of {self.kind!r} is {(low, high)}, expected {expected}")
        return float(low), float(high)

    def _band(self, given: Sequence[float] | None) -> tuple[float, float] | None:
        if given is None and self.kind != "envelope":
            return None
        nyquist_hz = self.sampling_rate_hz / 2
        low, high = given or (fraction * nyquist_hz for fraction in _RESONANCE_BAND)
        return check_range("band_hz", (low, high), nyquist_hz)

    @functools.cached_property
    def _geometric(self) -> list[float]:
        return geometric_frequencies(*self.frequency_range, self.n_frequencies)

    @functools.cached_property
    def _axis(self) -> _Axis:
        """Transform whose bins are the linearly spaced rows."""
        low, high = self.frequency_range
        step = (high - low) / self.n_frequencies
        first = round(low / step)
        if self.kind == "order":
            n_fft = 2 * math.ceil(_ORDER_MARGIN * high / step)
            return _Axis(n_fft * step, n_fft, first)
        # the phase of a Wigner-Ville distribution is proportional to twice the lag, so its bins end at half the rate
        rate = self.sampling_rate_hz / (2 if self.kind == "wvd" else 1)
        n_fft = round(rate / step)
        n_bins = n_fft if self.kind == "wvd" else n_fft // 2 + 1
        return _Axis(rate, n_fft, min(first, n_bins - self.n_frequencies))

    def _power(self, signals: Tensor, metadata: Mapping[str, Tensor] | None) -> Tensor:
        """Compute squared amplitudes, `[B, C, F, T']`."""
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
                "metadata has no 'rpm', expected the shaft speed for an order map: [batch] or [batch, samples]"
            )
        axis, n_times = self._axis, min(self.n_times, signals.shape[-1])
        frames = order_frames(signals, metadata["rpm"], self.sampling_rate_hz, n_times, axis.n_fft, axis.rate)
        weights = amplitude_window(self.window, frames.shape[-1], frames)
        return self._rows_of(torch.fft.rfft(frames * weights).mT)

    def _wigner_ville(self, signals: Tensor) -> Tensor:
        axis, hop = self._axis, self._hop(signals)
        if axis.n_fft > _MAX_LAGS:
            raise ValueError(
                f"rows with a spacing of {axis.rate / axis.n_fft:.3g} Hz need {axis.n_fft} lags, expected at most "
                f"{_MAX_LAGS}; use a wider frequency_range or another kind of map"
            )
        reach = (axis.n_fft - 1) // 2
        # half-width of the time window; smoothing in frequency alone leaves strong cross terms
        half = max(hop, reach // 2)
        margin = min(reach + half, signals.shape[-1] - 1)  # for mirroring at the ends
        values = wigner_ville(
            F.pad(signals, (margin, margin), mode="reflect"),
            self.sampling_rate_hz,
            axis.n_fft,
            _hann(2 * reach + 1, signals.dtype, signals.device),
            _hann(2 * half + 1, signals.dtype, signals.device),
            hop,
            margin + hop // 2,
        )
        n_columns = 1 + (signals.shape[-1] - 1 - hop // 2) // hop
        rows = values[:, :, axis.first : axis.first + self.n_frequencies, :n_columns]
        return _pool_times(rows, self.n_times)

    def _hop(self, signals: Tensor) -> int:
        return max(1, signals.shape[-1] // self.n_times)

    def _rows_of(self, values: Tensor) -> Tensor:
        first = self._axis.first
        rows = values[:, :, first : first + self.n_frequencies]
        return _pool_times(rows.real.square() + rows.imag.square(), self.n_times)

    def _scale(self, power: Tensor) -> Tensor:
        if self.scale == "power":
            return power
        if self.scale == "magnitude":
            return power.clamp_min(_MIN_POWER).sqrt()  # the root has no finite gradient at 0
        return decibel(power)


def decibel(power: Tensor) -> Tensor:
    """Convert the power of maps to dB, with a floor `DYNAMIC_RANGE_DB` below the strongest cell and at -200 dB.

    Args:
        power: `[B, C, F, T']`.

    Example:
        >>> decibel(torch.tensor([[[[1.0, 100.0, 0.0]]]]))
        tensor([[[[  0.,  20., -60.]]]])
    """
    floor = power.amax((-2, -1), keepdim=True) * 10 ** (-DYNAMIC_RANGE_DB / 10)
    return 10 * torch.maximum(power, floor.clamp_min(_MIN_POWER)).log10()


def _standardize(maps: Tensor) -> Tensor:
    """Standardize each map; one whose standard deviation is below a millionth of its mean becomes 0."""
    standardized, mean, inverse_deviation = torch.native_layer_norm(
        maps.contiguous(), maps.shape[-2:], None, None, 1e-30
    )
    return standardized * (mean.abs() * inverse_deviation <= 1e6)


def _pool_times(power: Tensor, n_times: int) -> Tensor:
    """Average the columns to at most `n_times`."""
    if power.shape[-1] <= n_times:
        return power
    return F.adaptive_avg_pool2d(power, (power.shape[-2], n_times))


@functools.lru_cache(maxsize=32)
def _hann(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a Hann window of odd length without zeros at its ends, normalized to sum 1."""
    with torch.inference_mode(False):  # cached under inference mode, the tensor could not be used in training
        weights = torch.hann_window(length + 2, periodic=False, dtype=torch.float64)[1:-1]
        return (weights / weights.sum()).to(device, dtype)
