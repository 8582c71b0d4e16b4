"""Metrics of predictions for windows and for recordings, with confidence intervals.

Scores of class k from a confusion matrix C with true classes in rows and predicted classes in columns:

    precision = C_kk / sum_i C_ik    recall = C_kk / sum_j C_kj    F1 = 2 C_kk / (sum_i C_ik + sum_j C_kj)

each 0 if the denominator is 0. Macro F1 is the mean over the classes that occur in targets or predictions, and balanced
accuracy the mean recall over the classes that occur in targets; both as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtrit

from whirl.data.recording import Recording
from whirl.evaluation.prediction import Predictions, aggregate_by_recording
from whirl.metrics import compute_confusion_matrix, compute_per_class_metrics

LEVEL = 0.95
# All of n specimens lie on one side of the median with probability 2^(1 - n), so an interval between the extremes of
# fewer than five specimens is far from a coverage of 95 %.
_MIN_SPECIMENS = 5
_MAX_SINGLE_VALUES = 6


def evaluate_predictions(
    predictions: Predictions, recordings: Sequence[Recording], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compute the metrics of windows, and of recordings by soft voting over their windows.

    Args:
        predictions: predictions for windows; rows with the target `UNKNOWN` are counted but not evaluated.
        recordings: recordings that `predictions.recording` indexes.
        classes: names of the K classes.

    Returns:
        `{"window": ..., "recording": ...}`, each as from `compute_metrics`, serializable as JSON.

    Raises:
        ValueError: see `compute_metrics`.

    Example:
        >>> recordings = [Recording(np.zeros(64), 1000, label=name, specimen=name) for name in ("healthy", "wear")]
        >>> windows = Predictions(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([0, 0, 1]),
        ...                       np.array([0, 0, 1]))
        >>> metrics = evaluate_predictions(windows, recordings, ["healthy", "wear"])
        >>> round(metrics["window"]["accuracy"], 3), metrics["recording"]["accuracy"]
        (0.667, 1.0)
    """
    return {
        "window": compute_metrics(predictions, recordings, classes),
        "recording": compute_metrics(aggregate_by_recording(predictions), recordings, classes),
    }


def compute_metrics(
    predictions: Predictions, recordings: Sequence[Recording], classes: Sequence[str]
) -> dict[str, Any]:
    """Compute all metrics of one set of predictions.

    Returns:
        `n` evaluated rows, `n_unknown` rows without a known class, `n_specimens`; `accuracy`, `balanced_accuracy`,
        `macro_f1`, `ece`, `mean_confidence` and `majority_share` (the accuracy of always predicting the most frequent
        class), all 0 to 1; `intervals` (see `bootstrap_intervals`); `per_class` (`{name: {precision, recall, f1_score,
        support}}`); `confusion` `[K][K]`, rows are true classes; `reliability` (see `reliability_curve`);
        `per_condition` (see `condition_accuracies`).

    Raises:
        ValueError: no row has a known class, or the recordings or classes do not match the predictions.
    """
    _check_consistent(predictions, recordings, classes)
    known = predictions.select(predictions.known)
    confusion = compute_confusion_matrix(known.predicted, known.targets, len(classes))
    per_class = compute_per_class_metrics(known.predicted, known.targets, len(classes))
    return {
        "n": len(known.targets),
        "n_unknown": int((~predictions.known).sum()),
        "n_specimens": count_specimens(known.recording, recordings),
        **{name: float(value) for name, value in scores(confusion).items()},
        "majority_share": float(confusion.sum(1).max() / confusion.sum()),
        "mean_confidence": float(known.confidence.mean()),
        "ece": expected_calibration_error(known),
        "intervals": bootstrap_intervals(known, recordings),
        "per_class": {name: per_class[index] for index, name in enumerate(classes)},
        "confusion": confusion.tolist(),
        "reliability": reliability_curve(known),
        "per_condition": condition_accuracies(known, recordings),
    }


