"""DistillationLoss: values by hand, limiting cases, gradients."""

import math

import pytest
import torch
from torch.nn import functional as F

from whirl.training.knowledge_distillation import DistillationLoss


def logits_of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_soft_loss_by_hand():
    """At T = 2 logits 2 ln p give p: KL((0.8, 0.2) ‖ (0.5, 0.5)) by hand, times 4. It is not symmetric."""
    teacher, student = 2 * logits_of([0.8, 0.2]), 2 * logits_of([0.5, 0.5])
    soft = DistillationLoss(temperature=2.0).soft_loss
    assert soft(student, teacher).item() == pytest.approx(4 * (0.8 * math.log(1.6) + 0.2 * math.log(0.4)), rel=1e-12)
    assert soft(teacher, student).item() == pytest.approx(4 * (0.5 * math.log(0.625) + 0.5 * math.log(2.5)), rel=1e-12)


def test_loss_is_averaged_over_the_batch():
    teacher, student = logits_of([0.8, 0.2], [0.5, 0.5]), logits_of([0.5, 0.5], [0.5, 0.5])
    soft = DistillationLoss(temperature=1.0).soft_loss
    assert soft(student, teacher).item() == pytest.approx(soft(student[:1], teacher[:1]).item() / 2)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_equal_logits_give_zero(temperature):
    logits = 30 * torch.randn(16, 11)
    assert DistillationLoss(temperature).soft_loss(logits, logits.clone()) == 0


def test_high_temperature_matches_logits():
    """T -> infinity: the gradient becomes (z - v) / (K B) for centered logits (Hinton et al. 2015, eq. 4)."""
    student, teacher = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    student, teacher = (x - x.mean(1, keepdim=True) for x in (student, teacher))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(
        DistillationLoss(1e5, alpha=1.0)(student, teacher, torch.zeros(4).long()), student
    )
    torch.testing.assert_close(gradient, (student.detach() - teacher) / 20, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("hard", ["cross_entropy", "mse"])
@pytest.mark.parametrize("soft_targets", [False, True], ids=["labels", "soft"])
def test_gradient_and_terms(hard, soft_targets):
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    targets = F.one_hot(labels, 3).double() if soft_targets else labels
    criterion = DistillationLoss(3.0, 0.4, hard)
    assert torch.autograd.gradcheck(lambda logits: criterion(logits, teacher, targets), student)
    parts = criterion.components(student, teacher, targets)
    one_hot = F.one_hot(labels, 3)
    by_hand = {
        "cross_entropy": -(one_hot * student.log_softmax(1)).sum(1).mean(),
        "mse": (student.softmax(1) - one_hot).square().mean(),
    }
    torch.testing.assert_close(parts["hard_loss"], by_hand[hard])
    torch.testing.assert_close(parts["total_loss"], 0.4 * parts["soft_loss"] + 0.6 * parts["hard_loss"])
    parts["total_loss"].backward()
    assert teacher.grad is None


def test_alpha_0_and_1_leave_out_the_other_term():
    student, targets = torch.randn(2, 3), torch.tensor([0, 1])
    endless = torch.full((2, 3), torch.inf)
    assert torch.equal(DistillationLoss(alpha=0.0)(student, endless, targets), F.cross_entropy(student, targets))
    own = DistillationLoss(alpha=1.0, hard_criterion=lambda logits, targets: logits.sum() * torch.nan)
    assert own(student, student, targets) == 0


def test_half_precision_is_computed_in_single():
    student, teacher, targets = torch.randn(8, 5), torch.randn(8, 5), torch.arange(8) % 5
    criterion = DistillationLoss()
    half = criterion(student.bfloat16(), teacher.bfloat16(), targets)
    assert half.dtype == torch.float32
    assert half == criterion(student.bfloat16().float(), teacher.bfloat16().float(), targets)


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0.0}, {"alpha": 1.1}, {"alpha": -0.1}, {"hard_loss_type": "kl"}], ids=str
)
def test_rejects_invalid_settings(arguments):
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        DistillationLoss(**arguments)


def test_rejects_different_numbers_of_classes():
    with pytest.raises(ValueError, match=r"\[2, 3\].*\[2, 4\]"):
        DistillationLoss()(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2).long())


def test_class_that_the_teacher_excludes_contributes_nothing():
    """KL((0.8, 0.2, 0) ‖ (0.25, 0.25, 0.5)) by hand; a student that excludes the class as well has no NaN either."""
    teacher, student = logits_of([0.8, 0.2, 0.0]), logits_of([0.25, 0.25, 0.5]).requires_grad_()
    soft = DistillationLoss(temperature=1.0).soft_loss(student, teacher)
    assert soft.item() == pytest.approx(0.8 * math.log(3.2) + 0.2 * math.log(0.8))
    (gradient,) = torch.autograd.grad(soft, student)
    torch.testing.assert_close(gradient, torch.tensor([[0.25 - 0.8, 0.25 - 0.2, 0.5]], dtype=torch.float64))
    excluding = logits_of([0.5, 0.5, 0.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(DistillationLoss(temperature=1.0).soft_loss(excluding, teacher), excluding)
    torch.testing.assert_close(gradient, torch.tensor([[-0.3, 0.3, 0.0]], dtype=torch.float64))
