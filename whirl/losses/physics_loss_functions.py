"""Physics losses, which compare predictions with fault frequencies, the operating point, and adjacent windows.

A loss without the inputs it needs is 0, still connected to the graph of the predictions, and warns once. Half precision
is computed in float32, also under autocast, and no loss forces a synchronization with an accelerator.

These losses need no labels, but carry less information than labels do. Combine each of them with a cross entropy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from whirl._display import format_facts
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
from whirl.validation import check_name, check_number

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
    """Weighted sum lambda_freq L_freq + lambda_sommerfeld L_sommerfeld + lambda_temporal L_temporal.

    Terms of weight 0 are skipped, and a term without the inputs it needs is 0. The terms are the submodules `frequency`
    (an `EvidenceConsistencyLoss`), `sommerfeld` (a `SommerfeldConsistencyLoss`) and `temporal` (a
    `TemporalSmoothnessLoss`).

    Args:
        lambda_freq: weight of the frequency term, >= 0.
        lambda_sommerfeld: weight of the severity ranking, >= 0.
        lambda_temporal: weight of the temporal term, >= 0.
        classes: names of the network's outputs. None means the 11 journal-bearing classes.
        sample_rate: sampling rate in Hz.
        expected_freqs: lines by class, see `FrequencyConsistencyLoss`. None means the known signatures of the classes.
        orders: kinematics of the rolling bearing; required for the signatures of its faults.
        form: see `EvidenceConsistencyLoss`.
        temperature: temperature of the physics distribution over the classes. None means 2 for faults of journal
            bearings, 1.5 for rolling bearings, and 1 with `expected_freqs`.
        calibration: normal level of each line; preferably fitted with `fit_calibration`.
        control: see `EvidenceConsistencyLoss`.
        control_seed: seed of the control.
        fault_severity_order: see `SommerfeldConsistencyLoss`.
        tolerance: see `FrequencyConsistencyLoss`; used with `expected_freqs` only.
        freq_unit: see `FrequencyConsistencyLoss`; used with `expected_freqs` only.
        spectrum: see `FrequencyConsistencyLoss`; used with `expected_freqs` only.
        reference_rpm: speed for which `expected_freqs` are given, and which is assumed where the metadata have none.
        rpm_range: see `EvidenceConsistencyLoss`.
        max_rpm: highest shaft speed in rev/min.
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
            "freq_loss": check_number("lambda_freq", lambda_freq, 0),
            "sommerfeld_loss": check_number("lambda_sommerfeld", lambda_sommerfeld, 0),
            "temporal_loss": check_number("lambda_temporal", lambda_temporal, 0),
        }
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

    def extra_repr(self) -> str:
        return format_facts(self.weights)

    def forward(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        return self.components(predictions, signal, metadata)["total_loss"]

    def components(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None
    ) -> dict[str, Tensor]:
        """Compute the weighted sum and its terms, with gradients.

        Args:
            predictions: logits `[B, C]`.
            signal: `[B, N]` or `[B, channels, N]`.
            metadata: tensors `[B]` by name, see the individual losses.

        Returns:
            Scalars `freq_loss`, `sommerfeld_loss` and `temporal_loss`, before weighting and 0 for weight 0, and
            `total_loss`.
        """
        inputs = self._inputs(predictions, signal, metadata)
        zero = full_precision(predictions).sum() * 0
        terms = {name: term(*arguments) if self.weights[name] else zero for name, (term, arguments) in inputs.items()}
        total = sum((self.weights[name] * terms[name] for name in terms), start=zero)
        return terms | {"total_loss": total}

    def terms(
        self,
        predictions: Tensor,
        signal: Tensor | None,
        metadata: Metadata | None = None,
        names: Sequence[str] = ("freq_loss", "sommerfeld_loss", "temporal_loss"),
    ) -> dict[str, Tensor]:
        """Compute the named terms before weighting, also those of weight 0.

        Args:
            predictions: logits `[B, C]`.
            signal: `[B, N]` or `[B, channels, N]`.
            metadata: tensors `[B]` by name, see the individual losses.
            names: terms to compute.

        Returns:
            Scalars by name, each connected to the graph of the predictions.

        Raises:
            ValueError: a name is unknown.
        """
        inputs = self._inputs(predictions, signal, metadata)
        for name in names:
            check_name("term", name, self.weights)
        return {name: inputs[name][0].term(*inputs[name][1]) for name in names}

    def explain_zero_gradient(self, name: str, signal: Tensor | None, metadata: Metadata | None = None) -> str:
        """Return the reason why a term has no gradient on a batch, as text."""
        check_name("term", name, self.weights)
        if name == "freq_loss":
            return self.frequency.explain_zero_gradient(signal, metadata)
        if name == "temporal_loss":
            return self.temporal.explain_zero_gradient(metadata)
        n_windows = len(signal) if signal is not None else len(next(iter((metadata or {}).values())))
        return self.sommerfeld.explain_zero_gradient(metadata, n_windows)

    def diagnose(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None
    ) -> dict[str, Tensor]:
        """Return `EvidenceConsistencyLoss.diagnose`, reusing the evidence of `terms`; empty if `lambda_freq` is 0."""
        return self.frequency.diagnose(predictions, signal, metadata) if self.weights["freq_loss"] else {}

    @property
    def calibration(self) -> Calibration:
        """Normal level of each line."""
        return self.frequency.calibration

    def fit_calibration(self, signals: Tensor, rpm: Tensor | float) -> None:
        """Fit the normal level of each line, see `EvidenceConsistencyLoss.fit_calibration`."""
        self.frequency.fit_calibration(signals, rpm)

    def fit_trust(self, signals: Tensor | None, targets: Tensor, metadata: Metadata | None = None) -> None:
        """Fit a correction to labeled windows, see `EvidenceConsistencyLoss.fit_trust`."""
        self.frequency.fit_trust(signals, targets, metadata)

    def _inputs(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None
    ) -> dict[str, tuple[Any, tuple[Any, ...]]]:
        """Return each term with its arguments."""
        return {
            "freq_loss": (self.frequency, (predictions, signal, metadata)),
            "sommerfeld_loss": (self.sommerfeld, (predictions, metadata)),
            "temporal_loss": (self.temporal, (predictions, metadata)),
        }
