"""Augmentations beside those of other libraries.

Each case is a documented property of the named library, with its figure computed from the input: by NumPy's FFT, by the
moments of the distribution that is drawn from, or sample by sample.
"""

import numpy as np
import pytest
import torch
from torch import nn

from whirl.augment import (
    AutoAugment,
    Compose,
    MixupAugmentation,
    PerChannel,
    RandAugment,
    RandomApply,
    RandomChoice,
    additive_machine_noise,
    adversarial_augmentation,
    amplitude_scaling,
    band_stop,
    cutmix,
    cutmix_batch,
    gaussian_noise_augmentation,
    mix_labels,
    patch_cutout,
    patch_dropout,
    patch_mixup,
    patch_permutation,
    polarity_flip,
    random_phase_surrogate,
    sensor_gain_and_offset,
    temporal_shift_patches,
    time_masking,
    time_shift,
)
from whirl.augment.label_mixing import beta_weights, draw_partners

B, C, T = 32, 2, 256
X = torch.randn(B, C, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.arange(B) % 4
ONE_HOT = torch.eye(4, dtype=torch.float64)[Y]
RAMP = torch.arange(B, dtype=torch.float64)[:, None, None].expand(B, C, T)  # the value of a sample is its index


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def negate(signals, labels):
    return -signals, labels


def double(signals, labels):
    return 2 * signals, labels


def add_one(signals, labels):
    return signals + 1, labels


def spectrum(signals):
    return torch.from_numpy(np.abs(np.fft.rfft(signals.numpy())))


def share(mask):
    return mask.double().mean()


EXACT = []


def exact(case):
    """Register a case that returns the actual and the expected tensor."""
    EXACT.append(case)
    return case


# -- outputs that follow from the input: actual and expected ---------------------------------------------------------


@exact
def torchvision_mixup():
    """The labels have the weight of the sample that the signals have."""
    mixed, weights = MixupAugmentation(1.0)(RAMP, torch.eye(B, dtype=torch.float64), generator=rng())
    return mixed[:, 0, 0], weights.double() @ RAMP[:, 0, 0]


@exact
def torchvision_mixup_rolls_the_batch():
    partners = draw_partners(B, generator=rng())
    return partners, torch.arange(B).roll(int((0 - partners[0]) % B))


@exact
def torchvision_cutmix_labels_are_the_kept_share():
    mixed, weights = cutmix_batch(RAMP, torch.eye(B, dtype=torch.float64), prob=1.0, generator=rng())
    return weights.diagonal().double(), (mixed[:, 0] == RAMP[:, 0]).double().mean(1)


@exact
def torchvision_cutmix_pastes_one_span():
    mixed, _ = cutmix_batch(RAMP, Y, prob=1.0, generator=rng())
    changes = (mixed[:, 0].diff(dim=1) != 0).sum(1)
    return (changes <= 2).double(), torch.ones(B, dtype=torch.float64)


@exact
def timm_mixup_target():
    lam = torch.full((B,), 0.3, dtype=torch.float64)
    return mix_labels(Y, Y.flip(0), lam, 4, torch.float64), 0.3 * ONE_HOT + 0.7 * ONE_HOT.flip(0)


@exact
def timm_cutmix_of_equal_labels():
    return cutmix(X, X.flip(0), Y, Y, generator=rng())[1].double(), ONE_HOT


@exact
def keras_cv_mixup_of_equal_signals():
    same = X[:1].expand(B, C, T)
    return MixupAugmentation(0.2)(same, Y, generator=rng())[0], same


@exact
def torch_roll():
    shifted = time_shift(X[:1], T, generator=rng())
    shift = next(n for n in range(T) if torch.equal(X[:1].roll(n, -1), shifted))
    return shifted, X[:1].roll(shift, -1)


@exact
def audiomentations_shift_keeps_the_spectrum():
    return spectrum(time_shift(X, 100, generator=rng())), spectrum(X)


@exact
def audiomentations_polarity_inversion():
    return polarity_flip(X, 1.0), -X


@exact
def audiomentations_polarity_inversion_never():
    return polarity_flip(X, 0.0), X


@exact
def audiomentations_gain_keeps_the_waveform():
    scaled = amplitude_scaling(X, (0.5, 2.0), generator=rng())
    return scaled / scaled[..., :1], X / X[..., :1]


@exact
def torchaudio_volume():
    """A fixed gain: both bounds are the same."""
    return amplitude_scaling(X, (1.5, 1.5)), 1.5 * X


@exact
def torchaudio_add_noise_has_the_exact_ratio():
    noise = additive_machine_noise(X, 12.0, generator=rng()) - X
    ratio = 10 * torch.log10(X.var(-1, correction=0) / noise.var(-1, correction=0))
    return ratio, torch.full((B, C), 12.0, dtype=torch.float64)


@exact
def audiomentations_background_noise_is_scaled():
    bank = torch.randn(3, C, T, generator=rng(5), dtype=torch.float64)
    noise = additive_machine_noise(X, -5.0, noise=bank, generator=rng()) - X
    ratio = 10 * torch.log10(X.var(-1, correction=0) / noise.var(-1, correction=0))
    return ratio, torch.full((B, C), -5.0, dtype=torch.float64)


@exact
def torchaudio_masking_is_equal_in_all_channels():
    masked = time_masking(X, 64, generator=rng())
    return (masked[:, 0] == 0).double(), (masked[:, 1] == 0).double()


@exact
def torchaudio_masking_leaves_the_rest():
    masked = time_masking(X, 64, 2, generator=rng())
    return masked, torch.where(masked == 0, 0, X)


@exact
def surrogate_keeps_the_spectrum():
    """Theiler et al. 1992, as in `nolds` and `tsfresh`: random phases, the same amplitudes."""
    return spectrum(random_phase_surrogate(X, generator=rng())), spectrum(X)


@exact
def band_stop_leaves_the_other_frequencies():
    stopped = spectrum(band_stop(X, T, 40.0, (60.0, 60.0), generator=rng()))  # 1 Hz per line
    return stopped[..., :40], spectrum(X)[..., :40]


@exact
def torchattacks_fgsm():
    model = nn.Sequential(nn.Flatten(), nn.Linear(C * T, 4)).double()
    signal = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(signal), Y), signal)
    gradient /= gradient.abs().max()  # the sign of one that is nearly zero is that of its rounding
    return (adversarial_augmentation(model, X, Y, 0.1) - X) * gradient, 0.1 * gradient.abs()


