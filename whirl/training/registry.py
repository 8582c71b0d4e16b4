"""Trainers by name, for `whirl train --trainer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whirl.registry import Registry

TRAINERS: Registry[Callable[..., Any]] = Registry("trainer", group="whirl.trainers")


def register_trainer(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a trainer for `whirl train --trainer`.

    Decorates a subclass of `Trainer`; it is called with the keyword arguments of `Trainer` and those given as
    `--trainer-options`.
    """
    return TRAINERS.register(name)
