"""Distilling a finished run into a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from whirl.engine.checkpoint import load_weights
from whirl.runs.config import Config, ResolvedConfig
from whirl.runs.data import PreparedData, content_of
from whirl.runs.factory import new_model
from whirl.runs.flat import get_setting
from whirl.runs.run_folder import RunFolder
from whirl.runs.sections import DistilledMethod
from whirl.training.knowledge_distillation import DistillationLoss, DistillationTrainer

MATCHING_SETTINGS = ("classes", "channels", "sampling_rate_hz", "band_limit_hz", "window")
"""Settings that decide what a network sees and says."""


def check_teacher(config: Config) -> None:
    """Refuse a teacher of which the settings alone tell that it cannot teach, before any recording is read.

    Raises:
        ValueError: its folder is no run's or has no checkpoint; it was trained with other classes, channels, rate, band
            or window than the student's configuration names. What that leaves to the data is checked by `load_teacher`.
    """
    method = config.training.method
    if not isinstance(method, DistilledMethod):
        return
    folder = RunFolder(method.teacher)
    teacher = folder.read_config()
    stated = [name for name in MATCHING_SETTINGS if get_setting(config, name) is not None]
    if config.data.classes is not None and set(config.data.classes) == set(teacher.data.classes):
        stated.remove("classes")  # their order is resolved with the data
    _check_fit(folder, teacher, config, stated)
    if not folder.best_checkpoint.is_file():
        raise ValueError(f"{folder.path}: this teacher has no checkpoint yet; finish its run with whirl train --resume")


def load_teacher(run: str | Path, data: PreparedData) -> nn.Module:
    """The network of a finished run, for a student that is to be trained on `data`.

    Args:
        run: the teacher's run folder.
        data: recordings of the student's run, with its configuration resolved.

    Returns:
        The teacher with the weights of its lowest validation loss.

    Raises:
        ValueError: the folder is no finished run's; the teacher was trained on other classes, channels, rate, band or
            window; or on what the student will be tested on, unless leakage is allowed.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    _check_fit(folder, config, data.config, MATCHING_SETTINGS)
    seen = test_items_seen_by_teacher(folder, config, data)
    if seen and not data.config.split.allow_leakage:
        raise ValueError(
            f"{folder.path}: this teacher was trained on {seen[0]} and {len(seen) - 1} others on which the student "
            "would be tested; train both with one split (the same seed and fractions), or allow_leakage"
        )
    model = new_model(config)
    load_weights(model, folder.best_checkpoint)
    return model


def _check_fit(folder: RunFolder, teacher: Config, student: Config, names: Iterable[str]) -> None:
    for name in names:
        was, wanted = get_setting(teacher, name), get_setting(student, name)
        if was != wanted:
            raise ValueError(
                f"{folder.path}: this teacher was trained with {name} = {was!r}, the student's run has {wanted!r}; "
                f"both must see and say the same, so set {name} to {was!r} or choose another teacher"
            )


def test_items_seen_by_teacher(folder: RunFolder, config: ResolvedConfig, data: PreparedData) -> list[str]:
    """Test recordings, and test specimens, that a teacher's run has not kept for its own test.

    Recordings are known by their samples, whatever they are called and wherever they lie; specimens by name, in the
    same folder or the same simulation. Of a split by time within recordings nothing can be said: none.
    """
    if data.config.split.by == "time":
        return []
    noted = folder.read_data()
    rows = [row for part, rows in noted["parts"].items() if part != "test" for row in rows]
    contents = {row.get("content") for row in rows}
    seen = [recording.name for recording in data.split.test if content_of(recording) in contents]
    if data.config.split.by == "specimen" and _same_place(config, data.config):
        specimens = {row["specimen"] for row in rows if row["specimen"] is not None}
        seen += sorted({str(r.specimen) for r in data.split.test if r.specimen in specimens})
    return seen


def _same_place(a: ResolvedConfig, b: ResolvedConfig) -> bool:
    """Whether equal names of specimens mean the same one; simulated machines follow from family, seed and number."""
    if not (a.data.is_simulated and b.data.is_simulated):
        return a.data.path == b.data.path
    one, other = a.data.simulation, b.data.simulation
    return (one.family, one.seed) == (other.family, other.seed)


def make_distillation_trainer(
    parts: Mapping[str, Any], teacher: nn.Module, temperature: float = 4.0, alpha: float = 0.7
) -> DistillationTrainer:
    """The trainer that does what `Trainer(**parts)` would do, and follows a teacher besides.

    The teacher's logits are kept wherever training windows are not augmented.

    Args:
        parts: arguments of a `Trainer` by name, with `model`, the student, `optimizer` and `criterion`, which becomes
            the hard term.
        teacher: network with the same inputs and outputs.
        temperature: see `DistillationLoss`.
        alpha: see `DistillationLoss`.
    """
    further = {name: part for name, part in parts.items() if name not in ("model", "optimizer", "criterion")}
    return DistillationTrainer(
        teacher,
        parts["model"],
        DistillationLoss(temperature, alpha, hard_criterion=parts["criterion"]),
        parts["optimizer"],
        cache_teacher=parts.get("augmentation") is None,
        **further,
    )
