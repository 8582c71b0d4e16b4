"""What grid and random search share: honest folds, the call of scikit-learn, and its results as a tidy table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from whirl.tuning.results import check_parameter_names, plain, table_of_cv_results

if TYPE_CHECKING:
    from pandas import DataFrame

Scoring = str | Callable[..., float] | None
Folds = list[tuple[np.ndarray, np.ndarray]]


class CrossValidatedSearch:
    """Base of the searches that cross-validate every candidate; a subclass says which candidates.

    Args:
        random_state: seed of what is drawn, and of every `random_state` that the model leaves unset.
        n_jobs: processes at a time, each on its share of the cores; -1 is one per core.
        verbose: what scikit-learn prints: 0 nothing, 1 a line in all, 2 and more a line for each fit.

    Attributes:
        searched: scikit-learn's fitted search; None before `search`.
    """

    def __init__(self, random_state: int = 42, n_jobs: int = -1, verbose: int = 2) -> None:
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.searched: Any = None
        self._score_label = "mean score"

    def get_results(self) -> DataFrame:
        """One row a candidate: its parameters, `mean_score`, `std_score`, `rank` (1 is the best) and `time_s`.

        Raises:
            NotFittedError: `search` comes first (a `ValueError`).
        """
        if self.searched is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("there is nothing to show yet: call search(...) first")
        return table_of_cv_results(self.searched.cv_results_, self.searched.n_splits_)

    def _search(
        self, make: Callable[..., Any], model: Any, X: Any, y: Any, names: Iterable[str], cv: Any, scoring: Scoring,
        groups: Iterable[Any] | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Cross-validate the candidates of `make(estimator, **options)`, and fit the best to all data."""
        check_parameters(model, names)
        check_one_score(model, scoring)
        folds = make_folds(cv, X, y, groups)
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
    """Where scikit-learn goes on with the first candidate although none has a score."""
    try:
        search.scorer_(search.best_estimator_, X, y)
    except Exception as error:
        raise ValueError(f"no candidate could be scored: {type(error).__name__}: {error}") from error
    raise ValueError("no candidate has a score: each failed in at least one fold, as scikit-learn's warnings say")


def check_parameters(model: Any, names: Iterable[str]) -> None:
    """Refuse parameters that the estimator has not; those of a part that is searched itself are the part's to refuse.

    Raises:
        ValueError: there is one, or none was given, or one is named like a column of the table of results.

    Example:
        >>> from sklearn.svm import SVC
        >>> check_parameters(SVC(), ["C", "gamma"])
    """
    names, known = list(names), list(model.get_params())
    if not names:
        raise ValueError("there is no parameter to search")
    check_parameter_names(names)
    for name in names:
        if name not in known and not any(name.startswith(f"{part}__") for part in names):
            raise ValueError(f"{type(model).__name__} has no parameter {name!r}; it has {', '.join(known)}")


def check_one_score(model: Any, scoring: Any) -> None:
    """Refuse several scores at once, of which none would be the one to be best in, and unknown ones."""
    from sklearn.metrics import check_scoring

    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(f"scoring is {scoring!r}, expected one score: a name that scikit-learn knows, or a function")
    check_scoring(model, scoring)


def with_seed(model: Any, seed: int) -> Any:
    """A copy in which every `random_state` that is None is the seed.

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


def make_folds(cv: Any, X: Any, y: Any, groups: Iterable[Any] | None = None) -> Folds:
    """Row numbers of each fold's training and test part; with groups, none of them is in both.

    Args:
        cv: a number of folds >= 2, a splitter of scikit-learn, or pairs of row numbers. A number makes folds of whole
            groups that hold the classes' shares as well as groups allow (`StratifiedGroupKFold`), or without groups
            of single rows (`StratifiedKFold`), which is right only where every row is a specimen of its own.
        X: `[n, ...]`.
        y: labels `[n]`.
        groups: specimen of each row, `[n]`.

    Raises:
        ValueError: the lengths differ, there are fewer groups than folds, a splitter that does not look at groups
            would split one, a group is None or NaN.

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

        splitter: Any = check_cv(cv, labels, classifier=True)
        return list(splitter.split(X, labels))
    specimens = _known_specimens(groups)
    if len(specimens) != len(labels):
        raise ValueError(f"groups has {len(specimens)} entries, but y has {len(labels)}")
    splitter = _splitter(cv, labels, specimens)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")  # then it is refused below, if need be
        folds = list(splitter.split(X, labels, specimens))
    _verify_checksum(folds, specimens)
    return folds


def _known_specimens(groups: Iterable[Any]) -> np.ndarray:
    names = list(groups)
    for row, name in enumerate(names):
        if name is None or name != name:  # NaN
            raise ValueError(f"groups[{row}] is {name}: expected the specimen of every row")
    return np.asarray(names)


def _splitter(cv: Any, labels: np.ndarray, specimens: np.ndarray) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold, check_cv

    if isinstance(cv, bool) or not isinstance(cv, int | np.integer):
        return check_cv(cv, labels, classifier=True)
    n_specimens = len(np.unique(specimens))
    if n_specimens < cv:
        raise ValueError(f"{n_specimens} specimens are too few for {cv} folds: each fold needs one of its own")
    for label in np.unique(labels):
        if len(np.unique(specimens[labels == label])) == 1:
            warnings.warn(
                f"class {str(label)!r} comes from one specimen: where it is tested, it was not trained", stacklevel=5
            )
    return StratifiedGroupKFold(int(cv))


def _verify_checksum(folds: Sequence[tuple[np.ndarray, np.ndarray]], specimens: np.ndarray) -> None:
    for number, (train, test) in enumerate(folds, start=1):
        shared = sorted(set(specimens[train]) & set(specimens[test]), key=str)
        if shared:
            raise ValueError(
                f"fold {number} of cv has specimen {str(shared[0])!r} in its training and in its test part: take "
                "a number, or a splitter that looks at groups, e.g. GroupKFold"
            )


def names_of(space: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters of a grid or of distributions, or of a list of such."""
    parts = [space] if isinstance(space, Mapping) else space
    return list(dict.fromkeys(name for part in parts for name in part))
