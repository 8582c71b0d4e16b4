"""TensorBoardLogger and MLflowLogger, against real stores."""

import os
import sys
import warnings
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.callbacks.helpers import EPOCH_LOGS, small_trainer
from whirl.callbacks.callbacks import Callback, MLflowLogger, TensorBoardLogger
from whirl.callbacks.loggers import training_parameters

# -- TensorBoard ---------------------------------------------------------------------------------------------


def scalars_of(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_history(tmp_path):
    history = small_trainer(TensorBoardLogger(tmp_path)).fit(3)
    found = scalars_of(tmp_path)
    tags = {"train_loss": "train/loss", "val_accuracy": "val/accuracy", "lr": "lr"}
    for name, tag in tags.items():
        assert found[tag] == [(epoch, pytest.approx(value)) for epoch, value in enumerate(history[name])]
    assert set(found) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "epoch_time_s"}


def test_tensorboard_has_each_epoch_during_training(tmp_path):
    board = TensorBoardLogger(tmp_path)
    board.on_train_begin()
    board.on_epoch_end(0, EPOCH_LOGS)
    assert scalars_of(tmp_path)["val/loss"] == [(0, pytest.approx(0.6))]
    board.on_train_end()


def test_tensorboard_supersedes_repeated_epochs(tmp_path):
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
    ],
)
def test_missing_package_raises_before_the_first_epoch(module, make, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    trainer = small_trainer(make(tmp_path))
    with pytest.raises(ImportError, match=rf"whirl-diagnostics\[{extra}\]"):
        trainer.fit(1)
    assert trainer.state.history == {}


# -- MLflow --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    """Create one store for all tests, as this takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
        from mlflow import MlflowClient

        uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'runs.db'}"
        MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def client(mlflow_uri):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


def only_run(client, experiment_name):
    experiment = client.get_experiment_by_name(experiment_name)
    [run] = client.search_runs([experiment.experiment_id])
    return run


def metric(client, run, name):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_mlflow_has_parameters_history_and_status(client, mlflow_uri):
    history = small_trainer(MLflowLogger("finished", "first try", tracking_uri=mlflow_uri)).fit(3)
    run = only_run(client, "finished")
    assert run.info.run_name == "first try"
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "model": "Sequential", "n_parameters": "34", "optimizer": "SGD", "lr": "0.1", "batch_size": "8",
    }  # fmt: skip
    for name, values in history.items():
        assert metric(client, run, name) == list(enumerate(values))


def test_mlflow_uses_the_tracking_uri_of_the_environment(client, mlflow_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    small_trainer(MLflowLogger("by environment")).fit(1)
    assert only_run(client, "by environment").info.status == "FINISHED"


class At(Callback):
    """Run an action at the end of an epoch."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action(self.trainer)


def fail(trainer):
    raise ZeroDivisionError


def interrupt(trainer):
    trainer.state.interrupted = True


def interrupt_hard(trainer):
    raise KeyboardInterrupt


def stop(trainer):
    trainer.state.should_stop = True


@pytest.mark.parametrize(
    ("action", "raised", "status"),
    [
        (fail, ZeroDivisionError, "FAILED"),
        (interrupt_hard, KeyboardInterrupt, "KILLED"),
        (interrupt, None, "KILLED"),
        (stop, None, "FINISHED"),
    ],
)
def test_mlflow_status_after_training(action, raised, status, client, mlflow_uri):
    experiment = f"ends by {action.__name__}"
    trainer = small_trainer(MLflowLogger(experiment, tracking_uri=mlflow_uri), At(1, action))
    if raised is None:
        trainer.fit(5)
    else:
        with pytest.raises(raised):
            trainer.fit(5)
    run = only_run(client, experiment)
    assert run.info.status == status
    assert len(metric(client, run, "val_loss")) == 2


def test_mlflow_status_inside_an_exception_handler(client, mlflow_uri):
    try:
        raise FileNotFoundError
    except FileNotFoundError:
        small_trainer(MLflowLogger("fallback", tracking_uri=mlflow_uri)).fit(1)
    assert only_run(client, "fallback").info.status == "FINISHED"


def test_mlflow_resumes_the_same_run(client, mlflow_uri, tmp_path):
    def trainer(*more):
        return small_trainer(MLflowLogger("resumed", tracking_uri=mlflow_uri), At(*more), checkpoint_dir=tmp_path)

    trainer(1, interrupt).fit(4)
    assert only_run(client, "resumed").info.status == "KILLED"
    trainer(9, interrupt).fit(4, resume_from=tmp_path / "last.pt")
    run = only_run(client, "resumed")
    assert run.info.status == "FINISHED"
    assert [step for step, _ in metric(client, run, "val_loss")] == [0, 1, 2, 3]


def test_mlflow_warns_once_if_the_server_is_unreachable(mlflow_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = dict(os.environ)
    trainer = small_trainer(MLflowLogger("down", tracking_uri="http://127.0.0.1:9"))
    with pytest.warns(RuntimeWarning, match="MLflowLogger failed and logs nothing more") as caught:
        history = trainer.fit(3)
    assert len(caught) == 1
    assert len(history["val_loss"]) == 3
    assert dict(os.environ) == before


def test_training_parameters_of_a_sampler_that_yields_batches():
    loader = SimpleNamespace(batch_size=None, sampler=SimpleNamespace(batch_size=64))
    assert training_parameters(SimpleNamespace(train_loader=loader)) == {"batch_size": 64}
