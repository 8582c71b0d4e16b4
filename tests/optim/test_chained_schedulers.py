"""Schedules beside other schedulers, after changes by hand, and with states of other versions of torch."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from tests.optim.schedules import OURS, learning_rates, make, sgd, trace
from whirl.engine.schedule import step_scheduler
from whirl.optim.cnn_schedulers import PolynomialLRScheduler
from whirl.optim.scheduler_factory import create_training_scheduler, join_schedulers


def chained(first, optimizer):
    second = lr_scheduler.ExponentialLR(optimizer, 0.5)
    rates = []
    for _ in range(5):
        optimizer.step()
        first.step()
        second.step()
        rates += learning_rates(optimizer)
    return rates


def test_polynomial_decay_chains_as_in_torch():
    ours, theirs = sgd(), sgd()
    rates = chained(PolynomialLRScheduler(ours, 4, power=1, min_lr=0), ours)
    assert rates[:3] == [0.375, 0.125, 0.03125]
    assert rates == pytest.approx(chained(lr_scheduler.PolynomialLR(theirs, 4, power=1), theirs), abs=1e-15)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("polynomial", {"total_epochs": 5, "min_lr": 0.01}), ("cosine", {"num_epochs": 5}), ("exponential", {})],
)
def test_continues_from_learning_rate_that_was_lowered_by_hand(name, settings):
    optimizer = sgd()
    scheduler = make(name, optimizer, **settings)
    trace(optimizer, scheduler, 2)
    optimizer.param_groups[0]["lr"] /= 10
    lowered = optimizer.param_groups[0]["lr"]
    rates = [rate for (rate,) in trace(optimizer, scheduler, 4)]
    assert rates[0] == lowered
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", ["cosine", "polynomial"])
def test_stays_at_its_end_when_stepped_to_a_later_epoch(name):
    optimizer = sgd()
    scheduler = make(name, optimizer, **{"cosine": {"num_epochs": 4}, "polynomial": {"total_epochs": 4}}[name])
    optimizer.step()
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(4)
    end = learning_rates(optimizer)
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(7)
    assert learning_rates(optimizer) == end
    assert end[0] < 1e-5


@pytest.mark.parametrize("extra", [{"verbose": False}, {"key_of_a_later_version": 3}])
@pytest.mark.parametrize(("name", "settings"), [("step", {}), ("plateau", {}), ("cosine", {"num_epochs": 5})])
def test_ignores_keys_of_other_versions_of_torch(name, settings, extra):
    optimizer = sgd()
    scheduler = make(name, optimizer, **settings)
    optimizer.step()
    step_scheduler(scheduler, {"val_accuracy": 0.5})
    other = make(name, sgd(), **settings)
    other.load_state_dict(scheduler.state_dict() | extra)
    assert other.state_dict() == scheduler.state_dict()


def test_onecycle_sets_learning_rates_of_an_optimizer_that_starts_at_zero():
    optimizer, torch_optimizer = sgd(0.0), sgd(0.0)
    rates = trace(optimizer, make("onecycle", optimizer, max_lr=1.0, total_steps=8), 8)
    reference = lr_scheduler.OneCycleLR(torch_optimizer, 1.0, total_steps=8, cycle_momentum=False)
    assert rates == [*trace(torch_optimizer, reference, 7), learning_rates(torch_optimizer)]
    with pytest.raises(ValueError, match=r"max_lr is \[0.0\], expected a peak > 0 for at least one parameter group"):
        create_training_scheduler("onecycle", sgd(0.0), epochs=2, steps_per_epoch=5)


def test_constant_schedule_chains_and_keeps_a_learning_rate_that_was_changed():
    optimizer = sgd()
    assert chained(make("constant", optimizer), optimizer) == [0.5**n for n in range(1, 6)]
    joined = sgd()
    parts = [lr_scheduler.ExponentialLR(joined, 0.5), make("constant", joined)]
    assert trace(joined, join_schedulers(parts, [2]), 4) == [[1.0], [0.5], [1.0], [1.0]]


@pytest.mark.parametrize("base", OURS.values(), ids=OURS)
def test_group_that_was_added_before_a_checkpoint_is_in_it(base):
    optimizers = [sgd(momentum=0.9), sgd(momentum=0.9)]
    before, after = (base(optimizer) for optimizer in optimizers)
    optimizers[0].step()
    step_scheduler(before, {"val_loss": 1.0, "val_accuracy": 0.5})
    for optimizer in optimizers:
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1})
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    after.load_state_dict(before.state_dict())
    for optimizer, scheduler in zip(optimizers, (before, after), strict=True):
        optimizer.step()
        step_scheduler(scheduler, {"val_loss": 1.0, "val_accuracy": 0.5})
    assert learning_rates(optimizers[0]) == learning_rates(optimizers[1])


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_peaks_of_onecycle_may_be_an_array(kind):
    optimizer = sgd(1.0, 1.0)
    make("onecycle", optimizer, max_lr=kind([0.5, 2.0]), total_steps=8)
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.5, 2.0]
