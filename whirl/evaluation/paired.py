"""Paired comparison of the arms of an experiment with their control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whirl.validation import check_name


@dataclass(frozen=True)
class PairedDifference:
    """Difference between the scores of an arm and the control in the same runs.

    Attributes:
        n_runs: number of runs (seeds) that both have.
        mean: mean score of the arm over these runs.
        difference: mean of arm minus control.
        low: lower end of the 95 % confidence interval of the difference; NaN for a single run.
        high: upper end of the interval; NaN for a single run.
        p_value: p-value of Wilcoxon's signed-rank test, two-sided, exact if no differences are tied; NaN if all
            differences are zero or there is a single run.
    """

    n_runs: int
    mean: float
    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        if self.n_runs == 1:
            return f"{self.mean:.3f}  {self.difference:+.3f} (one run, no interval)"
        return f"{self.mean:.3f}  {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]  p = {self.p_value:.3f}"


def paired_difference(arm: Mapping[int, float], control: Mapping[int, float]) -> PairedDifference:
    """Compare an arm with its control in the runs that both have.

    The interval is Student's t interval of the differences between runs: it describes the variation over seeds on the
    same data, not over machines.

    Args:
        arm: score of the arm by seed.
        control: score of the control by seed.

    Raises:
        ValueError: the arms have no seed in common, or a score is not finite.

    Example:
        >>> round(paired_difference({0: 0.8, 1: 0.9, 2: 0.9}, {0: 0.7, 1: 0.7, 2: 0.8}).difference, 3)
        0.133
    """
    seeds = sorted(arm.keys() & control.keys())
    if not seeds:
        raise ValueError(f"the arms have no run in common: seeds {sorted(arm)} and {sorted(control)}")
    scores = np.array([[arm[seed], control[seed]] for seed in seeds], dtype=float)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores are {scores.tolist()}, expected finite numbers")
    differences = scores[:, 0] - scores[:, 1]
    mean, half = float(differences.mean()), _half_width(differences)
    return PairedDifference(
        len(seeds), float(scores[:, 0].mean()), mean, mean - half, mean + half, _wilcoxon_p(differences)
    )


def _half_width(differences: np.ndarray, confidence: float = 0.95) -> float:
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return float("nan")
    return float(t.ppf((1 + confidence) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))


def _wilcoxon_p(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if len(differences) < 2 or not differences.any():
        return float("nan")
    return float(np.asarray(wilcoxon(differences))[1])  # statistic, p


def compare_arms(
    scores: Mapping[str, Mapping[int, float]], control: str, arms: Sequence[str] | None = None
) -> dict[str, PairedDifference]:
    """Compare every arm with the control; the control itself comes first.

    Args:
        scores: `{arm: {seed: score}}`.
        control: name of the arm to compare with.
        arms: names of the arms to compare, in order; None for all.

    Raises:
        ValueError: an arm has no scores.

    Example:
        >>> found = compare_arms({"plain": {0: 0.5, 1: 0.5}, "physics": {0: 0.75, 1: 1.0}}, control="plain")
        >>> {name: each.difference for name, each in found.items()}
        {'plain': 0.0, 'physics': 0.375}
    """
    names = list(scores) if arms is None else list(arms)
    for name in (control, *names):
        check_name("arm", name, scores)
    order = dict.fromkeys((control, *names))
    return {name: paired_difference(scores[name], scores[control]) for name in order}
