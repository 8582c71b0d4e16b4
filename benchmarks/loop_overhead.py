"""What a training loop costs beside the training: ours against a hand-written loop and other frameworks.

Why: networks for one-dimensional signals are small. Where a step takes half a millisecond, a framework that spends
another one on hooks and logging triples the bill.

What: a small fully connected network on batches `[32, 1, 512]`, a step of about half a millisecond on one thread, so
that overhead shows. All variants take their batches from the same kind of `DataLoader` (whole batches, ready made),
step a fused AdamW, clip the gradient's norm to 1, and report the epoch's mean loss and accuracy unless said otherwise:

- `bare`: a loop by hand that adds loss and hits up on the device. This is what must be done; it counts as 1.
- `ours`: `Trainer.train_epoch()`.
- with the `bench` extra: Lightning (loss and accuracy logged per epoch; and nothing logged), Accelerate and Ignite
  doing what `bare` does, and skorch with its default record of the loss.

Of the ratios, `step_vs_bare` is ours over bare, `lightning_vs_ours` is Lightning with loss and accuracy logged over
ours, and the other `..._vs_ours` are for comparison.

The clock is in the network: processor time from the first forward pass of an epoch to its last, so that neither what
a framework does once per fit is counted nor what else the machine does. Variants take turns in one process, in an order
drawn anew each round; ratios are medians over the rounds of the ratio within a round, because absolute times say more
about the machine than about the code.

    python benchmarks/loop_overhead.py
"""

from __future__ import annotations

import gc
import json
import logging
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whirl.training.trainer import Trainer

N_BATCHES, BATCH_SIZE, N_CLASSES, ROUNDS = 150, 32, 11, 25
MAX_NORM = 1.0
GOALS = {"step_vs_bare": "<= 1.03", "lightning_vs_ours": ">= 3"}


