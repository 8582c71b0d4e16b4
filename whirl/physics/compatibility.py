"""How well each fault class fits the evidence: from decibels over presence of features to a distribution over classes.

A class requires some features, tolerates others and forbids the rest. `healthy` forbids all of them, so it fits only
where nothing is there: "everything is healthy" is no way out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import Line, signature
from whirl.physics.features import Feature, random_bands
from whirl.physics.rolling_bearing import FaultOrders

Control = Literal["random_bands", "scrambled"]

REQUIRED, NEUTRAL, FORBIDDEN = 0.9, 0.5, 0.08
"""Probability that a feature is present, given the class."""

DEFAULT_TEMPERATURE = 2.0

_REFERENCE_RPM = 2000.0
_PRESENT_AT = 2.0  # deviations above the healthy level at which presence is 1/2
_STEEPNESS = 1.7  # a logistic function this steep is close to the normal distribution's
_NOISE_SCALE_DB = 2.0
_MIN_SCALE_DB = 1.0
_RIDGE = 1.0  # weight of "no trend with speed", in the unit of sum of squared deviations of log rpm

# Evidence that has no line, by class and kind of feature.
_BROADBAND: dict[str, dict[str, float]] = {
    "lubrication": {"high level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    "cavitation": {"high level": REQUIRED, "envelope kurtosis": REQUIRED},
    "wear": {"mid level": REQUIRED},
    "wear_lubrication": {"mid level": REQUIRED, "high level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    "cavitation_clearance": {"high level": REQUIRED, "envelope kurtosis": REQUIRED},
    "inner_race": {"structure level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    "outer_race": {"structure level": NEUTRAL, "envelope kurtosis": NEUTRAL},
    # balls seldom show their line: what tells them is impacts without the line of a race
    "ball": {"structure level": NEUTRAL, "envelope kurtosis": REQUIRED},
}


@dataclass(frozen=True)
class Calibration:
    """What is normal: per feature, level and scatter of healthy machines, and the trend of the level with speed.

    `u = (e - offset - slope log(rpm / 2000)) / scale` counts deviations above normal. NaN marks features of which
    nothing is known.

    Attributes:
        offset: `[L]` dB at 2000 rpm.
        slope: `[L]` dB per e-fold of speed.
        scale: `[L]` dB, > 0.
    """

    offset: Tensor
    slope: Tensor
    scale: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        """The three tensors by name."""
        return {"offset": self.offset, "slope": self.slope, "scale": self.scale}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> Calibration:
        """The calibration that `state_dict` was taken of."""
        return cls(state["offset"], state["slope"], state["scale"])

    def to(self, device: torch.device | str) -> Calibration:
        """A copy on a device."""
        return Calibration(self.offset.to(device), self.slope.to(device), self.scale.to(device))


def default_calibration(features: Sequence[Feature]) -> Calibration:
    """For want of healthy records: lines and kurtosis are half present at 0 dB, what noise alone exceeds in 1 %.

    Of what healthy machines show as well, levels and the lines of kind `"shaft"`, nothing is known then.

    Example:
        >>> default_calibration([Feature("whirl", "raw", ((0.41, 0.485),)), Feature("1X", "shaft", ((0.98, 1.02),))])
        Calibration(offset=tensor([-4., nan]), slope=tensor([0., 0.]), scale=tensor([2., 2.]))
    """
    offset = [
        math.nan if feature.kind in ("level", "shaft") else -_PRESENT_AT * _NOISE_SCALE_DB for feature in features
    ]
    zero = torch.zeros(len(features))
    return Calibration(torch.tensor(offset), zero, zero + _NOISE_SCALE_DB)


def fit_calibration(evidence: Tensor, rpm: Tensor) -> Calibration:
    """Calibration from healthy records: a ridge line over log speed, and the scatter about it.

    Healthy 1X grows with speed; a fixed threshold would call fast machines faulty. The slope is pulled to 0 with the
    weight of one squared e-fold of speed, so records of a single speed give a level and no trend. The scatter is
    1.4826 times the median absolute residual (the standard deviation of a normal distribution), at least 1 dB.

    Args:
        evidence: `[M, L]` dB of healthy records only; NaN is left out.
        rpm: `[M]`, speeds; records of NaN are left out.

    Returns:
        A calibration `[L]`, NaN for features known in fewer than two records.

    Raises:
        ValueError: shapes differ, or no speed is known.

    Example:
        >>> rpm = torch.tensor([1000.0, 2000.0, 4000.0])
        >>> fit_calibration(torch.tensor([[3.0], [3.0], [3.0]]), rpm)
        Calibration(offset=tensor([3.]), slope=tensor([0.]), scale=tensor([1.]))
    """
    if evidence.ndim != 2 or rpm.shape != evidence.shape[:1]:
        raise ValueError(f"evidence {tuple(evidence.shape)} and rpm {tuple(rpm.shape)}: expected [M, L] and [M]")
    if not bool((rpm > 0).any()):
        raise ValueError("no healthy record has a known rpm")
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


def presence(evidence: Tensor, rpm: Tensor | float, calibration: Calibration) -> Tensor:
    """How surely each feature is there, `sigmoid(1.7 (u - 2))` with u deviations above normal.

    Args:
        evidence: `[B, L]` dB.
        rpm: `[B]` or one speed for all; NaN where unknown.
        calibration: of the L features.

    Returns:
        `[B, L]` in 0..1; 1/2 where nothing is known.

    Example:
        >>> calibration = default_calibration([Feature("1X", "raw", ((0.98, 1.02),))])
        >>> presence(torch.tensor([[0.0], [10.0], [torch.nan]]), 3000, calibration)
        tensor([[0.5000], [0.9998], [0.5000]])
    """
    speed = torch.as_tensor(rpm, dtype=evidence.dtype, device=evidence.device)
    log_speed = torch.log(speed / _REFERENCE_RPM)[..., None]
    normal = torch.addcmul(calibration.offset, log_speed, calibration.slope)
    deviations = (evidence - normal) / calibration.scale
    return torch.sigmoid(_STEEPNESS * (deviations - _PRESENT_AT)).nan_to_num(nan=0.5)


def expectation_table(labels: Sequence[str], features: Sequence[Feature], orders: FaultOrders | None = None) -> Tensor:
    """Probability that a feature is there given the class: 0.9 required, 0.5 tolerated, 0.08 forbidden.

    Lines follow from `faults.signature`: a class owns a feature if one of its lines overlaps one of the feature's
    windows. Levels and the kurtosis go by name (`"mid level"`, `"high level"`, `"envelope kurtosis"`); others are
    neutral.

    Args:
        labels: names of the C classes.
        features: the L features.
        orders: kinematics of the rolling bearing, if there is one.

    Returns:
        `[C, L]`. A class is not judged, all 0.5, if its label is unknown or none of what it requires is looked for.

    Example:
        >>> features = [Feature("1X", "raw", ((0.98, 1.02),)), Feature("2X", "raw", ((1.98, 2.02),))]
        >>> expectation_table(["normal", "imbalance", "gear_crack"], features)
        tensor([[0.0800, 0.0800], [0.9000, 0.0800], [0.5000, 0.5000]])
    """
    return torch.tensor([_expectations(label, features, orders) for label in labels])


def log_compatibility(presence: Tensor, table: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log probability of the features found, given each class: `sum_l w_l log(pi r + (1 - pi)(1 - r))`.

    Args:
        presence: r, `[B, L]` in 0..1.
        table: pi, `[C, L]` in 0..1.
        weights: w, `[L]`, >= 0; all 1 by default.

    Returns:
        `[B, C]`, <= 0. A feature of presence 1/2 adds the same to all classes.

    Example:
        >>> log_compatibility(torch.tensor([[1.0]]), torch.tensor([[0.9], [0.08]])).exp()
        tensor([[0.9000, 0.0800]])
    """
    terms = torch.lerp(1 - table, table, presence[:, None]).log_()
    return terms.sum(-1) if weights is None else terms @ weights


