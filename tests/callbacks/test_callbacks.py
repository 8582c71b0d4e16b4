"""Every callback by contract; early stopping, checkpoints and schedules in detail."""

import inspect
import logging
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.callbacks.helpers import EPOCH_LOGS, small_trainer
from whirl.callbacks import best_weights, callbacks, cnn_callbacks
from whirl.callbacks.callbacks import Callback, EarlyStopping, LearningRateScheduler, ModelCheckpoint
from whirl.callbacks.cnn_callbacks import CallbackList
from whirl.engine import callbacks as engine_callbacks
from whirl.training.trainer import Trainer

# -- every callback ------------------------------------------------------------------------------------------


def parts():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer


def smallest(name, folder):
    """Create a callback with minimal arguments, and the model and optimizer it watches."""
    model, optimizer = parts()
    arguments = {
        "BestWeights": {"model": model},
        "ModelCheckpoint": {"filepath": folder / "{epoch}.pt", "model": model},
        "LearningRateScheduler": {"scheduler": lr_scheduler.StepLR(optimizer, 1)},
        "TensorBoardLogger": {"log_dir": folder},
        "LearningRateMonitor": {"optimizer": optimizer},
        "GradientMonitor": {"model": model, "log_interval": 1},
        "ModelCheckpointCallback": {"checkpoint_dir": folder, "model": model, "optimizer": optimizer},
        "MetricLogger": {"log_file": folder / "log.json"},
        "CallbackList": {"callbacks": [EarlyStopping()]},
    }
    found = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    return found(**arguments.get(name, {})), model, optimizer


MODULES = (callbacks, cnn_callbacks, best_weights)
ALL_NAMES = sorted(
    {
        name
        for module in MODULES
        for name, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Callback)
        and not name.startswith("_")
        and name != "MLflowLogger"  # tested below with its own store
    }
)


def run_plain_loop(watching, model, optimizer, epochs):
    for epoch in epochs:
        watching.on_epoch_begin(epoch)
        for batch in range(3):
            watching.on_batch_begin(batch)
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().sum()
            loss.backward()
            optimizer.step()
            watching.on_batch_end(batch, {"loss": loss.detach()})
        watching.on_epoch_end(epoch, {**EPOCH_LOGS, "val_loss": 1.0 / (epoch + 1)})


def test_both_modules_share_one_base():
    assert {"EarlyStopping", "EarlyStoppingCallback", "TimingCallback", "CallbackList", "Callback"} <= set(ALL_NAMES)
    assert callbacks.Callback is cnn_callbacks.Callback is engine_callbacks.Callback
    assert cnn_callbacks.CallbackList is engine_callbacks.CallbackList


