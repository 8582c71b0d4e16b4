"""Training as two processes on one machine, compared with torch's DDP: time of a step, bytes sent, exactness.

Why: gradients are reduced in one message per optimizer step, after the backward pass, and not in buckets during it as
in torch's `DistributedDataParallel` (DDP). That is simpler and exact in more cases; it should not be slower.

What: `wdcnn` on batches `[32, 1, 2048]` for each process and `resnet18_1d` on `[8, 1, 2048]`, fused AdamW, no clipping,
one thread, gloo. Within one launch of two processes, ours (`Trainer.train_epoch`) and DDP in a hand-written loop that
adds up loss and correct predictions on the device run alternately, also with 4 batches accumulated (DDP within
`no_sync`). The slower process counts. Then one epoch over the same windows is run by one process and by two.

- `<network>_vs_ddp`: elapsed time of ours over that of DDP; `_accumulated` with 4 batches per step. A step mostly waits
  for the message, so elapsed time is what matters, on a machine with two idle cores.
- `<network>_vs_ddp_cpu`: the same in processor time, which is disturbed less by other work, but does not show what DDP
  gains by sending while it computes.
- `<network>_bytes`: bytes that a process hands to `all_reduce` per step, over those of its gradients.
- `weights_vs_ddp`, `weights_vs_one`: largest difference in weights after an epoch in float64, to DDP on complete
  batches, and to one process with twice the batch.
- `<network>_epoch_two_vs_one`: an epoch by two processes over the same by one; 0.5 is the optimum on two idle cores.

    torchrun --standalone --nproc-per-node 2 benchmarks/distributed.py
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from _harness import configure, interleave, make_parser, median_ratio, print_results
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from whirl.data.loaders import BatchSampler
from whirl.engine.distributed import gather, process_group, rank, world_size
from whirl.models import create_model
from whirl.training import Trainer

WINDOW, N_CLASSES, ROUNDS = 2048, 11, 5
BATCH_SIZE = {"wdcnn": 32, "resnet18_1d": 8}
N_BATCHES, N_WINDOWS = {"wdcnn": 24, "resnet18_1d": 4}, {"wdcnn": 2048, "resnet18_1d": 128}
ACCUMULATION = 4
GOALS = {
    "wdcnn_vs_ddp": "<= 1.1", "resnet18_1d_vs_ddp": "<= 1.1", "wdcnn_accumulated_vs_ddp": "<= 1.1",
    "resnet18_1d_accumulated_vs_ddp": "<= 1.1", "wdcnn_bytes": "<= 1.01", "resnet18_1d_bytes": "<= 1.01",
    "weights_vs_ddp": "<= 1e-12", "weights_vs_one": "<= 1e-12",
}  # fmt: skip


@contextlib.contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """Collect the bytes of each tensor handed to `all_reduce` within the block."""
    real, sent = dist.all_reduce, []

    def counting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        sent.append(tensor.numel() * tensor.element_size())
        return real(tensor, *args, **kwargs)

    dist.all_reduce = counting
    try:
        yield sent
    finally:
        dist.all_reduce = real


def new_parts(name: str) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = create_model(name, N_CLASSES)
    torch.manual_seed(1 + rank())
    signals, targets = torch.randn(BATCH_SIZE[name], 1, WINDOW), torch.randint(N_CLASSES, (BATCH_SIZE[name],))
    return model, [(signals, targets)] * N_BATCHES[name]


def fused(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def ours(name: str, accumulation: int) -> Callable[[], Any]:
    model, batches = new_parts(name)
    settings = {"max_grad_norm": None, "gradient_accumulation_steps": accumulation, "on_nonfinite": None}
    return Trainer(model, batches, optimizer=fused(model), device="cpu", **settings).train_epoch


def ddp(name: str, accumulation: int) -> Callable[[], Any]:
    plain, batches = new_parts(name)
    model, criterion = DistributedDataParallel(plain), nn.CrossEntropyLoss()
    optimizer = fused(plain)

    def epoch() -> tuple[float, float]:
        model.train()
        loss_sum, n_correct, count = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
        for index, (signals, targets) in enumerate(batches):
            if index % accumulation == 0:
                optimizer.zero_grad()
            is_last = (index + 1) % accumulation == 0
            with contextlib.nullcontext() if is_last else model.no_sync():
                logits = model(signals)
                loss = criterion(logits, targets)
                (loss / accumulation).backward()
            if is_last:
                optimizer.step()
            loss_sum += loss.detach() * len(targets)
            n_correct += (logits.argmax(1) == targets).sum()
            count += len(targets)
        totals = torch.stack([loss_sum, n_correct.float(), torch.tensor(float(count))])
        dist.all_reduce(totals)
        return (totals[0] / totals[2]).item(), (totals[1] / totals[2]).item()

    return epoch


CLOCKS = {"": time.perf_counter, "_cpu": time.process_time}


def slowest_rank(epoch: Callable[[], Any]) -> Callable[[], tuple[float, ...]]:
    """Return a function that runs an epoch and returns its seconds by each clock, of the slower process."""

    def measure_once() -> tuple[float, ...]:
        dist.barrier()
        start = [clock() for clock in CLOCKS.values()]
        epoch()
        seconds = [clock() - begin for clock, begin in zip(CLOCKS.values(), start, strict=True)]
        return tuple(map(max, zip(*gather(seconds), strict=True)))

    return measure_once


def against_ddp(name: str, accumulation: int, rounds: int) -> dict[str, float]:
    """Return the ratio of ours to DDP by each clock."""
    timers = {"ours": slowest_rank(ours(name, accumulation)), "DDP": slowest_rank(ddp(name, accumulation))}
    seconds = interleave(timers, rounds)
    ratios = {}
    for index, (clock, label) in enumerate(zip(CLOCKS, ("elapsed", "processor"), strict=True)):
        by_variant = {key: [values[index] for values in rounds_] for key, rounds_ in seconds.items()}
        shown = ", ".join(f"{k} {1e3 * statistics.median(s) / N_BATCHES[name]:.1f}" for k, s in by_variant.items())
        print_on_rank_zero(f"{name:12s} {accumulation} batches per step, {label} ms per batch: {shown}")
        ratios[clock] = median_ratio(by_variant["ours"], by_variant["DDP"])
    return ratios


def bytes_per_step(name: str) -> tuple[float, int]:
    """Return the bytes handed to `all_reduce` in a step, and those of the gradients."""
    epoch = ours(name, 1)
    with counted_bytes() as sent:
        epoch()
    return sum(sent) / N_BATCHES[name], sum(4 * p.numel() for p in create_model(name, N_CLASSES).parameters())


class Sharded(torch.utils.data.Dataset):
    """Random windows and classes; an index list cuts a complete batch."""

    def __init__(self, n_windows: int, dtype: torch.dtype = torch.float32, length: int = WINDOW) -> None:
        draw = torch.Generator().manual_seed(0)
        self.signals = torch.randn(n_windows, 1, length, generator=draw, dtype=dtype)
        self.targets = torch.randint(N_CLASSES, (n_windows,), generator=draw)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.signals[indices], self.targets[indices]


def trainer_over(data: Sharded, model: nn.Module, batch_size: int, n_shards: int) -> Trainer:
    sampler = BatchSampler(len(data.targets), batch_size, shuffle=True, shard=rank() % n_shards, n_shards=n_shards)
    loader = torch.utils.data.DataLoader(data, sampler=sampler, batch_size=None, collate_fn=lambda batch: batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Trainer(model, loader, optimizer=optimizer, device="cpu")


def small_network() -> nn.Module:
    torch.manual_seed(2)
    layers = [nn.Conv1d(1, 8, 16, 8), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, N_CLASSES)]
    return nn.Sequential(*layers).double()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained_by_ddp(data: Sharded) -> nn.Module:
    model = DistributedDataParallel(small_network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for indices in BatchSampler(len(data.targets), 32, shuffle=True, shard=rank(), n_shards=world_size()):
        signals, targets = data[indices]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(signals), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.module


def timed_epoch(name: str, n_shards: int) -> float:
    """Return the seconds of the second epoch over the same windows; the batch of all processes together is the same."""
    torch.manual_seed(0)
    trainer = trainer_over(
        Sharded(N_WINDOWS[name]), create_model(name, N_CLASSES), 2 * BATCH_SIZE[name] // n_shards, n_shards
    )
    for _ in range(2):
        start = time.perf_counter()
        trainer.train_epoch()
    return time.perf_counter() - start


def print_on_rank_zero(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    ratios: dict[str, float] = {}
    alone_s = dict.fromkeys(N_BATCHES, 0.0)
    even = Sharded(512, torch.float64, 256)
    one = trainer_over(even, small_network(), 64, 1)
    # The first process trains alone before it joins the group, where the second one waits for it.
    if os.environ["RANK"] == "0":
        one.train_epoch()
        alone_s = {name: timed_epoch(name, 1) for name in N_BATCHES}
    with process_group(torch.device("cpu")):
        two = trainer_over(even, small_network(), 32, world_size())
        two.train_epoch()
        ratios["weights_vs_ddp"] = (weights(two.model) - weights(trained_by_ddp(even))).abs().max().item()
        ratios["weights_vs_one"] = (weights(two.model) - weights(one.model)).abs().max().item()
        for name in N_BATCHES:
            for accumulation, suffix in ((1, ""), (ACCUMULATION, "_accumulated")):
                found = against_ddp(name, accumulation, arguments.rounds)
                ratios |= {f"{name}{suffix}_vs_ddp{clock}": ratio for clock, ratio in found.items()}
            sent, gradients = bytes_per_step(name)
            print_on_rank_zero(f"{name:12s} {sent:.0f} bytes sent per step, {gradients} of them gradients")
            ratios[f"{name}_bytes"] = round(sent / gradients, 5)
            both_s = max(gather(timed_epoch(name, world_size())))
            print_on_rank_zero(
                f"{name:12s} epoch of {N_WINDOWS[name]} windows: 1 process {alone_s[name]:.2f} s, 2 {both_s:.2f} s"
            )
            ratios[f"{name}_epoch_two_vs_one"] = round(both_s / (alone_s[name] or both_s), 3)
        if rank() == 0:
            print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
