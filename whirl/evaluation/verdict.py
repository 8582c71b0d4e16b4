"""What a result means for the person who has to decide: false alarms, missed faults, and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.evaluation.prediction import Predictions
from whirl.physics.faults import ROLLING_CLASSES, signature

_Z = 1.959964  # of a two-sided 95 % interval
_SHARES = tuple(round(0.05 * step, 2) for step in range(1, 21))  # of the recordings, for the risk-coverage curve


def is_healthy(label: str | None) -> bool:
    """Whether a label names a healthy machine, e.g. "normal".

    Example:
        >>> is_healthy("Normal"), is_healthy("ball"), is_healthy(None)
        (True, False, False)
    """
    return label is not None and signature(label) is not None and signature(label) == signature(ROLLING_CLASSES[0])


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n independent cases.

    Source: Wilson (1927), Probable inference, JASA 22, 209-212.

    Example:
        >>> tuple(round(end, 3) for end in wilson_interval(0.9, 10))
        (0.596, 0.982)
    """
    center = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def alarm_rates(predictions: Predictions, recordings: Sequence[Recording], classes: Sequence[str]) -> dict[str, Any]:
    """Return how often healthy machines are called faulty, and faulty ones healthy.

    Args:
        predictions: predictions for recordings; those of unknown class do not count.
        recordings: recordings that `predictions.recording` indexes.
        classes: names of the K classes.

    Returns:
        `false_alarms`, `missed_faults` and `wrong_faults` (faulty ones that are called another fault), each with `n`
        recordings of the kind, `count`, `rate` and the Wilson interval `low` to `high` with the number of specimens as
        the sample size, as recordings of one specimen are alike; empty if no class is healthy.
    """
    healthy = np.array([is_healthy(name) for name in classes])
    if not healthy.any():
        return {}
    known = predictions.select(predictions.known)
    is_sound, called_sound = healthy[known.targets], healthy[known.predicted]
    owners = np.array([recordings[index].specimen or recordings[index].source for index in known.recording])
    wrong = known.predicted != known.targets
    return {
        "false_alarms": _rate(~called_sound[is_sound], owners[is_sound]),
        "missed_faults": _rate(called_sound[~is_sound], owners[~is_sound]),
        "wrong_faults": _rate((wrong & ~called_sound)[~is_sound], owners[~is_sound]),
    }


def _rate(hits: NDArray[np.bool_], owners: NDArray[np.str_]) -> dict[str, Any]:
    n = len(hits)
    if n == 0:
        return {"n": 0, "count": 0, "rate": None, "low": None, "high": None}
    rate = float(hits.mean())
    low, high = wilson_interval(rate, len(np.unique(owners)))
    return {"n": n, "count": int(hits.sum()), "rate": rate, "low": low, "high": high}


def risk_coverage(predictions: Predictions) -> list[dict[str, float]]:
    """Return the error rate of the most certain recordings, by their share.

    Of equally certain ones, each is as likely to be among them, so their order does not matter.

    Source: Geifman & El-Yaniv (2017), Selective classification for deep neural networks, NeurIPS.

    Example:
        >>> rows = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> curve = risk_coverage(Predictions(rows, np.array([0, 1]), np.array([0, 1])))
        >>> [(point["share"], point["risk"]) for point in curve if point["share"] in (0.5, 1.0)]
        [(0.5, 0.0), (1.0, 0.5)]
    """
    known = predictions.select(predictions.known)
    _, place = np.unique(-known.confidence, return_inverse=True)
    wrong = np.bincount(place, known.predicted != known.targets) / np.bincount(place)  # share of equally certain ones
    order = np.argsort(place, kind="stable")
    kept = [(share, max(1, round(share * len(order)))) for share in _SHARES]
    return [{"share": share, "risk": float(wrong[place[order[:n]]].mean())} for share, n in kept]


def verdict(metrics: Mapping[str, Any], better_baselines: Sequence[str], is_unseen: bool) -> str:
    """Return the answer to the question whether the diagnoser is of use, in one or two sentences.

    Args:
        metrics: metrics by level, with `alarm_rates` at the level `"recording"`.
        better_baselines: sentences about simple diagnosers that surpass this one.
        is_unseen: whether no test specimen occurs in the training data.

    Example:
        >>> rates = {"false_alarms": {"n": 12, "count": 1}, "missed_faults": {"n": 20, "count": 2},
        ...          "wrong_faults": {"n": 20, "count": 0}}
        >>> known = {"accuracy": 0.9, "majority_share": 0.4, "n": 32, "alarm_rates": rates}
        >>> verdict({"recording": known}, [], is_unseen=True)
        'Finds 18 of 20 faults on machines it has not seen; 1 of 12 healthy recordings would be called faulty.'
        >>> verdict({"recording": known | {"accuracy": 0.4}}, [], is_unseen=True)
        'Do not use: no better than always naming the most frequent class.'
    """
    recording = metrics["recording"]
    if recording["accuracy"] <= recording["majority_share"]:
        return "Do not use: no better than always naming the most frequent class."
    if better_baselines:
        return f"Do not use as it is: {better_baselines[0]}."
    place = "on machines it has not seen" if is_unseen else "on machines that may occur in the training data"
    rates = recording.get("alarm_rates")
    if not rates or not rates["missed_faults"]["n"]:
        n_right = round(recording["accuracy"] * recording["n"])
        unknown = "" if rates else " No class is healthy, so false alarms are unknown."
        return f"Names the right class in {n_right} of {recording['n']} recordings {place}.{unknown}"
    missed, alarms, wrong = rates["missed_faults"], rates["false_alarms"], rates["wrong_faults"]
    other = f", {wrong['count']} of them as another fault" if wrong["count"] else ""
    found = f"Finds {missed['n'] - missed['count']} of {missed['n']} faults {place}{other}; "
    if not alarms["n"]:
        return f"{found}false alarms are unknown, as no test recording is healthy."
    return f"{found}{alarms['count']} of {alarms['n']} healthy recordings would be called faulty."
