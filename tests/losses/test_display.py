"""The repr of losses: their settings in one line, without values of tensors."""

import pytest
import torch
from torch import nn

from whirl.losses import cnn_losses, losses
from whirl.losses.balancing import create_balancer
from whirl.losses.physics_loss_functions import PhysicalConstraintLoss, TemporalSmoothnessLoss
from whirl.losses.severity_ranking import SommerfeldConsistencyLoss
from whirl.training.knowledge_distillation import DistillationLoss

WEIGHT = torch.ones(3)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (losses.FocalLoss(), "FocalLoss(gamma=2, reduction='mean')"),
        (losses.FocalLoss(WEIGHT), "FocalLoss(alpha=float32[3], gamma=2, reduction='mean')"),
        (losses.LabelSmoothingCrossEntropy(0), "LabelSmoothingCrossEntropy(smoothing=0, reduction='mean')"),
        (
            losses.PhysicsInformedLoss(data_criterion=torch.dot),
            "PhysicsInformedLoss(data_weight=1, physics_weight=0.1)",
        ),
        (
            cnn_losses.CrossEntropyLoss(WEIGHT),
            "CrossEntropyLoss(weight=float32[3], label_smoothing=0, reduction='mean')",
        ),
        (cnn_losses.LabelSmoothingCrossEntropy(), "LabelSmoothingCrossEntropy(smoothing=0.1)"),
        (cnn_losses.FocalLoss(), "FocalLoss(alpha=0.25, gamma=2, reduction='mean')"),
        (cnn_losses.SupConLoss(), "SupConLoss(temperature=0.1)"),
        (TemporalSmoothnessLoss(), "TemporalSmoothnessLoss(lambda_smooth=0.1, tau_s=1, sample_rate=20480)"),
        (
            SommerfeldConsistencyLoss(),
            "SommerfeldConsistencyLoss(order=int64[4], direction=-1, margin=0.03, oil_cst=(46, 6.8))",
        ),
        (DistillationLoss(), "DistillationLoss(temperature=4, alpha=0.7, hard_loss_type='cross_entropy')"),
        (create_balancer("gradnorm"), "GradNorm(every=10, steps=0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_line_with_the_settings(loss, text):
    assert repr(loss) == text


def test_weighted_sum_lists_its_terms():
    lines = repr(PhysicalConstraintLoss(lambda_temporal=0)).splitlines()
    assert lines[1] == "  freq_loss=1, sommerfeld_loss=0.5, temporal_loss=0"
    assert "(frequency): EvidenceConsistencyLoss(" in lines[2]
    assert "n_classes=11, form='log', temperature=2" in "".join(lines)


def test_values_of_tensors_are_not_read():
    for loss in (losses.FocalLoss(WEIGHT), PhysicalConstraintLoss()):
        assert repr(loss.to("meta"))  # reading a value of a tensor on this device raises


@pytest.mark.parametrize("kind", [losses.FocalLoss, cnn_losses.CrossEntropyLoss, SommerfeldConsistencyLoss])
def test_incomplete_loss_shows_its_type(kind):
    loss = kind.__new__(kind)
    nn.Module.__init__(loss)
    assert repr(loss) == f"{kind.__name__}()"
