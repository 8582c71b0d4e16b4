"""Accuracy of students of 1/4 and 1/16 of the parameters with and without a teacher, and the cost of distillation.

`accuracy`: simulated journal bearings, 80 machines, a quarter of which is the test part. The
teacher is `cnn1d` with the default recipe. The students are `cnn1d` with narrower layers, the widest that have at most
1/4 and 1/16 of its parameters, trained by the same recipe: once on labels alone, once on labels and the teacher's
logits, from the same weights, with the same windows in the same order, for as many epochs (--student-epochs, by default
the teacher's). Each seed draws new machines, weights and order. The weights of the lowest validation loss are
evaluated: the accuracy of windows, and of recordings by vote. Differences are paired over seeds, with 95 % t-intervals.
`kept` is a student's accuracy over its teacher's.

`tune`: temperature and alpha are chosen with this, on the validation parts of other seeds, never on a test part: it
prints the cross entropy, and the accuracy of recordings, of the 1/16 student on validation machines.

`cost`: processor time of one epoch of a `wdcnn` student of a `resnet18_1d`: without a teacher, with cached teacher
logits, and with a forward pass of the teacher in every step.

    python benchmarks/distillation.py cost
    python benchmarks/distillation.py tune --seeds 1
    python benchmarks/distillation.py accuracy --seeds 5 --temperature 4 --alpha 0.7

Finished runs of `accuracy` and `tune` are stored in --results, one JSON line each; an interrupted benchmark continues.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import (
    ResultsFile,
    add_seed_options,
    chosen_seeds,
    configure,
    make_parser,
    measure,
    median_ratio,
    print_medians,
    print_results,
)
from torch import nn

from whirl.data import Recording, WindowDataset, make_loader
from whirl.engine import load_weights
from whirl.evaluation import (
    Predictions,
    aggregate_by_recording,
    compare_arms,
    paired_difference,
    predict_windows,
)
from whirl.models import create_model, register_model
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.runs import Config, RunFolder, make_config
from whirl.runs.config import with_settings
from whirl.runs.data import PreparedData, prepare
from whirl.runs.teacher import make_distillation_trainer
from whirl.runs.trainers import make_trainer
from whirl.training import DistillationLoss, DistillationTrainer, Trainer, count_parameters

Setting = tuple[float, float]  # temperature and alpha

FRACTIONS = {"1/4": 4, "1/16": 16}
FIRST_TUNING_SEED = 1000
GRID = [(temperature, alpha) for temperature in (2.0, 4.0, 8.0) for alpha in (0.5, 0.7, 0.9)]
GOALS = {"kept_1/16 distilled": ">= 0.98", "cached_vs_plain": "<= 1.15"}


def register_students(model: str, n_classes: int) -> dict[str, str]:
    """Register the narrower networks, and return their names by fraction of the parameters."""
    return {fraction: register_narrow(model, n_classes, divisor) for fraction, divisor in FRACTIONS.items()}


def register_narrow(model: str, n_classes: int, divisor: int) -> str:
    """Register the widest form, in steps of 1/128, with at most this fraction of the parameters; return its name."""
    allowed = count_parameters(create_model(model, n_classes)) / divisor
    widths = (step / 128 for step in range(127, 0, -1))
    width = next(w for w in widths if count_parameters(create_model(model, n_classes, width=w)) <= allowed)
    name = f"{model}_{divisor}th"
    register_model(name)(lambda num_classes, in_channels: create_model(model, num_classes, in_channels, width=width))
    return name


def configuration(arguments: argparse.Namespace, seed: int) -> Config:
    settings = {"model": arguments.model, "epochs": arguments.epochs, "seed": seed, "device": arguments.device}
    simulation = {"n_machines": arguments.machines, "duration_s": arguments.seconds, "seed": seed}
    return make_config(settings | {"simulation": simulation, "threads": 1})


def for_student(data: PreparedData, name: str, epochs: int | None) -> PreparedData:
    epochs = epochs or data.config.training.epochs
    return replace(data, config=with_settings(data.config, model=name, epochs=epochs))


def train(
    data: PreparedData, make_student: Callable[[Trainer], Trainer] = lambda trainer: trainer
) -> tuple[nn.Module, float]:
    """Return a network with the weights of its lowest validation loss, and the processor time of training."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)
        trainer = make_student(make_trainer(data, folder))
        trainer.fit(data.config.training.epochs)
        load_weights(trainer.model, folder.best_checkpoint)
    return trainer.model, time.process_time() - start


