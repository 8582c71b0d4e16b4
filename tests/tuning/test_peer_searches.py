"""Searches beside scikit-learn and Optuna, which run the same search here.

Candidates are decision trees and nearest neighbors on 60 samples of 12 specimens.
"""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import loguniform, randint, uniform
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from whirl.tuning import (
    BayesianOptimizer,
    GridSearchOptimizer,
    RandomSearchOptimizer,
    nested_scores,
    open_study,
    run_trials,
)
from whirl.tuning.attempts import best_trial, enqueue_first
from whirl.tuning.cross_validated_search import make_folds

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(12), 5)
Y = GROUPS % 2
X = RNG.normal(size=(60, 3)) + 0.8 * Y[:, None] + RNG.normal(size=(12, 3))[GROUPS]
VALUES = X @ [1.0, -2.0, 0.5]
TREE = {"max_depth": [1, 4], "min_samples_leaf": [1, 5]}
FEW = {"max_depth": [1, 4]}


def grid_search():
    return GridSearchOptimizer(random_state=0, n_jobs=1, verbose=0)


def same_table(ours, theirs, score="score"):
    table = ours.get_results(None if score == "score" else score)
    for column, key in {"mean_score": "mean", "std_score": "std", "rank": "rank"}.items():
        np.testing.assert_array_equal(table[column], theirs.cv_results_[f"{key}_test_{score}"])
    names = list(theirs.cv_results_["params"][0])
    assert table[names].to_dict("records") == theirs.cv_results_["params"]


# -- GridSearchCV: model, grid, folds, score ------------------------------------------------------------------------

MODEL, NEIGHBORS = DecisionTreeClassifier(random_state=0), KNeighborsClassifier()
SCALED = make_pipeline(StandardScaler(), KNeighborsClassifier())
REGRESSOR = DecisionTreeRegressor(random_state=0)

GRIDS = {
    "accuracy": (MODEL, Y, TREE, 3, "accuracy"),
    "the estimator's own score": (MODEL, Y, TREE, 3, None),
    "f1_macro": (MODEL, Y, FEW, 2, "f1_macro"),
    "a probability score": (MODEL, Y, FEW, 2, "neg_log_loss"),
    "a score function": (MODEL, Y, FEW, 2, make_scorer(f1_score, pos_label=0)),
    "a list of grids": (MODEL, Y, [FEW, {"criterion": ["entropy"]}], 2, "accuracy"),
    "None among the values": (MODEL, Y, {"max_depth": [None, 2]}, 2, "accuracy"),
    "one candidate": (MODEL, Y, {"max_depth": [3]}, 2, "accuracy"),
    "ties": (NEIGHBORS, Y, {"algorithm": ["brute", "kd_tree", "ball_tree"]}, 2, "accuracy"),
    "a pipeline": (SCALED, Y, {"kneighborsclassifier__n_neighbors": [1, 3, 7]}, 2, "accuracy"),
    "string labels": (MODEL, np.where(Y, "worn", "healthy"), FEW, 2, "balanced_accuracy"),
    "KFold": (MODEL, Y, TREE, KFold(4, shuffle=True, random_state=1), "accuracy"),
    "ShuffleSplit": (MODEL, Y, TREE, StratifiedShuffleSplit(3, random_state=1), "accuracy"),
    "TimeSeriesSplit": (MODEL, Y, FEW, TimeSeriesSplit(3), "accuracy"),
    "regression": (REGRESSOR, VALUES, {"max_depth": [1, 3]}, 2, "r2"),
    "regression, an error": (REGRESSOR, VALUES, {"max_depth": [1, 3]}, 2, "neg_mean_absolute_error"),
}


@pytest.mark.parametrize(("model", "y", "grid", "cv", "scoring"), GRIDS.values(), ids=GRIDS)
def test_grid_search_of_sklearn(model, y, grid, cv, scoring):
    ours, theirs = grid_search(), GridSearchCV(model, grid, cv=cv, scoring=scoring).fit(X, y)
    found = ours.search(model, X, y, grid, cv, scoring)
    assert found["best_params"] == theirs.best_params_
    assert found["best_score"] == theirs.best_score_
    assert found["n_candidates"] == sum(
        len(ParameterGrid(part)) for part in (grid if isinstance(grid, list) else [grid])
    )
    np.testing.assert_array_equal(found["best_estimator"].predict(X), theirs.predict(X))
    if not isinstance(grid, list):
        same_table(ours, theirs)


@pytest.mark.parametrize("refit", ["accuracy", "recall"])
def test_several_scores_of_sklearn(refit):
    scores = ["accuracy", "recall"]
    ours, theirs = grid_search(), GridSearchCV(MODEL, TREE, cv=3, scoring=scores, refit=refit).fit(X, Y)
    found = ours.search(MODEL, X, Y, TREE, 3, scores, refit=refit)
    assert found["best_params"] == theirs.best_params_
    for score in scores:
        same_table(ours, theirs, score)
        assert found["best_scores"][score] == theirs.cv_results_[f"mean_test_{score}"][theirs.best_index_]


