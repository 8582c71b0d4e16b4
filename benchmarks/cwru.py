"""Accuracy on unseen CWRU bearings, compared with a split that leaks.

Inner race, outer race and ball faults, drive-end channel, 12 kHz. Each fold holds out one fault size: no bearing of
that size is in training (three folds, several seeds). The control splits the same recordings at random, so that every
test bearing was in training at another load. The difference between the two is the effect of the leak.

Scores are of complete recordings (soft vote), pooled over the folds of a seed, so that every bearing of 7, 14 and 21
mil is tested once; intervals are by bootstrap over those bearings, of the mean over seeds. The printed ratio is the
macro F1 of windows with the leak over that without; it has no goal.

    python benchmarks/cwru.py --models wdcnn,cnn1d --seeds 3

The recordings are read from `$WHIRL_REAL_DATA/cwru_12k_de` or from the folder given.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _harness import add_seed_options, chosen_seeds, configure, make_parser, names, print_results, real_data
from _unseen_specimens import CWRU, CWRU_SETTINGS, FAULT_SIZES, cwru_folds

from whirl.data import Recording
from whirl.evaluation import Predictions, bootstrap_intervals
from whirl.evaluation.metrics import scores
from whirl.runs import Config, make_config, train_run

CLASSES = CWRU_SETTINGS["classes"]
GOALS: dict[str, str] = {}

Rows = list[dict[str, str]]  # of predictions.csv


def run(config: Config, folder: Path) -> tuple[Rows, float]:
    """Return the rows of `predictions.csv`, and the macro F1 of the windows."""
    result = train_run(config, folder)
    assert result.metrics is not None
    with result.folder.predictions_file.open() as file:
        return list(csv.DictReader(file)), result.metrics["window"]["macro_f1"]


def macro_f1(rows: Rows) -> float:
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    for row in rows:
        confusion[CLASSES.index(row["label"]), CLASSES.index(row["predicted"])] += 1
    return float(scores(confusion)["macro_f1"])


def interval(rows: Rows) -> tuple[float, float]:
    """Return the 95 % interval of macro F1 by bootstrap over bearings, within their class."""
    recordings = [Recording(np.zeros(2), 1.0, specimen=row["specimen"]) for row in rows]
    one_hot = np.eye(len(CLASSES))[[CLASSES.index(row["predicted"]) for row in rows]]
    targets = np.array([CLASSES.index(row["label"]) for row in rows])
    found = bootstrap_intervals(Predictions(one_hot, targets, np.arange(len(rows))), recordings)["macro_f1"]
    return found["low"], found["high"]


def compare_splits(model: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train with a fault size held out and with a leak, and return the scores of both."""
    data = real_data(CWRU, arguments.data)
    base: dict[str, Any] = {
        "model": model,
        "epochs": arguments.epochs,
        "window": arguments.window,
        "bearing": "6205",  # used by networks with physical evidence
    }
    unseen: list[Rows] = []
    unseen_windows, leaky, leaky_windows = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in chosen_seeds(arguments):
            settings, rows = base | {"seed": seed}, []
            for size, config in zip(FAULT_SIZES, cwru_folds(data, settings), strict=True):
                fold, f1 = run(config, Path(scratch) / f"{seed}_{size}")
                rows += fold
                unseen_windows.append(f1)
            unseen.append(rows)
            leak = settings | CWRU_SETTINGS | {"data": data, "split": "recording", "allow_leakage": True}
            fold, f1 = run(make_config(leak), Path(scratch) / f"{seed}_leaky")
            leaky.append(macro_f1(fold))
            leaky_windows.append(f1)
    low, high = interval([row for rows in unseen for row in rows])
    return {
        "size held out": {
            "recording_macro_f1": statistics.mean(macro_f1(rows) for rows in unseen),
            "low": low,
            "high": high,
            "window_macro_f1": statistics.mean(unseen_windows),
        },
        "leaky control": {
            "recording_macro_f1": statistics.mean(leaky),
            "window_macro_f1": statistics.mean(leaky_windows),
        },
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("data", nargs="?", help=f"folder of the recordings (default {CWRU} in WHIRL_REAL_DATA)")
    add_seed_options(parser, seeds=3)
    parser.add_argument("--models", default="wdcnn,cnn1d", type=names)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--window", type=int, default=None)
    arguments = parser.parse_args()
    configure(n_threads=None)
    results = {model: compare_splits(model, arguments) for model in arguments.models}
    print(f"{'':14} {'split':14} {'recordings':>10}  {'95 % interval':16} {'windows':>8}")
    for model, arms in results.items():
        for arm, found in arms.items():
            spread = f"[{found['low']:.2f}, {found['high']:.2f}]" if "low" in found else ""
            f1 = f"{found['recording_macro_f1']:10.2f}  {spread:16} {found['window_macro_f1']:8.2f}"
            print(f"{model:14} {arm:14} {f1}")
    ratios = {
        f"{model}_leaky_over_honest": arms["leaky control"]["window_macro_f1"]
        / arms["size held out"]["window_macro_f1"]
        for model, arms in results.items()
    }
    print_results(ratios, GOALS, results=results)


if __name__ == "__main__":
    main()
