"""Classification metrics, counted on the device and read once; they agree with scikit-learn.

Predictions are labels `[B]` or logits `[B, K]`; targets are labels `[B]` or class weights `[B, K]`
(soft targets). Whatever has a class axis counts by its argmax. Torch tensors, NumPy arrays and lists are
taken alike.

With TP, FP and FN the true positives, false positives and false negatives of a class:

    precision = TP / (TP + FP)    recall = TP / (TP + FN)    F1 = 2 TP / (2 TP + FP + FN)

and 0 where the denominator is 0. `'macro'` is the plain mean over the classes that occur in predictions or
targets, `'weighted'` the mean weighted by the number of targets of each class, `'micro'` counts all classes
together, which makes all three equal to the accuracy where each sample has one label.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Average = Literal["macro", "micro", "weighted"]


class MetricsTracker:
    """Accuracy, precision, recall and F1 over batches.

    Counts stay on the device of the predictions: an update never waits for an accelerator, `compute` reads
    once. With `num_classes` the memory is K² counts; without, the labels themselves are kept.

    Args:
        num_classes: number of classes K, with labels in 0..K-1; None takes any integers as labels.

    Raises:
        ValueError: `num_classes` is below 1.

    Example:
        >>> tracker = MetricsTracker(num_classes=3)
        >>> tracker.update([0, 1, 1], [0, 1, 2])
        >>> tracker.update(torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([2]))
        >>> {name: round(value, 3) for name, value in tracker.compute().items()}
        {'accuracy': 0.75, 'precision': 0.833, 'recall': 0.833, 'f1_score': 0.778}
    """

    def __init__(self, num_classes: int | None = None) -> None:
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes is {num_classes!r}, expected an integer >= 1, or None")
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._cells: torch.Tensor | None = None
        self._pairs: list[torch.Tensor] = []

    def update(self, predictions: Any, targets: Any) -> None:
        """Add one batch.

        Args:
            predictions: labels `[B]` or logits `[B, K]`.
            targets: labels `[B]` or class weights `[B, K]`.

        Raises:
            TypeError: one-dimensional input that is not integers.
            ValueError: lengths differ, the shape is another, or a label lies outside 0..K-1 (labels on an
                accelerator are judged in `compute`, as looking at them would wait for it).
        """
        predicted, true = _label_pair(predictions, targets)
        if self.num_classes is None:
            self._pairs.append(torch.stack((true, predicted)))
            return
        cells = _bordered_counts(predicted, true, self.num_classes)
        if cells.is_cpu:
            _strip_border(cells.numpy())
        self._cells = cells if self._cells is None else self._cells.to(cells.device).add_(cells)

    def compute(self, average: Average = "macro") -> dict[str, float]:
        """Metrics over all batches since the last reset.

        Args:
            average: how classes are put together.

        Returns:
            `accuracy`, `precision`, `recall`, `f1_score`, each in [0, 1].

        Raises:
            ValueError: nothing was added, a label lies outside 0..K-1, or `average` is unknown.
        """
        counts = _ClassCounts(self.confusion_matrix())
        precision, recall, f1_score = counts.averaged(average)
        return {"accuracy": counts.accuracy, "precision": precision, "recall": recall, "f1_score": f1_score}

    def confusion_matrix(self) -> NDArray[np.int64]:
        """Counts so far, rows true classes, columns predicted ones.

        Returns:
            `[K, K]`; without `num_classes`, K is the number of labels that occur, in rising order.

        Raises:
            ValueError: nothing was added, or a label lies outside 0..K-1.
        """
        if self._cells is not None:
            confusion = _strip_border(self._cells.cpu().numpy())
        elif self._pairs:
            labels, ranks = torch.unique(torch.cat(self._pairs, dim=1).cpu(), return_inverse=True)
            confusion = _strip_border(_bordered_counts(ranks[1], ranks[0], len(labels)).numpy())
        else:
            confusion = np.zeros((0, 0), dtype=np.int64)
        if not confusion.any():
            raise ValueError("there are no predictions to judge: expected at least one")
        return confusion


def compute_accuracy(predictions: Any, targets: Any) -> float:
    """Share of right predictions, in [0, 1].

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or class weights `[B, K]`.

    Raises:
        TypeError: one-dimensional input that is not integers.
        ValueError: lengths differ, the shape is another, or there is no sample.

    Example:
        >>> compute_accuracy([0, 1, 2, 2], [0, 1, 2, 1])
        0.75
    """
    predicted, true = _label_pair(predictions, targets)
    _reject_empty(true)
    return float((predicted == true).double().mean())


def compute_f1_score(predictions: Any, targets: Any, average: Average = "macro") -> float:
    """F1 score over the classes, in [0, 1].

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or class weights `[B, K]`.
        average: how classes are put together.

    Raises:
        TypeError: one-dimensional input that is not integers.
        ValueError: lengths differ, the shape is another, there is no sample, or `average` is unknown.

    Example:
        >>> round(compute_f1_score([0, 1, 1], [0, 1, 2]), 3)  # (1 + 2/3 + 0) / 3
        0.556
    """
    tracker = MetricsTracker()
    tracker.update(predictions, targets)
    return tracker.compute(average)["f1_score"]


def compute_confusion_matrix(predictions: Any, targets: Any, num_classes: int) -> NDArray[np.int64]:
    """Counts of (true class, predicted class).

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or class weights `[B, K]`.
        num_classes: number of classes K, >= 1.

    Returns:
        `[K, K]`, rows true classes, columns predicted ones; all zero without a sample.

    Raises:
        TypeError: one-dimensional input that is not integers.
        ValueError: lengths differ, the shape is another, or a label lies outside 0..K-1.

    Example:
        >>> compute_confusion_matrix([0, 1, 1], [0, 1, 0], num_classes=2)
        array([[1, 1],
               [0, 1]])
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes!r}, expected an integer >= 1")
    return _strip_border(_bordered_counts(*_label_pair(predictions, targets), num_classes).cpu().numpy())


