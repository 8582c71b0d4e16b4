"""Parts of a trainer: what it owns, replacing them, and loading checkpoints into trainers with other parts."""

import logging
import signal

import numpy as np
import pytest
import torch
from torch import nn

from whirl.callbacks import EarlyStopping, MetricLogger
from whirl.engine.batch import Batch
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import load_weights
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.trainer import Trainer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


def batches(n=6):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 1, 4, generator=generator), torch.arange(8) % 3) for _ in range(n)]


def new_trainer(folder=None, model=None, **options):
    model = network() if model is None else model
    options.setdefault("optimizer", torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    return Trainer(model, batches(), batches(2), device="cpu", checkpoint_dir=folder, **options)


def weights(trainer):
    return [value.clone() for value in trainer.model.state_dict().values()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# -- parts that are trained -----------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Cross entropy of scaled logits, with a learned scale."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs * self.scale, targets)


def test_parameters_of_the_criterion_are_trained_and_resumed(tmp_path):
    uninterrupted = Trainer(network(), batches(), criterion=Scaled(), device="cpu")
    uninterrupted.fit(3)
    assert uninterrupted.criterion.scale.item() != 1
    Trainer(network(), batches(), criterion=Scaled(), device="cpu", checkpoint_dir=tmp_path).fit(1)
    resumed = Trainer(network(), batches(), criterion=Scaled(), device="cpu")
    resumed.fit(3, resume_from=tmp_path / "last.pt")
    assert torch.equal(resumed.criterion.scale, uninterrupted.criterion.scale)
    assert equal(weights(resumed), weights(uninterrupted))


def test_warns_of_a_criterion_that_is_not_trained(caplog):
    new_trainer(criterion=Scaled()).fit(1)
    assert "does not hold the parameters of the criterion" in caplog.text


class Growing:
    """An augmentation that amplifies more with every batch."""

    def __init__(self):
        self.n_calls = 0

    def __call__(self, signals, labels):
        self.n_calls += 1
        return signals * self.n_calls, labels

    def state_dict(self):
        return {"n_calls": self.n_calls}

    def load_state_dict(self, state):
        self.n_calls = state["n_calls"]


def test_stateful_augmentations_are_resumed(tmp_path):
    uninterrupted = new_trainer(augmentation=Growing())
    uninterrupted.fit(3)
    new_trainer(tmp_path, augmentation=Growing()).fit(1)
    resumed = new_trainer(augmentation=Growing())
    resumed.fit(3, resume_from=tmp_path / "last.pt")
    assert equal(weights(resumed), weights(uninterrupted))


# -- replacing parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_grad_norm", 0.01),
        ("gradient_accumulation_steps", 3),
        ("mixed_precision", "bf16"),
        ("criterion", nn.MultiMarginLoss()),
    ],
)
def test_a_replaced_part_takes_effect(name, value):
    assigned, constructed = new_trainer(), new_trainer(**{name: value})
    setattr(assigned, name, value)
    assigned.fit(2)
    constructed.fit(2)
    assert equal(weights(assigned), weights(constructed))
    assert getattr(assigned, name) == getattr(constructed, name)


def test_a_replaced_optimizer_takes_effect():
    trainer, expected = new_trainer(), None
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
    expected = weights(trainer)[0]
    history = trainer.fit(1)
    assert history["lr"] == [0.0]
    assert torch.equal(weights(trainer)[0], expected)


def test_a_schedule_of_another_optimizer_is_refused():
    trainer = new_trainer()
    trainer.lr_scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(trainer.model.parameters(), lr=1.0), 1)
    with pytest.raises(ValueError, match="StepLR schedules another optimizer"):
        trainer.fit(1)


def test_the_checkpoint_folder_is_read_only(tmp_path):
    with pytest.raises(AttributeError):
        new_trainer().checkpoint_dir = tmp_path


class Closure(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda model: "adam", TypeError, r"create_optimizer\('adam', model\)"),
        (lambda model: torch.optim.SGD(network().parameters(), lr=0.1), ValueError, "created for another network"),
        (lambda model: torch.optim.LBFGS(model.parameters()), ValueError, "LBFGS computes the loss several times"),
        (lambda model: Closure(model.parameters(), lr=0.1), ValueError, "Closure computes the loss several times"),
    ],
)
def test_rejects_optimizers_that_cannot_train_the_network(make, error, message):
    model = network()
    with pytest.raises(error, match=message):
        new_trainer(model=model, optimizer=make(model))


# -- borders of fit -------------------------------------------------------------------------------------------


class FailOnce(Callback):
    def __init__(self, epoch, batch, action):
        self.where, self.action = (epoch, batch), action

    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) == self.where:
            self.where = None
            self.action(self.trainer)