@pytest.mark.parametrize("name", ALL_NAMES)
def test_works_in_a_hand_written_loop_and_resumes_from_a_checkpoint(name, tmp_path):
    watching, model, optimizer = smallest(name, tmp_path / "first")
    watching = CallbackList([watching])
    watching.on_train_begin()
    run_plain_loop(watching, model, optimizer, range(3))
    watching.on_train_end()

    torch.save(watching.state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed, model, optimizer = smallest(name, tmp_path / "first")
    resumed = CallbackList([resumed])
    resumed.load_state_dict(saved)
    assert repr(resumed.state_dict()) == repr(watching.state_dict())
    resumed.on_train_begin(logs=None)
    run_plain_loop(resumed, model, optimizer, range(3, 5))
    resumed.on_train_end(logs=None)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_state_dict_is_a_copy(name, tmp_path):
    watching, model, optimizer = smallest(name, tmp_path)
    run_plain_loop(watching, model, optimizer, range(2))
    state = watching.state_dict()
    before = repr(state)
    run_plain_loop(watching, model, optimizer, range(2, 4))
    assert repr(state) == before


# -- early stopping ------------------------------------------------------------------------------------------


def epochs_until_stop(stopping, losses):
    for epoch, loss in enumerate(losses):
        stopping.on_epoch_end(epoch, {"val_loss": loss})
        if stopping.should_stop:
            return epoch + 1
    return None


@pytest.mark.parametrize(
    ("patience", "losses", "n_epochs"),
    [
        (2, [1.0, 0.9, 0.9, 0.9, 0.1], 4),
        (2, [1.0, 1.1, 0.9, 1.0, 0.8], None),
        (1, [1.0, 0.5, 0.6], 3),
        (0, [1.0, 0.5, 0.6], 3),
        (2, [1.0, math.nan, math.nan], 3),
        (3, [math.nan, math.nan, math.nan], 3),
    ],
)
def test_stops_after_patience_epochs_without_improvement(patience, losses, n_epochs):
    assert epochs_until_stop(EarlyStopping(patience=patience), losses) == n_epochs


def test_mode_max_and_min_delta():
    stopping = EarlyStopping("val_accuracy", patience=2, mode="max", min_delta=0.05)
    for epoch, accuracy in enumerate([0.5, 0.6, 0.64, 0.63]):
        stopping.on_epoch_end(epoch, {"val_accuracy": accuracy})
    assert stopping.should_stop
    assert (stopping.best, stopping.best_epoch) == (0.6, 1)


def test_stops_a_trainer_and_logs_the_reason(caplog):
    stopping = EarlyStopping(monitor="lr", patience=3)  # constant: only the first epoch improves
    with caplog.at_level(logging.INFO, logger=callbacks.__name__):
        history = small_trainer(stopping).fit(20)
    assert len(history["lr"]) == 4
    assert "lr has not improved on 0.1 for 3 epochs" in caplog.text


def test_second_fit_after_a_stop_has_new_patience():
    trainer = small_trainer(EarlyStopping(monitor="lr", patience=3))
    trainer.fit(20)
    assert len(trainer.fit(20)["lr"]) == 4 + 3


def test_patience_continues_on_resume_and_a_stop_persists(tmp_path):
    def trainer():
        return small_trainer(EarlyStopping(monitor="lr", patience=3), checkpoint_dir=tmp_path)

    trainer().fit(3)  # one improvement, two without
    history = trainer().fit(20, resume_from=tmp_path / "last.pt")
    assert len(history["lr"]) == 4
    assert trainer().fit(20, resume_from=tmp_path / "last.pt") == history


def test_missing_monitor_lists_the_names_in_the_logs():
    with pytest.raises(ValueError, match=r"'val_loss'.*train_accuracy.*train_loss"):
        small_trainer(EarlyStopping(), val=False).fit(1)


def test_rejects_negative_patience():
    with pytest.raises(ValueError, match="-1"):
        EarlyStopping(patience=-1)


# -- model checkpoint ----------------------------------------------------------------------------------------


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_saves_the_weights_of_the_best_epoch(tmp_path):
    model, optimizer = parts()
    checkpoint = ModelCheckpoint(tmp_path / "best.pt", model=model, optimizer=optimizer)
    for epoch, loss in enumerate([0.9, 0.5, 0.7, math.nan]):
        nn.init.constant_(model.weight, loss)
        checkpoint.on_epoch_end(epoch, {"val_loss": loss, "lr": torch.tensor(0.1)})
    saved = torch.load(tmp_path / "best.pt", weights_only=True)
    assert saved["model"]["weight"].unique().tolist() == [0.5]
    assert saved["optimizer"] == optimizer.state_dict()
    assert saved["epoch"] == 1
    assert saved["logs"] == pytest.approx({"val_loss": 0.5, "lr": 0.1})
    assert checkpoint.last_path == tmp_path / "best.pt"
    assert names(tmp_path) == ["best.pt"]


def test_fills_the_template_and_deletes_no_file(tmp_path):
    trainer = small_trainer(
        ModelCheckpoint(tmp_path / "{epoch:02d}" / "{val_loss:.4f}.pt", save_best_only=False), val=True
    )
    losses = trainer.fit(3)["val_loss"]
    assert [names(folder) for folder in sorted(tmp_path.iterdir())] == [[f"{loss:.4f}.pt"] for loss in losses]
    saved = torch.load(next((tmp_path / "02").iterdir()), weights_only=True)
    assert torch.equal(saved["model"]["1.weight"], trainer.model.state_dict()["1.weight"])
    assert saved["optimizer"]["param_groups"][0]["lr"] == 0.1


def test_saves_every_epoch_without_validation(tmp_path):
    small_trainer(ModelCheckpoint(tmp_path / "{epoch}.pt", save_best_only=False), val=False).fit(2)
    assert names(tmp_path) == ["0.pt", "1.pt"]


def test_best_value_is_restored_on_resume(tmp_path):
    model, _ = parts()
    first = ModelCheckpoint(tmp_path / "{epoch}.pt", "val_accuracy", mode="max", model=model)
    first.on_epoch_end(0, {"val_accuracy": 0.8})
    resumed = ModelCheckpoint(tmp_path / "{epoch}.pt", "val_accuracy", mode="max", model=model)
    resumed.load_state_dict(first.state_dict())
    resumed.on_epoch_end(1, {"val_accuracy": 0.7})
    resumed.on_epoch_end(2, {"val_accuracy": 0.9})
    assert names(tmp_path) == ["0.pt", "2.pt"]


def test_rejects_invalid_templates_and_a_missing_model(tmp_path):
    for template in ("{epoch", "{}.pt", "{0}.pt", "{epoch.real}.pt"):
        with pytest.raises(ValueError, match="filepath"):
            ModelCheckpoint(template)
    with pytest.raises(ValueError, match=r"'val_f1'.*val_loss"):
        ModelCheckpoint(tmp_path / "{val_f1}.pt", model=nn.Linear(1, 1)).on_epoch_end(0, EPOCH_LOGS)
    with pytest.raises(ValueError, match="model="):
        ModelCheckpoint(tmp_path / "best.pt").on_epoch_end(0, EPOCH_LOGS)
    with pytest.raises(ValueError, match="'least'"):
        ModelCheckpoint("best.pt", mode="least")
    assert names(tmp_path) == []


# -- learning-rate scheduler ---------------------------------------------------------------------------------


def scheduled_trainer(make_scheduler, **arguments):
    trainer = small_trainer(**arguments)
    scheduler = make_scheduler(trainer.optimizer)
    trainer.callbacks.append(LearningRateScheduler(scheduler))
    return trainer, scheduler


def test_epoch_schedule_is_stepped_per_epoch():
    trainer, _ = scheduled_trainer(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.5))
    assert trainer.fit(3)["lr"] == [0.1, 0.05, 0.025]


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_step_schedule_is_stepped_per_optimizer_step(accumulation):
    # 5 batches an epoch: 5, 3 and 2 optimizer steps.
    trainer, scheduler = scheduled_trainer(
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=100),
        gradient_accumulation_steps=accumulation,
    )
    trainer.fit(2)
    assert trainer.state.global_step == 2 * -(-5 // accumulation)
    assert scheduler.last_epoch == trainer.state.global_step


def test_callback_steps_a_schedule_like_the_trainer():
    def rates(in_callback):
        trainer = small_trainer(n_samples=40)
        scheduler = lr_scheduler.CyclicLR(trainer.optimizer, base_lr=0.01, max_lr=0.1, step_size_up=4)
        if in_callback:
            trainer.callbacks.append(LearningRateScheduler(scheduler))
            return trainer.fit(4)["lr"]
        model, loader = trainer.model, trainer.train_loader
        return Trainer(model, loader, loader, trainer.optimizer, device="cpu", lr_scheduler=scheduler).fit(4)["lr"]

    assert rates(in_callback=True) == rates(in_callback=False)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_follows_the_metric_of_its_mode(mode):
    _, optimizer = parts()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, factor=0.5, patience=0)
    callback = LearningRateScheduler(scheduler)
    # The loss gets better, the accuracy worse.
    for epoch in range(3):
        callback.on_epoch_end(epoch, {"val_loss": 1.0 / (1 + epoch), "val_accuracy": 1.0 / (1 + epoch)})
    assert optimizer.param_groups[0]["lr"] == (0.1 if mode == "min" else 0.025)


