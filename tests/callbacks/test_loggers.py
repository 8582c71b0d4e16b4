"""TensorBoardLogger, MLflowLogger and WandbLogger, against real stores."""

import json
import os
import struct
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


# -- MLflow --------------------------------------------------------------------------------------------------


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


def test_mlflow_has_all_parameters_and_tags(client, mlflow_uri):
    settings = {"lr": 0.5, "maps": {"stft": [1, 2]}, "text": "x" * 10_000} | {
        f"s{index}": index for index in range(150)
    }
    tags = {"mlflow.user": "somebody", "mlflow.source.git.commit": "abc", "long": "y" * 10_000}
    logger = MLflowLogger("settings", tracking_uri=mlflow_uri, parameters=settings, tags=tags)
    small_trainer(logger).fit(1)
    run = only_run(client, "settings")
    assert run.data.params["lr"] == "0.5"  # a setting wins over what the trainer has
    assert run.data.params["n_parameters"] == "34"
    assert run.data.params["maps"] == '{"stft": [1, 2]}'
    assert len(run.data.params["text"]) == 500
    assert run.data.params["s149"] == "149"
    assert run.data.tags["mlflow.user"] == run.info.user_id == "somebody"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"
    assert run.data.tags["long"].startswith("yyy")


def test_mlflow_has_the_data_set(client, mlflow_uri):
    facts = {"name": "my bearings", "source": "/data/mine", "fingerprint": "0123456789abcdef" * 2}
    small_trainer(MLflowLogger("data set", tracking_uri=mlflow_uri, dataset=facts)).fit(1)
    [found] = only_run(client, "data set").inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.source) == tuple(
        facts[k] for k in ("name", "fingerprint", "source")
    )
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


def test_mlflow_has_results(client, mlflow_uri, tmp_path):
    (tmp_path / "report.html").write_text("report")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    logger = MLflowLogger("results", tracking_uri=mlflow_uri)
    small_trainer(logger).fit(2)
    files = [tmp_path / "report.html", tmp_path / "bundle"]
    logger.log_results(RunResults({"test_accuracy": 0.75}, files, {"confusion_matrix": Figure()}))
    run = only_run(client, "results")
    assert metric(client, run, "test_accuracy") == [(2, 0.75)]
    folders = ("", "bundle", "figures")
    artifacts = {a.path for folder in folders for a in client.list_artifacts(run.info.run_id, folder)}
    assert artifacts == {"report.html", "bundle", "figures", "bundle/bundle.json", "figures/confusion_matrix.png"}
    assert run.info.status == "FINISHED"


def test_mlflow_reports_files_that_cannot_be_logged_and_keeps_the_others(client, mlflow_uri, tmp_path):
    (tmp_path / "b.txt").write_text("b")
    logger = MLflowLogger("a missing file", tracking_uri=mlflow_uri)
    small_trainer(logger).fit(1)
    with pytest.warns(RuntimeWarning, match="could not log a.txt") as caught:
        logger.log_results(RunResults({"score": 1.0}, [tmp_path / "a.txt", tmp_path / "b.txt"]))
    assert len(caught) == 1
    run = only_run(client, "a missing file")
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["b.txt"]
    assert metric(client, run, "score") == [(1, 1.0)]


class OddNames(Callback):
    def on_epoch_end(self, epoch, logs=None):
        for name in ("precision@1", "acc (%)", "acc", "../x", "@", "n" * 300):
            logs[name] = float(epoch)


def test_mlflow_renames_metrics_with_one_warning(client, mlflow_uri):
    trainer = small_trainer(OddNames(), MLflowLogger("odd names", tracking_uri=mlflow_uri))
    with pytest.warns(RuntimeWarning, match="'precision@1', so it is logged as 'precision_1'") as caught:
        history = trainer.fit(2)
    assert len(caught) == 1
    run = only_run(client, "odd names")
    for name in ("precision_1", "acc", "acc_2", "x", "metric", "n" * 250):
        assert metric(client, run, name) == [(0, 0.0), (1, 1.0)]
    assert metric(client, run, "val_loss") == list(enumerate(history["val_loss"]))


