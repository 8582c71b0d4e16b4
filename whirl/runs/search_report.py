"""The results of a search: its trials, their comparison with the default settings, and how they were obtained."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whirl.data.recording import Recording
from whirl.runs.data import PreparedData
from whirl.runs.evaluation import describe
from whirl.runs.search_folder import NO_PRUNER, Search, SearchFolder
from whirl.runs.search_objective import score_of
from whirl.runs.search_space import Space, default_candidate, outside
from whirl.runs.search_text import format_count, format_duration
from whirl.tuning.results import results_table
from whirl.tuning.study import param_importances

if TYPE_CHECKING:
    from pandas import DataFrame

logger = logging.getLogger(__name__)

SCORES = {"val_accuracy": "validation accuracy of windows", "val_r2": "validation R2 of windows"}
"""Scores in words, by their name in a history."""

MIN_VAL_SPECIMENS = 3
"""Fewer validation specimens are mentioned as a limitation of the score."""

STATES = {
    "COMPLETE": "finished",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running elsewhere",
    "WAITING": "waiting",
}
"""Names of Optuna's trial states in reports."""


@dataclass(frozen=True)
class TrialSummary:
    """A trial and its outcome.

    Attributes:
        number: number of the trial in the study.
        candidate: values of the searched settings.
        state: a value of `STATES`.
        score: score of the kept weights; None unless the trial is finished.
        n_epochs: number of epochs trained.
        time_s: duration in seconds; None if unknown.
        failure: cause of a failure.
        is_default: whether the candidate equals the default settings.
    """

    number: int
    candidate: Mapping[str, Any]
    state: str
    score: float | None
    n_epochs: int
    time_s: float | None
    failure: str
    is_default: bool


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """Content of the report of a search; names and messages may contain any characters, they are escaped.

    Attributes:
        title: heading.
        data: description of the recordings.
        trials: all trials in the order in which they were started; at least one is finished.
        space: the search space.
        defaults: the default values of the searched settings.
        epochs: number of epochs of an unpruned trial.
        seed: random seed for weights, data order, split and search.
        n_windows: number of validation windows.
        score: the score in words, one of `SCORES`.
        importances: importance of each setting for the score; empty if it cannot be computed.
        train_command: command that trains with the best settings.
        caution: limitation to show with the score.
        notes: how the search was done.
    """

    title: str
    data: str
    trials: Sequence[TrialSummary]
    space: Space
    defaults: Mapping[str, Any]
    epochs: int
    seed: int
    n_windows: int
    importances: Mapping[str, float]
    train_command: str
    caution: str
    score: str = SCORES["val_accuracy"]
    notes: Sequence[str] = ()

    @property
    def ranked(self) -> list[TrialSummary]:
        """The finished trials, best first; of equal scores, the earlier trial first."""
        finished = [trial for trial in self.trials if trial.score is not None]
        return sorted(finished, key=lambda trial: (-(trial.score or 0), trial.number))

    @property
    def best(self) -> TrialSummary:
        """The trial with the highest score."""
        return self.ranked[0]

    @property
    def comparison(self) -> str:
        """Comparison of the best trial with the default settings, in one sentence."""
        default = next((trial for trial in self.trials if trial.is_default), None)
        if default is None:
            reason = "are outside the space and " if outside(self.space, self.defaults) else ""
            return f"The default settings {reason}were not tried."
        if default.score is None:
            return f"The default settings (trial {default.number}) have no score: {default.state}."
        if default.number == self.best.number:
            n_others = len(self.trials) - 1
            result = (
                f"none of {format_count(n_others, 'other trial')} was better" if n_others else "no others were tried"
            )
            return f"These are the default settings: {result}."
        if self.score != SCORES["val_accuracy"]:
            return f"The default settings (trial {default.number}) reach {default.score:.4f}."
        gained = round((self.best.score or 0) * self.n_windows) - round(default.score * self.n_windows)
        return (
            f"The default settings (trial {default.number}) reach {default.score:.4f}: "
            f"{format_count(gained, 'window')} of {self.n_windows} fewer."
        )


def summarize_trials(trials: Sequence[Any], defaults: Mapping[str, Any]) -> list[TrialSummary]:
    """Summarize the trials of a study.

    Args:
        trials: Optuna's frozen trials.
        defaults: the default values of the searched settings.
    """
    return [
        TrialSummary(
            number=trial.number,
            candidate=trial.params,
            state=STATES[trial.state.name],
            score=trial.value if trial.state.name == "COMPLETE" else None,
            n_epochs=len(trial.intermediate_values),
            time_s=None if trial.duration is None else trial.duration.total_seconds(),
            failure=trial.user_attrs.get("failure", "its workers died"),
            is_default=trial.params == defaults,
        )
        for trial in trials
    ]


