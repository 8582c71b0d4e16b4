"""Predictions held against the evidence in the signal.

Evidence is taken without gradient; the only differentiable path is loss -> probabilities -> logits.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl.losses.physics_inputs import Metadata, WarnOnce, class_logits, per_window
from whirl.physics.compatibility import (
    NEUTRAL,
    Calibration,
    Control,
    class_probabilities,
    default_calibration,
    fit_calibration,
    log_compatibility,
    presence,
    trust_matrix,
    with_control,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.shaft_speed import estimate_rpm
from whirl.validation import unknown_name

Form = Literal["linear", "log", "set", "kl"]

_MIN_COMPATIBILITY = 1e-4  # bounds the log form
_SET_SHARE = 0.25  # the set form allows all classes within a factor 4 of the best
_TREND_FREE_RPM = 2000.0  # where a calibration's trend with speed is 0
_COVERED = 0.7  # share of the largest entropy below which evidence says something


def _neg_log_compatible(logits: Tensor, compatibility: Tensor) -> Tensor:
    """Minus log of the probability of a compatible class; at most -log 1e-4, so there is no log of 0."""
    return -(logits.softmax(1) * (compatibility + _MIN_COMPATIBILITY)).sum(1).log()


def _compatibility(q: Tensor) -> Tensor:
    return q / q.amax(1, keepdim=True)


def _certainty(q: Tensor) -> Tensor:
    """1 - H(q) / log C, [B] in 0..1."""
    sureness = 1 - torch.special.entr(q).sum(1) / math.log(q.shape[1])
    return F.threshold(sureness, 1e-5, 0.0)  # below, q is flat but for rounding


def linear_form(logits: Tensor, q: Tensor) -> Tensor:
    """`sum p (1 - k)`, of logits and physics' distribution `[B, C]`: `[B]` in 0..1."""
    return (logits.softmax(1) * (1 - _compatibility(q))).sum(1)


def log_form(logits: Tensor, q: Tensor) -> Tensor:
    """`-log sum p (k + 1e-4)`, of logits and physics' distribution `[B, C]`: `[B]`, at most 9.2."""
    return _neg_log_compatible(logits, _compatibility(q))


def set_form(logits: Tensor, q: Tensor) -> Tensor:
    """As `log_form`, with `k = min(1, 4 q / max q)`."""
    return _neg_log_compatible(logits, (_compatibility(q) / _SET_SHARE).clamp_max(1))


def kl_form(logits: Tensor, q: Tensor) -> Tensor:
    """`-sum q log p`, of logits and physics' distribution `[B, C]`: `[B]`."""
    return -(q * logits.log_softmax(1)).sum(1)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": linear_form,
    "log": log_form,
    "set": set_form,
    "kl": kl_form,
}


