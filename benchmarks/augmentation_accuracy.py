"""What each augmentation preset is worth on machines and bearings that training never saw.

Two tests, both grouped by specimen. `simulated`: journal bearings, 40 machines, every recording with sensor noise at
5 dB; a quarter of the machines is the test part; each seed draws new machines, weights and order. `cwru`: inner race,
outer race and ball faults at the drive end; one fault size is held out in turn, scores are pooled over the three folds
of a seed. Every arm of a seed starts from the same weights and goes through the same windows in the same order, so arms
are compared run by run: mean of the paired differences to no augmentation, 95 % t-interval over seeds, Wilcoxon's p.

An arm is a preset, or steps of a policy as name:probability:magnitude joined by '+'.

    python benchmarks/augmentation_accuracy.py simulated --seeds 8
    python benchmarks/augmentation_accuracy.py cwru --data ../shared/data/cwru_12k_de --seeds 8 --model wdcnn

Finished runs are kept in --results, one JSON line each; started again, the script goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whirl.engine.checkpoint import load_weights
from whirl.evaluation.metrics import scores
from whirl.evaluation.paired import compare_arms
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.runs.config import RunConfig, SimulationConfig
from whirl.runs.data import PreparedData, prepare
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import make_trainer

SIZES = ("007", "014", "021")


def setting(arm: str) -> Any:
    """`augment` of the configuration."""
    if arm == "none":
        return None
    if ":" not in arm:
        return arm
    steps = [step.split(":") for step in arm.split("+")]
    return [[(name, float(probability), float(magnitude)) for name, probability, magnitude in steps]]


def folds(arguments: argparse.Namespace, seed: int) -> list[RunConfig]:
    common = {"model": arguments.model, "epochs": arguments.epochs, "seed": seed, "device": arguments.device}
    if arguments.test == "simulated":
        simulation = SimulationConfig(n_machines=arguments.machines, seed=seed, snr_db_range=(5, 5))
        return [RunConfig(simulation=simulation, **common)]
    cwru = {"classes": ["inner_race", "outer_race", "ball"], "channels": ["DE"], "sampling_rate_hz": 12_000}
    held_out = [[f"CWRU_DE_{fault}{size}" for fault in ("IR", "OR", "B")] for size in SIZES]
    return [RunConfig(data=arguments.data, test_specimens=specimens, **cwru, **common) for specimens in held_out]


def confusion_of(data: PreparedData) -> np.ndarray:
    """Train, take the epoch of the lowest validation loss, and count the test recordings `[true, predicted]`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)
        trainer = make_trainer(data, folder)
        trainer.fit(data.config.epochs or 1)
        load_weights(trainer.model, folder.best_checkpoint)
    by_recording = aggregate_by_recording(predict_windows(trainer.model, data.windows(data.split.test)))
    counts = np.zeros((len(data.classes),) * 2, dtype=int)
    np.add.at(counts, (by_recording.targets, by_recording.predicted), 1)
    return counts


def run(arguments: argparse.Namespace, done: set[tuple[str, int]], results: Path) -> None:
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        arms = [arm for arm in arguments.arms if (arm, seed) not in done]
        prepared = [prepare(config) for config in folds(arguments, seed)] if arms else []
        for arm in arms:
            began = time.process_time()
            counts = sum(
                confusion_of(replace(data, config=data.config.model_copy(update={"augment": setting(arm)})))
                for data in prepared
            )
            row = {
                "test": arguments.test, "model": arguments.model, "arm": arm, "seed": seed,
                "macro_f1": float(scores(np.asarray(counts))["macro_f1"]), "processor_s": time.process_time() - began,
            }  # fmt: skip
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{arm:40} seed {seed}  macro F1 {row['macro_f1']:.3f}  {row['processor_s']:.0f} s", flush=True)


def read(results: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return [row for row in rows if (row["test"], row["model"]) == (arguments.test, arguments.model)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", choices=["simulated", "cwru"])
    parser.add_argument("--data", default="../shared/data/cwru_12k_de")
    parser.add_argument("--model", default="cnn1d")
    parser.add_argument("--arms", default="none,light,medium,heavy", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--machines", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=Path("augmentation_accuracy.jsonl"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    run(arguments, {(row["arm"], row["seed"]) for row in read(arguments.results, arguments)}, arguments.results)
    by_arm: dict[str, dict[int, float]] = defaultdict(dict)
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in read(arguments.results, arguments):
        by_arm[row["arm"]][row["seed"]] = row["macro_f1"]
        seconds[row["arm"]].append(row["processor_s"])
    found = compare_arms(by_arm, "none")
    print(f"\n{'arm':40} runs  mean   difference to none      processor time")
    for arm, difference in found.items():
        print(f"{arm:40} {difference.n_runs:4}  {difference}  {statistics.median(seconds[arm]):.0f} s")
    plain_s = statistics.median(seconds["none"])
    time_ratios = {f"time_{arm}": statistics.median(s) / plain_s for arm, s in seconds.items()}
    differences = {arm: [d.difference, d.low, d.high] for arm, d in found.items()}
    print(json.dumps({"ratios": time_ratios, "goals": {}, "differences": differences}))


if __name__ == "__main__":
    main()
