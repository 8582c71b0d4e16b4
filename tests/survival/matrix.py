"""Every trainer with every callback and setting that has a state, small enough to be killed often."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset

from whirl.augment.advanced_augmentation import MixupAugmentation
from whirl.callbacks.callbacks import (
    EarlyStopping,
    LearningRateScheduler,
    MLflowLogger,
    ModelCheckpoint,
    TensorBoardLogger,
)
from whirl.callbacks.cnn_callbacks import (
    EarlyStoppingCallback,
    GradientMonitor,
    LearningRateMonitor,
    MetricLogger,
    ModelCheckpointCallback,
    TimingCallback,
)
from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.data.windows import WindowDataset
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.callbacks import Callback
from whirl.engine.distributed import rank, world_size
from whirl.models.multi_tfr import MultiTFR
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.training.cnn_trainer import CNNTrainer
from whirl.training.knowledge_distillation import DistillationLoss, DistillationTrainer
from whirl.training.mixed_precision import MixedPrecisionTrainer
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.progressive_resizing import ProgressiveResizingTrainer
from whirl.training.spectrogram_trainer import MultiTFRTrainer, SpectrogramTrainer
from whirl.training.trainer import Trainer

EPOCHS, BATCH, N_SAMPLES, WINDOW = 3, 6, 50, 512
RATE_HZ, PHYSICS_WINDOW = 2560, 2048


class NoisyData(Dataset[Any]):
    """Draws from all three global generators for every sample, wherever it is read."""

    def __len__(self) -> int:
        return N_SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.randn(1, WINDOW) * (1 + random.random()) + float(np.random.rand())  # noqa: NPY002
        return noise * (1 + index % 3), index % 3


class Drawing(Callback):
    """Draws in hooks; hooks that run twice after a resume must not change the random state."""

    def on_train_begin(self, logs: Any = None) -> None:
        torch.rand(1)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        torch.rand(1)

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        torch.rand(1)


def network(n_classes: int = 3, width: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, width, 9, stride=2), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool1d(4),
        nn.Flatten(), nn.Linear(4 * width, n_classes),
    )  # fmt: skip


def map_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip


@functools.cache
def windows() -> WindowDataset:
    noise = np.random.default_rng(0).normal(size=(N_SAMPLES, WINDOW))
    recordings = [Recording(noise[i] * (1 + i % 3), 1000.0, label=str(i % 3), source=str(i)) for i in range(N_SAMPLES)]
    return WindowDataset(recordings, ["0", "1", "2"], window=WINDOW, standardize=False)


@functools.cache
def journal_windows() -> WindowDataset:
    recordings = simulate(2, 1, seed=3, sampling_rate_hz=RATE_HZ, n_samples=3 * PHYSICS_WINDOW)
    return WindowDataset(recordings, JOURNAL_CLASSES, PHYSICS_WINDOW, hop=PHYSICS_WINDOW // 2)


def own_loader(data: WindowDataset | None = None, shuffle: bool = True, seed: int = 4, **options: Any) -> Any:
    """A loader of `make_loader`, with the shard of this process."""
    options = {"batch_size": BATCH // world_size(), "shard": rank(), "n_shards": world_size()} | options
    return make_loader(data or windows(), shuffle=shuffle, seed=seed, **options)


def plain_loader(workers: int = 0) -> DataLoader[Any]:
    return DataLoader(NoisyData(), batch_size=BATCH, shuffle=True, num_workers=workers)


def one_cycle(optimizer: torch.optim.Optimizer, steps: int = 9) -> lr_scheduler.LRScheduler:
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=steps * EPOCHS)


def plateau(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


def common(folder: Path, model: nn.Module, *more: Callback, **options: Any) -> dict[str, Any]:
    """Arguments of all trainers: an optimizer and callbacks with states, checkpoints within epochs."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = options.pop("schedule", None)
    callbacks = [
        Drawing(),
        EarlyStopping(patience=3),
        EarlyStoppingCallback("val_accuracy", patience=3, mode="max"),
        ModelCheckpoint(folder / "own.pt"),
        ModelCheckpointCallback(folder / "top", model, optimizer, save_top_k=2),
        MetricLogger(folder / "log.jsonl"),
        MetricLogger(folder / "log.json"),
        GradientMonitor(model, log_interval=3, alert_threshold=1e9),
        LearningRateMonitor(optimizer),
        TimingCallback(verbose=False),
        *(make(optimizer) for make in options.pop("by_optimizer", ())),
        *more,
    ]
    return {
        "optimizer": optimizer,
        "callbacks": callbacks,
        "device": "cpu",
        "checkpoint_dir": folder,
        "checkpoint_every": 2,
        "lr_scheduler": schedule and schedule(optimizer),
    } | options


def plain(folder: Path, model: nn.Module | None = None, kind: type[Trainer] = Trainer, **options: Any) -> Trainer:
    model = model or network()
    loaders = {"train_loader": own_loader(), "val_loader": own_loader(shuffle=False)}
    return kind(model, **loaders | common(folder, model, **options))


def accumulating(folder: Path, workers: int = 0) -> Trainer:
    """Accumulation windows of 3 batches, a one-cycle schedule in a callback, samples that draw."""
    schedule = [lambda optimizer: LearningRateScheduler(one_cycle(optimizer, steps=3))]
    loaders = {"train_loader": plain_loader(workers), "val_loader": plain_loader()}
    return plain(folder, gradient_accumulation_steps=3, by_optimizer=schedule, **loaders)


