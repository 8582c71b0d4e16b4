"""Composition of augmentations, and their application in a collate function and in a trainer."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whirl.augment.advanced_augmentation import MixupAugmentation
from whirl.augment.base import AugmentedCollate, Compose, PerChannel, RandomApply, RandomChoice, as_augmentation
from whirl.augment.policies import AutoAugment, Operation
from whirl.engine.batch import Batch
from whirl.training.trainer import Trainer


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flip(signals, labels, generator=None):
    return -signals, labels


def relabel(signals, labels, generator=None):
    return signals, torch.full((len(labels), 3), 1 / 3)


def test_random_apply_chooses_samples_independently():
    signals = torch.ones(20_000, 1, 2)
    out = RandomApply(flip, 0.3)(signals, generator=generator())
    assert torch.equal(out[:, 0, 0], out[:, 0, 1])
    assert (out[:, 0, 0] < 0).float().mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)


def test_random_apply_keeps_labels_of_unchanged_samples():
    labels = torch.arange(30) % 3
    _, mixed = RandomApply(relabel, 0.5)(torch.zeros(30, 1, 1), labels, generator=generator())
    unchanged = (mixed == nn.functional.one_hot(labels, 3)).all(1)
    assert 5 < unchanged.sum() < 25
    assert torch.allclose(mixed[~unchanged], torch.tensor(1 / 3))


def test_probabilities_of_zero_and_one():
    signals, labels = torch.randn(4, 1, 8), torch.arange(4)
    assert RandomApply(flip, 0.0)(signals, labels)[0] is signals
    assert torch.equal(RandomApply(flip, 1.0)(signals), -signals)


def test_speed_jitter_scales_rpm_of_changed_samples_only():
    batch = Batch(torch.randn(64, 1, 256), torch.zeros(64, dtype=torch.int64), {"rpm": torch.full((64,), 1000.0)})
    out = Operation("speed_jitter", 0.5, 1.0).augment(batch, generator())
    changed = (out.signals != batch.signals).flatten(1).any(1)
    assert torch.equal(changed, out.metadata["rpm"] != 1000)
    assert 10 < changed.sum() < 54
    assert (out.metadata["rpm"] - 1000).abs().max() <= 100
    assert (batch.metadata["rpm"] == 1000).all()


def test_mixing_requires_labels():
    with pytest.raises(ValueError, match="mixes labels"):
        Compose([MixupAugmentation(1.0)])(torch.randn(4, 1, 8))


def test_rejects_invalid_augmentation_and_probability():
    with pytest.raises(TypeError, match="augmentation is 7, expected an Augmentation or a function"):
        as_augmentation(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"probability is 1\.5"):
        RandomApply(flip, 1.5)


# in a collate


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_augments_lists_of_samples(workers):
    data = TensorDataset(torch.ones(8, 1, 4), torch.arange(8))
    loader = DataLoader(data, batch_size=4, collate_fn=AugmentedCollate(flip), num_workers=workers)
    signals, labels, metadata = next(iter(loader))
    assert torch.equal(signals, -torch.ones(4, 1, 4))
    assert (labels.tolist(), metadata) == ([0, 1, 2, 3], {})


# in a trainer


def data(n=60, classes=3):
    signals, labels = torch.randn(n, 1, 32, generator=generator(1)), torch.arange(n) % classes
    return signals + labels.view(-1, 1, 1), labels


def new_trainer(augmentation=None, **arguments):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    # with its own generator, the loader does not draw from torch's global one
    loader = DataLoader(TensorDataset(*data()), batch_size=16, generator=generator())
    return Trainer(model, loader, loader, device="cpu", augmentation=augmentation, **arguments)


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_identity_augmentation_does_not_change_training():
    plain, same = new_trainer(), new_trainer(lambda signals, targets: (signals, targets))
    plain.fit(2), same.fit(2)
    assert torch.equal(weights(plain), weights(same))


def test_trainer_augments_training_only_and_matches_plain_loop():
    augment = MixupAugmentation(0.4, num_classes=3)
    trainer = new_trainer(augment, max_grad_norm=None)
    torch.manual_seed(9)
    history = trainer.fit(3)

    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loader = DataLoader(TensorDataset(*data()), batch_size=16, generator=generator())
    torch.manual_seed(9)
    for _ in range(3):
        for signals, labels in loader:
            mixed, targets = augment(signals, labels)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(mixed), targets).backward()
            optimizer.step()
    plain = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(weights(trainer), plain)
    signals, labels = data()
    expected = nn.functional.cross_entropy(model(signals), labels).item()
    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_accuracy_counts_label_with_largest_weight():
    def soften(signals, targets):
        return signals, 0.6 * nn.functional.one_hot(targets, 3) + 0.4 / 3

    hard, soft = new_trainer(), new_trainer(soften)
    assert soft.train_epoch()["accuracy"] == pytest.approx(hard.train_epoch()["accuracy"], abs=0.1)


def test_mixes_batch_without_the_last_class():
    """MixupAugmentation finds two classes in the batch, but the network has three."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    loader = DataLoader(TensorDataset(torch.randn(8, 1, 32), torch.arange(8) % 2), batch_size=8)
    history = Trainer(model, loader, device="cpu", augmentation=MixupAugmentation(1.0)).fit(1)
    assert history["train_loss"][0] > 0


