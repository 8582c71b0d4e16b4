"""Predictions held against the lines that each class is expected to write into the spectrum."""

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
    """Predictions against the lines that each class is expected to write into the spectrum.

    A class whose own lines are missing, or that has none of the lines found, costs; see `EvidenceConsistencyLoss`.
    The lines of all classes are looked for: each is required of its owners, forbidden to the others, and tolerated of
    a class with an overlapping one.

    Args:
        expected_freqs: for each class, by index or name, a list of lines: a number is a line, a pair (low, high) a
            band, a `faults.Line` or `faults.Signature` speaks for itself (in orders). An empty list, as for healthy
            machines, expects none of the lines; a class left out is not judged.
        sample_rate: in Hz.
        tolerance: half-width of the search about a line, as a share of its frequency, in (0, 1); never more than half
            the way to the next line, nor nearer than 0.05 orders to a multiple of shaft speed.
        reference_rpm: the speed that lines in Hz are given for; they then follow `metadata["rpm"]`, and without it
            this speed holds.
        rpm_range: see `EvidenceConsistencyLoss`.
        freq_unit: `'hz'`, fixed unless `reference_rpm` is given, or `'order'`, multiples of shaft speed.
        spectrum: where to look: `'raw'`, `'envelope'` (impacts), or `'both'`, and the clearer one counts.
        form: see `EvidenceConsistencyLoss`.
        n_classes: C; None is the number of `classes`, or the highest index plus 1.
        classes: names of the network's outputs, needed where keys are names.
        temperature: > 0, of the softmax that gives q.
        max_rpm: fastest speed of the shaft.
        calibration: what is normal for each line.
        control: see `EvidenceConsistencyLoss`.
        control_seed: of the control.

    Raises:
        KeyError: a key is no class.
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
        lines = {class_index(key, classes): listed for key, listed in expected_freqs.items()}
        n_named = max(max(lines, default=-1) + 1, len(classes or ()))
        if n_classes is not None and n_classes < n_named:
            raise ValueError(f"n_classes is {n_classes}, but expected_freqs and classes name {n_named}")
        features, looks, table = expectations(
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
            looks=looks,
            reference_rpm=reference_rpm,
            rpm_range=rpm_range,
            needs_rpm=needs_rpm,
        )
        rows = self.table.tolist()
        same = [index for index, row in zip(self.judged.tolist(), rows, strict=True) if rows.count(row) > 1]
        if same:
            warnings.warn(f"classes {same} expect the same as another, so no line can part them", stacklevel=2)


def class_consistency_loss(
    classes: Sequence[str],
    sample_rate: float = 20480,
    *,
    orders: FaultOrders | None = None,
    temperature: float | None = None,
    max_rpm: float = 6000,
    **kwargs: Any,
) -> EvidenceConsistencyLoss:
    """The loss for named fault classes, by their known signatures: lines, levels, impulsiveness.

    Args:
        classes: names of the network's outputs; one that `faults.signature` does not know is not judged.
        sample_rate: in Hz.
        orders: kinematics of the rolling bearing; None looks for faults of rotors in journal bearings, and faults of
            rolling bearings are not judged.
        temperature: of the softmax that gives q; None is 1.5 for the 5 features of rolling bearings, else 2.
        max_rpm: fastest speed of the shaft.
        **kwargs: further arguments of `EvidenceConsistencyLoss`.

    Example:
        >>> loss = class_consistency_loss(["healthy", "misalignment", "dry_gear"])
        >>> loss.judged
        tensor([0, 1])
    """
    if orders is None:
        search, usual = OrderEvidence.journal(sample_rate, max_rpm=max_rpm), 2.0
        rolling = [signature(label) for label in ROLLING_CLASSES[1:]]
        known = ["" if signature(label) in rolling else label for label in classes]
    else:
        search, usual, known = OrderEvidence.rolling(sample_rate, orders, max_rpm=max_rpm), 1.5, classes
    table = expectation_table(known, search.features, orders)
    return EvidenceConsistencyLoss(search, table, temperature=usual if temperature is None else temperature, **kwargs)