@exact
def cleverhans_fgsm_of_size_zero():
    model = nn.Sequential(nn.Flatten(), nn.Linear(C * T, 4)).double()
    return adversarial_augmentation(model, X, Y, 0.0), X


@exact
def torchvision_random_apply_always():
    return RandomApply(negate, 1.0)(X), -X


@exact
def torchvision_random_apply_never():
    return RandomApply(negate, 0.0)(X), X


@exact
def torchvision_random_choice_of_probability_one():
    return RandomChoice([negate, double], [0.0, 3.0])(X), 2 * X


@exact
def torchvision_compose_in_order():
    return Compose([add_one, double])(X), 2 * (X + 1)


@exact
def torchvision_randaugment_without_operations():
    return RandAugment(0)(X), X


@exact
def torchvision_randaugment_twice_the_same():
    return RandAugment(2, operations=["polarity_flip"])(X), X


@exact
def torchvision_autoaugment_of_one_policy():
    return AutoAugment([[("polarity_flip", 1.0, 0.0), ("scale", 1.0, 0.0)]])(X), -X


@exact
def torchaudio_dropout_of_patches_is_all_or_nothing():
    patches = patch_dropout(X, 0.5, generator=rng())
    return (patches == 0).all(-1).double(), (patches == 0).any(-1).double()


@exact
def vit_dropout_in_evaluation_mode():
    return patch_dropout(X, 0.5, training=False), X