def compute_top_k_accuracy(logits: Any, targets: Any, k: int = 5) -> float:
    """Share of samples whose true class is among the k largest logits, in [0, 1].

    Args:
        logits: `[B, K]`.
        targets: labels `[B]` or class weights `[B, K]`.
        k: >= 1; more than the K classes count as all.

    Raises:
        ValueError: `logits` is not `[B, K]`, lengths differ, a target lies outside 0..K-1, there is no
            sample, or `k` is below 1.

    Example:
        >>> compute_top_k_accuracy([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], [1, 2], k=2)
        0.5
    """
    scores = _tensor(logits)
    if scores.ndim != 2:
        raise ValueError(f"logits have the shape {list(scores.shape)}, expected [B, K]")
    if k < 1:
        raise ValueError(f"k is {k!r}, expected an integer >= 1")
    true = _labels(targets, "targets").to(scores.device)
    _reject_other_length(scores, true)
    _reject_empty(true)
    n_classes = scores.shape[1]
    if not 0 <= int(true.min()) <= int(true.max()) < n_classes:
        raise ValueError(f"targets reach from {int(true.min())} to {int(true.max())}, expected 0..{n_classes - 1}")
    top = scores.topk(min(k, n_classes), dim=1).indices
    return float((top == true[:, None]).any(dim=1).double().mean())


def compute_per_class_metrics(predictions: Any, targets: Any, num_classes: int) -> dict[int, dict[str, float]]:
    """Precision, recall and F1 of each class, and how many targets it has.

    Args:
        predictions: labels `[B]` or logits `[B, K]`.
        targets: labels `[B]` or class weights `[B, K]`.
        num_classes: number of classes K, >= 1.

    Returns:
        `{class: {'precision', 'recall', 'f1_score', 'support'}}` for every class 0..K-1; the first three in
        [0, 1], `support` an integer.

    Raises:
        TypeError: one-dimensional input that is not integers.
        ValueError: lengths differ, the shape is another, or a label lies outside 0..K-1.

    Example:
        >>> compute_per_class_metrics([0, 0], [0, 1], num_classes=2)[0]
        {'precision': 0.5, 'recall': 1.0, 'f1_score': 0.6666666666666666, 'support': 1}
    """
    counts = _ClassCounts(compute_confusion_matrix(predictions, targets, num_classes))
    columns = (counts.precision, counts.recall, counts.f1_score, counts.true)
    names = ("precision", "recall", "f1_score", "support")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {label: dict(zip(names, row, strict=True)) for label, row in enumerate(rows)}


