"""A whole epoch, training and validation, of `wdcnn` over windows of long recordings: ours against Lightning.

Why: single ratios, of loading, of the loop, of convolutions, do not say how long somebody waits for a trained network.

What: 5592 training and 1398 validation windows of 2048 samples, cut from 60 recordings of about 120,000 samples as
CWRU's are, standardised window by window, ten classes, batches of 64. Both report loss, accuracy and macro F1 of
training and validation.

- ours: `WindowDataset`, `make_loader`, `wdcnn`, `Trainer` as they come, and a `MetricsTracker`.
- Lightning as it is usually written: a data set that cuts one window per index and standardises it in NumPy, default
  collate, the same network out of `Conv1d`, AdamW, torchmetrics' collection of accuracy and F1, everything logged per
  epoch.

`epoch_vs_lightning` is ours over Lightning. Processor time from the beginning of an epoch to its end on one thread and
without workers; the two take turns in one process, and the ratio is the median over the rounds of the ratio within a
round. Needs the `bench` extra.

    python benchmarks/epoch.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
import torchmetrics
from loop_overhead import median_ratio, silence
from networks import N_CLASSES, eager_wdcnn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback, Logs
from whirl.metrics import MetricsTracker
from whirl.models.registry import create_model
from whirl.training.trainer import Trainer

WINDOW, HOP, BATCH_SIZE, ROUNDS = 2048, 1024, 64, 7
CLASSES = [f"class {index}" for index in range(N_CLASSES)]
GOALS = {"epoch_vs_lightning": "<= 0.55"}


def make_recordings(count: int, first: int) -> list[Recording]:
    """Noise with a tone that tells the class; 116 and 117 windows in turn."""
    rng = np.random.default_rng(first)
    recordings = []
    for index in range(first, first + count):
        time_s = np.arange(WINDOW + HOP * (115 + index % 2)) / 12_000
        signal = rng.normal(size=time_s.size) + 0.5 * np.sin(2 * np.pi * 300 * (1 + index % N_CLASSES) * time_s)
        label = CLASSES[index % N_CLASSES]
        recordings.append(Recording(signal, sampling_rate_hz=12_000, label=label, rpm=1797))
    return recordings


class Clock:
    """Processor time of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def begin(self) -> None:
        self.began = time.process_time()

    def end(self) -> None:
        self.seconds.append(time.process_time() - self.began)


class OurHooks(Callback):
    """Run the clock; read the counts at the epoch's end."""

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
    """Run the clock; Lightning validates before the training epoch ends."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_epoch_start(self, *_: object) -> None:
        self.clock.begin()

    def on_train_epoch_end(self, *_: object) -> None:
        self.clock.end()


class CountingTrainer(Trainer):
    """Also counts what F1 is made of."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.metrics = {training: MetricsTracker(N_CLASSES) for training in (True, False)}

    def compute_loss(self, outputs: Tensor, targets: Tensor, *inputs: Any) -> Any:
        self.metrics[self.model.training].update(outputs, targets)
        return super().compute_loss(outputs, targets, *inputs)


def ours(train: list[Recording], val: list[Recording]) -> tuple[Clock, Callable[[], float]]:
    loaders = (
        make_loader(WindowDataset(train, CLASSES, WINDOW, HOP), BATCH_SIZE, shuffle=True),
        make_loader(WindowDataset(val, CLASSES, WINDOW, HOP), BATCH_SIZE),
    )
    hooks = OurHooks(Clock())
    trainer = CountingTrainer(create_model("wdcnn", N_CLASSES), *loaders, device="cpu", callbacks=[hooks])

    def epoch() -> float:
        trainer.fit(1)
        return hooks.f1_score

    return hooks.clock, epoch


class MapStyleDataset(Dataset):
    """One window at a time, standardised in NumPy."""

    def __init__(self, recordings: list[Recording]) -> None:
        self.recordings = recordings
        self.places = [
            (index, start)
            for index, recording in enumerate(recordings)
            for start in range(0, recording.n_samples - WINDOW + 1, HOP)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        recording, start = self.places[index]
        signal = self.recordings[recording].signal[:, start : start + WINDOW]
        signal = (signal - signal.mean(axis=-1, keepdims=True)) / signal.std(axis=-1, keepdims=True)
        return signal, CLASSES.index(str(self.recordings[recording].label))


class LightningWDCNN(lightning.LightningModule):
    """WDCNN as its Lightning module is usually written."""

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


def usual(train: list[Recording], val: list[Recording]) -> tuple[Clock, Callable[[], float]]:
    loaders = DataLoader(MapStyleDataset(train), BATCH_SIZE, shuffle=True), DataLoader(MapStyleDataset(val), BATCH_SIZE)
    clock, module = Clock(), LightningWDCNN()

    def epoch() -> float:
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, num_sanity_val_steps=0,
            callbacks=[LightningHooks(clock)],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, *loaders)
        return float(trainer.callback_metrics["val_f1"])

    return clock, epoch


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    silence()
    train, val = make_recordings(48, first=0), make_recordings(12, first=48)
    variants = {"ours": ours(train, val), "lightning": usual(train, val)}
    for number in range(ROUNDS + 1):
        scores = {name: epoch() for name, (_, epoch) in variants.items()}
        print(f"round {number}: " + ", ".join(f"{name} F1 {score:.3f}" for name, score in scores.items()))
    seconds = {name: clock.seconds[1:] for name, (clock, _) in variants.items()}  # the first, cold round does not count
    for name, values in seconds.items():
        print(f"{name:10s} {statistics.median(values):6.2f} s an epoch")
    ratios = {"epoch_vs_lightning": median_ratio(seconds["ours"], seconds["lightning"])}
    print(json.dumps({"ratios": ratios, "goals": GOALS}))


if __name__ == "__main__":
    main()
