"""Temperature and prediction sets, compared with known truths and with a plain optimizer."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from whirl.diagnosis.calibration import PredictionSets, fit_temperature, scale_temperature, specimen_weights


def draw(n, temperature, seed=0, n_classes=4):
    """Return probabilities that are sharpened by a known temperature, and targets drawn from the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(n_classes), size=n)
    targets = np.array([rng.choice(n_classes, p=row) for row in true])
    return scale_temperature(true, 1 / temperature), targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_sharpened_the_probabilities(temperature):
    probabilities, targets = draw(4000, temperature)
    assert fit_temperature(probabilities, targets, np.arange(4000)) == pytest.approx(temperature, rel=0.08)


def test_minimizes_the_penalized_likelihood_as_a_scalar_optimizer_does():
    probabilities, targets = draw(50, 2.0, seed=1)

    def loss(log_temperature):
        scaled = scale_temperature(probabilities, np.exp(log_temperature))
        return -np.log(scaled[np.arange(50), targets]).sum() + log_temperature**2 / 2

    expected = np.exp(minimize_scalar(loss, bounds=(-2.3, 2.3), method="bounded").x)
    assert fit_temperature(probabilities, targets, np.arange(50)) == pytest.approx(expected, rel=0.02)


def test_recordings_of_one_specimen_count_as_one():
    probabilities, targets = draw(30, 2.0, seed=2)
    repeated = np.repeat(np.arange(30), 10)
    once = fit_temperature(probabilities, targets, np.arange(30))
    assert fit_temperature(probabilities[repeated], targets[repeated], repeated) == once
    assert np.bincount(repeated, specimen_weights(repeated)) == pytest.approx(np.full(30, 1 / 30))


def test_temperature_keeps_the_order_of_classes_and_rows_of_nan():
    probabilities, _ = draw(100, 1.0)
    assert (scale_temperature(probabilities, 5.0).argsort() == probabilities.argsort()).all()
    assert np.isnan(scale_temperature(np.full((1, 3), np.nan), 2.0)).all()
    assert scale_temperature(np.array([[1.0, 0.0]]), 2.0).sum() == 1


def test_sets_cover_new_specimens_at_the_stated_rate():
    shares = []
    for seed in range(20):
        probabilities, targets = draw(1200, 1.0, seed)
        sets = PredictionSets.fit(probabilities[:600], targets[:600], np.arange(600), coverage=0.9)
        shares.append(sets.contains(probabilities[600:])[np.arange(600), targets[600:]].mean())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_threshold_is_the_conformal_order_statistic():
    truth = np.arange(1, 20) / 20  # 19 specimens: the ceil(20 * 0.9) = 18th largest probability of the truth
    probabilities = np.stack([truth, 1 - truth], axis=1)
    sets = PredictionSets.fit(probabilities, np.zeros(19, int), np.arange(19), coverage=0.9)
    assert sets.threshold == sorted(truth, reverse=True)[17]


def test_too_few_specimens_give_all_classes():
    sets = PredictionSets.fit(np.tile([[0.8, 0.2]], (8, 1)), np.zeros(8, int), np.arange(8), coverage=0.9)
    assert sets.threshold == 0
    assert sets.contains(np.array([[1.0, 0.0]])).all()


def test_rejects_an_impossible_coverage():
    with pytest.raises(ValueError, match=r"coverage is 1\.5"):
        PredictionSets.fit(np.ones((2, 1)), np.zeros(2, int), np.arange(2), coverage=1.5)


def test_rejects_rows_that_are_not_finite():
    """The loss would be NaN at every temperature, and the first one would be taken: the most certain."""
    probabilities = np.array([[np.nan, np.nan], [0.9, 0.1]])
    with pytest.raises(ValueError, match="1 of 2 rows of probabilities are not finite"):
        fit_temperature(probabilities, np.zeros(2, int), np.arange(2))
    with pytest.raises(ValueError, match="1 of 2 rows of probabilities are not finite"):
        PredictionSets.fit(probabilities, np.zeros(2, int), np.arange(2))
