"""Time until grid, random and Bayesian search find a good candidate, and what an ungrouped search reports.

Four parts:

`table` trains every candidate of a full grid once for each seed, and stores its score and processor time after every
step. A seed draws new simulated machines, hence another split, and other initial weights. No machine (specimen) is in
two parts. `wdcnn`: 96 candidates within the ranges of its preset (learning rate, batch size, weight decay, label
smoothing); a step is an epoch, the score is the accuracy on windows of 12 machines after training on 24 others, after
the last epoch. `RandomForest` over features: its preset's grid of 90, on 18 machines; a step is one of three folds of
machines, the score is the mean accuracy over the folds so far. `BayesianOptimizer` itself has one step for a forest.
`DeepForest` is the third of that grid, 30 candidates, in which the depth of the trees is not limited.

`replay` lets the searches choose from the table, 20 times each with different seeds of the search. Trials and time are
counted until a candidate was scored that has 99 % (--share) of the best score in the table, that candidate included.
Time is the recorded processor time of all steps that were run, plus that of the search itself. A grid search knows its
best candidate only at the end, so times are also given as shares of the complete grid's ("of all").

* grid: scikit-learn's order, in which the last name in the alphabet changes fastest. Where the good candidates are in
  that order is chance, and the same for all seeds; hence the comparison with
* random: the candidates in random order, without repetition, which is also the grid in shuffled order.
* bayes: `run_trials` of this project (TPE, ten random candidates first), which draws numbers by their index among the
  grid's values, so that all have the same chance at first. A candidate drawn twice costs its time twice, as in a search
  over continuous ranges.
* bayes_default: bayes, with the candidate that is nearest to the defaults of the model first
  (`initial_params` of `BayesianOptimizer`).
* bayes_cheap: bayes, with the fewest trees in the ten random candidates (`low_cost_params`); for a forest only.
* bayes_median, bayes_hyperband: bayes, with every step but the last reported to the pruner. A pruned trial costs the
  steps until then, and has no score.
* bayes_median_late: the median pruner without pruning in the first two thirds of the steps.

A search that has not found a good candidate after twice as many trials as the table has candidates counts with the time
until then. The median over the 20 represents a seed; medians over the seeds are compared, and the ratios to the grid,
seed by seed, as geometric means with Student's 95 % interval of the logarithms. Scores on other machines
are not evaluated here: the searches are compared by what they maximize.

`live` runs the searches for one seed of `wdcnn` without a table, random and Bayesian over the continuous ranges of the
preset, until they reach 99 % of the grid's best or have tried --trials; time is wall time. The grid runs in
`GridSearchOptimizer`, and must reproduce the scores of the table.

`leak` plants a leak: recordings are cut into windows, and the folds of an ungrouped search split windows of one
recording. The score that a search reports (best mean over four folds of windows) is compared with that of its best
candidate on unseen machines (8 machines to search on, 16 others); the same for folds of complete
machines. Random forest and support vector machine over features.

    python benchmarks/search.py table --models wdcnn,RandomForest --seeds 5
    python benchmarks/search.py replay
    python benchmarks/search.py live --first-seed 0
    python benchmarks/search.py leak --seeds 5

The table is stored in --results, one JSON line per candidate; an interrupted `table` continues.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _harness import add_seed_options, chosen_seeds, configure, make_parser, names, print_results
from _search_tables import (
    RATE_HZ,
    Candidate,
    Network,
    Table,
    axes,
    key_of,
    make_tables,
    tables_of,
    windows_of,
)
from optuna.distributions import CategoricalDistribution, IntDistribution
from sklearn.model_selection import GroupKFold, ParameterSampler, PredefinedSplit, StratifiedKFold

from whirl.data import SignalFeatures
from whirl.evaluation import paired_difference
from whirl.tuning import Choice, GridSearchOptimizer
from whirl.tuning.nested import nested_scores
from whirl.tuning.spaces import new_model, preset, preset_distributions, preset_grid, preset_optuna
from whirl.tuning.study import open_study
from whirl.tuning.trial import ReportToTrial, Trial
from whirl.tuning.worker import run_trials

REPETITIONS = 20
N_FEATURES = 42  # of SignalFeatures
GOAL = f"<= {1 / 3:.3f}"
GOALS = {
    "wdcnn bayes_median/grid": GOAL,
    "wdcnn bayes_median_late/grid": GOAL,
    "RandomForest bayes_median/grid": GOAL,
    "RandomForest bayes_median_late/grid": GOAL,
    "RandomForest bayes_cheap/grid": "<= 0.8",
    "DeepForest bayes_cheap/grid": "<= 0.8",
    "live bayes_median_late/grid": GOAL,
}
SEARCHES = (
    "grid",
    "random",
    "bayes",
    "bayes_default",
    "bayes_cheap",
    "bayes_median",
    "bayes_median_late",
    "bayes_hyperband",
)
PRUNERS = {
    "bayes": None,
    "bayes_default": None,
    "bayes_cheap": None,
    "bayes_median": "median",
    "bayes_median_late": "median",
    "bayes_hyperband": "hyperband",
}


# -- replay ------------------------------------------------------------------------------------------------------------


def index_space(model: str) -> dict[str, Any]:
    """Return the space whose numbers are indices into the values of an axis; choices have no order."""
    spaces = preset("RandomForest" if model == "DeepForest" else model)
    return {
        name: CategoricalDistribution(range(len(values)))
        if isinstance(spaces[name], Choice)
        else IntDistribution(0, len(values) - 1)
        for name, values in axes(model).items()
    }


@dataclass(frozen=True)
class Found:
    """Trials and time until a search found a good candidate or stopped."""

    trials: int
    time_s: float
    reached: bool


def replay_in_order(table: Table, order: Iterable[int]) -> Found:
    """Replay a search that tries candidates in a fixed order."""
    time_s = 0.0
    for n_trials, index in enumerate(order, start=1):
        scores, seconds = table.curves[key_of(table.candidates[index])]
        time_s += sum(seconds)
        if scores[-1] >= table.target:
            return Found(n_trials, time_s, reached=True)
    raise ValueError("the order does not contain the best candidate")


class FoundError(Exception):
    """A good candidate was found; ends the search."""


def new_study(name: str, n_steps: int, seed: int) -> Any:
    study = open_study(None, pruner=PRUNERS[name], seed=seed)
    if study is not None and name == "bayes_median_late":
        study.pruner = optuna.pruners.MedianPruner(n_warmup_steps=2 * n_steps // 3)
    return study


def nearest_to_defaults(table: Table) -> dict[str, int]:
    """Return the indices of the grid's values that are nearest to the defaults of the model."""
    defaults = {"n_estimators": 100, "max_features": N_FEATURES**-0.5, "min_samples_leaf": 1, "max_depth": None}
    defaults |= {"batch_size": 64, "label_smoothing": 0.0, "lr": 3e-3, "weight_decay": 1e-2}
    return {name: _nearest(values, defaults[name]) for name, values in table.axes.items()}


