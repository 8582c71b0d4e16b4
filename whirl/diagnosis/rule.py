"""The untrained rule: which family of lines stands out enough, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from whirl.diagnosis.descriptors import RACES_AND_BALLS
from whirl.diagnosis.results import FamilyEvidence, Verdict
from whirl.physics.fault_families import OTHERS_HARMONICS

FEW_TURNS = 20
"""Below so many turns, a line is less than 3 bins from the nearest harmonic of the shaft."""

_SAME_PLACE = 0.005  # relative


@dataclass(frozen=True)
class Thresholds:
    """What a family of lines must reach to be called a fault.

    Attributes:
        significance_db: mean level of its lines above the noise, dB.
        depth_db: modulation of the vibration by its lines, dB; -12 dB is 25 %. A long recording makes the faintest line
            significant; the depth tells how much of the vibration it is.
        false_alarm_rate: at most so often combs of lines that belong to no family are as significant, for all families
            together; the share of recordings of noise that pass this step.
    """

    significance_db: float = 5.0
    depth_db: float = -12.0
    false_alarm_rate: float = 0.01

    def passes(self, family: FamilyEvidence) -> bool:
        """Return whether a family reaches all three.

        Example:
            >>> faint = FamilyEvidence("BPFO", "outer_race", 3.58, 18.0, depth_db=-20.0, false_alarm_probability=1e-6)
            >>> Thresholds().passes(faint)
            False
        """
        return (
            (family.significance_db or 0) > self.significance_db
            and (family.depth_db or 0) > self.depth_db
            and family.false_alarm_probability is not None
            and family.false_alarm_probability <= self.false_alarm_rate
        )


def apply_rule(families: Mapping[str, FamilyEvidence], thresholds: Thresholds) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and its reasons: of the families that pass all thresholds, the most significant one.

    Where several families were found in the very same lines, because their orders differ less than slip does, sidebands
    decide: a family that has its own is named before one that needs none, and that before one whose sidebands are
    missing; of equal ones the one that needs less slip. The others are in the reasons, except those that stand out only
    by lines of the family that decides.

    Races and elements decide. The cage does not: its line, one of the lowest in the spectrum, also shows when a rolling
    element is damaged, and in neighboring bearings of the machine.

    Args:
        families: evidence by name.
        thresholds: what a family must reach.

    Example:
        >>> clear = FamilyEvidence("BPFO", "outer_race", 3.58, 18.0, -12.4, 0.001, (20.0, 18.0, 16.0), None, 1e-6)
        >>> verdict, reasons = apply_rule({"BPFO": clear}, Thresholds(depth_db=-13))
        >>> verdict, reasons[0]
        ('outer_race', 'outer race: lines at 3.58, 7.17, 10.75 X, 18 dB above the floor, 24 % modulation')
    """
    deciding = [families[name] for name in RACES_AND_BALLS if name in families]
    judged = sorted((each for each in deciding if each.is_judged), key=lambda each: -(each.significance_db or 0))
    hidden = tuple(_hidden(each) for each in deciding if each.reason)
    if not judged:
        return "not_judged", hidden
    passing = [family for family in judged if thresholds.passes(family)]
    if not passing:
        return "no_line_found", (_nothing(judged[0], thresholds), *hidden)
    same = [family for family in passing if _same_lines(family, passing[0])]
    found = max(same, key=lambda family: (_support(family, thresholds), -abs(family.slip or 0)))
    others = tuple(
        f"the same lines fit the {_words(family.part)} with a slip of {100 * (family.slip or 0):.1f} %"
        if family in same
        else f"also {_describe(family)}"
        for family in passing
        if family is not found and (family in same or _own_level_db(family, found) > thresholds.significance_db)
    )
    return cast("Verdict", found.part), (_describe(found), _by_chance(found), *others, *hidden)


def _support(family: FamilyEvidence, thresholds: Thresholds) -> int:
    """Return whether sidebands support a family: 1 if they were found, 0 if it has none, -1 if they are missing."""
    if family.sidebands_db is None:
        return 0
    return 1 if family.sidebands_db > thresholds.significance_db else -1


def _same_lines(family: FamilyEvidence, other: FamilyEvidence) -> bool:
    """Return whether two families were found at the same place."""
    places = [each.order * (1 + (each.slip or 0)) for each in (family, other)]
    return abs(places[0] / places[1] - 1) < _SAME_PLACE


def _own_level_db(family: FamilyEvidence, found: FamilyEvidence) -> float:
    """Return the mean level of the lines of a family that are not lines of the one found; 0 if all are."""
    order = found.order * (1 + (found.slip or 0))
    levels = [level for level in family.harmonics_db if level is not None]
    own = [
        level
        for line, level in zip(family.lines, levels, strict=True)
        if all(abs(multiple * order / line - 1) >= _SAME_PLACE for multiple in range(1, OTHERS_HARMONICS + 1))
    ]
    return sum(own) / len(own) if own else 0.0


def _describe(family: FamilyEvidence) -> str:
    lines = ", ".join(f"{order:.2f}" for order in family.lines)
    return (
        f"{_words(family.part)}: lines at {lines} X, {family.significance_db:.0f} dB above the floor, "
        f"{100 * (family.modulation or 0):.0f} % modulation"
    )


def _by_chance(family: FamilyEvidence) -> str:
    probability = max(family.false_alarm_probability or 0.0, 1e-6)
    return f"lines that belong to no part of the bearing are as significant with probability {probability:.1g}"


def _nothing(strongest: FamilyEvidence, thresholds: Thresholds) -> str:
    text = (
        f"no line found: the strongest is {strongest.name} at {strongest.lines[0]:.2f} X, "
        f"{strongest.significance_db:.1f} dB above the floor, {100 * (strongest.modulation or 0):.0f} % modulation"
    )
    missing = []
    if (strongest.significance_db or 0) <= thresholds.significance_db:
        missing.append(f"more than {thresholds.significance_db:g} dB")
    if (strongest.depth_db or 0) <= thresholds.depth_db:
        missing.append(f"more than {100 * 10 ** (thresholds.depth_db / 20):.0f} % modulation")
    if strongest.false_alarm_probability is None:
        missing.append("more turns of the shaft, to estimate how often such lines occur by chance")
    elif strongest.false_alarm_probability > thresholds.false_alarm_rate:
        missing.append(
            f"a false-alarm probability of at most {thresholds.false_alarm_rate:g} instead of "
            f"{strongest.false_alarm_probability:.2g}"
        )
    return f"{text}; a fault needs {' and '.join(missing)}. This does not mean that the bearing is healthy"


def _hidden(family: FamilyEvidence) -> str:
    return f"{_words(family.part)}{'' if family.is_judged else ' not judged'}: {family.reason}"


def _words(part: str) -> str:
    return part.replace("_", " ")
