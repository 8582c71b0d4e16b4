"""Disk cache of time-frequency maps, for data sets that are used in many training runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whirl.data.windows import Sample, WindowDataset
from whirl.dsp.time_frequency import TimeFrequency

_PAGE = 4096
_FLUSH_BYTES = 2**25  # maps written between two flushes, which are recomputed if the process is killed
_DSP_MODULES = (
    "time_frequency",
    "short_time_fourier",
    "wavelets",
    "wigner",
    "envelope",
    "shaft_angle",
    "interpolation",
)

logger = logging.getLogger(__name__)


class MapDataset(Dataset[Sample]):
    """Data set of the time-frequency maps of windows, read from a memory-mapped file.

    Indexing returns `(maps [B, C, F, T'], targets, metadata)`, with the same kinds of indices as `WindowDataset`, which
    it can replace in `make_loader`. The file name is a hash of the windows, the configuration of the representation and
    the code that computes it, so that a file never contains maps of other data. Missing maps are computed on
    construction. A row is marked as complete only after it was written to disk, so that a killed process or a power
    failure loses at most the rows since the last flush. Several processes may write the same file, since they write
    identical rows.

    Maps are float32 and equal those computed on the fly, except for rounding errors. They are computed from the windows
    in the data set, so augmentation of signals has no effect on them.

    Reading a batch takes about as long as cutting its windows; computing it takes 10 to 300 times as long. The file
    size is `4 C F T'` bytes per window.

    Args:
        windows: the data set.
        representation: the transform that computes the maps.
        folder: folder for the files, created if missing. Files are never deleted.
        batch_size: number of windows transformed at once, >= 1.

    Attributes:
        windows: as given.
        representation: as given.
        path: the file.

    Raises:
        OSError: the disk is full, or the folder is not writable.
        ValueError: as for the representation.

    Example:
        >>> import tempfile
        >>> from whirl.data.recording import Recording
        >>> noise = np.random.default_rng(0).normal(size=10_000)
        >>> windows = WindowDataset([Recording(noise, 12_000, label="wear")], ["wear"], window=1024)
        >>> representation = TimeFrequency("stft", 12_000, n_frequencies=32, n_times=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     maps, targets, metadata = MapDataset(windows, representation, folder)[torch.tensor([3, 0])]
        >>> maps.shape, targets
        (torch.Size([2, 1, 32, 16]), tensor([0, 0]))
    """

    def __init__(
        self, windows: WindowDataset, representation: TimeFrequency, folder: str | Path, batch_size: int = 64
    ) -> None:
        self.windows = windows
        self.representation = representation
        self.path = Path(folder) / f"{_key(windows, representation)}.maps"
        n_times = len(representation.times_s(windows.window))
        self._shape = (len(windows), windows.n_channels, representation.n_frequencies, n_times)
        self._fill(batch_size)
        self._maps = self._open("r")[1]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Sample:
        _, targets, metadata = self.windows[index]
        rows = index.numpy() if isinstance(index, Tensor) else index
        maps = np.array(self._maps[rows])  # a copy, so that changes do not affect the file
        return torch.from_numpy(maps), targets, metadata

    @property
    def targets(self) -> Tensor:
        """Class of each window, int64 `[W]`."""
        return self.windows.targets

    @property
    def class_counts(self) -> Tensor:
        """Number of windows of each class, int64 `[K]`."""
        return self.windows.class_counts

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_maps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._maps = self._open("r")[1]  # a worker process maps the file instead of unpickling the maps

    def _open(self, mode: str) -> tuple[np.memmap, np.memmap]:
        """Map the completion flags, uint8 `[W]`, and the rows, float32 `[W, C, F, T']`, of the file."""
        done = np.memmap(self.path, np.uint8, mode, 0, self._shape[:1])  # type: ignore[call-overload]
        return done, np.memmap(self.path, np.float32, mode, _data_offset(len(self)), self._shape)  # type: ignore[call-overload]

    def _fill(self, batch_size: int) -> None:
        _allocate(self.path, _data_offset(len(self)) + 4 * int(np.prod(self._shape)))
        done, maps = self._open("r+")
        missing = torch.from_numpy(np.flatnonzero(done == 0))
        if not len(missing):
            return
        logger.info("computing %d maps into %s", len(missing), self.path)
        per_flush = max(1, _FLUSH_BYTES // maps[0].nbytes)
        for chunk in missing.split(per_flush):
            for rows in chunk.split(batch_size):
                maps[rows.numpy()] = self._compute(rows).numpy()
            maps.flush()  # before the rows are marked as complete
            done[chunk.numpy()] = 1
            done.flush()

    @torch.inference_mode()
    def _compute(self, rows: Tensor) -> Tensor:
        signals, _, metadata = self.windows[rows]
        return self.representation(signals, metadata)


def _data_offset(n_rows: int) -> int:
    """Return the offset of the rows in the file: the flags, one byte per row, padded to a page."""
    return -(-n_rows // _PAGE) * _PAGE


def _allocate(path: Path, n_bytes: int) -> None:
    """Allocate a file of zeros, or extend it, so that a full disk gives an error here instead of a crash later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "linux":
            os.posix_fallocate(descriptor, 0, n_bytes)
        else:
            os.truncate(descriptor, n_bytes)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _key(windows: WindowDataset, representation: TimeFrequency) -> str:
    """Return a hash of everything that determines the maps."""
    digest = hashlib.blake2b(json.dumps(representation.config, sort_keys=True).encode(), digest_size=16)
    digest.update(_code_version())
    digest.update(repr((len(windows), windows.n_channels, windows.window)).encode())
    for rows in torch.arange(len(windows)).split(256):
        signals, _, metadata = windows[rows]
        digest.update(signals.numpy().tobytes())
        digest.update(metadata["rpm"].numpy().tobytes())
    return digest.hexdigest()


def _code_version() -> bytes:
    modules = (sys.modules[f"whirl.dsp.{name}"] for name in _DSP_MODULES)
    return hashlib.blake2b("".join(map(inspect.getsource, modules)).encode()).digest()