def _check_consistent(predictions: Predictions, recordings: Sequence[Recording], classes: Sequence[str]) -> None:
    if predictions.probabilities.shape[1] != len(classes):
        raise ValueError(
            f"the predictions have {predictions.probabilities.shape[1]} classes, but {len(classes)} names are given"
        )
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes is {list(classes)}, expected distinct names")
    if predictions.recording.max() >= len(recordings):
        raise ValueError(
            f"the predictions refer to recording {predictions.recording.max()}, but there are {len(recordings)}"
        )
    if not predictions.known.any():
        raise ValueError("no recording has a label among the classes, so there is nothing to evaluate")


def count_specimens(rows: np.ndarray, recordings: Sequence[Recording]) -> int | None:
    """Return the number of specimens of rows that index recordings; None if one of them is unknown."""
    names = {recordings[index].specimen for index in np.unique(rows)}
    return None if None in names else len(names)


def scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute accuracy, balanced accuracy and macro F1 of one or many confusion matrices.

    Args:
        confusion: counts or weights >= 0, rows are true classes, `[..., K, K]`; each matrix has a sum > 0.

    Returns:
        `accuracy`, `balanced_accuracy`, `macro_f1`, each `[...]`, 0 to 1.

    Example:
        >>> {name: round(float(value), 3) for name, value in scores(np.array([[3, 1], [0, 4]])).items()}
        {'accuracy': 0.875, 'balanced_accuracy': 0.875, 'macro_f1': 0.873}
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    occurs = true + predicted > 0
    recall = np.divide(hits, true, out=np.zeros(hits.shape), where=true > 0)
    f1 = np.divide(2 * hits, true + predicted, out=np.zeros(hits.shape), where=occurs)
    return {
        "accuracy": hits.sum(-1) / true.sum(-1),
        "balanced_accuracy": recall.sum(-1) / (true > 0).sum(-1),
        "macro_f1": f1.sum(-1) / occurs.sum(-1),
    }


def reliability_curve(predictions: Predictions, n_bins: int = 15) -> list[dict[str, Any]]:
    """Compute the accuracy as a function of the confidence, in bins of equal width.

    Confidence is the probability of the predicted class. Bin m of M contains confidences in ((m - 1)/M, m/M].

    Returns:
        One entry per bin: its edges `low` and `high`, its number of rows `n`, their mean `confidence` and their
        `accuracy`, 0 to 1; the last two are None for an empty bin.

    Example:
        >>> rows = Predictions(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]), np.array([0, 1]))
        >>> reliability_curve(rows, n_bins=2)[1]
        {'low': 0.5, 'high': 1.0, 'n': 2, 'confidence': 0.75, 'accuracy': 0.5}
    """
    confidence = predictions.confidence
    correct = predictions.predicted == predictions.targets
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    confidence_sums = np.bincount(bins, confidence, n_bins)
    n_correct = np.bincount(bins, correct, n_bins)
    return [
        {
            "low": m / n_bins,
            "high": (m + 1) / n_bins,
            "n": int(n),
            "confidence": float(confidence_sums[m] / n) if n else None,
            "accuracy": float(n_correct[m] / n) if n else None,
        }
        for m, n in enumerate(counts)
    ]


def expected_calibration_error(predictions: Predictions, n_bins: int = 15) -> float:
    """Compute the expected calibration error: the mean gap between confidence and accuracy, 0 to 1.

        ECE = sum_m n_m / n * |accuracy_m - confidence_m|

    over M bins of equal width, with n_m rows in bin m (Guo et al. 2017, On calibration of modern neural networks,
    eq. 3). With few rows it is biased upwards, since even a calibrated network scatters around the diagonal.

    Example:
        >>> rows = Predictions(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]), np.array([0, 1]))
        >>> round(expected_calibration_error(rows), 3)  # confidence 0.8, accuracy 0.5
        0.3
    """
    curve = reliability_curve(predictions, n_bins)
    gaps = [entry["n"] * abs(entry["accuracy"] - entry["confidence"]) for entry in curve if entry["n"]]
    return float(sum(gaps) / len(predictions.targets))


