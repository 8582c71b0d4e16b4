"""What a second worker is worth to a search, and what it costs when one is killed in the middle of a trial.

Each search trains `wdcnn` 24 times on the same simulated windows, with other learning rates and weight decays, which
take the same time, well under a second; nothing is pruned. All workers of a search share one journal file:

- `one`: a single worker. Its wall time counts as 1.
- `two`: two workers.
- `killed`: two workers, one of which gets SIGKILL in the middle of its sixth trial and is started again at once, as a
  scheduler does; its trial is run anew by whoever comes first.
- `left`: the same, but it is not started again: the other finishes alone what is left.

Of each search is checked that it has its 24 scores, each of another candidate, and that no candidate was trained to
its end twice. Times run from the workers' start to the end of the last; imports are done before. Searches take turns in
an order drawn anew each round; ratios are medians over the rounds of the ratio within a round. Two cores must be idle.

    python benchmarks/search_workers.py
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import FloatDistribution

from whirl.tuning.estimator import SignalClassifier
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
    """One worker, which writes down what it has trained to the end."""
    begun: list[int] = []

    def objective(trial: Trial) -> float:
        begun.append(trial.number)
        callbacks: list[Any] = [ReportToTrial(trial)]
        if len(begun) == killed_in:
            callbacks.append(lambda trainer, logs: os.kill(os.getpid(), signal.SIGKILL))
        classifier = SignalClassifier("wdcnn", epochs=EPOCHS, batch_size=32, device="cpu", **trial.params)
        classifier.fit(*WINDOWS, validation_data=WINDOWS, callbacks=callbacks)
        with (folder / "trained").open("a") as file:
            file.write(json.dumps(trial.params) + "\n")
        return classifier.history_["val_accuracy"][-1]

    run_trials(open_study(folder / "study.log", pruner=None), SPACE, objective, N_TRIALS)


def search(kind: str) -> float:
    """Wall time in seconds."""
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
    torch.set_num_threads(1)
    optuna.logging.disable_default_handler()
    SignalClassifier("wdcnn", epochs=1, device="cpu").fit(*WINDOWS)  # what is imported at the first fit
    kinds, order = ["one", "two", "killed", "left"], random.Random(0)
    rounds = [{kind: search(kind) for kind in order.sample(kinds, len(kinds))} for _ in range(ROUNDS)]
    for kind in kinds:
        print(f"{kind:8s} {statistics.median(times[kind] for times in rounds):6.1f} s")
    ratios = {
        f"{kind}_vs_one": round(statistics.median(times[kind] / times["one"] for times in rounds), 3)
        for kind in kinds[1:]
    }
    print(json.dumps({"ratios": ratios, "goals": GOALS}))


if __name__ == "__main__":
    main()
