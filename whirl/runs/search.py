"""Search for settings of a training: many trials on the same recordings, by any number of workers.

Each worker reads, splits and checks the recordings once, as for a training. Trials are trained on the training part
and evaluated on the validation part. The test part is removed from the data of the trials, so that it remains unseen
until a network is trained with the best settings.

The score of a trial is the validation accuracy (R2 if a number is predicted) of the epoch with the lowest validation
loss, whose weights a training would keep. The loss itself resolves smaller differences on few windows, but losses with
different `label_smoothing`, `loss` or `lambda` are not comparable. All trials use the same number of epochs, seed,
initial weights (as far as their shapes agree) and order of windows, so that only their settings differ.
"""

from __future__ import annotations

import logging
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from whirl.callbacks.registry import check_loggers
from whirl.data.value_windows import target_of
from whirl.engine.device import resolve_device
from whirl.engine.distributed import gather, is_launched, is_main_process, process_group
from whirl.engine.files import write_text
from whirl.runs.config import training_settings, with_settings
from whirl.runs.config_files import write_config
from whirl.runs.data import PreparedData, prepare
from whirl.runs.fingerprint import library_versions, warn_of_other_versions
from whirl.runs.search_folder import MACHINE_SETTINGS, NO_PRUNER, Search, SearchFolder
from whirl.runs.search_objective import Objective, candidate_config, n_training_windows
from whirl.runs.search_page import format_summary, render_search_report
from whirl.runs.search_report import SearchReport, make_search_report, trials_table
from whirl.runs.search_space import count, default_candidate, distributions, outside
from whirl.runs.search_text import format_candidate, format_count
from whirl.runs.tracking import SearchLoggers
from whirl.runs.trainers import make_trainer, tune_num_threads, validate_physics_terms
from whirl.training.pinn_trainer import PINNTrainer
from whirl.tuning.attempts import best_trial, candidates, enqueue_first, is_intact
from whirl.tuning.storage import open_storage, redact_password
from whirl.tuning.study import import_optuna, open_study
from whirl.tuning.worker import run_trials

logger = logging.getLogger(__name__)

_VERBOSE_LOGGERS = ("whirl.training", "whirl.runs.training", "optuna")


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        folder: folder of the results.
        lines: the result for the terminal; empty in all processes but rank 0.
        interrupted_by: number of the signal that stopped this worker; None if there was none.
    """

    folder: SearchFolder
    lines: list[str] = field(default_factory=list)
    interrupted_by: int | None = None


def search_run(search: Search, folder: SearchFolder, resume: bool = False) -> SearchResult:
    """Search as one of any number of workers, and write `search.yaml`, `best.yaml`, `trials.csv` and `report.html`.

    Workers that share a storage search together, in separate folders or in the same one. Every worker stays until the
    last trial has ended, so that all write the same results. Under `torchrun`, all processes train each trial.

    Args:
        search: what to search.
        folder: a new or empty folder, or that of the same search.
        resume: resume the search in the folder.

    Raises:
        ValueError: data, settings or folder are invalid; the study has other data, space or settings; or no trial got
            a score.
        OSError: storage or folder cannot be used.
    """
    if not is_launched():
        return _search_run(search, folder, resume)
    with process_group(resolve_device(search.config.run.device)) as device:
        folder = SearchFolder(Path(gather(str(folder.path))[0]))  # names from the clock differ between processes
        search = replace(search, config=with_settings(search.config, device=str(device)))
        return _search_run(search, folder, resume)


def _search_run(search: Search, folder: SearchFolder, resume: bool) -> SearchResult:
    import_optuna()  # it configures its logging when imported
    check_loggers(search.config.run.log)
    if is_main_process():
        if not resume:
            folder.check_usable(search)
        if resume or search.storage is not None:
            open_storage(folder.storage_of(search))  # raises before the recordings are read
    data = prepare(with_settings(search.config, model=search.config.model_name))
    for note in data.notes:
        logger.info(note)
    with quiet_loggers():
        data = _check_trainer(data)
        study = _open_study(search, folder, data) if is_main_process() else None
        return _run_worker(study, search, folder, data)


def _run_worker(study: Any, search: Search, folder: SearchFolder, data: PreparedData) -> SearchResult:
    """Run trials until the search has ended, and write its results; `study` is None on all ranks but 0."""
    loggers = _make_loggers(search, folder, data)
    loggers.begin()
    try:
        run_trials(study, distributions(search.space), Objective(data, study, loggers), search.trials)
    except (KeyboardInterrupt, SystemExit) as error:
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else int(error.code or 128) - 128
        if study is None:
            return SearchResult(folder, interrupted_by=number)
        _write_results(study, search, folder, data, loggers)
        return SearchResult(folder, [f"interrupted; resume with: {_resume_command(folder)}"], number)
    report = None if study is None else _write_results(study, search, folder, data, loggers)
    return SearchResult(folder, [] if report is None else format_summary(report, str(folder.report_file)))


def _resume_command(folder: SearchFolder) -> str:
    return shlex.join(["whirl", "search", "--resume", "--out", str(folder.path)])


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Log warnings only from trainings and Optuna, unless debug messages are enabled."""
    loggers = [logging.getLogger(name) for name in _VERBOSE_LOGGERS]
    levels = [each.level for each in loggers]
    if not logger.isEnabledFor(logging.DEBUG):
        for each in loggers:
            each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _check_trainer(data: PreparedData) -> PreparedData:
    """Check that a trainer can be made, choose the number of threads, and return the data without the test part."""
    _check_score_is_defined(data)
    trainer = make_trainer(data, None)  # needs the test part to check a teacher
    if isinstance(trainer, PINNTrainer):
        validate_physics_terms(trainer)
    tune_num_threads(trainer, data)
    return without_test(data)


