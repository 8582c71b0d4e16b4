"""Features of windows for models that are no networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class Windows(Protocol):
    """Windows that are cut whole batches at a time, as of `WindowDataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Any: ...


def evidence_features(
    windows: Windows, evidence: Callable[[Tensor, Tensor], Tensor], batch_size: int = 256, unknown_db: float = 0.0
) -> Tensor:
    """Evidence of faults in every window, a row each, e.g. for scikit-learn.

    Args:
        windows: a `WindowDataset`, or some of it.
        evidence: a `packages.core.physics.evidence.OrderEvidence`, whose `names` are the columns.
        batch_size: windows at once, >= 1.
        unknown_db: what stands for NaN, where nothing can be known; at 0 dB a line is half present.

    Returns:
        `[W, L]` in dB, float32.

    Example:
        >>> import numpy as np
        >>> from packages.core.physics.evidence import OrderEvidence
        >>> from packages.core.signals.recording import Recording
        >>> from packages.core.signals.windows import WindowDataset
        >>> turns = 25 * np.arange(20480) / 2560
        >>> rng = np.random.default_rng(0)
        >>> recording = Recording(np.sin(4 * np.pi * turns) + rng.standard_normal(20480), 2560, rpm=1500, label="a")
        >>> search = OrderEvidence.journal(2560)
        >>> features = evidence_features(WindowDataset([recording], ["a"], window=4096), search)
        >>> features.shape, search.names[int(features[0, :7].argmax())]
        (torch.Size([5, 11]), '2X')
    """
    rows = torch.arange(len(windows)).split(batch_size)
    return torch.cat([_of_batch(windows[row], evidence) for row in rows]).nan_to_num(unknown_db)


def _of_batch(batch: Any, evidence: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    signals, _, metadata = batch
    return evidence(signals, metadata["rpm"])
