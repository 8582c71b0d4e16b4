"""Registry of the losses of `whirl train --loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whirl.registry import Registry

LOSSES: Registry[Callable[..., Any]] = Registry("loss", group="whirl.losses")


def register_loss(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers a loss for `whirl train --loss`.

    The decorated class or function is called as `factory(weight=..., label_smoothing=...)`, where `weight` are class
    weights `[K]` or None. It returns a criterion: a callable of `(logits [B, K], targets)` that returns the mean loss.
    """
    return LOSSES.register(name)


@LOSSES.register("ce")
def _cross_entropy(weight: Any = None, label_smoothing: float = 0.0) -> Any:
    from whirl.losses.cnn_losses import create_criterion

    return create_criterion("ce", weight=weight, label_smoothing=label_smoothing)


@LOSSES.register("focal")
def _focal(weight: Any = None, label_smoothing: float = 0.0) -> Any:
    from whirl.losses.losses import FocalLoss

    return FocalLoss(weight)
