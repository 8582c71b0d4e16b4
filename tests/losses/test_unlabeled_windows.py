"""Windows without a label, by `ignore_index`: values of torch, of the labeled windows alone, and by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from whirl.engine.objective import Objective
from whirl.losses.class_weights import compute_class_weights
from whirl.losses.cnn_losses import create_criterion
from whirl.losses.contrastive import supervised_contrastive_loss
from whirl.losses.imbalanced import logit_adjusted_cross_entropy
from whirl.losses.losses import FocalLoss, PhysicsInformedLoss, focal_loss, smoothed_cross_entropy
from whirl.losses.ordinal import ranked_probability_loss
from whirl.training.knowledge_distillation import DistillationLoss

LOGITS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, -1, 1, 3, -1, 2, 2, 0])
LABELED = LABELS >= 0
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)

LOSSES = {
    "cross entropy": partial(smoothed_cross_entropy, smoothing=0.0),
    "smoothed": smoothed_cross_entropy,
    "weighted": partial(smoothed_cross_entropy, weight=WEIGHT),
    "focal": focal_loss,
    "focal, small gamma": partial(focal_loss, gamma=0.5),
    "weighted focal": partial(focal_loss, alpha=WEIGHT),
    "focal with a factor": partial(focal_loss, alpha=0.25),
    "logit-adjusted": partial(logit_adjusted_cross_entropy, priors=WEIGHT),
    "ordinal": ranked_probability_loss,
    "weighted ordinal": partial(ranked_probability_loss, weight=WEIGHT),
    "contrastive": supervised_contrastive_loss,
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@each_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_unlabeled_windows_are_left_out(loss, reduction):
    logits, labeled = LOGITS.clone().requires_grad_(), LOGITS[LABELED].clone().requires_grad_()
    value = loss(logits, LABELS, reduction=reduction, ignore_index=-1)
    expected = loss(labeled, LABELS[LABELED], reduction=reduction)
    torch.testing.assert_close(value, expected)
    (gradient,), (expected_gradient,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, labeled)
    torch.testing.assert_close(gradient[LABELED], expected_gradient)
    assert not gradient[~LABELED].any()


@each_loss
def test_unlabeled_windows_have_a_loss_of_zero(loss):
    losses = loss(LOGITS, LABELS, reduction="none", ignore_index=-1)
    assert not losses[~LABELED].any()
    torch.testing.assert_close(losses[LABELED], loss(LOGITS[LABELED], LABELS[LABELED], reduction="none"))


@each_loss
def test_batch_without_any_label_has_zero_loss_and_gradient(loss):
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, torch.full((8,), -1), ignore_index=-1)
    assert value == 0
    assert not torch.autograd.grad(value, logits)[0].any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_cross_entropy_matches_torch(smoothing, weight):
    ours = smoothed_cross_entropy(LOGITS, LABELS, smoothing, weight, ignore_index=-1)
    theirs = F.cross_entropy(LOGITS, LABELS, weight, ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["ce", "label_smoothing", "focal", "ordinal"])
def test_criterion_states_its_denominator_and_accuracy_leaves_unlabeled_windows_out(name):
    criterion = create_criterion(name, ignore_index=-1)
    objective = Objective(criterion)
    assert objective.denominator(LABELS) == 6
    predictions = F.one_hot(LABELS.clamp_min(0), 4).double()  # right for all windows that have a label
    predictions[0] = predictions[0].roll(1)
    assert [int(count) for count in objective.score(predictions, LABELS)] == [5, 6]
    assert "ignore_index=-1" in repr(criterion)


def test_weighted_denominator():
    assert FocalLoss(WEIGHT, ignore_index=-1).denominator(LABELS) == WEIGHT[LABELS[LABELED]].sum()


def test_other_labels_out_of_range_are_still_refused():
    with pytest.raises(ValueError, match=r"label 7 is outside 0\.\.3"):
        focal_loss(LOGITS, torch.tensor([7, *LABELS[1:]]), ignore_index=-1)
    with pytest.raises(TypeError, match=r"ignore_index is 0\.5, expected an integer or None"):
        create_criterion("ce", ignore_index=0.5)


def test_class_weights_do_not_count_unlabeled_windows():
    torch.testing.assert_close(compute_class_weights(LABELS, ignore_index=-1), compute_class_weights(LABELS[LABELED]))


def test_sums_of_losses_have_the_ignored_label_of_their_criterion():
    """Unlabeled windows follow the teacher, and count neither in the hard loss nor in the accuracy."""
    cross_entropy = create_criterion("ce", ignore_index=-1)
    distillation = DistillationLoss(hard_criterion=cross_entropy)
    physics = PhysicsInformedLoss(data_criterion=cross_entropy)
    teacher = LOGITS.flip(0)
    found = distillation.components(LOGITS, teacher, LABELS)
    torch.testing.assert_close(found["hard_loss"], F.cross_entropy(LOGITS[LABELED], LABELS[LABELED]))
    torch.testing.assert_close(found["soft_loss"], DistillationLoss().soft_loss(LOGITS, teacher))
    torch.testing.assert_close(physics(LOGITS, LABELS), found["hard_loss"])
    for criterion in (distillation, physics):
        assert int(Objective(criterion).score(LOGITS, LABELS).n_counted) == 6


def test_contrastive_loss_without_unlabeled_windows_has_a_known_mean():
    assert not Objective(create_criterion("supcon")).has_unknown_denominator
