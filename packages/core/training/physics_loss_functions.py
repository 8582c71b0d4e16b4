"""Losses that hold predictions against physics: fault frequencies, operating point, continuity in time.

Evidence is taken from the signal without gradient; the only differentiable path is loss -> probabilities -> logits.
Where a loss knows nothing, it is 0 with a graph to the predictions, and says so once. Half precision is computed in
float32, inside autocast too, and nothing waits for an accelerator.

Physics acts on windows without labels: labels say more than it does. Cross entropy belongs beside each of these losses.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packages.core.physics.compatibility import (
    FORBIDDEN,
    NEUTRAL,
    REQUIRED,
    Calibration,
    Control,
    class_probabilities,
    default_calibration,
    expectation_table,
    fit_calibration,
    log_compatibility,
    presence,
    trust_matrix,
    with_control,
)
from packages.core.physics.evidence import OrderEvidence
from packages.core.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, Line, Signature, signature
from packages.core.physics.features import Feature
from packages.core.physics.journal_bearing import VG46_CST
from packages.core.physics.rolling_bearing import FaultOrders

Form = Literal["linear", "log", "set", "kl"]
Unit = Literal["hz", "order"]
Kinds = tuple[Literal["raw", "envelope"], ...]
Window = tuple[float, float, Unit, Kinds]
Metadata = Mapping[str, Any]  # tensors [B], or numbers that hold for the whole batch

ExpectedLine = float | tuple[float, float] | Line | Signature

_LEAST_COMPATIBILITY = 1e-4  # bounds the log form
_SET_SHARE = 0.25  # the set form allows all classes within a factor 4 of the best
_TREND_FREE_RPM = 2000.0  # where a calibration's trend with speed is 0
_COVERED = 0.7  # share of the largest entropy below which evidence says something
_SHAFT_CLEARANCE = 0.05  # orders that a search window keeps from a multiple of 1X,
_SHAFT_LINE = 0.01  # unless its line lies so near to one that it is one


class EvidenceConsistencyLoss(nn.Module):
    """Predictions against the classes that the evidence in the signal allows.

    Evidence e `[B, L]` in dB gives the presence of each line, and that with the classes' expectations a distribution q
    over the classes (`packages.core.physics.compatibility`); k = q / max q is how compatible a class is, p are the
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
        if form not in _FORMS:
            raise ValueError(f"form is {form!r}, expected one of {', '.join(_FORMS)}")
        _check_positive(temperature=temperature, reference_rpm=1.0 if reference_rpm is None else reference_rpm)
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
        self._memo, self._warn = _Memo(), _WarnOnce("frequency")

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
        logits = _logits(predictions, self.n_classes)
        if self._missing(metadata or {}):
            return logits.sum() * 0
        with torch.autocast(predictions.device.type, enabled=False):
            q, known = self._judge(predictions, signal, metadata or {})
            q = q.to(logits.dtype)
            losses = _FORMS[self.form](self._of_judged(logits), q)
            weights = known * _sureness(q) if self.form == "kl" else known.to(logits.dtype)
            return (weights * losses).sum() / weights.sum().clamp_min(torch.finfo(logits.dtype).tiny)

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

    @torch.no_grad()
    def evidence(self, signal: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Evidence of the L lines in dB, `[B, L]`, NaN where unknown: what `metadata["physics_evidence"]` may hold."""
        if self.search is None:
            raise ValueError("no class has expected lines, so there is no evidence to look for")
        return self._find(signal, self._rpm(metadata or {}, signal))

    @torch.no_grad()
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
        found = self.evidence(signals, metadata)
        speed = torch.as_tensor(rpm, dtype=torch.float32, device=found.device).expand(len(found))
        self._set_calibration(fit_calibration(found, speed))

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
        if "rpm" in metadata:
            return _per_window(metadata, "rpm", len(signal), signal.device).float()
        if self.reference_rpm or not self.rpm_range or not self.search:
            return torch.full((len(signal),), self.reference_rpm or torch.nan, device=signal.device)
        return estimate_rpm(signal, self.search.sampling_rate_hz, self.rpm_range)

    def _find(self, signal: Tensor, rpm: Tensor) -> Tensor:
        """[B, L] evidence of the lines; those in Hz are there at any speed."""
        search = cast(OrderEvidence, self.search)
        found = search(signal, rpm if self.needs_rpm else 120 * search.sampling_rate_hz / signal.shape[-1])
        return found if self.looks is None else torch.fmax(found[:, self.looks[0]], found[:, self.looks[1]])

    def _judge(self, predictions: Tensor, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        """The distribution q and which windows are known; the evidence of a batch is taken once."""
        if "physics_evidence" in metadata or signal is None:
            return self._probabilities(signal, metadata)
        if len(signal) != len(predictions):
            raise ValueError(f"{len(signal)} signals, but predictions for {len(predictions)}")
        rpm = metadata.get("rpm")
        if rpm is not None and not isinstance(rpm, Tensor):
            return self._probabilities(signal, metadata)
        made_of = [predictions, signal, self.offset, self.trust, *(() if rpm is None else (rpm,))]
        return self._memo(made_of, lambda: self._probabilities(signal, metadata))

    @torch.no_grad()
    def _probabilities(self, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        q, known = self._untrained(signal, metadata)
        return q @ self.trust, known

    @torch.no_grad()
    def _untrained(self, signal: Tensor | None, metadata: Metadata) -> tuple[Tensor, Tensor]:
        """The distribution before labels correct it, and which windows are known."""
        if "physics_evidence" in metadata:
            found = metadata["physics_evidence"].float()
            if found.ndim != 2 or found.shape[1] != self.table.shape[1]:
                expected = f"[B, {self.table.shape[1]}]"
                raise ValueError(f"physics_evidence has shape {tuple(found.shape)}, expected {expected}")
            rpm = self._rpm({"rpm": self.reference_rpm or torch.nan, **metadata}, found)
        elif signal is None:
            raise ValueError("neither a signal nor metadata['physics_evidence'] is given")
        else:
            rpm = self._rpm(metadata, signal)
            found = self._find(signal, rpm)
        there = presence(found, rpm.nan_to_num(nan=_TREND_FREE_RPM), self.calibration)
        q = class_probabilities(log_compatibility(there, self.table), self.temperature)
        return q, found.isfinite().any(1)

    def _of_judged(self, logits: Tensor) -> Tensor:
        return logits if len(self.judged) == logits.shape[1] else logits.index_select(1, self.judged)


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


def estimate_rpm(signals: Tensor, sample_rate: float, rpm_range: tuple[float, float], n_harmonics: int = 5) -> Tensor:
    """Speed of the shaft from its harmonics in the spectrum, `[B]` in rev/min.

    The speed whose first harmonics stand highest over the noise beside them, in the sum of logarithms (the harmonic
    product spectrum, Schroeder 1968). Twice or half the speed are usual errors, so the range should not hold both.

    Args:
        signals: `[B, N]` or `[B, channels, N]`.
        sample_rate: in Hz.
        rpm_range: lowest and highest speed, 0 < low < high.
        n_harmonics: how many are looked at, >= 1.

    Raises:
        ValueError: the range is empty, or the harmonics lie above half the sampling rate.

    Example:
        >>> time_s = torch.arange(8192) / 8192
        >>> noise = torch.randn(8192, generator=torch.Generator().manual_seed(0))
        >>> signal = sum(torch.sin(2 * torch.pi * 30 * h * time_s) for h in (1, 2, 3)) + 0.1 * noise
        >>> estimate_rpm(signal[None], sample_rate=8192, rpm_range=(1200, 2300), n_harmonics=3)
        tensor([1800.])
    """
    low, high = (speed / 60 for speed in rpm_range)
    if not 0 < low < high < sample_rate / 2 / n_harmonics:
        raise ValueError(
            f"rpm_range is {rpm_range}: expected 0 < low < high, and {n_harmonics} harmonics in the spectrum"
        )
    n = signals.shape[-1]
    centred = signals.float() - signals.float().mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(centred * torch.hann_window(n, device=signals.device))
    level = spectrum.abs().clamp_min(torch.finfo(torch.float32).tiny).log().view(len(signals), -1, spectrum.shape[-1])
    level = level - F.avg_pool1d(level, 31, 1, 15, count_include_pad=False)
    rate_hz = torch.arange(low, high, sample_rate / n / 8, device=signals.device)
    position = rate_hz * torch.arange(1, n_harmonics + 1, device=signals.device)[:, None] * n / sample_rate
    below = position.long()
    heights = torch.lerp(level[..., below], level[..., below + 1], position - below)
    return 60 * rate_hz[heights.sum((1, 2)).argmax(1)]


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
        sample_rate: int = 20480,
        tolerance: float = 0.1,
        *,
        reference_rpm: float | None = None,
        rpm_range: tuple[float, float] | None = None,
        freq_unit: Unit = "hz",
        spectrum: Literal["both", "raw", "envelope"] = "both",
        form: Form = "log",
        n_classes: int | None = None,
        classes: Sequence[str] | None = None,
        temperature: float = 1.0,
        max_rpm: float = 6000,
        calibration: Calibration | None = None,
        control: Control | None = None,
        control_seed: int = 0,
    ) -> None:
        _check_positive(sample_rate=sample_rate)
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}, expected in (0, 1)")
        if freq_unit not in ("hz", "order") or spectrum not in _KINDS:
            raise ValueError(f"freq_unit is {freq_unit!r} and spectrum {spectrum!r}, expected hz, order; {[*_KINDS]}")
        per_order = reference_rpm / 60 if freq_unit == "hz" and reference_rpm else 1.0
        unit: Unit = "order" if reference_rpm else freq_unit
        given = {
            _class_index(key, classes): [_as_line(item, unit, per_order, _KINDS[spectrum]) for item in _items(value)]
            for key, value in expected_freqs.items()
        }
        lines = _with_windows(given, tolerance)
        least = max(max(given, default=-1) + 1, len(classes or ()))
        if n_classes is not None and n_classes < least:
            raise ValueError(f"n_classes is {n_classes}, but expected_freqs and classes name {least}")
        features, looks = _as_features([*dict.fromkeys(line.window for each in lines.values() for line in each)])
        needs_rpm = any(feature.unit == "order" for feature in features)
        super().__init__(
            OrderEvidence(features, sample_rate, max_rpm=max_rpm if needs_rpm else 60 * sample_rate)
            if features
            else None,
            _table(lines, n_classes or least),
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
        rows = [tuple(row) for row in self.table.tolist()]
        if len(set(rows)) < len(rows):
            same = [self.judged[i].item() for i, row in enumerate(rows) if rows.count(row) > 1]
            warnings.warn(f"classes {same} expect the same as another, so no line can part them", stacklevel=2)


class SommerfeldConsistencyLoss(nn.Module):
    """Severities ranked by operating point: a thin film makes friction worse, a light load makes oil whirl worse.

    The Sommerfeld number S is an operating point, not a damage, so nothing but a ranking follows from it, and only
    among windows of one mechanism. With severity s and the direction D_ij = sum_c d_c p_ic p_jc, where d = -1 for
    lubrication and wear, +1 for oil whirl and 0 otherwise (detached), over pairs with S_i > S_j:

        L = sum w_ij max(0, 0.03 - sign(D_ij) (s_i - s_j)) / sum w_ij
        w_ij = |D_ij| m_i m_j clip(log S_i - log S_j - 0.7, 0, 1), 0 between two machines

    From class logits, s is the expected rank, 0 to 1, among the classes of `fault_severity_order`, and m their share of
    the probability.

    A constant factor in S (the geometry of like bearings) does not change the ranking: without `metadata["sommerfeld"]`
    viscosity times speed over load is taken.

    Args:
        fault_severity_order: classes of one mechanism, by index or name, from mildest to worst, at least 2; None is
            healthy, lubrication, wear, wear with lubrication, as far as they are among the classes.
        classes: names of the network's outputs; None is the 11 journal classes.
        n_levels: predictions are logits of so many levels of severity instead of classes.
        direction: sign of d severity / d S for levels, for severities, and for listed classes of unknown direction.
        margin: by which severities should differ, >= 0.
        oil_cst: kinematic viscosity at 40 and 100 deg C, where viscosity follows from the temperature.

    Raises:
        KeyError: a class of the order is not known.
        ValueError: an argument is out of range.

    Example:
        >>> loss, severity = SommerfeldConsistencyLoss(), torch.tensor([0.2, 0.8])  # of a severity head
        >>> [loss(severity, {"sommerfeld": torch.tensor(S)}) for S in ([1.0, 0.1], [0.1, 1.0])]
        [tensor(0.), tensor(0.6300)]
    """

    order: Tensor
    directions: Tensor

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
        listed = list(_DEFAULT_ORDER if fault_severity_order is None else fault_severity_order)
        names = JOURNAL_CLASSES if classes is None else tuple(classes)
        indices = [key for key in listed if not isinstance(key, str)]
        if classes is None and indices and len(indices) == len(listed):
            names = ("",) * (max(indices) + 1)
        if fault_severity_order is None:
            listed = [name for name in listed if name in names]
        order = [_class_index(key, names) for key in listed]
        if fault_severity_order is not None and (len(order) < 2 or len(set(order)) < len(order)):
            raise ValueError(f"fault_severity_order is {fault_severity_order}, expected at least 2 different classes")
        if not margin >= 0 or not direction or not (n_levels is None or n_levels > 1):
            raise ValueError(f"margin {margin}, direction {direction}, n_levels {n_levels}: expected >= 0, not 0, > 1")
        directions = torch.tensor([_DIRECTIONS.get(name, 0.0) for name in names])
        directions[[index for index in order[1:] if not directions[index]]] = direction
        self.register_buffer("order", torch.tensor(order, dtype=torch.long), persistent=False)
        self.register_buffer("directions", directions, persistent=False)
        self.n_levels, self.direction, self.margin, self.oil_cst = n_levels, direction, margin, oil_cst
        self._warn = _WarnOnce("Sommerfeld")

    def forward(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """The loss, a scalar >= 0; 0 where no pair of windows can be ranked.

        Args:
            predictions: class logits `[B, C]`, level logits `[B, n_levels]`, or severities `[B]` in 0..1.
            metadata: `sommerfeld`; or `viscosity` in Pa s or `temperature` in deg C, with `rpm` and `load`. NaN where
                unknown. With `machine_id`, only windows of one machine are compared.

        Raises:
            ValueError: shapes do not fit.
        """
        self._warn(self._missing(metadata or {}, predictions))
        return self.term(predictions, metadata)

    def term(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """As `forward`, without a warning where nothing is known."""
        values = self._values(predictions)
        if self._missing(metadata or {}, predictions):
            return values.sum() * 0
        with torch.autocast(predictions.device.type, enabled=False):
            severity, direction = self._severity(values)
            weights = self._pair_weights(metadata or {}, values) * direction.abs()
            wrong = F.relu(self.margin - direction.sign() * (severity[:, None] - severity))
            return (weights * wrong).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)

    def why_inert(self, metadata: Metadata | None, n_windows: int) -> str:
        """Why the loss has no gradient on a batch of class logits, in words."""
        reason = self._missing(metadata or {}, None)
        if reason:
            return reason
        weights = self._pair_weights(metadata or {}, torch.ones(n_windows))
        if bool(weights.any()):
            return "all pairs of windows are ranked rightly"
        machine = " of one machine" if _name_of(_MACHINE, metadata or {}) else ""
        return f"no two windows{machine} have Sommerfeld numbers that differ by more than a factor 2"

    def _missing(self, metadata: Metadata, predictions: Tensor | None) -> str | None:
        of_classes = self.n_levels is None and (predictions is None or predictions.ndim == 2)
        if of_classes and len(self.order) < 2:
            return "fewer than 2 of the classes are in the severity order"
        if "sommerfeld" in metadata or all(_name_of(names, metadata) for names in (_OIL, ("rpm",), _LOAD)):
            return None
        return (
            "the metadata have neither 'sommerfeld' nor 'rpm', 'load', and 'viscosity' or 'temperature'; "
            f"they have {sorted(metadata)}"
        )

    def _values(self, predictions: Tensor) -> Tensor:
        if predictions.ndim == 1:
            return _full_precision(predictions)
        if self.n_levels is None:
            return _logits(predictions, len(self.directions))
        if predictions.shape[1:] != (self.n_levels,):
            raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected [B, {self.n_levels}] levels")
        return _full_precision(predictions)

    def _severity(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Severities [B], and directions D_ij m_i m_j [B, B], or one for all pairs."""
        if values.ndim == 1 or self.n_levels is not None:
            severity = values if values.ndim == 1 else _expected_rank(values)
            return severity, values.new_full((1, 1), self.direction)
        p = values.detach().softmax(1)
        p = p * p.index_select(1, self.order).sum(1, keepdim=True)
        return _expected_rank(values.index_select(1, self.order)), (p * self.directions.to(p.dtype)) @ p.T

    def _pair_weights(self, metadata: Metadata, values: Tensor) -> Tensor:
        """[B, B], above 0 where the Sommerfeld number of the row is well above that of the column."""
        log_s = self._log_sommerfeld(metadata, len(values), values.device).to(values.dtype)
        weights = (log_s[:, None] - log_s - 0.7).clamp(0, 1).nan_to_num(nan=0.0)
        machine = _name_of(_MACHINE, metadata)
        if not machine:
            return weights
        machines = _per_window(metadata, machine, len(values), values.device)
        return weights * (machines[:, None] == machines)

    def _log_sommerfeld(self, metadata: Metadata, n: int, device: torch.device) -> Tensor:
        """[B] log S but for a constant, NaN where unknown."""

        def log_of(name: str) -> Tensor:
            values = _per_window(metadata, name, n, device).float()
            return values.where(values > 0, torch.nan).log()

        if "sommerfeld" in metadata:
            return log_of("sommerfeld")
        oil, load = _name_of(_OIL, metadata), _name_of(_LOAD, metadata)
        if oil in _TEMPERATURE:
            log_viscosity = _log_viscosity(_per_window(metadata, oil, n, device).float(), self.oil_cst)
        else:
            log_viscosity = log_of(oil)
        return log_viscosity + log_of("rpm") - log_of(load)


class TemporalSmoothnessLoss(nn.Module):
    """Predictions that jump between neighbouring windows of one recording: lambda mean w |p_i - p_j|^2.

    w = exp(-dt / tau) for windows dt apart, 1 where no time is known. At most 2 lambda; least for constant
    predictions, so a classification loss must stand beside it.

    Args:
        lambda_smooth: factor of the loss, >= 0.
        tau_s: > 0, seconds in which a machine's state may change.
        sample_rate: in Hz, of `metadata["start"]`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> loss = TemporalSmoothnessLoss(lambda_smooth=1.0)
        >>> loss(100 * torch.eye(2)[[0, 1, 1]], {"recording": torch.tensor([0, 0, 1])})  # one pair, far apart
        tensor(2.)
    """

    def __init__(self, lambda_smooth: float = 0.1, *, tau_s: float = 1.0, sample_rate: float = 20480) -> None:
        super().__init__()
        if not 0 <= lambda_smooth < math.inf:
            raise ValueError(f"lambda_smooth is {lambda_smooth}, expected a number >= 0")
        _check_positive(tau_s=tau_s, sample_rate=sample_rate)
        self.lambda_smooth, self.tau_s, self.sample_rate = lambda_smooth, tau_s, sample_rate
        self._warn = _WarnOnce("temporal")

    def forward(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """The loss, a scalar in 0 to 2 lambda; 0 where no two windows are of one recording.

        Args:
            predictions: logits `[T, B, C]` of T consecutive windows, or `[B, C]` in any order.
            metadata: for `[B, C]`: `recording` (or `record_ids`), and `start` in samples or `time` in s if known.

        Raises:
            ValueError: shapes do not fit.
        """
        self._warn(self._missing(metadata or {}) if predictions.ndim == 2 else None)
        return self.term(predictions, metadata)

    def term(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """As `forward`, without a warning where nothing is known."""
        if predictions.ndim not in (2, 3):
            raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected logits [T, B, C] or [B, C]")
        p = _full_precision(predictions).softmax(-1)
        if p.ndim == 3:
            steps, weights = p[1:] - p[:-1], p.new_ones(max(len(p) - 1, 0), p.shape[1])
            return self.lambda_smooth * _mean_square(steps, weights, weights)
        if self._missing(metadata or {}):
            return p.sum() * 0
        order, pairs, weights = self._neighbours(metadata or {}, p)
        p = p.index_select(0, order)
        return self.lambda_smooth * _mean_square(p[1:] - p[:-1], pairs, weights)

    def why_inert(self, metadata: Metadata | None) -> str:
        """Why the loss has no gradient on a batch, in words."""
        metadata = metadata or {}
        reason = self._missing(metadata)
        if reason:
            return reason
        ids = torch.as_tensor(metadata[_name_of(_RECORD, metadata)])
        if len(ids.unique()) == ids.numel():
            return "no two windows of the batch are of one recording"
        return "windows of one recording are too far apart in time, or lambda_smooth is 0"

    def _missing(self, metadata: Metadata) -> str | None:
        if any(name in metadata for name in _RECORD):
            return None
        return f"no record ids ('recording' or 'record_ids') in the metadata, which have {sorted(metadata)}"

    def _neighbours(self, metadata: Metadata, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Order [B] of the windows by recording and time; which neighbours are pairs [B - 1], and their weights."""
        ids = _per_window(metadata, _name_of(_RECORD, metadata), len(p), p.device)
        clock = _name_of(("time", "start"), metadata)
        if not clock:
            order = ids.argsort(stable=True)
            pairs = ids[order].diff() == 0
            return order, pairs, pairs.to(p.dtype)
        time = _per_window(metadata, clock, len(p), p.device)
        order = time.argsort(stable=True)
        order = order[ids[order].argsort(stable=True)]
        pairs = ids[order].diff() == 0
        step_s = time[order].diff().to(p.dtype) / (self.sample_rate if clock == "start" else 1)
        return order, pairs, torch.where(pairs, torch.exp(-step_s / self.tau_s), 0)


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
        sample_rate: int = 20480,
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
        spectrum: Literal["both", "raw", "envelope"] = "both",
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
        nothing = _full_precision(predictions).sum() * 0
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
            raise ValueError(f"no term is named {name!r}; known are {', '.join(self.weights)}")


class _ExpectedLine(NamedTuple):
    """A line of one class: where it is looked for, in `unit`, in which spectra, and whether it must be there."""

    low: float
    high: float
    unit: Unit
    kinds: Kinds
    role: float

    @property
    def window(self) -> Window:
        return self.low, self.high, self.unit, self.kinds

    def overlaps(self, low: float, high: float, unit: Unit, kinds: tuple[str, ...]) -> bool:
        return self.unit == unit and self.low <= high and low <= self.high and not set(kinds).isdisjoint(self.kinds)


class _WarnOnce:
    """Says why a loss is 0, the first time that it is."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, False

    def __call__(self, reason: str | None) -> None:
        if reason and not self.said:
            self.said = True
            warnings.warn(f"the {self.name} loss is 0: {reason}", stacklevel=3)


class _Memo:
    """The last result, for as long as the tensors it was made of are the same, and unchanged."""

    def __init__(self) -> None:
        self._made_of: list[tuple[weakref.ref[Tensor], int]] = []
        self._value: Any = None

    def __call__(self, tensors: Sequence[Tensor], compute: Callable[[], Any]) -> Any:
        if any(tensor.is_inference() for tensor in tensors):  # these do not count their changes
            return compute()
        if not self._still(tensors):
            self._value = compute()
            self._made_of = [(weakref.ref(tensor), tensor._version) for tensor in tensors]
        return self._value

    def _still(self, tensors: Sequence[Tensor]) -> bool:
        return len(tensors) == len(self._made_of) and all(
            made_of() is tensor and version == tensor._version
            for tensor, (made_of, version) in zip(tensors, self._made_of, strict=True)
        )

    def __reduce__(self) -> tuple[type[_Memo], tuple[()]]:
        return _Memo, ()  # a copy has made nothing yet


def _linear(logits: Tensor, q: Tensor) -> Tensor:
    return (logits.softmax(1) * (1 - _compatibility(q))).sum(1)


def _log(logits: Tensor, q: Tensor) -> Tensor:
    return _surprise(logits, _compatibility(q))


def _set(logits: Tensor, q: Tensor) -> Tensor:
    return _surprise(logits, (_compatibility(q) / _SET_SHARE).clamp_max(1))


def _kl(logits: Tensor, q: Tensor) -> Tensor:
    return -(q * logits.log_softmax(1)).sum(1)


# Losses [B] of logits and physics' distribution, both [B, judged].
_FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"linear": _linear, "log": _log, "set": _set, "kl": _kl}


def _surprise(logits: Tensor, compatibility: Tensor) -> Tensor:
    """Minus log of the probability of a compatible class; at most -log 1e-4, so there is no log of 0."""
    return -(logits.softmax(1) * (compatibility + _LEAST_COMPATIBILITY)).sum(1).log()


def _compatibility(q: Tensor) -> Tensor:
    return q / q.amax(1, keepdim=True)


def _sureness(q: Tensor) -> Tensor:
    """1 - H(q) / log C, [B] in 0..1."""
    sureness = 1 - torch.special.entr(q).sum(1) / math.log(q.shape[1])
    return F.threshold(sureness, 1e-5, 0.0)  # below, q is flat but for rounding


_KINDS: dict[str, Kinds] = {
    "both": ("raw", "envelope"),
    "raw": ("raw",),
    "envelope": ("envelope",),
}

_DEFAULT_ORDER = ("healthy", "lubrication", "wear", "wear_lubrication")
_DIRECTIONS = {"lubrication": -1.0, "wear": -1.0, "wear_lubrication": -1.0, "oil_whirl": 1.0}

# Names of metadata, the first that is there counts.
_VISCOSITY, _TEMPERATURE = ("viscosity", "viscosity_pa_s"), ("temperature", "temperature_c")
_OIL, _LOAD = (*_VISCOSITY, *_TEMPERATURE), ("load", "load_n")
_MACHINE, _RECORD = ("machine_id", "machine", "specimen"), ("recording", "record_ids")


def _name_of(names: Sequence[str], metadata: Metadata) -> str:
    return next((name for name in names if name in metadata), "")


def _per_window(metadata: Metadata, name: str, n: int, device: torch.device) -> Tensor:
    """[B] values of metadata that may hold one for all."""
    values = torch.as_tensor(metadata[name], device=device)
    if values.shape not in ((), (n,)):
        raise ValueError(f"metadata {name!r} has shape {tuple(values.shape)}, expected one value or ({n},)")
    return values.expand(n)


def _full_precision(predictions: Tensor) -> Tensor:
    if not predictions.is_floating_point():
        raise ValueError(f"predictions are {predictions.dtype}, expected logits")
    return predictions if predictions.dtype == torch.float64 else predictions.float()


def _logits(predictions: Tensor, n_classes: int) -> Tensor:
    """[B, n_classes] in full precision; columns beyond are classes of which nothing is expected."""
    if predictions.ndim != 2 or predictions.shape[1] < n_classes:
        raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected logits [B, C >= {n_classes}]")
    return _full_precision(predictions)[:, :n_classes]


def _expected_rank(logits: Tensor) -> Tensor:
    """[B] expected position among the columns, 0 to 1."""
    return logits.softmax(1) @ torch.linspace(0, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)


def _mean_square(steps: Tensor, pairs: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of squared steps [..., C] over the number of pairs; 0 where there is none."""
    return (weights * steps.square().sum(-1)).sum() / pairs.sum().clamp_min(1)


def _log_viscosity(temperature_c: Tensor, reference_cst: tuple[float, float]) -> Tensor:
    """Log of `journal_bearing.kinematic_viscosity_cst`, as tensors stay where they are."""
    kelvin = [math.log(313.15), math.log(373.15)]
    doubled = [math.log10(math.log10(nu + 0.7)) for nu in reference_cst]
    slope = (doubled[0] - doubled[1]) / (kelvin[1] - kelvin[0])
    return (10 ** (10 ** (doubled[0] - slope * ((temperature_c + 273.15).log() - kelvin[0]))) - 0.7).log()


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}, expected > 0 and finite")


def _class_index(key: int | str, classes: Sequence[str] | None) -> int:
    if isinstance(key, str):
        if key not in (classes or ()):
            raise KeyError(f"class {key!r} is none of the classes {classes}")
        return list(classes or ()).index(key)
    if key < 0 or (classes is not None and key >= len(classes)):
        raise KeyError(f"class {key} is out of range")
    return int(key)


def _items(value: Sequence[ExpectedLine] | Signature) -> list[float | tuple[float, float] | Line]:
    """Lines, those of signatures one by one."""
    items = [value] if isinstance(value, Signature) else list(value)
    return [line for item in items for line in (item.lines if isinstance(item, Signature) else (item,))]


def _as_line(item: float | tuple[float, float] | Line, unit: Unit, per_order: float, kinds: Kinds) -> _ExpectedLine:
    """A line of unknown width has low == high."""
    if isinstance(item, Line):
        role = REQUIRED if item.role == "required" else NEUTRAL
        return _ExpectedLine(item.low_order, item.high_order, "order", (item.spectrum,), role)
    low, high = item if isinstance(item, (tuple, list)) else (item, item)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"an expected line is {item}, expected a frequency > 0 or a pair 0 < low <= high")
    return _ExpectedLine(low / per_order, high / per_order, unit, kinds, REQUIRED)


def _with_windows(lines: dict[int, list[_ExpectedLine]], tolerance: float) -> dict[int, list[_ExpectedLine]]:
    """The lines with a window each, no wider than keeps it off the other lines and the shaft's harmonics."""
    centres = {(line.unit, (line.low + line.high) / 2) for each in lines.values() for line in each}

    def widened(line: _ExpectedLine) -> _ExpectedLine:
        if line.high > line.low:
            return line
        f = line.low
        gaps = [abs(at - f) / 2 for unit, at in centres if unit == line.unit and at != f]
        half = min(tolerance * f, *gaps, _room_beside_shaft(f) if line.unit == "order" else math.inf)
        return line._replace(low=f - half, high=f + half)

    return {index: [widened(line) for line in each] for index, each in lines.items()}


def _room_beside_shaft(order: float) -> float:
    """How far a window may reach from a line without taking in a multiple of 1X that is not the line itself."""
    distance = abs(order - round(order))
    if distance < _SHAFT_LINE:
        return 0.5 - _SHAFT_CLEARANCE
    return max(distance - _SHAFT_CLEARANCE, distance / 2)


def _as_features(windows: Sequence[Window]) -> tuple[list[Feature], Tensor | None]:
    """What to look for, and for each line its one or two features."""
    features, looks = [], []
    for low, high, unit, kinds in windows:
        looks.append((len(features), len(features) + len(kinds) - 1))
        scale = "X" if unit == "order" else "Hz"
        features += [Feature(f"{low:.9g}-{high:.9g} {scale} {kind}", kind, ((low, high),), unit=unit) for kind in kinds]
    return features, torch.tensor(looks).T if len(features) > len(looks) else None


def _table(lines: dict[int, list[_ExpectedLine]], n_classes: int) -> Tensor:
    """[C, L] probability that a line is there, given the class."""
    windows = [*dict.fromkeys(line.window for each in lines.values() for line in each)]

    def expectation(own: list[_ExpectedLine], window: Window) -> float:
        roles = [line.role for line in own if line.window == window]
        if roles:
            return max(roles)
        return NEUTRAL if any(line.overlaps(*window) for line in own) else FORBIDDEN

    rows = [
        [expectation(lines[index], window) if index in lines else NEUTRAL for window in windows]
        for index in range(n_classes)
    ]
    return torch.tensor(rows).view(n_classes, len(windows))
