"""A picture of one recording's time-frequency map, with the lines that the machine could write into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from packages.core.engine.files import atomic_write
from packages.core.physics.faults import Line, signature
from packages.core.physics.rolling_bearing import BEARINGS, fault_orders
from packages.core.signals.checks import check_name, check_number
from packages.core.signals.manifest import read_listed
from packages.core.signals.recording import Recording
from packages.core.signals.shaft_angle import turns_from_tachometer
from packages.core.signals.spectra import most_impulsive_band
from packages.core.signals.time_frequency import KINDS, TimeFrequency

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
_TURNS = 8  # shown where single impacts are to be seen
_UNKNOWN_SPEED_S = 0.25  # shown there where the speed is not known
_TOP_ORDER = 16
_LEAST_DB, _MOST_DB = 30, 50  # depth of the colours
_QUIET = 20  # percent of the cells that may be as dark as the darkest
_LABEL_ROOM = 0.027  # of the axis, between two names
_SHAFT, _FAULT = "white", "#7fffd4"


class _Mark(NamedTuple):
    name: str
    order: float
    color: str


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
    """Draw a recording's map and write it, whole or not at all.

    Where the speed is known, the shaft's harmonics are drawn in, dashed, and the lines to expect: with `bearing` the
    bearing's fault orders, else those of the recording's class, else those of rotors in journal bearings. With a
    tachometer they follow the speed.

    An envelope is that of the most impulsive band, see `spectra.most_impulsive_band`; so is an order map with
    `bearing`, because the impacts of a rolling bearing repeat at its fault orders, while its vibration rings higher.

    Args:
        recording: the recording, or its file, which is read as the manifest near it tells it, see `read_listed`.
        representation: one of `time_frequency.KINDS`.
        out: the picture, .png, .svg or .pdf; default the file's name with `-cwt.png` behind it, in the current folder.
        bearing: name in `rolling_bearing.BEARINGS`.
        rpm: speed of the shaft; default what manifest or file says.
        channel: which to draw; default the first that is not the tachometer.
        tachometer: channel with one pulse a turn, for a speed that changes.
        start_s: where to begin, >= 0.
        duration_s: how much to draw, > 0; default 8 turns of the shaft (0.25 s if its speed is not known), for
            envelope, order map, and with a tachometer, all.
        frequency_range: lowest and highest frequency to draw, Hz or orders.
        sampling_rate_hz: to assume where neither manifest nor file states one.

    Returns:
        Where the picture is.

    Raises:
        OSError: the picture cannot be written.
        ValueError: the file cannot be read, a name is not known, or the stretch does not hold enough.

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
        raise ValueError(f"{path}: cannot draw that kind of picture; known are {', '.join(SUFFIXES)}")
    if bearing is not None:
        check_name("bearing", bearing, BEARINGS)
    name = channel or next(each for each in recording.channels if each != tachometer)
    speed = _speed(recording, rpm, tachometer)
    if representation == "order" and speed is None:
        raise ValueError(f"{recording.name}: an order map needs the shaft's speed; give rpm or a tachometer channel")
    stretch = _stretch(recording, speed, start_s, duration_s, representation in ("envelope", "order") or tachometer)
    with _style(), atomic_write(path) as file:
        figure = _draw(recording.select_channels([name]), representation, stretch, speed, bearing, frequency_range)
        figure.savefig(file, format=path.suffix[1:].lower())
    return path


def _speed(recording: Recording, rpm: float | None, tachometer: str | None) -> np.ndarray | None:
    """rev/min at every sample; None if it is not known."""
    if tachometer is not None:
        pulses = torch.from_numpy(recording.select_channels([tachometer]).signal)
        turns = turns_from_tachometer(pulses)[0].numpy()
        return np.gradient(turns) * 60 * recording.sampling_rate_hz
    rpm = recording.rpm if rpm is None else check_number("rpm", rpm, 0, open_ends=True)
    return None if rpm is None else np.full(recording.n_samples, rpm)


def _stretch(
    recording: Recording, speed: np.ndarray | None, start_s: float, duration_s: float | None, everything: Any
) -> slice:
    rate_hz = recording.sampling_rate_hz
    if duration_s is None:
        few_s = _UNKNOWN_SPEED_S if speed is None else _TURNS * 60 / float(speed[0])
        duration_s = recording.duration_s if everything else few_s
    start = round(check_number("start_s", start_s, 0) * rate_hz)
    n_samples = round(check_number("duration_s", duration_s, 0, open_ends=True) * rate_hz)
    stop = min(start + n_samples, recording.n_samples)
    if stop - start < 64:
        raise ValueError(f"{recording.name} lasts {recording.duration_s:.4g} s: nothing to draw from {start_s:g} s on")
    return slice(start, stop)


