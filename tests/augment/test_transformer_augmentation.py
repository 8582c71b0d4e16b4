import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from whirl.augment.transformer_augmentation import (
    PatchAugmentation,
    get_heavy_augmentation,
    get_light_augmentation,
    get_medium_augmentation,
    patch_cutout,
    patch_dropout,
    patch_jitter,
    patch_mixup,
    patch_permutation,
    temporal_shift_patches,
)
from whirl.models.registry import create_model
from whirl.training.trainer import Trainer


def mixed(patches: Tensor, generator: torch.Generator | None = None) -> Tensor:
    labels = torch.arange(len(patches), device=patches.device)
    return patch_mixup(patches, patches.flip(0), labels, labels.flip(0), num_classes=64, generator=generator)[0]


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "dropout": patch_dropout,
    "mixup": mixed,
    "shift": temporal_shift_patches,
    "shift with zeros": lambda patches, generator=None: temporal_shift_patches(patches, 3, False, generator=generator),
    "cutout": patch_cutout,
    "permutation": lambda patches, generator=None: patch_permutation(patches, 0.5, generator=generator),
    "jitter": patch_jitter,
    "light": get_light_augmentation(),
    "medium": get_medium_augmentation(),
    "heavy": get_heavy_augmentation(),
}
every_augmentation = pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int, n_patches: int, width: int = 1) -> Tensor:
    """Patches that contain their own position, starting at 1."""
    return torch.arange(1.0, n_patches + 1).view(1, -1, 1).repeat(n, 1, width)


def is_binomial(hits: int, n: int, p: float) -> bool:
    return bool(stats.binomtest(hits, n, p).pvalue > 0.001)


# all augmentations


@every_augmentation
def test_is_reproducible_and_does_not_modify_input(augment):
    patches = torch.randn(16, 40, 6, generator=seeded(1))
    before = patches.clone()
    first, again, other = (augment(patches, generator=seeded(s)) for s in (0, 0, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(patches, before)
    assert first.shape == patches.shape
    state = torch.get_rng_state()
    augment(patches, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)  # the generator is the only source of randomness
    torch.manual_seed(3)
    from_global = augment(patches)
    torch.manual_seed(3)
    assert torch.equal(augment(patches), from_global)


@every_augmentation
def test_samples_have_independent_draws(augment):
    equal = torch.randn(1, 40, 6, generator=seeded(1)).expand(64, -1, -1).contiguous()
    if augment is mixed:
        equal = equal * torch.arange(1, 65).view(-1, 1, 1)
    augmented = augment(equal, generator=seeded())
    assert len(augmented.flatten(1).unique(dim=0)) > 6  # shifts by -2..2 alone give 5


@every_augmentation
def test_gradients_match_finite_differences(augment):
    patches = torch.randn(3, 8, 2, dtype=torch.float64, generator=seeded(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: augment(p, generator=seeded(4)), patches)


@every_augmentation
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 5), (4, 7, 1), (0, 8, 3), (2, 200, 3)], ids=str)
def test_accepts_all_shapes(augment, shape):
    patches = torch.randn(shape)
    augmented = augment(patches, generator=seeded())
    assert augmented.shape == shape
    assert augmented.isfinite().all()


