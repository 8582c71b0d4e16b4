"""Tests on specimens that training never saw, shared by the benchmarks of accuracy.

`simulated`: journal bearings; a quarter of the machines is the test part, and each seed draws new machines, weights and
order. `cwru`: inner race, outer race and ball faults at the drive end; each fold holds out one fault size, and scores
are pooled over the three folds of a seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from whirl.evaluation.prediction import Predictions, aggregate_by_recording
from whirl.runs.config import RunConfig

CWRU = "cwru_12k_de"
CWRU_SETTINGS: dict[str, Any] = {
    "classes": ["inner_race", "outer_race", "ball"],
    "channels": ["DE"],
    "sampling_rate_hz": 12_000,
}
FAULT_SIZES = ("007", "014", "021")  # thousandths of an inch


def specimens_of(fault_size: str) -> list[str]:
    """Return the CWRU bearings with faults of this size, one for each class."""
    return [f"CWRU_DE_{fault}{fault_size}" for fault in ("IR", "OR", "B")]


def cwru_folds(data: str, **settings: Any) -> list[RunConfig]:
    """Return a configuration for each fault size that is held out."""
    return [
        RunConfig(data=data, test_specimens=specimens_of(size), **CWRU_SETTINGS, **settings) for size in FAULT_SIZES
    ]


def count_confusion(windows: Predictions, n_classes: int) -> np.ndarray:
    """Count the recordings by true and predicted class, `[n_classes, n_classes]`, by soft vote over windows."""
    recordings = aggregate_by_recording(windows)
    counts = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(counts, (recordings.targets, recordings.predicted), 1)
    return counts
