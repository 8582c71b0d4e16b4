"""Train, validation and test splits that keep all recordings of a specimen together.

A network recognizes bearings it was trained on. Scores on other windows, recordings or loads of the same bearings
therefore say little about the next machine, so the default is to split by specimen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from whirl._display import Displayed, html_table
from whirl.data.recording import Recording
from whirl.validation import check_count, check_name, unknown_name

By = Literal["specimen", "recording", "time"]

DEFAULT_GAP_S = 0.1
"""Gap between two parts of one recording in seconds, long compared to the ring-down of structural resonances."""

MIN_GROUPS_FOR_VALIDATION = 3
"""Specimens per class outside the test part needed for validation by specimen; two of them remain for training."""

BY_TIME_NOTE = "split by time: all specimens are in all parts, so the scores say nothing about unseen machines"


@dataclass(frozen=True, repr=False)
class Split(Displayed):
    """A split of recordings, or of cuts of recordings, into train, validation and test parts.

    Attributes:
        train: recordings for training.
        val: recordings for model selection: early stopping, choice of checkpoint and hyper-parameters.
        test: recordings for the final evaluation.
        by: unit that is never shared between test and the other parts: `"specimen"`, `"recording"` (a file), or
            `"time"` (an interval of each recording).
        val_by: the same between train and val.
        notes: caveats to show with the results.
    """

    train: list[Recording]
    val: list[Recording]
    test: list[Recording]
    by: By
    val_by: By
    notes: tuple[str, ...] = ()

    def _display_facts(self) -> dict[str, Any]:
        sizes = {name: len(part) for name, part in self._parts().items()}
        return {"by": self.by, "val_by": self.val_by, **sizes, "notes": self.notes}

    def _display_table(self) -> str:
        labels = _labels([recording for part in self._parts().values() for recording in part if recording.label])
        header = ["", "recordings", "specimens", "minutes", *labels]
        caption = f"Split by {self.by}, validation by {self.val_by}"
        return html_table([_summary(name, part, labels) for name, part in self._parts().items()], header, caption)

    def _parts(self) -> dict[str, list[Recording]]:
        return {"train": self.train, "val": self.val, "test": self.test}


def _summary(name: str, part: Sequence[Recording], labels: Sequence[str]) -> list[str]:
    """Return the row of a part of a split: recordings, specimens, minutes, and recordings of each class."""
    specimens = {recording.specimen for recording in part} - {None}
    minutes = sum(recording.duration_s for recording in part) / 60
    counts = [sum(recording.label == label for recording in part) for label in labels]
    return [name, str(len(part)), str(len(specimens) or "–"), f"{minutes:.1f}", *map(str, counts)]


def split_recordings(
    recordings: Sequence[Recording],
    by: By = "specimen",
    *,
    test_specimens: Sequence[str] | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    gap_s: float = DEFAULT_GAP_S,
    window_s: float = 0.0,
    seed: int = 0,
) -> Split:
    """Split recordings into train, validation and test parts, stratified by class.

    Fractions are fractions of each class, by seconds of signal. A specimen may have recordings of one or several
    classes. Recordings without a specimen name count as one specimen per source. Validation is split off like the test
    part if each class has at least 3 specimens outside the test part; otherwise it is the end of each training
    recording, after a gap. `val_by` and `notes` of the result state which.

    Args:
        recordings: labeled recordings of at least two classes.
        by: unit that is kept together: `"specimen"`; `"recording"`, which keeps only recordings of one source together;
            or `"time"`, which cuts each recording into train, val and test. The latter two usually test on specimens
            seen in training, which `check_leakage` reports.
        test_specimens: names of the specimens of the test part, only with `by="specimen"`. Default: drawn by `seed`.
        val_fraction: target fraction of validation in the recordings outside the test part, in (0, 1).
        test_fraction: target fraction of the test part, in (0, 1); unused with `test_specimens`.
        gap_s: gap between two parts of one recording in s, >= 0.
        window_s: length of the windows to be cut later in s, >= 0; the parts of a recording are not shorter.
        seed: seed of the random choices, >= 0. Equal arguments give equal splits.

    Returns:
        The split. Its train part contains every class; a class that is missing in the test part is named in `notes`.

    Raises:
        ValueError: there are no recordings, only one class, a recording without a label, a class with a single specimen
            (or file), an unknown test specimen, or a class that only the test part has; a recording is too short to be
            cut in time; or a fraction is out of range.

    Example:
        >>> recordings = [
        ...     Recording(np.zeros(12_000), 12_000, label=label, specimen=f"machine {i}", source=f"{label}{i}")
        ...     for label in ("healthy", "wear") for i in range(5)
        ... ]
        >>> split = split_recordings(recordings)
        >>> len(split.train), len(split.val), len(split.test), split.val_by
        (6, 2, 2, 'specimen')
        >>> {r.specimen for r in split.train} & {r.specimen for r in split.test}
        set()
    """
    _check(recordings, by, (val_fraction, test_fraction), gap_s, window_s)
    if test_specimens is not None and by != "specimen":
        raise ValueError(f"test_specimens requires by='specimen', got by={by!r}")
    cuts = _TimeCuts(gap_s, window_s)
    if by == "time":
        return _split_by_time(recordings, val_fraction, test_fraction, cuts)
    rng = np.random.default_rng(seed)
    keys = group_keys(recordings, by)
    if test_specimens is None:
        groups = _Groups(recordings, keys)
        _require_groups(groups, 2, by, "training and test need at least one each")
        chosen = _choose_groups(groups, test_fraction, keep=1, rng=rng)
    else:
        chosen = _check_test_specimens(test_specimens, keys)
    return _with_validation(recordings, keys, chosen, by, val_fraction, cuts, rng)


def kfold(
    recordings: Sequence[Recording],
    k: int,
    by: By = "specimen",
    *,
    val_fraction: float = 0.15,
    gap_s: float = DEFAULT_GAP_S,
    window_s: float = 0.0,
    seed: int = 0,
) -> list[Split]:
    """Return splits for k-fold cross-validation, in which everything is tested exactly once.

    By specimen or recording, each fold has about the same seconds of signal of each class. By time, each recording is
    cut into k consecutive intervals, and fold i tests the i-th of each. Validation is split off the rest as in
    `split_recordings`.

    Args:
        recordings: labeled recordings of at least two classes.
        k: number of folds, from 2 to the number of specimens (or files) of the rarest class.
        by: as for `split_recordings`.
        val_fraction: as for `split_recordings`.
        gap_s: as for `split_recordings`.
        window_s: as for `split_recordings`.
        seed: seed of the random choices, >= 0.

    Raises:
        ValueError: as for `split_recordings`, or a class has fewer than k specimens (or files).

    Example:
        >>> recordings = [
        ...     Recording(np.zeros(12_000), 12_000, label=label, specimen=f"{label}{i}", source=f"{label}{i}")
        ...     for label in ("healthy", "wear") for i in range(3)
        ... ]
        >>> folds = kfold(recordings, k=3)
        >>> [sorted(r.label for r in split.test) for split in folds]
        [['healthy', 'wear'], ['healthy', 'wear'], ['healthy', 'wear']]
        >>> sorted(r.specimen for split in folds for r in split.test)
        ['healthy0', 'healthy1', 'healthy2', 'wear0', 'wear1', 'wear2']
    """
    check_count("k", k, 2)
    _check(recordings, by, (val_fraction, 1 / k), gap_s, window_s)
    cuts = _TimeCuts(gap_s, window_s)
    if by == "time":
        return [_time_fold(recordings, fold, k, val_fraction, cuts) for fold in range(k)]
    rng = np.random.default_rng(seed)
    keys = group_keys(recordings, by)
    groups = _Groups(recordings, keys)
    _require_groups(groups, k, by, f"{k} folds need at least {k}")
    folds = _assign_folds(groups, k, rng)
    return [_with_validation(recordings, keys, chosen, by, val_fraction, cuts, rng) for chosen in folds]


# -------------------------------------------------------------------------------------------------- splits by group


class _Groups:
    """Groups of recordings that stay together, and their share of the seconds of each class, `[G, K]`."""

    def __init__(self, recordings: Sequence[Recording], keys: Sequence[str]) -> None:
        self.names = list(dict.fromkeys(keys))
        self.classes = _labels(recordings)
        row = {name: index for index, name in enumerate(self.names)}
        column = {name: index for index, name in enumerate(self.classes)}
        seconds = np.zeros((len(self.names), len(self.classes)))
        for recording, key in zip(recordings, keys, strict=True):
            seconds[row[key], column[str(recording.label)]] += recording.duration_s
        self.share = seconds / seconds.sum(axis=0)
        self.present = seconds > 0


def group_keys(recordings: Sequence[Recording], by: By) -> list[str]:
    """Return the group of each recording: its specimen, if unknown its source, if unknown a unique name."""
    specimens = [recording.specimen if by == "specimen" else None for recording in recordings]
    return [
        specimen or recording.source or f"recording {index}"
        for index, (recording, specimen) in enumerate(zip(recordings, specimens, strict=True))
    ]


def _choose_groups(groups: _Groups, fraction: float, keep: int, rng: np.random.Generator) -> set[str]:
    """Choose groups with about `fraction` of each class, such that at least `keep` groups of each class remain.

    Greedy, class by class from the rarest: while it improves the fraction of the class, add the group that brings all
    classes together closest to their fractions. Ties, after rounding, are broken by a random order.
    """
    order = rng.permutation(len(groups.names))
    share, present = groups.share[order], groups.present[order]
    n_remaining = present.sum(axis=0)
    taken = np.zeros(len(order), dtype=bool)
    for c in np.argsort(n_remaining, kind="stable"):
        while True:
            reached = share[taken].sum(axis=0)
            improves = np.abs(reached[c] + share[:, c] - fraction) < abs(reached[c] - fraction)
            improves |= reached[c] == 0
            is_reserved = (present & (n_remaining <= keep)).any(axis=1)
            is_candidate = present[:, c] & improves & ~taken & ~is_reserved
            if not is_candidate.any():
                break
            cost = ((reached + share - fraction) ** 2).sum(axis=1).round(2)
            best = np.where(is_candidate, cost, np.inf).argmin()
            taken[best] = True
            n_remaining = n_remaining - present[best]
    return {groups.names[index] for index in order[taken]}


def _assign_folds(groups: _Groups, k: int, rng: np.random.Generator) -> list[set[str]]:
    """Assign each group to the fold with the least of its rarest class; rare classes and large groups first."""
    rarity = np.where(groups.present, groups.present.sum(axis=0), np.inf)
    order = rng.permutation(len(groups.names))
    order = order[np.lexsort((-groups.share[order].sum(axis=1).round(2), rarity[order].min(axis=1)))]
    load = np.zeros((k, len(groups.classes)))
    folds: list[set[str]] = [set() for _ in range(k)]
    for group in order:
        rarest = rarity[group].argmin()
        fold = np.lexsort((rng.random(k), load.sum(axis=1).round(2), load[:, rarest].round(2)))[0]
        load[fold] += groups.share[group]
        folds[fold].add(groups.names[group])
    return folds


def _with_validation(
    recordings: Sequence[Recording],
    keys: Sequence[str],
    chosen: set[str],
    by: By,
    val_fraction: float,
    cuts: _TimeCuts,
    rng: np.random.Generator,
) -> Split:
    """Use the chosen groups as the test part, and split validation off the rest."""
    test = [recording for recording, key in zip(recordings, keys, strict=True) if key in chosen]
    rest = [recording for recording, key in zip(recordings, keys, strict=True) if key not in chosen]
    rest_keys = [key for key in keys if key not in chosen]
    unseen = sorted(set(_labels(test)) - set(_labels(rest)))
    if unseen:
        raise ValueError(
            f"class {unseen[0]!r} is only in the test part ({_join_names(chosen)}) and missing in training; "
            "choose other test specimens, or exclude the class with --classes"
        )
    groups = _Groups(rest, rest_keys)
    count = groups.present.sum(axis=0)
    if count.min() < MIN_GROUPS_FOR_VALIDATION:
        train, val = _validation_by_time(rest, val_fraction, cuts)
        rarest = groups.classes[int(count.argmin())]
        why = (
            f"validation is the end of each training recording, because class {rarest!r} has only "
            f"{_count_text(count.min(), by)} outside the test part"
        )
        return Split(train, val, test, by, "time", (why, *_notes(recordings, train, val, test)))
    for_val = _choose_groups(groups, val_fraction, keep=MIN_GROUPS_FOR_VALIDATION - 1, rng=rng)
    val = [recording for recording, key in zip(rest, rest_keys, strict=True) if key in for_val]
    train = [recording for recording, key in zip(rest, rest_keys, strict=True) if key not in for_val]
    return Split(train, val, test, by, by, _notes(recordings, train, val, test))


# --------------------------------------------------------------------------------------------------- splits by time


@dataclass(frozen=True)
class _TimeCuts:
    """Cuts of recordings in time: the gap between two parts and the minimum length of a part, in s."""

    gap_s: float
    window_s: float

    def cut(self, recording: Recording, seconds: float) -> tuple[Recording, Recording] | None:
        """Return the part before the gap and the last `seconds` after it, or None if one would be too short."""
        minimum = self.samples(recording, self.window_s, at_least=1)
        tail = max(minimum, self.samples(recording, seconds))
        head = recording.n_samples - tail - self.samples(recording, self.gap_s)
        if head < minimum:
            return None
        return recording.cut(0, head), recording.cut(recording.n_samples - tail, recording.n_samples)

    def samples(self, recording: Recording, seconds: float, at_least: int = 0) -> int:
        """Convert seconds to samples, rounded up."""
        return max(at_least, math.ceil(round(seconds * recording.sampling_rate_hz, 6)))


def _split_by_time(
    recordings: Sequence[Recording], val_fraction: float, test_fraction: float, cuts: _TimeCuts
) -> Split:
    train, val, test = [], [], []
    for recording in recordings:
        outer = cuts.cut(recording, test_fraction * recording.duration_s)
        inner = outer and cuts.cut(outer[0], val_fraction * outer[0].duration_s)
        if not (outer and inner):
            raise _too_short(recording, cuts, 3)
        train.append(inner[0])
        val.append(inner[1])
        test.append(outer[1])
    return Split(train, val, test, "time", "time", (BY_TIME_NOTE,))


def _time_fold(recordings: Sequence[Recording], fold: int, k: int, val_fraction: float, cuts: _TimeCuts) -> Split:
    rest, test = [], []
    for recording in recordings:
        start, stop = (recording.n_samples * edge // k for edge in (fold, fold + 1))
        minimum, gap = cuts.samples(recording, cuts.window_s, at_least=1), cuts.samples(recording, cuts.gap_s)
        around = ((0, start - gap), (stop + gap, recording.n_samples))
        pieces = [recording.cut(*piece) for piece in around if piece[1] - piece[0] >= minimum]
        if stop - start < minimum or not pieces:
            raise _too_short(recording, cuts, k)
        test.append(recording.cut(start, stop))
        rest.extend(pieces)
    train, val = _validation_by_time(rest, val_fraction, cuts)
    return Split(train, val, test, "time", "time", (BY_TIME_NOTE,))


def _validation_by_time(
    recordings: Sequence[Recording], fraction: float, cuts: _TimeCuts
) -> tuple[list[Recording], list[Recording]]:
    """Return training recordings without their ends, and the ends; recordings that are too short stay uncut."""
    pairs = [cuts.cut(recording, fraction * recording.duration_s) for recording in recordings]
    if not any(pairs):
        raise _too_short(max(recordings, key=lambda recording: recording.duration_s), cuts, 2)
    train = [recording if pair is None else pair[0] for recording, pair in zip(recordings, pairs, strict=True)]
    return train, [pair[1] for pair in pairs if pair is not None]


def _too_short(recording: Recording, cuts: _TimeCuts, parts: int) -> ValueError:
    return ValueError(
        f"{recording.name}: {recording.duration_s:.3g} s are too short for {parts} parts of at least "
        f"{cuts.window_s:.3g} s with gaps of {cuts.gap_s:.3g} s; choose a shorter window, or record more specimens and "
        "split by specimen"
    )


# ---------------------------------------------------------------------------------------------------------- checks


def _check(
    recordings: Sequence[Recording], by: By, fractions: tuple[float, float], gap_s: float, window_s: float
) -> None:
    check_name("split unit", by, get_args(By))
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"val and test fractions are {fractions}, expected numbers in (0, 1)")
    if not (gap_s >= 0 and window_s >= 0):
        raise ValueError(f"gap_s is {gap_s} and window_s is {window_s}, expected numbers >= 0")
    if not recordings:
        raise ValueError("no recordings to split")
    for recording in recordings:
        if recording.label is None:
            raise ValueError(f"{recording.name}: has no label, expected labeled recordings")
    if len(_labels(recordings)) == 1:
        raise ValueError(f"all recordings have the class {recordings[0].label!r}, expected at least two classes")


def _require_groups(groups: _Groups, count: int, by: By, why: str) -> None:
    n_groups = groups.present.sum(axis=0)
    rarest = int(n_groups.argmin())
    if n_groups[rarest] < count:
        names = [name for name, present in zip(groups.names, groups.present[:, rarest], strict=True) if present]
        raise ValueError(
            f"class {groups.classes[rarest]!r} has only {_count_text(len(names), by)} ({_join_names(names)}), but "
            f"{why}; exclude the class with --classes, or evaluate on the training specimens with --split time "
            "--allow-leakage"
        )


def _check_test_specimens(test_specimens: Sequence[str], keys: Sequence[str]) -> set[str]:
    unknown = [name for name in test_specimens if name not in keys]
    if unknown:
        raise ValueError(unknown_name("test specimen", unknown[0], sorted(set(keys))))
    if not test_specimens or set(keys) <= set(test_specimens):
        raise ValueError(
            f"{len(test_specimens)} of {len(set(keys))} specimens are test specimens, expected some but not all"
        )
    return set(test_specimens)


def _notes(
    recordings: Sequence[Recording], train: list[Recording], val: list[Recording], test: list[Recording]
) -> tuple[str, ...]:
    """Return caveats: classes missing in a part, and specimens shared by training and test."""
    notes = [
        f"{part} contains no recording of class {label!r}"
        for part, members in (("validation", val), ("test", test))
        for label in sorted(set(_labels(recordings)) - set(_labels(members)))
    ]
    shared = {r.specimen for r in [*train, *val] if r.specimen} & {r.specimen for r in test}
    if shared:
        notes.append(f"specimens in both training and test: {_join_names(name for name in shared if name)}")
    return tuple(notes)


def _labels(recordings: Iterable[Recording]) -> list[str]:
    return sorted({str(recording.label) for recording in recordings})


def _count_text(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _join_names(names: Iterable[str]) -> str:
    """Join the first few names for a message."""
    shown = sorted(names)
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
