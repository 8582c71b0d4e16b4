"""Signal augmentation compared with loops, limits and statistics, for both implementations (short and long signals)."""

import numpy as np
import pytest
import torch
from scipy.signal import welch
from scipy.stats import beta, chisquare, kstest
from torch import nn

from whirl.augment import span_operations
from whirl.augment.advanced_augmentation import (
    MixupAugmentation,
    adversarial_augmentation,
    amplitude_scaling,
    cutmix,
    cutmix_batch,
    gaussian_noise_augmentation,
    time_masking,
    time_shift,
)
from whirl.dsp.masks import draw_spans

LABELS = torch.tensor([0, 3, 1, 2, 2])
UNMIXED = {
    "mask": lambda x, g=None: time_masking(x, generator=g),
    "masks": lambda x, g=None: time_masking(x, num_masks=3, generator=g),
    "noise": lambda x, g=None: gaussian_noise_augmentation(x, generator=g),
    "scale": lambda x, g=None: amplitude_scaling(x, generator=g),
    "shift": lambda x, g=None: time_shift(x, generator=g),
}
MIXED = {
    "mixup": lambda x, g=None: MixupAugmentation(num_classes=4)(x, LABELS.to(x.device), generator=g)[0],
    "cutmix": lambda x, g=None: cutmix_batch(x, LABELS.to(x.device), prob=0.8, num_classes=4, generator=g)[0],
    "pair": lambda x, g=None: cutmix(
        x, x.flip(0), LABELS.to(x.device), LABELS.flip(0).to(x.device), num_classes=4, generator=g
    )[0],
}
each = pytest.mark.parametrize("augment", (UNMIXED | MIXED).values(), ids=(UNMIXED | MIXED).keys())


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


@pytest.fixture(params=["short", "long"])
def implementation(request, monkeypatch):
    """Selects each of the two implementations, regardless of the length."""
    monkeypatch.setattr(span_operations, "MIN_SPLIT_LENGTH", 10**9 if request.param == "short" else 0)


@each
@pytest.mark.parametrize("shape", [(5, 1, 1), (5, 3, 7), (5, 1, 9000), (5, 64), (5, 2, 4, 8)], ids=str)
def test_preserves_shape_dtype_and_input_and_is_reproducible(augment, shape):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        signals = torch.randn(shape, dtype=dtype)
        before = signals.clone()
        once, again = (augment(signals, seeded(1)) for _ in range(2))
        assert once.shape == shape
        assert once.dtype == dtype
        assert torch.equal(once, again)
        assert once.isfinite().all()
        assert torch.equal(signals, before)
        assert once.data_ptr() != signals.data_ptr()


@pytest.mark.parametrize("augment", UNMIXED.values(), ids=UNMIXED.keys())
def test_accepts_single_signal(augment):
    assert augment(torch.randn(50)).shape == (50,)


@each
def test_propagates_gradients(augment, implementation):
    signals = torch.randn(5, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, seeded(1)), signals)


