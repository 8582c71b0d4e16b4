"""Exact resume in the middle of an epoch: the same batches, random numbers and sums as without the interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from whirl.engine.batch import n_batches_of
from whirl.engine.loop import Tally
from whirl.engine.persistent_workers import have_started, restore_workers
from whirl.engine.random_state import get_random_state, set_random_state


class EpochReplay:
    """The position of a training in its data, and how to continue an interrupted epoch from there.

    An epoch that was interrupted after k batches continues with batch k of the same order. The random state in which
    the epoch began reproduces that order, the one in which it was interrupted everything that follows, and the sums of
    the first k batches go into the means of the epoch. All methods take the loader, as a trainer's loader may be
    replaced between two epochs.

    Args:
        new_tally: creates the sums of an epoch.

    Attributes:
        passes: completed passes over the training data; samplers shuffle by this number.
        tally: sums of the unfinished epoch; None between two epochs.
        parts: further objects by name with `state_dict` and `load_state_dict`, whose states differ between processes.

    Example:
        >>> replay, loader = EpochReplay(), [10, 20, 30]
        >>> tally, batches = replay.start(loader)
        >>> first, tally.n_batches = next(iter(batches)), 1
        >>> tally, batches = replay.start(loader)
        >>> list(batches)
        [20, 30]
    """

    def __init__(self, new_tally: Callable[[], Tally] = Tally) -> None:
        self.new_tally = new_tally
        self.passes = 0
        self.tally: Tally | None = None
        self.parts: dict[str, Any] = {}
        self._epoch_random: dict[str, Any] | None = None
        self._loaded_random: dict[str, Any] | None = None
        self._epoch_workers: list[bool] = []
        self._loaded_workers: dict[str, list[bool]] = {}

    def start(self, loader: Any, batches: Callable[[Any], Iterable[Any]] = iter) -> tuple[Tally, Iterable[Any]]:
        """Start an epoch, or continue the interrupted one.

        Args:
            loader: the training data.
            batches: what an epoch iterates over, given the loader.

        Returns:
            The sums so far, and the remaining batches.

        Raises:
            ValueError: the loader yields fewer batches than the interrupted epoch had processed.
        """
        if self.tally is not None:
            return self.tally, self._remaining(loader, batches, self.tally.n_batches)
        restore_workers(loader, self._loaded_workers.pop("train", []))
        self._loaded_random = None
        self._epoch_workers = have_started(loader)
        self._epoch_random = get_random_state(loader)
        set_epoch(loader, self.passes)
        all_batches = batches(loader)
        self.tally = self.new_tally()
        return self.tally, all_batches

    def _remaining(self, loader: Any, batches: Callable[[Any], Iterable[Any]], n_done: int) -> Iterator[Any]:
        # on_epoch_begin has run twice for this epoch, so hooks may have drawn twice.
        now, self._loaded_random = self._loaded_random or get_random_state(loader), None
        restore_workers(loader, self._epoch_workers)
        set_random_state(self._epoch_random or now, loader)
        set_epoch(loader, self.passes)
        n_to_drop = start_at(loader, n_done)
        remaining = iter(batches(loader))
        if sum(1 for _ in islice(remaining, n_to_drop)) < n_to_drop:
            raise ValueError(f"{n_done} batches of the interrupted epoch are done, but train_loader yields fewer")
        set_random_state(now, loader)
        return remaining

    def restart(self) -> None:
        """Discard the position in an unfinished epoch, so that it starts over."""
        self.tally = None

    def finish(self) -> None:
        """Count a completed epoch."""
        self.tally = None
        self.passes += 1

    def restore_random_state(self, loader: Any, val_loader: Any = None) -> None:
        """Undo the random draws that `on_train_begin` hooks made after a checkpoint was loaded."""
        restore_workers(val_loader, self._loaded_workers.pop("val", []))
        if self._loaded_random is not None:
            set_random_state(self._loaded_random, loader)

    def keep_random_state(self) -> None:
        """Let random draws between loading a state and the next epoch take effect."""
        self._loaded_random = None

    def state_dict(self, loader: Any, val_loader: Any = None) -> dict[str, Any]:
        """Return random states, the sums of the unfinished epoch and the parts' states; processes differ in them."""
        tally = None if self.tally is None else self.tally.state_dict()
        return {
            "random": get_random_state(loader),
            "tally": tally,
            "epoch_random": None if tally is None else self._epoch_random,
            "workers": {
                "train": have_started(loader),
                "val": have_started(val_loader),
                "epoch": self._epoch_workers,
            },
            **{name: part.state_dict() for name, part in self.parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any], loader: Any, device: torch.device) -> None:
        """Restore what `state_dict` returned; the sums go to `device`."""
        if state["random"] is not None:
            set_random_state(state["random"], loader)
        self._epoch_random, self._loaded_random, self.tally = state["epoch_random"], state["random"], None
        if state["tally"] is not None:
            self.tally = self.new_tally()
            self.tally.load_state_dict(state["tally"], device)
        self._loaded_workers = dict(state.get("workers") or {})  # not in checkpoints of earlier versions
        self._epoch_workers = self._loaded_workers.pop("epoch", [])
        for name, part in self.parts.items():
            if name in state:  # not for a process that did not exist when the checkpoint was saved
                part.load_state_dict(state[name])


def set_epoch(loader: Any, epoch: int) -> None:
    """Set the number of the next pass on the loader's samplers that have `set_epoch`."""
    for name in ("sampler", "batch_sampler"):
        set_sampler_epoch = getattr(getattr(loader, name, None), "set_epoch", None)
        if set_sampler_epoch is not None:
            set_sampler_epoch(epoch)


def start_at(loader: Any, batch: int) -> int:
    """Let the next pass over `loader` start at a batch, if its sampler has `start_batch`.

    Returns:
        The number of batches that the caller has to draw and drop: 0 if the sampler skips them.

    Example:
        >>> start_at([1, 2, 3], 2)
        2
    """
    sampler = getattr(loader, "sampler", None)
    if sampler is None or not hasattr(sampler, "start_batch"):
        return batch
    sampler.start_batch = batch
    return 0


def check_n_batches(loader: Any, saved: int | None, *, within_epoch: bool, schedule_counts_steps: bool) -> None:
    """Validate that an epoch has as many batches as when the checkpoint was saved, where that matters.

    Another batch size or number of processes shifts the end of a schedule that counts steps, and an interrupted epoch
    cannot be continued with other batches.

    Args:
        loader: the training data.
        saved: batches per epoch in the checkpoint; None if unknown.
        within_epoch: whether the checkpoint was saved in the middle of an epoch.
        schedule_counts_steps: whether the learning-rate schedule advances with every optimizer step.

    Raises:
        ValueError: the numbers differ.
    """
    here = n_batches_of(loader)
    if None in (saved, here) or saved == here or not (within_epoch or schedule_counts_steps):
        return
    why = "in the middle of an epoch" if within_epoch else "with a schedule that counts steps"
    raise ValueError(f"it was saved {why} of {saved} batches, but train_loader has {here} batches per epoch")