GROUPED = {
    "StratifiedGroupKFold by default": (3, StratifiedGroupKFold(3)),
    "GroupKFold": (GroupKFold(4), GroupKFold(4)),
    "LeaveOneGroupOut": (LeaveOneGroupOut(), LeaveOneGroupOut()),
}


@pytest.mark.parametrize(("cv", "theirs"), GROUPED.values(), ids=GROUPED)
def test_grouped_search_of_sklearn(cv, theirs):
    ours, expected = grid_search(), GridSearchCV(MODEL, FEW, cv=theirs).fit(X, Y, groups=GROUPS)
    ours.search(MODEL, X, Y, FEW, cv, groups=GROUPS)
    same_table(ours, expected)


# -- RandomizedSearchCV ---------------------------------------------------------------------------------------------

DISTRIBUTIONS = {
    "integers": (MODEL, {"max_depth": randint(1, 6)}, 5),
    "floats": (MODEL, {"min_samples_leaf": uniform(0.01, 0.4)}, 5),
    "log-uniform": (MODEL, {"ccp_alpha": loguniform(1e-4, 1e-1), "max_depth": [2, 4]}, 6),
    "lists without replacement": (MODEL, TREE, 4),
    "fewer combinations than candidates": (MODEL, FEW, 9),
    "a list of distributions": (MODEL, [{"max_depth": randint(1, 6)}, {"max_leaf_nodes": randint(2, 9)}], 6),
}


@pytest.mark.filterwarnings("ignore:The total space of parameters")
@pytest.mark.parametrize(("model", "space", "n"), DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_random_search_of_sklearn(model, space, n):
    ours = RandomSearchOptimizer(random_state=3, n_jobs=1, verbose=0)
    found = ours.search(model, X, Y, space, n, 3)
    theirs = RandomizedSearchCV(model, space, n_iter=n, cv=3, random_state=3).fit(X, Y)
    assert found["best_params"] == theirs.best_params_
    np.testing.assert_array_equal(ours.get_results()["mean_score"], theirs.cv_results_["mean_test_score"])
    assert found["n_candidates"] == len(list(ParameterSampler(space, n, random_state=3)))


# -- folds and nested cross-validation ------------------------------------------------------------------------------

SHUFFLED = GroupKFold(3, shuffle=True, random_state=0)
FOLDS = {
    "StratifiedKFold": ((4,), {}, StratifiedKFold(4)),
    "KFold of regression": ((4,), {"classifier": False}, KFold(4)),
    "StratifiedGroupKFold": ((4,), {"groups": GROUPS}, StratifiedGroupKFold(4)),
    "GroupKFold of regression": ((4,), {"groups": GROUPS, "classifier": False}, GroupKFold(4)),
    "a splitter": ((SHUFFLED,), {"groups": GROUPS}, SHUFFLED),
    "first of repeated folds": (
        (4,), {"n_repeats": 2, "seed": 7}, StratifiedKFold(4, shuffle=True, random_state=7)),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "options", "splitter"), FOLDS.values(), ids=FOLDS)
def test_folds_of_sklearn(arguments, options, splitter):
    ours = make_folds(*arguments, X, Y, **options)
    for (train, test), (expected_train, expected_test) in zip(
        ours, splitter.split(X, Y, options.get("groups")), strict=False
    ):
        np.testing.assert_array_equal(train, expected_train)
        np.testing.assert_array_equal(test, expected_test)


def test_repeats_of_sklearn():
    """Every sample is tested once in each repeat, as in `RepeatedStratifiedKFold`."""
    ours = make_folds(3, X, Y, n_repeats=4)
    theirs = list(RepeatedStratifiedKFold(n_splits=3, n_repeats=4, random_state=0).split(X, Y))
    assert [len(test) for _, test in ours] == [len(test) for _, test in theirs]
    for repeat in range(4):
        tested = np.concatenate([test for _, test in ours[3 * repeat : 3 * repeat + 3]])
        assert sorted(tested) == list(range(60))


@pytest.mark.parametrize(("outer", "scoring"), [(3, "accuracy"), (KFold(2), "f1_macro"), (StratifiedKFold(2), None)])
def test_nested_cross_validation_of_sklearn(outer, scoring):
    """As the example of scikit-learn: `cross_val_score` of a `GridSearchCV`."""
    ours = nested_scores(grid_search(), MODEL, X, Y, FEW, outer_cv=outer, cv=2, scoring=scoring)
    theirs = cross_val_score(GridSearchCV(MODEL, FEW, cv=2, scoring=scoring), X, Y, cv=outer, scoring=scoring)
    np.testing.assert_array_equal(ours["score"], theirs)


# -- Optuna ---------------------------------------------------------------------------------------------------------

