"""Training a run: recordings in, a trained and evaluated diagnoser out."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from whirl._locks import FolderLock
from whirl.callbacks.registry import check_loggers
from whirl.callbacks.run_loggers import RunLoggers
from whirl.diagnosis.learned import LearnedDiagnoser
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import load_weights
from whirl.engine.device import resolve_device
from whirl.engine.distributed import gather, is_launched, is_main_process, job_id, process_group, rank
from whirl.engine.errors import translate_torch_errors
from whirl.engine.files import write_json
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.runs.config import Config, ResolvedConfig, parse_config, with_settings
from whirl.runs.data import Loaded, PreparedData, check_same_recordings, prepare, with_recorded_notes
from whirl.runs.descriptors import is_descriptor_model, train_diagnoser
from whirl.runs.evaluation import Evaluation, evaluate_task, evaluate_test_split, score_task
from whirl.runs.operating_range import OperatingRange
from whirl.runs.plugins import packages_of
from whirl.runs.pretrained import with_settings_of_pretrained
from whirl.runs.reading import read_recordings
from whirl.runs.reliability import determine_reliability
from whirl.runs.run_folder import RunFolder, resolve_run
from whirl.runs.teacher import check_teacher
from whirl.runs.tracking import run_facts, run_results
from whirl.runs.trainers import make_trainer, tune_num_threads, validate_physics_terms
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run.

    Attributes:
        folder: the run folder.
        metrics: test metrics, `{"window": {...}, "recording": {...}}`; None if a signal ended the training, which can
            then be resumed; empty in all processes but rank 0.
        warnings: caveats to show with the metrics.
        interrupted_by: number of that signal.
        evaluation: the scores and predictions; None if a number is predicted, or there are no metrics.
    """

    folder: RunFolder
    metrics: dict[str, Any] | None
    warnings: tuple[str, ...] = ()
    interrupted_by: int | None = None
    evaluation: Evaluation | None = field(default=None, repr=False)


def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> TrainResult:
    """Train a diagnoser and evaluate it on specimens that it has not seen, as `whirl train` does.

    Args:
        data: folder of recordings; None simulates journal bearings.
        out: run folder, new or empty; None creates one under `runs/`.
        config: YAML file of settings.
        resume: continue the interrupted training in `out`.
        callbacks: further callbacks.
        **settings: settings by flat name, e.g. `lr=1e-3`; they override those of `config`.

    Returns:
        The run folder and the test metrics.

    Raises:
        ValueError: a setting, the data or the folder cannot be used; nothing has been written then.
    """
    given = settings if data is None else {"data": str(data)} | settings
    resolved, folder = resolve_run(given, config, out, resume)
    return train_run(resolved, folder, resume, callbacks)


def train_run(
    config: Config,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    command: str = "",
) -> TrainResult:
    """Train as configured, evaluate on the test part, and write a run folder.

    Args:
        config: the settings; for a resumed run, those of its folder.
        out: the run folder: new or empty, or to be resumed.
        resume: continue from the folder's last checkpoint.
        callbacks: further callbacks.
        command: what the user typed, for the report.

    Raises:
        ValueError: data, settings or folder cannot be used, or physics terms cannot act on the data; nothing has been
            written then.
    """
    if not is_launched():
        with translate_torch_errors():
            return _train_run(config, RunFolder(out), resume, callbacks, command)
    with translate_torch_errors(), process_group(resolve_device(config.run.device)) as device:
        # Rank 0 decides for all: names made from the clock, and what is on a disk, may differ between processes.
        mine = _maybe_resume_job(RunFolder(out), config, resume) if is_main_process() else (str(out), config, resume)
        path, config, resume = gather(mine)[0]
        return _train_run(with_settings(config, device=str(device)), RunFolder(path), resume, callbacks, command)


def _maybe_resume_job(folder: RunFolder, config: Config, resume: bool) -> tuple[str, Config, bool]:
    """A job that torchrun restarts after a process died resumes the folder that it had started."""
    is_this_job = folder.config_file.is_file() and folder.read_data().get("job") == job_id()
    return (str(folder.path), folder.read_config(), True) if is_this_job else (str(folder.path), config, resume)


