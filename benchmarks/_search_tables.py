"""Tables of what every candidate of a grid scores and costs, on which `search.py` replays searches."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from _harness import ResultsFile, chosen_seeds
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, ParameterGrid

from whirl.data import SignalFeatures, WindowDataset, simulate, window_arrays
from whirl.data.arrays import WindowArrays
from whirl.engine import Callback
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.tuning import Range, SignalClassifier
from whirl.tuning.spaces import preset, preset_grid

RATE_HZ = 20_480
WINDOW = {"wdcnn": 4096, "RandomForest": 2048}
N_WINDOWS = {"wdcnn": 4, "RandomForest": 3}  # per recording
N_FOLDS = 3

Candidate = dict[str, Any]
Curve = tuple[list[float], list[float]]  # score and seconds of each step


def axes(model: str) -> dict[str, list[Any]]:
    """Return the values of each parameter in the table."""
    if model == "DeepForest":
        return preset_grid("RandomForest") | {"max_depth": [None]}
    if model != "wdcnn":
        return preset_grid(model)
    spaces: dict[str, Any] = preset(model)
    lr, decay, smoothing = (spaces[name] for name in ("lr", "weight_decay", "label_smoothing"))
    return {
        "batch_size": list(spaces["batch_size"].values),
        "label_smoothing": [smoothing.low, smoothing.high],
        "lr": Range(lr.low, lr.high, n_grid=6, log=True).grid(),
        "weight_decay": [decay.low, decay.high],
    }


def key_of(candidate: Mapping[str, Any]) -> str:
    return json.dumps(dict(candidate), sort_keys=True)


# -- training ----------------------------------------------------------------------------------------------------------


def windows_of(seed: int, n_machines: int, n_windows: int, window: int) -> WindowArrays:
    recordings = simulate(n_machines, recordings_per_class=1, seed=seed, n_samples=n_windows * window)
    return window_arrays(WindowDataset(recordings, JOURNAL_CLASSES, window), recordings)


class EpochTimer(Callback):
    """Records the processor time of every epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.start = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        now = time.process_time()
        self.seconds.append(now - self.start)
        self.start = now


class Network:
    """Trains candidates of `wdcnn`; a third of the machines is the validation part."""

    def __init__(self, seed: int, arguments: argparse.Namespace) -> None:
        data = windows_of(seed, arguments.machines, N_WINDOWS["wdcnn"], WINDOW["wdcnn"])
        self.X, self.y = data.X, data.y
        self.is_val = np.isin(data.groups, sorted(set(data.groups))[: arguments.machines // 3])
        self.model = SignalClassifier("wdcnn", epochs=arguments.epochs, random_state=seed, device="cpu")

    def train(self, candidate: Candidate, callbacks: Sequence[Callback] = ()) -> list[float]:
        """Return the accuracy on the validation machines after every epoch."""
        model, is_val = self.model.set_params(**candidate), self.is_val
        validation = self.X[is_val], self.y[is_val]
        model.fit(self.X[~is_val], self.y[~is_val], validation_data=validation, callbacks=callbacks)
        return model.history_["val_accuracy"]

    def curve(self, candidate: Candidate) -> Curve:
        timer = EpochTimer()
        return self.train(candidate, [timer]), timer.seconds


class Forest:
    """Trains candidates of the random forest on each of the folds."""

    def __init__(self, seed: int, arguments: argparse.Namespace) -> None:
        data = windows_of(seed, arguments.machines // 2, N_WINDOWS["RandomForest"], WINDOW["RandomForest"])
        self.X, self.y = SignalFeatures(RATE_HZ).fit_transform(data.X, rpm=data.rpm), data.y
        self.folds = list(GroupKFold(N_FOLDS, shuffle=True, random_state=seed).split(self.X, self.y, data.groups))
        self.model = RandomForestClassifier(random_state=seed)

    def curve(self, candidate: Candidate) -> Curve:
        scores, seconds, model = [], [], self.model.set_params(**candidate)
        for train, test in self.folds:
            start = time.process_time()
            scores.append(float(model.fit(self.X[train], self.y[train]).score(self.X[test], self.y[test])))
            seconds.append(time.process_time() - start)
        return [statistics.fmean(scores[: n + 1]) for n in range(len(scores))], seconds


TRAINERS: dict[str, Callable[[int, argparse.Namespace], Any]] = {
    "wdcnn": Network,
    "RandomForest": Forest,
    "DeepForest": Forest,
}


def results_of(arguments: argparse.Namespace, model: str) -> ResultsFile:
    settings = {"model": model, "machines": arguments.machines}
    return ResultsFile(arguments.results, settings | ({"epochs": arguments.epochs} if model == "wdcnn" else {}))


def make_tables(arguments: argparse.Namespace) -> None:
    """Train every candidate that is not in the results file yet."""
    for model in arguments.models:
        results, candidates = results_of(arguments, model), list(ParameterGrid(axes(model)))
        for seed in chosen_seeds(arguments):
            done = {key_of(row["candidate"]) for row in results.rows() if row["seed"] == seed}
            missing = [candidate for candidate in candidates if key_of(candidate) not in done]
            trainer = TRAINERS[model](seed, arguments) if missing else None
            for number, candidate in enumerate(missing, start=1):
                scores, seconds = trainer.curve(candidate)
                results.append({"seed": seed, "candidate": candidate, "scores": scores, "seconds": seconds})
                found = f"{scores[-1]:.3f}  {sum(seconds):.2f} s"
                print(f"{model} seed {seed} {number}/{len(missing)}  {candidate}  {found}", flush=True)


# -- tables ------------------------------------------------------------------------------------------------------------


class Table:
    """What every candidate of a model scores and costs, for one seed.

    Args:
        model: name of the model.
        curves: score and seconds of each step, by candidate.
        share: part of the best score that makes a candidate a good one.
    """

    def __init__(self, model: str, curves: Mapping[str, Curve], share: float) -> None:
        self.model, self.axes, self.curves = model, axes(model), curves
        self.candidates = list(ParameterGrid(self.axes))
        self.finals = [curves[key_of(candidate)][0][-1] for candidate in self.candidates]
        self.best = max(self.finals)
        self.target = share * self.best
        self.n_steps = len(curves[key_of(self.candidates[0])][0])
        self.n_good = sum(score >= self.target for score in self.finals)

    @property
    def time_s(self) -> float:
        """Time of all candidates together."""
        return sum(sum(seconds) for _, seconds in self.curves.values())

    def at(self, indices: Mapping[str, int]) -> Curve:
        """Return the curve of the candidate with these indices into the axes."""
        return self.curves[key_of({name: self.axes[name][index] for name, index in indices.items()})]


def tables_of(arguments: argparse.Namespace, model: str) -> dict[int, Table]:
    """Return the tables of the seeds for which every candidate was trained."""
    by_seed: dict[int, dict[str, Curve]] = defaultdict(dict)
    for row in results_of(arguments, model).rows():
        by_seed[row["seed"]][key_of(row["candidate"])] = row["scores"], row["seconds"]
    size = len(ParameterGrid(axes(model)))
    return {
        seed: Table(model, curves, arguments.share)
        for seed, curves in sorted(by_seed.items())
        if seed in chosen_seeds(arguments) and len(curves) == size
    }
