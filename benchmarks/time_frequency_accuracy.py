"""Accuracy with each time-frequency representation, on unseen machines and bearings.

Two tests, both split by specimen, those of `augmentation_accuracy.py`. `simulated`: journal bearings, 40 machines,
every recording with sensor noise at 5 dB; a quarter of the machines is the test part; each seed draws new machines,
weights and order. `cwru`: inner race, outer race and ball faults at the drive end; each fold holds out one fault size,
and scores are pooled over the three folds of a seed.

Arms: `raw`, the control, is a network on the waveform (--raw). A kind of representation (`stft`, `cwt`, `wvd`,
`envelope`, `order`) is `cnn2d` (--model) on maps of 64 by 64; `order_band` is the order map of the squared envelope of
the upper band, where structures resonate (0.25 to 0.95 of half the sampling rate). `multi` is a `MultiTFR` of stft,
cwt, wvd and order with separate weights, `shared` one with the same weights for all four. `+mask` after an arm trains
it with SpecAugment, two masks on each axis, at most 10 wide. All arms of a seed see the same windows, have the same
optimizer and schedule, and are scored on recordings (soft vote over windows) with the weights of the lowest validation
loss. Arms of one network start from the same weights.

Every arm sees the windows equally often, so `multi` and `shared` take four times as many steps. Their control is `*4`
after an arm of one kind (`cwt*4`, `cwt*4+mask`): four times the epochs, so as many steps and choices of the best epoch.
It runs only if --arms names it; what `multi` gains over it is due to the several kinds.

    python benchmarks/time_frequency_accuracy.py simulated --seeds 3
    python benchmarks/time_frequency_accuracy.py cwru --seeds 3

Maps are computed once per seed and kept in memory; that time is reported next to the training time of each arm. The
printed ratios are those of training time to the control; they have no goals. `cwru` reads the recordings from
`$WHIRL_REAL_DATA/cwru_12k_de` or from --data. Finished runs are stored in --results, one JSON line each; an interrupted
benchmark continues.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import ResultsFile, add_seed_options, chosen_seeds, configure, make_parser, names, print_results
from _unseen_specimens import add_test_options, count_confusion, folds_of
from torch import Tensor

from whirl.data import WindowDataset, make_loader
from whirl.dsp.time_frequency import KINDS, TimeFrequency
from whirl.engine import load_weights
from whirl.evaluation import Predictions, compare_arms, predict_windows
from whirl.evaluation.metrics import scores
from whirl.models import CNN2d, MultiTFR, ResNet18Maps, create_model
from whirl.models.multi_tfr import DEFAULT_KINDS
from whirl.optim import create_training_scheduler
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.runs import Config
from whirl.runs.data import PreparedData, prepare
from whirl.training import MultiTFRTrainer, SpectrogramTrainer, Trainer
from whirl.training.spectrogram_trainer import mask_params

GOALS: dict[str, str] = {}
EPOCHS = {"simulated": 8, "cwru": 15}  # with these, all arms of both tests take 20 minutes of processor time per seed
MAP_NETWORKS = {"cnn2d": CNN2d, "resnet18_2d": ResNet18Maps}
TOGETHER = ("multi", "shared")
LONGER, MASKED = "*4", "+mask"
ORDER_BAND = (0.25, 0.95)  # of half the sampling rate
ARMS = ["raw", *(f"{arm}{mask}" for arm in (*KINDS, "order_band", *TOGETHER) for mask in ("", MASKED))]


class Maps:
    """Maps of all windows of a data set, in memory; a batch is one gather."""

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
    """The windows of a split, and their maps when they are needed."""

    def __init__(self, config: Config) -> None:
        self.data: PreparedData = prepare(config)
        self.config = self.data.config
        split = self.data.split
        self.windows = {
            "train": self.data.windows(split.train, self.config.input.hop),
            "val": self.data.windows(split.val),
            "test": self.data.windows(split.test),
        }
        self.maps: dict[str, dict[str, Maps]] = {}
        self.maps_s: dict[str, float] = {}

    def of(self, kind: str) -> dict[str, Any]:
        """Return the data sets by part: windows for `raw`, otherwise maps of that kind."""
        if kind == "raw":
            return self.windows
        if kind not in self.maps:
            start = time.process_time()
            representation = representation_of(kind, self.config)
            self.maps[kind] = {part: Maps(windows, representation) for part, windows in self.windows.items()}
            self.maps_s[kind] = time.process_time() - start
        return self.maps[kind]

    def loader(self, kind: str, part: str) -> Any:
        dataset, size = self.of(kind)[part], self.config.training.batch_size
        if part != "train":
            return make_loader(dataset, 256)
        # Batch normalization cannot learn from a single window.
        drop_last = len(dataset) % size == 1
        return make_loader(dataset, size, shuffle=True, seed=self.config.run.seed, drop_last=drop_last)


def representation_of(kind: str, config: Config) -> TimeFrequency:
    rate_hz = config.data.sampling_rate_hz
    if kind == "order_band":
        low, high = ORDER_BAND
        return TimeFrequency("order", rate_hz, band_hz=(low * rate_hz / 2, high * rate_hz / 2))
    return TimeFrequency(kind, rate_hz)


def kinds_of(arm: str) -> tuple[str, ...]:
    kind = arm.removesuffix(MASKED).removesuffix(LONGER)
    return DEFAULT_KINDS if kind in TOGETHER else (kind,)


def epochs_of(arm: str, config: Config) -> int:
    return config.training.epochs * (len(DEFAULT_KINDS) if LONGER in arm else 1)


def new_network(arm: str, arguments: argparse.Namespace, config: Config) -> torch.nn.Module:
    torch.manual_seed(config.run.seed)
    n_classes, n_channels, kinds = len(config.data.classes), len(config.data.channels), kinds_of(arm)
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
    training = config.training
    optimizer = create_optimizer(training.optimizer, model.parameters(), training.lr, training.weight_decay)
    n_steps = sum(map(len, train.values()))
    parts: dict[str, Any] = {
        "optimizer": optimizer,
        "device": fold.data.device,
        "lr_scheduler": create_training_scheduler(training.schedule, optimizer, epochs_of(arm, config), n_steps),
        "checkpoint_dir": scratch,
    }
    if kinds == ("raw",):
        return Trainer(model, train["raw"], val["raw"], **parts)
    masks: dict[str, Any] = {"use_specaugment": arm.endswith(MASKED), **mask_params(64, 64)}
    if len(kinds) == 1:
        return SpectrogramTrainer(model, train[kinds[0]], val[kinds[0]], **parts, **masks)
    return MultiTFRTrainer(model, train, val, **parts, **masks)


def predict_test(model: torch.nn.Module, fold: Fold, kinds: tuple[str, ...]) -> Predictions:
    """Predict the test windows; several representations give the mean of their probabilities, as `MultiTFR` does."""
    networks: dict[str, Any] = {
        kind: model.members[kind].network if isinstance(model, MultiTFR) else model for kind in kinds
    }
    found = [predict_windows(network, fold.loader(kind, "test")) for kind, network in networks.items()]
    mean = np.mean([predictions.probabilities for predictions in found], axis=0)
    return Predictions(mean, found[0].targets, found[0].recording)


def confusion_of(arm: str, arguments: argparse.Namespace, fold: Fold) -> tuple[np.ndarray, float]:
    """Return the test recordings `[true, predicted]` at the lowest validation loss, and the seconds of training."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer = new_trainer(arm, arguments, fold, scratch)
        start = time.process_time()
        trainer.fit(epochs_of(arm, fold.config))
        train_s = time.process_time() - start
        load_weights(trainer.model, Path(scratch) / "best.pt")
    predictions = predict_test(trainer.model, fold, kinds_of(arm))
    return count_confusion(predictions, len(fold.data.classes)), train_s


