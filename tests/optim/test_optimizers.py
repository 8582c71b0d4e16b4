"""The deprecated optimizer factory equals its replacement; the scheduler factory has the documented names."""

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from whirl.optim import cnn_optimizer
from whirl.optim.optimizers import create_optimizer, create_scheduler

ADAM = {"optimizer_type": "adam", "lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9)}
SGD = {"optimizer_type": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.5}


@pytest.mark.parametrize("settings", [ADAM, SGD], ids=["adam", "sgd"])
def test_deprecated_factory_equals_its_replacement(settings):
    model = torch.nn.Linear(3, 2)
    with pytest.warns(DeprecationWarning, match="cnn_optimizer.create_optimizer"):
        old = create_optimizer(model, **settings)
    new = cnn_optimizer.create_optimizer(model_params=model.parameters(), **settings)
    assert type(old) is type(new)
    assert old.state_dict() == new.state_dict()
    assert old.param_groups[0]["params"][0] is model.weight


def test_deprecated_factory_defaults_and_warning_location():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = create_optimizer(torch.nn.Linear(3, 2))
    assert [warning.filename for warning in caught] == [__file__]
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-3, 0)


def test_swapped_arguments_name_the_other_factory():
    with pytest.raises(TypeError, match=r"model is a str, .*cnn_optimizer.create_optimizer takes the name first"):
        create_optimizer("adam", torch.nn.Linear(3, 2))  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("step", lr_scheduler.StepLR, {}),
        ("cosine", lr_scheduler.CosineAnnealingLR, {"num_epochs": 5}),
        ("plateau", lr_scheduler.ReduceLROnPlateau, {}),
        ("onecycle", lr_scheduler.OneCycleLR, {"max_lr": 0.1, "total_steps": 5}),
        ("cosine_restarts", lr_scheduler.CosineAnnealingWarmRestarts, {}),
    ],
)
def test_create_scheduler_by_name(name, kind, settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert isinstance(create_scheduler(optimizer, name, **settings), kind)


def test_default_scheduler_is_step_decay_every_ten_epochs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = create_scheduler(optimizer)
    assert isinstance(scheduler, lr_scheduler.StepLR)
    assert (scheduler.step_size, scheduler.gamma) == (10, 0.1)