def fail(trainer):
    raise RuntimeError("once")


def interrupt(trainer):
    trainer.state.interrupted = True


def test_after_a_failure_the_epoch_starts_over(caplog):
    seen = []
    trainer = new_trainer(callbacks=[FailOnce(1, 2, fail)])
    trainer.callbacks.append(
        type("Seen", (Callback,), {"on_batch_begin": lambda self, batch, logs=None: seen.append(batch)})()
    )
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(2)
    trainer.fit(1)
    assert seen == [*range(6), 0, 1, 2, *range(6)]
    assert "the last fit failed in epoch 1: starting this epoch over" in caplog.text


def test_after_an_interruption_fit_continues():
    expected, trainer = new_trainer(), new_trainer(callbacks=[FailOnce(1, 2, interrupt)])
    expected.fit(3)
    trainer.fit(3)
    assert trainer.state.interrupted
    trainer.fit(2)
    assert not trainer.state.interrupted
    assert equal(weights(trainer), weights(expected))
    assert trainer.state.history["train_loss"] == expected.state.history["train_loss"]


def test_interruption_before_fit_ends_it():
    trainer = new_trainer()
    trainer.state.interrupted = True
    trainer.fit(1)
    assert trainer.state.global_step == 0


def test_ctrl_c_in_a_notebook_keeps_the_state(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ipykernel", object())
    monkeypatch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))
    quiet = {"callbacks": [FailOnce(0, 3, lambda trainer: signal.raise_signal(signal.SIGINT))]}
    monkeypatch.setattr("whirl.engine.progress.is_interactive", lambda: False)
    trainer, expected = new_trainer(**quiet), new_trainer()
    trainer.fit(2)
    assert trainer.state.batch == 4
    trainer.fit(2)
    expected.fit(2)
    assert equal(weights(trainer), weights(expected))


def test_frozen_batch_norm_stays_frozen():
    trainer = new_trainer()
    trainer.model[2].eval()
    trainer.fit(2)
    assert trainer.model[2].num_batches_tracked == 0
    trainer.model.train()
    trainer.fit(1)
    assert trainer.model[2].num_batches_tracked == 6


def test_warns_when_the_schedule_is_at_its_end(caplog):
    trainer = new_trainer()
    trainer.lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(trainer.optimizer, 0.1, total_steps=12)
    trainer.fit(2)
    assert "at its end" not in caplog.text
    trainer.fit(1)
    assert "OneCycleLR is at its end: training continues at the learning rate 4e-07" in caplog.text


@pytest.mark.parametrize(
    ("options", "n_steps"),
    [({"max_steps": 8}, 8), ({"limit_train_batches": 2}, 6), ({"limit_train_batches": 0.5}, 9), ({}, 18)],
)
def test_limits(options, n_steps):
    trainer = new_trainer(**options)
    history = trainer.fit(3)
    assert trainer.state.global_step == n_steps
    assert len(history["val_loss"]) == trainer.state.epoch == (2 if "max_steps" in options else 3)


def test_max_steps_hold_over_several_fits():
    trainer = new_trainer(max_steps=8)
    for _ in range(3):
        trainer.fit(1)
    assert trainer.state.global_step == 8


@pytest.mark.parametrize("limit", [0, 1.5, -2])
def test_rejects_invalid_limits(limit):
    with pytest.raises(ValueError, match="limit_train_batches is"):
        new_trainer(limit_train_batches=limit)


