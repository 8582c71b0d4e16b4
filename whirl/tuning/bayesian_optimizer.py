"""Bayesian search: each candidate depends on the scores of earlier ones, and unpromising ones are pruned."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.tuning.attempts import best_trial, enqueue_first
from whirl.tuning.cross_validated_search import check_scorer
from whirl.tuning.groups import check_no_specimen_in_both, specimen_ids
from whirl.tuning.plots import plot_history, plot_importances
from whirl.tuning.results import check_parameter_names, results_table
from whirl.tuning.spaces import full_spaces, preset_of, preset_optuna
from whirl.tuning.study import Space, describe_space, import_optuna, open_study, param_importances
from whirl.tuning.trial import WARM_UP, ReportToTrial, Trial
from whirl.tuning.worker import run_trials, suggest_params
from whirl.validation import check_name, unknown_name, unwrap_scalar

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure
    from pandas import DataFrame


class BayesianOptimizer:
    """Bayesian hyper-parameter search, scored on a validation set.

    Candidates are drawn by TPE, the tree-structured Parzen estimator (Bergstra et al., 2011): parameter values that
    were frequent among good candidates and rare among bad ones are tried more often.

    Args:
        random_state: seed of the search, >= 0, and of every model that has a `random_state`.

    Attributes:
        study: the Optuna study; None before `optimize`, and under `torchrun` on every rank except 0.
        trials: the last trial of each candidate, in order.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from sklearn.linear_model import LogisticRegression
        >>> X = np.linspace(-1, 1, 60)[:, None]
        >>> optimizer = BayesianOptimizer(random_state=0)
        >>> found = optimizer.optimize(
        ...     LogisticRegression, X[::2], X[::2, 0] > 0.2, X[1::2], X[1::2, 0] > 0.2, n_trials=12,
        ...     param_space={"C": FloatDistribution(1e-3, 1e3, log=True)},
        ... )
        >>> found["best_score"], found["n_candidates"], found["best_estimator"].C == found["best_params"]["C"]
        (1.0, 12, True)
    """

    def __init__(self, random_state: int = 42) -> None:
        self.random_state = unwrap_scalar(random_state)
        self.study: optuna.Study | None = None
        self.trials: list[optuna.trial.FrozenTrial] = []
        self._score_label = "score"

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
        fixed_params: Mapping[str, Any] | None = None,
        initial_params: Sequence[Mapping[str, Any]] = (),
        low_cost_params: Mapping[str, Any] | None = None,
        groups_train: Iterable[Any] | None = None,
        groups_val: Iterable[Any] | None = None,
        storage: str | Path | optuna.storages.BaseStorage | None = None,
        study_name: str = "search",
        pruner: str | optuna.pruners.BasePruner | None = "median",
        sampler: optuna.samplers.BaseSampler | None = None,
        warm_up: float = WARM_UP,
        timeout_s: float | None = None,
        patience: int | None = None,
    ) -> dict[str, Any]:
        """Train candidates on the training data and score them on the validation data.

        `SignalClassifier`, and any model with an attribute `reports_epochs = True`, reports its validation accuracy
        after every epoch and can be pruned: `fit` receives `validation_data=(X_val, y_val)` and `callbacks`, a list of
        `whirl.callbacks.Callback`. The `fit` of any other model receives `X_train` and `y_train` only. With a
        `storage`, all processes and machines that make the same call share one search, and an interrupted search is
        resumed by repeating the call, see `worker.run_trials`.

        Args:
            model_class: class or function that is called with the parameters and returns an estimator; or an estimator,
                which is cloned before its parameters are set, so that names such as `svc__C` work for a pipeline.
            X_train: training samples, `[n, ...]`.
            y_train: training labels, `[n]`.
            X_val: validation samples, `[m, ...]`.
            y_val: validation labels, `[m]`.
            n_trials: total number of candidates, >= 1.
            param_space: `{name: Optuna distribution}`, or a function of an Optuna trial, see `worker.run_trials`; None
                for the preset of the model, see `get_model_search_space`. In a pipeline, parameters of the last step
                can be named without its prefix.
            scoring: scikit-learn scorer name or function, higher is better; None for the estimator's own `score`, which
                is the accuracy of classifiers.
            fixed_params: parameters that are the same for all candidates.
            initial_params: candidates to try first, e.g. the defaults of the model or the result of an earlier search;
                parameters that they leave out are drawn.
            low_cost_params: parameters of the first ten candidates, at which a training takes the least time, e.g.
                `{"n_estimators": 100}`, see `worker.run_trials`.
            groups_train: specimen of each training sample, `[n]`. If given with `groups_val`, a specimen in both is an
                error.
            groups_val: specimen of each validation sample, `[m]`.
            storage: where the study is stored, see `storage.open_storage`, or a storage of Optuna; None for in memory.
            study_name: name of the study in the storage.
            pruner: `'median'`, `'hyperband'`, a pruner of Optuna, or None.
            sampler: sampler of Optuna; None for TPE, see `worker.run_trials`.
            warm_up: share of the epochs in which no candidate is pruned, in [0, 1], see `ReportToTrial`.
            timeout_s: time in seconds after which no further candidate is started, > 0; None for no limit.
            patience: number of candidates in a row without a better score after which the search ends, >= 1; None for
                no limit.

        Returns:
            `best_params` (the searched parameters), `best_score`, `best_estimator` (trained on `X_train` only),
            `n_candidates`, and how many of these were pruned or failed: `n_pruned` and `n_failed`.

        Raises:
            ValueError: the estimator does not have a parameter, or it is both fixed and searched; a specimen is in both
                training and validation data; the study was created with other data or settings; no candidate has a
                score.
            TypeError: a range is not an Optuna distribution, or a function returns a name that is no parameter.
            OSError: the storage cannot be used.
        """
        self.study, self.trials = None, []  # after a failed search there are no results
        check_sample_groups(groups_train, y_train, groups_val, y_val)
        check_scorer(scoring)
        fixed = full_spaces(model_class, dict(fixed_params or {}))
        space = resolved_space(model_class, param_space, fixed)
        data = (X_train, y_train, X_val, y_val)
        search = _Search(model_class, data, space, scoring, fixed, self.random_state, warm_up)
        self._score_label = scoring if isinstance(scoring, str) else "score"
        fingerprint = {} if storage is None else {"space": describe_space(space), **search.describe()}
        self.study = open_study(
            storage, study_name, pruner=pruner, sampler=sampler, seed=self.random_state, fingerprint=fingerprint
        )
        _enqueue(self.study, [full_spaces(model_class, params) for params in initial_params], space)
        low_cost = full_spaces(model_class, dict(low_cost_params or {}))
        limits = {"timeout_s": timeout_s, "patience": patience}
        self.trials = run_trials(self.study, space, search.score, n_trials, low_cost_params=low_cost, **limits)
        best = best_trial(self.trials)
        states = [trial.state.name for trial in self.trials]
        return {
            "best_params": dict(best.params),
            "best_score": best.value,
            "best_estimator": search.estimator(best.number, dict(best.params)),
            "n_candidates": len(self.trials),
            "n_pruned": states.count("PRUNED"),
            "n_failed": states.count("FAIL"),
        }

    def get_results(self) -> DataFrame:
        """Return a table with one row per candidate.

        A candidate that was pruned or failed has no score; see the column `state`.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
        """
        trials = self._searched()
        return results_table(
            [trial.params for trial in trials],
            [np.nan if trial.value is None or trial.state.name == "PRUNED" else trial.value for trial in trials],
            [np.nan] * len(trials),
            [np.nan if trial.duration is None else trial.duration.total_seconds() for trial in trials],
            [trial.state.name for trial in trials],
        )

    def plot_optimization_history(self) -> Figure:
        """Plot the score of each candidate in order, and the best score so far.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
        """
        return plot_history(self.get_results(), self._score_label)

    def get_param_importances(self) -> dict[str, float]:
        """Return the share of the score's variance that each parameter explains, 0 to 1, in descending order.

        Computed by functional analysis of variance over a random forest (Hutter et al., 2014) from the candidates that
        have a score.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
            ValueError: fewer than two candidates have a score, or all scores are equal.
        """
        return param_importances(self._searched(), self.random_state)

    def plot_param_importances(self) -> Figure:
        """Plot the importance of each parameter, see `get_param_importances`.

        Raises:
            NotFittedError: `optimize` was not called before (a `ValueError`).
            ValueError: fewer than two candidates have a score, or all scores are equal.
        """
        return plot_importances(self.get_param_importances())

    def _searched(self) -> list[optuna.trial.FrozenTrial]:
        if not self.trials:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("this BayesianOptimizer has no results yet: call optimize(...) first")
        return self.trials


class _Search:
    """The objective of a search: how a candidate is trained and scored, and the best estimator so far."""

    def __init__(
        self,
        model: Any,
        data: tuple[Any, Any, Any, Any],
        space: Space,
        scoring: Any,
        fixed: dict[str, Any],
        seed: int,
        warm_up: float = WARM_UP,
    ) -> None:
        self.model, self.space, self.scoring, self.fixed, self.seed = model, space, scoring, fixed, seed
        self.warm_up = warm_up
        self.X_train, self.y_train, self.X_val, self.y_val = data
        self._best: tuple[float, int, Any] | None = None

    def score(self, trial: Trial) -> float:
        """Return the score of a candidate, after training it."""
        from sklearn.metrics import check_scoring

        estimator = self._fitted(trial.params, [ReportToTrial(trial, warm_up=self.warm_up)])
        if trial.is_pruned:
            return np.nan
        scorer: Any = check_scoring(estimator, self.scoring)
        score = float(scorer(estimator, self.X_val, self.y_val))
        if math.isfinite(score) and (self._best is None or (score, -trial.number) > self._best[:2]):
            self._best = score, -trial.number, estimator
        return score

    def estimator(self, number: int, params: dict[str, Any]) -> Any:
        """Return the trained estimator of a trial.

        If another worker trained it, it is trained again here, with the same result by the same seed.

        Args:
            number: number of the trial.
            params: parameters as Optuna suggested them; a space that is a function maps them to the model's.
        """
        if self._best is not None and self._best[1] == -number:
            return self._best[2]
        return self._fitted(suggest_params(self.space, import_optuna().trial.FixedTrial(params)), [])

    def describe(self) -> dict[str, Any]:
        """Return what must be equal for scores to be comparable, as plain data."""
        is_estimator = _is_estimator(self.model)
        settings = {name: _text(value) for name, value in self.model.get_params().items()} if is_estimator else {}
        model = {"class": type(self.model).__name__} | settings if is_estimator else _text(self.model)
        parts = {"X_train": self.X_train, "y_train": self.y_train, "X_val": self.X_val, "y_val": self.y_val}
        data = {part: _digest(values) for part, values in parts.items()}
        fixed = {key: _text(value) for key, value in self.fixed.items()}
        return {"model": model, "fixed_params": fixed, "scoring": _text(self.scoring), "data": data}

    def _fitted(self, params: dict[str, Any], callbacks: list[Any]) -> Any:
        if not isinstance(self.space, Mapping):
            check_returned(self.model, params, self.fixed)
        estimator = build_estimator(self.model, {**self.fixed, **params}, self.seed)
        options: dict[str, Any] = {}
        if getattr(estimator, "reports_epochs", False) is True:  # the callbacks of other libraries have other protocols
            options = {"validation_data": (self.X_val, self.y_val), "callbacks": callbacks}
        estimator.fit(self.X_train, self.y_train, **options)
        return estimator


def build_estimator(model: Any, params: dict[str, Any], seed: int) -> Any:
    """Create an unfitted estimator in which every `random_state` that is unset is the seed."""
    if _is_estimator(model):
        from sklearn.base import clone

        estimator: Any = clone(model)
        estimator.set_params(**params)
    else:
        takes_seed = "random_state" in inspect.signature(model).parameters and "random_state" not in params
        estimator = model(**params, **({"random_state": seed} if takes_seed else {}))
    settings = estimator.get_params() if hasattr(estimator, "get_params") else {}
    unset = [name for name, value in settings.items() if name.split("__")[-1] == "random_state" and value is None]
    return estimator.set_params(**dict.fromkeys(unset, seed)) if unset else estimator


def _is_estimator(model: Any) -> bool:
    return hasattr(model, "set_params") and not isinstance(model, type)


def resolved_space(model: Any, space: Space | None, fixed: Mapping[str, Any]) -> Space:
    """Return the preset of the model for None, and distributions with the names that a pipeline has for them."""
    if space is None:
        space = preset_optuna(preset_of(model))
    if not isinstance(space, Mapping):
        return space
    distributions = full_spaces(model, space)
    check_parameter_names(distributions)
    _check_parameters(model, distributions, fixed)
    return distributions


def _enqueue(study: optuna.Study | None, candidates: list[dict[str, Any]], space: Space) -> None:
    """Let a study try candidates first; does nothing on every rank except 0."""
    searched = list(space) if isinstance(space, Mapping) else None
    for params in candidates:
        for name in params if searched is not None else ():
            check_name("searched parameter", name, searched or ())
        if study is not None:
            enqueue_first(study, params)


def check_returned(model: Any, params: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise `TypeError`, which ends the search, if a space function returned a name that is no parameter."""
    try:
        _check_parameters(model, params, fixed)
    except ValueError as error:
        raise TypeError(f"param_space returned {dict(params)}: {error}") from error


