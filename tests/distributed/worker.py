"""Run by each process of a `torchrun` for `test_distributed.py`: one launch, all results written by rank 0."""

import itertools
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from whirl.data.loaders import BatchSampler, balanced_weights
from whirl.engine.callbacks import Callback
from whirl.engine.distributed import (
    broadcast_weights,
    gather,
    process_group,
    rank,
    sum_gradients,
    synchronize_batch_norm,
    world_size,
)
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.engine.precision import Float16, LossScaling
from whirl.training.trainer import Trainer

N_SAMPLES, BATCH = 150, 16  # 150 = 4 batches of 32 and a last one of 22


def samples() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(N_SAMPLES, 1, 32, generator=generator, dtype=torch.float64)
    return torch.utils.data.TensorDataset(signals, (signals.mean((1, 2)) > 0).long())


def make_loader(batch_size: int, shard: int = 0, n_shards: int = 1, shuffle: bool = True, balance: bool = False):
    data = samples()
    weights = balanced_weights(data.tensors[1]) if balance else None
    sampler = BatchSampler(N_SAMPLES, batch_size, shuffle, shard=shard, n_shards=n_shards, weights=weights)
    return torch.utils.data.DataLoader(data, sampler=sampler, batch_size=None)


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


def trained(norm: bool = False, balance: bool = False, **settings) -> Trainer:
    train_loader = make_loader(BATCH, rank(), world_size(), balance=balance)
    loaders = (train_loader, make_loader(7, rank(), world_size(), shuffle=False))
    model = network(norm)
    return train(synchronize_batch_norm(model) if norm else model, *loaders, **settings)


def trained_in_one_process(norm: bool = False, balance: bool = False, **settings) -> Trainer:
    """Train in one process, with batches as large as those of all processes together."""
    loaders = (make_loader(BATCH * 2, balance=balance), make_loader(14, shuffle=False))
    return train(network(norm), *loaders, **settings)


def plain_ddp(epochs: int = 2) -> nn.Module:
    """Train with torch's DistributedDataParallel in a plain loop, on batches that split evenly."""
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


def trained_evenly(epochs: int = 2) -> nn.Module:
    sampler = BatchSampler(N_SAMPLES, BATCH, shuffle=True, drop_last=True, shard=rank(), n_shards=2)
    loader = torch.utils.data.DataLoader(samples(), sampler=sampler, batch_size=None)
    return train(network(), loader, None, epochs).model


def gradients_missing_in_one_rank() -> list:
    used, sometimes, never = (nn.Parameter(torch.ones(2)) for _ in range(3))
    loss = used.sum() * (rank() + 1) + (sometimes.sum() if rank() == 1 else 0)
    loss.backward()
    totals = sum_gradients([used, sometimes, never], [10.0 + rank()])
    return [used.grad.tolist(), sometimes.grad.tolist(), never.grad, totals.tolist()]


class Data(torch.utils.data.Dataset):
    """The samples with their index as metadata, to record which process has seen which."""

    def __init__(self, n_samples: int = N_SAMPLES) -> None:
        self.signals, self.targets = samples()[:n_samples]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, indices: torch.Tensor) -> tuple[Any, ...]:
        return self.signals[indices], self.targets[indices], {"recording": indices}


def sharded_loader(data: Data, batch_size: int = BATCH, shuffle: bool = True, n_shards: int | None = None):
    n_shards = n_shards or world_size()
    sampler = BatchSampler(len(data), batch_size, shuffle=shuffle, shard=rank() % n_shards, n_shards=n_shards)
    return torch.utils.data.DataLoader(data, sampler=sampler, batch_size=None)


class At(Callback):
    """Runs an action on one rank, at a batch of an epoch or at its end."""

    def __init__(self, action, on_rank: int, epoch: int, batch: int | None = None) -> None:
        self.action, self.on_rank, self.epoch, self.batch = action, on_rank, epoch, batch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.current_epoch = epoch

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if (self.on_rank, self.epoch, self.batch) == (rank(), self.current_epoch, batch):
            self.action(self.trainer)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (self.on_rank, self.epoch, self.batch) == (rank(), epoch, None):
            self.action(self.trainer)


