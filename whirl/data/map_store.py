"""Time-frequency maps computed once and kept on the disk, for data sets that many trainings go through."""

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
_FLUSH_BYTES = 2**25  # of maps written between two waits for the disk: what a killed writer may have to do again
_CODE = ("time_frequency", "short_time_fourier", "wavelets", "wigner", "envelope", "shaft_angle", "interpolation")

logger = logging.getLogger(__name__)


class MapDataset(Dataset[Sample]):
    """The windows of a data set as maps, read from a memory-mapped file: `(maps [B, C, F, T'], targets, metadata)`.

    Takes what `WindowDataset` takes as an index, and goes into `make_loader` in its place. The file is named by a hash
    of the windows, the representation's configuration and the code that computes it, so that it never gives maps of
    anything else. Where it is missing or incomplete, the maps that lack are computed on construction. A row is marked
    as there only after it has reached the disk, so a writer killed at any moment, or a power failure, costs the rows of
    the last second; another writer at the same time writes the same.

    Maps are float32 and equal those computed on the fly but for rounding. They are of the windows as they stand in the
    data set: augmentation of signals comes too late for them.

    Reading a batch costs about as much as cutting its windows once more, computing it 10 to 300 times that; the file
    takes `4 C F T'` bytes a window.

    Args:
        windows: the data set.
        representation: makes the maps.
        folder: where files are kept; made if need be. Nothing in it is ever deleted.
        batch_size: windows mapped at once, >= 1.

    Attributes:
        windows: as given.
        representation: as given.
        path: the file.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
        ValueError: as the representation.

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
        chosen = index.numpy() if isinstance(index, Tensor) else index
        maps = np.array(self._maps[chosen])  # a copy: nobody writes into the file
        return torch.from_numpy(maps), targets, metadata

    @property
    def targets(self) -> Tensor:
        """Class of each window, int64 `[W]`."""
        return self.windows.targets

    @property
    def class_counts(self) -> Tensor:
        """Windows of each class, int64 `[K]`."""
        return self.windows.class_counts

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_maps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._maps = self._open("r")[1]  # a worker maps the file, it does not carry it

    def _open(self, mode: str) -> tuple[np.memmap, np.memmap]:
        """Which rows are there, uint8 `[W]`, and the rows, float32 `[W, C, F, T']`; both within one file."""
        done = np.memmap(self.path, np.uint8, mode, 0, self._shape[:1])  # type: ignore[call-overload]
        return done, np.memmap(self.path, np.float32, mode, _after_marks(len(self)), self._shape)  # type: ignore[call-overload]

    def _fill(self, batch_size: int) -> None:
        _allocate(self.path, _after_marks(len(self)) + 4 * int(np.prod(self._shape)))
        done, maps = self._open("r+")
        missing = torch.from_numpy(np.flatnonzero(done == 0))
        if not len(missing):
            return
        logger.info("computing %d maps into %s", len(missing), self.path)
        per_flush = max(1, _FLUSH_BYTES // maps[0].nbytes)
        for stretch in missing.split(per_flush):
            for rows in stretch.split(batch_size):
                maps[rows.numpy()] = self._compute(rows).numpy()
            maps.flush()  # the rows are on the disk before anything says so
            done[stretch.numpy()] = 1
            done.flush()

    @torch.inference_mode()
    def _compute(self, rows: Tensor) -> Tensor:
        signals, _, metadata = self.windows[rows]
        return self.representation(signals, metadata)


def _after_marks(n_rows: int) -> int:
    return -(-n_rows // _PAGE) * _PAGE


def _allocate(path: Path, n_bytes: int) -> None:
    """A file of that size, of zeros where it is new. A full disk shows here, not as a crash when memory is written."""
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
    """Hash of all that decides the maps."""
    digest = hashlib.blake2b(json.dumps(representation.config, sort_keys=True).encode(), digest_size=16)
    digest.update(_code_version())
    digest.update(repr((len(windows), windows.n_channels, windows.window)).encode())
    for rows in torch.arange(len(windows)).split(256):
        signals, _, metadata = windows[rows]
        digest.update(signals.numpy().tobytes())
        digest.update(metadata["rpm"].numpy().tobytes())
    return digest.hexdigest()


def _code_version() -> bytes:
    modules = (sys.modules[f"whirl.dsp.{name}"] for name in _CODE)
    return hashlib.blake2b("".join(map(inspect.getsource, modules)).encode()).digest()
