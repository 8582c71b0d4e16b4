"""Random states of a process and of a loader."""

import random

import numpy as np
import pytest
import torch

from whirl.engine.files import load_checkpoint_file, save_checkpoint_file
from whirl.engine.random_state import get_random_state, set_random_state


def test_restores_python_numpy_torch_and_loader():
    loader = torch.utils.data.DataLoader(list(range(8)), shuffle=True, generator=torch.Generator().manual_seed(1))

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item(), [int(x) for x in loader]  # noqa: NPY002

    state = get_random_state(loader)
    first = draw()
    assert draw() != first
    set_random_state(state, loader)
    assert draw() == first


@pytest.mark.skipif(not torch.mps.is_available(), reason="needs Apple's MPS")
def test_restores_mps():
    state = get_random_state()
    first = torch.rand(3, device="mps").cpu()
    set_random_state(state)
    assert torch.equal(torch.rand(3, device="mps").cpu(), first)


def test_loads_random_states_without_mps():
    state = get_random_state()
    first = torch.rand(3)
    del state["mps"]
    set_random_state(state)
    assert torch.equal(torch.rand(3), first)


def test_random_states_round_trip_through_a_file(tmp_path):
    save_checkpoint_file(tmp_path / "r.pt", get_random_state())
    first = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    set_random_state(load_checkpoint_file(tmp_path / "r.pt"))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first  # noqa: NPY002
