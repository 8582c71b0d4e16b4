"""Random search: cross-validate candidates drawn from distributions (Bergstra & Bengio, 2012)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from whirl.tuning.cross_validated_search import CrossValidatedSearch, Scoring, SearchOptions, names_of
from whirl.tuning.plots import plot_parameter
from whirl.tuning.spaces import full_spaces, preset_distributions, preset_of
from whirl.validation import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Distributions = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class RandomSearchOptimizer(CrossValidatedSearch):
    """Search over candidates drawn at random, based on scikit-learn's `RandomizedSearchCV`.

    Args:
        random_state: seed of the draws, and of every `random_state` that the model leaves unset.
        n_jobs: number of parallel processes, which share the cores; -1 for one per core.
        verbose: verbosity of scikit-learn: 0 prints nothing, 1 one line in total, 2 or more one line per fit.

    Attributes:
        searched: the fitted search of scikit-learn; None before `search`.

    Example:
        >>> import numpy as np
        >>> from scipy.stats import loguniform
        >>> from sklearn.svm import SVC
        >>> specimens = np.repeat(np.arange(12), 5)
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(60, 2)) + (specimens % 2)[:, None] * 3, specimens % 2
        >>> optimizer = RandomSearchOptimizer(n_jobs=1, verbose=0)
        >>> space = {"C": loguniform(0.01, 10)}
        >>> optimizer.search(SVC(), X, y, space, 5, 3, "accuracy", groups=specimens)["n_candidates"]
        5
        >>> list(optimizer.get_results().columns)
        ['C', 'mean_score', 'std_score', 'rank', 'time_s']
    """

    def search(
        self,
        model: Any,
        X: Any,
        y: Any,
        param_dist: Distributions | None = None,
        n_iter: int = 10,
        cv: Any = 5,
        scoring: Scoring = None,
        *,
        groups: Iterable[Any] | None = None,
        refit: str | None = None,
        n_repeats: int = 1,
        timeout_s: float | None = None,
        patience: int | None = None,
    ) -> dict[str, Any]:
        """Cross-validate `n_iter` candidates and fit the best one to all data.

        Args:
            model: scikit-learn classifier, e.g. `SignalClassifier` or a pipeline; it is not modified.
            X: samples, `[n, ...]`.
            y: labels, `[n]`.
            param_dist: `{parameter: SciPy distribution or list of values}`, values being drawn uniformly; or a list of
                such dicts; None for the preset of the model, see `get_default_param_distributions`. In a pipeline,
                parameters of the last step can be named without its prefix.
            n_iter: number of candidates, >= 1; all combinations if only lists are given and they have fewer.
            cv: number of folds >= 2, or a scikit-learn splitter.
            scoring: scikit-learn scorer name or function, higher is better; None for the model's own `score`, which is
                the accuracy of classifiers; or several scores, a list of names or `{name: scorer}`.
            groups: specimen of each sample, `[n]`, see `GridSearchOptimizer.search`.
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
            ValueError: `n_iter` is below 1; and as `GridSearchOptimizer.search`.
        """
        from sklearn.model_selection import ParameterGrid

        from whirl.tuning.limited_search import LimitedRandomSearch

        self.searched = None  # after a failed search there are no results
        n_iter = check_count("n_iter", n_iter)
        spaces = full_spaces(model, preset_distributions(preset_of(model)) if param_dist is None else param_dist)
        if isinstance(spaces, Mapping) and not any(hasattr(values, "rvs") for values in spaces.values()):
            n_iter = min(n_iter, len(ParameterGrid(spaces)))
        make = partial(LimitedRandomSearch, param_distributions=spaces, n_iter=n_iter, random_state=self.random_state)
        options = SearchOptions(cv, scoring, groups, refit, n_repeats, timeout_s, patience)
        return self._search(make, model, X, y, names_of(spaces), options)

    def plot_search_results(self, param_name: str) -> Figure:
        """Plot the scores over the values of one parameter, marking the best candidate.

        Raises:
            NotFittedError: `search` was not called before (a `ValueError`).
            ValueError: there is no such parameter.
        """
        return plot_parameter(self.get_results(), param_name, self._score_label)


def get_default_param_distributions(model_name: str) -> dict[str, Any]:
    """Return the recommended distributions of a model.

    Args:
        model_name: `'RandomForest'`, `'SVM'`, `'GradientBoosting'`, `'MLP'`, or a network of the registry.

    Returns:
        `{parameter: SciPy distribution or list of values}`, for the estimator itself; in the searches of this package
        also for a pipeline that ends with it.

    Raises:
        ValueError: there is no such preset; the message lists the known ones.

    Example:
        >>> get_default_param_distributions("wdcnn")["batch_size"]
        [16, 32, 64, 128]
    """
    return preset_distributions(model_name)
