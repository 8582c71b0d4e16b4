"""Split of recordings by specimen such that each part has low and high numbers, for regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from whirl.data.recording import Recording
from whirl.data.splits import Split
from whirl.data.value_windows import target_of

_KEPT = "label before the split"


def split_by_value(
    recordings: Sequence[Recording], target: str, split: Callable[[Sequence[Recording]], Split]
) -> Split:
    """Split recordings as for two classes: those with numbers below about the median, and the others.

    Args:
        recordings: at least two with different numbers.
        target: name of the number, see `target_of`.
        split: splits labeled recordings.

    Returns:
        The split, with the labels that the recordings have.

    Raises:
        ValueError: a recording has no number, all have the same, or `split` raises.
    """
    values = np.array([target_of(recording, target) for recording in recordings])
    distinct = np.unique(values)
    if len(distinct) < 2:
        raise ValueError(f"{target} is {distinct[0]:g} in all recordings, expected different numbers")
    cut = distinct[max(1, int(np.searchsorted(distinct, np.median(values))))]
    strata = np.where(values < cut, f"{target} below {cut:g}", f"{target} from {cut:g}")
    found = split([_labeled(each, str(stratum)) for each, stratum in zip(recordings, strata, strict=True)])
    parts = {name: [_restored(each) for each in getattr(found, name)] for name in ("train", "val", "test")}
    return replace(found, **parts)


def _labeled(recording: Recording, stratum: str) -> Recording:
    return replace(recording, label=stratum, metadata=recording.metadata | {_KEPT: recording.label})


def _restored(recording: Recording) -> Recording:
    metadata = dict(recording.metadata)
    return replace(recording, label=metadata.pop(_KEPT), metadata=metadata)