@exact
def numpy_permutation_keeps_the_patches():
    patches = torch.arange(20.0).expand(4, 20).unsqueeze(-1)
    return patch_permutation(patches, 1.0, generator=rng()).sort(1).values, patches


@exact
def torch_roll_of_patches_keeps_the_patches():
    patches = torch.arange(20.0).expand(4, 20).unsqueeze(-1)
    return temporal_shift_patches(patches, 5, generator=rng()).sort(1).values, patches


@exact
def cutout_removes_runs_of_its_size():
    kept = patch_cutout(torch.ones(50, 40, 1), 1, 6, generator=rng())
    return (kept == 0).sum((1, 2)), torch.full((50,), 6)


@exact
def manifold_mixup_is_between_both_samples():
    mixed, _ = patch_mixup(torch.zeros(8, 5, 3), torch.ones(8, 5, 3), Y[:8], Y[:8], generator=rng())
    return mixed, mixed.clamp(0, 1)


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.__name__)
def test_output_of_the_peer(case):
    actual, expected = case()
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)


# -- statistics of the draws: actual, expected and tolerance -----------------------------------------------------------

MANY = torch.ones(4000, 1, 8)

STATISTICS = {
    "NumPy beta(0.2, 0.2): mean": (beta_weights(20_000, 0.2, generator=rng()).mean(), 0.5, 0.01),
    "NumPy beta(0.2, 0.2): variance": (beta_weights(20_000, 0.2, generator=rng()).var(), 0.25 / 1.4, 0.005),
    "NumPy beta(1, 1) is uniform": (share(beta_weights(20_000, 1.0, generator=rng()) < 0.25), 0.25, 0.01),
    "NumPy beta(8, 8): variance": (beta_weights(20_000, 8.0, generator=rng()).var(), 0.25 / 17, 0.001),
    "kornia RandomGaussianNoise: standard deviation": (
        gaussian_noise_augmentation(torch.zeros(100, 1, 1000), 0.3, generator=rng()).std(), 0.3, 0.003),
    "kornia RandomGaussianNoise: mean": (
        gaussian_noise_augmentation(torch.zeros(100, 1, 1000), 0.3, generator=rng()).mean(), 0.0, 0.005),
    "torchvision RandomApply: share of samples": (
        share(RandomApply(negate, 0.3)(MANY, generator=rng())[:, 0, 0] < 0), 0.3, 0.03),
    "audiomentations PolarityInversion: share": (
        share(polarity_flip(MANY, 0.5, generator=rng())[:, 0, 0] < 0), 0.5, 0.03),
    "audiomentations Gain: uniform factor": (
        amplitude_scaling(MANY, (0.8, 1.2), generator=rng())[:, 0, 0].std(), 0.4 / 12**0.5, 0.005),
    "audiomentations Gain in dB": (
        20 * sensor_gain_and_offset(MANY, 6.0, 0.0, generator=rng())[:, 0, 0].log10().std(), 12 / 12**0.5, 0.1),
    "torchaudio TimeMasking: mean width": (
        share(time_masking(torch.ones(4000, 1, 400), 80, generator=rng()) == 0), 40 / 400, 0.005),
    "PyTorch dropout of patches: share": (
        share(patch_dropout(torch.ones(200, 50, 2), 0.2, generator=rng()) == 0), 0.2, 0.01),
    "torchvision CutMix: mean share kept": (
        cutmix_batch(torch.zeros(400, 1, 64), torch.arange(400), prob=1.0, generator=rng())[1].diagonal().mean(),
        0.5, 0.05),
    "MONAI draws for each channel": (
        share(PerChannel(RandomApply(negate, 0.5))(torch.ones(4000, 2, 1), generator=rng()).prod(1) < 0), 0.5, 0.03),
}  # fmt: skip


@pytest.mark.parametrize(("actual", "expected", "tolerance"), STATISTICS.values(), ids=STATISTICS)
def test_statistic_of_the_peer(actual, expected, tolerance):
    assert float(actual) == pytest.approx(expected, abs=tolerance)