def accuracy(predictions: Predictions) -> float:
    return float((predictions.predicted == predictions.targets).mean())


def cross_entropy(predictions: Predictions) -> float:
    of_target = predictions.probabilities[range(len(predictions.targets)), predictions.targets]
    return float(-np.log(np.maximum(of_target, 1e-12)).mean())


def evaluate(network: nn.Module, data: PreparedData, part: Sequence[Recording]) -> dict[str, float]:
    windows = predict_windows(network, data.windows(part))
    by_recording = aggregate_by_recording(windows)
    return {
        "recording_accuracy": accuracy(by_recording),
        "window_accuracy": accuracy(windows),
        "cross_entropy": cross_entropy(windows),
        "parameters": count_parameters(network),
    }


def results_of(arguments: argparse.Namespace) -> ResultsFile:
    """Return the file of results; tuning is evaluated on the validation part."""
    settings = ("model", "machines", "seconds", "epochs", "student_epochs")
    part = "val" if arguments.job == "tune" else "test"
    return ResultsFile(arguments.results, {name: getattr(arguments, name) for name in settings} | {"part": part})


def arms_of(
    arguments: argparse.Namespace, students: dict[str, str]
) -> dict[str, tuple[str, tuple[float, float] | None]]:
    """Return the network, and temperature and alpha where there is a teacher, by the name of the arm."""
    if arguments.job == "tune":
        return {f"T={t:g} alpha={a:g}": (students["1/16"], (t, a)) for t, a in GRID}
    setting = (arguments.temperature, arguments.alpha)
    plain = {f"{fraction} plain": (name, None) for fraction, name in students.items()}
    return plain | {f"{fraction} distilled": (name, setting) for fraction, name in students.items()}


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train the runs that are missing, and return all rows."""
    results = results_of(arguments)
    done = {(row["arm"], row["seed"], tuple(row["setting"] or ())) for row in results.rows()}
    arms = arms_of(arguments, register_students(arguments.model, len(JOURNAL_CLASSES)))
    for seed in chosen_seeds(arguments):
        missing = {arm: found for arm, found in arms.items() if (arm, seed, found[1] or ()) not in done}
        if missing:
            run_seed(arguments, seed, missing, results, ("teacher", seed, ()) not in done)
    return results.rows()


def run_seed(
    arguments: argparse.Namespace,
    seed: int,
    arms: dict[str, tuple[str, Setting | None]],
    results: ResultsFile,
    evaluates_teacher: bool,
) -> None:
    data = prepare(configuration(arguments, seed))
    recordings = data.split.val if arguments.job == "tune" else data.split.test

    def store(arm: str, setting: Setting | None, network: nn.Module, processor_s: float) -> None:
        row = {"arm": arm, "seed": seed, "setting": setting, **evaluate(network, data, recordings)}
        results.append(row | {"processor_s": processor_s})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))
        print(f"{arm:22} seed {seed}  {shown}  {processor_s:.4g} s", flush=True)

    teacher, teacher_s = train(data)
    if evaluates_teacher:
        store("teacher", None, teacher, teacher_s)
    for arm, (name, setting) in arms.items():
        student = for_student(data, name, arguments.student_epochs)
        if setting is None:
            store(arm, setting, *train(student))
        else:
            store(arm, setting, *train(student, partial(with_teacher, teacher=teacher, setting=setting)))


def with_teacher(trainer: Trainer, teacher: nn.Module, setting: Setting) -> DistillationTrainer:
    """Return a trainer with the same recipe and a teacher."""
    names = ("model", "optimizer", "criterion", "train_loader", "val_loader", "device", "lr_scheduler")
    parts = {name: getattr(trainer, name) for name in (*names, "checkpoint_dir", "augmentation")}
    return make_distillation_trainer(parts | {"mixed_precision": trainer.precision.name}, teacher, *setting)


def table(rows: Sequence[dict[str, Any]], name: str) -> dict[str, dict[int, float]]:
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        scores[row["arm"]][row["seed"]] = row[name]
    return scores


def report_accuracy(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    rows = [row for row in rows if row["setting"] in (None, [arguments.temperature, arguments.alpha])]
    recordings = table(rows, "recording_accuracy")
    for name in ("recording_accuracy", "window_accuracy"):
        print(f"\n{name}: mean, difference to the teacher\n{'arm':16} parameters  runs")
        for arm, difference in compare_arms(table(rows, name), "teacher").items():
            parameters = next(row["parameters"] for row in rows if row["arm"] == arm)
            print(f"{arm:16} {parameters:10}  {difference.n_runs:4}  {difference}")
    gains = {f: paired_difference(recordings[f"{f} distilled"], recordings[f"{f} plain"]) for f in FRACTIONS}
    for fraction, gain in gains.items():
        print(f"{fraction}: distilled minus plain  {gain}")
    ones = dict.fromkeys(recordings["teacher"], 1.0)
    kept = {}
    for arm, scores in recordings.items():
        shares = {seed: score / recordings["teacher"][seed] for seed, score in scores.items()}
        kept[arm] = paired_difference(shares, ones)
        print(f"{arm:16} keeps {kept[arm].mean:.4f} [{1 + kept[arm].low:.4f}, {1 + kept[arm].high:.4f}]")
    found = {f"kept_{arm}": [k.mean, 1 + k.low, 1 + k.high] for arm, k in kept.items()}
    gained = {f"gain_{fraction}": [g.difference, g.low, g.high] for fraction, g in gains.items()}
    ratios = {name: values[0] for name, values in found.items()}
    print_results(ratios, GOALS, intervals=found | gained)


def report_tuning(rows: Sequence[dict[str, Any]]) -> None:
    entropy, recordings = table(rows, "cross_entropy"), table(rows, "recording_accuracy")
    print("\nmean over the tuning seeds, on validation machines: cross entropy of windows, accuracy of recordings")
    for arm in sorted(recordings, key=lambda arm: -statistics.mean(recordings[arm].values())):
        of_windows, of_recordings = (statistics.mean(scores[arm].values()) for scores in (entropy, recordings))
        print(f"{arm:20} {of_windows:.4f}  {of_recordings:.4f}")
    print_results({}, GOALS)


def cost(arguments: argparse.Namespace) -> None:
    kinds = ("plain", "cached", "uncached")
    epochs = {kind: epoch_of(kind, arguments) for kind in kinds}
    seconds = measure(epochs, arguments.rounds)  # teacher logits are cached in the warm-up round
    print_medians(seconds, "s", "epoch")
    ratios = {f"{kind}_vs_plain": median_ratio(seconds[kind], seconds["plain"]) for kind in kinds[1:]}
    print_results(ratios, GOALS)


def epoch_of(kind: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """Return an epoch of a new student over `--windows` windows of 2048 samples in batches of 64."""
    generator = np.random.default_rng(0)
    labels = [str(label) for label in range(11)]
    recordings = [
        Recording(generator.normal(size=2048 * arguments.windows // 11), 20_480.0, label=label) for label in labels
    ]
    loader = make_loader(WindowDataset(recordings, labels, 2048), 64, shuffle=True)
    torch.manual_seed(0)
    student = create_model("wdcnn", len(labels))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    if kind == "plain":
        return Trainer(student, loader, None, optimizer, device=arguments.device).train_epoch
    teacher, cached = create_model("resnet18_1d", len(labels)), kind == "cached"
    return DistillationTrainer(
        teacher, student, DistillationLoss(), optimizer, arguments.device, train_loader=loader, cache_teacher=cached
    ).train_epoch


def main() -> None:
    parser = make_parser(__doc__, rounds=15)
    parser.add_argument("job", choices=["accuracy", "tune", "cost"])
    parser.add_argument("--model", default="cnn1d", help="the teacher, a network with a width (default %(default)s)")
    add_seed_options(parser, seeds=5, first_seed=None)
    parser.add_argument("--machines", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a recording (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--student-epochs", type=int, default=None, help="epochs of every student (default: --epochs)")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--alpha", type=float, default=0.7)
    parser.add_argument("--windows", type=int, default=1100, help="windows per epoch of cost (default %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("distillation.jsonl"))
    arguments = parser.parse_args()
    if arguments.first_seed is None:
        arguments.first_seed = FIRST_TUNING_SEED if arguments.job == "tune" else 0
    configure()
    if arguments.job == "cost":
        cost(arguments)
    elif arguments.job == "tune":
        report_tuning(run(arguments))
    else:
        report_accuracy(run(arguments), arguments)


if __name__ == "__main__":
    main()
