"""Grid and random search of scikit-learn that can end early."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler, RandomizedSearchCV

from whirl.tuning.limits import Limits


class LimitedGridSearch(GridSearchCV):
    """`GridSearchCV` with limits.

    Attributes:
        limits: when to end early. None means never: candidates are then evaluated in parallel.
    """

    limits: Limits | None = None

    def _run_search(self, evaluate_candidates: Callable[[Iterable[Any]], Any]) -> None:
        _evaluate(self, ParameterGrid(self.param_grid), evaluate_candidates)


class LimitedRandomSearch(RandomizedSearchCV):
    """`RandomizedSearchCV` with limits.

    Attributes:
        limits: see `LimitedGridSearch`.
    """

    limits: Limits | None = None

    def _run_search(self, evaluate_candidates: Callable[[Iterable[Any]], Any]) -> None:
        sampler = ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state)
        _evaluate(self, sampler, evaluate_candidates)


def _evaluate(search: Any, candidates: Iterable[Any], evaluate_candidates: Callable[[Iterable[Any]], Any]) -> None:
    """Evaluate all candidates at once, or one after the other while there are limits."""
    if search.limits is None:
        evaluate_candidates(candidates)
        return
    metric = search.refit if isinstance(search.refit, str) else "score"
    for candidate in candidates:
        results = evaluate_candidates([candidate])  # of all candidates so far
        if search.limits.are_reached(results[f"mean_test_{metric}"].tolist()):
            return