def test_mlflow_nests_runs_of_a_group(client, mlflow_uri):
    for name in ("first", "second"):
        small_trainer(MLflowLogger("group", name, tracking_uri=mlflow_uri, parent="it's a `search`")).fit(1)
    group = MLflowLogger("group", tracking_uri=mlflow_uri, group="it's a `search`", tags={"mlflow.user": "me"})
    group.on_train_begin()
    group.log_results(RunResults({"best": 0.5}))
    group.on_train_end()
    experiment = client.get_experiment_by_name("group")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("it's a `search`")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert set(runs) == {"first", "second"}
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"best": 0.5}
    assert parent.data.tags["mlflow.user"] == "me"


# -- Weights & Biases ----------------------------------------------------------------------------------------


@pytest.fixture
def wandb_environment(monkeypatch):
    """Let wandb, which reads the environment once, read it anew."""
    import wandb

    def set_environment(**variables):
        for name, value in {"SILENT": "true", "ERROR_REPORTING": "false", **variables}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)

    wandb.teardown()
    yield set_environment
    wandb.teardown()


@pytest.fixture
def offline(wandb_environment):
    wandb_environment(MODE="offline")


HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER = 7, 2**15, "<IHB"


def wandb_records(folder):
    """Read the records of the only run in a folder, which are stored in LevelDB's log format."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # waits until everything is written
    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    content, position, chunks = file.read_bytes(), HEADER_BYTES, b""
    size = struct.calcsize(RECORD_HEADER)
    while position < len(content):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < size:
            position += left
            continue
        _, length, kind = struct.unpack_from(RECORD_HEADER, content, position)
        chunks += content[position + size : position + size + length]
        position += size + length
        if kind in (1, 4):  # a complete record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(chunks)
            chunks = b""


def items_of(update):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}


@pytest.mark.usefixtures("offline")
def test_wandb_has_the_run(tmp_path):
    (tmp_path / "report.html").write_text("report")
    logger = WandbLogger("bearings", "first try", config={"width": 2}, group="search", folder=tmp_path, finish=False)
    history = small_trainer(logger).fit(2)
    logger.log_results(RunResults({"test_accuracy": 0.75}, [tmp_path / "report.html"], {"confusion_matrix": Figure()}))
    records = list(wandb_records(tmp_path))
    [run] = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name, run.run_group, run.run_id) == (
        "bearings",
        "first try",
        "search",
        logger.run_id,
    )
    config = items_of(run.config.update)
    assert config["width"] == 2
    assert config["n_parameters"] == 34
    rows = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    epochs = [row for row in rows if "val_loss" in row]
    assert [(row["epoch"], row["val_loss"]) for row in epochs] == list(enumerate(history["val_loss"]))
    assert "image-file" in [row.get("confusion_matrix/_type") for row in rows]
    summary = [items_of(record.summary.update) for record in records if record.WhichOneof("record_type") == "summary"]
    assert {"test_accuracy": 0.75} in summary
    exits = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert exits == [0]
    assert list(tmp_path.glob("wandb/offline-run-*/files/report.html"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("action", "raised"), [(fail, ZeroDivisionError), (interrupt, None)])
def test_wandb_finishes_a_run_that_has_no_results(action, raised, tmp_path):
    trainer = small_trainer(WandbLogger("a", folder=tmp_path, finish=False), At(1, action))
    if raised is None:
        trainer.fit(5)
    else:
        with pytest.raises(raised):
            trainer.fit(5)
    records = wandb_records(tmp_path)
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [1]


def test_wandb_warns_once_if_the_server_is_unreachable(tmp_path, wandb_environment):
    wandb_environment(BASE_URL="http://127.0.0.1:9", API_KEY="0" * 40, INIT_TIMEOUT="1")
    trainer = small_trainer(WandbLogger("a", folder=tmp_path))
    with pytest.warns(RuntimeWarning, match="WandbLogger failed and logs nothing more") as caught:
        history = trainer.fit(2)
    assert len(caught) == 1
    assert len(history["val_loss"]) == 2


# -- parameters ----------------------------------------------------------------------------------------------


def test_training_parameters_of_a_sampler_that_yields_batches():
    loader = SimpleNamespace(batch_size=None, sampler=SimpleNamespace(batch_size=64))
    assert training_parameters(SimpleNamespace(train_loader=loader)) == {"batch_size": 64}
