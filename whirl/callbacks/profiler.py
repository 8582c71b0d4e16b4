"""Profiling of a few training batches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from whirl.engine.callbacks import Callback, Logs
from whirl.engine.files import write_text
from whirl.validation import check_count

logger = logging.getLogger(__name__)


class Profiler(Callback):
    """Profile a few batches of a training with `torch.profiler`.

    Writes `trace.json`, for chrome://tracing or Perfetto, and `operators.txt`, the operators by total time.

    Args:
        folder: where to write; created if missing.
        skip: batches to skip first, in which memory is allocated and kernels are chosen.
        batches: batches to profile.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> import tempfile
        >>> from whirl.training import Trainer
        >>> batch = (torch.randn(16, 1, 8), torch.arange(16) % 2)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history = Trainer(model, [batch] * 4, device="cpu", callbacks=[Profiler(folder, 1, 2)]).fit(1)
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['operators.txt', 'trace.json']
    """

    rank_zero_only = True

    def __init__(self, folder: str | Path, skip: int = 10, batches: int = 10) -> None:
        self.folder = Path(folder)
        self.skip = check_count("skip", skip, 0)
        self.batches = check_count("batches", batches)
        self._n_done = 0
        self._profiler: Any = None

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self._n_done == self.skip:
            cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU, *cuda])
            self._profiler.start()

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._n_done += 1
        if self._n_done == self.skip + self.batches:
            self._stop()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
        sort_by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        write_text(self.folder / "operators.txt", profiler.key_averages().table(sort_by=sort_by, row_limit=50))
        logger.info("profile of %d batches: %s", self._n_done - self.skip, self.folder)
