"""Metrics against scikit-learn, hand-computed numbers and closed forms."""

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
    condition_accuracies,
    evaluate_predictions,
    expected_calibration_error,
    judge,
    reliability_curve,
    scores,
)
from whirl.evaluation.prediction import Predictions


def recording(specimen: str | None = "a", **known: Any) -> Recording:
    return Recording(np.zeros(8), 1000, specimen=specimen, **known)


def predictions_of(
    predicted: np.ndarray, targets: np.ndarray, recordings: np.ndarray, k: int, sure: float = 0.9
) -> Predictions:
    """Rows whose predicted class has the probability `sure`."""
    probabilities = np.full((len(predicted), k), (1 - sure) / (k - 1))
    probabilities[np.arange(len(predicted)), predicted] = sure
    return Predictions(probabilities, targets, recordings)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_present", [2, 4, 5])
def test_scores_are_those_of_scikit_learn(seed: int, n_present: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, n_present, 60)  # of five classes, the last may occur in predictions only, or nowhere
    predicted = np.where(rng.random(60) < 0.6, targets, rng.integers(0, n_present if seed % 2 else 5, 60))
    classes = ["a", "b", "c", "d", "e"]
    result = judge(predictions_of(predicted, targets, np.arange(60), 5), [recording()] * 60, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes that occur in predictions only
        balanced = oracle.balanced_accuracy_score(targets, predicted)
    assert result["accuracy"] == pytest.approx(oracle.accuracy_score(targets, predicted))
    assert result["balanced_accuracy"] == pytest.approx(balanced)
    assert result["macro_f1"] == pytest.approx(oracle.f1_score(targets, predicted, average="macro"))
    assert result["confusion"] == oracle.confusion_matrix(targets, predicted, labels=range(5)).tolist()
    columns: Any = oracle.precision_recall_fscore_support(targets, predicted, labels=range(5), zero_division=0)  # type: ignore[arg-type]
    for name, row in zip(classes, zip(*columns, strict=True), strict=True):
        assert tuple(result["per_class"][name].values()) == pytest.approx(row)


def test_many_confusion_matrices_are_scored_as_each_alone() -> None:
    tables = np.random.default_rng(0).integers(0, 5, (3, 7, 4, 4)) + 1
    together = scores(tables)
    for index in np.ndindex(3, 7):
        for name, value in scores(tables[index]).items():
            assert together[name][index] == pytest.approx(value)


def test_calibration_error_by_hand() -> None:
    # 0.95 and 0.97 share a bin (0.933, 1]: claims 0.96, keeps 0.5. 0.62 stands alone and is right.
    probabilities = np.array([[0.95, 0.05], [0.03, 0.97], [0.62, 0.38]])
    rows = Predictions(probabilities, np.array([0, 0, 0]), np.arange(3))
    assert expected_calibration_error(rows) == pytest.approx(2 / 3 * 0.46 + 1 / 3 * 0.38)


@pytest.mark.parametrize(("confidence", "edges"), [(1.0, (14, 15)), (0.6, (8, 9)), (0.6001, (9, 10)), (0.8, (11, 12))])
def test_bins_include_their_upper_edge(confidence: float, edges: tuple[int, int]) -> None:
    rows = Predictions(np.array([[confidence, 1 - confidence]]), np.array([0]), np.array([0]))
    (filled,) = [entry for entry in reliability_curve(rows) if entry["n"]]
    assert (filled["low"] * 15, filled["high"] * 15) == pytest.approx(edges)


def test_a_network_that_keeps_what_it_claims_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    honest = Predictions(probabilities, rng.random(200_000) > confidence, np.zeros(200_000))
    assert expected_calibration_error(honest) < 0.01
    boastful = Predictions(probabilities, rng.random(200_000) > confidence - 0.2, np.zeros(200_000))
    assert expected_calibration_error(boastful) == pytest.approx(0.2, abs=0.01)


def test_an_empty_bin_claims_nothing() -> None:
    rows = Predictions(np.array([[0.9, 0.1]]), np.array([0]), np.array([0]))
    empty = [entry for entry in reliability_curve(rows) if not entry["n"]]
    assert len(empty) == 14
    assert all(entry["accuracy"] is None and entry["confidence"] is None for entry in empty)


def specimens_in_test(
    rng: np.random.Generator, n_specimens: int, n_each: int, skill: np.ndarray
) -> tuple[Predictions, list[Recording]]:
    """A recording of each of two classes per specimen; specimen s is judged rightly with probability `skill[s]`."""
    specimen = np.repeat(np.arange(n_specimens), n_each)
    targets = np.tile(np.arange(n_each) % 2, n_specimens)
    right = rng.random(len(specimen)) < skill[specimen]
    recordings = [recording(f"specimen{index // 2}") for index in range(2 * n_specimens)]
    return predictions_of(np.where(right, targets, 1 - targets), targets, 2 * specimen + targets, 2), recordings


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held, held_by_windows, n = 0, 0, 400
    for _ in range(n):
        rows, recordings = specimens_in_test(rng, 10, 30, rng.beta(8, 2, 10))
        interval = bootstrap_intervals(rows, recordings, n_resamples=400)["accuracy"]
        held += interval["low"] <= 0.8 <= interval["high"]
        right = np.mean(rows.predicted == rows.targets)
        held_by_windows += abs(right - 0.8) < 1.96 * np.sqrt(right * (1 - right) / 300)
    assert held / n > 0.89
    assert held_by_windows / n < 0.80  # what windows counted singly would have claimed


def test_more_windows_of_the_same_specimens_add_no_certainty() -> None:
    rows, recordings = specimens_in_test(np.random.default_rng(0), 8, 20, np.linspace(0.4, 1, 8))
    tenfold = rows.select(np.repeat(np.arange(len(rows.targets)), 10))
    once, often = bootstrap_intervals(rows, recordings), bootstrap_intervals(tenfold, recordings)
    assert once["macro_f1"] == pytest.approx(often["macro_f1"])


def test_many_independent_specimens_give_the_binomial_interval() -> None:
    rng = np.random.default_rng(0)
    rows, recordings = specimens_in_test(rng, 600, 2, np.full(600, 0.75))
    interval = bootstrap_intervals(rows, recordings)["accuracy"]
    right = np.mean(rows.predicted == rows.targets)
    half_width = 1.96 * np.sqrt(right * (1 - right) / 1200)
    assert (interval["high"] - interval["low"]) / 2 == pytest.approx(half_width, rel=0.12)
    assert (interval["high"] + interval["low"]) / 2 == pytest.approx(right, abs=0.005)
    assert not interval["stratified"]


def test_specimens_of_one_class_are_drawn_within_their_class() -> None:
    # Class 0 is always right, class 1 in half of its 40 specimens. Drawing within classes keeps both halves at 40
    # specimens, so balanced accuracy is (1 + p) / 2 with p binomial over 40.
    targets = np.repeat([0, 1], 40)
    predicted = np.where(np.arange(80) < 60, targets, 0)
    rows = predictions_of(predicted, targets, np.arange(80), 2)
    intervals = bootstrap_intervals(rows, [recording(f"s{index}") for index in range(80)])
    assert intervals["balanced_accuracy"]["stratified"]
    width = intervals["balanced_accuracy"]["high"] - intervals["balanced_accuracy"]["low"]
    assert width == pytest.approx(2 * 1.99 * 0.5 * np.sqrt(0.25 / 39), rel=0.1)
    assert intervals["balanced_accuracy"]["low"] == pytest.approx(intervals["accuracy"]["low"])


def test_resampling_is_reproducible_and_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows, recordings = specimens_in_test(rng, 8, 20, np.linspace(0.4, 1, 8))
    mixed = rows.select(rng.permutation(len(rows.targets)))
    assert bootstrap_intervals(rows, recordings) == bootstrap_intervals(mixed, recordings)


@pytest.mark.parametrize(
    ("specimens", "targets", "right", "reason"),
    [
        (["a", "b", "c", "d", None, "f"], [0, 1] * 3, [1, 0, 1, 1, 1, 1], "not known which"),
        (["a"] * 6, [0, 1] * 3, [1, 0, 1, 1, 1, 1], r"there is 1\)"),
        (["a", "b"] * 3, [0, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1], r"there are 2\)"),
        (["a", "b", "c", "d", "e", "e"], [0, 0, 0, 0, 1, 1], [1, 0, 1, 1, 1, 1], "one test specimen only"),
        (["a", "b", "c", "d", "e", "f"], [0, 0, 0, 1, 1, 1], [1] * 6, "up to 39 % of new ones"),
        (["a", "b", "c", "d", "e", "f"], [0, 0, 0, 1, 1, 1], [0] * 6, "score alike"),
    ],
)
def test_where_no_honest_interval_exists_there_is_none_and_a_reason(
    specimens: list[str | None], targets: list[int], right: list[int], reason: str
) -> None:
    truth = np.array(targets)
    rows = predictions_of(np.where(np.array(right) == 1, truth, 1 - truth), truth, np.arange(6), 2)
    for interval in bootstrap_intervals(rows, [recording(name) for name in specimens]).values():
        assert (interval["low"], interval["high"]) == (None, None)
        assert re.search(reason, interval["reason"])


def test_accuracy_under_each_condition() -> None:
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


def test_many_speeds_make_four_round_bands_that_hold_every_row_once() -> None:
    speeds = np.random.default_rng(0).uniform(1200, 3600, 200)
    rows = predictions_of(np.zeros(200, int), np.zeros(200), np.arange(200), 2)
    table = condition_accuracies(rows, [recording("a", rpm=rpm) for rpm in speeds])
    bands = [row for row in table if row["condition"] == "speed"]
    assert len(bands) == 4
    assert sum(row["n"] for row in bands) == 200
    assert min(row["n"] for row in bands) > 35
    edges = [word for row in bands for word in row["band"].split() if word.isdigit()]
    assert all(edge.endswith("00") for edge in edges)


def test_rows_without_a_known_class_are_counted_and_not_judged() -> None:
    rows = predictions_of(np.array([0, 1, 1]), np.array([0, 1, -1]), np.array([0, 1, 2]), 2)
    result = evaluate_predictions(rows, [recording("a"), recording("b"), recording("c")], ["x", "y"])
    for level in ("window", "recording"):
        assert (result[level]["n"], result[level]["n_unknown"], result[level]["accuracy"]) == (2, 1, 1.0)
        assert result[level]["n_specimens"] == 2


def test_recordings_are_judged_by_the_vote_of_their_windows() -> None:
    rows = Predictions(np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]), np.zeros(3), np.zeros(3))
    result = evaluate_predictions(rows, [recording("a")], ["x", "y"])
    assert result["window"]["accuracy"] == pytest.approx(1 / 3)
    assert result["recording"]["accuracy"] == 1.0
    assert result["recording"]["mean_confidence"] == pytest.approx(1.7 / 3)


def test_the_share_of_the_most_frequent_class_is_what_a_stopped_clock_gets() -> None:
    rows = predictions_of(np.array([0, 0, 0, 0]), np.array([0, 1, 1, 1]), np.arange(4), 2)
    assert judge(rows, [recording()] * 4, ["x", "y"])["majority_share"] == 0.75


def test_metrics_are_ready_for_json() -> None:
    rng = np.random.default_rng(0)
    rows, recordings = specimens_in_test(rng, 6, 8, rng.uniform(0.3, 1, 6))
    metrics = evaluate_predictions(rows, recordings, ["x", "y"])
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.mark.parametrize(
    ("targets", "n_recordings", "classes", "message"),
    [
        ([0, 1], 2, ["x", "y", "z"], "2 classes but names of 3"),
        ([0, 1], 2, ["x", "x"], "not all different"),
        ([0, 1], 1, ["x", "y"], "recording 1 of 1"),
        ([-1, -1], 2, ["x", "y"], "nothing to judge"),
    ],
)
def test_what_does_not_fit_is_refused(targets: list[int], n_recordings: int, classes: list[str], message: str) -> None:
    rows = predictions_of(np.array([0, 1]), np.array(targets), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(rows, [recording()] * n_recordings, classes)
