"""The physics-informed trainer: limiting cases, logged terms, unlabeled windows, zero gradients, resume."""

import math

import pytest
import torch
from torch import nn

from whirl.data.loaders import make_loader
from whirl.data.simulation import simulate
from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback
from whirl.models.registry import create_model
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.training.pinn_trainer import PINNTrainer, ZeroGradientError
from whirl.training.trainer import Trainer

RATE_HZ, WINDOW = 2560, 2048
FREQ_ONLY = {"lambda_sommerfeld": 0.0, "lambda_temporal": 0.0, "sample_rate": RATE_HZ, "device": "cpu"}


@pytest.fixture(scope="module")
def windows():
    recordings = simulate(2, 1, seed=3, sampling_rate_hz=RATE_HZ, n_samples=2 * WINDOW)
    return WindowDataset(recordings, JOURNAL_CLASSES, WINDOW)


def loader(windows, seed=0, batch_size=16):
    return make_loader(windows, batch_size, shuffle=True, seed=seed)


def new(kind, windows, **arguments):
    torch.manual_seed(0)
    return kind(create_model("wdcnn", 11), loader(windows), **arguments)


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_without_physics_equals_trainer_exactly(windows):
    plain = new(Trainer, windows, device="cpu")
    physics = new(PINNTrainer, windows, lambda_freq=0, **FREQ_ONLY)
    plain.fit(2), physics.fit(2)
    assert torch.equal(weights(plain), weights(physics))
    assert physics.state.history["train_loss"] == plain.state.history["train_loss"]
    assert physics.state.history["train_physics_loss"] == [0.0, 0.0]


def test_weights_of_a_term_change_the_first_step(windows):
    found = []
    for weight in (0.1, 0.3, 1.0):
        trainer = new(PINNTrainer, windows, lambda_freq=weight, adaptive_lambda=False, max_grad_norm=None, **FREQ_ONLY)
        trainer.updater.on_step = lambda trainer=trainer: setattr(trainer.state, "interrupted", True)
        trainer.train_epoch()
        found.append(weights(trainer))
    assert len({tuple(w.tolist()) for w in found}) == 3


def test_components_add_up_and_weights_rise(windows):
    trainer = new(PINNTrainer, windows, val_loader=loader(windows), lambda_freq=0.7, **FREQ_ONLY)
    history = trainer.train(3)
    assert trainer.state.lambda_history == [0.0, 0.5, 1.0]
    for epoch, share in enumerate(trainer.state.lambda_history):
        parts = {name: values[epoch] for name, values in trainer.state.loss_components.items()}
        assert parts["train_physics_loss"] == pytest.approx(share * 0.7 * parts["train_freq_loss"], rel=1e-5)
        total = parts["train_classification_loss"] + parts["train_physics_loss"]
        assert history["train_loss"][epoch] == pytest.approx(total, rel=1e-5)
        assert parts["val_physics_loss"] == pytest.approx(0.7 * parts["val_freq_loss"], rel=1e-5)
    assert history["val_lambda"] == [1.0] * 3
    assert all(0 <= value <= 1 for value in history["train_physics_agreement"])


def test_compute_loss_returns_the_documented_components(windows):
    trainer = new(PINNTrainer, windows, **FREQ_ONLY)
    signals, targets, metadata = windows[torch.arange(4)]
    loss, parts = trainer.compute_loss(trainer.model(signals), targets, signals, metadata)
    assert loss.requires_grad
    names = {"total_loss", "classification_loss", "physics_loss", "freq_loss", "sommerfeld_loss", "temporal_loss"}
    assert names | {"lambda"} <= parts.keys()
    assert not any(part.requires_grad for part in parts.values())