@pytest.mark.parametrize(("fast_dev_run", "n_steps"), [(True, 1), (3, 3)])
def test_fast_dev_run_tries_a_few_batches_and_writes_nothing(tmp_path, fast_dev_run, n_steps):
    seen = []
    callbacks = [MetricLogger(tmp_path / "log.json"), lambda trainer, logs: seen.append(logs)]
    trainer = new_trainer(tmp_path / "run", fast_dev_run=fast_dev_run, checkpoint_every=1, callbacks=callbacks)
    history = trainer.fit(20)
    assert trainer.state.global_step == n_steps
    assert len(seen) == len(history["val_loss"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_limited_epochs_resume_exactly(tmp_path):
    options = {"limit_train_batches": 4}
    expected = new_trainer(**options)
    expected.fit(3)
    new_trainer(tmp_path, callbacks=[FailOnce(1, 2, interrupt)], **options).fit(3)
    resumed = new_trainer(**options)
    resumed.fit(3, resume_from=tmp_path / "last.pt")
    assert equal(weights(resumed), weights(expected))


def test_should_stop_ends_the_epoch_at_the_next_step():
    trainer = new_trainer(callbacks=[FailOnce(1, 2, lambda trainer: setattr(trainer.state, "should_stop", True))])
    history = trainer.fit(5)
    assert trainer.state.global_step == 6 + 3
    assert len(history["val_loss"]) == 2
    assert trainer.fit(1)["val_loss"][2:]


def test_callbacks_add_to_the_history():
    trainer = new_trainer(callbacks=[lambda trainer, logs: logs.update(extra=trainer.state.epoch, figure="none")])
    history = trainer.fit(2)
    assert history["extra"] == [0, 1]
    assert "figure" not in history


def test_the_reference_names_of_accuracy_and_history():
    trainer = new_trainer()
    trainer.fit(1)
    assert trainer.history["val_acc"] == trainer.state.history["val_accuracy"]


def test_the_ramp_of_the_physics_terms_does_not_fall_back():
    data = [(torch.randn(8, 1, 2048), torch.arange(8) % 3, {"rpm": torch.full((8,), 3000.0)})]
    model = nn.Sequential(nn.Flatten(), nn.Linear(2048, 11))
    trainer = PINNTrainer(
        model, data, device="cpu", sample_rate=2560, lambda_sommerfeld=0.0, lambda_temporal=0.0,
        allow_zero_gradient=True,
    )  # fmt: skip
    trainer.fit(4)
    trainer.fit(3)
    shares = trainer.state.lambda_history
    assert shares == sorted(shares)
    assert shares[3:] == [1.0] * 4


# -- checkpoints ----------------------------------------------------------------------------------------------


OTHERS = {
    "optimizer": lambda model: {"optimizer": torch.optim.AdamW(model.parameters(), lr=0.01)},
    "precision": lambda model: {"mixed_precision": "bf16"},
    "scheduler": lambda model: {"schedule": None},
    "EarlyStopping:0": lambda model: {"callbacks": []},
}


def full_trainer(folder, schedule=True, **options):
    trainer = new_trainer(folder, **{"mixed_precision": "fp16", "callbacks": [EarlyStopping()], **options})
    if schedule:
        trainer.lr_scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, 0.5)
    return trainer


@pytest.mark.parametrize("part", OTHERS)
def test_a_checkpoint_loads_into_a_trainer_with_other_parts(tmp_path, caplog, part):
    saved = full_trainer(tmp_path)
    saved.fit(2)
    model = network()
    other = full_trainer(None, model=model, **OTHERS[part](model))
    before = other.state_dict()
    with pytest.raises(ValueError, match="does not fit this trainer"):
        other.load_checkpoint(tmp_path / "last.pt")
    assert str(other.state_dict()) == str(before)
    caplog.set_level(logging.WARNING)
    other.load_checkpoint(tmp_path / "last.pt", strict=False)
    assert equal(weights(other), weights(saved))
    assert f"not taken over: {part} (" in caplog.text
    assert other.state.epoch == 2
    other.fit(1)


def test_all_that_fits_is_taken_over_in_silence(tmp_path, caplog):
    saved, other = full_trainer(tmp_path), full_trainer(None)
    saved.fit(2)
    other.load_checkpoint(tmp_path / "last.pt", strict=False)
    saved.fit(1)
    other.fit(1)
    assert equal(weights(other), weights(saved))
    assert "not taken over" not in caplog.text


def test_the_weights_of_another_network_are_always_refused(tmp_path):
    new_trainer(tmp_path).fit(1)
    other = new_trainer(model=nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    before = weights(other)
    with pytest.raises(ValueError, match="does not fit this trainer"):
        other.load_checkpoint(tmp_path / "last.pt", strict=False)
    assert equal(weights(other), before)


def test_arrays_among_the_metrics_can_be_loaded_again(tmp_path):
    trainer = new_trainer(tmp_path)
    trainer.save_checkpoint(1, {"cm": np.eye(3), "loss": np.float32(0.5), "per_class": [np.ones(2)]}, True)
    assert trainer.load_checkpoint(tmp_path / "best.pt")["val_metrics"]["cm"].tolist() == np.eye(3).tolist()
    with pytest.raises(TypeError, match=r"val_metrics\['model'\], a Linear"):
        trainer.save_checkpoint(1, {"model": nn.Linear(1, 1)}, True)
    load_weights(network(), tmp_path / "last.pt")


def test_recordings_may_be_named_by_strings():
    data = batches(2)
    data[1][0][2] = torch.inf
    data = [(*batch, {"recording": [f"{i}-{row}.wav" for row in range(8)]}) for i, batch in enumerate(data)]
    with pytest.raises(ValueError, match=r"row 2; recording 1-2\.wav"):
        Trainer(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), data, device="cpu").fit(1)
    assert Batch(*data[0]).metadata["recording"][0] == "0-0.wav"
