"""What experiment loggers record of a run: its facts at the beginning, its results at the end."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whirl._distribution import installed_version
from whirl.callbacks.registry import RunFacts, RunResults
from whirl.callbacks.run_loggers import RunLoggers
from whirl.engine.distributed import is_main_process
from whirl.engine.history import History
from whirl.evaluation.figures import plot_confusion_matrix, plot_reliability_diagram
from whirl.runs.config import ResolvedConfig
from whirl.runs.data import PreparedData
from whirl.runs.evaluation import describe
from whirl.runs.flat import to_flat
from whirl.runs.run_folder import RunFolder


def run_facts(data: PreparedData, folder: Path, command: str) -> RunFacts:
    """Collect the facts of a run.

    Args:
        data: the prepared recordings with the resolved configuration.
        folder: folder for what loggers write.
        command: the command that started the run.
    """
    config = data.config
    tags = {
        "command": command,
        "git_commit": _git_commit(),
        "user": _user(),
        "data_fingerprint": data.fingerprint,
        "version": installed_version(),
    }
    name_of_data = describe(config)
    return RunFacts(
        folder=folder,
        name=folder.name,
        settings=to_flat(config),
        tags={tag: value for tag, value in tags.items() if value},
        dataset={
            "name": name_of_data,
            "source": name_of_data if config.data.is_simulated else str(config.data.path),
            "fingerprint": data.fingerprint,
        },
    )


def _git_commit() -> str:
    """Return the commit of the working directory; "" outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have no name for its user
        return ""


def run_results(data: PreparedData, folder: RunFolder, metrics: Mapping[str, Mapping[str, Any]]) -> RunResults:
    """Collect the results of a run: test metrics, files, and figures.

    Args:
        data: the prepared recordings with the resolved configuration.
        folder: the run folder.
        metrics: test metrics by level, `window` and `recording`.
    """
    files = (folder.config_file, folder.report_file, folder.metrics_file, folder.predictions_file, folder.data_file)
    history = History(folder.read_history())  # type: ignore[arg-type]  # null is drawn as a gap
    curves = {
        f"learning_curve_{name}": history.plot(name) for name in ("loss", "accuracy", "mae") if history.curves(name)
    }
    levels = [level for level in ("window", "recording") if level in metrics]
    return RunResults(
        metrics=dict(pair for level in levels for pair in _numbers(level, metrics[level]).items()),
        files=[file for file in files if file.is_file()],
        figures=curves | ({} if data.config.is_regression else _class_figures(metrics["recording"], data.classes)),
    )


def _class_figures(metrics: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    return {
        "confusion_matrix": plot_confusion_matrix(metrics["confusion"], classes),
        "reliability": plot_reliability_diagram(metrics["reliability"]),
    }


def _numbers(level: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars among the metrics of a level, the ends of intervals, and registered metrics."""
    found = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    for name, interval in metrics["intervals"].items():
        found |= {f"{name}_{end}": interval[end] for end in ("low", "high") if interval[end] is not None}
    found |= metrics.get("registered", {})
    return {f"test_{level}_{name}": float(value) for name, value in found.items()}


def log_export(folder: RunFolder, path: Path) -> None:
    """Add an exported file or bundle to the run in the experiment trackers that can take it.

    Args:
        folder: the run folder.
        path: what was exported.
    """
    states = folder.read_data().get("loggers", {})
    loggers = RunLoggers.create(states, RunFacts(folder.path, folder.path.name))
    loggers.load_state_dict(states)
    loggers.log_export(path)


class SearchLoggers:
    """The loggers of a search: each trial is a run, nested in that of the search where the logger has such runs.

    A logger that fails in one trial is left out of the later ones, so that they do not wait for a tracker that is down.

    Args:
        data: the recordings with the resolved configuration of the search.
        folder: folder of the search; loggers write to a folder for each trial in its folder `trials`.
        group: name of the search, the same for all its workers.
        command: a command that continues the search.
    """

    def __init__(self, data: PreparedData, folder: Path, group: str, command: str) -> None:
        self._names = data.config.run.log if is_main_process() else []
        self._facts = run_facts(data, folder, command) if self._names else RunFacts(folder, group)
        self._group = group
        self._search = RunLoggers.create(self._names, replace(self._facts, name=group, is_group=True))
        self._latest = self._search

    def begin(self) -> None:
        """Begin the run of the search."""
        self._search.on_train_begin()

    def of_trial(self, number: int, config: ResolvedConfig) -> RunLoggers:
        """Create the loggers of a trial."""
        self._names = [name for name in self._names if name not in self._latest.failed]
        facts = replace(
            self._facts,
            folder=self._facts.folder / "trials" / f"{number:04d}",
            name=f"trial {number}",
            settings=to_flat(config),
            parent=self._group,
        )
        self._latest = RunLoggers.create(self._names, facts)
        return self._latest

    def end(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log the result of the search, and end its run."""
        found = [file for file in files if file.is_file()]
        self._search.log_results(lambda: RunResults(metrics, found))
        self._search.on_train_end()
