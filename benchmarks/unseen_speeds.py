"""Diagnosis of a rotor at speeds that were not in training.

Why: a machine runs at other speeds than those at which it was recorded, and levels that a model learned at one speed
mean another thing at the next.

What: on the rotor rig (4 classes), each speed is held out in turn; macro F1 over its recordings, mean over the speeds
and seeds, of

- `default`: the model of descriptors that `whirl train` chooses within the training part;
- `hybrid_pinn`: the network with evidence relative to the window;
- `cnn1d`: its backbone alone, as a control;
- `order_cnn`: the same backbone on windows in turns, each resampled to as many samples in a turn as the slowest has.

Networks are trained for 8 epochs on windows of 16384 samples with AdamW; nothing is selected on the held-out speed.

    python benchmarks/unseen_speeds.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from _harness import add_seed_options, chosen_seeds, configure, make_parser, print_results, real_data
from sklearn.metrics import f1_score
from torch import nn

from whirl.data import Recording, WindowDataset, load_dataset
from whirl.diagnosis.selection import choose_diagnoser
from whirl.evaluation.prediction import aggregate_by_recording, predict_windows
from whirl.models import create_model

ROTOR = "adi_spectraquest_rotor"
WINDOW, HOP, EPOCHS, BATCH, LR = 16_384, 2048, 8, 32, 1e-3
GOALS = {"default": ">= 0.85"}

Diagnose = Callable[[Sequence[Recording], Sequence[Recording], Sequence[str], int], list[str]]


def by_default(train: Sequence[Recording], test: Sequence[Recording], classes: Sequence[str], seed: int) -> list[str]:
    """Return the predictions of the model of descriptors that is chosen within the training part."""
    diagnoser, _ = choose_diagnoser(train, seed=seed)
    return [str(label) for label in diagnoser.predict(test)]


def arguments_of(name: str, train: Sequence[Recording]) -> dict[str, float]:
    """Return the arguments of a network that depend on the recordings."""
    rate_hz = train[0].sampling_rate_hz
    slowest_rpm = min(recording.rpm or 0 for recording in train)
    return {
        "hybrid_pinn": {"sampling_rate_hz": rate_hz},
        "order_cnn": {"sampling_rate_hz": rate_hz, "samples_per_revolution": 60 * rate_hz / slowest_rpm},
    }.get(name, {})


def by_network(
    name: str, train: Sequence[Recording], test: Sequence[Recording], classes: Sequence[str], seed: int
) -> list[str]:
    """Return the predictions of a network."""
    torch.manual_seed(seed)
    arguments = arguments_of(name, train)
    network = create_model(name, len(classes), train[0].n_channels, **arguments)
    windows = WindowDataset(train, classes, WINDOW, HOP)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(windows)).split(BATCH):
            signals, targets, metadata = windows[batch]
            logits = network(signals, metadata) if arguments else network(signals)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, targets).backward()
            optimizer.step()
    predictions = predict_windows(network, WindowDataset(test, classes, WINDOW, HOP), torch.device("cpu"))
    return [str(classes[index]) for index in aggregate_by_recording(predictions).predicted]


DIAGNOSERS: dict[str, Diagnose] = {
    "default": by_default,
    "hybrid_pinn": partial(by_network, "hybrid_pinn"),
    "cnn1d": partial(by_network, "cnn1d"),
    "order_cnn": partial(by_network, "order_cnn"),
}


def score(diagnose: Diagnose, recordings: Sequence[Recording], seed: int) -> list[float]:
    """Return macro F1 with each speed held out in turn, slowest first."""
    classes = sorted({str(recording.label) for recording in recordings})
    speeds = np.array([round(recording.rpm or 0, -2) for recording in recordings])
    scores = []
    for speed in np.unique(speeds):
        parts = [[r for r, own in zip(recordings, speeds, strict=True) if (own == speed) == held] for held in (0, 1)]
        found = diagnose(parts[0], parts[1], classes, seed)
        scores.append(float(f1_score([str(recording.label) for recording in parts[1]], found, average="macro")))
    return scores


def main() -> None:
    """Measure, and print the results."""
    parser = make_parser(__doc__)
    add_seed_options(parser, seeds=5)
    arguments = parser.parse_args()
    configure(None)
    recordings = load_dataset(real_data(ROTOR))
    by_seed = {
        name: [score(diagnose, recordings, seed) for seed in chosen_seeds(arguments)]
        for name, diagnose in DIAGNOSERS.items()
    }
    ratios = {name: float(np.mean(scores)) for name, scores in by_seed.items()}
    print_results(ratios, GOALS, by_seed=by_seed, n_recordings=len(recordings))


if __name__ == "__main__":
    main()
