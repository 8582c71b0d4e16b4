"""Training, validation and test parts that answer the question one means to ask.

A network that has seen a bearing recognises it again; a score on windows, recordings or loads of bearings it was
trained on says little about the next machine. The default split therefore keeps all recordings of a specimen together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from whirl.data.recording import Recording
from whirl.validation import unknown_name

By = Literal["specimen", "recording", "time"]

DEFAULT_GAP_S = 0.1
"""Seconds left out between two parts of one recording: long against the ring-down of structural resonances."""

MIN_GROUPS_FOR_VALIDATION = 3
"""Specimens of each class outside the test part from which on validation gets its own; two stay for training."""

BY_TIME_NOTE = "split by time: every specimen is in all parts, so the scores say nothing about machines not trained on"


@dataclass(frozen=True)
class Split:
    """Recordings, or cuts of them, by what they are for.

    Attributes:
        train: to learn from.
        val: to choose by: when to stop, which checkpoint, which settings.
        test: to be looked at once.
        by: what never stands on both sides of the line between test and the rest: `"specimen"`, `"recording"` (a file),
            or, with `"time"`, only a stretch of time.
        val_by: the same for the line between train and val.
        notes: sentences a reader of the results should know.
    """

    train: list[Recording]
    val: list[Recording]
    test: list[Recording]
    by: By
    val_by: By
    notes: tuple[str, ...] = ()


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
    """Three parts, each with its share of every class, by seconds of signal.

    A specimen may hold recordings of one class or of several. One whose name is unknown counts as a specimen of its own
    for each source. Validation is split off like the test part while at least 3 specimens of each class are left for
    it, and otherwise is the end of each training recording after a gap; `val_by` and `notes` say which.

    Args:
        recordings: labelled, of at least two classes.
        by: `"specimen"`; `"recording"`, which keeps only recordings of one source together; or `"time"`, which cuts
            each recording into train, val and test. The latter two test on specimens seen in training wherever one has
            several recordings, which the leak guard then says.
        test_specimens: names of the specimens that are the test part; default: chosen by `seed`. Only by specimen.
        val_fraction: wanted share, for validation, of what the test part leaves, 0 < share < 1.
        test_fraction: wanted share of all for test, 0 < share < 1; unused with `test_specimens`.
        gap_s: seconds left out between two parts of one recording, >= 0.
        window_s: length of the windows to be cut later, >= 0: no part of a recording cut in time is shorter.
        seed: of the choice, >= 0. Equal arguments give equal splits.

    Returns:
        The split. Each training part holds every class; a class for which test has no specimen is named in `notes`.

    Raises:
        ValueError: no recordings, one class only, a recording without label, a class with a single specimen (or file),
            an unknown test specimen, a label that only the test part has, recordings too short to be cut in time, or a
            share out of range.

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
        raise ValueError(f"test specimens can be named only when splitting by specimen, not by {by}")
    ends = _TimeCuts(gap_s, window_s)
    if by == "time":
        return _split_by_time(recordings, val_fraction, test_fraction, ends)
    rng = np.random.default_rng(seed)
    keys = group_keys(recordings, by)
    if test_specimens is None:
        groups = _Groups(recordings, keys)
        _require(groups, 2, by, "one to train on and one to test on are needed")
        chosen = _choose(groups, test_fraction, keep=1, rng=rng)
    else:
        chosen = _known(test_specimens, keys)
    return _with_validation(recordings, keys, chosen, by, val_fraction, ends, rng)


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
    """Splits in which everything is tested exactly once.

    By specimen or recording the folds share the classes evenly, by seconds of signal; by time each recording is cut
    into k consecutive stretches, and fold i tests the i-th of each. Validation is split off the rest as in
    `split_recordings`.

    Args:
        recordings: labelled, of at least two classes.
        k: number of folds, >= 2 and at most the specimens (or files) of the rarest class.
        by: as for `split_recordings`.
        val_fraction: as for `split_recordings`.
        gap_s: as for `split_recordings`.
        window_s: as for `split_recordings`.
        seed: of the folds, >= 0.

    Raises:
        ValueError: as `split_recordings`, and when a class has fewer than k specimens (or files).

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
    if k < 2:
        raise ValueError(f"k is {k}, expected at least 2 folds")
    _check(recordings, by, (val_fraction, 1 / k), gap_s, window_s)
    ends = _TimeCuts(gap_s, window_s)
    if by == "time":
        return [_time_fold(recordings, fold, k, val_fraction, ends) for fold in range(k)]
    rng = np.random.default_rng(seed)
    keys = group_keys(recordings, by)
    groups = _Groups(recordings, keys)
    _require(groups, k, by, f"{k} folds need {k}")
    folds = _assign_folds(groups, k, rng)
    return [_with_validation(recordings, keys, chosen, by, val_fraction, ends, rng) for chosen in folds]


# ---------------------------------------------------------------------------------------------------- whole groups


class _Groups:
    """Groups of recordings that must stay together, and the share of each class's seconds `[G, K]` that each holds."""

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
    """The group of each recording: its specimen, or else its source, or else itself."""
    specimens = [recording.specimen if by == "specimen" else None for recording in recordings]
    return [
        specimen or recording.source or f"recording {index}"
        for index, (recording, specimen) in enumerate(zip(recordings, specimens, strict=True))
    ]


