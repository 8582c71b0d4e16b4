"""A progress bar for terminals and notebooks."""

from __future__ import annotations

import sys
from typing import Any

from whirl.engine.batch import n_batches_of
from whirl.engine.callbacks import Callback, CallbackList, Logs
from whirl.engine.distributed import is_main_process


def is_interactive() -> bool:
    """Return whether the output goes to a terminal or a notebook, not to a log file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class ProgressBar(Callback):
    """One tqdm bar over all batches of a training run, with the metrics of the last epoch beside it.

    In a notebook it is drawn as a widget.
    """

    _bar: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from tqdm.auto import tqdm

        state, n_batches = self.trainer.state, n_batches_of(self.trainer.train_loader) or 0
        total = state.num_epochs * n_batches if n_batches else None
        self._bar = tqdm(total=total, initial=state.epoch * n_batches, unit="batch")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._bar.set_description(f"epoch {epoch + 1}/{self.trainer.state.num_epochs}")

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        shown = {k: f"{v:.3f}" for k, v in (logs or {}).items() if k.endswith(("loss", "accuracy"))}
        self._bar.set_postfix(shown)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._bar is not None:
            self._bar.close()


def active_callbacks(callbacks: CallbackList, with_writers: bool = True) -> CallbackList:
    """Return the callbacks that run in this process, with a progress bar if the output is interactive.

    The bar is not appended to `callbacks`, whose states go into checkpoints.

    Args:
        callbacks: all callbacks.
        with_writers: False leaves out those that write files or report to trackers, as in all processes but rank 0.
    """
    if not is_main_process() or not with_writers:
        return CallbackList(callback for callback in callbacks if not callback.rank_zero_only)
    return CallbackList([*callbacks, ProgressBar()]) if is_interactive() else callbacks
