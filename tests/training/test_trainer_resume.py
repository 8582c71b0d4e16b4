"""A training killed at any moment, and resumed, ends in the bits of one that was left alone."""

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


class NoisyData(Dataset):
    """Draws from all three global generators for every sample, wherever it is read."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        level = 1 + index % 3
        return level * torch.randn(1, 32) * (1 + random.random()) + float(np.random.rand()), index % 3  # noqa: NPY002


def own_loader():
    """Ours, over recordings: a batch is cut whole."""
    noise = np.random.default_rng(0).normal(size=(50, 32))
    recordings = [Recording(noise[i] * (1 + i % 3), 100.0, label=str(i % 3), source=str(i)) for i in range(50)]
    return make_loader(WindowDataset(recordings, ["0", "1", "2"], window=32), batch_size=6, shuffle=True, seed=4)


class Slow(Callback):
    """Gives a killer time, and draws where hooks may draw."""

    def __init__(self, pause):
        self.pause = pause

    def on_train_begin(self, logs=None):
        torch.rand(1)

    def on_epoch_begin(self, epoch, logs=None):
        torch.rand(1)

    def on_batch_end(self, batch, logs=None):
        time.sleep(self.pause)


def new_trainer(folder, pause=0.0, workers=0, own=False, scheduler=None, **options):
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    model = nn.Sequential(
        nn.Conv1d(1, 4, 5), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(112, 3)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = scheduler and scheduler(optimizer)
    callbacks = [
        Slow(pause),
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
    """What must be equal: the whole last checkpoint but for times, the files of callbacks, the log."""

    def plain(value, name=""):
        if isinstance(value, torch.Tensor):
            return value.tolist()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if "time" not in str(key)}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value)  # nan equals itself then

    checkpoint = torch.load(folder / "last.pt", weights_only=True)
    checkpoint["training"]["callbacks"].pop("ModelCheckpoint:0")  # holds the folder's name
    assert not [*folder.glob(".last.*"), *folder.glob(".best.*")]
    # A callback's file that was being written when the process was killed leaves a hidden one.
    files = sorted(p.name for p in folder.rglob("*") if p.name != "previous.pt" and not p.name.startswith("."))
    own = torch.load(folder / "own.pt", weights_only=True)["model"]
    log = [line.split(', "epoch_time_s"')[0] for line in (folder / "log.jsonl").read_text().splitlines()]
    return plain(checkpoint), plain(own), files, log


def run(folder, options):
    torch.set_num_threads(1)
    trainer = new_trainer(folder, **options)
    last = folder / "last.pt"
    resume_from = last if last.exists() else None
    trainer.fit(EPOCHS, resume_from=resume_from)


def in_own_process(folder, options):
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder, options))
    process.start()
    # A group of its own, because a worker whose parent dies while it starts does not notice and lives for ever.
    os.setpgid(process.pid, process.pid)
    return process


CASES = {
    "accumulation and one-cycle": {"gradient_accumulation_steps": 4, "scheduler": one_cycle},
    "own loader, bf16 and mixup": {
        "own": True, "mixed_precision": "bf16", "augmentation": MixupAugmentation(num_classes=3),
    },
    "fp16 and plateau": {"mixed_precision": "fp16", "scheduler": plateau, "checkpoint_every": "0.01s"},
    "two workers": {"workers": 2, "max_grad_norm": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_moments_and_resumed_it_ends_in_the_same_bits(tmp_path, case):
    """A real process, SIGKILLed three times or more: in batches, in validation, while it writes."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    options = CASES[case]
    run(whole, options)
    expected = everything(whole)
    moments, kills = random.Random(case), 0
    while True:
        process = in_own_process(broken, options | {"pause": 0.01})
        process.join(moments.uniform(0.05, 0.4) if kills < 3 else None)
        if process.exitcode is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills > 0
    assert everything(broken) == expected


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batch", [0, 4, 8])
def test_a_signal_lets_the_window_finish_and_says_which_it_was(tmp_path, signum, batch):
    """Windows of 4 batches; the last epoch's ninth batch closes an unfinished one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = CASES["accumulation and one-cycle"] | {"checkpoint_every": None}
    for folder in (whole, broken):
        folder.mkdir()
    run(whole, options)

    class Raise(Callback):
        def on_batch_end(self, index, logs=None):
            if (self.trainer.state.epoch, index) == (1, batch):
                signal.raise_signal(signum)

    trainer = new_trainer(broken, **options)
    trainer.callbacks.append(Raise())
    with finish_batch_on_interrupt(trainer.state):
        trainer.fit(EPOCHS)
    assert trainer.state.interrupted
    assert trainer.state.interrupted_by == signum
    assert trainer.state.batch in (4, 8, 9)
    run(broken, options)
    assert everything(broken) == everything(whole)


def fit_until_told(folder, options, told):
    def tell(trainer, logs):
        told.set()

    torch.set_num_threads(1)
    trainer = new_trainer(folder, **options)
    trainer.callbacks.append(tell)
    os.setpgrp()
    with finish_batch_on_interrupt(trainer.state):
        trainer.fit(1000)
    sys.exit(128 + trainer.state.interrupted_by)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_process_group_of_a_training_with_workers(tmp_path, signum, code):
    """As a scheduler or a terminal sends it: workers of any loader die of it, the training saves and leaves."""
    context = multiprocessing.get_context("fork")
    told = context.Event()
    process = context.Process(target=fit_until_told, args=(tmp_path, {"workers": 2, "pause": 0.02}, told))
    process.start()
    assert told.wait(30)
    time.sleep(0.05)
    os.killpg(process.pid, signum)
    process.join(30)
    assert process.exitcode == code
    assert not list(tmp_path.glob(".*"))
    trainer = new_trainer(tmp_path, workers=2)
    trainer.load_checkpoint(tmp_path / "last.pt")
    assert trainer.state.epoch >= 1


def fit_stubbornly(folder, told):
    class Endless(Callback):
        def on_batch_end(self, batch, logs=None):
            told.set()
            time.sleep(60)

    trainer = new_trainer(folder)
    trainer.fit(1)
    trainer.callbacks.append(Endless())
    with finish_batch_on_interrupt(trainer.state):
        trainer.fit(1)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once_with_a_whole_checkpoint(tmp_path, second):
    context = multiprocessing.get_context("fork")
    told = context.Event()
    process = context.Process(target=fit_stubbornly, args=(tmp_path, told))
    process.start()
    assert told.wait(30)
    time.sleep(0.1)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.1)
    os.kill(process.pid, second)
    process.join(20)
    assert process.exitcode == (143 if second == signal.SIGTERM else 1)  # multiprocessing reports Ctrl-C as 1
    assert time.monotonic() - began < 10
    trainer = new_trainer(tmp_path)
    trainer.load_checkpoint(tmp_path / "last.pt")
    assert trainer.state.epoch == 1


def test_a_learning_rate_noted_at_an_epochs_beginning_is_not_noted_again_in_its_middle(tmp_path):
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
