"""Numbers of every kind give the same physics losses: NumPy scalars, zero-dimensional arrays and tensors."""

import numpy as np
import pytest
import torch

from tests.losses.physics_cases import N, gradient, rand
from whirl.losses.physics_loss_functions import (
    FrequencyConsistencyLoss,
    PhysicalConstraintLoss,
    SommerfeldConsistencyLoss,
    TemporalSmoothnessLoss,
)
from whirl.physics.rolling_bearing import BearingGeometry, FaultOrders, fault_orders

SIGNAL = rand(4, 1, N, dtype=torch.float32)
RACES = ["healthy", "inner_race", "outer_race"]


def double_tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def bearing(number):
    orders = fault_orders(BearingGeometry(9, number(7.94), number(39.04)))
    kinematics = FaultOrders(*(number(order) for order in (orders.ftf, orders.bpfo, orders.bpfi, orders.bsf)))
    loss = PhysicalConstraintLoss(number(1.0), 0, 0, orders=kinematics, classes=RACES, sample_rate=number(20480.0))
    return lambda logits: loss(logits[:, :3], SIGNAL, {"rpm": np.full(4, 1800.0)})


def lines_in_hz(number):
    expected = {0: [], 1: [number(50.0)], 2: [(number(90.0), number(110.0))]}
    loss = FrequencyConsistencyLoss(expected, number(20480.0), number(0.1), reference_rpm=number(3000.0))
    return lambda logits: loss(logits, SIGNAL, {"rpm": number(3000.0)})


def estimated_speed(number):
    loss = FrequencyConsistencyLoss({0: [], 1: [1.0]}, freq_unit="order", rpm_range=(number(1000.0), number(3000.0)))
    return lambda logits: loss(logits, SIGNAL, {})


def operating_point(number):
    loss = SommerfeldConsistencyLoss(direction=number(-1.0), margin=number(0.5), oil_cst=(number(46.0), number(6.8)))
    metadata = {
        "temperature": np.array([40.0, 50, 60, 70]),
        "rpm": number(3000.0),
        "load": np.array([1e3, 2e3, 3e3, 9e3]),
    }
    return lambda logits: loss(logits, metadata)


def adjacent_windows(number):
    loss = TemporalSmoothnessLoss(number(0.1), tau_s=number(1.0), sample_rate=number(20480.0))
    return lambda logits: loss(logits, {"recording": np.array([0, 0, 1, 1]), "start": np.array([0, 100, 0, 100])})


@pytest.mark.parametrize("number", [np.float64, np.float32, np.array, torch.tensor, double_tensor])
@pytest.mark.parametrize("make", [bearing, lines_in_hz, estimated_speed, operating_point, adjacent_windows])
def test_any_kind_of_number_gives_the_same_loss_and_gradient(make, number):
    logits = rand(4, 11, dtype=torch.float32).requires_grad_()
    expected, loss = make(float)(logits), make(number)(logits)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits))


@pytest.mark.parametrize(
    "order", [[0, 2, 3], np.array([0, 2, 3]), torch.tensor([0, 2, 3])], ids=["list", "array", "tensor"]
)
def test_severity_order_is_a_list_an_array_or_a_tensor(order):
    loss = SommerfeldConsistencyLoss(order)
    assert loss.order.tolist() == [0, 2, 3]


def test_machines_and_recordings_may_have_names():
    logits = rand(4, 11, dtype=torch.float32)
    smooth, ranked = TemporalSmoothnessLoss(), SommerfeldConsistencyLoss()
    named, numbered = np.array(["pump", "pump", "fan", "fan"]), torch.tensor([1, 1, 0, 0])
    torch.testing.assert_close(smooth(logits, {"recording": named}), smooth(logits, {"recording": numbered}))
    machines = [{"sommerfeld": np.array([1.0, 9, 2, 5]), "machine_id": ids} for ids in (named.tolist(), numbered)]
    torch.testing.assert_close(*(ranked(logits, metadata) for metadata in machines))
