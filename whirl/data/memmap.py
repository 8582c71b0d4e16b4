"""Recordings larger than memory: their samples in a file that is mapped, and read where they are used."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import IO, Any

import numpy as np

from whirl.data.recording import Recording


class MappedFile(mmap.mmap):
    """A file of float32 samples in memory, copied where it is written to; the file needs no name.

    It goes to a loader's worker as the open file, which the worker maps for itself. What this process has written stays
    with it.

    Args:
        descriptor: of the open file.

    Raises:
        ValueError: it is pickled otherwise, or on Windows: all the samples would be copied.
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
                "spilled recordings lie in a file without a name and cannot be pickled; a loader's workers get the "
                "open file, except on Windows: take num_workers=0 (--workers 0) there"
            )
        return _mapped_here, (reduction.DupFd(self._descriptor),)


def _mapped_here(file: Any) -> MappedFile:
    """In a worker, which reads windows in random order."""
    descriptor = file.detach()
    try:
        mapped = MappedFile(descriptor)
    finally:
        os.close(descriptor)
    _advise(mapped, "MADV_RANDOM", 0, len(mapped))
    return mapped


def to_mmap(recordings: Iterable[Recording], folder: str | Path) -> list[Recording]:
    """The same recordings with their samples on disk instead of in memory.

    The samples of all recordings go into one file in `folder`, one recording at a time, and are mapped: the operating
    system reads what is used and drops it when memory is short. The file has no name any more when this returns, so its
    space is free again as soon as the process ends, however it ends. Cutting such recordings, and windows over them,
    copy nothing.

    Args:
        recordings: any number, all with the same number of channels; a generator is drawn from one at a time.
        folder: on a disk with room for 4 bytes per sample and channel; made where it is not there.

    Returns:
        Recordings in the same order, equal to the given ones. Their arrays may be written to; the file is not.

    Raises:
        ValueError: the recordings differ in their number of channels.
        OSError: the folder cannot be written to, or the disk is full.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recording, = to_mmap([Recording(np.arange(6.0).reshape(2, 3), 8000)], folder)
        >>> recording.signal.tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Recording] = []
    with tempfile.TemporaryFile(dir=folder, prefix="spilled-") as file:
        for recording in recordings:
            if kept and recording.n_channels != kept[0].n_channels:
                raise ValueError(
                    f"{recording.name} has {recording.n_channels} channels, {kept[0].name} has {kept[0].n_channels}: "
                    "choose channels that all recordings have"
                )
            _append(file, recording.signal, folder)
            # An array of the right shape that takes no memory, until the file can be mapped.
            kept.append(replace(recording, signal=np.broadcast_to(np.float32(0), recording.signal.shape)))
        if not kept:
            return []
        samples = samples_of(MappedFile(file.fileno()), kept[0].n_channels)
    ends = np.cumsum([recording.n_samples for recording in kept])
    return [
        replace(recording, signal=samples[end - recording.n_samples : end].T)
        for recording, end in zip(kept, ends.tolist(), strict=True)
    ]


def _append(file: IO[bytes], signal: np.ndarray, folder: Path) -> None:
    try:
        # Sample by sample, [N, C]: then a cut through all channels is one stretch of the file.
        file.write(np.ascontiguousarray(signal.T).data)
        file.flush()
    except OSError as error:
        error.filename = str(folder)  # the file itself has no name
        raise


def samples_of(mapped: MappedFile, n_channels: int) -> np.ndarray:
    """All samples of a file, `[N, C]`."""
    return np.ndarray((len(mapped) // (4 * n_channels), n_channels), np.float32, buffer=mapped)


def _mapping(array: np.ndarray) -> object:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


def mapped_block(recordings: Sequence[Recording]) -> tuple[np.ndarray, list[int]] | None:
    """The samples `[N, C]` of the file that all recordings are stretches of, and where in it each begins.

    From here on the recordings are expected to be read window by window in random order. Until then, as while they are
    checked, the system reads ahead.

    Returns:
        None where the recordings do not lie in one such file.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, second = to_mmap([Recording(np.zeros(5), 8000), Recording(np.ones(4), 8000)], folder)
        >>> block, starts = mapped_block([second.cut(1, 4)])
        >>> block.shape, starts
        ((9, 1), [6])
        >>> mapped_block([first, Recording(np.zeros(5), 8000)]) is None
        True
    """
    mapping = _mapping(recordings[0].signal)
    n_channels = recordings[0].n_channels
    strides = (4, 4 * n_channels)
    if not isinstance(mapping, MappedFile):
        return None
    if any(_mapping(r.signal) is not mapping or r.signal.strides != strides for r in recordings):
        return None
    block = samples_of(mapping, n_channels)
    first = block.ctypes.data
    begins = [(recording.signal.ctypes.data - first) // strides[1] for recording in recordings]
    for recording, begin in zip(recordings, begins, strict=True):
        _advise(mapping, "MADV_RANDOM", begin * strides[1], recording.n_samples * strides[1])
    return block, begins


def mapping_of(recordings: Sequence[Recording]) -> MappedFile | None:
    """The mapped file under recordings of which `mapped_block` knows a block, for `read_ahead`."""
    mapping = _mapping(recordings[0].signal)
    return mapping if isinstance(mapping, MappedFile) else None


def read_ahead(mapping: mmap.mmap, offsets: Iterable[int], n_bytes: int) -> None:
    """Have stretches of the file read at once, and not page by page as they are used: six times as fast on a disk.

    Args:
        mapping: the mapped file.
        offsets: first byte of each stretch.
        n_bytes: length of each.
    """
    for offset in offsets:
        _advise(mapping, "MADV_WILLNEED", offset, n_bytes)


def _advise(mapping: mmap.mmap, advice: str, offset: int, n_bytes: int) -> None:
    """Tell the operating system what will be done with the pages of a stretch; not all can be told."""
    if hasattr(mmap, advice):
        page = offset // mmap.PAGESIZE * mmap.PAGESIZE
        mapping.madvise(getattr(mmap, advice), page, min(offset + n_bytes, len(mapping)) - page)
