"""Arms of an experiment against their control, run for run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairedDifference:
    """What an arm scores more than the control in the same runs.

    Attributes:
        n_runs: runs (seeds) that both have.
        mean: the arm's own mean score over them.
        difference: mean of arm minus control.
        low: lower end of the difference's 95 % interval; nan for a single run.
        high: upper end of it.
        p_value: of Wilcoxon's signed-rank test, two-sided, exact where no differences tie; nan where all are zero or
            there is a single run.
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
    """Compare two arms by the runs that both have.

    The interval is Student's t over the differences of the runs: it says what other seeds would give on data like
    these, not what other machines would.

    Args:
        arm: score of each run, by seed.
        control: the same of the control.

    Raises:
        ValueError: they share no run, or a score is not finite.

    Example:
        >>> round(paired_difference({0: 0.8, 1: 0.9, 2: 0.9}, {0: 0.7, 1: 0.7, 2: 0.8}).difference, 3)
        0.133
    """
    seeds = sorted(arm.keys() & control.keys())
    if not seeds:
        raise ValueError(f"no run in common: {sorted(arm)} and {sorted(control)}")
    scores = np.array([[arm[seed], control[seed]] for seed in seeds], dtype=float)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores are not all finite: {scores.tolist()}")
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
    """Every arm against the control, the control itself first.

    Args:
        scores: `{arm: {seed: score}}`.
        control: name of the arm to compare with.
        arms: which, in which order; None is all.

    Raises:
        ValueError: an arm that is not there.
    """
    names = list(scores) if arms is None else list(arms)
    missing = [name for name in (control, *names) if name not in scores]
    if missing:
        raise ValueError(f"no scores of arm {missing[0]!r}; there are {', '.join(scores)}")
    order = dict.fromkeys((control, *names))
    return {name: paired_difference(scores[name], scores[control]) for name in order}
