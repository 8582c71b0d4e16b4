"""The main job: recordings in, a trained and judged diagnoser out."""

from __future__ import annotations

import copy
import logging
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whirl.augment.policies import make_augmentation
from whirl.augment.transformer_augmentation import (
    get_heavy_augmentation,
    get_light_augmentation,
    get_medium_augmentation,
)
from whirl.data.loaders import make_loader
from whirl.data.windows import Windows
from whirl.engine.batch import Batch, call_model
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import load_weights
from whirl.engine.device import resolve_device
from whirl.engine.distributed import (
    gather,
    is_launched,
    is_main_process,
    job_id,
    process_group,
    rank,
    synchronize_batch_norm,
    world_size,
)
from whirl.engine.errors import translate_torch_errors
from whirl.engine.files import write_json
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.engine.threads import fastest_thread_count
from whirl.losses.cnn_losses import create_criterion
from whirl.losses.losses import FocalLoss, compute_class_weights
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.runs.config import RunConfig, make_time_frequency
from whirl.runs.data import PreparedData, check_same_recordings, prepare
from whirl.runs.evaluation import evaluate_task, evaluate_test_split
from whirl.runs.export import OperatingRange
from whirl.runs.factory import new_model, new_physics_loss
from whirl.runs.map_cache import maybe_cache_maps
from whirl.runs.run_folder import RunFolder, resolve_run
from whirl.runs.teacher import check_teacher, load_teacher, make_distillation_trainer
from whirl.training.cnn_trainer import CNNTrainer
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.progressive_resizing import ProgressiveResizingTrainer
from whirl.training.spectrogram_trainer import MultiTFRTrainer, SpectrogramTrainer, mask_params
from whirl.training.trainer import Trainer

logger = logging.getLogger(__name__)

PATCH_PRESETS = {"light": get_light_augmentation, "medium": get_medium_augmentation, "heavy": get_heavy_augmentation}


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        folder: the run folder.
        metrics: test metrics, `{"window": {...}, "recording": {...}}`; None when a signal ended the training,
            which can then be resumed; empty in all processes but the first of several.
        warnings: what nobody may overlook who reads them.
        interrupted_by: number of that signal.
    """

    folder: RunFolder
    metrics: dict[str, Any] | None
    warnings: tuple[str, ...] = ()
    interrupted_by: int | None = None


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
        **settings: fields of `RunConfig`; they override those of `config`.

    Returns:
        The run folder and the test metrics.

    Raises:
        ValueError: a setting, the data or the folder cannot be used; nothing has been written then.
    """
    given = settings if data is None else {"data": str(data)} | settings
    resolved, folder = resolve_run(given, config, out, resume)
    return train_run(resolved, folder, resume, callbacks)


def train_run(
    config: RunConfig,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    command: str = "",
) -> TrainResult:
    """Train as configured, judge on the test part, leave a run folder.

    Args:
        config: the settings; for a resumed run, those of its folder.
        out: the run folder: new or empty, or to be resumed.
        resume: go on from the folder's last checkpoint.
        callbacks: watch the training besides.
        command: what the user typed, kept for the report.

    Raises:
        ValueError: data, settings or folder that cannot be used, or physics terms that have nothing to say of the
            data; nothing has been written then.
    """
    if not is_launched():
        with translate_torch_errors():
            return _train_run(config, RunFolder(out), resume, callbacks, command)
    with translate_torch_errors(), process_group(resolve_device(config.device)) as device:
        # The first process decides for all: names by the clock, and what is on a disk, may differ between them.
        mine = _maybe_resume_job(RunFolder(out), config, resume) if is_main_process() else (str(out), config, resume)
        path, config, resume = gather(mine)[0]
        config = config.model_copy(update={"device": str(device)})
        return _train_run(config, RunFolder(path), resume, callbacks, command)


def _maybe_resume_job(folder: RunFolder, config: RunConfig, resume: bool) -> tuple[str, RunConfig, bool]:
    """What torchrun starts again, after a process died, goes on with the folder that this same job began."""
    is_this_job = folder.config_file.is_file() and folder.read_data().get("job") == job_id()
    return (str(folder.path), folder.read_config(), True) if is_this_job else (str(folder.path), config, resume)


