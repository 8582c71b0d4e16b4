"""What a criterion and its targets mean: the task, which predictions are correct, and what a mean loss divides by."""

from __future__ import annotations

import copy
import functools
import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl.metrics import rows_are_shares
from whirl.validation import check_name

logger = logging.getLogger(__name__)

SAMPLE_WEIGHT = "sample_weight"
"""Name of the metadata with the factors of the samples' losses."""

TASKS = ("auto", "multiclass", "binary", "multilabel", "regression")

_PROBABILITIES = (nn.BCELoss, F.binary_cross_entropy)
_OF_LABELS = (*_PROBABILITIES, nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, nn.MultiLabelSoftMarginLoss)
_CROSS_ENTROPY = (nn.CrossEntropyLoss, nn.NLLLoss, F.cross_entropy, F.nll_loss)
_OF_LOG_SHARES = (nn.KLDivLoss, F.kl_div)  # whose targets may be logarithms
_OF_CLASSES = (*_CROSS_ENTROPY, nn.MultiMarginLoss, F.multi_margin_loss, *_OF_LOG_SHARES)
_OF_NUMBERS = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.GaussianNLLLoss, nn.PoissonNLLLoss),
    *(F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.gaussian_nll_loss, F.poisson_nll_loss),
)
_DEFAULT_CRITERIA = {"binary": nn.BCEWithLogitsLoss, "multilabel": nn.BCEWithLogitsLoss, "regression": nn.MSELoss}


class Score(NamedTuple):
    """The correct predictions of a batch.

    Attributes:
        n_correct: 0-dimensional, on the device; None if nothing is classified.
        n_counted: labels that count, 0-dimensional on the device; None if these are all samples.
    """

    n_correct: Tensor | None = None
    n_counted: Tensor | None = None


