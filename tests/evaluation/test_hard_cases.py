"""Tests of the hardest recordings, and that expected lines are drawn at the peaks of the spectrum."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.evaluation.hard_cases import (
    HardCase,
    annotated_spectrum,
    hardest_recordings,
    physics_verdict,
    spectrum_kind,
)
from whirl.evaluation.prediction import Predictions
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

ORDERS = fault_orders(BEARINGS["6205"])


def test_misclassified_come_first_then_lowest_probability() -> None:
    probabilities = np.array([[0.45, 0.3, 0.25], [0.1, 0.9, 0.0], [0.6, 0.2, 0.2], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]])
    targets = np.array([0, 0, 1, 1, -1])
    recordings = [Recording(np.zeros(8), 1000, source=f"r{index}") for index in range(5)]
    predictions = Predictions(probabilities, targets, np.arange(5))
    cases = hardest_recordings(predictions, recordings, ["a", "b", "c"], n=10)
    assert [case.recording.source for case in cases] == ["r1", "r2", "r3", "r0"]  # r4 has no known class
    assert [case.wrong for case in cases] == [True, True, True, False]
    assert (cases[0].true, cases[0].predicted, cases[0].p_true, cases[0].p_predicted) == ("a", "b", 0.1, 0.9)
    assert len(hardest_recordings(predictions, recordings, ["a", "b", "c"], n=2)) == 2


def test_probability_is_that_of_the_predicted_class_at_any_threshold() -> None:
    predictions = Predictions(np.array([[0.6, 0.4]]), np.array([0]), np.array([0]), threshold=0.3)
    (case,) = hardest_recordings(predictions, [Recording(np.zeros(8), 1000)], ["healthy", "wear"])
    assert (case.predicted, case.p_predicted) == ("wear", 0.4)


@pytest.mark.parametrize(
    ("true", "predicted", "classes", "kind"),
    [
        ("oil_whirl", "clearance", JOURNAL_CLASSES, "raw"),
        ("healthy", "healthy", JOURNAL_CLASSES, "raw"),
        (
            "lubrication",
            "wear",
            JOURNAL_CLASSES,
            "envelope",
        ),  # friction shows only in the envelope
        ("inner_race", "ball", ROLLING_CLASSES, "envelope"),
        ("healthy", "healthy", ROLLING_CLASSES, "envelope"),
        ("gear_crack", "good", ("gear_crack", "good"), "raw"),
    ],
)
def test_spectrum_kind_contains_lines_of_classes(
    true: str, predicted: str, classes: tuple[str, ...], kind: str
) -> None:
    assert spectrum_kind(true, predicted, classes, ORDERS) == kind


def curve_of(svg: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of the drawn spectrum, the longest line of the figure; y increases downwards."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none', svg)
    points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", max(paths, key=len))
    x, y = np.array(points, dtype=float).T
    return x, y


def shades_of(svg: str) -> list[tuple[float, float]]:
    """Return the left and right pixel of each shaded search window."""
    shades = re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--(?:true|other)\); opacity: 0.22', svg)
    edges = [np.array(re.findall(r"[ML] ([\d.]+)", path), dtype=float) for path in shades]
    return [(float(x.min()), float(x.max())) for x in edges]


@pytest.mark.parametrize(
    ("label", "classes"),
    [("imbalance", JOURNAL_CLASSES), ("oil_whirl", JOURNAL_CLASSES), ("outer_race", ROLLING_CLASSES)],
)
def test_severe_fault_peaks_at_its_line(label: str, classes: tuple[str, ...]) -> None:
    (recording,) = simulate(1, 1, [label], severity_range=(1, 1))
    figure = annotated_spectrum(HardCase(recording, label, label, 0.9, 0.9), classes, ORDERS)
    x, y = curve_of(figure.svg)
    (shade,) = shades_of(figure.svg)
    assert shade[0] - 1 < x[y.argmin()] < shade[1] + 1
    assert figure.expected[label] is not None


def test_draws_lines_of_true_and_predicted_class() -> None:
    (recording,) = simulate(1, 1, ["misalignment"], n_samples=20_480)
    figure = annotated_spectrum(HardCase(recording, "misalignment", "oil_whirl", 0.1, 0.8), JOURNAL_CLASSES)
    names = dict(re.findall(r'<text style="[^"]*fill: var\(--(true|other)\)"[^>]*>([^<]+)<', figure.svg)[::-1])
    assert names == {"true": "2X", "other": "whirl"}
    assert list(figure.expected) == ["misalignment", "oil_whirl"]
    assert "Amplitude spectrum of channel ch0" in figure.description


@pytest.mark.parametrize("classes", [JOURNAL_CLASSES, ROLLING_CLASSES])
def test_unknown_speed_draws_no_lines_and_axis_in_hertz(classes: tuple[str, ...]) -> None:
    (recording,) = simulate(1, 1, [classes[1]], n_samples=20_480)
    case = HardCase(replace(recording, rpm=None), classes[1], "healthy", 0.1, 0.9)
    figure = annotated_spectrum(case, classes, ORDERS)
    assert "frequency, Hz" in figure.svg
    assert "order of" not in figure.svg
    assert not shades_of(figure.svg)


@pytest.mark.parametrize("n_samples", [64, 1000])
@pytest.mark.parametrize("label", ["imbalance", "outer_race", "gear_crack"])
@pytest.mark.parametrize("rpm", [None, 90, 60_000])
def test_draws_short_constant_and_extreme_recordings(n_samples: int, label: str, rpm: float | None) -> None:
    signal = np.random.default_rng(0).standard_normal((2, n_samples))
    for samples in (signal, np.zeros((1, n_samples))):
        case = HardCase(Recording(samples, 1000, rpm=rpm), label, "healthy", 0.1, 0.9)
        assert annotated_spectrum(case, [label, "healthy"], ORDERS).svg.endswith("</svg>")


class FirstSampleRule(nn.Module):
    """Fixed odds for three of four classes; undecided for windows whose first sample is 0."""

    def forward(self, signals, metadata):
        assert metadata["rpm"].isfinite().all()
        odds = torch.tensor([1.0, 6.0, 3.0, 0.0]).where(signals[:, 0, :1] != 0, torch.tensor([1.0, 1, 1, 0]))
        return odds.log()


def test_physics_verdict_is_mean_over_windows_or_empty_if_undecided() -> None:
    zeros, ones = np.zeros(64), np.tile([1.0, -1.0], 32)
    signals = [np.concatenate(parts) for parts in ((zeros, ones), (zeros, zeros), (ones, ones), (ones, ones), (ones,))]
    speeds = [1500, 1500, None, 1500, 1500]
    recordings = [Recording(signal, 1000, rpm=rpm) for signal, rpm in zip(signals, speeds, strict=True)]
    recordings[-1] = recordings[-1].cut(0, 60)  # shorter than a window
    cases = [HardCase(recording, "a", "b", 0.1, 0.9) for recording in recordings]
    mixed, *undecided, decided, short = physics_verdict(cases, ["a", "b", "c", "d"], FirstSampleRule(), window=64)
    assert [label for label, _ in decided] == [label for label, _ in mixed] == ["b", "c", "a"]
    assert [probability for _, probability in decided] == pytest.approx([0.6, 0.3, 0.1])
    assert [probability for _, probability in mixed] == pytest.approx([(q + 1 / 3) / 2 for q in (0.6, 0.3, 0.1)])
    assert [*undecided, short] == [[], [], []]
