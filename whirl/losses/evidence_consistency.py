"""Consistency of predictions with the evidence in the signal.

Evidence is computed without gradient; the only differentiable path is loss -> probabilities -> logits.
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

from whirl._display import format_attributes
from whirl.losses.physics_inputs import Metadata, WarnOnce, class_logits, per_window
from whirl.physics.compatibility import (
    NEUTRAL,
    Calibration,
    Control,
    class_probabilities,
    default_calibration,
    fit_calibration,
    log_compatibility,
    presence_probability,
    trust_matrix,
    with_control,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.shaft_speed import estimate_rpm
from whirl.validation import check_name, check_number

Form = Literal["linear", "log", "set", "kl"]

_MIN_COMPATIBILITY = 1e-4  # bounds the log form
_SET_RATIO = 0.25  # the set form allows all classes within a factor 4 of the best
_REFERENCE_RPM = 2000.0  # the trend of a calibration with speed is 0 here
_UNINFORMATIVE = "the evidence fits all classes equally well"
_MIN_CHANGING = 0.1  # fraction of the samples of a working sensor that differ from the sample before
_MAX_ENTROPY_RATIO = 0.7  # evidence is conclusive below this fraction of the maximum entropy


def _neg_log_compatible(logits: Tensor, compatibility: Tensor) -> Tensor:
    """Compute the negative log probability of a compatible class, bounded by -log 1e-4."""
    return -(logits.softmax(1) * (compatibility + _MIN_COMPATIBILITY)).sum(1).log()


def _compatibility(q: Tensor) -> Tensor:
    return q / q.amax(1, keepdim=True)


def _certainty(q: Tensor) -> Tensor:
    """Compute 1 - H(q) / log C, [B] in 0..1."""
    certainty = 1 - torch.special.entr(q).sum(1) / math.log(q.shape[1])
    return F.threshold(certainty, 1e-5, 0.0)  # smaller values are rounding errors of a uniform q


def linear_form(logits: Tensor, q: Tensor) -> Tensor:
    """Compute `sum p (1 - k)` from the logits and the physics distribution q, both `[B, C]`; returns `[B]` in 0..1."""
    return (logits.softmax(1) * (1 - _compatibility(q))).sum(1)


def log_form(logits: Tensor, q: Tensor) -> Tensor:
    """Compute `-log sum p (k + 1e-4)` from the logits and the physics distribution q, both `[B, C]`.

    Returns `[B]`, at most 9.2.
    """
    return _neg_log_compatible(logits, _compatibility(q))


def set_form(logits: Tensor, q: Tensor) -> Tensor:
    """Compute `log_form` with `k = min(1, 4 q / max q)`."""
    return _neg_log_compatible(logits, (_compatibility(q) / _SET_RATIO).clamp_max(1))


def kl_form(logits: Tensor, q: Tensor) -> Tensor:
    """Compute `-sum q log p` from the logits and the physics distribution q, both `[B, C]`; returns `[B]`."""
    return -(q * logits.log_softmax(1)).sum(1)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": linear_form,
    "log": log_form,
    "set": set_form,
    "kl": kl_form,
}


class EvidenceConsistencyLoss(nn.Module):
    """Penalizes predictions of classes that contradict the evidence in the signal.

    The evidence e `[B, L]` in dB is converted to the probability that each line is present, and together with the
    lines expected of each class to a distribution q over the classes (see `whirl.physics.compatibility`). The
    compatibility of a class is k = q / max q, and p are the predicted probabilities. The loss is the mean over the
    windows of one of these forms:

    - `'linear'`: sum p (1 - k). Its gradient p_c (m_c - sum p m) with m = 1 - k vanishes for confident wrong
      predictions.
    - `'log'`: -log sum p (k + 1e-4). Its gradient is p - t with t ~ p (k + 1e-4), i.e. that of the cross entropy to
      the model's own posterior (the semantic loss of Xu et al., ICML 2018, with soft constraints), and vanishes only
      at a confidence 1 / k times higher.
    - `'set'`: as `'log'` with k = min(1, 4 q / max q), so that every class nearly as likely as the best is allowed.
    - `'kl'`: cross entropy of p to q, with windows weighted by 1 - H(q) / log C. It imitates q, including its errors.

    A class without expectations (a row of 0.5 in the table) is not constrained: p is the distribution over the other
    classes, and its logit gets no gradient. Windows without evidence are excluded from the mean: those of unknown
    speed, and those of a dead sensor, whose signal is constant in more than nine tenths of the window.

    Args:
        search: extracts F features from signals; None if there are no features.
        table: `[C, L]`, probability that a line is present given the class; see `compatibility.expectation_table`.
        form: form of the loss, see above.
        temperature: temperature of the softmax that gives q, > 0.
        calibration: normal level of each of the L lines. By default, the level of noise.
        control: replaces the physics by a control experiment, to measure what the physics contributes:
            `'random_bands'` or `'scrambled'`; see `compatibility.with_control`.
        control_seed: seed of the control.
        feature_pairs: `[2, L]`, indices of the two features per line, of which the stronger counts. By default, each
            feature is a line.
        reference_rpm: speed to assume where the metadata have no `rpm`.
        rpm_range: lowest and highest speed, between which the speed is estimated where the metadata have no `rpm`
            (see `estimate_rpm`).
        needs_rpm: whether the frequency of any line depends on the shaft speed.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        constrained: indices of the classes that the loss constrains.
    """

    constrained: Tensor
    table: Tensor
    trust: Tensor
    offset: Tensor
    slope: Tensor
    scale: Tensor
    feature_pairs: Tensor | None

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
        feature_pairs: Tensor | None = None,
        reference_rpm: float | None = None,
        rpm_range: tuple[float, float] | None = None,
        needs_rpm: bool = True,
    ) -> None:
        super().__init__()
        check_name("form", form, FORMS)
        self.temperature = check_number("temperature", temperature, 0, open_ends=True)
        if reference_rpm is not None:
            reference_rpm = check_number("reference_rpm", reference_rpm, 0, open_ends=True)
        if search is not None:
            search, table = with_control(search, table, control, control_seed)
        self.search, self.form = search, form
        self.reference_rpm, self.needs_rpm = reference_rpm, needs_rpm
        self.rpm_range = None if rpm_range is None else (float(rpm_range[0]), float(rpm_range[1]))
        table = torch.as_tensor(table).float()
        self.n_classes = len(table)
        constrained = (table != NEUTRAL).any(1).nonzero()[:, 0]
        self.register_buffer("constrained", constrained, persistent=False)
        self.register_buffer("table", table[constrained], persistent=False)
        self.register_buffer("feature_pairs", feature_pairs, persistent=False)
        self.register_buffer("trust", torch.eye(len(constrained)))
        self._set_calibration(calibration or self._noise_calibration())
        self._cache, self._warn = _LastResultCache(), WarnOnce("frequency")

    def extra_repr(self) -> str:
        return format_attributes(self, "n_classes", "form", "temperature", "reference_rpm", "rpm_range")

    def forward(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        """Compute the loss, a scalar >= 0.

        Args:
            predictions: logits `[B, C]`; further columns are classes that are not constrained.
            signal: `[B, N]` or `[B, channels, N]`; unused if the metadata have `physics_evidence`.
            metadata: `rpm` in rev/min, NaN where unknown; or `physics_evidence` `[B, L]`, as returned by `evidence`.

        Raises:
            ValueError: the shapes do not match, or a speed is out of range (see `OrderEvidence`).
        """
        self._warn(self._missing_input(metadata or {}))
        return self.term(predictions, signal, metadata)

    def term(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        """Compute the loss as `forward` does, without warning if it is 0 for lack of inputs."""
        logits = class_logits(predictions, self.n_classes)
        if self._missing_input(metadata or {}):
            return logits.sum() * 0
        if len(self.constrained) < self.n_classes:
            logits = logits.index_select(1, self.constrained)
        with torch.autocast(predictions.device.type, enabled=False):
            q, has_evidence = self._cached_probabilities(predictions, signal, metadata or {})
            q = q.to(logits.dtype)
            weights = has_evidence * _certainty(q) if self.form == "kl" else has_evidence.to(logits.dtype)
            losses = FORMS[self.form](logits, q)
            return weights @ losses / weights.sum().clamp_min(torch.finfo(logits.dtype).tiny)

    @torch.no_grad()
    def diagnose(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata | None = None
    ) -> dict[str, Tensor]:
        """Measure how often the evidence is conclusive, and how often the predictions agree with it.

        Args:
            predictions: see `forward`.
            signal: see `forward`.
            metadata: see `forward`.

        Returns:
            `evidence_coverage`, the fraction of windows with H(q) < 0.7 log C, and `physics_agreement`, the fraction
            of windows with evidence in which q and the predictions have the same most probable class. Both are 0 if
            there is no evidence.
        """
        if self._missing_input(metadata or {}):
            zero = torch.zeros((), device=predictions.device)
            return {"physics_agreement": zero, "evidence_coverage": zero}
        q, has_evidence = self._cached_probabilities(predictions, signal, metadata or {})
        conclusive = torch.special.entr(q).sum(1) < _MAX_ENTROPY_RATIO * math.log(q.shape[1])
        agrees = self.constrained[q.argmax(1)] == predictions.argmax(1)
        agreement = (agrees & has_evidence).sum() / has_evidence.sum().clamp_min(1)
        return {"physics_agreement": agreement, "evidence_coverage": (conclusive & has_evidence).float().mean()}

    def explain_zero_gradient(self, signal: Tensor | None, metadata: Metadata | None = None) -> str:
        """Return the reason why the loss has no gradient on a batch, as text."""
        metadata = metadata or {}
        reason = self._missing_input(metadata)
        if reason:
            return reason
        if "physics_evidence" in metadata or signal is None or self.search is None:
            return _UNINFORMATIVE
        if self.needs_rpm and not bool(self._rpm(metadata, signal).isfinite().any()):
            return "rpm is NaN for all windows"
        if bool(_is_dead(signal).all()):
            return "the signal is constant in all windows, or in nine tenths of each, e.g. of a dead sensor"
        # A new search object warns again about lines that windows of this length cannot resolve.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.search.with_features(self.search.features)(signal, self._rpm(metadata, signal))
        return "; ".join(str(warning.message) for warning in caught) or _UNINFORMATIVE

    def evidence(self, signal: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Compute the evidence of the L lines in dB, `[B, L]`, NaN where unknown.

        The result can be passed to `forward` as `metadata["physics_evidence"]`, which saves computing it again.

        Raises:
            ValueError: no class has expected lines.
        """
        if self.search is None:
            raise ValueError("no class has expected lines, so there is no evidence to compute")
        return self._line_evidence(signal, self._rpm(metadata or {}, signal))

    def probabilities(self, signal: Tensor | None, metadata: Metadata | None = None) -> Tensor:
        """Compute q, the distribution over the constrained classes given the evidence alone, `[B, constrained]`."""
        return self._probabilities(signal, metadata or {})[0]

    @property
    def calibration(self) -> Calibration:
        """Normal level of each line."""
        return Calibration(self.offset, self.slope, self.scale)

    def fit_calibration(self, signals: Tensor, rpm: Tensor | float) -> None:
        """Fit the normal level of each line to healthy recordings.

        Args:
            signals: healthy windows, `[M, N]` or `[M, channels, N]`.
            rpm: their speeds in rev/min, `[M]`, or one speed for all.
        """
        metadata = {"rpm": rpm}
        self._set_calibration(fit_calibration(self.evidence(signals, metadata), self._rpm(metadata, signals)))

    def fit_trust(self, signals: Tensor | None, targets: Tensor, metadata: Metadata | None = None) -> None:
        """Fit a correction of q to labeled windows (see `compatibility.trust_matrix`); it applies from then on.

        Args:
            signals: labeled windows.
            targets: their classes `[M]`.
            metadata: see `forward`.
        """
        q, has_evidence = self._uncorrected_probabilities(signals, metadata or {})
        matches = targets[:, None] == self.constrained
        usable = has_evidence & matches.any(1)
        self.trust = trust_matrix(q[usable], matches[usable].long().argmax(1), len(self.constrained))

    def _set_calibration(self, calibration: Calibration) -> None:
        if calibration.offset.shape != self.table.shape[1:]:
            raise ValueError(f"calibration has {len(calibration.offset)} lines, expected {self.table.shape[1]}")
        for name, values in calibration.state_dict().items():
            self.register_buffer(name, values.to(self.table.device))

    def _noise_calibration(self) -> Calibration:
        features = self.search.features if self.search else ()
        if self.feature_pairs is not None:
            features = [features[index] for index in self.feature_pairs[0]]
        return default_calibration(features)

    def _missing_input(self, metadata: Metadata) -> str | None:
        """Name the missing input without which the loss is 0, as far as that is known without reading tensors."""
        if self.search is None or len(self.constrained) < 2:
            return (
                f"{len(self.constrained)} of {self.n_classes} classes have expected lines, at least 2 must have them "
                "(classes of rolling bearings need `orders`)"
            )
        known = "physics_evidence" in metadata or "rpm" in metadata
        if known or self.reference_rpm or self.rpm_range or not self.needs_rpm:
            return None
        return f"the metadata have no 'rpm', only {sorted(metadata)}"

    def _rpm(self, metadata: Metadata, signal: Tensor) -> Tensor:
        """Return the speeds [B], NaN where unknown."""
        unknown = torch.full((len(signal),), torch.nan, device=signal.device)
        known = per_window(metadata, "rpm", len(signal), signal.device).float() if "rpm" in metadata else unknown
        if self.reference_rpm:
            return known.nan_to_num(nan=self.reference_rpm)
        if not self.rpm_range or not self.search:
            return known
        return torch.where(known.isnan(), estimate_rpm(signal, self.search.sampling_rate_hz, self.rpm_range), known)

    def _line_evidence(self, signal: Tensor, rpm: Tensor) -> Tensor:
        """Compute the evidence of the lines [B, L]; for lines in Hz, which need no speed, any valid one is used."""
        search = cast(OrderEvidence, self.search)
        features = search(signal, rpm if self.needs_rpm else 120 * search.sampling_rate_hz / signal.shape[-1])
        # a dead sensor shows no lines, which must not count as evidence for the classes without lines
        features = features.masked_fill(_is_dead(signal)[:, None], torch.nan)
        if self.feature_pairs is None:
            return features
        return torch.fmax(features[:, self.feature_pairs[0]], features[:, self.feature_pairs[1]])

    def _cached_probabilities(
        self, predictions: Tensor, signal: Tensor | None, metadata: Metadata
    ) -> tuple[Tensor, Tensor]:
        """Return q and a mask of the windows with evidence, computed once per batch of predictions."""
        source, rpm = metadata.get("physics_evidence", signal), metadata.get("rpm")
        if source is not None and len(source) != len(predictions):
            raise ValueError(f"there are {len(source)} signals, but predictions for {len(predictions)}")
        inputs = [predictions, self.offset, self.trust, *(value for value in (source, rpm) if value is not None)]
        return self._cache(inputs, lambda: self._probabilities(signal, metadata))

    def _probabilities(self, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        q, has_evidence = self._uncorrected_probabilities(signal, metadata)
        return q @ self.trust, has_evidence

    @torch.no_grad()
    def _uncorrected_probabilities(self, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        """Return q without the correction of `fit_trust`, and a mask of the windows with evidence."""
        if "physics_evidence" in metadata:
            evidence = torch.as_tensor(metadata["physics_evidence"]).float()
            n_lines = self.table.shape[1]
            if evidence.ndim != 2 or evidence.shape[1] != n_lines:
                raise ValueError(f"physics_evidence has shape {tuple(evidence.shape)}, expected [B, {n_lines}]")
            rpm = self._rpm({"rpm": self.reference_rpm or torch.nan, **metadata}, evidence)
        elif signal is None:
            raise ValueError("there is neither a signal nor metadata['physics_evidence'], expected one of them")
        else:
            rpm = self._rpm(metadata, signal)
            evidence = self._line_evidence(signal, rpm)
        present = presence_probability(evidence, rpm.nan_to_num(nan=_REFERENCE_RPM), self.calibration)
        q = class_probabilities(log_compatibility(present, self.table), self.temperature)
        return q, ~evidence.isnan().all(1)


def _is_dead(signal: Tensor) -> Tensor:
    """Return whether less than a tenth of a window `[B, ..., N]` differs from the sample before, in all channels."""
    channels = signal.flatten(1, -2) if signal.ndim > 2 else signal[:, None]
    is_changing = channels[..., 1:] != channels[..., :-1]
    return (is_changing.float().mean(-1) < _MIN_CHANGING).all(1)


class _LastResultCache:
    """Caches the last result for as long as it is requested for the same, unmodified tensors."""

    def __init__(self) -> None:
        self._key: list[tuple[int, int]] = []
        self._inputs: list[weakref.ref[Tensor]] = []
        self._result: Any = None

    def __call__(self, inputs: Sequence[Any], compute: Callable[[], Any]) -> Any:
        # Changes of other objects, and of inference tensors, would go unnoticed.
        if any(not isinstance(value, Tensor) or value.is_inference() for value in inputs):
            return compute()
        key = [(id(tensor), tensor._version) for tensor in inputs]
        if key != self._key or any(reference() is None for reference in self._inputs):
            self._result = compute()
            self._key, self._inputs = key, [weakref.ref(tensor) for tensor in inputs]
        return self._result

    def __reduce__(self) -> tuple[type[_LastResultCache], tuple[()]]:
        return _LastResultCache, ()  # copies and pickles start empty
