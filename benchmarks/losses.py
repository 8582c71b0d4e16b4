"""Cost of the losses, compared with the shortest way to write each in torch and with pytorch-metric-learning.

Why: a loss that checks its input, is numerically stable and accepts soft targets should not cost more than the line of
torch that it replaces; and supervised contrastive learning needs large batches, where time and memory of the loss grow
with the square of the batch size.

What: forward and backward pass of each loss, on one thread,

- for logits `[256, 11]` (a batch of bearing windows, dominated by the overhead of calls) and `[4096, 1000]` (dominated
  by arithmetic), compared with `minimal`, the same loss in the fewest torch calls without any check;
- for the contrastive loss with 2048 features of 128 dimensions in 11 classes, compared with the `SupConLoss` of
  pytorch-metric-learning (with the `dev` extra).

Both sides must agree in value and gradient before they are measured. Peak memory is the largest number of bytes that
torch's allocator had handed out at once during the passes, temporary tensors of kernels included, from the allocation
events of `torch.profiler`.

    python benchmarks/losses.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results
from torch import Tensor

from whirl.losses import cnn_losses, losses
from whirl.losses.cnn_losses import create_criterion

Loss = Callable[[Tensor, Tensor], Tensor]

ROUNDS, MIN_S = 101, 0.005  # each loss is called for at least this long per round
SHAPES = ((256, 11), (4096, 1000))
N_FEATURES, N_DIMENSIONS, N_CLASSES, TEMPERATURE = 2048, 128, 11, 0.1
LOSSES = (
    "ce", "focal", "focal, class weights", "cnn focal", "smoothing", "cnn smoothing, class weights", "physics informed",
)  # fmt: skip
GOALS = {
    **{f"{name} [{batch}, {n_classes}]": "<= 1.1" for batch, n_classes in SHAPES for name in LOSSES},
    "supcon time": "<= 0.4",
    "supcon memory": "<= 0.25",
}


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


def minimal(class_weights: Tensor) -> dict[str, Loss]:
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
    """Stand in for a physics loss at the least cost: a gradient in every logit."""
    return logits.square().mean()


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    torch.manual_seed(0)
    ratios: dict[str, float] = {}
    for batch, n_classes in SHAPES:
        logits, targets = torch.randn(batch, n_classes, requires_grad=True), torch.randint(n_classes, (batch,))
        class_weights = torch.rand(n_classes) + 0.5
        references = minimal(class_weights)
        for name, loss in ours(class_weights).items():
            label = f"{name} [{batch}, {n_classes}]"
            ratios[label] = time_ratio(label, loss, references[name], logits, targets, arguments.rounds)
    if find_spec("pytorch_metric_learning"):
        ratios |= contrastive_ratios(arguments.rounds)
    else:
        print("pytorch-metric-learning is not installed, so SupConLoss is not measured (extra `dev`)")
    print_results(ratios, GOALS)


def contrastive_ratios(rounds: int) -> dict[str, float]:
    from pytorch_metric_learning.losses import SupConLoss

    loss, reference = cnn_losses.SupConLoss(TEMPERATURE), SupConLoss(TEMPERATURE)
    features = torch.randn(N_FEATURES, N_DIMENSIONS, requires_grad=True)
    labels = torch.randint(N_CLASSES, (N_FEATURES,))
    ratio = time_ratio(f"supcon [{N_FEATURES}, {N_DIMENSIONS}]", loss, reference, features, labels, rounds)
    peaks = [peak_bytes(lambda each=each: value_and_grad(each, features, labels)) for each in (loss, reference)]
    pairs = features.element_size() * N_FEATURES**2
    print(f"peak memory in N×N matrices: {peaks[0] / pairs:.2f}, pytorch-metric-learning {peaks[1] / pairs:.2f}")
    return {"supcon time": ratio, "supcon memory": round(peaks[0] / peaks[1], 3)}


def time_ratio(label: str, loss: Loss, reference: Loss, inputs: Tensor, targets: Tensor, rounds: int) -> float:
    """Return the time of a forward and backward pass of `loss` over that of `reference`."""
    torch.testing.assert_close(value_and_grad(loss, inputs, targets), value_and_grad(reference, inputs, targets))
    variants = {
        "ours": partial(value_and_grad, loss, inputs, targets),
        "reference": partial(value_and_grad, reference, inputs, targets),
    }
    seconds = measure(variants, rounds, min_s=MIN_S)
    print(label)
    print_medians(seconds, "µs", "pass")
    return median_ratio(seconds["ours"], seconds["reference"])


def value_and_grad(loss: Loss, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(inputs, targets)
    return value.detach(), torch.autograd.grad(value, inputs)[0]


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the largest number of bytes that torch's CPU allocator had handed out at once during `run`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events: list[Any] = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    return max(accumulate(n_bytes for _, n_bytes in sorted(changes, key=itemgetter(0))))


if __name__ == "__main__":
    main()
