"""Learning-rate, gradient and timing monitors, the best k checkpoints, metric logs."""

import csv
import json
import logging
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whirl.callbacks import cnn_callbacks
from whirl.callbacks.callbacks import Callback
from whirl.callbacks.cnn_callbacks import (
    CallbackList,
    EarlyStoppingCallback,
    GradientMonitor,
    LearningRateMonitor,
    MetricLogger,
    ModelCheckpointCallback,
    TimingCallback,
)
from whirl.training.trainer import Trainer


def small_trainer(make_callbacks, n_batches=5, **arguments):
    """Create a trainer with `n_batches` batches and the callbacks of `make_callbacks(model, optimizer)`."""
    torch.manual_seed(0)
    signals, targets = torch.randn(8 * n_batches, 1, 16), torch.arange(8 * n_batches) % 2
    loader = DataLoader(TensorDataset(signals, targets), batch_size=8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watching = make_callbacks(model, optimizer)
    return Trainer(model, loader, loader, optimizer, device="cpu", callbacks=watching, **arguments)


# -- learning-rate monitor -----------------------------------------------------------------------------------


def test_records_the_rate_of_each_group_at_the_start_of_an_epoch():
    head, body = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [head], "lr": 0.4}, {"params": [body], "lr": 0.04}])
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    monitor = LearningRateMonitor(optimizer, log_interval=2)
    for epoch in range(5):
        monitor.on_epoch_begin(epoch)
        optimizer.step()
        scheduler.step()
    assert monitor.history == {0: [0.4, 0.04], 2: [0.1, 0.01], 4: [0.025, 0.0025]}


def test_records_the_rates_of_the_history():
    monitors = []

    def watching(model, optimizer):
        monitors.append(LearningRateMonitor(optimizer))
        return monitors

    trainer = small_trainer(watching)
    rates = trainer.fit(2)["lr"]
    trainer.optimizer.param_groups[0]["lr"] = 0.03
    rates = trainer.fit(1)["lr"]
    assert [rate for [rate] in monitors[0].history.values()] == rates == [0.1, 0.1, 0.03]


# -- gradient monitor ----------------------------------------------------------------------------------------


def linear_with_gradient(norm):
    """Create a network whose gradient has this 2-norm, split over two parameters in the ratio 3 : 4."""
    model = nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 0.6 * norm), torch.full((1,), 0.8 * norm)
    return model


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (5.0, None),
        (9.999, None),
        (10.001, "exploding"),
        (math.inf, "exploding"),
        (math.nan, "exploding"),
        (1.1e-7, None),
        (0.9e-7, "vanishing"),
        (0.0, "vanishing"),
    ],
)
def test_logs_vanishing_and_exploding_gradients(norm, message, caplog):
    monitor = GradientMonitor(linear_with_gradient(norm), log_interval=1)
    monitor.on_epoch_begin(4)
    monitor.on_batch_end(7)
    [reading] = monitor.history
    assert reading == {"epoch": 4, "batch": 7, "grad_norm": pytest.approx(norm, rel=1e-5, nan_ok=True)}
    assert [record.levelname for record in caplog.records] == ([] if message is None else ["WARNING"])
    assert message is None or f"epoch 4, batch 7: {message} gradient" in caplog.text


def test_uses_the_given_threshold(caplog):
    GradientMonitor(linear_with_gradient(5.0), log_interval=1, alert_threshold=4.0).on_batch_end(0)
    assert "exploding" in caplog.text


def test_reads_once_per_interval_across_epochs():
    monitor = GradientMonitor(linear_with_gradient(1.0), log_interval=3)
    for epoch in range(2):
        monitor.on_epoch_begin(epoch)
        for batch in range(4):
            monitor.on_batch_end(batch)
    assert [(reading["epoch"], reading["batch"]) for reading in monitor.history] == [(0, 2), (1, 1)]


def test_no_reading_without_gradients():
    monitor = GradientMonitor(nn.Linear(1, 1), log_interval=1)
    monitor.on_batch_end(0)
    assert monitor.history == []


class ModelNorm(Callback):
    """Records the norm of the gradients after each batch."""

    def __init__(self):
        self.norms = []

    def on_batch_end(self, batch, logs=None):
        gradients = [p.grad for p in self.trainer.model.parameters()]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


def monitored_norms(n_epochs=2, **arguments):
    """Return the norms that the monitor recorded, and those after every batch."""
    in_place = ModelNorm()
    trainer = small_trainer(lambda model, _: [GradientMonitor(model, log_interval=1), in_place], **arguments)
    trainer.fit(n_epochs)
    monitor = next(iter(trainer.callbacks))
    return [reading["grad_norm"] for reading in monitor.history], in_place.norms


