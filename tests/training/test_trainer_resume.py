"""Killed, interrupted and resumed training runs end with the same bits as an uninterrupted one."""

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from whirl.augment.advanced_augmentation import MixupAugmentation
from whirl.callbacks.callbacks import EarlyStopping, ModelCheckpoint
from whirl.callbacks.cnn_callbacks import (
    GradientMonitor,
    LearningRateMonitor,
    MetricLogger,
    ModelCheckpointCallback,
)
from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.training.cnn_trainer import CNNTrainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals")
EPOCHS = 3
TIMEOUT_S = 240
FORK = multiprocessing.get_context("fork")


class NoisyData(Dataset):
    """Draws from all three global generators for every sample, wherever it is read."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        level = 1 + index % 3
        return level * torch.randn(1, 32) * (1 + random.random()) + float(np.random.rand()), index % 3  # noqa: NPY002


def own_loader():
    """A loader of `make_loader` over recordings, which reads whole batches."""
    noise = np.random.default_rng(0).normal(size=(50, 32))
    recordings = [Recording(noise[i] * (1 + i % 3), 100.0, label=str(i % 3), source=str(i)) for i in range(50)]
    return make_loader(WindowDataset(recordings, ["0", "1", "2"], window=32), batch_size=6, shuffle=True, seed=4)


class Drawing(Callback):
    """Draws in hooks; what hooks draw twice after a resume must not count twice."""

    def on_train_begin(self, logs=None):
        torch.rand(1)

    def on_epoch_begin(self, epoch, logs=None):
        torch.rand(1)


def new_trainer(folder, workers=0, own=False, scheduler=None, **options):
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    model = nn.Sequential(
        nn.Conv1d(1, 4, 5), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(112, 3)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = scheduler and scheduler(optimizer)
    callbacks = [
        Drawing(),
        EarlyStopping(patience=2),
        ModelCheckpoint(folder / "own.pt"),
        ModelCheckpointCallback(folder / "top", model, optimizer, save_top_k=2),
        MetricLogger(folder / "log.jsonl"),
        GradientMonitor(model, log_interval=3, alert_threshold=1e9),
        LearningRateMonitor(optimizer),
    ]
    loader = own_loader() if own else DataLoader(NoisyData(), batch_size=6, shuffle=True, num_workers=workers)
    options = {"mixed_precision": False, "checkpoint_every": 2, **options}
    return CNNTrainer(
        model, loader, DataLoader(NoisyData(), batch_size=25), optimizer, device="cpu", callbacks=callbacks,
        lr_scheduler=schedule, checkpoint_dir=folder, **options,
    )  # fmt: skip


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=9 * EPOCHS)


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


def everything(folder):
    """Return what must be equal: the last checkpoint without times, files of callbacks, the log."""

    def plain(value, name=""):
        if isinstance(value, torch.Tensor):
            return value.tolist()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if "time" not in str(key)}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value)  # so that NaN equals NaN

    checkpoint = torch.load(folder / "last.pt", weights_only=True)
    checkpoint["training"]["callbacks"].pop("ModelCheckpoint:0")  # has the path of the folder
    assert not [*folder.glob(".last.*"), *folder.glob(".best.*")]
    # A callback's file that was being written when the process was killed has left a hidden one.
    files = sorted(p.name for p in folder.rglob("*") if p.name != "previous.pt" and not p.name.startswith("."))
    own = torch.load(folder / "own.pt", weights_only=True)["model"]
    log = [line.split(', "epoch_time_s"')[0] for line in (folder / "log.jsonl").read_text().splitlines()]
    return plain(checkpoint), plain(own), files, log


def run(folder, options, *callbacks):
    torch.set_num_threads(1)
    trainer = new_trainer(folder, **options)
    for callback in callbacks:
        trainer.callbacks.append(callback)
    last = folder / "last.pt"
    resume_from = last if last.exists() else None
    trainer.fit(EPOCHS, resume_from=resume_from)


CASES = {
    "accumulation and one-cycle": {"gradient_accumulation_steps": 4, "scheduler": one_cycle},
    "own loader, bf16 and mixup": {
        "own": True, "mixed_precision": "bf16", "augmentation": MixupAugmentation(num_classes=3),
    },
    "fp16 and plateau": {"mixed_precision": "fp16", "scheduler": plateau, "checkpoint_every": "0.01s"},
    "two workers": {"workers": 2, "max_grad_norm": 0.1},
}  # fmt: skip


class KillAt(Callback):
    """Kills the process after a number of batches of this process."""

    def __init__(self, n_batches):
        self.left = n_batches

    def on_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run_and_kill(folder, options, n_batches):
    # A group of its own, because a worker whose parent dies while it starts does not notice and lives on.
    os.setpgrp()
    run(folder, options, KillAt(n_batches))


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_run_ends_with_the_same_bits(tmp_path, case):
    """SIGKILL in a process of its own, twice after a random number of batches; tests/survival kills at any moment."""
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    uninterrupted.mkdir()
    killed.mkdir()
    options = CASES[case]
    run(uninterrupted, options)
    draw = random.Random(case)
    for _ in range(2):
        process = FORK.Process(target=run_and_kill, args=(killed, options, draw.randint(3, 12)))
        process.start()
        process.join(TIMEOUT_S)
        assert process.exitcode == -signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    run(killed, options)
    assert everything(killed) == everything(uninterrupted)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batch", [0, 4, 8])
def test_signal_finishes_the_accumulation_window(tmp_path, signum, batch):
    """Windows of 4 batches; the ninth and last batch of an epoch closes an unfinished one."""
    uninterrupted, interrupted = tmp_path / "uninterrupted", tmp_path / "interrupted"
    options = CASES["accumulation and one-cycle"] | {"checkpoint_every": None}
    for folder in (uninterrupted, interrupted):
        folder.mkdir()
    run(uninterrupted, options)

    class RaiseSignal(Callback):
        def on_batch_end(self, index, logs=None):
            if (self.trainer.state.epoch, index) == (1, batch):
                signal.raise_signal(signum)

    trainer = new_trainer(interrupted, **options)
    trainer.callbacks.append(RaiseSignal())
    with finish_batch_on_interrupt(trainer.state):
        trainer.fit(EPOCHS)
    assert trainer.state.interrupted
    assert trainer.state.interrupted_by == signum
    assert trainer.state.batch in (4, 8, 9)
    run(interrupted, options)
    assert everything(interrupted) == everything(uninterrupted)


def fit_until_signaled(folder, options, is_training):
    torch.set_num_threads(1)
    trainer = new_trainer(folder, **options)
    trainer.callbacks.append(lambda trainer, logs: is_training.set())
    os.setpgrp()
    with finish_batch_on_interrupt(trainer.state):
        trainer.fit(10**6)
    sys.exit(128 + trainer.state.interrupted_by)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_to_the_process_group_saves_and_stops(tmp_path, signum, code):
    """As a scheduler or a terminal sends it: the workers of the loader die, the training saves and stops."""
    is_training = FORK.Event()
    process = FORK.Process(target=fit_until_signaled, args=(tmp_path, {"workers": 2}, is_training))
    process.start()
    assert is_training.wait(TIMEOUT_S)
    os.killpg(process.pid, signum)
    process.join(TIMEOUT_S)
    assert process.exitcode == code
    assert not list(tmp_path.glob(".*"))
    trainer = new_trainer(tmp_path, workers=2)
    trainer.load_checkpoint(tmp_path / "last.pt")
    assert trainer.state.epoch >= 1


def fit_with_an_endless_batch(folder, is_in_batch, is_requested):
    class Endless(Callback):
        """Never ends its batch; reports the first signal."""

        def on_batch_end(self, batch, logs=None):
            is_in_batch.set()
            while True:
                if self.trainer.state.interrupted:
                    is_requested.set()
                time.sleep(0.01)

    trainer = new_trainer(folder)
    trainer.fit(1)
    trainer.callbacks.append(Endless())
    with finish_batch_on_interrupt(trainer.state):
        trainer.fit(1)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_immediately_with_an_intact_checkpoint(tmp_path, second):
    is_in_batch, is_requested = FORK.Event(), FORK.Event()
    process = FORK.Process(target=fit_with_an_endless_batch, args=(tmp_path, is_in_batch, is_requested))
    process.start()
    assert is_in_batch.wait(TIMEOUT_S)
    os.kill(process.pid, signal.SIGTERM)
    assert is_requested.wait(TIMEOUT_S)
    os.kill(process.pid, second)
    process.join(TIMEOUT_S)
    assert process.exitcode == (143 if second == signal.SIGTERM else 1)  # multiprocessing reports Ctrl-C as 1
    trainer = new_trainer(tmp_path)
    trainer.load_checkpoint(tmp_path / "last.pt")
    assert trainer.state.epoch == 1


def test_continued_epoch_does_not_record_the_learning_rate_again(tmp_path):
    trainer = new_trainer(tmp_path, scheduler=one_cycle)
    trainer.fit(1)
    trainer.callbacks.append(StopIn(4))
    trainer.fit(1)
    trainer.state.interrupted = False
    trainer.fit(1)
    monitor = next(callback for callback in trainer.callbacks if isinstance(callback, LearningRateMonitor))
    rates = [rate for [rate] in monitor.history.values()]
    expected = one_cycle(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
    closed_form = []
    for _ in range(2):
        closed_form.append(expected.get_last_lr()[0])
        for _ in range(9):
            expected.optimizer.step()
            expected.step()
    assert rates == pytest.approx(closed_form)


class StopIn(Callback):
    def __init__(self, batch):
        self.batch = batch

    def on_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.trainer.state.interrupted = True
            self.batch = None
