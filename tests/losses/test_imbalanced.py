"""Class-balanced weights, logit adjustment, the ordinal and the multilabel loss: values by hand and of torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from whirl.engine.objective import Objective
from whirl.losses.class_weights import class_priors, compute_class_weights, effective_number_weights
from whirl.losses.imbalanced import LogitAdjustedCrossEntropy, logit_adjusted_cross_entropy
from whirl.losses.losses import smoothed_cross_entropy
from whirl.losses.multilabel import MultilabelBCELoss, multilabel_loss
from whirl.losses.ordinal import ranked_probability_loss

LOGITS = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])

# class-balanced weights


def test_effective_number_weights_by_hand():
    """(1 - b) / (1 - b^n) for n = 100 and 10 and b = 0.9, scaled to a sum of 2."""
    large, small = 0.1 / (1 - 0.9**100), 0.1 / (1 - 0.9**10)
    weights = effective_number_weights([0] * 100 + [1] * 10, beta=0.9)
    expected = torch.tensor([2 * large / (large + small), 2 * small / (large + small)])
    torch.testing.assert_close(weights, expected)


def test_effective_number_weights_have_the_limits_of_equal_and_balanced_weights():
    labels = [0] * 100 + [1] * 10
    assert effective_number_weights(labels, beta=0.0).tolist() == [1.0, 1.0]
    balanced = compute_class_weights(labels)
    torch.testing.assert_close(
        effective_number_weights(labels, beta=1 - 1e-9), 2 * balanced / balanced.sum(), rtol=1e-5, atol=0
    )
    with pytest.raises(ValueError, match=r"beta is 1, expected a number in \[0, 1\)"):
        effective_number_weights(labels, beta=1)
    with pytest.warns(UserWarning, match="no labels of class 2"):
        assert effective_number_weights(labels, 3)[2] == 0


# logit adjustment


def test_logit_adjustment_by_hand():
    priors = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    scores = LOGITS.exp() * priors**0.5
    expected = -(scores.gather(1, LABELS[:, None]).squeeze(1) / scores.sum(1)).log().mean()
    torch.testing.assert_close(logit_adjusted_cross_entropy(LOGITS, LABELS, priors, tau=0.5), expected)
    torch.testing.assert_close(logit_adjusted_cross_entropy(LOGITS, LABELS, 50 * priors, tau=0.5), expected)


def test_without_adjustment_it_is_cross_entropy():
    priors = class_priors(LABELS).double()
    expected = F.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(logit_adjusted_cross_entropy(LOGITS, LABELS, priors, tau=0.0), expected)
    torch.testing.assert_close(LogitAdjustedCrossEntropy(torch.ones(4))(LOGITS, LABELS), expected)


def test_adjusted_scores_of_indistinguishable_classes_are_equal():
    """With one input for both classes, cross entropy learns their shares, and logit adjustment equal scores."""
    labels, scores = torch.tensor([0] * 9 + [1]), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=2.0)
    criterion = LogitAdjustedCrossEntropy(class_priors(labels))
    for _ in range(200):
        optimizer.zero_grad()
        criterion(scores.expand(10, 2), labels).backward()
        optimizer.step()
    torch.testing.assert_close(scores.detach(), torch.zeros(2), atol=1e-4, rtol=0)


def test_rejects_classes_without_a_share():
    with pytest.raises(ValueError, match="expected a share > 0 for each class"):
        LogitAdjustedCrossEntropy(torch.tensor([1.0, 0.0]))
    with pytest.raises(TypeError, match=r"priors is \[0\.5, 0\.5\], expected a tensor of one weight per class"):
        LogitAdjustedCrossEntropy([0.5, 0.5])


# ordered classes


def test_ranked_probability_by_hand():
    logits = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    for label, expected in enumerate([0.8**2 + 0.3**2, 0.2**2 + 0.3**2, 0.2**2 + 0.7**2]):
        assert ranked_probability_loss(logits, torch.tensor([label])).item() == pytest.approx(expected)
    soft = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    assert ranked_probability_loss(logits, soft).item() == pytest.approx(0)


def test_ranked_probability_of_two_classes_is_half_the_brier_score():
    p, labels = LOGITS[:, :2].softmax(1), LABELS.clamp_max(1)
    brier = (p - F.one_hot(labels)).square().sum(1).mean()
    torch.testing.assert_close(ranked_probability_loss(LOGITS[:, :2], labels), brier / 2)


def test_ranked_probability_gradient_and_weights():
    assert gradcheck(lambda z: ranked_probability_loss(z, LABELS), LOGITS.clone().requires_grad_())
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    losses = ranked_probability_loss(LOGITS, LABELS, reduction="none")
    expected = (losses * weight[LABELS]).sum() / weight[LABELS].sum()
    torch.testing.assert_close(ranked_probability_loss(LOGITS, LABELS, weight), expected)
    with pytest.raises(ValueError, match=r"label 4 is outside 0\.\.3"):
        ranked_probability_loss(LOGITS, LABELS + 1)


# several labels

TARGETS = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]] * 2, dtype=torch.float64)


@pytest.mark.parametrize("pos_weight", [None, torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_multilabel_loss_without_focus_is_binary_cross_entropy(pos_weight, reduction):
    for targets in (TARGETS, (TARGETS + 0.5) / 2):
        ours = multilabel_loss(LOGITS, targets, pos_weight=pos_weight, reduction=reduction)
        theirs = F.binary_cross_entropy_with_logits(LOGITS, targets, pos_weight=pos_weight, reduction=reduction)
        torch.testing.assert_close(ours, theirs)


def test_focal_loss_of_several_labels_by_hand():
    """Lin et al. 2017, eq. 5, for p = 0.9: present, absent, with alpha = 0.25 and gamma = 2."""
    logits = torch.tensor([[math.log(9)]], dtype=torch.float64)
    present, absent = (
        multilabel_loss(logits, torch.tensor([[y]], dtype=torch.float64), gamma=2.0, alpha=0.25).item()
        for y in (1.0, 0.0)
    )
    assert present == pytest.approx(0.25 * 0.1**2 * -math.log(0.9))
    assert absent == pytest.approx(0.75 * 0.9**2 * -math.log(0.1))
    assert gradcheck(lambda z: multilabel_loss(z, TARGETS, gamma=1.5), LOGITS.clone().requires_grad_())


def test_smoothing_moves_targets_towards_one_half():
    expected = F.binary_cross_entropy_with_logits(LOGITS, 0.8 * TARGETS + 0.1)
    torch.testing.assert_close(multilabel_loss(LOGITS, TARGETS, label_smoothing=0.2), expected)


def test_unknown_labels_are_left_out_of_loss_and_accuracy():
    targets, known = TARGETS.clone(), torch.ones(6, 4, dtype=torch.bool)
    known[0, 1:], known[4] = False, False
    targets[~known] = torch.nan
    logits = LOGITS.clone().requires_grad_()
    criterion = MultilabelBCELoss(gamma=2.0)
    loss = criterion(logits, targets)
    expected = multilabel_loss(LOGITS, TARGETS, gamma=2.0, reduction="none")[known].mean()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert not gradient[~known].any()
    objective = Objective(criterion)
    assert objective.denominator(targets) == known.sum()
    score = objective.score(2 * TARGETS - 1, targets)
    assert [int(count) for count in score] == [5, 5]
    wrong = 2 * TARGETS - 1
    wrong[0] *= -1
    wrong[4] *= -1
    assert int(objective.score(wrong, targets).n_correct) == 4


def test_rejects_labels_of_other_shapes_and_types():
    with pytest.raises(TypeError, match=r"targets are torch\.int64, expected a floating-point tensor"):
        multilabel_loss(LOGITS, TARGETS.long())
    with pytest.raises(ValueError, match=r"targets have shape \[5, 4\], expected \[B, K\]"):
        multilabel_loss(LOGITS, TARGETS[1:])
    with pytest.raises(ValueError, match=r"pos_weight has shape \[3\], expected \[4\]"):
        multilabel_loss(LOGITS, TARGETS, pos_weight=torch.ones(3))


def test_half_precision_is_computed_in_float32():
    losses = [
        multilabel_loss(LOGITS.half(), TARGETS.half()),
        ranked_probability_loss(LOGITS.half(), LABELS),
        logit_adjusted_cross_entropy(LOGITS.half(), LABELS, torch.ones(4)),
        smoothed_cross_entropy(LOGITS.half(), LABELS, ignore_index=-1),
    ]
    assert all(loss.dtype == torch.float32 for loss in losses)
