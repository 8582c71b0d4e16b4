"""Cost of physics (evidence, presence, compatibility, losses), compared with a training step of `wdcnn`.

Why: evidence as expensive as the network would halve the speed of training for a term that acts in few epochs. One real
transform of the signal, envelopes only as long as their bands are wide, and no loop over samples, classes or lines keep
it cheap; the last ratio shows what a loop over samples would cost for the same arithmetic.

What, on one thread:

- `journal_2048`, `journal_20480`, `rolling_2048`, `rolling_20480`: physics over forward, cross entropy and backward of
  `wdcnn`, on `[64, 1, 2048]` and on `[32, 1, 20480]`.
- `terms_2048`, `terms_20480`: all terms of `PhysicalConstraintLoss` for journal bearings and their gradient, over the
  same step; most of it is evidence.
- `journal_loop`, `rolling_loop`: physics of the 64 samples one by one, over physics of the batch, at 2048 samples.

    python benchmarks/physics.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results
from torch import Tensor
from torch.nn import functional as F

from whirl.losses import PhysicalConstraintLoss
from whirl.models import create_model
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
WARMUP_ROUNDS, LOOP_ROUNDS, ROUNDS = 3, 30, 100
ORDERS = fault_orders(BEARINGS["6205"])
GOALS = {
    **{f"{kind}_{length}": "<= 0.25" for _, length in SHAPES for kind in ("journal", "rolling", "terms")},
    **{f"{kind}_loop": ">= 15" for kind in ("journal", "rolling")},
}

Work = Callable[[], object]


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    torch.manual_seed(0)
    ratios: dict[str, float] = {}
    for size, length in SHAPES:
        signals, rpm = torch.randn(size, 1, length), torch.linspace(1200, 3600, size)
        times = measure_and_print(works(signals, rpm), arguments.rounds)
        ratios |= {f"{name}_{length}": median_ratio(times[name], times["wdcnn"]) for name in times if name != "wdcnn"}
    size, length = SHAPES[0]
    signals, rpm = torch.randn(size, 1, length), torch.linspace(1200, 3600, size)
    loops = {f"{name}_loop": looped(name, signals, rpm) for name in ("journal", "rolling")}
    times = measure_and_print(physics(signals, rpm) | loops, min(arguments.rounds, LOOP_ROUNDS))
    ratios |= {f"{name}_loop": median_ratio(times[f"{name}_loop"], times[name]) for name in ("journal", "rolling")}
    print_results(ratios, GOALS)


def measure_and_print(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    seconds = measure(works, rounds, warmup_rounds=WARMUP_ROUNDS)
    print_medians(seconds, "ms", "batch")
    return seconds


def works(signals: Tensor, rpm: Tensor) -> dict[str, Work]:
    return {"wdcnn": training_step(signals), "terms": terms(signals, rpm)} | physics(signals, rpm)


def terms(signals: Tensor, rpm: Tensor) -> Work:
    """Return the work of all physics losses of new predictions, with their gradient."""
    loss, size = PhysicalConstraintLoss(sample_rate=SAMPLING_RATE_HZ), len(signals)
    metadata = {
        "rpm": rpm,
        "sommerfeld": torch.rand(size) + 0.01,
        "recording": torch.arange(size) // 4,
        "start": torch.arange(size) * signals.shape[-1],
    }

    def work() -> object:
        # A new tensor in each round, as in training, so that nothing cached for the last one is reused.
        fresh, logits = signals.clone(), torch.zeros(size, len(JOURNAL_CLASSES), requires_grad=True)
        found = loss.terms(logits, fresh, metadata)
        return torch.autograd.grad(sum(found.values(), start=logits.new_zeros(())), logits)

    return work


def physics(signals: Tensor, rpm: Tensor) -> dict[str, Work]:
    """Return the work of all physics of a batch, for both kinds of machine."""
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


if __name__ == "__main__":
    main()
