"""The hooks around the training loop, and the list that calls them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from whirl.engine.files import find_unserializable

logger = logging.getLogger(__name__)

Logs = dict[str, Any]


class Callback:
    """Base class of callbacks, which watch or control a training run; override the hooks you need.

    The order of the hooks in `fit`:

        callback.on_train_begin()
        for epoch in range(num_epochs):
            callback.on_epoch_begin(epoch)
            for batch, data in enumerate(train_loader):
                callback.on_batch_begin(batch)
                # forward pass, loss, backward pass; an optimizer step if the accumulation window is full
                callback.on_batch_end(batch, {"loss": loss})
            # an optimizer step for an unfinished accumulation window
            callback.on_validation_begin()  # if there are validation data
            # validation
            callback.on_validation_end()
            callback.on_epoch_end(epoch, logs)
            # a step of a learning-rate schedule that counts epochs or validations
            # last.pt, and best.pt after the lowest validation loss
        callback.on_train_end()  # also when training stops early or fails

    The logs of an epoch hold `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`, `lr` and `epoch_time_s` as
    floats. Those of a batch hold `loss` as a 0-dimensional tensor on the device; reading it waits for the device.
    Epochs and batches count from 0.

    Attributes:
        trainer: the trainer that calls the hooks, set before `on_train_begin`; None in a hand-written loop.
        rank_zero_only: whether the callback runs in the main process only, as callbacks that write files or report to
            an experiment tracker should; other callbacks run in every process.

    Example:
        >>> class StopAfterFirstEpoch(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.trainer.state.should_stop = True
    """

    trainer: Any = None
    rank_zero_only: bool = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Run once, before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Run once, after the last epoch, also when training stops early or fails."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Run before the first batch of an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Run after the validation of an epoch."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before each training batch."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after each training batch, while its gradients are still in place."""

    def on_validation_begin(self, logs: Logs | None = None) -> None:
        """Run before each validation of `fit`."""

    def on_validation_end(self, logs: Logs | None = None) -> None:
        """Run after each validation of `fit`, also when it fails."""

    def state_dict(self) -> Logs:
        """Return what a resumed training needs: tensors, None, bools, numbers and text, in dicts, lists and tuples.

        NumPy scalars are saved as Python numbers. A state with anything else could not be loaded again, so it is left
        out of the checkpoint; a warning in the log names the callback and the key, and the callback starts with its
        initial state when training is resumed.
        """
        return {}

    def load_state_dict(self, state: Logs) -> None:
        """Restore what `state_dict` returned."""


HOOKS = (
    *("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end"),
    *("on_validation_begin", "on_validation_end"),
)


class EpochFunction(Callback):
    """A plain function as a callback: `function(trainer, logs)` runs at the end of each epoch."""

    def __init__(self, function: Callable[[Any, Logs], Any]) -> None:
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.function(self.trainer, logs or {})


class CallbackList(Callback):
    """Several callbacks as one; a hook that none of them overrides costs nothing.

    It works in a trainer and in a hand-written loop.

    Args:
        callbacks: callbacks, or plain functions called as `f(trainer, logs)` at the end of each epoch.

    Raises:
        TypeError: a member is neither a callback nor a function.

    Example:
        >>> losses = []
        >>> callbacks = CallbackList([lambda trainer, logs: losses.append(logs["val_loss"])])
        >>> callbacks.on_epoch_end(0, {"val_loss": 0.5})
        >>> losses
        [0.5]
    """

    def __init__(self, callbacks: Iterable[Callback | Callable[[Any, Logs], Any]] = ()) -> None:
        self.callbacks: list[Callback] = []
        self._warned: set[str] = set()
        self._by_hook: dict[str, list[Callback]] = {hook: [] for hook in HOOKS}
        for callback in callbacks:
            self.append(callback)

    def append(self, callback: Callback | Callable[[Any, Logs], Any]) -> None:
        """Append a callback, or each member of a list."""
        if isinstance(callback, CallbackList):
            for member in callback:
                self.append(member)
            return
        if not isinstance(callback, Callback):
            if isinstance(callback, type) or not callable(callback):
                raise TypeError(f"callback is {callback!r}, expected a Callback object or a function")
            callback = EpochFunction(callback)
        callback.trainer = self.trainer
        self.callbacks.append(callback)
        for hook, members in self._by_hook.items():
            if getattr(type(callback), hook) is not getattr(Callback, hook):
                members.append(callback)

    def set_trainer(self, trainer: Any) -> None:
        """Set the `trainer` of every member."""
        self.trainer = trainer
        for callback in self.callbacks:
            callback.trainer = trainer

    def has_hook(self, hook: str) -> bool:
        """Return whether any member overrides `hook`."""
        return bool(self._by_hook[hook])

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    def __len__(self) -> int:
        return len(self.callbacks)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        for callback in self._by_hook["on_train_begin"]:
            callback.on_train_begin(logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Run the hook of every member, even if one fails; then raise the first failure."""
        failures = []
        for callback in self._by_hook["on_train_end"]:
            try:
                callback.on_train_end(logs)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        for callback in self._by_hook["on_epoch_begin"]:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for callback in self._by_hook["on_epoch_end"]:
            callback.on_epoch_end(epoch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._by_hook["on_batch_begin"]:
            callback.on_batch_begin(batch, logs)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._by_hook["on_batch_end"]:
            callback.on_batch_end(batch, logs)

    def on_validation_begin(self, logs: Logs | None = None) -> None:
        for callback in self._by_hook["on_validation_begin"]:
            callback.on_validation_begin(logs)

    def on_validation_end(self, logs: Logs | None = None) -> None:
        for callback in reversed(self._by_hook["on_validation_end"]):
            callback.on_validation_end(logs)

    def state_dict(self) -> Logs:
        """Return the non-empty states of the members, by class name and index within that class."""
        states = {name: state for name, member in self.named() if (state := member.state_dict())}
        return {name: state for name, state in states.items() if self._is_serializable(name, state)}

    def _is_serializable(self, name: str, state: Logs) -> bool:
        unserializable = find_unserializable(state)
        if unserializable and name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "%s: checkpoints hold tensors and plain data, not %s; they are saved without the state of this "
                "callback, which will be reset on resume", name, unserializable,
            )  # fmt: skip
        return unserializable is None

    def load_state_dict(self, state: Logs) -> None:
        """Restore the state of each member; members without a saved state keep their initial one.

        Raises:
            ValueError: there is a state for a callback that is not in the list.
        """
        members = dict(self.named())
        for name, member_state in state.items():
            if name not in members:
                raise ValueError(f"the checkpoint has a state for {name}, but the callbacks are {list(members)}")
            members[name].load_state_dict(member_state)

    def named(self) -> Iterator[tuple[str, Callback]]:
        """Yield the members with their names in checkpoints: class name and index within that class."""
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            kind = type(callback).__name__
            yield f"{kind}:{seen[kind]}", callback
            seen[kind] += 1