class RecordingTrainer(Trainer):
    """Records which samples it was given."""

    def prepare_batch(self, batch: Any) -> Any:
        batch = super().prepare_batch(batch)
        self.seen = [*getattr(self, "seen", []), *batch.metadata["recording"].tolist()]
        return batch


def sample_coverage(n_samples: int) -> dict[str, Any]:
    """Validate and train one epoch; return whether all processes together saw each sample once, and the mean loss."""
    data = Data(n_samples)
    model = network()
    trainer = RecordingTrainer(model, sharded_loader(data, 7), sharded_loader(data, 7, shuffle=False), device="cpu")
    with torch.no_grad():
        expected = F.cross_entropy(model(data.signals), data.targets).item()
    loss = trainer.validate_epoch()["loss"]
    validated, trainer.seen = trainer.seen, []
    trainer.train_epoch()
    per_process = zip(*gather((validated, trainer.seen)), strict=True)
    seen = [sorted(itertools.chain.from_iterable(parts)) for parts in per_process]
    return {"once": seen == [list(range(n_samples))] * 2, "loss": abs(loss - expected), "n": len(validated)}


def data_with_nan() -> Data:
    data = Data()
    data.signals = data.signals.clone()
    data.signals[17] = torch.nan  # one sample, so only one rank reads it
    return data


def skipped_in_one_process() -> Trainer:
    return train(network(), sharded_loader(data_with_nan(), BATCH * 2, n_shards=1), None, on_nonfinite="skip")


def skipped_in_all_processes() -> dict[str, Any]:
    trainer = train(network(), sharded_loader(data_with_nan()), None, on_nonfinite="skip")
    return {"skipped": gather(trainer._guard.skipped), "same": same_everywhere(trainer), "trainer": trainer}


def same_everywhere(trainer: Trainer) -> bool:
    weights = gather(weights_of(trainer.model))
    return bool(weights[0].isfinite().all()) and all(torch.equal(other, weights[0]) for other in weights)


def stopped_by_one_rank() -> list[int]:
    stop = At(lambda trainer: setattr(trainer.state, "should_stop", True), on_rank=1, epoch=0)
    return gather(train(network(), sharded_loader(Data()), None, epochs=3, callbacks=[stop]).state.epoch)


def overflow_on_one_rank() -> dict[str, Any]:
    data = Data()
    data.signals = data.signals.float() * (1e4 if rank() == 1 else 1)
    precision = Float16(torch.device("cpu"), LossScaling(init_scale=2.0**16))
    model = network().float()
    trainer = train(model, sharded_loader(data), None, epochs=1, mixed_precision=precision)
    return {
        "logs": gather(precision.logs()),
        "steps": gather(trainer.state.global_step),
        "same": same_everywhere(trainer),
    }


def new_trainer(folder: Path, callbacks: list[Callback], n_shards: int | None = None) -> Trainer:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = sharded_loader(Data(), 4, n_shards=n_shards)
    settings = {"device": "cpu", "callbacks": callbacks, "gradient_accumulation_steps": 3, "checkpoint_dir": folder}
    return Trainer(model, loader, None, optimizer, **settings)


def interrupted(folder: Path) -> dict[str, Any]:
    """Send SIGTERM to one rank within an epoch, and resume."""
    uninterrupted = new_trainer(folder / "uninterrupted", [])
    uninterrupted.fit(3)
    signaled = At(lambda trainer: signal.raise_signal(signal.SIGTERM), on_rank=1, epoch=1, batch=6)
    first = new_trainer(folder / "mid", [signaled])
    with finish_batch_on_interrupt(first.state):
        first.fit(3)
    position = gather((first.state.epoch, first.state.batch, first.state.interrupted))
    resumed = new_trainer(folder / "mid", [At(print, on_rank=9, epoch=9)])
    resumed.fit(3, resume_from=folder / "mid" / "last.pt")
    return {
        "position": position,
        "resumed": (weights_of(resumed.model) - weights_of(uninterrupted.model)).abs().max().item(),
        "history": [resumed.state.history[name] == uninterrupted.state.history[name] for name in ("train_loss", "lr")],
    }


def errors_of_unequal_loaders() -> list[str]:
    signals, targets = samples()[:]
    batches = [(signals[:4], targets[:4])] * (5 - rank())
    found = []
    for loader in (batches, (batch for batch in batches)):
        try:
            train(network(), loader, None)
        except ValueError as error:
            found.append(str(error))
    return found


