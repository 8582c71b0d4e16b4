"""What each process of a `torchrun` does for `test_distributed.py`: one launch, many findings, written by rank 0."""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from packages.core.engine.distributed import (
    broadcast_weights,
    gather,
    joined_processes,
    rank,
    sum_gradients,
    synchronize_batch_norm,
    world_size,
)
from packages.core.signals.loaders import BatchSampler
from packages.core.training.trainer import Trainer

N_SAMPLES, BATCH = 150, 16  # 150 = 4 batches of 32 and a ragged one of 22


def samples() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(N_SAMPLES, 1, 32, generator=generator, dtype=torch.float64)
    return torch.utils.data.TensorDataset(signals, (signals.mean((1, 2)) > 0).long())


def make_loader(batch_size: int, shard: int = 0, n_shards: int = 1, shuffle: bool = True):
    sampler = BatchSampler(N_SAMPLES, batch_size, shuffle=shuffle, shard=shard, n_shards=n_shards)
    return torch.utils.data.DataLoader(samples(), sampler=sampler, batch_size=None)


def network(norm: bool = False) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv1d(1, 4, 5), *([nn.BatchNorm1d(4)] if norm else []), nn.Tanh(), nn.Flatten(), nn.Linear(112, 2)]
    return nn.Sequential(*layers).double()


def train(model: nn.Module, train_loader, val_loader, epochs: int = 2, **settings) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = Trainer(model, train_loader, val_loader, optimizer, device="cpu", **settings)
    trainer.fit(epochs)
    return trainer


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def ours(norm: bool = False, **settings) -> Trainer:
    loaders = (make_loader(BATCH, rank(), world_size()), make_loader(7, rank(), world_size(), shuffle=False))
    model = network(norm)
    return train(synchronize_batch_norm(model) if norm else model, *loaders, **settings)


def alone(norm: bool = False, **settings) -> Trainer:
    """The same training in one process, with batches as large as all processes' together."""
    return train(network(norm), make_loader(BATCH * 2), make_loader(14, shuffle=False), **settings)


def plain_ddp(epochs: int = 2) -> nn.Module:
    """The oracle: torch's DistributedDataParallel in a plain loop, on batches that part evenly."""
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = samples()
    for epoch in range(epochs):
        sampler = BatchSampler(N_SAMPLES, BATCH, shuffle=True, drop_last=True, shard=rank(), n_shards=2)
        sampler.set_epoch(epoch)
        for indices in sampler:
            signals, targets = data[indices]
            optimizer.zero_grad()
            F.cross_entropy(model(signals), targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.module


def ours_even(epochs: int = 2) -> nn.Module:
    sampler = BatchSampler(N_SAMPLES, BATCH, shuffle=True, drop_last=True, shard=rank(), n_shards=2)
    loader = torch.utils.data.DataLoader(samples(), sampler=sampler, batch_size=None)
    return train(network(), loader, None, epochs).model


def gradients_of_a_parameter_that_one_rank_lacks() -> list:
    used, sometimes, never = (nn.Parameter(torch.ones(2)) for _ in range(3))
    loss = used.sum() * (rank() + 1) + (sometimes.sum() if rank() == 1 else 0)
    loss.backward()
    totals = sum_gradients([used, sometimes, never], [10.0 + rank()])
    return [used.grad.tolist(), sometimes.grad.tolist(), never.grad, totals.tolist()]


def main(out: Path) -> None:
    with joined_processes(torch.device("cpu")):
        found = {"world": world_size(), "missing": gradients_of_a_parameter_that_one_rank_lacks()}
        settings = {"plain": {}, "accumulated": {"gradient_accumulation_steps": 3}, "unclipped": {"max_grad_norm": None}}
        histories = {name: (ours(**s), s) for name, s in settings.items()}
        synced = ours(norm=True)
        found["same_on_all_ranks"] = len({tuple(w.tolist()) for w in gather(weights_of(synced.model))}) == 1
        ddp, even = weights_of(plain_ddp()), weights_of(ours_even())
        found["ddp"] = (ddp - even).abs().max().item()
        shifted = network()
        with torch.no_grad():
            shifted[0].weight += rank()
        broadcast_weights(shifted)
        found["broadcast"] = (weights_of(shifted) - weights_of(network())).abs().max().item()
        everyone = gather({name: trainer.state.history["val_loss"] for name, (trainer, _) in histories.items()})
        found["one_history"] = all(h == everyone[0] for h in everyone)
        writes = rank() == 0
    if not writes:
        return
    for name, (trainer, setting) in {**histories, "synced": (synced, {"norm": True})}.items():
        reference = alone(**setting)
        found[name] = {
            "weights": (weights_of(trainer.model) - weights_of(reference.model)).abs().max().item(),
            "history": {
                key: max(abs(a - b) for a, b in zip(values, reference.state.history[key], strict=True))
                for key, values in trainer.state.history.items()
                if key != "epoch_time_s"
            },
        }
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
