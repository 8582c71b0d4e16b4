"""Time of a complete epoch of `wdcnn`, training and validation, compared with Lightning.

Why: ratios of loading, of the loop and of convolutions do not show how long a complete training takes.

What: 5592 training and 1398 validation windows of 2048 samples, cut from 60 recordings of about 120,000 samples (as
long as those of CWRU), standardized window by window, ten classes, batches of 64, on one thread and without workers.
Both sides report loss, accuracy and macro F1 of training and validation.

- `ours`: `WindowDataset`, `make_loader`, `wdcnn` and `Trainer` with their defaults, and a `MetricsTracker`.
- `lightning`: a data set that cuts one window per index and standardizes it in NumPy, default collate, the same network
  built from `Conv1d`, AdamW, torchmetrics' collection of accuracy and F1, everything logged per epoch.

`epoch_vs_lightning` is ours over Lightning, in processor time from the beginning of an epoch to its end. Needs the
`bench` extra.

    python benchmarks/epoch.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
import torchmetrics
from _harness import configure, interleave, make_parser, median_ratio, print_medians, print_results
from networks import N_CLASSES, eager_wdcnn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from whirl.data import Recording, WindowDataset, make_loader
from whirl.engine.callbacks import Callback, Logs
from whirl.metrics import MetricsTracker
from whirl.models import create_model
from whirl.training import Trainer

WINDOW, HOP, BATCH_SIZE, ROUNDS = 2048, 1024, 64, 7
CLASSES = [f"class {index}" for index in range(N_CLASSES)]
GOALS = {"epoch_vs_lightning": "<= 0.55"}


def make_recordings(count: int, first: int) -> list[Recording]:
    """Return noise with a tone whose frequency is that of the class; 116 and 117 windows alternately."""
    rng = np.random.default_rng(first)
    recordings = []
    for index in range(first, first + count):
        time_s = np.arange(WINDOW + HOP * (115 + index % 2)) / 12_000
        signal = rng.normal(size=time_s.size) + 0.5 * np.sin(2 * np.pi * 300 * (1 + index % N_CLASSES) * time_s)
        label = CLASSES[index % N_CLASSES]
        recordings.append(Recording(signal, sampling_rate_hz=12_000, label=label, rpm=1797))
    return recordings


class Clock:
    """Processor time of the last epoch."""

    def begin(self) -> None:
        self.start = time.process_time()

    def end(self) -> None:
        self.seconds = time.process_time() - self.start


class OurHooks(Callback):
    """Runs the clock, and reads the counts at the end of an epoch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.clock.begin()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for tracker in self.trainer.metrics.values():
            self.f1_score = tracker.compute()["f1_score"]
            tracker.reset()
        self.clock.end()


class LightningHooks(lightning.Callback):
    """Runs the clock; Lightning validates before the training epoch ends."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_epoch_start(self, *_: object) -> None:
        self.clock.begin()

    def on_train_epoch_end(self, *_: object) -> None:
        self.clock.end()


class CountingTrainer(Trainer):
    """Counts true and predicted classes for F1 as well."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.metrics = {training: MetricsTracker(N_CLASSES) for training in (True, False)}

    def compute_loss(self, outputs: Tensor, targets: Tensor, *inputs: Any) -> Any:
        self.metrics[self.model.training].update(outputs, targets)
        return super().compute_loss(outputs, targets, *inputs)


def ours(train: list[Recording], val: list[Recording]) -> Callable[[], float]:
    loaders = (
        make_loader(WindowDataset(train, CLASSES, WINDOW, HOP), BATCH_SIZE, shuffle=True),
        make_loader(WindowDataset(val, CLASSES, WINDOW, HOP), BATCH_SIZE),
    )
    hooks = OurHooks(Clock())
    trainer = CountingTrainer(create_model("wdcnn", N_CLASSES), *loaders, device="cpu", callbacks=[hooks])

    def epoch_s() -> float:
        trainer.fit(1)
        print(f"ours: macro F1 {hooks.f1_score:.3f}")
        return hooks.clock.seconds

    return epoch_s


class MapStyleDataset(Dataset):
    """Cuts one window per index and standardizes it in NumPy."""

    def __init__(self, recordings: list[Recording]) -> None:
        self.recordings = recordings
        self.windows = [
            (index, start)
            for index, recording in enumerate(recordings)
            for start in range(0, recording.n_samples - WINDOW + 1, HOP)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        recording, start = self.windows[index]
        signal = self.recordings[recording].signal[:, start : start + WINDOW]
        signal = (signal - signal.mean(axis=-1, keepdims=True)) / signal.std(axis=-1, keepdims=True)
        return signal, CLASSES.index(str(self.recordings[recording].label))


class LightningWDCNN(lightning.LightningModule):
    """WDCNN as a Lightning module."""

    def __init__(self) -> None:
        super().__init__()
        self.network = eager_wdcnn()
        self.criterion = nn.CrossEntropyLoss()
        scores = torchmetrics.MetricCollection(
            {
                "accuracy": torchmetrics.classification.MulticlassAccuracy(N_CLASSES, average="micro"),
                "f1": torchmetrics.classification.MulticlassF1Score(N_CLASSES, average="macro"),
            }
        )
        self.train_scores, self.val_scores = scores.clone("train_"), scores.clone("val_")

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return self._step(batch, "train_loss", self.train_scores)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return self._step(batch, "val_loss", self.val_scores)

    def _step(self, batch: tuple[Tensor, Tensor], name: str, scores: torchmetrics.MetricCollection) -> Tensor:
        signals, targets = batch
        logits = self.network(signals)
        loss = self.criterion(logits, targets)
        scores.update(logits, targets)
        self.log(name, loss, on_step=False, on_epoch=True)
        self.log_dict(scores, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def with_lightning(train: list[Recording], val: list[Recording]) -> Callable[[], float]:
    loaders = DataLoader(MapStyleDataset(train), BATCH_SIZE, shuffle=True), DataLoader(MapStyleDataset(val), BATCH_SIZE)
    clock, module = Clock(), LightningWDCNN()

    def epoch_s() -> float:
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, num_sanity_val_steps=0,
            callbacks=[LightningHooks(clock)],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, *loaders)
        print(f"lightning: macro F1 {float(trainer.callback_metrics['val_f1']):.3f}")
        return clock.seconds

    return epoch_s


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    torch.manual_seed(0)
    train, val = make_recordings(48, first=0), make_recordings(12, first=48)
    timers = {"ours": ours(train, val), "lightning": with_lightning(train, val)}
    seconds = interleave(timers, arguments.rounds)
    print_medians(seconds, "s", "epoch")
    print_results({"epoch_vs_lightning": median_ratio(seconds["ours"], seconds["lightning"])}, GOALS)


if __name__ == "__main__":
    main()
