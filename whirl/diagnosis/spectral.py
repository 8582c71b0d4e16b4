"""Diagnosis of rolling bearings from their envelope spectra, without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from whirl.data.reading import read
from whirl.data.recording import Recording
from whirl.diagnosis.descriptors import family_evidence
from whirl.diagnosis.front_end import EnvelopeOrders, envelope_orders
from whirl.diagnosis.results import BearingDiagnosis, FamilyEvidence, RecordingDiagnosis
from whirl.diagnosis.rule import FEW_TURNS, Thresholds, apply_rule
from whirl.diagnosis.signal_quality import why_unusable
from whirl.diagnosis.speed_check import MAX_SPEED_HZ, SpeedCheck, check_speed
from whirl.dsp.turn_segments import SEGMENT_TURNS
from whirl.physics.bearings import (
    Bearing,
    UnknownBearingError,
    bearing_from_geometry,
    bearing_from_orders,
    parse_bearing,
    parse_bearings,
)
from whirl.physics.comb_search import SLIP_RANGE
from whirl.physics.fault_families import HARMONICS, FaultFamily, fault_families
from whirl.physics.rolling_bearing import BearingGeometry, FaultOrders, RotatingRace
from whirl.validation import check_number

AnyBearing = str | Bearing | BearingGeometry | FaultOrders

MIN_TURNS = 10
"""Recordings with fewer turns of the shaft are not evaluated: a third of the orders would lie on its harmonics."""

_MIN_ORDER = 40.0  # up to which the spectrum reaches at least


class _Pending(NamedTuple):
    """One channel to compare with one bearing."""

    about: BearingDiagnosis
    bearing: Bearing
    spectra: list[EnvelopeOrders]


@dataclass(frozen=True)
class SpectralDiagnoser:
    """Diagnoses rolling bearings from the lines in their envelope spectra, without training.

    Each channel is cut into half-overlapping segments of 40 turns of the shaft, at the recording's own speed, and
    pre-whitened. In the mean spectrum of the squared envelope, over orders of the shaft, families of lines are searched
    for at the orders of the recording's own bearing, and compared with what the same search finds at orders of no
    bearing. The most significant family that passes all thresholds names the fault; without one the verdict is
    `no_line_found`, which does not mean healthy.

    Where the lines of the shaft clearly lie at another speed than the given one, 1 to 4.5 % away, the recording is
    evaluated at that speed, and where the speed varies by 1.5 to 30 %, over the angle of the shaft: `rpm` is the (mean)
    speed that was used, and the reasons say so.

    Attributes:
        thresholds: what a family must reach.
        n_turns: turns of the shaft in a segment; recordings with fewer are one segment.
        device: where to compute, e.g. `"cuda"`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> signal = 0.3 * rng.normal(size=120_000)
        >>> impacts = np.arange(0.0, 119_000, 12_000 / (3.5848 * 30)) + rng.normal(size=1067)
        >>> for impact in impacts.astype(int):
        ...     signal[impact : impact + 40] += np.sin(1.4 * np.arange(40)) * np.exp(-np.arange(40) / 8)
        >>> recording = Recording(signal, 12_000, rpm=1800, bearing="6205")
        >>> (found,) = SpectralDiagnoser().diagnose([recording])
        >>> found.verdict
        'outer_race'
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    n_turns: float = SEGMENT_TURNS
    device: str | torch.device = "cpu"

    def diagnose(
        self,
        recordings: Sequence[Recording],
        bearing: AnyBearing | Sequence[AnyBearing] | None = None,
        rpm: float | None = None,
    ) -> list[RecordingDiagnosis]:
        """Diagnose recordings of any lengths, speeds, sampling rates and bearings.

        Args:
            recordings: the recordings; every channel is evaluated.
            bearing: the bearing or bearings near the sensors; default each recording's own.
            rpm: speed of the shaft in rev/min, > 0; default each recording's own.

        Raises:
            ValueError: `bearing` is unknown or malformed, or `rpm` is not positive. What a recording itself lacks is
                no error, but the reason of a verdict `not_judged`.
        """
        if rpm is not None:
            check_number("rpm", rpm, 0, open_ends=True)
            recordings = [replace(recording, rpm=rpm) for recording in recordings]
        checks = [check_speed(recording) for recording in recordings]
        prepared = [
            list(self._prepare(check.recording, _bearings_of(recording, bearing)))
            for recording, check in zip(recordings, checks, strict=True)
        ]
        pending = [each for results in prepared for each in results if isinstance(each, _Pending)]
        evidence = iter(
            family_evidence([(each.spectra, _families(each.bearing)) for each in pending]),
        )
        found = (
            [self._finish(each, next(evidence)) if isinstance(each, _Pending) else each for each in results]
            for results in prepared
        )
        return [
            RecordingDiagnosis(tuple(_with_speed_remark(recording, check, results)))
            for recording, check, results in zip(recordings, checks, found, strict=True)
        ]

    def _prepare(
        self, recording: Recording, bearings: Sequence[Bearing | tuple[str, str]]
    ) -> Iterator[BearingDiagnosis | _Pending]:
        """Yield, for each channel and bearing, what is to be evaluated, or the diagnosis that says why it cannot be."""
        known = [each for each in bearings if isinstance(each, Bearing)]
        remarks = _remarks(recording)
        for name, signal in zip(recording.channels, recording.signal, strict=True):
            unusable = why_unusable(signal) or _why_no_physics(recording)
            spectra = [] if unusable or not known else self._spectra(recording, signal, known)
            for bearing in bearings or [_UNKNOWN_BEARING]:
                about = BearingDiagnosis(
                    "not_judged", remarks, recording.name, name, recording.rpm, n_turns=recording.n_revolutions
                )
                if not isinstance(bearing, Bearing):
                    text, reason = bearing
                    yield replace(about, bearing=text, reasons=(unusable or reason,))
                elif unusable:
                    yield replace(about, bearing=bearing.text, reasons=(unusable,))
                else:
                    yield _Pending(replace(about, bearing=bearing.text), bearing, spectra)

    def _spectra(self, recording: Recording, signal: np.ndarray, bearings: Sequence[Bearing]) -> list[EnvelopeOrders]:
        highest = max(family.order for bearing in bearings for family in _families(bearing))
        max_order = max(_MIN_ORDER, HARMONICS[-1] * highest * (1 + SLIP_RANGE[1]) + 1)
        samples = torch.tensor(signal, device=self.device)
        return envelope_orders(samples, recording.sampling_rate_hz, recording.rpm or 0.0, max_order, self.n_turns)

    def _finish(self, pending: _Pending, families: dict[str, FamilyEvidence]) -> BearingDiagnosis:
        verdict, reasons = apply_rule(families, self.thresholds)
        return replace(
            pending.about,
            verdict=verdict,
            reasons=reasons + pending.about.reasons,
            families=families,
            n_segments=pending.spectra[0].n_segments,
            impulsiveness=max(spectrum.impulsiveness for spectrum in pending.spectra),
        )


