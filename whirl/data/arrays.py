"""Windows as plain arrays, for scikit-learn and whatever else takes `X`, `y` and `groups`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from whirl.data.recording import Recording
from whirl.data.splits import group_keys
from whirl.data.windows import WindowDataset


class WindowArrays(NamedTuple):
    """Windows, and what is known of each.

    Attributes:
        X: signals, float32 `[W, C, T]`, standardised or in the recordings' unit, as the windows were.
        y: position of the label in the windows' `classes`, int64 `[W]`; -1 where there is none.
        groups: name of the specimen, `[W]`; where it is unknown, of the recording's source, or of the recording.
            Windows of one group never belong on both sides of a split.
        recordings: position in the list of recordings, int64 `[W]`.
        rpm: speed of the shaft, rev/min, float32 `[W]`; NaN where unknown.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    recordings: np.ndarray
    rpm: np.ndarray


def window_arrays(windows: WindowDataset, recordings: Sequence[Recording]) -> WindowArrays:
    """All windows at once; the arrays are copies and take `4 W C T` bytes, twice that for a moment.

    Args:
        windows: cut from `recordings`.
        recordings: those the windows were cut from, in the same order: they know the specimens.

    Returns:
        A row for each window, in the windows' order.

    Raises:
        ValueError: windows of the recordings would be others.

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
    _check_theirs(windows, recordings)
    signals, targets, metadata = windows[torch.arange(len(windows))]
    of_recording = metadata["recording"].numpy()
    groups = np.array(group_keys(recordings, "specimen"))[of_recording]
    return WindowArrays(signals.numpy(), targets.numpy(), groups, of_recording, metadata["rpm"].numpy())


def _check_theirs(windows: WindowDataset, recordings: Sequence[Recording]) -> None:
    cut = [(recording.n_samples - windows.window) // windows.hop + 1 for recording in recordings]
    found = windows.recording_index.bincount().tolist()
    if cut != found:
        raise ValueError(
            f"{len(cut)} recordings that give {sum(cut)} windows for {len(found)} that gave {sum(found)}: "
            "expected those the windows were cut from, in the same order"
        )
