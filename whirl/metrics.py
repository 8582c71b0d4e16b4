"""Classification metrics, accumulated on the device; they agree with scikit-learn.

Predictions are labels `[B]` or logits `[B, K]`; targets are labels `[B]` or shares of the classes `[B, K]` that sum to
1 (soft targets). Inputs with a class axis are reduced by argmax. Torch tensors, NumPy arrays and lists are accepted.
Windows whose target is `ignore_index` have no label and are left out; by default no label is ignored.

With the true positives TP, false positives FP and false negatives FN of a class:

    precision = TP / (TP + FP)    recall = TP / (TP + FN)    F1 = 2 TP / (2 TP + FP + FN)

and 0 if the denominator is 0. `'macro'` is the unweighted mean over the classes that occur in predictions or targets,
`'weighted'` is the mean weighted by the number of targets of each class, and `'micro'` aggregates the counts of all
classes, so that all three metrics equal the accuracy.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from whirl.validation import check_count, check_ignore_index, check_name

Average = Literal["macro", "micro", "weighted"]

_SHARE_TOLERANCE = 4e-3  # rounding of bfloat16
_NO_CLASS = torch.iinfo(torch.int64).min
_EXPECTED_SHARES = (
    "expected labels [B], or shares of the classes [B, K] that sum to 1; for several labels per sample, or numbers, "
    "use sklearn.metrics"
)


def rows_are_shares(targets: torch.Tensor) -> torch.Tensor:
    """Return which rows of targets `[B, K]` are shares of the classes: none is negative, and they sum to 1.

    Example:
        >>> rows_are_shares(torch.tensor([[0.7, 0.3], [1.0, 1.0], [2.0, -1.0]]))
        tensor([ True, False, False])
    """
    shares = targets.float()
    return ((shares.sum(1) - 1).abs() <= _SHARE_TOLERANCE) & (shares >= 0).all(1)


class MetricsTracker:
    """Accumulates accuracy, precision, recall and F1 score over batches.

    Counts are kept on the device of the predictions: `update` never synchronizes with an accelerator, `compute` does
    once. With `num_classes` the memory is K² counts; without it, all labels are stored.

    Args:
        num_classes: number of classes K, with labels in 0..K-1. None accepts any integers as labels.
        ignore_index: label of windows without a label, which are left out; None if there are none.

    Raises:
        TypeError: `ignore_index` is not an integer.
        ValueError: `num_classes` is below 1.

    Example:
        >>> tracker = MetricsTracker(num_classes=3)
        >>> tracker.update([0, 1, 1], [0, 1, 2])
        >>> tracker.update(torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([2]))
        >>> {name: round(value, 3) for name, value in tracker.compute().items()}
        {'accuracy': 0.75, 'precision': 0.833, 'recall': 0.833, 'f1_score': 0.778}
    """

    def __init__(self, num_classes: int | None = None, *, ignore_index: int | None = None) -> None:
        self.num_classes = None if num_classes is None else check_count("num_classes", num_classes)
        self.ignore_index = check_ignore_index(ignore_index)
        self.reset()

    def reset(self) -> None:
        """Discard all accumulated batches."""
        self._counts: torch.Tensor | None = None
        self._label_pairs: list[torch.Tensor] = []

    def update(self, predictions: Any, targets: Any) -> None:
        """Add one batch.

        Args:
            predictions: labels `[B]` or logits `[B, K]`.
            targets: labels `[B]` or shares of the classes `[B, K]`.

        Raises:
            TypeError: one-dimensional input is not of integers.
            ValueError: the lengths differ, a shape is invalid, a label is outside 0..K-1, or targets `[B, K]` are not
                shares of the classes. Targets on an accelerator are checked in `compute` only, to avoid a
                synchronization.
        """
        predicted, true = _label_pair(predictions, targets, waits=False)
        if self.num_classes is None:
            self._label_pairs.append(torch.stack((true, predicted)))
            return
        counts = _padded_counts(predicted, true, self.num_classes, self.ignore_index)
        if counts.is_cpu:
            _remove_padding(counts.numpy())
        self._counts = counts if self._counts is None else self._counts.to(counts.device).add_(counts)

    def compute(self, average: Average = "macro") -> dict[str, float]:
        """Compute the metrics over all batches since the last reset.

        Args:
            average: how to average over classes: `'macro'`, `'micro'` or `'weighted'`.

        Returns:
            `accuracy`, `precision`, `recall`, `f1_score`, each in [0, 1].

        Raises:
            ValueError: there are no samples, a label is outside 0..K-1, or `average` is unknown.
        """
        counts = _ClassCounts(self.confusion_matrix())
        precision, recall, f1_score = counts.averaged(average)
        return {"accuracy": counts.accuracy, "precision": precision, "recall": recall, "f1_score": f1_score}

    def confusion_matrix(self) -> NDArray[np.int64]:
        """Return the confusion matrix of all batches since the last reset.

        Returns:
            `[K, K]`, with true classes as rows and predicted classes as columns. Without `num_classes`, K is the number
            of labels that occur, in ascending order.

        Raises:
            ValueError: there are no samples, or a target is not a class.
        """
        if self._counts is not None:
            confusion = _remove_padding(self._counts.cpu().numpy())
        elif self._label_pairs:
            pairs = torch.cat(self._label_pairs, dim=1).cpu()
            if (pairs[0] == _NO_CLASS).any():
                raise ValueError(f"targets [B, K] have rows that are not shares of the classes, {_EXPECTED_SHARES}")
            labels, ranks = torch.unique(pairs[:, _is_labeled(pairs[0], self.ignore_index)], return_inverse=True)
            confusion = _remove_padding(_padded_counts(ranks[1], ranks[0], len(labels)).numpy())
        else:
            confusion = np.zeros((0, 0), dtype=np.int64)
        if not confusion.any():
            raise ValueError("there are no predictions, expected at least one")
        return confusion


def compute_accuracy(predictions: Any, targets: Any, *, ignore_index: int | None = None) -> float:
    """Compute the fraction of correct predictions, in [0, 1].

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or shares of the classes `[B, K]`.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Raises:
        TypeError: one-dimensional input is not of integers.
        ValueError: the lengths differ, a shape is invalid, targets `[B, K]` do not sum to 1, or there are no samples.

    Example:
        >>> compute_accuracy([0, 1, 2, 2], [0, 1, 2, 1])
        0.75
    """
    predicted, true = _label_pair(predictions, targets)
    is_labeled = _is_labeled(true, check_ignore_index(ignore_index))
    _check_not_empty(true[is_labeled])
    return float((predicted == true)[is_labeled].double().mean())


def compute_f1_score(
    predictions: Any, targets: Any, average: Average = "macro", *, ignore_index: int | None = None
) -> float:
    """Compute the F1 score, averaged over classes, in [0, 1].

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or shares of the classes `[B, K]`.
        average: how to average over classes: `'macro'`, `'micro'` or `'weighted'`.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Raises:
        TypeError: one-dimensional input is not of integers.
        ValueError: the lengths differ, a shape is invalid, targets `[B, K]` do not sum to 1, there are no samples, or
            `average` is unknown.

    Example:
        >>> round(compute_f1_score([0, 1, 1], [0, 1, 2]), 3)  # (1 + 2/3 + 0) / 3
        0.556
    """
    tracker = MetricsTracker(ignore_index=ignore_index)
    tracker.update(predictions, targets)
    return tracker.compute(average)["f1_score"]


def compute_confusion_matrix(
    predictions: Any, targets: Any, num_classes: int, *, ignore_index: int | None = None
) -> NDArray[np.int64]:
    """Compute the confusion matrix.

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or shares of the classes `[B, K]`.
        num_classes: number of classes K, >= 1.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Returns:
        `[K, K]`, with true classes as rows and predicted classes as columns; all zero without samples.

    Raises:
        TypeError: one-dimensional input is not of integers.
        ValueError: the lengths differ, a shape is invalid, targets `[B, K]` do not sum to 1, or a label is outside
            0..K-1.

    Example:
        >>> compute_confusion_matrix([0, 1, 1], [0, 1, 0], num_classes=2)
        array([[1, 1],
               [0, 1]])
    """
    num_classes = check_count("num_classes", num_classes)
    predicted, true = _label_pair(predictions, targets)
    counts = _padded_counts(predicted, true, num_classes, check_ignore_index(ignore_index))
    return _remove_padding(counts.cpu().numpy())


def compute_top_k_accuracy(logits: Any, targets: Any, k: int = 5, *, ignore_index: int | None = None) -> float:
    """Compute the fraction of samples whose true class is among the k largest logits, in [0, 1].

    Args:
        logits: `[B, K]`.
        targets: labels `[B]` or shares of the classes `[B, K]`.
        k: number of logits to consider, >= 1; limited to the number of classes.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Raises:
        ValueError: `logits` is not `[B, K]`, the lengths differ, a target is outside 0..K-1, targets `[B, K]` do not
            sum to 1, there are no samples, or `k` is not an integer >= 1.

    Example:
        >>> compute_top_k_accuracy([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], [1, 2], k=2)
        0.5
    """
    scores = _tensor(logits)
    if scores.ndim != 2:
        raise ValueError(f"logits have shape {list(scores.shape)}, expected [B, K]")
    k = check_count("k", k)
    true = _true_labels(targets).to(scores.device)
    _check_same_length(scores, true)
    is_labeled = _is_labeled(true, check_ignore_index(ignore_index))
    scores, true = scores[is_labeled], true[is_labeled]
    _check_not_empty(true)
    n_classes = scores.shape[1]
    if not 0 <= int(true.min()) <= int(true.max()) < n_classes:
        raise ValueError(f"targets range from {int(true.min())} to {int(true.max())}, expected 0..{n_classes - 1}")
    top = scores.topk(min(k, n_classes), dim=1).indices
    return float((top == true[:, None]).any(dim=1).double().mean())


def compute_per_class_metrics(
    predictions: Any, targets: Any, num_classes: int, *, ignore_index: int | None = None
) -> dict[int, dict[str, float]]:
    """Compute precision, recall, F1 score and the number of targets of each class.

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or shares of the classes `[B, K]`.
        num_classes: number of classes K, >= 1.
        ignore_index: label of windows without a label, which are excluded; None if there are none.

    Returns:
        `{class: {'precision', 'recall', 'f1_score', 'support'}}` for every class 0..K-1; the first three are in
        [0, 1], `support` is an integer.

    Raises:
        TypeError: one-dimensional input is not of integers.
        ValueError: the lengths differ, a shape is invalid, targets `[B, K]` do not sum to 1, or a label is outside
            0..K-1.

    Example:
        >>> compute_per_class_metrics([0, 0], [0, 1], num_classes=2)[0]
        {'precision': 0.5, 'recall': 1.0, 'f1_score': 0.6666666666666666, 'support': 1}
    """
    counts = _ClassCounts(compute_confusion_matrix(predictions, targets, num_classes, ignore_index=ignore_index))
    columns = (counts.precision, counts.recall, counts.f1_score, counts.true)
    names = ("precision", "recall", "f1_score", "support")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {label: dict(zip(names, row, strict=True)) for label, row in enumerate(rows)}


class _ClassCounts:
    """Metrics per class of a confusion matrix `[K, K]`, and their averages."""

    def __init__(self, confusion: NDArray[np.int64]) -> None:
        self.true_positives = confusion.diagonal()
        self.true = confusion.sum(axis=1)
        self.predicted = confusion.sum(axis=0)
        self.precision = _ratio(self.true_positives, self.predicted)
        self.recall = _ratio(self.true_positives, self.true)
        self.f1_score = _ratio(2 * self.true_positives, self.true + self.predicted)

    @property
    def accuracy(self) -> float:
        return float(self.true_positives.sum() / self.true.sum())

    def averaged(self, average: str) -> tuple[float, float, float]:
        """Return precision, recall and F1 score, averaged over classes."""
        check_name("average", average, ("macro", "micro", "weighted"))
        if average == "micro":
            return self.accuracy, self.accuracy, self.accuracy
        weights = self.true if average == "weighted" else (self.true + self.predicted) > 0
        precision, recall, f1_score = (
            float(np.average(values, weights=weights)) for values in (self.precision, self.recall, self.f1_score)
        )
        return precision, recall, f1_score


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    return numerator / np.maximum(denominator, 1)


def _label_pair(predictions: Any, targets: Any, *, waits: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predicted and true labels, int64 `[B]` each, on the device of the predictions."""
    predicted = _labels(predictions, "predictions")
    # A copy to the CPU must be complete before it is read; operations on an accelerator are ordered.
    true = _true_labels(targets, waits=waits).to(predicted.device, non_blocking=not predicted.is_cpu)
    _check_same_length(predicted, true)
    return predicted, true


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.tensor(np.asarray(values))


