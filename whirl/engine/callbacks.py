"""What happens around the loop: the hooks, and the list that calls them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from whirl.engine.files import find_unserializable

logger = logging.getLogger(__name__)

Logs = dict[str, Any]


class Callback:
    """Base of everything that watches or steers a training; override the hooks you need.

    The order of the hooks, with the loop between them:

        on_train_begin
            for epoch:  on_epoch_begin(epoch)
                for batch:  on_batch_begin(batch) -> forward, backward, step -> on_batch_end(batch, logs)
                validation
            on_epoch_end(epoch, logs)
        on_train_end                                # also when training stops early or fails

    `logs` of an epoch holds `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`, `lr` and
    `epoch_time_s` as floats; `logs` of a batch holds `loss` as a 0-dimensional tensor on the device
    (reading it waits for the device). Epochs and batches count from 0.

    Attributes:
        trainer: the trainer that calls, set before `on_train_begin`; None in a hand-written loop.
        rank_zero_only: whether the callback runs in the main process only, as one that writes files or reports to a
            tracker should; others run in every process.

    Example:
        >>> class StopAtOnce(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.trainer.state.should_stop = True
    """

    trainer: Any = None
    rank_zero_only: bool = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called once, before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called once, after the last epoch, also when training stopped early or failed."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before the first batch of an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after the validation that follows an epoch."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each training batch."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each training batch; gradients are still in place."""

    def state_dict(self) -> Logs:
        """What has to survive an interruption: tensors, None, bools, numbers and text, in dicts, lists and tuples.

        NumPy's numbers become Python's. A state with anything else in it stays out of the checkpoint, which nobody
        could load with it: a warning in the log names callback and key, and a resumed callback begins afresh.
        """
        return {}

    def load_state_dict(self, state: Logs) -> None:
        """Take back what `state_dict` gave."""


HOOKS = ("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")


class EpochFunction(Callback):
    """A plain function as a callback: `function(trainer, logs)` at each epoch's end."""

    def __init__(self, function: Callable[[Any, Logs], Any]) -> None:
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.function(self.trainer, logs or {})


class CallbackList(Callback):
    """Several callbacks as one; a hook that nobody overrides costs nothing.

    Works in a trainer and in a hand-written loop alike.

    Args:
        callbacks: callbacks, or plain functions called as `f(trainer, logs)` at each epoch's end.

    Raises:
        TypeError: a member is neither.

    Example:
        >>> heard = []
        >>> callbacks = CallbackList([lambda trainer, logs: heard.append(logs["val_loss"])])
        >>> callbacks.on_epoch_end(0, {"val_loss": 0.5})
        >>> heard
        [0.5]
    """

    def __init__(self, callbacks: Iterable[Callback | Callable[[Any, Logs], Any]] = ()) -> None:
        self.callbacks: list[Callback] = []
        self._told: set[str] = set()
        self._hooked: dict[str, list[Callback]] = {hook: [] for hook in HOOKS}
        for callback in callbacks:
            self.append(callback)

    def append(self, callback: Callback | Callable[[Any, Logs], Any]) -> None:
        """Add one at the end; the members of a list one by one."""
        if isinstance(callback, CallbackList):
            for member in callback:
                self.append(member)
            return
        if not isinstance(callback, Callback):
            if isinstance(callback, type) or not callable(callback):
                raise TypeError(f"{callback!r} is not a callback: expected a Callback object or a function")
            callback = EpochFunction(callback)
        callback.trainer = self.trainer
        self.callbacks.append(callback)
        for hook, hooked in self._hooked.items():
            if getattr(type(callback), hook) is not getattr(Callback, hook):
                hooked.append(callback)

    def set_trainer(self, trainer: Any) -> None:
        """Tell every member who calls."""
        self.trainer = trainer
        for callback in self.callbacks:
            callback.trainer = trainer

    def has_hook(self, hook: str) -> bool:
        """Whether any member overrides `hook`."""
        return bool(self._hooked[hook])

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    def __len__(self) -> int:
        return len(self.callbacks)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        for callback in self._hooked["on_train_begin"]:
            callback.on_train_begin(logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Every member hears of the end, also when one before it fails; the first failure is raised then."""
        failures = []
        for callback in self._hooked["on_train_end"]:
            try:
                callback.on_train_end(logs)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        for callback in self._hooked["on_epoch_begin"]:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for callback in self._hooked["on_epoch_end"]:
            callback.on_epoch_end(epoch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._hooked["on_batch_begin"]:
            callback.on_batch_begin(batch, logs)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._hooked["on_batch_end"]:
            callback.on_batch_end(batch, logs)

    def state_dict(self) -> Logs:
        """The states of the members that remember something, by class name and place among that class."""
        states = {name: state for name, member in self._named() if (state := member.state_dict())}
        return {name: state for name, state in states.items() if self._can_be_saved(name, state)}

    def _can_be_saved(self, name: str, state: Logs) -> bool:
        foreign = find_unserializable(state)
        if foreign and name not in self._told:
            self._told.add(name)
            logger.warning(
                "%s: its state is left out of the checkpoints, which hold tensors and plain data alone, not %s; "
                "resumed, it begins afresh", name, foreign,
            )  # fmt: skip
        return foreign is None

    def load_state_dict(self, state: Logs) -> None:
        """Give each member its state back; a member without one begins afresh.

        Raises:
            ValueError: a state belongs to a callback that is not here.
        """
        members = dict(self._named())
        for name, member_state in state.items():
            if name not in members:
                raise ValueError(f"the checkpoint holds a state of {name}, but the callbacks are {list(members)}")
            members[name].load_state_dict(member_state)

    def _named(self) -> Iterator[tuple[str, Callback]]:
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            kind = type(callback).__name__
            yield f"{kind}:{seen[kind]}", callback
            seen[kind] += 1