class _ClassCounts:
    """Per-class metrics of a confusion matrix `[K, K]`, and their averages."""

    def __init__(self, confusion: NDArray[np.int64]) -> None:
        self.hits = confusion.diagonal()
        self.true = confusion.sum(axis=1)
        self.predicted = confusion.sum(axis=0)
        self.precision = _ratio(self.hits, self.predicted)
        self.recall = _ratio(self.hits, self.true)
        self.f1_score = _ratio(2 * self.hits, self.true + self.predicted)

    @property
    def accuracy(self) -> float:
        return float(self.hits.sum() / self.true.sum())

    def averaged(self, average: str) -> tuple[float, float, float]:
        """Precision, recall and F1 over the classes."""
        if average == "micro":
            return self.accuracy, self.accuracy, self.accuracy
        if average == "macro":
            weights = (self.true + self.predicted) > 0
        elif average == "weighted":
            weights = self.true
        else:
            raise ValueError(f"average is {average!r}, expected 'macro', 'micro' or 'weighted'")
        precision, recall, f1_score = (
            float(np.average(values, weights=weights)) for values in (self.precision, self.recall, self.f1_score)
        )
        return precision, recall, f1_score


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    return numerator / np.maximum(denominator, 1)


def _label_pair(predictions: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and true labels, int64 `[B]` each, on the device of the predictions."""
    predicted = _labels(predictions, "predictions")
    # a copy to the CPU is read at once, so it has to be complete; a device keeps the order by itself
    true = _labels(targets, "targets").to(predicted.device, non_blocking=not predicted.is_cpu)
    _reject_other_length(predicted, true)
    return predicted, true


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.tensor(np.asarray(values))


def _labels(values: Any, name: str) -> torch.Tensor:
    labels = _tensor(values)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(dim=1)
    if labels.ndim != 1:
        raise ValueError(f"{name} have the shape {list(labels.shape)}, expected [B], or [B, K] with K >= 2")
    if labels.numel() and (labels.is_floating_point() or labels.is_complex()):
        raise TypeError(f"{name} of the shape [B] are {labels.dtype}, expected integers")
    return labels.long()


def _reject_other_length(predicted: torch.Tensor, true: torch.Tensor) -> None:
    if len(predicted) != len(true):
        raise ValueError(f"there are {len(predicted)} predictions but {len(true)} targets")


def _reject_empty(labels: torch.Tensor) -> None:
    if not labels.numel():
        raise ValueError("there are no predictions to judge: expected at least one")


def _bordered_counts(predicted: torch.Tensor, true: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Confusion counts `[K+2, K+2]`, whose outer rows and columns hold the labels outside 0..K-1.

    So a wrong label neither has to be looked at here nor lands in another class's cell. `bincount` would
    wait for the device to tell the largest index; adding into cells of a known number does not.
    """
    side = num_classes + 2
    index = torch.add(predicted.clamp(-1, num_classes), true.clamp(-1, num_classes), alpha=side).add_(side + 1)
    cells = torch.zeros(side * side, dtype=torch.int64, device=index.device)
    return cells.scatter_add_(0, index, torch.ones_like(index)).view(side, side)


def _strip_border(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts `[K, K]` of bordered ones.

    Raises:
        ValueError: the border holds something.
    """
    confusion = cells[1:-1, 1:-1]
    if confusion.sum() != cells.sum():
        wrong_targets = cells.sum() - cells[1:-1].sum()
        wrong_predictions = cells.sum() - cells[:, 1:-1].sum()
        raise ValueError(
            f"{wrong_targets} targets and {wrong_predictions} predictions lie outside 0..{len(confusion) - 1} "
            f"(num_classes={len(confusion)})"
        )
    return confusion