def folds(arguments: argparse.Namespace, seed: int) -> list[Config]:
    settings = {"epochs": arguments.epochs, "seed": seed, "device": arguments.device}
    return folds_of(arguments, settings, {"seed": seed, "snr_db_range": (5, 5)})


def run(arguments: argparse.Namespace, results: ResultsFile) -> None:
    done = {(row["arm"], row["seed"]) for row in results.rows()}
    for seed in chosen_seeds(arguments):
        arms = [arm for arm in arguments.arms if (arm, seed) not in done]
        prepared = [Fold(config) for config in folds(arguments, seed)] if arms else []
        for arm in arms:
            found = [confusion_of(arm, arguments, fold) for fold in prepared]
            macro_f1 = float(scores(np.sum([counts for counts, _ in found], axis=0))["macro_f1"])
            train_s = sum(seconds for _, seconds in found)
            maps_s = sum(fold.maps_s.get(kind, 0.0) for fold in prepared for kind in kinds_of(arm))
            results.append({"arm": arm, "seed": seed, "macro_f1": macro_f1, "train_s": train_s, "maps_s": maps_s})
            times = f"training {train_s:.0f} s, maps {maps_s:.0f} s"
            print(f"{arm:14} seed {seed}  macro F1 {macro_f1:.3f}  {times}", flush=True)


def main() -> None:
    parser = make_parser(__doc__)
    add_test_options(parser, machines=40)
    add_seed_options(parser, seeds=3)
    parser.add_argument("--model", default="cnn2d", choices=list(MAP_NETWORKS))
    parser.add_argument("--raw", default="cnn1d", help="network of the arm raw (default %(default)s)")
    parser.add_argument("--arms", default=",".join(ARMS), type=names)
    parser.add_argument("--epochs", type=int, default=None, help=f"default {EPOCHS}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("time_frequency_accuracy.jsonl"))
    arguments = parser.parse_args()
    arguments.epochs = arguments.epochs or EPOCHS[arguments.test]
    configure()
    settings = ("test", "raw", "model", "epochs", "machines")
    results = ResultsFile(arguments.results, {name: getattr(arguments, name) for name in settings})
    run(arguments, results)
    by_arm: dict[str, dict[int, float]] = defaultdict(dict)
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in results.rows():
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
    print_results(time_ratios, GOALS, differences=differences)


if __name__ == "__main__":
    main()
