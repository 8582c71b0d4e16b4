"""Experiment loggers by name, for `whirl train --log`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whirl._distribution import install_hint
from whirl.engine.callbacks import Callback
from whirl.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run that a logger may record.

    Attributes:
        folder: the run folder; in a search, a folder of the trial in the folder of the search.
        name: name of the run.
        settings: every setting by flat name.
        tags: further facts, as far as they are known: `command`, `git_commit`, `user`, `data_fingerprint`,
            `version` of whirl.
        dataset: the recordings: `name`, `source` and `fingerprint`; empty if they are not known.
        parent: name of the search that the run is a trial of, or "".
        is_group: whether these are the facts of a search, whose trials have its `name` as `parent`.
    """

    folder: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    is_group: bool = False


@dataclass(frozen=True)
class RunResults:
    """The results of a run, which loggers record in addition to the logs of its epochs.

    Attributes:
        metrics: numbers by name, e.g. `test_recording_accuracy`.
        files: files and folders of the run, e.g. `config.yaml` and `report.html`.
        figures: figures by name, e.g. `confusion_matrix`.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Sequence[Path] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)


_BUILT_IN = ("csv", "json", "mlflow", "tensorboard", "wandb")
_EXTRAS = {"mlflow": "MLflow", "tensorboard": "TensorBoard", "wandb": "Weights & Biases"}
"""Packages that built-in loggers require, by logger; package, logger and extra have the same name."""

LOGGERS: Registry[Callable[[RunFacts], Callback]] = Registry(
    "logger", dict.fromkeys(_BUILT_IN, "whirl.callbacks.built_in_loggers"), group="whirl.loggers"
)


def register_logger(name: str) -> Callable[[Callable[[RunFacts], Callback]], Callable[[RunFacts], Callback]]:
    """Register a logger for `whirl train --log`.

    Decorates a function that is called with the facts of the run and returns a callback. If the callback has a method
    `log_results(results: RunResults)`, it is called after the evaluation on the test data. In a search, each trial is a
    run; if the callback has a true attribute `logs_groups`, the function is also called once for the search itself.
    """
    return LOGGERS.register(name)


def check_loggers(names: Iterable[str]) -> None:
    """Raise if a logger cannot be used here.

    Raises:
        ValueError: a name is unknown.
        ImportError: a logger requires a package that is not installed.
    """
    for name in names:
        LOGGERS.check(name)
        if name in _EXTRAS and not _is_installed(name):
            raise ImportError(f"the logger {name!r} requires {_EXTRAS[name]}; install it with: {install_hint(name)}")


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # A folder of that name, which trackers leave in the working directory, is found too, but has no file.
    return spec is not None and spec.origin is not None
