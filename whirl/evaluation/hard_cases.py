"""The recordings with the worst predictions, each with the spectrum in which its fault should be visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.dsp.spectra import amplitude_spectrum, most_impulsive_band, squared_envelope_spectrum
from whirl.evaluation.figures import Expectation, plot_spectrum, shorten, to_svg
from whirl.evaluation.prediction import Predictions, aggregate_by_recording, predict_windows
from whirl.physics.faults import Line, Signature, signature
from whirl.physics.rolling_bearing import FaultOrders

_RESOLUTION_ORDERS = 0.02  # separates whirl below 0.48 from looseness at 0.5 in spite of the Hann window's width
_MIN_ORDERS = 10.0
_MIN_ENVELOPE_ORDERS = 6.0
_ENVELOPE_HZ = 500.0
_RANGE_DB = 80.0
_MIN_DIFFERENCE = 1e-4  # smaller differences of probabilities are rounding errors


@dataclass(frozen=True, eq=False)
class HardCase:
    """A recording that was misclassified, or classified with low confidence.

    Attributes:
        recording: the recording.
        true: true class.
        predicted: class that the network predicts.
        p_true: probability of the true class, 0 to 1.
        p_predicted: probability of the predicted class, 0 to 1.
    """

    recording: Recording
    true: str
    predicted: str
    p_true: float
    p_predicted: float

    @property
    def wrong(self) -> bool:
        """Whether the prediction is wrong."""
        return self.true != self.predicted


def hardest_recordings(
    predictions: Predictions, recordings: Sequence[Recording], classes: Sequence[str], n: int = 8
) -> list[HardCase]:
    """Return the n hardest recordings: misclassified ones first, then by increasing probability of the true class.

    Args:
        predictions: predictions for recordings; rows with the target `UNKNOWN` are omitted.
        recordings: recordings that `predictions.recording` indexes.
        classes: names of the K classes.
        n: maximum number of recordings.

    Example:
        >>> recordings = [Recording(np.zeros(8), 1000, source=name) for name in ("easy", "wrong")]
        >>> predictions = Predictions(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), np.arange(2))
        >>> [case.recording.source for case in hardest_recordings(predictions, recordings, ["healthy", "wear"])]
        ['wrong', 'easy']
    """
    known = predictions.select(predictions.known)
    confidence = known.confidence
    p_true = known.probabilities[np.arange(len(known.targets)), known.targets]
    order = np.lexsort((p_true, known.predicted == known.targets))[:n]
    return [
        HardCase(
            recordings[int(known.recording[row])],
            classes[int(known.targets[row])],
            classes[int(known.predicted[row])],
            float(p_true[row]),
            float(confidence[row]),
        )
        for row in order
    ]


def physics_verdict(
    cases: Sequence[HardCase], classes: Sequence[str], physics: nn.Module, window: int, n: int = 3
) -> list[list[tuple[str, float]]]:
    """Return the n most probable classes of each recording by physical evidence only, with their probabilities.

    Args:
        cases: the recordings.
        classes: names of the K classes.
        physics: module that maps windows `[B, C, T]` of known speed and their metadata to logits `[B, K]`; equal logits
            mean that the evidence decides nothing.
        window: samples in a window; a recording gets the mean probabilities of its windows, as from the network.
        n: maximum number of classes.

    Returns:
        A list per case of class and probability, 0 to 1; empty if the speed is unknown or the evidence decides nothing.
    """
    verdicts: list[list[tuple[str, float]]] = [[] for _ in cases]
    known = [index for index, case in enumerate(cases) if case.recording.rpm and case.recording.n_samples >= window]
    if not known:
        return verdicts
    windows = WindowDataset([cases[index].recording for index in known], None, window, quantities=())
    for index, probabilities in zip(
        known, aggregate_by_recording(predict_windows(physics, windows)).probabilities, strict=True
    ):
        possible = probabilities[probabilities > 0]
        if possible.max() - possible.min() > _MIN_DIFFERENCE:
            best: list[int] = np.argsort(-probabilities, kind="stable")[: min(n, len(possible))].tolist()
            verdicts[index] = [(classes[label], float(probabilities[label])) for label in best]
    return verdicts


def spectrum_kind(true: str, predicted: str, classes: Sequence[str], orders: FaultOrders | None) -> str:
    """Return the spectrum that contains most required lines of the two classes, or of all classes if those have none.

    Returns:
        `"raw"` or `"envelope"`.

    Example:
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> orders = fault_orders(BEARINGS["6205"])
        >>> spectrum_kind("healthy", "oil_whirl", ["healthy", "oil_whirl"], None)
        'raw'
        >>> spectrum_kind("healthy", "healthy", ["healthy", "inner_race"], orders)
        'envelope'
    """
    for labels in ((true, predicted), classes):
        lines = [line for label in labels for line in _lines(label, orders) if line.role == "required"]
        n_envelope = sum(line.spectrum == "envelope" for line in lines)
        if lines:
            return "envelope" if 2 * n_envelope > len(lines) else "raw"
    return "raw"


def _lines(label: str, orders: FaultOrders | None) -> tuple[Line, ...]:
    known = signature(label, orders)
    return known.lines if known else ()


@dataclass(frozen=True)
class AnnotatedSpectrum:
    """A spectrum with the expected lines of the true and the predicted class.

    Attributes:
        svg: the figure.
        description: kind and channel of the spectrum.
        expected: signature of the true class and of a wrongly predicted one; None if the class has no known signature.
    """

    svg: str
    description: str
    expected: dict[str, Signature | None]


def annotated_spectrum(case: HardCase, classes: Sequence[str], orders: FaultOrders | None = None) -> AnnotatedSpectrum:
    """Draw the spectrum of the first channel with the expected lines of the true and the predicted class.

    The horizontal axis is in orders of shaft speed if the speed is known, otherwise in Hz and without lines.

    Args:
        case: the recording.
        classes: all classes, which determine the kind of spectrum if the two have no lines.
        orders: kinematics of the rolling bearing, for its fault lines.
    """
    kind = spectrum_kind(case.true, case.predicted, classes, orders)
    labels = dict.fromkeys((case.true, case.predicted))
    expectations = [
        Expectation(tuple(line for line in _lines(label, orders) if line.spectrum == kind), label == case.true)
        for label in labels
    ]
    rpm = case.recording.rpm
    drawn = expectations if rpm else []
    highest = max((line.high_order for each in drawn for line in each.lines), default=0.0)
    x, y, y_label, description = (_envelope_spectrum if kind == "envelope" else _raw_spectrum)(case.recording, highest)
    x_label = "order of shaft speed" if rpm else "frequency, Hz"
    figure = plot_spectrum(x, y, x_label, y_label, drawn)
    svg = to_svg(figure, f"spectrum of a recording of {case.true}")
    return AnnotatedSpectrum(svg, description, {label: signature(label, orders) for label in labels})


def _raw_spectrum(recording: Recording, highest_order: float) -> tuple[np.ndarray, np.ndarray, str, str]:
    """Compute the amplitude spectrum in decibels; return x, y, label of y and description."""
    shaft_hz = recording.rpm / 60 if recording.rpm else None
    nyquist_hz = recording.sampling_rate_hz / 2
    resolution_hz = _RESOLUTION_ORDERS * shaft_hz if shaft_hz else nyquist_hz / 1000
    frequency_hz, amplitude = amplitude_spectrum(recording.signal[0], recording.sampling_rate_hz, resolution_hz)
    top_hz = max(_MIN_ORDERS, highest_order + 0.5) * shaft_hz if shaft_hz else nyquist_hz
    shown = _up_to(frequency_hz, 1, top_hz)
    level = 20 * np.log10(np.maximum(amplitude[shown], 1e-12))
    y_label = f"amplitude, dB re 1 {shorten(recording.unit)}" if recording.unit else "amplitude, dB"
    description = f"Amplitude spectrum of channel {recording.channels[0]}"
    return frequency_hz[shown] / (shaft_hz or 1), np.maximum(level, level.max() - _RANGE_DB), y_label, description


def _envelope_spectrum(recording: Recording, highest_order: float) -> tuple[np.ndarray, np.ndarray, str, str]:
    """Compute the envelope spectrum of the most impulsive band; return x, y, label of y and description."""
    shaft_hz = recording.rpm / 60 if recording.rpm else None
    signal, rate_hz = recording.signal[0], recording.sampling_rate_hz
    band_hz = most_impulsive_band(signal, rate_hz)
    resolution_hz = _RESOLUTION_ORDERS * shaft_hz if shaft_hz else 1.0
    frequency_hz, amplitude = squared_envelope_spectrum(signal, rate_hz, band_hz, resolution_hz)
    top_hz = max(_MIN_ENVELOPE_ORDERS, highest_order + 0.5) * shaft_hz if shaft_hz else _ENVELOPE_HZ
    shown = _up_to(frequency_hz, 3, top_hz)  # the mean leaks into the bins next to 0
    description = (
        f"Squared envelope spectrum of channel {recording.channels[0]}, {band_hz[0]:.0f} to {band_hz[1]:.0f} Hz"
    )
    return (
        frequency_hz[shown] / (shaft_hz or 1),
        amplitude[shown],
        "power modulation, relative to the mean",
        description,
    )


def _up_to(frequency_hz: np.ndarray, first: int, top_hz: float) -> slice:
    """Return the slice of bins from `first` to `top_hz`, at least two bins long."""
    return slice(first, max(first + 2, int(np.searchsorted(frequency_hz, top_hz, "right"))))