def _check_parameters(model: Any, space: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise if the model lacks a parameter; a function with `**kwargs` accepts any."""
    if both := sorted(set(space) & set(fixed)):
        raise ValueError(f"parameter {both[0]!r} is in both fixed_params and param_space")
    if _is_estimator(model):
        known = list(model.get_params())
    else:
        arguments = inspect.signature(model).parameters.values()
        if any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
            return
        known = [argument.name for argument in arguments]
    name = getattr(model, "__name__", type(model).__name__)
    for parameter in (*space, *fixed):
        if parameter not in known:
            raise ValueError(unknown_name(f"{name} parameter", parameter, known))


def check_sample_groups(
    groups_train: Iterable[Any] | None, y_train: Any, groups_val: Iterable[Any] | None, y_val: Any
) -> None:
    """Validate the specimens of training and validation samples, see `groups`.

    Raises:
        ValueError: their number is not that of the labels, one is missing, or one is in both parts.
    """
    train, val = (None if groups is None else list(groups) for groups in (groups_train, groups_val))
    for name, groups, labels in (("groups_train", train, y_train), ("groups_val", val, y_val)):
        if groups is not None:
            specimen_ids(name, groups, len(labels))
    check_no_specimen_in_both(train, val)


def _text(value: Any) -> str:
    """Format a value the same way in every process, without its memory address."""
    return getattr(value, "__qualname__", None) or re.sub(" at 0x[0-9a-fA-F]+", "", " ".join(str(value).split()))


def _digest(values: Any) -> str:
    """Return shape and content hash of an array, dense or sparse."""
    if hasattr(values, "tocsr"):
        values = values.tocsr()
        parts = [values.indptr, values.indices, values.data]
    else:
        parts = [values := np.asarray(values)]
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(_bytes_of(part))
    return f"{list(values.shape)} {digest.hexdigest()}"


def _bytes_of(array: np.ndarray) -> bytes | memoryview:
    """Return the content of an array, without a copy if it is contiguous."""
    if array.dtype == object:
        return json.dumps(array.tolist(), default=str).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def get_model_search_space(model_name: str) -> dict[str, Any]:
    """Return the recommended search space of a model.

    Args:
        model_name: `'RandomForest'`, `'SVM'`, `'GradientBoosting'`, `'MLP'`, or a network of the registry.

    Returns:
        `{parameter: Optuna distribution}`, for the estimator itself; in `BayesianOptimizer` also for a pipeline that
        ends with it.

    Raises:
        ValueError: there is no such preset; the message lists the known ones.
        ImportError: Optuna is not installed.

    Example:
        >>> get_model_search_space("wdcnn")["lr"].log
        True
    """
    return preset_optuna(model_name)
