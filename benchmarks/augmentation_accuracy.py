"""Effect of each augmentation preset on the accuracy on unseen machines and bearings.

Two tests, both split by specimen. `simulated`: journal bearings, 40 machines, every recording with sensor noise at 5
dB; a quarter of the machines is the test part; each seed draws new machines, weights and order. `cwru`: inner race,
outer race and ball faults at the drive end; each fold holds out one fault size, and scores are pooled over the three
folds of a seed. All arms of a seed start from the same weights and see the same windows in the same order, so they are
compared run by run: mean of the paired differences to no augmentation, 95 % t-interval over seeds, Wilcoxon's p.

An arm is a preset, or the steps of a policy as name:probability:magnitude joined by '+'. The printed ratios are those
of processor time to no augmentation; they have no goals.

    python benchmarks/augmentation_accuracy.py simulated --seeds 8
    python benchmarks/augmentation_accuracy.py cwru --seeds 8 --model wdcnn

`cwru` reads the recordings from `$WHIRL_REAL_DATA/cwru_12k_de` or from --data. Finished runs are stored in --results,
one JSON line each; an interrupted benchmark continues.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _harness import ResultsFile, add_seed_options, chosen_seeds, configure, make_parser, names, print_results
from _unseen_specimens import add_test_options, count_confusion, folds_of

from whirl.engine import load_weights
from whirl.evaluation import compare_arms, predict_windows
from whirl.evaluation.metrics import scores
from whirl.runs import Config, RunFolder
from whirl.runs.config import with_settings
from whirl.runs.data import PreparedData, prepare
from whirl.runs.trainers import make_trainer

GOALS: dict[str, str] = {}


def augment_setting(arm: str) -> Any:
    """Return the setting `augment` of an arm."""
    if arm == "none":
        return "off"
    if ":" not in arm:
        return arm
    steps = [step.split(":") for step in arm.split("+")]
    return [[(name, float(probability), float(magnitude)) for name, probability, magnitude in steps]]


def folds(arguments: argparse.Namespace, seed: int) -> list[Config]:
    settings = {"model": arguments.model, "epochs": arguments.epochs, "seed": seed, "device": arguments.device}
    return folds_of(arguments, settings, {"seed": seed, "snr_db_range": (5, 5)})


def confusion_of(data: PreparedData) -> np.ndarray:
    """Train, take the epoch of the lowest validation loss, and count the test recordings `[true, predicted]`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)
        trainer = make_trainer(data, folder)
        trainer.fit(data.config.training.epochs)
        load_weights(trainer.model, folder.best_checkpoint)
    return count_confusion(predict_windows(trainer.model, data.windows(data.split.test)), len(data.classes))


def run(arguments: argparse.Namespace, results: ResultsFile) -> None:
    done = {(row["arm"], row["seed"]) for row in results.rows()}
    for seed in chosen_seeds(arguments):
        arms = [arm for arm in arguments.arms if (arm, seed) not in done]
        prepared = [prepare(config) for config in folds(arguments, seed)] if arms else []
        for arm in arms:
            start = time.process_time()
            changed = (
                replace(data, config=with_settings(data.config, augment=augment_setting(arm))) for data in prepared
            )
            counts = np.sum([confusion_of(data) for data in changed], axis=0)
            macro_f1, processor_s = float(scores(counts)["macro_f1"]), time.process_time() - start
            results.append({"arm": arm, "seed": seed, "macro_f1": macro_f1, "processor_s": processor_s})
            print(f"{arm:40} seed {seed}  macro F1 {macro_f1:.3f}  {processor_s:.0f} s", flush=True)


def main() -> None:
    parser = make_parser(__doc__)
    add_test_options(parser, machines=40)
    add_seed_options(parser, seeds=5)
    parser.add_argument("--model", default="cnn1d")
    parser.add_argument("--arms", default="none,light,medium,heavy", type=names)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=Path("augmentation_accuracy.jsonl"))
    arguments = parser.parse_args()
    configure()
    settings = {name: getattr(arguments, name) for name in ("test", "model", "epochs", "machines")}
    results = ResultsFile(arguments.results, settings)
    run(arguments, results)
    by_arm: dict[str, dict[int, float]] = defaultdict(dict)
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in results.rows():
        by_arm[row["arm"]][row["seed"]] = row["macro_f1"]
        seconds[row["arm"]].append(row["processor_s"])
    found = compare_arms(by_arm, "none")
    print(f"\n{'arm':40} runs  mean   difference to none      processor time")
    for arm, difference in found.items():
        print(f"{arm:40} {difference.n_runs:4}  {difference}  {statistics.median(seconds[arm]):.0f} s")
    plain_s = statistics.median(seconds["none"])
    time_ratios = {f"time_{arm}": statistics.median(s) / plain_s for arm, s in seconds.items()}
    differences = {arm: [d.difference, d.low, d.high] for arm, d in found.items()}
    print_results(time_ratios, GOALS, differences=differences)


if __name__ == "__main__":
    main()
