"""The installed packages that a run requires besides whirl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from whirl.augment.policies import AUGMENTATIONS
from whirl.callbacks.registry import LOGGERS
from whirl.data.reading import READERS
from whirl.diagnosis.registry import DIAGNOSERS
from whirl.evaluation.registry import METRICS
from whirl.losses.registry import LOSSES
from whirl.models.registry import MODELS
from whirl.optim.scheduler_factory import SCHEDULES
from whirl.registry import Registry
from whirl.runs.config import Config
from whirl.runs.descriptors import is_descriptor_model
from whirl.training.registry import TRAINERS


def packages_of(config: Config, files: Iterable[str] = ()) -> list[str]:
    """List the packages that provide the networks, losses and so on of a run, and the readers of its files."""
    training = config.training
    used: list[tuple[Registry[Any], str]] = [
        (DIAGNOSERS if is_descriptor_model(config.model_name) else MODELS, config.model_name),
        (TRAINERS, training.method.kind),
        (LOSSES, training.loss),
        (SCHEDULES, training.schedule),
        *((METRICS, name) for name in config.evaluation.metrics),
        *((LOGGERS, name) for name in config.run.log),
        *((READERS, suffix) for suffix in {Path(file).suffix.lower() for file in files}),
    ]
    if isinstance(config.input.augment, str):
        used.append((AUGMENTATIONS, config.input.augment))
    return sorted({origin for registry, name in used if (origin := registry.origin(name))})


def missing_packages(saved: Mapping[str, Any]) -> str:
    """Format a message about packages of a run that are not installed; empty if all are installed."""
    missing = [name for name in saved.get("packages", ()) if not _is_installed(name)]
    return f"; it requires the package {', '.join(missing)}, which is not installed" if missing else ""


def _is_installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False