def test_augmented_run_resumes_exactly(tmp_path):
    policy = [[("time_shift", 1.0, 1.0), ("white_noise", 0.5, 0.5)], [("mixup", 1.0, 0.5)]]
    uninterrupted = new_trainer(AutoAugment(policy), checkpoint_dir=tmp_path / "uninterrupted")
    torch.manual_seed(2)
    uninterrupted.fit(4)
    first = new_trainer(AutoAugment(policy), checkpoint_dir=tmp_path / "interrupted")
    torch.manual_seed(2)
    first.fit(2)
    second = new_trainer(AutoAugment(policy))
    torch.manual_seed(77)
    second.fit(4, resume_from=tmp_path / "interrupted" / "last.pt")
    assert torch.equal(weights(uninterrupted), weights(second))


# -- one of several augmentations, and draws per channel ------------------------------------------------------


def test_chooses_one_augmentation_per_batch_with_its_probability():
    add = [lambda s, y, k=k: (s + k, y) for k in range(3)]
    choose = RandomChoice(add, probabilities=[1, 2, 1])
    draws = torch.Generator().manual_seed(0)
    batches = [choose(torch.zeros(4, 1, 1), generator=draws).flatten() for _ in range(400)]
    assert all(len(set(batch.tolist())) == 1 for batch in batches)
    counts = [sum(batch[0] == k for batch in batches) for k in range(3)]
    assert counts == pytest.approx([100, 200, 100], abs=35)
    assert "RandomChoice" in repr(choose)


def test_chooses_between_mixing_augmentations():
    choose = RandomChoice([MixupAugmentation(1.0, num_classes=3), Compose([])])
    signals, labels = torch.randn(4, 1, 32), torch.tensor([0, 1, 2, 0])
    targets = [choose(signals, labels)[1] for _ in range(30)]
    assert {tuple(each.shape) for each in targets} == {(4,), (4, 3)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "augmentations are empty"),
        (([Compose([])], [0.5, 0.5]), "there are 2 probabilities for 1 augmentations"),
        (([Compose([])], [-1]), r"probabilities\[0\] is -1"),
        (([Compose([])], [0]), "expected a sum > 0"),
    ],
)
def test_rejects_invalid_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomChoice(*arguments)


def test_draws_of_channels_are_independent_only_if_requested():
    signals, shift = torch.arange(64.0).expand(8, 3, 64), Operation("time_shift", 1.0, 1.0)
    shared, own = shift(signals), PerChannel(shift)(signals)
    assert torch.equal(shared[:, :1].expand_as(shared), shared)
    assert not torch.equal(own[:, 0], own[:, 1])
    assert torch.equal(own.sort(-1).values, signals)
    batch = Batch(signals, torch.zeros(8).long(), {"rpm": torch.full((8,), 1500.0), "rate": 3})
    augmented = PerChannel(shift).augment(batch)
    assert augmented.metadata is batch.metadata
    assert augmented.targets is batch.targets


@pytest.mark.parametrize("operation", ["mixup", "speed_jitter"])
def test_channels_cannot_have_labels_or_speeds_of_their_own(operation):
    batch = Batch(torch.randn(4, 2, 64), torch.arange(4), {"rpm": torch.full((4,), 1500.0)})
    with pytest.raises(ValueError, match="mixes samples or changes metadata, which all channels share"):
        PerChannel(Operation(operation, 1.0, 0.5)).augment(batch)
