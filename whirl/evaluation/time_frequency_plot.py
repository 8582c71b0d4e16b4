"""Figures of the time-frequency map of a recording, annotated with expected fault lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whirl._plotting import figure_of
from whirl.data.manifest import read_listed
from whirl.data.recording import Recording
from whirl.data.resampling import ANALYSER_RATIO, resample
from whirl.dsp.shaft_angle import turns_from_tachometer
from whirl.dsp.spectra import most_impulsive_band
from whirl.dsp.time_frequency import KINDS, TimeFrequency, decibel
from whirl.engine.files import atomic_write
from whirl.evaluation.map_lines import SHAFT, Mark, bearing_to_draw, has_low_orders_only, lines_to_draw
from whirl.physics.bearings import Bearing
from whirl.validation import check_name, check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {
    "stft": "short-time Fourier transform",
    "cwt": "wavelet transform",
    "wvd": "smoothed Wigner-Ville distribution",
    "envelope": "squared envelope",
    "order": "order map",
}
_Y_LABELS = {"order": "order (multiples of shaft speed)", "envelope": "frequency of modulation / Hz"}
SUFFIXES = (".png", ".svg", ".pdf")

_N_FREQUENCIES = {"stft": 128, "cwt": 192, "wvd": 192, "envelope": 256, "order": 256}
_N_TIMES = 640
_REVOLUTIONS = 8  # default duration if single impacts matter
_LINE_REVOLUTIONS = 64  # default duration if only lines matter, which this many revolutions resolve
_UNKNOWN_SPEED_S = 0.25  # default duration if the speed is unknown
_TOP_ORDER = 16
_MIN_DB, _MAX_DB = 30, 50  # range of the color scale
_FLOOR_PERCENTILE = 20  # percentile of the cells that the color scale starts at
_LABEL_SPACING = 0.027  # minimum distance between two labels, relative to the axis
_SMOOTHING = 2.0  # rows; removes the negative cells of a smoothed Wigner-Ville distribution
_JITTER = 0.2  # maximum change between two periods of a tachometer, relative to the period


def plot_time_frequency(
    recording: Recording,
    representation: str = "cwt",
    *,
    bearing: str | None = None,
    rpm: float | None = None,
    channel: str | None = None,
    tachometer: str | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    frequency_range: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Plot the time-frequency map of a recording, with the expected lines of its shaft, bearing or fault class.

    If the speed is known, the harmonics of the shaft and the expected fault lines are drawn as dashed lines: the fault
    orders of `bearing` or of the recording's own bearing, otherwise the lines of the recording's class, otherwise those
    of rotors in journal bearings. With a tachometer they follow the speed. If the class is identified by low orders
    only, `stft` and `wvd` show 0 to 16 times the shaft speed, otherwise all frequencies.

    A Wigner-Ville distribution is averaged over a few rows, since negative cells have no level in dB.

    An envelope map shows the envelope of the most impulsive band, see `spectra.most_impulsive_band`. So does an order
    map with `bearing`, since the impacts of a rolling bearing repeat at its fault orders, but excite resonances at
    higher frequencies.

    Args:
        recording: the recording.
        representation: one of `time_frequency.KINDS`.
        bearing: one bearing as in `whirl.physics.parse_bearing`; by default the first of the recording's own.
        rpm: shaft speed; by default as stated in manifest or file.
        channel: channel to draw; by default the first that is not the tachometer.
        tachometer: channel with one pulse per revolution, for a varying speed.
        start_s: start time in seconds, >= 0.
        duration_s: duration in seconds, > 0. By default the complete recording for envelope and order maps and with a
            tachometer; otherwise 8 revolutions (0.25 s if the speed is unknown), or 64 if the class is identified by
            low orders only.
        frequency_range: lowest and highest frequency to draw, in Hz or orders.
        ax: where to draw, with a color bar beside it; None creates a figure.

    Returns:
        The figure.

    Raises:
        ValueError: a name is unknown, the bearing is malformed, or the selected time range is too short,
            constant or not finite.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=12_000)
        >>> axes = plot_time_frequency(Recording(noise, 12_000, rpm=1800), "stft").axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('time / s', 'frequency / Hz')
    """
    check_name("representation", representation, KINDS)
    drawn = bearing_to_draw(recording, bearing)
    name = channel or next((each for each in recording.channels if each != tachometer), None)
    if name is None:
        raise ValueError(f"{recording.name}: has no channel other than the tachometer, {tachometer}")
    speed = _speed(recording, rpm, tachometer)
    if representation == "order" and speed is None:
        raise ValueError(f"{recording.name}: an order map requires the shaft speed; give rpm or a tachometer channel")
    show_all = representation in ("envelope", "order") or tachometer is not None
    samples = _select_samples(recording, speed, start_s, duration_s, show_all)
    selected = recording.select_channels([name])
    if not 0 < np.ptp(selected.signal[0, samples]) < math.inf:
        raise ValueError(f"{recording.name}: channel {name} is constant, NaN or infinite there; draw another part")
    with _style():
        axes = _new_axes() if ax is None else ax
        _draw(axes, selected, representation, samples, speed, drawn, frequency_range)
    return figure_of(axes)


