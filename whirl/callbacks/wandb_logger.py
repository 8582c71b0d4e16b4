"""A callback that logs to Weights & Biases."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whirl._distribution import install_hint
from whirl.callbacks.helpers import scalars
from whirl.callbacks.loggers import ExperimentLogger, to_pixels, training_parameters
from whirl.callbacks.registry import RunResults
from whirl.engine.callbacks import Logs

_TIMEOUTS_S = {"init_timeout": 30, "login_timeout": 30, "finish_timeout": 60}


class WandbLogger(ExperimentLogger):
    """Log a training as a run of Weights & Biases: the configuration once, the epoch logs by epoch.

    A resumed training continues the same run. If the server cannot be reached, there is one warning and training
    continues. Without a network, set the environment variable `WANDB_MODE=offline` and upload the run later by
    `wandb sync`.

    Args:
        project: project to log to; created if it does not exist.
        run_name: name of the run; None lets the server choose.
        config: configuration besides that of `training_parameters`, e.g. all settings.
        group: name of the group that the run belongs to.
        folder: folder for local files, in a folder `wandb`; None is the working directory.
        finish: whether a completed training finishes the run; False leaves it open for `log_results`.

    Attributes:
        run_id: identifier of the run; None before it is created.

    Raises:
        ImportError: wandb is not installed, when training begins.

    Example:
        >>> WandbLogger("bearings", run_name="wdcnn").run_id is None
        True
    """

    def __init__(
        self,
        project: str,
        run_name: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        group: str | None = None,
        folder: str | Path | None = None,
        finish: bool = True,
    ) -> None:
        super().__init__()
        self.project = project
        self.run_name = run_name
        self.config = dict(config or {})
        self.group = group
        self.folder = folder
        self.finish = finish
        self.run_id: str | None = None
        self._run: Any = None
        self._exception_before: BaseException | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        try:
            import wandb
        except ImportError:
            raise ImportError(f"WandbLogger needs wandb: {install_hint('wandb')}") from None
        self.is_down = False
        self._exception_before = sys.exception()
        self._attempt(self._begin, wandb)

    def _begin(self, wandb: Any) -> None:
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        timeouts = {name: limit for name, limit in _TIMEOUTS_S.items() if f"WANDB_{name.upper()}" not in os.environ}
        self._run = wandb.init(
            project=self.project,
            name=self.run_name,
            id=self.run_id,
            resume="allow" if self.run_id else None,
            config=training_parameters(self.trainer) | self.config,
            group=self.group,
            dir=None if self.folder is None else str(self.folder),
            reinit="create_new",
            settings=wandb.Settings(console="off", **timeouts),
        )
        self.run_id = self._run.id
        self._run.define_metric("*", step_metric="epoch")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._attempt(self._log, epoch, scalars(logs))

    def _log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "epoch": epoch})

    def on_train_end(self, logs: Logs | None = None) -> None:
        exception = sys.exception()
        failed = exception is not None and exception is not self._exception_before
        interrupted = self.trainer is not None and self.trainer.state.interrupted
        if self._run is not None and (self.finish or failed or interrupted):
            self._attempt(self._finish, int(failed or interrupted))

    def _finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)

    def log_results(self, results: RunResults) -> None:
        """Log metrics in the summary, and figures and files; finish the run."""
        if self._run is not None:
            self._attempt(self._log_results, results)
            self._attempt(self._finish, 0)

    def _log_results(self, results: RunResults) -> None:
        import wandb

        self._run.summary.update(dict(results.metrics))
        images = {name: wandb.Image(to_pixels(figure)) for name, figure in results.figures.items()}
        if images:
            self._run.log(images)
        for path in results.files:
            glob = path / "*" if path.is_dir() else path
            self._attempt_part(path.name, lambda g=glob, p=path: self._run.save(g, base_path=p.parent, policy="now"))

    def state_dict(self) -> Logs:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: Logs) -> None:
        self.run_id = state["run_id"]
