"""Consistency of predictions with the spectral lines that each class is expected to show."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from whirl.losses.evidence_consistency import EvidenceConsistencyLoss, Form
from whirl.losses.physics_inputs import class_index
from whirl.physics.compatibility import Calibration, Control, expectation_table
from whirl.physics.evidence import OrderEvidence
from whirl.physics.expected_lines import ExpectedLine, Spectrum, Unit, expectations
from whirl.physics.faults import ROLLING_CLASSES, Signature, signature
from whirl.physics.rolling_bearing import FaultOrders


class FrequencyConsistencyLoss(EvidenceConsistencyLoss):
    """Penalizes predictions of classes whose expected spectral lines contradict those in the signal.

    A prediction is penalized if the expected lines of its class are missing, or if the lines in the signal belong to
    other classes; see `EvidenceConsistencyLoss`. All classes share one set of lines: a line is required for the classes
    that list it, tolerated for classes with an overlapping line, and forbidden for all others.

    Args:
        expected_freqs: for each class, by index or name, a list of lines: a number is a line, a pair (low, high) is a
            band, and `faults.Line` or `faults.Signature` objects are given in orders. An empty list, as for healthy
            machines, means that none of the lines is expected. Classes left out are not constrained.
        sample_rate: sampling rate in Hz.
        tolerance: half-width of the search window around a line, as a fraction of its frequency, in (0, 1). The
            window ends at half the distance to the next line, and 0.05 orders away from multiples of the shaft speed.
        reference_rpm: speed for which lines in Hz are given. They then scale with `metadata["rpm"]`, and this speed is
            assumed where the metadata have none.
        rpm_range: see `EvidenceConsistencyLoss`.
        freq_unit: `'hz'`, fixed unless `reference_rpm` is given, or `'order'`, multiples of the shaft speed.
        spectrum: spectrum to search: `'raw'`, `'envelope'` (for impacts), or `'both'`, of which the clearer line
            counts.
        form: see `EvidenceConsistencyLoss`.
        n_classes: number of classes C. None means the number of `classes`, or the highest index plus 1.
        classes: names of the network's outputs; required if keys of `expected_freqs` are names.
        temperature: temperature of the softmax that gives q, > 0.
        max_rpm: highest shaft speed in rev/min.
        calibration: normal level of each line.
        control: see `EvidenceConsistencyLoss`.
        control_seed: seed of the control.

    Raises:
        KeyError: a key is not a class.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> time_s = torch.arange(20480) / 20480
        >>> noise = torch.randn(20480, generator=torch.Generator().manual_seed(0))
        >>> signal = (torch.sin(2 * torch.pi * 100 * time_s) + noise)[None]
        >>> loss = FrequencyConsistencyLoss({0: [], 1: [50.0], 2: [100.0]}, reference_rpm=3000)
        >>> [round(loss(5.0 * torch.eye(3)[[c]], signal, {"rpm": 3000.0}).item(), 1) for c in range(3)]
        [2.4, 3.9, 0.0]
    """

    def __init__(
        self,
        expected_freqs: Mapping[int | str, Sequence[ExpectedLine] | Signature],
        sample_rate: float = 20480,
        tolerance: float = 0.1,
        *,
        reference_rpm: float | None = None,
        rpm_range: tuple[float, float] | None = None,
        freq_unit: Unit = "hz",
        spectrum: Spectrum = "both",
        form: Form = "log",
        n_classes: int | None = None,
        classes: Sequence[str] | None = None,
        temperature: float = 1.0,
        max_rpm: float = 6000,
        calibration: Calibration | None = None,
        control: Control | None = None,
        control_seed: int = 0,
    ) -> None:
        lines = {class_index(key, classes): expected for key, expected in expected_freqs.items()}
        n_named = max(max(lines, default=-1) + 1, len(classes or ()))
        if n_classes is not None and n_classes < n_named:
            raise ValueError(f"n_classes is {n_classes}, but expected_freqs and classes have {n_named} classes")
        features, feature_pairs, table = expectations(
            lines, n_classes or n_named, tolerance, freq_unit=freq_unit, spectrum=spectrum, reference_rpm=reference_rpm
        )
        needs_rpm = any(feature.unit == "order" for feature in features)
        max_rpm = max_rpm if needs_rpm else 60 * sample_rate
        super().__init__(
            OrderEvidence(features, sample_rate, max_rpm=max_rpm) if features else None,
            table,
            form=form,
            temperature=temperature,
            calibration=calibration,
            control=control,
            control_seed=control_seed,
            feature_pairs=feature_pairs,
            reference_rpm=reference_rpm,
            rpm_range=rpm_range,
            needs_rpm=needs_rpm,
        )
        rows = self.table.tolist()
        ambiguous = [index for index, row in zip(self.constrained.tolist(), rows, strict=True) if rows.count(row) > 1]
        if ambiguous:
            warnings.warn(
                f"classes {ambiguous} have the same expected lines as another class, so no line can distinguish them",
                stacklevel=2,
            )


def class_consistency_loss(
    classes: Sequence[str],
    sample_rate: float = 20480,
    *,
    orders: FaultOrders | None = None,
    temperature: float | None = None,
    max_rpm: float = 6000,
    **kwargs: Any,
) -> EvidenceConsistencyLoss:
    """Create the loss for named fault classes from their known signatures: lines, levels and impulsiveness.

    Args:
        classes: names of the network's outputs. Names without a `faults.signature` are not constrained.
        sample_rate: sampling rate in Hz.
        orders: kinematics of the rolling bearing. None means rotors in journal bearings; faults of rolling bearings
            are then not constrained.
        temperature: temperature of the softmax that gives q. None means 1.5 for the 5 features of rolling bearings,
            else 2.
        max_rpm: highest shaft speed in rev/min.
        **kwargs: further arguments of `EvidenceConsistencyLoss`.

    Returns:
        The loss.

    Example:
        >>> loss = class_consistency_loss(["healthy", "misalignment", "dry_gear"])
        >>> loss.constrained
        tensor([0, 1])
    """
    if orders is None:
        search, default = OrderEvidence.journal(sample_rate, max_rpm=max_rpm), 2.0
        rolling = [signature(label) for label in ROLLING_CLASSES[1:]]
        known = ["" if signature(label) in rolling else label for label in classes]
    else:
        search, default, known = OrderEvidence.rolling(sample_rate, orders, max_rpm=max_rpm), 1.5, classes
    table = expectation_table(known, search.features, orders)
    return EvidenceConsistencyLoss(search, table, temperature=default if temperature is None else temperature, **kwargs)
