"""Specimens of samples: what identifies one, and that all searches refuse what does not."""

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from whirl.tuning.bayesian_optimizer import BayesianOptimizer
from whirl.tuning.grid_search import GridSearchOptimizer
from whirl.tuning.groups import check_no_specimen_in_both, specimen_ids
from whirl.tuning.random_search import RandomSearchOptimizer

X, Y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2
NUMBERS = np.arange(12) // 2
CANDIDATES = {"max_depth": [1, 2]}


def with_first(value):
    return [value, *NUMBERS.tolist()[1:]]


INVALID = {
    "None": (with_first(None), "is None, expected the specimen of the sample"),
    "float NaN": (with_first(float("nan")), "is nan, expected the specimen"),
    "NumPy NaN": (np.where(np.arange(12) == 0, np.nan, NUMBERS), "is nan, expected the specimen"),
    "pandas NA": (pd.Series(with_first(pd.NA), dtype="Int64"), "is <NA>, expected the specimen"),
    "NaT": (with_first(pd.NaT), "is NaT, expected the specimen"),
    "NaN in a tuple": (with_first(("rig", float("nan"))), "expected the specimen"),
    "array": (with_first(np.array([1, 2])), "expected a number, a string or a tuple"),
    "number and its text": (with_first("3"), "contain both '3' and 3, expected one type"),
}


def searches(groups):
    """Return calls of all three searches with the same groups."""
    groups = list(groups)
    halves = {"groups_train": groups[:6], "groups_val": groups[6:]}
    data = X[:6], Y[:6], X[6:], Y[6:]
    return [
        lambda: GridSearchOptimizer(n_jobs=1, verbose=0).search(
            DecisionTreeClassifier(), X, Y, CANDIDATES, 2, groups=groups
        ),
        lambda: RandomSearchOptimizer(n_jobs=1, verbose=0).search(
            DecisionTreeClassifier(), X, Y, CANDIDATES, 2, 2, groups=groups
        ),
        lambda: BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 2, lambda trial: {}, **halves),
    ]


@pytest.mark.parametrize(("groups", "message"), INVALID.values(), ids=INVALID)
def test_every_search_refuses_what_identifies_no_specimen(groups, message):
    for search in searches(groups):
        with pytest.raises(ValueError, match=message):
            search()


@pytest.mark.parametrize(
    "groups",
    [
        [("rig", int(number)) for number in NUMBERS],
        pd.Series(NUMBERS, index=np.arange(100, 112)),
        pd.Categorical(NUMBERS.astype(str)),
        [f"rig {number}" for number in NUMBERS],
    ],
    ids=["tuples", "series", "categorical", "strings"],
)
def test_every_search_accepts_specimens_of_any_type(groups):
    assert all(search()["n_candidates"] > 0 for search in searches(groups))


def test_ids_are_numbered_as_numpy_does():
    names = np.array(["b", "a", "c", "a"])
    ids, specimens = specimen_ids("groups", names, 4)
    assert specimens == ["a", "b", "c"]
    assert ids.tolist() == np.unique(names, return_inverse=True)[1].tolist()


def test_refuses_types_that_differ_between_training_and_validation():
    with pytest.raises(ValueError, match="groups_train and groups_val contain both 1 and '1'"):
        check_no_specimen_in_both([1, 2], ["1", "3"])


@pytest.mark.parametrize("number", [np.int32, np.array])
def test_seeds_and_counts_may_be_numpy_numbers(number):
    grid = GridSearchOptimizer(number(1), number(1), verbose=0)
    assert grid.search(DecisionTreeClassifier(), X, Y, CANDIDATES, number(2))["n_candidates"] == 2
    bayesian = BayesianOptimizer(number(1))
    found = bayesian.optimize(DecisionTreeClassifier, X[:6], Y[:6], X[6:], Y[6:], number(2), lambda trial: {})
    assert found["n_candidates"] == 2
