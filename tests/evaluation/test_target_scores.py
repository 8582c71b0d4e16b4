"""Scores of single faults and of levels, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from whirl.evaluation.prediction import UNKNOWN, Predictions, aggregate_by_recording
from whirl.evaluation.target_scores import fault_probabilities, fault_scores, level_scores, target_scores
from whirl.models.heads import membership, single_faults

CLASSES = ["healthy", "ball", "inner_race", "inner_race+ball"]


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 60)
    targets = rng.integers(0, 4, 60)
    targets[:5] = UNKNOWN
    return Predictions(probabilities, targets, np.arange(60))


def test_fault_scores_equal_those_of_scikit_learn(predictions):
    known = predictions.select(predictions.known)
    for column, fault in enumerate(single_faults(CLASSES)):
        true = membership(CLASSES).numpy()[known.targets, column].astype(int)
        scores = fault_probabilities(known.probabilities, CLASSES)[fault]
        found = fault_scores(predictions, CLASSES)[fault]
        assert found["auroc"] == pytest.approx(metrics.roc_auc_score(true, scores))
        for name, score in zip(("precision", "recall", "f1_score"), (
            metrics.precision_score, metrics.recall_score, metrics.f1_score,
        ), strict=True):  # fmt: skip
            assert found[name] == pytest.approx(score(true, scores > 0.5))


def test_level_scores_equal_those_of_scikit_learn(predictions):
    known = predictions.select(predictions.known)
    found = level_scores(predictions)
    expected = metrics.cohen_kappa_score(known.targets, known.predicted, weights="quadratic")
    assert found["quadratic_kappa"] == pytest.approx(expected)
    assert found["mean_absolute_error"] == pytest.approx(np.abs(known.predicted - known.targets).mean())


def test_scores_of_many_windows_take_little_memory():
    """Pairs of rows would take 20 GB."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 100_000)
    many = Predictions(probabilities, rng.integers(0, 4, 100_000), np.arange(100_000))
    assert fault_scores(many, CLASSES)["ball"]["auroc"] == pytest.approx(0.5, abs=0.01)
    assert level_scores(many)["quadratic_kappa"] == pytest.approx(0, abs=0.01)


def test_undefined_scores_are_none():
    healthy = Predictions(np.array([[0.9, 0.05, 0.05, 0.0]]), np.array([0]), np.array([0]))
    assert fault_scores(healthy, CLASSES)["ball"] == {
        "precision": None, "recall": None, "f1_score": None, "auroc": None, "support": 0,
    }  # fmt: skip
    assert level_scores(healthy) == {"mean_absolute_error": 0.0, "quadratic_kappa": None}
    assert target_scores("multiclass", healthy, CLASSES) == {}


def test_threshold_decides_between_two_classes():
    rows = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    predictions = Predictions(rows, np.array([1, 0, 1]), np.arange(3), threshold=0.3)
    assert predictions.predicted.tolist() == [1, 0, 1]
    assert predictions.confidence.tolist() == [0.4, 0.9, 0.7]
    assert aggregate_by_recording(predictions).select(np.array([0])).predicted.tolist() == [1]
    assert target_scores("binary", predictions, ["healthy", "wear"])["positive"]["f1_score"] == 1.0
