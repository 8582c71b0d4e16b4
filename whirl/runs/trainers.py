"""From prepared data to a trainer: network, loaders, optimizer, schedule, and the trainer of the way of training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from whirl.augment.policies import make_augmentation
from whirl.augment.transformer_augmentation import (
    get_heavy_augmentation,
    get_light_augmentation,
    get_medium_augmentation,
)
from whirl.callbacks.callbacks import EarlyStopping
from whirl.data.loaders import balanced_weights, make_loader
from whirl.data.windows import WindowDataset, Windows
from whirl.engine.batch import Batch, call_model
from whirl.engine.callbacks import Callback
from whirl.engine.distributed import rank, synchronize_batch_norm, world_size
from whirl.engine.files import write_json
from whirl.engine.threads import fastest_thread_count
from whirl.losses.losses import compute_class_weights
from whirl.losses.registry import LOSSES
from whirl.losses.values import StandardizedLoss
from whirl.models.heads import ScaledOutput
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.layer_decay import get_layer_decay_groups
from whirl.optim.sam import SAM
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.runs.config import ResolvedConfig
from whirl.runs.data import PreparedData
from whirl.runs.descriptions import OFF
from whirl.runs.factory import new_model, new_physics_loss
from whirl.runs.maps import make_time_frequency, maybe_cache_maps
from whirl.runs.methods import (
    DistilledMethod,
    MapsMethod,
    PhysicsMethod,
    PlainMethod,
    ProgressiveMethod,
    RegisteredMethod,
)
from whirl.runs.pretrained import load_pretrained, unfreezing
from whirl.runs.run_folder import RunFolder
from whirl.runs.teacher import load_teacher, make_distillation_trainer
from whirl.training.cnn_trainer import CNNTrainer
from whirl.training.parts import trainable
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.progressive_resizing import ProgressiveResizingTrainer
from whirl.training.registry import TRAINERS
from whirl.training.spectrogram_trainer import MultiTFRTrainer, SpectrogramTrainer, mask_params
from whirl.training.trainer import Trainer

logger = logging.getLogger(__name__)

PATCH_PRESETS = {"light": get_light_augmentation, "medium": get_medium_augmentation, "heavy": get_heavy_augmentation}


class _HistoryWriter(Callback):
    """Keeps `history.json` up to date; a full disk only warns, because checkpoints hold the history too."""

    rank_zero_only = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        try:
            write_json(self.folder.history_file, self.trainer.state.history)
        except OSError as error:
            logger.warning("%s: not written: %s", self.folder.history_file, error.strerror)


def make_trainer(data: PreparedData, folder: RunFolder | None, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Make the network, its loaders, optimizer and schedule, and the trainer.

    Args:
        data: the prepared recordings with the resolved configuration.
        folder: the run folder; None saves nothing.
        callbacks: further callbacks.
    """
    config = data.config
    torch.manual_seed(config.run.seed)
    model = _network(config)
    has_new_head = load_pretrained(model, data)
    loaders = _Loaders(data)
    for head in (module for module in model.modules() if isinstance(module, ScaledOutput) and has_new_head):
        head.standardize(loaders.train_windows.targets)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "training %s (%d parameters) on %d windows", config.model_name, n_parameters, len(loaders.train_windows)
    )
    parts = _common_parts(data, folder, callbacks, model, loaders)
    return _MAKERS[type(config.training.method)](data, loaders, parts)


def _network(config: ResolvedConfig) -> nn.Module:
    model: Any = new_model(config)
    augment = config.input.augment
    if config.model_name == "patch_transformer" and isinstance(augment, str) and augment != OFF:
        transformer: Any = next(module for module in model.modules() if hasattr(module, "patch_augmentation"))
        transformer.patch_augmentation = PATCH_PRESETS[augment]()
    return synchronize_batch_norm(model) if config.run.sync_batchnorm else model


class _Loaders:
    """Windows and loaders of a run, by kind of maps; the kind of waveforms is the empty string."""

    def __init__(self, data: PreparedData) -> None:
        config = data.config
        self.train_windows = data.windows(data.split.train, config.input.hop)
        self.val_windows = data.windows(data.split.val)
        self.weights = _weights(self.train_windows, data)
        # Several representations take a step each with every batch.
        self.kinds = config.representations or [""]
        self.train = {
            kind: _train_loader(maybe_cache_maps(self.train_windows, config, kind), data, self.weights)
            for kind in self.kinds
        }
        self.val = {kind: _val_loader(maybe_cache_maps(self.val_windows, config, kind), data) for kind in self.kinds}

    @property
    def single(self) -> dict[str, Any]:
        """Training and validation loader where there is one kind of input."""
        return {"train_loader": self.train[self.kinds[0]], "val_loader": self.val[self.kinds[0]]}