def _labels(values: Any, name: str) -> torch.Tensor:
    labels = _tensor(values)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(dim=1)
    if labels.ndim != 1:
        raise ValueError(f"{name} have shape {list(labels.shape)}, expected [B], or [B, K] with K >= 2")
    if labels.numel() and (labels.is_floating_point() or labels.is_complex()):
        raise TypeError(f"{name} of shape [B] have dtype {labels.dtype}, expected integers")
    return labels.long()


def _true_labels(values: Any, *, waits: bool = True) -> torch.Tensor:
    """Return the classes of targets; the largest share of a row that is not one of shares is not its class.

    Without `waits`, such rows on an accelerator become `_NO_CLASS`.
    """
    targets = _tensor(values)
    if targets.ndim != 2 or targets.shape[1] < 2:
        return _labels(targets, "targets")
    are_shares = rows_are_shares(targets)
    largest = (targets.byte() if targets.dtype == torch.bool else targets).argmax(1)
    if not waits and not targets.is_cpu:
        return largest.where(are_shares, _NO_CLASS)
    if not are_shares.all():
        row = targets[~are_shares][0]
        raise ValueError(
            f"targets of shape {list(targets.shape)} and dtype {targets.dtype} have the row {_listed(row)}, "
            f"{_EXPECTED_SHARES}"
        )
    return largest