def show_recording(
    recording: Recording | str | Path,
    representation: str = "cwt",
    out: str | Path | None = None,
    *,
    bearing: str | None = None,
    rpm: float | None = None,
    channel: str | None = None,
    tachometer: str | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    frequency_range: Sequence[float] | None = None,
    sampling_rate_hz: float | None = None,
) -> Path:
    """Draw the time-frequency map of a recording with `plot_time_frequency` and write it to an image file, atomically.

    Args:
        recording: the recording, or its file, which is read with the metadata of a nearby manifest, see `read_listed`.
        representation: one of `time_frequency.KINDS`.
        out: image file, .png, .svg or .pdf; by default the name of the recording with the suffix `-cwt.png` (or another
            representation), in the current folder.
        bearing: see `plot_time_frequency`, as for the next six.
        rpm: shaft speed; by default as stated in manifest or file.
        channel: channel to draw.
        tachometer: channel with one pulse per revolution, for a varying speed.
        start_s: start time in seconds, >= 0.
        duration_s: duration in seconds, > 0.
        frequency_range: lowest and highest frequency to draw, in Hz or orders.
        sampling_rate_hz: sampling rate to assume if neither manifest nor file states one.

    Returns:
        Path of the image file.

    Raises:
        OSError: the image cannot be written.
        ValueError: the recording cannot be read, a name is unknown, or the selected time range is too short.

    Example:
        >>> import tempfile
        >>> noise = np.random.default_rng(0).normal(size=12_000)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = show_recording(Recording(noise, 12_000, rpm=1800), "stft", f"{folder}/noise.png")
        ...     path.name, path.stat().st_size > 10_000
        ('noise.png', True)
    """
    check_name("representation", representation, KINDS)
    if not isinstance(recording, Recording):
        (recording,) = read_listed([recording], sampling_rate_hz)
    path = Path(out) if out is not None else Path(f"{Path(recording.name).stem}-{representation}.png")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: unsupported image format; expected one of: {', '.join(SUFFIXES)}")
    figure = plot_time_frequency(
        recording, representation, bearing=bearing, rpm=rpm, channel=channel, tachometer=tachometer, start_s=start_s,
        duration_s=duration_s, frequency_range=frequency_range,
    )  # fmt: skip
    with _style(), atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower())
    return path


