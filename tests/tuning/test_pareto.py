"""Search with two objectives: the front, its order, and candidates that fail."""

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from whirl.tuning.pareto import ParetoOptimizer, latency_s
from whirl.tuning.plots import plot_pareto

SPACE = {"max_depth": IntDistribution(1, 8)}


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(300, 2))
    y = (X**2).sum(1) > 1.5
    return X[::2], y[::2], X[1::2], y[1::2]


def n_nodes(tree, X):
    return tree.tree_.node_count


def test_front_has_the_candidates_that_no_other_beats(data):
    optimizer = ParetoOptimizer(random_state=1)
    front = optimizer.optimize(DecisionTreeClassifier, *data, 20, SPACE, scoring="balanced_accuracy", cost=n_nodes)
    results = optimizer.get_results()
    scores, costs = results["mean_score"].to_numpy(), results["cost"].to_numpy()
    beaten = ((scores >= scores[:, None]) & (costs <= costs[:, None])
              & ((scores > scores[:, None]) | (costs < costs[:, None]))).any(1)  # fmt: skip
    assert results["is_best"].tolist() == (~beaten).tolist()
    assert front["cost"].is_monotonic_increasing
    assert front["mean_score"].is_monotonic_increasing
    assert set(front["mean_score"]) == set(scores[~beaten])
    tree = DecisionTreeClassifier(max_depth=int(front["max_depth"].iloc[-1]), random_state=1).fit(data[0], data[1])
    assert front["cost"].iloc[-1] == n_nodes(tree, None)
    axes = optimizer.plot_front("nodes").axes[0]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("nodes", "linear")
    front_line = axes.lines[0]
    assert front_line.get_xdata().tolist() == sorted(costs[~beaten])
    assert plot_pareto(results.assign(cost=costs**3)).axes[0].get_xscale() == "log"


def test_default_cost_is_latency(data):
    front = ParetoOptimizer().optimize(DecisionTreeClassifier, *data, 3, SPACE)
    assert (front["cost"] > 0).all()
    assert latency_s(DecisionTreeClassifier().fit(data[0], data[1]), data[2]) > 0


def test_samplers_of_optuna_and_spaces_of_functions(data):
    optimizer = ParetoOptimizer()
    sampler = optuna.samplers.NSGAIISampler(seed=0)
    optimizer.optimize(
        DecisionTreeClassifier, *data, 5, lambda trial: {"max_depth": trial.suggest_int("max_depth", 1, 4)},
        cost=n_nodes, sampler=sampler,
    )  # fmt: skip
    assert optimizer.study.sampler is sampler
    assert len(optimizer.get_results()) == 5


def test_failed_candidates_have_no_score(data):
    optimizer = ParetoOptimizer()
    optimizer.optimize(DecisionTreeClassifier, *data, 12, {"max_depth": IntDistribution(-1, 2)}, cost=n_nodes)
    results = optimizer.get_results()
    failed = results["max_depth"].astype(int) < 1
    assert failed.any()
    assert (results["state"] == np.where(failed, "FAIL", "COMPLETE")).all()
    assert results.loc[failed, ["mean_score", "cost"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="none of 2 candidates has a score"):
        optimizer.optimize(DecisionTreeClassifier, *data, 2, {"max_depth": IntDistribution(-2, -1)})
    with pytest.raises(NotFittedError):
        optimizer.get_front()


def test_fixed_parameters_of_a_pipeline_and_names_that_are_no_parameters(data):
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier())
    front = ParetoOptimizer().optimize(model, *data, 3, SPACE, fixed_params={"min_samples_leaf": 5}, cost=n_leaves)
    assert len(front) > 0
    with pytest.raises(TypeError, match="unknown DecisionTreeClassifier parameter 'depth'; did you mean 'max_depth'"):
        ParetoOptimizer().optimize(DecisionTreeClassifier, *data, 5, lambda trial: {"depth": 3})


def n_leaves(pipeline, X):
    assert pipeline[-1].min_samples_leaf == 5
    return pipeline[-1].get_n_leaves()
