"""An untrained diagnoser of rolling bearings: which family of lines the envelope shows. Networks must beat it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from whirl.physics.compatibility import (
    Calibration,
    class_probabilities,
    default_calibration,
    expectation_table,
    log_compatibility,
    presence_probability,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import signature
from whirl.physics.features import rolling_features
from whirl.physics.rolling_bearing import FaultOrders


class EnvelopeRule:
    """Names the fault of a rolling bearing from its envelope spectrum, without training.

    Evidence of `OrderEvidence.rolling`, presence of its features and the classes' expectations give a distribution over
    the classes. Without a calibration nothing is fitted to any record: a line counts as present above what noise alone
    shows in one window of a hundred. Where no line of a race stands out, a ball fault (or, if it is among the classes
    and the envelope is not impulsive either, health) fits best: balls seldom show their line.

    Args:
        classes: labels that `faults.signature` knows, such as `ROLLING_CLASSES` or some of it.
        orders: kinematics of the bearing.
        calibration: of `rolling_features`, from healthy records; by default none.
        temperature: > 0, of the softmax over the classes.
        max_rpm: fastest speed of the shaft.

    Raises:
        ValueError: there are fewer than two classes, or one is unknown.

    Example:
        >>> import torch
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> orders = fault_orders(BEARINGS["6205"])
        >>> time_s = torch.arange(12000) / 12000
        >>> swelling = 1 + torch.cos(2 * torch.pi * orders.bpfo * 30 * time_s)  # 30 turns a second
        >>> noise = torch.randn(12000, generator=torch.Generator().manual_seed(0))
        >>> rule = EnvelopeRule(["inner_race", "outer_race", "ball"], orders)
        >>> rule.predict((swelling * noise)[None], rpm=1800, sampling_rate_hz=12000)
        tensor([1])
    """

    def __init__(
        self,
        classes: Sequence[str],
        orders: FaultOrders,
        *,
        calibration: Calibration | None = None,
        temperature: float = 1.5,
        max_rpm: float = 6000,
    ) -> None:
        self.classes, self.orders, self.temperature, self.max_rpm = tuple(classes), orders, temperature, max_rpm
        unknown = [label for label in self.classes if signature(label, orders) is None]
        if len(self.classes) < 2 or unknown:
            raise ValueError(f"classes are {self.classes}, expected two or more that are known; unknown: {unknown}")
        features = rolling_features(orders)
        self.table = expectation_table(self.classes, features, orders)
        self.calibration = calibration or default_calibration(features)
        self._evidence: dict[float, OrderEvidence] = {}

    def predict_proba(self, signals: Tensor, rpm: Tensor | float, sampling_rate_hz: float) -> Tensor:
        """Distribution over the classes, `[B, K]`, rows sum to 1; uniform where the speed is NaN.

        Args:
            signals: `[B, C, N]` or `[B, N]`.
            rpm: speed of the shaft, `[B]` or one for all.
            sampling_rate_hz: of the signals, > 0.

        Raises:
            ValueError: as `OrderEvidence` does.
        """
        if sampling_rate_hz not in self._evidence:
            self._evidence[sampling_rate_hz] = OrderEvidence.rolling(
                sampling_rate_hz, self.orders, max_rpm=self.max_rpm
            )
        found = self._evidence[sampling_rate_hz](signals, rpm)
        there = presence_probability(found, rpm, self.calibration.to(found.device))
        return class_probabilities(log_compatibility(there, self.table.to(found.device)), self.temperature)

    def predict(self, signals: Tensor, rpm: Tensor | float, sampling_rate_hz: float) -> Tensor:
        """The likeliest class of each signal, `[B]` indices into `classes`; arguments as of `predict_proba`."""
        return self.predict_proba(signals, rpm, sampling_rate_hz).argmax(1)