def _speed(recording: Recording, rpm: float | None, tachometer: str | None) -> np.ndarray | None:
    """Return the speed in rev/min at every sample; None if it is unknown."""
    if tachometer is not None:
        pulses = torch.from_numpy(recording.select_channels([tachometer]).signal)
        try:
            turns = turns_from_tachometer(pulses)[0].numpy()
        except ValueError as error:
            raise ValueError(f"{recording.name}, channel {tachometer}: {error}") from None
        _check_pulses(turns, f"{recording.name}, channel {tachometer}")
        return np.gradient(turns) * 60 * recording.sampling_rate_hz
    rpm = recording.rpm if rpm is None else check_number("rpm", rpm, 0, open_ends=True)
    return None if rpm is None else np.full(recording.n_samples, rpm)


def _check_pulses(turns: np.ndarray, where: str) -> None:
    """Raise if the pulses are irregular: vibration crosses its mean level too, but a shaft rotates evenly."""
    pulses = np.interp(np.arange(math.ceil(turns[0]), math.floor(turns[-1]) + 1), turns, np.arange(len(turns)))
    periods = np.diff(pulses)
    if len(periods) > 1 and np.median(np.abs(np.diff(periods))) > _JITTER * np.median(periods):
        raise ValueError(f"{where}: not a tachometer with one pulse per revolution: its pulses are irregular")


def _select_samples(
    recording: Recording, speed: np.ndarray | None, start_s: float, duration_s: float | None, show_all: bool
) -> slice:
    """Return the range of samples to draw."""
    rate_hz = recording.sampling_rate_hz
    if duration_s is None:
        revolutions = _LINE_REVOLUTIONS if has_low_orders_only(recording) else _REVOLUTIONS
        excerpt_s = _UNKNOWN_SPEED_S if speed is None else revolutions * 60 / float(speed[0])
        duration_s = recording.duration_s if show_all else excerpt_s
    start = round(check_number("start_s", start_s, 0) * rate_hz)
    n_samples = round(check_number("duration_s", duration_s, 0, open_ends=True) * rate_hz)
    stop = min(start + n_samples, recording.n_samples)
    if stop - start < 64:
        raise ValueError(
            f"{recording.name}: is {recording.duration_s:.4g} s long, too short to draw from {start_s:g} s"
        )
    return slice(start, stop)


def _draw(
    axes: Axes,
    recording: Recording,
    kind: str,
    samples: slice,
    speed: np.ndarray | None,
    bearing: Bearing | None,
    frequency_range: Sequence[float] | None,
) -> None:
    signal, rate_hz = recording.signal[0, samples], recording.sampling_rate_hz
    speed = None if speed is None else speed[samples]
    needs_band = kind == "envelope" or (kind == "order" and bearing is not None)
    band_hz = most_impulsive_band(signal, rate_hz) if needs_band else None
    if frequency_range is None:
        low_orders_only = bearing is None and has_low_orders_only(recording)
        frequency_range = _default_range(kind, rate_hz, len(signal), speed, low_orders_only)
    if kind == "wvd":
        signal, rate_hz = _decimated(signal, rate_hz, frequency_range)
    mapping = _make_representation(kind, rate_hz, len(signal), speed, band_hz, frequency_range)
    levels_db, y = _map(mapping, signal, speed), mapping.frequencies.numpy()
    times_s = mapping.times_s(len(signal)).numpy() + samples.start / recording.sampling_rate_hz
    image = axes.pcolormesh(
        times_s, y, levels_db, cmap="magma", shading="nearest", rasterized=True,
        vmin=np.clip(np.percentile(levels_db, _FLOOR_PERCENTILE), -_MAX_DB, -_MIN_DB), vmax=0,
    )  # fmt: skip
    if kind == "cwt":
        _logarithmic(axes, y)
    shown_s = np.arange(samples.start, samples.stop) / recording.sampling_rate_hz
    axes.set(xlim=(shown_s[0], shown_s[-1]), ylim=(y[0], y[-1]))
    axes.set(xlabel="time / s", ylabel=_Y_LABELS.get(kind, "frequency / Hz"))
    if speed is not None:
        shaft_hz = np.interp(times_s, shown_s, speed / 60)
        scale = np.ones_like(times_s) if kind == "order" else shaft_hz
        _draw_marks(axes, lines_to_draw(recording, bearing), times_s, scale)
    _color_bar(axes, image)
    axes.text(0, 1.075, _title(recording), transform=axes.transAxes, fontsize=12, weight="bold", va="bottom")
    axes.text(0, 1.02, _subtitle(recording, kind, speed, band_hz, bearing), transform=axes.transAxes, va="bottom")


