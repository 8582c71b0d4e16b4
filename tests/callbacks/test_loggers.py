"""TensorBoardLogger, against real files, and what all loggers share."""

import sys
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer

from tests.callbacks.helpers import EPOCH_LOGS, small_trainer
from whirl.callbacks.callbacks import Callback, MLflowLogger, TensorBoardLogger
from whirl.callbacks.loggers import training_parameters
from whirl.callbacks.registry import RunResults
from whirl.callbacks.wandb_logger import WandbLogger


def scalars_of(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_history(tmp_path):
    history = small_trainer(TensorBoardLogger(tmp_path)).fit(3)
    found = scalars_of(tmp_path)
    tags = {"train_loss": "train/loss", "val_accuracy": "val/accuracy", "lr": "lr"}
    for name, tag in tags.items():
        assert found[tag] == [(epoch, pytest.approx(value)) for epoch, value in enumerate(history[name])]
    logs = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "epoch_time_s"}
    assert set(found) == {*logs, "gradient_norm/mean", "gradient_norm/max"}


class Norms(Callback):
    """Keeps the norm of each step, by epoch."""

    def __init__(self):
        self.norms = {}

    def on_batch_end(self, batch, logs=None):
        self.norms.setdefault(self.trainer.state.epoch, []).append(float(self.trainer.updater.grad_norm))


def test_tensorboard_has_gradient_norms_before_clipping(tmp_path):
    norms = Norms()
    small_trainer(TensorBoardLogger(tmp_path), norms, max_grad_norm=0.1).fit(2)
    found = scalars_of(tmp_path)
    for statistic, function in (("mean", lambda values: sum(values) / len(values)), ("max", max)):
        expected = [(epoch, pytest.approx(function(values))) for epoch, values in norms.norms.items()]
        assert found[f"gradient_norm/{statistic}"] == expected


def test_tensorboard_continues_the_gradient_norms_of_an_interrupted_epoch(tmp_path):
    class Stop(Callback):
        def on_batch_end(self, batch, logs=None):
            self.trainer.state.interrupted = True

    small_trainer(TensorBoardLogger(tmp_path / "plain"), max_grad_norm=0.1).fit(2)
    checkpoints = tmp_path / "checkpoints"
    stopped = small_trainer(
        TensorBoardLogger(tmp_path / "resumed"), Stop(), max_grad_norm=0.1, checkpoint_dir=checkpoints
    )
    stopped.fit(2)
    assert stopped.state.global_step == 1  # of 5 in the epoch
    resumed = small_trainer(TensorBoardLogger(tmp_path / "resumed"), max_grad_norm=0.1, checkpoint_dir=checkpoints)
    resumed.fit(2, resume_from=checkpoints / "last.pt")
    plain, found = scalars_of(tmp_path / "plain"), scalars_of(tmp_path / "resumed")
    for name in ("gradient_norm/mean", "gradient_norm/max"):
        assert found[name] == plain[name]


def test_tensorboard_leaves_out_gradient_norms_without_clipping(tmp_path):
    small_trainer(TensorBoardLogger(tmp_path), max_grad_norm=None).fit(1)
    assert not any(tag.startswith("gradient") for tag in scalars_of(tmp_path))


def hparams_of(folder):
    content = EventAccumulator(str(folder)).Reload().summary_metadata
    return {
        name: HParamsPluginData.FromString(meta.plugin_data.content)
        for name, meta in content.items()
        if meta.plugin_data.plugin_name == "hparams"
    }


def test_tensorboard_has_results(tmp_path):
    board = TensorBoardLogger(tmp_path, hparams={"lr": 0.1, "model": "wdcnn", "maps": {"stft": 1}, "amp": True})
    small_trainer(board).fit(2)
    figure = Figure(figsize=(2, 1), dpi=50)
    board.log_results(RunResults({"test_accuracy": 0.75}, (), {"confusion_matrix": figure}))
    assert scalars_of(tmp_path)["test/accuracy"] == [(2, 0.75)]
    [image] = EventAccumulator(str(tmp_path)).Reload().Images("confusion_matrix")
    assert (image.width, image.height) == (100, 50)
    found = hparams_of(tmp_path)
    values = found["_hparams_/session_start_info"].session_start_info.hparams
    assert values["lr"].number_value == 0.1
    assert values["model"].string_value == "wdcnn"
    assert values["maps"].string_value == '{"stft": 1}'
    assert values["amp"].number_value == 1  # as SummaryWriter.add_hparams writes it
    [metric_info] = found["_hparams_/experiment"].experiment.metric_infos
    assert metric_info.name.tag == "test/accuracy"


def test_tensorboard_has_each_epoch_during_training(tmp_path):
    board = TensorBoardLogger(tmp_path)
    board.on_train_begin()
    board.on_epoch_end(0, EPOCH_LOGS)
    assert scalars_of(tmp_path)["val/loss"] == [(0, pytest.approx(0.6))]
    board.on_train_end()


def test_tensorboard_supersedes_repeated_epochs(tmp_path, monkeypatch):
    # File names of one second end in this counter, and "10" sorts before "9".
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    crashed = TensorBoardLogger(tmp_path)
    for epoch in range(4):
        crashed.on_epoch_end(epoch, {"val_loss": float(epoch)})
    crashed.on_train_end()
    resumed = TensorBoardLogger(tmp_path)
    for epoch in range(2, 5):
        resumed.on_epoch_end(epoch, {"val_loss": 10.0 + epoch})
    resumed.on_train_end()
    assert scalars_of(tmp_path)["val/loss"] == [(0, 0.0), (1, 1.0), (2, 12.0), (3, 13.0), (4, 14.0)]


def test_tensorboard_warns_once_if_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("in the way")
    trainer = small_trainer(TensorBoardLogger(tmp_path / "file" / "runs"))
    with pytest.warns(RuntimeWarning, match="TensorBoardLogger failed and logs nothing more") as caught:
        history = trainer.fit(3)
    assert len(caught) == 1
    assert len(history["val_loss"]) == 3


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("torch.utils.tensorboard", lambda folder: TensorBoardLogger(folder), "tensorboard"),
        ("mlflow", lambda folder: MLflowLogger("a"), "mlflow"),
        ("wandb", lambda folder: WandbLogger("a"), "wandb"),
    ],
)
def test_missing_package_raises_before_the_first_epoch(module, make, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    trainer = small_trainer(make(tmp_path))
    with pytest.raises(ImportError, match=rf"whirl-diagnostics\[{extra}\]"):
        trainer.fit(1)
    assert trainer.state.history == {}


def test_training_parameters_of_a_sampler_that_yields_batches():
    loader = SimpleNamespace(batch_size=None, sampler=SimpleNamespace(batch_size=64))
    assert training_parameters(SimpleNamespace(train_loader=loader)) == {"batch_size": 64}
