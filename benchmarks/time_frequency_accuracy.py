"""What each time-frequency representation is worth on machines and bearings that training never saw.

Two tests, both grouped by specimen, those of `augmentation_accuracy.py`. `simulated`: journal bearings, 40 machines,
every recording with sensor noise at 5 dB; a quarter of the machines is the test part; each seed draws new machines,
weights and order. `cwru`: inner race, outer race and ball faults at the drive end; one fault size is held out in turn,
scores are pooled over the three folds of a seed.

Arms: `raw`, the control, is a network on the waveform (--raw). A kind of representation (`stft`, `cwt`, `wvd`,
`envelope`, `order`) is `cnn2d` (--model) on maps of 64 by 64; `order_band` is the order map of the squared envelope of
the upper band, where structures resonate (0.25 to 0.95 of half the sampling rate). `multi` is a `MultiTFR` of stft,
cwt, wvd and order with weights of their own, `shared` one with the same weights for all four. `+mask` behind an arm
trains it with SpecAugment, two masks on each axis, 10 wide at most. All arms of a seed see the same windows, have the
same optimizer and schedule, and are scored on recordings (soft vote over windows) at the epoch of the lowest validation
loss. Arms of one network start from the same weights.

Every arm goes through the windows as many times, so `multi` and `shared` take four times as many steps. Their control
is `*4` behind an arm of one kind (`cwt*4`, `cwt*4+mask`): four times the epochs, so as many steps and choices of the
best epoch. It is asked for by --arms; what `multi` gains over it is due to the several kinds.

    python benchmarks/time_frequency_accuracy.py simulated --seeds 3
    python benchmarks/time_frequency_accuracy.py cwru --data ../shared/data/cwru_12k_de --seeds 3

Maps are made once for a seed and kept in memory; the time that takes is told beside the training time of each arm.
Finished runs are kept in --results, one JSON line each; started again with the same settings, the script goes on from
there. Lines that do not say their epochs, machines or data were written with the defaults.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whirl.data.loaders import make_loader
from whirl.data.windows import WindowDataset
from whirl.dsp.time_frequency import KINDS, TimeFrequency
from whirl.engine.checkpoint import load_weights
from whirl.evaluation.metrics import scores
from whirl.evaluation.paired import compare_arms
from whirl.evaluation.prediction import Predictions, aggregate_by_recording, predict_windows
from whirl.models.cnn2d import CNN2d
from whirl.models.multi_tfr import DEFAULT_KINDS, MultiTFR
from whirl.models.registry import create_model
from whirl.models.resnet18_2d import ResNet18Maps
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.runs.config import RunConfig, SimulationConfig
from whirl.runs.data import PreparedData, prepare
from whirl.training.spectrogram_trainer import MultiTFRTrainer, SpectrogramTrainer, mask_params
from whirl.training.trainer import Trainer

SIZES = ("007", "014", "021")
EPOCHS = {"simulated": 8, "cwru": 15}  # all arms of both tests take 20 minutes of processor time for a seed then
MAP_NETWORKS = {"cnn2d": CNN2d, "resnet18_2d": ResNet18Maps}
TOGETHER = ("multi", "shared")
LONGER, MASKED = "*4", "+mask"
ORDER_BAND = (0.25, 0.95)  # of half the sampling rate
ARMS = ["raw", *(f"{arm}{mask}" for arm in (*KINDS, "order_band", *TOGETHER) for mask in ("", MASKED))]
USUAL = {"machines": 40, "data": "cwru_12k_de"}


class Maps:
    """Maps of all windows of a data set in memory; a batch is one gather."""

    def __init__(self, windows: WindowDataset, representation: TimeFrequency) -> None:
        batches = [windows[start : start + 64] for start in range(0, len(windows), 64)]
        self.maps = torch.cat([representation(signals, metadata) for signals, _, metadata in batches])
        self.targets = windows.targets
        self.recording = torch.cat([metadata["recording"] for _, _, metadata in batches])

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        return self.maps[indices], self.targets[indices], {"recording": self.recording[indices]}


class Fold:
    """The windows of a split, and on demand their maps."""

    def __init__(self, config: RunConfig) -> None:
        self.data: PreparedData = prepare(config)
        self.config = self.data.config
        split = self.data.split
        self.windows = {
            "train": self.data.windows(split.train, self.config.hop),
            "val": self.data.windows(split.val),
            "test": self.data.windows(split.test),
        }
        self.maps: dict[str, dict[str, Maps]] = {}
        self.maps_s: dict[str, float] = {}

    def of(self, kind: str) -> dict[str, Any]:
        """Data sets by part: windows for `raw`, otherwise maps of that kind."""
        if kind == "raw":
            return self.windows
        if kind not in self.maps:
            began = time.process_time()
            representation = representation_of(kind, self.config)
            self.maps[kind] = {part: Maps(windows, representation) for part, windows in self.windows.items()}
            self.maps_s[kind] = time.process_time() - began
        return self.maps[kind]

    def loader(self, kind: str, part: str) -> Any:
        config, dataset = self.config, self.of(kind)[part]
        if part != "train":
            return make_loader(dataset, 256)
        odd = len(dataset) % config.batch_size == 1
        return make_loader(dataset, config.batch_size, shuffle=True, seed=config.seed, drop_last=odd)


def representation_of(kind: str, config: RunConfig) -> TimeFrequency:
    rate_hz = config.sampling_rate_hz or 0
    if kind == "order_band":
        low, high = ORDER_BAND
        return TimeFrequency("order", rate_hz, band_hz=(low * rate_hz / 2, high * rate_hz / 2))
    return TimeFrequency(kind, rate_hz)


def kinds_of(arm: str) -> tuple[str, ...]:
    kind = arm.removesuffix(MASKED).removesuffix(LONGER)
    return DEFAULT_KINDS if kind in TOGETHER else (kind,)


def epochs_of(arm: str, config: RunConfig) -> int:
    return (config.epochs or 1) * (len(DEFAULT_KINDS) if LONGER in arm else 1)


def new_network(arm: str, arguments: argparse.Namespace, config: RunConfig) -> torch.nn.Module:
    torch.manual_seed(config.seed)
    n_classes, n_channels, kinds = len(config.classes or ()), len(config.channels or ()), kinds_of(arm)
    if kinds == ("raw",):
        return create_model(arguments.raw, n_classes, n_channels)
    network = MAP_NETWORKS[arguments.model]
    first = network(n_classes, n_channels)
    if len(kinds) == 1:
        return first
    is_shared = arm.startswith("shared")
    networks = {kind: first if is_shared or kind == kinds[0] else network(n_classes, n_channels) for kind in kinds}
    return MultiTFR({kind: representation_of(kind, config) for kind in kinds}, networks)


def new_trainer(arm: str, arguments: argparse.Namespace, fold: Fold, scratch: str) -> Trainer:
    config, kinds = fold.config, kinds_of(arm)
    model = new_network(arm, arguments, config)
    train, val = ({kind: fold.loader(kind, part) for kind in kinds} for part in ("train", "val"))
    optimizer = create_optimizer(config.optimizer, model.parameters(), config.lr, config.weight_decay)
    n_steps = sum(map(len, train.values()))
    parts: dict[str, Any] = {
        "optimizer": optimizer,
        "device": config.device,
        "lr_scheduler": create_training_scheduler(config.schedule, optimizer, epochs_of(arm, config), n_steps),
        "checkpoint_dir": scratch,
    }
    if kinds == ("raw",):
        return Trainer(model, train["raw"], val["raw"], **parts)
    masks: dict[str, Any] = {"use_specaugment": arm.endswith(MASKED), **mask_params(64, 64)}
    if len(kinds) == 1:
        return SpectrogramTrainer(model, train[kinds[0]], val[kinds[0]], **parts, **masks)
    return MultiTFRTrainer(model, train, val, **parts, **masks)


def judge(model: torch.nn.Module, fold: Fold, kinds: tuple[str, ...]) -> Predictions:
    """Of the test windows; of several representations the mean of the probabilities, as `MultiTFR` gives it."""
    networks: dict[str, Any] = {
        kind: model.members[kind].network if isinstance(model, MultiTFR) else model for kind in kinds
    }
    found = [predict_windows(network, fold.loader(kind, "test")) for kind, network in networks.items()]
    mean = np.mean([predictions.probabilities for predictions in found], axis=0)
    return Predictions(mean, found[0].targets, found[0].recording)


def confusion_of(arm: str, arguments: argparse.Namespace, fold: Fold) -> tuple[np.ndarray, float]:
    """Train, take the epoch of the lowest validation loss, count the test recordings `[true, predicted]`; seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer = new_trainer(arm, arguments, fold, scratch)
        began = time.process_time()
        trainer.fit(epochs_of(arm, fold.config))
        train_s = time.process_time() - began
        load_weights(trainer.model, Path(scratch) / "best.pt")
    by_recording = aggregate_by_recording(judge(trainer.model, fold, kinds_of(arm)))
    counts = np.zeros((len(fold.data.classes),) * 2, dtype=int)
    np.add.at(counts, (by_recording.targets, by_recording.predicted), 1)
    return counts, train_s


