"""MLflowLogger, against a real store."""

import os

import pytest
from matplotlib.figure import Figure

from tests.callbacks.helpers import At, fail, interrupt, interrupt_hard, small_trainer, stop
from whirl.callbacks.callbacks import Callback, MLflowLogger
from whirl.callbacks.registry import RunResults


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
