"""Compatibility of fault classes with the evidence: from decibels to presence probabilities to class probabilities.

A class requires some features, tolerates others and forbids the rest. `healthy` forbids all of them, so it fits only
where no feature is present: predicting "healthy" everywhere does not satisfy the physics.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import Line, signature
from whirl.physics.features import Feature, random_bands
from whirl.physics.rolling_bearing import FaultOrders
from whirl.validation import unknown_name

Control = Literal["random_bands", "scrambled"]

REQUIRED, NEUTRAL, FORBIDDEN = 0.9, 0.5, 0.08
"""Probability that a feature is present given a class that requires, tolerates or forbids it."""

DEFAULT_TEMPERATURE = 2.0

_REFERENCE_RPM = 2000.0
_PRESENCE_THRESHOLD = 2.0  # standard deviations above the healthy level at which the presence probability is 1/2
_STEEPNESS = 1.7  # sigmoid(1.7 x) is close to the cumulative normal distribution
_NOISE_SCALE_DB = 2.0
_MIN_SCALE_DB = 1.0
_RIDGE = 1.0  # penalty on the trend with speed, in the unit of the sum of squared deviations of log rpm

# Expectations of features without a spectral line, by class and name of the feature.
_BROADBAND: dict[str, dict[str, float]] = {
    "lubrication": {"high level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    "cavitation": {"high level": REQUIRED, "envelope kurtosis": REQUIRED},
    "wear": {"mid level": REQUIRED},
    "wear_lubrication": {"mid level": REQUIRED, "high level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    "cavitation_clearance": {"high level": REQUIRED, "envelope kurtosis": REQUIRED},
    "inner_race": {"structure level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    "outer_race": {"structure level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    # ball faults rarely show their line; impacts without a line of either race indicate them
    "ball": {"structure level": NEUTRAL, "envelope kurtosis": REQUIRED},
}


@dataclass(frozen=True)
class Calibration:
    """Baseline of healthy machines: level and scatter of each feature, and the trend of the level with speed.

    `u = (e - offset - slope log(rpm / 2000)) / scale` is the deviation from the baseline in standard deviations. NaN
    marks features without a baseline.

    Attributes:
        offset: `[L]` dB at 2000 rpm.
        slope: `[L]` dB per e-fold of speed.
        scale: `[L]` dB, > 0.
    """

    offset: Tensor
    slope: Tensor
    scale: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        """Return the three tensors by name; `Calibration(**state)` restores them."""
        return {"offset": self.offset, "slope": self.slope, "scale": self.scale}

    def to(self, device: torch.device | str) -> Calibration:
        """Return a copy on a device."""
        return Calibration(self.offset.to(device), self.slope.to(device), self.scale.to(device))


def default_calibration(features: Sequence[Feature]) -> Calibration:
    """Return a fallback calibration for when no healthy recordings are available.

    Lines and kurtosis have presence probability 1/2 at 0 dB, the value that noise alone exceeds in 1 % of cases. Band
    levels and lines of kind `"shaft"`, which healthy machines show too, are unknown (NaN).

    Example:
        >>> default_calibration([Feature("whirl", "raw", ((0.41, 0.485),)), Feature("1X", "shaft", ((0.98, 1.02),))])
        Calibration(offset=tensor([-4., nan]), slope=tensor([0., 0.]), scale=tensor([2., 2.]))
    """
    offset = [
        math.nan if feature.kind in ("level", "shaft") else -_PRESENCE_THRESHOLD * _NOISE_SCALE_DB
        for feature in features
    ]
    zero = torch.zeros(len(features))
    return Calibration(torch.tensor(offset), zero, zero + _NOISE_SCALE_DB)


def fit_calibration(evidence: Tensor, rpm: Tensor) -> Calibration:
    """Fit a calibration to healthy recordings: a ridge regression on log speed and the scatter around it.

    The 1X line of a healthy machine grows with speed, so a fixed threshold would flag fast machines as faulty. The
    ridge penalty on the slope weighs as much as one squared e-fold of speed: recordings at a single speed give a level
    without a trend. The scatter is 1.4826 times the median absolute residual (which estimates the standard deviation
    of a normal distribution), at least 1 dB.

    Args:
        evidence: `[M, L]` in dB, of healthy recordings only; NaN entries are ignored.
        rpm: `[M]`, shaft speeds; recordings with a NaN speed are ignored.

    Returns:
        A calibration of L features, NaN for features known in fewer than two recordings.

    Raises:
        ValueError: the shapes differ, or no speed is known.

    Example:
        >>> rpm = torch.tensor([1000.0, 2000.0, 4000.0])
        >>> fit_calibration(torch.tensor([[3.0], [3.0], [3.0]]), rpm)
        Calibration(offset=tensor([3.]), slope=tensor([0.]), scale=tensor([1.]))
    """
    if evidence.ndim != 2 or rpm.shape != evidence.shape[:1]:
        raise ValueError(
            f"evidence has shape {tuple(evidence.shape)} and rpm {tuple(rpm.shape)}, expected [M, L] and [M]"
        )
    if not bool((rpm > 0).any()):
        raise ValueError("no healthy recording has a known rpm; expected at least one speed > 0")
    y = evidence.double()
    x = torch.log(rpm.double() / _REFERENCE_RPM)[:, None].expand_as(y)
    known = y.isfinite() & x.isfinite()
    count = known.sum(0)
    x, y = x.where(known, 0), y.where(known, 0)
    mean_x, mean_y = x.sum(0) / count, y.sum(0) / count
    dx, dy = (x - mean_x).where(known, 0), (y - mean_y).where(known, 0)
    slope = (dx * dy).sum(0) / (dx.square().sum(0) + _RIDGE)
    residual = (dy - slope * dx).abs().where(known, torch.nan)
    scale = (1.4826 * residual.nanquantile(0.5, dim=0)).clamp_min(_MIN_SCALE_DB)
    offset = (mean_y - slope * mean_x).masked_fill(count < 2, torch.nan)
    return Calibration(*(each.float() for each in (offset, slope, scale)))


def presence_probability(evidence: Tensor, rpm: Tensor | float, calibration: Calibration) -> Tensor:
    """Compute the probability that each feature is present.

    It is `sigmoid(1.7 (u - 2))`, where u is the deviation from the healthy baseline in standard deviations.

    Args:
        evidence: `[B, L]` in dB.
        rpm: shaft speed, `[B]` or one for all; NaN if unknown.
        calibration: baseline of the L features.

    Returns:
        `[B, L]` in [0, 1]; 1/2 where the evidence, the speed or the baseline is unknown.

    Example:
        >>> calibration = default_calibration([Feature("1X", "raw", ((0.98, 1.02),))])
        >>> presence_probability(torch.tensor([[0.0], [10.0], [torch.nan]]), 3000, calibration)
        tensor([[0.5000], [0.9998], [0.5000]])
    """
    speed = torch.as_tensor(rpm, dtype=evidence.dtype, device=evidence.device)
    log_speed = torch.log(speed / _REFERENCE_RPM)[..., None]
    baseline = torch.addcmul(calibration.offset, log_speed, calibration.slope)
    deviations = (evidence - baseline) / calibration.scale
    return torch.sigmoid(_STEEPNESS * (deviations - _PRESENCE_THRESHOLD)).nan_to_num(nan=0.5)


def expectation_table(labels: Sequence[str], features: Sequence[Feature], orders: FaultOrders | None = None) -> Tensor:
    """Return the probability that each feature is present given each class.

    The probability is 0.9 for a feature that the class requires, 0.5 for one that it tolerates and 0.08 for one that it
    forbids. Lines follow from `faults.signature`: a feature belongs to a class if one of the class's lines overlaps one
    of the feature's windows. Levels and the kurtosis are matched by name (`"mid level"`, `"high level"`,
    `"envelope kurtosis"`); others are neutral.

    Args:
        labels: names of the C classes.
        features: the L features.
        orders: kinematics of the rolling bearing, if there is one.

    Returns:
        `[C, L]`. The row of a class is 0.5 throughout, so that the class is not evaluated, if its label is unknown or
        none of the features that it requires is among `features`.

    Example:
        >>> features = [Feature("1X", "raw", ((0.98, 1.02),)), Feature("2X", "raw", ((1.98, 2.02),))]
        >>> expectation_table(["normal", "imbalance", "gear_crack"], features)
        tensor([[0.0800, 0.0800], [0.9000, 0.0800], [0.5000, 0.5000]])
    """
    return torch.tensor([_expectations(label, features, orders) for label in labels])


def log_compatibility(presence: Tensor, table: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the log probability of the observed features given each class.

    It is `sum_l w_l log(pi r + (1 - pi)(1 - r))`.

    Args:
        presence: presence probabilities r, `[B, L]` in [0, 1].
        table: expectations pi, `[C, L]` in [0, 1], see `expectation_table`.
        weights: w, `[L]`, >= 0; all 1 by default.

    Returns:
        `[B, C]`, <= 0. A feature with presence probability 1/2 adds the same to all classes.

    Example:
        >>> log_compatibility(torch.tensor([[1.0]]), torch.tensor([[0.9], [0.08]])).exp()
        tensor([[0.9000, 0.0800]])
    """
    terms = torch.lerp(1 - table, table, presence[:, None]).log_()
    return terms.sum(-1) if weights is None else terms @ weights


