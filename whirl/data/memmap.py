"""Memory-mapped recordings: samples in a file on disk, for data sets larger than memory."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.recording import Recording


class MappedFile(mmap.mmap):
    """A copy-on-write memory map of a file of float32 samples; the file may be unlinked.

    Pickling for a loader's worker process passes the open file descriptor, and the worker maps the file itself. Changes
    made by this process are private to it.

    Args:
        descriptor: descriptor of the open file.

    Raises:
        ValueError: the map is pickled for any other purpose, or on Windows, where all samples would be copied.
    """

    _descriptor: int

    def __new__(cls, descriptor: int) -> MappedFile:
        mapped = super().__new__(cls, descriptor, 0, access=mmap.ACCESS_COPY)
        mapped._descriptor = os.dup(descriptor)
        weakref.finalize(mapped, os.close, mapped._descriptor)
        return mapped

    def __reduce__(self) -> tuple[Callable[[Any], MappedFile], tuple[Any]]:
        if os.name != "posix" or get_spawning_popen() is None:
            raise ValueError(
                "memory-mapped recordings cannot be pickled, except for a loader's worker processes on POSIX systems; "
                "on Windows use num_workers=0 (--workers 0)"
            )
        return _map_in_worker, (reduction.DupFd(self._descriptor),)


def _map_in_worker(file: Any) -> MappedFile:
    """Map the file in a worker process, which reads windows in random order."""
    descriptor = file.detach()
    try:
        mapped = MappedFile(descriptor)
    finally:
        os.close(descriptor)
    _advise(mapped, "MADV_RANDOM", 0, len(mapped))
    return mapped


def to_mmap(recordings: Iterable[Recording], folder: str | Path) -> list[Recording]:
    """Move the samples of recordings from memory to a memory-mapped file.

    The samples of all recordings are written to one file in `folder`, one recording after the other, and mapped: the
    operating system loads the pages in use and evicts them when memory is scarce. The file is unlinked before this
    function returns, so its disk space is released when the process ends, even if it crashes. Cutting the returned
    recordings and creating windows over them copies nothing.

    Args:
        recordings: any number of recordings with the same number of channels; a generator is consumed one recording
            after the other.
        folder: a folder on a disk with 4 bytes of free space per sample and channel; created if missing.

    Returns:
        Recordings in the same order, equal to the given ones. Writing to their arrays does not change the file.

    Raises:
        ValueError: the recordings have different numbers of channels.
        OSError: the folder is not writable, or the disk is full.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recording, = to_mmap([Recording(np.arange(6.0).reshape(2, 3), 8000)], folder)
        >>> recording.signal.tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Recording] = []
    with _naming(folder), tempfile.TemporaryFile(dir=folder, prefix="whirl-samples-") as file:
        for recording in recordings:
            if written and recording.n_channels != written[0].n_channels:
                raise ValueError(
                    f"{recording.name} has {recording.n_channels} channels, {written[0].name} has "
                    f"{written[0].n_channels}; select channels that all recordings have"
                )
            # Sample-major, [N, C], so that a cut of all channels is one contiguous range of the file.
            file.write(np.ascontiguousarray(recording.signal.T).data)
            # A placeholder of the right shape that takes no memory, until the file is complete and mapped.
            written.append(replace(recording, signal=np.broadcast_to(np.float32(0), recording.signal.shape)))
        if not written:
            return []
        file.flush()
        samples = samples_of(MappedFile(file.fileno()), written[0].n_channels)
    ends = np.cumsum([recording.n_samples for recording in written])
    return [
        replace(recording, signal=samples[end - recording.n_samples : end].T)
        for recording, end in zip(written, ends.tolist(), strict=True)
    ]


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name the folder in errors of a temporary file, which has no name; closing it may write and fail again."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(folder)
        raise


def samples_of(mapped: MappedFile, n_channels: int) -> np.ndarray:
    """Return all samples of a file, `[N, C]`, without copying."""
    return np.ndarray((len(mapped) // (4 * n_channels), n_channels), np.float32, buffer=mapped)


def owner_of(array: np.ndarray) -> object:
    """Return the object that owns the memory of an array."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


def mapped_block(recordings: Sequence[Recording]) -> tuple[np.ndarray, list[int]] | None:
    """Return the samples `[N, C]` of the mapped file that contains all recordings, and the first sample of each.

    After this call the operating system expects windows to be read in random order; before, for example during
    validation, it reads ahead.

    Args:
        recordings: at least one recording.

    Returns:
        The block and the start positions, or None if the recordings are not all in the same mapped file.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, second = to_mmap([Recording(np.zeros(5), 8000), Recording(np.ones(4), 8000)], folder)
        >>> block, starts = mapped_block([second.cut(1, 4)])
        >>> block.shape, starts
        ((9, 1), [6])
        >>> mapped_block([first, Recording(np.zeros(5), 8000)]) is None
        True
    """
    mapping = owner_of(recordings[0].signal)
    n_channels = recordings[0].n_channels
    strides = (4, 4 * n_channels)
    if not isinstance(mapping, MappedFile):
        return None
    if any(owner_of(r.signal) is not mapping or r.signal.strides != strides for r in recordings):
        return None
    block = samples_of(mapping, n_channels)
    first = block.ctypes.data
    begins = [(recording.signal.ctypes.data - first) // strides[1] for recording in recordings]
    for recording, begin in zip(recordings, begins, strict=True):
        _advise(mapping, "MADV_RANDOM", begin * strides[1], recording.n_samples * strides[1])
    return block, begins


def mapping_of(recordings: Sequence[Recording]) -> MappedFile | None:
    """Return the mapped file that contains the recordings, for `read_ahead`; None if they are in memory."""
    mapping = owner_of(recordings[0].signal)
    return mapping if isinstance(mapping, MappedFile) else None


def read_ahead(mapping: mmap.mmap, offsets: Iterable[int], n_bytes: int) -> None:
    """Prefetch ranges of the file, instead of reading page by page on access; six times as fast on a disk.

    Args:
        mapping: the mapped file.
        offsets: first byte of each range.
        n_bytes: length of each range.
    """
    for offset in offsets:
        _advise(mapping, "MADV_WILLNEED", offset, n_bytes)


def _advise(mapping: mmap.mmap, advice: str, offset: int, n_bytes: int) -> None:
    """Advise the operating system on the use of a range of pages, where the platform supports it."""
    if hasattr(mmap, advice):
        page = offset // mmap.PAGESIZE * mmap.PAGESIZE
        mapping.madvise(getattr(mmap, advice), page, min(offset + n_bytes, len(mapping)) - page)
