"""Nested cross-validation: an unbiased score of a search, whose own best score is optimistic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.tuning.cross_validated_search import CrossValidatedSearch, make_folds

if TYPE_CHECKING:
    from pandas import DataFrame


def nested_scores(
    optimizer: CrossValidatedSearch,
    model: Any,
    X: Any,
    y: Any,
    space: Any = None,
    *,
    outer_cv: Any = 5,
    n_repeats: int = 1,
    groups: Iterable[Any] | None = None,
    **settings: Any,
) -> DataFrame:
    """Search anew in the training part of every outer fold, and score the result on its test part.

    The score that a search reports for its best candidate is the maximum over all candidates, and therefore too high.
    The mean of `score` in this table is not: no test part takes part in its search (Cawley and Talbot 2010, On
    Over-fitting in Model Selection, JMLR 11:2079). It estimates the score of the procedure on unseen specimens, when
    trained on the part 1 - 1/`outer_cv` of the data.

    Args:
        optimizer: a `GridSearchOptimizer` or `RandomSearchOptimizer`, whose settings are used; it is not modified.
        model: scikit-learn estimator.
        X: samples, `[n, ...]`.
        y: labels, `[n]`.
        space: grid or distributions; None for the preset of the model.
        outer_cv: number of outer folds, >= 2, or a scikit-learn splitter.
        n_repeats: number of times that the samples are split anew into outer folds, >= 1.
        groups: specimen of each sample, `[n]`; no specimen is in both parts of an outer or an inner fold.
        **settings: further arguments of `search`, e.g. `cv` and `scoring` of the inner search.

    Returns:
        One row per outer fold with the columns `repeat` and `fold` (from 1), `score` on the test part, `inner_score`,
        which the search reports, `n_test` samples, and the selected parameters.

    Raises:
        ValueError: see `GridSearchOptimizer.search`.

    Example:
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> from whirl.tuning.grid_search import GridSearchOptimizer
        >>> specimens = np.repeat(np.arange(12), 5)
        >>> X, y = np.random.default_rng(0).normal(size=(60, 2)) + (specimens % 2)[:, None] * 3, specimens % 2
        >>> optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
        >>> table = nested_scores(
        ...     optimizer, KNeighborsClassifier(), X, y, {"n_neighbors": [3, 5]}, outer_cv=3, groups=specimens, cv=3
        ... )
        >>> len(table), bool(table["score"].mean() > 0.9)
        (3, True)
    """
    import pandas as pd
    from sklearn.base import is_regressor

    specimens = None if groups is None else list(groups)
    folds = make_folds(
        outer_cv, X, y, specimens, classifier=not is_regressor(model), n_repeats=n_repeats, seed=optimizer.random_state
    )
    rows = []
    for index, (train, test) in enumerate(folds):
        inner: Any = type(optimizer)(optimizer.random_state, optimizer.n_jobs, optimizer.verbose)
        of_train = None if specimens is None else [specimens[row] for row in train]
        found = inner.search(model, _rows(X, train), _rows(y, train), space, groups=of_train, **settings)
        repeat, fold = divmod(index, len(folds) // n_repeats)
        scores = {
            "score": float(inner.searched.score(_rows(X, test), _rows(y, test))),
            "inner_score": found["best_score"],
        }
        rows.append({"repeat": repeat + 1, "fold": fold + 1, **scores, "n_test": len(test), **found["best_params"]})
    return pd.DataFrame(rows)


def _rows(values: Any, rows: np.ndarray) -> Any:
    """Return rows of an array, sparse matrix, data frame or list."""
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    return (values if hasattr(values, "shape") else np.asarray(values))[rows]
