"""Tests of grid and random search: the same candidates as in scikit-learn, on folds that never split a specimen."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import loguniform
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RandomizedSearchCV, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from whirl.tuning.cross_validated_search import make_folds
from whirl.tuning.estimator import SignalClassifier
from whirl.tuning.grid_search import GridSearchOptimizer, get_default_param_grid
from whirl.tuning.nested import nested_scores
from whirl.tuning.random_search import RandomSearchOptimizer, get_default_param_distributions
from whirl.tuning.spaces import full_spaces, new_model, preset_names, preset_of

FOREST = {"max_depth": [1, 3, None], "max_features": [0.2, 1.0]}
SCALED_SVM = {"svc__C": loguniform(0.1, 100), "svc__gamma": loguniform(1e-3, 1)}


def few_windows(n_specimens=12, n_windows=6, shift=1.0, seed=0):
    """Return features, labels and specimens: the classes differ by `shift`, each specimen has a random offset."""
    rng = np.random.default_rng(seed)
    specimens = rng.permutation(np.repeat(np.arange(n_specimens), n_windows))
    offsets = rng.normal(size=(n_specimens, 4))
    X = offsets[specimens] + shift * (specimens % 2)[:, None] + 0.3 * rng.normal(size=(len(specimens), 4))
    return X, np.where(specimens % 2, "worn", "healthy"), specimens


@pytest.mark.parametrize("grouped", [False, True])
def test_grid_search_matches_sklearn(grouped):
    X, y, specimens = few_windows()
    ours = GridSearchOptimizer(random_state=7, n_jobs=1, verbose=0)
    groups = specimens if grouped else None
    found = ours.search(RandomForestClassifier(20), X, y, FOREST, 3, "f1_macro", groups=groups)
    cv = StratifiedGroupKFold(3) if grouped else 3
    theirs = GridSearchCV(RandomForestClassifier(20, random_state=7), FOREST, cv=cv, scoring="f1_macro")
    theirs.fit(X, y, groups=groups)
    assert found["best_params"] == theirs.best_params_
    assert found["best_score"] == theirs.best_score_
    assert found["n_candidates"] == 6
    assert (found["best_estimator"].predict(X) == theirs.predict(X)).all()
    table = ours.get_results()
    np.testing.assert_array_equal(table["mean_score"], theirs.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(table["std_score"], theirs.cv_results_["std_test_score"])
    np.testing.assert_array_equal(table["rank"], theirs.cv_results_["rank_test_score"])
    assert list(table["max_depth"]) == [1, 1, 3, 3, None, None]
    assert (table["time_s"] > 0).all()


def test_random_search_matches_sklearn():
    X, y, specimens = few_windows()
    model = make_pipeline(StandardScaler(), SVC())
    ours = RandomSearchOptimizer(random_state=3, n_jobs=1, verbose=0)
    found = ours.search(model, X, y, SCALED_SVM, 8, GroupKFold(4), "accuracy", groups=specimens)
    theirs = RandomizedSearchCV(model, SCALED_SVM, n_iter=8, cv=GroupKFold(4), scoring="accuracy", random_state=3)
    theirs.fit(X, y, groups=specimens)
    assert found["best_params"] == theirs.best_params_
    assert found["best_score"] == theirs.best_score_
    np.testing.assert_array_equal(ours.get_results()["svc__C"], [p["svc__C"] for p in theirs.cv_results_["params"]])
    again = RandomSearchOptimizer(random_state=3, n_jobs=2, verbose=0)
    assert again.search(model, X, y, SCALED_SVM, 8, GroupKFold(4), "accuracy", groups=specimens) | {
        "best_estimator": None
    } == found | {"best_estimator": None}


def test_random_search_tries_each_combination_of_lists_once():
    X, y, specimens = few_windows()
    optimizer = RandomSearchOptimizer(n_jobs=1, verbose=0)
    found = optimizer.search(SVC(), X, y, {"C": [0.1, 1.0, 10.0]}, 50, 3, None, groups=specimens)
    assert found["n_candidates"] == 3


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=4, max_size=14), n_folds=st.integers(2, 4), seed=st.integers(0, 99))
def test_folds_never_split_a_specimen(sizes, n_folds, seed):
    rng = np.random.default_rng(seed)
    specimens = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    classes = rng.permutation(np.arange(len(sizes)) % 2)
    assume(np.bincount(classes[specimens]).max() >= n_folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folds = make_folds(n_folds, np.zeros((len(specimens), 1)), classes[specimens], specimens)
    assert len(folds) == n_folds
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(specimens)))
    for train, test in folds:
        assert not set(specimens[train]) & set(specimens[test])
        assert len(train) + len(test) == len(specimens)


def test_folds_need_as_many_rows_of_a_class():
    with pytest.raises(ValueError, match="no class has more than 2 rows, expected at least 3 for 3 folds"):
        make_folds(3, np.zeros((4, 1)), [0, 0, 1, 1], [0, 1, 2, 3])


def test_groups_prevent_leakage_between_folds():
    """Classes are inseparable, but specimens are: a nearest neighbor recognizes windows of its own specimen."""
    X, y, specimens = few_windows(n_specimens=24, shift=0.0, seed=1)
    grid = {"n_neighbors": [1, 3]}
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    leaking = optimizer.search(KNeighborsClassifier(), X, y, grid, 4, "accuracy")
    grouped = optimizer.search(KNeighborsClassifier(), X, y, grid, 4, "accuracy", groups=specimens)
    unseen = few_windows(n_specimens=400, shift=0.0, seed=2)
    on_unseen = leaking["best_estimator"].score(unseen[0], unseen[1])
    assert leaking["best_score"] > 0.9
    assert grouped["best_score"] < 0.7
    assert abs(on_unseen - 0.5) < 0.1


def test_searches_networks():
    rng = np.random.default_rng(0)
    specimens, time = np.repeat(np.arange(6), 4), np.arange(64)
    cycles = np.where(specimens % 2, 5, 15)
    X = np.sin(2 * np.pi * cycles[:, None] * time / 64 + rng.uniform(0, 6, (24, 1))).astype(np.float32)
    model = SignalClassifier("cnn1d", epochs=20, batch_size=8, width=0.25, device="cpu")
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    found = optimizer.search(model, X, specimens % 2, {"lr": [1e-9, 1e-2]}, 3, "accuracy", groups=specimens)
    assert found["best_params"] == {"lr": 1e-2}
    assert found["best_estimator"].predict(X).shape == (24,)


def test_figures_show_the_search():
    X, y, specimens = few_windows()
    grid = GridSearchOptimizer(n_jobs=1, verbose=0)
    grid.search(RandomForestClassifier(5), X, y, FOREST, 3, "f1_macro", groups=specimens)
    axes = grid.plot_grid_results("max_depth", "max_features").axes
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("max_depth", "max_features")
    assert axes[1].get_ylabel() == "mean f1_macro over 3 folds"
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["1", "3", "None"]
    drawn = RandomSearchOptimizer(n_jobs=1, verbose=0)
    drawn.search(make_pipeline(StandardScaler(), SVC()), X, y, SCALED_SVM, 6, 3, "accuracy", groups=specimens)
    assert drawn.plot_search_results("svc__C").axes[0].get_xscale() == "log"
    with pytest.raises(ValueError, match=r"unknown parameter 'C'; .*xpected one of: svc__C, svc__gamma"):
        drawn.plot_search_results("C")


@pytest.mark.parametrize("name", preset_names())
def test_presets_match_model_parameters(name):
    model = new_model(name, random_state=0)
    plain = model.steps[-1][1] if hasattr(model, "steps") else model
    grid, distributions = get_default_param_grid(name), get_default_param_distributions(name)
    assert set(grid) | set(distributions) <= set(plain.get_params())
    assert set(full_spaces(model, grid)) | set(full_spaces(model, distributions)) <= set(model.get_params())
    assert preset_of(model) == preset_of(plain) == name
    assert 2 <= np.prod([len(values) for values in grid.values()]) <= 100
    assert all(hasattr(values, "rvs") or len(values) > 1 for values in distributions.values())


@pytest.mark.parametrize("get", [get_default_param_grid, get_default_param_distributions])
def test_unknown_preset_lists_known_ones(get):
    with pytest.raises(ValueError, match=r"'Forest'; .*xpected one of: RandomForest, SVM, GradientBoosting, .*wdcnn"):
        get("Forest")


X3, Y3, SPECIMENS3 = few_windows(n_specimens=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"param_grid": {"depth": [1]}}, r"unknown SVC parameter 'depth'; .*xpected one of: C, .*tol"),
        ({"param_grid": {}}, "search space is empty"),
        ({"cv": 5}, "4 specimens are too few for 5 folds"),
        (
            {"cv": KFold(2, shuffle=True, random_state=0)},
            r"fold 1 of cv has specimen '\d' in both its training and its test part",
        ),
        ({"groups": [None, *SPECIMENS3[1:]]}, r"groups\[0\] is None, expected the specimen of the sample"),
        ({"groups": [*SPECIMENS3[:-1], np.nan]}, r"groups\[23\] is nan"),
        ({"groups": SPECIMENS3[1:]}, "groups has 23 entries for 24 samples"),
        ({"y": Y3[1:]}, "X has 24 rows, but y has 23"),
        ({"scoring": "acuracy"}, "acuracy"),
        ({"scoring": 3}, "expected the name of a scikit-learn scorer"),
        ({"param_grid": {"C": [-1.0]}}, r"no candidate could be trained; one of them failed with .*'C' parameter"),
    ],
    ids=["parameter", "empty", "folds", "splitter", "unknown", "nan", "groups", "lengths", "scoring", "scores", "fits"],
)
def test_rejects_invalid_arguments(change, message):
    arguments = {"param_grid": {"C": [1.0]}, "cv": 2, "scoring": "accuracy", "groups": SPECIMENS3, "y": Y3} | change
    with pytest.raises(ValueError, match=message) as error:
        GridSearchOptimizer(n_jobs=1, verbose=0).search(SVC(), X3, **arguments)
    assert "\n" not in str(error.value).strip() or change.get("scoring") == "acuracy"


def no_score(estimator, X, y):
    raise RuntimeError("the sensor is broken")


@pytest.mark.filterwarnings("ignore:Scoring failed", "ignore:One or more of the test scores")
def test_raises_if_scoring_always_fails():
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    with pytest.raises(ValueError, match="no candidate could be scored: RuntimeError: the sensor is broken"):
        optimizer.search(SVC(), X3, Y3, {"C": [1.0, 2.0]}, 2, no_score, groups=SPECIMENS3)
    with pytest.raises(NotFittedError):
        optimizer.get_results()


@pytest.mark.filterwarnings(
    "ignore:class 'rare' comes from one", "ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the"
)
def test_raises_if_every_candidate_fails_in_a_fold():
    y = np.where(SPECIMENS3 == 0, "rare", "common")  # without specimen 0 one class is left, which SVC rejects
    with pytest.raises(ValueError, match="each failed in at least one fold"):
        GridSearchOptimizer(n_jobs=1, verbose=0).search(SVC(), X3, y, {"C": [1.0]}, 2, None, groups=SPECIMENS3)


def test_searches_pipeline_step_and_its_parameters():
    pipeline = Pipeline([("scale", StandardScaler()), ("model", SVC())])
    grid = [
        {"model": [SVC()], "model__C": [1.0, 2.0]},
        {"model": [RandomForestClassifier(5)], "model__max_depth": [None]},
    ]
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    assert optimizer.search(pipeline, X3, Y3, grid, 2, "accuracy", groups=SPECIMENS3)["n_candidates"] == 3
    assert optimizer.get_results()["model__C"].tolist()[:2] == [1.0, 2.0]
    assert optimizer.plot_grid_results("model", "model__C").axes[0].get_xlabel() == "model"


def test_accepts_sparse_features_and_returns_python_numbers():
    optimizer = RandomSearchOptimizer(n_jobs=1, verbose=0)
    found = optimizer.search(SVC(), csr_array(X3), Y3, {"C": loguniform(0.1, 9)}, 2, 2, None, groups=SPECIMENS3)
    assert type(found["best_params"]["C"]) is float


def test_rejects_zero_n_iter():
    with pytest.raises(ValueError, match="n_iter is 0, expected an integer >= 1"):
        RandomSearchOptimizer(n_jobs=1, verbose=0).search(SVC(), X3, Y3, SCALED_SVM, 0, 2, None)


def test_warns_about_class_of_one_specimen():
    y = np.where(SPECIMENS3 == 0, "rare", "common")
    with pytest.warns(UserWarning, match="class 'rare' comes from one specimen"):
        make_folds(2, X3, y, SPECIMENS3)


@pytest.mark.parametrize("optimizer", [GridSearchOptimizer(), RandomSearchOptimizer()])
def test_results_require_search(optimizer):
    with pytest.raises(NotFittedError, match="call search"):
        optimizer.get_results()
    with pytest.raises(NotFittedError, match="call search"):
        if isinstance(optimizer, GridSearchOptimizer):
            optimizer.plot_grid_results("a", "b")
        else:
            optimizer.plot_search_results("a")


@pytest.mark.parametrize("model", [SVC(), make_pipeline(StandardScaler(), SVC())], ids=["estimator", "pipeline"])
def test_searches_have_defaults_for_everything_but_the_model_and_the_data(model):
    X, y, specimens = few_windows()
    grid = GridSearchOptimizer(n_jobs=1, verbose=0).search(model, X, y, groups=specimens)
    random = RandomSearchOptimizer(n_jobs=1, verbose=0).search(model, X, y, groups=specimens)
    assert (grid["n_candidates"], random["n_candidates"]) == (25, 10)
    prefix = "svc__" if hasattr(model, "steps") else ""
    assert set(grid["best_params"]) == {f"{prefix}C", f"{prefix}gamma"}
    assert model.set_params(**grid["best_params"])
    explicit = GridSearchOptimizer(n_jobs=1, verbose=0)
    explicit.search(model, X, y, get_default_param_grid("SVM"), 5, "accuracy", groups=specimens)
    assert explicit.get_results()["mean_score"].max() == grid["best_score"]


def test_estimator_without_preset_needs_a_space():
    with pytest.raises(
        ValueError, match="KNeighborsClassifier has no default search space, only RandomForestClassifier"
    ):
        GridSearchOptimizer(n_jobs=1, verbose=0).search(KNeighborsClassifier(), X3, Y3)


def test_regression_has_folds_of_complete_specimens():
    X, _, specimens = few_windows()
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    found = optimizer.search(SVR(), X, X[:, 0], {"C": [1.0, 10.0]}, 3, "r2", groups=specimens)
    theirs = GridSearchCV(SVR(), {"C": [1.0, 10.0]}, cv=GroupKFold(3), scoring="r2").fit(X, X[:, 0], groups=specimens)
    assert found["best_score"] == theirs.best_score_


@pytest.mark.parametrize(
    ("kind", "model", "space", "message"),
    [
        (GridSearchOptimizer, SVC(), {"C": [-1.0]}, "no candidate could be trained"),
        (GridSearchOptimizer, KNeighborsClassifier(), None, "KNeighborsClassifier has no default search space"),
        (RandomSearchOptimizer, KNeighborsClassifier(), None, "KNeighborsClassifier has no default search space"),
    ],
)
def test_failed_search_leaves_no_results(kind, model, space, message):
    optimizer = kind(n_jobs=1, verbose=0)
    optimizer.search(SVC(), X3, Y3, {"C": [1.0]}, cv=2)
    with pytest.raises(ValueError, match=message):
        optimizer.search(model, X3, Y3, space, cv=2)
    with pytest.raises(NotFittedError):
        optimizer.get_results()


# -- several scores, folds, limits ------------------------------------------------------------------------


def test_several_scores_match_sklearn():
    X, y, specimens = few_windows()
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    scores, grid = ["accuracy", "neg_log_loss"], {"n_neighbors": [1, 5, 9]}
    found = optimizer.search(
        KNeighborsClassifier(), X, y, grid, GroupKFold(3), scores, groups=specimens, refit="neg_log_loss"
    )
    theirs = GridSearchCV(KNeighborsClassifier(), grid, cv=GroupKFold(3), scoring=scores, refit="neg_log_loss")
    theirs.fit(X, y, groups=specimens)
    assert found["best_params"] == theirs.best_params_
    assert found["best_score"] == found["best_scores"]["neg_log_loss"] == theirs.best_score_
    for name in scores:
        table = optimizer.get_results(name)
        np.testing.assert_array_equal(table["mean_score"], theirs.cv_results_[f"mean_test_{name}"])
        np.testing.assert_array_equal(table["rank"], theirs.cv_results_[f"rank_test_{name}"])
    assert optimizer.get_results()["mean_score"].max() == found["best_score"]
    folds = optimizer.get_fold_scores()
    assert len(folds) == 3 * 3 * 2
    one = folds[(folds["candidate"] == 2) & (folds["scoring"] == "accuracy")].sort_values("fold")["score"]
    np.testing.assert_array_equal(one, [theirs.cv_results_[f"split{fold}_test_accuracy"][2] for fold in range(3)])
    with pytest.raises(ValueError, match="unknown scoring 'f1'"):
        optimizer.get_results("f1")


def test_first_of_several_scores_selects_by_default():
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    scorers = {"right": "accuracy", "balanced": "balanced_accuracy"}
    found = optimizer.search(SVC(), X3, Y3, {"C": [1.0, 2.0]}, 2, scorers, groups=SPECIMENS3)
    assert found["best_score"] == found["best_scores"]["right"]
    assert optimizer.get_fold_scores()["scoring"].unique().tolist() == ["right", "balanced"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": ["accuracy"], "refit": "f1"}, "unknown refit 'f1'"),
        ({"scoring": "accuracy", "refit": "f1"}, "refit is 'f1', but there is only one score, 'accuracy'"),
        ({"scoring": []}, r"scoring is \[\], expected at least one score"),
        ({"cv": KFold(2), "n_repeats": 2}, "expected a number of folds"),
        ({"n_repeats": 0}, "n_repeats is 0, expected an integer >= 1"),
        ({"timeout_s": 0}, "timeout_s is 0, expected a finite number > 0"),
        ({"patience": 0}, "patience is 0, expected an integer >= 1"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        GridSearchOptimizer(n_jobs=1, verbose=0).search(SVC(), X3, Y3, {"C": [1.0]}, **{"cv": 2} | options)


def test_repeated_folds_split_specimens_anew():
    X, y, specimens = few_windows()
    folds = make_folds(3, X, y, specimens, n_repeats=2, seed=4)
    for repeat in (folds[:3], folds[3:]):
        assert sorted(np.concatenate([test for _, test in repeat])) == list(range(len(y)))
        assert not any(set(specimens[train]) & set(specimens[test]) for train, test in repeat)
    assert any((first[1].tolist() != second[1].tolist()) for first, second in zip(folds[:3], folds[3:], strict=True))
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    found = optimizer.search(SVC(), X, y, {"C": [1.0]}, 3, groups=specimens, n_repeats=2)
    assert len(optimizer.get_fold_scores()) == 6
    assert found["best_score"] == pytest.approx(optimizer.get_fold_scores()["score"].mean())


@pytest.mark.parametrize("kind", [GridSearchOptimizer, RandomSearchOptimizer])
def test_patience_ends_search_and_leaves_earlier_candidates_unchanged(kind):
    arguments = SVC(), X3, Y3, {"C": [1.0, 2.0, 3.0, 4.0, 5.0]}
    complete, limited = kind(n_jobs=1, verbose=0), kind(n_jobs=1, verbose=0)
    complete.search(*arguments, cv=2, groups=SPECIMENS3)
    found = limited.search(*arguments, cv=2, groups=SPECIMENS3, patience=2)
    scores = complete.get_results()["mean_score"].tolist()
    expected = next(n for n in range(1, 6) if n == 5 or n - 1 - int(np.argmax(scores[:n])) >= 2)
    assert found["n_candidates"] == expected
    assert limited.get_results()["mean_score"].tolist() == scores[:expected]


def test_timeout_ends_search(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("whirl.tuning.limits.time.monotonic", lambda: next(clock))
    optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
    found = optimizer.search(SVC(), X3, Y3, {"C": [1.0, 2.0, 3.0, 4.0]}, 2, groups=SPECIMENS3, timeout_s=15)
    assert found["n_candidates"] == 2


# -- nested cross-validation ------------------------------------------------------------------------------


def test_nested_scores_match_a_loop_over_sklearn():
    X, y, specimens = few_windows()
    grid = {"n_neighbors": [1, 5, 9]}
    table = nested_scores(
        GridSearchOptimizer(n_jobs=1, verbose=0), KNeighborsClassifier(), X, y, grid,
        outer_cv=GroupKFold(3), groups=specimens, cv=GroupKFold(2), scoring="accuracy",
    )  # fmt: skip
    for (train, test), row in zip(GroupKFold(3).split(X, y, specimens), table.to_dict("records"), strict=True):
        search = GridSearchCV(KNeighborsClassifier(), grid, cv=GroupKFold(2), scoring="accuracy")
        search.fit(X[train], y[train], groups=specimens[train])
        assert row["score"] == search.score(X[test], y[test])
        assert row["inner_score"] == search.best_score_
        assert row["n_neighbors"] == search.best_params_["n_neighbors"]
        assert row["n_test"] == len(test)


def test_nested_scores_of_labels_by_chance_are_lower_than_the_search_reports():
    """Random features and labels: the best of many candidates scores above chance, the nested score does not."""
    rng = np.random.default_rng(0)
    X, y, specimens = rng.normal(size=(60, 3)), rng.integers(0, 2, 60), np.arange(60)
    table = nested_scores(
        RandomSearchOptimizer(n_jobs=1, verbose=0), DecisionTreeClassifier(), X, y,
        {"max_depth": [1, 2, 3, 5, 8], "min_samples_leaf": [1, 2, 4, 8, 16], "criterion": ["gini", "entropy"]},
        groups=specimens, outer_cv=4, n_repeats=2, cv=3, n_iter=20,
    )  # fmt: skip
    assert table[["repeat", "fold"]].to_numpy().tolist() == [[r, f] for r in (1, 2) for f in (1, 2, 3, 4)]
    assert table["inner_score"].mean() - table["score"].mean() > 0.05
    assert abs(table["score"].mean() - 0.5) < 0.12
