"""Agreement of several processes: when to stop, when to save, and what each of them contributes to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whirl.engine.checkpoint import to_cpu
from whirl.engine.distributed import all_reduce_any, gather, is_main_process, rank, world_size
from whirl.engine.state import TrainingState
from whirl.engine.updater import Updater

READ_INTERVAL = 16
"""Optimizer steps between two readings of the flags on an accelerator, as reading them waits for the device."""


class StepConsensus:
    """Decides after an optimizer step whether to stop and whether to save, the same in all processes.

    Each process hands three flags to the `Updater`, which adds them up in the message that carries the gradients: "I
    was interrupted", "training should stop" and "a checkpoint is due". Any process may request a stop, e.g. when it
    alone receives a signal; only the main process requests checkpoints. A single process needs no messages.

    Args:
        is_save_due: returns whether a checkpoint is due in this process.

    Attributes:
        ends_epoch: whether the processes have agreed that training should stop, so that the epoch ends here.

    Example:
        >>> consensus = StepConsensus(is_save_due=lambda: True)
        >>> consensus.flags(TrainingState(interrupted=True))
        (1.0, 0.0, 1.0)
    """

    def __init__(self, is_save_due: Callable[[], bool]) -> None:
        self.is_save_due = is_save_due
        self.ends_epoch = False
        self._n_unread = 0

    def flags(self, state: TrainingState) -> tuple[float, float, float]:
        """Return whether this process was interrupted, whether it wants to stop, and whether it requests a save."""
        return float(wants_to_stop(state)), float(state.should_stop), float(is_main_process() and self.is_save_due())

    def update(self, state: TrainingState, updater: Updater) -> bool:
        """Set `state.interrupted` if the processes agree to stop; otherwise return whether to save now."""
        if world_size() == 1:
            self.ends_epoch = state.should_stop
            return self.is_save_due() and not state.interrupted
        self.ends_epoch = False
        flags, updater.reduced_flags = updater.reduced_flags, None
        self._n_unread += flags is not None
        if flags is None or (not flags.is_cpu and self._n_unread < READ_INTERVAL):
            return False
        self._n_unread = 0
        n_interrupted, n_stopping, n_saving = flags.tolist()
        state.interrupted, self.ends_epoch = n_interrupted > 0, n_stopping > 0
        return n_saving > 0 and not state.interrupted


def wants_to_stop(state: TrainingState) -> bool:
    """Return whether this process was interrupted, or has received a signal to stop."""
    return state.interrupted or state.interrupted_by is not None


def agree_on_stop(state: TrainingState) -> None:
    """Stop every process if one of them wants to stop; called at the end of each epoch."""
    if world_size() > 1:
        state.should_stop = all_reduce_any(state.should_stop)
        state.interrupted = all_reduce_any(wants_to_stop(state))


def gather_process_states(own: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return what each process remembers for itself, in the order of ranks; None if there is only one process."""
    # In main memory: tensors of a device would be unpickled on that device in every process.
    return gather(to_cpu(own)) if world_size() > 1 else None


def select_process_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint that this process saved.

    A checkpoint from the end of an epoch can be resumed with another number of processes. Processes that did not exist
    when it was saved start without a random state of their own.

    Raises:
        ValueError: it was saved in the middle of an epoch by another number of processes.
    """
    saved = checkpoint.get("processes") or [checkpoint]  # format 1 had a single process
    if len(saved) == world_size():
        return saved[rank()]
    if checkpoint["tally"] is not None:
        raise ValueError(
            f"it was saved in the middle of an epoch by {len(saved)} processes, but {world_size()} are running, which "
            "would split the batches differently: resume with the same number of processes, or from the end of an epoch"
        )
    return saved[rank()] if rank() < len(saved) else {"random": None, "tally": None, "epoch_random": None}