class TimedNetwork(nn.Module):
    """A small network that notes when each of its forward passes begins."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, N_CLASSES)
        )  # fmt: skip
        self.stamps: list[float] = []

    def forward(self, signals: Tensor) -> Tensor:
        self.stamps.append(time.process_time())
        return self.layers(signals)

    def step_time_s(self) -> float:
        """Mean time of a step since it was last asked."""
        stamps, self.stamps = self.stamps, []
        assert len(stamps) == N_BATCHES
        return (stamps[-1] - stamps[0]) / (N_BATCHES - 1)


Epoch = Callable[[], object]
Variant = tuple[TimedNetwork, Epoch]


def new_parts() -> tuple[TimedNetwork, torch.optim.Optimizer, DataLoader[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    network = TimedNetwork()
    batches = [(torch.randn(BATCH_SIZE, 1, 512), torch.randint(N_CLASSES, (BATCH_SIZE,))) for _ in range(N_BATCHES)]
    loader = DataLoader(batches, batch_size=None, collate_fn=as_it_is)  # type: ignore[arg-type]
    return network, torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True), loader


def as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def bare() -> Variant:
    network, optimizer, loader = new_parts()
    criterion = nn.CrossEntropyLoss()

    def epoch() -> tuple[float, float]:
        network.train()
        loss_sum, hits, count = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
        for signals, targets in loader:
            optimizer.zero_grad()
            logits = network(signals)
            loss = criterion(logits, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
            optimizer.step()
            loss_sum += loss.detach() * len(targets)
            hits += (logits.argmax(1) == targets).sum()
            count += len(targets)
        return loss_sum.item() / count, hits.item() / count

    return network, epoch


def ours() -> Variant:
    network, optimizer, loader = new_parts()
    return network, Trainer(network, loader, optimizer=optimizer, device="cpu", max_grad_norm=MAX_NORM).train_epoch


def lightning(logged: bool) -> Variant:
    import lightning

    network, optimizer, loader = new_parts()

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.criterion = nn.CrossEntropyLoss()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            signals, targets = batch
            logits = self.network(signals)
            loss = self.criterion(logits, targets)
            if logged:
                accuracy = (logits.argmax(1) == targets).float().mean()
                self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(targets))
                self.log("accuracy", accuracy, on_step=False, on_epoch=True, batch_size=len(targets))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

    module = Module()

    def epoch() -> None:
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, gradient_clip_val=MAX_NORM, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader)

    return network, epoch


def accelerate() -> Variant:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    network, optimizer, loader = new_parts()
    model, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> tuple[float, float]:
        model.train()
        loss_sum, hits, count = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
        for signals, targets in loader:
            optimizer.zero_grad()
            logits = model(signals)
            loss = criterion(logits, targets)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            loss_sum += loss.detach() * len(targets)
            hits += (logits.argmax(1) == targets).sum()
            count += len(targets)
        return loss_sum.item() / count, hits.item() / count

    return network, epoch


def skorch() -> Variant:
    from skorch import NeuralNet
    from skorch.callbacks import GradientNormClipping

    network, optimizer, loader = new_parts()

    class Net(NeuralNet):
        def get_iterator(self, dataset: object, training: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(loader)

    net = Net(
        network, nn.CrossEntropyLoss, optimizer=lambda *_, **__: optimizer, max_epochs=1, train_split=None,
        device="cpu", callbacks=[GradientNormClipping(MAX_NORM)], callbacks__print_log=None,
    )  # fmt: skip
    net.initialize()
    dataset = torch.utils.data.TensorDataset(torch.zeros(1, 1), torch.zeros(1))
    return network, lambda: net.partial_fit(dataset)


def ignite() -> Variant:
    from ignite.engine import Engine
    from ignite.metrics import Accuracy, Loss

    network, optimizer, loader = new_parts()
    criterion = nn.CrossEntropyLoss()

    def step(engine: Engine, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        signals, targets = batch
        network.train()
        optimizer.zero_grad()
        logits = network(signals)
        loss = criterion(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
        optimizer.step()
        return logits.detach(), targets

    engine = Engine(step)
    Accuracy().attach(engine, "accuracy")
    Loss(criterion).attach(engine, "loss")
    return network, lambda: engine.run(loader, max_epochs=1)


RIVALS: dict[str, tuple[str, Callable[[], Variant]]] = {
    "lightning": ("lightning", lambda: lightning(logged=True)),
    "lightning_nothing_logged": ("lightning", lambda: lightning(logged=False)),
    "accelerate": ("accelerate", accelerate),
    "skorch": ("skorch", skorch),
    "ignite": ("ignite", ignite),
}


def main() -> None:
    torch.set_num_threads(1)
    silence()
    makers = {"bare": bare, "ours": ours}
    makers |= {name: make for name, (package, make) in RIVALS.items() if find_spec(package)}
    if missing := sorted({package for package, _ in RIVALS.values() if not find_spec(package)}):
        print(f"not installed, so not measured: {', '.join(missing)} (pip install 'whirl-diagnostics[bench]')")
    seconds = measure({name: make() for name, make in makers.items()})
    for name, values in seconds.items():
        print(f"{name:26s} {1e6 * statistics.median(values):8.1f} µs a step")
    ratios = {"step_vs_bare": median_ratio(seconds["ours"], seconds["bare"])}
    ratios |= {f"{name}_vs_ours": median_ratio(seconds[name], seconds["ours"]) for name in RIVALS if name in seconds}
    print(json.dumps({"ratios": ratios, "goals": GOALS}))


def silence() -> None:
    """Frameworks greet, advise and warn about small things on every fit."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def measure(variants: dict[str, Variant]) -> dict[str, list[float]]:
    """Seconds a step of every variant in every round; the first, cold round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = random.Random(0)
    for _ in range(ROUNDS + 1):
        gc.collect()
        gc.freeze()  # a variant pays for its own garbage, not for searching what its rivals keep
        for name in order.sample(list(variants), len(variants)):
            network, epoch = variants[name]
            gc.collect()
            epoch()
            seconds[name].append(network.step_time_s())
    return {name: values[1:] for name, values in seconds.items()}


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator, strict=True)), 3)


if __name__ == "__main__":
    main()
