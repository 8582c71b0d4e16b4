"""Fine-tuning: a training that starts from the network of a finished run."""

from __future__ import annotations

import logging

from torch import nn

from whirl.callbacks.unfreezing import GradualUnfreezing
from whirl.engine.fine_tuning import freeze, load_features
from whirl.runs.config import Config, ResolvedConfig, with_settings
from whirl.runs.data import PreparedData
from whirl.runs.descriptions import OFF
from whirl.runs.flat import get_setting
from whirl.runs.methods import MapsMethod, PlainMethod
from whirl.runs.run_folder import RunFolder
from whirl.runs.teacher import seen_test_items

logger = logging.getLogger(__name__)

_INHERITED = ("model", "width", "task", "window", "sampling_rate_hz", "band_limit_hz")


def with_settings_of_pretrained(config: Config) -> Config:
    """Take settings of the input and the network that are not stated from the run that the training starts from.

    Raises:
        ValueError: the folder is not a run folder, has no checkpoint of a network, or predicts a number where classes
            are wanted or the reverse.
    """
    if config.training.pretrained == OFF:
        return config
    folder = RunFolder(config.training.pretrained)
    source = folder.read_config()
    if not folder.best_checkpoint.is_file():
        raise ValueError(f"{folder.path}: this run has no checkpoint of a network to start from")
    default = Config()
    names = [name for name in _INHERITED if get_setting(config, name) == get_setting(default, name)]
    changes = {name: get_setting(source, name) for name in names}
    _check_task(folder, source.training.task, changes.get("task", config.training.task))
    if changes.get("band_limit_hz") == OFF:
        del changes["band_limit_hz"]  # the new recordings may need one
    if changes.get("task") == "regression":
        changes |= {"loss": source.training.loss, "target": source.data.target}
    method = source.training.method
    if isinstance(method, MapsMethod) and isinstance(config.training.method, PlainMethod):
        changes |= {"representation": method.representation, "maps": method.maps}
    return with_settings(config, **changes)


def load_pretrained(model: nn.Module, data: PreparedData) -> bool:
    """Load the weights of the run that the training starts from, and freeze what is configured.

    Returns:
        Whether the layers that compute the outputs are new.

    Raises:
        ValueError: the networks differ in more than their classes; a part to freeze does not exist; or the run was
            trained on test data of this one, unless leakage is allowed.
    """
    training = data.config.training
    if training.pretrained == OFF:
        return True
    folder = RunFolder(training.pretrained)
    source = folder.read_config()
    _check_leakage(folder, source, data)
    new = load_features(model, folder.best_checkpoint, with_head=source.data.classes == data.config.data.classes)
    logger.info("starting from %s%s", folder.path, f"; new: {', '.join(new)}" if new else "")
    if training.freeze != OFF:
        freeze(model, *training.freeze)
    return bool(new)


def unfreezing(config: ResolvedConfig) -> list[GradualUnfreezing]:
    """Return the callback that unfreezes layers, if it is configured."""
    every = config.training.unfreeze_every
    return [] if every == OFF else [GradualUnfreezing(int(every))]


def _check_task(folder: RunFolder, source: str, task: str) -> None:
    """Raise if one network ends in logits of classes and the other in a number."""
    if (source == "regression") != (task == "regression"):
        raise ValueError(
            f"{folder.path}: this run was trained for task {source!r}, but the new one is for task {task!r}; "
            f"start from a run of task {task!r}, or leave --from out"
        )


def _check_leakage(folder: RunFolder, source: ResolvedConfig, data: PreparedData) -> None:
    seen = seen_test_items(folder, source, data)
    if seen and not data.config.split.allow_leakage:
        raise ValueError(
            f"{folder.path}: this run was trained on test data of the new one: {seen[0]} and {len(seen) - 1} others; "
            "train both with the same seed and fractions, or set allow_leakage"
        )