def test_norm_in_a_trainer_is_measured_before_clipping():
    # The bound is so small that the first step already differs; the first batch has the same weights in both.
    clipped, in_place = monitored_norms(max_grad_norm=1e-3)
    free, free_in_place = monitored_norms(max_grad_norm=None)
    assert in_place == pytest.approx([1e-3] * 10, rel=1e-2)
    assert min(clipped) > 0.1
    assert free == free_in_place
    assert clipped[0] == pytest.approx(free[0])


@pytest.mark.parametrize("max_grad_norm", [None, 1e6])
def test_reads_complete_accumulation_windows_only(max_grad_norm):
    # 5 batches in windows of 2: steps after batches 1 and 3, and one after the last batch, at the end of the epoch.
    norms, in_place = monitored_norms(gradient_accumulation_steps=2, max_grad_norm=max_grad_norm)
    assert norms == pytest.approx([in_place[i] for i in (1, 3, 6, 8)])


def test_rejects_invalid_intervals_and_thresholds():
    for make in (GradientMonitor, LearningRateMonitor, MetricLogger):
        with pytest.raises(ValueError, match="log_interval is 0"):
            make(None, log_interval=0)
    with pytest.raises(ValueError, match="alert_threshold is 0"):
        GradientMonitor(None, alert_threshold=0)


# -- the best k models ---------------------------------------------------------------------------------------


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save_epochs(checkpoint, values, first_epoch=0):
    for epoch, value in enumerate(values, start=first_epoch):
        checkpoint.on_epoch_end(epoch, {checkpoint.improvement.monitor: value})


def kept_epochs(checkpoint):
    return [torch.load(path, weights_only=True)["epoch"] for path in checkpoint.paths]


@pytest.mark.parametrize(
    ("mode", "values", "kept"),
    [
        ("min", [0.5, 0.4, 0.6, 0.3, 0.7], [3, 1]),
        ("max", [0.5, 0.4, 0.6, 0.3, 0.7], [4, 2]),
        ("min", [0.5, 0.5, 0.5], [0, 1]),
        ("min", [math.nan, 0.5, math.nan, 0.4], [3, 1]),
        ("min", [0.9, math.nan], [0]),
        ("max", [math.nan, 0.1, math.nan], [1]),
    ],
)
def test_keeps_the_best_k_and_the_earlier_of_equal_values(mode, values, kept, tmp_path):
    model = nn.Linear(1, 1)
    checkpoint = ModelCheckpointCallback(tmp_path, model, None, "score", mode, save_top_k=2)
    save_epochs(checkpoint, values)
    assert kept_epochs(checkpoint) == kept
    assert names(tmp_path) == sorted(path.name for path in checkpoint.paths)
    assert checkpoint.best == values[kept[0]]
    assert checkpoint.best_path == checkpoint.paths[0]


def test_file_names_are_sortable_and_valid(tmp_path):
    checkpoint = ModelCheckpointCallback(tmp_path / "a" / "b", nn.Linear(1, 1), None, "val/f1", "max")
    save_epochs(checkpoint, [0.98765])
    assert names(tmp_path / "a" / "b") == ["epoch_000_val_f1_0.9877.pt"]


def test_never_deletes_other_files_and_tolerates_missing_ones(tmp_path):
    (tmp_path / "epoch_000_val_loss_9.0000.pt").write_text("other file")
    checkpoint = ModelCheckpointCallback(tmp_path, nn.Linear(1, 1), None, save_top_k=1)
    save_epochs(checkpoint, [0.5])
    checkpoint.paths[0].unlink()
    save_epochs(checkpoint, [0.4], first_epoch=1)
    assert names(tmp_path) == ["epoch_000_val_loss_9.0000.pt", "epoch_001_val_loss_0.4000.pt"]
    assert (tmp_path / "epoch_000_val_loss_9.0000.pt").read_text() == "other file"


def test_resume_continues_in_a_folder_that_was_moved(tmp_path):
    first = ModelCheckpointCallback(tmp_path / "old", nn.Linear(1, 1), None, save_top_k=2)
    save_epochs(first, [0.5, 0.6])
    (tmp_path / "old").rename(tmp_path / "new")
    resumed = ModelCheckpointCallback(tmp_path / "new", nn.Linear(1, 1), None, save_top_k=2)
    resumed.load_state_dict(first.state_dict())
    save_epochs(resumed, [0.7, 0.4], first_epoch=2)
    assert names(tmp_path / "new") == ["epoch_000_val_loss_0.5000.pt", "epoch_003_val_loss_0.4000.pt"]
    assert kept_epochs(resumed) == [3, 0]