SPACE = {
    "x": FloatDistribution(-2, 2),
    "n": IntDistribution(1, 64, log=True),
    "kind": CategoricalDistribution(["a", "b"]),
}


def objective_value(params):
    return -((params["x"] - 1) ** 2) - abs(math.log2(params["n"]) - 3) + (params["kind"] == "b")


def by_optuna(trial):
    return objective_value({
        "x": trial.suggest_float("x", -2, 2),
        "n": trial.suggest_int("n", 1, 64, log=True),
        "kind": trial.suggest_categorical("kind", ["a", "b"]),
    })  # fmt: skip


SAMPLERS = {
    "RandomSampler": lambda: optuna.samplers.RandomSampler(seed=4),
    "TPESampler": lambda: optuna.samplers.TPESampler(seed=4, n_startup_trials=5),
    "TPESampler, multivariate": lambda: optuna.samplers.TPESampler(seed=4, n_startup_trials=5, multivariate=True),
    "QMCSampler": lambda: optuna.samplers.QMCSampler(seed=4),
    "GridSampler": lambda: optuna.samplers.GridSampler({"x": [-1, 0, 1], "n": [8], "kind": ["a", "b"]}, seed=4),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_sampler_of_optuna(sampler):
    """A sampler of one's own draws the candidates that it draws in `Study.optimize`."""
    ours = run_trials(open_study(None, sampler=sampler()), SPACE, lambda trial: objective_value(trial.params), 6)
    theirs = optuna.create_study(direction="maximize", sampler=sampler())
    theirs.optimize(by_optuna, n_trials=6)
    assert [trial.params for trial in ours] == [trial.params for trial in theirs.trials]
    assert best_trial(ours).value == theirs.best_value
    assert best_trial(ours).params == theirs.best_params


PRUNERS = {
    "MedianPruner": lambda: optuna.pruners.MedianPruner(n_startup_trials=2),
    "PercentilePruner": lambda: optuna.pruners.PercentilePruner(25.0, n_startup_trials=2),
    "ThresholdPruner": lambda: optuna.pruners.ThresholdPruner(lower=-3.0),
    "PatientPruner": lambda: optuna.pruners.PatientPruner(None, patience=1),
    "SuccessiveHalvingPruner": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "NopPruner": lambda: optuna.pruners.NopPruner(),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_pruner_of_optuna(pruner):
    """The same trials are pruned, at the same step."""

    def train(trial, value):
        for step in range(4):
            trial.report(value - 1 / (step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    samplers = [optuna.samplers.RandomSampler(seed=1) for _ in range(2)]
    study = open_study(None, pruner=pruner(), sampler=samplers[0])
    ours = run_trials(study, SPACE, lambda trial: train(trial, objective_value(trial.params)), 10)
    theirs = optuna.create_study(direction="maximize", sampler=samplers[1], pruner=pruner())
    theirs.optimize(lambda trial: train(trial, by_optuna(trial)), n_trials=10)
    assert [(t.state, t.last_step) for t in ours] == [(t.state, t.last_step) for t in theirs.trials]


def test_enqueued_trials_of_optuna():
    ours, theirs = open_study(None), optuna.create_study(direction="maximize")
    for x in (0.5, 1.5):
        enqueue_first(ours, {"x": x})
        theirs.enqueue_trial({"x": x}, skip_if_exists=True)
    trials = run_trials(ours, SPACE, lambda trial: objective_value(trial.params), 3)
    theirs.optimize(by_optuna, n_trials=3)
    assert (
        [trial.params["x"] for trial in trials[:2]] == [trial.params["x"] for trial in theirs.trials[:2]] == [0.5, 1.5]
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_score_that_is_not_finite_fails(value):
    """Optuna fails a NaN and keeps an infinity, by which a search for a maximum would be over; ours fails both."""
    trials = run_trials(open_study(None), SPACE, lambda trial: value if trial.number == 1 else 0.5, 3)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE"]


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_of_early_stopping(patience):
    """As Keras' `EarlyStopping`: the search ends after `patience` candidates without a better score."""
    values = [0.1, 0.3, 0.3, 0.2, 0.3, 0.9]
    trials = run_trials(open_study(None), SPACE, lambda trial: values[trial.number], 6, patience=patience)
    assert len(trials) == 2 + patience


@pytest.mark.parametrize("seed", [0, 7])
def test_equal_seeds_try_equal_candidates(seed):
    """As in KerasTuner and scikit-optimize: the seed decides which candidates are tried."""
    searches = [BayesianOptimizer(seed) for _ in range(2)]
    space = {"max_depth": IntDistribution(1, 6), "ccp_alpha": FloatDistribution(1e-4, 0.1, log=True)}
    results = [
        search.optimize(DecisionTreeClassifier, X[::2], Y[::2], X[1::2], Y[1::2], 12, space) for search in searches
    ]
    assert results[0]["best_params"] == results[1]["best_params"]
    assert [t.params for t in searches[0].trials] == [t.params for t in searches[1].trials]
