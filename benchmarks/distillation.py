"""What a student of 1/4 and 1/16 of the parameters keeps of its teacher, taught and untaught; what teaching costs.

`accuracy`: simulated journal bearings, 80 machines, a quarter of which is the test part, as in `whirl train`. The
teacher is `cnn1d` trained as there. The students are `cnn1d` with narrower layers, the widest that have at most 1/4 and
1/16 of its parameters, trained by the same recipe: once on labels alone, once on labels and the teacher's logits, from
the same weights, with the same windows in the same order, for as many epochs (--student-epochs, by default the
teacher's). Each seed draws new machines, weights and order. As everywhere, the epoch of the lowest validation loss is
judged: the accuracy of windows, and of recordings by vote. Differences are paired over seeds, with 95 % t-intervals.
`kept` is a student's accuracy over its teacher's.

`tune`: temperature and alpha are chosen by this, on the validation parts of other seeds, and never see a test part: the
cross entropy, and the accuracy of recordings, of the 1/16 student on validation machines.

`cost`: processor time of one epoch of a WDCNN student of a ResNet-18: plain, with the teacher's logits kept, and with
the teacher asked in every step. The three take turns in an order drawn anew each round; ratios are medians over rounds.

    python benchmarks/distillation.py cost
    python benchmarks/distillation.py tune --seeds 1
    python benchmarks/distillation.py accuracy --seeds 5 --temperature 4 --alpha 0.7

Finished runs of `accuracy` and `tune` are kept in --results, one JSON line each; started again, the script goes on from
there.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.checkpoint import load_weights
from whirl.evaluation.paired import compare_arms, paired_difference
from whirl.evaluation.prediction import Predictions, aggregate_by_recording, predict_windows
from whirl.models.registry import create_model, register_model
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.runs.config import RunConfig, SimulationConfig
from whirl.runs.data import PreparedData, prepare
from whirl.runs.run_folder import RunFolder
from whirl.runs.teacher import make_distillation_trainer
from whirl.runs.training import make_trainer
from whirl.training.knowledge_distillation import DistillationLoss, DistillationTrainer
from whirl.training.model_cost import count_parameters
from whirl.training.trainer import Trainer

Setting = tuple[float, float]  # temperature and alpha

FRACTIONS = {"1/4": 4, "1/16": 16}
FIRST_TUNING_SEED = 1000
GRID = [(temperature, alpha) for temperature in (2.0, 4.0, 8.0) for alpha in (0.5, 0.7, 0.9)]
KEPT_GOAL, COST_GOAL = ">= 0.98", "<= 1.15"


def register_students(model: str, n_classes: int) -> dict[str, str]:
    """Make the narrower networks known; their names, by fraction of the parameters."""
    return {fraction: register_narrow(model, n_classes, divisor) for fraction, divisor in FRACTIONS.items()}


def register_narrow(model: str, n_classes: int, divisor: int) -> str:
    """The widest form, in steps of 1/128, that has at most this part of the parameters."""
    allowed = count_parameters(create_model(model, n_classes)) / divisor
    widths = (step / 128 for step in range(127, 0, -1))
    width = next(w for w in widths if count_parameters(create_model(model, n_classes, width=w)) <= allowed)
    name = f"{model}_{divisor}th"
    register_model(name)(lambda num_classes, in_channels: create_model(model, num_classes, in_channels, width=width))
    return name


def configuration(arguments: argparse.Namespace, seed: int) -> RunConfig:
    simulation = SimulationConfig(n_machines=arguments.machines, duration_s=arguments.seconds, seed=seed)
    common = {"model": arguments.model, "epochs": arguments.epochs, "seed": seed, "device": arguments.device}
    return RunConfig(simulation=simulation, threads=1, **common)


def for_student(data: PreparedData, name: str, epochs: int | None) -> PreparedData:
    changes = {"model": name, "epochs": epochs or data.config.epochs}
    return replace(data, config=data.config.model_copy(update=changes))


def train(
    data: PreparedData, change: Callable[[Trainer], Trainer] = lambda trainer: trainer
) -> tuple[nn.Module, float]:
    """A network at the epoch of its lowest validation loss, and the processor time it took."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)
        trainer = make_trainer(data, folder)
        trainer = trainer if change is None else change(trainer)
        trainer.fit(data.config.epochs or 1)
        load_weights(trainer.model, folder.best_checkpoint)
    return trainer.model, time.process_time() - began


def accuracy(predictions: Predictions) -> float:
    return float((predictions.predicted == predictions.targets).mean())


def cross_entropy(predictions: Predictions) -> float:
    said = predictions.probabilities[range(len(predictions.targets)), predictions.targets]
    return float(-np.log(np.maximum(said, 1e-12)).mean())


def judge(network: nn.Module, data: PreparedData, part: Sequence[Recording]) -> dict[str, float]:
    windows = predict_windows(network, data.windows(part))
    by_recording = aggregate_by_recording(windows)
    return {
        "recording_accuracy": accuracy(by_recording),
        "window_accuracy": accuracy(windows),
        "cross_entropy": cross_entropy(windows),
        "parameters": count_parameters(network),
    }


def of_the_job(arguments: argparse.Namespace) -> dict[str, Any]:
    """What rows must have in common to be compared; tuning is judged on the validation part."""
    names = ("model", "machines", "seconds", "epochs", "student_epochs")
    return {name: getattr(arguments, name) for name in names} | {"part": "val" if arguments.job == "tune" else "test"}


