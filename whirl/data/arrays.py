"""Windows as NumPy arrays, for scikit-learn and other libraries that take `X`, `y` and `groups`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from whirl.data.recording import Recording
from whirl.data.splits import group_keys
from whirl.data.windows import WindowDataset


class WindowArrays(NamedTuple):
    """All windows of a data set as arrays.

    Attributes:
        X: signals, float32 `[W, C, T]`, standardized or in the unit of the recordings, as in the data set.
        y: index of the label in `classes` of the data set, int64 `[W]`; -1 for unlabeled windows.
        groups: name of the specimen, `[W]`; if unknown, of the recording's source, or of the recording. Keep windows of
            one group on the same side of a split.
        recordings: index in the list of recordings, int64 `[W]`.
        rpm: shaft speed, rev/min, float32 `[W]`; NaN where unknown.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    recordings: np.ndarray
    rpm: np.ndarray


def window_arrays(windows: WindowDataset, recordings: Sequence[Recording]) -> WindowArrays:
    """Return all windows as arrays.

    The arrays are copies of `4 W C T` bytes; peak memory is twice that.

    Args:
        windows: windows cut from `recordings`.
        recordings: the recordings of the windows, in the same order; they provide the specimens.

    Returns:
        One row per window, in the order of `windows`.

    Raises:
        ValueError: the windows were not cut from these recordings.

    Example:
        >>> from sklearn.model_selection import GroupKFold
        >>> from whirl.data.recording import Recording
        >>> machines = [Recording(np.arange(512), 12_000, label="wear", specimen=name) for name in "AAB"]
        >>> X, y, groups, *_ = window_arrays(WindowDataset(machines, ["wear"], window=256), machines)
        >>> X.shape, groups.tolist()
        ((6, 1, 256), ['A', 'A', 'A', 'A', 'B', 'B'])
        >>> [test.tolist() for _, test in GroupKFold(2).split(X, y, groups)]
        [[0, 1, 2, 3], [4, 5]]
    """
    _check_match(windows, recordings)
    signals, targets, metadata = windows[torch.arange(len(windows))]
    index = metadata["recording"].numpy()
    groups = np.array(group_keys(recordings, "specimen"))[index]
    return WindowArrays(signals.numpy(), targets.numpy(), groups, index, metadata["rpm"].numpy())


def _check_match(windows: WindowDataset, recordings: Sequence[Recording]) -> None:
    expected = windows.recording_index.bincount().tolist()
    found = [(recording.n_samples - windows.window) // windows.hop + 1 for recording in recordings]
    if found != expected:
        raise ValueError(
            f"the windows are {sum(expected)} cuts of {len(expected)} recordings, but these {len(found)} recordings "
            f"have {sum(found)}; pass the recordings the windows were cut from, in the same order"
        )
