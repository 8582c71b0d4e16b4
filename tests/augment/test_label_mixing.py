import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import binomtest, kstest

from whirl.augment.label_mixing import as_distributions, beta_weights, draw_partners, mix_labels
from whirl.augment.signal_mixing import MixupAugmentation, cutmix_samples
from whirl.engine.batch import Batch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_indices_are_one_hot_encoded(dtype):
    labels = torch.tensor([2, 0, 2], dtype=dtype)
    assert torch.equal(as_distributions(labels), torch.eye(3)[[2, 0, 2]])
    assert torch.equal(as_distributions(labels, 5, torch.float64), torch.eye(5, dtype=torch.float64)[[2, 0, 2]])


def test_class_weights_are_unchanged():
    weights = torch.rand(3, 4)
    assert torch.equal(as_distributions(weights), weights)
    assert as_distributions(weights.half(), 4).dtype == torch.float32
    assert as_distributions(torch.zeros(0, dtype=torch.int64), 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("labels", "num_classes", "error", "message"),
    [
        (torch.tensor([0, 3]), 3, ValueError, r"labels range from 0 to 3, expected 0\.\.2"),
        (torch.tensor([-1, 1]), None, ValueError, "labels range from -1"),
        (torch.rand(2, 3), 4, ValueError, "weights for 3 classes, but num_classes is 4"),
        (torch.tensor(1), None, ValueError, "expected indices"),
        (torch.rand(2), None, TypeError, "torch.float32"),
        (torch.ones(2, 3, dtype=torch.int64), None, TypeError, "torch.int64"),
        (torch.tensor([True, False]), 2, TypeError, "torch.bool"),
    ],
)
def test_rejects_invalid_labels(labels, num_classes, error, message):
    with pytest.raises(error, match=message):
        as_distributions(labels, num_classes)


def test_mixes_indices_with_class_weights():
    first, second = torch.tensor([0, 1]), torch.tensor([2, 1])
    share = torch.tensor([0.25, 0.1])
    expected = torch.tensor([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]])
    assert torch.equal(mix_labels(first, second, share), expected)  # the first labels alone have two classes only
    assert torch.equal(mix_labels(first, as_distributions(second), share), expected)
    assert torch.equal(mix_labels(as_distributions(first, 3), second, share), expected)


@pytest.mark.parametrize(
    ("first", "second", "num_classes", "message"),
    [
        (torch.tensor([0]), torch.tensor([0, 1]), None, "1 first labels, but 2 second labels"),
        (torch.rand(2, 3), torch.rand(2, 4), None, "weights for 4 classes"),
        (torch.rand(2, 3), torch.tensor([0, 3]), None, "from 0 to 3"),
        (torch.rand(2, 3), torch.rand(2, 3), 4, "num_classes is 4"),
    ],
)
def test_rejects_mismatched_labels(first, second, num_classes, message):
    with pytest.raises(ValueError, match=message):
        mix_labels(first, second, torch.rand(len(first)), num_classes)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 8.0])
def test_weights_follow_beta_distribution(alpha):
    weights = beta_weights(20_000, alpha, generator=seeded(1)).double().numpy()
    lower = weights[weights < 0.5]  # single precision is coarse near 1, where the weights concentrate for small alpha
    assert binomtest(len(lower), len(weights)).pvalue > 0.001
    assert kstest(lower, lambda w: 2 * beta_distribution(alpha, alpha).cdf(w)).pvalue > 0.001


@pytest.mark.parametrize(("alpha", "limits"), [(1e-3, (0, 1)), (1e-30, (0, 1)), (1e-320, (0, 1)), (1e38, (0.5, 0.5))])
def test_limits_for_small_and_large_alpha(alpha, limits):
    weights = beta_weights(10_000, alpha, generator=seeded(2)).numpy()
    near = [np.isclose(weights, limit, atol=1e-3) for limit in limits]
    assert np.mean(near[0] | near[1]) > 0.98
    assert np.mean(weights) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_equal_generators_give_equal_weights(alpha):
    draws = [beta_weights(5, alpha, generator=seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_rejects_invalid_alpha(alpha):
    with pytest.raises(ValueError, match="alpha is"):
        beta_weights(2, alpha)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 16])
def test_partners_are_a_permutation_without_fixed_points(n):
    for _ in range(8):
        partners = draw_partners(n)
        assert sorted(partners.tolist()) == list(range(n))
        assert n < 2 or not (partners == torch.arange(n)).any()


def test_every_other_sample_can_be_the_partner():
    partners = torch.stack([draw_partners(4) for _ in range(200)])
    assert {tuple(row) for row in partners.tolist()} == {(3, 0, 1, 2), (2, 3, 0, 1), (1, 2, 3, 0)}


@pytest.mark.parametrize("mix", [MixupAugmentation(1.0).augment, cutmix_samples])
def test_sample_weights_are_mixed_as_the_labels(mix):
    weights = torch.tensor([1.0, 5.0, torch.nan, 3.0])
    metadata = {"sample_weight": weights, "machine": ["a", "b", "c", "d"], "recording": torch.arange(4)}
    batch = Batch(torch.randn(4, 1, 64), torch.eye(4), metadata)
    mixed = mix(batch, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed.metadata["sample_weight"], mixed.targets @ weights.nan_to_num(nan=1.0))
    assert mixed.metadata["machine"] == ["a", "b", "c", "d"]
    assert mixed.metadata["recording"].tolist() == [-1, -2, -3, -4]


def test_dates_are_not_taken_for_indices():
    """A class weight for every number up to a date would take hundreds of megabytes."""
    with pytest.raises(ValueError, match="labels range up to 20240102, expected class indices below 10000"):
        as_distributions(torch.tensor([20240101, 20240102]))
