"""The two checkpoint files of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from packages.core.engine.files import load_checkpoint_file, save_checkpoint_file

LAST, BEST = "last.pt", "best.pt"
FORMAT = 1


def save_training(folder: Path, state: dict[str, Any], metadata: dict[str, Any], is_best: bool) -> Path:
    """Save a training as `last.pt`, and as `best.pt` when `is_best`; each appears whole or not at all.

    Returns:
        The path of `last.pt`.
    """
    checkpoint = {"format": FORMAT, "metadata": metadata, "training": state}
    if is_best:
        save_checkpoint_file(folder / BEST, checkpoint)
    save_checkpoint_file(folder / LAST, checkpoint)
    return folder / LAST


def load_training(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and the metadata that `save_training` saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken or no training's checkpoint.
    """
    checkpoint = load_checkpoint_file(path)
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise ValueError(f"{path}: not a training checkpoint of format {FORMAT}")
    return checkpoint["training"], checkpoint["metadata"]


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Put the network's weights of a training's or a callback's checkpoint into `model`, and nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, or holds another network.
    """
    checkpoint = load_checkpoint_file(path)
    try:
        model.load_state_dict(checkpoint.get("training", checkpoint)["model"])
    except (AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: holds another network: {error}") from error