def resume_with_other_processes(path: Path, folder: Path, n_shards: int) -> list[Any]:
    """Resume with the running number of processes from a checkpoint of another number."""
    trainer = new_trainer(folder, [], n_shards)
    try:
        trainer.fit(4, resume_from=path)
    except ValueError as error:
        return ["rejected", str(error)]
    return ["finished", trainer.state.epoch]


def half_precision_counts() -> list[float]:
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    weight.sum().backward()
    return sum_gradients([weight], [1001.0]).tolist()


def kill_one(folder: Path) -> None:
    with process_group(torch.device("cpu")):
        kill = At(lambda trainer: os.kill(os.getpid(), signal.SIGKILL), on_rank=1, epoch=1, batch=2)
        train(network(), sharded_loader(Data()), None, epochs=100, callbacks=[kill], checkpoint_dir=folder)


def main(out: Path) -> None:
    logging.disable(logging.WARNING)
    folder = out.parent
    own = folder / f"single{os.environ['RANK']}"
    new_trainer(own, [], 1).fit(2)
    with process_group(torch.device("cpu")):
        found = {"world": world_size(), "missing": gradients_missing_in_one_rank()}
        settings = {
            "plain": {},
            "accumulated": {"gradient_accumulation_steps": 3},
            "unclipped": {"max_grad_norm": None},
            "weighted": {
                "criterion": nn.CrossEntropyLoss(torch.tensor([1.0, 4.0], dtype=torch.float64)),
                "gradient_accumulation_steps": 3,
            },
            "balanced": {"balance": True},
            "ignoring": {"criterion": nn.CrossEntropyLoss(ignore_index=1)},
        }
        histories = {name: (trained(**s), s) for name, s in settings.items()}
        synced = trained(norm=True)
        found["same_on_all_ranks"] = len({tuple(w.tolist()) for w in gather(weights_of(synced.model))}) == 1
        ddp, even = weights_of(plain_ddp()), weights_of(trained_evenly())
        found["ddp"] = (ddp - even).abs().max().item()
        shifted = network()
        with torch.no_grad():
            shifted[0].weight += rank()
        broadcast_weights(shifted)
        found["broadcast"] = (weights_of(shifted) - weights_of(network())).abs().max().item()
        histories_of_all = gather({name: trainer.state.history["val_loss"] for name, (trainer, _) in histories.items()})
        found["counts"] = half_precision_counts()
        found["coverage"] = [sample_coverage(n_samples) for n_samples in (2, 3, 29, 101, 112)]
        skipped = skipped_in_all_processes()
        found["skip"] = {name: skipped[name] for name in ("skipped", "same")}
        found["stopped"] = stopped_by_one_rank()
        found["fp16"] = overflow_on_one_rank()
        found["unequal"] = errors_of_unequal_loaders()
        found["interrupted"] = interrupted(folder)
        found["one_to_two"] = gather(resume_with_other_processes(own / "last.pt", own, 2))
        new_trainer(folder / "end", []).fit(2)
        mid = new_trainer(folder / "open", [At(lambda t: setattr(t.state, "interrupted_by", 15), 0, 1, 3)])
        mid.fit(2)
        found["one_history"] = all(each == histories_of_all[0] for each in histories_of_all)
        is_main = rank() == 0
    if not is_main:
        return
    for name, (trainer, setting) in {**histories, "synced": (synced, {"norm": True})}.items():
        reference = trained_in_one_process(**setting)
        found[name] = {
            "weights": (weights_of(trainer.model) - weights_of(reference.model)).abs().max().item(),
            "history": {
                key: max(abs(a - b) for a, b in zip(values, reference.state.history[key], strict=True))
                for key, values in trainer.state.history.items()
                if key != "epoch_time_s"
            },
        }
    found["skip"]["weights"] = (
        (weights_of(skipped["trainer"].model) - weights_of(skipped_in_one_process().model)).abs().max().item()
    )
    found["two_to_one"] = {
        name: resume_with_other_processes(folder / name / "last.pt", folder / name, 1) for name in ("end", "open")
    }
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    kill_one(Path(sys.argv[2])) if sys.argv[1] == "kill" else main(Path(sys.argv[1]))