def _check_score_is_defined(data: PreparedData) -> None:
    """Validate that the numbers of the validation part differ: R2 divides by their variance."""
    target = data.config.data.target
    if data.config.is_regression and len({target_of(recording, target) for recording in data.split.val}) < 2:
        raise ValueError(
            f"{target} is the same in all validation recordings, so candidates have no R2: raise val_fraction"
        )


def without_test(data: PreparedData) -> PreparedData:
    """Return the data with an empty test part."""
    return replace(data, split=replace(data.split, test=[]))


def _open_study(search: Search, folder: SearchFolder, data: PreparedData) -> Any:
    """Open the study, write `search.yaml`, and enqueue the default settings."""
    folder.path.mkdir(parents=True, exist_ok=True)
    study: Any = open_study(
        folder.storage_of(search),
        search.study,
        pruner=None if search.pruner == NO_PRUNER else search.pruner,
        seed=search.config.run.seed,
        fingerprint=_fingerprint(search, data),
    )
    _compare_versions(study, folder)
    if damaged := [trial.number for trial in study.get_trials(deepcopy=False) if not is_intact(trial)]:
        logger.warning("%s: leaving out the damaged trials %s", redact_password(folder.storage_of(search)), damaged[:9])
    folder.initialize(search)
    _enqueue_defaults(study, search)
    logger.info("searching %s in %s", ", ".join(search.space), folder.path)
    n_candidates = count(search.space)
    if n_candidates is not None and n_candidates < search.trials:
        n_distinct = format_count(n_candidates, "candidate")
        logger.info("the space has only %s, so some of the %d trials repeat others", n_distinct, search.trials)
    return study


def _compare_versions(study: Any, folder: SearchFolder) -> None:
    """Record the versions of the first worker, and warn of other ones."""
    saved = study.user_attrs.get("versions")
    if saved is None:
        study.set_user_attr("versions", library_versions())
    else:
        warn_of_other_versions(folder.path, saved)


def _fingerprint(search: Search, data: PreparedData) -> dict[str, Any]:
    """Return what must be equal for scores to be comparable."""
    excluded = {*MACHINE_SETTINGS, *search.space}
    settings = {name: value for name, value in training_settings(search.config).items() if name not in excluded}
    return {
        "recordings": dict(data.inputs),
        "space": search.space,
        "settings": settings | {"epochs": data.config.training.epochs},
    }


def _enqueue_defaults(study: Any, search: Search) -> None:
    """Enqueue the default settings as the first candidate, so that the best score is at least theirs."""
    defaults = default_candidate(search.space, search.config)
    names = outside(search.space, defaults)
    if names:
        values = format_candidate({name: defaults[name] for name in names})
        logger.info("%s: outside the space, so the default settings are not tried", values)
        return
    if not study.get_trials(deepcopy=False):
        enqueue_first(study, defaults)


def _make_loggers(search: Search, folder: SearchFolder, data: PreparedData) -> SearchLoggers:
    """Create the loggers of the search, whose name is the same for all workers."""
    storage = redact_password(folder.storage_of(search))
    return SearchLoggers(data, folder.path, f"{search.study} in {storage}", _resume_command(folder))


def _write_results(
    study: Any, search: Search, folder: SearchFolder, data: PreparedData, loggers: SearchLoggers
) -> SearchReport | None:
    """Write the results, again if trials have ended meanwhile, and return the report; None before the first score.

    Of several workers in one folder, the last one overwrites the files.
    """
    report, written, best = None, None, None
    while (trials := candidates(study)) and written != (states := [(t.number, t.state) for t in trials]):
        try:
            best = best_trial(trials)
        except ValueError:  # interrupted before the first score
            break
        report = make_search_report(trials, search, folder, data)
        _write_files(report, best.params, folder, data)
        written = states
    loggers.end({} if best is None else {"best_score": best.value or 0.0}, folder.files)
    return report


def _write_files(report: SearchReport, best: dict[str, Any], folder: SearchFolder, data: PreparedData) -> None:
    write_config(folder.best_file, candidate_config(data.config, best, n_training_windows(data)))
    write_text(folder.trials_file, trials_table(report.trials).to_csv(index=False))
    write_text(folder.report_file, render_search_report(report))
