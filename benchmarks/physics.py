"""What physics costs beside a network: evidence, presence and compatibility against a training step of `wdcnn`.

Why: evidence that costs as much as the network would halve the speed of training for a term that acts on few epochs.
One real transform of the signal, envelopes only as long as their bands are wide, and no loop over samples, classes or
lines keep it small; the last ratio shows what a loop over samples would cost for the same arithmetic.

What: medians over the rounds of the ratio within a round, the rivals taking turns in one process on one thread, in CPU
time, so that whatever else the machine does hits all alike. Only ratios carry over to other machines.

- `journal_2048`, `journal_20480`, `rolling_2048`, `rolling_20480`: physics over forward, cross entropy and backward of
  `wdcnn`, on [64, 1, 2048] and on [32, 1, 20480].
- `terms_2048`, `terms_20480`: all terms of `PhysicalConstraintLoss` for journal bearings and their gradient, over the
  same step; evidence is most of it.
- `journal_loop`, `rolling_loop`: physics of the 64 samples one by one over physics of the batch, at 2048 samples.

Run: `python benchmarks/physics.py`. The last line is one JSON object with the ratios and their goals.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from whirl.losses.physics_loss_functions import PhysicalConstraintLoss
from whirl.models.registry import create_model
from whirl.physics.compatibility import (
    class_probabilities,
    default_calibration,
    expectation_table,
    log_compatibility,
    presence_probability,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

SHAPES = ((64, 2048), (32, 20480))
SAMPLING_RATE_HZ = 12_000
ORDERS = fault_orders(BEARINGS["6205"])
GOALS = {
    **{f"{kind}_{length}": "<= 0.25" for _, length in SHAPES for kind in ("journal", "rolling", "terms")},
    **{f"{kind}_loop": ">= 15" for kind in ("journal", "rolling")},
}

Work = Callable[[], object]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # that 2048 samples cannot part all lines is known
    ratios: dict[str, float] = {}
    for size, length in SHAPES:
        signals, rpm = torch.randn(size, 1, length), torch.linspace(1200, 3600, size)
        times = interleaved_times(works(signals, rpm), rounds=100)
        ratios |= {f"{name}_{length}": median_ratio(times[name], times["wdcnn"]) for name in times if name != "wdcnn"}
    size, length = SHAPES[0]
    signals, rpm = torch.randn(size, 1, length), torch.linspace(1200, 3600, size)
    loops = {f"{name}_loop": looped(name, signals, rpm) for name in ("journal", "rolling")}
    times = interleaved_times(physics(signals, rpm) | loops, rounds=30)
    ratios |= {f"{name}_loop": median_ratio(times[f"{name}_loop"], times[name]) for name in ("journal", "rolling")}
    print(json.dumps({"ratios": {name: round(ratio, 3) for name, ratio in ratios.items()}, "goals": GOALS}))


def works(signals: Tensor, rpm: Tensor) -> dict[str, Work]:
    return {"wdcnn": training_step(signals), "terms": terms(signals, rpm)} | physics(signals, rpm)


def terms(signals: Tensor, rpm: Tensor) -> Work:
    """All physics losses of new predictions, with their gradient."""
    loss, size = PhysicalConstraintLoss(sample_rate=SAMPLING_RATE_HZ), len(signals)
    metadata = {
        "rpm": rpm,
        "sommerfeld": torch.rand(size) + 0.01,
        "recording": torch.arange(size) // 4,
        "start": torch.arange(size) * signals.shape[-1],
    }

    def work() -> object:
        # Other signals in each round, as in a training: nothing is remembered from the last one.
        fresh, logits = signals.clone(), torch.zeros(size, len(JOURNAL_CLASSES), requires_grad=True)
        found = loss.terms(logits, fresh, metadata)
        return torch.autograd.grad(sum(found.values(), start=logits.new_zeros(())), logits)

    return work


def physics(signals: Tensor, rpm: Tensor) -> dict[str, Work]:
    """All physics of a batch, for both kinds of machine."""
    return {
        "journal": compatibility(OrderEvidence.journal(SAMPLING_RATE_HZ), JOURNAL_CLASSES, signals, rpm),
        "rolling": compatibility(OrderEvidence.rolling(SAMPLING_RATE_HZ, ORDERS), ROLLING_CLASSES, signals, rpm),
    }


def compatibility(evidence: OrderEvidence, classes: Sequence[str], signals: Tensor, rpm: Tensor) -> Work:
    table = expectation_table(classes, evidence.features, ORDERS)
    calibration = default_calibration(evidence.features)

    def work() -> Tensor:
        there = presence_probability(evidence(signals, rpm), rpm, calibration)
        return class_probabilities(log_compatibility(there, table))

    return work


def looped(name: str, signals: Tensor, rpm: Tensor) -> Work:
    each = [physics(signals[i : i + 1], rpm[i : i + 1])[name] for i in range(len(signals))]
    return lambda: [work() for work in each]


def training_step(signals: Tensor) -> Work:
    network = create_model("wdcnn", len(JOURNAL_CLASSES))
    targets = torch.randint(len(JOURNAL_CLASSES), (len(signals),))

    def step() -> None:
        F.cross_entropy(network(signals), targets).backward()
        network.zero_grad()

    return step


def interleaved_times(rivals: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each work in each round, in an order drawn anew each round."""
    for work in rivals.values():
        for _ in range(3):
            work()
    times: dict[str, list[float]] = {name: [] for name in rivals}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(rivals), len(rivals)):
            start = time.process_time()
            rivals[name]()
            times[name].append(time.process_time() - start)
    for name, seconds in times.items():
        print(f"{name:14s} {1e3 * statistics.median(seconds):8.2f} ms")
    return times


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


if __name__ == "__main__":
    main()
