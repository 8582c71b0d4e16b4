"""Narrower forms of a network, for students."""

import pytest
import torch

from packages.core.models.registry import create_model

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
