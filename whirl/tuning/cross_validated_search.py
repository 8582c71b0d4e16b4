"""Shared code of grid and random search: grouped folds, the call of scikit-learn, and the table of results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from whirl.tuning.groups import check_disjoint, specimen_ids
from whirl.tuning.limits import Limits
from whirl.tuning.results import check_parameter_names, plain, table_of_cv_results, table_of_fold_scores
from whirl.validation import check_count, check_name, unknown_name, unwrap_scalar

if TYPE_CHECKING:
    from pandas import DataFrame

Score = str | Callable[..., float] | None
Scoring = Score | Sequence[str] | Mapping[str, str | Callable[..., float]]
Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class SearchOptions:
    """Options that grid and random search have in common; see `GridSearchOptimizer.search`."""

    cv: Any = 5
    scoring: Any = None
    groups: Iterable[Any] | None = None
    refit: str | None = None
    n_repeats: int = 1
    timeout_s: float | None = None
    patience: int | None = None


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
        self.random_state = unwrap_scalar(random_state)
        self.n_jobs = unwrap_scalar(n_jobs)
        self.verbose = verbose
        self.searched: Any = None
        self._score_label = "mean score"

    def get_results(self, scoring: str | None = None) -> DataFrame:
        """Return a table with one row per candidate.

        The columns are its parameters, `mean_score`, `std_score`, `rank` (1 is the best) and `time_s`.

        Args:
            scoring: one of several scores that were searched; None for the one that selects the best candidate.

        Raises:
            NotFittedError: `search` was not called before (a `ValueError`).
            ValueError: there is no such score.
        """
        searched = self._finished()
        check_name("scoring", scoring or self._refit(), self._scores())
        return table_of_cv_results(searched.cv_results_, searched.n_splits_, scoring or self._refit())

    def get_fold_scores(self) -> DataFrame:
        """Return a table with one row per candidate, fold and score.

        The columns are `candidate` (row of `get_results`), `fold` (from 1), `scoring` and `score`.

        Raises:
            NotFittedError: `search` was not called before (a `ValueError`).
        """
        searched = self._finished()
        return table_of_fold_scores(searched.cv_results_, searched.n_splits_, self._scores())

    def _finished(self) -> Any:
        if self.searched is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {type(self).__name__} has no results yet: call search(...) first")
        return self.searched

    def _refit(self) -> str:
        return self.searched.refit if isinstance(self.searched.refit, str) else "score"

    def _scores(self) -> list[str]:
        return list(self.searched.scorer_) if self.searched.multimetric_ else ["score"]

    def _search(
        self, make: Callable[..., Any], model: Any, X: Any, y: Any, names: Iterable[str], options: SearchOptions
    ) -> dict[str, Any]:
        """Cross-validate the candidates of `make(estimator, **options)`, and fit the best one to all data."""
        from sklearn.base import is_regressor

        check_parameters(model, names)
        refit = check_scores(model, options.scoring, options.refit)
        limits = _limits_of(options)
        kinds = {"classifier": not is_regressor(model), "n_repeats": options.n_repeats, "seed": self.random_state}
        folds = make_folds(options.cv, X, y, options.groups, **kinds)
        search = make(
            with_seed(model, self.random_state), scoring=options.scoring, refit=refit or True, cv=folds,
            n_jobs=self.n_jobs, verbose=self.verbose,
        )  # fmt: skip
        search.limits = limits
        searched = self.searched = _fit(search, X, y)
        label = refit or (options.scoring if isinstance(options.scoring, str) else "score")
        self._score_label = f"mean {label} over {len(folds)} folds"
        found = {
            "best_params": {name: plain(value) for name, value in searched.best_params_.items()},
            "best_score": float(searched.best_score_),
            "best_estimator": searched.best_estimator_,
            "n_candidates": len(searched.cv_results_["params"]),
        }
        if refit is None:
            return found
        means = {name: searched.cv_results_[f"mean_test_{name}"] for name in self._scores()}
        return found | {"best_scores": {name: float(mean[searched.best_index_]) for name, mean in means.items()}}


def _limits_of(options: SearchOptions) -> Limits | None:
    """Return the limits of a search; None if it has none, since candidates are then evaluated in parallel."""
    has_limits = options.timeout_s is not None or options.patience is not None
    return Limits(options.timeout_s, options.patience) if has_limits else None


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
    scorer = search.scorer_[search.refit] if search.multimetric_ else search.scorer_
    try:
        scorer(search.best_estimator_, X, y)
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


def check_scores(model: Any, scoring: Any, refit: str | None = None) -> str | None:
    """Validate one score, or several and the one that selects the best candidate.

    Args:
        model: estimator.
        scoring: scikit-learn scorer name or function; a list of names; or `{name: scorer}`.
        refit: name of the score that selects the best candidate; None for the first of several.

    Returns:
        The name of that score; None if there is only one.

    Raises:
        ValueError: a score is unknown, or `refit` is not one of several scores.
        TypeError: the estimator has no score of its own, and `scoring` is None.

    Example:
        >>> from sklearn.svm import SVC
        >>> check_scores(SVC(), ["accuracy", "f1_macro"])
        'accuracy'
    """
    from sklearn.metrics import check_scoring

    scorers = _named_scorers(scoring)
    if scorers is None:
        if refit is not None:
            raise ValueError(f"refit is {refit!r}, but there is only one score, {scoring!r}; leave out refit")
        check_scorer(scoring)
        check_scoring(model, scoring)
        return None
    if not scorers:
        raise ValueError(f"scoring is {scoring!r}, expected at least one score")
    for scorer in scorers.values():
        check_scorer(scorer)
    check_name("refit", refit or next(iter(scorers)), scorers)
    return refit or next(iter(scorers))


def _named_scorers(scoring: Any) -> dict[str, Any] | None:
    """Return several scores by name; None for a single one."""
    if isinstance(scoring, Mapping):
        return dict(scoring)
    return {name: name for name in scoring} if isinstance(scoring, list | tuple | set) else None


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
        raise ValueError(f"scoring is {scoring!r}, expected the name of a scikit-learn scorer, or a function")


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


def make_folds(
    cv: Any,
    X: Any,
    y: Any,
    groups: Iterable[Any] | None = None,
    *,
    classifier: bool = True,
    n_repeats: int = 1,
    seed: int = 0,
) -> Folds:
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
        n_repeats: number of times that all rows are split anew into `cv` folds, >= 1; more than 1 requires a number of
            folds, which are then shuffled.
        seed: random seed of the shuffling.

    Raises:
        ValueError: the lengths differ, there are fewer groups than folds, or fewer rows of every class, a splitter that
            ignores groups splits one of them, or a group is missing.

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
    ids, specimens = (None, []) if groups is None else specimen_ids("groups", groups, len(labels))
    seeds = [None] if check_count("n_repeats", n_repeats) == 1 else [seed + repeat for repeat in range(n_repeats)]
    folds: Folds = []
    for each in seeds:
        splitter = _splitter(cv, labels, ids, classifier, each)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The groups parameter is ignored")  # a group in both parts raises below
            folds += list(splitter.split(X, labels, ids))
    if ids is not None:
        check_disjoint(folds, ids, specimens)
    return folds


def _splitter(cv: Any, labels: np.ndarray, ids: np.ndarray | None, classifier: bool, seed: int | None) -> Any:
    """Return the splitter of a number of folds, shuffled if there is a seed, or the caller's own."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, check_cv

    cv = unwrap_scalar(cv)
    is_number = isinstance(cv, int | np.integer) and not isinstance(cv, bool)
    if not is_number and seed is not None:
        raise ValueError(f"n_repeats is above 1, but cv is {cv!r}, expected a number of folds")
    if not is_number or (ids is None and seed is None):
        return check_cv(cv, labels, classifier=classifier)  # pyright: ignore[reportArgumentType]
    shuffled = {"shuffle": seed is not None, "random_state": seed}
    if ids is None:
        return (StratifiedKFold if classifier else KFold)(int(cv), **shuffled)
    _check_specimens_suffice(int(cv), labels, ids, classifier)
    return (StratifiedGroupKFold if classifier else GroupKFold)(int(cv), **shuffled)


def _check_specimens_suffice(n_folds: int, labels: np.ndarray, ids: np.ndarray, classifier: bool) -> None:
    n_specimens = len(np.unique(ids))
    if n_specimens < n_folds:
        raise ValueError(f"{n_specimens} specimens are too few for {n_folds} folds: each fold needs at least one")
    if not classifier:
        return
    classes, n_rows = np.unique(labels, return_counts=True)
    if n_rows.max() < n_folds:
        raise ValueError(f"no class has more than {n_rows.max()} rows, expected at least {n_folds} for {n_folds} folds")
    for label in classes:
        if len(np.unique(ids[labels == label])) == 1:
            warnings.warn(
                f"class {str(label)!r} comes from one specimen, so the fold that tests it cannot train on it",
                stacklevel=6,
            )


def names_of(space: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parameter names of a grid or of distributions, or of a list of these."""
    spaces = [space] if isinstance(space, Mapping) else space
    return list(dict.fromkeys(name for part in spaces for name in part))
