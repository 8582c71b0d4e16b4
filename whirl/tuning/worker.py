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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from whirl.engine.distributed import broadcast_from_rank0, gather
from whirl.tuning.attempts import (
    attempts_by_candidate,
    best_trial,
    candidates,
    is_to_retry,
    list_trials,
    retry_of,
    worker_of,
)
from whirl.tuning.process import has_exited, this_process
from whirl.tuning.storage import import_optuna, retry, storage_errors
from whirl.tuning.study import Space, describe_space
from whirl.tuning.trial import Outcome, Trial

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

CANDIDATE_ERRORS = (ValueError, ArithmeticError, MemoryError, torch.OutOfMemoryError)
"""Errors that a candidate's parameters may cause; any other error ends the worker, and the trial is run again."""
RELEASE_TIMEOUT_S = 5.0
POLL_S = 0.5

_ended: set[str] = set()  # claims of this process whose trials it no longer runs


def run_trials(
    study: optuna.Study | None,
    space: Space,
    objective: Callable[[Trial], float],
    n_trials: int,
    *,
    heartbeat_s: float = 5.0,
    grace_s: float = 60.0,
) -> list[optuna.trial.FrozenTrial]:
    """Try candidates until the study has `n_trials` of them, together with all who run the same.

    TPE draws the candidates (Bergstra et al., 2011; ten at random first), from a generator that the study's seed and
    the candidate's place alone set: a single worker that is killed and started again draws what one that was never
    killed draws (under Hyperband, whose brackets go by trial numbers, it does not). Several workers see each other's
    unfinished candidates, and draw elsewhere.

    A worker counts up the beat of its trial. One whose process has ended on this machine, or whose beat has stood still
    for `grace_s` of the watcher's own clock, is dead: the trial is failed, and its parameters are tried again, three
    times in all at most. Whoever comes first decides; a worker that was taken for dead drops its result. A candidate
    that raises `ValueError`, `ArithmeticError` or `MemoryError`, or whose score is not finite, counts as failed; the
    search goes on. Upon any other error, and upon Ctrl-C or SIGTERM, the trial is given back first.

    Args:
        study: from `open_study`; None on all ranks but the first.
        space: `{name: Optuna distribution}`, or a function of an Optuna trial that suggests parameters and returns
            them, or None for all that it suggested.
        objective: of a `Trial`, returns its score, higher is better; under `torchrun` called on every rank, and the
            first one's score counts. `optuna.TrialPruned` from it, or a `ReportToTrial` that ended it, prunes it.
        n_trials: candidates in all, >= 1, those of earlier calls and other workers among them.
        heartbeat_s: time between two beats, in seconds; > 0.
        grace_s: time that a beat may stand still, in seconds; more than `heartbeat_s`.

    Returns:
        The last trial of each candidate, in their order, on every rank.

    Raises:
        ValueError: an argument is out of range; no candidate has a score, with the first one's cause.
        OSError: the storage could not be used for a minute; a score that it did not take is in the message.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from whirl.tuning.study import open_study
        >>> study = open_study(None)
        >>> trials = run_trials(study, {"x": FloatDistribution(-1, 1)}, lambda trial: -trial.params["x"] ** 2, 20)
        >>> len(trials), round(best_trial(trials).value, 1) + 0.0
        (20, 0.0)
    """
    if n_trials < 1 or not 0 < heartbeat_s < grace_s:
        raise ValueError(
            f"expected n_trials >= 1 and 0 < heartbeat_s < grace_s, got {n_trials}, {heartbeat_s:g} and {grace_s:g}"
        )
    if isinstance(space, Mapping):
        describe_space(space)
    worker = None if study is None else _Worker(study, space, n_trials, heartbeat_s, grace_s)
    with _exit_on_sigterm():
        # The first rank decides; the others hear what to try, or that there is nothing yet, or no more.
        while (task := broadcast_from_rank0(worker.next_task() if worker else None)) is not None:
            if not task:
                time.sleep(min(POLL_S, heartbeat_s))
            elif worker:
                worker.run(objective)
            else:
                gather(_evaluate(objective, Trial(**task)))
    trials = broadcast_from_rank0(candidates(study) if study is not None else [])[:n_trials]
    best_trial(trials)
    return trials


