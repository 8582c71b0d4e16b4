"""The physics ablation: does physics improve a network?

Arms with and without physics, and negative controls, are trained on the same windows and compared run by run.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whirl._locks import FolderLock, locked
from whirl.engine.files import write_json, write_text
from whirl.evaluation.metrics import scores
from whirl.evaluation.paired import PairedDifference, compare_arms
from whirl.experiments.ablation_arms import ARMS, CONTROL_ARM
from whirl.experiments.ablation_report import format_table, plot_results
from whirl.experiments.ablation_tasks import AblationSetting, Task
from whirl.metrics import compute_confusion_matrix
from whirl.runs.fingerprint import library_versions, warn_of_other_versions
from whirl.validation import check_name

logger = logging.getLogger(__name__)


def run_physics_ablation(
    tasks: Callable[[str, int], Task],
    conditions: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    setting: AblationSetting,
    out: str | Path,
) -> dict[str, dict[str, PairedDifference]]:
    """Run every arm for every condition and seed, and compare the arms with cross entropy only.

    The result of each run is appended to `results.jsonl`, so an interrupted ablation can be resumed. At the end
    `table.md` and `ablation.png` are written.

    Args:
        tasks: function that returns the windows of a condition and a seed.
        conditions: names of the conditions.
        arms: names in `ARMS`; the control `ce` is always run.
        seeds: seeds of the runs.
        setting: settings of all runs.
        out: folder for the results; to resume, its settings must be the same.

    Returns:
        `{condition: {arm: difference in balanced accuracy}}`.

    Raises:
        ValueError: an arm is unknown, there is no seed, the folder contains an ablation with other settings, is in use
            by another process, or was deleted meanwhile.
    """
    for arm in arms:
        check_name("arm", arm, ARMS)
    if not seeds:
        raise ValueError("seeds is empty, expected at least one")
    names = list(dict.fromkeys((CONTROL_ARM, *arms)))
    with locked(Path(out)) as lock:
        _prepare_folder(lock.folder, setting)
        _run_remaining(tasks, conditions, names, seeds, setting, lock)
        results = _compare(_read_rows(lock.folder), conditions, names, seeds)
        write_text(lock.folder / "table.md", format_table(results))
        plot_results(results, lock.folder / "ablation.png")
    return results


def _run_remaining(
    tasks: Callable[[str, int], Task],
    conditions: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    setting: AblationSetting,
    lock: FolderLock,
) -> None:
    done = {(row["condition"], row["arm"], row["seed"]) for row in _read_rows(lock.folder)}
    for condition in conditions:
        for seed in seeds:
            remaining = [arm for arm in arms if (condition, arm, seed) not in done]
            if remaining:
                _run(tasks(condition, seed), condition, seed, remaining, setting, lock)


def _prepare_folder(folder: Path, setting: AblationSetting) -> None:
    """Write the settings, and remove a truncated last line of the results."""
    file, settings = folder / "setting.json", asdict(setting)
    if file.exists():
        _check_setting(file, settings)
    else:
        write_json(file, settings | {"versions": library_versions()})
    write_text(folder / "results.jsonl", "".join(_complete_lines(folder)))


def _check_setting(file: Path, settings: dict[str, Any]) -> None:
    """Raise if the settings are not those in the file, naming those that differ; warn of other versions."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        versions = saved.pop("versions", {})
        before = _by_name(saved)
    except (ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}); choose another --out") from None
    now = _by_name(settings)
    if differing := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        raise ValueError(
            f"{file.parent}: contains an ablation with other settings ({', '.join(differing)}); choose another --out"
        )
    warn_of_other_versions(file.parent, versions)


def _by_name(settings: dict[str, Any]) -> dict[str, Any]:
    recordings = {f"recordings.{name}": value for name, value in settings.get("recordings", {}).items()}
    return {name: value for name, value in settings.items() if name != "recordings"} | recordings


def _run(
    task: Task, condition: str, seed: int, arms: Sequence[str], setting: AblationSetting, lock: FolderLock
) -> None:
    targets = task.test.targets.numpy()
    for arm in arms:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            predicted = ARMS[arm](task, setting, seed)
        confusion = compute_confusion_matrix(predicted, targets, len(task.classes))
        score = float(scores(confusion)["balanced_accuracy"])
        row = {"condition": condition, "arm": arm, "seed": seed, "balanced_accuracy": score}
        lock.check()
        with (lock.folder / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"time_s": round(time.perf_counter() - started, 2)}) + "\n")
        logger.info("%-12s %-17s seed %d  balanced accuracy %.3f", condition, arm, seed, score)


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _complete_lines(folder)]


def _complete_lines(folder: Path) -> list[str]:
    """Read the lines of `results.jsonl`, without a truncated last line of a killed run."""
    file = folder / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.endswith("\n")]


def _compare(
    rows: Sequence[dict[str, Any]], conditions: Sequence[str], arms: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, PairedDifference]]:
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["seed"] in seeds:
            found[row["condition"]][row["arm"]][row["seed"]] = row["balanced_accuracy"]
    return {condition: compare_arms(found[condition], CONTROL_ARM, arms) for condition in conditions}