def _weights(windows: WindowDataset, data: PreparedData) -> torch.Tensor | None:
    """Return the weights with which training windows are drawn; None draws each once per epoch."""
    by = data.config.training.balance
    if by == OFF:
        return None
    if by == "specimen":
        return balanced_weights(_specimen_numbers(data)[windows.recording_index])
    return balanced_weights(windows.targets if by == "class" else windows.recording_index)


def _specimen_numbers(data: PreparedData) -> torch.Tensor:
    """Return the number of each training recording's specimen."""
    specimens = [recording.specimen for recording in data.split.train]
    if None in specimens:
        raise ValueError("balance 'specimen' requires the specimen of every recording: add a column specimen")
    numbers = {specimen: number for number, specimen in enumerate(dict.fromkeys(specimens))}
    return torch.tensor([numbers[specimen] for specimen in specimens])


def _train_loader(windows: Windows, data: PreparedData, weights: torch.Tensor | None) -> Any:
    config, size = data.config, data.config.training.batch_size
    return make_loader(
        windows,
        size,
        shuffle=True,
        seed=config.run.seed,
        num_workers=config.run.num_workers,
        # Batch normalization cannot learn from a single window.
        drop_last=world_size() == 1 and len(windows) > size and len(windows) % size == 1,
        shard=rank(),
        n_shards=world_size(),
        device=data.device,
        weights=weights,
    )


def _val_loader(windows: Windows, data: PreparedData) -> Any:
    size = data.config.training.batch_size
    return make_loader(windows, size, shard=rank(), n_shards=world_size(), device=data.device)


def _common_parts(
    data: PreparedData, folder: RunFolder | None, callbacks: Sequence[Callback], model: nn.Module, loaders: _Loaders
) -> dict[str, Any]:
    """Keyword arguments that every trainer takes.

    The default schedule, one-cycle (Smith & Topin 2019), raises the learning rate over the first 30 % of the steps and
    then lowers it to nearly nothing, which trains a small network in few epochs.
    """
    config, training = data.config, data.config.training
    groups = get_layer_decay_groups(model, training.lr, training.layer_decay)
    parameters = model.parameters() if training.layer_decay == 1 else groups
    optimizer = create_optimizer(training.optimizer, parameters, training.lr, training.weight_decay)
    optimizer = SAM(optimizer, training.sam_rho) if training.sam_rho else optimizer
    n_steps = sum(map(len, loaders.train.values()))
    every = config.run.checkpoint_every
    return {
        "model": model,
        "optimizer": optimizer,
        "criterion": _criterion(config, loaders.train_windows.targets),
        "device": data.device,
        "callbacks": [*([] if folder is None else [_HistoryWriter(folder)]), *_regular_callbacks(config), *callbacks],
        "lr_scheduler": create_training_scheduler(training.schedule, optimizer, training.epochs, n_steps),
        "mixed_precision": config.run.precision,
        "checkpoint_dir": None if folder is None else folder.checkpoints,
        "augmentation": None if config.input.augment == OFF else make_augmentation(config.input.augment),
        "checkpoint_every": None if folder is None or every == OFF else every,
        "on_nonfinite": config.run.on_nonfinite,
        **({"metrics": ["mae", "rmse", "r2"]} if config.is_regression else {}),
        **{name: True for name in ("compile", "deterministic") if getattr(config.run, name)},
    }


def _regular_callbacks(config: ResolvedConfig) -> list[Callback]:
    patience = config.training.early_stopping
    return [*unfreezing(config), *([] if patience == OFF else [EarlyStopping(patience=int(patience))])]


def _criterion(config: ResolvedConfig, targets: torch.Tensor) -> Callable[..., torch.Tensor]:
    training = config.training
    if config.is_regression:
        return StandardizedLoss(training.loss, float(targets.double().std(correction=0)))
    weights = compute_class_weights(targets, len(config.data.classes)) if training.class_weights else None
    return LOSSES.get(training.loss)(weight=weights, label_smoothing=training.label_smoothing)


# -- one maker for each way of training ----------------------------------------------------------------------


def _make_plain(data: PreparedData, loaders: _Loaders, parts: dict[str, Any]) -> Trainer:
    return CNNTrainer(**parts, **loaders.single)


