"""What training on short signals first saves, and what it costs.

Two tests, both judged on specimens that training never saw. `simulated`: journal bearings, whole recordings of 102400
samples (5 s at 20480 Hz); each seed draws new machines, weights and order. `cwru`: inner race, outer race and ball
faults at the drive end, windows of 2048 samples at 12 kHz; one fault size is held out in turn, and the three folds of
a seed are added up.

Arms, all on the same trainer, each with one cycle of the learning rate over its whole length:

- `full`: every epoch at full length.
- `interpolate`: progressive stages of 1/4, 1/2, 3/4 and all of the length for 0.4, 0.3, 0.2 and 0.1 of the epochs, the
  shape of the default schedule; earlier stages see the signals low-passed and decimated.
- `truncate`: the same stages, of the signals' heads: the sampling rate, and so the high frequencies, stay.
- `crop`: the same stages, of stretches of the signals that begin anywhere, others in every epoch.
- `short`: full length for as many epochs as cost as much as the stages (half of them): the honest rival.

The goal is final against final: `crop` shall take at most 0.6 of the time of `full` in all (`crop_time`, of the
processor), told together with the interval of the difference of their final accuracies. `crop` was chosen by the
validation part (`simulated --part val --first-seed 100 --seeds 1 --epochs 50`), where it had an accuracy of 0.727 in
46 % of the time of `full`; that had 0.750, as had `short`. At 20 epochs `full` had 0.773, `short` 0.705, `crop` 0.636
and `interpolate` 0.432.

Some ten times in a training the test part is judged at full length, for the curves alone: nothing is selected by it,
and the weights that count are the last. The clocks (of the wall and of the processor) run while an epoch trains,
resizing included, and stand still while it is judged. Per seed, against its own `full`: all time; time and samples
(numbers that went through the network) until 95 % of the final accuracy of `full` is first reached, and time until all
of it is, each against the first passage of `full` itself; and the difference of the final accuracies; 95 % t-intervals
over the seeds. An arm that never gets there counts as infinite in the median and leaves the mean without a value.

Learning rate and schedule are the defaults of `whirl train`. Others may be tried on another seed by the validation
part (`--part val --first-seed 100 --schedule noam`); they apply to every arm alike.

    python benchmarks/progressive.py simulated --seeds 5
    python benchmarks/progressive.py cwru --data ../shared/data/cwru_12k_de --seeds 5

Finished runs are kept in --results, one JSON line each; started again, the script goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback
from whirl.evaluation.paired import compare_arms, paired_difference
from whirl.evaluation.prediction import predict_windows
from whirl.models.registry import create_model
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.runs.config import RunConfig, SimulationConfig
from whirl.runs.data import PreparedData, prepare
from whirl.training.progressive_resizing import METHODS, ProgressiveResizingTrainer

SIZES = ("007", "014", "021")
STAGES = ((1 / 4, 0.4), (1 / 2, 0.3), (3 / 4, 0.2), (1, 0.1))
"""Share of the full length and of the epochs; the default schedule has 20, 15, 10 and 5 of 50 epochs."""

ENOUGH, TIME_GOAL = 0.95, 0.6
PASSAGES = (
    ("time_to_95", ENOUGH, "processor_s"),
    ("samples_to_95", ENOUGH, "samples"),
    ("time_to_all", 1.0, "processor_s"),
)
JUDGED = 10  # times in a training, evenly
USUAL: dict[str, dict[str, Any]] = {
    "simulated": {"window": 102400, "epochs": 20, "batch_size": 16},
    "cwru": {"window": 2048, "epochs": 20, "batch_size": 64},
}
CURVES = ("correct", "judged", "wall_s", "processor_s", "samples")


class Curve(Callback):
    """Accuracy at full length, and what training has cost so far, some ten times in a training."""

    def __init__(self, judged: WindowDataset) -> None:
        self.judged = judged
        self.points: dict[str, list[float]] = {name: [] for name in CURVES}
        self.spent = np.zeros(3)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = np.array([time.perf_counter(), time.process_time(), 0])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        trainer, now = self.trainer, np.array([time.perf_counter(), time.process_time(), 0])
        now[2] = len(trainer.train_loader.dataset) * trainer.state.length
        self.spent += now - self.began
        if (epoch + 1) % max(1, trainer.num_epochs // JUDGED) and epoch + 1 < trainer.num_epochs:
            return
        predictions = predict_windows(trainer.model, self.judged, batch_size=32)
        point = (int((predictions.predicted == predictions.targets).sum()), len(self.judged), *map(float, self.spent))
        for name, value in zip(CURVES, point, strict=True):
            self.points[name].append(value)


def folds(arguments: argparse.Namespace, seed: int) -> list[RunConfig]:
    window = arguments.window
    common = {"model": arguments.model, "seed": seed, "window": window, "hop": window, "device": arguments.device}
    if arguments.test == "simulated":
        simulation = SimulationConfig(n_machines=arguments.machines, recordings_per_class=1, seed=seed)
        simulation = simulation.model_copy(update={"duration_s": window / simulation.sampling_rate_hz})
        return [RunConfig(simulation=simulation, sampling_rate_hz=simulation.sampling_rate_hz, **common)]
    cwru = {"classes": ["inner_race", "outer_race", "ball"], "channels": ["DE"], "sampling_rate_hz": 12_000}
    held_out = [[f"CWRU_DE_{fault}{size}" for fault in ("IR", "OR", "B")] for size in SIZES]
    return [RunConfig(data=arguments.data, test_specimens=specimens, **cwru, **common) for specimens in held_out]


def schedule(arm: str, window: int, epochs: int) -> list[tuple[int, int]]:
    """Stages of an arm."""
    stages = [(round(share * window), max(1, round(part * epochs))) for share, part in STAGES]
    if arm == "full":
        return [(window, sum(epochs for _, epochs in stages))]
    if arm == "short":
        return [(window, max(1, round(sum(length * epochs for length, epochs in stages) / window)))]
    return stages


def train(data: PreparedData, arm: str, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Curves of one training."""
    torch.manual_seed(data.config.seed)
    model = create_model(arguments.model, len(data.classes), len(data.config.channels or ()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.01, fused=True)
    windows = data.windows(data.split.train)
    stages = schedule(arm, arguments.window, arguments.epochs)
    rate = create_training_scheduler(
        arguments.schedule, optimizer, sum(n for _, n in stages), math.ceil(len(windows) / arguments.batch_size)
    )
    curve = Curve(data.windows(getattr(data.split, arguments.part)))
    trainer = ProgressiveResizingTrainer(
        model, optimizer, nn.CrossEntropyLoss(), data.device, stages, callbacks=[curve],
        resize_method=arm if arm in METHODS else "interpolate",
    )  # fmt: skip
    trainer.train_progressive(windows, None, arguments.batch_size, 0, rate, seed=data.config.seed)
    return curve.points


def run(arguments: argparse.Namespace, done: set[tuple[str, int]], results: Path) -> None:
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        arms = [arm for arm in arguments.arms if (arm, seed) not in done]
        prepared = [prepare(config) for config in folds(arguments, seed)] if arms else []
        for arm in arms:
            curves = [train(data, arm, arguments) for data in prepared]
            points = {name: np.sum([curve[name] for curve in curves], axis=0) for name in CURVES}
            accuracy = points["correct"] / points["judged"]
            row = identity(arguments) | {"arm": arm, "seed": seed, "accuracy": accuracy.round(5).tolist()}
            row |= {name: points[name].round(3).tolist() for name in CURVES[2:]}
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{arm:12} seed {seed}  {accuracy[-1]:.3f}  {row['processor_s'][-1]:.0f} s", flush=True)


def identity(arguments: argparse.Namespace) -> dict[str, Any]:
    """What rows must share to be compared."""
    names = ("test", "model", "part", "window", "epochs", "batch_size", "lr", "schedule", "machines")
    return {name: getattr(arguments, name) for name in names}


def read(results: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    wanted = identity(arguments)
    return [row for row in rows if {name: row[name] for name in wanted} == wanted]


def cost_until(row: dict[str, Any], accuracy: float, unit: str) -> float:
    """What training had cost after the first epoch that reached an accuracy; infinite if none did."""
    reached = [cost for found, cost in zip(row["accuracy"], row[unit], strict=True) if found >= accuracy]
    return reached[0] if reached else math.inf


def ratios_to_full(rows: dict[int, dict[str, Any]], full: dict[int, dict[str, Any]]) -> dict[str, dict[int, float]]:
    """By name and seed; times are those of the processor."""
    found: dict[str, dict[int, float]] = {}
    for seed in sorted(rows.keys() & full.keys()):
        mine, its = rows[seed], full[seed]
        end = its["accuracy"][-1]
        ratios = {
            "time": mine["processor_s"][-1] / its["processor_s"][-1],
            "wall": mine["wall_s"][-1] / its["wall_s"][-1],
        }
        for name, share, unit in PASSAGES:
            ratios[name] = cost_until(mine, share * end, unit) / cost_until(its, share * end, unit)
        for name, ratio in ratios.items():
            found.setdefault(name, {})[seed] = ratio
    return found


def interval(ratios: dict[int, float]) -> str:
    """Mean with its 95 % t-interval where every seed has a number, else how many have."""
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
    medians: dict[str, float | None] = {}
    for arm, by_seed in arms.items():
        if arm == "full":
            continue
        print(f"{arm}, ratios to full")
        for name, ratios in ratios_to_full(by_seed, arms["full"]).items():
            print(f"  {name:16} {interval(ratios)}")
            median = statistics.median(ratios.values())
            medians[f"{arm}_{name}"] = median if math.isfinite(median) else None
    intervals = {arm: [d.difference, d.low, d.high] for arm, d in differences.items()}
    goals = {"crop_time": TIME_GOAL}
    print(json.dumps({"ratios": medians, "goals": goals, "differences": intervals}).replace("NaN", "null"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", choices=list(USUAL))
    parser.add_argument("--data", default="../shared/data/cwru_12k_de")
    parser.add_argument("--model", default="cnn1d")
    parser.add_argument("--arms", default="full,short,crop,interpolate,truncate", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--machines", type=int, default=32)
    parser.add_argument("--window", type=int, help="full length in samples")
    parser.add_argument("--epochs", type=int, help="of the progressive arms and of full")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--schedule", default="onecycle", help="of the learning rate, over all stages")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("progressive.jsonl"))
    arguments = parser.parse_args()
    for name, value in USUAL[arguments.test].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    run(arguments, {(row["arm"], row["seed"]) for row in read(arguments.results, arguments)}, arguments.results)
    report(read(arguments.results, arguments))


if __name__ == "__main__":
    main()