def keep(arguments: argparse.Namespace, row: dict[str, Any]) -> None:
    with arguments.results.open("a") as file:
        file.write(json.dumps(of_the_job(arguments) | row) + "\n")
    shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))
    print(f"{row['arm']:22} seed {row['seed']}  {shown}", flush=True)


def kept_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if not arguments.results.exists():
        return []
    rows = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    return [row for row in rows if all(row[name] == value for name, value in of_the_job(arguments).items())]


def arms_of(
    arguments: argparse.Namespace, students: dict[str, str]
) -> dict[str, tuple[str, tuple[float, float] | None]]:
    """Network, and temperature and alpha where it is taught, by the arm's name."""
    if arguments.job == "tune":
        return {f"T={t:g} alpha={a:g}": (students["1/16"], (t, a)) for t, a in GRID}
    setting = (arguments.temperature, arguments.alpha)
    plain = {f"{fraction} plain": (name, None) for fraction, name in students.items()}
    return plain | {f"{fraction} distilled": (name, setting) for fraction, name in students.items()}


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what is missing, and return all there is."""
    done = {(row["arm"], row["seed"], tuple(row["setting"] or ())) for row in kept_rows(arguments)}
    arms = arms_of(arguments, register_students(arguments.model, len(JOURNAL_CLASSES)))
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        missing = [arm for arm, (_, setting) in arms.items() if (arm, seed, setting or ()) not in done]
        if missing:
            run_seed(arguments, seed, {arm: arms[arm] for arm in missing}, ("teacher", seed, ()) not in done)
    return kept_rows(arguments)


def run_seed(
    arguments: argparse.Namespace, seed: int, arms: dict[str, tuple[str, Setting | None]], judges_teacher: bool
) -> None:
    data = prepare(configuration(arguments, seed))
    recordings = data.split.val if arguments.job == "tune" else data.split.test

    def note(arm: str, setting: Setting | None, network: nn.Module, processor_s: float) -> None:
        found = judge(network, data, recordings)
        keep(arguments, {"arm": arm, "seed": seed, "setting": setting, **found, "processor_s": processor_s})

    teacher, teacher_s = train(data)
    if judges_teacher:
        note("teacher", None, teacher, teacher_s)
    for arm, (name, setting) in arms.items():
        change = None if setting is None else partial(learn, teacher=teacher, setting=setting)
        note(arm, setting, *train(for_student(data, name, arguments.student_epochs), change))


def learn(trainer: Trainer, teacher: nn.Module, setting: Setting) -> DistillationTrainer:
    """The same recipe with a teacher."""
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
    goals = {"kept_1/16 distilled": KEPT_GOAL}
    print(json.dumps({"ratios": ratios, "goals": goals, "intervals": found | gained}))


def report_tuning(rows: Sequence[dict[str, Any]]) -> None:
    entropy, recordings = table(rows, "cross_entropy"), table(rows, "recording_accuracy")
    print("\nmean over the tuning seeds, on validation machines: cross entropy of windows, accuracy of recordings")
    for arm in sorted(recordings, key=lambda arm: -statistics.mean(recordings[arm].values())):
        of_windows, of_recordings = (statistics.mean(scores[arm].values()) for scores in (entropy, recordings))
        print(f"{arm:20} {of_windows:.4f}  {of_recordings:.4f}")


def cost(arguments: argparse.Namespace) -> None:
    epochs = {kind: epoch_of(kind, arguments) for kind in ("plain", "cached", "asked")}
    for epoch in epochs.values():
        epoch()  # warms up; the teacher is asked once here
    rounds = []
    for _ in range(arguments.rounds):
        order = random.sample(list(epochs), len(epochs))
        taken = {}
        for kind in order:
            began = time.process_time()
            epochs[kind]()
            taken[kind] = time.process_time() - began
        rounds.append(taken)
    for kind in epochs:
        print(f"{kind:7} {statistics.median(r[kind] for r in rounds):.3f} s an epoch")
    ratios = {f"{k}_vs_plain": statistics.median(r[k] / r["plain"] for r in rounds) for k in ("cached", "asked")}
    print(json.dumps({"ratios": ratios, "goals": {"cached_vs_plain": COST_GOAL}}))


def epoch_of(kind: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """One epoch of a fresh student over `--windows` windows of 2048 samples, 64 at a time."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["accuracy", "tune", "cost"])
    parser.add_argument("--model", default="cnn1d", help="of the teacher; one that takes a width")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=None)
    parser.add_argument("--machines", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a recording")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--student-epochs", type=int, default=None, help="of every student; default as the teacher")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--alpha", type=float, default=0.7)
    parser.add_argument("--windows", type=int, default=1100, help="of cost")
    parser.add_argument("--rounds", type=int, default=15, help="of cost")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("distillation.jsonl"))
    arguments = parser.parse_args()
    if arguments.first_seed is None:
        arguments.first_seed = FIRST_TUNING_SEED if arguments.job == "tune" else 0
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.job == "cost":
        cost(arguments)
    elif arguments.job == "tune":
        report_tuning(run(arguments))
    else:
        report_accuracy(run(arguments), arguments)


if __name__ == "__main__":
    main()
