"""Narrower forms of a network, for students."""

import pytest
import torch

from whirl.engine.precision import cpu_has_bfloat16
from whirl.models.registry import create_model

NAMES = ["cnn1d", "resnet18_1d", "wdcnn"]


def n_parameters(name, **arguments):
    return sum(p.numel() for p in create_model(name, 11, **arguments).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_go_with_the_square_of_the_width(name):
    whole = n_parameters(name)
    assert n_parameters(name, width=0.5) == pytest.approx(whole / 4, rel=0.07)
    assert n_parameters(name, width=0.25) == pytest.approx(whole / 16, rel=0.2)
    assert n_parameters(name, width=2.0) == pytest.approx(4 * whole, rel=0.07)


@pytest.mark.parametrize("name", NAMES)
def test_full_width_is_the_network_itself(name):
    networks = []
    for arguments in ({}, {"width": 1}):
        torch.manual_seed(3)
        networks.append(create_model(name, 5, 2, **arguments).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in networks), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_narrowest_still_answers(name):
    network = create_model(name, 5, 2, width=1e-3).eval()
    assert network(torch.randn(2, 2, 2048)).shape == (2, 5)


@pytest.mark.parametrize(("width", "error"), [(0, ValueError), (-1.0, ValueError), (float("nan"), ValueError),
                                              ("1", TypeError), (True, TypeError)])  # fmt: skip
def test_bad_widths(width, error):
    with pytest.raises(error, match="width is"):
        create_model("wdcnn", 5, width=width)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no instructions for bfloat16")
@pytest.mark.parametrize("length", [64, 128, 256, 512, 1024, 2048])
def test_gradients_in_bfloat16_are_those_of_single_precision(length):
    """torch 2.13 leaves some gradients of layers with an input 1 long uninitialised."""
    torch.manual_seed(0)
    network, signals = create_model("cnn1d", 4, dropout=0.0), torch.randn(16, 1, length)
    network.eval()  # the statistics of a batch would make its gradient small
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        garbage = torch.full((4_000_000,), torch.nan)  # what uninitialised memory then holds
        del garbage
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = network(signals).float().square().mean()
        gradients[dtype] = torch.autograd.grad(loss, list(network.parameters()))
    for exact, reduced in zip(*gradients.values(), strict=True):
        assert (reduced - exact).norm() < 0.4 * exact.norm()  # rounding of nine layers; garbage is far off