def _make_physics(data: PreparedData, loaders: _Loaders, parts: dict[str, Any]) -> Trainer:
    method: Any = data.config.training.method
    weights = {
        name: getattr(method, name)
        for name in ("lambda_freq", "lambda_sommerfeld", "lambda_temporal", "lambda_schedule")
    }
    return PINNTrainer(
        **parts,
        **loaders.single,
        **weights,
        physics_loss=new_physics_loss(data, trust=True),
        unlabeled_loader=_unlabeled_loader(data),
    )


def _unlabeled_loader(data: PreparedData) -> Any:
    if not data.unlabeled:
        return None
    config = data.config
    return make_loader(
        data.windows(data.unlabeled, config.input.hop),
        config.training.batch_size,
        shuffle=True,
        # Another seed: with the same one, parts of equal length would always pair the same windows.
        seed=config.run.seed + 1,
        shard=rank(),
        n_shards=world_size(),
        device=data.device,
    )


def _make_maps(data: PreparedData, loaders: _Loaders, parts: dict[str, Any]) -> Trainer:
    method: Any = data.config.training.method
    masks = {"use_specaugment": method.specaugment} | _mask_params(data.config)
    if data.config.has_several_maps:
        return MultiTFRTrainer(train_loaders=loaders.train, val_loaders=loaders.val, **masks, **parts)
    return SpectrogramTrainer(**masks, **parts, **loaders.single)


def _mask_params(config: ResolvedConfig) -> dict[str, int]:
    """Return widths of masks that suit the smallest of the configured maps."""
    made = [make_time_frequency(config, kind) for kind in config.representations]
    return mask_params(min(m.n_frequencies for m in made), min(m.n_times for m in made))


def _make_distilled(data: PreparedData, loaders: _Loaders, parts: dict[str, Any]) -> Trainer:
    method: Any = data.config.training.method
    teacher = load_teacher(method.teacher, data)
    return make_distillation_trainer(parts | loaders.single, teacher, method.temperature, method.alpha)


def _make_progressive(data: PreparedData, loaders: _Loaders, parts: dict[str, Any]) -> Trainer:
    method: Any = data.config.training.method
    config = data.config
    trainer = ProgressiveResizingTrainer(schedule=method.stages, resize_method=method.resize, **parts)
    trainer.set_data(
        loaders.train_windows,
        loaders.val_windows,
        config.training.batch_size,
        config.run.num_workers,
        seed=config.run.seed,
        weights=loaders.weights,
    )
    return trainer


def _make_registered(data: PreparedData, loaders: _Loaders, parts: dict[str, Any]) -> Trainer:
    method: Any = data.config.training.method
    return TRAINERS.get(method.kind)(**parts, **loaders.single, **method.options)


_MAKERS: dict[type, Callable[[PreparedData, _Loaders, dict[str, Any]], Trainer]] = {
    PlainMethod: _make_plain,
    PhysicsMethod: _make_physics,
    MapsMethod: _make_maps,
    DistilledMethod: _make_distilled,
    ProgressiveMethod: _make_progressive,
    RegisteredMethod: _make_registered,
}


# -- checks before anything is written -----------------------------------------------------------------------


def validate_physics_terms(trainer: PINNTrainer) -> None:
    """Raise if a physics term cannot act on the data, before anything is written."""
    with torch.random.fork_rng():
        batch = trainer.prepare_batch(next(iter(trainer.batches(trainer.train_loader))))
        outputs = batch.signals.new_zeros(len(batch.signals), trainer.physics_loss.frequency.n_classes)
        trainer.check_gradients_flow(outputs, batch.signals, batch.metadata)


def tune_num_threads(trainer: Trainer, data: PreparedData, stated: int | None = None) -> int:
    """Set the number of CPU threads, and return it.

    The network sees an empty batch, so a window that it cannot take is refused before anything is written.

    Args:
        trainer: the trainer.
        data: the prepared data.
        stated: the number of threads; None measures which is fastest.
    """
    config = data.config
    model = copy.deepcopy(trainer.model)
    size = config.training.batch_size
    signals = torch.zeros(size, len(config.data.channels), config.input.window, device=data.device)
    rpm = torch.full((size,), config.speed_range[1] if config.speed_range else torch.nan, device=data.device)
    batch = Batch(signals, rpm, {"rpm": rpm})

    def step() -> None:
        with trainer.precision.context():
            outputs = call_model(model, batch)
        torch.autograd.grad(outputs.float().sum(), list(trainable([model])), allow_unused=True)

    # Several processes share the cores, and their layers may wait for one another.
    measures = data.device.type == "cpu" and world_size() == 1
    with torch.random.fork_rng():
        step()
        threads = stated or (fastest_thread_count(step) if measures else 1)
    torch.set_num_threads(threads)
    return threads