def test_repeated_epoch_is_kept_once(tmp_path):
    checkpoint = ModelCheckpointCallback(tmp_path, nn.Linear(1, 1), None, save_top_k=3)
    save_epochs(checkpoint, [0.1, 0.2, 0.3])
    save_epochs(checkpoint, [0.20001], first_epoch=1)
    assert kept_epochs(checkpoint) == [0, 1, 2]
    assert len(names(tmp_path)) == 3


def test_file_has_the_weights_of_its_epoch(tmp_path):
    trainer = small_trainer(lambda model, optimizer: [ModelCheckpointCallback(tmp_path, model, optimizer)])
    history = trainer.fit(3)
    [checkpoint] = trainer.callbacks
    saved = torch.load(checkpoint.best_path, weights_only=True)
    assert saved["logs"]["val_loss"] == min(history["val_loss"]) == checkpoint.best
    trainer.model.load_state_dict(saved["model"])
    assert trainer.validate_epoch()["loss"] == pytest.approx(checkpoint.best)
    assert saved["optimizer"]["param_groups"][0]["lr"] == 0.1


def test_rejects_invalid_checkpoint_arguments(tmp_path):
    with pytest.raises(ValueError, match="save_top_k is 0"):
        ModelCheckpointCallback(tmp_path, nn.Linear(1, 1), None, save_top_k=0)
    with pytest.raises(ValueError, match="'best'"):
        ModelCheckpointCallback(tmp_path, nn.Linear(1, 1), None, mode="best")
    with pytest.raises(ValueError, match=r"'val_loss'.*'accuracy'"):
        ModelCheckpointCallback(tmp_path, nn.Linear(1, 1), None).on_epoch_end(0, {"accuracy": 1.0})


# -- timing --------------------------------------------------------------------------------------------------


