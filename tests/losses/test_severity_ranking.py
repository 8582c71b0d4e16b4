"""The severity ranking is compared with hand calculations and a loop over pairs."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from tests.losses.physics_cases import gradient, rand
from whirl.losses.physics_loss_functions import SommerfeldConsistencyLoss
from whirl.physics.faults import JOURNAL_CLASSES
from whirl.physics.journal_bearing import kinematic_viscosity_cst


def test_ranking_matches_hand_calculation():
    """Two windows certainly of one mechanism and a factor of 10 in S: log S differs by 2.3, so the weight is 1."""
    S = {"sommerfeld": torch.tensor([1.0, 0.1])}
    loss = SommerfeldConsistencyLoss(["lubrication", "wear"])
    logits = torch.full((2, 11), -30.0)
    logits[:, [4, 6]] = torch.tensor([[0.0, math.log(4)], [math.log(4), 0.0]])  # severities 0.8 and 0.2
    assert loss(logits, S) == pytest.approx(0.63, abs=1e-4)  # thin films are worse: the lower S should be more severe
    assert loss(logits.flip(0), S) == 0
    whirl = SommerfeldConsistencyLoss([0, 7], classes=JOURNAL_CLASSES)  # high S aggravates whirl
    logits = torch.full((2, 11), -30.0)
    logits[:, [0, 7]] = torch.tensor([[math.log(4), 0.0], [0.0, math.log(4)]])
    assert whirl(logits, S) == pytest.approx(0.63, abs=1e-4)
    assert whirl(logits.flip(0), S) == 0


def test_ranking_matches_loop_over_pairs():
    logits, S, machine = rand(7, 11), rand(7, seed=1).mul(2).exp(), [0, 0, 1, 0, 1, 1, 0]
    p, order = logits.softmax(1), [0, 4, 6, 9]
    d = torch.zeros(11, dtype=torch.float64)
    d[[4, 6, 9]], d[7] = -1, 1
    mass = p[:, order].sum(1)
    severity = (p[:, order] @ torch.tensor([0, 1, 2, 3], dtype=torch.float64)) / 3 / mass
    numerator, denominator = 0.0, 0.0
    for i in range(7):
        for j in range(7):
            D = (d * p[i] * p[j]).sum()
            w = D.abs() * mass[i] * mass[j] * (S[i].log() - S[j].log() - 0.7).clamp(0, 1) * (machine[i] == machine[j])
            numerator += w * (0.03 - D.sign() * (severity[i] - severity[j])).relu()
            denominator += w
    value = SommerfeldConsistencyLoss()(logits, {"sommerfeld": S, "machine_id": torch.tensor(machine)})
    assert value.item() == pytest.approx((numerator / denominator).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["severity", "levels"])
def test_ranking_gradient(kind):
    loss = SommerfeldConsistencyLoss(n_levels=4 if kind == "levels" else None)
    predictions = rand(6, 4) if kind == "levels" else rand(6).sigmoid()
    S = {"sommerfeld": rand(6, seed=1).mul(2).exp()}
    assert gradcheck(lambda x: loss(x, S), predictions.requires_grad_())
    assert gradient(loss(predictions, S), predictions).any()


def test_ranking_of_class_logits_has_a_gradient():
    logits, S = rand(6, 11).requires_grad_(), {"sommerfeld": rand(6, seed=1).mul(2).exp()}
    grads = gradient(SommerfeldConsistencyLoss()(logits, S), logits)
    assert grads.isfinite().all()
    assert grads[:, [0, 4, 6, 9]].any()
    assert not grads[:, [1, 2, 3, 5, 7, 8, 10]].any()  # other mechanisms


def test_sommerfeld_number_is_computed_from_oil_speed_and_load():
    severity, rpm, load = rand(5).sigmoid(), 1000 + 500 * torch.arange(5.0), torch.tensor([9e3, 5e3, 1e3, 8e3, 2e2])
    oil = torch.tensor([40.0, 75.0, 50.0, 80.0, 61.0])
    viscosity = torch.tensor(kinematic_viscosity_cst(oil.numpy()))
    loss = SommerfeldConsistencyLoss()
    value = loss(severity, {"sommerfeld": 3.7e-4 * viscosity * rpm / load})
    assert value > 0
    for inputs in ({"viscosity": viscosity}, {"temperature": oil}):
        assert loss(severity, {"rpm": rpm, "load": load, **inputs}).item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("S", [[0.1, 0.15], [torch.nan, 1.0], [0.0, 1.0], [1.0, 1.0]])
def test_loss_is_zero_without_comparable_pairs(S):
    severity = torch.tensor([0.2, 0.9], requires_grad=True)
    value = SommerfeldConsistencyLoss()(severity, {"sommerfeld": torch.tensor(S)})
    assert value == 0
    assert not gradient(value, severity).any()