def diagnose(
    recording: Recording | str | Path,
    bearing: AnyBearing | Sequence[AnyBearing] | None = None,
    rpm: float | None = None,
) -> RecordingDiagnosis:
    """Diagnose the rolling bearings in a recording, without training.

    Args:
        recording: a recording, or a file to read.
        bearing: the bearing or bearings near the sensors: designations such as "6205", geometries or fault orders as
            described in `whirl.physics.parse_bearings`; default the recording's own.
        rpm: speed of the shaft in rev/min; default the recording's own.

    Returns:
        The diagnoses of all channels and bearings. Its `verdict`, `reasons` and `families` are those of the leading
        one; `as_dict()` gives plain data. Unknown speed or bearing, and signals that are silent, constant, clipped or
        not finite give `not_judged` with the reason.

    Raises:
        ValueError: the file cannot be read, or `bearing` or `rpm` is invalid.
        OSError: there is no such file.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=120_000)
        >>> found = diagnose(Recording(noise, 12_000), bearing="6205", rpm=1797)
        >>> found.verdict, round(found.families["BPFO"].order, 3)
        ('no_line_found', 3.585)
        >>> diagnose(Recording(noise, 12_000), bearing="6205").reasons
        ('no physics: the speed of the shaft is unknown; give rpm',)
    """
    if not isinstance(recording, Recording):
        recording = read(recording)
    return SpectralDiagnoser().diagnose([recording], bearing, rpm)[0]


