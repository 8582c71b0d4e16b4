"""Tests of Bayesian search over scikit-learn models and networks, with one or several workers."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.sparse import csr_array
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from whirl.tuning.bayesian_optimizer import BayesianOptimizer, _Search, get_model_search_space
from whirl.tuning.estimator import SignalClassifier
from whirl.tuning.spaces import new_model
from whirl.tuning.study import param_importances

TREE = {"max_depth": IntDistribution(1, 8), "criterion": CategoricalDistribution(["gini", "entropy"])}


@pytest.fixture(scope="module")
def data():
    """Three classes in concentric rings, so that the depth of a tree matters."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = np.digitize((X[:, :2] ** 2).sum(1), [0.8, 2.2]).astype(str)
    return X[:200], y[:200], X[200:], y[200:]


@pytest.fixture(scope="module")
def signals():
    """Two classes: sines of two frequencies in noise."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 48)
    X = np.sin(np.arange(256) * np.array([0.2, 0.5])[y, None]) + rng.normal(0, 0.3, (96, 256))
    return X[:64], y[:64], X[64:], y[64:]


def test_returns_best_candidate(data):
    optimizer = BayesianOptimizer(random_state=3)
    found = optimizer.optimize(DecisionTreeClassifier, *data, n_trials=12, param_space=TREE)
    X_train, y_train, X_val, y_val = data
    refitted = DecisionTreeClassifier(**found["best_params"], random_state=3).fit(X_train, y_train)
    assert found["best_score"] == refitted.score(X_val, y_val) == found["best_estimator"].score(X_val, y_val)
    assert set(found["best_params"]) == set(TREE)
    assert (found["n_candidates"], found["n_pruned"], found["n_failed"]) == (12, 0, 0)
    results = optimizer.get_results()
    assert list(results.columns) == ["max_depth", "criterion", "mean_score", "std_score", "rank", "time_s", "state"]
    assert results["mean_score"].max() == found["best_score"]
    assert dict(results.iloc[results["rank"].argmin()][["max_depth", "criterion"]]) == found["best_params"]
    assert (results["time_s"] > 0).all()


def test_same_seed_gives_same_results(data):
    first, second = BayesianOptimizer(random_state=1), BayesianOptimizer(random_state=1)
    for optimizer in (first, second):
        optimizer.optimize(DecisionTreeClassifier, *data, 14, TREE)
    columns = ["max_depth", "criterion", "mean_score"]
    assert first.get_results()[columns].equals(second.get_results()[columns])


def test_resumed_study_matches_uninterrupted_study(data, tmp_path):
    def search(n_trials, storage):
        return BayesianOptimizer(random_state=1).optimize(
            RandomForestClassifier, *data, n_trials, TREE, storage=storage, fixed_params={"n_estimators": 5}
        )

    uninterrupted = search(12, None)
    search(5, tmp_path / "study.log")
    resumed = search(12, tmp_path / "study.log")
    assert resumed["best_params"] == uninterrupted["best_params"]
    assert resumed["best_score"] == uninterrupted["best_score"]
    # Only the best estimator is trained again, since the earlier call did not store it.
    again = search(12, tmp_path / "study.log")
    assert again["best_estimator"].score(*data[2:]) == uninterrupted["best_score"]
    assert again["best_estimator"].n_estimators == 5


def test_rejects_study_of_other_data(data, tmp_path):
    X_train, y_train, X_val, y_val = data
    arguments = {"n_trials": 1, "param_space": TREE, "storage": tmp_path / "study.log"}
    BayesianOptimizer().optimize(DecisionTreeClassifier, *data, **arguments)
    with pytest.raises(ValueError, match=r"other settings \(data.X_val is "):
        BayesianOptimizer().optimize(DecisionTreeClassifier, X_train, y_train, X_val + 1, y_val, **arguments)
    with pytest.raises(ValueError, match=r"data\.y_train is "):
        BayesianOptimizer().optimize(
            DecisionTreeClassifier, X_train, y_train[::-1].astype(object), X_val, y_val, **arguments
        )
    with pytest.raises(ValueError, match="model is RandomForestClassifier, in the study DecisionTreeClassifier"):
        BayesianOptimizer().optimize(RandomForestClassifier, *data, **arguments)


def test_fingerprint_does_not_depend_on_process(data):
    X, y = csr_array(data[0]), data[1]

    def fingerprint(X, kernel, scoring, model=SVC, space=TREE):
        return _Search(model, (X, y, X, y), space, scoring, {"kernel": kernel}, 0).describe()

    plain = fingerprint(X, linear_kernel, f1_score)
    assert " at 0x" not in str(plain) + str(fingerprint(X, object(), lambda *_: 0.0))
    other = X.copy()
    other.data[len(other.data) // 2] += 1
    assert fingerprint(other, linear_kernel, f1_score)["data"] != plain["data"]
    assert fingerprint(X, rbf_kernel, f1_score) != plain
    # The repr of such long pipelines is truncated.
    long = [make_pipeline(*[StandardScaler() for _ in range(60)], SVC(C=C)) for C in (1, 2)]
    assert fingerprint(X, None, None, long[0]) != fingerprint(X, None, None, long[1])


def test_accepts_groups_from_generators(data):
    groups = {"groups_train": (i for i in range(200)), "groups_val": (199 + i for i in range(200))}
    with pytest.raises(ValueError, match="specimen 199 is in both training and validation data"):
        BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 1, TREE, **groups)


@pytest.mark.parametrize(
    "model",
    [
        SVC,
        lambda **params: SVC(**params),
        SVC(random_state=None),
        make_pipeline(StandardScaler(), SVC()),
        new_model("SVM"),
    ],
    ids=["class", "function", "estimator", "pipeline", "preset"],
)
def test_accepts_class_function_or_estimator(model, data):
    prefix = "svc__" if hasattr(model, "steps") else ""
    space = {f"{prefix}C": FloatDistribution(0.1, 10, log=True)}
    found = BayesianOptimizer(7).optimize(model, *data, 2, space, fixed_params={f"{prefix}kernel": "rbf"})
    settings = found["best_estimator"].get_params()
    assert settings[f"{prefix}C"] == found["best_params"][f"{prefix}C"]
    assert settings[f"{prefix}random_state"] == 7
    assert getattr(model, "random_state", None) is None


def test_scoring_by_name_or_function(data):
    def depth(estimator, X, y):
        return -float(estimator.get_depth())

    found = BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 6, TREE, scoring="f1_macro")
    predicted = found["best_estimator"].predict(data[2])
    assert found["best_score"] == pytest.approx(f1_score(data[3], predicted, average="macro"))
    assert BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 20, TREE, scoring=depth)["best_score"] == -1


def test_space_as_function(data):
    def space(trial):
        trial.suggest_categorical("penalized", [True, False])
        return {"C": 10.0 ** trial.suggest_int("decade", -2, 2)}

    found = BayesianOptimizer().optimize(LogisticRegression, *data, 4, space)
    assert math.log10(found["best_estimator"].C) == found["best_params"]["decade"]


def test_other_process_rebuilds_best_estimator_of_function_space(data, tmp_path):
    def space(trial):
        return {"C": 10.0 ** trial.suggest_int("decade", -2, 2)}

    first, second = (
        BayesianOptimizer().optimize(LogisticRegression, *data, 3, space, storage=tmp_path / "s") for _ in range(2)
    )
    assert second["best_estimator"].C == first["best_estimator"].C == 10.0 ** first["best_params"]["decade"]


def test_nan_score_does_not_replace_best_estimator(data):
    fitted, scores = [], iter([math.nan, 0.5, 0.75, 0.25])

    class Counted(DecisionTreeClassifier):
        def fit(self, X, y):
            fitted.append(self)
            return super().fit(X, y)

    found = BayesianOptimizer().optimize(Counted, *data, 4, TREE, scoring=lambda *_: next(scores))
    assert len(fitted) == 4
    assert found["best_estimator"] is fitted[2]


def test_networks_report_scores_and_are_pruned(signals):
    optimizer = BayesianOptimizer(random_state=0)
    space = {"lr": CategoricalDistribution([1e-9, 1e-2, 2e-2])}
    fixed = {"model": "cnn1d", "epochs": 4, "batch_size": 16, "width": 0.25, "device": "cpu"}
    found = optimizer.optimize(SignalClassifier, *signals, 10, space, fixed_params=fixed)
    assert found["best_score"] == found["best_estimator"].score(*signals[2:]) > 0.8
    assert {trial.params["lr"] for trial in optimizer.trials if trial.state.name == "PRUNED"} == {1e-9}
    epochs = {len(trial.intermediate_values) for trial in optimizer.trials if trial.state.name == "COMPLETE"}
    assert epochs == {4}
    results = optimizer.get_results()
    assert results.loc[results["state"] == "PRUNED", "mean_score"].isna().all()
    assert optimizer.plot_optimization_history().axes[0].get_ylabel() == "score"


def test_defaults_are_the_preset_of_the_model(data):
    found = BayesianOptimizer().optimize(SVC, *data, n_trials=3)
    assert set(found["best_params"]) == {"C", "gamma", "class_weight"}
    found = BayesianOptimizer().optimize(new_model("SVM"), *data, n_trials=3, fixed_params={"degree": 2})
    assert set(found["best_params"]) == {"svc__C", "svc__gamma", "svc__class_weight"}
    assert found["best_estimator"].named_steps["svc"].degree == 2


def test_unknown_scoring_is_found_before_the_first_candidate(data):
    def no_model():
        raise AssertionError("a candidate was trained")

    with pytest.raises(ValueError, match="unknown scoring 'acuracy'; did you mean 'accuracy'"):
        BayesianOptimizer().optimize(no_model, *data, 3, TREE, scoring="acuracy")


def test_failed_search_leaves_no_results(data):
    optimizer = BayesianOptimizer()
    optimizer.optimize(DecisionTreeClassifier, *data, 2, TREE)
    with pytest.raises(ValueError, match="none of 2 candidates has a score"):
        optimizer.optimize(DecisionTreeClassifier, *data, 2, {"max_depth": IntDistribution(-2, -1)})
    with pytest.raises(ValueError, match="no results yet"):
        optimizer.get_results()


def test_space_function_with_names_that_are_no_parameters_ends_the_search(data):
    with pytest.raises(TypeError, match="unknown DecisionTreeClassifier parameter 'depth'; did you mean 'max_depth'"):
        BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 5, lambda trial: {"depth": 3})
    with pytest.raises(TypeError, match=r"the search space returned \['max_depth'\], expected a dict"):
        BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 5, lambda trial: ["max_depth"])


def test_stops_early_on_request(data):
    def space(trial):
        if trial.number == 2:
            trial.study.stop()
        return {"max_depth": trial.suggest_int("max_depth", 1, 4)}

    assert BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 9, space)["n_candidates"] == 3
    assert (
        BayesianOptimizer().optimize(SVC, *data, 30, {"degree": IntDistribution(1, 9)}, patience=4)["n_candidates"] == 5
    )


def test_initial_candidates_are_tried_first_and_once(data, tmp_path):
    initial = [{"C": 10.0, "gamma": 0.1, "class_weight": None}, {"C": 100.0}]
    for n_trials in (2, 4):
        optimizer = BayesianOptimizer()
        optimizer.optimize(new_model("SVM"), *data, n_trials, initial_params=initial, storage=tmp_path / "study.log")
    results = optimizer.get_results()
    assert results["svc__C"].tolist()[:2] == [10.0, 100.0]
    assert results["svc__gamma"][0] == 0.1
    assert len(set(results["svc__C"])) == 4
    with pytest.raises(ValueError, match="unknown searched parameter 'svc__degree'"):
        BayesianOptimizer().optimize(new_model("SVM"), *data, 2, initial_params=[{"degree": 2}])


def test_first_candidates_have_the_low_cost_parameters(data):
    optimizer, space = (
        BayesianOptimizer(),
        {"C": FloatDistribution(0.1, 10), "kernel": CategoricalDistribution(["rbf", "linear"])},
    )
    model = make_pipeline(StandardScaler(), SVC())
    optimizer.optimize(model, *data, 24, space, low_cost_params={"kernel": "linear"})
    kernels = [trial.params["svc__kernel"] for trial in optimizer.trials]
    assert set(kernels[:10]) == {"linear"}
    assert set(kernels) == {"linear", "rbf"}
    assert len({trial.params["svc__C"] for trial in optimizer.trials}) == 24


@pytest.mark.parametrize(
    ("low_cost", "message"),
    [
        ({"degree": 2}, "unknown searched parameter 'degree'"),
        ({"max_depth": 9}, r"low_cost_params has max_depth=9, expected a value of IntDistribution\("),
    ],
)
def test_rejects_low_cost_parameters_outside_the_space(data, low_cost, message):
    with pytest.raises(ValueError, match=message):
        BayesianOptimizer().optimize(DecisionTreeClassifier, *data, 2, TREE, low_cost_params=low_cost)


class OtherCallbacks(DecisionTreeClassifier):
    """Like LightGBM and CatBoost: `fit` has a parameter of the same name with another protocol."""

    def fit(self, X, y, *, callbacks=None, validation_data=None):
        assert callbacks is None
        assert validation_data is None
        return super().fit(X, y)


class AnyAttribute(OtherCallbacks):
    """Like a wrapper that passes on unknown attributes, or a mock: it has every attribute, also `reports_epochs`."""

    def __getattr__(self, name):
        if name.startswith("_") or name.endswith("_"):
            raise AttributeError(name)
        return lambda *args: None


@pytest.mark.parametrize("model", [OtherCallbacks, AnyAttribute])
def test_passes_callbacks_only_to_models_that_declare_them(data, model):
    assert BayesianOptimizer().optimize(model, *data, 2, TREE)["n_failed"] == 0
    assert SignalClassifier().reports_epochs


def test_pruning_can_start_earlier_and_use_a_pruner_of_optuna(signals):
    """A pruner that prunes every candidate ends each training after the first epoch behind the warm-up."""
    epochs = []

    class PruneAll(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            epochs.append(trial.last_step)
            return trial.number > 0

    space = {"lr": FloatDistribution(1e-3, 1e-2, log=True)}
    fixed = {"epochs": 6, "width": 0.25, "batch_size": 16, "device": "cpu"}
    optimizer = BayesianOptimizer()
    found = optimizer.optimize(
        SignalClassifier, *signals, 3, space, fixed_params=fixed, pruner=PruneAll(), warm_up=1 / 6
    )
    assert (found["n_candidates"], found["n_pruned"]) == (3, 2)
    assert epochs == [1, 2, 3, 4, 1, 1]


def test_other_process_retrains_best_network(signals, tmp_path):
    space = {"lr": FloatDistribution(1e-3, 1e-2, log=True)}
    fixed = {"epochs": 2, "batch_size": 16, "width": 0.25, "device": "cpu"}
    first, second = (
        BayesianOptimizer(5).optimize(SignalClassifier, *signals, 2, space, fixed_params=fixed, storage=tmp_path / "s")
        for _ in range(2)
    )
    expected = first["best_estimator"].predict_proba(signals[2])
    assert np.array_equal(second["best_estimator"].predict_proba(signals[2]), expected)


def test_param_importances(data):
    optimizer = BayesianOptimizer(0)
    space = TREE | {"ccp_alpha": FloatDistribution(0, 1e-9)}
    optimizer.optimize(DecisionTreeClassifier, *data, 25, space)
    shares = param_importances(optimizer.trials)
    assert next(iter(shares)) == "max_depth"
    assert math.isclose(sum(shares.values()), 1)
    assert len(optimizer.plot_param_importances().axes[0].patches) == 3


def test_importances_require_two_scores(data):
    optimizer = BayesianOptimizer(0)
    optimizer.optimize(DecisionTreeClassifier, *data, 1, TREE)
    with pytest.raises(ValueError, match="require at least two candidates"):
        optimizer.plot_param_importances()
    optimizer.plot_optimization_history()


@pytest.mark.parametrize("method", ["get_results", "plot_optimization_history", "plot_param_importances"])
def test_results_require_optimize(method):
    with pytest.raises(ValueError, match=r"call optimize\(...\) first"):
        getattr(BayesianOptimizer(), method)()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"param_space": {"depth": IntDistribution(1, 2)}}, "parameter 'depth'.* one of: criterion"),
        ({"fixed_params": {"trees": 1}}, "unknown DecisionTreeClassifier parameter 'trees'"),
        ({"fixed_params": {"max_depth": 1}}, "'max_depth' is in both fixed_params and param_space"),
        ({"param_space": {}}, "search space is empty"),
        ({"param_space": {"rank": IntDistribution(1, 2)}}, "'rank'"),
        ({"n_trials": 0}, "n_trials is 0, expected an integer >= 1"),
        ({"pruner": "best"}, "unknown pruner 'best'"),
        ({"groups_train": ["a"] * 200, "groups_val": ["b"] * 199 + ["a"]}, "specimen 'a' is in"),
        ({"groups_train": ["a"] * 200}, "expected both or neither"),
        ({"groups_train": ["a"], "groups_val": ["b"] * 200}, "groups_train has 1 entries for 200 samples"),
        ({"fixed_params": {"splitter": "x"}}, "none of 2 candidates has a score.*'splitter'"),
    ],
)  # fmt: skip
def test_rejects_invalid_arguments(changes, message, data):
    arguments = {"n_trials": 2, "param_space": TREE} | changes
    with pytest.raises(ValueError, match=message):
        BayesianOptimizer().optimize(DecisionTreeClassifier, *data, **arguments)


def test_model_search_spaces():
    assert isinstance(get_model_search_space("RandomForest")["max_features"], FloatDistribution)
    with pytest.raises(ValueError, match=r"'Forest'; did you mean 'RandomForest'.* Expected one of: RandomForest"):
        get_model_search_space("Forest")
