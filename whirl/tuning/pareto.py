"""Search with two objectives: a score against a cost, such as accuracy against latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.tuning.bayesian_optimizer import build_estimator, check_returned, resolved_space
from whirl.tuning.cross_validated_search import check_scorer
from whirl.tuning.plots import plot_pareto
from whirl.tuning.results import results_table
from whirl.tuning.spaces import full_spaces
from whirl.tuning.storage import import_optuna
from whirl.tuning.study import Space, describe_space
from whirl.tuning.worker import CANDIDATE_ERRORS, suggest_params
from whirl.validation import check_count

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure
    from pandas import DataFrame

Cost = Callable[[Any, Any], float]
_LATENCY_REPETITIONS = 5


class ParetoOptimizer:
    """Search for the candidates that no other candidate beats in both a score and a cost.

    Candidates are drawn by a multi-objective sampler of Optuna, by default TPE (Ozaki et al., 2022).

    Args:
        random_state: seed of the search, >= 0, and of every model that has a `random_state`.

    Attributes:
        study: the Optuna study; None before `optimize`.

    Example:
        >>> from optuna.distributions import IntDistribution
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = (X ** 2).sum(1) > 1.5
        >>> optimizer = ParetoOptimizer(random_state=0)
        >>> front = optimizer.optimize(
        ...     DecisionTreeClassifier, X[::2], y[::2], X[1::2], y[1::2], n_trials=12,
        ...     param_space={"max_depth": IntDistribution(1, 6)}, cost=lambda tree, X: tree.tree_.node_count,
        ... )
        >>> bool(front["cost"].is_monotonic_increasing and front["mean_score"].is_monotonic_increasing)
        True
    """

    def __init__(self, random_state: int = 42) -> None:
        self.random_state = check_count("random_state", random_state, 0)
        self.study: optuna.Study | None = None

    def optimize(
        self,
        model_class: Any,
        X_train: Any,
        y_train: Any,
        X_val: Any,
        y_val: Any,
        n_trials: int = 50,
        param_space: Space | None = None,
        *,
        scoring: str | Callable[..., float] | None = None,
        cost: Cost | None = None,
        fixed_params: Mapping[str, Any] | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        timeout_s: float | None = None,
    ) -> DataFrame:
        """Train candidates on the training data, and score them and measure their cost on the validation data.

        Args:
            model_class: see `BayesianOptimizer.optimize`.
            X_train: training samples, `[n, ...]`.
            y_train: training labels, `[n]`.
            X_val: validation samples, `[m, ...]`.
            y_val: validation labels, `[m]`.
            n_trials: number of candidates, >= 1.
            param_space: see `BayesianOptimizer.optimize`.
            scoring: scikit-learn scorer name or function, higher is better; None for the estimator's own `score`.
            cost: function of the trained estimator and `X_val` that returns a number, lower is better; None for
                `latency_s`.
            fixed_params: parameters that are the same for all candidates.
            sampler: multi-objective sampler of Optuna, e.g. `NSGAIISampler`; None for TPE.
            timeout_s: time in seconds after which no further candidate is started; None for no limit.

        Returns:
            The Pareto front, one row per candidate in ascending order of cost, see `get_results`.

        Raises:
            ValueError: an argument is invalid, or no candidate has a score.
            TypeError: a range is not an Optuna distribution.
        """
        optuna = import_optuna()
        self.study = None  # after a failed search there are no results
        check_scorer(scoring)
        model, fixed = model_class, full_spaces(model_class, dict(fixed_params or {}))
        space = resolved_space(model, param_space, fixed)
        describe_space(space)
        measure = latency_s if cost is None else cost

        def objectives(trial: optuna.Trial) -> tuple[float, float]:
            from sklearn.metrics import check_scoring

            params = suggest_params(space, trial)
            if not isinstance(space, Mapping):
                check_returned(model, params, fixed)
            estimator = build_estimator(model, {**fixed, **params}, self.random_state)
            estimator.fit(X_train, y_train)
            scorer: Any = check_scoring(estimator, scoring)
            return float(scorer(estimator, X_val, y_val)), float(measure(estimator, X_val))

        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=sampler or optuna.samplers.TPESampler(seed=self.random_state)
        )
        study.optimize(
            objectives, n_trials=check_count("n_trials", n_trials), timeout=timeout_s, catch=CANDIDATE_ERRORS
        )
        if not study.best_trials:
            raise ValueError(f"none of {len(study.trials)} candidates has a score, see Optuna's warnings")
        self.study = study
        return self.get_front()

    def get_results(self) -> DataFrame:
        """Return a table with one row per candidate.

        The columns are those of `BayesianOptimizer.get_results`, `cost`, and `is_best`, whether the candidate is on the
        Pareto front.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
        """
        if self.study is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("this ParetoOptimizer has no results yet: call optimize(...) first")
        trials = self.study.trials
        best = {trial.number for trial in self.study.best_trials}
        scores, costs = ([trial.values[i] if trial.values else np.nan for trial in trials] for i in (0, 1))
        durations = [np.nan if trial.duration is None else trial.duration.total_seconds() for trial in trials]
        states = [trial.state.name for trial in trials]
        table = results_table([trial.params for trial in trials], scores, [np.nan] * len(trials), durations, states)
        return table.assign(cost=costs, is_best=[trial.number in best for trial in trials])

    def get_front(self) -> DataFrame:
        """Return the candidates of the Pareto front in ascending order of cost; of equal ones the first.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
        """
        results = self.get_results()
        front = results.loc[results["is_best"]].sort_values(by=["cost", "mean_score"], kind="stable")
        return front.drop_duplicates(["cost", "mean_score"])

    def plot_front(self, cost_label: str = "cost") -> Figure:
        """Plot the score of each candidate over its cost, and the Pareto front.

        Args:
            cost_label: axis label of the cost, with its unit if it has one.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
        """
        return plot_pareto(self.get_results(), cost_label)


def latency_s(estimator: Any, X: Any) -> float:
    """Return the time in seconds that an estimator needs to predict one sample: the median of five runs over all.

    Example:
        >>> from sklearn.dummy import DummyClassifier
        >>> latency_s(DummyClassifier().fit([[0]], [0]), np.zeros((100, 1))) > 0
        True
    """
    estimator.predict(X)  # the first call may allocate memory or compile
    times = []
    for _ in range(_LATENCY_REPETITIONS):
        started = time.perf_counter()
        estimator.predict(X)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) / (X.shape[0] if hasattr(X, "shape") else len(X))
