"""Distances to known classes and the p-values made of them."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from whirl.diagnosis.novelty import ClassDistances, NoveltyDetector


def clusters(n, seed=0, n_classes=3, n_features=5, distance=6.0):
    """Return features of specimens, each with one recording of a class, and the classes."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_classes
    return rng.normal(size=(n, n_features)) + distance * np.eye(n_classes, n_features)[targets], targets


def test_distance_is_that_of_mahalanobis_with_scikit_learns_shrinkage():
    features, targets = clusters(90)
    scaled = (features - features.mean(0)) / features.std(0)
    means = np.array([scaled[targets == each].mean(0) for each in range(3)])
    precision = LedoitWolf(assume_centered=True).fit(scaled - means[targets]).precision_
    away = scaled[:, None] - means
    expected = np.sqrt(np.einsum("nkf,fg,nkg->nk", away, precision, away).min(1))
    assert ClassDistances(features, targets)(features)[:, 0] == pytest.approx(expected, rel=1e-6)


def test_distances_do_not_depend_on_the_scale_of_features():
    features, targets = clusters(60)
    scales = np.array([1e-6, 1.0, 1e3, 7.0, 1e6])
    plain, scaled = (
        ClassDistances(features, targets)(features),
        ClassDistances(features * scales, targets)(features * scales),
    )
    assert scaled == pytest.approx(plain, rel=1e-6)


def test_constant_features_are_ignored():
    features, targets = clusters(60)
    constant = np.column_stack([features, np.full(60, 3.3)])
    found = ClassDistances(constant, targets)(constant)
    assert np.isfinite(found).all()
    assert found.shape == (60, 2)


def test_false_alarms_of_known_classes_occur_at_the_stated_rate():
    rates = []
    for seed in range(5):
        features, targets = clusters(1200, seed)
        detector = NoveltyDetector(features[:600], targets[:600], np.arange(600))
        rates.append(np.mean(detector.p_values(features[600:]) <= 0.05))
    assert np.mean(rates) == pytest.approx(0.05, abs=0.015)


def test_unknown_classes_are_found_beside_and_between_the_known_ones():
    features, targets = clusters(400)
    rng = np.random.default_rng(9)
    detector = NoveltyDetector(features[:300], targets[:300], np.arange(300))
    for center in ([2.0, 2, 2, 0, 0], [0, 0, 0, 6.0, 0]):
        unknown = rng.normal(size=(100, 5)) + center
        p_values = np.concatenate([detector.p_values(features[300:]), detector.p_values(unknown)])
        assert roc_auc_score(np.repeat([0, 1], 100), -p_values) > 0.9


def test_further_scores_take_part():
    features, targets = clusters(300)
    scores = np.random.default_rng(1).uniform(0.5, 1.0, size=(300, 1))
    detector = NoveltyDetector(features, targets, np.arange(300), scores)
    usual, unusual = detector.p_values(features[:1], scores[:1]), detector.p_values(features[:1], np.array([[3.0]]))
    assert unusual[0] < 0.05 < usual[0]


def test_few_specimens_still_reject_what_is_far_away():
    features, targets = clusters(9)
    detector = NoveltyDetector(features, targets, np.arange(9))
    assert detector.p_values(features[:1])[0] > 0.05
    assert detector.p_values(np.full((1, 5), 300.0))[0] < 1e-4


def test_state_is_restored_exactly():
    features, targets = clusters(60)
    detector = NoveltyDetector(features, targets, np.arange(60))
    again = NoveltyDetector.from_state(detector.state())
    assert np.array_equal(again.p_values(features + 1), detector.p_values(features + 1))


def test_needs_two_specimens_of_a_class():
    features, _ = clusters(3)
    with pytest.raises(ValueError, match="one specimen only"):
        NoveltyDetector(features, np.arange(3), np.arange(3))