_UNKNOWN_BEARING = (None, "no physics: the bearing is unknown; give its designation, geometry or fault orders")


def _families(bearing: Bearing) -> tuple[FaultFamily, ...]:
    return fault_families(bearing.orders, bearing.rotating_race)


def _bearings_of(
    recording: Recording, given: AnyBearing | Sequence[AnyBearing] | None
) -> list[Bearing | tuple[str, str]]:
    """Return the bearings that a caller gives, otherwise the recording's own."""
    return _own_bearings(recording) if given is None else list(_bearings(given, recording.rotating_race))


def _bearings(bearing: AnyBearing | Sequence[AnyBearing], rotating_race: RotatingRace) -> Iterator[Bearing]:
    """Yield the bearings that a caller gives."""
    if isinstance(bearing, Bearing):
        yield bearing
    elif isinstance(bearing, str):
        yield from parse_bearings(bearing, rotating_race)
    elif isinstance(bearing, BearingGeometry):
        yield bearing_from_geometry(bearing, rotating_race)
    elif isinstance(bearing, FaultOrders):
        yield bearing_from_orders(bearing, rotating_race)
    else:
        for each in bearing:
            yield from _bearings(each, rotating_race)


def _own_bearings(recording: Recording) -> list[Bearing | tuple[str, str]]:
    """Return a recording's bearings; of one that is not in the table its name and why it cannot be used."""
    found: list[Bearing | tuple[str, str]] = []
    for text in (recording.bearing or "").split(";"):
        if text.strip():
            try:
                found.append(parse_bearing(text, recording.rotating_race))
            except UnknownBearingError as error:
                found.append((text.strip(), f"no physics: {error}"))
    return found


def _why_no_physics(recording: Recording) -> str | None:
    if recording.rpm is None:
        return "no physics: the speed of the shaft is unknown; give rpm"
    if recording.rpm / 60 > recording.sampling_rate_hz / 2:
        return (
            f"the shaft turns {recording.rpm / 60:.0f} times in a second, more than half the sampling rate of "
            f"{recording.sampling_rate_hz:g} Hz; correct rpm or sampling rate"
        )
    if (recording.n_revolutions or 0) < MIN_TURNS:
        text = (
            f"the recording holds {recording.n_revolutions:.1f} turns of the shaft at {recording.rpm:g} rpm, expected "
            f"at least {MIN_TURNS} and better {FEW_TURNS} or more"
        )
        is_low = recording.rpm <= MAX_SPEED_HZ
        return f"{text}; if {recording.rpm:g} is in Hz, give rpm {60 * recording.rpm:g}" if is_low else text
    return None


def _with_speed_remark(
    recording: Recording, check: SpeedCheck, results: list[BearingDiagnosis]
) -> list[BearingDiagnosis]:
    """Say in the results of a recording that another speed was used, or why lines may be missing."""
    remark = check.remark
    if remark is None or (check.recording is recording and any(each.is_fault for each in results)):
        return results
    return [
        each if each.verdict == "not_judged" else replace(each, reasons=(*each.reasons, remark)) for each in results
    ]


def _remarks(recording: Recording) -> tuple[str, ...]:
    turns = recording.n_revolutions
    if turns is None or turns >= FEW_TURNS:
        return ()
    return (f"only {turns:.0f} turns of the shaft: below {FEW_TURNS}, lines are hard to tell from its harmonics",)