def _choose(groups: _Groups, fraction: float, keep: int, rng: np.random.Generator) -> set[str]:
    """Groups that hold about `fraction` of each class, while `keep` groups of each class remain.

    Class by class, the rarest first: the group that brings all classes together nearest to the fraction is added as
    long as that helps the class; among those about equally good a random order decides.
    """
    order = rng.permutation(len(groups.names))
    share, present = groups.share[order], groups.present[order]
    left = present.sum(axis=0)
    taken = np.zeros(len(order), dtype=bool)
    for c in np.argsort(left, kind="stable"):
        while True:
            reached = share[taken].sum(axis=0)
            helps = np.abs(reached[c] + share[:, c] - fraction) < abs(reached[c] - fraction)
            helps |= reached[c] == 0
            spared = (present & (left <= keep)).any(axis=1)
            free = present[:, c] & helps & ~taken & ~spared
            if not free.any():
                break
            cost = ((reached + share - fraction) ** 2).sum(axis=1).round(2)
            best = np.where(free, cost, np.inf).argmin()
            taken[best] = True
            left = left - present[best]
    return {groups.names[index] for index in order[taken]}


def _assign_folds(groups: _Groups, k: int, rng: np.random.Generator) -> list[set[str]]:
    """Every group into the fold that has least of its rarest class, groups of rare classes and large ones first."""
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
    ends: _TimeCuts,
    rng: np.random.Generator,
) -> Split:
    """The chosen groups as the test part, and validation split off what remains."""
    test = [recording for recording, key in zip(recordings, keys, strict=True) if key in chosen]
    rest = [recording for recording, key in zip(recordings, keys, strict=True) if key not in chosen]
    rest_keys = [key for key in keys if key not in chosen]
    unseen = sorted(set(_labels(test)) - set(_labels(rest)))
    if unseen:
        raise ValueError(
            f"class {unseen[0]!r} is only in the test part ({_named(chosen)}) and never seen in training: "
            "name other test specimens, or leave the class out (--classes)"
        )
    groups = _Groups(rest, rest_keys)
    count = groups.present.sum(axis=0)
    if count.min() < MIN_GROUPS_FOR_VALIDATION:
        train, val = _validation_by_time(rest, val_fraction, ends)
        rarest = groups.classes[int(count.argmin())]
        why = (
            f"validation is the end of each training recording: class {rarest!r} has only "
            f"{_counted(count.min(), by)} outside the test part"
        )
        return Split(train, val, test, by, "time", (why, *_notes(recordings, train, val, test)))
    for_val = _choose(groups, val_fraction, keep=MIN_GROUPS_FOR_VALIDATION - 1, rng=rng)
    val = [recording for recording, key in zip(rest, rest_keys, strict=True) if key in for_val]
    train = [recording for recording, key in zip(rest, rest_keys, strict=True) if key not in for_val]
    return Split(train, val, test, by, by, _notes(recordings, train, val, test))


# ---------------------------------------------------------------------------------------------------- cuts in time


@dataclass(frozen=True)
class _TimeCuts:
    """How recordings are cut in time: seconds between two parts, and the least that a part must last."""

    gap_s: float
    window_s: float

    def cut(self, recording: Recording, seconds: float) -> tuple[Recording, Recording] | None:
        """What comes before the gap and the last `seconds` after it, or None where one would be too short."""
        least = self.samples(recording, self.window_s, at_least=1)
        tail = max(least, self.samples(recording, seconds))
        head = recording.n_samples - tail - self.samples(recording, self.gap_s)
        if head < least:
            return None
        return recording.cut(0, head), recording.cut(recording.n_samples - tail, recording.n_samples)

    def samples(self, recording: Recording, seconds: float, at_least: int = 0) -> int:
        """So many seconds of the recording in samples, rounded up."""
        return max(at_least, math.ceil(round(seconds * recording.sampling_rate_hz, 6)))


def _split_by_time(
    recordings: Sequence[Recording], val_fraction: float, test_fraction: float, ends: _TimeCuts
) -> Split:
    train, val, test = [], [], []
    for recording in recordings:
        outer = ends.cut(recording, test_fraction * recording.duration_s)
        inner = outer and ends.cut(outer[0], val_fraction * outer[0].duration_s)
        if not (outer and inner):
            raise _too_short(recording, ends, 3)
        train.append(inner[0])
        val.append(inner[1])
        test.append(outer[1])
    return Split(train, val, test, "time", "time", (BY_TIME_NOTE,))


