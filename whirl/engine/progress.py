"""A progress bar for people, and silence for log files."""

from __future__ import annotations

import sys
from typing import Any

from whirl.engine.callbacks import Callback, Logs


def is_interactive() -> bool:
    """Whether somebody looks at what is printed: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class ProgressBar(Callback):
    """One tqdm bar over all batches of a training, with the last epoch's numbers beside it.

    In a notebook it is drawn as a widget.
    """

    _bar: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from tqdm.auto import tqdm

        state, n_batches = self.trainer.state, _length(self.trainer.train_loader)
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


def _length(loader: Any) -> int:
    """Batches in an epoch; 0 where the loader does not know."""
    try:
        return len(loader)
    except TypeError:
        return 0
