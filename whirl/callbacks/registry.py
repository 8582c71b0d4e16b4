"""Experiment loggers by name, for `whirl train --log`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whirl.engine.callbacks import Callback
from whirl.registry import Registry


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run that a logger may record.

    Attributes:
        folder: the run folder.
        name: name of the run.
        settings: every setting by flat name.
        tags: further facts, e.g. `git_commit`, `data_fingerprint`, `user`.
        parent: name of the search or comparison that the run belongs to, or "".
    """

    folder: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    parent: str = ""


_BUILT_IN = ("json", "mlflow", "tensorboard")
LOGGERS: Registry[Callable[[RunFacts], Callback]] = Registry(
    "logger", dict.fromkeys(_BUILT_IN, "whirl.callbacks.run_loggers"), group="whirl.loggers"
)


def register_logger(name: str) -> Callable[[Callable[[RunFacts], Callback]], Callable[[RunFacts], Callback]]:
    """Register a logger for `whirl train --log`.

    Decorates a function that is called with the facts of the run and returns a callback.
    """
    return LOGGERS.register(name)
