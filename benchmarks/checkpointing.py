"""Cost of checkpoints: in the training loop, and of saving and loading them.

Why: frequent checkpoints lose little work when a job is killed. They should not slow training down.

What: `wdcnn` and `resnet18_1d` with AdamW on batches `[64, 1, 2048]` on one thread. `Trainer.train_epoch()` with two
checkpoints in an epoch of a few seconds, far more than in practice, compared with the same without. The interval is
printed.

- `<network>_loop`: time of the epoch with checkpoints over that without. A thread writes while the loop continues, so
  this is elapsed time, on a machine with a second core for the thread.
- `<network>_pause_share`: time that the loop waits for a copy of the state, over the interval.
- `<network>_save_vs_torch`: packing, checksum and writing with fsync, over `torch.save` into a file with fsync.
- `<network>_load_vs_torch`: reading with the checksum over `torch.load` of the same file.

    python benchmarks/checkpointing.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _harness import configure, make_parser, measure, median_ratio, print_results, timed

from whirl.engine.checkpoint import to_cpu
from whirl.engine.files import load_checkpoint_file, save_checkpoint_file
from whirl.models import create_model
from whirl.training import Trainer

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


def loop_costs(name: str, folder: Path, rounds: int) -> dict[str, float]:
    every = N_BATCHES[name] // 2
    saving, plain = new_trainer(name, folder / "saving", every), new_trainer(name, folder / "plain", None)
    seconds = measure({"saving": saving.train_epoch, "plain": plain.train_epoch}, rounds, clock=time.perf_counter)
    interval_s = statistics.median(seconds["plain"]) / 2
    pause = timed(lambda: to_cpu(saving.state_dict()), clock=time.perf_counter)
    pause_s = statistics.median(pause() for _ in range(FILE_ROUNDS))
    print(
        f"{name}: a checkpoint every {every} batches ({interval_s:.2f} s); the loop waits {1e3 * pause_s:.2f} ms for it"
    )
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
    seconds = measure(actions, FILE_ROUNDS, clock=time.perf_counter)
    medians = ", ".join(f"{action} {1e3 * statistics.median(values):.1f} ms" for action, values in seconds.items())
    print(f"{name}: {path.stat().st_size / 1e6:.1f} MB; {medians}")
    return {
        f"{name}_save_vs_torch": median_ratio(seconds["save"], seconds["torch save"]),
        f"{name}_load_vs_torch": median_ratio(seconds["load"], seconds["torch load"]),
    }


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    ratios: dict[str, float] = {}
    for name in N_BATCHES:
        with tempfile.TemporaryDirectory() as folder:
            ratios |= loop_costs(name, Path(folder), arguments.rounds) | file_costs(name, Path(folder))
    print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
