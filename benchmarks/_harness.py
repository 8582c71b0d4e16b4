"""Timing, arguments and output shared by all benchmarks.

Absolute times depend on the machine more than on the code, so a benchmark reports ratios of variants that run
alternately in one process: every round runs each variant once, in random order, and a ratio is the median over the
rounds of the ratio within a round. The first rounds warm up caches and are discarded. The default clock is processor
time on one thread, which other processes disturb least.

The last line that a benchmark prints is one JSON object: `{"ratios": {...}, "goals": {...}}`, and details where there
are any. A goal is a bound such as `"<= 1.05"`.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from whirl.engine.files import to_json_safe

Variant = Callable[[], object]
Clock = Callable[[], float]
Measured = TypeVar("Measured")

UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
REAL_DATA = "WHIRL_REAL_DATA"


def configure(n_threads: int | None = 1) -> None:
    """Set the number of threads, and hide the warnings and log messages of whirl and of other frameworks.

    Args:
        n_threads: threads of torch; None leaves the number to torch or to the run's configuration.
    """
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


# -- timing ------------------------------------------------------------------------------------------------------------


def timed(
    call: Variant, *, clock: Clock = time.process_time, n_calls: int = 1, min_s: float = 0.0, warmup_calls: int = 0
) -> Callable[[], float]:
    """Return a function that measures the seconds of one call.

    Args:
        call: what is measured.
        clock: `time.process_time` or `time.perf_counter`.
        n_calls: calls between two readings of the clock, at least; their mean is returned.
        min_s: seconds to go on calling for, at least.
        warmup_calls: calls before the clock starts, each time, to undo what other variants left in the caches.
    """

    def measure_once() -> float:
        for _ in range(warmup_calls):
            call()
        n_done, start = 0, clock()
        while n_done < n_calls or clock() - start < min_s:
            call()
            n_done += 1
        return (clock() - start) / n_done

    return measure_once


def interleave(
    timers: Mapping[str, Callable[[], Measured]], rounds: int, warmup_rounds: int = 1
) -> dict[str, list[Measured]]:
    """Call each timer once per round, in random order, and return what they measured.

    Args:
        timers: functions that run a variant and return what it took.
        rounds: number of rounds that count.
        warmup_rounds: rounds before them that are discarded.
    """
    order = random.Random(0)
    measured: dict[str, list[Measured]] = {name: [] for name in timers}
    for _ in range(warmup_rounds + rounds):
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # a variant pays for its own garbage, not for searching what the other variants keep
        for name in order.sample(list(timers), len(timers)):
            gc.collect()
            measured[name].append(timers[name]())
    gc.unfreeze()
    return {name: values[warmup_rounds:] for name, values in measured.items()}


def measure(
    variants: Mapping[str, Variant], rounds: int, *, warmup_rounds: int = 1, **timing: Any
) -> dict[str, list[float]]:
    """Return the seconds of one call of each variant in each round.

    Args:
        variants: functions to measure, by name.
        rounds: number of rounds that count.
        warmup_rounds: rounds before them that are discarded.
        **timing: arguments of `timed`.
    """
    timers = {name: timed(call, **timing) for name, call in variants.items()}
    return interleave(timers, rounds, warmup_rounds)


def median_ratio(numerator: Sequence[float], denominator: Sequence[float], digits: int = 3) -> float:
    """Return the median over the rounds of the ratio within a round.

    Example:
        >>> median_ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
        2.0
    """
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), digits)


def print_medians(seconds: Mapping[str, Sequence[float]], unit: str = "ms", per: str = "call") -> None:
    """Print the median time of each variant.

    Args:
        seconds: what `measure` returned.
        unit: `"s"`, `"ms"` or `"µs"`.
        per: what one call is, e.g. `"batch"`.
    """
    width = max(map(len, seconds))
    for name, values in seconds.items():
        print(f"{name:{width}}  {UNITS[unit] * statistics.median(values):10.3f} {unit} per {per}", flush=True)


# -- arguments and data ------------------------------------------------------------------------------------------------


def make_parser(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of the benchmark.

    Args:
        description: the docstring, `__doc__`.
        rounds: default of the option `--rounds`; None for a benchmark without rounds.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="rounds to measure (default %(default)s)")
    return parser


def add_seed_options(parser: argparse.ArgumentParser, seeds: int, first_seed: int | None = 0) -> None:
    """Add `--seeds` and `--first-seed`."""
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=first_seed, help="the first one (default %(default)s)")


def chosen_seeds(arguments: argparse.Namespace) -> range:
    """Return the seeds that `--seeds` and `--first-seed` name."""
    return range(arguments.first_seed, arguments.first_seed + arguments.seeds)


def names(text: str) -> list[str]:
    """Return the names in a comma-separated option."""
    return text.split(",")


def real_data(name: str, given: str | None = None) -> str:
    """Return a folder of real recordings, or exit with what is missing.

    Args:
        name: the folder's name in the folder that the environment variable `WHIRL_REAL_DATA` names.
        given: another folder, from an option; it is used in place of that one.
    """
    if given is not None:
        return given
    if REAL_DATA not in os.environ:
        raise SystemExit(
            f"this benchmark needs the recordings in {name}/, which are not part of whirl: set the environment "
            f"variable {REAL_DATA} to the folder that holds {name}/, or give its path as an argument"
        )
    folder = Path(os.environ[REAL_DATA]) / name
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder; {REAL_DATA} must name the folder that holds {name}/")
    return str(folder)


# -- results -----------------------------------------------------------------------------------------------------------


class ResultsFile:
    """Results of finished runs, one JSON object per line, so that an interrupted benchmark continues.

    Args:
        path: the file; it is created with the first row.
        settings: what rows must have in common to be compared; it is written into each row.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = dict(settings)

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(json.dumps(to_json_safe(self.settings | dict(row))) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that were written with the same settings."""
        if not self.path.exists():
            return []
        rows = map(json.loads, self.path.read_text().splitlines())
        return [row for row in rows if {name: row.get(name) for name in self.settings} == self.settings]


def print_results(ratios: Mapping[str, Any], goals: Mapping[str, str], **details: Any) -> None:
    """Print the last line: ratios, goals and details as one JSON object; NaN and infinities become null.

    Args:
        ratios: measured ratios by name.
        goals: bounds such as `"<= 1.05"` by the name of a ratio; those of ratios that were not measured are left out.
        **details: what else belongs to the result, e.g. intervals.
    """
    measured = {name: goal for name, goal in goals.items() if name in ratios}
    print(json.dumps(to_json_safe({"ratios": ratios, "goals": measured, **details})))
