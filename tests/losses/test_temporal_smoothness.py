"""The temporal smoothness loss is compared with hand calculations."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from tests.losses.physics_cases import gradient, rand
from whirl.losses.physics_loss_functions import TemporalSmoothnessLoss


def test_temporal_loss_matches_hand_calculation():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    loss = TemporalSmoothnessLoss(lambda_smooth=2.0, tau_s=0.5, sample_rate=1000)
    steps = [2 * 0.4**2, 2 * 0.7**2]
    assert loss(p.log()[:, None]).item() == pytest.approx(2 * sum(steps) / 2)
    metadata = {"recording": torch.tensor([7, 7, 7]), "start": torch.tensor([0, 500, 1500])}
    weighted = 2 * (steps[0] * math.exp(-1) + steps[1] * math.exp(-2)) / 2
    assert loss(p.log(), metadata).item() == pytest.approx(weighted)
    order = torch.tensor([2, 0, 1])
    shuffled = {name: values[order] for name, values in metadata.items()}
    assert loss(p.log()[order], shuffled).item() == pytest.approx(weighted)
    in_seconds = {"record_ids": metadata["recording"], "time": metadata["start"] / 1000}
    assert loss(p.log(), in_seconds).item() == pytest.approx(weighted)


def test_temporal_loss_never_pairs_different_recordings():
    logits = rand(6, 3).requires_grad_()
    metadata = {"recording": torch.tensor([0, 1, 2, 3, 4, 1 << 40]), "start": torch.zeros(6)}
    value = TemporalSmoothnessLoss()(logits, metadata)
    assert value == 0
    assert not gradient(value, logits).any()
    alternating = {"recording": torch.arange(6) % 2, "start": torch.arange(6)}
    steady = 50 * torch.eye(2)[alternating["recording"]]  # constant within each recording
    assert TemporalSmoothnessLoss()(steady, alternating) == 0


def test_temporal_loss_gradient_and_upper_bound():
    metadata = {"recording": torch.arange(8) // 4}
    loss = TemporalSmoothnessLoss(0.1)
    assert gradcheck(lambda z: loss(z, metadata), rand(8, 3).requires_grad_())
    assert gradcheck(loss, rand(4, 2, 3).requires_grad_())
    jumps = 100 * torch.eye(2)[torch.arange(8) % 2]
    assert loss(jumps, metadata) == pytest.approx(0.2)
    assert loss(torch.ones(5, 2, 3)) == 0


def test_unknown_times_count_as_adjacent():
    """A time of NaN gives the weight 1, as without any times, and leaves other pairs unchanged."""
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    metadata = {"recording": torch.zeros(3), "time": torch.tensor([0.0, 0.5, math.nan])}
    loss = TemporalSmoothnessLoss(1.0, tau_s=0.5)(p.log(), metadata)
    assert loss.item() == pytest.approx((2 * 0.4**2 * math.exp(-1) + 2 * 0.7**2) / 2)
