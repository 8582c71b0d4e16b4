"""Precision objects: selection, and loss scaling of float16 against values computed by hand."""

import warnings

import pytest
import torch

from whirl.engine.precision import BFloat16, Float16, FullPrecision, LossScaling, choose_precision

CPU = torch.device("cpu")


def test_selects_by_name():
    assert choose_precision(False, CPU).name == "32"
    assert choose_precision("bf16", CPU).name == "bf16"
    assert choose_precision("fp16", CPU).name == "fp16"


@pytest.fixture(params=[True, False], ids=["CPU with bf16", "CPU without bf16"])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param})
    return request.param


def test_mixed_precision_on_a_cpu_needs_bf16_instructions(has_bf16, recwarn):
    assert choose_precision(True, CPU).name == ("bf16" if has_bf16 else "32")
    messages = [str(warning.message) for warning in recwarn]
    unsupported = "this cpu device does not support mixed precision; training in single precision"
    assert messages == ([] if has_bf16 else [unsupported])


def test_on_unsupported_replaces_the_warning(has_bf16, recwarn):
    messages = []
    choose_precision(True, CPU, on_unsupported=messages.append)
    assert len(messages) == (0 if has_bf16 else 1)
    assert not recwarn.list


def test_bf16_context_computes_in_bf16():
    with choose_precision("bf16", CPU).context():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_fp16_scaling_gives_the_same_step_as_fp32():
    """The scale is a power of two, so scaling and unscaling are exact."""
    weights = []
    for mode in (False, "fp16"):
        weight = torch.nn.Parameter(torch.tensor([2.0]))
        sgd = torch.optim.SGD([weight], lr=0.5)
        precision = choose_precision(mode, CPU)
        precision.backward((weight * 3).sum())
        precision.unscale(sgd)
        precision.step(sgd)
        weights.append(weight.item())
    assert weights == [0.5, 0.5]


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
def test_scale_grows_and_backs_off(make):
    """From 8: times 4 after two steps without overflow, halved by an overflow, which also restarts the count."""
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
def test_skipped_step_does_not_change_the_optimizer(make):
    weight = torch.nn.Parameter(torch.ones(3))
    precision, optimizer = Float16(CPU), make([weight])
    assert not step(precision, optimizer, weight, torch.inf)
    assert torch.equal(weight, torch.ones(3))
    assert all(not value.any() for state in optimizer.state.values() for value in state.values())


@optimizers
def test_step_removes_its_hook_and_keeps_others(make):
    weight = torch.nn.Parameter(torch.ones(3))
    precision, optimizer = Float16(CPU), make([weight])
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    step(precision, optimizer, weight, 1.0)
    step(precision, optimizer, weight, 1.0)
    assert calls == [1, 1]
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_scaling_keeps_small_gradients():
    """1e-8 is below the smallest positive float16, 6e-8."""
    gradients = {}
    for name, precision in (("scaled", Float16(CPU)), ("plain", Float16(CPU, LossScaling(1.0)))):
        weight = torch.nn.Parameter(torch.ones(1, 1))
        with precision.context():
            loss = (torch.ones(1, 1) @ weight).float().sum() * 1e-8
        precision.backward(loss)
        precision.unscale(torch.optim.SGD([weight]))
        gradients[name] = weight.grad.item()
    assert gradients == {"scaled": pytest.approx(1e-8, rel=1e-3), "plain": 0.0}


def test_state_round_trip():
    weight = torch.nn.Parameter(torch.ones(3))
    scaling = LossScaling(1000.0, 3.0, 0.3, 2)
    original, loaded = Float16(CPU, scaling), Float16(CPU)
    optimizer = torch.optim.SGD([weight])
    for factor in (1.0, 1.0, torch.inf, 1.0):
        step(original, optimizer, weight, factor)
    loaded.load_state_dict(original.state_dict())
    assert loaded.state_dict() == original.state_dict()
    assert original.state_dict()["_growth_tracker"] == 1
    for precision in (original, loaded):
        step(precision, optimizer, weight, 1.0)  # the second one without overflow
    assert loaded.logs() == original.logs()
    assert loaded.logs()["scale"] == pytest.approx(1000 * 3 * 0.3 * 3)


def test_other_precisions_always_step_and_log_nothing():
    for precision in (FullPrecision(), BFloat16(CPU)):
        weight = torch.nn.Parameter(torch.ones(3))
        assert step(precision, torch.optim.SGD([weight]), weight, 1.0) is True
        assert precision.scaler is None
        assert precision.logs() == precision.state_dict() == {}


def warnings_of(name, device):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert choose_precision(name, device).name == name
    return [str(warning.message) for warning in caught]


def test_slow_precision_warns_once(monkeypatch):
    assert warnings_of("fp16", CPU) == ["float16 is slower than single precision on this cpu device"]
    assert warnings_of("32", CPU) == warnings_of("bf16", torch.device("meta")) == []
    for has, n_warnings in ((True, 0), (False, 1)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has})
        assert len(warnings_of("bf16", CPU)) == n_warnings


def test_accepts_names_and_precision_objects():
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
def test_rejects_settings_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]!r}"):
        LossScaling(**wrong)
