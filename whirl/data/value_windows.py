"""Windows whose targets are numbers of their recordings, for regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whirl.data.names import LABEL
from whirl.data.recording import Recording
from whirl.data.windows import Sample, WindowDataset
from whirl.validation import unknown_name


class ValueWindows(WindowDataset):
    """A `WindowDataset` whose targets are numbers, float32 `[B]`.

    Args:
        recordings: see `WindowDataset`.
        values: the number of each recording.
        window: window length in samples.
        hop: distance of the starts of successive windows in samples.
        **options: other arguments of `WindowDataset`.

    Example:
        >>> recording = Recording(torch.arange(64).numpy(), 1000)
        >>> ValueWindows([recording], [0.5], window=16)[[0, 1]][1]
        tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        values: Sequence[float],
        window: int,
        hop: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(recordings, None, window, hop, **options)
        self._values = torch.tensor(values, dtype=torch.float32)

    @property
    def targets(self) -> Tensor:
        """Number of each window, float32 `[W]`."""
        return self._values[self.recording_index]

    def _cut(self, indices: Tensor) -> Sample:
        signals, _, metadata = super()._cut(indices)
        return signals, self._values[metadata["recording"]], metadata


def target_of(recording: Recording, name: str = LABEL) -> float:
    """Return the number that a recording states as its target.

    Args:
        recording: the recording.
        name: `"label"` for its label, otherwise a name in its metadata, e.g. a column of a manifest.

    Raises:
        ValueError: it states no finite number.

    Example:
        >>> target_of(Recording(torch.zeros(8).numpy(), 1000, label="0.18"))
        0.18
    """
    stated = recording.label if name == LABEL else recording.metadata.get(name)
    value = _number(stated)
    if value is not None:
        return value
    columns = [key for key, each in recording.metadata.items() if _number(each) is not None]
    if name != LABEL and name not in recording.metadata and columns:
        raise ValueError(f"{recording.name}: {unknown_name('column of numbers', name, columns)}")
    what = "the label" if name == LABEL else f"the column {name!r}"
    known = f"; numbers are in {', '.join(columns)}" if columns else ""
    raise ValueError(
        f"{recording.name}: {what} is {stated!r}, expected a number for task 'regression': name a column of the "
        f"manifest that has one with --target{known}"
    )


def _number(stated: Any) -> float | None:
    if isinstance(stated, bool) or stated is None:
        return None
    try:
        value = float(stated.replace(",", ".") if isinstance(stated, str) else stated)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
