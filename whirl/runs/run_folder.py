"""The folder of a training run."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from whirl._locks import LOCK, FolderLock, locked
from whirl.engine.checkpoint import BEST, LAST, PREVIOUS
from whirl.engine.files import check_writable, write_json
from whirl.runs.config import Config, ResolvedConfig, parse_config, with_settings
from whirl.runs.config_files import load_config, read_yaml, stated_settings, write_config
from whirl.runs.flat import get_setting

logger = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.[\w.-]+\.(json|yaml|csv|html|npz|pt)\.[a-z0-9_]{8}")

COMPARED = "compared"
"""Folder, inside of a run folder, of the runs of networks to compare with."""

RESUME_OVERRIDABLE = ("num_workers",)
"""Settings that may change when a run is resumed, because results do not depend on them."""


class RunFolder:
    """Folder with the configuration, checkpoints, metrics and report of a run.

    Attributes:
        path: the folder.
        config_file: `config.yaml`, the resolved configuration, which can be run again.
        data_file: `data.json`, the split by file name, the fingerprint of the recordings and other metadata.
        history_file: `history.json`, the training history.
        metrics_file: `metrics.json`, the test metrics.
        predictions_file: `predictions.csv`, one row per test recording.
        report_file: `report.html`, the report.
        diagnoser_file: `diagnoser.npz`, the trained model of descriptors, instead of checkpoints of a network.
        reliability_file: `reliability.npz`, calibration and known range of the trained diagnoser.
        checkpoints: folder of `last.pt` and `best.pt`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.data_file = self.path / "data.json"
        self.history_file = self.path / "history.json"
        self.metrics_file = self.path / "metrics.json"
        self.predictions_file = self.path / "predictions.csv"
        self.report_file = self.path / "report.html"
        self.diagnoser_file = self.path / "diagnoser.npz"
        self.reliability_file = self.path / "reliability.npz"
        self.checkpoints = self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint, to resume from."""
        return self.checkpoints / LAST

    @property
    def can_be_resumed(self) -> bool:
        """Whether there is a checkpoint to resume from, or a model of descriptors."""
        files = (self.last_checkpoint, self.checkpoints / PREVIOUS, self.diagnoser_file)
        return any(file.is_file() for file in files)

    @property
    def is_finished(self) -> bool:
        """Whether the training has ended and been evaluated."""
        return self.can_be_resumed and self.metrics_file.is_file()

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the lowest validation loss; the newest one if there is none."""
        best = self.checkpoints / BEST
        return best if best.is_file() else self.last_checkpoint

    def compared(self, network: str) -> RunFolder:
        """The folder of a network that was trained on the same recordings, to be compared with."""
        return RunFolder(self.path / COMPARED / network)

    def check_empty(self) -> None:
        """Validate that the folder is new or empty, and can be written to.

        What a process left that was killed while it began a run does not count.

        Raises:
            ValueError: the path is a file, or the folder is not empty.
            OSError: the folder cannot be written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: is a file, expected a folder for the run")
        if self.path.is_symlink() and not self.path.exists():
            raise ValueError(f"{self.path}: is a link to no folder; create it or choose another --out")
        if self.path.is_dir() and any(not self._is_left_over(file) for file in self.path.iterdir()):
            hint = "choose another --out" + (" or continue with --resume" if self.config_file.is_file() else "")
            raise ValueError(f"{self.path}: the output folder is not empty; {hint}")
        self.check_writable()

    def _is_left_over(self, file: Path) -> bool:
        """Whether a file was left by a process that was killed before it had written the configuration."""
        is_metadata = file == self.data_file and not self.config_file.exists() and _is_metadata(file)
        return file.name == LOCK or is_metadata or _is_temporary(file)

    @contextmanager
    def locked(self) -> Iterator[FolderLock]:
        """Hold the lock of the folder, and remove temporary files of processes that were killed.

        Raises:
            ValueError: another process uses the folder.
        """
        with locked(self.path) as lock:
            for folder in (self.path, self.checkpoints):
                for file in folder.glob(".*"):
                    if _is_temporary(file):
                        file.unlink(missing_ok=True)
            yield lock

    def check_writable(self) -> None:
        """Validate that the folder can be created or written to, without changing it.

        Raises:
            OSError: it cannot be created or written to.
        """
        check_writable(self.path)

    def initialize(self, config: Config, data: dict[str, Any]) -> None:
        """Write the metadata and then the configuration, which begins the run; on an error, neither is left.

        Raises:
            ValueError: another run has started to use the folder.
        """
        self.check_empty()
        try:
            write_json(self.data_file, data)
            write_config(self.config_file, config)
        except OSError:
            self.data_file.unlink(missing_ok=True)
            raise

    def update_metadata(self, **facts: Any) -> None:
        """Add entries to the metadata written by `initialize`."""
        write_json(self.data_file, self.read_data() | facts)

    def read_config(self) -> ResolvedConfig:
        """Read the configuration of the run.

        Raises:
            ValueError: the folder is not a run folder, or its configuration is invalid.
        """
        if not self.config_file.is_file():
            raise ValueError(f"{self.path}: not a run folder (it has no config.yaml)")
        try:
            return parse_config(read_yaml(self.config_file), str(self.config_file), ResolvedConfig)
        except ValueError as error:
            from whirl.runs.plugins import missing_packages

            saved = self.read_data() if self.data_file.is_file() else {}
            raise ValueError(f"{error}{missing_packages(saved)}") from None

    def read_data(self) -> dict[str, Any]:
        """Read the metadata, including the split and the fingerprint of the recordings."""
        return _read_json(self.data_file)

    def read_history(self) -> dict[str, list[float | None]]:
        """Read the training history, one list of numbers per logged name."""
        return _read_json(self.history_file)


def _is_metadata(file: Path) -> bool:
    with suppress(ValueError):
        return "fingerprint" in _read_json(file)
    return False


def _is_temporary(file: Path) -> bool:
    """Return whether a file is one that `atomic_write` writes for a file of a run, under a hidden name."""
    return _TEMPORARY.fullmatch(file.name) is not None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def resolve_run(
    options: dict[str, Any], config_file: str | Path | None, out: str | Path | None, resume: bool
) -> tuple[Config, Path]:
    """Determine the configuration and run folder from the arguments of a command line.

    Args:
        options: settings from the command line; they override those of the file.
        config_file: YAML file of settings.
        out: run folder; None creates a new one under `runs/`, named by time and model, if one is stated.
        resume: take the configuration of the run in `out`; given settings must not contradict it, except those in
            `RESUME_OVERRIDABLE`. A message is logged if the run is already finished.

    Raises:
        ValueError: a setting is invalid, or differs from the run to resume.
        OSError: the run folder to resume cannot be written to.
    """
    given = load_config(config_file, options)
    if not resume:
        return given, Path(out or _new_folder(given.model.name))
    if out is None:
        raise ValueError("--resume needs --out, the folder of the run to resume")
    folder = RunFolder(out)
    config = folder.read_config()
    folder.check_writable()
    stated = stated_settings(config_file, options)
    config = with_settings(config, **{name: get_setting(given, name) for name in stated if name in RESUME_OVERRIDABLE})
    for name in stated:
        saved, wanted = get_setting(config, name), get_setting(given, name)
        if wanted != saved:
            raise ValueError(
                f"{out}: was started with {name}={saved!r}, but {name}={wanted!r} was given; resume without it or "
                "start a new run"
            )
    if folder.is_finished:
        logger.info("%s: run already finished; evaluating it again", out)
        if not folder.diagnoser_file.is_file():  # models of descriptors have no epochs
            logger.info(
                "to train longer than %s epochs, start a new run with more --epochs and another --out, because the "
                "learning-rate schedule ends with the configured epochs",
                config.training.epochs,
            )
    return config, Path(out)


def _new_folder(model: str | None) -> str:
    # In milliseconds, so that two runs started together use different folders.
    return f"runs/{datetime.now():%Y-%m-%d_%H%M%S.%f}"[:-3] + (f"_{model}" if model else "")