def _train_run(
    config: Config, folder: RunFolder, resume: bool, callbacks: Sequence[Callback], command: str
) -> TrainResult:
    if not resume and is_main_process():
        folder.check_empty()
    start = time.perf_counter()
    check_loggers(config.run.log)
    config = with_settings_of_pretrained(config)
    check_teacher(config)
    loaded = read_recordings(config)
    own = _Prepared(config, prepare(config, loaded), resume)
    networks = {name: _network(own, name, folder, loaded) for name in config.model.compared}
    del loaded
    result = _train_prepared(own, folder, callbacks, command, start)
    return _train_networks(networks, result, command) if networks and result.metrics is not None else result


def _train_networks(networks: Mapping[str, _Prepared], result: TrainResult, command: str) -> TrainResult:
    """Train networks to compare with, and add them to the report of the diagnoser."""
    folder = result.folder
    for name, network in networks.items():
        if result.metrics:
            accuracy = result.metrics["recording"]["accuracy"]
            logger.info("%s: recording accuracy %.3f; next: %s", folder.path, accuracy, name)
        compared = _train_prepared(network, folder.compared(name), (), command, time.perf_counter())
        if compared.metrics is None:
            return replace(result, metrics=None, interrupted_by=compared.interrupted_by)
    if result.evaluation is not None:
        result.evaluation.write(folder)
    return result


class _Prepared(NamedTuple):
    """What is to be trained.

    Attributes:
        config: the settings as stated.
        data: the prepared recordings.
        resume: whether to continue from the last checkpoint of the folder.
    """

    config: Config
    data: PreparedData
    resume: bool


def _network(own: _Prepared, name: str, folder: RunFolder, loaded: Loaded) -> _Prepared:
    """Prepare the same recordings for a network to compare with, which may have begun in a run to be resumed."""
    begun = own.resume and folder.compared(name).config_file.is_file()
    if begun:
        network = folder.compared(name).read_config()
    else:
        stated = parse_config(folder.read_data()["stated"], str(folder.data_file)) if own.resume else own.config
        network = with_settings(stated, model=name, compared=[])
    return _Prepared(network, prepare(network, loaded, own.data), begun)


def _train_prepared(
    prepared: _Prepared, folder: RunFolder, callbacks: Sequence[Callback], command: str, start: float
) -> TrainResult:
    if prepared.resume:
        prepared = prepared._replace(data=with_recorded_notes(prepared.data, folder))
    data = prepared.data
    for note in data.notes:
        logger.info(note)
    if is_descriptor_model(data.config.model_name):
        if callbacks:
            raise ValueError("callbacks require a network; state one, e.g. model='cnn1d'")
        with _locked(folder):
            return _train_descriptor_model(prepared, folder, command, start)
    trainer, data = _ready_trainer(data, folder, callbacks, prepared.config.run.threads)
    with _locked(folder) as lock:
        _open_folder(folder, prepared._replace(data=data), command)
        trainer.callbacks.append(_FolderCheck(lock))
        loggers = _add_loggers(trainer, data, folder)
        if rank():  # each process draws its own augmentations
            torch.manual_seed(data.config.run.seed + rank())
        return _fit_and_evaluate(trainer, data, folder, loggers, prepared.resume, start)


def _locked(folder: RunFolder) -> AbstractContextManager[FolderLock | None]:
    """Hold the lock of the run folder in rank 0, which alone writes to it."""
    return folder.locked() if is_main_process() else nullcontext()


class _FolderCheck(Callback):
    """Ends a training whose folder was deleted or replaced, at its next checkpoint."""

    rank_zero_only = True

    def __init__(self, lock: FolderLock | None) -> None:
        self.lock = lock

    def state_dict(self) -> dict[str, Any]:
        """Called for each checkpoint; there is nothing to save."""
        if self.lock is not None:
            self.lock.check()
        return {}


def _fit_and_evaluate(
    trainer: Trainer, data: PreparedData, folder: RunFolder, loggers: RunLoggers, resume: bool, start: float
) -> TrainResult:
    prepared = time.perf_counter()
    # A Ctrl-C during the report lets it finish: it takes seconds.
    with finish_batch_on_interrupt(trainer.state):
        _fit(trainer, data.config, folder, resume)
        if trainer.state.interrupted:
            return TrainResult(folder, None, interrupted_by=trainer.state.interrupted_by)
        if not is_main_process():
            return TrainResult(folder, {})
        seconds = {"preparing the recordings": prepared - start, "training": time.perf_counter() - prepared}
        result = _evaluate(trainer, data, folder, seconds)
        loggers.log_results(lambda: run_results(data, folder, result.metrics or {}))
        if data.config.run.log:
            folder.update_metadata(loggers=loggers.state_dict())
        return result