def trials_table(trials: Sequence[TrialSummary]) -> DataFrame:
    """Return the table of a search: `trial`, the columns of `results_table`, and `epochs`."""
    missing = float("nan")
    table = results_table(
        [trial.candidate for trial in trials],
        [missing if trial.score is None else trial.score for trial in trials],
        [missing] * len(trials),
        [missing if trial.time_s is None else trial.time_s for trial in trials],
        [trial.state for trial in trials],
    )
    del table["std_score"]  # there is only one validation part
    table["epochs"] = [trial.n_epochs for trial in trials]
    table.insert(0, "trial", [trial.number for trial in trials])
    return table


def make_search_report(trials: Sequence[Any], search: Search, folder: SearchFolder, data: PreparedData) -> SearchReport:
    """Collect the content of the report.

    Args:
        trials: Optuna's frozen trials.
        search: the search.
        folder: the folder of the results.
        data: the recordings with the resolved configuration.
    """
    defaults = default_candidate(search.space, search.config)
    summaries = summarize_trials(trials, defaults)
    val, source = data.split.val, describe(search.config)
    n_windows = len(data.windows(val))
    n_finished = sum(trial.score is not None for trial in summaries)
    return SearchReport(
        title=f"Search for settings of {search.config.model_name} on {source}",
        data=f"{source}: trained on {_count_recordings(data.split.train)}, evaluated on {_count_recordings(val)}",
        trials=summaries,
        space=search.space,
        defaults=defaults,
        epochs=data.config.training.epochs,
        seed=search.config.run.seed,
        n_windows=n_windows,
        importances=_importances(trials),
        train_command=shlex.join(["whirl", "train", "--config", str(folder.best_file)]),
        caution=_caution(data, n_finished, n_windows),
        score=SCORES[score_of(search.config)],
        notes=[*_method_notes(search, data), *_duration_notes(trials), *data.notes],
    )


def _caution(data: PreparedData, n_finished: int, n_windows: int) -> str:
    val = data.split.val
    text = (
        f"The score of the best of {format_count(n_finished, 'finished trial')} is optimistic, because the trial was "
        f"selected on the same validation windows ({format_count(n_windows, 'window')} of {_count_recordings(val)}). "
        "The test part was not used: train with these settings to evaluate them on it."
    )
    if data.split.val_by != "specimen":
        return f"{text} Training used the same specimens, so the score does not estimate accuracy on unseen specimens."
    if len({recording.specimen for recording in val}) < MIN_VAL_SPECIMENS:
        return f"{text} There are few validation specimens: raise val_fraction in a file for --config."
    return text


def _count_recordings(recordings: Sequence[Recording]) -> str:
    specimens = {recording.specimen for recording in recordings}
    of_specimens = "" if None in specimens else f" of {format_count(len(specimens), 'specimen')}"
    return format_count(len(recordings), "recording") + of_specimens


def _method_notes(search: Search, data: PreparedData) -> list[str]:
    pruning = "no pruning" if search.pruner == NO_PRUNER else f"unpromising trials are pruned ({search.pruner})"
    shared = {"specimen": "specimen", "recording": "recording", "time": "time segment"}[data.split.val_by]
    return [
        f"candidates are sampled by TPE, seed {search.config.run.seed}; {pruning}",
        f"the score is the {SCORES[score_of(search.config)]} in the epoch of the lowest validation loss",
        f"training and validation share no {shared}",
        "all trials use the same seed for weights and data order; another seed may rank close trials differently",
    ]


def _duration_notes(trials: Sequence[Any]) -> list[str]:
    started = [trial.datetime_start for trial in trials if trial.datetime_start]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    if not started or not ended:
        return []
    total_s = sum(trial.duration.total_seconds() for trial in trials if trial.duration)
    names = ("machine", "host", "pid", "started")
    workers = {tuple(map(trial.user_attrs["worker"].get, names)) for trial in trials if "worker" in trial.user_attrs}
    elapsed_s = (max(ended) - min(started)).total_seconds()
    return [
        f"{format_duration(elapsed_s)} from the start of the first trial to the end of the last; "
        f"{format_duration(total_s)} of training in total, by {format_count(len(workers), 'worker')}"
    ]


def _importances(trials: Sequence[Any]) -> dict[str, float]:
    """Return the importance of each setting; empty for few trials or equal scores."""
    try:
        return param_importances(list(trials))
    except (ValueError, RuntimeError, ImportError) as error:
        logger.debug("importances: %s", error)
        return {}