def bootstrap_intervals(
    predictions: Predictions, recordings: Sequence[Recording], n_resamples: int = 4000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compute 95 % confidence intervals of accuracy, balanced accuracy and macro F1 by bootstrap over specimens.

    The intervals describe how the scores vary with the choice of test machines. Specimens are drawn with replacement,
    each with all its rows: windows of one machine are correlated, and treating them as independent would understate the
    uncertainty. If every specimen has a single class, as bearings do, specimens are drawn within their class, so that
    no class is missing from a resample. From n specimens, n - 1 are drawn and weighted by n / (n - 1), which makes the
    variance unbiased for few specimens (Rao and Wu 1988, JASA 83:231). The interval is given by percentiles of the
    resampled scores, widened as Student's t is wider than the normal distribution (Hesterberg 2015, The American
    Statistician 69:371): 0.5 % and 99.5 % for 6 specimens, 2.5 % and 97.5 % for many. In simulations with 6 specimens
    its coverage is 90 to 94 %, that of the plain percentiles 81 to 86 %.

    Args:
        predictions: rows with known targets, for windows or recordings.
        recordings: recordings that `predictions.recording` indexes.
        n_resamples: number of resamples.
        seed: random seed of the resampling.

    Returns:
        For each score `low`, `high` and `reason`. If there is no valid interval (specimens are unknown, fewer than
        five, only one in a class, or all have the same score), `low` and `high` are None and `reason` explains why;
        otherwise `reason` is None. Also `level`, `n_specimens` and whether the bootstrap was `stratified`.
    """
    specimens = [recordings[index].specimen for index in predictions.recording]
    if None in specimens:
        return _unavailable("the specimens of some recordings are unknown", None)
    confusions = _confusion_per_specimen(predictions, np.unique(specimens, return_inverse=True)[1])
    strata, stratified = _strata(confusions)
    reason = why_too_few(strata)
    if reason:
        return _unavailable(reason, len(confusions))
    weights = resampling_weights(strata, n_resamples, np.random.default_rng(seed))
    resampled = np.tensordot(weights, confusions, axes=1)
    tail = tail_share(strata)
    return {name: _interval(values, tail, len(strata), stratified) for name, values in scores(resampled).items()}


def _confusion_per_specimen(predictions: Predictions, specimen: np.ndarray) -> np.ndarray:
    """Compute the confusion matrix of each specimen, `[S, K, K]`, from the specimen index of each row, `[W]`."""
    n_specimens, k = specimen.max() + 1, predictions.probabilities.shape[1]
    cells = (specimen * k + predictions.targets) * k + predictions.predicted
    return np.bincount(cells, minlength=n_specimens * k * k).reshape(n_specimens, k, k)


def _strata(confusions: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the stratum of each specimen, `[S]`, and whether strata are the classes, from confusions `[S, K, K]`."""
    has_class = confusions.sum(2) > 0
    if (has_class.sum(1) == 1).all():
        return has_class.argmax(1), True
    return np.zeros(len(confusions), dtype=int), False


def why_too_few(strata: np.ndarray) -> str | None:
    """Return the reason why the specimens are too few for an interval; None if they are enough."""
    n_specimens = len(strata)
    if n_specimens < _MIN_SPECIMENS:
        return f"at least {_MIN_SPECIMENS} test specimens are required, got {n_specimens}"
    if np.unique(strata, return_counts=True)[1].min() < 2:
        return "a class has only one test specimen, so the variation between its specimens is unknown"
    return None


def tail_share(strata: np.ndarray) -> float:
    """Return the share of resamples outside of either end of an interval, for specimens of the given strata, `[S]`."""
    return float(ndtr(-stdtrit(len(strata) - len(np.unique(strata)), (1 + LEVEL) / 2)))


