"""Trainer and CNNTrainer: equal to a plain loop, and exact resume."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.training.cnn_trainer import CNNTrainer
from whirl.training.trainer import Trainer


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(1, 8, 9, stride=2), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool1d(4),
        nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def data(n=50, seed=1):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (n,), generator=generator)
    signals = torch.randn(n, 1, 64, generator=generator) * (1 + targets[:, None, None])
    return TensorDataset(signals, targets)


def loader(shuffle=True, workers=0, generator=None):
    return DataLoader(data(), batch_size=16, shuffle=shuffle, num_workers=workers, generator=generator)


def own_loader():
    """A loader of `make_loader` over windows of recordings."""
    signals, targets = data().tensors
    recordings = [
        Recording(signal, 1000.0, label=str(target), source=str(i))
        for i, (signal, target) in enumerate(zip(signals.numpy(), targets.tolist(), strict=True))
    ]
    return make_loader(WindowDataset(recordings, ["0", "1", "2"], window=64), batch_size=16, shuffle=True, seed=4)


def adamw(model, lr=0.01):
    return torch.optim.AdamW(model.parameters(), lr=lr)


def equal_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def plain_loop(model, optimizer, batches, epochs, max_norm=1.0):
    criterion = nn.CrossEntropyLoss()
    model.train()
    for _ in range(epochs):
        for signals, targets in batches:
            optimizer.zero_grad()
            loss = criterion(model(signals), targets)
            loss.backward()
            if max_norm:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()


@pytest.mark.parametrize("max_norm", [0.05, 1.0, None])
@pytest.mark.parametrize("trainer_class", [Trainer, CNNTrainer])
def test_equals_a_plain_loop_exactly(trainer_class, max_norm):
    plain, ours = small_network(), small_network()
    torch.manual_seed(7)
    plain_loop(plain, adamw(plain), loader(), 3, max_norm)
    torch.manual_seed(7)
    trainer_class(ours, loader(), None, adamw(ours), device="cpu", max_grad_norm=max_norm, mixed_precision=False).fit(3)
    assert equal_weights(plain, ours)


def test_validation_does_not_affect_training():
    """The loaders have their own generators, so only the validation differs."""
    with_val, without = small_network(), small_network()
    for model, val in ((with_val, loader(shuffle=False, generator=torch.Generator())), (without, None)):
        torch.manual_seed(7)
        Trainer(model, loader(generator=torch.Generator().manual_seed(3)), val, adamw(model), device="cpu").fit(2)
    assert equal_weights(with_val, without)


def test_history_and_means():
    model = small_network()
    trainer = Trainer(model, loader(), loader(False), adamw(model), device="cpu")
    history = trainer.fit(2)
    assert set(history) == {
        "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "epoch_time_s"
    }  # fmt: skip
    assert all(len(values) == 2 for values in history.values())
    assert trainer.state.epoch == 2
    assert trainer.state.global_step == 2 * 4
    trainer.fit(1)
    assert trainer.state.epoch == 3
    metrics = trainer.validate_epoch()
    model.eval()
    signals, targets = data().tensors
    logits = model(signals).detach()
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    assert metrics["loss"] == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), rel=1e-6)


@pytest.mark.parametrize("form", ["tuple", "triple", "mapping", "no channel axis", "soft"])
def test_all_forms_of_batches_give_the_same_weights(form):
    signals, targets = data().tensors
    batches = list(zip(signals.split(16), targets.split(16), strict=True))
    forms = {
        "tuple": batches,
        "triple": [(s, t, {"rpm": torch.full((len(t),), 1800.0)}) for s, t in batches],
        "mapping": [{"signal": s, "label": t, "rpm": torch.full((len(t),), 1800.0)} for s, t in batches],
        "no channel axis": [(s[:, 0], t) for s, t in batches],
        "soft": [(s, nn.functional.one_hot(t, 3).float()) for s, t in batches],
    }
    results = []
    for chosen in (batches, forms[form]):
        model = small_network()
        torch.manual_seed(0)
        trainer = Trainer(model, chosen, None, adamw(model), device="cpu")
        results.append((trainer.train_epoch()["accuracy"], model.state_dict()["0.weight"].clone()))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


class InterruptAt(Callback):
    """A real Ctrl-C at one batch of one epoch."""

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) == self.at:
            signal.raise_signal(signal.SIGINT)


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=12)


def new_trainer(folder, callbacks=(), accumulation=1, mixed_precision=False, generator=None, own=False):
    model = small_network()
    optimizer = adamw(model)
    return CNNTrainer(
        model,
        own_loader() if own else loader(generator=generator),
        loader(False),
        optimizer,
        device="cpu",
        callbacks=list(callbacks),
        lr_scheduler=one_cycle(optimizer),
        gradient_accumulation_steps=accumulation,
        mixed_precision=mixed_precision,
        checkpoint_dir=folder,
    )


@pytest.mark.parametrize("at", [(0, 0), (1, 1), (2, 3)])
@pytest.mark.parametrize(
    "settings", [{}, {"accumulation": 2}, {"mixed_precision": "bf16"}, {"generator": 5}, {"own": True}]
)
def test_resume_matches_uninterrupted_run(tmp_path, at, settings):
    def make(folder, callbacks=()):
        own = dict(settings)
        if "generator" in own:
            own["generator"] = torch.Generator().manual_seed(own["generator"])
        torch.manual_seed(11)
        return new_trainer(folder, callbacks, **own)

    uninterrupted = make(tmp_path / "uninterrupted")
    torch.manual_seed(21)
    expected = uninterrupted.fit(3)

    interrupted = make(tmp_path / "interrupted", [InterruptAt(*at)])
    torch.manual_seed(21)
    with finish_batch_on_interrupt(interrupted.state):
        interrupted.fit(3)
    assert interrupted.state.epoch == at[0]

    resumed = make(tmp_path / "interrupted")
    torch.manual_seed(99)
    history = resumed.fit(3, resume_from=tmp_path / "interrupted" / "last.pt")
    assert equal_weights(uninterrupted.model, resumed.model)
    for name in set(expected) - {"epoch_time_s"}:
        assert history[name] == expected[name], name


def test_checkpoint_round_trip(tmp_path):
    trainer = new_trainer(tmp_path)
    trainer.fit(2)
    assert (tmp_path / "last.pt").is_file()
    assert (tmp_path / "best.pt").is_file()
    other = new_trainer(tmp_path)
    metadata = other.load_checkpoint(tmp_path / "last.pt")
    assert metadata["epoch"] == 2
    assert metadata["val_metrics"]["val_loss"] == trainer.state.history["val_loss"][-1]
    assert equal_weights(trainer.model, other.model)
    assert other.lr_scheduler.state_dict() == trainer.lr_scheduler.state_dict()


def test_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"last\.pt"):
        new_trainer(tmp_path).fit(1, resume_from=tmp_path / "last.pt")


def test_rejects_a_checkpoint_of_another_network(tmp_path):
    new_trainer(tmp_path).fit(1)
    other = Trainer(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), loader(), device="cpu")
    with pytest.raises(ValueError, match="does not fit"):
        other.fit(2, resume_from=tmp_path / "last.pt")


def test_does_not_execute_a_pickle(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"bomb\.pt"):
        new_trainer(tmp_path).load_checkpoint(tmp_path / "bomb.pt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_rejects_a_checkpoint_of_another_optimizer_before_loading(tmp_path, make):
    new_trainer(tmp_path).fit(1)
    model = small_network(seed=5)
    before = model.state_dict()["0.weight"].clone()
    other = Trainer(model, loader(), None, make(model.parameters(), lr=0.1), device="cpu")
    with pytest.raises(ValueError, match="optimizer is AdamW"):
        other.fit(2, resume_from=tmp_path / "last.pt")
    assert torch.equal(before, model.state_dict()["0.weight"])


def test_interruption_before_training_is_kept(tmp_path):
    trainer = new_trainer(tmp_path)
    with finish_batch_on_interrupt(trainer.state):
        signal.raise_signal(signal.SIGINT)
        assert trainer.fit(3) == {}
    with finish_batch_on_interrupt(trainer.state):
        assert len(trainer.fit(3)["lr"]) == 3


def test_train_epoch_shuffles_each_time():
    seen = []

    class Recorder(nn.Linear):
        def forward(self, signals):
            seen.append(signals[:, 0, 0].tolist())
            return super().forward(signals.flatten(1))

    trainer = Trainer(Recorder(64, 3), own_loader(), device="cpu")
    for _ in range(2):
        trainer.train_epoch()
    assert seen[0] != seen[len(seen) // 2]


def test_fit_after_a_failed_epoch():
    """An error within an accumulation window does not affect the next window and epoch."""
    model = small_network()
    should_fail = [True]

    class Fail(Callback):
        def on_batch_end(self, batch, logs=None):
            if should_fail and batch == 0:
                should_fail.clear()
                raise RuntimeError("boom")

    trainer = Trainer(
        model, loader(), None, adamw(model), device="cpu", callbacks=[Fail()], gradient_accumulation_steps=2
    )
    with pytest.raises(RuntimeError, match="boom"):
        trainer.fit(2)
    history = trainer.fit(2)
    assert len(history["train_loss"]) == trainer.state.epoch == 2
    assert trainer.state.global_step == 2 * 2


def read_all(terminal):
    """Return the output of a pseudo-terminal whose other end is closed."""
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 10_000):
            shown += part
    os.close(terminal)
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminal")
@pytest.mark.parametrize("call", ["fit(2)", "train_epoch()"])
def test_progress_bar_in_a_terminal_without_loader_length(call):
    """The loader has an iterable data set of unknown length."""
    import pty
    import termios

    code = f"""
