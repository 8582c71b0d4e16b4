"""How soon grid, random and Bayesian search come to a good candidate, and what an ungrouped search reports.

Four parts:

`table` trains every candidate of a full grid once for each seed, and keeps its score and processor time after every
step. A seed is other simulated machines, so another split, and other initial weights. Machines (specimens) never lie in
two parts. `wdcnn`: 96 candidates of its preset's ranges (learning rate, batch size, weight decay, label smoothing); a
step is an epoch, the score is the accuracy on windows of 12 machines after training on 24 others, as it is after the
last epoch. `RandomForest` over features: its preset's grid of 90, on 18 machines; a step is one of three folds of
machines, the score is the mean accuracy over the folds so far. `BayesianOptimizer` itself has one step of a forest.

`replay` lets the searches choose from the table, 20 times each with other seeds of the search. Trials and time are
counted until a candidate was scored that has 99 % (--share) of the best score in the table, that candidate included.
Time is the recorded processor time of all steps that were run, plus what the search itself takes. A grid search says
what is best when all of it is done, so times are also told as shares of the whole grid's ("of all").

* grid: scikit-learn's order, in which the last name of the alphabet changes fastest. Where in it the good candidates
  lie is luck, and the same luck for all seeds; so beside it stands
* random: the candidates in random order, none twice. This is also the grid in shuffled order.
* bayes: `run_trials` of this project (TPE, ten candidates at random first), which draws numbers by their place among
  the grid's values, so that all have the same chance at first. What it draws twice costs its time twice, as in a search
  over real ranges.
* bayes_median, bayes_hyperband: the same, which tells the pruner every step but the last. What is pruned has cost the
  steps until then, and has no score.
* bayes_median_late: the median pruner that says nothing in the first two thirds of the steps.

A search that is not there after twice as many trials as the table has candidates counts with the time until then. The
median over the 20 stands for a seed; medians over the seeds are compared, and ratios to the grid, seed by seed, as
geometric means with Student's 95 % interval of the logarithms. What a network's score is worth on other machines is not
asked here: the searches are judged by what they maximise.

`live` runs the searches for one seed of `wdcnn` without a table, random and Bayesian over the continuous ranges of the
preset, until they have 99 % of the grid's best or have tried --trials; time is wall time. The grid goes through
`GridSearchOptimizer`, and must find the scores of the table again.

`leak` plants a leak: recordings are cut into windows, and the folds of an ungrouped search part windows of one
recording. The score that a search reports (best mean over four folds of windows) is compared with that of its best
candidate on machines that the search never saw (8 machines to search on, 16 others); the same for folds of whole
machines. Random forest and support vector machine over features.

    python benchmarks/search.py table --models wdcnn,RandomForest --seeds 5
    python benchmarks/search.py replay
    python benchmarks/search.py live --first-seed 0
    python benchmarks/search.py leak --seeds 5

The table is kept in --results, one JSON line a candidate; started again, `table` goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution, IntDistribution
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, ParameterGrid, ParameterSampler, PredefinedSplit, StratifiedKFold

from whirl.data.arrays import WindowArrays, window_arrays
from whirl.data.feature_transformer import SignalFeatures
from whirl.data.simulation import simulate
from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback
from whirl.evaluation.paired import paired_difference
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.tuning.estimator import SignalClassifier
from whirl.tuning.spaces import (
    Choice,
    Range,
    new_model,
    preset,
    preset_distributions,
    preset_grid,
    preset_optuna,
)
from whirl.tuning.study import open_study
from whirl.tuning.trial import ReportToTrial, Trial
from whirl.tuning.worker import run_trials

RATE_HZ = 20_480
WINDOW = {"wdcnn": 4096, "RandomForest": 2048}
N_WINDOWS = {"wdcnn": 4, "RandomForest": 3}  # in a recording
N_FOLDS = 3
REPETITIONS = 20
GOAL = 1 / 3
SEARCHES = ("grid", "random", "bayes", "bayes_median", "bayes_median_late", "bayes_hyperband")
PRUNERS = {"bayes": None, "bayes_median": "median", "bayes_median_late": "median", "bayes_hyperband": "hyperband"}

Candidate = dict[str, Any]
Curve = tuple[list[float], list[float]]  # score and seconds of each step

# -- candidates ----------------------------------------------------------------------------------------------


def axes(model: str) -> dict[str, list[Any]]:
    """Values of each parameter in the table."""
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


def by_place(model: str) -> dict[str, Any]:
    """The space whose numbers are places among the values of an axis; choices have no order."""
    spaces = preset(model)
    return {
        name: CategoricalDistribution(range(len(values)))
        if isinstance(spaces[name], Choice)
        else IntDistribution(0, len(values) - 1)
        for name, values in axes(model).items()
    }


def key_of(candidate: Mapping[str, Any]) -> str:
    return json.dumps(dict(candidate), sort_keys=True)


# -- training ------------------------------------------------------------------------------------------------


def windows_of(seed: int, n_machines: int, n_windows: int, window: int) -> WindowArrays:
    recordings = simulate(n_machines, recordings_per_class=1, seed=seed, n_samples=n_windows * window)
    return window_arrays(WindowDataset(recordings, JOURNAL_CLASSES, window), recordings)


class Clock(Callback):
    """Processor time of every epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        now = time.process_time()
        self.seconds.append(now - self.began)
        self.began = now


