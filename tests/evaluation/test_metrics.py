"""Tests of metrics against scikit-learn, manual calculations and closed forms."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle

from whirl.data.recording import Recording
from whirl.evaluation.metrics import (
    bootstrap_intervals,
    compute_metrics,
    condition_accuracies,
    evaluate_predictions,
    expected_calibration_error,
    reliability_curve,
    scores,
)
from whirl.evaluation.prediction import Predictions


def recording(specimen: str | None = "a", **known: Any) -> Recording:
    return Recording(np.zeros(8), 1000, specimen=specimen, **known)


def predictions_of(
    predicted: np.ndarray, targets: np.ndarray, recordings: np.ndarray, k: int, confidence: float = 0.9
) -> Predictions:
    """Create predictions whose predicted class has the probability `confidence`."""
    probabilities = np.full((len(predicted), k), (1 - confidence) / (k - 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return Predictions(probabilities, targets, recordings)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_present", [2, 4, 5])
def test_scores_match_sklearn(seed: int, n_present: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, n_present, 60)  # the last of five classes may occur only in predictions, or nowhere
    predicted = np.where(rng.random(60) < 0.6, targets, rng.integers(0, n_present if seed % 2 else 5, 60))
    classes = ["a", "b", "c", "d", "e"]
    result = compute_metrics(predictions_of(predicted, targets, np.arange(60), 5), [recording()] * 60, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that occur only in predictions
        balanced = oracle.balanced_accuracy_score(targets, predicted)
    assert result["accuracy"] == pytest.approx(oracle.accuracy_score(targets, predicted))
    assert result["balanced_accuracy"] == pytest.approx(balanced)
    assert result["macro_f1"] == pytest.approx(oracle.f1_score(targets, predicted, average="macro"))
    assert result["confusion"] == oracle.confusion_matrix(targets, predicted, labels=range(5)).tolist()
    columns: Any = oracle.precision_recall_fscore_support(targets, predicted, labels=range(5), zero_division=0)  # type: ignore[arg-type]
    for name, row in zip(classes, zip(*columns, strict=True), strict=True):
        assert tuple(result["per_class"][name].values()) == pytest.approx(row)


def test_scores_accept_many_confusion_matrices() -> None:
    tables = np.random.default_rng(0).integers(0, 5, (3, 7, 4, 4)) + 1
    together = scores(tables)
    for index in np.ndindex(3, 7):
        for name, value in scores(tables[index]).items():
            assert together[name][index] == pytest.approx(value)


def test_calibration_error_matches_manual_calculation() -> None:
    # 0.95 and 0.97 share the bin (0.933, 1]: confidence 0.96, accuracy 0.5. 0.62 is in a bin of its own and correct.
    probabilities = np.array([[0.95, 0.05], [0.03, 0.97], [0.62, 0.38]])
    rows = Predictions(probabilities, np.array([0, 0, 0]), np.arange(3))
    assert expected_calibration_error(rows) == pytest.approx(2 / 3 * 0.46 + 1 / 3 * 0.38)


@pytest.mark.parametrize(("confidence", "edges"), [(1.0, (14, 15)), (0.6, (8, 9)), (0.6001, (9, 10)), (0.8, (11, 12))])
def test_bins_include_their_upper_edge(confidence: float, edges: tuple[int, int]) -> None:
    rows = Predictions(np.array([[confidence, 1 - confidence]]), np.array([0]), np.array([0]))
    (filled,) = [entry for entry in reliability_curve(rows) if entry["n"]]
    assert (filled["low"] * 15, filled["high"] * 15) == pytest.approx(edges)


def test_calibrated_predictions_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    calibrated = Predictions(probabilities, rng.random(200_000) > confidence, np.zeros(200_000))
    assert expected_calibration_error(calibrated) < 0.01
    overconfident = Predictions(probabilities, rng.random(200_000) > confidence - 0.2, np.zeros(200_000))
    assert expected_calibration_error(overconfident) == pytest.approx(0.2, abs=0.01)


def test_empty_bins_have_no_confidence_or_accuracy() -> None:
    rows = Predictions(np.array([[0.9, 0.1]]), np.array([0]), np.array([0]))
    empty = [entry for entry in reliability_curve(rows) if not entry["n"]]
    assert len(empty) == 14
    assert all(entry["accuracy"] is None and entry["confidence"] is None for entry in empty)


def specimens_in_test(
    rng: np.random.Generator, n_specimens: int, n_each: int, skill: np.ndarray
) -> tuple[Predictions, list[Recording]]:
    """Create a recording of each of two classes per specimen; specimen s has the expected accuracy `skill[s]`."""
    specimen = np.repeat(np.arange(n_specimens), n_each)
    targets = np.tile(np.arange(n_each) % 2, n_specimens)
    correct = rng.random(len(specimen)) < skill[specimen]
    recordings = [recording(f"specimen{index // 2}") for index in range(2 * n_specimens)]
    return predictions_of(np.where(correct, targets, 1 - targets), targets, 2 * specimen + targets, 2), recordings


def test_intervals_have_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    covered, covered_by_windows, n = 0, 0, 400
    for _ in range(n):
        rows, recordings = specimens_in_test(rng, 10, 30, rng.beta(8, 2, 10))
        interval = bootstrap_intervals(rows, recordings, n_resamples=400)["accuracy"]
        covered += interval["low"] <= 0.8 <= interval["high"]
        accuracy = np.mean(rows.predicted == rows.targets)
        covered_by_windows += abs(accuracy - 0.8) < 1.96 * np.sqrt(accuracy * (1 - accuracy) / 300)
    assert covered / n > 0.89
    assert covered_by_windows / n < 0.80  # coverage if windows were treated as independent


def test_more_windows_per_specimen_do_not_narrow_intervals() -> None:
    rows, recordings = specimens_in_test(np.random.default_rng(0), 8, 20, np.linspace(0.4, 1, 8))
    tenfold = rows.select(np.repeat(np.arange(len(rows.targets)), 10))
    once, often = bootstrap_intervals(rows, recordings), bootstrap_intervals(tenfold, recordings)
    assert once["macro_f1"] == pytest.approx(often["macro_f1"])


def test_many_independent_specimens_match_binomial_interval() -> None:
    rng = np.random.default_rng(0)
    rows, recordings = specimens_in_test(rng, 600, 2, np.full(600, 0.75))
    interval = bootstrap_intervals(rows, recordings)["accuracy"]
    accuracy = np.mean(rows.predicted == rows.targets)
    half_width = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 1200)
    assert (interval["high"] - interval["low"]) / 2 == pytest.approx(half_width, rel=0.12)
    assert (interval["high"] + interval["low"]) / 2 == pytest.approx(accuracy, abs=0.005)
    assert not interval["stratified"]


def test_specimens_of_one_class_are_resampled_within_class() -> None:
    # Class 0 is always correct, class 1 for half of its 40 specimens. Drawing within classes keeps both groups at 40
    # specimens, so balanced accuracy is (1 + p) / 2 with p binomial over 40.
    targets = np.repeat([0, 1], 40)
    predicted = np.where(np.arange(80) < 60, targets, 0)
    rows = predictions_of(predicted, targets, np.arange(80), 2)
    intervals = bootstrap_intervals(rows, [recording(f"s{index}") for index in range(80)])
    assert intervals["balanced_accuracy"]["stratified"]
    width = intervals["balanced_accuracy"]["high"] - intervals["balanced_accuracy"]["low"]
    assert width == pytest.approx(2 * 1.99 * 0.5 * np.sqrt(0.25 / 39), rel=0.1)
    assert intervals["balanced_accuracy"]["low"] == pytest.approx(intervals["accuracy"]["low"])


def test_resampling_is_deterministic_and_independent_of_row_order() -> None:
    rng = np.random.default_rng(0)
    rows, recordings = specimens_in_test(rng, 8, 20, np.linspace(0.4, 1, 8))
    shuffled = rows.select(rng.permutation(len(rows.targets)))
    assert bootstrap_intervals(rows, recordings) == bootstrap_intervals(shuffled, recordings)


@pytest.mark.parametrize(
    ("specimens", "targets", "correct", "reason"),
    [
        (["a", "b", "c", "d", None, "f"], [0, 1] * 3, [1, 0, 1, 1, 1, 1], "specimens of some recordings are unknown"),
        (["a"] * 6, [0, 1] * 3, [1, 0, 1, 1, 1, 1], "required, got 1"),
        (["a", "b"] * 3, [0, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1], "required, got 2"),
        (["a", "b", "c", "d", "e", "e"], [0, 0, 0, 0, 1, 1], [1, 0, 1, 1, 1, 1], "only one test specimen"),
        (["a", "b", "c", "d", "e", "f"], [0, 0, 0, 1, 1, 1], [1] * 6, "up to 39 % of new specimens"),
        (["a", "b", "c", "d", "e", "f"], [0, 0, 0, 1, 1, 1], [0] * 6, "have the same score"),
    ],
)
def test_invalid_interval_is_none_with_reason(
    specimens: list[str | None], targets: list[int], correct: list[int], reason: str
) -> None:
    true = np.array(targets)
    rows = predictions_of(np.where(np.array(correct) == 1, true, 1 - true), true, np.arange(6), 2)
    for interval in bootstrap_intervals(rows, [recording(name) for name in specimens]).values():
        assert (interval["low"], interval["high"]) == (None, None)
        assert re.search(reason, interval["reason"])


def test_accuracy_per_operating_condition() -> None:
    recordings = [
        recording("a", rpm=1000, load=0, load_unit="hp"),
        recording("a", rpm=2000, load=1, load_unit="hp"),
        recording("b", rpm=2000, load=1, load_unit="hp"),
        recording(None, rpm=None),
    ]
    rows = predictions_of(np.array([0, 0, 1, 1, 0, 1]), np.zeros(6), np.array([0, 0, 1, 2, 2, 3]), 2)
    table = {(row["condition"], row["band"], row["unit"]): row for row in condition_accuracies(rows, recordings)}
    assert {key: (row["n"], row["n_recordings"], row["accuracy"]) for key, row in table.items()} == {
        ("speed", "1000", "rpm"): (2, 1, 1.0),
        ("speed", "2000", "rpm"): (3, 2, pytest.approx(1 / 3)),
        ("speed", "unknown", "rpm"): (1, 1, 0.0),
        ("load", "0", "hp"): (2, 1, 1.0),
        ("load", "1", "hp"): (3, 2, pytest.approx(1 / 3)),
        ("load", "unknown", ""): (1, 1, 0.0),
    }
    assert table["speed", "2000", "rpm"]["n_specimens"] == 2
    assert table["speed", "unknown", "rpm"]["n_specimens"] is None


def test_many_speeds_are_divided_into_four_rounded_bands() -> None:
    speeds = np.random.default_rng(0).uniform(1200, 3600, 200)
    rows = predictions_of(np.zeros(200, int), np.zeros(200), np.arange(200), 2)
    table = condition_accuracies(rows, [recording("a", rpm=rpm) for rpm in speeds])
    bands = [row for row in table if row["condition"] == "speed"]
    assert len(bands) == 4
    assert sum(row["n"] for row in bands) == 200
    assert min(row["n"] for row in bands) > 35
    edges = [word for row in bands for word in row["band"].split() if word.isdigit()]
    assert all(edge.endswith("00") for edge in edges)


def test_unknown_targets_are_counted_but_not_evaluated() -> None:
    rows = predictions_of(np.array([0, 1, 1]), np.array([0, 1, -1]), np.array([0, 1, 2]), 2)
    result = evaluate_predictions(rows, [recording("a"), recording("b"), recording("c")], ["x", "y"])
    for level in ("window", "recording"):
        assert (result[level]["n"], result[level]["n_unknown"], result[level]["accuracy"]) == (2, 1, 1.0)
        assert result[level]["n_specimens"] == 2


def test_recordings_are_classified_by_soft_voting() -> None:
    rows = Predictions(np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]), np.zeros(3), np.zeros(3))
    result = evaluate_predictions(rows, [recording("a")], ["x", "y"])
    assert result["window"]["accuracy"] == pytest.approx(1 / 3)
    assert result["recording"]["accuracy"] == 1.0
    assert result["recording"]["mean_confidence"] == pytest.approx(1.7 / 3)


def test_majority_share_is_accuracy_of_constant_prediction() -> None:
    rows = predictions_of(np.array([0, 0, 0, 0]), np.array([0, 1, 1, 1]), np.arange(4), 2)
    assert compute_metrics(rows, [recording()] * 4, ["x", "y"])["majority_share"] == 0.75


def test_metrics_are_json_serializable() -> None:
    rng = np.random.default_rng(0)
    rows, recordings = specimens_in_test(rng, 6, 8, rng.uniform(0.3, 1, 6))
    metrics = evaluate_predictions(rows, recordings, ["x", "y"])
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.mark.parametrize(
    ("targets", "n_recordings", "classes", "message"),
    [
        ([0, 1], 2, ["x", "y", "z"], "2 classes, but 3 names"),
        ([0, 1], 2, ["x", "x"], "expected distinct names"),
        ([0, 1], 1, ["x", "y"], "recording 1, but there are 1"),
        ([-1, -1], 2, ["x", "y"], "nothing to evaluate"),
    ],
)
def test_rejects_inconsistent_arguments(
    targets: list[int], n_recordings: int, classes: list[str], message: str
) -> None:
    rows = predictions_of(np.array([0, 1]), np.array(targets), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(rows, [recording()] * n_recordings, classes)