import torch
from whirl.training.trainer import Trainer
class Unsized(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))] * 3)
loader = torch.utils.data.DataLoader(Unsized(), batch_size=None)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
Trainer(model, loader, device="cpu").{call}
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, check=False)
    os.close(theirs)
    shown = read_all(ours)
    assert done.returncode == 0, shown
    assert ("epoch 2/2" in shown) == call.startswith("fit")


def test_functions_are_callbacks_and_can_stop():
    model = small_network()

    def stop_after_two(trainer, logs):
        trainer.state.should_stop = trainer.state.epoch == 1
        assert 0 <= logs["train_accuracy"] <= 1

    trainer = Trainer(model, loader(), None, adamw(model), device="cpu", callbacks=[stop_after_two])
    assert len(trainer.fit(10)["train_loss"]) == 2


def test_plateau_schedule_needs_validation():
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=10.0, factor=0.5)
    assert CNNTrainer(model, loader(), loader(False), optimizer, device="cpu", lr_scheduler=plateau).fit(3)["lr"] == [
        0.1, 0.1, 0.05
    ]  # fmt: skip
    with pytest.raises(ValueError, match="val_loader"):
        CNNTrainer(model, loader(), None, optimizer, device="cpu", lr_scheduler=plateau).fit(1)


def test_step_schedule_counts_optimizer_steps():
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rates = []
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
    expected = torch.optim.lr_scheduler.OneCycleLR(torch.optim.SGD(model.parameters(), lr=0.1), 0.1, 4)

    class Watch(Callback):
        def on_batch_end(self, batch, logs=None):
            rates.append(optimizer.param_groups[0]["lr"])

    CNNTrainer(
        model, loader(), None, optimizer, device="cpu", callbacks=[Watch()], lr_scheduler=scheduler,
        gradient_accumulation_steps=2,
    ).fit(3)  # fmt: skip
    closed_form = []
    for _ in range(6):
        expected.optimizer.step()
        if expected.last_epoch < 3:
            expected.step()
        closed_form.append(expected.get_last_lr()[0])
    assert rates[1::2] == pytest.approx(closed_form)


