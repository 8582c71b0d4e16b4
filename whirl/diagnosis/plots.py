"""Figure of a diagnosis: waveform, spectrum, and squared envelope spectrum with the lines of the bearing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whirl.data.recording import Recording
from whirl.diagnosis.front_end import EnvelopeOrders, envelope_orders
from whirl.diagnosis.results import BearingDiagnosis, FamilyEvidence, RecordingDiagnosis
from whirl.diagnosis.speed_check import check_speed
from whirl.dsp.envelope import amplitude_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TURNS = 6  # of the waveform
_COLORS = {"inner_race": "#d55e00", "outer_race": "#0072b2", "ball": "#009e73", "cage": "#cc79a7"}  # Okabe and Ito 2008
_SIGNAL, _SHAFT = "0.25", "0.75"
_ORDERS = (12.0, 60.0)  # least and most that are drawn


def plot_diagnosis(
    recording: Recording, diagnosis: BearingDiagnosis | RecordingDiagnosis | None = None, figure: Figure | None = None
) -> Figure:
    """Draw the waveform, the spectrum and the squared envelope spectrum with the lines that were looked for.

    Lines of the part that the verdict names are drawn solid, at the slip that was found; those of the other parts are
    dashed. Without speed or bearing there are no lines, and without speed no envelope spectrum.

    Args:
        recording: the recording.
        diagnosis: its diagnosis; default that of `diagnose`. Of several channels and bearings the leading one is drawn.
        figure: figure to draw on; default a new one.

    Returns:
        The figure; `figure.savefig("diagnosis.png")` writes it.

    Raises:
        ValueError: the recording has no channel of the name in the diagnosis.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=60_000)
        >>> figure = plot_diagnosis(Recording(noise, 12_000, rpm=1797, bearing="6205"))
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['time / s', 'frequency / kHz', 'order (multiples of shaft speed)']
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if diagnosis is None:
        from whirl.diagnosis.spectral import diagnose

        diagnosis = diagnose(recording)
    result = diagnosis.leading if isinstance(diagnosis, RecordingDiagnosis) else diagnosis
    signal = recording.select_channels([result.channel]).signal[0]
    with rc_context({"font.size": 9, "text.parse_math": False, "text.usetex": False, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 8), dpi=120, layout="constrained") if figure is None else figure
        waveform, spectrum, envelope = figure.subplots(3, 1)
        figure.suptitle(_title(result), fontsize=11, x=0.01, ha="left")
        _draw_waveform(waveform, signal, recording, result)
        _draw_spectrum(spectrum, signal, recording, result)
        _draw_envelope(envelope, recording, result)
    return figure


def _title(result: BearingDiagnosis) -> str:
    speed = "unknown speed" if result.rpm is None else f"{result.rpm:.5g} rpm"
    about = f"{Path(result.file).name}, channel {result.channel}, bearing {result.bearing or 'unknown'}, {speed}"
    return f"{result.verdict.replace('_', ' ')}  ({about})\n{result.reasons[0] if result.reasons else ''}"


def _draw_waveform(axes: Axes, signal: np.ndarray, recording: Recording, result: BearingDiagnosis) -> None:
    rate_hz = recording.sampling_rate_hz
    n = len(signal) if result.rpm is None else min(len(signal), round(_TURNS * 60 / result.rpm * rate_hz))
    axes.plot(np.arange(n) / rate_hz, signal[:n], color=_SIGNAL, linewidth=0.6)
    axes.set(
        xlabel="time / s", ylabel=f"signal / {recording.unit}" if recording.unit else "signal", xlim=(0, n / rate_hz)
    )


def _draw_spectrum(axes: Axes, signal: np.ndarray, recording: Recording, result: BearingDiagnosis) -> None:
    finite = torch.tensor(np.nan_to_num(signal, nan=0, posinf=0, neginf=0))
    amplitude, frequency_hz = amplitude_spectrum(finite, recording.sampling_rate_hz, recording.sampling_rate_hz / 4096)
    largest = float(amplitude.max()) or 1.0
    level_db = 20 * (amplitude / largest).clamp(min=1e-7).log10()
    axes.plot(frequency_hz.numpy() / 1000, level_db.numpy(), color=_SIGNAL, linewidth=0.6)
    if result.evidence is not None and result.evidence.band_hz is not None:
        low, high = (edge / 1000 for edge in result.evidence.band_hz)
        axes.axvspan(low, high, color=_COLORS[result.evidence.part], alpha=0.12, linewidth=0, label="demodulated band")
        axes.legend(loc="upper right", frameon=False)
    axes.set(xlabel="frequency / kHz", ylabel="level / dB", xlim=(0, recording.sampling_rate_hz / 2000))


def _draw_envelope(axes: Axes, recording: Recording, result: BearingDiagnosis) -> None:
    axes.set(xlabel="order (multiples of shaft speed)", ylabel="modulation / %")
    if result.rpm is None or result.n_segments == 0:
        axes.text(0.5, 0.5, "not computed", transform=axes.transAxes, ha="center", color=_SIGNAL)
        return
    families = [family for family in result.families.values() if family.is_judged]
    shown = float(np.clip(3.3 * max((family.order for family in families), default=4.0), *_ORDERS))
    evaluated = check_speed(replace(recording, rpm=result.rpm)).recording
    signal = torch.tensor(evaluated.select_channels([result.channel]).signal[0])
    spectra = envelope_orders(signal, recording.sampling_rate_hz, result.rpm, shown)
    spectrum = _band_of(spectra, result)
    order = np.arange(len(spectrum.power)) / spectrum.bins_per_order
    drawn = (order > 0.1) & (order <= shown)
    percent = 100 * spectrum.power.sqrt().numpy()
    for harmonic in range(1, int(shown) + 1):
        axes.axvline(harmonic, color=_SHAFT, linewidth=0.5, linestyle=":")
    axes.plot(order[drawn], percent[drawn], color=_SIGNAL, linewidth=0.7)
    for family in families:
        _draw_lines(axes, family, is_found=family.part == result.verdict, shown=shown)
    axes.legend(loc="upper right", frameon=False, ncols=4)
    axes.set(xlim=(0, shown), ylim=(0, 1.15 * float(percent[drawn].max())))
    low, high = (edge / 1000 for edge in spectrum.band_hz)
    axes.set_title(f"squared envelope of {low:.3g} to {high:.3g} kHz, pre-whitened", loc="left", fontsize=9)


def _band_of(spectra: list[EnvelopeOrders], result: BearingDiagnosis) -> EnvelopeOrders:
    """Return the band of the family that the verdict names, else the lowest."""
    wanted = None if result.evidence is None else result.evidence.band_hz
    return next((spectrum for spectrum in spectra if spectrum.band_hz == wanted), spectra[0])


def _draw_lines(axes: Axes, family: FamilyEvidence, is_found: bool, shown: float) -> None:
    style: dict[str, Any] = (
        {"linewidth": 1.3, "alpha": 0.8} if is_found else {"linewidth": 0.8, "linestyle": (0, (4, 4))}
    )
    for place, order in enumerate(order for order in family.lines if order <= shown):
        axes.axvline(order, color=_COLORS[family.part], label=family.name if place == 0 else None, zorder=0, **style)
