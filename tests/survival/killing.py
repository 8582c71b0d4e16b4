"""Run trainings in processes of their own, kill them at chosen points, and compare their results."""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.survival.matrix import EPOCHS, new_trainer
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import LAST, PREVIOUS
from whirl.engine.distributed import process_group, rank

FILE_OPERATIONS = ("open", "os.chmod", "os.link", "os.remove", "os.rename")
MEASURED = ("epoch_time_s", "batch_p50_s", "batch_p95_s", "data_time_s")
TIMEOUT_S = 600
"""Generous, as the machine may be slow or loaded."""
KILLED = "marker-of-a-kill"
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class KillPoint:
    """When a process gets SIGKILL.

    Attributes:
        share: fraction of the run's batches that are done, 0 to 1.
        file_operation: number of file operations (mostly of a checkpoint that is being written) between that batch and
            the kill; None kills at the end of the batch.
        after_s: kill from outside after this time instead, in seconds.
        rank: rank of the process to kill.
    """

    share: float = 0.0
    file_operation: int | None = None
    after_s: float | None = None
    rank: int = 0


def kill_points(n: int, seed: str, n_ranks: int = 1) -> list[KillPoint]:
    """Draw points: a fifth, and at least one, from outside; half of the others at batches, half at file operations.

    The points from inside are in the order of the run, so each is reached whatever earlier attempts have saved.
    """
    draw = random.Random(seed)
    n_outside = max(1, n // 5)
    outside = [KillPoint(after_s=round(draw.uniform(0.02, 0.3), 3)) for _ in range(n_outside)]
    shares = sorted(draw.random() for _ in range(n - n_outside))
    operations = [draw.randrange(5) if i % 2 else None for i in range(len(shares))]
    # Only rank 0 writes files.
    ranks = [draw.randrange(n_ranks) if operation is None else 0 for operation in operations]
    inside = [KillPoint(round(s, 3), o, rank=r) for s, o, r in zip(shares, operations, ranks, strict=True)]
    return outside + inside


class KillAt(Callback):
    """Kills its own process at a point of the run."""

    def __init__(self, point: KillPoint, folder: Path) -> None:
        self.point, self.folder = point, folder
        self.is_armed = False

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        n_batches = len(self.trainer.train_loader)
        done = (self.trainer.state.epoch * n_batches + batch + 1) / (EPOCHS * n_batches)
        if self.is_armed or done < self.point.share:
            return
        if self.point.file_operation is None:
            kill_self(self.folder)
        self.is_armed = True
        kill_at_file_operation(self.folder, self.point.file_operation or 0)


def kill_self(folder: Path) -> None:
    """Create the marker file beside the folder and kill this process."""
    folder.with_name(KILLED).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_file_operation(folder: Path, number: int) -> None:
    """Kill this process before its file operation `number` (from 0) in `folder`, in any thread."""
    left = itertools.count(number, -1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_OPERATIONS and str(arguments[0]).startswith(str(folder)) and next(left) <= 0:
            kill_self(folder)

    sys.addaudithook(hook)


def train(case: str, folder: Path, point: KillPoint | None = None) -> None:
    """Train `case` to its end or to the point, resuming from a checkpoint if there is one."""
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        trainer = new_trainer(case, folder)
        if point is not None and point.after_s is None and point.rank == rank():
            trainer.callbacks.append(KillAt(point, folder))
        is_resumed = (folder / LAST).exists() or (folder / PREVIOUS).exists()
        trainer.fit(EPOCHS, resume_from=folder / LAST if is_resumed else None)


def train_on_two_ranks(case: str, folder: Path, point: KillPoint | None = None) -> None:
    """Do the same under the agent of `torchrun`, which forks its processes here."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    tempfile.tempdir = str(folder.parent)  # the agent leaves folders there
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", max_restarts=0, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", monitor_interval=0.05,
    )  # fmt: skip
    elastic_launch(config, train)(case, folder, point)


@functools.cache
def preload() -> None:
    """Import what torch imports for the first optimizer, once instead of in every forked process."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])


def in_own_process(target: Callable[..., None], *arguments: Any) -> Any:
    """Start a process that leads a process group, so that everything it starts can be killed."""
    preload()
    process = FORK.Process(target=_lead, args=(target, *arguments))
    process.start()
    return process


def _lead(target: Callable[..., None], *arguments: Any) -> None:
    os.setpgrp()
    target(*arguments)


def run(target: Callable[..., None], case: str, folder: Path, point: KillPoint | None = None) -> int:
    """Run a training until it ends or is killed; return its exit code, or minus the number of a signal."""
    process = in_own_process(target, case, folder, point)
    after_s = None if point is None else point.after_s
    ended = exit_code(process, TIMEOUT_S if after_s is None else after_s)
    end_group(process)
    assert after_s is not None or ended is not None, f"{case}, {point}: has not ended after {TIMEOUT_S} s"
    return -signal.SIGKILL if ended is None else ended


def exit_code(process: Any, timeout_s: float) -> int | None:
    """Wait for the end of a process and return its exit code, or None if it has not ended.

    `join` would also wait for workers that outlive the process.
    """
    until = time.monotonic() + timeout_s
    while process.exitcode is None and time.monotonic() < until:
        time.sleep(0.005)
    return process.exitcode


def was_killed(target: Callable[..., None], case: str, folder: Path, point: KillPoint) -> bool:
    """Run a training and return whether it was killed at the point; raise if it failed in another way."""
    marker = folder.with_name(KILLED)
    marker.unlink(missing_ok=True)
    code = run(target, case, folder, point)
    assert code in (0, -signal.SIGKILL) or marker.exists(), f"{case}, {point}: ended with code {code}"
    return code != 0


def end_group(process: Any) -> None:
    """Kill the rest of a process group: the process, its ranks, and workers, which notice its end late."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # no process is left, or it has not created its group yet
        process.kill()
    process.join()


def outputs_of(folder: Path) -> dict[str, Any]:
    """Return everything that a training leaves, by name, without times."""
    checkpoint = torch.load(folder / LAST, weights_only=True)
    files = sorted(folder.rglob("[!.]*"))
    outputs = {"last": checkpoint, "files": [str(file.relative_to(folder)) for file in files if file.name != PREVIOUS]}
    for file in files:
        if file.suffix == ".pt" and file.name not in (LAST, PREVIOUS):
            outputs[file.name] = torch.load(file, weights_only=True)
    outputs["log.json"] = json.loads((folder / "log.json").read_text())
    outputs["log.jsonl"] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    temporary = [*folder.glob(".last.*"), *folder.glob(".best.*")]
    return flat(outputs | {"temporary": temporary}, str(folder))


def flat(value: Any, folder: str, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested containers by their path, without times and the folder's name.

    The generator of `make_loader` is left out as well: only a seed that its workers do not use is drawn from it,
    whenever they are started.
    """
    if name.endswith("/random/loader"):
        return {}
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if key not in MEASURED]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return {name: value.replace(folder, "") if isinstance(value, str) else value}
    leaves: dict[str, Any] = {name: (type(value), len(items))}
    for key, item in items:
        leaves |= flat(item, folder, f"{name}/{key}")
    return leaves


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the paths at which two trainings differ in any bit."""
    return [name for name in {**a, **b} if name not in a or name not in b or not _same(a[name], b[name])]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        like = isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape)
        return like and torch.equal(_bits(a), _bits(b))
    return repr(a) == repr(b)  # so that NaN equals NaN


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def largest_weight_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """max |Δw| over the network's parameters and buffers."""
    names = [name for name in a if name.startswith("/last/training/model/")]
    assert names
    return max((a[name].double() - b[name].double()).abs().max().item() for name in names)
