"""first_nonfinite_module: finds the module, and leaves network and random state unchanged."""

import pytest
import torch
from torch import nn

from whirl.engine.nonfinite import first_nonfinite_module
from whirl.models.registry import create_model


class Logarithm(nn.Module):
    def forward(self, x):
        return {"scale": 1.0, "logs": (x.double(), [x.log()])}


class Root(nn.Module):
    """Overflows in its own arithmetic; its submodules are finite."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x):
        return self.inner(x) / 0


def network():
    torch.manual_seed(0)
    block = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(3, 3))
    return nn.Sequential(nn.Linear(4, 3), block, nn.Linear(3, 2))


@pytest.mark.parametrize("name", ["0", "1.0", "1.3", "2"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_names_the_first_leaf(name, value):
    model = network()
    with torch.no_grad():
        model.get_submodule(name).weight.fill_(value)
        model[2].weight[0, 0] = torch.nan  # a later module, which must not be named
    assert first_nonfinite_module(model, lambda: model(torch.randn(8, 4))) == name


def test_returns_none_for_finite_outputs():
    model = network()
    assert first_nonfinite_module(model, lambda: model(torch.randn(8, 4)).sum() * torch.inf) is None


def test_searches_nested_outputs():
    model = nn.Sequential(nn.ReLU(), Logarithm())
    assert first_nonfinite_module(model, lambda: model(torch.tensor([1.0]))) is None
    assert first_nonfinite_module(model, lambda: model(torch.tensor([-1.0]))) == "1"


def test_names_the_class_for_its_own_arithmetic():
    model = Root()
    assert first_nonfinite_module(model, lambda: model(torch.ones(1))) == "Root"


def test_fp16_overflow_needs_its_autocast():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    nn.init.constant_(model[1].weight, 4e4)
    run = lambda: model(torch.full((1, 4), 30.0))  # noqa: E731
    nn.init.ones_(model[0].weight)

    def run_fp16():
        with torch.autocast("cpu", torch.float16):
            run()

    assert first_nonfinite_module(model, run) is None
    assert first_nonfinite_module(model, run_fp16) == "1"


def test_restores_modes_buffers_and_random_state():
    model = create_model("wdcnn", 4)
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()

    def run():
        model.train()
        model(torch.full((4, 1, 2048), torch.nan))

    assert first_nonfinite_module(model, run) is not None
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in model.modules())


def test_restores_buffers_and_random_state_after_an_error():
    model = network()
    mean, random_state = model[1][0].running_mean.clone(), torch.get_rng_state()

    def run():
        model(torch.randn(8, 4))
        raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        first_nonfinite_module(model, run)
    assert torch.equal(model[1][0].running_mean, mean)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in model.modules())


def test_runs_with_the_current_random_state():
    model, drawn = nn.Sequential(nn.Identity()), []
    first_nonfinite_module(model, lambda: drawn.append(torch.rand(3)))
    assert torch.equal(drawn[0], torch.rand(3))
