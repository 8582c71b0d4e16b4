"""A search's study: where its trials are kept, and the loop by which any number of workers share them.

Every candidate is one trial that has been told a score, pruned, or failed for a stated reason. A trial whose worker
died is failed without a reason, by whoever notices, and a further trial gets its parameters (`retry_of`); so what a
study holds is enough to go on from, wherever a worker was when it was killed. All is kept in Optuna's own terms,
and Optuna's dashboard and importances read it.

Attributes of a trial: `worker` (who runs it, and a `beat` counted up while it lives), `failure` (why a candidate has
no score), `retry_of` and `attempt`, `withdrawn` (it was one too many, and was not run), `given_back`.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from packages.core.engine.callbacks import Callback, Logs
from packages.core.engine.distributed import any_of, gather, is_writer
from packages.core.training.liveness import is_gone, this_process
from packages.core.training.study_storage import (
    import_optuna,
    open_storage,
    patiently,
    storage_errors,
    without_password,
)

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

T = TypeVar("T")
Space = Mapping[str, Any] | Callable[[Any], Any]

PRUNERS = ("median", "hyperband")
CANDIDATE_ERRORS = (ValueError, ArithmeticError, MemoryError, torch.OutOfMemoryError)
"""What a candidate's parameters may be to blame for; any other error ends the worker, and the trial is run again."""
MOST_ATTEMPTS = 3
WARM_UP = 2 / 3  # share of a training's epochs
GIVE_BACK_S = 5.0
POLL_S = 0.5

_ended: set[str] = set()  # claims of this process that it runs no more


def open_study(
    storage: str | Path | None,
    name: str = "search",
    *,
    pruner: str | None = "median",
    seed: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
) -> optuna.Study | None:
    """Make a study, or join the one of that name.

    Args:
        storage: as `study_storage.open_storage` takes it.
        name: of the study in its storage.
        pruner: who ends bad trials early: `'median'`, `'hyperband'`, or None for nobody.
        seed: of all that is drawn.
        fingerprint: what makes scores comparable (the space, the data, the model), as plain data; who joins must give
            the same.

    Returns:
        The study, whose scores are maximised; None on all ranks but the first, of several.

    Raises:
        ValueError: the pruner is unknown or `seed` negative; the study was made with other settings, or minimises.
        OSError: the storage cannot be used, see `study_storage.open_storage`.

    Example:
        >>> study = open_study(None, seed=3, fingerprint={"model": "wdcnn"})
        >>> study.user_attrs["settings"]
        {'model': 'wdcnn', 'pruner': 'median', 'seed': 3}
    """
    if pruner is not None and pruner not in PRUNERS:
        raise ValueError(f"unknown pruner {pruner!r}, expected one of {', '.join(PRUNERS)}, or None")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not is_writer():
        return None
    optuna, kept_in = import_optuna(), open_storage(storage)
    study = patiently(
        lambda: optuna.create_study(
            storage=kept_in, study_name=name, direction="maximize", pruner=_new_pruner(pruner),
            sampler=optuna.samplers.RandomSampler(), load_if_exists=True,
        )
    )  # fmt: skip
    if study.direction.name != "MAXIMIZE":
        raise ValueError(
            f"study {name!r} in {without_password(storage)} minimises its values, expected one that maximises a score"
        )
    settings = json.loads(json.dumps({**(fingerprint or {}), "pruner": pruner, "seed": seed}))
    if "settings" not in study.user_attrs:
        patiently(lambda: study.set_user_attr("settings", settings))
    _check_settings(study.user_attrs["settings"], settings, f"study {name!r} in {without_password(storage)}")
    return study


def _new_pruner(name: str | None) -> Any:
    pruners = import_optuna().pruners
    return {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, None: pruners.NopPruner}[name]()


def _check_settings(recorded: dict[str, Any], given: dict[str, Any], what: str) -> None:
    """Raise unless they are equal, naming each that is not, down to a single parameter."""
    before, now = _leaves(recorded), _leaves(given)
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        shown = "; ".join(
            f"{key}: {before.get(key, 'nothing')} there, {now.get(key, 'nothing')} here" for key in differing
        )
        raise ValueError(f"{what} was made with other settings ({shown}); take those, or another study")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _leaves(part, f"{name}.{key}" if name else key).items()}


