"""Failures during training: non-finite losses, dead workers, missing files, full disks."""

import logging
import math
import multiprocessing
import os
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from whirl.callbacks.callbacks import ModelCheckpoint, TensorBoardLogger
from whirl.callbacks.cnn_callbacks import MetricLogger
from whirl.engine.loop import StepResult
from whirl.engine.loss_guard import LossGuard, NonFiniteLossError
from whirl.training.trainer import Trainer

TIMEOUT_S = 240


def batches(n=6, bad=()):
    """Create batches of four samples; in a bad batch, row 2 has an infinity."""
    generator = torch.Generator().manual_seed(0)
    created = []
    for i in range(n):
        signals = torch.randn(4, 1, 16, generator=generator)
        if i in bad:
            signals[2, 0, 5] = math.inf
        created.append(
            (signals, torch.arange(4) % 2, {"recording": torch.arange(4) + 10 * i, "start": torch.arange(4) * 8})
        )
    return created


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(28, 2))


def new_trainer(data, model=None, **options):
    model = model or network()
    options.setdefault("optimizer", torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    return Trainer(model, data, device="cpu", **options)


def weights(model):
    return [value.clone() for value in model.state_dict().values()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_nan_loss_names_batch_row_recording_and_module(tmp_path):
    trainer = new_trainer(batches(bad=[3]), checkpoint_dir=tmp_path, checkpoint_every=1)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(2)
    assert str(caught.value) == (
        "epoch 0, batch 3: the loss is nan; row 2; recording 32 from sample 16; first non-finite output in module '0'"
    )
    clean = new_trainer(batches(3))
    clean.fit(1)
    assert equal([p.data for p in trainer.model.parameters()], [p.data for p in clean.model.parameters()])
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["training"]["model"]
    assert all(value.isfinite().all() for value in saved.values())


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("mixed_precision", [False, "bf16", "fp16"])
def test_skipped_batch_has_no_effect(caplog, accumulation, mixed_precision):
    """Weights, running means and history are those of a training without the batch."""
    with_bad = batches(7, bad=[2])
    results = []
    for data in (with_bad, [batch for i, batch in enumerate(with_bad) if i != 2]):
        trainer = new_trainer(
            data, on_nonfinite="skip", gradient_accumulation_steps=accumulation, mixed_precision=mixed_precision
        )
        history = trainer.fit(2)
        results.append((weights(trainer.model), history["train_loss"], trainer.state.global_step))
    (ours, loss, steps), (expected, expected_loss, expected_steps) = results
    assert equal(ours, expected)
    assert (loss, steps) == (expected_loss, expected_steps)
    assert [record.message for record in caplog.records] == [
        f"epoch {epoch}, batch 2: the loss is nan; row 2; recording 22 from sample 16; "
        "first non-finite output in module '0'; skipping the batch"
        for epoch in (0, 1)
    ]


def test_names_an_epoch_of_which_every_batch_was_skipped():
    with pytest.raises(ValueError, match="all 2 batches of train_loader were skipped"):
        new_trainer(batches(2, bad=[0, 1]), on_nonfinite="skip").fit(1)


def test_max_skipped_limits_each_epoch():
    new_trainer(batches(bad=[1, 2]), on_nonfinite="skip", max_skipped=2).fit(3)
    with pytest.raises(NonFiniteLossError, match=r"batch 2: .*; 1 batches of this epoch have been skipped already"):
        new_trainer(batches(bad=[1, 2]), on_nonfinite="skip", max_skipped=1).fit(3)


def test_none_disables_the_check():
    history = new_trainer(batches(bad=[3]), on_nonfinite=None).fit(2)
    assert math.isnan(history["train_loss"][1])


class Root(nn.Module):
    """Is finite at 0, where its gradient is infinite."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, signals):
        return (self.weight**2).sqrt() + signals.mean((1, 2))[:, None]


def test_nan_gradient_is_not_saved(tmp_path):
    trainer = new_trainer(batches(1), Root(), checkpoint_dir=tmp_path, max_grad_norm=None)
    with pytest.raises(NonFiniteLossError, match="epoch 0, batch 0: a weight is infinite or NaN"):
        trainer.fit(1)
    assert not list(tmp_path.iterdir())


def test_float16_does_not_count_skipped_steps():
    """An initial scale of 2^40 overflows float16 gradients until it has been reduced far enough."""
    from whirl.engine.precision import LossScaling, choose_precision

    precision = choose_precision("fp16", torch.device("cpu"), LossScaling(init_scale=2.0**40))
    trainer = new_trainer(batches(40), mixed_precision=precision)
    history = trainer.fit(1)
    skipped = history["skipped_steps"][-1]
    assert 0 < skipped < 40
    assert trainer.state.global_step == 40 - skipped


def test_accelerator_losses_are_read_together():
    """Tensors of the meta device are not on the CPU and have no values, so reading one would raise."""
    guard = LossGuard(nn.Linear(1, 1), lambda batch: None, "raise")
    for index in range(200):
        assert guard.accept(index, StepResult(torch.tensor(1.0, device="meta"), 1))
    assert len(guard._pending) == 200


@pytest.mark.gpu
def test_gpu_names_the_batch_when_losses_are_read(tmp_path):
    model = network()
    trainer = Trainer(model, batches(bad=[3]), device="cuda", checkpoint_dir=tmp_path, checkpoint_every=2)
    with pytest.raises(NonFiniteLossError, match="epoch 0, batch 3: the loss is nan; recordings 30 from sample 0, 31"):
        trainer.fit(2)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert saved["training"]["tally"]["n_batches"] == 2
    skipping = Trainer(network(), batches(bad=[3]), device="cuda", on_nonfinite="skip")
    assert math.isfinite(skipping.fit(2)["train_loss"][-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on_nonfinite": "ignore"}, "on_nonfinite is 'ignore'"),
        ({"max_skipped": -1}, "max_skipped is -1"),
        ({"checkpoint_every": 5}, "checkpoint_dir"),
        ({"checkpoint_every": "often", "checkpoint_dir": "."}, "checkpoint_every is 'often'"),
    ],
)
def test_rejects_invalid_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        new_trainer(batches(), **change)


def test_window_without_gradients():
    """Batches of unequal size, so that gradients are weighted; the optimizer's only parameter is not used."""
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(1)))
    unused = torch.optim.SGD([model.unused], lr=0.1)
    ragged = [tuple(part[:n] for part in batches()[0][:2]) for n in (4, 3)]
    trainer = new_trainer(ragged, model, optimizer=unused, gradient_accumulation_steps=2)
    trainer.fit(1)
    assert trainer.state.global_step == 1