def _listed(row: torch.Tensor) -> str:
    first = ", ".join(f"{value:.4g}" for value in row[:4].tolist())
    return f"[{first}{', ...' if len(row) > 4 else ''}]"


def _is_labeled(true: torch.Tensor, ignore_index: int | None) -> torch.Tensor:
    """Return which windows have a label, `[B]`."""
    return torch.ones_like(true, dtype=torch.bool) if ignore_index is None else true != ignore_index


def _check_same_length(predicted: torch.Tensor, true: torch.Tensor) -> None:
    if len(predicted) != len(true):
        raise ValueError(f"there are {len(predicted)} predictions, but {len(true)} targets")


def _check_not_empty(labels: torch.Tensor) -> None:
    if not labels.numel():
        raise ValueError("there are no predictions, expected at least one")


def _padded_counts(
    predicted: torch.Tensor, true: torch.Tensor, num_classes: int, ignore_index: int | None = None
) -> torch.Tensor:
    """Compute confusion counts `[K+2, K+2]`, whose outer rows and columns count labels outside 0..K-1.

    Out-of-range labels are thus detected without reading them here, and not counted for another class. In contrast to
    `bincount`, which needs the largest index, `scatter_add_` does not force a synchronization.
    """
    size = num_classes + 2
    index = torch.add(predicted.clamp(-1, num_classes), true.clamp(-1, num_classes), alpha=size).add_(size + 1)
    counts = torch.zeros(size * size, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, _is_labeled(true, ignore_index).long()).view(size, size)


def _remove_padding(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the inner counts `[K, K]`.

    Raises:
        ValueError: labels outside 0..K-1 were counted.
    """
    confusion = counts[1:-1, 1:-1]
    if confusion.sum() != counts.sum():
        wrong_targets = counts.sum() - counts[1:-1].sum()
        wrong_predictions = counts.sum() - counts[:, 1:-1].sum()
        raise ValueError(
            f"{wrong_targets} targets and {wrong_predictions} predictions are outside 0..{len(confusion) - 1} "
            f"(num_classes={len(confusion)})"
        )
    return confusion
