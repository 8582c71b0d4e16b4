"""Workers of loaders: a killed worker loses nothing, memory-mapped recordings are not copied to them."""

import copy
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.survival.killing import TIMEOUT_S, differences, flat, run
from tests.survival.matrix import network, own_loader, seed_all, windows
from whirl.data.loaders import make_loader
from whirl.data.memmap import to_mmap
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.checkpoint import LAST
from whirl.training.trainer import Trainer

LOST = 2


class WorkerKiller(Trainer):
    """Kills a worker of its loader, at the second batch of an accumulation window or in validation."""

    where = ""

    def compute_loss(self, outputs, targets, signal, metadata):
        loader, name, pending = (
            (self.train_loader, "training", 1) if self.model.training else (self.val_loader, "validation", 0)
        )
        if (name, 1, pending) == (self.where, self.state.epoch, self.updater.pending):
            kill_worker(loader)
        return super().compute_loss(outputs, targets, signal, metadata)


def kill_worker(loader):
    os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:  # torch raises here, when SIGCHLD arrives
        time.sleep(0.01)


def train(case, folder, point):
    """Train with `case = (where a worker dies, number of workers)`, resuming if there is a checkpoint."""
    where, workers = case
    torch.set_num_threads(1)
    seed_all(3)
    model = network()
    loaders = [own_loader(shuffle=shuffle, num_workers=workers) for shuffle in (True, False)]
    trainer = WorkerKiller(
        model, *loaders, torch.optim.AdamW(model.parameters(), lr=0.01), device="cpu", gradient_accumulation_steps=3,
        checkpoint_dir=folder, checkpoint_every=2,
    )  # fmt: skip
    trainer.where = where
    try:
        trainer.fit(3, resume_from=folder / LAST if (folder / LAST).exists() else None)
    except ChildProcessError as error:
        (folder.parent / "error").write_text(str(error))
        os._exit(LOST)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The checkpoint of a training without workers."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(train, ("", 0), folder) == 0
    return saved_in(folder)


def saved_in(folder):
    return flat(torch.load(folder / LAST, weights_only=True), str(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals")
@pytest.mark.parametrize("where", ["training", "validation"])
def test_killed_worker_stops_training_which_resumes_with_the_same_bits(where, uninterrupted, tmp_path):
    """Resumed with workers in one case and without in the other: the bits do not depend on them."""
    killed = tmp_path / "killed"
    killed.mkdir()
    assert run(train, (where, 2), killed) == LOST
    message = (tmp_path / "error").read_text()
    assert message.startswith("a worker process of a data loader died")
    assert "\n" not in message
    saved = torch.load(killed / LAST, weights_only=True)["training"]
    assert saved["state"]["epoch"] == 1
    assert run(train, ("", 2 if where == "training" else 0), killed) == 0
    assert differences(uninterrupted, saved_in(killed)) == []


def mapped_windows(folder, sources=("a", "b")):
    draw = np.random.default_rng(0)
    recordings = [Recording(draw.normal(size=(2, 300_000)), 8000, source=source) for source in sources]
    return WindowDataset(to_mmap(recordings, folder), None, window=1000)


def mapped_files(batch):
    """Return the batch and the memory maps of the worker: names and kilobytes."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    sizes = [(line[-1], np.diff([int(end, 16) for end in line[0].split("-")])[0] // 1024) for line in lines]
    return batch, [(name, int(size)) for name, size in sizes if "(deleted)" in name]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mappings are read in /proc")
def test_spawned_worker_maps_the_recordings_itself(tmp_path):
    """The recordings take 2.4 MB; a copy would be in torch's shared memory."""
    data = mapped_windows(tmp_path)
    loader = make_loader(data, 64, shuffle=True, num_workers=1, multiprocessing_context="spawn")
    loader.collate_fn = mapped_files
    found = list(loader)
    here = list(make_loader(data, 64, shuffle=True))
    for ((signals, *_), mapped), (expected, *_) in zip(found, here, strict=True):
        assert torch.equal(signals, expected)
        assert any(name.startswith(str(tmp_path)) and size >= 2343 for name, size in mapped)
        assert all(size < 2343 for name, size in mapped if "torch_" in name)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_rejects_copies_of_memory_mapped_windows(copied, tmp_path):
    with pytest.raises(ValueError, match="memory-mapped recordings cannot be pickled"):
        copied(mapped_windows(tmp_path))


@pytest.mark.parametrize(("device", "pinned"), [("auto", True), ("cuda:1", True), ("cpu", False)])
def test_batches_are_pinned_for_cuda_only(device, pinned, monkeypatch):
    assert not make_loader(windows(), 4, device=device).pin_memory or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_loader(windows(), 4, device=device).pin_memory is pinned