class _Worker:
    """One process's share in a study."""

    def __init__(self, study: Any, space: Space, n_trials: int, heartbeat_s: float, grace_s: float) -> None:
        self.study, self.space, self.n_trials, self.heartbeat_s = study, space, n_trials, heartbeat_s
        self.seed = study.user_attrs.get("settings", {}).get("seed", 0)
        self.watch = _LivenessMonitor(grace_s)
        self.trial: Trial | None = None
        self.claim = ""

    def next_task(self) -> dict[str, Any] | None:
        """Claim a trial: its number and parameters; nothing while others run the last ones; None at the end."""
        self._requeue_dead_trials()
        lineages = attempts_by_candidate(list_trials(self.study))
        ends = [lineage[-1].state.name for lineage in lineages[: self.n_trials]]
        if len(lineages) >= self.n_trials and "WAITING" not in ends:
            return {} if "RUNNING" in ends else None
        handle = retry(self.study.ask)
        try:
            return self._claim(handle)
        except import_optuna().exceptions.UpdateFinishedTrialError:
            logger.warning("trial %d was taken for dead before it began", handle.number)
            return {}
        except BaseException as error:
            _ended.add(self.claim)
            self._release(handle, error)
            raise

    def run(self, objective: Callable[[Trial], float]) -> None:
        """Try the claimed trial, and tell the study."""
        trial = self.trial
        assert trial is not None
        outcome = None
        try:
            with self._beating(trial):
                outcomes = gather(_evaluate(objective, trial))
                outcome = next((other for other in outcomes if other.failure is not None), outcomes[0])
                if not self._tell(trial, outcome):
                    logger.warning("trial %d had been taken for dead: its result is dropped", trial.number)
        except BaseException as error:
            self._release(trial.handle, error, outcome)
            raise
        finally:
            _ended.add(self.claim)

    def _requeue_dead_trials(self) -> None:
        """Fail what dead workers left, and queue it once more; whoever was killed in between is made good for."""
        for trial in list_trials(self.study):
            if self.watch.is_dead(trial) and _finish(self.study, trial.number, "FAIL"):
                logger.warning("the worker of trial %d is dead (%s)", trial.number, worker_of(trial))
        trials = list_trials(self.study)
        succeeded = {trial.user_attrs.get("retry_of") for trial in trials if "cancelled" not in trial.user_attrs}
        for trial in trials:
            if trial.number not in succeeded and is_to_retry(trial):
                retry(lambda trial=trial: self.study.add_trial(retry_of(trial)))

    def _claim(self, handle: Any) -> dict[str, Any]:
        lineages = enumerate(attempts_by_candidate(list_trials(self.study)))
        place = next((i for i, lineage in lineages if handle.number in [trial.number for trial in lineage]), None)
        if place is None or place >= self.n_trials:
            self._set(handle, "cancelled", True)
            _finish(self.study, handle.number, "FAIL")
            return {}
        self.claim = uuid.uuid4().hex
        owner = this_process() | {"host": socket.gethostname(), "claim": self.claim, "heartbeat": 0, "is_drawn": False}
        self._set(handle, "worker", owner)
        self.study.sampler = _new_sampler(self.seed, place)
        self.trial = Trial(handle.number, retry(lambda: draw(self.space, handle)), handle)
        self._set(handle, "worker", owner | {"is_drawn": True})
        return {"number": self.trial.number, "params": self.trial.params}

    @contextmanager
    def _beating(self, trial: Trial) -> Iterator[None]:
        """Within the block, a thread counts up the trial's beat."""
        handle, done = trial.handle, threading.Event()
        assert handle is not None
        owner = handle.user_attrs["worker"]

        def heartbeat() -> None:
            count = 0
            while not done.wait(self.heartbeat_s):
                count += 1
                try:
                    _set_attribute(handle, "worker", owner | {"heartbeat": count})
                except import_optuna().exceptions.UpdateFinishedTrialError:
                    trial.is_lost = True
                    return
                except storage_errors() as error:
                    logger.warning("a sign of life could not be stored: %s", error)

        thread = threading.Thread(target=heartbeat, name=f"beat of trial {trial.number}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _tell(self, trial: Trial, outcome: Outcome) -> bool:
        """Whether the study took it; a score is never dropped in silence."""
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
        """Let others, or this worker when it is started again, try the candidate; whatever fails hides no `error`.

        A score that was there when the error came, such as a signal, is kept.
        """
        score = None if outcome is None else outcome.score
        try:
            if score is not None and _finish(
                self.study, handle.number, "COMPLETE", score, patience_s=RELEASE_TIMEOUT_S
            ):
                return
            if not isinstance(error, Exception):  # the candidate is not to blame
                self._set(handle, "released", True, patience_s=RELEASE_TIMEOUT_S)
            if _finish(self.study, handle.number, "FAIL", patience_s=RELEASE_TIMEOUT_S):
                self._requeue_dead_trials()
                cause = type(error).__name__
                logger.warning(
                    "trial %d was given back (%s): whoever goes on with the study tries it again", handle.number, cause
                )
        except import_optuna().exceptions.UpdateFinishedTrialError:
            logger.debug("trial %d had ended already", handle.number)
        except Exception as failure:
            logger.warning("trial %d could not be given back, others will find it dead: %s", handle.number, failure)

    @staticmethod
    def _set(handle: Any, name: str, value: Any, patience_s: float | None = None) -> None:
        retry(lambda: handle.set_user_attr(name, value), patience_s)


def _set_attribute(handle: Any, name: str, value: Any) -> None:
    """From another thread than the one that has the handle, which keeps a copy of the trial."""
    handle.storage.set_trial_user_attr(handle._trial_id, name, value)


class _LivenessMonitor:
    """Tells dead trials by their beats, with the watcher's own clock: those of other machines may differ."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._seen: dict[int, tuple[Any, float]] = {}

    def is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
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
    """Whether this very process claimed a trial that it runs no more, e.g. when the storage failed."""
    return worker.get("claim") in _ended


def _new_sampler(seed: int, place: int) -> Any:
    import numpy as np

    state = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    return import_optuna().samplers.TPESampler(seed=state)


def draw(space: Space, handle: Any) -> dict[str, Any]:
    """The parameters that a space has for a trial of Optuna's; its own function's, where it is one."""
    if not isinstance(space, Mapping):
        drawn = space(handle)
        return dict(drawn) if isinstance(drawn, Mapping) else dict(handle.params)
    return {name: _suggest(handle, name, distribution) for name, distribution in space.items()}


def _suggest(handle: Any, name: str, distribution: Any) -> Any:
    kinds = import_optuna().distributions
    if isinstance(distribution, kinds.CategoricalDistribution):
        return handle.suggest_categorical(name, distribution.choices)
    suggest = handle.suggest_int if isinstance(distribution, kinds.IntDistribution) else handle.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _evaluate(objective: Callable[[Trial], float], trial: Trial) -> Outcome:
    """Try a candidate.

    Raises:
        KeyboardInterrupt: Ctrl-C ended its training.
        SystemExit: SIGTERM did.
        Exception: what its parameters cannot be to blame for.
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
    study: optuna.Study, number: int, state: str, score: float | None = None, patience_s: float | None = None
) -> bool:
    """Set a trial's end; whether it has that end now: who comes first decides."""
    optuna = import_optuna()
    wanted = optuna.trial.TrialState[state]
    try:
        told = retry(lambda: study.tell(number, score, state=wanted, skip_if_finished=True), patience_s)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    return told.state == wanted


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Within the block SIGTERM unwinds, as Ctrl-C does; outside the main thread nothing changes."""
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if not is_ours:
        yield
        return

    def leave(signum: int, frame: Any) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