def _train_run(
    config: RunConfig, folder: RunFolder, resume: bool, callbacks: Sequence[Callback], command: str
) -> TrainResult:
    if not resume and is_main_process():
        folder.check_empty()
    began = time.perf_counter()
    check_teacher(config)
    data = prepare(config)
    for note in data.notes:
        logger.info(note)
    trainer = make_trainer(data, folder, callbacks)
    if isinstance(trainer, PINNTrainer):
        validate_physics_terms(trainer)
    config = data.config.model_copy(update={"threads": tune_num_threads(trainer, data)})
    data = replace(data, config=config)
    if resume:
        check_same_recordings(data.config, data.fingerprint, folder.read_data()["fingerprint"])
    elif is_main_process():
        command = command or shlex.join(["whirl", "train", "--config", str(folder.config_file)])
        operating_range = OperatingRange.of(data.split.train).model_dump(mode="json")
        folder.initialize(
            config,
            data.summary() | {"operating_range": operating_range, "command": command, "timings_s": {}, "job": job_id()},
        )
    if rank():  # each process draws its own augmentations
        torch.manual_seed(config.seed + rank())
    prepared = time.perf_counter()
    # A Ctrl-C that comes while the report is made lets it finish: it takes seconds.
    with finish_batch_on_interrupt(trainer.state):
        _fit(trainer, config, folder, resume)
        if trainer.state.interrupted:
            return TrainResult(folder, None, interrupted_by=trainer.state.interrupted_by)
        if not is_main_process():
            return TrainResult(folder, {})
        load_weights(trainer.model, folder.best_checkpoint)
        folder.update_metadata(
            timings_s={"preparing the recordings": prepared - began, "training": time.perf_counter() - prepared}
        )
        task = evaluate_test_split(data, folder)
        return TrainResult(folder, evaluate_task(trainer.model, task, folder), tuple(task.warnings))


class _HistoryWriter(Callback):
    """Keeps `history.json` up to date; a full disk is a warning, for the checkpoints hold the history too."""

    rank_zero_only = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        try:
            write_json(self.folder.history_file, self.trainer.state.history)
        except OSError as error:
            logger.warning("%s: not written: %s", self.folder.history_file, error.strerror)


def make_trainer(data: PreparedData, folder: RunFolder | None, callbacks: Sequence[Callback] = ()) -> Trainer:
    """The network, its optimizer and schedule, and the trainer over the windows; nothing is saved without a folder.

    The default schedule, one-cycle (Smith & Topin 2019), lets the rate rise over the first 30 % of the steps and then
    fall to nearly nothing, which trains a small network in few epochs.
    """
    config = data.config
    train_windows = data.windows(data.split.train, config.hop)
    val_windows = data.windows(data.split.val)
    torch.manual_seed(config.seed)
    model: Any = new_model(config)
    if config.model == "patch_transformer" and isinstance(config.augment, str):
        model.patch_augmentation = PATCH_PRESETS[config.augment]()
    if config.sync_batchnorm:
        model = synchronize_batch_norm(model)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info("training %s (%d parameters) on %d windows", config.model, n_parameters, len(train_windows))
    # Several representations take a step each with every batch.
    kinds = config.representations or [""]
    loaders = {kind: _train_loader(maybe_cache_maps(train_windows, config, kind), data) for kind in kinds}
    val_loaders = {
        kind: make_loader(
            maybe_cache_maps(val_windows, config, kind),
            config.batch_size,
            shard=rank(),
            n_shards=world_size(),
            device=data.device,
        )
        for kind in kinds
    }
    n_steps = sum(map(len, loaders.values()))
    optimizer = create_optimizer(config.optimizer, model.parameters(), config.lr, config.weight_decay)
    parts: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "criterion": _criterion(config, train_windows.targets),
        "device": data.device,
        "callbacks": [*([] if folder is None else [_HistoryWriter(folder)]), *callbacks],
        "lr_scheduler": create_training_scheduler(config.schedule, optimizer, config.epochs or 1, n_steps),
        "mixed_precision": config.precision or False,
        "checkpoint_dir": None if folder is None else folder.checkpoints,
        "augmentation": None if config.augment is None else make_augmentation(config.augment),
        "checkpoint_every": None if folder is None else config.checkpoint_every,
        "on_nonfinite": config.on_nonfinite,
    }
    if config.progressive is not None:
        method = config.progressive_method
        trainer = ProgressiveResizingTrainer(schedule=config.progressive, resize_method=method, **parts)
        trainer.set_data(train_windows, val_windows, config.batch_size, config.num_workers, seed=config.seed)
        return trainer
    masks = {"use_specaugment": config.specaugment} | _mask_params(config)
    if isinstance(config.representation, list):
        return MultiTFRTrainer(train_loaders=loaders, val_loaders=val_loaders, **masks, **parts)
    parts |= {"train_loader": loaders[kinds[0]], "val_loader": val_loaders[kinds[0]]}
    if config.representation is not None:
        return SpectrogramTrainer(**masks, **parts)
    if config.teacher is not None:
        return make_distillation_trainer(parts, load_teacher(config.teacher, data), config.temperature, config.alpha)
    return CNNTrainer(**parts) if config.trainer == "cnn" else PINNTrainer(**parts, **_physics(data))