def test_absent_device_falls_back_to_the_cpu_with_one_warning():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.warns(UserWarning, match="cuda") as caught:
        trainer = Trainer(small_network(), loader())
    assert len(caught) == 1
    assert trainer.device.type == "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
        ({"device": "abacus"}, "abacus"),
        ({"callbacks": ["loud"]}, "loud"),
        ({"lr_scheduler": 3}, "scheduler"),
    ],
)
def test_rejects_invalid_arguments(change, message):
    arguments = {"device": "cpu"} | change
    with pytest.raises((ValueError, TypeError), match=message):
        Trainer(small_network(), loader(), **arguments)


@pytest.mark.parametrize(
    "batches", [[], [torch.zeros(4, 1, 64)], [(torch.zeros(4, 1, 64), torch.zeros(3, dtype=torch.int64))], [{"x": 1}]]
)
def test_rejects_invalid_batches(batches):
    with pytest.raises((ValueError, TypeError), match=r"batch|train_loader"):
        Trainer(small_network(), batches, device="cpu").fit(1)


def test_mixed_precision_is_close_to_full_precision():
    full, mixed = small_network(), small_network()
    for model, precision in ((full, False), (mixed, "bf16")):
        torch.manual_seed(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Trainer(model, loader(False), None, adamw(model, 1e-3), device="cpu", mixed_precision=precision).fit(2)
    difference = (full.state_dict()["6.weight"] - mixed.state_dict()["6.weight"]).abs().max()
    assert 0 < difference < 0.02


@pytest.fixture(params=[True, False], ids=["CPU with bf16", "CPU without bf16"])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param})
    return request.param


UNSUPPORTED = "this cpu device does not support mixed precision; training in single precision"


def test_cnn_trainer_logs_unsupported_mixed_precision(has_bf16, caplog, recwarn):
    """Mixed precision is its default, so the user need not have requested it."""
    with caplog.at_level(logging.INFO, logger="whirl"):
        trainer = CNNTrainer(small_network(), loader(), device="cpu")
    assert trainer.precision.name == ("bf16" if has_bf16 else "32")
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == ([] if has_bf16 else [("INFO", UNSUPPORTED)])
    assert not recwarn.list


def test_trainer_warns_once_of_unsupported_mixed_precision(has_bf16, caplog, recwarn):
    trainer = Trainer(small_network(), loader(), device="cpu", mixed_precision=True)
    assert trainer.precision.name == ("bf16" if has_bf16 else "32")
    assert [str(warning.message) for warning in recwarn] == ([] if has_bf16 else [UNSUPPORTED])
    assert not caplog.records
