"""What a diagnoser learns on the CWRU bearings, and what a leaky split pretends.

Inner race, outer race and ball faults, drive-end channel, 12 kHz. Each fold holds one fault size out: no bearing of
that size is seen in training (three folds, several seeds). The control splits the same recordings at random, so that
every test bearing was seen in training. The gap between the two is what leakage is worth.

Scores are of whole recordings (soft vote), pooled over the folds of a seed, so that every bearing of 7, 14 and 21 mil
is tested once; intervals are by bootstrap over those bearings, of the mean over seeds.

    python benchmarks/cwru.py ../shared/data/cwru_12k_de --models wdcnn,cnn1d --seeds 3
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import warnings
from pathlib import Path

import numpy as np

from whirl.data.recording import Recording
from whirl.evaluation.metrics import bootstrap_intervals, scores
from whirl.evaluation.prediction import Predictions
from whirl.runs.config import RunConfig
from whirl.runs.training import train_run

CLASSES = ["inner_race", "outer_race", "ball"]
SIZES = ["007", "014", "021"]


def run(config: RunConfig, folder: Path) -> tuple[list[dict[str, str]], float]:
    """Rows of `predictions.csv`, and the macro F1 of the windows."""
    result = train_run(config, folder)
    assert result.metrics is not None
    with result.folder.predictions_file.open() as file:
        return list(csv.DictReader(file)), result.metrics["window"]["macro_f1"]


def macro_f1(rows: list[dict[str, str]]) -> float:
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    for row in rows:
        confusion[CLASSES.index(row["label"]), CLASSES.index(row["predicted"])] += 1
    return float(scores(confusion)["macro_f1"])


def interval(rows: list[dict[str, str]]) -> tuple[float, float]:
    """95 % interval of macro F1 by bootstrap over bearings, within their class."""
    recordings = [Recording(np.zeros(2), 1.0, specimen=row["specimen"]) for row in rows]
    one_hot = np.eye(len(CLASSES))[[CLASSES.index(row["predicted"]) for row in rows]]
    targets = np.array([CLASSES.index(row["label"]) for row in rows])
    found = bootstrap_intervals(Predictions(one_hot, targets, np.arange(len(rows))), recordings)["macro_f1"]
    return found["low"], found["high"]


def study(data: str, model: str, seeds: int, epochs: int | None, window: int | None) -> dict[str, dict[str, float]]:
    base = {
        "data": data, "model": model, "classes": CLASSES, "channels": ["DE"], "sampling_rate_hz": 12_000,
        "epochs": epochs, "window": window,
    }  # fmt: skip
    honest: list[list[dict[str, str]]] = []
    honest_windows, leaky, leaky_windows = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            rows: list[dict[str, str]] = []
            for size in SIZES:
                out = [f"CWRU_DE_{fault}{size}" for fault in ("IR", "OR", "B")]
                config = RunConfig(**base, seed=seed, test_specimens=out)
                fold, f1 = run(config, Path(scratch) / f"{seed}_{size}")
                rows += fold
                honest_windows.append(f1)
            honest.append(rows)
            control = RunConfig(**base, seed=seed, split="recording", allow_leakage=True)
            fold, f1 = run(control, Path(scratch) / f"{seed}_leaky")
            leaky.append(macro_f1(fold))
            leaky_windows.append(f1)
    low, high = interval([row for rows in honest for row in rows])
    return {
        "size held out": {
            "recording_macro_f1": statistics.mean(macro_f1(rows) for rows in honest),
            "low": low,
            "high": high,
            "window_macro_f1": statistics.mean(honest_windows),
        },
        "leaky control": {
            "recording_macro_f1": statistics.mean(leaky),
            "window_macro_f1": statistics.mean(leaky_windows),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--models", default="wdcnn,cnn1d")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--window", type=int, default=None)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {
        model: study(arguments.data, model, arguments.seeds, arguments.epochs, arguments.window)
        for model in arguments.models.split(",")
    }
    print(f"{'':14} {'split':14} {'recordings':>10}  {'95 % interval':16} {'windows':>8}")
    for model, arms in results.items():
        for arm, found in arms.items():
            spread = f"[{found['low']:.2f}, {found['high']:.2f}]" if "low" in found else ""
            print(
                f"{model:14} {arm:14} {found['recording_macro_f1']:10.2f}  {spread:16} {found['window_macro_f1']:8.2f}"
            )
    ratios = {
        f"{model}_leaky_over_honest": arms["leaky control"]["window_macro_f1"]
        / arms["size held out"]["window_macro_f1"]
        for model, arms in results.items()
    }
    print(json.dumps({"ratios": ratios, "goals": {}, "results": results}))


if __name__ == "__main__":
    main()
