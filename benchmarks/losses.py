"""What our losses cost beside the leanest way to write them in torch, and the contrastive one beside its rival.

Why: a loss that checks its input, is stable and takes soft targets should cost no more than the one-liner a researcher
would write instead; and supervised contrastive learning lives on large batches, where time and memory of the loss grow
with the square of the batch.

What: forward and backward pass of each loss, on one thread,

- for logits `[256, 11]` (a batch of bearing windows: all overhead of calls) and `[4096, 1000]` (all arithmetic),
  against `LEAN`, the same loss in the fewest torch calls without any check;
- for the contrastive loss at 2048 features of 128 dimensions in 11 classes, against the `SupConLoss` of
  pytorch-metric-learning (with the `dev` extra).

Both sides must agree in value and gradient before they are measured. They take turns in one process; the time is
processor time, and ratios are medians over the rounds of the ratio within a round, because absolute times say more
about the machine than about the code. Peak memory is the most bytes that torch's allocator had handed out at once
during the passes, temporaries inside of kernels included, by the allocation events of `torch.profiler`.

    python benchmarks/losses.py
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.losses import cnn_losses, losses
from whirl.losses.cnn_losses import create_criterion

Loss = Callable[[Tensor, Tensor], Tensor]

ROUNDS, ROUND_S = 101, 0.005  # a side takes at least that long a round
SHAPES = ((256, 11), (4096, 1000))
N_FEATURES, N_DIMENSIONS, N_CLASSES, TEMPERATURE = 2048, 128, 11, 0.1
EACH_LOSS = "<= 1.1"
GOALS = {"supcon time": "<= 0.4", "supcon memory": "<= 0.25"}


def ours(class_weights: Tensor) -> dict[str, Loss]:
    physics_informed = losses.PhysicsInformedLoss()
    return {
        "ce": create_criterion("ce"),
        "focal": losses.FocalLoss(),
        "focal, class weights": losses.FocalLoss(class_weights),
        "cnn focal": cnn_losses.FocalLoss(),
        "smoothing": losses.LabelSmoothingCrossEntropy(),
        "cnn smoothing, class weights": cnn_losses.LabelSmoothingCrossEntropy(weight=class_weights),
        "physics informed": lambda logits, targets: physics_informed(logits, targets, energy),
    }


def lean(class_weights: Tensor) -> dict[str, Loss]:
    def focal(logits: Tensor, targets: Tensor) -> Tensor:
        ce = F.cross_entropy(logits, targets, reduction="none")
        return ((1 - torch.exp(-ce)) ** 2.0 * ce).mean()

    def weighted_focal(logits: Tensor, targets: Tensor) -> Tensor:
        ce, weights = F.cross_entropy(logits, targets, reduction="none"), class_weights[targets]
        return ((1 - torch.exp(-ce)) ** 2.0 * ce * weights).sum() / weights.sum()

    return {
        "ce": F.cross_entropy,
        "focal": focal,
        "focal, class weights": weighted_focal,
        "cnn focal": lambda logits, targets: 0.25 * focal(logits, targets),
        "smoothing": lambda logits, targets: F.cross_entropy(logits, targets, label_smoothing=0.1),
        "cnn smoothing, class weights": lambda logits, targets: F.cross_entropy(
            logits, targets, class_weights, label_smoothing=0.1
        ),
        "physics informed": lambda logits, targets: F.cross_entropy(logits, targets) + 0.1 * energy(logits),
    }


def energy(logits: Tensor) -> Tensor:
    """Stands for a physics loss: nothing cheaper has a gradient in every logit."""
    return logits.square().mean()


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ratios: dict[str, float] = {}
    for batch, n_classes in SHAPES:
        logits, targets = torch.randn(batch, n_classes, requires_grad=True), torch.randint(n_classes, (batch,))
        class_weights = torch.rand(n_classes) + 0.5
        rivals = lean(class_weights)
        for name, loss in ours(class_weights).items():
            label = f"{name} [{batch}, {n_classes}]"
            ratios[label] = time_ratio(label, loss, rivals[name], logits, targets)
    if find_spec("pytorch_metric_learning"):
        ratios |= contrastive_ratios()
    else:
        print("pytorch-metric-learning is not installed, so SupConLoss is not measured (extra `dev`)")
    print(json.dumps({"ratios": ratios, "goals": {name: GOALS.get(name, EACH_LOSS) for name in ratios}}))


def contrastive_ratios() -> dict[str, float]:
    from pytorch_metric_learning.losses import SupConLoss

    mine, rival = cnn_losses.SupConLoss(TEMPERATURE), SupConLoss(TEMPERATURE)
    features = torch.randn(N_FEATURES, N_DIMENSIONS, requires_grad=True)
    labels = torch.randint(N_CLASSES, (N_FEATURES,))
    ratio = time_ratio(f"supcon [{N_FEATURES}, {N_DIMENSIONS}]", mine, rival, features, labels)
    peaks = [peak_bytes(lambda loss=loss: value_and_grad(loss, features, labels)) for loss in (mine, rival)]
    pairs = features.element_size() * N_FEATURES**2
    print(f"peak memory in N×N matrices: {peaks[0] / pairs:.2f}, rival {peaks[1] / pairs:.2f}")
    return {"supcon time": ratio, "supcon memory": round(peaks[0] / peaks[1], 3)}


def time_ratio(label: str, mine: Loss, rival: Loss, inputs: Tensor, targets: Tensor) -> float:
    """Median over the rounds of our time over the rival's."""
    torch.testing.assert_close(value_and_grad(mine, inputs, targets), value_and_grad(rival, inputs, targets))
    sides = (mine, rival)
    n_calls = math.ceil(ROUND_S / min(seconds(side, inputs, targets, n_calls=3) for side in sides))
    rounds = []
    for index in range(ROUNDS):
        order = sides if index % 2 else sides[::-1]
        times = {side: seconds(side, inputs, targets, n_calls) for side in order}
        rounds.append([times[side] for side in sides])
    medians = [1e6 * statistics.median(times) for times in zip(*rounds, strict=True)]
    print(f"{label:42s} {medians[0]:10.1f} µs, rival {medians[1]:10.1f} µs")
    return round(statistics.median(a / b for a, b in rounds), 3)


def seconds(loss: Loss, inputs: Tensor, targets: Tensor, n_calls: int) -> float:
    """Processor time of one forward and backward pass."""
    start = time.process_time()
    for _ in range(n_calls):
        value_and_grad(loss, inputs, targets)
    return (time.process_time() - start) / n_calls


def value_and_grad(loss: Loss, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(inputs, targets)
    return value.detach(), torch.autograd.grad(value, inputs)[0]


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes that torch's CPU allocator had handed out at once, beyond those before `run`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events: list[Any] = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    return max(accumulate(n_bytes for _, n_bytes in sorted(changes, key=itemgetter(0))))


if __name__ == "__main__":
    main()