class Objective:
    """A criterion and the task that it trains for.

    The task is stated, or found from the criterion, or for an unknown criterion from the first batch:

    - `'multiclass'`: logits `[B, K]`, labels `[B]` or class weights `[B, K]`; also `[B, K, ...]` and labels `[B, ...]`.
      Accuracy is the fraction of labels, those with the criterion's `ignore_index` excepted, with the largest logit.
    - `'binary'`: logits `[B]` or `[B, 1]`, targets 0 or 1. A positive logit predicts 1 (with `BCELoss`, which takes
      probabilities, one above 0.5).
    - `'multilabel'`: logits `[B, K]`, targets 0 or 1 `[B, K]`. Accuracy is the fraction of samples whose K labels are
      all correct, as in scikit-learn.
    - `'regression'`: there is no accuracy.

    An unknown criterion is taken for multi-class only if the targets are integers that fit the logits, or distributions
    over the classes. Otherwise no accuracy is reported.

    A criterion of your own can have an attribute `task`; an attribute `ignore_index`, the label of samples that do not
    count; an attribute `ignores_nan = True` if binary labels that are NaN do not count; and a method
    `denominator(targets)` that returns what its mean divides by (see `denominator`).

    Args:
        criterion: mean loss of `(outputs, targets)`; None is cross entropy, or what fits the stated task.
        task: one of `TASKS`.

    Attributes:
        criterion: the criterion.
        threshold: output above which a binary label is predicted.
        task: the task; `'auto'` until it is known, None if it cannot be known.

    Raises:
        ValueError: `task` is unknown, or the criterion is for another task.

    Example:
        >>> objective = Objective(nn.BCEWithLogitsLoss())
        >>> objective.score(torch.tensor([[2.0], [-1.0]]), torch.tensor([[1.0], [1.0]])).n_correct
        tensor(1)
        >>> objective.task
        'binary'
    """

    def __init__(self, criterion: Any = None, task: str = "auto") -> None:
        check_name("task", task, TASKS)
        self.criterion = _DEFAULT_CRITERIA.get(task, nn.CrossEntropyLoss)() if criterion is None else criterion
        self._kind, self._settings = _kind_and_settings(self.criterion)
        self._denominator = getattr(self.criterion, "denominator", None)
        if self._kind in _CROSS_ENTROPY and task not in ("auto", "multiclass"):
            raise ValueError(
                f"task is {task!r}, but {_name_of(self.criterion)} is for the task 'multiclass': choose "
                f"{_DEFAULT_CRITERIA[task].__name__}, or leave out task"
            )
        self.threshold = 0.5 if self._kind in _PROBABILITIES else 0.0
        default = -100 if self._kind in _CROSS_ENTROPY else None
        self._ignored = self._settings("ignore_index", default)
        self._seen: tuple[Tensor | None, Tensor | None] = None, None  # the last labels, and which of them count
        self.task: str | None = task if task != "auto" else _stated_task(self.criterion, self._kind)
        self._is_checked = self.task != "multiclass" or self._kind in _OF_LOG_SHARES

    @property
    def takes_float_targets(self) -> bool:
        """Whether targets `[B]` may be floating-point numbers."""
        return self.task != "multiclass"

    def fit_targets(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return targets in the form that the criterion needs: numbers in the shape of the outputs, unless classes.

        Targets `[B]` for outputs `[B, 1]` would otherwise be refused, or compared with every output of the batch.
        """
        if self.task == "auto":
            self.task = _guess_task(self._kind, outputs, targets)
        if not self._is_checked:
            self._check_classes(outputs, targets)
        if self.task in (None, "multiclass"):
            return targets
        if targets.shape != outputs.shape and targets.numel() == outputs.numel():
            targets = targets.reshape(outputs.shape)
        return targets if targets.is_floating_point() else targets.to(torch.promote_types(outputs.dtype, torch.float32))

    def _check_classes(self, outputs: Tensor, targets: Tensor) -> None:
        """Validate the first batch: a wrong label has no class, and the largest of several labels is not the class."""
        self._is_checked = True
        if outputs.ndim < 2 or not targets.numel():
            return
        if not targets.is_floating_point():
            _check_label_shape(without_unlabeled(outputs, targets), targets)
            if self._kind in _CROSS_ENTROPY:
                self._check_labels(targets, outputs.shape[1])
        elif targets.ndim == 2 and not rows_are_shares(targets).all():
            self.task = None
            logger.warning(
                "targets of %s have rows that do not sum to 1, so no accuracy is reported: for several labels per "
                "sample choose BCEWithLogitsLoss", _name_of(self.criterion),
            )  # fmt: skip

    def _check_labels(self, labels: Tensor, n_classes: int) -> None:
        counted = labels if self._ignored is None else labels[labels != self._ignored]
        wrong = counted[(counted < 0) | (counted >= n_classes)]
        if wrong.numel():
            raise ValueError(
                f"label {int(wrong[0])} is outside the {n_classes} classes of the network's outputs, expected 0 to "
                f"{n_classes - 1}: number the classes from 0, or give the network more outputs"
            )

    def score(self, outputs: Tensor, targets: Tensor) -> Score:
        """Count the correct predictions of a batch; outputs beyond the last target are ignored."""
        if self.task == "auto":
            self.task = _guess_task(self._kind, outputs, targets)
        outputs = without_unlabeled(outputs, targets)
        if self.task == "multiclass":
            labels = targets.argmax(1) if targets.is_floating_point() else targets
            return self._without_ignored(outputs.argmax(1) == labels, labels)
        if self.task not in ("binary", "multilabel"):
            return Score()
        outputs, targets = outputs.reshape(len(targets), -1), targets.reshape(len(targets), -1)
        correct = (outputs > self.threshold) == (targets > 0.5)
        if not getattr(self.criterion, "ignores_nan", False):
            return Score(correct.all(1).sum())
        known = ~targets.isnan()
        counted = known.any(1)
        return Score(((correct | ~known).all(1) & counted).sum(), counted.sum())

    def _without_ignored(self, correct: Tensor, labels: Tensor) -> Score:
        counted = self.counted(labels)
        if counted is not None:
            return Score((correct & counted).sum(), counted.sum())
        n_labels = None if labels.ndim == 1 else torch.tensor(labels.numel(), device=labels.device)
        return Score(correct.sum(), n_labels)

    def loss(self, outputs: Any, targets: Tensor, sample_weight: Tensor | None = None) -> Any:
        """Return the mean loss; with sample weights `[B]` the mean of the samples' losses times their weights.

        The mean divides by the same as without sample weights, so weights with a mean of 1 keep the size of gradients.
        A weight that is NaN counts as 1.

        Raises:
            TypeError: there are sample weights, but the criterion has no form without reduction.
            ValueError: the weights have another shape than `[B]`.
        """
        if sample_weight is None:
            return self.criterion(outputs, targets)
        losses = self._unreduced(outputs, targets)
        if sample_weight.shape != losses.shape[:1]:
            raise ValueError(f"sample_weight has the shape {list(sample_weight.shape)}, expected [{len(losses)}]")
        weights, divisor = sample_weight.to(losses.dtype).nan_to_num(nan=1.0), self.denominator(targets)
        total = (losses.reshape(len(losses), -1).sum(1) * weights).sum()
        return total / (losses.numel() if divisor is None else divisor)

    def _unreduced(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the losses of the samples."""
        if isinstance(self.criterion, nn.Module) and hasattr(self.criterion, "reduction"):
            criterion: Any = copy.copy(self.criterion)  # shares parameters and buffers
            criterion.reduction = "none"
            return criterion(outputs, targets)
        if self._kind is not None:
            return self.criterion(outputs, targets, reduction="none")
        raise TypeError(
            f"sample_weight requires a criterion with an attribute reduction, as those of torch, but "
            f"{_name_of(self.criterion)} has none"
        )

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean loss divides by, 0-dimensional without a gradient; None if it is the number of samples.

        Known are torch's cross entropies, with class weights and ignored labels, and criteria that have a method
        `denominator(targets)`, as the losses of whirl have.
        """
        if self._denominator is not None:
            return self._denominator(targets)
        if self._kind not in _CROSS_ENTROPY or targets.is_floating_point():
            return None
        weight, counted = self._settings("weight", None), self.counted(targets)
        if weight is None:
            return None if counted is None else counted.sum()
        if counted is None:
            return weight[targets].sum()
        return (weight[targets.where(counted, 0)] * counted).sum()

    def counted(self, labels: Tensor) -> Tensor | None:
        """Return which labels are not ignored, a mask; None if all of them count.

        On a CPU it costs one reading of the labels; on an accelerator that would wait, so the mask is always returned.
        """
        if self._ignored is None:
            return None
        if self._seen[0] is not labels:
            all_count = labels.is_cpu and self._ignored < 0 and labels.numel() > 0 and int(labels.min()) >= 0
            self._seen = labels, None if all_count else labels != self._ignored
        return self._seen[1]

    @property
    def has_unknown_denominator(self) -> bool:
        """Whether the criterion seems to weight or ignore samples, but does not tell what its mean divides by."""
        if self._denominator is not None or self._kind is not None:
            return False
        weights = [getattr(self.criterion, name, None) for name in ("weight", "class_weights", "alpha")]
        ignored = getattr(self.criterion, "ignore_index", None)
        return ignored is not None or any(isinstance(weight, Tensor) for weight in weights)


def without_unlabeled(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the detached outputs of the first samples, those that have a target."""
    return outputs.detach() if len(outputs) == len(targets) else outputs.detach()[: len(targets)]


def _check_label_shape(outputs: Tensor, targets: Tensor) -> None:
    expected = outputs.shape[:1] + outputs.shape[2:]
    if targets.shape != expected:
        raise ValueError(
            f"targets have shape {list(targets.shape)} and dtype {targets.dtype}, expected labels {list(expected)}, or "
            f"shares of the classes {list(outputs.shape)} that sum to 1; for several labels per sample choose "
            "task='multilabel'"
        )


def _name_of(criterion: Any) -> str:
    criterion = criterion.func if isinstance(criterion, functools.partial) else criterion
    return getattr(criterion, "__name__", type(criterion).__name__)


def _kind_and_settings(criterion: Any) -> tuple[Any, Any]:
    """Return the class or function of torch that a criterion is, or None, and a function that reads its settings."""
    if isinstance(criterion, functools.partial):
        return _known(criterion.func), lambda name, default: criterion.keywords.get(name, default)
    if isinstance(criterion, nn.Module):
        found = next((k for k in _ALL if isinstance(k, type) and type(criterion).forward is k.forward), None)
        return found, lambda name, default: getattr(criterion, name, default)
    return _known(criterion), lambda name, default: default


_ALL = (*_OF_LABELS, *_OF_CLASSES, *_OF_NUMBERS)


def _known(function: Any) -> Any:
    return next((kind for kind in _ALL if kind is function), None)


def _stated_task(criterion: Any, kind: Any) -> str | None:
    stated = getattr(criterion, "task", None)
    if stated is not None:
        return stated
    return "multiclass" if kind in _OF_CLASSES else "regression" if kind in _OF_NUMBERS else "auto"


def _guess_task(kind: Any, outputs: Tensor, targets: Tensor) -> str | None:
    if kind is not None:  # a loss of binary labels
        return "binary" if outputs.ndim == 1 or outputs[0].numel() == 1 else "multilabel"
    outputs = without_unlabeled(outputs, targets)
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        return None
    if not targets.is_floating_point():
        return "multiclass" if targets.shape == outputs.shape[:1] + outputs.shape[2:] else None
    fits = targets.ndim == 2 and targets.shape[1] <= outputs.shape[1]
    return "multiclass" if fits and rows_are_shares(targets).all() else None