@every_augmentation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_preserves_dtype_under_autocast(augment, dtype):
    patches = torch.randn(4, 12, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert augment(patches, generator=seeded()).dtype == dtype


@every_augmentation
def test_rejects_invalid_patches(augment):
    with pytest.raises(TypeError, match=r"patches is a tensor of torch\.int64, expected a floating-point tensor"):
        augment(torch.zeros(2, 3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"patches have shape \[3, 4\], expected \[batch, patches >= 1, width\]"):
        augment(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"patches have shape \[3, 0, 4\]"):
        augment(torch.zeros(3, 0, 4))


@pytest.mark.gpu
@every_augmentation
def test_is_reproducible_on_gpu(augment):
    patches = torch.randn(8, 40, 6, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    state = generator.get_state()
    first = augment(patches, generator=generator)
    assert first.device == patches.device
    assert torch.equal(augment(patches, generator=generator.set_state(state)), first)


# individual augmentations


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_zeroes_patches_with_given_probability(probability):
    patches = torch.rand(500, 40, 3) + 1
    augmented = patch_dropout(patches, probability, generator=seeded())
    dropped = (augmented == 0).all(-1)
    assert torch.equal(augmented[~dropped], patches[~dropped])
    assert is_binomial(int(dropped.sum()), dropped.numel(), probability)
    # independent within and between samples: the number of dropped patches is binomial
    counts = dropped.sum(1)
    assert counts.float().var().item() == pytest.approx(40 * probability * (1 - probability), rel=0.2)
    assert is_binomial(int((dropped[:, 1:] & dropped[:, :-1]).sum()), 500 * 39, probability**2)


def test_dropout_limits_and_evaluation_mode():
    patches = torch.randn(3, 5, 2)
    assert torch.equal(patch_dropout(patches, 0.0), patches)
    assert patch_dropout(patches, 1.0).count_nonzero() == 0
    assert patch_dropout(patches, 0.5, training=False) is patches


@pytest.mark.parametrize("alpha", [0.4, 1.0, 5.0])
def test_mixup_uses_equal_beta_weights_for_patches_and_labels(alpha):
    n = 3000
    ones, zeros = torch.ones(n, 2, 3), torch.zeros(n, 2, 3)
    labels = torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.int64)
    augmented, weights = patch_mixup(ones, zeros, *labels, alpha, num_classes=4, generator=seeded())
    assert weights.shape == (n, 4)
    assert weights.dtype == torch.float32
    assert torch.equal(augmented, weights[:, 0].view(-1, 1, 1).expand_as(augmented))
    torch.testing.assert_close(weights.sum(1), torch.ones(n))
    assert torch.equal(weights[:, 2:], torch.zeros(n, 2))
    assert stats.kstest(weights[:, 0].double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_mixup_is_weighted_mean_of_patches_and_soft_labels():
    first, second = torch.randn(2, 5, 7, 3)
    labels1, labels2 = torch.rand(2, 5, 4).softmax(-1)
    index1, index2 = torch.arange(5), torch.arange(5).flip(0)
    augmented, weights = patch_mixup(first, second, index1, index2, generator=seeded())
    assert weights[2, 2] == 1  # mixed with its own class
    others = torch.tensor([0, 1, 3, 4])
    share = weights[others, others, None]
    mean = share[..., None] * first[others] + (1 - share[..., None]) * second[others]
    torch.testing.assert_close(augmented[others], mean)
    soft = patch_mixup(first, second, labels1, labels2, generator=seeded())[1]
    torch.testing.assert_close(soft[others], share * labels1[others] + (1 - share) * labels2[others])


def test_mixup_labels_use_weights_rounded_to_half_precision():
    ones = torch.ones(50, 1, 1, dtype=torch.bfloat16)
    labels = torch.zeros(50, dtype=torch.int64), torch.ones(50, dtype=torch.int64)
    augmented, weights = patch_mixup(ones, 0 * ones, *labels, 1.0, generator=seeded())
    assert torch.equal(augmented[:, 0, 0].float(), weights[:, 0])


def test_mixup_rejects_mismatched_arguments():
    patches, labels = torch.randn(4, 3, 2), torch.arange(4)
    with pytest.raises(
        ValueError, match=r"patches1 are torch.float32 \[4, 3, 2\] and patches2 are torch.float32 \[4, 2, 2\]"
    ):
        patch_mixup(patches, patches[:, 1:], labels, labels)
    with pytest.raises(ValueError, match="there are 4 samples, but 3 labels"):
        patch_mixup(patches, patches, labels[1:], labels)
    with pytest.raises(ValueError, match="4 first labels, but 3 second"):
        patch_mixup(patches, patches, labels, labels[1:])
    with pytest.raises(ValueError, match="alpha is 0"):
        patch_mixup(patches, patches, labels, labels, 0)
    with pytest.raises(ValueError, match=r"labels range from 0 to 3, expected 0\.\.2"):
        patch_mixup(patches, patches, labels, labels, num_classes=3)


@pytest.mark.parametrize("max_shift", [0, 3, 15])
def test_circular_shifts_are_uniform_rolls(max_shift):
    patches = numbered(4000, 12, 2)
    augmented = temporal_shift_patches(patches, max_shift, generator=seeded())
    shifts = (1 - augmented[:, 0, 0].long()) % 12
    for row in range(50):
        assert torch.equal(augmented[row], patches[row].roll(int(shifts[row]), 0))
    expected = torch.bincount(torch.arange(-max_shift, max_shift + 1) % 12, minlength=12).double()
    counts = torch.bincount(shifts, minlength=12)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    expected *= len(augmented) / expected.sum()
    assert max_shift == 0 or stats.chisquare(counts[possible], expected[possible]).pvalue > 0.001


def test_non_circular_shifts_insert_zeros_and_keep_at_least_one_patch():
    augmented = temporal_shift_patches(numbered(300, 5, 2), 2, circular=False, generator=seeded())[:, :, 0].long()
    possible = {(3, 4, 5, 0, 0), (2, 3, 4, 5, 0), (1, 2, 3, 4, 5), (0, 1, 2, 3, 4), (0, 0, 1, 2, 3)}
    assert {tuple(row) for row in augmented.tolist()} == possible
    large = temporal_shift_patches(numbered(300, 5), 50, circular=False, generator=seeded())
    assert (large != 0).sum(1).min() == 1


def test_cutout_holes_have_given_size_and_uniform_position():
    augmented = patch_cutout(torch.ones(4000, 20, 2), 1, 5, generator=seeded())
    assert torch.equal(augmented[..., 0], augmented[..., 1])
    holes = augmented[..., 0] == 0
    assert torch.equal(holes.sum(1), torch.full((4000,), 5))
    starts = holes.int().argmax(1)
    assert torch.equal(holes, (torch.arange(20) >= starts[:, None]) & (torch.arange(20) < starts[:, None] + 5))
    assert stats.chisquare(torch.bincount(starts, minlength=16)).pvalue > 0.001


@pytest.mark.parametrize("n_patches", [1, 3, 4, 7, 32, 100, 400])
def test_cutout_removes_at_most_a_quarter(n_patches):
    removed = (patch_cutout(torch.ones(200, n_patches, 1), generator=seeded()) == 0).sum(1)
    assert removed.max() <= n_patches // 4
    assert removed.min() >= min(5, n_patches // 4)
    if n_patches == 400:
        assert removed.max() > 40  # ten holes of five, with little overlap


def test_cutout_without_holes_changes_nothing():
    patches = torch.randn(3, 20, 2)
    assert torch.equal(patch_cutout(patches, 0, 5), patches)
    assert torch.equal(patch_cutout(patches, 3, 0), patches)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_permutation_moves_given_fraction_and_keeps_all_patches(probability):
    n, n_patches = 1000, 24
    augmented = patch_permutation(numbered(n, n_patches, 2), probability, generator=seeded())
    assert torch.equal(augmented[..., 0], augmented[..., 1])
    positions = augmented[..., 0].long() - 1
    assert torch.equal(positions.sort(1).values, torch.arange(n_patches).expand(n, -1))
    # all chosen patches move, except for a single one
    fraction = probability - probability * (1 - probability) ** (n_patches - 1)
    moved = (positions != torch.arange(n_patches)).sum(1).double()
    error = math.sqrt(n_patches * probability * (1 - probability) * 1.5 / n)
    assert moved.mean().item() == pytest.approx(n_patches * fraction, abs=4 * error + 1e-9)
    assert 1 not in moved


def test_permutation_moves_patches_uniformly():
    positions = patch_permutation(numbered(5000, 6), 1.0, generator=seeded())[:, 0, 0].long() - 1
    assert stats.chisquare(torch.bincount(positions, minlength=6)[1:]).pvalue > 0.001


def test_two_chosen_patches_are_swapped():
    augmented = patch_permutation(numbered(300, 2), 1.0, generator=seeded()).squeeze(-1)
    assert torch.equal(augmented, torch.tensor([2.0, 1.0]).expand(300, 2))


def test_jitter_is_white_gaussian_noise():
    patches = torch.randn(40, 50, 30, generator=seeded(1))
    noise = patch_jitter(patches, 0.3, generator=seeded()) - patches
    assert stats.kstest(noise.flatten().double().numpy(), stats.norm(scale=0.3).cdf).pvalue > 0.01
    for lag in ((1, 0), (2, 0), (0, 1), (1, 1)):
        product = (noise * noise.roll(lag, (0, 1))).mean() / 0.09
        assert abs(product) < 4 / math.sqrt(noise.numel())
    assert torch.equal(patch_jitter(patches, 0), patches)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("drop_prob is 1.1, expected a number", lambda p: patch_dropout(p, 1.1)),
        ("drop_prob is nan", lambda p: patch_dropout(p, math.nan, training=False)),
        ("max_shift is -1, expected an integer >= 0", lambda p: temporal_shift_patches(p, -1)),
        ("max_shift is 1.5", lambda p: temporal_shift_patches(p, 1.5)),  # pyright: ignore
        ("n_holes is -1", lambda p: patch_cutout(p, -1)),
        ("hole_size is True", lambda p: patch_cutout(p, 1, True)),
        ("permute_prob is -0.1", lambda p: patch_permutation(p, -0.1)),
        ("noise_std is inf", lambda p: patch_jitter(p, math.inf)),
        ("dropout_prob is 2", lambda p: PatchAugmentation(dropout_prob=2)),
        ("permute_prob is -1", lambda p: PatchAugmentation(permute_prob=-1)),
        ("cutout_holes is 2.5", lambda p: PatchAugmentation(cutout_holes=2.5)),  # pyright: ignore
        ("max_shift is -3", lambda p: PatchAugmentation(max_shift=-3)),
        ("jitter_std is -0.1", lambda p: PatchAugmentation(jitter_std=-0.1)),
    ],
)
def test_rejects_invalid_numbers(message, call):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(2, 8, 3))


# the pipeline


def test_pipeline_applies_augmentations_in_documented_order():
    patches, generator = torch.randn(8, 60, 4), seeded(5)
    expected = temporal_shift_patches(patches, 5, generator=generator)
    expected = patch_permutation(expected, 0.1, generator=generator)
    expected = patch_jitter(expected, 0.02, generator=generator)
    expected = patch_cutout(expected, 10, 5, generator=generator)
    expected = patch_dropout(expected, 0.15, generator=generator)
    assert torch.equal(get_heavy_augmentation()(patches, generator=seeded(5)), expected)
    identity = PatchAugmentation(use_dropout=False, use_shift=False)
    assert identity(patches) is patches
    assert get_heavy_augmentation()(patches, training=False) is patches


def test_presets_match_documentation():
    light, medium, heavy = get_light_augmentation(), get_medium_augmentation(), get_heavy_augmentation()
    assert light == PatchAugmentation(True, 0.05, max_shift=2)
    assert medium == PatchAugmentation(True, 0.1, True, 5, 3, True, 3)
    assert heavy == PatchAugmentation(True, 0.15, True, 10, 5, True, 5, True, 0.02, True, 0.1)
    assert "max_shift=2" in repr(light)
    assert copy.deepcopy(heavy) == heavy
    with pytest.raises(dataclasses.FrozenInstanceError):
        heavy.max_shift = 1  # pyright: ignore


def test_patch_transformer_trains_with_pipeline():
    torch.manual_seed(0)
    targets = torch.arange(96) % 2
    frequencies = torch.tensor([0.02, 0.05])[targets].unsqueeze(1)  # cycles per sample
    tones = torch.sin(2 * torch.pi * (frequencies * torch.arange(512.0) + torch.rand(96, 1)))
    loader = DataLoader(TensorDataset(tones.unsqueeze(1), targets), batch_size=16)
    network = create_model("patch_transformer", 2, width=32, depth=1, patch_augmentation=get_heavy_augmentation())
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    trainer = Trainer(network, loader, loader, optimizer, device="cpu")
    history = trainer.fit(12)
    assert history["val_accuracy"][-1] == 1.0
    assert history["val_loss"][-1] < 0.2
    # no augmentation in evaluation mode
    network.eval()
    assert torch.equal(network(tones.unsqueeze(1)), network(tones.unsqueeze(1)))
    assert F.cross_entropy(network(tones.unsqueeze(1)), targets).item() == pytest.approx(
        history["val_loss"][-1], abs=1e-4
    )