class Files(Dataset):
    """Reads each sample from a file, after running `accident` before one of them."""

    def __init__(self, folder, accident=None):
        self.folder, self.accident = folder, accident
        for i in range(8):
            np.save(folder / f"{i}.npy", np.full((1, 16), i, dtype=np.float32))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 7 and self.accident is not None:
            self.accident(self.folder / "7.npy")
        return torch.from_numpy(np.load(self.folder / f"{index}.npy")), index % 2


def kill_reader(path):
    os.kill(os.getpid(), signal.SIGKILL)


def remove(path):
    path.unlink(missing_ok=True)


def files_trainer(folder, accident, workers):
    loader = DataLoader(Files(folder, accident), batch_size=1, num_workers=workers)
    return new_trainer(loader, checkpoint_dir=folder / "saved", checkpoint_every=2)


def fit_until_accident(folder, accident, workers, connection):
    torch.manual_seed(1)
    try:
        files_trainer(folder, accident, workers).fit(2)
    except Exception as error:
        connection.send((type(error), str(error)))
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(
    ("accident", "workers", "error", "message"),
    [
        (kill_reader, 1, ChildProcessError, "worker process of a data loader died"),
        (remove, 0, FileNotFoundError, "7.npy"),
        (remove, 1, FileNotFoundError, "7.npy"),
    ],
)
def test_dead_worker_or_missing_file_raises_and_the_run_resumes(tmp_path, accident, workers, error, message):
    """In a process of its own, as torch may report a dead worker at any time."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=fit_until_accident, args=(tmp_path, accident, workers, theirs)
    )
    process.start()
    assert ours.poll(TIMEOUT_S)
    kind, text = ours.recv()
    process.join()
    assert kind is error
    assert message in text
    saved = torch.load(tmp_path / "saved" / "last.pt", weights_only=True)
    assert 2 <= saved["training"]["state"]["batch"] <= 7  # the death may interrupt the checkpoint after 4 batches
    resumed = files_trainer(tmp_path, None, 0)
    resumed.fit(2, resume_from=tmp_path / "saved" / "last.pt")
    (tmp_path / "uninterrupted").mkdir()
    uninterrupted = files_trainer(tmp_path / "uninterrupted", None, 0)
    torch.manual_seed(1)
    uninterrupted.fit(2)
    assert equal(weights(resumed.model), weights(uninterrupted.model))


def test_metric_logger_warns_once_and_catches_up(tmp_path):
    """A file has the name of the log's folder until it is removed."""
    for name in ("log.json", "log.jsonl"):
        place = tmp_path / name.replace(".", "-")
        place.write_text("not a folder")
        log = MetricLogger(place / name)
        log.on_train_begin()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for epoch in range(3):
                log.on_epoch_end(epoch, {"val_loss": 1.0})
        assert [str(w.message).endswith("; training continues") for w in caught] == [True]
        place.unlink()
        for epoch in (3, 4):
            log.on_epoch_end(epoch, {"val_loss": 1.0})
        fresh = MetricLogger(place / name)
        assert [entry["epoch"] for entry in fresh._read()] == [0, 1, 2, 3, 4]