def _nearest(values: list[Any], default: float | None) -> int:
    if default is None or None in values:
        return values.index(default)
    return min(range(len(values)), key=lambda index: abs(np.log((values[index] + 1e-9) / (default + 1e-9))))


def bayesian(table: Table, name: str, seed: int) -> Found:
    trained_s, n_trials, max_trials = 0.0, 0, 2 * len(table.candidates)

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

    start, reached = time.process_time(), False
    study = new_study(name, table.n_steps, seed)
    if name == "bayes_default":
        study.enqueue_trial(nearest_to_defaults(table))
    low_cost = {"n_estimators": 0} if name == "bayes_cheap" and "n_estimators" in table.axes else None
    try:
        run_trials(study, index_space(table.model), objective, max_trials, low_cost_params=low_cost)
    except FoundError:
        reached = True
    return Found(n_trials, trained_s + time.process_time() - start, reached)


def search_of(name: str, table: Table, repetition: int) -> Found:
    n = len(table.candidates)
    if name == "grid":
        return replay_in_order(table, range(n))
    if name == "random":
        return replay_in_order(table, np.random.default_rng(repetition).permutation(n))
    return bayesian(table, name, repetition)


def replay(arguments: argparse.Namespace) -> None:
    ratios: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for model in arguments.models:
        tables = tables_of(arguments, model)
        if not tables:
            print(f"{model}: no complete table in {arguments.results}")
            continue
        describe(model, tables)
        found = {
            name: {
                seed: [search_of(name, table, n) for n in range(1 if name == "grid" else arguments.repetitions)]
                for seed, table in tables.items()
            }
            for name in SEARCHES
        }
        for name, value, of_all, interval in summarize(found, tables):
            ratios |= {f"{model} {name}/grid": value, f"{model} {name}/complete grid": of_all}
            intervals[f"{model} {name}/grid"] = interval
    print_results(ratios, GOALS, geometric_means=intervals)