def describe_space(space: Space) -> dict[str, Any]:
    """A space as plain data, for the fingerprint of `open_study`.

    Raises:
        TypeError: a parameter's range is not an Optuna distribution.
        ValueError: there is no parameter.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> describe_space({"lr": FloatDistribution(0.001, 0.1, log=True)})
        {'lr': {'step': None, 'low': 0.001, 'high': 0.1, 'log': True, 'name': 'FloatDistribution'}}
    """
    if not isinstance(space, Mapping):
        return {"function": getattr(space, "__qualname__", type(space).__name__)}
    optuna = import_optuna()
    if not space:
        raise ValueError("the space of a search has no parameter")
    for name, distribution in space.items():
        if not isinstance(distribution, optuna.distributions.BaseDistribution):
            raise TypeError(f"parameter {name!r}: expected an Optuna distribution, got {distribution!r}")
    texts = {name: json.loads(optuna.distributions.distribution_to_json(space[name])) for name in sorted(space)}
    return {name: {**text["attributes"], "name": text["name"]} for name, text in texts.items()}


@dataclass
class Trial:
    """A candidate that is being tried, as the objective sees it.

    Attributes:
        number: of the trial in its study.
        params: its parameters.
        is_pruned: whether it was ended early; set by `ReportToTrial`.
        is_lost: whether others took it for dead and run it anew, so that its score will not count.
        interrupted_by: number of the signal that ended its training; None where none did.
    """

    number: int
    params: dict[str, Any]
    handle: optuna.Trial | None = field(default=None, repr=False)  # the first rank alone has it
    is_pruned: bool = False
    is_lost: bool = False
    interrupted_by: int | None = None

    def report(self, value: float, step: int) -> None:
        """Tell the pruner a score on the way.

        Args:
            value: higher is better.
            step: >= 0, e.g. the epoch.
        """
        if (handle := self.handle) is not None:
            with self._unless_lost():
                patiently(lambda: handle.report(value, step))

    def should_prune(self) -> bool:
        """Whether to end it now, the same on all ranks; each of them must ask."""
        wish = False
        if (handle := self.handle) is not None:
            with self._unless_lost():
                wish = patiently(handle.should_prune)
        return any_of(wish or self.is_lost)

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        try:
            yield
        except import_optuna().exceptions.UpdateFinishedTrialError:
            self.is_lost = True


class ReportToTrial(Callback):
    """Tells a trial the score of each epoch, and ends the training when the pruner says so, on all ranks.

    Nothing is ended in the first two thirds of the epochs: under a schedule that lets the learning rate rise and fall,
    scores say nothing of the last one before (their rank correlation over candidates of `wdcnn` was near 0 up to epoch
    7 of 12 and 0.8 after it), and the median rule would drop half of all candidates by chance. Nor after the last
    epoch: its time is spent, and its score is one more to learn from.

    Args:
        trial: the trial, as the objective gets it.
        metric: name in the epoch's logs; higher is better.

    Raises:
        ValueError: at an epoch's end, the metric is not in the logs.

    Example:
        >>> trial = Trial(0, {"lr": 0.1})
        >>> ReportToTrial(trial).on_epoch_end(0, {"val_accuracy": 0.5})
        >>> trial.is_pruned
        False
    """

    def __init__(self, trial: Trial, metric: str = "val_accuracy") -> None:
        self.trial, self.metric = trial, metric

    @property
    def pruned(self) -> bool:
        """Whether the training was ended."""
        return self.trial.is_pruned

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.metric not in (logs or {}):
            raise ValueError(f"the epoch has no {self.metric!r} to report, only {', '.join(logs or {})}")
        self.trial.report((logs or {})[self.metric], epoch)
        if self.trainer is None:
            return
        state = self.trainer.state
        if WARM_UP * state.num_epochs < epoch + 1 < state.num_epochs and self.trial.should_prune():
            self.trial.is_pruned = state.should_stop = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """A training that a signal ended is not a result."""
        state = getattr(self.trainer, "state", None)
        if state is not None and state.interrupted:  # on which all ranks agree, but the signal may have come to one
            self.trial.interrupted_by = state.interrupted_by or signal.SIGTERM


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: a score, or none and why; without a reason it was pruned."""

    score: float | None = None
    failure: str | None = None


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
        while (task := _from_first(worker.next_task() if worker else None)) is not None:
            if not task:
                time.sleep(min(POLL_S, heartbeat_s))
            elif worker:
                worker.run(objective)
            else:
                gather(_evaluate(objective, Trial(**task)))
    trials = _from_first(candidates(study) if study is not None else [])[:n_trials]
    best_trial(trials)
    return trials


def candidates(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The last trial of each candidate, in their order; also of those that run, or wait to be run again."""
    return [lineage[-1] for lineage in _lineages(_trials(study))]


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
    cause = first.user_attrs.get("failure", f"its worker died {MOST_ATTEMPTS} times")
    raise ValueError(f"none of {len(trials)} candidates has a score; the first, {first.params}, failed: {cause}")