def _train_descriptor_model(prepared: _Prepared, folder: RunFolder, command: str, start: float) -> TrainResult:
    """Train a model of descriptors, which takes seconds, in rank 0 alone."""
    if not is_main_process():
        return TrainResult(folder, {})
    data = prepared.data
    _open_folder(folder, prepared, command)
    ready = time.perf_counter()
    diagnoser = train_diagnoser(data.config, data.classes, data.descriptors)
    diagnoser.save(folder.diagnoser_file)
    write_json(folder.history_file, {})
    seconds = {"preparing the recordings": ready - start, "training": time.perf_counter() - ready}
    folder.update_metadata(timings_s=seconds)
    determine_reliability(diagnoser, data).save(folder)
    result = _evaluated(diagnoser, data, folder)
    loggers = RunLoggers.create(data.config.run.log, run_facts(data, folder.path, folder.read_data()["command"]))
    loggers.on_train_begin()
    loggers.on_train_end()
    loggers.log_results(lambda: run_results(data, folder, result.metrics or {}))
    return result


def _ready_trainer(
    data: PreparedData, folder: RunFolder, callbacks: Sequence[Callback], threads: int | None
) -> tuple[Trainer, PreparedData]:
    """Make the trainer, check that it can train on the data, and choose the number of threads."""
    trainer = make_trainer(data, folder, callbacks)
    if isinstance(trainer, PINNTrainer):
        validate_physics_terms(trainer)
    config = with_settings(data.config, threads=tune_num_threads(trainer, data, threads))
    return trainer, replace(data, config=config)


def _open_folder(folder: RunFolder, prepared: _Prepared, command: str) -> None:
    data, config = prepared.data, prepared.config
    if prepared.resume:
        check_same_recordings(data, folder)
    elif is_main_process():
        facts = {
            "operating_range": OperatingRange.of(data.split.train).model_dump(mode="json"),
            "command": command or shlex.join(["whirl", "train", "--config", str(folder.config_file)]),
            "timings_s": {},
            "job": job_id(),
            "packages": packages_of(data.config, [r.source for r in data.split.train]),
        }
        if config.model.compared:
            facts["stated"] = config.model_dump(mode="json", exclude_none=True)
        folder.initialize(data.config, data.summary() | facts)


def _add_loggers(trainer: Trainer, data: PreparedData, folder: RunFolder) -> RunLoggers:
    """Append the configured loggers to the callbacks; in processes other than rank 0 they log nothing."""
    loggers = RunLoggers({})
    if is_main_process():
        facts = run_facts(data, folder.path, folder.read_data()["command"])
        loggers = RunLoggers.create(data.config.run.log, facts)
    if data.config.run.log:
        trainer.callbacks.append(loggers)
    return loggers


def _fit(trainer: Trainer, config: ResolvedConfig, folder: RunFolder, resume: bool) -> None:
    history = trainer.fit(config.training.epochs, resume_from=_checkpoint_to_resume(folder) if resume else None)
    if history and not math.isfinite(history["train_loss"][-1]):
        raise ValueError(f"{folder.path}: training diverged (loss is NaN or infinite); lower --lr and start a new run")


def _checkpoint_to_resume(folder: RunFolder) -> Path | None:
    """None where the training stopped before its first checkpoint: it starts over then."""
    if folder.can_be_resumed:
        return folder.last_checkpoint
    logger.info("%s: stopped before its first checkpoint; starting over", folder.path)
    return None


def _evaluate(trainer: Trainer, data: PreparedData, folder: RunFolder, seconds: dict[str, float]) -> TrainResult:
    load_weights(trainer.model, folder.best_checkpoint)
    folder.update_metadata(timings_s=seconds)
    determine_reliability(trainer.model, data).save(folder)
    return _evaluated(trainer.model, data, folder)


def _evaluated(model: nn.Module | LearnedDiagnoser, data: PreparedData, folder: RunFolder) -> TrainResult:
    task = evaluate_test_split(data, folder)
    if data.config.is_regression:
        return TrainResult(folder, evaluate_task(model, task, folder), tuple(task.warnings))
    evaluation = score_task(model, task)
    evaluation.write(folder)
    return TrainResult(folder, evaluation.metrics, tuple(task.warnings), evaluation=evaluation)
