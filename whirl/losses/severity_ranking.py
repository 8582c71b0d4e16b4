"""Ranking of predicted severities by the operating point of a journal bearing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl._display import format_attributes
from whirl.losses.physics_inputs import (
    Metadata,
    WarnOnce,
    class_index,
    class_logits,
    first_available,
    full_precision,
    per_window,
)
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.physics.journal_bearing import VG46_CST
from whirl.validation import check_count, check_number, unwrap_scalar

_DEFAULT_ORDER = ("healthy", "lubrication", "wear", "wear_lubrication")
_DIRECTIONS = {"lubrication": -1.0, "wear": -1.0, "wear_lubrication": -1.0, "oil_whirl": 1.0}

# Alternative names of metadata; the first available one is used.
_VISCOSITY, _TEMPERATURE = ("viscosity", "viscosity_pa_s"), ("temperature", "temperature_c")
_OIL, _LOAD = (*_VISCOSITY, *_TEMPERATURE), ("load", "load_n")
_MACHINE = ("machine_id", "machine", "specimen")
_MIN_LOG_RATIO = 0.7  # pairs count from a factor of 2 in S


class SommerfeldConsistencyLoss(nn.Module):
    """Penalizes severities that are ranked against the operating point.

    A thin oil film (small Sommerfeld number S) aggravates friction, a light load (large S) aggravates oil whirl. S
    describes an operating point, not a damage, so only a ranking follows from it, and only among windows with the same
    fault mechanism. Let s be the severity, and D_ij = sum_c d_c p_ic p_jc (detached) the direction of the ranking, with
    d = -1 for lubrication and wear, +1 for oil whirl and 0 otherwise. Over pairs with S_i > S_j:

        L = sum w_ij max(0, 0.03 - sign(D_ij) (s_i - s_j)) / sum w_ij
        w_ij = |D_ij| m_i m_j clip(log S_i - log S_j - 0.7, 0, 1), 0 for windows of different machines

    For class logits, s is the expected rank, 0 to 1, among the classes of `fault_severity_order`, and m is their total
    probability.

    A constant factor in S (the geometry of identical bearings) does not change the ranking. Without
    `metadata["sommerfeld"]`, viscosity times speed over load is used instead of S.

    Args:
        fault_severity_order: classes of one mechanism, by index or name, from mildest to worst, at least 2. None means
            healthy, lubrication, wear, wear with lubrication, as far as they are among the classes.
        classes: names of the network's outputs. None means the 11 journal-bearing classes.
        n_levels: number of severity levels, if the predictions are logits of levels instead of classes.
        direction: sign of d severity / d S for levels, for severities, and for listed classes whose direction is not
            known; not 0.
        margin: minimum difference of the severities, >= 0.
        oil_cst: kinematic viscosity of the oil at 40 and 100 deg C in mm²/s (cSt), from which viscosity is computed if
            the metadata have only a temperature.

    Raises:
        KeyError: a class of the order is unknown.
        ValueError: an argument is out of range.

    Example:
        >>> loss, severity = SommerfeldConsistencyLoss(), torch.tensor([0.2, 0.8])  # output of a severity head
        >>> [loss(severity, {"sommerfeld": torch.tensor(S)}) for S in ([1.0, 0.1], [0.1, 1.0])]
        [tensor(0.), tensor(0.6300)]
    """

    order: Tensor
    directions: Tensor
    ranks: Tensor

    def __init__(
        self,
        fault_severity_order: Sequence[int | str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        n_levels: int | None = None,
        direction: float = -1.0,
        margin: float = 0.03,
        oil_cst: tuple[float, float] = VG46_CST,
    ) -> None:
        super().__init__()
        direction = check_number("direction", direction, -math.inf)
        if not direction:
            raise ValueError(f"direction is {direction}, expected a number other than 0")
        if n_levels is not None:
            n_levels = check_count("n_levels", n_levels, minimum=2)
        listed = None if fault_severity_order is None else list(map(unwrap_scalar, fault_severity_order))
        names = _class_names(listed, classes)
        default = [name for name in _DEFAULT_ORDER if name in names]
        order = [class_index(key, names) for key in (default if listed is None else listed)]
        if listed is not None and (len(order) < 2 or len(set(order)) < len(order)):
            raise ValueError(f"fault_severity_order is {listed}, expected at least 2 different classes")
        directions = torch.tensor([_DIRECTIONS.get(name, 0.0) for name in names])
        directions[[index for index in order[1:] if not directions[index]]] = direction
        self.register_buffer("order", torch.tensor(order, dtype=torch.long), persistent=False)
        self.register_buffer("directions", directions, persistent=False)
        self.register_buffer("ranks", torch.linspace(0, 1, n_levels or len(order)), persistent=False)
        self.n_levels, self.direction, self.margin = n_levels, direction, check_number("margin", margin, 0)
        self.oil_cst = tuple(check_number("oil_cst", value, 0.3, open_ends=True) for value in oil_cst)
        self._warn = WarnOnce("Sommerfeld")

    def extra_repr(self) -> str:
        return format_attributes(self, "order", "n_levels", "direction", "margin", "oil_cst")

    def forward(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Compute the loss, a scalar >= 0; 0 if no pair of windows can be ranked.

        Args:
            predictions: class logits `[B, C]`, level logits `[B, n_levels]`, or severities `[B]` in 0..1.
            metadata: `sommerfeld`; or `viscosity` in Pa s or `temperature` in deg C, together with `rpm` and `load`.
                NaN where unknown. With `machine_id`, only windows of the same machine are compared.

        Raises:
            ValueError: the shapes do not match.
        """
        self._warn(self._missing_input(metadata or {}, predictions))
        return self.term(predictions, metadata)

    def term(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Compute the loss as `forward` does, without warning if it is 0 for lack of inputs."""
        values = self._values(predictions)
        if self._missing_input(metadata or {}, predictions):
            return values.sum() * 0
        with torch.autocast(predictions.device.type, enabled=False):
            severity, direction = self._severity(values)
            weights = self._pair_weights(metadata or {}, values) * direction.abs()
            violations = F.relu(self.margin - direction.sign() * (severity[:, None] - severity))
            return (weights * violations).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)

    def explain_zero_gradient(self, metadata: Metadata | None, n_windows: int) -> str:
        """Return the reason why the loss has no gradient on a batch of class logits, as text."""
        metadata = metadata or {}
        reason = self._missing_input(metadata, None)
        if reason:
            return reason
        if bool(self._pair_weights(metadata, torch.ones(n_windows)).any()):
            return "all pairs of windows are ranked correctly"
        machine = " of the same machine" if first_available(_MACHINE, metadata) else ""
        return f"no two windows{machine} have Sommerfeld numbers that differ by more than a factor 2"

    def _missing_input(self, metadata: Metadata, predictions: Tensor | None) -> str | None:
        are_class_logits = self.n_levels is None and (predictions is None or predictions.ndim == 2)
        if are_class_logits and len(self.order) < 2:
            return "fewer than 2 of the classes are in the severity order"
        if "sommerfeld" in metadata or all(first_available(names, metadata) for names in (_OIL, ("rpm",), _LOAD)):
            return None
        return (
            "the metadata have neither 'sommerfeld' nor all of 'rpm', 'load', and 'viscosity' or 'temperature', "
            f"only {sorted(metadata)}"
        )

    def _values(self, predictions: Tensor) -> Tensor:
        if predictions.ndim != 1 and self.n_levels is None:
            return class_logits(predictions, len(self.directions))
        if predictions.ndim != 1 and predictions.shape[1:] != (self.n_levels,):
            shape = tuple(predictions.shape)
            raise ValueError(f"predictions have shape {shape}, expected logits of levels [B, {self.n_levels}]")
        return full_precision(predictions)

    def _severity(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return severities [B], and directions D_ij m_i m_j as [B, B] or as a scalar for all pairs."""
        if values.ndim == 1:
            return values, values.new_full((), self.direction)
        ranks = self.ranks.to(values.dtype)
        if self.n_levels is not None:
            return values.softmax(1) @ ranks, values.new_full((), self.direction)
        p = values.detach().softmax(1)
        p = p * p.index_select(1, self.order).sum(1, keepdim=True)
        return values.index_select(1, self.order).softmax(1) @ ranks, (p * self.directions.to(p.dtype)) @ p.T

    def _pair_weights(self, metadata: Metadata, values: Tensor) -> Tensor:
        """Return weights [B, B], above 0 where the Sommerfeld number of the row exceeds twice that of the column."""
        log_s = self._log_sommerfeld(metadata, len(values), values.device).to(values.dtype)
        weights = (log_s[:, None] - (log_s + _MIN_LOG_RATIO)).clamp_(0, 1).nan_to_num_(nan=0.0)
        machine = first_available(_MACHINE, metadata)
        if not machine:
            return weights
        machines = per_window(metadata, machine, len(values), values.device)
        return weights * (machines[:, None] == machines)

    def _log_sommerfeld(self, metadata: Metadata, n_windows: int, device: torch.device) -> Tensor:
        """Return log S up to a constant, [B], NaN where unknown."""

        def value_of(name: str) -> Tensor:
            return per_window(metadata, name, n_windows, device).float()

        if "sommerfeld" in metadata:
            log_s = value_of("sommerfeld").log()
        else:
            oil, load = first_available(_OIL, metadata), first_available(_LOAD, metadata)
            viscosity = self._viscosity(value_of(oil)) if oil in _TEMPERATURE else value_of(oil)
            log_s = viscosity.log() + value_of("rpm").log() - value_of(load).log()
        return log_s.nan_to_num(math.nan, math.nan, math.nan)  # log 0 is not comparable

    def _viscosity(self, temperature_c: Tensor) -> Tensor:
        """Compute `journal_bearing.kinematic_viscosity_cst` for tensors, on their device."""
        at_40, at_100 = (math.log(math.log(nu + 0.7)) for nu in self.oil_cst)
        slope = (at_40 - at_100) / math.log(373.15 / 313.15)
        return torch.exp(math.exp(at_40) * ((temperature_c + 273.15) / 313.15) ** -slope) - 0.7


def _class_names(order: Sequence[int | str] | None, classes: Sequence[str] | None) -> Sequence[str]:
    """Return the names of the outputs; if only indices are listed, empty names up to the highest index."""
    if classes is not None:
        return classes
    indices = [int(key) for key in order or () if isinstance(key, int | np.integer)]
    return [""] * (max(indices) + 1) if order and len(indices) == len(order) else JOURNAL_CLASSES