def param_importances(trials: list[optuna.trial.FrozenTrial], seed: int = 0) -> dict[str, float]:
    """Share of the score's variation that each parameter explains, 0 to 1, the largest first.

    By functional analysis of variance over a random forest (Hutter et al., 2014), from candidates with a score.

    Args:
        trials: candidates, as `run_trials` and `candidates` return them.
        seed: of the forest.

    Raises:
        ValueError: there are not two different scores.
        ImportError: scikit-learn is not installed.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> space = {name: FloatDistribution(0, 1) for name in ("lr", "dropout")}
        >>> trials = run_trials(open_study(None), space, lambda trial: trial.params["lr"], 20)
        >>> next(iter(param_importances(trials)))
        'lr'
    """
    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len({trial.value for trial in scored}) < 2:
        raise ValueError(
            f"the importance of parameters needs at least two candidates with different scores, got {len(scored)} "
            "that differ in nothing"
        )
    optuna = import_optuna()
    study = optuna.create_study(direction="maximize")
    study.add_trials(scored)
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    except ImportError as error:
        raise ImportError("importances need scikit-learn: pip install 'whirl[search]'") from error
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


class _Worker:
    """One process's share in a study."""

    def __init__(self, study: Any, space: Space, n_trials: int, heartbeat_s: float, grace_s: float) -> None:
        self.study, self.space, self.n_trials, self.heartbeat_s = study, space, n_trials, heartbeat_s
        self.seed = study.user_attrs.get("settings", {}).get("seed", 0)
        self.watch = _Watch(grace_s)
        self.trial: Trial | None = None
        self.claim = ""

    def next_task(self) -> dict[str, Any] | None:
        """Claim a trial: its number and parameters; nothing while others run the last ones; None at the end."""
        self._revive()
        lineages = _lineages(_trials(self.study))
        ends = [lineage[-1].state.name for lineage in lineages[: self.n_trials]]
        if len(lineages) >= self.n_trials and "WAITING" not in ends:
            return {} if "RUNNING" in ends else None
        handle = patiently(self.study.ask)
        try:
            return self._claim(handle)
        except import_optuna().exceptions.UpdateFinishedTrialError:
            logger.warning("trial %d was taken for dead before it began", handle.number)
            return {}
        except BaseException as error:
            _ended.add(self.claim)
            self._give_back(handle, error)
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
            self._give_back(trial.handle, error, outcome)
            raise
        finally:
            _ended.add(self.claim)

    def _revive(self) -> None:
        """Fail what dead workers left, and queue it once more; whoever was killed in between is made good for."""
        for trial in _trials(self.study):
            if self.watch.is_dead(trial) and _finish(self.study, trial.number, "FAIL"):
                logger.warning("the worker of trial %d is dead (%s)", trial.number, _host(trial))
        trials = _trials(self.study)
        succeeded = {trial.user_attrs.get("retry_of") for trial in trials if "withdrawn" not in trial.user_attrs}
        for trial in trials:
            if trial.number not in succeeded and _is_to_retry(trial):
                patiently(lambda trial=trial: self.study.add_trial(_successor(trial)))

    def _claim(self, handle: Any) -> dict[str, Any]:
        lineages = enumerate(_lineages(_trials(self.study)))
        place = next((i for i, lineage in lineages if handle.number in [trial.number for trial in lineage]), None)
        if place is None or place >= self.n_trials:
            self._set(handle, "withdrawn", True)
            _finish(self.study, handle.number, "FAIL")
            return {}
        self.claim = uuid.uuid4().hex
        owner = this_process() | {"host": socket.gethostname(), "claim": self.claim, "beat": 0, "is_drawn": False}
        self._set(handle, "worker", owner)
        self.study.sampler = _new_sampler(self.seed, place)
        self.trial = Trial(handle.number, patiently(lambda: draw(self.space, handle)), handle)
        self._set(handle, "worker", owner | {"is_drawn": True})
        return {"number": self.trial.number, "params": self.trial.params}

    @contextmanager
    def _beating(self, trial: Trial) -> Iterator[None]:
        """Within the block, a thread counts up the trial's beat."""
        handle, done = trial.handle, threading.Event()
        assert handle is not None
        owner = handle.user_attrs["worker"]

        def beat() -> None:
            count = 0
            while not done.wait(self.heartbeat_s):
                count += 1
                try:
                    _set_attribute(handle, "worker", owner | {"beat": count})
                except import_optuna().exceptions.UpdateFinishedTrialError:
                    trial.is_lost = True
                    return
                except storage_errors() as error:
                    logger.warning("a sign of life could not be stored: %s", error)

        thread = threading.Thread(target=beat, name=f"beat of trial {trial.number}", daemon=True)
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

    def _give_back(self, handle: Any, error: BaseException, outcome: Outcome | None = None) -> None:
        """Let others, or this worker when it is started again, try the candidate; whatever fails hides no `error`.

        A score that was there when the error came, such as a signal, is kept.
        """
        score = None if outcome is None else outcome.score
        try:
            if score is not None and _finish(self.study, handle.number, "COMPLETE", score, patience_s=GIVE_BACK_S):
                return
            if not isinstance(error, Exception):  # the candidate is not to blame
                self._set(handle, "given_back", True, patience_s=GIVE_BACK_S)
            if _finish(self.study, handle.number, "FAIL", patience_s=GIVE_BACK_S):
                self._revive()
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
        patiently(lambda: handle.set_user_attr(name, value), patience_s)


