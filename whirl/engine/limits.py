"""Limits of a training: optimizer steps in all, and batches per epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from whirl.engine.batch import n_batches_of
from whirl.validation import check_count


@dataclass(frozen=True)
class Limits:
    """Limits of a training; None does not limit.

    Attributes:
        max_steps: optimizer steps in all; the epoch that reaches them ends there.
        train_batches: training batches per epoch: a number, or a fraction of the loader's in (0, 1].
        val_batches: the same for validation.

    Raises:
        ValueError: a number is below 1, or a fraction is outside (0, 1].

    Example:
        >>> list(Limits(train_batches=0.5).of_training([1, 2, 3, 4], loader=[1, 2, 3, 4]))
        [1, 2]
    """

    max_steps: int | None = None
    train_batches: float | None = None
    val_batches: float | None = None

    def __post_init__(self) -> None:
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        for name, limit in (("limit_train_batches", self.train_batches), ("limit_val_batches", self.val_batches)):
            if isinstance(limit, float) and not 0 < limit <= 1:
                raise ValueError(f"{name} is {limit!r}, expected a number of batches >= 1 or a fraction in (0, 1]")
            if limit is not None and not isinstance(limit, float):
                check_count(name, limit)

    def is_reached(self, n_steps: int) -> bool:
        """Return whether `n_steps` optimizer steps are all that there may be."""
        return self.max_steps is not None and n_steps >= self.max_steps

    def of_training(self, batches: Iterable[Any], loader: Any, n_done: int = 0) -> Iterable[Any]:
        """Return the training batches of an epoch in which `n_done` batches are done already."""
        return _first(batches, "limit_train_batches", self.train_batches, loader, n_done)

    def of_validation(self, batches: Iterable[Any], loader: Any) -> Iterable[Any]:
        """Return the batches of a validation."""
        return _first(batches, "limit_val_batches", self.val_batches, loader, 0)


def _first(batches: Iterable[Any], name: str, limit: float | None, loader: Any, n_done: int) -> Iterable[Any]:
    if limit is None:
        return batches
    if isinstance(limit, float):
        n_batches = n_batches_of(loader)
        if n_batches is None:
            raise ValueError(f"{name} is {limit!r}, but the loader has no length: give a number of batches")
        limit = max(1, int(round(limit * n_batches, 6)))  # 0.29 of 100 batches are 28.999999999999996
    return islice(batches, max(0, int(limit) - n_done))
