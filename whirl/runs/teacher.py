"""Knowledge distillation from a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from whirl.engine.checkpoint import load_weights
from whirl.runs.config import Config, ResolvedConfig
from whirl.runs.data import PreparedData
from whirl.runs.factory import new_model
from whirl.runs.fingerprint import content_of
from whirl.runs.flat import get_setting
from whirl.runs.methods import DistilledMethod
from whirl.runs.run_folder import RunFolder
from whirl.training.knowledge_distillation import DistillationLoss, DistillationTrainer

MATCHING_SETTINGS = ("task", "classes", "channels", "sampling_rate_hz", "band_limit_hz", "window")
"""Settings in which teacher and student must match: they define the input and output of a network."""


def check_teacher(config: Config) -> None:
    """Validate the configured teacher as far as possible before any recording is read.

    Settings that the student's configuration leaves to the data are checked by `load_teacher`.

    Raises:
        ValueError: the teacher's folder is not a run folder or has no checkpoint, or its task, classes, channels,
            sampling rate, band or window differ from those stated for the student.
    """
    method = config.training.method
    if not isinstance(method, DistilledMethod):
        return
    folder = RunFolder(method.teacher)
    teacher = folder.read_config()
    stated = [name for name in MATCHING_SETTINGS if get_setting(config, name) is not None]
    if config.data.classes is not None and set(config.data.classes) == set(teacher.data.classes):
        stated.remove("classes")  # their order is resolved with the data
    _check_match(folder, teacher, config, stated)
    if not folder.best_checkpoint.is_file():
        raise ValueError(f"{folder.path}: this teacher has no checkpoint yet; finish its run with whirl train --resume")


def load_teacher(run: str | Path, data: PreparedData) -> nn.Module:
    """Load the network of a finished run as the teacher of a student trained on `data`.

    Args:
        run: run folder of the teacher.
        data: recordings of the student's run, with the resolved configuration.

    Returns:
        The teacher with the weights of the lowest validation loss.

    Raises:
        ValueError: the folder is not that of a finished run; the teacher's task, classes, channels, sampling rate,
            band or window differ from the student's; or the teacher was trained on test data of the student, unless
            leakage is allowed.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    _check_match(folder, config, data.config, MATCHING_SETTINGS)
    seen = seen_test_items(folder, config, data)
    if seen and not data.config.split.allow_leakage:
        raise ValueError(
            f"{folder.path}: this teacher was trained on test data of the student: {seen[0]} and {len(seen) - 1} "
            "others; train both with the same seed and fractions, or set allow_leakage"
        )
    model = new_model(config)
    load_weights(model, folder.best_checkpoint)
    return model


def _check_match(folder: RunFolder, teacher: Config, student: Config, names: Iterable[str]) -> None:
    for name in names:
        was, wanted = get_setting(teacher, name), get_setting(student, name)
        if was != wanted:
            raise ValueError(
                f"{folder.path}: this teacher was trained with {name}={was!r}, but the student's run has {name}="
                f"{wanted!r}; set {name} to {was!r} or choose another teacher"
            )


def seen_test_items(folder: RunFolder, config: ResolvedConfig, data: PreparedData) -> list[str]:
    """List the student's test recordings and specimens that are not in the test part of the teacher's run.

    Recordings are identified by their samples, regardless of file names and folders; specimens by name, within the
    same folder or simulation. For a split by time within recordings, overlap cannot be determined, so the list is
    empty.
    """
    if data.config.split.by == "time":
        return []
    parts = folder.read_data()["parts"]
    rows = [row for part, rows in parts.items() if part != "test" for row in rows]
    contents = {row.get("content") for row in rows}
    seen = [recording.name for recording in data.split.test if content_of(recording) in contents]
    if data.config.split.by == "specimen" and _share_specimens(config, data.config):
        specimens = {row["specimen"] for row in rows if row["specimen"] is not None}
        seen += sorted({str(r.specimen) for r in data.split.test if r.specimen in specimens})
    return seen


def _share_specimens(a: ResolvedConfig, b: ResolvedConfig) -> bool:
    """Whether equal specimen names mean the same specimen; a simulated one follows from family, seed and number."""
    if not (a.data.is_simulated and b.data.is_simulated):
        return a.data.path == b.data.path
    simulation_a, simulation_b = a.data.simulation, b.data.simulation
    return (simulation_a.family, simulation_a.seed) == (simulation_b.family, simulation_b.seed)


def make_distillation_trainer(
    parts: Mapping[str, Any], teacher: nn.Module, temperature: float = 4.0, alpha: float = 0.7
) -> DistillationTrainer:
    """Make a trainer like `Trainer(**parts)` that also distils a teacher.

    The teacher's logits are cached unless training windows are augmented.

    Args:
        parts: arguments of a `Trainer` by name, including `model` (the student), `optimizer` and `criterion`, which
            becomes the hard term.
        teacher: network with the same inputs and outputs.
        temperature: see `DistillationLoss`.
        alpha: see `DistillationLoss`.
    """
    others = {name: part for name, part in parts.items() if name not in ("model", "optimizer", "criterion")}
    return DistillationTrainer(
        teacher,
        parts["model"],
        DistillationLoss(temperature, alpha, hard_criterion=parts["criterion"]),
        parts["optimizer"],
        cache_teacher=parts.get("augmentation") is None,
        **others,
    )