def _make_representation(
    kind: str,
    rate_hz: float,
    n_samples: int,
    speed: np.ndarray | None,
    band_hz: tuple[float, float] | None,
    frequency_range: Sequence[float] | None,
) -> TimeFrequency:
    n_frequencies = _N_FREQUENCIES[kind]
    if kind == "stft" and frequency_range is None and speed is not None:  # a window of a quarter of a revolution
        n_frequencies = min(n_frequencies, round(rate_hz / 8 * 60 / float(speed.mean())))
    if kind in ("stft", "envelope"):  # a window of at most a quarter of the duration
        low, high = frequency_range or (0, rate_hz / 2)
        n_frequencies = max(8, min(n_frequencies, int(n_samples / 4 * (high - low) / rate_hz)))
    if kind == "order" and speed is not None:  # a window of at most half of the revolutions
        low, high = frequency_range or (0, _TOP_ORDER)
        revolutions = float(speed.mean()) / 60 * n_samples / rate_hz
        n_frequencies = max(8, min(n_frequencies, int(revolutions / 2 * (high - low))))
    return TimeFrequency(
        kind,
        rate_hz,
        n_frequencies,
        _N_TIMES,
        scale="power",
        frequency_range=frequency_range,
        band_hz=band_hz,
        standardize=False,
    )


def _default_range(
    kind: str, rate_hz: float, n_samples: int, speed: np.ndarray | None, low_orders_only: bool
) -> tuple[float, float] | None:
    if kind == "cwt":  # at least three periods within the duration
        return min(3 * rate_hz / n_samples, rate_hz / 8), 0.45 * rate_hz
    if kind in ("stft", "wvd") and speed is not None and low_orders_only:
        return 0, min(_TOP_ORDER * float(speed.max()) / 60, rate_hz / 2)
    if kind == "envelope" and speed is not None:
        return 0, min(_TOP_ORDER * float(speed.max()) / 60, rate_hz / 4)
    if kind == "order" and speed is not None:
        return 0, min(_TOP_ORDER, rate_hz / 2 / (float(speed.max()) / 60))
    return None


def _decimated(signal: np.ndarray, rate_hz: float, frequency_range: Sequence[float] | None) -> tuple[np.ndarray, float]:
    """Lower the sampling rate as far as the frequency range allows: a Wigner-Ville map costs its square."""
    factor = max(1, math.floor(rate_hz / (ANALYSER_RATIO * frequency_range[1]))) if frequency_range else 1
    lower_hz = rate_hz / factor
    return resample(Recording(signal, rate_hz), lower_hz).signal[0], lower_hz


def _map(mapping: TimeFrequency, signal: np.ndarray, speed: np.ndarray | None) -> np.ndarray:
    """Compute the map in dB relative to its maximum, `[F, T']`."""
    centered = torch.from_numpy(signal - signal.mean(dtype=np.float64)).float()[None, None]
    metadata = {}
    if speed is not None:
        steady = np.ptp(speed) == 0
        metadata["rpm"] = torch.tensor([speed[0]] if steady else speed[None], dtype=torch.float64)
    levels_db = decibel(_positive(mapping, mapping(centered, metadata)))[0, 0].numpy()
    return levels_db - levels_db.max()


def _positive(mapping: TimeFrequency, power: torch.Tensor) -> torch.Tensor:
    """Smooth a Wigner-Ville distribution over frequency, which removes its negative cells."""
    if mapping.kind != "wvd":
        return power
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(power.numpy(), _SMOOTHING, axis=-2))


