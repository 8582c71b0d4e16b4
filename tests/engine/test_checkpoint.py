"""Checkpoint files: damage is detected, previous.pt is the fallback, background writes lose nothing."""

import collections
import errno
import hashlib
import io
import logging
import multiprocessing
import os
import pathlib
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import torch

from whirl.engine import checkpoint as checkpoint_module
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import (
    CheckpointWriter,
    SaveInterval,
    load_training,
    load_weights,
    save_training,
    to_cpu,
)
from whirl.engine.files import (
    atomic_write,
    find_unserializable,
    load_checkpoint_file,
    pack_checkpoint,
    save_checkpoint_file,
)
from whirl.engine.precision import Float16
from whirl.training.trainer import Trainer

TIMEOUT_S = 240


def state(value, size=200):
    return {"model": {"weight": torch.full((size,), float(value))}, "precision": {}, "history": {"lr": [0.1, value]}}


def saved_value(path):
    return float(load_training(path)[0]["model"]["weight"][0])


def test_detects_every_flipped_bit_and_every_truncation(tmp_path):
    """One bit in every 37th byte and in each of the last 200; truncations at the same places; trailing bytes."""
    path = tmp_path / "last.pt"
    save_training(tmp_path, state(1), {}, is_best=False)
    intact = path.read_bytes()
    places = sorted({*range(0, len(intact), 37), *range(len(intact) - 200, len(intact))})
    assert len(places) > 250
    for place in places:
        damaged = bytearray(intact)
        damaged[place] ^= 1 << place % 8
        for content in (bytes(damaged), intact[:place]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"last\.pt: not a readable checkpoint"):
                load_checkpoint_file(path)
    for more in (b"\0", b"PK\5\6" + bytes(18), intact):
        path.write_bytes(intact + more)
        with pytest.raises(ValueError, match=r"last\.pt"):
            load_checkpoint_file(path)


def test_torch_and_zipfile_can_read_the_file(tmp_path):
    save_checkpoint_file(tmp_path / "c.pt", {"weights": torch.arange(5)})
    assert torch.equal(torch.load(tmp_path / "c.pt", weights_only=True)["weights"], torch.arange(5))
    with zipfile.ZipFile(tmp_path / "c.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


def test_loads_format_1(tmp_path):
    scaler = torch.amp.GradScaler("cpu").state_dict()
    old = {"format": 1, "metadata": {"epoch": 3}, "training": state(2) | {"precision": scaler}}
    torch.save(old, tmp_path / "last.pt")
    training, metadata = load_training(tmp_path / "last.pt")
    assert metadata == {"epoch": 3}
    precision = Float16(torch.device("cpu"))
    precision.load_state_dict(training["precision"])
    assert precision.scaler.state_dict() == scaler
    torch.save(old | {"format": 3}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="format"):
        load_training(tmp_path / "last.pt")


def test_rejects_a_compressed_archive(tmp_path):
    buffer = io.BytesIO()
    torch.save({"weights": torch.zeros(1000)}, buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(ValueError, match=r"b\.pt: .*compressed"):
        load_checkpoint_file(tmp_path / "b.pt")


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_falls_back_to_previous_if_last_is_damaged(tmp_path, caplog, damage):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    with CheckpointWriter(tmp_path) as writer:
        for value in (1, 2, 3):
            writer.save(state(value), {"epoch": value}, is_best=value == 2)
            writer.wait()
    assert (saved_value(last), saved_value(previous), saved_value(tmp_path / "best.pt")) == (3, 2, 2)
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    {
        "cut": lambda: os.truncate(last, 900),
        "flipped": lambda: last.write_bytes(content),
        "missing": last.unlink,
    }[damage]()
    with caplog.at_level(logging.WARNING):
        assert load_training(last)[1] == {"epoch": 2}
    [record] = caplog.records
    assert "last.pt" in record.message
    assert "previous.pt" in record.message
    with pytest.raises((ValueError, FileNotFoundError), match=r"last\.pt"):
        load_weights(torch.nn.Linear(1, 1), last)
    # A damaged file does not replace the intact previous.pt.
    save_training(tmp_path, state(4), {}, is_best=False)
    assert (saved_value(last), saved_value(previous)) == (4, 2)


def test_raises_for_last_if_previous_is_damaged_too(tmp_path):
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"last\.pt"):
        load_training(tmp_path / "last.pt")


def test_keeps_previous_on_a_file_system_without_links(tmp_path, monkeypatch):
    def raise_not_supported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", raise_not_supported)
    for content in (b"1", b"2"):
        with atomic_write(tmp_path / "a", tmp_path / "b") as file:
            file.write(content)
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"2", b"1")