def resampling_weights(strata: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the weight of each specimen in each resample, `[R, S]`."""
    weights = np.empty((n_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        weights[:, members] = rng.multinomial(n - 1, np.full(n, 1 / n), n_resamples) * (n / (n - 1))
    return weights


def _interval(values: np.ndarray, tail: float, n_specimens: int, stratified: bool) -> dict[str, Any]:
    """Return the interval of resampled scores `[R]` with the share `tail` outside at either end."""
    entry = {"level": LEVEL, "n_specimens": n_specimens, "stratified": stratified}
    low, high = np.quantile(values, [tail, 1 - tail])
    if high - low > 1e-9:
        return {**entry, "low": float(low), "high": float(high), "reason": None}
    reason = "all test specimens have the same score, so resampling shows no variation"
    if high > 1 - 1e-9:
        bound = 100 * (1 - (1 - LEVEL) ** (1 / n_specimens))
        reason = (
            f"{n_specimens} test specimens have no error, so resampling shows no variation; up to {bound:.0f} % of new "
            "specimens may still have errors (95 % binomial bound)"
        )
    return {**entry, "low": None, "high": None, "reason": reason}


def _unavailable(reason: str, n_specimens: int | None) -> dict[str, dict[str, Any]]:
    entry = {
        "level": LEVEL,
        "low": None,
        "high": None,
        "reason": reason,
        "n_specimens": n_specimens,
        "stratified": False,
    }
    return {name: dict(entry) for name in ("accuracy", "balanced_accuracy", "macro_f1")}


def condition_accuracies(predictions: Predictions, recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """Compute the accuracy for each operating condition: bands of shaft speed and of load.

    Up to six distinct values are bands of their own; more are divided into four bands with about equal numbers of
    recordings. Recordings of unknown speed or load form a separate band.

    Returns:
        One entry per band: `condition` (`"speed"` or `"load"`), `unit`, `band`, `n` rows, `n_recordings`, `n_specimens`
        (None if unknown) and `accuracy`, 0 to 1.

    Example:
        >>> recordings = [Recording(np.zeros(64), 1000, rpm=rpm, specimen="a") for rpm in (900, 1500)]
        >>> rows = Predictions(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), np.array([0, 1]))
        >>> [(band["band"], band["unit"], band["accuracy"]) for band in condition_accuracies(rows, recordings)]
        [('900', 'rpm', 1.0), ('1500', 'rpm', 0.0), ('unknown', '', 0.5)]
    """
    used = [recordings[index] for index in np.unique(predictions.recording)]
    rpm = np.array([np.nan if r.rpm is None else r.rpm for r in recordings])
    rows = [("speed", "rpm", band, members) for band, members in _bands(rpm, [r.rpm for r in used])]
    for unit in sorted({recording.load_unit for recording in used}):
        same_unit = np.array([recording.load_unit == unit for recording in recordings])
        load = np.array([np.nan if r.load is None else r.load for r in recordings])
        inside = [r.load for r in used if r.load_unit == unit]
        rows += [("load", unit, band, members & same_unit) for band, members in _bands(load, inside)]
    return [
        {"condition": condition, "unit": unit, "band": band, **_accuracy_within(predictions, recordings, members)}
        for condition, unit, band, members in rows
    ]


def _accuracy_within(
    predictions: Predictions, recordings: Sequence[Recording], members: np.ndarray
) -> dict[str, int | float | None]:
    """Compute the accuracy of the rows whose recording is selected by `members`, a mask over the recordings."""
    rows = predictions.select(members[predictions.recording])
    return {
        "n": len(rows.targets),
        "n_recordings": len(np.unique(rows.recording)),
        "n_specimens": count_specimens(rows.recording, recordings),
        "accuracy": float((rows.predicted == rows.targets).mean()),
    }


def _bands(values: np.ndarray, used: Sequence[float | None]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and mask over `values` of each non-empty band, divided at the quartiles of the used values."""
    known = np.array([value for value in used if value is not None])
    if len(np.unique(known)) <= _MAX_SINGLE_VALUES:
        yield from ((f"{value:g}", values == value) for value in np.unique(known))
    else:
        edges = np.concatenate([[-np.inf], _round_quartiles(known), [np.inf]])
        for low, high in pairwise(edges):
            if ((known >= low) & (known < high)).any():
                yield _band_name(low, high), (values >= low) & (values < high)
    if len(known) < len(used):
        yield "unknown", np.isnan(values)


def _round_quartiles(values: np.ndarray) -> np.ndarray:
    """Return the quartiles, rounded to a power of ten that is small against their spacing."""
    step = 10 ** np.floor(np.log10(np.ptp(values) / 4))
    return np.unique(np.round(np.quantile(values, [0.25, 0.5, 0.75]) / step) * step)


def _band_name(low: float, high: float) -> str:
    if np.isinf(low):
        return f"below {high:g}"
    return f"{low:g} and above" if np.isinf(high) else f"{low:g} to {high:g}"