def folds(arguments: argparse.Namespace, seed: int) -> list[RunConfig]:
    common = {"epochs": arguments.epochs, "seed": seed, "device": arguments.device}
    if arguments.test == "simulated":
        simulation = SimulationConfig(n_machines=arguments.machines, seed=seed, snr_db_range=(5, 5))
        return [RunConfig(simulation=simulation, **common)]
    cwru = {"classes": ["inner_race", "outer_race", "ball"], "channels": ["DE"], "sampling_rate_hz": 12_000}
    held_out = [[f"CWRU_DE_{fault}{size}" for fault in ("IR", "OR", "B")] for size in SIZES]
    return [RunConfig(data=arguments.data, test_specimens=specimens, **cwru, **common) for specimens in held_out]


def run(arguments: argparse.Namespace, done: set[tuple[str, int]]) -> None:
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        arms = [arm for arm in arguments.arms if (arm, seed) not in done]
        prepared = [Fold(config) for config in folds(arguments, seed)] if arms else []
        for arm in arms:
            results = [confusion_of(arm, arguments, fold) for fold in prepared]
            row = identity(arguments) | {
                "arm": arm, "seed": seed,
                "macro_f1": float(scores(np.sum([counts for counts, _ in results], axis=0))["macro_f1"]),
                "train_s": sum(seconds for _, seconds in results),
                "maps_s": sum(fold.maps_s.get(kind, 0.0) for fold in prepared for kind in kinds_of(arm)),
            }  # fmt: skip
            with arguments.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{arm:14} seed {seed}  macro F1 {row['macro_f1']:.3f}  "
                f"training {row['train_s']:.0f} s, maps {row['maps_s']:.0f} s",
                flush=True,
            )


