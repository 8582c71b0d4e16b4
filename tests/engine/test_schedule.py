"""Units and steps of learning-rate schedules."""

import pytest
import torch
from torch.optim import lr_scheduler

from whirl.engine.schedule import scheduler_unit, step_scheduler


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def sequence(own, last):
    return lr_scheduler.SequentialLR(own, [lr_scheduler.LinearLR(own, 0.5, total_iters=2), last], [2])


@pytest.mark.parametrize(
    ("make", "unit"),
    [
        (lambda o: lr_scheduler.StepLR(o, 1), "epoch"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 5), "epoch"),
        (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 5), "step"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, cycle_momentum=False), "step"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "validation"),
        (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.OneCycleLR(o, 1.0, 5)]), "step"),
        (lambda o: sequence(o, lr_scheduler.CosineAnnealingLR(o, 4)), "epoch"),
    ],
)
def test_scheduler_unit(make, unit):
    assert scheduler_unit(make(optimizer())) == unit


def test_step_unit_takes_precedence():
    scheduler = lr_scheduler.LambdaLR(optimizer(), lambda step: 1.0)
    scheduler.step_unit = "step"
    assert scheduler_unit(scheduler) == "step"
    scheduler.step_unit = "minute"
    with pytest.raises(ValueError, match="minute"):
        scheduler_unit(scheduler)


def test_parts_in_different_units_need_step_unit():
    own = optimizer()
    scheduler = sequence(own, lr_scheduler.OneCycleLR(own, 1.0, 5))
    with pytest.raises(ValueError, match="LinearLR per epoch, OneCycleLR per step: set its attribute step_unit"):
        scheduler_unit(scheduler)
    scheduler.step_unit = "step"
    assert scheduler_unit(scheduler) == "step"


def test_one_cycle_keeps_its_last_value():
    own = optimizer()
    scheduler = lr_scheduler.OneCycleLR(own, max_lr=1.0, total_steps=4)
    rates = []
    for _ in range(6):
        own.step()
        step_scheduler(scheduler)
        rates.append(scheduler.get_last_lr()[0])
    assert rates[2] == rates[3] == rates[5] == pytest.approx(1.0 / 25 / 1e4)


def test_cosine_keeps_its_last_value():
    own = optimizer()
    scheduler = lr_scheduler.CosineAnnealingLR(own, T_max=3, eta_min=0.01)
    rates = []
    for _ in range(7):
        own.step()
        step_scheduler(scheduler)
        rates.append(scheduler.get_last_lr()[0])
    assert rates[2:] == pytest.approx([0.01] * 5)


def rates_over_epochs(own, scheduler, n_epochs):
    rates = []
    for _ in range(n_epochs):
        rates.append(own.param_groups[0]["lr"])
        own.step()
        step_scheduler(scheduler)
    assert scheduler.get_last_lr() == [own.param_groups[0]["lr"]]
    return rates


def test_last_part_of_a_sequence_keeps_its_value():
    own = optimizer()
    own.param_groups[0]["lr"] = 1.0
    rates = rates_over_epochs(own, sequence(own, lr_scheduler.CosineAnnealingLR(own, 2)), 8)
    assert rates == pytest.approx([0.5, 0.75, 1.0, 0.5, 0, 0, 0, 0])


def test_finished_part_of_a_chain_keeps_its_value():
    own = optimizer()
    own.param_groups[0]["lr"] = 1.0
    parts = [lr_scheduler.CosineAnnealingLR(own, 2, eta_min=0.5), lr_scheduler.StepLR(own, 4)]
    rates = rates_over_epochs(own, lr_scheduler.ChainedScheduler(parts), 9)
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.005])


def test_plateau_follows_the_metric_of_its_mode():
    own = optimizer()
    plateau = lr_scheduler.ReduceLROnPlateau(own, mode="max", patience=0, factor=0.5)
    for accuracy in (0.5, 0.4):
        step_scheduler(plateau, {"val_loss": 1.0, "val_accuracy": accuracy})
    assert own.param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="val_accuracy"):
        step_scheduler(plateau, {"train_loss": 1.0})
