"""Choice of a diagnoser by cross-validation over specimens of the training part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from whirl._parallel import map_in_threads, one_blas_thread
from whirl.data.recording import Recording
from whirl.diagnosis.descriptor_sets import DescriptorKind, Descriptors, describe
from whirl.diagnosis.learned import BEARING_CANDIDATES, ROTOR_CANDIDATES, Candidate, LearnedDiagnoser
from whirl.diagnosis.logistic import class_weights
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, Signature, signature
from whirl.validation import check_count

MAX_FOLDS = 5
"""Folds of the comparison at most."""


@dataclass(frozen=True)
class Choice:
    """The outcome of a comparison.

    Attributes:
        candidate: the chosen candidate.
        scores: balanced accuracy of each candidate on held-out groups; empty if there was nothing to compare by.
        grouped_by: what a group is: `"specimen"`, `"speed"` or `"recording"`; empty without a comparison.
        reason: the outcome in words.
        held_out: probabilities of the sorted classes `[n, K]` for each recording, by models of the chosen candidate
            that were not trained on its group; None without a comparison.
    """

    candidate: Candidate
    scores: dict[Candidate, float]
    grouped_by: str
    reason: str
    held_out: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)


def suitable_candidates(recordings: Sequence[Recording]) -> tuple[Candidate, ...]:
    """Return the candidates for recordings, by what is known of them.

    Rolling-bearing models if all faults are of rolling bearings and every recording has a speed and a bearing; rotor
    models if a fault of rotors or journal bearings, but none of rolling bearings, occurs and every recording has a
    speed; none otherwise.

    Example:
        >>> from whirl.data.simulation import simulate
        >>> [str(each) for each in suitable_candidates(simulate(1, 1, n_samples=64))][:2]
        ['logistic_regression on evidence', 'logistic_regression on order_levels']
    """
    if not recordings or any(recording.rpm is None for recording in recordings):
        return ()
    faults = {signature(each.label or "") for each in recordings} - _faults(ROLLING_CLASSES[:1])
    if faults and faults <= _faults(ROLLING_CLASSES) and all(each.bearing for each in recordings):
        return BEARING_CANDIDATES
    if faults & _faults(JOURNAL_CLASSES) and not faults & _faults(ROLLING_CLASSES):
        return ROTOR_CANDIDATES
    return ()


def _faults(classes: Sequence[str]) -> set[Signature | None]:
    return {signature(name) for name in classes}


def choose_diagnoser(
    recordings: Sequence[Recording],
    candidates: Sequence[Candidate] | None = None,
    *,
    n_folds: int = MAX_FOLDS,
    seed: int = 0,
) -> tuple[LearnedDiagnoser, Choice]:
    """Compare diagnosers by cross-validation within the training part, and train the chosen one on all of it.

    Args:
        recordings: labeled recordings of at least two classes, of the training part only.
        candidates: diagnosers to compare, simplest first; default those of `suitable_candidates`.
        n_folds: number of folds at most, >= 2.
        seed: seed of the folds and models.

    Returns:
        The trained diagnoser, and the comparison; see `choose_candidate`.

    Raises:
        ValueError: a label is missing, there is one class only, or no candidate is suitable.

    Example:
        >>> from whirl.data.simulation import simulate
        >>> recordings = simulate(4, 1, ["healthy", "inner_race", "outer_race"], n_samples=60_000)
        >>> diagnoser, choice = choose_diagnoser(recordings)
        >>> choice.grouped_by, len(choice.scores), diagnoser.candidate == choice.candidate
        ('specimen', 4, True)
    """
    described = cache(lambda kind: describe(recordings, kind))
    choice = choose_candidate(recordings, candidates, described, n_folds=n_folds, seed=seed)
    diagnoser = LearnedDiagnoser(choice.candidate, seed)
    return diagnoser.fit(described(choice.candidate.kind), [str(each.label) for each in recordings]), choice


def choose_candidate(
    recordings: Sequence[Recording],
    candidates: Sequence[Candidate] | None,
    described: Callable[[DescriptorKind], Descriptors],
    *,
    n_folds: int = MAX_FOLDS,
    seed: int = 0,
) -> Choice:
    """Compare diagnosers by cross-validation within the training part.

    Folds hold out complete specimens; if a class has one specimen only, complete speeds or recordings. Candidates are
    visited from the simplest to the most complex; a later one is preferred only if its balanced accuracy is higher by
    more than the standard error of the difference, estimated over the groups. Nothing outside of the given recordings
    is used.

    Args:
        recordings: labeled recordings of at least two classes, of the training part only.
        candidates: diagnosers to compare, simplest first; default those of `suitable_candidates`.
        described: returns the descriptors of the recordings by kind.
        n_folds: number of folds at most, >= 2.
        seed: seed of the folds and models.

    Raises:
        ValueError: a label is missing, there is one class only, or no candidate is suitable.
    """
    check_count("n_folds", n_folds, 2)
    compared = list(suitable_candidates(recordings) if candidates is None else candidates)
    if not compared:
        raise ValueError("no diagnoser is suitable: speeds are unknown; give rpm, and bearings for rolling bearings")
    targets, classes = _targets(recordings)
    grouped_by, groups = group_recordings(recordings, targets)
    if len(compared) == 1:
        return Choice(compared[0], {}, "", f"{compared[0]}: as stated")
    if not grouped_by:
        reason = f"{compared[0]}: a class has one recording only, so there is nothing to compare by"
        return Choice(compared[0], {}, "", reason)
    folds = assign_folds(groups, targets, n_folds, seed)
    held_out = {
        each: held_out_probabilities(each, described(each.kind), targets, classes, folds, seed) for each in compared
    }
    correct = {each: _correct(probabilities, targets) for each, probabilities in held_out.items()}
    choice = _prefer_simple(correct, class_weights(targets, len(classes)), grouped_by, groups)
    return replace(choice, held_out=held_out[choice.candidate])


def _targets(recordings: Sequence[Recording]) -> tuple[NDArray[np.integer], list[str]]:
    """Return the class index of each recording, and the sorted classes."""
    unlabeled = next((each for each in recordings if each.label is None), None)
    if unlabeled is not None:
        raise ValueError(f"{unlabeled.name}: has no label")
    labels = [str(each.label) for each in recordings]
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise ValueError(f"recordings have the only class {classes[0]!r}, expected at least two classes")
    return np.array([classes.index(label) for label in labels]), classes


def _prefer_simple(
    correct: Mapping[Candidate, NDArray[np.float64]],
    weights: NDArray[np.float64],
    grouped_by: str,
    groups: NDArray[np.integer],
) -> Choice:
    """Choose the first candidate that none of the later ones surpasses by more than the standard error."""
    scores = {each: float(np.average(hits, weights=weights)) for each, hits in correct.items()}
    best, *others = correct
    for each in others:
        gain, error = _difference(correct[each] - correct[best], weights, groups)
        if gain > error:
            best = each
    rest = ", ".join(f"{each} {score:.2f}" for each, score in scores.items() if each != best)
    reason = f"{best}: balanced accuracy {scores[best]:.2f} with every {grouped_by} held out in turn; {rest}"
    return Choice(best, scores, grouped_by, reason)


def group_recordings(recordings: Sequence[Recording], targets: NDArray[np.integer]) -> tuple[str, NDArray[np.integer]]:
    """Return groups to hold out together: by the first property that has at least two values in every class.

    Args:
        recordings: the recordings.
        targets: index of the class of each, `[n]`.

    Returns:
        `"specimen"`, `"speed"` or `"recording"`, and the group of each recording, `[n]`; `""` if there are none.
    """
    for name, values in (
        ("specimen", [recording.specimen or recording.source for recording in recordings]),
        ("speed", [str(recording.rpm and round(recording.rpm, -1)) for recording in recordings]),
        ("recording", [str(index) for index in range(len(recordings))]),
    ):
        per_class = Counter(target for target, _ in {*zip(targets.tolist(), values, strict=True)})
        if min(per_class.values()) > 1:
            return name, np.unique(values, return_inverse=True)[1]
    return "", np.zeros(0, np.intp)


def assign_folds(
    groups: NDArray[np.integer], targets: NDArray[np.integer], n_folds: int, seed: int = 0
) -> NDArray[np.integer]:
    """Assign complete groups to folds so that each class is spread over as many folds as possible.

    Args:
        groups: group of each sample, `[n]`.
        targets: class of each sample, `[n]`.
        n_folds: number of folds at most; there are no more than the rarest class has groups.
        seed: seed of the order of groups.

    Returns:
        Fold of each sample, `[n]`.

    Example:
        >>> assign_folds(np.array([0, 0, 1, 2, 3]), np.array([0, 0, 0, 1, 1]), n_folds=5)
        array([1, 1, 0, 1, 0])
    """
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.stack([groups, targets]), axis=1)
    per_class = np.bincount(pairs[1])
    n_folds = max(2, min(n_folds, int(per_class[per_class > 0].min())))
    load = np.zeros((n_folds, len(per_class)))
    fold_of = np.zeros(int(groups.max()) + 1, np.intp)
    rarity = {group: per_class[pairs[1, pairs[0] == group]].min() for group in np.unique(groups)}
    for group in sorted(rarity, key=lambda group: (rarity[group], rng.random())):
        held = pairs[1, pairs[0] == group]
        rarest = held[per_class[held].argmin()]
        fold = np.lexsort((load.sum(axis=1), load[:, rarest]))[0]
        fold_of[group] = fold
        load[fold, held] += 1
    return fold_of[groups]


def _correct(probabilities: NDArray[np.float64], targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return 1 for each recording that is classified correctly, otherwise 0, also for rows of NaN."""
    is_judged = ~np.isnan(probabilities[:, 0])
    return (is_judged & (np.nan_to_num(probabilities, nan=-1).argmax(axis=1) == targets)).astype(np.float64)