def _draw(
    recording: Recording,
    kind: str,
    stretch: slice,
    speed: np.ndarray | None,
    bearing: str | None,
    frequency_range: Sequence[float] | None,
) -> Figure:
    signal, rate_hz = recording.signal[0, stretch], recording.sampling_rate_hz
    here = None if speed is None else speed[stretch]
    wants_band = kind == "envelope" or (kind == "order" and bearing is not None)
    band_hz = most_impulsive_band(signal, rate_hz) if wants_band else None
    mapping = _representation(kind, rate_hz, len(signal), here, band_hz, frequency_range)
    levels_db, y = _map(mapping, signal, here), mapping.frequencies.numpy()
    times_s = mapping.times_s(len(signal)).numpy() + stretch.start / rate_hz
    figure, axes = _canvas()
    image = axes.pcolormesh(
        times_s, y, levels_db, cmap="magma", shading="nearest", rasterized=True,
        vmin=np.clip(np.percentile(levels_db, _QUIET), -_MOST_DB, -_LEAST_DB), vmax=0,
    )  # fmt: skip
    if kind == "cwt":
        _logarithmic(axes, y)
    axes.set(xlim=(stretch.start / rate_hz, stretch.stop / rate_hz), ylim=(y[0], y[-1]))
    axes.set(xlabel="time / s", ylabel=_Y_LABELS.get(kind, "frequency / Hz"))
    if here is not None:
        turning_hz = np.interp(times_s, np.arange(stretch.start, stretch.stop) / rate_hz, here / 60)
        scale = np.ones_like(times_s) if kind == "order" else turning_hz
        _draw_marks(axes, _marks(recording, bearing), times_s, scale)
    _color_bar(figure, image)
    axes.text(0, 1.075, _title(recording), transform=axes.transAxes, fontsize=12, weight="bold", va="bottom")
    axes.text(0, 1.02, _subtitle(recording, kind, here, band_hz, bearing), transform=axes.transAxes, va="bottom")
    return figure


def _representation(
    kind: str,
    rate_hz: float,
    n_samples: int,
    speed: np.ndarray | None,
    band_hz: tuple[float, float] | None,
    frequency_range: Sequence[float] | None,
) -> TimeFrequency:
    if frequency_range is None:
        frequency_range = _default_range(kind, rate_hz, n_samples, speed)
    n_frequencies = _N_FREQUENCIES[kind]
    if kind in ("stft", "envelope"):  # a window as long as a quarter of what is drawn, at most
        low, high = frequency_range or (0, rate_hz / 2)
        n_frequencies = max(8, min(n_frequencies, int(n_samples / 4 * (high - low) / rate_hz)))
    if kind == "order" and speed is not None:  # half as many turns as there are, at most
        low, high = frequency_range or (0, _TOP_ORDER)
        turns = float(speed.mean()) / 60 * n_samples / rate_hz
        n_frequencies = max(8, min(n_frequencies, int(turns / 2 * (high - low))))
    return TimeFrequency(
        kind, rate_hz, n_frequencies, _N_TIMES, frequency_range=frequency_range, band_hz=band_hz, standardize=False
    )


def _default_range(kind: str, rate_hz: float, n_samples: int, speed: np.ndarray | None) -> tuple[float, float] | None:
    if kind == "cwt":  # from four waves within what is drawn
        return min(4 * rate_hz / n_samples, rate_hz / 8), 0.45 * rate_hz
    if kind == "envelope" and speed is not None:
        return 0, min(_TOP_ORDER * float(speed.max()) / 60, rate_hz / 4)
    if kind == "order" and speed is not None:
        return 0, min(_TOP_ORDER, rate_hz / 2 / (float(speed.max()) / 60))
    return None


def _map(mapping: TimeFrequency, signal: np.ndarray, speed: np.ndarray | None) -> np.ndarray:
    """The map in dB below its strongest cell, `[F, T']`."""
    centred = torch.from_numpy(signal - signal.mean(dtype=np.float64)).float()[None, None]
    metadata = {}
    if speed is not None:
        steady = np.ptp(speed) == 0
        metadata["rpm"] = torch.tensor([speed[0]] if steady else speed[None], dtype=torch.float64)
    levels_db = mapping(centred, metadata)[0, 0].numpy()
    return levels_db - levels_db.max()


