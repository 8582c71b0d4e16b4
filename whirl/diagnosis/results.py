"""Results of the diagnosis of rolling bearings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["inner_race", "outer_race", "ball", "cage", "no_line_found", "not_judged"]
FAULTS = ("inner_race", "outer_race", "ball", "cage")


@dataclass(frozen=True)
class FamilyEvidence:
    """What a channel shows of one family of lines; a quantity that could not be measured is None.

    Attributes:
        name: name of the family: BPFI, BPFO, 2BSF or FTF.
        part: part of the bearing: inner_race, outer_race, ball or cage.
        order: kinematic fundamental in orders of the shaft.
        significance_db: mean level of the first three harmonics above the noise beside them, dB.
        depth_db: modulation of the vibration by these harmonics, dB; 0 is 100 %.
        slip: relative deviation of the lines from the kinematic order.
        harmonics_db: level of each of the first three harmonics, dB; None where it is hidden.
        sidebands_db: mean level of the sidebands of the load zone, dB; None where the family has none.
        false_alarm_probability: probability that a comb of lines belonging to no family reaches this significance in
            any of the families.
        band_hz: band in which the family stands out most.
        reason: why the family, or one of its harmonics, is not evaluated; empty if all are.
    """

    name: str
    part: str
    order: float
    significance_db: float | None = None
    depth_db: float | None = None
    slip: float | None = None
    harmonics_db: tuple[float | None, ...] = (None, None, None)
    sidebands_db: float | None = None
    false_alarm_probability: float | None = None
    band_hz: tuple[float, float] | None = None
    reason: str = ""

    @property
    def is_judged(self) -> bool:
        """Whether the family was evaluated."""
        return self.significance_db is not None

    @property
    def lines(self) -> tuple[float, ...]:
        """Orders at which the usable harmonics were found."""
        slip = self.slip or 0.0
        levels = enumerate(self.harmonics_db, start=1)
        return tuple(harmonic * self.order * (1 + slip) for harmonic, level in levels if level is not None)

    @property
    def modulation(self) -> float | None:
        """Depth as a share of the vibration, 1 for 100 %.

        Example:
            >>> round(FamilyEvidence("BPFO", "outer_race", 3.58, significance_db=18.0, depth_db=-12.4).modulation, 2)
            0.24
        """
        return None if self.depth_db is None else 10 ** (self.depth_db / 20)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "order": self.order,
            "significance_db": self.significance_db,
            "depth_db": self.depth_db,
            "slip": self.slip,
            "harmonics_db": list(self.harmonics_db),
            "sidebands_db": self.sidebands_db,
            "false_alarm_probability": self.false_alarm_probability,
            "band_hz": None if self.band_hz is None else list(self.band_hz),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class BearingDiagnosis:
    """The diagnosis of one bearing from one channel of one recording.

    Attributes:
        verdict: a part of the bearing (`inner_race`, `outer_race`, `ball`, `cage`), `no_line_found`, which does not
            mean healthy, or `not_judged`.
        reasons: why, in words; the first is the decisive one.
        file: the recording.
        channel: name of the channel.
        rpm: speed of the shaft in rev/min; None if unknown.
        bearing: the bearing, as it was given; None if unknown.
        families: evidence by name of the family; empty where nothing was measured.
        n_turns: turns of the shaft in the recording; None if the speed is unknown.
        n_segments: segments averaged.
        impulsiveness: mean square of the whitened envelope's swing: 1 for noise, more for impacts.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    file: str = ""
    channel: str = ""
    rpm: float | None = None
    bearing: str | None = None
    families: dict[str, FamilyEvidence] = field(default_factory=dict)
    n_turns: float | None = None
    n_segments: int = 0
    impulsiveness: float | None = None

    @property
    def is_fault(self) -> bool:
        """Whether a part of the bearing is named."""
        return self.verdict in FAULTS

    @property
    def evidence(self) -> FamilyEvidence | None:
        """Evidence of the family that the verdict names; None without a fault."""
        return next((each for each in self.families.values() if each.part == self.verdict), None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "file": self.file,
            "channel": self.channel,
            "rpm": self.rpm,
            "bearing": self.bearing,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "families": {name: family.as_dict() for name, family in self.families.items()},
            "turns": self.n_turns,
            "segments": self.n_segments,
            "impulsiveness": self.impulsiveness,
        }

    def __str__(self) -> str:
        about = f"channel {self.channel}, bearing {self.bearing or 'unknown'}"
        return f"{self.file} ({about}): {self.verdict}\n" + "\n".join(f"  {reason}" for reason in self.reasons)


@dataclass(frozen=True)
class RecordingDiagnosis:
    """The diagnoses of all channels and bearings of one recording.

    Attributes:
        results: one diagnosis for each channel and bearing, at least one.

    The attributes of a `BearingDiagnosis` can be read here too; they are those of the `leading` one.
    """

    results: tuple[BearingDiagnosis, ...]

    @property
    def leading(self) -> BearingDiagnosis:
        """The fault of highest significance; without one the first bearing that was evaluated, else the first."""
        faults = [result for result in self.results if result.evidence is not None]
        if faults:
            return max(faults, key=lambda result: getattr(result.evidence, "significance_db", 0.0) or 0.0)
        judged = [result for result in self.results if result.verdict != "not_judged"]
        return (judged or list(self.results))[0]

    @property
    def verdict(self) -> Verdict:
        """Verdict of the leading diagnosis."""
        return self.leading.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons of the leading diagnosis."""
        return self.leading.reasons

    @property
    def families(self) -> dict[str, FamilyEvidence]:
        """Evidence of the leading diagnosis."""
        return self.leading.families

    @property
    def file(self) -> str:
        """The recording."""
        return self.results[0].file

    @property
    def channel(self) -> str:
        """Channel of the leading diagnosis."""
        return self.leading.channel

    @property
    def rpm(self) -> float | None:
        """Speed of the shaft in rev/min; None if unknown."""
        return self.results[0].rpm

    @property
    def bearing(self) -> str | None:
        """Bearing of the leading diagnosis."""
        return self.leading.bearing

    def as_dict(self) -> dict[str, Any]:
        """Return the leading diagnosis as plain data for JSON, with all of them under `results`."""
        return {**self.leading.as_dict(), "results": [result.as_dict() for result in self.results]}

    def __str__(self) -> str:
        return "\n".join(str(result) for result in self.results)
