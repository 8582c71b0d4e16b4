"""Time that progressive training (short signals first) saves, and its effect on accuracy.

Two tests, both on unseen specimens. `simulated`: journal bearings, complete recordings of 102400
samples (5 s at 20480 Hz); each seed draws new machines, weights and order. `cwru`: inner race, outer race and ball
faults at the drive end, windows of 2048 samples at 12 kHz; each fold holds out one fault size, and the three folds of a
seed are added up.

Arms, all with the same trainer, each with one cycle of the learning rate over its total length:

- `full`: every epoch at full length.
- `interpolate`: progressive stages of 1/4, 1/2, 3/4 and all of the length for 0.4, 0.3, 0.2 and 0.1 of the epochs, the
  shape of the default schedule; the signals of earlier stages are low-pass filtered and decimated.
- `truncate`: the same stages, of the beginning of each signal: the sampling rate, and so the high frequencies, stay.
- `crop`: the same stages, of random crops of the signals, drawn anew in every epoch.
- `short`: full length for as many epochs as cost as much as the stages (half of them), the fair comparison.

The goal concerns the end of training: `crop` should take at most 0.6 of the time of `full` (`crop_time`, processor
time), reported together with the interval of the difference of their final accuracies. `crop` was chosen on the
validation part (`simulated --part val --first-seed 100 --seeds 1 --epochs 50`), where it had an accuracy of 0.727 in 46
% of the time of `full`; that had 0.750, as had `short`. At 20 epochs `full` had 0.773, `short` 0.705, `crop` 0.636 and
`interpolate` 0.432.

About ten times per training the test part is evaluated at full length, for the curves alone: nothing is selected by it,
and the final weights count. The clocks (wall and processor) run while an epoch trains, resizing included, and stop
during the evaluation. Per seed, relative to its own `full`: total time; time and samples (numbers that went through the
network) until 95 % of the final accuracy of `full` is first reached, and time until all of it is, each relative to
`full` itself; and the difference of the final accuracies; 95 % t-intervals over the seeds. An arm that never reaches it
counts as infinite in the median and leaves the mean without a value.

Learning rate and schedule are the defaults of `whirl train`. Others can be tried with another seed on the validation
part (`--part val --first-seed 100 --schedule noam`); they apply to every arm.

    python benchmarks/progressive.py simulated --seeds 5
    python benchmarks/progressive.py cwru --seeds 5

`cwru` reads the recordings from `$WHIRL_REAL_DATA/cwru_12k_de` or from --data. Finished runs are stored in --results,
one JSON line each; an interrupted benchmark continues.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import ResultsFile, add_seed_options, chosen_seeds, configure, make_parser, names, print_results
from _unseen_specimens import add_test_options, folds_of
from torch import nn

from whirl.data import WindowDataset
from whirl.engine import Callback
from whirl.evaluation import compare_arms, paired_difference, predict_windows
from whirl.models import create_model
from whirl.optim import create_training_scheduler
from whirl.runs import Config
from whirl.runs.data import PreparedData, prepare
from whirl.training.progressive_resizing import METHODS, ProgressiveResizingTrainer

STAGES = ((1 / 4, 0.4), (1 / 2, 0.3), (3 / 4, 0.2), (1, 0.1))
"""Share of the full length and of the epochs; the default schedule has 20, 15, 10 and 5 of 50 epochs."""

ENOUGH = 0.95  # of the final accuracy of `full`
GOALS = {"crop_time": "<= 0.6"}
PASSAGES = (
    ("time_to_95", ENOUGH, "processor_s"),
    ("samples_to_95", ENOUGH, "samples"),
    ("time_to_all", 1.0, "processor_s"),
)
N_EVALUATIONS = 10  # per training, evenly
SAMPLING_RATE_HZ = 20_480
DEFAULTS: dict[str, dict[str, Any]] = {
    "simulated": {"window": 102400, "epochs": 20, "batch_size": 16},
    "cwru": {"window": 2048, "epochs": 20, "batch_size": 64},
}
CURVES = ("correct", "evaluated", "wall_s", "processor_s", "samples")


class Curve(Callback):
    """Records accuracy at full length and the cost of training so far, about ten times per training."""

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows
        self.points: dict[str, list[float]] = {name: [] for name in CURVES}
        self.spent = np.zeros(3)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = np.array([time.perf_counter(), time.process_time(), 0])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        trainer, now = self.trainer, np.array([time.perf_counter(), time.process_time(), 0])
        now[2] = len(trainer.train_loader.dataset) * trainer.state.length
        self.spent += now - self.start
        if (epoch + 1) % max(1, trainer.num_epochs // N_EVALUATIONS) and epoch + 1 < trainer.num_epochs:
            return
        predictions = predict_windows(trainer.model, self.windows, batch_size=32)
        n_correct = int((predictions.predicted == predictions.targets).sum())
        point = (n_correct, len(self.windows), *map(float, self.spent))
        for name, value in zip(CURVES, point, strict=True):
            self.points[name].append(value)


def folds(arguments: argparse.Namespace, seed: int) -> list[Config]:
    window = arguments.window
    settings = {"model": arguments.model, "seed": seed, "window": window, "hop": window, "device": arguments.device}
    if arguments.test == "simulated":
        settings["sampling_rate_hz"] = SAMPLING_RATE_HZ
    simulation = {
        "recordings_per_class": 1,
        "seed": seed,
        "sampling_rate_hz": SAMPLING_RATE_HZ,
        "duration_s": window / SAMPLING_RATE_HZ,
    }
    return folds_of(arguments, settings, simulation)


def schedule(arm: str, window: int, epochs: int) -> list[tuple[int, int]]:
    """Return the stages of an arm."""
    stages = [(round(share * window), max(1, round(part * epochs))) for share, part in STAGES]
    if arm == "full":
        return [(window, sum(epochs for _, epochs in stages))]
    if arm == "short":
        return [(window, max(1, round(sum(length * epochs for length, epochs in stages) / window)))]
    return stages


def train(data: PreparedData, arm: str, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Train one arm and return its curves."""
    torch.manual_seed(data.config.run.seed)
    model = create_model(arguments.model, len(data.classes), len(data.config.data.channels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.01, fused=True)
    windows = data.windows(data.split.train)
    stages = schedule(arm, arguments.window, arguments.epochs)
    scheduler = create_training_scheduler(
        arguments.schedule, optimizer, sum(n for _, n in stages), math.ceil(len(windows) / arguments.batch_size)
    )
    curve = Curve(data.windows(getattr(data.split, arguments.part)))
    trainer = ProgressiveResizingTrainer(
        model, optimizer, nn.CrossEntropyLoss(), data.device, stages, callbacks=[curve],
        resize_method=arm if arm in METHODS else "interpolate",
    )  # fmt: skip
    trainer.train_progressive(windows, None, arguments.batch_size, 0, scheduler, seed=data.config.run.seed)
    return curve.points


def run(arguments: argparse.Namespace, results: ResultsFile) -> None:
    done = {(row["arm"], row["seed"]) for row in results.rows()}
    for seed in chosen_seeds(arguments):
        arms = [arm for arm in arguments.arms if (arm, seed) not in done]
        prepared = [prepare(config) for config in folds(arguments, seed)] if arms else []
        for arm in arms:
            curves = [train(data, arm, arguments) for data in prepared]
            points = {name: np.sum([curve[name] for curve in curves], axis=0) for name in CURVES}
            accuracy = points["correct"] / points["evaluated"]
            row = {"arm": arm, "seed": seed, "accuracy": accuracy.round(5).tolist()}
            row |= {name: points[name].round(3).tolist() for name in CURVES[2:]}
            results.append(row)
            print(f"{arm:12} seed {seed}  {accuracy[-1]:.3f}  {row['processor_s'][-1]:.0f} s", flush=True)


def cost_until(row: dict[str, Any], accuracy: float, unit: str) -> float:
    """Return the cost of training until the first epoch that reached an accuracy; infinite if none did."""
    reached = [cost for found, cost in zip(row["accuracy"], row[unit], strict=True) if found >= accuracy]
    return reached[0] if reached else math.inf


def ratios_to_full(rows: dict[int, dict[str, Any]], full: dict[int, dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Return ratios by name and seed; times are processor time unless named `wall`."""
    found: dict[str, dict[int, float]] = {}
    for seed in sorted(rows.keys() & full.keys()):
        row, reference = rows[seed], full[seed]
        end = reference["accuracy"][-1]
        ratios = {
            "time": row["processor_s"][-1] / reference["processor_s"][-1],
            "wall": row["wall_s"][-1] / reference["wall_s"][-1],
        }
        for name, share, unit in PASSAGES:
            ratios[name] = cost_until(row, share * end, unit) / cost_until(reference, share * end, unit)
        for name, ratio in ratios.items():
            found.setdefault(name, {})[seed] = ratio
    return found


def interval(ratios: dict[int, float]) -> str:
    """Format the mean with its 95 % t-interval where every seed has a number, else how many seeds have one."""
    values = list(ratios.values())
    finite = [value for value in values if math.isfinite(value)]
    text = f"median {statistics.median(values):.2f}"
    if len(finite) < len(values):
        return f"{text}  reached in {len(finite)} of {len(values)} seeds"
    found = paired_difference(ratios, dict.fromkeys(ratios, 0.0))
    return f"{text}  mean {found.difference:.2f} [{found.low:.2f}, {found.high:.2f}]"


def report(rows: Sequence[dict[str, Any]]) -> None:
    arms = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in {row["arm"]: None for row in rows}}
    final = {arm: {seed: row["accuracy"][-1] for seed, row in by_seed.items()} for arm, by_seed in arms.items()}
    differences = compare_arms(final, "full")
    print("\nfinal accuracy at full length, and its difference to full")
    for arm, difference in differences.items():
        seconds = statistics.median(row["processor_s"][-1] for row in arms[arm].values())
        print(f"  {arm:12} {difference}  {seconds:.0f} s")
    medians: dict[str, float] = {}
    for arm, by_seed in arms.items():
        if arm == "full":
            continue
        print(f"{arm}, ratios to full")
        for name, ratios in ratios_to_full(by_seed, arms["full"]).items():
            print(f"  {name:16} {interval(ratios)}")
            medians[f"{arm}_{name}"] = statistics.median(ratios.values())
    intervals = {arm: [d.difference, d.low, d.high] for arm, d in differences.items()}
    print_results(medians, GOALS, differences=intervals)


def main() -> None:
    parser = make_parser(__doc__)
    add_test_options(parser, machines=32)
    add_seed_options(parser, seeds=5)
    parser.add_argument("--model", default="cnn1d")
    parser.add_argument("--arms", default="full,short,crop,interpolate,truncate", type=names)
    parser.add_argument("--window", type=int, help="full length in samples")
    parser.add_argument("--epochs", type=int, help="epochs of the progressive arms and of full")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default %(default)s)")
    parser.add_argument("--schedule", default="onecycle", help="learning-rate schedule over all stages")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("progressive.jsonl"))
    arguments = parser.parse_args()
    for name, value in DEFAULTS[arguments.test].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    configure()
    settings = ("test", "model", "part", "window", "epochs", "batch_size", "lr", "schedule", "machines")
    results = ResultsFile(arguments.results, {name: getattr(arguments, name) for name in settings})
    run(arguments, results)
    report(results.rows())


if __name__ == "__main__":
    main()