def identity(arguments: argparse.Namespace) -> dict[str, Any]:
    """What rows must share to be compared."""
    names = ("test", "raw", "model", "epochs", "machines")
    return {name: getattr(arguments, name) for name in names} | {"data": Path(arguments.data).name}


def read(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if not arguments.results.exists():
        return []
    rows = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    rows = [{"epochs": EPOCHS[row["test"]], **USUAL, **row} for row in rows]
    wanted = identity(arguments)
    return [row for row in rows if {name: row[name] for name in wanted} == wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", choices=["simulated", "cwru"])
    parser.add_argument("--data", default=f"../shared/data/{USUAL['data']}")
    parser.add_argument("--model", default="cnn2d", choices=list(MAP_NETWORKS))
    parser.add_argument("--raw", default="cnn1d")
    parser.add_argument("--arms", default=",".join(ARMS), type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--machines", type=int, default=USUAL["machines"])
    parser.add_argument("--epochs", type=int, default=None, help=f"default {EPOCHS}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("time_frequency_accuracy.jsonl"))
    arguments = parser.parse_args()
    arguments.epochs = arguments.epochs or EPOCHS[arguments.test]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    run(arguments, {(row["arm"], row["seed"]) for row in read(arguments)})
    by_arm: dict[str, dict[int, float]] = defaultdict(dict)
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read(arguments):
        by_arm[row["arm"]][row["seed"]] = row["macro_f1"]
        seconds[row["arm"]].append((row["train_s"], row["maps_s"]))
    medians = {arm: [statistics.median(column) for column in zip(*s, strict=True)] for arm, s in seconds.items()}

    def table(title: str, found: dict[str, Any]) -> dict[str, list[float]]:
        print(f"\n{title:14} runs  mean   difference" + " " * 30 + "training, maps")
        for arm, difference in found.items():
            train_s, maps_s = medians[arm]
            print(f"{arm:14} {difference.n_runs:4}  {difference!s:50}  {train_s:.0f} s, {maps_s:.0f} s")
        return {arm: [d.difference, d.low, d.high] for arm, d in found.items()}

    control = "raw" if "raw" in by_arm else next(iter(by_arm))
    differences = {control: table(f"to {control}", compare_arms(by_arm, control))}
    masked = {arm: compare_arms(by_arm, arm, [arm + MASKED]) for arm in by_arm if arm + MASKED in by_arm}
    gains = {arm + MASKED: found[arm + MASKED] for arm, found in masked.items()}
    if gains:
        differences["without masks"] = table("masks", gains)
    several = [arm for arm in by_arm if len(kinds_of(arm)) > 1]
    for arm in (arm for arm in by_arm if LONGER in arm and several):
        differences[f"to {arm}"] = table(f"to {arm}", compare_arms(by_arm, arm, several))
    time_ratios = {f"time_{arm}": train_s / medians[control][0] for arm, (train_s, _) in medians.items()}
    print(json.dumps({"ratios": time_ratios, "goals": {}, "differences": differences}))


if __name__ == "__main__":
    main()
