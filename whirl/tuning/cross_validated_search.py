"""Shared code of grid and random search: grouped folds, the call of scikit-learn, and the table of results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from whirl.tuning.groups import check_disjoint, specimen_ids
from whirl.tuning.results import check_parameter_names, plain, table_of_cv_results
from whirl.validation import check_name, unknown_name

if TYPE_CHECKING:
    from pandas import DataFrame

Scoring = str | Callable[..., float] | None
Folds = list[tuple[np.ndarray, np.ndarray]]


class CrossValidatedSearch:
    """Base class of searches that cross-validate every candidate; subclasses define the candidates.

    Args:
        random_state: seed of the search, and of every `random_state` that the model leaves unset.
        n_jobs: number of parallel processes, which share the cores; -1 for one per core.
        verbose: verbosity of scikit-learn: 0 prints nothing, 1 one line in total, 2 or more one line per fit.

    Attributes:
        searched: the fitted search of scikit-learn; None before `search`.
    """

    def __init__(self, random_state: int = 42, n_jobs: int = -1, verbose: int = 2) -> None:
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.searched: Any = None
        self._score_label = "mean score"

    def get_results(self) -> DataFrame:
        """Return a table with one row per candidate.

        The columns are its parameters, `mean_score`, `std_score`, `rank` (1 is the best) and `time_s`.

        Raises:
            NotFittedError: `search` was not called before (a `ValueError`).
        """
        if self.searched is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {type(self).__name__} has no results yet: call search(...) first")
        return table_of_cv_results(self.searched.cv_results_, self.searched.n_splits_)

    def _search(
        self, make: Callable[..., Any], model: Any, X: Any, y: Any, names: Iterable[str], cv: Any, scoring: Scoring,
        groups: Iterable[Any] | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Cross-validate the candidates of `make(estimator, **options)`, and fit the best one to all data."""
        from sklearn.base import is_regressor

        self.searched = None  # after a failed search there are no results
        check_parameters(model, names)
        check_one_score(model, scoring)
        folds = make_folds(cv, X, y, groups, classifier=not is_regressor(model))
        options = {"scoring": scoring, "cv": folds, "n_jobs": self.n_jobs, "verbose": self.verbose}
        searched = _fit(make(with_seed(model, self.random_state), **options), X, y)
        self.searched = searched
        self._score_label = f"mean {scoring if isinstance(scoring, str) else 'score'} over {len(folds)} folds"
        return {
            "best_params": {name: plain(value) for name, value in searched.best_params_.items()},
            "best_score": float(searched.best_score_),
            "best_estimator": searched.best_estimator_,
            "n_candidates": len(searched.cv_results_["params"]),
        }


def _fit(search: Any, X: Any, y: Any) -> Any:
    try:
        search.fit(X, y)
    except ValueError as error:
        if "fits failed" not in str(error):
            raise
        cause = str(error).strip().splitlines()[-1]
        raise ValueError(f"no candidate could be trained; one of them failed with {cause}") from error
    if np.isnan(search.best_score_):
        _explain_no_score(search, X, y)
    return search


def _explain_no_score(search: Any, X: Any, y: Any) -> NoReturn:
    """Raise the reason: scikit-learn itself would return the first candidate although none has a score."""
    try:
        search.scorer_(search.best_estimator_, X, y)
    except Exception as error:
        raise ValueError(f"no candidate could be scored: {type(error).__name__}: {error}") from error
    raise ValueError("no candidate has a score: each failed in at least one fold, see scikit-learn's warnings")


def check_parameters(model: Any, names: Iterable[str]) -> None:
    """Validate that an estimator has the given parameters.

    Parameters of a nested estimator that is itself searched are not checked here, but by that estimator.

    Raises:
        ValueError: the estimator lacks a parameter, no parameter was given, or one is named like a column of the table
            of results.

    Example:
        >>> from sklearn.svm import SVC
        >>> check_parameters(SVC(), ["C", "gamma"])
    """
    names, known = list(names), list(model.get_params())
    if not names:
        raise ValueError("the search space is empty, expected at least one parameter")
    check_parameter_names(names)
    for name in names:
        if name not in known and not any(name.startswith(f"{part}__") for part in names):
            raise ValueError(unknown_name(f"{type(model).__name__} parameter", name, known))