def class_probabilities(log_compatibility: Tensor, temperature: float = DEFAULT_TEMPERATURE) -> Tensor:
    """Distribution over the classes, `softmax(log k / T)`, `[B, C]`.

    T > 1 allows for features that are not independent of each other.

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
    """What labelled windows say about the physics; `q @ M` is the corrected distribution.

    `M[k, c] = a [k = c] + sum over windows of class c of q[k] / n_c`, rows scaled to sum 1. It learns "physics says
    outer race, the truth is a ball half the time", and repairs classes that were mapped wrongly.

    Args:
        probabilities: q, `[M, C]`, of labelled windows.
        targets: `[M]`, true classes 0..C-1.
        n_classes: C.
        prior: a > 0, trust in the physics before any label.

    Returns:
        `[C, C]`, rows sum to 1.

    Raises:
        ValueError: the prior is not positive, or shapes do not fit.

    Example:
        >>> trust_matrix(torch.eye(2), torch.tensor([1, 0]), n_classes=2, prior=0.25)  # mapped the wrong way round
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
    """Evidence and table as they are, or spoilt: what a control gains, physics does not explain.

    `"random_bands"` moves the windows of all features to random places of equal width; `"scrambled"` hands the classes'
    rows of the table round, so that no class keeps its own.

    Raises:
        ValueError: the control is unknown, or there are fewer than two classes to scramble.

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
    raise ValueError(f"control is {control!r}, expected 'random_bands', 'scrambled' or None")


def _expectations(label: str, features: Sequence[Feature], orders: FaultOrders | None) -> list[float]:
    found = signature(label, orders)
    broadband = {signature(name, orders): roles for name, roles in _BROADBAND.items()}.get(found, {})
    row = [_expectation(feature, found.lines, broadband) if found else NEUTRAL for feature in features]
    judged = REQUIRED in row or (found is not None and not found.lines and not found.needs_high_frequency)
    return row if judged else [NEUTRAL] * len(row)


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
    """A random cyclic permutation: nothing stays in place."""
    if n < 2:
        raise ValueError(f"{n} classes cannot be scrambled, expected at least 2")
    order = random.Random(seed).sample(range(n), n)
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [following[index] for index in range(n)]
