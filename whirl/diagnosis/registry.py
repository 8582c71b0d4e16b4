"""Models of descriptors by name. Importing this module imports no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from whirl.registry import Registry

_MODULE = f"{__package__}.descriptor_models"

BUILT_IN = ("rule", "family_net", "logistic_regression", "extra_trees")
"""Models that come with whirl, simplest first."""

DIAGNOSERS: Registry[Callable[..., Any]] = Registry("diagnoser", dict.fromkeys(BUILT_IN, _MODULE), "whirl.diagnosers")


Factory = TypeVar("Factory", bound=Callable[..., Any])


def register_diagnoser(name: str) -> Callable[[Factory], Factory]:
    """Add a model of descriptors to those that `whirl train --model` can train.

    Decorates a class or function that is called as `factory(seed)` and returns a
    `whirl.diagnosis.descriptor_models.DescriptorModel`.

    Args:
        name: the model's name, e.g. on the command line.

    Raises:
        ValueError: another model already has this name.

    Example:
        >>> @register_diagnoser("nearest_class_mean")
        ... class NearestClassMean:
        ...     def __init__(self, seed=0):
        ...         self.means = None
        >>> "nearest_class_mean" in DIAGNOSERS.names()
        True
    """
    return DIAGNOSERS.register(name)  # pyright: ignore[reportReturnType]