def _set_attribute(handle: Any, name: str, value: Any) -> None:
    """From another thread than the one that has the handle, which keeps a copy of the trial."""
    handle.storage.set_trial_user_attr(handle._trial_id, name, value)


class _Watch:
    """Tells dead trials by their beats, with the watcher's own clock: those of other machines may differ."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._seen: dict[int, tuple[Any, float]] = {}

    def is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
        if trial.state.name != "RUNNING":
            self._seen.pop(trial.number, None)
            return False
        worker, now = trial.user_attrs.get("worker", {}), time.monotonic()
        if worker and (is_gone(worker) or _is_abandoned(worker)):
            return True
        seen, since = self._seen.setdefault(trial.number, (worker, now))
        if seen != worker:
            self._seen[trial.number] = worker, now
            return False
        return now - since > self.grace_s


def _is_abandoned(worker: Mapping[str, Any]) -> bool:
    """Whether this very process claimed a trial that it runs no more, e.g. when the storage failed."""
    return worker.get("claim") in _ended


def _trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return patiently(lambda: study.get_trials(deepcopy=False))


def _lineages(trials: list[optuna.trial.FrozenTrial]) -> list[list[optuna.trial.FrozenTrial]]:
    """The trials of each candidate, first to last; of two successors of one trial the earlier counts."""
    kept = [trial for trial in trials if "withdrawn" not in trial.user_attrs]
    successors: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in kept:
        if "retry_of" in trial.user_attrs:
            successors.setdefault(trial.user_attrs["retry_of"], trial)
    lineages = [[trial] for trial in kept if "retry_of" not in trial.user_attrs]
    for lineage in lineages:
        while (successor := successors.get(lineage[-1].number)) is not None:
            lineage.append(successor)
    return lineages


def _is_to_retry(trial: optuna.trial.FrozenTrial) -> bool:
    attributes = trial.user_attrs
    died = trial.state.name == "FAIL" and "failure" not in attributes and "withdrawn" not in attributes
    return died and _next_attempt(trial) <= MOST_ATTEMPTS


def _next_attempt(trial: optuna.trial.FrozenTrial) -> int:
    return trial.user_attrs.get("attempt", 1) + ("given_back" not in trial.user_attrs)


def _successor(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """With the same parameters, or none where the worker died before it had drawn them all."""
    optuna = import_optuna()
    is_drawn = trial.user_attrs.get("worker", {}).get("is_drawn", False)
    return optuna.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=trial.params if is_drawn else {},
        distributions=trial.distributions if is_drawn else {},
        user_attrs={"retry_of": trial.number, "attempt": _next_attempt(trial)},
    )


def _host(trial: optuna.trial.FrozenTrial) -> str:
    worker = trial.user_attrs.get("worker", {})
    return f"process {worker['pid']} on {worker['host']}" if worker else "it died before it said who it was"


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
        told = patiently(lambda: study.tell(number, score, state=wanted, skip_if_finished=True), patience_s)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    return told.state == wanted


def _from_first(value: T) -> T:
    """What the first rank has, on all of them."""
    return gather(value)[0]


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
