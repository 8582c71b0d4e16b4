"""What a search searches, and the folder of its results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from whirl.engine.distributed import job_id
from whirl.engine.files import write_text
from whirl.runs.config import Config, make_config, training_settings, with_settings
from whirl.runs.config_files import load_config, read_yaml, stated_settings
from whirl.runs.flat import get_setting
from whirl.runs.pretrained import with_settings_of_pretrained
from whirl.runs.search_space import Space, check_space, preset_space
from whirl.tuning.storage import HIDDEN, redact_password
from whirl.tuning.study import PRUNERS
from whirl.validation import check_name

NO_PRUNER = "none"
DEFAULT_STORAGE = "study.log"
MACHINE_SETTINGS = (
    "data",
    "unlabeled",
    "device",
    "threads",
    "num_workers",
    "mmap_dir",
    "precision",
    "checkpoint_every",
    "log",
)
"""Settings that may differ between workers; their recordings are compared by content."""

_SAVED_FIELDS = {"trials": int, "pruner": str, "storage": str | None, "study": str, "space": dict, "settings": dict}


@dataclass(frozen=True)
class Search:
    """A search: base settings, search space, number of trials and storage.

    Attributes:
        config: all settings, with the searched ones at their default values.
        space: the settings to search and their values.
        trials: number of candidates, including those of other workers.
        pruner: pruner for unpromising trials: `median`, `hyperband` or `none`.
        storage: file or URL shared by the workers; None: a file in the output folder.
        study: name of the study within the storage.
    """

    config: Config
    space: Space
    trials: int = 50
    pruner: str = "median"
    storage: str | None = None
    study: str = "search"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}, expected at least 1")
        check_name("pruner", self.pruner, (*PRUNERS, NO_PRUNER))


@dataclass(frozen=True)
class SearchFolder:
    """Folder in which a worker writes the results of a search.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def settings_file(self) -> Path:
        """`search.yaml`, the description of the search, for resuming."""
        return self.path / "search.yaml"

    @property
    def best_file(self) -> Path:
        """`best.yaml`, the best settings, for `whirl train --config`."""
        return self.path / "best.yaml"

    @property
    def trials_file(self) -> Path:
        """`trials.csv`, one row per trial."""
        return self.path / "trials.csv"

    @property
    def report_file(self) -> Path:
        """`report.html`, the report."""
        return self.path / "report.html"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the results."""
        return self.settings_file, self.best_file, self.trials_file, self.report_file

    def storage_of(self, search: Search) -> str:
        """Return the file or URL of the study."""
        return str(self.path / DEFAULT_STORAGE) if search.storage is None else search.storage

    def check_usable(self, search: Search) -> None:
        """Validate that the folder can be written to, and is new, empty, or in use by the same search.

        Raises:
            ValueError: the path is a file, or the folder contains anything else.
            PermissionError: the folder cannot be written to.
        """
        nearest = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not nearest.is_dir():
            raise ValueError(f"{nearest}: is a file, expected a folder for the search")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(f"{nearest}: no permission to write there; choose another --out")
        if nearest == self.path and self._has_other_files(search) and not self._is_joined_by(search):
            hint = " or continue with --resume" if self.settings_file.is_file() else ""
            raise ValueError(f"{self.path}: the output folder is not empty; choose another --out{hint}")

    def _has_other_files(self, search: Search) -> bool:
        """Whether there are files besides the storage, which another worker may have created, and its lock."""
        storage = str(Path(search.storage).absolute()) if search.storage else None
        return any(storage is None or not str(file.absolute()).startswith(storage) for file in self.path.iterdir())

    def _is_joined_by(self, search: Search) -> bool:
        """Whether the folder belongs to another worker of the study, or to this job before torchrun restarted it."""
        if not self.settings_file.is_file():
            return False
        saved = read_yaml(self.settings_file)
        is_shared = search.storage is not None and saved.get("storage") == redact_password(search.storage)
        is_this_job = job_id() is not None and saved.get("job") == job_id()
        return (is_shared and saved.get("study") == search.study) or is_this_job

    def initialize(self, search: Search) -> None:
        """Write the description of the search."""
        fields = {
            "trials": search.trials,
            "pruner": search.pruner,
            "storage": None if search.storage is None else redact_password(search.storage),
            "study": search.study,
            "job": job_id(),
            "space": search.space,
            "settings": training_settings(search.config),
        }
        write_text(self.settings_file, yaml.safe_dump(fields, sort_keys=False))

    def read(self) -> Search:
        """Read the description written by `initialize`.

        Raises:
            ValueError: the folder is not that of a search, or the file is damaged.
        """
        if not self.settings_file.is_file():
            raise ValueError(f"{self.path}: not the folder of a search (it has no {self.settings_file.name})")
        saved = read_yaml(self.settings_file)
        for name, kind in _SAVED_FIELDS.items():
            if not isinstance(saved.get(name), kind):
                raise ValueError(f"{self.settings_file}: {name} is {saved.get(name)!r}; the file is damaged")
        config = make_config(saved["settings"], str(self.settings_file))
        return Search(
            config=config,
            space=check_space(saved["space"], config, str(self.settings_file)),
            trials=saved["trials"],
            pruner=saved["pruner"],
            storage=saved["storage"],
            study=saved["study"],
        )


def resolve_search(
    options: Mapping[str, Any],
    config_file: str | Path | None = None,
    space_file: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    **choices: Any,
) -> tuple[Search, SearchFolder]:
    """Determine the search and its folder from the arguments of a command line.

    Settings that are given are fixed, and the rest of the network's preset is searched. A space file states what is
    searched even if a value is given; the given value is then the first candidate.

    Args:
        options: settings of the training from the command line; they override those of the file.
        config_file: YAML file of settings.
        space_file: YAML file of settings to search; None uses the network's preset.
        out: folder for the results; None creates a new one under `runs/`.
        resume: take everything from the search in `out`; other arguments must not contradict it.
        **choices: `trials`, `pruner`, `storage` and `study` of `Search`; None uses the default.

    Raises:
        ValueError: a setting is invalid, or differs from the search to resume.
    """
    section = make_config(choices, "options").search
    chosen = {name: getattr(section, name) for name, value in choices.items() if value is not None}
    if "storage" in chosen:
        chosen["storage"] = _absolute(chosen["storage"])
    config = with_settings_of_pretrained(load_config(config_file, options))
    if config.model.compared:
        raise ValueError("compared is a setting of `whirl train`: a search compares settings of one network")
    stated = stated_settings(config_file, options)
    if resume:
        if out is None:
            raise ValueError("--resume needs --out, the folder of the search to resume")
        return _resume_search(SearchFolder(Path(out)), stated, config, space_file, chosen)
    if space_file is None:
        space, source = preset_space(config, stated), "preset"
    else:
        space, source = read_yaml(space_file), str(space_file)
    search = Search(config, check_space(space, config, source), **chosen)
    return search, SearchFolder(Path(out or _new_folder(config.model_name)))


def _new_folder(model: str) -> str:
    # In milliseconds, so that two workers started together use different folders.
    return f"runs/{datetime.now():%Y-%m-%d_%H%M%S.%f}"[:-3] + f"_search_{model}"


def _resume_search(
    folder: SearchFolder,
    stated: Sequence[str],
    given: Config,
    space_file: str | Path | None,
    chosen: dict[str, Any],
) -> tuple[Search, SearchFolder]:
    search = folder.read()
    compared: dict[str, tuple[Any, Any]] = {
        name: (get_setting(search.config, name), get_setting(given, name))
        for name in stated
        if name not in MACHINE_SETTINGS
    }
    if space_file is not None:
        compared["space"] = search.space, check_space(read_yaml(space_file), search.config, str(space_file))
    compared |= {name: (getattr(search, name), chosen[name]) for name in ("pruner", "study") if name in chosen}
    for name, (saved, wanted) in compared.items():
        if saved != wanted:
            raise ValueError(
                f"{folder.path}: was started with {name}={saved!r}, but {name}={wanted!r} was given; resume without "
                "it or start a new search"
            )
    if HIDDEN in (search.storage or "") and "storage" not in chosen:
        raise ValueError(f"{folder.path}: the password of the storage is not saved; give --storage again")
    local = {name: get_setting(given, name) for name in stated if name in MACHINE_SETTINGS}
    return replace(search, config=with_settings(search.config, **local), **chosen), folder


def _absolute(storage: str) -> str:
    return storage if "://" in storage else str(Path(storage).absolute())
