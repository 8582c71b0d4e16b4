"""Overhead of the training loop, compared with a hand-written loop and with other frameworks.

Why: networks for one-dimensional signals are small. Where a step takes half a millisecond, a framework that spends
another millisecond on hooks and logging triples the training time.

What: a small fully connected network on batches `[32, 1, 512]`, a step of about half a millisecond on one thread, so
that overhead is visible. All variants read ready-made batches from the same kind of `DataLoader`, step a fused AdamW,
clip the gradient norm to 1, and report the epoch's mean loss and accuracy unless stated otherwise:

- `bare`: a hand-written loop that adds up loss and correct predictions on the device. It counts as 1.
- `ours`: `Trainer.train_epoch()`.
- `ours_with_metrics`: the same, with three metrics per epoch.
- with the `bench` extra: Lightning (with loss and accuracy logged per epoch, and with nothing logged), Accelerate and
  Ignite doing what `bare` does, and skorch with its default record of the loss.

`step_vs_bare` is ours over bare, `metrics_vs_bare` the same with metrics, `lightning_vs_ours` is Lightning with loss
and accuracy logged over ours; the other `<framework>_vs_ours` are for comparison.

The clock is in the network: processor time from the first forward pass of an epoch to the last, so that what a
framework does once per fit does not count.

    python benchmarks/loop_overhead.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from _harness import configure, interleave, make_parser, median_ratio, print_medians, print_results
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whirl._distribution import install_hint
from whirl.training import Trainer

N_BATCHES, BATCH_SIZE, N_CLASSES, ROUNDS = 150, 32, 11, 25
MAX_NORM = 1.0
GOALS = {"step_vs_bare": "<= 1.03", "metrics_vs_bare": "<= 1.03", "lightning_vs_ours": ">= 3"}


class TimedNetwork(nn.Module):
    """A small network that records when each of its forward passes begins."""

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
        """Return the mean time of a step since the last call."""
        stamps, self.stamps = self.stamps, []
        assert len(stamps) == N_BATCHES
        return (stamps[-1] - stamps[0]) / (N_BATCHES - 1)


Epoch = Callable[[], object]
Variant = tuple[TimedNetwork, Epoch]


def new_parts() -> tuple[TimedNetwork, torch.optim.Optimizer, DataLoader[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    network = TimedNetwork()
    batches = [(torch.randn(BATCH_SIZE, 1, 512), torch.randint(N_CLASSES, (BATCH_SIZE,))) for _ in range(N_BATCHES)]
    loader = DataLoader(batches, batch_size=None, collate_fn=identity)  # type: ignore[arg-type]
    return network, torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True), loader


def identity(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def bare() -> Variant:
    network, optimizer, loader = new_parts()
    criterion = nn.CrossEntropyLoss()

    def epoch() -> tuple[float, float]:
        network.train()
        loss_sum, n_correct, count = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
        for signals, targets in loader:
            optimizer.zero_grad()
            logits = network(signals)
            loss = criterion(logits, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
            optimizer.step()
            loss_sum += loss.detach() * len(targets)
            n_correct += (logits.argmax(1) == targets).sum()
            count += len(targets)
        return loss_sum.item() / count, n_correct.item() / count

    return network, epoch


def ours(metrics: Sequence[str] = ()) -> Variant:
    network, optimizer, loader = new_parts()
    options: dict[str, Any] = {"device": "cpu", "max_grad_norm": MAX_NORM, "metrics": metrics}
    return network, Trainer(network, loader, optimizer=optimizer, **options).train_epoch


def ours_with_metrics() -> Variant:
    return ours(("f1_macro", "balanced_accuracy", "mcc"))


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
        loss_sum, n_correct, count = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
        for signals, targets in loader:
            optimizer.zero_grad()
            logits = model(signals)
            loss = criterion(logits, targets)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            loss_sum += loss.detach() * len(targets)
            n_correct += (logits.argmax(1) == targets).sum()
            count += len(targets)
        return loss_sum.item() / count, n_correct.item() / count

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


FRAMEWORKS: dict[str, tuple[str, Callable[[], Variant]]] = {
    "lightning": ("lightning", lambda: lightning(logged=True)),
    "lightning_nothing_logged": ("lightning", lambda: lightning(logged=False)),
    "accelerate": ("accelerate", accelerate),
    "skorch": ("skorch", skorch),
    "ignite": ("ignite", ignite),
}


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    makers = {"bare": bare, "ours": ours, "ours_with_metrics": ours_with_metrics}
    makers |= {name: make for name, (package, make) in FRAMEWORKS.items() if find_spec(package)}
    if missing := sorted({package for package, _ in FRAMEWORKS.values() if not find_spec(package)}):
        print(f"not installed, so not measured: {', '.join(missing)} ({install_hint('bench')})")
    seconds = interleave({name: step_timer(*make()) for name, make in makers.items()}, arguments.rounds)
    print_medians(seconds, "µs", "step")
    ratios = {
        "step_vs_bare": median_ratio(seconds["ours"], seconds["bare"]),
        "metrics_vs_bare": median_ratio(seconds["ours_with_metrics"], seconds["bare"]),
    }
    ratios |= {
        f"{name}_vs_ours": median_ratio(seconds[name], seconds["ours"]) for name in FRAMEWORKS if name in seconds
    }
    print_results(ratios, GOALS)


def step_timer(network: TimedNetwork, epoch: Epoch) -> Callable[[], float]:
    """Return a function that runs an epoch and returns the seconds of one step."""

    def step_s() -> float:
        epoch()
        return network.step_time_s()

    return step_s


if __name__ == "__main__":
    main()