def check_one_score(model: Any, scoring: Any) -> None:
    """Validate a single score; with several, the best candidate would not be defined.

    Raises:
        ValueError: the score is unknown, or there are several.
    """
    from sklearn.metrics import check_scoring

    check_scorer(scoring)
    check_scoring(model, scoring)


def check_scorer(scoring: Any) -> None:
    """Validate the name of a scikit-learn scorer, a function, or None.

    Raises:
        ValueError: there is no such scorer, or there are several.

    Example:
        >>> check_scorer("acuracy")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: unknown scoring 'acuracy'; did you mean 'accuracy'? Expected one of: ...
    """
    from sklearn.metrics import get_scorer_names

    if isinstance(scoring, str):
        check_name("scoring", scoring, get_scorer_names())
    elif scoring is not None and not callable(scoring):
        raise ValueError(
            f"scoring is {scoring!r}, expected one score: the name of a scikit-learn scorer, or a function"
        )


def with_seed(model: Any, seed: int) -> Any:
    """Return a copy of an estimator in which every `random_state` that is None is the seed.

    Example:
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> with_seed(RandomForestClassifier(), 3), with_seed(RandomForestClassifier(random_state=1), 3)
        (RandomForestClassifier(random_state=3), RandomForestClassifier(random_state=1))
    """
    from sklearn.base import clone

    copy: Any = clone(model)
    unset = [name for name, value in copy.get_params().items() if _is_seed(name) and value is None]
    return copy.set_params(**dict.fromkeys(unset, seed))


def _is_seed(name: str) -> bool:
    return name.split("__")[-1] == "random_state"


def make_folds(cv: Any, X: Any, y: Any, groups: Iterable[Any] | None = None, *, classifier: bool = True) -> Folds:
    """Return the row indices of each fold's training and test part; no group is in both.

    Args:
        cv: number of folds >= 2, a scikit-learn splitter, or pairs of row indices. With a number, folds consist of
            complete groups and keep the class proportions as far as groups allow (`StratifiedGroupKFold`). Without
            groups they consist of single rows (`StratifiedKFold`), which is valid only if every row is a specimen of
            its own.
        X: samples, `[n, ...]`.
        y: labels, `[n]`.
        groups: specimen of each row, `[n]`, see `groups.specimen_ids`.
        classifier: whether the labels are classes; False for regression, whose folds are not stratified.

    Raises:
        ValueError: the lengths differ, there are fewer groups than folds, a splitter that ignores groups splits one of
            them, or a group is missing.

    Example:
        >>> import numpy as np
        >>> folds = make_folds(2, np.zeros((4, 1)), ["a", "a", "b", "b"], groups=["rig 1", "rig 2", "rig 1", "rig 2"])
        >>> [test.tolist() for _, test in folds]
        [[0, 2], [1, 3]]
    """
    labels = np.asarray(y)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)  # sparse matrices have no length
    if n_rows != len(labels):
        raise ValueError(f"X has {n_rows} rows, but y has {len(labels)}")
    if groups is None:
        from sklearn.model_selection import check_cv

        splitter: Any = check_cv(cv, labels, classifier=classifier)
        return list(splitter.split(X, labels))
    ids, specimens = specimen_ids("groups", groups, len(labels))
    splitter = _splitter(cv, labels, ids, classifier)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")  # a group in both parts raises below
        folds = list(splitter.split(X, labels, ids))
    check_disjoint(folds, ids, specimens)
    return folds


def _splitter(cv: Any, labels: np.ndarray, specimens: np.ndarray, classifier: bool) -> Any:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

    if isinstance(cv, bool) or not isinstance(cv, int | np.integer):
        return check_cv(cv, labels, classifier=classifier)
    n_specimens = len(np.unique(specimens))
    if n_specimens < cv:
        raise ValueError(f"{n_specimens} specimens are too few for {cv} folds: each fold needs at least one")
    if not classifier:
        return GroupKFold(int(cv))
    for label in np.unique(labels):
        if len(np.unique(specimens[labels == label])) == 1:
            warnings.warn(
                f"class {str(label)!r} comes from one specimen, so the fold that tests it cannot train on it",
                stacklevel=5,
            )
    return StratifiedGroupKFold(int(cv))


def names_of(space: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parameter names of a grid or of distributions, or of a list of these."""
    spaces = [space] if isinstance(space, Mapping) else space
    return list(dict.fromkeys(name for part in spaces for name in part))