@each
def test_autocast_has_no_effect(augment):
    signals = torch.randn(5, 1, 32)
    expected = augment(signals, seeded(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(signals, seeded(1)), expected)


def test_mask_is_one_span_of_uniform_width(implementation):
    signals = torch.ones(4000, 2, 40)
    masked = time_masking(signals, mask_param=9, generator=seeded(2)) == 0
    assert torch.equal(masked[:, 0], masked[:, 1])
    widths = masked[:, 0].sum(-1)
    assert chisquare(torch.bincount(widths, minlength=10)).pvalue > 0.01
    runs = masked[:, 0].int().diff(prepend=torch.zeros(4000, 1, dtype=torch.int)).eq(1).sum(1)
    assert torch.equal(runs, (widths > 0).long())


def test_mask_is_limited_to_a_quarter(implementation):
    masked = time_masking(torch.ones(500, 1, 41), mask_param=1000)
    assert (masked == 0).sum(-1).max() == 10
    assert torch.equal(time_masking(torch.ones(2, 1, 3), 1000), torch.ones(2, 1, 3))
    several = time_masking(torch.ones(500, 1, 40), 1000, num_masks=3, generator=seeded())
    assert 10 < (several == 0).sum(-1).max() <= 30


def test_shift_is_circular_and_uniform(implementation):
    signals = torch.arange(20.0).expand(6000, 2, 20)
    shifted = time_shift(signals, shift_max=3, generator=seeded(1))
    steps = shifted[:, 0].argmin(1)
    for row, step in zip(shifted[:50], steps.tolist(), strict=False):
        assert torch.equal(row, signals[0].roll(step, -1))
    counts = torch.bincount((steps + 3) % 20, minlength=20)
    assert counts[7:].sum() == 0
    assert chisquare(counts[:7]).pvalue > 0.01


def test_shift_preserves_amplitude_spectrum(implementation):
    signals = torch.randn(3, 1, 500, dtype=torch.float64)
    before, after = (torch.fft.rfft(x).abs() for x in (signals, time_shift(signals, 10_000)))
    torch.testing.assert_close(after, before)


def test_noise_is_white_and_independent():
    noise = gaussian_noise_augmentation(torch.zeros(4, 2, 100_000), 0.5, generator=seeded(1)).double().numpy()
    assert kstest(noise.ravel()[::40] / 0.5, "norm").pvalue > 0.01
    _, density = welch(noise, fs=2.0, nperseg=1000)
    expected = 0.5**2  # one-sided density over a band of width 1
    np.testing.assert_allclose(density[..., 1:-1].mean((0, 1)), expected, rtol=0.2)
    correlation = np.corrcoef(noise.reshape(8, -1))
    assert np.abs(correlation - np.eye(8)).max() < 0.02


def test_scale_factor_is_uniform_per_sample():
    scaled = amplitude_scaling(torch.ones(5000, 2, 3), (-0.5, 2.0), generator=seeded(1))
    factors = scaled[:, 0, 0]
    assert torch.equal(scaled, factors[:, None, None].expand(-1, 2, 3))
    assert kstest(factors.numpy(), "uniform", (-0.5, 2.5)).pvalue > 0.01


def test_cutmix_weights_equal_kept_fractions(implementation):
    zeros, ones = torch.zeros(3000, 2, 64), torch.ones(3000, 2, 64)
    first, second = torch.zeros(3000, dtype=torch.int64), torch.ones(3000, dtype=torch.int64)
    mixed, weights = cutmix(zeros, ones, first, second, alpha=0.7, generator=seeded(1))
    assert torch.equal(weights[:, 1], mixed[:, 0].mean(-1))
    assert torch.equal(weights[:, 0], 1 - mixed[:, 0].mean(-1))
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert (mixed[:, 0].diff().abs().sum(-1) <= 2).all()  # one span
    widths = np.arange(65)
    edges = np.clip((np.stack((widths - 0.5, widths + 0.5)) / 64), 0, 1)
    expected = np.diff(beta(0.7, 0.7).cdf(edges), axis=0)[0] * 3000
    assert chisquare(torch.bincount((weights[:, 1] * 64).long(), minlength=65), expected).pvalue > 0.01


def test_cutmix_batch_mixes_fraction_with_permutation(implementation):
    n = 2000
    signals = torch.arange(n).float()[:, None, None].expand(n, 1, 200)
    labels = torch.arange(n)
    mixed, weights = cutmix_batch(signals, labels, prob=0.3, generator=seeded(1))
    parts = [row.unique(return_counts=True) for row in mixed[:, 0]]
    for i, (values, counts) in enumerate(parts):
        expected = torch.zeros(n)
        expected[values.long()] = counts / 200
        torch.testing.assert_close(weights[i], expected, rtol=0, atol=1e-7)
        assert i in values or weights[i, i] == 0
    assert np.mean([len(values) > 1 for values, _ in parts]) == pytest.approx(0.3, abs=0.03)
    donors = [int(v) for i, (values, _) in enumerate(parts) for v in values if v != i]
    assert len(donors) == len(set(donors))
    untouched, one_hot = cutmix_batch(signals[:9], labels[:9], prob=0.0)
    assert torch.equal(untouched, signals[:9])
    assert torch.equal(one_hot, torch.eye(9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_mixup_is_weighted_sum(dtype):
    signals = torch.eye(500, dtype=dtype)[:, None]
    mixed, weights = MixupAugmentation(0.4)(signals, torch.arange(500), generator=seeded(1))
    torch.testing.assert_close(weights, mixed[:, 0].float(), atol=1e-3 if dtype == torch.float16 else 1e-7, rtol=0)
    own = weights.diagonal()
    partners = weights.clone().fill_diagonal_(0)
    assert (partners.gt(0).sum(0) <= 1).all()
    assert kstest(own[partners.sum(1) > 0].numpy(), beta(0.4, 0.4).cdf).pvalue > 0.001


def test_mixing_accepts_soft_labels_and_single_signals():
    soft = torch.softmax(torch.randn(5, 4), 1)
    for augment in (MixupAugmentation(), cutmix_batch):
        _, weights = augment(torch.randn(5, 1, 8), soft)
        torch.testing.assert_close(weights.sum(1), torch.ones(5))
    mixed, weights = cutmix(torch.zeros(1, 40), torch.ones(1, 40), 2, torch.tensor(0), num_classes=5)
    torch.testing.assert_close(
        weights, torch.stack([mixed.mean(), *torch.zeros(4)])[None] + (1 - mixed.mean()) * torch.eye(5)[2:3]
    )


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv1d(1, 8, 5), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5),
            nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x + 0.5 * x.abs())


@pytest.fixture(scope="module")
def trained():
    """A network trained to distinguish three tones, and a batch of them."""
    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    time = torch.arange(64.0)
    signals = torch.sin(time * (labels[:, None] + 1) * 0.4 + torch.rand(48, 1) * 6)[:, None] + 0.1 * torch.randn(
        48, 1, 64
    )
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(signals), labels)
        for parameter, gradient in zip(
            network.parameters(), torch.autograd.grad(loss, network.parameters()), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
    return network, signals, labels


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("grad", [True, False])
def test_adversarial_increases_loss_and_preserves_model(trained, soft, grad):
    network, signals, labels = trained
    network.train()
    network.layers[2].eval()
    modes = [m.training for m in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [p.grad.clone() for p in network.parameters()]
    target = torch.eye(3)[labels] if soft else labels
    before, random_state = signals.clone(), torch.get_rng_state()
    with torch.set_grad_enabled(grad):
        perturbed = adversarial_augmentation(network, signals, target, epsilon=0.05)
    assert torch.equal(signals, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert not perturbed.requires_grad
    delta = (perturbed - signals).abs()
    torch.testing.assert_close(delta.amax(), torch.tensor(0.05), atol=1e-6, rtol=0)
    network.eval()
    losses = [nn.functional.cross_entropy(network(x.clone()), labels).item() for x in (signals, perturbed)]
    assert losses[1] > 1.3 * losses[0]


def test_adversarial_in_inference_mode(trained):
    network, signals, labels = trained
    expected = adversarial_augmentation(network, signals, labels)
    with torch.inference_mode():
        perturbed = adversarial_augmentation(network, signals.clone(), labels.clone())
    torch.testing.assert_close(perturbed, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_adversarial_in_other_precisions(trained, dtype):
    network, signals, labels = trained
    reference = adversarial_augmentation(network, signals, labels) - signals
    other = Network().to(dtype)
    other.load_state_dict(network.state_dict())
    perturbed = adversarial_augmentation(other, signals.to(dtype), labels)
    assert perturbed.dtype == dtype
    change = perturbed.double() - signals.to(dtype).double()
    assert (change.sign() == reference.sign()).float().mean() > (0.8 if dtype == torch.bfloat16 else 0.95)


def test_adversarial_under_autocast_and_with_other_reductions(trained):
    network, signals, labels = trained
    reference = adversarial_augmentation(network, signals, labels) - signals
    with torch.autocast("cpu", torch.bfloat16):
        change = adversarial_augmentation(network, signals, labels) - signals
    assert (change.sign() == reference.sign()).float().mean() > 0.8
    for criterion in (nn.CrossEntropyLoss(reduction="none"), nn.CrossEntropyLoss(reduction="sum")):
        again = adversarial_augmentation(network, signals, labels, criterion=criterion) - signals
        assert (again.sign() == reference.sign()).float().mean() > 0.99
    assert torch.equal(adversarial_augmentation(network, signals, labels, epsilon=0), signals)


SIGNALS = torch.randn(5, 1, 16)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: amplitude_scaling(SIGNALS, (1.2, 0.8)), ValueError, "scale_range"),
        (lambda: amplitude_scaling(SIGNALS, (float("nan"), 1)), ValueError, "scale_range"),
        (lambda: gaussian_noise_augmentation(SIGNALS, -0.1), ValueError, "noise_std"),
        (lambda: gaussian_noise_augmentation(SIGNALS, float("nan")), ValueError, "noise_std"),
        (lambda: time_masking(SIGNALS, -1), ValueError, "mask_param"),
        (lambda: time_masking(SIGNALS, 2.5), ValueError, "mask_param"),
        (lambda: time_masking(SIGNALS, 2, -1), ValueError, "num_masks"),
        (lambda: time_shift(SIGNALS, -1), ValueError, "shift_max"),
        (lambda: time_shift(torch.zeros(2, 1, 0)), ValueError, "none empty"),
        (lambda: cutmix_batch(SIGNALS, LABELS, prob=1.1), ValueError, "prob"),
        (lambda: cutmix_batch(SIGNALS, LABELS, prob=float("nan")), ValueError, "prob"),
        (lambda: cutmix_batch(SIGNALS, LABELS, alpha=0.0), ValueError, "alpha"),
        (lambda: cutmix_batch(SIGNALS, LABELS, num_classes=3), ValueError, r"expected 0\.\.2"),
        (lambda: cutmix_batch(SIGNALS, LABELS[:4]), ValueError, "one for each of 5 signals"),
        (lambda: cutmix(SIGNALS, SIGNALS[:, :, :8], LABELS, LABELS), ValueError, "expected equal shapes"),
        (lambda: cutmix(SIGNALS, SIGNALS, torch.rand(5, 3), torch.rand(5, 4)), ValueError, "4 classes"),
        (lambda: cutmix(SIGNALS, SIGNALS, 1, 1), ValueError, "one for each of 5 signals"),
        (lambda: MixupAugmentation(-1.0), ValueError, "alpha"),
        (lambda: MixupAugmentation(num_classes=9)(SIGNALS, torch.rand(5, 4)), ValueError, "num_classes is 9"),
        (lambda: adversarial_augmentation(nn.Identity(), SIGNALS, LABELS, -0.1), ValueError, "epsilon"),
        (lambda: adversarial_augmentation(nn.Identity(), SIGNALS.int(), LABELS), TypeError, "int32"),
    ],
)  # fmt: skip
def test_rejects_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@each
def test_rejects_non_floating_point_signals(augment):
    for signals in (torch.ones(5, 1, 8, dtype=torch.int16), torch.ones(5, 1, 8, dtype=torch.complex64)):
        with pytest.raises(TypeError, match="expected a floating-point tensor"):
            augment(signals)


@each
def test_never_reads_values_on_the_host(augment):
    """Tensors on the meta device have no values; reading one raises."""
    assert augment(torch.empty(5, 2, 9001, device="meta")).shape == (5, 2, 9001)


@pytest.mark.gpu
def test_gpu_matches_cpu_for_equal_draws():
    """Equal spans, shifts and partners give equal signals."""
    cpu = torch.randn(6, 3, 9001)
    starts, widths = draw_spans(6, 9001, 2000, 2, generator=seeded())
    partners = torch.randperm(6, generator=seeded())
    for function, arguments in (
        (span_operations.replace_spans, (starts, widths)),
        (lambda x, *a: span_operations.replace_spans(x, *a[:2], (x, a[2])), (starts, widths, partners)),
        (span_operations.roll_rows, (starts[:, :1],)),
    ):
        expected = function(cpu, *arguments).view(cpu.shape)
        on_gpu = function(cpu.cuda(), *(a.cuda() for a in arguments)).view(cpu.shape)
        assert torch.equal(on_gpu.cpu(), expected)


@pytest.mark.gpu
@each
def test_gpu_dtype_gradient_and_reproducibility(augment):
    signals = torch.randn(5, 2, 9001, device="cuda")
    for dtype in (torch.float16, torch.float32):
        x = signals.to(dtype).requires_grad_()
        once = augment(x, seeded(1, "cuda"))
        assert once.dtype == dtype
        torch.autograd.grad(once.sum(), x)
    assert torch.equal(augment(signals, seeded(1, "cuda")), augment(signals, seeded(1, "cuda")))