def test_plateau_without_validation_names_the_metric():
    with pytest.raises(ValueError, match="'val_accuracy'"):
        trainer, _ = scheduled_trainer(lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="max"), val=False)
        trainer.fit(1)


def test_each_batch_is_a_step_in_a_hand_written_loop():
    model, optimizer = parts()
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=6)
    # 9 batches are more than the 6 steps of the schedule, which keeps its last value.
    run_plain_loop(CallbackList([LearningRateScheduler(scheduler)]), model, optimizer, range(3))
    assert scheduler.last_epoch == 5


def test_step_schedule_resumes(tmp_path):
    def trainer():
        trainer, _ = scheduled_trainer(
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20), checkpoint_dir=tmp_path
        )
        return trainer

    uninterrupted = trainer().fit(4)
    trainer().fit(2)
    assert trainer().fit(4, resume_from=tmp_path / "last.pt")["lr"] == uninterrupted["lr"]


class InterruptIn(Callback):
    """Request an interruption during a batch of epoch 1."""

    def __init__(self, batch):
        self.batch, self.epoch = batch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, self.batch):
            self.trainer.state.interrupted = True


@pytest.mark.parametrize("batch", range(5))
@pytest.mark.parametrize("in_a_new_trainer", [True, False])
def test_interruption_does_not_lose_a_step(batch, in_a_new_trainer, tmp_path):
    def trainer():
        # 5 batches in windows of 2: the epoch's third step comes after its last batch.
        return scheduled_trainer(
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=12),
            checkpoint_dir=tmp_path,
            gradient_accumulation_steps=2,
        )

    uninterrupted, _ = trainer()
    expected_history = uninterrupted.fit(4)
    interrupted, scheduler = trainer()
    interruption = InterruptIn(batch)
    interrupted.callbacks.append(interruption)
    interrupted.fit(4)
    assert interrupted.state.epoch == 1
    if in_a_new_trainer:
        resumed, scheduler = trainer()
        resumed.fit(4, resume_from=tmp_path / "last.pt")
    else:
        resumed = interrupted
        interruption.batch = None
        resumed.state.interrupted = False
        resumed.fit(3)
    assert scheduler.last_epoch == 11
    assert resumed.state.history["lr"] == expected_history["lr"]
    for weight, expected in zip(resumed.model.parameters(), uninterrupted.model.parameters(), strict=True):
        assert torch.equal(weight, expected)


