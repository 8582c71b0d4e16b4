"""Predictions of numbers, e.g. severities or remaining lives, and their errors with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.evaluation.metrics import LEVEL, count_specimens, resampling_weights, tail_share, why_too_few
from whirl.evaluation.prediction import predict_outputs

SCORES = {"mae": "mean absolute error", "rmse": "RMS error", "r2": "R2", "rank_correlation": "rank correlation"}
"""Scores of numbers and their names in reports; the first two have the unit of the target."""

_CHUNK = 2_000_000  # numbers, for the memory of a bootstrap


@dataclass(frozen=True, eq=False)
class ValuePredictions:
    """Predicted numbers of W windows, or of W recordings after `mean_by_recording`.

    Attributes:
        values: predicted numbers, `[W]`, finite.
        targets: true numbers, `[W]`.
        recording: index of the recording of each row, `[W]`.

    Raises:
        ValueError: a predicted number is not finite.
    """

    values: np.ndarray
    targets: np.ndarray
    recording: np.ndarray

    def __post_init__(self) -> None:
        bad = self.recording[~np.isfinite(self.values)]
        if len(bad):
            raise ValueError(f"the predicted numbers are not finite for recording {bad[0]}")

    @property
    def errors(self) -> np.ndarray:
        """Predicted minus true numbers, `[W]`."""
        return self.values - self.targets


def predict_values(
    model: nn.Module, data: WindowDataset | Iterable[Any], device: str | torch.device | None = None
) -> ValuePredictions:
    """Predict a number for every window; arguments and errors as for `whirl.evaluation.predict_windows`.

    Example:
        >>> batch = (torch.ones(2, 1, 4), torch.tensor([1.5, 1.0]), {"recording": torch.tensor([0, 1])})
        >>> predict_values(nn.Sequential(nn.Flatten(), nn.AvgPool1d(4)), [batch]).errors.tolist()
        [-0.5, 0.0]
    """
    outputs, targets, recording = predict_outputs(model, data, device, float_targets=True)
    return ValuePredictions(outputs[:, 0].double().numpy(), targets.astype(np.float64), recording)


def mean_by_recording(predictions: ValuePredictions) -> ValuePredictions:
    """Average the predicted numbers of the windows of each recording.

    Example:
        >>> windows = ValuePredictions(np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 4.0]), np.array([0, 0, 1]))
        >>> mean_by_recording(windows).values.tolist()
        [2.0, 5.0]
    """
    recording, first, row = np.unique(predictions.recording, return_index=True, return_inverse=True)
    means = np.bincount(row, predictions.values) / np.bincount(row)
    return ValuePredictions(means, predictions.targets[first], recording)


def value_metrics(predictions: ValuePredictions, recordings: Sequence[Recording]) -> dict[str, Any]:
    """Compute the scores of predicted numbers.

    Args:
        predictions: predictions for windows or recordings.
        recordings: recordings that `predictions.recording` indexes.

    Returns:
        `n` rows, `n_specimens` (None if unknown), `bias` (the mean error), the scores of `value_scores`, None where
        they are not defined, and `intervals` (see `value_intervals`).

    Example:
        >>> recordings = [Recording(np.zeros(8), 1000, specimen=name) for name in "ABC"]
        >>> predictions = ValuePredictions(np.array([1.0, 2.5, 3.0]), np.arange(1.0, 4), np.arange(3))
        >>> found = value_metrics(predictions, recordings)
        >>> round(found["mae"], 3), found["r2"], round(found["rank_correlation"], 3)
        (0.167, 0.875, 1.0)
    """
    found = {name: float(values[0]) for name, values in value_scores(predictions).items()}
    return {
        "n": len(predictions.values),
        "n_specimens": count_specimens(predictions.recording, recordings),
        "bias": float(predictions.errors.mean()),
        **{name: value if np.isfinite(value) else None for name, value in found.items()},
        "intervals": value_intervals(predictions, recordings),
    }


def value_scores(predictions: ValuePredictions, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Compute mean absolute error, RMS error, R2 and Spearman's rank correlation.

    R2 is 1 minus the mean squared error over the variance of the true numbers: 0 is no better than always stating
    their mean, and it can be negative.

    Args:
        predictions: W predictions.
        weights: R sets of weights >= 0, `[R, W]`, each with a sum > 0; None weights all rows alike, with R = 1.

    Returns:
        `mae`, `rmse`, `r2` and `rank_correlation`, each `[R]`; NaN where all numbers are equal.
    """
    given = np.ones((1, len(predictions.values))) if weights is None else weights
    shares = given / given.sum(1, keepdims=True)
    squared = shares @ predictions.errors**2
    variance = _covariance(shares, predictions.targets, predictions.targets)
    rounding = 1e-28 * (shares @ predictions.targets**2)
    ranks = _ranks(shares, predictions.values), _ranks(shares, predictions.targets)
    spread = np.sqrt(_covariance(shares, ranks[0], ranks[0]) * _covariance(shares, ranks[1], ranks[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mae": shares @ np.abs(predictions.errors),
            "rmse": np.sqrt(squared),
            "r2": np.where(variance > rounding, 1 - squared / variance, np.nan),
            "rank_correlation": np.where(spread > 1e-12, _covariance(shares, *ranks) / spread, np.nan),
        }


def _covariance(weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the weighted covariance of numbers `[W]` or `[R, W]` for each set of weights `[R, W]`."""
    mean_a, mean_b = ((weights * each).sum(1, keepdims=True) for each in (a, b))
    return (weights * (a - mean_a) * (b - mean_b)).sum(1)


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the weighted ranks `[R, W]` of numbers `[W]`; equal numbers share the mean of their ranks."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    share = np.add.reduceat(weights[:, order], starts, axis=1)
    return (share.cumsum(1) - share / 2)[:, place]


def value_intervals(
    predictions: ValuePredictions, recordings: Sequence[Recording], n_resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compute 95 % confidence intervals of the scores by bootstrap over specimens, see `bootstrap_intervals`.

    Args:
        predictions: predictions for windows or recordings.
        recordings: recordings that `predictions.recording` indexes.
        n_resamples: number of resamples.
        seed: random seed of the resampling.

    Returns:
        For each score `low`, `high` and `reason`: None if there is an interval, otherwise why there is none.
    """
    owners = [recordings[index].specimen for index in predictions.recording]
    if None in owners:
        return _without("the specimens of some recordings are unknown", None)
    specimen = np.unique(owners, return_inverse=True)[1]
    strata = np.zeros(specimen.max() + 1, dtype=int)
    reason = why_too_few(strata)
    if reason:
        return _without(reason, len(strata))
    weights = resampling_weights(strata, n_resamples, np.random.default_rng(seed))
    n_chunks = 1 + n_resamples * len(specimen) // _CHUNK
    parts = [value_scores(predictions, part[:, specimen]) for part in np.array_split(weights, n_chunks)]
    tail = tail_share(strata)
    return {name: _interval(np.concatenate([part[name] for part in parts]), tail, len(strata)) for name in SCORES}


def _interval(resampled: np.ndarray, tail: float, n_specimens: int) -> dict[str, Any]:
    if not np.isfinite(resampled).all():
        return _entry(n_specimens, "the score is not defined for some of the resampled specimens")
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return _entry(n_specimens, None) | {"low": float(low), "high": float(high)}


def _without(reason: str, n_specimens: int | None) -> dict[str, dict[str, Any]]:
    return {name: _entry(n_specimens, reason) for name in SCORES}


def _entry(n_specimens: int | None, reason: str | None) -> dict[str, Any]:
    return {"level": LEVEL, "low": None, "high": None, "reason": reason, "n_specimens": n_specimens}


def stated_mean(mean: float, predictions: ValuePredictions) -> dict[str, float]:
    """Return the errors of always stating a number, the baseline of every report.

    Args:
        mean: the number, that of the training targets.
        predictions: predictions whose targets it is compared with.

    Example:
        >>> stated_mean(2.0, ValuePredictions(np.zeros(2), np.array([1.0, 3.0]), np.arange(2)))
        {'mae': 1.0, 'rmse': 1.0}
    """
    errors = mean - predictions.targets
    return {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(np.square(errors).mean()))}