def test_copy_on_cpu_does_not_change_with_the_original():
    model = torch.nn.BatchNorm1d(3)
    original = {"model": model.state_dict(), "history": {"loss": [1.0]}, "random": (3, (1, 2), None)}
    copied = to_cpu(original)
    assert copied["model"]._metadata == original["model"]._metadata
    assert copied["random"] == original["random"]
    with torch.no_grad():
        model.weight.zero_()
    original["history"]["loss"].append(2.0)
    assert copied["model"]["weight"].tolist() == [1, 1, 1]
    assert copied["history"] == {"loss": [1.0]}


def test_newer_saves_replace_waiting_ones(tmp_path, monkeypatch):
    """While one file is being written, 48 saves wait; only the newest of them and the best are written."""
    started, may_continue, written = threading.Event(), threading.Event(), []

    def pack(checkpoint):
        started.set()
        assert may_continue.wait(TIMEOUT_S)
        written.append(float(checkpoint["training"]["model"]["weight"][0]))
        return pack_checkpoint(checkpoint)

    monkeypatch.setattr(checkpoint_module, "pack_checkpoint", pack)
    with CheckpointWriter(tmp_path) as writer:
        writer.save(state(0), {}, is_best=False)
        assert started.wait(TIMEOUT_S)
        for value in range(1, 50):
            writer.save(state(value), {}, is_best=value == 20)
        may_continue.set()
    assert sorted(set(written)) == [0, 20, 49]
    assert saved_value(tmp_path / "last.pt") == 49
    assert saved_value(tmp_path / "best.pt") == 20
    assert {path.name for path in tmp_path.iterdir()} <= {"best.pt", "last.pt", "previous.pt"}


