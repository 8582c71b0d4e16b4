"""Tests of the presets as grids, distributions and Optuna spaces."""

import numpy as np
import optuna
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from whirl.tuning.spaces import (
    Choice,
    IntRange,
    Range,
    full_spaces,
    new_model,
    preset,
    preset_distributions,
    preset_names,
    preset_of,
    preset_optuna,
)


def test_grids_include_ends_and_have_equal_steps():
    np.testing.assert_allclose(Range(1e-3, 1.0, n_grid=4, log=True).grid(), [1e-3, 1e-2, 1e-1, 1.0])
    assert Range(0.0, 1.0, n_grid=3).grid() == [0.0, 0.5, 1.0]
    assert IntRange(1, 9, n_grid=3).grid() == [1, 5, 9]
    assert Range(0.0, 1.0).grid() == IntRange(1, 9).grid() == Choice((1, 2)).grid() == []


@pytest.mark.parametrize("name", preset_names())
def test_scipy_and_optuna_draws_are_in_range(name):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask(preset_optuna(name))
    rng = np.random.default_rng(0)
    for parameter, space in preset(name).items():
        distribution = preset_distributions(name)[parameter]
        drawn = distribution.rvs(size=200, random_state=rng) if hasattr(distribution, "rvs") else distribution
        for value in (*drawn, trial.params[parameter]):
            if isinstance(space, Choice):
                assert value in space.values
            else:
                assert space.low <= value <= space.high
        if isinstance(space, IntRange):
            assert set(drawn) <= set(range(space.low, space.high + 1))
    new_model(name, **trial.params)


def test_log_draws_are_uniform_over_decades():
    drawn = Range(1e-4, 1.0, log=True).distribution().rvs(size=4000, random_state=0)
    assert abs(np.mean(drawn < 1e-2) - 0.5) < 0.03


def test_rejects_unknown_setting():
    with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):
        new_model("RandomForest", epochs=3)


def test_preset_of_subclass_and_of_nested_pipeline():
    class OwnSVC(SVC):
        pass

    nested = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), OwnSVC()))
    assert preset_of(nested) == preset_of(OwnSVC) == "SVM"
    assert full_spaces(nested, {"C": [1]}) == {"pipeline__ownsvc__C": [1]}
