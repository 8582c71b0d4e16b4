"""The experiment loggers of a run, and what they record of it."""

import csv
import getpass
import importlib.util
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from whirl.callbacks.mlflow_logger import MLflowLogger
from whirl.callbacks.registry import LOGGERS, check_loggers
from whirl.callbacks.run_loggers import RunLoggers
from whirl.engine.callbacks import Callback
from whirl.runs.config import make_config
from whirl.runs.export import export_run
from whirl.runs.run_folder import RunFolder
from whirl.runs.search import Search, SearchFolder, search_run
from whirl.runs.sections import SimulationSection
from whirl.runs.training import train_run

SIMULATION = SimulationSection(n_machines=4, recordings_per_class=1, duration_s=0.5)
SETTINGS = {"simulation": SIMULATION, "epochs": 2, "device": "cpu", "threads": 1, "precision": "32"}


@pytest.fixture(scope="module")
def run(mlflow_uri, tmp_path_factory):
    """A finished run with three loggers, in a repository with one commit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
        repository = tmp_path_factory.mktemp("repository")
        patch.chdir(repository)
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
            subprocess.run(["git", *command], check=True)
        config = make_config({**SETTINGS, "log": ["tensorboard", "mlflow", "csv"]})
        return train_run(config, repository / "runs" / "mine", command="whirl train --log mlflow")


@pytest.fixture
def mlflow_run(run, mlflow_uri):
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    [found] = client.search_runs([client.get_experiment_by_name("whirl").experiment_id], "attributes.run_name = 'mine'")
    return client, found


def test_mlflow_has_settings_tags_and_data(run, mlflow_run):
    _, found = mlflow_run
    saved = run.folder.read_config()
    assert found.data.params["model"] == saved.model_name
    assert found.data.params["lr"] == str(saved.training.lr)
    assert found.data.params["n_parameters"].isdigit()
    fingerprint = run.folder.read_data()["fingerprint"]
    repository = run.folder.path.parents[1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    expected = {
        "mlflow.source.git.commit": commit.stdout.strip(),
        "mlflow.source.name": "whirl train --log mlflow",
        "mlflow.user": getpass.getuser(),
        "whirl.data_fingerprint": fingerprint,
    }
    assert {name: found.data.tags.get(name) for name in expected} == expected
    [dataset] = found.inputs.dataset_inputs
    assert dataset.dataset.digest == fingerprint


def test_mlflow_has_metrics_of_epochs_and_test(run, mlflow_run):
    client, found = mlflow_run
    history = run.folder.read_history()
    logged = client.get_metric_history(found.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in logged] == list(enumerate(history["val_loss"]))
    for level in ("window", "recording"):
        metrics = run.metrics[level]
        for name in ("accuracy", "macro_f1", "ece"):
            assert found.data.metrics[f"test_{level}_{name}"] == metrics[name]
    assert found.info.status == "FINISHED"


def test_mlflow_has_artifacts(run, mlflow_run, tmp_path):
    client, found = mlflow_run
    artifacts = {artifact.path for artifact in client.list_artifacts(found.info.run_id)}
    assert artifacts - {"bundle"} == {
        "config.yaml",
        "data.json",
        "figures",
        "metrics.json",
        "predictions.csv",
        "report.html",
    }
    figures = {artifact.path for artifact in client.list_artifacts(found.info.run_id, "figures")}
    assert figures >= {"figures/confusion_matrix.png", "figures/learning_curve_loss.png"}
    copy = client.download_artifacts(found.info.run_id, "config.yaml", str(tmp_path))
    assert Path(copy).read_text() == run.folder.config_file.read_text()


def test_an_exported_bundle_becomes_an_artifact(run, mlflow_run, mlflow_uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    client, found = mlflow_run
    export_run(run.folder.path, tmp_path / "bundle", "bundle")
    artifacts = {artifact.path for artifact in client.list_artifacts(found.info.run_id, "bundle")}
    assert artifacts == {"bundle/bundle.json", "bundle/model.safetensors"}


def test_an_export_succeeds_without_the_tracker(run, tmp_path, monkeypatch):
    def fail(self, path):
        raise ConnectionError("the server is down")

    monkeypatch.setattr(MLflowLogger, "_log_file", fail)
    with pytest.warns(RuntimeWarning, match="MLflowLogger failed .*the server is down"):
        export_run(run.folder.path, tmp_path / "bundle", "bundle")
    assert (tmp_path / "bundle" / "bundle.json").is_file()


def test_tensorboard_has_epochs_results_and_figures(run):
    events = EventAccumulator(str(run.folder.path / "tensorboard")).Reload()
    history = run.folder.read_history()
    tags = events.Tags()
    assert [event.value for event in events.Scalars("lr")] == pytest.approx(history["lr"])
    assert {"confusion_matrix", "reliability"} <= set(tags["images"])
    assert len(events.Scalars("gradient_norm/mean")) == 2
    [accuracy] = events.Scalars("test/recording_accuracy")
    assert accuracy.value == pytest.approx(run.metrics["recording"]["accuracy"])
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_csv_has_a_row_for_each_epoch(run):
    with (run.folder.path / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in rows] == run.folder.read_history()["train_loss"]


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'whirl-diagnostics\[wandb\]'"):
        train_run(make_config({**SETTINGS, "log": ["wandb"]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_not_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "wandb", raising=False)
    with pytest.raises(ImportError, match="Weights & Biases"):
        check_loggers(["wandb"])


# -- failures ------------------------------------------------------------------------------------------------


class Failing(Callback):
    """Fails in one hook, and counts its calls."""

    def __init__(self, where):
        self.where, self.calls = where, 0

    def _fail(self, hook):
        self.calls += 1
        if hook == self.where:
            raise ZeroDivisionError("division")

    def on_train_begin(self, logs=None):
        self._fail("on_train_begin")

    def on_batch_end(self, batch, logs=None):
        self._fail("on_batch_end")

    def on_epoch_end(self, epoch, logs=None):
        self._fail("on_epoch_end")

    def on_train_end(self, logs=None):
        self._fail("on_train_end")

    def state_dict(self):
        self._fail("state_dict")
        return {"calls": self.calls}

    def log_results(self, results):
        self._fail("log_results")


@pytest.fixture
def registered(monkeypatch):
    """Register a logger for one test."""

    def add(name, factory):
        monkeypatch.setitem(LOGGERS._entries, name, factory)

    return add


def test_failing_loggers_do_not_end_the_run(registered, tmp_path):
    hooks = ["on_train_begin", "on_batch_end", "on_epoch_end", "on_train_end", "state_dict", "log_results"]
    for hook in hooks:
        registered(f"failing_{hook}", lambda facts, hook=hook: Failing(hook))
    config = make_config({**SETTINGS, "log": [*(f"failing_{hook}" for hook in hooks), "json"]})
    with pytest.warns(RuntimeWarning, match="failed and logs nothing more in this run") as caught:
        result = train_run(config, tmp_path / "run")
    assert sorted(str(warning.message).split("'")[1] for warning in caught) == sorted(
        f"failing_{hook}" for hook in hooks
    )
    assert result.folder.is_finished
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_logger_that_cannot_be_created_does_not_end_the_run(registered, tmp_path):
    registered("broken", lambda facts: 1 / 0)
    with pytest.warns(RuntimeWarning, match="the logger 'broken' failed"):
        result = train_run(make_config({**SETTINGS, "log": ["broken"]}), tmp_path / "run")
    assert result.folder.is_finished


def test_an_unreachable_server_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.warns(RuntimeWarning, match="MLflowLogger failed") as caught:
        result = train_run(make_config({**SETTINGS, "log": ["mlflow"]}), tmp_path / "run")
    assert len(caught) == 1
    assert result.folder.is_finished


def test_states_of_loggers_survive_a_change_of_loggers():
    saved = RunLoggers({"a": Failing(""), "b": Callback()}).state_dict()
    assert saved == {"a": {"calls": 1}}
    RunLoggers({"c": Callback()}).load_state_dict(saved)


def test_results_that_cannot_be_made_are_a_warning():
    with pytest.warns(RuntimeWarning, match="results are not logged: ZeroDivisionError"):
        RunLoggers({"a": Failing("")}).log_results(lambda: 1 / 0)


def test_results_are_not_made_if_no_logger_takes_them():
    RunLoggers({"a": Callback()}).log_results(lambda: pytest.fail("made"))


def test_a_resumed_run_continues_the_same_mlflow_run(mlflow_uri, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    config = make_config({**SETTINGS, "log": ["mlflow"]})

    class Stop(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.trainer.state.interrupted = epoch == 0

    stopped = train_run(config, tmp_path / "resumed", callbacks=[Stop()])
    assert stopped.metrics is None
    folder = RunFolder(tmp_path / "resumed")
    train_run(folder.read_config(), folder.path, resume=True, callbacks=[Callback()])
    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("whirl").experiment_id
    [found] = client.search_runs([experiment], "attributes.run_name = 'resumed'")
    assert [point.step for point in client.get_metric_history(found.info.run_id, "val_loss")] == [0, 1]
    assert found.info.status == "FINISHED"


# -- searches ------------------------------------------------------------------------------------------------


def search_with(log, out, trials=2):
    settings = {**SETTINGS, "epochs": 1, "log": log}
    search = Search(make_config(settings), {"lr": [1e-3, 1e-2]}, trials, pruner="none")
    return search_run(search, SearchFolder(out))


def test_trials_of_a_search_are_nested_runs(mlflow_uri, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    result = search_with(["mlflow", "tensorboard", "csv"], tmp_path / "search")
    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("whirl").experiment_id
    [parent] = client.search_runs([experiment], f"attributes.run_name LIKE '%{tmp_path.name}%'")
    trials = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    table = pd.read_csv(result.folder.trials_file)
    assert sorted(trial.data.metrics["score"] for trial in trials) == pytest.approx(sorted(table["mean_score"]))
    assert {trial.data.params["lr"] for trial in trials} == {"0.001", "0.01"}
    assert all("val_loss" in trial.data.metrics for trial in trials)
    assert {trial.info.run_name for trial in trials} == {"trial 0", "trial 1"}
    assert parent.data.metrics == {"best_score": pytest.approx(table["mean_score"].max())}
    assert parent.info.status == "FINISHED"
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"best.yaml", "report.html", "search.yaml", "trials.csv"}
    for number in ("0000", "0001"):
        events = EventAccumulator(str(tmp_path / "search" / "trials" / number / "tensorboard")).Reload()
        assert len(events.Scalars("score")) == 1
        assert (tmp_path / "search" / "trials" / number / "epochs.csv").is_file()
    assert not (tmp_path / "search" / "tensorboard").exists()


def test_a_search_does_not_wait_again_for_a_tracker_that_is_down(registered, tmp_path):
    created = []

    class Down(Callback):
        is_down = True

        def __init__(self, facts):
            created.append(facts.name)

    registered("down", Down)
    search_with(["down"], tmp_path / "search")
    assert [name for name in created if name.startswith("trial")] == ["trial 0"]
