"""Train the family network on simulated bearings of random geometry: `python -m whirl.diagnosis.pretrain`.

No measured recording takes part. Machines, bearings, speeds (300 to 6000 rpm), sampling rates (8 to 51.2 kHz),
durations (25 to 400 revolutions), severities down to nothing, sensor noise and the rotating race are drawn anew for
each group of machines.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.data.simulation import RANDOM_BEARING, simulate
from whirl.diagnosis.family_features import PARTS, depths_db, feature_rows
from whirl.diagnosis.family_net import NOTHING, PRETRAINED, FamilyNet, train_family_net
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.physics.faults import ROLLING_CLASSES

FALSE_ALARM_RATE = 0.01
"""Fraction of healthy simulated machines for which the trained network may name a part."""

FAINT_DB = -20.0
"""Faults with less modulation count as healthy: 90 % of healthy bearings on a rig have lines below -18 dB."""

_MACHINES_PER_GROUP = 5
_RATES_HZ = (8000, 10_240, 12_000, 16_000, 20_480, 25_600, 48_000, 51_200)
_MAX_SAMPLES = 400_000
_MIN_REVOLUTIONS = 20

logger = logging.getLogger(__name__)


class Samples(NamedTuple):
    """Features `[n, 3, F]`, which families were evaluated `[n, 3]`, and targets `[n]`."""

    features: NDArray[np.float32]
    judged: NDArray[np.bool_]
    targets: NDArray[np.int64]


def simulate_group(index: int, seed: int = 0) -> list[Recording]:
    """Simulate five machines, each with a healthy bearing and each of its faults, under conditions of their own.

    Args:
        index: number of the group; groups are independent.
        seed: seed of the simulation.

    Example:
        >>> recordings = simulate_group(0)
        >>> len(recordings), len({recording.bearing for recording in recordings})
        (20, 5)
    """
    rng = np.random.default_rng((seed, index))
    rate_hz = float(rng.choice(_RATES_HZ))
    rpm = float(np.exp(rng.uniform(np.log(300), np.log(6000))))
    revolutions = float(np.exp(rng.uniform(np.log(25), np.log(400))))
    samples_per_revolution = 60 / rpm * rate_hz
    n_samples = max(min(revolutions * samples_per_revolution, _MAX_SAMPLES), _MIN_REVOLUTIONS * samples_per_revolution)
    return simulate(
        _MACHINES_PER_GROUP,
        1,
        ROLLING_CLASSES,
        seed=int(rng.integers(2**31)),
        sampling_rate_hz=rate_hz,
        n_samples=int(n_samples),
        rpm_range=(0.9 * rpm, 1.1 * rpm),
        severity_range=(0, 1),
        bearing=RANDOM_BEARING,
        snr_db_range=(5, 30),
        rotating_race="inner" if rng.uniform() < 0.9 else "outer",
    )


def describe_group(index: int, seed: int = 0) -> Samples:
    """Simulate a group and describe its recordings by the features of their families."""
    torch.set_num_threads(1)
    recordings = simulate_group(index, seed)
    features, judged = feature_rows(SpectralDiagnoser().diagnose(recordings))
    targets = np.array([PARTS.index(each.label) if each.label in PARTS else NOTHING for each in recordings])
    return Samples(features, judged, np.where(_is_faint(features, judged, targets), NOTHING, targets))


def _is_faint(
    features: NDArray[np.floating], judged: NDArray[np.bool_], targets: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Return whether the lines of each sample's own fault were evaluated and are fainter than `FAINT_DB`, `[n]`."""
    rows, part = np.arange(len(targets)), np.minimum(targets, NOTHING - 1)
    return judged[rows, part] & (depths_db(features)[rows, part] < FAINT_DB)


def simulated_samples(n_groups: int, seed: int = 0, n_workers: int = 1) -> Samples:
    """Describe many groups, in parallel processes if `n_workers` is above 1; the result does not depend on it."""
    describe = partial(describe_group, seed=seed)
    if n_workers == 1:
        parts = [describe(index) for index in range(n_groups)]
    else:
        with ProcessPoolExecutor(n_workers) as pool:
            parts = list(pool.map(describe, range(n_groups)))
    features, judged, targets = zip(*parts, strict=True)
    return Samples(np.concatenate(features), np.concatenate(judged), np.concatenate(targets))


def pretrain(samples: Samples, seed: int = 0) -> FamilyNet:
    """Train a network on simulated samples, and set its bias so that healthy machines give the stated false-alarm rate.

    Every other group of 20 recordings sets the bias, the others train the weights.
    """
    holds_out = np.arange(len(samples.targets)) // (_MACHINES_PER_GROUP * len(ROLLING_CLASSES)) % 2 == 1
    features, judged, targets = samples
    net = train_family_net(features[~holds_out], judged[~holds_out], targets[~holds_out], seed=seed)
    healthy = holds_out & (targets == NOTHING)
    with torch.no_grad():
        logits = net(torch.as_tensor(features[healthy]), torch.as_tensor(judged[healthy])).numpy()
        margin = logits[:, :NOTHING].max(axis=1) - logits[:, NOTHING]
        net.nothing.bias.add_(float(np.quantile(margin, 1 - FALSE_ALARM_RATE)))
    return net


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="file of the weights")
    parser.add_argument("--groups", type=int, default=200, help="groups of 20 recordings each")
    parser.add_argument("--seed", type=int, default=0, help="seed of simulation and weights")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    samples = simulated_samples(options.groups, options.seed, options.workers)
    net = pretrain(samples, options.seed)
    command = f"python -m whirl.diagnosis.pretrain --groups {options.groups} --seed {options.seed}"
    net.save(options.out, command=command, recordings=len(samples.targets), false_alarm_rate=FALSE_ALARM_RATE)
    logger.info("%d simulated recordings, weights in %s", len(samples.targets), options.out)


if __name__ == "__main__":
    main()