class EvidenceConsistencyLoss(nn.Module):
    """Predictions against the classes that the evidence in the signal allows.

    Evidence e `[B, L]` in dB gives the presence of each line, and that with the classes' expectations a distribution q
    over the classes (`whirl.physics.compatibility`); k = q / max q is how compatible a class is, p are the
    predicted probabilities. Averaged over the windows:

    - `'linear'`: sum p (1 - k), with gradient p_c (m_c - sum p m), m = 1 - k: it vanishes where p is surely wrong;
    - `'log'`: -log sum p (k + 1e-4), with gradient p - t, t ~ p (k + 1e-4): cross entropy to one's own posterior
      (the semantic loss of Xu et al., ICML 2018, with soft constraints), which vanishes 1 / k times later;
    - `'set'`: as log with k = min(1, 4 q / max q): all that is nearly as likely as the best is allowed;
    - `'kl'`: cross entropy of p to q, windows weighted by 1 - H(q) / log C: it imitates q, mistakes included.

    A class with nothing to judge it by (a row of 0.5) is never judged: p is the distribution over the others, and its
    logit gets no gradient. Windows of which nothing is known, such as those of unknown speed, are left out of the mean.

    Args:
        search: looks for F features; None if there are none.
        table: `[C, L]`, probability that a line is there given the class; see `compatibility.expectation_table`.
        form: see above.
        temperature: > 0, of the softmax that gives q.
        calibration: what is normal for the L lines; by default what noise alone shows.
        control: spoils the physics, to see what remains without: `'random_bands'`, `'scrambled'`.
        control_seed: of the control.
        looks: `[2, L]`, indices of the two features of which the stronger is the line; by default lines are features.
        reference_rpm: speed that holds where the metadata have no `rpm`.
        rpm_range: lowest and highest speed; where the metadata have no `rpm`, it is estimated (`estimate_rpm`).
        needs_rpm: whether any line follows the shaft.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        judged: indices of the classes that are judged.
    """

    judged: Tensor
    table: Tensor
    trust: Tensor
    offset: Tensor
    slope: Tensor
    scale: Tensor
    looks: Tensor | None

    def __init__(
        self,
        search: OrderEvidence | None,
        table: Tensor,
        *,
        form: Form = "log",
        temperature: float = 1.0,
        calibration: Calibration | None = None,
        control: Control | None = None,
        control_seed: int = 0,
        looks: Tensor | None = None,
        reference_rpm: float | None = None,
        rpm_range: tuple[float, float] | None = None,
        needs_rpm: bool = True,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(unknown_name("form", form, FORMS))
        if not 0 < temperature < math.inf or not (reference_rpm is None or 0 < reference_rpm < math.inf):
            raise ValueError(f"temperature is {temperature}, reference_rpm {reference_rpm}: expected > 0 and finite")
        if search is not None:
            search, table = with_control(search, table, control, control_seed)
        self.search, self.form, self.temperature = search, form, temperature
        self.reference_rpm, self.rpm_range, self.needs_rpm = reference_rpm, rpm_range, needs_rpm
        self.n_classes = len(table)
        judged = (table != NEUTRAL).any(1).nonzero()[:, 0]
        self.register_buffer("judged", judged, persistent=False)
        self.register_buffer("table", table[judged], persistent=False)
        self.register_buffer("looks", looks, persistent=False)
        self.register_buffer("trust", torch.eye(len(judged)))
        self._set_calibration(calibration or self._noise_calibration())
        self._memo, self._warn = _Memo(), WarnOnce("frequency")

    def forward(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        """The loss, a scalar >= 0.

        Args:
            predictions: logits `[B, C]`; further columns are classes that are not judged.
            signal: `[B, N]` or `[B, channels, N]`; not looked at if `metadata["physics_evidence"]` is there.
            metadata: `rpm`, in rev/min, NaN where unknown; or `physics_evidence` `[B, L]` as of `evidence`.

        Raises:
            ValueError: shapes do not fit, or a speed is not possible (see `OrderEvidence`).
        """
        self._warn(self._missing(metadata or {}))
        return self.term(predictions, signal, metadata)

    def term(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        """As `forward`, without a warning where nothing is known."""
        logits = class_logits(predictions, self.n_classes)
        if self._missing(metadata or {}):
            return logits.sum() * 0
        if len(self.judged) < self.n_classes:
            logits = logits.index_select(1, self.judged)
        with torch.autocast(predictions.device.type, enabled=False):
            q, known = self._judge(predictions, signal, metadata or {})
            q = q.to(logits.dtype)
            weights = known * _certainty(q) if self.form == "kl" else known.to(logits.dtype)
            losses = FORMS[self.form](logits, q)
            return weights @ losses / weights.sum().clamp_min(torch.finfo(logits.dtype).tiny)

    @torch.no_grad()
    def diagnose(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None
    ) -> dict[str, Tensor]:
        """Whether the loss has something to say, and whether the predictions agree.

        Returns:
            `evidence_coverage`, share of windows where H(q) < 0.7 log C; `physics_agreement`, share of the windows with
            evidence at all where q and the predictions name the same class. Both are 0 where nothing is known.
        """
        if self._missing(metadata or {}):
            nothing = torch.zeros((), device=predictions.device)
            return {"physics_agreement": nothing, "evidence_coverage": nothing}
        q, known = self._judge(predictions, signal, metadata or {})
        decided = torch.special.entr(q).sum(1) < _COVERED * math.log(q.shape[1])
        agrees = self.judged[q.argmax(1)] == predictions.argmax(1)
        share = (agrees & known).sum() / known.sum().clamp_min(1)
        return {"physics_agreement": share, "evidence_coverage": (decided & known).float().mean()}

    def why_inert(self, signal: Tensor | None, metadata: Metadata | None = None) -> str:
        """Why the loss has no gradient on a batch, in words."""
        metadata = metadata or {}
        reason = self._missing(metadata)
        if reason:
            return reason
        if "physics_evidence" in metadata or signal is None or self.search is None:
            return "the evidence fits all classes equally well"
        if self.needs_rpm and not bool(self._rpm(metadata, signal).isfinite().any()):
            return "rpm is nan for all windows"
        # A search that has not seen this length yet says what it cannot know.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.search.with_features(self.search.features)(signal, self._rpm(metadata, signal))
        return "; ".join(str(each.message) for each in caught) or "the evidence fits all classes equally well"

    def evidence(self, signal: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Evidence of the L lines in dB, `[B, L]`, NaN where unknown: what `metadata["physics_evidence"]` may hold."""
        if self.search is None:
            raise ValueError("no class has expected lines, so there is no evidence to look for")
        return self._find(signal, self._rpm(metadata or {}, signal))

    def probabilities(self, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        """What physics says alone, q: distribution over the judged classes, `[B, judged]`."""
        return self._probabilities(signal, metadata or {})[0]

    @property
    def calibration(self) -> Calibration:
        """What is normal for each line."""
        return Calibration(self.offset, self.slope, self.scale)

    def fit_calibration(self, signals: Tensor, rpm: Tensor | float) -> None:
        """Learn what is normal from healthy records, `[M, N]` or `[M, channels, N]`, and their speeds `[M]`."""
        metadata = {"rpm": rpm}
        self._set_calibration(fit_calibration(self.evidence(signals, metadata), self._rpm(metadata, signals)))

    def fit_trust(self, signals: Tensor | None, targets: Tensor, metadata: Metadata | None = None) -> None:
        """Learn from labelled windows where physics errs, and correct q from now on (`compatibility.trust_matrix`).

        Args:
            signals: labelled windows.
            targets: their classes `[M]`.
            metadata: as of `forward`.
        """
        q, known = self._untrained(signals, metadata or {})
        hits = targets[:, None] == self.judged
        usable = known & hits.any(1)
        self.trust = trust_matrix(q[usable], hits[usable].long().argmax(1), len(self.judged))

    def _set_calibration(self, calibration: Calibration) -> None:
        if calibration.offset.shape != self.table.shape[1:]:
            raise ValueError(f"calibration is of {len(calibration.offset)} lines, expected {self.table.shape[1]}")
        for name, values in calibration.state_dict().items():
            self.register_buffer(name, values.to(self.table.device))

    def _noise_calibration(self) -> Calibration:
        features = self.search.features if self.search else ()
        return default_calibration(features if self.looks is None else [features[index] for index in self.looks[0]])

    def _missing(self, metadata: Metadata) -> str | None:
        """What is missing for any judgement, as far as can be told without looking at numbers."""
        if self.search is None or len(self.judged) < 2:
            return (
                f"{len(self.judged)} of {self.n_classes} classes can be judged by expected lines, and at least 2 must "
                "(the lines of rolling bearings need `orders`)"
            )
        known = "physics_evidence" in metadata or "rpm" in metadata
        if known or self.reference_rpm or self.rpm_range or not self.needs_rpm:
            return None
        return f"no 'rpm' in the metadata, which have {sorted(metadata)}"

    def _rpm(self, metadata: Metadata, signal: Tensor) -> Tensor:
        """[B] speeds, NaN where unknown."""
        unknown = torch.full((len(signal),), torch.nan, device=signal.device)
        known = per_window(metadata, "rpm", len(signal), signal.device).float() if "rpm" in metadata else unknown
        if self.reference_rpm:
            return known.nan_to_num(nan=self.reference_rpm)
        if not self.rpm_range or not self.search:
            return known
        return torch.where(known.isnan(), estimate_rpm(signal, self.search.sampling_rate_hz, self.rpm_range), known)

    def _find(self, signal: Tensor, rpm: Tensor) -> Tensor:
        """[B, L] evidence of the lines; those in Hz are there at any speed."""
        search = cast(OrderEvidence, self.search)
        found = search(signal, rpm if self.needs_rpm else 120 * search.sampling_rate_hz / signal.shape[-1])
        return found if self.looks is None else torch.fmax(found[:, self.looks[0]], found[:, self.looks[1]])

    def _judge(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        """The distribution q and which windows are known, worked out once for the same predictions."""
        source, rpm = metadata.get("physics_evidence", signal), metadata.get("rpm")
        if source is not None and len(source) != len(predictions):
            raise ValueError(f"{len(source)} signals, but predictions for {len(predictions)}")
        made_of = [predictions, self.offset, self.trust, *(each for each in (source, rpm) if each is not None)]
        return self._memo(made_of, lambda: self._probabilities(signal, metadata))

    def _probabilities(self, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        q, known = self._untrained(signal, metadata)
        return q @ self.trust, known

    @torch.no_grad()
    def _untrained(self, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        """The distribution before labels correct it, and which windows are known."""
        if "physics_evidence" in metadata:
            found = metadata["physics_evidence"].float()
            n_lines = self.table.shape[1]
            if found.ndim != 2 or found.shape[1] != n_lines:
                raise ValueError(f"physics_evidence has shape {tuple(found.shape)}, expected [B, {n_lines}]")
            rpm = self._rpm({"rpm": self.reference_rpm or torch.nan, **metadata}, found)
        elif signal is None:
            raise ValueError("neither a signal nor metadata['physics_evidence'] is given")
        else:
            rpm = self._rpm(metadata, signal)
            found = self._find(signal, rpm)
        there = presence(found, rpm.nan_to_num(nan=_TREND_FREE_RPM), self.calibration)
        q = class_probabilities(log_compatibility(there, self.table), self.temperature)
        return q, ~found.isnan().all(1)


class _Memo:
    """The last result, for as long as it is asked of the same tensors, unchanged."""

    def __init__(self) -> None:
        self._key: list[tuple[int, int]] = []
        self._made_of: list[weakref.ref[Tensor]] = []
        self._value: Any = None

    def __call__(self, made_of: Sequence[Any], compute: Callable[[], Any]) -> Any:
        if any(not isinstance(each, Tensor) or each.is_inference() for each in made_of):  # would not show a change
            return compute()
        key = [(id(each), each._version) for each in made_of]
        if key != self._key or any(each() is None for each in self._made_of):
            self._value = compute()
            self._key, self._made_of = key, [weakref.ref(each) for each in made_of]
        return self._value

    def __reduce__(self) -> tuple[type[_Memo], tuple[()]]:
        return _Memo, ()  # a copy has made nothing yet
