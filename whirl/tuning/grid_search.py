"""Grid search: cross-validate every combination of given values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from whirl.tuning.cross_validated_search import CrossValidatedSearch, Scoring, SearchOptions, names_of
from whirl.tuning.plots import plot_heatmap
from whirl.tuning.spaces import full_spaces, preset_grid, preset_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]


class GridSearchOptimizer(CrossValidatedSearch):
    """Grid search over all combinations of parameter values, based on scikit-learn's `GridSearchCV`.

    Args:
        random_state: seed of every `random_state` that the model leaves unset; the search itself draws nothing.
        n_jobs: number of parallel processes, which share the cores; -1 for one per core.
        verbose: verbosity of scikit-learn: 0 prints nothing, 1 one line in total, 2 or more one line per fit.

    Attributes:
        searched: the fitted search of scikit-learn; None before `search`.

    Example:
        >>> import numpy as np
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> specimens = np.repeat(np.arange(12), 5)
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(60, 2)) + (specimens % 2)[:, None] * 3, specimens % 2
        >>> optimizer = GridSearchOptimizer(n_jobs=1, verbose=0)
        >>> grid = {"n_neighbors": [3, 5]}
        >>> found = optimizer.search(KNeighborsClassifier(), X, y, grid, 3, "accuracy", groups=specimens)
        >>> found["n_candidates"], found["best_score"] > 0.9
        (2, True)
    """

    def search(
        self,
        model: Any,
        X: Any,
        y: Any,
        param_grid: Grid | None = None,
        cv: Any = 5,
        scoring: Scoring = None,
        *,
        groups: Iterable[Any] | None = None,
        refit: str | None = None,
        n_repeats: int = 1,
        timeout_s: float | None = None,
        patience: int | None = None,
    ) -> dict[str, Any]:
        """Cross-validate every candidate and fit the best one to all data.

        Args:
            model: scikit-learn classifier, e.g. `SignalClassifier` or a pipeline; it is not modified.
            X: samples, `[n, ...]`.
            y: labels, `[n]`.
            param_grid: `{parameter: values}`, or a list of such grids; None for the preset of the model, see
                `get_default_param_grid`. In a pipeline, parameters of the last step can be named without its prefix.
            cv: number of folds >= 2, or a scikit-learn splitter.
            scoring: scikit-learn scorer name or function, higher is better; None for the model's own `score`, which is
                the accuracy of classifiers; or several scores, a list of names or `{name: scorer}`.
            groups: specimen of each sample, `[n]`; no specimen is in both parts of a fold. Without groups each sample
                counts as a specimen of its own, so windows of one recording in both parts make the score too high.
            refit: which of several scores selects the best candidate; None for the first one.
            n_repeats: number of times that the samples are split anew into `cv` folds, >= 1.
            timeout_s: time in seconds after which no further candidate is started, > 0; None for no limit. With a
                limit, candidates run one after the other, and only their folds in parallel.
            patience: number of candidates in a row without a better score after which the search ends, >= 1; None for
                no limit.

        Returns:
            `best_params`, `best_score` (mean over the folds; slightly optimistic, as it is the maximum over
            `n_candidates`; `nested_scores` gives an unbiased one), `best_estimator` (fitted to all of `X`),
            `n_candidates`; and with several scores `best_scores`, the mean of each for the best candidate.

        Raises:
            ValueError: the model lacks a parameter, there are fewer specimens than folds, a fold splits a specimen,
                lengths differ, the score is unknown, or no candidate could be trained.
        """
        from whirl.tuning.limited_search import LimitedGridSearch

        self.searched = None  # after a failed search there are no results
        grids = full_spaces(model, preset_grid(preset_of(model)) if param_grid is None else param_grid)
        make = partial(LimitedGridSearch, param_grid=grids)
        options = SearchOptions(cv, scoring, groups, refit, n_repeats, timeout_s, patience)
        return self._search(make, model, X, y, names_of(grids), options)

    def plot_grid_results(self, param1: str, param2: str) -> Figure:
        """Plot the best score for each pair of values of two parameters as a heat map.

        Args:
            param1: parameter on the horizontal axis.
            param2: parameter on the vertical axis.

        Raises:
            NotFittedError: `search` was not called before (a `ValueError`).
            ValueError: there is no such parameter, or the two are the same.
        """
        return plot_heatmap(self.get_results(), param1, param2, self._score_label)


def get_default_param_grid(model_name: str) -> dict[str, list[Any]]:
    """Return the recommended grid of a model, with at most 100 candidates.

    Args:
        model_name: `'RandomForest'`, `'SVM'`, `'GradientBoosting'`, `'MLP'`, or a network of the registry.

    Returns:
        `{parameter: values}`, for the estimator itself; in the searches of this package also for a pipeline that ends
        with it.

    Raises:
        ValueError: there is no such preset; the message lists the known ones.

    Example:
        >>> get_default_param_grid("RandomForest")["n_estimators"]
        [100, 400]
    """
    return preset_grid(model_name)
