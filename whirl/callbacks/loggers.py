"""What loggers for experiment trackers have in common."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from whirl.engine.callbacks import Callback

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ExperimentLogger(Callback):
    """Base class of callbacks that log to an external tracker, whose failures never abort training.

    Attributes:
        is_down: whether the tracker failed, so that nothing more is logged in this training.
    """

    rank_zero_only = True

    def __init__(self) -> None:
        self.is_down = False

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action`; if it fails, warn and log nothing more in this training."""
        if self.is_down:
            return
        try:
            action(*arguments)
        except Exception as error:
            self.is_down = True
            warnings.warn(
                f"{type(self).__name__} failed and logs nothing more in this training: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _attempt_part(self, part: str, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action`; if it fails, warn and continue without this part."""
        try:
            action(*arguments)
        except Exception as error:
            warnings.warn(
                f"{type(self).__name__} could not log {part}: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def _n_epochs(self) -> int:
        """Finished epochs of the trainer."""
        return 0 if self.trainer is None else self.trainer.state.epoch


def training_parameters(trainer: Any) -> dict[str, Any]:
    """Return the parameters of a run, as far as the trainer has them: network, size, optimizer, rate, batch size.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> training_parameters(SimpleNamespace(model=torch.nn.Linear(3, 1)))
        {'model': 'Linear', 'n_parameters': 4}
    """
    parameters: dict[str, Any] = {}
    model, optimizer = getattr(trainer, "model", None), getattr(trainer, "optimizer", None)
    if model is not None:
        parameters |= {"model": type(model).__name__, "n_parameters": sum(p.numel() for p in model.parameters())}
    if optimizer is not None:
        parameters |= {"optimizer": type(optimizer).__name__, "lr": float(optimizer.param_groups[0]["lr"])}
    batch_size = _batch_size(getattr(trainer, "train_loader", None))
    return parameters if batch_size is None else parameters | {"batch_size": batch_size}


def _batch_size(loader: Any) -> int | None:
    """Return the batch size of a loader that batches by itself, or whose sampler yields complete batches."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return next((size for owner in owners if (size := getattr(owner, "batch_size", None)) is not None), None)


def as_text(value: Any, max_chars: int) -> str:
    """Return a setting as text; long text is shortened.

    Example:
        >>> as_text({"width": 2}, 100), as_text("x" * 9, 5)
        ('{"width": 2}', 'xx...')
    """
    text = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def to_pixels(figure: Figure) -> np.ndarray:
    """Return a figure as an image, uint8 `[H, W, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