def _time_fold(recordings: Sequence[Recording], fold: int, k: int, val_fraction: float, ends: _TimeCuts) -> Split:
    rest, test = [], []
    for recording in recordings:
        start, stop = (recording.n_samples * edge // k for edge in (fold, fold + 1))
        least, gap = ends.samples(recording, ends.window_s, at_least=1), ends.samples(recording, ends.gap_s)
        around = ((0, start - gap), (stop + gap, recording.n_samples))
        pieces = [recording.cut(*piece) for piece in around if piece[1] - piece[0] >= least]
        if stop - start < least or not pieces:
            raise _too_short(recording, ends, k)
        test.append(recording.cut(start, stop))
        rest.extend(pieces)
    train, val = _validation_by_time(rest, val_fraction, ends)
    return Split(train, val, test, "time", "time", (BY_TIME_NOTE,))


def _validation_by_time(
    recordings: Sequence[Recording], fraction: float, ends: _TimeCuts
) -> tuple[list[Recording], list[Recording]]:
    """Training recordings without their ends, and the ends; one too short to lend its end stays whole."""
    cuts = [ends.cut(recording, fraction * recording.duration_s) for recording in recordings]
    if not any(cuts):
        raise _too_short(max(recordings, key=lambda recording: recording.duration_s), ends, 2)
    train = [recording if cut is None else cut[0] for recording, cut in zip(recordings, cuts, strict=True)]
    return train, [cut[1] for cut in cuts if cut is not None]


def _too_short(recording: Recording, ends: _TimeCuts, parts: int) -> ValueError:
    return ValueError(
        f"{recording.name} lasts {recording.duration_s:.3g} s, too short to be cut into {parts} parts of at least "
        f"{ends.window_s:.3g} s with gaps of {ends.gap_s:.3g} s: choose a shorter window, or record more specimens "
        "and split by them"
    )


# ---------------------------------------------------------------------------------------------------------- checks


def _check(
    recordings: Sequence[Recording], by: By, fractions: tuple[float, float], gap_s: float, window_s: float
) -> None:
    if by not in get_args(By):
        raise ValueError(unknown_name("way to split", by, get_args(By)))
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"val and test fractions are {fractions}, expected between 0 and 1")
    if not (gap_s >= 0 and window_s >= 0):
        raise ValueError(f"gap is {gap_s} s and window {window_s} s, expected 0 or more")
    if not recordings:
        raise ValueError("no recordings to split")
    for recording in recordings:
        if recording.label is None:
            raise ValueError(f"{recording.name} has no label: only labelled recordings can be trained on and tested")
    if len(_labels(recordings)) == 1:
        raise ValueError(f"all recordings are of one class, {recordings[0].label!r}: there is nothing to tell apart")


def _require(groups: _Groups, count: int, by: By, why: str) -> None:
    held = groups.present.sum(axis=0)
    rarest = int(held.argmin())
    if held[rarest] < count:
        names = [name for name, present in zip(groups.names, groups.present[:, rarest], strict=True) if present]
        raise ValueError(
            f"class {groups.classes[rarest]!r} has only {_counted(len(names), by)} ({_named(names)}), "
            f"and {why}: leave the class out (--classes), or test on known specimens and say so "
            "(--split time --allow-leakage)"
        )


def _known(test_specimens: Sequence[str], keys: Sequence[str]) -> set[str]:
    unknown = [name for name in test_specimens if name not in keys]
    if unknown:
        raise ValueError(f"unknown test specimen {unknown[0]!r}; there are {_named(set(keys))}")
    if not test_specimens or set(keys) <= set(test_specimens):
        raise ValueError(f"{len(test_specimens)} of {len(set(keys))} specimens are test specimens: name some, not all")
    return set(test_specimens)


def _notes(
    recordings: Sequence[Recording], train: list[Recording], val: list[Recording], test: list[Recording]
) -> tuple[str, ...]:
    """What the parts lack, and what they share although it is not against the rules of the split."""
    notes = [
        f"{part} holds no recording of class {label!r}"
        for part, held in (("validation", val), ("test", test))
        for label in sorted(set(_labels(recordings)) - set(_labels(held)))
    ]
    shared = {r.specimen for r in [*train, *val] if r.specimen} & {r.specimen for r in test}
    if shared:
        notes.append(f"specimens are in training and test alike: {_named(name for name in shared if name)}")
    return tuple(notes)


def _labels(recordings: Iterable[Recording]) -> list[str]:
    return sorted({str(recording.label) for recording in recordings})


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _named(names: Iterable[str]) -> str:
    """Names for a message, the first few of many."""
    shown = sorted(names)
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