def test_callback_can_be_reused_in_another_trainer():
    first, scheduler = scheduled_trainer(lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1))
    first.fit(1)
    second = Trainer(
        first.model, first.train_loader, optimizer=first.optimizer, device="cpu", callbacks=list(first.callbacks)
    )
    second.fit(1)
    assert scheduler.last_epoch == 10


def test_rejects_a_scheduler_in_two_callbacks():
    trainer, scheduler = scheduled_trainer(lambda optimizer: lr_scheduler.StepLR(optimizer, 1))
    trainer.callbacks.append(LearningRateScheduler(lr_scheduler.StepLR(trainer.optimizer, 1)))
    trainer.fit(1)
    trainer.callbacks.append(LearningRateScheduler(scheduler))
    with pytest.raises(ValueError, match="StepLR is given to a LearningRateScheduler callback and to a Learning"):
        trainer.fit(1)


def test_rejects_a_scheduler_in_trainer_and_callback():
    trainer = small_trainer()
    scheduler = lr_scheduler.StepLR(trainer.optimizer, 1)
    twice = Trainer(
        trainer.model,
        trainer.train_loader,
        optimizer=trainer.optimizer,
        device="cpu",
        callbacks=[LearningRateScheduler(scheduler)],
        lr_scheduler=scheduler,
    )
    with pytest.raises(ValueError, match="StepLR is given to the trainer and"):
        twice.fit(1)
    with pytest.raises(TypeError, match="step"):
        LearningRateScheduler("cosine")


def test_rejects_a_mode_in_place_of_save_best_only(tmp_path):
    with pytest.raises(TypeError, match="save_best_only is 'max', expected True or False"):
        ModelCheckpoint(tmp_path / "best.pt", "val_accuracy", "max")