def describe(model: str, tables: dict[int, Table]) -> None:
    print(f"\n{model}: {len(next(iter(tables.values())).candidates)} candidates")
    for seed, table in tables.items():
        low, middle = min(table.finals), statistics.median(table.finals)
        print(
            f"  seed {seed}: scores {low:.3f} to {table.best:.3f}, median {middle:.3f}; {table.n_good} are good; "
            f"all take {table.time_s:.0f} s"
        )


def summarize(found: Any, tables: dict[int, Table]) -> Iterable[tuple[str, float, float, list[float]]]:
    """Print a row for each search; yield its ratios to the grid and to the complete grid, and their geometric mean."""
    trials = {
        name: {s: statistics.median(f.trials for f in runs) for s, runs in of.items()} for name, of in found.items()
    }
    times = {
        name: {s: statistics.median(f.time_s for f in runs) for s, runs in of.items()} for name, of in found.items()
    }
    total_s = {seed: table.time_s for seed, table in tables.items()}
    print(
        f"  {'search':17} trials [over seeds]   time s [over seeds]     of grid's  geometric mean       of all  reached"
    )
    for name in SEARCHES:
        ratio = middle(times[name]) / middle(times["grid"])
        difference = paired_difference(logarithms(times[name]), logarithms(times["grid"]))
        mean, low, high = np.exp([difference.difference, difference.low, difference.high])
        of_all = statistics.median(times[name][seed] / total_s[seed] for seed in total_s)
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


# -- live --------------------------------------------------------------------------------------------------------------


def live(arguments: argparse.Namespace) -> None:
    seed = arguments.first_seed
    network, grid = Network(seed, arguments), axes("wdcnn")
    searcher = GridSearchOptimizer(random_state=seed, n_jobs=1, verbose=0)
    folds = PredefinedSplit(np.where(network.is_val, 0, -1))
    best = searcher.search(network.model, network.X, network.y, grid, folds, "accuracy")["best_score"]
    results, target = searcher.get_results(), arguments.share * best
    times, first = results["time_s"].cumsum(), int((results["mean_score"] >= target).to_numpy().argmax())
    print(f"grid: best {best:.3f} of {len(results)} in {times.iloc[-1]:.0f} s")
    found = {"grid": Found(first + 1, float(times.iloc[first]), reached=True)}
    table = tables_of(arguments, "wdcnn").get(seed)
    if table is not None:
        print(f"largest difference to the table's scores: {np.abs(results['mean_score'] - table.finals).max():.2g}")
    found["random"] = tried(
        network, ParameterSampler(ranges(preset_distributions), arguments.trials, random_state=seed), target
    )
    for name in ("bayes", "bayes_median_late"):  # `ReportToTrial` prunes late by itself
        found[name] = tried_by_trials(network, name, target, arguments, seed)
    for name, row in found.items():
        replayed = "" if table is None else replayed_as(name, table, arguments.repetitions)
        print(
            f"{name:17} {row.trials:4} trials  {row.time_s:6.1f} s  {'' if row.reached else 'not '}reached  {replayed}"
        )
    ratios = {
        f"live {name}/grid": round(row.time_s / found["grid"].time_s, 3) for name, row in found.items() if row.reached
    }
    print_results(ratios, GOALS)


