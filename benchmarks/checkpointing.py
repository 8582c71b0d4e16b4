"""What checkpoints cost: in the training loop, and in saving and loading.

Why: who saves often loses little when a machine is taken away. That must not be paid for by the training.

What: `wdcnn` and `resnet18_1d` with AdamW on batches `[64, 1, 2048]` on one thread. `Trainer.train_epoch()` with two
checkpoints in an epoch of a few seconds against the same without: far more often than anybody saves. The interval is
printed.

- `..._loop`: time of the epoch with saving over that without. A thread writes while the loop goes on, so that this is
  elapsed time, on a machine with a second core to write with.
- `..._pause_share`: what the loop itself stands still for a copy of the state, over the interval.
- `..._save_vs_torch`: packing, checksum and writing with fsync, over `torch.save` into a file with fsync.
- `..._load_vs_torch`: reading with the checksum over `torch.load` of the same file.

Variants take turns in one process, in an order drawn anew each round; ratios are medians over the rounds of the ratio
within a round, because absolute times say more about the machine than about the code.

    python benchmarks/checkpointing.py
"""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from whirl.engine.checkpoint import to_cpu
from whirl.engine.files import load_checkpoint_file, save_checkpoint_file
from whirl.models.registry import create_model
from whirl.training.trainer import Trainer

BATCH_SIZE, WINDOW, N_CLASSES, ROUNDS, FILE_ROUNDS = 64, 2048, 11, 9, 15
N_BATCHES = {"wdcnn": 100, "resnet18_1d": 12}
GOALS = {
    f"{name}_{what}": goal for name in N_BATCHES for what, goal in (("loop", "<= 1.05"), ("pause_share", "<= 0.05"))
}


def new_trainer(name: str, folder: Path, checkpoint_every: int | None) -> Trainer:
    torch.manual_seed(0)
    model = create_model(name, N_CLASSES)
    batch = torch.randn(BATCH_SIZE, 1, WINDOW), torch.randint(N_CLASSES, (BATCH_SIZE,))
    return Trainer(
        model, [batch] * N_BATCHES[name], device="cpu", checkpoint_dir=folder, checkpoint_every=checkpoint_every
    )


def loop_costs(name: str, folder: Path) -> dict[str, float]:
    every = N_BATCHES[name] // 2
    saving, plain = new_trainer(name, folder / "saving", every), new_trainer(name, folder / "plain", None)
    seconds = interleaved({"saving": saving.train_epoch, "plain": plain.train_epoch}, ROUNDS)
    interval_s = statistics.median(seconds["plain"]) / 2
    pause_s = statistics.median(timed(lambda: to_cpu(saving.state_dict())) for _ in range(FILE_ROUNDS))
    print(f"{name}: a save every {every} batches, {interval_s:.2f} s; the loop pauses {1e3 * pause_s:.2f} ms for it")
    return {
        f"{name}_loop": median_ratio(seconds["saving"], seconds["plain"]),
        f"{name}_pause_share": round(pause_s / interval_s, 4),
    }


def file_costs(name: str, folder: Path) -> dict[str, float]:
    trainer = new_trainer(name, folder, None)
    trainer.train_epoch()
    checkpoint, path, plain = to_cpu(trainer.state_dict()), folder / "ours.pt", folder / "plain.pt"

    def save_plain() -> None:
        with plain.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    actions: dict[str, Callable[[], object]] = {
        "save": lambda: save_checkpoint_file(path, checkpoint),
        "torch save": save_plain,
        "load": lambda: load_checkpoint_file(path),
        "torch load": lambda: torch.load(path, weights_only=True),
    }
    save_checkpoint_file(path, checkpoint)
    seconds = interleaved(actions, FILE_ROUNDS)
    medians = ", ".join(f"{action} {1e3 * statistics.median(values):.1f} ms" for action, values in seconds.items())
    print(f"{name}: {path.stat().st_size / 1e6:.1f} MB; {medians}")
    return {
        f"{name}_save_vs_torch": median_ratio(seconds["save"], seconds["torch save"]),
        f"{name}_load_vs_torch": median_ratio(seconds["load"], seconds["torch load"]),
    }


def interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each action in each round; the first, cold round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    order = random.Random(0)
    for _ in range(rounds + 1):
        for name in order.sample(list(actions), len(actions)):
            gc.collect()
            seconds[name].append(timed(actions[name]))
    return {name: values[1:] for name, values in seconds.items()}


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), 3)


def main() -> None:
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    for name in N_BATCHES:
        with tempfile.TemporaryDirectory() as folder:
            ratios |= loop_costs(name, Path(folder)) | file_costs(name, Path(folder))
    print(json.dumps({"ratios": ratios, "goals": GOALS}))


if __name__ == "__main__":
    main()
