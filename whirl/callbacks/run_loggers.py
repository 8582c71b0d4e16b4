"""The experiment loggers of a run as one callback that never aborts the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from whirl.callbacks.registry import LOGGERS, RunFacts, RunResults
from whirl.engine.callbacks import HOOKS, Callback, Logs
from whirl.engine.files import find_unserializable


class RunLoggers(Callback):
    """The loggers of a run, by name; one that raises an error is left out for the rest of the run, with a warning.

    Args:
        loggers: callbacks by name. Those with a method `log_results` also receive the results of the run.

    Example:
        >>> class Printer(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         print(epoch, logs)
        >>> RunLoggers({"printer": Printer()}).on_epoch_end(0, {"val_loss": 0.5})
        0 {'val_loss': 0.5}
    """

    rank_zero_only = True

    def __init__(self, loggers: Mapping[str, Callback]) -> None:
        self.loggers = dict(loggers)
        self._failed: set[str] = set()
        self._by_hook = {
            hook: [name for name, logger in self.loggers.items() if _overrides(logger, hook)] for hook in HOOKS
        }

    @classmethod
    def create(cls, names: Iterable[str], facts: RunFacts) -> RunLoggers:
        """Create registered loggers; one whose creation fails is left out, with a warning.

        For a group of runs, loggers that do not log groups are left out, too.
        """
        loggers = {}
        for name in names:
            try:
                logger = LOGGERS.get(name)(facts)
                if not facts.is_group or getattr(logger, "logs_groups", False):
                    loggers[name] = logger
            except Exception as error:
                _warn(name, error)
        return cls(loggers)

    @property
    def failed(self) -> set[str]:
        """Names of the loggers that failed, or whose tracker did."""
        return {
            name for name, logger in self.loggers.items() if name in self._failed or getattr(logger, "is_down", False)
        }

    def _call(self, hook: str, *arguments: Any) -> None:
        for name in self._by_hook[hook]:
            self._attempt(name, getattr(self.loggers[name], hook), *arguments)

    def _attempt(self, name: str, action: Callable[..., Any], *arguments: Any) -> Any:
        if name in self._failed:
            return None
        try:
            return action(*arguments)
        except Exception as error:
            self._failed.add(name)
            _warn(name, error)
            return None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        for logger in self.loggers.values():
            logger.trainer = self.trainer
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._call("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._call("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._call("on_epoch_end", epoch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._call("on_batch_begin", batch, logs)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._call("on_batch_end", batch, logs)

    def log_results(self, results: Callable[[], RunResults]) -> None:
        """Log the results of the run.

        Args:
            results: returns the results; called once, if a logger takes them.
        """
        takers = [name for name, logger in self.loggers.items() if hasattr(logger, "log_results")]
        if not takers:
            return
        try:
            made = results()
        except Exception as error:
            warnings.warn(f"results are not logged: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
            return
        for name in takers:
            self._attempt(name, self.loggers[name].log_results, made)  # type: ignore[attr-defined]

    def log_export(self, path: Path) -> None:
        """Add an exported file or folder to the run, in loggers with a method `log_export`, after the run has ended."""
        for name, logger in self.loggers.items():
            if hasattr(logger, "log_export"):
                self._attempt(name, logger.log_export, path)  # type: ignore[attr-defined]

    def state_dict(self) -> Logs:
        states = {name: self._attempt(name, logger.state_dict) for name, logger in self.loggers.items()}
        return {name: state for name, state in states.items() if state and find_unserializable(state) is None}

    def load_state_dict(self, state: Logs) -> None:
        for name, logger in self.loggers.items():
            if name in state:
                self._attempt(name, logger.load_state_dict, state[name])


def _overrides(logger: Callback, hook: str) -> bool:
    return getattr(type(logger), hook) is not getattr(Callback, hook)


def _warn(name: str, error: Exception) -> None:
    warnings.warn(
        f"the logger {name!r} failed and logs nothing more in this run: {type(error).__name__}: {error}",
        RuntimeWarning,
        stacklevel=3,
    )
