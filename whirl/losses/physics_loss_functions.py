"""Losses that hold predictions against physics: fault frequencies, operating point, continuity in time.

Where a loss knows nothing, it is 0 with a graph to the predictions, and says so once. Half precision is computed in
float32, inside autocast too, and nothing waits for an accelerator.

Physics acts on windows without labels: labels say more than it does. Cross entropy belongs beside each of these losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from whirl.losses.evidence_consistency import EvidenceConsistencyLoss, Form
from whirl.losses.frequency_consistency import FrequencyConsistencyLoss, class_consistency_loss
from whirl.losses.physics_inputs import Metadata, full_precision
from whirl.losses.severity_ranking import SommerfeldConsistencyLoss
from whirl.losses.temporal_smoothness import TemporalSmoothnessLoss
from whirl.physics.compatibility import Calibration, Control
from whirl.physics.expected_lines import ExpectedLine, Spectrum, Unit
from whirl.physics.faults import JOURNAL_CLASSES, Signature
from whirl.physics.journal_bearing import VG46_CST
from whirl.physics.rolling_bearing import FaultOrders
from whirl.physics.shaft_speed import estimate_rpm
from whirl.validation import unknown_name

__all__ = [
    "EvidenceConsistencyLoss",
    "FrequencyConsistencyLoss",
    "PhysicalConstraintLoss",
    "SommerfeldConsistencyLoss",
    "TemporalSmoothnessLoss",
    "class_consistency_loss",
    "estimate_rpm",
]


class PhysicalConstraintLoss(nn.Module):
    """The three losses together: lambda_freq L_freq + lambda_sommerfeld L_sommerfeld + lambda_temporal L_temporal.

    Terms of weight 0 are left out, and a term that lacks what it needs is 0. The terms are the modules `frequency`
    (an `EvidenceConsistencyLoss`), `sommerfeld` and `temporal`.

    Args:
        lambda_freq: weight of the frequency term, >= 0.
        lambda_sommerfeld: weight of the severity ranking, >= 0.
        lambda_temporal: weight of the temporal term, >= 0.
        classes: names of the network's outputs; None is the 11 journal classes.
        sample_rate: in Hz.
        expected_freqs: lines by class, see `FrequencyConsistencyLoss`; None takes the classes' known signatures.
        orders: kinematics of the rolling bearing, which signatures of its faults need.
        form: see `EvidenceConsistencyLoss`.
        temperature: of physics' distribution over the classes; None is 2 for faults in journal bearings, 1.5 in
            rolling bearings, 1 for `expected_freqs`.
        calibration: what is normal for each line; better learnt by `fit_calibration`.
        control: see `EvidenceConsistencyLoss`.
        control_seed: of the control.
        fault_severity_order: see `SommerfeldConsistencyLoss`.
        tolerance: of `expected_freqs`, as are the next three; see `FrequencyConsistencyLoss`.
        freq_unit: see `FrequencyConsistencyLoss`.
        spectrum: see `FrequencyConsistencyLoss`.
        reference_rpm: speed that `expected_freqs` are given for, and that holds where the metadata have none.
        rpm_range: see `EvidenceConsistencyLoss`.
        max_rpm: fastest speed of the shaft.
        oil_cst: see `SommerfeldConsistencyLoss`.
        tau_s: see `TemporalSmoothnessLoss`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> loss = PhysicalConstraintLoss(lambda_sommerfeld=0)
        >>> metadata = {"rpm": torch.full((2,), 3000.0), "recording": torch.tensor([0, 0])}
        >>> signal = torch.randn(2, 1, 20480, generator=torch.Generator().manual_seed(0))
        >>> sorted(loss.components(torch.zeros(2, 11), signal, metadata))
        ['freq_loss', 'sommerfeld_loss', 'temporal_loss', 'total_loss']
    """

    def __init__(
        self,
        lambda_freq: float = 1.0,
        lambda_sommerfeld: float = 0.5,
        lambda_temporal: float = 0.1,
        *,
        classes: Sequence[str] | None = None,
        sample_rate: float = 20480,
        expected_freqs: Mapping[int | str, Sequence[ExpectedLine] | Signature] | None = None,
        orders: FaultOrders | None = None,
        form: Form = "log",
        temperature: float | None = None,
        calibration: Calibration | None = None,
        control: Control | None = None,
        control_seed: int = 0,
        fault_severity_order: Sequence[int | str] | None = None,
        tolerance: float = 0.1,
        freq_unit: Unit = "hz",
        spectrum: Spectrum = "both",
        reference_rpm: float | None = None,
        rpm_range: tuple[float, float] | None = None,
        max_rpm: float = 6000,
        oil_cst: tuple[float, float] = VG46_CST,
        tau_s: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights: dict[str, float] = {
            "freq_loss": lambda_freq,
            "sommerfeld_loss": lambda_sommerfeld,
            "temporal_loss": lambda_temporal,
        }
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of {name} is {weight}, expected a number >= 0")
        names = tuple(JOURNAL_CLASSES if classes is None else classes)
        common: dict[str, Any] = {
            "form": form,
            "calibration": calibration,
            "control": control,
            "control_seed": control_seed,
            "reference_rpm": reference_rpm,
            "rpm_range": rpm_range,
            "max_rpm": max_rpm,
        }
        if expected_freqs is None:
            self.frequency = class_consistency_loss(
                names, sample_rate, orders=orders, temperature=temperature, **common
            )
        else:
            self.frequency = FrequencyConsistencyLoss(
                expected_freqs,
                sample_rate,
                tolerance,
                freq_unit=freq_unit,
                spectrum=spectrum,
                classes=names,
                temperature=1.0 if temperature is None else temperature,
                **common,
            )
        self.sommerfeld = SommerfeldConsistencyLoss(fault_severity_order, classes=names, oil_cst=oil_cst)
        self.temporal = TemporalSmoothnessLoss(1.0, tau_s=tau_s, sample_rate=sample_rate)

    def forward(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        return self.components(predictions, signal, metadata)["total_loss"]

    def components(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None
    ) -> dict[str, Tensor]:
        """The weighted sum and its terms, with gradients.

        Args:
            predictions: logits `[B, C]`.
            signal: `[B, N]` or `[B, channels, N]`.
            metadata: tensors `[B]` by name, see the terms.

        Returns:
            Scalars `freq_loss`, `sommerfeld_loss` and `temporal_loss`, before weighting, 0 for those of weight 0, and
            `total_loss`.
        """
        inputs = self._inputs(predictions, signal, metadata)
        nothing = full_precision(predictions).sum() * 0
        terms = {name: term(*given) if self.weights[name] else nothing for name, (term, given) in inputs.items()}
        total = sum((self.weights[name] * terms[name] for name in terms), start=nothing)
        return terms | {"total_loss": total}

    def terms(
        self,
        predictions: Tensor,
        signal: Tensor | None,
        metadata: Metadata | None = None,
        names: Sequence[str] = ("freq_loss", "sommerfeld_loss", "temporal_loss"),
    ) -> dict[str, Tensor]:
        """The terms asked for, before weighting, whatever their weight; each has a graph to the predictions.

        Raises:
            ValueError: a name is not known.
        """
        inputs = self._inputs(predictions, signal, metadata)
        for name in names:
            self._check_name(name)
        return {name: inputs[name][0].term(*inputs[name][1]) for name in names}

    def why_inert(self, name: str, signal: Tensor | None, metadata: Metadata | None = None) -> str:
        """Why a term has no gradient on a batch, in words."""
        self._check_name(name)
        if name == "freq_loss":
            return self.frequency.why_inert(signal, metadata)
        if name == "temporal_loss":
            return self.temporal.why_inert(metadata)
        n_windows = len(signal) if signal is not None else len(next(iter((metadata or {}).values())))
        return self.sommerfeld.why_inert(metadata, n_windows)

    def diagnose(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None
    ) -> dict[str, Tensor]:
        """`EvidenceConsistencyLoss.diagnose`, from the evidence that `terms` took; empty if `lambda_freq` is 0."""
        return self.frequency.diagnose(predictions, signal, metadata) if self.weights["freq_loss"] else {}

    @property
    def calibration(self) -> Calibration:
        """What is normal for each line."""
        return self.frequency.calibration

    def fit_calibration(self, signals: Tensor, rpm: Tensor | float) -> None:
        """See `EvidenceConsistencyLoss.fit_calibration`."""
        self.frequency.fit_calibration(signals, rpm)

    def fit_trust(self, signals: Tensor | None, targets: Tensor, metadata: Metadata | None = None) -> None:
        """See `EvidenceConsistencyLoss.fit_trust`."""
        self.frequency.fit_trust(signals, targets, metadata)

    def _inputs(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None
    ) -> dict[str, tuple[Any, tuple[Any, ...]]]:
        """Each term and what it takes."""
        return {
            "freq_loss": (self.frequency, (predictions, signal, metadata)),
            "sommerfeld_loss": (self.sommerfeld, (predictions, metadata)),
            "temporal_loss": (self.temporal, (predictions, metadata)),
        }

    def _check_name(self, name: str) -> None:
        if name not in self.weights:
            raise ValueError(unknown_name("term", name, self.weights))