def test_failing_tracker_warns_and_failing_model_checkpoint_raises(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="TensorBoardLogger") as caught:
        history = new_trainer(batches(), callbacks=[TensorBoardLogger(tmp_path / "file" / "runs")]).fit(2)
    assert len(caught) == 1
    assert len(history["train_loss"]) == 2
    saver = ModelCheckpoint(tmp_path / "file" / "m.pt", monitor="train_loss")
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        new_trainer(batches(), callbacks=[saver], checkpoint_dir=tmp_path / "saved").fit(2)


def fit_on_a_full_disk(folder, connection):
    import resource

    def fill(trainer, logs):
        if trainer.state.epoch == 2:
            trainer._autosave.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))

    warned = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("whirl.engine.checkpoint").addHandler(handler)
    trainer = new_trainer(batches(), callbacks=[fill], checkpoint_dir=folder)
    try:
        trainer.fit(5)
    except OSError as error:
        connection.send((error.filename, len(trainer.state.history["train_loss"]), warned))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_FSIZE")
def test_full_disk_warns_during_training_and_raises_at_the_end(tmp_path):
    """From epoch 2 on files are limited to 1000 bytes. Training runs to its end; last.pt is that of epoch 2."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=fit_on_a_full_disk, args=(tmp_path, theirs))
    process.start()
    assert ours.poll(TIMEOUT_S)
    filename, epochs, warned = ours.recv()
    process.join()
    assert (filename, epochs) == (str(tmp_path / "last.pt"), 5)
    assert warned
    assert all("last.pt: this checkpoint could not be written" in message for message in warned)
    resumed = torch.load(tmp_path / "last.pt", weights_only=True)
    assert resumed["metadata"]["epoch"] == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"last.pt", "previous.pt"}


def test_error_in_a_callback_keeps_the_last_checkpoint(tmp_path, caplog):
    def fail(trainer, logs):
        if trainer.state.epoch == 1:
            raise ZeroDivisionError

    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        new_trainer(batches(), callbacks=[fail], checkpoint_dir=tmp_path).fit(3)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["metadata"]["epoch"] == 1
    assert not caplog.records
