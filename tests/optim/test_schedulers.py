"""Schedulers: values compared with closed forms and torch, warmup, and argument checks."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.optim.schedules import BASES, learning_rates, lr_and_momentum, make, metrics_for, sgd, trace
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.optim import cnn_schedulers, optimizers, transformer_schedulers
from whirl.optim.cnn_schedulers import PolynomialLRScheduler, WarmupScheduler
from whirl.optim.scheduler_factory import create_training_scheduler, join_schedulers, schedule_names
from whirl.optim.transformer_schedulers import WarmupCosineScheduler

# values

# After the end, the last value is kept. One-cycle: increases over steps 0..5, decreases over 5..9, 1/25 to 1/25e4.
TABLE = [
    ("cosine", {"num_epochs": 4, "eta_min": 0.2}, {0: 1, 1: 0.2 + 0.8 * 0.8535533906, 2: 0.6, 4: 0.2, 5: 0.2, 9: 0.2}),
    ("cosine_restarts", {"T_0": 2, "eta_min": 0}, {0: 1, 1: 0.5, 2: 1, 3: 0.8535533906, 4: 0.5, 6: 1, 10: 0.5, 14: 1}),
    ("onecycle", {"max_lr": 2, "total_steps": 10, "pct_start": 0.6},
     {0: 0.08, 1: 2 - 0.96 * 1.8090169944, 5: 2, 7: 1.000004, 9: 8e-6, 10: 8e-6, 20: 8e-6}),
    ("step", {"step_size": 3, "gamma": 0.1}, {0: 1, 2: 1, 3: 0.1, 5: 0.1, 6: 0.01}),
    ("multistep", {"milestones": [4, 2, 4], "gamma": 0.5}, {0: 1, 1: 1, 2: 0.5, 3: 0.5, 4: 0.125, 9: 0.125}),
    ("constant", {}, {0: 1, 9: 1}),
    ("exponential", {"gamma": 0.5}, {0: 1, 1: 0.5, 3: 0.125}),
    ("polynomial", {"total_epochs": 4, "min_lr": 0.2}, {0: 1, 1: 0.65, 2: 0.4, 3: 0.25, 4: 0.2, 9: 0.2}),
    ("polynomial", {"total_epochs": 4, "power": 1, "min_lr": 0}, {1: 0.75, 3: 0.25, 4: 0, 5: 0}),
    ("warmup_cosine", {"warmup_epochs": 2, "total_epochs": 6, "min_lr": 0.1},
     {0: 1 / 3, 1: 2 / 3, 2: 1, 4: 0.55, 6: 0.1, 9: 0.1}),
    ("warmup_cosine", {"warmup_epochs": 0, "total_epochs": 2, "min_lr": 0}, {0: 1, 1: 0.5, 2: 0}),
    ("warmup_cosine", {"warmup_epochs": 3, "total_epochs": 3, "min_lr": 0.1}, {0: 0.25, 2: 0.75, 3: 0.1, 4: 0.1}),
    ("warmup_linear", {"warmup_epochs": 2, "total_epochs": 6}, {0: 1 / 3, 2: 1, 3: 0.75, 5: 0.25, 6: 0, 8: 0}),
    ("noam", {"d_model": 16, "warmup_steps": 4}, {0: 1 / 32, 1: 1 / 16, 3: 1 / 8, 15: 1 / 16}),
    ("inverse_sqrt", {"warmup_steps": 3}, {0: 0.25, 2: 0.75, 3: 1, 6: 0.5**0.5, 12: 0.5, 30: 0.1**0.5}),
    ("inverse_sqrt", {"warmup_steps": 0, "timescale": 1}, {0: 1, 1: 0.5**0.5, 3: 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "values"), TABLE, ids=[f"{row[0]}{i}" for i, row in enumerate(TABLE)])
def test_matches_closed_form(name, settings, values):
    optimizer = sgd()
    rates = trace(optimizer, make(name, optimizer, **settings), max(values) + 1)
    assert {step: rates[step][0] for step in values} == pytest.approx(values, rel=1e-9, abs=1e-15)


def test_every_schedule_is_in_the_table_or_has_its_own_test():
    separate = {"plateau", "warmup", "cosine_warmrestarts"}
    assert {row[0] for row in TABLE} | separate == set(schedule_names())


REFERENCES = {
    "cosine": (lambda o: make("cosine", o, num_epochs=7), lambda o: lr_scheduler.CosineAnnealingLR(o, 7, 1e-6)),
    "onecycle": (
        lambda o: make("onecycle", o, max_lr=0.3, total_steps=9),
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, 9),
    ),
    "polynomial": (
        lambda o: PolynomialLRScheduler(o, 7, 1.5, min_lr=0.0),
        lambda o: lr_scheduler.PolynomialLR(o, 7, 1.5),
    ),
    "multistep": (
        lambda o: make("multistep", o, milestones=[2, 5], gamma=0.3),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.3),
    ),
    "joined": (
        lambda o: join_schedulers([make("constant", o), make("cosine", o, num_epochs=4, eta_min=0.01)], [3]),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 1.0), lr_scheduler.CosineAnnealingLR(o, 4, 0.01)], [3]
        ),
    ),
    "warmup_cosine": (
        lambda o: WarmupCosineScheduler(o, 3, 7, min_lr=0.01),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 1 / 4, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 4, 0.01)], [3]
        ),
    ),
    "warmup over cosine": (
        lambda o: WarmupScheduler(o, 3, make("cosine", o, num_epochs=4, eta_min=0.01)),
        lambda o: WarmupCosineScheduler(o, 3, 7, min_lr=0.01),
    ),
    "warmup over linear": (
        lambda o: WarmupScheduler(o, 3, PolynomialLRScheduler(o, 4, power=1.0, min_lr=0.0)),
        lambda o: transformer_schedulers.create_warmup_linear_schedule(o, 3, 7),
    ),
    "warmup over warmup": (
        lambda o: WarmupScheduler(o, 0, WarmupCosineScheduler(o, 3, 7)),
        lambda o: WarmupCosineScheduler(o, 3, 7),
    ),
}


@pytest.mark.parametrize(("build", "build_reference"), REFERENCES.values(), ids=REFERENCES)
def test_matches_torch_or_an_equivalent_schedule(build, build_reference):
    rates = []
    for create in (build, build_reference):
        optimizer = sgd(1.0, 0.1, momentum=0.9)
        # not beyond the end, where torch's schedulers do not keep their last value
        rates.append(trace(optimizer, create(optimizer), 8, observe=lr_and_momentum))
    assert torch.allclose(torch.tensor(rates[0]), torch.tensor(rates[1]), rtol=1e-6, atol=1e-9)


def test_onecycle_with_a_single_increasing_step_starts_at_the_peak():
    optimizer = sgd()
    rates = trace(optimizer, make("onecycle", optimizer, max_lr=1.0, total_steps=10, pct_start=0.1), 10)
    assert rates[0][0] == pytest.approx(1.0)
    assert rates[9][0] == pytest.approx(4e-6)


def test_onecycle_for_an_optimizer_without_momentum():
    optimizer = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    make("onecycle", optimizer, max_lr=[0.5], total_steps=10)
    assert learning_rates(optimizer) == pytest.approx([0.02])


@pytest.mark.parametrize(
    ("name", "settings", "length"),
    [
        ("cosine", {"num_epochs": 6, "eta_min": 1e-3}, 6),
        ("polynomial", {"total_epochs": 6, "min_lr": 1e-3}, 6),
        ("warmup_cosine", {"warmup_epochs": 2, "total_epochs": 6, "min_lr": 1e-3}, 6),
    ],
)
def test_minimum_learning_rate_is_the_same_in_every_group(name, settings, length):
    optimizer = sgd(1.0, 0.01, 1e-4)
    rates = trace(optimizer, make(name, optimizer, **settings), length + 4)
    assert rates[length:] == [pytest.approx([1e-3] * 3, rel=1e-9)] * 4
    factors = [(rate - 1e-3) / (initial - 1e-3) for rate, initial in zip(rates[4], (1.0, 0.01, 1e-4), strict=True)]
    assert factors == pytest.approx([factors[0]] * 3)


def test_plateau_stops_at_minimum_learning_rate():
    optimizer = sgd(1.0, 0.01)
    scheduler = make("plateau", optimizer, mode="min", factor=0.1, patience=0, min_lr=0.001)
    trace(optimizer, scheduler, 6, metrics=[1.0] * 6)
    assert learning_rates(optimizer) == pytest.approx([0.001, 0.001])


MINIMUM_SETTING = {
    "cosine": "eta_min",
    "cosine_restarts": "eta_min",
    "cosine_warmrestarts": "eta_min",
    "plateau": "min_lr",
    "polynomial": "min_lr",
    "warmup_cosine": "min_lr",
}


@pytest.mark.parametrize("name", sorted(set(schedule_names()) - {"warmup"}))
def test_learning_rate_of_zero_stays_zero(name):
    optimizer = sgd(0.0, 1.0)
    scheduler = create_training_scheduler(
        name, optimizer, 5, 1, **({MINIMUM_SETTING[name]: 0.1} if name in MINIMUM_SETTING else {})
    )
    rates = trace(optimizer, scheduler, 8, [0.0] * 8 if name == "plateau" else None)
    assert [rate for rate, _ in rates] == [0.0] * 8
    assert len({rate for _, rate in rates}) > 1 or name == "constant"
    other = sgd(0.0, 1.0)
    make("onecycle", other, max_lr=1.0, total_steps=4)
    assert learning_rates(other) == pytest.approx([0.0, 0.04])


def test_tensor_learning_rate_is_modified_in_place():
    rate = torch.tensor(1.0)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate, foreach=False)
    scheduler = WarmupScheduler(optimizer, 1, make("exponential", optimizer, gamma=0.5))
    seen = [rate.item()]
    for _ in range(2):
        optimizer.step()
        scheduler.step()
        seen.append(rate.item())
    assert optimizer.param_groups[0]["lr"] is rate
    assert seen == [0.5, 1.0, 0.5]


# warmup


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_base_schedule_starts_after_the_warmup(base):
    reference, optimizer = sgd(1.0, 0.1, momentum=0.9), sgd(1.0, 0.1, momentum=0.9)
    base_alone = base(reference)
    expected, metrics = [], metrics_for(base_alone)
    for step in range(8):
        expected.append(learning_rates(reference))
        reference.step()
        step_scheduler(base_alone, metrics and {"val_loss": metrics[step]})
    scheduler = WarmupScheduler(optimizer, 3, base(optimizer))
    assert scheduler.step_unit == scheduler_unit(scheduler) == scheduler_unit(base_alone)
    # the base scheduler receives no metrics during the warmup
    rates = trace(optimizer, scheduler, 11, metrics and [0.0] * 3 + metrics)
    assert rates[3:] == expected
    warmup = torch.tensor(expected[0]) * torch.tensor([[0.25], [0.5], [0.75]])
    torch.testing.assert_close(torch.tensor(rates[:3]), warmup)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_warmup_before_plateau_has_its_mode_and_unit(mode):
    optimizer = sgd()
    scheduler = WarmupScheduler(optimizer, 2, make("plateau", optimizer, mode=mode))
    assert (scheduler.mode, scheduler.step_unit) == (mode, "validation")
    with pytest.raises(TypeError, match="metric"):
        scheduler.step()


# invalid input


@pytest.mark.parametrize(
    ("name", "settings", "error", "parts"),
    [
        ("cosin", {}, ValueError, ["'cosin'", "did you mean 'cosine'", "noam"]),
        ("qqq", {}, ValueError, ["'qqq'", "expected one of: constant, cosine"]),
        (None, {}, TypeError, ["None", "cosine"]),
        ("cosine", {"T_max": 5}, TypeError, ["T_max", "num_epochs", "eta_min=1e-06"]),
        ("onecycle", {"max_lr": 1.0}, TypeError, ["needs total_steps"]),
        ("cosine", {"num_epochs": 0}, ValueError, ["num_epochs is 0"]),
        ("cosine", {"num_epochs": 2.5}, ValueError, ["num_epochs is 2.5", "integer"]),
        ("cosine", {"num_epochs": 5, "eta_min": -1}, ValueError, ["eta_min is -1"]),
        ("cosine_restarts", {"T_0": 0}, ValueError, ["T_0 is 0"]),
        ("cosine_restarts", {"T_mult": 0}, ValueError, ["T_mult is 0"]),
        ("onecycle", {"max_lr": 0, "total_steps": 5}, ValueError, ["max_lr is 0"]),
        ("onecycle", {"max_lr": [1, 2], "total_steps": 5}, ValueError, ["max_lr"]),
        ("onecycle", {"max_lr": 1, "total_steps": 3}, ValueError, ["total_steps is 3", ">= 4"]),
        ("onecycle", {"max_lr": 1, "total_steps": 5, "pct_start": 0.1}, ValueError, ["pct_start is 0.1", ">= 0.2"]),
        ("onecycle", {"max_lr": [-1.0], "total_steps": 5}, ValueError, ["max_lr is -1.0"]),
        ("onecycle", {"max_lr": 1, "total_steps": 5, "pct_start": 1.5}, ValueError, ["pct_start is 1.5", "[0, 1]"]),
        ("step", {"step_size": 0}, ValueError, ["step_size is 0"]),
        ("step", {"gamma": "much"}, ValueError, ["gamma is 'much'"]),
        ("exponential", {"gamma": True}, ValueError, ["gamma is True"]),
        ("exponential", {"gamma": 0}, ValueError, ["gamma is 0", "> 0"]),
        ("plateau", {"mode": "up"}, ValueError, ["unknown mode 'up'", "expected one of: max, min"]),
        ("plateau", {"factor": 1.0}, ValueError, ["factor is 1.0"]),
        ("plateau", {"patience": -1}, ValueError, ["patience is -1"]),
        ("polynomial", {"total_epochs": 5, "power": 0}, ValueError, ["power is 0"]),
        ("polynomial", {"total_epochs": 5, "min_lr": math.nan}, ValueError, ["min_lr is nan"]),
        ("warmup_cosine", {"warmup_epochs": 6, "total_epochs": 5}, ValueError, ["warmup_epochs is 6", "which is 5"]),
        ("warmup_cosine", {"warmup_epochs": -1, "total_epochs": 5}, ValueError, ["warmup_epochs is -1"]),
        ("warmup_linear", {"warmup_epochs": 0, "total_epochs": 0}, ValueError, ["total_epochs is 0"]),
        ("noam", {"warmup_steps": 0}, ValueError, ["warmup_steps is 0"]),
        ("noam", {"d_model": 0}, ValueError, ["d_model is 0"]),
        ("warmup", {"warmup_epochs": 1, "base_scheduler": "cosine"}, TypeError, ["scheduler is 'cosine'"]),
    ],
)
def test_rejects_invalid_settings(name, settings, error, parts):
    for factory in (
        lambda: cnn_schedulers.get_scheduler(name, sgd(), **settings),
        lambda: transformer_schedulers.get_scheduler(sgd(), name, **settings),
        lambda: optimizers.create_scheduler(sgd(), name, **settings),
    ):
        with pytest.raises(error) as caught:
            factory()
        for part in parts:
            assert part in str(caught.value)


def test_swapped_arguments_name_the_other_factory():
    with pytest.raises(TypeError, match=r"swapped.*transformer_schedulers.get_scheduler"):
        cnn_schedulers.get_scheduler(sgd(), "cosine", num_epochs=5)  # type: ignore
    with pytest.raises(TypeError, match=r"swapped.*cnn_schedulers.get_scheduler"):
        transformer_schedulers.get_scheduler("noam", sgd())  # type: ignore
    with pytest.raises(TypeError, match=r"swapped.*cnn_schedulers.get_scheduler"):
        optimizers.create_scheduler("step", sgd())  # type: ignore
    with pytest.raises(TypeError, match=r"expected a torch.optim.Optimizer"):
        cnn_schedulers.get_scheduler("step", "adam")  # type: ignore


def test_warmup_rejects_base_scheduler_of_another_optimizer():
    with pytest.raises(ValueError, match="another optimizer"):
        WarmupScheduler(sgd(), 2, make("step", sgd()))


# -- parameter groups added later -----------------------------------------------------------------------------

ADDED_AT, LAST_STEP = 2, 6


def scheduler_with_added_group(name, n_steps):
    """Step a schedule, adding a group with a tenth of the learning rate after two steps."""
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([parameters[0]], lr=0.1, momentum=0.9)
    settings = {"base_scheduler": lr_scheduler.StepLR(optimizer, 3)} if name == "warmup" else {}
    settings |= {"warmup_epochs": 4} if name == "warmup" else {}
    scheduler = create_training_scheduler(name, optimizer, 8, 2, **settings)
    logs = {"val_loss": 1.0, "val_accuracy": 0.5}
    for step in range(n_steps):
        if step == ADDED_AT:
            optimizer.add_param_group({"params": [parameters[1]], "lr": optimizer.param_groups[0]["lr"] / 10})
        optimizer.step()
        step_scheduler(scheduler, logs)
    return optimizer, scheduler


@pytest.mark.parametrize("name", schedule_names())
def test_groups_added_later_follow_the_schedule(name):
    optimizer, scheduler = scheduler_with_added_group(name, LAST_STEP)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == scheduler.get_last_lr()
    assert 0 < rates[1] < rates[0]


@pytest.mark.parametrize("name", schedule_names())
def test_schedules_with_groups_added_later_resume_exactly(name):
    (expected, _), (saved, scheduler) = (scheduler_with_added_group(name, n) for n in (LAST_STEP, LAST_STEP - 2))
    optimizer, resumed = scheduler_with_added_group(name, ADDED_AT + 1)
    optimizer.load_state_dict(saved.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(2):
        optimizer.step()
        step_scheduler(resumed, {"val_loss": 1.0, "val_accuracy": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in expected.param_groups]


# -- joined schedules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "milestones", "message"),
    [
        (["constant", "step"], [], "there are 2 schedulers and 0 milestones"),
        (["constant", "step", "constant"], [4, 4], r"milestones are \[4, 4\], expected ascending"),
        (["constant", "noam"], [3], "Constant per epoch, Noam per step cannot be joined"),
        (["constant", "plateau"], [3], "Plateau per validation cannot be joined"),
    ],
)
def test_rejects_schedules_that_cannot_be_joined(parts, milestones, message):
    optimizer = sgd()
    with pytest.raises(ValueError, match=message):
        join_schedulers([make(name, optimizer) for name in parts], milestones)


def test_rejects_joined_schedules_of_two_optimizers():
    with pytest.raises(ValueError, match="several optimizers"):
        join_schedulers([make("constant", sgd()), make("step", sgd())], [3])
