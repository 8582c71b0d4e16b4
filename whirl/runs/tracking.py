"""What experiment loggers record of a run: its facts at the beginning, its results at the end."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whirl._distribution import installed_version
from whirl.callbacks.registry import RunFacts, RunResults
from whirl.callbacks.run_loggers import RunLoggers
from whirl.engine.history import History
from whirl.evaluation.figures import plot_confusion_matrix, plot_reliability_diagram
from whirl.runs.data import PreparedData
from whirl.runs.evaluation import describe
from whirl.runs.flat import to_flat
from whirl.runs.run_folder import RunFolder


def run_loggers(data: PreparedData, folder: Path, command: str, *, name: str = "", parent: str = "") -> RunLoggers:
    """Create the configured loggers of a run.

    Args:
        data: the prepared recordings with the resolved configuration.
        folder: folder for what loggers write.
        command: the command that started the run.
        name: name of the run; that of the folder by default.
        parent: name of the search that the run is a trial of.
    """
    facts = run_facts(data, folder, command, name=name, parent=parent)
    return RunLoggers.create(data.config.run.log, facts)


def run_facts(
    data: PreparedData, folder: Path, command: str, *, name: str = "", parent: str = "", is_group: bool = False
) -> RunFacts:
    """Collect the facts of a run, see `RunFacts`."""
    config = data.config
    tags = {
        "command": command,
        "git_commit": _git_commit(),
        "user": _user(),
        "data_fingerprint": data.fingerprint,
        "whirl_version": installed_version(),
    }
    name_of_data = describe(config)
    return RunFacts(
        folder=folder,
        name=name or folder.name,
        settings=to_flat(config),
        tags={tag: value for tag, value in tags.items() if value},
        dataset={
            "name": name_of_data,
            "source": name_of_data if config.data.is_simulated else str(Path(config.data.path).absolute()),
            "fingerprint": data.fingerprint,
        },
        parent=parent,
        is_group=is_group,
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
    curves = {f"learning_curve_{name}": history.plot(name) for name in ("loss", "accuracy") if history.curves(name)}
    return RunResults(
        metrics=dict(pair for level, values in metrics.items() for pair in _numbers(level, values).items()),
        files=[file for file in files if file.is_file()],
        figures={
            "confusion_matrix": plot_confusion_matrix(metrics["recording"]["confusion"], data.classes),
            "reliability": plot_reliability_diagram(metrics["recording"]["reliability"]),
            **curves,
        },
    )


def _numbers(level: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars among the metrics of a level, the ends of intervals, and registered metrics."""
    found = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    for name, interval in metrics["intervals"].items():
        found |= {f"{name}_{end}": interval[end] for end in ("low", "high") if interval[end] is not None}
    found |= metrics.get("registered", {})
    return {f"test_{level}_{name}": float(value) for name, value in found.items()}