class Clock:
    """A simulated clock."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(cnn_callbacks.time, "perf_counter", lambda: self.now)

    def advance(self, seconds):
        self.now += seconds


def test_measures_epochs_batches_and_waiting_time(caplog, monkeypatch):
    clock, timing = Clock(monkeypatch), TimingCallback()
    with caplog.at_level(logging.INFO, logger=cnn_callbacks.__name__):
        timing.on_epoch_begin(2)
        for batch, busy_s in enumerate([0.01] * 9 + [0.1]):
            clock.advance(0.005)  # the loader
            timing.on_batch_begin(batch)
            clock.advance(busy_s)
            timing.on_batch_end(batch)
        clock.advance(1.0)  # validation
        timing.on_epoch_end(2)
    # The 95th percentile of ten values lies 0.55 of the way from the ninth to the tenth.
    assert timing.history == [
        {
            "epoch": 2,
            "epoch_time_s": pytest.approx(1.0 + 0.19 + 0.05),
            "batch_p50_s": pytest.approx(0.01),
            "batch_p95_s": pytest.approx(0.01 + 0.55 * 0.09),
            "data_time_s": pytest.approx(0.05),
        }
    ]
    assert "10 batches" in caplog.text


def test_measures_each_epoch_and_logs_nothing_if_not_verbose(caplog):
    with caplog.at_level(logging.DEBUG, logger=cnn_callbacks.__name__):
        trainer = small_trainer(lambda *_: [TimingCallback(verbose=False)])
        history = trainer.fit(3)
    [timing] = trainer.callbacks
    assert [entry["epoch"] for entry in timing.history] == [0, 1, 2]
    for entry, epoch_time_s in zip(timing.history, history["epoch_time_s"], strict=True):
        # At least three of five batches take the median or longer; the trainer measures a shorter interval.
        assert 3 * entry["batch_p50_s"] + entry["data_time_s"] <= epoch_time_s <= entry["epoch_time_s"]
    assert not [record for record in caplog.records if record.name == cnn_callbacks.__name__]


def test_percentiles_are_nan_without_batches():
    timing = TimingCallback()
    timing.on_epoch_begin(0)
    timing.on_epoch_end(0)
    assert math.isnan(timing.history[0]["batch_p50_s"])
    assert timing.history[0]["data_time_s"] == 0


# -- metric logger -------------------------------------------------------------------------------------------


def read(file):
    text = file.read_text()
    if file.suffix == ".csv":
        return [
            {name: json.loads(cell or "null") for name, cell in row.items()}
            for row in csv.DictReader(text.splitlines())
        ]
    return [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)


@pytest.fixture(params=["metrics.json", "metrics.jsonl", "metrics.csv"])
def log_file(request, tmp_path):
    return tmp_path / request.param


def log_epochs(metric_logger, epochs, **more):
    metric_logger.on_train_begin()
    for epoch in epochs:
        metric_logger.on_epoch_end(epoch, {"val_loss": 1.0 / (1 + epoch), **more})
    metric_logger.on_train_end()


def test_file_has_the_history(log_file):
    history = small_trainer(lambda *_: [MetricLogger(log_file)]).fit(3)
    expected = [{"epoch": epoch, **{name: values[epoch] for name, values in history.items()}} for epoch in range(3)]
    assert read(log_file) == expected
    assert next(iter(read(log_file)[0])) == "epoch"


def test_nonfinite_numbers_are_null_and_other_values_left_out(log_file):
    logs = {"a": math.nan, "b": math.inf, "c": torch.tensor(2.0), "d": "text", "e": torch.ones(3), "epoch": 7}
    MetricLogger(log_file).on_epoch_end(1, logs)
    assert read(log_file) == [{"epoch": 1, "a": None, "b": None, "c": 2.0}]


def test_writes_every_interval(log_file):
    log_epochs(MetricLogger(log_file, log_interval=3), range(8))
    assert [entry["epoch"] for entry in read(log_file)] == [0, 3, 6]


def test_file_is_complete_after_each_epoch(log_file):
    metric_logger = MetricLogger(log_file)
    for epoch in range(3):
        metric_logger.on_epoch_end(epoch, {"val_loss": 0.5})
        assert len(read(log_file)) == epoch + 1


def test_resumed_training_appends_and_replaces_repeated_epochs(log_file):
    log_epochs(MetricLogger(log_file), range(4))
    log_epochs(MetricLogger(log_file), range(2, 6), resumed=1)
    assert [(entry["epoch"], entry.get("resumed")) for entry in read(log_file)] == [
        (0, None), (1, None), (2, 1), (3, 1), (4, 1), (5, 1),
    ]  # fmt: skip


def test_epoch_logged_twice_is_written_once(log_file):
    log_epochs(MetricLogger(log_file), [0, 1, 1, 2])
    assert [entry["epoch"] for entry in read(log_file)] == [0, 1, 2]


def test_training_from_epoch_0_starts_a_new_file(log_file):
    log_epochs(MetricLogger(log_file), range(4))
    log_epochs(MetricLogger(log_file), range(1))
    assert [entry["epoch"] for entry in read(log_file)] == [0]


def test_drops_an_incomplete_last_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    log_epochs(MetricLogger(file), range(3))
    file.write_text(file.read_text()[:-5])
    log_epochs(MetricLogger(file), range(2, 4))
    assert [entry["epoch"] for entry in read(file)] == [0, 1, 2, 3]


@pytest.mark.parametrize("content", ['{"seed": 0}\n', "[1, 2]\n", "not json\n", '["epoch"]\n', "\xff\n"])
def test_rejects_and_keeps_a_file_of_another_format(log_file, content):
    log_file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=log_file.name):
        log_epochs(MetricLogger(log_file), range(1))
    assert log_file.read_text(encoding="latin-1") == content


# -- early stopping with logging -----------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_logs_the_stop(verbose, caplog):
    stopping = CallbackList([EarlyStoppingCallback(patience=1, verbose=verbose)])
    with caplog.at_level(logging.DEBUG):
        for epoch in range(2):
            stopping.on_epoch_end(epoch, {"val_loss": 1.0})
    assert stopping.callbacks[0].should_stop
    assert bool(caplog.records) is verbose


def test_gradient_monitor_ignores_gradients_of_parameters_that_are_not_trained():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2), torch.nn.Linear(2, 2))
    for parameter in model[1].parameters():
        parameter.grad = torch.full_like(parameter, 100.0)  # from an earlier step
        parameter.requires_grad_(False)
    batch = (torch.randn(8, 1, 4), torch.arange(8) % 2)
    monitor = GradientMonitor(model, log_interval=1)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    Trainer(model, [batch], optimizer=optimizer, device="cpu", callbacks=[monitor], max_grad_norm=None).fit(1)
    assert monitor.history[0]["grad_norm"] < 10