def _mask_params(config: RunConfig) -> dict[str, int]:
    """Widths of masks that suit the smallest of the configured maps."""
    made = [make_time_frequency(config, kind) for kind in config.representations]
    return mask_params(min(m.n_frequencies for m in made), min(m.n_times for m in made)) if made else {}


def _train_loader(windows: Windows, data: PreparedData) -> Any:
    config = data.config
    return make_loader(
        windows,
        config.batch_size,
        shuffle=True,
        seed=config.seed,
        num_workers=config.num_workers,
        # Batch normalisation cannot learn from a single window.
        drop_last=world_size() == 1 and len(windows) > config.batch_size and len(windows) % config.batch_size == 1,
        shard=rank(),
        n_shards=world_size(),
        device=data.device,
    )


def _physics(data: PreparedData) -> dict[str, Any]:
    """What a `PINNTrainer` needs besides."""
    config = data.config
    loader = None
    if data.unlabelled:
        # Another seed, or windows would always meet the same labelled ones where both parts are equally long.
        windows = data.windows(data.unlabelled, config.hop)
        loader = make_loader(
            windows, config.batch_size, shuffle=True, seed=config.seed + 1, shard=rank(), n_shards=world_size(),
            device=data.device,
        )  # fmt: skip
    return {
        "lambda_freq": config.lambda_freq,
        "lambda_sommerfeld": config.lambda_sommerfeld,
        "lambda_temporal": config.lambda_temporal,
        "lambda_schedule": config.lambda_schedule,
        "physics_loss": new_physics_loss(data, trust=True),
        "unlabeled_loader": loader,
    }


def validate_physics_terms(trainer: PINNTrainer) -> None:
    """Refuse what physics has nothing to say of, or cannot take, before anything is written."""
    with torch.random.fork_rng():
        batch = trainer.prepare_batch(next(iter(trainer.batches(trainer.train_loader))))
        outputs = batch.signals.new_zeros(len(batch.signals), trainer.physics_loss.frequency.n_classes)
        trainer.check_gradients_flow(outputs, batch.signals, batch.metadata)


def _criterion(config: RunConfig, targets: torch.Tensor) -> nn.Module:
    weights = compute_class_weights(targets, len(config.classes or ())) if config.class_weights else None
    if config.loss == "focal":
        return FocalLoss(weights)
    return create_criterion("ce", weight=weights, label_smoothing=config.label_smoothing)


def _fit(trainer: Trainer, config: RunConfig, folder: RunFolder, resume: bool) -> None:
    history = trainer.fit(config.epochs or 1, resume_from=_checkpoint_to_go_on_from(folder) if resume else None)
    if history and not math.isfinite(history["train_loss"][-1]):
        raise ValueError(f"{folder.path}: training diverged (its loss is no number); lower --lr and start a new run")


def tune_num_threads(trainer: Trainer, data: PreparedData) -> int:
    """Set the number of threads, and return it.

    The network sees an empty batch on the way, so a window it cannot take is refused before anything is written.
    """
    config = data.config
    model = copy.deepcopy(trainer.model)
    signals = torch.zeros(config.batch_size, len(config.channels or ()), config.window or 0, device=data.device)
    rpm = torch.full((config.batch_size,), config.rpm_range[1] if config.rpm_range else torch.nan, device=data.device)
    batch = Batch(signals, rpm, {"rpm": rpm})

    def step() -> None:
        with trainer.precision.context():
            outputs = call_model(model, batch)
        torch.autograd.grad(outputs.float().sum(), list(model.parameters()), allow_unused=True)

    # Several processes share the cores, and their layers may wait for one another.
    measures = data.device.type == "cpu" and world_size() == 1
    with torch.random.fork_rng():
        step()
        threads = config.threads or (fastest_thread_count(step) if measures else 1)
    torch.set_num_threads(threads)
    return threads


def _checkpoint_to_go_on_from(folder: RunFolder) -> Path | None:
    """None where the training stopped before its first checkpoint: then it begins anew."""
    if folder.can_be_resumed:
        return folder.last_checkpoint
    logger.info("%s: stopped before its first checkpoint; beginning anew", folder.path)
    return None
