"""Trials grouped by candidate: attempts, retries, and which trial counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whirl.tuning.storage import import_optuna, retry

if TYPE_CHECKING:
    import optuna

MAX_ATTEMPTS = 3
_TYPES = {"worker": dict, "attempt": int, "retry_of": int, "failure": str}


def candidates(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the last trial of each candidate, in order, including trials that are running or waiting for a retry."""
    return [attempts[-1] for attempts in attempts_by_candidate(list_trials(study))]


def best_trial(trials: list[optuna.trial.FrozenTrial]) -> optuna.trial.FrozenTrial:
    """Return the trial with the highest score; of equal scores, the first.

    Raises:
        ValueError: no trial has a score; the message names the cause of the first failure.
    """
    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if scored:
        return max(scored, key=lambda trial: trial.value or 0.0)
    if not trials:
        raise ValueError("the study has no candidate yet")
    first = trials[0]
    cause = first.user_attrs.get("failure", f"its worker died {MAX_ATTEMPTS} times")
    raise ValueError(f"none of {len(trials)} candidates has a score; the first, {first.params}, failed: {cause}")


def enqueue_first(study: optuna.Study, params: Mapping[str, Any]) -> None:
    """Let a study try a candidate before others are drawn; only once if several workers or calls do so.

    Example:
        >>> study = import_optuna().create_study()
        >>> for _ in range(2):
        ...     enqueue_first(study, {"lr": 0.1})
        >>> len(candidates(study))
        1
    """
    retry(lambda: study.enqueue_trial(dict(params), user_attrs={"initial": dict(params)}, skip_if_exists=True))


def list_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return all intact trials of the study, retrying while the storage is unavailable."""
    n_scores = len(study.directions)
    return [trial for trial in retry(lambda: study.get_trials(deepcopy=False)) if is_intact(trial, n_scores)]


def is_intact(trial: optuna.trial.FrozenTrial, n_scores: int = 1) -> bool:
    """Return whether the scores and the attributes of a trial have the types that a search writes.

    Example:
        >>> optuna = import_optuna()
        >>> [is_intact(optuna.create_trial(value=1.0, user_attrs={"attempt": number})) for number in (1, "one")]
        [True, False]
    """
    attributes = {"worker": {}, "attempt": 1, "retry_of": 0, "failure": ""} | trial.user_attrs
    has_types = all(isinstance(attributes[name], kind) for name, kind in _TYPES.items())
    if not has_types or (attributes["worker"] and not {"pid", "host"} <= attributes["worker"].keys()):
        return False
    return trial.state.name != "COMPLETE" or (
        len(trial.values) == n_scores
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in trial.values)
    )


def attempts_by_candidate(trials: list[optuna.trial.FrozenTrial]) -> list[list[optuna.trial.FrozenTrial]]:
    """Group trials by candidate, each group from the first attempt to the last.

    If two workers queued a retry or the same initial candidate at the same time, only the earlier trial counts.
    """
    kept = _without_repeated_initial([trial for trial in trials if "cancelled" not in trial.user_attrs])
    retries: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in kept:
        if "retry_of" in trial.user_attrs:
            retries.setdefault(trial.user_attrs["retry_of"], trial)
    groups = [[trial] for trial in kept if "retry_of" not in trial.user_attrs]
    for attempts in groups:
        while (retried := retries.get(attempts[-1].number)) is not None:
            attempts.append(retried)
    return groups


def _without_repeated_initial(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    initial = [trial.user_attrs.get("initial") for trial in trials]
    return [trial for i, trial in enumerate(trials) if initial[i] is None or initial[i] not in initial[:i]]


def should_retry(trial: optuna.trial.FrozenTrial) -> bool:
    """Return whether the trial's worker died and the candidate has an attempt left."""
    attributes = trial.user_attrs
    died = trial.state.name == "FAIL" and "failure" not in attributes and "cancelled" not in attributes
    return died and next_attempt(trial) <= MAX_ATTEMPTS


def next_attempt(trial: optuna.trial.FrozenTrial) -> int:
    """Return the attempt number of a retry; a trial that its worker released does not use up an attempt."""
    return trial.user_attrs.get("attempt", 1) + ("released" not in trial.user_attrs)


def retry_of(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """Create a waiting trial with the same parameters.

    If the worker died before all of them were drawn, only those that were enqueued are the same.
    """
    optuna = import_optuna()
    is_drawn = trial.user_attrs.get("worker", {}).get("is_drawn", False)
    return optuna.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=trial.params if is_drawn else {},
        distributions=trial.distributions if is_drawn else {},
        # what `Study.enqueue_trial` stores, until the parameters are drawn
        system_attrs={name: value for name, value in trial.system_attrs.items() if name == "fixed_params"},
        user_attrs={"retry_of": trial.number, "attempt": next_attempt(trial)},
    )


def worker_of(trial: optuna.trial.FrozenTrial) -> str:
    """Format process and host of the trial's worker, for messages."""
    worker = trial.user_attrs.get("worker", {})
    return f"process {worker['pid']} on {worker['host']}" if worker else "unknown process"