class Network:
    """Trains candidates of `wdcnn`; a third of the machines validates."""

    def __init__(self, seed: int, arguments: argparse.Namespace) -> None:
        data = windows_of(seed, arguments.machines, N_WINDOWS["wdcnn"], WINDOW["wdcnn"])
        self.X, self.y = data.X, data.y
        self.is_val = np.isin(data.groups, sorted(set(data.groups))[: arguments.machines // 3])
        self.model = SignalClassifier("wdcnn", epochs=arguments.epochs, random_state=seed, device="cpu")

    def train(self, candidate: Candidate, callbacks: Sequence[Callback] = ()) -> list[float]:
        """Accuracy on the validating machines after every epoch."""
        model, is_val = self.model.set_params(**candidate), self.is_val
        validation = self.X[is_val], self.y[is_val]
        model.fit(self.X[~is_val], self.y[~is_val], validation_data=validation, callbacks=callbacks)
        return model.history_["val_accuracy"]

    def curve(self, candidate: Candidate) -> Curve:
        clock = Clock()
        return self.train(candidate, [clock]), clock.seconds


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
            began = time.process_time()
            scores.append(float(model.fit(self.X[train], self.y[train]).score(self.X[test], self.y[test])))
            seconds.append(time.process_time() - began)
        return [statistics.fmean(scores[: n + 1]) for n in range(len(scores))], seconds


TRAINERS: dict[str, Callable[[int, argparse.Namespace], Any]] = {"wdcnn": Network, "RandomForest": Forest}


def make_tables(arguments: argparse.Namespace) -> None:
    for model in arguments.models:
        candidates = list(ParameterGrid(axes(model)))
        for seed in arguments.chosen_seeds:
            done = {key_of(row["candidate"]) for row in rows(arguments, model) if row["seed"] == seed}
            missing = [candidate for candidate in candidates if key_of(candidate) not in done]
            if not missing:
                continue
            trainer = TRAINERS[model](seed, arguments)
            for number, candidate in enumerate(missing, start=1):
                scores, seconds = trainer.curve(candidate)
                row = settings(arguments, model) | {"seed": seed, "candidate": candidate}
                with arguments.results.open("a") as file:
                    file.write(json.dumps(row | {"scores": scores, "seconds": seconds}) + "\n")
                print(
                    f"{model} seed {seed} {number}/{len(missing)}  {candidate}  {scores[-1]:.3f}  {sum(seconds):.2f} s",
                    flush=True,
                )


def settings(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    """What a row must share with others to be in their table."""
    return {"model": model, "machines": arguments.machines} | ({"epochs": arguments.epochs} if model == "wdcnn" else {})


def rows(arguments: argparse.Namespace, model: str) -> list[dict[str, Any]]:
    if not arguments.results.exists():
        return []
    wanted = settings(arguments, model)
    lines = (json.loads(line) for line in arguments.results.read_text().splitlines())
    return [row for row in lines if all(row.get(name) == value for name, value in wanted.items())]


# -- replay --------------------------------------------------------------------------------------------------


class Table:
    """What every candidate of a model scores and costs, for one seed."""

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
        """Of all candidates together."""
        return sum(sum(seconds) for _, seconds in self.curves.values())

    def at(self, places: Mapping[str, int]) -> Curve:
        return self.curves[key_of({name: self.axes[name][place] for name, place in places.items()})]


@dataclass(frozen=True)
class Found:
    """Trials and time until a search had found a good candidate, or had given up."""

    trials: int
    time_s: float
    reached: bool


def in_order(table: Table, order: Iterable[int]) -> Found:
    """A search that goes through candidates whatever it finds."""
    time_s = 0.0
    for n_trials, place in enumerate(order, start=1):
        scores, seconds = table.curves[key_of(table.candidates[place])]
        time_s += sum(seconds)
        if scores[-1] >= table.target:
            return Found(n_trials, time_s, reached=True)
    raise ValueError("the order leaves the best candidate out")


class FoundError(Exception):
    """A good candidate is found: end the search."""


def new_study(name: str, n_steps: int, seed: int) -> Any:
    study = open_study(None, pruner=PRUNERS[name], seed=seed)
    if study is not None and name == "bayes_median_late":
        study.pruner = optuna.pruners.MedianPruner(n_warmup_steps=2 * n_steps // 3)
    return study


def bayesian(table: Table, name: str, seed: int) -> Found:
    trained_s, n_trials, most = 0.0, 0, 2 * len(table.candidates)

    def objective(trial: Trial) -> float:
        nonlocal trained_s, n_trials
        n_trials += 1
        scores, seconds = table.at(trial.params)
        for step, (score, step_s) in enumerate(zip(scores, seconds, strict=True)):
            trained_s += step_s
            if PRUNERS[name] is None:
                continue
            trial.report(score, step)
            if step + 1 < len(scores) and trial.should_prune():
                trial.is_pruned = True
                return float("nan")
        if scores[-1] >= table.target:
            raise FoundError
        return scores[-1]

    began, reached = time.process_time(), False
    try:
        run_trials(new_study(name, table.n_steps, seed), by_place(table.model), objective, most)
    except FoundError:
        reached = True
    return Found(n_trials, trained_s + time.process_time() - began, reached)


def search_of(name: str, table: Table, repetition: int) -> Found:
    n = len(table.candidates)
    if name == "grid":
        return in_order(table, range(n))
    if name == "random":
        return in_order(table, np.random.default_rng(repetition).permutation(n))
    return bayesian(table, name, repetition)


def tables_of(arguments: argparse.Namespace, model: str) -> dict[int, Table]:
    """The tables of the seeds that are whole."""
    by_seed: dict[int, dict[str, Curve]] = defaultdict(dict)
    for row in rows(arguments, model):
        by_seed[row["seed"]][key_of(row["candidate"])] = row["scores"], row["seconds"]
    size = len(ParameterGrid(axes(model)))
    return {
        seed: Table(model, curves, arguments.share)
        for seed, curves in sorted(by_seed.items())
        if seed in arguments.chosen_seeds and len(curves) == size
    }


def replay(arguments: argparse.Namespace) -> None:
    ratios: dict[str, float] = {}
    goals: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for model in arguments.models:
        tables = tables_of(arguments, model)
        if not tables:
            print(f"{model}: no whole table in {arguments.results}")
            continue
        describe(model, tables)
        found = {
            name: {
                seed: [search_of(name, table, n) for n in range(1 if name == "grid" else arguments.repetitions)]
                for seed, table in tables.items()
            }
            for name in SEARCHES
        }
        for name, value, of_all, interval in summarise(found, tables):
            ratios |= {f"{model} {name}/grid": value, f"{model} {name}/whole grid": of_all}
            intervals[f"{model} {name}/grid"] = interval
        goals |= {f"{model} {name}/grid": round(GOAL, 3) for name in ("bayes_median", "bayes_median_late")}
    print(json.dumps({"ratios": ratios, "goals": goals, "geometric_means": intervals}))


def describe(model: str, tables: dict[int, Table]) -> None:
    print(f"\n{model}: {len(next(iter(tables.values())).candidates)} candidates")
    for seed, table in tables.items():
        low, middle = min(table.finals), statistics.median(table.finals)
        print(
            f"  seed {seed}: scores {low:.3f} to {table.best:.3f}, median {middle:.3f}; {table.n_good} are good; "
            f"all take {table.time_s:.0f} s"
        )


def summarise(found: Any, tables: dict[int, Table]) -> Iterable[tuple[str, float, float, list[float]]]:
    """A row for each search; its ratio to the grid and to all of it, and the interval of the geometric mean."""
    trials = {
        name: {s: statistics.median(f.trials for f in runs) for s, runs in of.items()} for name, of in found.items()
    }
    times = {
        name: {s: statistics.median(f.time_s for f in runs) for s, runs in of.items()} for name, of in found.items()
    }
    whole = {seed: table.time_s for seed, table in tables.items()}
    print(
        f"  {'search':17} trials [over seeds]   time s [over seeds]     of grid's  geometric mean       of all  reached"
    )
    for name in SEARCHES:
        ratio = middle(times[name]) / middle(times["grid"])
        difference = paired_difference(logarithms(times[name]), logarithms(times["grid"]))
        mean, low, high = np.exp([difference.difference, difference.low, difference.high])
        of_all = statistics.median(times[name][seed] / whole[seed] for seed in whole)
        reached = statistics.fmean(f.reached for runs in found[name].values() for f in runs)
        print(
            f"  {name:17} {spread(trials[name], '.0f'):21} {spread(times[name], '.1f'):23} {ratio:9.2f}  "
            f"{mean:.2f} [{low:.2f}, {high:.2f}]  {of_all:8.2f}  {reached:6.0%}"
        )
        if name != "grid":
            yield name, round(ratio, 3), round(of_all, 3), [round(float(value), 3) for value in (mean, low, high)]


def middle(values: Mapping[int, float]) -> float:
    return statistics.median(values.values())


def spread(values: Mapping[int, float], form: str) -> str:
    return f"{middle(values):{form}} [{min(values.values()):{form}}, {max(values.values()):{form}}]"


def logarithms(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: float(np.log(value)) for seed, value in values.items()}


# -- live ----------------------------------------------------------------------------------------------------


def live(arguments: argparse.Namespace) -> None:
    from whirl.tuning.grid_search import GridSearchOptimizer

    seed = arguments.first_seed
    network, grid = Network(seed, arguments), axes("wdcnn")
    searcher = GridSearchOptimizer(random_state=seed, n_jobs=1, verbose=0)
    folds = PredefinedSplit(np.where(network.is_val, 0, -1))
    best = searcher.search(network.model, network.X, network.y, grid, folds, "accuracy")["best_score"]
    results, target = searcher.get_results(), arguments.share * best
    times, place = results["time_s"].cumsum(), int((results["mean_score"] >= target).to_numpy().argmax())
    print(f"grid: best {best:.3f} of {len(results)} in {times.iloc[-1]:.0f} s")
    found = {"grid": Found(place + 1, float(times.iloc[place]), reached=True)}
    table = tables_of(arguments, "wdcnn").get(seed)
    if table is not None:
        print(f"largest difference to the table's scores: {np.abs(results['mean_score'] - table.finals).max():.2g}")
    found["random"] = tried(
        network, ParameterSampler(ranges(preset_distributions), arguments.trials, random_state=seed), target
    )
    for name in ("bayes", "bayes_median_late"):  # `ReportToTrial` prunes late
        found[name] = tried_by_trials(network, name, target, arguments, seed)
    for name, row in found.items():
        replayed = "" if table is None else replayed_as(name, table, arguments.repetitions)
        print(
            f"{name:17} {row.trials:4} trials  {row.time_s:6.1f} s  {'' if row.reached else 'not '}reached  {replayed}"
        )
    ratios = {
        f"live {name}/grid": round(row.time_s / found["grid"].time_s, 3) for name, row in found.items() if row.reached
    }
    print(json.dumps({"ratios": ratios, "goals": {"live bayes_median_late/grid": round(GOAL, 3)}}))


def ranges(of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """The preset's continuous ranges of the grid's parameters."""
    return {name: space for name, space in of("wdcnn").items() if name in axes("wdcnn")}


def tried(network: Network, candidates: Iterable[Candidate], target: float) -> Found:
    began, n_trials = time.perf_counter(), 0
    for n_trials, candidate in enumerate(candidates, start=1):
        if network.train(candidate)[-1] >= target:
            return Found(n_trials, time.perf_counter() - began, reached=True)
    return Found(n_trials, time.perf_counter() - began, reached=False)


def tried_by_trials(network: Network, name: str, target: float, arguments: argparse.Namespace, seed: int) -> Found:
    began, n_trials, reached = time.perf_counter(), 0, False

    def objective(trial: Trial) -> float:
        nonlocal n_trials
        n_trials += 1
        score = network.train(trial.params, [] if PRUNERS[name] is None else [ReportToTrial(trial)])[-1]
        if not trial.is_pruned and score >= target:
            raise FoundError
        return score

    try:
        study = new_study(name, arguments.epochs, seed)
        run_trials(study, ranges(preset_optuna), objective, arguments.trials)
    except FoundError:
        reached = True
    return Found(n_trials, time.perf_counter() - began, reached)


def replayed_as(name: str, table: Table, repetitions: int) -> str:
    runs = [search_of(name, table, n) for n in range(1 if name == "grid" else repetitions)]
    trials = np.percentile([run.trials for run in runs], (25, 50, 75))
    return f"replayed: {trials[1]:.0f} trials (quartiles {trials[0]:.0f}, {trials[2]:.0f})"


# -- leak ----------------------------------------------------------------------------------------------------


def leak(arguments: argparse.Namespace) -> None:
    reported: dict[str, dict[int, float]] = defaultdict(dict)
    unseen: dict[str, dict[int, float]] = defaultdict(dict)
    for seed in arguments.chosen_seeds:
        data = windows_of(seed, 24, n_windows=8, window=2048)
        X, is_new = SignalFeatures(RATE_HZ).fit_transform(data.X, rpm=data.rpm), data.groups >= "machine08"
        parts = X[~is_new], data.y[~is_new], data.groups[~is_new], X[is_new], data.y[is_new]
        for model in ("RandomForest", "SVM"):
            for folds in ("ungrouped", "grouped"):
                arm = f"{model} {folds}"
                reported[arm][seed], unseen[arm][seed] = searched(model, folds, seed, *parts)
                print(
                    f"seed {seed}  {arm:24} reports {reported[arm][seed]:.3f}, is {unseen[arm][seed]:.3f}", flush=True
                )
    print(f"\n{'search':24} reports  on unseen machines  difference [95 %]")
    ratios, intervals = {}, {}
    for arm in reported:
        gap = paired_difference(reported[arm], unseen[arm])
        ratios[f"{arm} reported/unseen"] = round(gap.mean / (gap.mean - gap.difference), 3)
        intervals[f"{arm} reported - unseen"] = [round(x, 3) for x in (gap.difference, gap.low, gap.high)]
        print(
            f"{arm:24} {gap.mean:.3f}    {gap.mean - gap.difference:.3f}               "
            f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        )
    print(json.dumps({"ratios": ratios, "goals": {}, "differences": intervals}))


def searched(
    model: str, folds: str, seed: int, X: Any, y: Any, groups: Any, X_new: Any, y_new: Any
) -> tuple[float, float]:
    """The score that a search reports, and that of its best candidate on machines it never saw."""
    from whirl.tuning.grid_search import GridSearchOptimizer

    grid: dict[str, Any] = preset_grid(model)
    if model == "RandomForest":
        grid |= {"n_estimators": [100], "max_depth": [None]}
    splitter = GroupKFold(4) if folds == "grouped" else StratifiedKFold(4, shuffle=True, random_state=seed)
    searcher = GridSearchOptimizer(random_state=seed, n_jobs=1, verbose=0)
    found = searcher.search(
        new_model(model, seed), X, y, grid, splitter, "accuracy", groups=groups if folds == "grouped" else None
    )
    return found["best_score"], float(found["best_estimator"].score(X_new, y_new))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["table", "replay", "live", "leak"])
    parser.add_argument("--models", default="wdcnn,RandomForest", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--machines", type=int, default=36, help="a third of them validates; half for the forest")
    parser.add_argument("--epochs", type=int, default=12, help="of wdcnn")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--share", type=float, default=0.99, help="of the best score, to be reached")
    parser.add_argument("--trials", type=int, default=60, help="at most, of a live search")
    parser.add_argument("--results", type=Path, default=Path("search.jsonl"))
    arguments = parser.parse_args()
    arguments.chosen_seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    optuna.logging.disable_default_handler()
    torch.set_num_threads(1)
    {"table": make_tables, "replay": replay, "live": live, "leak": leak}[arguments.part](arguments)


if __name__ == "__main__":
    main()
