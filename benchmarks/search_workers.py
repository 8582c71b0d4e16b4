"""Speed-up of a search by a second worker, and the cost of a worker that is killed during a trial.

Each search trains `wdcnn` 24 times on the same simulated windows, with different learning rates and weight decays,
which take the same time, well under a second; nothing is pruned. All workers of a search share one journal file:

- `one`: a single worker. Its wall time counts as 1.
- `two`: two workers.
- `killed`: two workers, one of which gets SIGKILL in its sixth trial and is restarted at once, as a scheduler does; the
  interrupted trial is run again by the next free worker.
- `left`: the same without a restart: the other worker finishes alone.

Each search is checked to have its 24 scores, each of another candidate, and no candidate trained to the end twice.
Times run from the start of the workers to the end of the last one, without imports. Needs two idle cores and the
`search` extra.

    python benchmarks/search_workers.py
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _harness import configure, interleave, make_parser, median_ratio, print_medians, print_results
from optuna.distributions import FloatDistribution

from whirl.tuning import SignalClassifier
from whirl.tuning.study import open_study
from whirl.tuning.trial import ReportToTrial, Trial
from whirl.tuning.worker import run_trials

N_TRIALS, ROUNDS, KILLED_IN_TRIAL = 24, 3, 6
N_WINDOWS, WINDOW, EPOCHS = 1024, 1024, 5
SPACE = {"lr": FloatDistribution(1e-4, 1e-2, log=True), "weight_decay": FloatDistribution(1e-4, 1e-1, log=True)}
FORK = multiprocessing.get_context("fork")
GOALS = {"two_vs_one": "<= 0.65", "killed_vs_one": "<= 0.65"}


def new_windows() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    targets = np.arange(N_WINDOWS) % 4
    tones = np.sin(np.arange(WINDOW) * np.array([0.1, 0.2, 0.4, 0.8])[targets, None])
    return tones + draw.normal(0, 1, (N_WINDOWS, WINDOW)), targets


WINDOWS = new_windows()


def work(folder: Path, killed_in: int | None = None) -> None:
    """Run one worker, which records each candidate that it has trained to the end."""
    started: list[int] = []

    def objective(trial: Trial) -> float:
        started.append(trial.number)
        callbacks: list[Any] = [ReportToTrial(trial)]
        if len(started) == killed_in:
            callbacks.append(lambda trainer, logs: os.kill(os.getpid(), signal.SIGKILL))
        classifier = SignalClassifier("wdcnn", epochs=EPOCHS, batch_size=32, device="cpu", **trial.params)
        classifier.fit(*WINDOWS, validation_data=WINDOWS, callbacks=callbacks)
        with (folder / "trained").open("a") as file:
            file.write(json.dumps(trial.params) + "\n")
        return classifier.history_["val_accuracy"][-1]

    run_trials(open_study(folder / "study.log", pruner=None), SPACE, objective, N_TRIALS)


def search(kind: str) -> float:
    """Run a search, check its trials and return its wall time in seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), time.perf_counter()
        workers = [start(folder)]
        if kind != "one":
            workers.append(start(folder, None if kind == "two" else KILLED_IN_TRIAL))
        if kind == "killed":
            workers[1].join()
            assert workers[1].exitcode == -signal.SIGKILL
            workers.append(start(folder))
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - begin
        check(folder)
    return seconds


def start(folder: Path, killed_in: int | None = None) -> Any:
    process = FORK.Process(target=work, args=(folder, killed_in))
    process.start()
    return process


def check(folder: Path) -> None:
    study = open_study(folder / "study.log", pruner=None)
    assert study is not None
    scored = Counter(json.dumps(trial.params) for trial in study.trials if trial.state.name == "COMPLETE")
    trained = Counter((folder / "trained").read_text().splitlines())
    assert scored == trained, "a candidate was lost, or trained twice"
    assert len(scored) == N_TRIALS == sum(scored.values())


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    optuna.logging.disable_default_handler()
    SignalClassifier("wdcnn", epochs=1, device="cpu").fit(*WINDOWS)  # imports what the first fit needs
    kinds = ("one", "two", "killed", "left")
    seconds = interleave({kind: partial(search, kind) for kind in kinds}, arguments.rounds, warmup_rounds=0)
    print_medians(seconds, "s", "search")
    print_results({f"{kind}_vs_one": median_ratio(seconds[kind], seconds["one"]) for kind in kinds[1:]}, GOALS)


if __name__ == "__main__":
    main()
