"""Scores of predicted numbers, compared with scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics

from whirl.data.recording import Recording
from whirl.evaluation.values import ValuePredictions, stated_mean, value_intervals, value_metrics, value_scores


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 60).astype(float)
    return ValuePredictions(np.round(targets + rng.normal(0, 1.5, 60)), targets, np.arange(60))


def recordings(n_specimens, n=60):
    return [Recording(np.zeros(8), 1000, specimen=f"machine {index % n_specimens}") for index in range(n)]


def test_scores_are_those_of_other_libraries(predictions):
    found = value_metrics(predictions, recordings(6))
    values, targets = predictions.values, predictions.targets
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(targets, values))
    assert found["rmse"] == pytest.approx(np.sqrt(metrics.mean_squared_error(targets, values)))
    assert found["r2"] == pytest.approx(metrics.r2_score(targets, values))
    assert found["rank_correlation"] == pytest.approx(spearmanr(values, targets).statistic)
    assert (found["n"], found["n_specimens"]) == (60, 6)


def test_weights_count_like_repeated_rows(predictions):
    weights = np.random.default_rng(1).integers(0, 3, 60)
    rows = np.repeat(np.arange(60), weights)
    repeated = ValuePredictions(predictions.values[rows], predictions.targets[rows], rows)
    weighted, expected = value_scores(predictions, weights[None].astype(float)), value_scores(repeated)
    assert {name: value[0] for name, value in weighted.items()} == pytest.approx(
        {name: value[0] for name, value in expected.items()}
    )


def test_scores_of_equal_numbers_are_not_defined():
    constant = ValuePredictions(np.full(3, 0.1), np.full(3, 0.3), np.arange(3))
    found = value_metrics(constant, recordings(3, 3))
    assert (found["r2"], found["rank_correlation"]) == (None, None)
    assert found["intervals"]["mae"]["reason"] == "at least 5 test specimens are required, got 3"


def test_interval_over_specimens_covers_the_true_error():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(40):
        offsets = rng.normal(0, 1, 8)[np.arange(60) % 8]
        found = ValuePredictions(offsets, np.zeros(60), np.arange(60))
        interval = value_intervals(found, recordings(8), seed=seed)["mae"]
        covered += interval["low"] <= np.sqrt(2 / np.pi) <= interval["high"]
    assert covered >= 33


def test_unknown_specimens_have_no_interval(predictions):
    unknown = [Recording(np.zeros(8), 1000)] * 60
    assert value_metrics(predictions, unknown)["intervals"]["mae"]["low"] is None


def test_baseline_states_the_training_mean(predictions):
    errors = stated_mean(2.5, predictions)
    assert errors["mae"] == pytest.approx(np.abs(predictions.targets - 2.5).mean())


def test_rejects_numbers_that_are_not_finite():
    with pytest.raises(ValueError, match="not finite for recording 1"):
        ValuePredictions(np.array([0.0, np.nan]), np.zeros(2), np.array([0, 1]))
