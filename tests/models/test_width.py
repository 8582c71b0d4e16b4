"""Width factors of networks, e.g. for the students of a distillation."""

import pytest
import torch

from whirl.engine.precision import cpu_has_bfloat16
from whirl.models.registry import create_model

NAMES = ["cnn1d", "resnet18_1d", "wdcnn"]


def n_parameters(name, **arguments):
    return sum(p.numel() for p in create_model(name, 11, **arguments).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_number_of_parameters_is_proportional_to_squared_width(name):
    full = n_parameters(name)
    assert n_parameters(name, width=0.5) == pytest.approx(full / 4, rel=0.07)
    assert n_parameters(name, width=0.25) == pytest.approx(full / 16, rel=0.2)
    assert n_parameters(name, width=2.0) == pytest.approx(4 * full, rel=0.07)


@pytest.mark.parametrize("name", NAMES)
def test_width_one_equals_default(name):
    networks = []
    for arguments in ({}, {"width": 1}):
        torch.manual_seed(3)
        networks.append(create_model(name, 5, 2, **arguments).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in networks), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_narrowest_network_returns_logits(name):
    network = create_model(name, 5, 2, width=1e-3).eval()
    assert network(torch.randn(2, 2, 2048)).shape == (2, 5)


@pytest.mark.parametrize(("width", "error"), [(0, ValueError), (-1.0, ValueError), (float("nan"), ValueError),
                                              ("1", TypeError), (True, TypeError)])  # fmt: skip
def test_rejects_invalid_width(width, error):
    with pytest.raises(error, match="width is"):
        create_model("wdcnn", 5, width=width)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("length", [64, 128, 256, 512, 1024, 2048])
def test_bfloat16_gradients_are_close_to_float32(length):
    """torch 2.13 leaves some gradients of layers with an input of length 1 uninitialized."""
    torch.manual_seed(0)
    network, signals = create_model("cnn1d", 4, dropout=0.0), torch.randn(16, 1, length)
    network.eval()  # with batch statistics the gradient would be small
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        garbage = torch.full((4_000_000,), torch.nan)  # content of uninitialized memory
        del garbage
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = network(signals).float().square().mean()
        gradients[dtype] = torch.autograd.grad(loss, list(network.parameters()))
    for exact, reduced in zip(*gradients.values(), strict=True):
        assert (reduced - exact).norm() < 0.4 * exact.norm()  # tolerance for rounding in nine layers