def test_accumulation_is_exact(windows):
    """Two micro-batches of 8 equal one of 16, without batch normalization, whose statistics would differ."""

    def trained(batch_size, steps):
        torch.manual_seed(0)
        model = nn.Sequential(nn.AvgPool1d(32), nn.Flatten(), nn.Linear(WINDOW // 32, 11)).double()
        data = DoubleWindows(windows)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = PINNTrainer(
            model,
            make_loader(data, batch_size),
            optimizer=optimizer,
            gradient_accumulation_steps=steps,
            adaptive_lambda=False,
            **FREQ_ONLY,
        )
        trainer.fit(1)
        return weights(trainer)

    assert torch.allclose(trained(16, 1), trained(8, 2), atol=1e-9)


class DoubleWindows(torch.utils.data.Dataset):
    def __init__(self, windows):
        self.windows = windows

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, index):
        signals, targets, metadata = self.windows[index]
        return signals.double(), targets, metadata


# -- zero gradients ----------------------------------------------------------------------------------------------


def without_rpm(batch):
    signals, targets, _ = batch
    return signals, targets


def test_term_without_gradient_stops_training(windows):
    batches = [without_rpm(windows[torch.arange(16)])]
    trainer = PINNTrainer(create_model("wdcnn", 11), batches, **FREQ_ONLY)
    before = weights(trainer)
    with pytest.raises(ZeroGradientError, match=r"freq_loss: .*rpm"):
        trainer.fit(1)
    assert torch.equal(before, weights(trainer))


def test_default_terms_need_their_inputs(windows):
    signals, targets, metadata = windows[torch.arange(16)]
    batches = [(signals, targets, {"rpm": metadata["rpm"]})]
    trainer = PINNTrainer(create_model("wdcnn", 11), batches, device="cpu", sample_rate=RATE_HZ)
    with pytest.raises(ZeroGradientError, match=r"sommerfeld_loss: .*temporal_loss: "):
        trainer.fit(1)


def test_simulated_recordings_suit_all_default_terms(windows):
    history = new(PINNTrainer, windows, device="cpu", sample_rate=RATE_HZ).fit(2)
    for name in ("freq_loss", "sommerfeld_loss", "temporal_loss"):
        assert all(value > 0 for value in history[f"train_{name}"])


@pytest.mark.filterwarnings("ignore:.*rpm:UserWarning")
def test_zero_gradients_may_be_allowed(windows):
    batches = [without_rpm(windows[torch.arange(16)])]
    torch.manual_seed(0)
    trainer = PINNTrainer(create_model("wdcnn", 11), batches, allow_zero_gradient=True, **FREQ_ONLY)
    history = trainer.fit(1)
    assert history["train_physics_loss"] == [0.0]
    assert math.isfinite(history["train_loss"][0])


def test_rejects_missing_metadata(windows):
    trainer = new(PINNTrainer, windows, metadata_keys=["rpm", "humidity"], **FREQ_ONLY)
    with pytest.raises(ValueError, match=r"metadata_keys has 'humidity', but .*'rpm'"):
        trainer.fit(1)


def test_rejects_invalid_arguments(windows):
    with pytest.raises(ValueError, match="unknown lambda_schedule 'linaer'; did you mean 'linear'"):
        new(PINNTrainer, windows, lambda_schedule="linaer", device="cpu")
    with pytest.raises(ValueError, match="lambda_freq"):
        new(PINNTrainer, windows, lambda_freq=-1.0, device="cpu")
    with pytest.raises(ValueError, match="unknown balancing 'luck'"):
        new(PINNTrainer, windows, balancing="luck", device="cpu")


# -- unlabeled windows ---------------------------------------------------------------------------------------


def test_unlabeled_windows_matter_and_their_labels_do_not(windows):
    class Relabeled(DoubleWindows):
        def __getitem__(self, index):
            signals, targets, metadata = self.windows[index]
            return signals, (targets + 5) % 11, metadata

    found = []
    for data in (None, windows, Relabeled(windows)):
        unlabeled = None if data is None else make_loader(data, 8, shuffle=True, seed=1)
        trainer = new(PINNTrainer, windows, unlabeled_loader=unlabeled, lambda_schedule="constant", **FREQ_ONLY)
        trainer.fit(1)
        found.append(weights(trainer))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_accuracy_counts_labeled_windows_only(windows):
    trainer = new(PINNTrainer, windows, unlabeled_loader=loader(windows, seed=1), **FREQ_ONLY)
    assert 0 <= trainer.fit(1)["train_accuracy"][0] <= 1
    assert trainer.unlabeled_loader is not None


def test_unlabeled_batches_need_the_same_metadata(windows):
    unlabeled = [without_rpm(windows[torch.arange(8)])]
    trainer = new(PINNTrainer, windows, unlabeled_loader=unlabeled, **FREQ_ONLY)
    with pytest.raises(ValueError, match="batches of unlabeled_loader have no metadata"):
        trainer.fit(1)


def test_rejects_an_empty_unlabeled_loader(windows):
    with pytest.raises(ValueError, match="unlabeled_loader yielded no batch"):
        new(PINNTrainer, windows, unlabeled_loader=[], **FREQ_ONLY).fit(1)


# -- resume ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancing", ["none", "gradnorm", "softadapt", "relobralo"])
def test_resume_matches_uninterrupted_run(windows, tmp_path, balancing):
    def make(folder):
        return new(
            PINNTrainer,
            windows,
            val_loader=loader(windows),
            unlabeled_loader=make_loader(windows, 4, shuffle=True, seed=1),
            checkpoint_dir=tmp_path / folder,
            balancing=balancing,
            **FREQ_ONLY,
        )

    uninterrupted = make("uninterrupted")
    torch.manual_seed(1)
    uninterrupted.fit(3)
    first = make("part")
    first.callbacks.append(StopAt(first, 4))
    torch.manual_seed(1)
    first.fit(3)
    second = make("part")
    torch.manual_seed(5)
    second.fit(3, resume_from=tmp_path / "part" / "last.pt")
    assert torch.equal(weights(uninterrupted), weights(second))
    assert second.state.lambda_history == [0.0, 0.5, 1.0]
    assert second.state.history["train_freq_loss"] == uninterrupted.state.history["train_freq_loss"]


class StopAt(Callback):
    """Interrupts after a number of optimizer steps, as Ctrl-C does."""

    def __init__(self, trainer, steps):
        self.stopping, self.steps = trainer, steps

    def on_batch_end(self, batch, logs=None):
        self.stopping.state.interrupted |= self.stopping.state.global_step == self.steps


@pytest.mark.parametrize("mixed_precision", [False, "bf16"])
def test_trains_in_mixed_precision(windows, mixed_precision):
    trainer = new(PINNTrainer, windows, mixed_precision=mixed_precision, adaptive_lambda=False, **FREQ_ONLY)
    assert math.isfinite(trainer.fit(1)["train_freq_loss"][0])


def test_passes_metadata_to_the_network(windows):
    class Speed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 11)

        def forward(self, signals, metadata=None):
            return self.layer(metadata["rpm"][:, None] / 3000)

    trainer = PINNTrainer(Speed(), loader(windows), **FREQ_ONLY)
    assert math.isfinite(trainer.fit(1)["train_loss"][0])
