"""Schedules and optimizers beside those of other libraries.

Schedules of torch are stepped beside ours. The learning rates of transformers, optax, timm and Keras are computed by
their documented formulas; steps are counted from 0.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as theirs

from tests.optim.schedules import lr_and_momentum, make, sgd, trace
from whirl.optim import SAM, get_layer_decay_groups, get_parameter_groups, join_schedulers
from whirl.optim.cnn_optimizer import create_optimizer

N_STEPS = 13

# -- torch: name and settings of ours, and the scheduler of torch ---------------------------------------------------

OF_TORCH = {
    "StepLR": ("step", {"step_size": 3, "gamma": 0.1}, lambda o: theirs.StepLR(o, 3)),
    "StepLR, every epoch": ("step", {"step_size": 1, "gamma": 0.7}, lambda o: theirs.StepLR(o, 1, 0.7)),
    "MultiStepLR": ("multistep", {"milestones": [2, 5, 9]}, lambda o: theirs.MultiStepLR(o, [2, 5, 9])),
    "MultiStepLR, unsorted and twice": (
        "multistep", {"milestones": [6, 3, 6], "gamma": 0.5}, lambda o: theirs.MultiStepLR(o, [6, 3, 6], 0.5)),
    "ExponentialLR": ("exponential", {"gamma": 0.9}, lambda o: theirs.ExponentialLR(o, 0.9)),
    "ConstantLR": ("constant", {}, lambda o: theirs.ConstantLR(o, 1.0)),
    "CosineAnnealingLR": (
        "cosine", {"num_epochs": 12, "eta_min": 0.01}, lambda o: theirs.CosineAnnealingLR(o, 12, 0.01)),
    "CosineAnnealingLR to 0": ("cosine", {"num_epochs": 12, "eta_min": 0}, lambda o: theirs.CosineAnnealingLR(o, 12)),
    "CosineAnnealingWarmRestarts": (
        "cosine_restarts", {"T_0": 4, "T_mult": 1, "eta_min": 0}, lambda o: theirs.CosineAnnealingWarmRestarts(o, 4)),
    "CosineAnnealingWarmRestarts, T_mult 2": (
        "cosine_restarts", {"T_0": 2, "T_mult": 2, "eta_min": 0.1},
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 2, 2, 0.1)),
    "PolynomialLR": (
        "polynomial", {"total_epochs": 8, "power": 1, "min_lr": 0}, lambda o: theirs.PolynomialLR(o, 8)),
    "PolynomialLR, power 3": (
        "polynomial", {"total_epochs": 8, "power": 3, "min_lr": 0}, lambda o: theirs.PolynomialLR(o, 8, 3)),
    "OneCycleLR": ("onecycle", {"max_lr": 2.0, "total_steps": 13}, lambda o: theirs.OneCycleLR(o, 2.0, 13)),
    "OneCycleLR, pct_start 0.5": (
        "onecycle", {"max_lr": 0.5, "total_steps": 13, "pct_start": 0.5},
        lambda o: theirs.OneCycleLR(o, 0.5, 13, pct_start=0.5)),
    "OneCycleLR, a peak for each group": (
        "onecycle", {"max_lr": [2.0, 0.2], "total_steps": 13}, lambda o: theirs.OneCycleLR(o, [2.0, 0.2], 13)),
    "LinearLR after the warmup": (
        "warmup_linear", {"warmup_epochs": 0, "total_epochs": 8}, lambda o: theirs.LinearLR(o, 1.0, 0.0, 8)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "of_torch"), OF_TORCH.values(), ids=OF_TORCH)
def test_schedule_of_torch(name, settings, of_torch):
    curves = []
    for create in (lambda optimizer: make(name, optimizer, **settings), of_torch):
        optimizer = sgd(1.0, 0.1, momentum=0.9)
        curves.append(trace(optimizer, create(optimizer), N_STEPS, observe=lr_and_momentum)[:N_STEPS])
    for ours, expected in zip(*curves, strict=True):
        for own, other in zip(ours, expected, strict=True):
            assert own == pytest.approx(other, abs=1e-12)


METRICS = {
    "steady": [1.0] * N_STEPS,
    "improving": [1 / (n + 1) for n in range(N_STEPS)],
    "alternating": [0.5 + n % 2 for n in range(N_STEPS)],
    "with NaN": [1.0, math.nan, 0.9, math.nan, math.nan, 0.8, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1, 0.1],
}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("metrics", METRICS.values(), ids=METRICS)
def test_reduce_on_plateau_of_torch(metrics, patience, mode):
    ours, expected = sgd(1.0, 0.1), sgd(1.0, 0.1)
    schedule = make("plateau", ours, mode=mode, factor=0.5, patience=patience, min_lr=0.02)
    of_torch = theirs.ReduceLROnPlateau(expected, mode, 0.5, patience, min_lr=0.02)
    assert trace(ours, schedule, N_STEPS, metrics) == trace(expected, of_torch, N_STEPS, metrics)


JOINED = {
    "constant, exponential": [("constant", {}), ("exponential", {"gamma": 0.5})],
    "cosine, step": [("cosine", {"num_epochs": 5}), ("step", {"step_size": 2})],
    "exponential, multistep": [("exponential", {}), ("multistep", {"milestones": [3]})],
    "step, cosine restarts": [("step", {}), ("cosine_restarts", {"T_0": 3})],
}
BY_TORCH = {
    "constant": lambda o, **_: theirs.ConstantLR(o, 1.0),
    "exponential": lambda o, gamma=0.95: theirs.ExponentialLR(o, gamma),
    "cosine": lambda o, num_epochs: theirs.CosineAnnealingLR(o, num_epochs, 1e-6),
    "step": lambda o, step_size=10: theirs.StepLR(o, step_size),
    "multistep": lambda o, milestones: theirs.MultiStepLR(o, milestones),
    "cosine_restarts": lambda o, T_0: theirs.CosineAnnealingWarmRestarts(o, T_0, 2, 1e-6),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("parts", JOINED.values(), ids=JOINED)
def test_sequential_of_torch(parts):
    ours, expected = sgd(), sgd()
    joined = join_schedulers([make(name, ours, **settings) for name, settings in parts], [5])
    sequential = theirs.SequentialLR(expected, [BY_TORCH[name](expected, **kw) for name, kw in parts], [5])
    for own, other in zip(trace(ours, joined, N_STEPS), trace(expected, sequential, N_STEPS), strict=True):
        assert own == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("name", ["step", "exponential", "multistep", "constant", "polynomial", "cosine"])
def test_chained_of_torch(name):
    """Beside a halving at every step; both multiply the learning rate that the other has left."""
    settings = {"cosine": {"num_epochs": 8}, "multistep": {"milestones": [2]}, "polynomial": {"total_epochs": 8}}
    ours, expected = sgd(), sgd()
    schedules = [make(name, ours, **settings.get(name, {})), theirs.ExponentialLR(ours, 0.5)]
    of_torch = BY_TORCH | {"polynomial": lambda o, total_epochs: theirs.PolynomialLR(o, total_epochs, 2.0)}
    others = [of_torch[name](expected, **settings.get(name, {})), theirs.ExponentialLR(expected, 0.5)]
    curves = trace(ours, theirs.ChainedScheduler(schedules), 7), trace(expected, theirs.ChainedScheduler(others), 7)
    for own, other in zip(*curves, strict=True):
        assert own == pytest.approx(other, abs=2e-7)  # our polynomial ends at 1e-7


# -- other libraries: name and settings of ours, learning rate at step e, first step compared ------------------------


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


# transformers counts the warmup of W steps from 0 and ours from 1 / (W + 1), so that no step has a learning rate of 0:
# both have the same figures from step W on.
OTHERS = {
    "transformers linear_schedule_with_warmup": (
        "warmup_linear", {"warmup_epochs": 2, "total_epochs": 10}, lambda e: (10 - e) / 8 if e < 10 else 0, 2),
    "transformers cosine_schedule_with_warmup": (
        "warmup_cosine", {"warmup_epochs": 2, "total_epochs": 10, "min_lr": 0},
        lambda e: cosine((e - 2) / 8) if e < 10 else 0, 2),
    "transformers cosine_with_min_lr": (
        "warmup_cosine", {"warmup_epochs": 2, "total_epochs": 10, "min_lr": 0.1},
        lambda e: 0.1 + 0.9 * cosine((e - 2) / 8) if e < 10 else 0.1, 2),
    "transformers cosine_with_hard_restarts": (
        "cosine_restarts", {"T_0": 4, "T_mult": 1, "eta_min": 0}, lambda e: cosine(e % 4 / 4), 0),
    "transformers inverse_sqrt_schedule": (
        "inverse_sqrt", {"warmup_steps": 4}, lambda e: 1 / math.sqrt(e / 4), 4),
    "transformers inverse_sqrt_schedule with timescale": (
        "inverse_sqrt", {"warmup_steps": 2, "timescale": 5}, lambda e: 1 / math.sqrt((e + 3) / 5), 2),
    "transformers polynomial_decay, power 2": (
        "polynomial", {"total_epochs": 8, "power": 2, "min_lr": 1e-7},
        lambda e: (1 - 1e-7) * (1 - e / 8) ** 2 + 1e-7 if e < 8 else 1e-7, 0),
    "transformers constant_schedule": ("constant", {}, lambda e: 1, 0),
    "optax polynomial_schedule": (
        "polynomial", {"total_epochs": 6, "power": 3, "min_lr": 0.2},
        lambda e: 0.8 * (1 - min(e, 6) / 6) ** 3 + 0.2, 0),
    "optax linear_schedule": (
        "polynomial", {"total_epochs": 6, "power": 1, "min_lr": 0.5}, lambda e: 1 - 0.5 * min(e, 6) / 6, 0),
    "optax cosine_decay_schedule with alpha": (
        "cosine", {"num_epochs": 6, "eta_min": 0.1}, lambda e: 0.9 * cosine(min(e, 6) / 6) + 0.1, 0),
    "optax exponential_decay": ("exponential", {"gamma": 0.8}, lambda e: 0.8**e, 0),
    "optax exponential_decay, staircase": ("step", {"step_size": 4, "gamma": 0.8}, lambda e: 0.8 ** (e // 4), 0),
    "optax piecewise_constant_schedule": (
        "multistep", {"milestones": [3, 7], "gamma": 0.1}, lambda e: 0.1 ** ((e >= 3) + (e >= 7)), 0),
    "optax sgdr_schedule of periods 2, 4, 8": (
        "cosine_restarts", {"T_0": 2, "eta_min": 0},
        lambda e: cosine(e / 2) if e < 2 else cosine((e - 2) / 4) if e < 6 else cosine((e - 6) / 8), 0),
    "timm CosineLRScheduler": (
        "cosine", {"num_epochs": 10, "eta_min": 1e-5},
        lambda e: 1e-5 + 0.5 * (1 - 1e-5) * (1 + math.cos(math.pi * min(e, 10) / 10)), 0),
    "timm StepLRScheduler": ("step", {"step_size": 5, "gamma": 0.3}, lambda e: 0.3 ** (e // 5), 0),
    "timm PolyLRScheduler, power 0.5": (
        "polynomial", {"total_epochs": 8, "power": 0.5, "min_lr": 0}, lambda e: (1 - min(e, 8) / 8) ** 0.5, 0),
    "Keras CosineDecay": (
        "cosine", {"num_epochs": 5, "eta_min": 0.25}, lambda e: 0.75 * cosine(min(e, 5) / 5) + 0.25, 0),
    "Keras PolynomialDecay": (
        "polynomial", {"total_epochs": 5, "power": 0.5, "min_lr": 1e-4},
        lambda e: (1 - 1e-4) * (1 - min(e, 5) / 5) ** 0.5 + 1e-4, 0),
    "Keras ExponentialDecay": ("exponential", {"gamma": 0.96 ** (1 / 3)}, lambda e: 0.96 ** (e / 3), 0),
    "Keras PiecewiseConstantDecay": (
        "multistep", {"milestones": [4], "gamma": 0.5}, lambda e: 1 if e < 4 else 0.5, 0),
    "Attention Is All You Need": (
        "noam", {"d_model": 64, "warmup_steps": 4},
        lambda e: 64**-0.5 * min((e + 1) ** -0.5, (e + 1) * 4**-1.5), 0),
}  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "rate", "first"), OTHERS.values(), ids=OTHERS)
def test_schedule_of_other_library(name, settings, rate, first):
    optimizer = sgd()
    curve = [lr for (lr,) in trace(optimizer, make(name, optimizer, **settings), N_STEPS)]
    assert curve[first:] == pytest.approx([rate(e) for e in range(first, N_STEPS)], abs=1e-9)
    assert all(0 < early <= late for early, late in pairwise(curve[: first + 1]))


# -- optimizers -----------------------------------------------------------------------------------------------------

SETTINGS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99)}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "weight_decay": 0.1, "alpha": 0.9}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1, "weight_decay": 0.01}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01, "weight_decay": 0.01}),
    "radam": (torch.optim.RAdam, {"lr": 0.01, "weight_decay": 0.01}),
    "adamax": (torch.optim.Adamax, {"lr": 0.01, "weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_optimizer_of_torch(name):
    kind, settings = SETTINGS[name]
    weights = [nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64)) for _ in range(2)]
    optimizers = create_optimizer(name, [weights[0]], **settings), kind([weights[1]], **settings)
    for weight, optimizer in zip(weights, optimizers, strict=True):
        for _ in range(5):
            weight.grad = (weight.detach() - 0.3) ** 3
            optimizer.step()
    torch.testing.assert_close(*weights)


def test_sharpness_aware_step_by_hand():
    """Foret et al. 2021: the gradient at w + rho g / |g|. For w⁴/4 at w = 2: (2 + rho)³."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = SAM(torch.optim.SGD([weight], lr=0.1), rho=0.5)
    optimizer.sharpen((weight**4).sum() / 4, lambda: (weight**4).sum() / 4).backward()
    assert weight.grad.item() == pytest.approx(2.5**3)
    optimizer.step()
    assert weight.item() == pytest.approx(2 - 0.1 * 2.5**3)


def network():
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))


def test_weight_decay_groups_of_timm():
    """As `param_groups_weight_decay`: one-dimensional parameters and biases do not decay."""
    decaying, others = get_parameter_groups(network(), 0.1, 0.05)
    assert [p.ndim for p in decaying["params"]] == [3, 2]
    assert [p.ndim for p in others["params"]] == [1, 1, 1, 1]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.05, 0)


@pytest.mark.parametrize("decay", [0.5, 0.75, 1.0])
def test_layer_decay_of_timm(decay):
    """As `param_groups_layer_decay`: the factor of a layer is `decay` to the power of its distance from the output."""
    groups = get_layer_decay_groups(network(), 1.0, decay)
    assert [group["lr"] for group in groups] == [decay ** (len(groups) - 1 - i) for i in range(len(groups))]
    assert groups[-1]["lr"] == 1.0


def test_layer_decay_of_numpy_numbers_can_be_saved_without_pickle():
    groups = get_layer_decay_groups(network(), np.float32(0.5), np.array(0.5))
    assert [type(group["lr"]) for group in groups] == [float] * len(groups)
