"""Scaling of float16 losses: small gradients kept, overflows skipped, the scale as computed by hand."""

import warnings

import pytest
import torch

from whirl.engine.precision import BFloat16, Float16, FullPrecision, LossScaling, choose_precision

CPU = torch.device("cpu")

OPTIMIZERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.5),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.5),
    "fused": lambda weights: torch.optim.AdamW(weights, lr=0.5, fused=True),
}
optimizers = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def step(precision, optimizer, weight, factor):
    optimizer.zero_grad()
    precision.backward((weight * factor).sum())
    precision.unscale(optimizer)
    return precision.step(optimizer)


@optimizers
def test_the_scale_follows_the_rule(make):
    """8, grown fourfold after two good steps in a row, halved by an overflow, which also starts the count again."""
    weight = torch.nn.Parameter(torch.ones(3))
    precision, optimizer = Float16(CPU, LossScaling(8.0, 4.0, 0.5, 2)), make([weight])
    taken, scales, moved = [], [], []
    for factor in (1.0, 1.0, torch.inf, 1.0, torch.nan, 1.0, 1.0):
        before = weight.detach().clone()
        taken.append(step(precision, optimizer, weight, factor))
        scales.append(precision.scaler.get_scale())
        moved.append(not torch.equal(before, weight))
        assert precision.last_step_skipped is not taken[-1]
    assert taken == moved == [True, True, False, True, False, True, True]
    assert scales == [8, 32, 16, 16, 8, 8, 32]
    assert precision.logs() == {"scale": 32.0, "skipped_steps": 2}


@optimizers
def test_a_skipped_step_leaves_no_trace_in_the_optimizer(make):
    weight = torch.nn.Parameter(torch.ones(3))
    precision, optimizer = Float16(CPU), make([weight])
    assert not step(precision, optimizer, weight, torch.inf)
    assert torch.equal(weight, torch.ones(3))
    assert all(not value.any() for state in optimizer.state.values() for value in state.values())


@optimizers
def test_a_step_leaves_no_hook_and_obeys_foreign_ones(make):
    weight = torch.nn.Parameter(torch.ones(3))
    precision, optimizer = Float16(CPU), make([weight])
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    step(precision, optimizer, weight, 1.0)
    step(precision, optimizer, weight, 1.0)
    assert calls == [1, 1]
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_scaling_keeps_gradients_that_float16_would_lose():
    """1e-8 is below float16's smallest number, 6e-8."""
    gradients = {}
    for name, precision in (("scaled", Float16(CPU)), ("plain", Float16(CPU, LossScaling(1.0)))):
        weight = torch.nn.Parameter(torch.ones(1, 1))
        with precision.context():
            loss = (torch.ones(1, 1) @ weight).float().sum() * 1e-8
        precision.backward(loss)
        precision.unscale(torch.optim.SGD([weight]))
        gradients[name] = weight.grad.item()
    assert gradients == {"scaled": pytest.approx(1e-8, rel=1e-3), "plain": 0.0}


def test_the_state_comes_back_to_the_bit():
    weight = torch.nn.Parameter(torch.ones(3))
    scaling = LossScaling(1000.0, 3.0, 0.3, 2)
    there, back = Float16(CPU, scaling), Float16(CPU)
    optimizer = torch.optim.SGD([weight])
    for factor in (1.0, 1.0, torch.inf, 1.0):
        step(there, optimizer, weight, factor)
    back.load_state_dict(there.state_dict())
    assert back.state_dict() == there.state_dict()
    assert there.state_dict()["_growth_tracker"] == 1
    for precision in (there, back):
        step(precision, optimizer, weight, 1.0)  # the second good one in a row
    assert back.logs() == there.logs()
    assert back.logs()["scale"] == pytest.approx(1000 * 3 * 0.3 * 3)


def test_others_always_step_and_log_nothing():
    for precision in (FullPrecision(), BFloat16(CPU)):
        weight = torch.nn.Parameter(torch.ones(3))
        assert step(precision, torch.optim.SGD([weight]), weight, 1.0) is True
        assert precision.scaler is None
        assert precision.logs() == precision.state_dict() == {}


def warned(name, device):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert choose_precision(name, device).name == name
    return [str(warning.message) for warning in caught]


def test_a_slow_precision_is_told_once(monkeypatch):
    """The processor cannot be changed: what it says of itself is."""
    assert warned("fp16", CPU) == ["float16 is slower than single precision on this cpu device"]
    assert warned("32", CPU) == warned("bf16", torch.device("meta")) == []
    for has, n_warnings in ((True, 0), (False, 1)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has})
        assert len(warned("bf16", CPU)) == n_warnings


def test_names_and_objects():
    assert choose_precision("32", CPU).name == "32"
    own = Float16(CPU)
    assert choose_precision(own, CPU) is own
    assert choose_precision("fp16", CPU, LossScaling(4.0)).logs()["scale"] == 4.0
    for wrong in ("fp8", "auto", None, 1, 0):
        with pytest.raises(ValueError, match="expected True, False, '32', 'fp16' or 'bf16'"):
            choose_precision(wrong, CPU)


@pytest.mark.parametrize(
    "wrong",
    [
        {"init_scale": 0.0},
        {"init_scale": float("nan")},
        {"init_scale": float("inf")},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"backoff_factor": 0.0},
        {"growth_interval": 0},
        {"growth_interval": 2.0},
    ],
    ids=str,
)
def test_settings_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]!r}"):
        LossScaling(**wrong)
