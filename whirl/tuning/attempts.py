"""The trials of each candidate: attempts, retries, and which of them counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whirl.tuning.storage import import_optuna, retry

if TYPE_CHECKING:
    import optuna

MAX_ATTEMPTS = 3


def candidates(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The last trial of each candidate, in their order; also of those that run, or wait to be run again."""
    return [lineage[-1] for lineage in attempts_by_candidate(list_trials(study))]


def best_trial(trials: list[optuna.trial.FrozenTrial]) -> optuna.trial.FrozenTrial:
    """The one with the highest score, the first of equals.

    Raises:
        ValueError: none has a score; with the first one's cause.
    """
    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if scored:
        return max(scored, key=lambda trial: trial.value or 0.0)
    if not trials:
        raise ValueError("the study has no candidate yet")
    first = trials[0]
    cause = first.user_attrs.get("failure", f"its worker died {MAX_ATTEMPTS} times")
    raise ValueError(f"none of {len(trials)} candidates has a score; the first, {first.params}, failed: {cause}")


def list_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """All trials of the study."""
    return retry(lambda: study.get_trials(deepcopy=False))


def attempts_by_candidate(trials: list[optuna.trial.FrozenTrial]) -> list[list[optuna.trial.FrozenTrial]]:
    """The trials of each candidate, first to last; of two successors of one trial the earlier counts."""
    kept = [trial for trial in trials if "cancelled" not in trial.user_attrs]
    successors: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in kept:
        if "retry_of" in trial.user_attrs:
            successors.setdefault(trial.user_attrs["retry_of"], trial)
    lineages = [[trial] for trial in kept if "retry_of" not in trial.user_attrs]
    for lineage in lineages:
        while (successor := successors.get(lineage[-1].number)) is not None:
            lineage.append(successor)
    return lineages


def is_to_retry(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether its worker died and it has an attempt left."""
    attributes = trial.user_attrs
    died = trial.state.name == "FAIL" and "failure" not in attributes and "cancelled" not in attributes
    return died and next_attempt(trial) <= MAX_ATTEMPTS


def next_attempt(trial: optuna.trial.FrozenTrial) -> int:
    """Number of the attempt that a retry would be; a trial that its worker released costs none."""
    return trial.user_attrs.get("attempt", 1) + ("released" not in trial.user_attrs)


def retry_of(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """With the same parameters, or none where the worker died before it had drawn them all."""
    optuna = import_optuna()
    is_drawn = trial.user_attrs.get("worker", {}).get("is_drawn", False)
    return optuna.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=trial.params if is_drawn else {},
        distributions=trial.distributions if is_drawn else {},
        user_attrs={"retry_of": trial.number, "attempt": next_attempt(trial)},
    )


def worker_of(trial: optuna.trial.FrozenTrial) -> str:
    """Process and host of the trial's worker, for messages."""
    worker = trial.user_attrs.get("worker", {})
    return f"process {worker['pid']} on {worker['host']}" if worker else "it died before it said who it was"
