"""Descriptors of recordings, computed once for all models that compete on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whirl._parallel import map_in_threads, one_torch_thread
from whirl.data.recording import Recording
from whirl.diagnosis.family_features import FAMILY_FEATURES, PARTS, feature_rows
from whirl.diagnosis.order_levels import (
    MIN_REVOLUTIONS,
    ignore_unresolved_lines,
    order_evidence_with_warnings,
    order_levels,
)
from whirl.diagnosis.results import RecordingDiagnosis
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.validation import check_name

DescriptorKind = Literal["families", "order_levels", "evidence", "evidence_and_levels"]
DESCRIPTOR_KINDS: tuple[DescriptorKind, ...] = ("families", "order_levels", "evidence", "evidence_and_levels")

_ORDER_FEATURES: dict[str, Callable[[Recording], NDArray[np.float32]]] = {
    "order_levels": order_levels,
    "evidence": order_evidence_with_warnings,
}
_TABLE_FEATURES = [FAMILY_FEATURES.index(name) for name in ("significance", "depth")]


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors of n recordings.

    Attributes:
        kind: `"families"` (significance and depth of each family of bearing lines); for rotors and journal bearings
            `"order_levels"`, `"evidence"`, or the means of both over each recording, `"evidence_and_levels"`.
        values: one row for each recording, or for each of its windows, `[m, F]`.
        owner: the recording of each row, `[m]`.
        n_recordings: n. A recording without rows could not be described: its speed or bearing is unknown, or its signal
            unusable; for rotors and journal bearings a signal is usable if all samples are finite.
        families: features of each family, `[n, 3, F]`; empty for other kinds.
        judged: which families were evaluated, `[n, 3]`; empty for other kinds.
        verdicts: verdict of the untrained rule, as an index of `PARTS`, or 3 for "no line found", `[n]`; empty for
            other kinds.
    """

    kind: DescriptorKind
    values: NDArray[np.float32]
    owner: NDArray[np.intp]
    n_recordings: int
    families: NDArray[np.float32]
    judged: NDArray[np.bool_]
    verdicts: NDArray[np.intp]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether each recording has rows, `[n]`."""
        return np.bincount(self.owner, minlength=self.n_recordings) > 0

    def take(self, chosen: NDArray[np.integer]) -> Descriptors:
        """Return the descriptors of some recordings, in the given order, without repetition."""
        place = np.full(self.n_recordings, -1)
        place[chosen] = np.arange(len(chosen))
        rows = np.flatnonzero(place[self.owner] >= 0)
        rows = rows[np.argsort(place[self.owner[rows]], kind="stable")]
        of_recordings = {
            name: getattr(self, name)[chosen] if len(getattr(self, name)) else getattr(self, name)
            for name in ("families", "judged", "verdicts")
        }
        return replace(
            self, values=self.values[rows], owner=place[self.owner[rows]], n_recordings=len(chosen), **of_recordings
        )

    def mean_over_rows(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Average `[m, K]` over the rows of each recording, `[n, K]`; NaN where a recording has none."""
        total = np.zeros((self.n_recordings, values.shape[1]))
        np.add.at(total, self.owner, values)
        counts = np.bincount(self.owner, minlength=self.n_recordings)[:, None]
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def describe(recordings: Sequence[Recording], kind: DescriptorKind = "families") -> Descriptors:
    """Compute the descriptors of recordings.

    Args:
        recordings: the recordings; each is described at its own speed and by its own bearing.
        kind: which descriptors.

    Raises:
        ValueError: the kind is unknown, or recordings differ in their channels (`"order_levels"` only).

    Example:
        >>> from whirl.data.simulation import simulate
        >>> found = describe(simulate(1, 1, ["healthy", "outer_race"], n_samples=40_000))
        >>> found.values.shape, found.verdicts
        ((2, 6), array([3, 1]))
    """
    check_name("kind", kind, DESCRIPTOR_KINDS)
    if kind == "families":
        return of_diagnoses(SpectralDiagnoser().diagnose(recordings))
    if kind == "evidence_and_levels":
        return join(describe(recordings, "evidence"), describe(recordings, "order_levels"))
    if kind == "order_levels" and len({recording.n_channels for recording in recordings}) > 1:
        raise ValueError("recordings differ in their number of channels; select channels that all of them have")
    usable = [index for index, each in enumerate(recordings) if _has_orders(each)]
    with one_torch_thread(), ignore_unresolved_lines():  # outside of the threads, which share the filters of warnings
        rows = list(map_in_threads(_ORDER_FEATURES[kind], (recordings[index] for index in usable)))
    return Descriptors(
        kind,
        np.concatenate(rows) if rows else np.zeros((0, 0), np.float32),
        np.repeat(np.array(usable, np.intp), [len(each) for each in rows]),
        len(recordings),
        *_no_families(),
    )


def _has_orders(recording: Recording) -> bool:
    """Whether the levels at orders of the shaft can be measured."""
    return (recording.n_revolutions or 0) >= MIN_REVOLUTIONS and bool(np.isfinite(recording.signal).all())


def join(evidence: Descriptors, levels: Descriptors) -> Descriptors:
    """Return one row for each recording: the means of its evidence and of its order levels."""
    usable = np.flatnonzero(evidence.usable)
    means = [each.mean_over_rows(each.values)[usable] for each in (evidence, levels)]
    values = np.column_stack(means).astype(np.float32)
    return replace(evidence, kind="evidence_and_levels", values=values, owner=usable)


def of_diagnoses(diagnoses: Sequence[RecordingDiagnosis]) -> Descriptors:
    """Return the descriptors `"families"` of recordings that were diagnosed without training."""
    families, judged = feature_rows(diagnoses)
    usable = np.flatnonzero(judged.any(axis=1))
    verdicts = np.array([PARTS.index(each.verdict) if each.verdict in PARTS else len(PARTS) for each in diagnoses])
    table = families[:, :, _TABLE_FEATURES].reshape(len(diagnoses), len(PARTS) * len(_TABLE_FEATURES))
    return Descriptors("families", table[usable], usable, len(diagnoses), families, judged, np.array(verdicts, np.intp))


def _no_families() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.intp]]:
    shape = (0, len(PARTS), len(FAMILY_FEATURES))
    return np.zeros(shape, np.float32), np.zeros(shape[:2], bool), np.zeros(0, np.intp)
