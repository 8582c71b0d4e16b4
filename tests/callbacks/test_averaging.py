"""Averaged and best weights: what is validated, saved, resumed, and in the network at the end."""

import pytest
import torch
from torch import nn

from tests.engine.helpers import InterruptAt
from whirl.callbacks import EMA, SWA, EarlyStopping
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import load_weights
from whirl.training.trainer import Trainer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def batches(n=6):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 1, 4, generator=generator), torch.arange(8) % 3) for _ in range(n)]


class Recorder(Callback):
    """Keeps the weights after every batch and every epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_batch_end(self, batch, logs=None):
        self.steps.append({n: v.clone() for n, v in self.trainer.model.state_dict().items()})

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({n: v.clone() for n, v in self.trainer.model.state_dict().items()})


def new_trainer(*callbacks, folder=None, **options):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    options.setdefault("val_loader", batches(2))
    return Trainer(
        model, batches(), optimizer=optimizer, device="cpu", callbacks=list(callbacks), checkpoint_dir=folder, **options
    )


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_ema_follows_its_formula():
    recorder = Recorder()
    average = EMA(decay=0.5)
    new_trainer(recorder, average).fit(2)
    expected = recorder.steps[0]["1.weight"]
    for n, step in enumerate(recorder.steps[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * step["1.weight"]
    torch.testing.assert_close(average.weights["1.weight"], expected)
    assert average.weights["2.num_batches_tracked"] == recorder.steps[-1]["2.num_batches_tracked"]


def test_swa_is_the_mean_of_epochs():
    recorder, average = Recorder(), SWA(start_epoch=1)
    new_trainer(recorder, average).fit(4)
    expected = torch.stack([weights["1.weight"] for weights in recorder.epochs[1:]]).mean(0)
    torch.testing.assert_close(average.weights["1.weight"], expected)


@pytest.mark.parametrize("make", [lambda: EMA(0.8), lambda: SWA(0)])
def test_averaging_leaves_training_as_it_is(make):
    plain, averaged = Recorder(), Recorder()
    new_trainer(plain).fit(3)
    new_trainer(make(), averaged).fit(3)
    assert all(equal(a, b) for a, b in zip(plain.steps, averaged.steps, strict=True))


@pytest.mark.parametrize("make", [lambda: EMA(0.8), lambda: SWA(0)])
@pytest.mark.parametrize("val_loader", [batches(2), None])
@pytest.mark.parametrize("where", [(1, 2), (2, 5)])
def test_averages_are_resumed_to_the_same_bits(tmp_path, make, val_loader, where):
    options = {"val_loader": val_loader, "gradient_accumulation_steps": 4}
    expected, resumed = make(), make()
    uninterrupted = new_trainer(expected, **options)
    uninterrupted.fit(4)
    new_trainer(make(), InterruptAt(*where), folder=tmp_path, **options).fit(4)
    trainer = new_trainer(resumed, InterruptAt(-1, 0), **options)
    trainer.fit(4, resume_from=tmp_path / "last.pt")
    assert equal(expected.weights, resumed.weights)
    assert equal(trainer.model.state_dict(), uninterrupted.model.state_dict())
    assert trainer.history["train_loss"] == uninterrupted.history["train_loss"]


@pytest.mark.parametrize("make", [lambda: EMA(0.8), lambda: SWA(0)])
def test_the_validated_weights_are_those_of_the_checkpoint(tmp_path, make):
    average = make()
    trainer = new_trainer(average, folder=tmp_path)
    history = trainer.fit(3)
    loaded = network()
    load_weights(loaded, tmp_path / "last.pt")
    assert equal(loaded.state_dict(), average.weights)
    assert equal(loaded.state_dict(), trainer.model.state_dict())
    assert Trainer(loaded, [], batches(2), device="cpu").validate_epoch()["loss"] == history["val_loss"][-1]


def test_early_stopping_restores_the_best_weights(tmp_path):
    recorder, stopping = Recorder(), EarlyStopping(patience=2, restore_best_weights=True)
    trainer = new_trainer(recorder, stopping, folder=tmp_path)
    trainer.fit(60)
    assert stopping.best_epoch < len(recorder.epochs) - 1
    assert equal(trainer.model.state_dict(), recorder.epochs[stopping.best_epoch])
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["training"]["model"]
    assert equal(saved, recorder.epochs[-1])


def test_best_weights_are_restored_after_a_resume(tmp_path):
    uninterrupted = new_trainer(EarlyStopping(patience=3, restore_best_weights=True))
    uninterrupted.fit(12)
    new_trainer(EarlyStopping(patience=3, restore_best_weights=True), folder=tmp_path).fit(5)
    resumed = new_trainer(EarlyStopping(patience=3, restore_best_weights=True))
    resumed.fit(12, resume_from=tmp_path / "last.pt")
    assert equal(resumed.model.state_dict(), uninterrupted.model.state_dict())


def test_an_interruption_restores_nothing():
    recorder = Recorder()
    callbacks = [EarlyStopping(restore_best_weights=True), EMA(0.8), InterruptAt(3, 2), recorder]
    trainer = new_trainer(*callbacks)
    trainer.fit(5)
    assert equal(trainer.model.state_dict(), recorder.steps[-1])


@pytest.mark.parametrize("decay", [0, 1, -0.5])
def test_rejects_an_invalid_decay(decay):
    with pytest.raises(ValueError, match="decay is"):
        EMA(decay)
