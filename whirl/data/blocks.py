"""Arrays that are read and converted in parts, so that this takes little memory beside the result."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence

import numpy as np

from whirl.data.memmap import owner_of

_BLOCK_SAMPLES = 2**18


def blocks(signal: np.ndarray, overlap: int = 0) -> Iterator[np.ndarray]:
    """Yield parts of an array along its last axis; each begins with the last `overlap` values of the one before.

    If the array is memory-mapped for reading only, its pages are released after each part, so that at most one part
    of the file is in memory.

    Example:
        >>> [part.tolist() for part in blocks(np.arange(4), overlap=1)]
        [[0, 1, 2, 3]]
    """
    step = max(1, _BLOCK_SAMPLES * signal.shape[-1] // max(signal.size, 1))
    mapped = owner_of(signal)
    for start in range(0, signal.shape[-1] - overlap, step):
        yield signal[..., start : start + step + overlap]
        # Pages of a map that can be written to may have been changed. Windows has no madvise.
        if isinstance(mapped, mmap.mmap) and not signal.flags.writeable and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def to_float32(signal: np.ndarray) -> np.ndarray:
    """Return samples `[..., N]` as float32 in C order, so that windows of a channel are contiguous.

    Memory-mapped samples are copied, as the file may be overwritten or truncated later. Values beyond the range of
    float32 become infinite.

    Example:
        >>> to_float32(np.array([[1.0, 1e300]]))
        array([[ 1., inf]], dtype=float32)
    """
    if isinstance(owner_of(signal), mmap.mmap) or signal.dtype != np.float32 or not signal.flags.c_contiguous:
        return stack_float32([signal])
    return signal


def stack_float32(signals: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays `[C, N]` of channels of the same length as one float32 array.

    Example:
        >>> stack_float32([np.zeros((1, 3)), np.ones((2, 3), dtype=np.int16)]).sum(axis=1)
        array([0., 3., 3.], dtype=float32)
    """
    stacked = np.empty((sum(map(len, signals)), *signals[0].shape[1:]), np.float32)
    row = 0
    for signal in signals:
        _copy(signal, stacked[row : row + len(signal)])
        row += len(signal)
    return stacked


def _copy(signal: np.ndarray, target: np.ndarray) -> None:
    start = 0
    with np.errstate(over="ignore"):
        for part in blocks(signal):
            target[..., start : start + part.shape[-1]] = part
            start += part.shape[-1]