def class_probabilities(log_compatibility: Tensor, temperature: float = DEFAULT_TEMPERATURE) -> Tensor:
    """Convert log compatibilities to a distribution over the classes, `softmax(log k / T)`, `[B, C]`.

    A temperature T > 1 makes up for features that are not independent of each other.

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> class_probabilities(torch.tensor([[0.9, 0.1]]).log(), temperature=1)
        tensor([[0.9000, 0.1000]])
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected > 0")
    return torch.softmax(log_compatibility / temperature, -1)


def trust_matrix(probabilities: Tensor, targets: Tensor, n_classes: int, prior: float = 0.3) -> Tensor:
    """Estimate from labeled windows how to correct the class probabilities of the physics.

    `q @ M` is the corrected distribution, with `M[k, c] = a [k = c] + sum over windows of class c of q[k] / n_c` and
    rows scaled to sum 1. The matrix learns statements such as "where the physics predicts an outer-race fault, half of
    the time it is a ball fault", and corrects classes that were mapped wrongly.

    Args:
        probabilities: q, `[M, C]`, of labeled windows.
        targets: `[M]`, true classes in 0..C-1.
        n_classes: C.
        prior: weight a > 0 of the identity matrix, the confidence in the physics without any labels.

    Returns:
        `[C, C]`, rows sum to 1.

    Raises:
        ValueError: the prior is not positive, or the shapes do not match.

    Example:
        >>> trust_matrix(torch.eye(2), torch.tensor([1, 0]), n_classes=2, prior=0.25)  # classes swapped
        tensor([[0.2000, 0.8000], [0.8000, 0.2000]])
    """
    if not prior > 0:
        raise ValueError(f"prior is {prior}, expected > 0")
    if probabilities.shape != (len(targets), n_classes):
        raise ValueError(f"probabilities have shape {tuple(probabilities.shape)}, expected {(len(targets), n_classes)}")
    truth = torch.nn.functional.one_hot(targets, n_classes).to(probabilities.dtype)
    matrix = probabilities.T @ (truth / truth.sum(0).clamp_min(1))
    matrix = matrix + prior * torch.eye(n_classes, dtype=matrix.dtype, device=matrix.device)
    return matrix / matrix.sum(1, keepdim=True)


def with_control(
    evidence: OrderEvidence, table: Tensor, control: Control | None, seed: int = 0
) -> tuple[OrderEvidence, Tensor]:
    """Replace the physics by a negative control, if one is named.

    An improvement that a control achieves as well is not due to the physics. `"random_bands"` moves the windows of all
    features to random positions and keeps their widths; `"scrambled"` permutes the rows of the table so that no class
    keeps its own.

    Args:
        evidence: detector of the features.
        table: `[C, L]`, see `expectation_table`.
        control: name of the control, or None to return both arguments unchanged.
        seed: seed of the random positions or the permutation.

    Raises:
        ValueError: the control is unknown, or there are fewer than two classes to permute.

    Example:
        >>> evidence = OrderEvidence.journal(20480)
        >>> table = expectation_table(["healthy", "imbalance"], evidence.features)
        >>> bool((with_control(evidence, table, "scrambled")[1] == table.flip(0)).all())
        True
    """
    if control is None:
        return evidence, table
    if control == "random_bands":
        return evidence.with_features(random_bands(evidence.features, seed)), table
    if control == "scrambled":
        return evidence, table[_derangement(len(table), seed)]
    raise ValueError(unknown_name("control", control, get_args(Control)))


def _expectations(label: str, features: Sequence[Feature], orders: FaultOrders | None) -> list[float]:
    found = signature(label, orders)
    broadband = {signature(name, orders): roles for name, roles in _BROADBAND.items()}.get(found, {})
    row = [_expectation(feature, found.lines, broadband) if found else NEUTRAL for feature in features]
    is_evaluated = REQUIRED in row or (found is not None and not found.lines and not found.needs_high_frequency)
    return row if is_evaluated else [NEUTRAL] * len(row)


def _expectation(feature: Feature, lines: Sequence[Line], broadband: dict[str, float]) -> float:
    if not feature.is_line:
        return broadband.get(feature.name, FORBIDDEN)
    if feature.unit == "hz":
        return NEUTRAL
    spectrum = "envelope" if feature.kind == "envelope" else "raw"
    roles = {
        line.role
        for line in lines
        for low, high in feature.windows
        if line.spectrum == spectrum and line.low_order <= high and low <= line.high_order
    }
    if not roles:
        return FORBIDDEN
    return REQUIRED if "required" in roles else NEUTRAL


def _derangement(n: int, seed: int) -> list[int]:
    """Return a random cyclic permutation, which leaves no element in place."""
    if n < 2:
        raise ValueError(f"cannot scramble {n} classes, expected at least 2")
    order = random.Random(seed).sample(range(n), n)
    successor = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [successor[index] for index in range(n)]
