"""A worker of a study: it claims trials, runs them, and requeues those whose worker died.

Attributes of a trial: `worker` (which process runs it, and a `heartbeat` that it increments), `failure` (why the
candidate has no score), `retry_of` and `attempt`, `cancelled` (one trial too many, never run), `released`.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from whirl.engine.distributed import broadcast_from_rank0, gather
from whirl.tuning.attempts import (
    attempts_by_candidate,
    best_trial,
    candidates,
    list_trials,
    retry_of,
    should_retry,
    worker_of,
)
from whirl.tuning.limits import Limits
from whirl.tuning.process import has_exited, this_process
from whirl.tuning.storage import import_optuna, retry, storage_errors
from whirl.tuning.study import Space, describe_space
from whirl.tuning.trial import Outcome, Trial
from whirl.validation import check_count, check_name

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

CANDIDATE_ERRORS = (ValueError, ArithmeticError, MemoryError, torch.OutOfMemoryError)
"""Errors that the parameters of a candidate may cause; any other error ends the worker, and the trial is retried."""
RELEASE_TIMEOUT_S = 5.0
POLL_S = 0.5
N_STARTUP = 10

_ended_claims: set[str] = set()  # claims of this process whose trials it no longer runs


def run_trials(
    study: optuna.Study | None,
    space: Space,
    objective: Callable[[Trial], float],
    n_trials: int,
    *,
    timeout_s: float | None = None,
    patience: int | None = None,
    low_cost_params: Mapping[str, Any] | None = None,
    heartbeat_s: float = 5.0,
    grace_s: float = 60.0,
) -> list[optuna.trial.FrozenTrial]:
    """Run trials until the study has `n_trials` candidates, in parallel with all workers that make the same call.

    Candidates are drawn by the sampler of `open_study`, or by TPE (Bergstra et al., 2011), the first ten at random,
    with a generator that depends only on the study's seed and the index of the candidate. A single worker that is
    killed and restarted therefore draws the same candidates as one that was not, except under Hyperband, whose brackets
    depend on trial numbers. Several workers take each other's running candidates into account.

    A worker increments the heartbeat of its trial. It counts as dead if its process has exited on this machine, or if
    the heartbeat has not changed for `grace_s` on the clock of the worker that checks it. Its trial is then marked as
    failed and retried with the same parameters, at most three attempts in total. The first update wins: a worker whose
    trial was reclaimed drops its result. A candidate that raises `ValueError`, `ArithmeticError` or `MemoryError`, or
    whose score is not finite, counts as failed, and the search continues. On any other error, Ctrl-C or SIGTERM, the
    trial is released for a retry, and the error is raised.

    Args:
        study: study from `open_study`; None on every rank except 0.
        space: `{name: Optuna distribution}`; or a function of an Optuna trial that suggests parameters and returns
            them, or returns None to use all suggested ones.
        objective: function of a `Trial` that returns its score, higher is better. Under `torchrun` it is called on
            every rank, and the score of rank 0 counts. The trial is pruned if it raises `optuna.TrialPruned`, or if a
            `ReportToTrial` stopped its training.
        n_trials: total number of candidates, >= 1, including those of earlier calls and of other workers.
        timeout_s: time in seconds after which this worker starts no further candidate, > 0; None for no limit.
        patience: number of candidates in a row without a better score after which no worker starts another one, >= 1;
            None for no limit. `study.stop()` ends the search in the same way.
        low_cost_params: parameters of the first ten candidates, the others of which are drawn at random: the values at
            which a training takes the least time, such as the smallest number of trees. The search then learns cheaply
            what the other parameters do (Wu et al., 2021, "Frugal Optimization for Cost-related Hyperparameters").
            Unused with a sampler of your own.
        heartbeat_s: interval between two heartbeats, in seconds, > 0.
        grace_s: time without a heartbeat after which a worker counts as dead, in seconds, > `heartbeat_s`.

    Returns:
        The last trial of each candidate, in order, on every rank; fewer than `n_trials` if the search was stopped.

    Raises:
        ValueError: an argument is out of range, or a low-cost parameter outside of the space; no candidate has a score
            (the message names the first cause).
        OSError: the storage was unavailable for 60 s; the message contains a score that could not be stored.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from whirl.tuning.study import open_study
        >>> study = open_study(None)
        >>> trials = run_trials(study, {"x": FloatDistribution(-1, 1)}, lambda trial: -trial.params["x"] ** 2, 20)
        >>> len(trials), round(best_trial(trials).value, 1) + 0.0
        (20, 0.0)
    """
    n_trials = check_count("n_trials", n_trials)
    if not 0 < heartbeat_s < grace_s:
        raise ValueError(
            f"heartbeat_s is {heartbeat_s:g} and grace_s is {grace_s:g}, expected 0 < heartbeat_s < grace_s"
        )
    low_cost = dict(low_cost_params or {})
    if isinstance(space, Mapping):
        describe_space(space)
        _check_low_cost(low_cost, space)
    limits = Limits(timeout_s, patience)
    worker = None if study is None else _Worker(study, space, n_trials, limits, heartbeat_s, grace_s, low_cost)
    with _exit_on_sigterm(), _stoppable(study, limits):
        # Rank 0 decides; the others receive a trial, {} to wait, or None at the end.
        while (task := broadcast_from_rank0(worker.next_task() if worker else None)) is not None:
            if not task:
                time.sleep(min(POLL_S, heartbeat_s))
            elif worker:
                worker.run(objective)
            else:
                gather(_evaluate(objective, Trial(**task)))
    trials = broadcast_from_rank0(candidates(study) if study is not None else [])[:n_trials]
    trials = [trial for trial in trials if trial.state.name != "WAITING"]  # of a search that was stopped
    best_trial(trials)
    return trials


@contextmanager
def _stoppable(study: Any, limits: Limits) -> Iterator[None]:
    """Make `study.stop()` end the search while the block runs; Optuna supports it in `study.optimize` only."""
    if study is not None:
        study.stop = limits.stop
    try:
        yield
    finally:
        if study is not None:
            del study.stop


class _Worker:
    """The state of one process that works on a study."""

    def __init__(
        self,
        study: Any,
        space: Space,
        n_trials: int,
        limits: Limits,
        heartbeat_s: float,
        grace_s: float,
        low_cost: dict[str, Any],
    ) -> None:
        self.study, self.space, self.n_trials, self.limits = study, space, n_trials, limits
        self.heartbeat_s, self.low_cost = heartbeat_s, low_cost
        settings = study.user_attrs.get("settings", {})
        self.seed, self.has_own_sampler = settings.get("seed", 0), "sampler" in settings
        self.monitor = _LivenessMonitor(grace_s)
        self.trial: Trial | None = None
        self.claim = ""

    def next_task(self) -> dict[str, Any] | None:
        """Claim a trial.

        Returns:
            Number and parameters of the trial; an empty dict while other workers run the last ones; None at the end.
        """
        self._requeue_dead_trials()
        groups = attempts_by_candidate(list_trials(self.study))
        finished = [attempts[-1] for attempts in groups if attempts[-1].state.is_finished()]
        if self.limits.are_reached([math.nan if trial.value is None else trial.value for trial in finished]):
            return None
        states = [attempts[-1].state.name for attempts in groups[: self.n_trials]]
        if len(groups) >= self.n_trials and "WAITING" not in states:
            return {} if "RUNNING" in states else None
        handle = retry(self.study.ask)
        try:
            return self._claim(handle)
        except import_optuna().exceptions.UpdateFinishedTrialError:
            logger.warning("trial %d was reclaimed as stale before it started", handle.number)
            return {}
        except BaseException as error:
            _ended_claims.add(self.claim)
            self._release(handle, error)
            raise

    def run(self, objective: Callable[[Trial], float]) -> None:
        """Run the claimed trial and store its result."""
        trial = self.trial
        assert trial is not None
        outcome = None
        try:
            with self._heartbeat(trial):
                outcomes = gather(_evaluate(objective, trial))
                outcome = next((other for other in outcomes if other.failure is not None), outcomes[0])
                if not self._tell(trial, outcome):
                    logger.warning("trial %d was reclaimed as stale: its result is dropped", trial.number)
        except BaseException as error:
            self._release(trial.handle, error, outcome)
            raise
        finally:
            _ended_claims.add(self.claim)

    def _requeue_dead_trials(self) -> None:
        """Fail the trials of dead workers and queue their retries, also those that a killed worker did not queue."""
        for trial in list_trials(self.study):
            if self.monitor.is_dead(trial) and _finish(self.study, trial.number, "FAIL"):
                logger.warning("the worker of trial %d is dead (%s)", trial.number, worker_of(trial))
        trials = list_trials(self.study)
        retried = {trial.user_attrs.get("retry_of") for trial in trials if "cancelled" not in trial.user_attrs}
        for trial in trials:
            if trial.number not in retried and should_retry(trial):
                retry(lambda trial=trial: self.study.add_trial(retry_of(trial)))

    def _claim(self, handle: Any) -> dict[str, Any]:
        """Mark a trial as run by this worker and draw its parameters, or cancel it if it is one too many."""
        groups = enumerate(attempts_by_candidate(list_trials(self.study)))
        index = next((i for i, attempts in groups if handle.number in [trial.number for trial in attempts]), None)
        if index is None or index >= self.n_trials:
            self._set(handle, "cancelled", True)
            _finish(self.study, handle.number, "FAIL")
            return {}
        self.claim = uuid.uuid4().hex
        owner = this_process() | {"host": socket.gethostname(), "claim": self.claim, "heartbeat": 0, "is_drawn": False}
        self._set(handle, "worker", owner)
        if not self.has_own_sampler:
            self.study.sampler = _new_sampler(self.seed, index, self.low_cost)
        self.trial = Trial(handle.number, retry(lambda: suggest_params(self.space, handle)), handle)
        self._set(handle, "worker", owner | {"is_drawn": True})
        return {"number": self.trial.number, "params": self.trial.params}

    @contextmanager
    def _heartbeat(self, trial: Trial) -> Iterator[None]:
        """Increment the heartbeat of a trial in a thread while the block runs."""
        handle, done = trial.handle, threading.Event()
        assert handle is not None
        owner = handle.user_attrs["worker"]

        def beat() -> None:
            count = 0
            while not done.wait(self.heartbeat_s):
                count += 1
                try:
                    handle.set_user_attr("worker", owner | {"heartbeat": count})
                except import_optuna().exceptions.UpdateFinishedTrialError:
                    trial.is_lost = True
                    return
                except storage_errors() as error:
                    logger.warning("heartbeat of trial %d failed: %s", trial.number, error)

        thread = threading.Thread(target=beat, name=f"heartbeat of trial {trial.number}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _tell(self, trial: Trial, outcome: Outcome) -> bool:
        """Store a result in the study, and return whether it was accepted.

        Raises:
            OSError: a score could not be stored; the message contains it.
        """
        if outcome.score is not None:
            try:
                return _finish(self.study, trial.number, "COMPLETE", outcome.score)
            except OSError as error:
                raise OSError(
                    f"the score {outcome.score!r} of trial {trial.number}, {trial.params}, was not stored: {error}"
                ) from error
        if outcome.failure is None:
            return _finish(self.study, trial.number, "PRUNED")
        logger.warning("trial %d, %s, failed: %s", trial.number, trial.params, outcome.failure)
        try:
            self._set(trial.handle, "failure", outcome.failure)
        except import_optuna().exceptions.UpdateFinishedTrialError:
            return False
        return _finish(self.study, trial.number, "FAIL")

    def _release(self, handle: Any, error: BaseException, outcome: Outcome | None = None) -> None:
        """Release a trial after an error, so that it is retried by another worker or after a restart.

        A score that was already computed when the error, such as a signal, occurred is stored. Failures in here are
        logged, so that they do not replace `error`.
        """
        score = None if outcome is None else outcome.score
        try:
            if score is not None and _finish(self.study, handle.number, "COMPLETE", score, timeout_s=RELEASE_TIMEOUT_S):
                return
            if not isinstance(error, Exception):  # interrupted, not caused by the candidate
                self._set(handle, "released", True, timeout_s=RELEASE_TIMEOUT_S)
            if _finish(self.study, handle.number, "FAIL", timeout_s=RELEASE_TIMEOUT_S):
                self._requeue_dead_trials()
                cause = type(error).__name__
                logger.warning(
                    "trial %d was released (%s); it will be retried by the next worker", handle.number, cause
                )
        except import_optuna().exceptions.UpdateFinishedTrialError:
            logger.debug("trial %d was already finished", handle.number)
        except Exception as failure:
            logger.warning("trial %d could not be released, it will be reclaimed as stale: %s", handle.number, failure)

    @staticmethod
    def _set(handle: Any, name: str, value: Any, timeout_s: float | None = None) -> None:
        retry(lambda: handle.set_user_attr(name, value), timeout_s)


class _LivenessMonitor:
    """Detects trials of dead workers by their heartbeats, using only the clock of this process."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._seen: dict[int, tuple[Any, float]] = {}

    def is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Return whether the worker of a running trial has exited or has sent no heartbeat for `grace_s`."""
        if trial.state.name != "RUNNING":
            self._seen.pop(trial.number, None)
            return False
        worker, now = trial.user_attrs.get("worker", {}), time.monotonic()
        if worker and (has_exited(worker) or _is_abandoned(worker)):
            return True
        seen, since = self._seen.setdefault(trial.number, (worker, now))
        if seen != worker:
            self._seen[trial.number] = worker, now
            return False
        return now - since > self.grace_s


def _is_abandoned(worker: Mapping[str, Any]) -> bool:
    """Return whether this process claimed the trial but no longer runs it, e.g. after the storage failed."""
    return worker.get("claim") in _ended_claims


def _check_low_cost(low_cost: Mapping[str, Any], space: Mapping[str, Any]) -> None:
    """Raise unless every low-cost parameter is in the space, and its value in the range."""
    for name, value in low_cost.items():
        check_name("searched parameter", name, space)
        choices = getattr(space[name], "choices", None)
        if value not in choices if choices is not None else not space[name].low <= value <= space[name].high:
            raise ValueError(f"low_cost_params has {name}={value!r}, expected a value of {space[name]}")


def _new_sampler(seed: int, index: int, low_cost: dict[str, Any]) -> Any:
    """Create the sampler of the candidate with the given index."""
    import numpy as np

    state = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    samplers = import_optuna().samplers
    sampler = samplers.TPESampler(seed=state, n_startup_trials=N_STARTUP)
    if not low_cost or index >= N_STARTUP:
        return sampler
    with warnings.catch_warnings(action="ignore", category=import_optuna().exceptions.ExperimentalWarning):
        return samplers.PartialFixedSampler(low_cost, sampler)


def suggest_params(space: Space, handle: Any) -> dict[str, Any]:
    """Draw the parameters of an Optuna trial from a space.

    Args:
        space: distributions by name, or a function of the trial; if that returns None, all parameters that it suggested
            are returned.
        handle: Optuna trial.
    """
    if not isinstance(space, Mapping):
        params = space(handle)
        if params is not None and not isinstance(params, Mapping):
            raise TypeError(f"the search space returned {params!r}, expected a dict of parameters, or None")
        return dict(handle.params if params is None else params)
    return {name: _suggest(handle, name, distribution) for name, distribution in space.items()}


def _suggest(handle: Any, name: str, distribution: Any) -> Any:
    kinds = import_optuna().distributions
    if isinstance(distribution, kinds.CategoricalDistribution):
        return handle.suggest_categorical(name, distribution.choices)
    suggest = handle.suggest_int if isinstance(distribution, kinds.IntDistribution) else handle.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _evaluate(objective: Callable[[Trial], float], trial: Trial) -> Outcome:
    """Call the objective and return its outcome.

    Raises:
        KeyboardInterrupt: Ctrl-C interrupted the training.
        SystemExit: SIGTERM interrupted the training.
        Exception: any error that is not in `CANDIDATE_ERRORS`.
    """
    try:
        score = float(objective(trial))
        outcome = Outcome(score) if math.isfinite(score) else Outcome(failure=f"its score is {score}")
    except import_optuna().TrialPruned:
        outcome = Outcome()
    except CANDIDATE_ERRORS as error:
        outcome = Outcome(failure=f"{type(error).__name__}: {error}")
    if trial.interrupted_by is not None:
        raise KeyboardInterrupt if trial.interrupted_by == signal.SIGINT else SystemExit(128 + trial.interrupted_by)
    return Outcome() if trial.is_pruned else outcome


def _finish(
    study: optuna.Study, number: int, state: str, score: float | None = None, timeout_s: float | None = None
) -> bool:
    """Set the final state of a trial, and return whether it has that state now; the first update wins."""
    optuna = import_optuna()
    target = optuna.trial.TrialState[state]
    try:
        trial = retry(lambda: study.tell(number, score, state=target, skip_if_finished=True), timeout_s)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    return trial.state == target


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Raise `SystemExit` on SIGTERM while the block runs; does nothing outside the main thread."""
    can_handle = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if not can_handle:
        yield
        return

    def exit_process(signum: int, frame: Any) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, exit_process)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
