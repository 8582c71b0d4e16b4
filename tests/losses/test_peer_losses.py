"""Losses beside those of other libraries.

Expected values are computed by the library where it is installed (torch, scikit-learn, PyTorch Metric Learning), and
otherwise by its documented formula, written out sample by sample with Python's `math`.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import SupConLoss as MetricLearningLoss
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from whirl.losses import (
    class_priors,
    compute_class_weights,
    effective_number_weights,
    focal_loss,
    logit_adjusted_cross_entropy,
    multilabel_loss,
    ranked_probability_loss,
    smoothed_cross_entropy,
    supervised_contrastive_loss,
)
from whirl.training.knowledge_distillation import DistillationLoss

GENERATOR = torch.Generator().manual_seed(19)
LOGITS = 3 * torch.randn(7, 4, generator=GENERATOR, dtype=torch.float64)
TEACHER = 3 * torch.randn(7, 4, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 1, 2, 0, 3])
SOFT = torch.rand(7, 4, generator=GENERATOR, dtype=torch.float64).softmax(1)
WEIGHT = torch.tensor([1.0, 0.5, 2.0, 4.0], dtype=torch.float64)
SOME_UNLABELED = LABELS.masked_fill(torch.arange(7) % 3 == 1, -100)
PRESENT = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64).repeat(3, 1)[:7]

ROWS, TARGETS = LOGITS.tolist(), LABELS.tolist()
PAIRS = list(zip(LOGITS.flatten().tolist(), PRESENT.flatten().tolist(), strict=True))


def log_softmax(row):
    total = math.log(sum(math.exp(logit) for logit in row))
    return [logit - total for logit in row]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# -- torch.nn.functional.cross_entropy: every combination of its arguments -----------------------------------------

CROSS_ENTROPIES = {
    "labels": (LABELS, {}),
    "class weights": (LABELS, {"weight": WEIGHT}),
    "label smoothing": (LABELS, {"label_smoothing": 0.1}),
    "class weights and label smoothing": (LABELS, {"weight": WEIGHT, "label_smoothing": 0.3}),
    "ignore_index": (SOME_UNLABELED, {"ignore_index": -100}),
    "ignore_index of a class": (LABELS, {"ignore_index": 3}),
    "ignore_index, weights and smoothing": (
        SOME_UNLABELED, {"ignore_index": -100, "weight": WEIGHT, "label_smoothing": 0.1}),
    "probabilities": (SOFT, {}),
    "probabilities, weights and smoothing": (SOFT, {"weight": WEIGHT, "label_smoothing": 0.2}),
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("targets", "options"), CROSS_ENTROPIES.values(), ids=CROSS_ENTROPIES)
def test_cross_entropy_of_torch(targets, options, reduction):
    options = {"label_smoothing": 0.0, **options}
    ours = smoothed_cross_entropy(
        LOGITS, targets, options["label_smoothing"], options.get("weight"), reduction,
        ignore_index=options.get("ignore_index"),
    )  # fmt: skip
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, targets, reduction=reduction, **options))


# -- torch.nn.functional.binary_cross_entropy_with_logits ----------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("pos_weight", [None, WEIGHT], ids=["plain", "pos_weight"])
def test_binary_cross_entropy_of_torch(pos_weight, reduction):
    ours = multilabel_loss(LOGITS, PRESENT, pos_weight=pos_weight, reduction=reduction)
    theirs = F.binary_cross_entropy_with_logits(LOGITS, PRESENT, pos_weight=pos_weight, reduction=reduction)
    torch.testing.assert_close(ours, theirs)


# -- values by the formulas of libraries that are not installed, and of scikit-learn --------------------------------


def binary_focal(logit, present, gamma, alpha=None):
    """One label: -alpha_t (1 - p_t)^gamma log p_t."""
    p = 1 / (1 + math.exp(-logit))
    p_t = p if present else 1 - p
    alpha_t = 1 if alpha is None else alpha if present else 1 - alpha
    return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)


def binary_focal_mean(gamma, alpha=None):
    return mean(binary_focal(logit, present, gamma, alpha) for logit, present in PAIRS)


def softmax_focal_mean(gamma, weights=(1, 1, 1, 1)):
    """Weighted by the class, but divided by the number of samples."""
    losses = ((weights[t], log_softmax(row)[t]) for row, t in zip(ROWS, TARGETS, strict=True))
    return mean(-w * (1 - math.exp(log_p)) ** gamma * log_p for w, log_p in losses)


def label_smoother_mean(epsilon, targets=TARGETS):
    """Each sample: (1 - epsilon) (-log p_t) + epsilon mean over classes of -log p; unlabeled ones are left out."""
    kept = [(log_softmax(row), t) for row, t in zip(ROWS, targets, strict=True) if t != -100]
    return mean((1 - epsilon) * -log_p[t] + epsilon * mean(-each for each in log_p) for log_p, t in kept)


def distillation(temperature):
    """T² KL(teacher || student), summed over classes and averaged over the batch."""
    total = 0.0
    for student, teacher in zip(ROWS, TEACHER.tolist(), strict=True):
        log_s, log_t = (log_softmax([logit / temperature for logit in row]) for row in (student, teacher))
        total += sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True))
    return temperature**2 * total / len(ROWS)


def ranked_probability_mean():
    """Sum over thresholds of (cumulated probability - cumulated target)²."""
    scores = []
    for row, t in zip(ROWS, TARGETS, strict=True):
        p = [math.exp(log_p) for log_p in log_softmax(row)]
        scores.append(sum((sum(p[: k + 1]) - (t <= k)) ** 2 for k in range(3)))
    return mean(scores)


def logit_adjusted_mean(priors, tau):
    adjusted = [[z + tau * math.log(prior) for z, prior in zip(row, priors, strict=True)] for row in ROWS]
    return mean(-log_softmax(row)[t] for row, t in zip(adjusted, TARGETS, strict=True))


PRIORS = (0.5, 0.25, 0.2, 0.05)
P = LOGITS.softmax(1)
adjusted = partial(logit_adjusted_cross_entropy, LOGITS, LABELS, torch.tensor(PRIORS, dtype=torch.float64))
cross_entropy = partial(smoothed_cross_entropy, LOGITS)


def soft_loss(temperature):
    return DistillationLoss(temperature, alpha=1.0)(LOGITS, TEACHER, LABELS)


VALUES = {
    "scikit-learn log_loss": (cross_entropy(LABELS, 0.0), log_loss(LABELS, P)),
    "scikit-learn log_loss with sample weights": (
        cross_entropy(LABELS, 0.0, WEIGHT), log_loss(LABELS, P, sample_weight=WEIGHT[LABELS])),
    "scikit-learn log_loss without normalization": (
        cross_entropy(LABELS, 0.0, reduction="sum"), log_loss(LABELS, P, normalize=False)),
    "optax softmax_cross_entropy_with_integer_labels": (
        cross_entropy(LABELS, 0.0), mean(-log_softmax(row)[t] for row, t in zip(ROWS, TARGETS, strict=True))),
    "optax softmax_cross_entropy of smooth_labels": (
        cross_entropy(LABELS, 0.2), F.cross_entropy(LOGITS, 0.8 * F.one_hot(LABELS, 4) + 0.2 / 4)),
    "timm LabelSmoothingCrossEntropy": (cross_entropy(LABELS, 0.1), label_smoother_mean(0.1)),
    "timm LabelSmoothingCrossEntropy, much": (cross_entropy(LABELS, 0.9), label_smoother_mean(0.9)),
    "timm SoftTargetCrossEntropy": (
        cross_entropy(SOFT, 0.0), mean(
            -sum(y * log_p for y, log_p in zip(target, log_softmax(row), strict=True))
            for row, target in zip(ROWS, SOFT.tolist(), strict=True))),
    "transformers LabelSmoother ignores -100": (
        cross_entropy(SOME_UNLABELED, 0.1, ignore_index=-100), label_smoother_mean(0.1, SOME_UNLABELED.tolist())),
    "Keras CategoricalCrossentropy with label_smoothing": (
        cross_entropy(F.one_hot(LABELS, 4).double(), 0.3), label_smoother_mean(0.3)),
    "MONAI and kornia focal loss, gamma 2": (focal_loss(LOGITS, LABELS), softmax_focal_mean(2.0)),
    "MONAI focal loss, gamma 0 is cross entropy": (focal_loss(LOGITS, LABELS, gamma=0.0), softmax_focal_mean(0.0)),
    "MONAI focal loss, gamma 5": (focal_loss(LOGITS, LABELS, gamma=5.0), softmax_focal_mean(5.0)),
    "kornia focal loss, alpha 0.25": (focal_loss(LOGITS, LABELS, 0.25), 0.25 * softmax_focal_mean(2.0)),
    "MONAI focal loss with class weights, sum": (
        focal_loss(LOGITS, LABELS, WEIGHT, 2.0, "sum"), 7 * softmax_focal_mean(2.0, WEIGHT.tolist())),
    "MONAI focal loss, equal logits": (  # (1 - 1/2)² ln 2, the figure of its documentation for two classes
        focal_loss(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])), 0.25 * math.log(2)),
    "torchvision sigmoid_focal_loss": (
        multilabel_loss(LOGITS, PRESENT, gamma=2.0, alpha=0.25), binary_focal_mean(2.0, 0.25)),
    "torchvision sigmoid_focal_loss, alpha -1": (multilabel_loss(LOGITS, PRESENT, gamma=2.0), binary_focal_mean(2.0)),
    "torchvision sigmoid_focal_loss, gamma 3, alpha 0.9": (
        multilabel_loss(LOGITS, PRESENT, gamma=3.0, alpha=0.9), binary_focal_mean(3.0, 0.9)),
    "torchvision sigmoid_focal_loss, gamma 0 is BCE": (
        multilabel_loss(LOGITS, PRESENT, gamma=0.0), F.binary_cross_entropy_with_logits(LOGITS, PRESENT)),
    "optax sigmoid_focal_loss, alpha 1 counts present labels": (
        multilabel_loss(LOGITS, PRESENT, gamma=1.0, alpha=1.0, reduction="sum"),
        sum(binary_focal(logit, 1, 1.0) for logit, present in PAIRS if present)),
    "Keras BinaryCrossentropy with label_smoothing": (
        multilabel_loss(LOGITS, PRESENT, label_smoothing=0.2),
        F.binary_cross_entropy_with_logits(LOGITS, 0.8 * PRESENT + 0.1)),
    "torch kl_div of distributions": (
        soft_loss(1.0), F.kl_div(LOGITS.log_softmax(1), TEACHER.softmax(1), reduction="batchmean")),
    "torch kl_div with log_target": (
        soft_loss(2.0), 4 * F.kl_div(
            (LOGITS / 2).log_softmax(1), (TEACHER / 2).log_softmax(1), reduction="batchmean", log_target=True)),
    "optax kl_divergence, temperature 4": (soft_loss(4.0), distillation(4.0)),
    "transformers DistilBERT, temperature 0.5": (soft_loss(0.5), distillation(0.5)),
    "scoring rules: ranked probability score": (ranked_probability_loss(LOGITS, LABELS), ranked_probability_mean()),
    "scoring rules: RPS of two classes is the Brier score": (
        ranked_probability_loss(LOGITS[:, :2], LABELS % 2), mean(
            (math.exp(log_softmax(row[:2])[1]) - t % 2) ** 2 for row, t in zip(ROWS, TARGETS, strict=True))),
    "logit adjustment, tau 1": (adjusted(), logit_adjusted_mean(PRIORS, 1.0)),
    "logit adjustment, tau 0.5": (adjusted(tau=0.5), logit_adjusted_mean(PRIORS, 0.5)),
    "logit adjustment, tau 0 is cross entropy": (adjusted(tau=0.0), F.cross_entropy(LOGITS, LABELS)),
}  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), VALUES.values(), ids=VALUES)
def test_value_of_the_peer(ours, theirs):
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


# -- PyTorch Metric Learning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.07, 0.5, 10.0])
@pytest.mark.parametrize(
    "labels", [LABELS, LABELS % 2, torch.tensor([5, 5, -3, 8, 8, 8, 9])], ids=["four classes", "two classes", "singles"]
)
def test_contrastive_loss_of_pytorch_metric_learning(labels, temperature):
    torch.testing.assert_close(
        supervised_contrastive_loss(LOGITS, labels, temperature), MetricLearningLoss(temperature)(LOGITS, labels)
    )


# -- class weights -------------------------------------------------------------------------------------------------

COUNTS = {"even": [4, 4, 4], "rare class": [90, 9, 1], "two classes": [1, 3], "one class": [5]}


def labels_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_balanced_class_weights_of_sklearn(counts):
    labels = labels_of(counts)
    theirs = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(compute_class_weights(labels), theirs, rtol=1e-6)
    np.testing.assert_allclose(class_priors(labels), np.array(counts) / sum(counts), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_effective_numbers_of_the_class_balanced_loss(counts, beta):
    """Cui et al. 2019: (1 - beta) / (1 - beta^n), scaled to a sum of the number of classes."""
    inverse = [(1 - beta) / (1 - beta**n) for n in counts]
    expected = [len(counts) * each / sum(inverse) for each in inverse]
    np.testing.assert_allclose(effective_number_weights(labels_of(counts), beta=beta), expected, rtol=1e-5)
