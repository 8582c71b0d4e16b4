"""Tests on unseen specimens, shared by the benchmarks of accuracy.

`simulated`: journal bearings; a quarter of the machines is the test part, and each seed draws new machines, weights and
order. `cwru`: inner race, outer race and ball faults at the drive end; each fold holds out one fault size, and scores
are pooled over the three folds of a seed.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _harness import real_data

from whirl.evaluation import Predictions, aggregate_by_recording
from whirl.runs import Config, make_config

CWRU = "cwru_12k_de"
CWRU_SETTINGS: dict[str, Any] = {
    "classes": ["inner_race", "outer_race", "ball"],
    "channels": ["DE"],
    "sampling_rate_hz": 12_000,
}
FAULT_SIZES = ("007", "014", "021")  # thousandths of an inch


def add_test_options(parser: argparse.ArgumentParser, machines: int) -> None:
    """Add the name of the test, `--data` and `--machines`."""
    parser.add_argument("test", choices=["simulated", "cwru"])
    parser.add_argument("--data", help=f"folder of the CWRU recordings (default {CWRU} in WHIRL_REAL_DATA)")
    parser.add_argument("--machines", type=int, default=machines, help="simulated machines (default %(default)s)")


def specimens_of(fault_size: str) -> list[str]:
    """Return the CWRU bearings with faults of this size, one for each class."""
    return [f"CWRU_DE_{fault}{fault_size}" for fault in ("IR", "OR", "B")]


def cwru_folds(data: str | None, settings: dict[str, Any]) -> list[Config]:
    """Return a configuration for each fault size that is held out.

    Args:
        data: folder of the recordings; None: the one in `WHIRL_REAL_DATA`.
        settings: further settings by flat name.
    """
    common = settings | CWRU_SETTINGS | {"data": real_data(CWRU, data)}
    return [make_config(common | {"test_specimens": specimens_of(size)}) for size in FAULT_SIZES]


def folds_of(arguments: argparse.Namespace, settings: dict[str, Any], simulation: dict[str, Any]) -> list[Config]:
    """Return the configurations of a test, one for each fold.

    Args:
        arguments: the command line, with the options of `add_test_options`.
        settings: settings of all folds by flat name.
        simulation: settings of the simulated recordings.
    """
    if arguments.test == "cwru":
        return cwru_folds(arguments.data, settings)
    return [make_config(settings | {"simulation": {"n_machines": arguments.machines, **simulation}})]


def count_confusion(windows: Predictions, n_classes: int) -> np.ndarray:
    """Count the recordings by true and predicted class, `[n_classes, n_classes]`, by soft vote over windows."""
    recordings = aggregate_by_recording(windows)
    counts = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(counts, (recordings.targets, recordings.predicted), 1)
    return counts