def test_removes_temporary_files_of_a_killed_process(tmp_path):
    (tmp_path / ".last.pt.abc123").write_bytes(b"half")
    save_training(tmp_path, state(1), {}, is_best=False)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def write_on_a_full_disk(folder, connection):
    import resource

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    warned = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("whirl.engine.checkpoint").addHandler(handler)
    last = folder / "last.pt"
    try:
        with CheckpointWriter(folder) as writer:
            writer.save(state(1), {}, is_best=False)
            writer.wait()
            limit(50_000)
            writer.save(state(2, 100_000), {}, is_best=True)
            writer.wait()
            connection.send((saved_value(last), list(warned)))
            limit(resource.RLIM_INFINITY)
            writer.save(state(3), {}, is_best=False)
            writer.wait()
            connection.send((saved_value(last), saved_value(folder / "best.pt"), len(warned)))
            limit(50_000)
            writer.save(state(4, 100_000), {}, is_best=False)
    except OSError as error:
        connection.send((error.filename, error.errno, saved_value(last), len(warned)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_FSIZE")
def test_full_disk_warns_then_retries_then_raises_at_the_end(tmp_path):
    """A limit on the size of files in a process of its own: 50 kB, then none, then 50 kB again."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=write_on_a_full_disk, args=(tmp_path, theirs))
    process.start()
    received = [ours.recv() for _ in range(3) if ours.poll(TIMEOUT_S)]
    process.join()
    [(unchanged, [warned]), now, raised] = received
    assert unchanged == 1
    assert "last.pt: this checkpoint could not be written" in warned
    assert "best.pt" in warned
    assert now == (3, 2, 1)
    assert raised == (str(tmp_path / "last.pt"), errno.EFBIG, 3, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


@pytest.mark.parametrize(
    ("every", "batch", "passed_s", "is_due"),
    [
        (5, 4, 1e6, False), (5, 5, 0, True), ("1h", 10**9, 3599, False), ("1h", 0, 3600, True),
        ("0.5 s", 0, 0.5, True), ("2min", 3, 119, False), ("2min", 3, 120, True),
    ],
)  # fmt: skip
def test_interval_in_batches_or_time(every, batch, passed_s, is_due, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    interval = SaveInterval(every)
    now += passed_s
    assert interval.is_due(batch) is is_due


def test_interval_counts_from_the_last_save_and_restarts_each_epoch():
    interval = SaveInterval(5)
    interval.begin(7)
    assert [batch for batch in (8, 11, 12, 4, 5) if interval.is_due(batch)] == [12, 5]


@pytest.mark.parametrize("every", [0, -1, True, 2.5, "10", "10 fortnights", "0s", "", None])
def test_rejects_an_invalid_interval(every):
    with pytest.raises(ValueError, match="checkpoint_every"):
        SaveInterval(every)


def test_packed_checkpoint_ends_with_its_checksum():
    content = bytes(pack_checkpoint({"a": 1}))
    assert content[-64:].decode() == hashlib.sha256(content[:-71]).hexdigest()


@pytest.mark.parametrize(
    "made", [lambda: bytearray(2**30), lambda: {"training": {"model": bytearray(8)}}, lambda: torch.float16]
)
def test_rejects_other_objects_before_they_allocate_memory(tmp_path, made):
    class Large:
        def __reduce__(self):
            return bytearray, (2**30,)

    torch.save({"x": Large() if isinstance(made(), bytearray) else made()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="other than tensors and plain data"):
        load_checkpoint_file(tmp_path / "last.pt")


@pytest.mark.parametrize("content", [{"format": 2}, {"format": 2, "training": [], "metadata": {}}, {"format": 9}, 3])
def test_rejects_an_incomplete_checkpoint_in_one_line(tmp_path, content):
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt") as caught:
        load_training(tmp_path / "last.pt")
    assert "\n" not in str(caught.value)


def test_fork_waits_until_nothing_is_being_written(tmp_path, monkeypatch):
    """No child process inherits a lock that the writing thread holds."""
    forking = threading.Event()
    writer = CheckpointWriter(tmp_path)

    def pack(checkpoint):
        assert forking.wait(TIMEOUT_S)
        return pack_checkpoint(checkpoint)

    def wait():
        forking.set()
        CheckpointWriter.wait(writer)

    monkeypatch.setattr(checkpoint_module, "pack_checkpoint", pack)
    monkeypatch.setattr(writer, "wait", wait)
    writer.save(state(1), {}, is_best=False)
    assert writer.is_busy
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(7 if writer.is_busy else 0))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert saved_value(tmp_path / "last.pt") == 1


LOADABLE = [
    None, True, 2**80, float("inf"), "text", torch.ones(2)[::2], torch.nn.Parameter(torch.ones(1)), torch.Size([1]),
    torch.device("cpu"), [1, (2.0, {"a": None})], {(1, ("b", 2.5)): 3}, collections.OrderedDict(a=1),
    collections.Counter("aab"), np.float64(0.5), {np.int64(3): [np.bool_(True)]}, {(np.int64(3), 1): np.str_("x")},
]  # fmt: skip
UNSERIALIZABLE = [
    {1}, frozenset(), b"x", 1j, torch.float32, range(3), np.ones(2), collections.defaultdict(list), pathlib.Path("x"),
    {"a": [{"b": len}]}, {(1, b"x"): 2}, np.datetime64("2026-01-01"),
]  # fmt: skip


@pytest.mark.parametrize("value", LOADABLE + UNSERIALIZABLE, ids=lambda value: type(value).__name__)
def test_find_unserializable_agrees_with_loading(value, tmp_path):
    """`load_checkpoint_file` is the reference."""
    save_checkpoint_file(tmp_path / "c.pt", {"value": to_cpu(value)})
    is_unserializable = find_unserializable({"value": value}) is not None
    assert is_unserializable is any(value is other for other in UNSERIALIZABLE)
    if is_unserializable:
        with pytest.raises(ValueError, match="tensors and plain data"):
            load_checkpoint_file(tmp_path / "c.pt")
    else:
        assert repr(load_checkpoint_file(tmp_path / "c.pt")["value"]) == repr(to_cpu(value))


class Remembering(Callback):
    """Saves the value that it is given."""

    def __init__(self, kept):
        self.kept = kept

    def state_dict(self):
        return {"kept": self.kept}

    def load_state_dict(self, state):
        self.kept = state["kept"]


def new_trainer(folder, *kept, scheduler=None, lr=0.1):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    batch = torch.ones(2, 1, 4), torch.tensor([0, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Trainer(
        model, [batch], [batch], optimizer, device="cpu", checkpoint_dir=folder, callbacks=[*map(Remembering, kept)],
        lr_scheduler=scheduler and scheduler(optimizer),
    )  # fmt: skip


def test_checkpoint_leaves_out_an_unserializable_callback_state(tmp_path, caplog):
    trainer = new_trainer(tmp_path, np.float64(0.25), {"seen": {3}}, lr=np.float64(0.1))
    trainer.fit(2)
    trainer.save_checkpoint(2, {"f1": np.float32(0.5)}, is_best=False)
    [warned] = [record.message for record in caplog.records]
    assert warned.startswith("Remembering:1: checkpoints hold tensors and plain data")
    assert "['kept']['seen'], a set" in warned
    resumed = new_trainer(tmp_path, None, "initial")
    assert resumed.load_checkpoint(tmp_path / "last.pt")["val_metrics"] == {"f1": 0.5}
    assert [type(callback.kept) for callback in resumed.callbacks] == [float, str]
    assert resumed.optimizer.param_groups[0]["lr"] == 0.1


class SchedulerWithSet(torch.optim.lr_scheduler.StepLR):
    """Its state has a set, which a checkpoint cannot hold."""

    def __init__(self, optimizer):
        self.seen = {1}
        super().__init__(optimizer, 1)


def test_rejects_an_unserializable_scheduler_state_before_training(tmp_path):
    trainer = new_trainer(tmp_path, scheduler=SchedulerWithSet)
    with pytest.raises(TypeError, match=r"\['scheduler'\]\['seen'\], a set"):
        trainer.fit(1)
    assert trainer.state.global_step == 0
