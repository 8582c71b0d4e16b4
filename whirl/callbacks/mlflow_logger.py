"""A callback that logs to MLflow."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whirl._distribution import install_hint
from whirl.callbacks.helpers import scalars
from whirl.callbacks.loggers import ExperimentLogger, as_text, training_parameters
from whirl.callbacks.registry import RunResults
from whirl.engine.callbacks import Logs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The lowest limits of MLflow's servers, past and present.
_MAX_NAME, _MAX_PARAMETER, _MAX_TAG, _MAX_DIGEST, _MAX_PARAMETERS = 250, 500, 5000, 36, 100
_GROUP_TAG = "whirl.group"


class MLflowLogger(ExperimentLogger):
    """Log a training as an MLflow run: parameters once, the epoch logs as metrics with the epoch as step.

    The run ends as FINISHED, as FAILED if training raised an error, as KILLED if it was interrupted. A resumed training
    continues the same run. If the tracking server cannot be reached, there is one warning and training continues.
    Characters that MLflow does not allow in the name of a metric are replaced, with one warning.

    Args:
        experiment_name: experiment to log to; created if it does not exist.
        run_name: name of the run; None lets MLflow choose.
        tracking_uri: where to log, e.g. `'sqlite:///mlflow.db'`; None uses MLflow's own setting
            (`mlflow.set_tracking_uri` or the environment variable `MLFLOW_TRACKING_URI`).
        parameters: parameters besides those of `training_parameters`, e.g. all settings; long values are shortened.
        tags: tags of the run.
        dataset: `name`, `source` and `fingerprint` of the recordings; None or empty logs no data set.
        parent: name of a group of runs; this run is nested in the group's run, which is created if it does not exist.
        group: name of the group whose run this is.

    Attributes:
        run_id: MLflow's identifier of the run; None before it is created.

    Raises:
        ImportError: MLflow is not installed, when training begins.

    Example:
        >>> MLflowLogger("bearings", run_name="wdcnn", tracking_uri="sqlite:///mlflow.db").run_id is None
        True
    """

    logs_groups = True

    def __init__(
        self,
        experiment_name: str,
        run_name: str | None = None,
        *,
        tracking_uri: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        dataset: Mapping[str, str] | None = None,
        parent: str | None = None,
        group: str | None = None,
    ) -> None:
        super().__init__()
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self.parameters = dict(parameters or {})
        self.tags = dict(tags or {})
        self.dataset = dict(dataset or {})
        self.parent = parent
        self.group = group
        self.run_id: str | None = None
        self._client: Any = None
        self._names = _MetricNames()
        self._exception_before: BaseException | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        client = _client_class()
        self.is_down = False
        self._exception_before = sys.exception()
        self._attempt(self._begin, client)

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> None:
        with _short_mlflow_timeouts():
            super()._attempt(action, *arguments)

    # -- begin -----------------------------------------------------------------------------------------

    def _begin(self, client: Callable[..., Any]) -> None:
        self._client = client(self.tracking_uri)
        if self.run_id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return
        experiment_id = self._experiment_id()
        if self.group is not None:
            self.run_id = self._group_run_id(experiment_id, self.group)
            self._client.update_run(self.run_id, status="RUNNING")
            self._set_tags(self.tags)
            if self._client.get_run(self.run_id).data.params:  # of another worker; parameters cannot be changed
                return
        else:
            self.run_id = self._create_run(experiment_id)
        self._attempt_part("parameters", self._log_parameters, training_parameters(self.trainer) | self.parameters)
        if self.dataset:
            self._attempt_part("the data set", self._log_dataset)

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self.experiment_name)
        return experiment.experiment_id if experiment else self._client.create_experiment(self.experiment_name)

    def _create_run(self, experiment_id: str) -> str:
        tags = dict(self.tags)
        if self.parent is not None:
            tags["mlflow.parentRunId"] = self._group_run_id(experiment_id, self.parent)
        shortened = {name: as_text(value, _MAX_TAG) for name, value in tags.items()}
        return self._client.create_run(experiment_id, run_name=self.run_name, tags=shortened).info.run_id

    def _group_run_id(self, experiment_id: str, group: str) -> str:
        """Find or create the run of a group. Of several that were created at the same time, all take the first."""
        tag = hashlib.sha256(group.encode()).hexdigest()[:32]  # the name may have characters that a filter lacks
        found = self._group_runs(experiment_id, tag)
        if not found:
            own = self._client.create_run(experiment_id, run_name=as_text(group, _MAX_NAME), tags={_GROUP_TAG: tag})
            found = self._group_runs(experiment_id, tag)
            if found[0].info.run_id != own.info.run_id:
                self._client.delete_run(own.info.run_id)
        return found[0].info.run_id

    def _group_runs(self, experiment_id: str, tag: str) -> list[Any]:
        runs = self._client.search_runs([experiment_id], f"tags.`{_GROUP_TAG}` = '{tag}'")
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, as_text(value, _MAX_TAG))

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        logged = [Param(name[:_MAX_NAME], as_text(value, _MAX_PARAMETER)) for name, value in parameters.items()]
        for start in range(0, len(logged), _MAX_PARAMETERS):
            self._client.log_batch(self.run_id, params=logged[start : start + _MAX_PARAMETERS])

    def _log_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=as_text(self.dataset["name"], _MAX_PARAMETER),
            digest=self.dataset["fingerprint"][:_MAX_DIGEST],
            source_type="local",
            source=self.dataset["source"],
        )
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    # -- epochs ----------------------------------------------------------------------------------------

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._attempt(self._log, epoch, scalars(logs))

    def _log(self, epoch: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(self._names.accepted(name), value, now_ms, epoch) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    # -- end -------------------------------------------------------------------------------------------

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.run_id is not None:
            self._attempt(self._end, self._status())

    def _end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)

    def _status(self) -> str:
        exception = sys.exception()
        if exception is not None and exception is not self._exception_before:
            return "FAILED" if isinstance(exception, Exception) else "KILLED"
        interrupted = self.trainer is not None and self.trainer.state.interrupted
        return "KILLED" if interrupted else "FINISHED"

    def log_results(self, results: RunResults) -> None:
        """Log metrics, and files and figures as artifacts."""
        if self.run_id is not None:
            self._attempt(self._log_results, results)

    def _log_results(self, results: RunResults) -> None:
        self._log(self._n_epochs, results.metrics)
        for path in results.files:
            self._attempt_part(path.name, self._log_file, path)
        for name, figure in results.figures.items():
            self._attempt_part(f"the figure {name}", self._log_figure, name, figure)

    def log_export(self, path: Path) -> None:
        """Add a file or folder to the artifacts of the run after it has ended, given its `state_dict`."""
        client = _client_class()
        if self.run_id is not None:
            self._attempt(self._log_export, client, path)

    def _log_export(self, client: Callable[..., Any], path: Path) -> None:
        self._client = client(self.tracking_uri)
        self._log_file(path)

    def _log_file(self, path: Path) -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self._client.log_artifact(self.run_id, str(path))

    def _log_figure(self, name: str, figure: Figure) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.png"
            figure.savefig(file)
            self._client.log_artifact(self.run_id, str(file), "figures")

    # -- resume ----------------------------------------------------------------------------------------

    def state_dict(self) -> Logs:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: Logs) -> None:
        self.run_id = state["run_id"]


def _client_class() -> Any:
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise ImportError(f"MLflowLogger needs MLflow: {install_hint('mlflow')}") from None
    return MlflowClient


class _MetricNames:
    """Names of metrics that MLflow accepts: letters, digits, `_`, `-`, `.`, `/` and spaces, and a relative path.

    Example:
        >>> names = _MetricNames()
        >>> with warnings.catch_warnings(action="ignore"):
        ...     [names.accepted(name) for name in ("val_loss", "precision@1", "acc", "acc (%)", "../x")]
        ['val_loss', 'precision_1', 'acc', 'acc_2', 'x']
    """

    def __init__(self) -> None:
        self._accepted: dict[str, str] = {}
        self._has_warned = False

    def accepted(self, name: str) -> str:
        """Return the name to log a metric by; always the same one, and a different one for each metric."""
        if name not in self._accepted:
            self._accepted[name] = self._unused(_clean(name))
            if self._accepted[name] != name and not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"MLflow does not allow a metric to be named {name!r}, so it is logged as "
                    f"{self._accepted[name]!r}; other such names are changed in the same way",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return self._accepted[name]

    def _unused(self, name: str) -> str:
        taken, number, candidate = set(self._accepted.values()), 2, name
        while candidate in taken:
            candidate = f"{name[: _MAX_NAME - 8]}_{number}"
            number += 1
        return candidate


def _clean(name: str) -> str:
    if (
        re.fullmatch(r"[\w\-. /]+", name)
        and name == posixpath.normpath(name)
        and name[0] not in "/."
        and len(name) <= _MAX_NAME
    ):
        return name
    replaced = re.sub(r"[^\w\-. /]+", "_", name)
    # A path must not have empty or special parts.
    parts = [part.strip(" _.") for part in replaced.split("/")]
    return "/".join(filter(None, parts))[:_MAX_NAME] or "metric"


@contextmanager
def _short_mlflow_timeouts() -> Iterator[None]:
    """Let MLflow give up on a silent server within seconds, instead of minutes, in the block.

    Settings that the user has made in the environment take precedence.
    """
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    added = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
