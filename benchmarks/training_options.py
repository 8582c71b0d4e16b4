"""Time of a training step with options of `Trainer`: a compiled network, averaged weights, recomputed activations.

Why: `torch.compile` pays off only where the time goes into many small operations; an average of the weights reads and
writes every weight in every step; recomputed activations cost a second forward pass. Users decide by these numbers.

What: steps of `wdcnn` on batches `[64, 1, 2048]` and of `cnn1d` on `[64, 1, 4096]` through `Trainer.train_epoch()`, on
one thread. The compiler has finished before the clock starts.

- `<network>_compile`: the step with `compile=True` over the step without.
- `<network>_ema`: the step with the callback `EMA` over the step without.
- `<network>_recompute`: the step that recomputes the activations of all layers but the last one over the one without.

    python benchmarks/training_options.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results

from whirl.callbacks import EMA
from whirl.models import create_model
from whirl.training import Trainer

GOALS = {"wdcnn_compile": "<= 0.75", "wdcnn_ema": "<= 1.03"}
NETWORKS = {"wdcnn": (2048, ["features"]), "cnn1d": (4096, ["envelopes", "pyramid"])}
N_BATCHES, BATCH_SIZE, N_CLASSES, ROUNDS = 8, 64, 11, 25


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    ratios: dict[str, float] = {}
    for name, (length, layers) in NETWORKS.items():
        options: dict[str, dict[str, Any]] = {
            "compile": {"compile": True},
            "ema": {"callbacks": [EMA()]},
            "recompute": {"recompute": layers},
        }
        variants = {kind: epoch(name, length, **given) for kind, given in ({"plain": {}} | options).items()}
        seconds = measure(variants, arguments.rounds, warmup_rounds=3)
        print_medians({f"{name} {kind}": [s / N_BATCHES for s in found] for kind, found in seconds.items()}, per="step")
        ratios |= {f"{name}_{kind}": median_ratio(seconds[kind], seconds["plain"]) for kind in options}
    print_results(ratios, GOALS)


def epoch(name: str, length: int, **options: Any) -> Callable[[], object]:
    """Return a function that trains a network for an epoch."""
    torch.manual_seed(0)
    network = create_model(name, N_CLASSES)
    batch = (torch.randn(BATCH_SIZE, 1, length), torch.randint(N_CLASSES, (BATCH_SIZE,)))
    trainer = Trainer(network, [batch] * N_BATCHES, device="cpu", **options)
    trainer.callbacks.on_train_begin()
    return trainer.train_epoch


if __name__ == "__main__":
    main()
