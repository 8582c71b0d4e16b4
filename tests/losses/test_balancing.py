"""Lambda schedules are compared with their closed forms, balancers with the formulas of the papers."""

import math

import pytest
import torch

from whirl.losses.balancing import (
    BALANCERS,
    LAMBDA_SCHEDULES,
    GradNorm,
    ReLoBRaLo,
    SoftAdapt,
    create_balancer,
    lambda_multiplier,
)

# (schedule, epoch of 11, multiplier), u = epoch / 10
TABLE = [
    ("linear", 0, 0.0),
    ("linear", 3, 0.3),
    ("cosine", 0, 0.0),
    ("cosine", 5, 0.5),
    ("cosine", 2, (1 - math.cos(math.pi / 5)) / 2),
    ("exponential", 0, 0.0),
    ("exponential", 4, (1 - math.exp(-2)) / (1 - math.exp(-5))),
    ("step", 3, 0.0),
    ("step", 4, 0.5),
    ("step", 6, 0.5),
    ("step", 7, 1.0),
    ("constant", 0, 1.0),
]


@pytest.mark.parametrize(("schedule", "epoch", "multiplier"), TABLE)
def test_lambda_multiplier_matches_closed_form(schedule, epoch, multiplier):
    assert lambda_multiplier(schedule, epoch, 11) == pytest.approx(multiplier, abs=1e-12)


@pytest.mark.parametrize("schedule", LAMBDA_SCHEDULES)
def test_lambda_multiplier_is_monotonic_and_reaches_one(schedule):
    multipliers = [lambda_multiplier(schedule, epoch, 9) for epoch in range(12)]
    assert multipliers == sorted(multipliers)
    assert multipliers[8:] == [1.0] * 4
    assert lambda_multiplier(schedule, 0, 1) == 1.0


def test_rejects_unknown_names():
    with pytest.raises(ValueError, match="unknown lambda_schedule"):
        lambda_multiplier("linar", 0, 2)
    with pytest.raises(ValueError, match="unknown balancing 'x'; expected one of: none, gradnorm, softadapt"):
        create_balancer("x")


def losses(data=1.0, term=0.01):
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    return weight.norm() * data, {"freq_loss": weight.norm() * term}, [weight]


def test_gradnorm_moves_a_tenth_towards_gradient_ratio_every_ten_steps():
    balance, arguments = GradNorm(), losses(data=1.0, term=0.2)
    factors = [balance(*arguments)["freq_loss"].item() for _ in range(11)]
    assert factors[:10] == pytest.approx([0.9 + 0.1 * 5] * 10)
    assert factors[10] == pytest.approx(0.9 * 1.4 + 0.1 * 5)


def test_gradnorm_limits_ratio():
    assert GradNorm()(*losses(1.0, 1e-6))["freq_loss"].item() == pytest.approx(0.9 + 0.1 * 10)


def test_softadapt_increases_weight_of_slower_loss():
    balance = SoftAdapt()
    assert balance(*losses(1.0, 1.0))["freq_loss"].item() == pytest.approx(1)
    # the data loss halves, the term is constant: smoothed changes are -0.05 and 0, r / sum|r| is -1 and 0
    assert balance(*losses(0.5, 1.0))["freq_loss"].item() == pytest.approx(math.exp(0.1))


def test_relobralo_matches_equation_11():
    torch.manual_seed(0)  # rho is 1 in the first draws
    balance = ReLoBRaLo()
    balance(*losses(1.0, 1.0))
    factor = balance(*losses(0.5, 1.0))["freq_loss"].item()
    lookback = [2 * math.exp(x) / (math.exp(0.5) + math.exp(1)) for x in (0.5, 1.0)]
    weights = [0.999 * 1 + 0.001 * lb for lb in lookback]
    assert factor == pytest.approx(weights[1] / weights[0], rel=1e-5)


@pytest.mark.parametrize("name", BALANCERS)
def test_factors_have_no_gradient_and_state_dict_restores_them(name):
    torch.manual_seed(0)
    first = create_balancer(name)
    for value in (1.0, 0.7, 0.4):
        first(*losses(value, 0.1))
    second = create_balancer(name)
    second.load_state_dict(first.state_dict())
    state = torch.get_rng_state()
    expected = [first(*losses(value, 0.1))["freq_loss"] for value in (0.3, 0.2)]
    torch.set_rng_state(state)
    restored = [second(*losses(value, 0.1))["freq_loss"] for value in (0.3, 0.2)]
    assert restored == expected
    assert not any(factor.requires_grad for factor in restored)
