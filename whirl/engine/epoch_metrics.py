"""Metrics of an epoch by name, from functions or from torchmetrics objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from whirl._precision import at_least_float32
from whirl.engine.distributed import gather, world_size
from whirl.engine.objective import Objective, without_unlabeled
from whirl.metrics import MetricsTracker, compute_top_k_accuracy
from whirl.validation import unknown_name

Metric = str | Callable[..., Any]
Metrics = Sequence[Metric] | Mapping[str, Metric]


class Predictions(NamedTuple):
    """The predictions of an epoch.

    Attributes:
        scores: outputs of the network in at least float32, `[N, K]` or `[N]`.
        predicted: predicted labels, int64: `[N]`, or 0 and 1 `[N, K]` for several labels.
        labels: true labels in the same form; numbers for a regression.
        task: the task, see `Objective`.
    """

    scores: Tensor
    predicted: Tensor
    labels: Tensor
    task: str


class EpochMetrics:
    """Computes metrics at the end of an epoch from all its predictions, which stay on the device until then.

    A step only keeps a reference to its outputs, so that metrics cost nothing within an epoch; the memory is that of
    the logits. All metrics are exact, also those that are no means over batches, and after a resume in mid-epoch.

    Args:
        metrics: names (see `metric_names`), functions `(outputs, targets) -> number` and objects with `update`,
            `compute` and `reset`, as those of torchmetrics; a mapping gives them names.
        objective: the criterion and its task.

    Raises:
        ValueError: a name is unknown.
        TypeError: a metric is neither a name nor callable.

    Example:
        >>> metrics = EpochMetrics(["f1_macro"], Objective())
        >>> metrics.add(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> metrics.compute()
        {'f1_macro': 0.5555555555555555}
    """

    def __init__(self, metrics: Metrics, objective: Objective) -> None:
        self.metrics = _by_name(metrics)
        self.objective = objective
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch; outputs beyond the last target are ignored."""
        if not self._outputs:
            self._check_task()
        self._outputs.append(without_unlabeled(outputs, targets))
        self._targets.append(targets)

    def compute(self) -> dict[str, float]:
        """Compute the metrics over all batches, in all processes; empty if there was no batch."""
        if not self._outputs:
            return {}
        outputs, targets = _gathered(self._outputs), _gathered(self._targets)
        predictions = None
        values = {}
        for name, metric in self.metrics.items():
            if isinstance(metric, str):
                predictions = predictions or self._predictions(outputs, targets)
                values[name] = float(_function(metric)(predictions))
            elif hasattr(metric, "compute"):
                values[name] = self._of_object(metric)
            else:
                values[name] = float(metric(outputs, targets))
        return values

    def state_dict(self) -> dict[str, Tensor]:
        """Return the predictions so far."""
        return {"outputs": torch.cat(self._outputs), "targets": torch.cat(self._targets)} if self._outputs else {}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore what `state_dict` returned, on `device`."""
        self._outputs = [state["outputs"].to(device)] if state else []
        self._targets = [state["targets"].to(device)] if state else []

    def _check_task(self) -> None:
        task = self.objective.task
        for name in filter(lambda metric: isinstance(metric, str), self.metrics.values()):
            tasks = _tasks_of(str(name))
            if task not in tasks:
                raise ValueError(
                    f"metric {name!r} is for the task {' or '.join(tasks)}, but the task is {task or 'not known'}: "
                    "choose another metric, or set task="
                )

    def _predictions(self, outputs: Tensor, targets: Tensor) -> Predictions:
        scores, task = at_least_float32(outputs), str(self.objective.task)
        if task == "multiclass":
            labels = targets.argmax(1) if targets.is_floating_point() else targets
            counted = self.objective.counted(labels)
            if counted is not None:
                scores, labels = scores.movedim(1, -1)[counted], labels[counted]
            return Predictions(scores, scores.argmax(1), labels, task)
        if task == "regression":
            return Predictions(scores, scores, targets, task)
        labels, predicted = (targets > 0.5).long(), (scores > self.objective.threshold).long()
        if task == "binary":
            scores, labels, predicted = scores.flatten(), labels.flatten(), predicted.flatten()
        return Predictions(scores, predicted, labels, task)

    def _of_object(self, metric: Any) -> float:
        """Return the value of an object of torchmetrics, which exchanges its own state between processes."""
        if hasattr(metric, "to"):
            metric.to(self._outputs[0].device)
        metric.reset()
        for outputs, targets in zip(self._outputs, self._targets, strict=True):
            metric.update(outputs, targets)
        return float(metric.compute())


def metric_names() -> list[str]:
    """Return the names of metrics; `top_K_accuracy` stands for any K."""
    return [*_METRICS, "top_K_accuracy"]


def _by_name(metrics: Metrics) -> dict[str, Metric]:
    if isinstance(metrics, str):
        raise TypeError(f"metrics is {metrics!r}, expected a list, e.g. [{metrics!r}]")
    named = dict(metrics) if isinstance(metrics, Mapping) else {_name_of(metric): metric for metric in metrics}
    for metric in named.values():
        if isinstance(metric, str):
            _tasks_of(metric)
        elif not callable(metric):
            raise TypeError(f"metric is {metric!r}, expected a name, a function or a torchmetrics object")
    return named


def _name_of(metric: Metric) -> str:
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "__name__", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
    if name == "<lambda>":
        raise ValueError("a metric is a lambda, which has no name: give metrics={'name': function}")
    return name


def _gathered(parts: list[Tensor]) -> Tensor:
    """Return the rows of all processes."""
    own = torch.cat(parts)
    return torch.cat(gather(own.cpu())) if world_size() > 1 else own


# -- metrics by name -------------------------------------------------------------------------------------------

_CLASSES, _LABELS = ("multiclass", "binary"), ("multiclass", "binary", "multilabel")


def _averaged(metric: str, average: str) -> Callable[[Predictions], float]:
    """Return the mean over classes, or over the labels of a multi-label task."""

    def compute(predictions: Predictions) -> float:
        if predictions.task != "multilabel":
            return _tracker(predictions.predicted, predictions.labels).compute(average)[metric]  # type: ignore[arg-type]
        predicted, labels = predictions.predicted, predictions.labels
        if average == "micro":
            return _of_positive(metric, predicted.flatten(), labels.flatten())
        values = [_of_positive(metric, p, t) for p, t in zip(predicted.T, labels.T, strict=True)]
        weights = labels.sum(0).tolist() if average == "weighted" else [1] * len(values)
        return sum(w * v for w, v in zip(weights, values, strict=True)) / max(sum(weights), 1)

    return compute


def _of_positive(metric: str, predicted: Tensor, labels: Tensor) -> float:
    """Return precision, recall or F1 score of label 1."""
    hits = float((predicted & labels).sum())
    counts = {"precision": predicted.sum(), "recall": labels.sum(), "f1_score": (predicted.sum() + labels.sum()) / 2}
    return hits / max(float(counts[metric]), 1e-300) if hits else 0.0


def _tracker(predicted: Tensor, labels: Tensor) -> MetricsTracker:
    tracker = MetricsTracker()
    tracker.update(predicted, labels)
    return tracker


def _balanced_accuracy(predictions: Predictions) -> float:
    """Return the mean recall of the classes that occur among the labels."""
    confusion = _tracker(predictions.predicted, predictions.labels).confusion_matrix()
    n_true = confusion.sum(1)
    return float((confusion.diagonal()[n_true > 0] / n_true[n_true > 0]).mean())


def _matthews(predictions: Predictions) -> float:
    """Return the Matthews correlation coefficient for several classes (Gorodkin 2004); 0 if it is not defined."""
    confusion = _tracker(predictions.predicted, predictions.labels).confusion_matrix().astype(float)
    n_true, n_predicted, n = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = confusion.trace() * n - n_true @ n_predicted
    scale = (n**2 - n_predicted @ n_predicted) * (n**2 - n_true @ n_true)
    return float(covariance / scale**0.5) if scale > 0 else 0.0


def _auroc(predictions: Predictions) -> float:
    """Return the area under the ROC curve; with several classes or labels the mean of one against the rest."""
    scores, labels = predictions.scores, predictions.labels
    if predictions.task == "binary":
        return area_under_roc(scores, labels == 1)
    if predictions.task == "multiclass":
        scores, labels = scores.softmax(1), torch.nn.functional.one_hot(labels, scores.shape[1])
    areas = [area_under_roc(s, t == 1) for s, t in zip(scores.T, labels.T, strict=True) if 0 < int(t.sum()) < len(t)]
    return sum(areas) / len(areas) if areas else float("nan")


def area_under_roc(scores: Tensor, is_positive: Tensor) -> float:
    """Return the fraction of pairs in which the positive sample has the higher score; ties count half.

    Args:
        scores: score of each sample, `[N]`.
        is_positive: whether each sample is positive, bool `[N]`.

    Returns:
        0 to 1; NaN if all samples are of one kind.

    Example:
        >>> area_under_roc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([False, False, True, True]))
        0.875
    """
    n_positive = int(is_positive.sum())
    n_pairs = n_positive * (len(scores) - n_positive)
    if n_pairs == 0:
        return float("nan")
    _, place, counts = scores.double().unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts - 1) / 2
    return float(ranks[place[is_positive]].sum() - n_positive * (n_positive + 1) / 2) / n_pairs


def _positive_or_macro(metric: str) -> Callable[[Predictions], float]:
    def compute(predictions: Predictions) -> float:
        if predictions.task == "binary":
            return _of_positive(metric, predictions.predicted, predictions.labels)
        return _averaged(metric, "macro")(predictions)

    return compute


def _r2(predictions: Predictions) -> float:
    labels = predictions.labels
    residual = (predictions.scores - labels).square().sum()
    return float(1 - residual / (labels - labels.mean(0)).square().sum())


_METRICS: dict[str, tuple[tuple[str, ...], Callable[[Predictions], float]]] = {
    **{
        f"{short}_{average}": (_LABELS, _averaged(metric, average))
        for short, metric in (("f1", "f1_score"), ("precision", "precision"), ("recall", "recall"))
        for average in ("macro", "micro", "weighted")
    },
    "f1": (_LABELS, _positive_or_macro("f1_score")),
    "precision": (_LABELS, _positive_or_macro("precision")),
    "recall": (_LABELS, _positive_or_macro("recall")),
    "balanced_accuracy": (_CLASSES, _balanced_accuracy),
    "mcc": (_CLASSES, _matthews),
    "auroc": (_LABELS, _auroc),
    "mae": (("regression",), lambda p: float((p.scores - p.labels).abs().mean())),
    "rmse": (("regression",), lambda p: float((p.scores - p.labels).square().mean().sqrt())),
    "r2": (("regression",), _r2),
}


def _tasks_of(name: str) -> tuple[str, ...]:
    if re.fullmatch(r"top_\d+_accuracy", name):
        return ("multiclass",)
    if name not in _METRICS:
        raise ValueError(unknown_name("metric", name, metric_names()))
    return _METRICS[name][0]


def _function(name: str) -> Callable[[Predictions], float]:
    if name in _METRICS:
        return _METRICS[name][1]
    k = int(name.split("_")[1])
    return lambda predictions: compute_top_k_accuracy(predictions.scores, predictions.labels, k)