def held_out_probabilities(
    candidate: Candidate,
    descriptors: Descriptors,
    targets: NDArray[np.integer],
    classes: Sequence[str],
    folds: NDArray[np.integer],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return class probabilities `[n, K]` of recordings by models that were trained on the other folds.

    Args:
        candidate: the model and its descriptors.
        descriptors: descriptors of the recordings.
        targets: index of the class of each, `[n]`.
        classes: names of the K classes.
        folds: fold of each, see `assign_folds`, `[n]`.
        seed: seed of the models.

    Returns:
        Probabilities; NaN for recordings that cannot be described.
    """
    labels = np.array(classes)[targets]

    def held_out(fold: int) -> NDArray[np.float64]:
        train = np.flatnonzero(folds != fold)
        diagnoser = LearnedDiagnoser(candidate, seed).fit(descriptors.take(train), labels[train].tolist(), classes)
        return diagnoser.predict_proba(descriptors.take(np.flatnonzero(folds == fold)))

    probabilities = np.full((len(targets), len(classes)), np.nan)
    numbers = np.unique(folds)
    with one_blas_thread():
        for fold, found in zip(numbers, map_in_threads(held_out, numbers), strict=True):
            probabilities[folds == fold] = found
    return probabilities


def _difference(
    differences: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.integer]
) -> tuple[float, float]:
    """Weighted mean of differences between two candidates, and its standard error over groups."""
    gain = float(np.average(differences, weights=weights))
    of_groups = np.bincount(groups, weights * (differences - gain)) / weights.sum()
    n = len(of_groups)
    return gain, float(np.sqrt(np.square(of_groups).sum() * n / max(n - 1, 1)))
