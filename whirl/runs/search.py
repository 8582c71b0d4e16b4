"""Searching the settings of a training: many trials on the same recordings, by any number of workers.

Recordings are read, split and guarded once in each worker, as for a training. Trials learn from the training part and
are judged on the validation part; the test part is left out of what they are given, so that it stays fit for judging
the network that is trained with the best settings at last.

A trial's score is the validation accuracy of the epoch with the lowest validation loss, whose weights a training would
keep. The loss itself would tell more from few windows, but losses of different `label_smoothing`, `loss` or `lambda`
do not compare. All trials have the same number of epochs, seed, first weights where their shapes agree, and order of
windows, so that they differ by their settings alone.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from whirl.callbacks.registry import RunResults, check_loggers
from whirl.data.recording import Recording
from whirl.engine.device import resolve_device
from whirl.engine.distributed import gather, is_launched, is_main_process, job_id, process_group, rank
from whirl.engine.files import write_text
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.runs.config import Config, ResolvedConfig, make_config, with_settings
from whirl.runs.config_files import load_config, read_yaml, stated_settings, write_config
from whirl.runs.data import PreparedData, prepare
from whirl.runs.evaluation import describe as describe_data
from whirl.runs.flat import get_setting, to_flat
from whirl.runs.search_report import (
    SCORE,
    SearchReport,
    counted,
    describe,
    duration,
    format_summary,
    render,
    table_of,
    tried_of,
)
from whirl.runs.search_space import (
    Space,
    candidate_settings,
    check_space,
    count,
    default_candidate,
    distributions,
    outside,
    preset_space,
)
from whirl.runs.sections import SearchSection
from whirl.runs.tracking import SearchLoggers
from whirl.runs.trainers import make_trainer, tune_num_threads, validate_physics_terms
from whirl.training.pinn_trainer import PINNTrainer
from whirl.tuning.attempts import best_trial, candidates
from whirl.tuning.storage import HIDDEN, open_storage, redact_password
from whirl.tuning.study import PRUNERS, import_optuna, open_study, param_importances
from whirl.tuning.trial import ReportToTrial, Trial
from whirl.tuning.worker import run_trials
from whirl.validation import unknown_name

logger = logging.getLogger(__name__)

NO_PRUNER = "none"
FEW_SPECIMENS = 3
OWN_STORAGE = "study.log"
MACHINE_SETTINGS = (
    "data",
    "unlabeled",
    "device",
    "threads",
    "num_workers",
    "mmap_dir",
    "precision",
    "checkpoint_every",
    "log",
)
"""Settings that may differ between workers; that their recordings are the same is seen from their contents."""

_VERBOSE_LOGGERS = ("whirl.training.trainer", "whirl.runs.training", "optuna")
_SAVED_FIELDS = {"trials": int, "pruner": str, "storage": str | None, "study": str, "space": dict, "settings": dict}


@dataclass(frozen=True)
class Search:
    """What is to be searched, and where the study is kept.

    Attributes:
        config: all settings, those that are searched at their usual values.
        space: what is searched.
        trials: how many candidates in all, those of other workers among them.
        pruner: who ends bad trials early: `median`, `hyperband` or `none`.
        storage: file or URL that workers share; None is a file in the output folder.
        study: name within the storage.
    """

    config: Config
    space: Space
    trials: int = 50
    pruner: str = "median"
    storage: str | None = None
    study: str = "search"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}, expected at least 1")
        if self.pruner not in (*PRUNERS, NO_PRUNER):
            raise ValueError(unknown_name("pruner", self.pruner, (*PRUNERS, NO_PRUNER)))


@dataclass(frozen=True)
class SearchFolder:
    """Where a worker leaves what a search has found.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def settings_file(self) -> Path:
        """`search.yaml`: what is searched, for resuming."""
        return self.path / "search.yaml"

    @property
    def best_file(self) -> Path:
        """`best.yaml`, for `whirl train --config`."""
        return self.path / "best.yaml"

    @property
    def trials_file(self) -> Path:
        """`trials.csv`, a row for each trial."""
        return self.path / "trials.csv"

    @property
    def report_file(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    def storage_of(self, search: Search) -> str:
        """File or URL of the study."""
        return str(self.path / OWN_STORAGE) if search.storage is None else search.storage

    def check_usable(self, search: Search) -> None:
        """Refuse a folder that holds anything but this search, or cannot be written.

        Raises:
            ValueError: it does, or is no folder.
            PermissionError: it cannot be written.
        """
        nearest = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not nearest.is_dir():
            raise ValueError(f"{nearest}: is a file, expected a folder for the search")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(f"{nearest}: no permission to write there; choose another --out")
        if nearest == self.path and self._holds_other_files(search) and not self._holds(search):
            hint = " or continue with --resume" if self.settings_file.is_file() else ""
            raise ValueError(f"{self.path}: the output folder is not empty; choose another --out{hint}")

    def _holds_other_files(self, search: Search) -> bool:
        """Than the storage, which another worker may have made, and its lock."""
        storage = str(Path(search.storage).absolute()) if search.storage else None
        return any(storage is None or not str(file.absolute()).startswith(storage) for file in self.path.iterdir())

    def _holds(self, search: Search) -> bool:
        """Whether another worker of the same study, or the same job before torchrun started it again, has begun it."""
        if not self.settings_file.is_file():
            return False
        noted = read_yaml(self.settings_file)
        is_shared = search.storage is not None and noted.get("storage") == redact_password(search.storage)
        is_this_job = job_id() is not None and noted.get("job") == job_id()
        return (is_shared and noted.get("study") == search.study) or is_this_job

    def initialize(self, search: Search) -> None:
        """Write down what is searched."""
        noted = {
            "trials": search.trials,
            "pruner": search.pruner,
            "storage": None if search.storage is None else redact_password(search.storage),
            "study": search.study,
            "job": job_id(),
            "space": search.space,
            "settings": _settings_of_training(search.config),
        }
        write_text(self.settings_file, yaml.safe_dump(noted, sort_keys=False))

    def read(self) -> Search:
        """What `initialize` wrote.

        Raises:
            ValueError: the folder is no search's.
        """
        if not self.settings_file.is_file():
            raise ValueError(f"{self.path}: not the folder of a search (it has no {self.settings_file.name})")
        noted = read_yaml(self.settings_file)
        for name, kind in _SAVED_FIELDS.items():
            if not isinstance(noted.get(name), kind):
                raise ValueError(f"{self.settings_file}: {name} is {noted.get(name)!r}; the file is damaged")
        config = make_config(noted["settings"], str(self.settings_file))
        return Search(
            config=config,
            space=check_space(noted["space"], config, str(self.settings_file)),
            trials=noted["trials"],
            pruner=noted["pruner"],
            storage=noted["storage"],
            study=noted["study"],
        )


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        folder: where it left its results.
        lines: the result for a terminal; none in all processes but the first of several.
        interrupted_by: number of the signal that ended this worker; None where none did.
    """

    folder: SearchFolder
    lines: list[str] = field(default_factory=list)
    interrupted_by: int | None = None


def resolve_search(
    options: Mapping[str, Any],
    config_file: str | Path | None = None,
    space_file: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    **choices: Any,
) -> tuple[Search, SearchFolder]:
    """The search and the folder that a command line means.

    A setting that is given is kept, and the rest of the network's preset is searched. A file of the user's says what is
    searched whatever is given; what is given is then where the search begins.

    Args:
        options: settings of the training, given on the line; they win over the file's.
        config_file: YAML file of further settings.
        space_file: YAML file of what to search; None takes the preset.
        out: folder for the results; None is a new one under `runs/`.
        resume: take everything from the search in `out`, which nothing given may contradict.
        **choices: `trials`, `pruner`, `storage`, `study` of a `Search`; None takes the usual ones.

    Raises:
        ValueError: a bad setting, or a search that was begun otherwise.
    """
    section = make_config(choices, "options").search
    chosen = {name: getattr(section, name) for name, value in choices.items() if value is not None}
    if "storage" in chosen:
        chosen["storage"] = _absolute(chosen["storage"])
    config = load_config(config_file, options)
    stated = stated_settings(config_file, options)
    if resume:
        if out is None:
            raise ValueError("--resume needs --out, the folder of the search to resume")
        return _resumed(SearchFolder(Path(out)), stated, config, space_file, chosen)
    if space_file is None:
        space = preset_space(config, stated)
        source = "preset"
    else:
        space, source = read_yaml(space_file), str(space_file)
    search = Search(config, check_space(space, config, source), **chosen)
    return search, SearchFolder(Path(out or _new_folder(config.model_name)))


def _new_folder(model: str) -> str:
    # To the millisecond, so that two workers started together do not meet.
    return f"runs/{datetime.now():%Y-%m-%d_%H%M%S.%f}"[:-3] + f"_search_{model}"


def _resumed(
    folder: SearchFolder,
    stated: Sequence[str],
    given: Config,
    space_file: str | Path | None,
    chosen: dict[str, Any],
) -> tuple[Search, SearchFolder]:
    search = folder.read()
    begun: dict[str, tuple[Any, Any]] = {
        name: (get_setting(search.config, name), get_setting(given, name))
        for name in stated
        if name not in MACHINE_SETTINGS
    }
    if space_file is not None:
        begun["space"] = search.space, check_space(read_yaml(space_file), search.config, str(space_file))
    begun |= {name: (getattr(search, name), chosen[name]) for name in ("pruner", "study") if name in chosen}
    for name, (was, asked) in begun.items():
        if was != asked:
            raise ValueError(
                f"{folder.path}: began with {name} = {was!r}, not {asked!r}; resume without it or start a new search"
            )
    if HIDDEN in (search.storage or "") and "storage" not in chosen:
        raise ValueError(f"{folder.path}: the password of its storage is not kept: name it with --storage again")
    local = {name: get_setting(given, name) for name in stated if name in MACHINE_SETTINGS}
    return replace(search, config=with_settings(search.config, **local), **chosen), folder


def _absolute(storage: str) -> str:
    return storage if "://" in storage else str(Path(storage).absolute())


def search_run(search: Search, folder: SearchFolder, resume: bool = False) -> SearchResult:
    """Search as one of any number of workers, and leave `search.yaml`, `best.yaml`, `trials.csv` and `report.html`.

    Workers that share a storage search together, each in a folder of its own or all in one; every one stays until the
    last trial is over, so that all leave the same results. Under `torchrun` each trial is trained by all processes.

    Args:
        search: what to search.
        folder: new or empty, or that of the same search.
        resume: the search in the folder is gone on with.

    Raises:
        ValueError: data, settings or folder that cannot be used; a study of other data, space or settings; no trial
            that came to a score.
        OSError: the storage or the folder cannot be used.
    """
    if not is_launched():
        return _search_run(search, folder, resume)
    with process_group(resolve_device(search.config.run.device)) as device:
        folder = SearchFolder(Path(gather(str(folder.path))[0]))  # names by the clock differ between processes
        search = replace(search, config=with_settings(search.config, device=str(device)))
        return _search_run(search, folder, resume)


def _search_run(search: Search, folder: SearchFolder, resume: bool) -> SearchResult:
    import_optuna()  # it sets up its logging then
    check_loggers(search.config.run.log)
    if is_main_process():
        if not resume:
            folder.check_usable(search)
        if resume or search.storage is not None:
            open_storage(folder.storage_of(search))  # found to be bad before the recordings are read
    data = prepare(search.config)
    for note in data.notes:
        logger.info(note)
    with quiet_loggers():
        data = _ready(data)
        study = None
        if is_main_process():
            folder.path.mkdir(parents=True, exist_ok=True)
            study = open_study(
                folder.storage_of(search),
                search.study,
                pruner=None if search.pruner == NO_PRUNER else search.pruner,
                seed=search.config.run.seed,
                fingerprint=_facts(search, data),
            )
            assert study is not None
            folder.initialize(search)
            _enqueue_defaults(study, search)
            logger.info("searching %s in %s", ", ".join(search.space), folder.path)
            if (held := count(search.space)) is not None and held < search.trials:
                several = counted(held, "candidate")
                logger.info("the space holds %s: of %d trials some repeat others", several, search.trials)
        loggers = _loggers(search, folder, data)
        loggers.begin()
        try:
            run_trials(study, distributions(search.space), _Objective(data, study, loggers), search.trials)
        except (KeyboardInterrupt, SystemExit) as error:
            by = signal.SIGINT if isinstance(error, KeyboardInterrupt) else int(error.code or 128) - 128
            if study is None:
                return SearchResult(folder, interrupted_by=by)
            _finish(study, search, folder, data, loggers)
            command = shlex.join(["whirl", "search", "--resume", "--out", str(folder.path)])
            return SearchResult(folder, [f"interrupted; resume with: {command}"], by)
        report = _finish(study, search, folder, data, loggers) if study is not None else None
    return SearchResult(folder, [] if report is None else format_summary(report, str(folder.report_file)))


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Within the block one line for each trial is enough, unless details are wanted."""
    loggers = [logging.getLogger(name) for name in _VERBOSE_LOGGERS]
    before = [each.level for each in loggers]
    if not logger.isEnabledFor(logging.DEBUG):
        for each in loggers:
            each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def _ready(data: PreparedData) -> PreparedData:
    """The data for trials, without the test part, once a trainer has been made of them and found to work."""
    trainer = make_trainer(data, None)  # sees the test part's names, for a teacher that may have been trained on it
    if isinstance(trainer, PINNTrainer):
        validate_physics_terms(trainer)
    tune_num_threads(trainer, data)
    return without_test(data)


def without_test(data: PreparedData) -> PreparedData:
    """The same data with nothing to test on."""
    return replace(data, split=replace(data.split, test=[]))


def _facts(search: Search, data: PreparedData) -> dict[str, Any]:
    """What makes scores comparable."""
    own = {*MACHINE_SETTINGS, *search.space}
    settings = {name: value for name, value in _settings_of_training(search.config).items() if name not in own}
    return {
        "recordings": data.fingerprint,
        "space": search.space,
        "settings": settings | {"epochs": data.config.training.epochs},
    }


def _settings_of_training(config: Config) -> dict[str, Any]:
    """Return the settings by flat name, without those of a search, and of a simulation that does not happen."""
    hidden = {*SearchSection.model_fields} | (set() if config.data.is_simulated else {"simulation"})
    return {name: value for name, value in to_flat(config).items() if name not in hidden}


def _enqueue_defaults(study: Any, search: Search) -> None:
    """Let the usual settings be the first candidate, so that a search never ends below them."""
    usual = default_candidate(search.space, search.config)
    strange = outside(search.space, usual)
    if strange:
        named = describe({name: usual[name] for name in strange})
        logger.info("%s: outside the space, so the usual settings are not tried", named)
        return
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(usual, user_attrs={"usual": True})
    # Workers that began at the same moment may each have done so: the first one's counts.
    for twin in [trial for trial in study.get_trials(deepcopy=False) if "usual" in trial.user_attrs][1:]:
        if twin.state.name == "WAITING":
            study._storage.set_trial_user_attr(twin._trial_id, "cancelled", True)


class _Objective:
    """Trains a candidate; its score is of the weights that a training would keep.

    Args:
        data: recordings without a test part, with the usual settings.
        study: to tell the best so far; None on all ranks but the first.
        loggers: experiment loggers of the search.
    """

    def __init__(self, data: PreparedData, study: Any, loggers: SearchLoggers) -> None:
        self.data, self.study, self.loggers = data, study, loggers
        self.n_windows = len(data.windows(data.split.train, data.config.input.hop))

    def __call__(self, trial: Trial) -> float:
        config = candidate_config(self.data.config, trial.params, self.n_windows)
        trainer = make_trainer(replace(self.data, config=config), None, [_ReportKept(trial)])
        loggers = self.loggers.of_trial(trial.number, config)
        if config.run.log:
            trainer.callbacks.append(loggers)
        if rank():  # each process draws its own augmentations
            torch.manual_seed(config.run.seed + rank())
        with finish_batch_on_interrupt(trainer.state):
            trainer.fit(config.training.epochs)
        if trial.interrupted_by is not None:
            return math.nan
        score = accuracy_at_best_loss(trainer.state.history)
        loggers.log_results(lambda: RunResults({"score": score, "is_pruned": float(trial.is_pruned)}))
        if self.study is not None:
            self._tell(trial, score, trainer.state.epoch)
        return score

    def _tell(self, trial: Trial, score: float, n_epochs: int) -> None:
        scores = [other.value or 0.0 for other in candidates(self.study) if other.state.name == "COMPLETE"]
        scores += [] if trial.is_pruned else [score]
        outcome = f"pruned at {score:.4f} after {counted(n_epochs, 'epoch')}" if trial.is_pruned else f"{score:.4f}"
        best = f"; best so far {max(scores):.4f}" if scores else ""
        logger.info("trial %d: %s with %s%s", trial.number, outcome, describe(trial.params), best)


class _ReportKept(ReportToTrial):
    """Reports after each epoch the accuracy of the weights that would be kept if it were the last."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, {self.metric: accuracy_at_best_loss(self.trainer.state.history)})


def accuracy_at_best_loss(history: Mapping[str, Sequence[float]]) -> float:
    """Validation accuracy of the epoch with the lowest validation loss; NaN where no loss is a number.

    Example:
        >>> accuracy_at_best_loss({"val_loss": [0.9, 0.4, 0.5], "val_accuracy": [0.6, 0.8, 0.9]})
        0.8
    """
    losses = [math.inf if math.isnan(loss) else loss for loss in history["val_loss"]]
    best = losses.index(min(losses))
    return history["val_accuracy"][best] if losses[best] < math.inf else math.nan


def candidate_config(config: ResolvedConfig, candidate: Mapping[str, Any], n_windows: int) -> ResolvedConfig:
    """The settings of a trial.

    Args:
        config: of the search, resolved.
        candidate: values of what is searched.
        n_windows: training windows, more than which no batch holds.
    """
    settings = to_flat(config) | candidate_settings(config, candidate)
    settings["batch_size"] = max(2, min(settings["batch_size"], n_windows))
    return make_config(settings, "candidate", ResolvedConfig)


def _loggers(search: Search, folder: SearchFolder, data: PreparedData) -> SearchLoggers:
    """Create the loggers of the search, whose name is the same for all workers."""
    storage = redact_password(folder.storage_of(search))
    command = shlex.join(["whirl", "search", "--resume", "--out", str(folder.path)])
    return SearchLoggers(data, folder.path, f"{search.study} in {storage}", command)


def _finish(
    study: Any, search: Search, folder: SearchFolder, data: PreparedData, loggers: SearchLoggers
) -> SearchReport | None:
    """Write what the study holds, until it holds no more: of several workers in one folder the last one's stays."""
    report, written, best = None, None, None
    while (trials := candidates(study)) and written != (over := [(t.number, t.state) for t in trials]):
        try:
            best = best_trial(trials)
        except ValueError:  # it was interrupted before the first score
            break
        report = _report(trials, search, folder, data)
        n_windows = len(data.windows(data.split.train, data.config.input.hop))
        write_config(folder.best_file, candidate_config(data.config, best.params, n_windows))
        write_text(folder.trials_file, table_of(report.trials).to_csv(index=False))
        write_text(folder.report_file, render(report))
        written = over
    files = (folder.settings_file, folder.best_file, folder.trials_file, folder.report_file)
    loggers.end({} if best is None else {"best_score": best.value or 0.0}, files)
    return report


def _report(trials: Sequence[Any], search: Search, folder: SearchFolder, data: PreparedData) -> SearchReport:
    usual = default_candidate(search.space, search.config)
    tried = tried_of(trials, usual)
    val = data.split.val
    n_windows = len(data.windows(val))
    n_finished = sum(each.score is not None for each in tried)
    return SearchReport(
        title=f"Search for settings of {search.config.model_name} on {describe_data(search.config)}",
        data=f"{describe_data(search.config)}: trained on {_counts(data.split.train)}, judged on {_counts(val)}",
        trials=tried,
        space=search.space,
        usual=usual,
        epochs=data.config.training.epochs,
        seed=search.config.run.seed,
        n_windows=n_windows,
        importances=_importances(trials),
        train_command=shlex.join(["whirl", "train", "--config", str(folder.best_file)]),
        caution=_caution(data, n_finished, n_windows),
        notes=[*_how(search, data), *_work(trials), *data.notes],
    )


def _caution(data: PreparedData, n_finished: int, n_windows: int) -> str:
    val = data.split.val
    text = (
        f"The best of {counted(n_finished, 'finished trial')} on the validation windows by which it was chosen "
        f"({counted(n_windows, 'window')} of {_counts(val)}) is optimistic. The test part was not looked at: train "
        "with these settings to see how they do on it."
    )
    if data.split.val_by != "specimen":
        return f"{text} Training saw the same specimens, for want of others: the score says nothing of unseen ones."
    if len({recording.specimen for recording in val}) < FEW_SPECIMENS:
        return f"{text} So few specimens tell little of others: raise val_fraction in a file for --config."
    return text


def _counts(recordings: Sequence[Recording]) -> str:
    specimens = {recording.specimen for recording in recordings}
    of = "" if None in specimens else f" of {counted(len(specimens), 'specimen')}"
    return counted(len(recordings), "recording") + of


def _how(search: Search, data: PreparedData) -> list[str]:
    pruned = "no trial is ended early" if search.pruner == NO_PRUNER else f"bad trials are pruned ({search.pruner})"
    shared = {"specimen": "specimen", "recording": "recording", "time": "stretch of time"}[data.split.val_by]
    return [
        f"candidates are drawn by TPE, seed {search.config.run.seed}; {pruned}",
        f"the score is the {SCORE} in the epoch of the lowest validation loss",
        f"training and validation share no {shared}",
        "all trials have the same seed of weights and order; another seed may rank close ones otherwise",
    ]


def _work(trials: Sequence[Any]) -> list[str]:
    begun = [trial.datetime_start for trial in trials if trial.datetime_start]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    if not begun or not ended:
        return []
    spent = sum(trial.duration.total_seconds() for trial in trials if trial.duration)
    names = ("machine", "host", "pid", "started")
    workers = {tuple(map(trial.user_attrs["worker"].get, names)) for trial in trials if "worker" in trial.user_attrs}
    wall = (max(ended) - min(begun)).total_seconds()
    return [
        f"{duration(wall)} from the first trial's beginning to the last one's end; {duration(spent)} of trials in all, "
        f"by {counted(len(workers), 'worker')}"
    ]


def _importances(trials: Sequence[Any]) -> dict[str, float]:
    """Share of each setting in the scores' variation; empty where few trials, or equal scores, tell nothing."""
    try:
        return param_importances(list(trials))
    except (ValueError, RuntimeError, ImportError) as error:
        logger.debug("importances: %s", error)
        return {}