def _marks(recording: Recording, bearing: str | None) -> list[_Mark]:
    """The lines to draw, those first that are named first where there is no room for all."""
    shaft = [_Mark(f"{n}X", n, _SHAFT) for n in range(1, 4)]
    if bearing is not None:
        orders = fault_orders(BEARINGS[bearing])
        rates = {"BPFO": orders.bpfo, "BPFI": orders.bpfi, "2BSF": 2 * orders.bsf, "FTF": orders.ftf}
        rates |= {f"{n}x{name}": n * rates[name] for n in (2, 3) for name in ("BPFO", "BPFI")}
        return [*(_Mark(name, order, _FAULT) for name, order in rates.items()), *shaft]
    known = signature(recording.label) if recording.label else None
    lines = known.lines if known is not None and known.lines else _journal_lines()
    faults = [_Mark(line.name, line.order, _FAULT) for line in lines if line.spectrum == "raw"]
    return faults + [mark for mark in shaft if mark.name not in {each.name for each in faults}]


def _journal_lines() -> tuple[Line, ...]:
    """What tells a rotor's faults apart: whirl, and the sub-harmonic of looseness."""
    lines = [line for label in ("oil_whirl", "clearance") for line in getattr(signature(label), "lines", ())]
    return tuple(line for line in lines if line.name in ("whirl", "1/2X"))


def _draw_marks(axes: Axes, marks: Sequence[_Mark], times_s: np.ndarray, turning: np.ndarray) -> None:
    """Each line over the map with its name beside it, as long as there is room for names."""
    taken: list[float] = []
    to_axes = axes.transData + axes.transAxes.inverted()
    low, high = axes.get_ylim()
    for mark in marks:
        height = mark.order * turning
        at = float(to_axes.transform((times_s[-1], height[-1]))[1]) if low < height[-1] < high else math.inf
        if at <= 1 and all(abs(at - other) > _LABEL_ROOM for other in taken):
            taken.append(at)
            dashes = (0, (1, 3)) if mark.color == _SHAFT else (0, (6, 4))
            axes.plot(times_s, height, color=mark.color, linewidth=0.8, alpha=0.75, linestyle=dashes)
            axes.text(1.008, at, mark.name, transform=axes.transAxes, va="center", fontsize=8)


def _title(recording: Recording) -> str:
    channel = f", channel {recording.channels[0]}" if recording.channels[0] != "ch0" else ""
    return f"{Path(recording.name).name}{channel}"


def _subtitle(
    recording: Recording, kind: str, speed: np.ndarray | None, band_hz: tuple[float, float] | None, bearing: str | None
) -> str:
    parts = [NAMES[kind]]
    if band_hz is not None:
        parts[0] += f" of {band_hz[0] / 1000:.3g} to {band_hz[1] / 1000:.3g} kHz"
    parts.append(f"{recording.sampling_rate_hz:g} Hz")
    if speed is None:
        parts.append("speed not known, so no orders drawn")
    elif np.ptp(speed) == 0:
        parts.append(f"{speed[0]:.4g} rpm")
    else:
        parts.append(f"{speed[0]:.4g} to {speed[-1]:.4g} rpm")
    if bearing is not None:
        parts.append(f"bearing {bearing}")
    if recording.label:
        parts.append(f"labelled {recording.label}")
    return "  ·  ".join(parts)


def _style() -> Any:
    from matplotlib import rc_context

    # text stays text in an SVG, and a dollar sign in a file's name a dollar sign
    return rc_context({"font.size": 10, "text.parse_math": False, "text.usetex": False, "svg.fonttype": "none"})


def _canvas() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), dpi=150)
    return figure, figure.add_axes((0.075, 0.1, 0.775, 0.755))


def _color_bar(figure: Figure, image: Any) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes((0.915, 0.1, 0.014, 0.755)), extend="min")
    bar.set_label("dB below the strongest")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _logarithmic(axes: Axes, frequencies_hz: np.ndarray) -> None:
    """An axis in equal ratios, with ticks at 1, 2 and 5 of each decade, written out."""
    axes.set_yscale("log")
    decades = range(math.floor(math.log10(frequencies_hz[0])), math.ceil(math.log10(frequencies_hz[-1])) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
