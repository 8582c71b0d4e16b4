"""Tests of the search for augmentation policies."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whirl.augment.policies import AutoAugment
from whirl.tuning.augmentation_policy import search_policy


def generator(seed):
    return torch.Generator().manual_seed(seed)


def polarity_task(n, flipped):
    """Two pulse shapes; training holds one polarity, validation both, so only polarity_flip helps."""
    draws = generator(n)
    labels = torch.arange(n) % 2
    time = torch.linspace(0, 1, 32)
    shapes = torch.stack([torch.exp(-((time - 0.3) ** 2) / 0.01), torch.exp(-((time - 0.7) ** 2) / 0.01)])
    signals = shapes[labels] + 0.1 * torch.randn(n, 32, generator=draws)
    if flipped:
        signals *= torch.randint(0, 2, (n, 1), generator=draws) * 2 - 1
    return DataLoader(TensorDataset(signals[:, None], labels), batch_size=32)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))


def test_finds_operation_that_validation_needs():
    policy = search_policy(
        network,
        polarity_task(256, flipped=False),
        polarity_task(128, flipped=True),
        epochs=12,
        n_trials=12,
        n_sub_policies=1,
        operations=["scale", "polarity_flip", "white_noise"],
        device="cpu",
    )
    assert any(name == "polarity_flip" for steps in policy for name, _, _ in steps)
    AutoAugment(policy)


def test_returns_empty_policy_if_nothing_was_better():
    data = polarity_task(64, flipped=False)
    state = torch.get_rng_state()
    policy = search_policy(network, data, data, epochs=1, n_trials=1, device="cpu")
    assert policy == [[]]
    assert torch.equal(state, torch.get_rng_state())


def test_rejects_invalid_arguments():
    data = polarity_task(8, flipped=False)
    with pytest.raises(ValueError, match="n_trials is 0, expected an integer >= 1"):
        search_policy(network, data, data, n_trials=0)
    with pytest.raises(ValueError, match=r"unknown operation 'flip'.*xpected one of"):
        search_policy(network, data, data, operations=["flip"])
