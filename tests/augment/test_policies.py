"""Operations by name, policies and presets."""

import pickle

import pytest
import torch

from whirl.augment.advanced_augmentation import AutoAugment
from whirl.augment.base import AugmentedCollate
from whirl.augment.policies import DEFAULT_POLICY, OPERATIONS, PRESETS, Operation, RandAugment, make_augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("length", [1, 7, 512])
def test_operations_accept_any_length_and_do_not_modify_input(name, length):
    signals, labels = torch.randn(6, 2, length, generator=generator()), torch.arange(6)
    before = signals.clone()
    out, targets = Operation(name, 1.0, 0.5)(signals, labels, generator=generator(1))
    assert out.shape == signals.shape
    assert torch.isfinite(out).all()
    assert torch.equal(signals, before)
    assert len(targets) == 6
    again, _ = Operation(name, 1.0, 0.5)(signals, labels, generator=generator(1))
    assert torch.equal(out, again)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_with_a_generator_leave_the_global_one(name):
    before = torch.get_rng_state()
    Operation(name, 0.5, 0.5)(torch.randn(6, 2, 64, generator=generator()), torch.arange(6), generator=generator(1))
    assert torch.equal(torch.get_rng_state(), before)


WITH_MAGNITUDE = [name for name in OPERATIONS if name not in ("polarity_flip", "surrogate", "mixup", "cutmix")]


@pytest.mark.parametrize("name", WITH_MAGNITUDE)
def test_larger_magnitude_changes_more(name):
    """Compares the mean squared change over many samples."""
    signals, labels = torch.randn(400, 1, 256, generator=generator()), torch.arange(400) % 5
    change = [
        (Operation(name, 1.0, magnitude)(signals, labels, generator=generator(1))[0] - signals).square().mean()
        for magnitude in (0.05, 0.9)
    ]
    assert change[0] < change[1]


@pytest.mark.parametrize("name", ["scale", "sensor", "time_shift", "time_mask", "band_stop"])
def test_magnitude_of_zero_changes_nothing(name):
    signals = torch.randn(4, 1, 256, generator=generator())
    assert torch.allclose(Operation(name, 1.0, 0.0)(signals), signals, atol=1e-5)


def test_selects_one_sub_policy_per_call_uniformly():
    augment = AutoAugment([[("polarity_flip", 1.0, 0.0)], []])
    draws = generator()
    flipped = [augment(torch.ones(3, 1, 1), generator=draws).flatten() for _ in range(400)]
    assert all(len(set(batch.tolist())) == 1 for batch in flipped)
    assert sum(batch[0].item() < 0 for batch in flipped) == pytest.approx(200, abs=40)


def test_default_policy_and_presets_are_valid():
    assert AutoAugment().policy is DEFAULT_POLICY
    for name in PRESETS:
        out, targets = make_augmentation(name)(torch.randn(8, 1, 128), torch.arange(8))
        assert out.shape == (8, 1, 128)
        assert targets.shape[0] == 8


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([], "expected at least one sub-policy"),
        ("light", "expected at least one sub-policy"),
        ([["flip"]], "expected \\(operation, probability, magnitude\\)"),
        (["flip"], "expected a list of"),
        ([[("flip", 1, 1)]], "unknown operation 'flip'"),
        ([[("scale", 1.2, 1)]], "probability of 'scale' is 1.2"),
        ([[("scale", 1, float("nan"))]], "magnitude of 'scale' is nan"),
        ([[("scale", 1, "1")]], "magnitude of 'scale' is '1'"),
        ([[("mixup", 1, 0)]], "magnitude of 'mixup' is 0"),
    ],
)
def test_rejects_invalid_policies(policy, message):
    with pytest.raises(ValueError, match=message):
        AutoAugment(policy)


def test_rejects_unknown_preset():
    with pytest.raises(ValueError, match="unknown preset 'strong'; expected one of: light, medium, heavy"):
        make_augmentation("strong")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_policies_can_be_pickled_for_worker_processes(name):
    signals = torch.randn(8, 1, 256)
    collate = AugmentedCollate(make_augmentation(name))
    results = []
    for each in (collate, pickle.loads(pickle.dumps(collate))):
        torch.manual_seed(0)
        results.append(each([(signal, 0) for signal in signals]).signals)
    assert torch.equal(*results)


# -- RandAugment ----------------------------------------------------------------------------------------------


def test_applies_operations_of_one_magnitude_with_replacement():
    """Each flip changes the sign: the number of flips among three of two operations is binomial."""
    augment, draws = RandAugment(3, 0.3, ["polarity_flip", "identity"]), generator()
    signs = [augment(torch.ones(2, 1, 1), generator=draws).flatten().tolist() for _ in range(400)]
    assert all(first == second for first, second in signs)
    assert sum(first < 0 for first, _ in signs) == pytest.approx(200, abs=40)
    assert {operation.magnitude for choice in RandAugment(2, 0.7)._choices for operation in choice.augmentations} == {
        0.7
    }


def test_without_operations_nothing_changes():
    signals = torch.randn(4, 2, 64)
    assert torch.equal(RandAugment(0)(signals), signals)
    assert torch.equal(RandAugment(5, operations=["identity"])(signals), signals)


def test_rand_augment_is_a_named_augmentation_that_keeps_faults():
    assert isinstance(make_augmentation("randaugment"), RandAugment)
    assert not {"surrogate", "mixup", "cutmix"} & set(RandAugment().operations)
    batch = torch.randn(6, 2, 128)
    assert RandAugment(4, 0.5)(batch).shape == batch.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_ops": -1}, "num_ops is -1"),
        ({"magnitude": 2}, "magnitude is 2"),
        ({"operations": []}, "operations is empty"),
        ({"operations": ["flip"]}, "unknown operation 'flip'"),
    ],
)
def test_rand_augment_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**arguments)
