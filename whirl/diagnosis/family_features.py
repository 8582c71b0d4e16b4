"""Numbers that describe each family of lines in a recording, for models on top of the spectral diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from whirl.diagnosis.descriptors import RACES_AND_BALLS
from whirl.diagnosis.results import FamilyEvidence, RecordingDiagnosis

PARTS = ("inner_race", "outer_race", "ball")
"""Parts of the bearing that families are named after, in the order of `RACES_AND_BALLS`."""

FAMILY_FEATURES = (
    "significance",
    "depth",
    "first_line",
    "second_line",
    "third_line",
    "sidebands",
    "chance",
    "lead",
    "depth_lead",
)
"""Features of one family: levels in units of 10 dB, and differences to the strongest other family."""

_HARMONICS = 3
_MIN_DEPTH_DB = -40.0
_MAX_LEVEL_DB = 30.0
_CHANCE_RANGE = (1e-6, 1.0)


def strongest_families(diagnosis: RecordingDiagnosis) -> dict[str, FamilyEvidence]:
    """Return the evidence of each family in the channel and bearing in which it is most significant.

    Example:
        >>> strongest_families(RecordingDiagnosis(results=()))
        {}
    """
    return merge_families(result.families for result in diagnosis.results)


def merge_families(found: Iterable[Mapping[str, FamilyEvidence]]) -> dict[str, FamilyEvidence]:
    """Return the most significant evidence of each family."""
    best: dict[str, FamilyEvidence] = {}
    for families in found:
        for name, family in families.items():
            if name not in best or _level(family.significance_db, -1.0) > _level(best[name].significance_db, -1.0):
                best[name] = family
    return best


def family_features(families: Mapping[str, FamilyEvidence]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Describe the families of races and rolling elements by numbers that mean the same for any bearing.

    Everything is relative to the recording itself: levels above its noise, modulation relative to its vibration, and
    the lead over its other families. Nothing depends on gain, sampling rate, speed or geometry. A harmonic that cannot
    be evaluated has the mean level of the others.

    Args:
        families: evidence by name of the family.

    Returns:
        Features `[3, F]` of inner race, outer race and rolling element, in the order of `FAMILY_FEATURES`, and whether
        each family was evaluated, `[3]`; the features of the others are 0.

    Example:
        >>> outer = FamilyEvidence("BPFO", "outer_race", 3.58, 18.0, -12.0, 0.001, (20.0, 18.0, 16.0), None, 1e-6)
        >>> features, judged = family_features({"BPFO": outer})
        >>> features[1], judged
        (array([1.8, 2.8, 2. , 1.8, 1.6, 0. , 2. , 1.8, 2.8], dtype=float32), array([False,  True, False]))
    """
    found = [families.get(name) for name in RACES_AND_BALLS]
    judged = np.array([family is not None and family.is_judged for family in found])
    rows = np.zeros((len(found), len(FAMILY_FEATURES)), np.float32)
    for row, family, is_judged in zip(rows, found, judged, strict=True):
        if is_judged and family is not None:
            row[:-2] = _own_features(family)
    for place in range(len(rows)):
        others = np.delete(rows[:, :2], place, axis=0).max(axis=0)
        rows[place, -2:] = (rows[place, :2] - others) * judged[place]
    return rows, judged


def feature_rows(diagnoses: Sequence[RecordingDiagnosis]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the features `[n, 3, F]` of diagnosed recordings, and which families were evaluated, `[n, 3]`."""
    rows = [family_features(strongest_families(diagnosis)) for diagnosis in diagnoses]
    return (
        np.array([features for features, _ in rows], np.float32).reshape(-1, len(PARTS), len(FAMILY_FEATURES)),
        np.array([judged for _, judged in rows], bool).reshape(-1, len(PARTS)),
    )


def depths_db(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the depth of each family in dB, `[..., 3]`, from features `[..., 3, F]`.

    Example:
        >>> families = {"BPFO": FamilyEvidence("BPFO", "outer_race", 3.58, 18.0, -12.0)}
        >>> depths_db(family_features(families)[0])[1].round(2)
        np.float32(-12.0)
    """
    return 10 * features[..., FAMILY_FEATURES.index("depth")] + _MIN_DEPTH_DB


def _own_features(family: FamilyEvidence) -> list[float]:
    levels = [level for level in family.harmonics_db if level is not None]
    mean = float(np.mean(levels)) if levels else 0.0
    harmonics = [mean if level is None else level for level in family.harmonics_db][:_HARMONICS]
    chance = np.clip(1.0 if family.false_alarm_probability is None else family.false_alarm_probability, *_CHANCE_RANGE)
    return [
        _level(family.significance_db) / 10,
        (max(_level(family.depth_db, _MIN_DEPTH_DB), _MIN_DEPTH_DB) - _MIN_DEPTH_DB) / 10,
        *(min(level, _MAX_LEVEL_DB) / 10 for level in harmonics),
        min(_level(family.sidebands_db), _MAX_LEVEL_DB) / 10,
        float(-np.log10(chance)) / 3,
    ]


def _level(value: float | None, missing: float = 0.0) -> float:
    return missing if value is None else value
