"""Grid search: every combination of some values, cross-validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from whirl.tuning.cross_validated_search import CrossValidatedSearch, Scoring, names_of
from whirl.tuning.plots import plot_heatmap
from whirl.tuning.spaces import preset_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]


class GridSearchOptimizer(CrossValidatedSearch):
    """Tries all combinations of a grid, over scikit-learn's `GridSearchCV`.

    Args:
        random_state: seed of every `random_state` that the model leaves unset; nothing else is drawn.
        n_jobs: processes at a time, each on its share of the cores; -1 is one per core.
        verbose: what scikit-learn prints: 0 nothing, 1 a line in all, 2 and more a line for each fit.

    Attributes:
        searched: scikit-learn's fitted search; None before `search`.

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
        param_grid: Grid,
        cv: Any,
        scoring: Scoring,
        *,
        groups: Iterable[Any] | None = None,
    ) -> dict[str, Any]:
        """Cross-validate every candidate, and fit the best one to all data.

        Args:
            model: a classifier of scikit-learn's kind, e.g. `SignalClassifier` or a pipeline; it is left as it is.
            X: samples, `[n, ...]`.
            y: labels, `[n]`.
            param_grid: values by parameter, or several such grids.
            cv: folds: a number >= 2, or a splitter.
            scoring: as scikit-learn's, higher is better; None is the model's own `score`.
            groups: specimen of each sample, `[n]`: none is trained and tested on in the same fold. Without groups each
                sample counts as a specimen of its own, and windows of one recording make the score too good.

        Returns:
            `best_params`, `best_score` (mean over the folds, of the best of `n_candidates`, so a little optimistic),
            `best_estimator` (fitted to all of `X`), `n_candidates`.

        Raises:
            ValueError: a parameter that the model has not, fewer specimens than folds, a fold that splits a specimen,
                lengths that differ, an unknown score; no candidate could be trained, with a cause.
        """
        from sklearn.model_selection import GridSearchCV

        make = partial(GridSearchCV, param_grid=param_grid)
        return self._search(make, model, X, y, names_of(param_grid), cv, scoring, groups)

    def plot_grid_results(self, param1: str, param2: str) -> Figure:
        """The best score at each pair of values of two parameters.

        Args:
            param1: from left to right.
            param2: from bottom to top.

        Raises:
            NotFittedError: `search` comes first (a `ValueError`).
            ValueError: there is no such parameter, or the two are one.
        """
        return plot_heatmap(self.get_results(), param1, param2, self._score_label)


def get_default_param_grid(model_name: str) -> dict[str, list[Any]]:
    """A grid of at most 100 candidates that is worth its time.

    Args:
        model_name: `'RandomForest'`, `'SVM'`, `'GradientBoosting'`, `'MLP'`, or a network of the registry.

    Returns:
        Values by parameter of `search_spaces.new_model(model_name)`.

    Raises:
        ValueError: there is no such preset; the known ones are listed.

    Example:
        >>> get_default_param_grid("RandomForest")["n_estimators"]
        [100, 400]
    """
    return preset_grid(model_name)