def ranges(of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the preset's continuous ranges of the grid's parameters."""
    return {name: space for name, space in of("wdcnn").items() if name in axes("wdcnn")}


def tried(network: Network, candidates: Iterable[Candidate], target: float) -> Found:
    start, n_trials = time.perf_counter(), 0
    for n_trials, candidate in enumerate(candidates, start=1):
        if network.train(candidate)[-1] >= target:
            return Found(n_trials, time.perf_counter() - start, reached=True)
    return Found(n_trials, time.perf_counter() - start, reached=False)


def tried_by_trials(network: Network, name: str, target: float, arguments: argparse.Namespace, seed: int) -> Found:
    start, n_trials, reached = time.perf_counter(), 0, False

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
    return Found(n_trials, time.perf_counter() - start, reached)


def replayed_as(name: str, table: Table, repetitions: int) -> str:
    runs = [search_of(name, table, n) for n in range(1 if name == "grid" else repetitions)]
    trials = np.percentile([run.trials for run in runs], (25, 50, 75))
    return f"replayed: {trials[1]:.0f} trials (quartiles {trials[0]:.0f}, {trials[2]:.0f})"


# -- leak --------------------------------------------------------------------------------------------------------------


def leak(arguments: argparse.Namespace) -> None:
    reported: dict[str, dict[int, float]] = defaultdict(dict)
    unseen: dict[str, dict[int, float]] = defaultdict(dict)
    for seed in chosen_seeds(arguments):
        data = windows_of(seed, 24, n_windows=8, window=2048)
        X, is_new = SignalFeatures(RATE_HZ).fit_transform(data.X, rpm=data.rpm), data.groups >= "machine08"
        parts = X[~is_new], data.y[~is_new], data.groups[~is_new]
        for model in ("RandomForest", "SVM"):
            for arm in ("ungrouped", "grouped", "nested"):
                name = f"{model} {arm}"
                reported[name][seed], best = searched(model, arm, seed, *parts)
                unseen[name][seed] = (
                    unseen[f"{model} grouped"][seed] if best is None else best.score(X[is_new], data.y[is_new])
                )
                print(
                    f"seed {seed}  {name:24} reports {reported[name][seed]:.3f}, is {unseen[name][seed]:.3f}",
                    flush=True,
                )
    print(f"\n{'search':24} reports  on unseen machines  difference [95 %]")
    ratios, intervals = {}, {}
    for name in reported:
        gap = paired_difference(reported[name], unseen[name])
        ratios[f"{name} reported/unseen"] = round(gap.mean / (gap.mean - gap.difference), 3)
        intervals[f"{name} reported - unseen"] = [round(x, 3) for x in (gap.difference, gap.low, gap.high)]
        print(
            f"{name:24} {gap.mean:.3f}    {gap.mean - gap.difference:.3f}               "
            f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        )
    print_results(ratios, GOALS, differences=intervals)


def searched(model: str, arm: str, seed: int, X: Any, y: Any, groups: Any) -> tuple[float, Any]:
    """Return the score that a search reports and its best estimator; the mean nested score has none of its own."""
    grid: dict[str, Any] = preset_grid(model)
    if model == "RandomForest":
        grid |= {"n_estimators": [100], "max_depth": [None]}
    searcher, estimator = GridSearchOptimizer(random_state=seed, n_jobs=1, verbose=0), new_model(model, seed)
    if arm == "nested":
        options: dict[str, Any] = {"outer_cv": GroupKFold(4), "cv": GroupKFold(3), "scoring": "accuracy"}
        nested = nested_scores(searcher, estimator, X, y, grid, groups=groups, **options)
        return float(np.mean(nested["score"].to_numpy())), None
    splitter = GroupKFold(4) if arm == "grouped" else StratifiedKFold(4, shuffle=True, random_state=seed)
    found = searcher.search(estimator, X, y, grid, splitter, "accuracy", groups=groups if arm == "grouped" else None)
    return found["best_score"], found["best_estimator"]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("part", choices=["table", "replay", "live", "leak"])
    add_seed_options(parser, seeds=5)
    parser.add_argument("--models", default="wdcnn,RandomForest", type=names)
    parser.add_argument("--machines", type=int, default=36, help="a third is for validation (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of wdcnn (default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="replays per seed (default %(default)s)")
    parser.add_argument("--share", type=float, default=0.99, help="of the best score, to reach (default %(default)s)")
    parser.add_argument("--trials", type=int, default=60, help="limit for a live search (default %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("search.jsonl"))
    arguments = parser.parse_args()
    configure()
    optuna.logging.disable_default_handler()
    {"table": make_tables, "replay": replay, "live": live, "leak": leak}[arguments.part](arguments)


if __name__ == "__main__":
    main()