def cnn(folder: Path) -> Trainer:
    augmentation = MixupAugmentation(num_classes=3)
    return plain(
        folder, kind=CNNTrainer, train_loader=own_loader(num_workers=2), mixed_precision="bf16", schedule=plateau,
        augmentation=augmentation, max_grad_norm=0.1,
    )  # fmt: skip


def mixed(precision: str, folder: Path, **options: Any) -> Trainer:
    """The scale grows at every second step and overflows; a scheduler must not count skipped steps."""
    return plain(
        folder, kind=MixedPrecisionTrainer, criterion=None, precision=precision, init_scale=2.0**14, growth_interval=2,
        growth_factor=64.0, schedule=one_cycle, **options,
    )  # fmt: skip


def physics(balancing: str, folder: Path) -> Trainer:
    """All three terms, unlabeled windows, a balancer with a state (one of them draws)."""
    model = network(len(JOURNAL_CLASSES))
    data = journal_windows()
    batch_size = 16 // world_size()
    loaders = [own_loader(data, shuffle, batch_size=batch_size) for shuffle in (True, False)]
    return PINNTrainer(
        model, *loaders, sample_rate=RATE_HZ, balancing=balancing,
        unlabeled_loader=own_loader(data, seed=1, batch_size=8), gradient_accumulation_steps=2,
        **common(folder, model, schedule=plateau),
    )  # fmt: skip


def spectrogram(folder: Path) -> Trainer:
    model = TimeFrequencyNetwork(TimeFrequency("stft", 1000, 16, 16), map_network())
    return plain(
        folder, model, SpectrogramTrainer, time_mask_param=5, freq_mask_param=5, gradient_accumulation_steps=3,
        augmentation=MixupAugmentation(num_classes=3), schedule=one_cycle,
    )  # fmt: skip


def several_maps(folder: Path) -> Trainer:
    """A loader of `make_loader`, and one that draws its order from torch's global generator."""
    kinds = ("stft", "envelope")
    model = MultiTFR({k: TimeFrequency(k, 1000, 16, 16) for k in kinds}, {k: map_network() for k in kinds})
    other = DataLoader(windows(), batch_size=12, shuffle=True) if world_size() == 1 else own_loader(seed=5)
    train_loaders = {"stft": own_loader(), "envelope": other}
    val_loaders = {kind: own_loader(shuffle=False) for kind in kinds}
    options = common(folder, model, schedule=plateau, gradient_accumulation_steps=2)
    return MultiTFRTrainer(model, train_loaders, val_loaders, time_mask_param=5, freq_mask_param=5, **options)


def distilled(folder: Path, **options: Any) -> Trainer:
    teacher, student = network(width=8), network()
    options = common(folder, student, gradient_accumulation_steps=3, schedule=plateau) | options
    loaders = {"train_loader": own_loader(), "val_loader": own_loader(shuffle=False)}
    return DistillationTrainer(teacher, student, DistillationLoss(), **loaders | options)


def progressive(method: str, folder: Path, workers: int = 0) -> Trainer:
    model = network()
    stages = [(128, 1), (256, 1), (WINDOW, 1)]
    trainer = ProgressiveResizingTrainer(
        model, criterion=None, schedule=stages, resize_method=method, gradient_accumulation_steps=3,
        **common(folder, model, schedule=plateau, augmentation=MixupAugmentation(num_classes=3)),
    )  # fmt: skip
    trainer.set_data(windows(), windows(), BATCH, workers, seed=4)
    return trainer


def tracked(folder: Path) -> Trainer:
    """With experiment loggers; their stores have names and times of their own, so they are compared separately."""
    uri = f"sqlite:///{folder / 'runs.db'}"
    trackers = [TensorBoardLogger(folder / "board"), MLflowLogger("survival", tracking_uri=uri)]
    return plain(folder, by_optimizer=[lambda optimizer, tracker=tracker: tracker for tracker in trackers])


CASES: dict[str, Callable[[Path], Trainer]] = {
    "trainer": accumulating,
    "trainer-workers": functools.partial(accumulating, workers=2),
    "cnn": cnn,
    "fp16": functools.partial(mixed, "fp16"),
    "bf16": functools.partial(mixed, "bf16", gradient_accumulation_steps=3),
    "pinn-relobralo": functools.partial(physics, "relobralo"),
    "pinn-gradnorm": functools.partial(physics, "gradnorm"),
    "pinn-softadapt": functools.partial(physics, "softadapt"),
    "spectrogram": spectrogram,
    "multi-tfr": several_maps,
    "distilled-cached": functools.partial(distilled, cache_teacher=True),
    "distilled-hints": functools.partial(distilled, feature_hints={"0": "0"}),
    "progressive-interpolate": functools.partial(progressive, "interpolate", workers=2),
    "progressive-crop": functools.partial(progressive, "crop"),
}
"""A trainer that saves in a folder, by name."""

IN_SHORT = (
    "trainer",
    "cnn",
    "fp16",
    "pinn-relobralo",
    "spectrogram",
    "multi-tfr",
    "distilled-cached",
    "progressive-crop",
)
"""Cases of the short form: one of each kind."""

ON_TWO_RANKS = (
    "cnn", "fp16", "bf16", "pinn-relobralo", "spectrogram", "multi-tfr", "distilled-cached", "distilled-hints",
)  # fmt: skip
"""Cases whose loaders are split among processes."""


def new_trainer(case: str, folder: Path) -> Trainer:
    """Create the same trainer every time; each process has its own random state."""
    seed_all(3)
    trainer = tracked(folder) if case == "tracked" else CASES[case](folder)
    seed_all(4 + rank())
    return trainer


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