def _draw_marks(axes: Axes, marks: Sequence[Mark], times_s: np.ndarray, scale: np.ndarray) -> None:
    """Draw each line over the map with its name on the right, moving names apart so that they do not overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    low, high = axes.get_ylim()
    drawn = sorted((mark for mark in marks if low < mark.order * scale[-1] <= high), key=lambda mark: mark.order)
    ends = [float(to_axes.transform((times_s[-1], mark.order * scale[-1]))[1]) for mark in drawn]
    for mark, end, position in zip(drawn, ends, _move_apart(ends, _LABEL_SPACING), strict=True):
        dashes = (0, (1, 3)) if mark.color == SHAFT else (0, (6, 4))
        axes.plot(
            times_s, mark.order * scale, color=mark.color, linewidth=0.8, alpha=0.75, linestyle=dashes,
            gid=f"line {mark.name}",
        )  # fmt: skip
        options = {"transform": axes.transAxes, "clip_on": False}
        axes.plot((1, 1.004, 1.016, 1.018), (end, end, position, position), color="0.6", linewidth=0.6, **options)
        axes.text(1.021, position, mark.name, va="center", fontsize=8, **options)


def _move_apart(positions: Sequence[float], spacing: float) -> list[float]:
    """Move increasing positions in [0, 1] to a minimum spacing, with the smallest squared displacement."""
    from scipy.optimize import isotonic_regression

    if not positions:
        return []
    offsets = spacing * np.arange(len(positions))
    moved = isotonic_regression(np.asarray(positions) - offsets).x
    return list(np.clip(moved, 0, max(0.0, 1 - offsets[-1])) + offsets)


def _title(recording: Recording) -> str:
    channel = f", channel {recording.channels[0]}" if recording.channels[0] != "ch0" else ""
    return f"{Path(recording.name).name}{channel}"


def _subtitle(
    recording: Recording,
    kind: str,
    speed: np.ndarray | None,
    band_hz: tuple[float, float] | None,
    bearing: Bearing | None,
) -> str:
    parts = [NAMES[kind]]
    if band_hz is not None:
        of_envelope = " of the squared envelope" if kind == "order" else ""
        parts[0] += f"{of_envelope}, {band_hz[0] / 1000:.3g} to {band_hz[1] / 1000:.3g} kHz"
    parts.append(f"{recording.sampling_rate_hz:g} Hz")
    if speed is None:
        parts.append("speed unknown, no orders drawn")
    elif np.ptp(speed) == 0:
        parts.append(f"{speed[0]:.4g} rpm")
    else:
        parts.append(f"{speed[0]:.4g} to {speed[-1]:.4g} rpm")
    if bearing is not None:
        parts.append(f"bearing {bearing.text}")
    if recording.label:
        parts.append(f"label {recording.label}")
    return "  ·  ".join(parts)


def _style() -> Any:
    from matplotlib import rc_context

    # Text stays text in an SVG, and file names may contain dollar signs.
    return rc_context({"font.size": 10, "text.parse_math": False, "text.usetex": False, "svg.fonttype": "none"})


def _new_axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(10, 5.6), dpi=150).add_axes((0.075, 0.1, 0.775, 0.755))


def _color_bar(axes: Axes, image: Any) -> None:
    from matplotlib.transforms import ScaledTranslation

    right_of_names = ScaledTranslation(0.65, 0, axes.figure.dpi_scale_trans)  # inches
    beside = axes.inset_axes((1, 0, 0.018, 1), transform=axes.transAxes + right_of_names)
    bar = axes.figure.colorbar(image, cax=beside, extend="min")
    bar.set_label("dB relative to maximum")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _logarithmic(axes: Axes, frequencies_hz: np.ndarray) -> None:
    """Set a logarithmic axis with labeled ticks at 1, 2 and 5 of each decade."""
    axes.set_yscale("log")
    decades = range(math.floor(math.log10(frequencies_hz[0])), math.ceil(math.log10(frequencies_hz[-1])) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
