"""Logistic regression and extra trees on tables, compared with scikit-learn and known results."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression as ReferenceRegression

from whirl.diagnosis.logistic import LogisticRegression, class_weights
from whirl.diagnosis.trees import ExtraTrees


def blobs(seed: int = 0, n: int = 60, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in four dimensions, of unequal sizes and scales."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [n, n // 2, n // 4])
    X = spread * rng.normal(size=(len(y), 4))
    X[:, 0] += 3 * y
    X[:, 1] *= 1000
    return X, y


def test_logistic_regression_matches_scikit_learn() -> None:
    X, y = blobs()
    Z = (X - X.mean(0)) / X.std(0)
    reference = ReferenceRegression(C=1.0, class_weight="balanced", max_iter=1000, tol=1e-8).fit(Z, y)
    model = LogisticRegression(C=1.0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(Z), atol=1e-3)


def test_logistic_regression_does_not_depend_on_units() -> None:
    X, y = blobs()
    scaled = X * [1e-3, 5.0, 1e6, 1.0] + [0, 100.0, 0, -3]
    first, second = (LogisticRegression().fit(each, y).predict_proba(each) for each in (X, scaled))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_constant_features_have_no_effect() -> None:
    X, y = blobs()
    with_constant = np.column_stack([X, np.full(len(X), 7.0)])
    np.testing.assert_allclose(
        LogisticRegression().fit(X, y).predict_proba(X),
        LogisticRegression().fit(with_constant, y).predict_proba(with_constant),
        atol=1e-6,
    )
    assert ExtraTrees(5).fit(np.ones((len(y), 2)), y).predict_proba(np.ones((1, 2))).round(6).tolist() == [
        [0.333333] * 3
    ]


def test_features_that_vary_by_rounding_errors_have_no_effect() -> None:
    """A rounding error must not become the unit of a feature."""
    X, y = blobs()
    X = np.column_stack([X, np.where(np.arange(len(X)) % 2, 0.1, np.nextafter(0.1, 1))])
    model, moved = LogisticRegression().fit(X, y), X.copy()
    moved[:, -1] = 0.11
    np.testing.assert_allclose(model.predict_proba(moved), model.predict_proba(X), atol=1e-6)


def test_extra_trees_separate_classes_and_give_probabilities() -> None:
    X, y = blobs(spread=0.3)
    test_X, test_y = blobs(seed=1, spread=0.3)
    model = ExtraTrees(50).fit(X, y)
    probabilities = model.predict_proba(test_X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities.argmax(axis=1) == test_y).mean() > 0.95
    assert (model.predict_proba(X).argmax(axis=1) == y).all()


def test_extra_trees_match_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(600, 6)).astype(np.float32)
    y = 2 * ((X[:, 0] * X[:, 1] > 0) + (X[:, 2] > 0.3)).astype(int)  # classes 1 and 3 have no samples
    ours = ExtraTrees(100, max_features=2).fit(X[:300], y[:300], n_classes=5)
    weight = class_weights(y[:300], 5)
    forest = ExtraTreesClassifier(100, max_features=2, random_state=0).fit(X[:300], y[:300], weight)
    np.testing.assert_allclose(ours.predict_proba(X)[:, forest.classes_], forest.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("make", [LogisticRegression, lambda: ExtraTrees(10, seed=3)])
def test_state_restores_the_model(make) -> None:
    X, y = blobs()
    model = make().fit(X, y)
    state = model.state()
    assert all(array.dtype.kind in "fi" for array in state.values())
    np.testing.assert_array_equal(make().load_state(state).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("make", [LogisticRegression, lambda: ExtraTrees(10)])
def test_classes_without_samples_are_improbable(make) -> None:
    X, y = blobs()
    probabilities = make().fit(X, y, n_classes=5).predict_proba(X)
    assert probabilities.shape == (len(X), 5)
    assert probabilities[:, 3:].max() < 0.1


def test_seed_determines_the_trees() -> None:
    X, y = blobs()
    first, again, other = (ExtraTrees(10, seed=seed).fit(X, y).predict_proba(X + 0.5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_leaves_have_the_minimum_size() -> None:
    X, y = blobs()
    model = ExtraTrees(5, min_leaf=20).fit(X, y)
    assert len(model.feature) < 5 * 2 * len(y) / 20


def test_all_classes_have_the_same_weight() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 2)
    assert weights[:3].sum() == pytest.approx(weights[3])
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LogisticRegression(C=0), "C is 0"),
        (
            lambda: LogisticRegression().fit(np.array([[0.0], [np.nan]]), np.array([0, 1])),
            "1 of 2 features are not finite",
        ),
        (lambda: ExtraTrees(0), "n_trees is 0"),
        (lambda: ExtraTrees(min_leaf=0), "min_leaf is 0"),
        (lambda: ExtraTrees(max_features=1.5), "max_features is 1.5"),
    ],
)
def test_rejects_invalid_arguments(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
