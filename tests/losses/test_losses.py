import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch.autograd import gradcheck

from whirl.losses.losses import (
    FocalLoss,
    LabelSmoothingCrossEntropy,
    PhysicsInformedLoss,
    compute_class_weights,
    focal_loss,
    smoothed_cross_entropy,
)

B, K = 12, 5
REDUCTIONS = ("none", "mean", "sum")
FUNCTIONS = {
    "ce": partial(smoothed_cross_entropy, smoothing=0.0),
    "smoothed": smoothed_cross_entropy,
    "focal0": partial(focal_loss, gamma=0.0),
    "focal0.5": partial(focal_loss, gamma=0.5),
    "focal1": partial(focal_loss, gamma=1.0),
    "focal1.5": partial(focal_loss, gamma=1.5),
    "focal2": focal_loss,
}
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0])
each_loss = pytest.mark.parametrize("loss", FUNCTIONS.values(), ids=FUNCTIONS)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
hard_and_soft = pytest.mark.parametrize("form", ["hard", "soft"])
with_and_without_weight = pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])


def weighted(loss, weight):
    name = "alpha" if getattr(loss, "func", loss) is focal_loss else "weight"
    return partial(loss, **{name: weight})


def make_batch(form, dtype=torch.float32, n_classes=K):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(B, n_classes, generator=generator, dtype=dtype)
    if form == "hard":
        return logits, torch.arange(B) % n_classes
    targets = torch.rand(B, n_classes, generator=generator, dtype=dtype)
    targets[0] = F.one_hot(torch.tensor(0), n_classes)  # a probability of exactly 0
    return logits, targets / targets.sum(dim=1, keepdim=True)


def test_imports_only_torch_and_numpy():
    code = """
import sys
import whirl.losses.losses
ours = {name for name in sys.modules if name.startswith("whirl.")}
allowed = "_display _distribution _precision validation losses losses.checks losses.class_weights losses.losses".split()
print(ours - {f"whirl.{name}" for name in allowed})
print({"scipy", "sklearn", "pandas"} & set(sys.modules))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]


# values


@pytest.mark.parametrize(
    ("gamma", "p", "expected"),
    [  # Lin et al. 2017: (1 - p)^γ · -ln p
        (2.0, 0.9, 0.01 * 0.1053605157),
        (2.0, 0.968, 0.001024 * 0.0325231917),  # "1000 times lower" than cross entropy
        (2.0, 0.1, 0.81 * 2.302585093),
        (0.5, 0.75, 0.5 * 0.2876820724),
        (5.0, 0.5, 0.03125 * 0.6931471806),
    ],
)
def test_focal_loss_matches_hand_calculation(gamma, p, expected):
    logits = torch.tensor([[p, 1 - p]], dtype=torch.float64).log() + 7.0
    assert focal_loss(logits, torch.tensor([0]), gamma=gamma).item() == pytest.approx(expected, rel=1e-8)


def test_focal_loss_of_two_classes_matches_sigmoid_focal_loss():
    """As defined by torchvision: α for the positive class, 1 - α for the negative one; a logit of ln 9 is p = 0.9."""
    logits = torch.tensor([[0.0, math.log(9)], [0.0, math.log(9)]])
    losses = focal_loss(logits, torch.tensor([1, 0]), alpha=torch.tensor([0.75, 0.25]), reduction="none")
    expected = [0.25 * 0.1**2 * -math.log(0.9), 0.75 * 0.9**2 * -math.log(0.1)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_soft_focal_loss_sums_over_classes():
    logits = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    loss = focal_loss(logits, torch.tensor([[0.3, 0.7]]), alpha=torch.tensor([1.0, 2.0]))
    expected = 0.3 * 0.2**2 * -math.log(0.8) + 2 * 0.7 * 0.8**2 * -math.log(0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@hard_and_soft
@each_reduction
@with_and_without_weight
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_cross_entropy_matches_torch(form, reduction, weight, smoothing):
    logits, targets = make_batch(form)
    actual = smoothed_cross_entropy(logits, targets, smoothing, weight, reduction)
    expected = F.cross_entropy(logits, targets, weight, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(actual, expected, rtol=2e-7, atol=0)  # the weighted mean sums in a different order


@hard_and_soft
@each_reduction
@with_and_without_weight
def test_focal_loss_with_gamma_zero_is_weighted_cross_entropy(form, reduction, weight):
    logits, targets = make_batch(form, torch.float64)
    actual = focal_loss(logits, targets, weight, gamma=0.0, reduction=reduction)
    expected = F.cross_entropy(logits, targets, None if weight is None else weight.double(), reduction=reduction)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@each_loss
@each_reduction
def test_one_hot_targets_equal_labels(loss, reduction):
    logits, labels = make_batch("hard", torch.float64)
    one_hot = F.one_hot(labels, K).double()
    torch.testing.assert_close(loss(logits, one_hot, reduction=reduction), loss(logits, labels, reduction=reduction))


@each_loss
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_may_have_any_integer_dtype(loss, dtype):
    logits, labels = make_batch("hard")
    assert torch.equal(loss(logits, labels.to(dtype)), loss(logits, labels))


@each_loss
@hard_and_soft
def test_loss_and_gradient_of_a_single_class_are_zero(loss, form):
    logits, targets = make_batch(form, n_classes=1)
    logits.requires_grad_()
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert not gradient.any()


@each_loss
def test_loss_and_gradient_are_zero_if_all_labels_have_weight_zero(loss):
    logits = make_batch("hard")[0].requires_grad_()
    value = weighted(loss, WEIGHT)(logits, torch.full((B,), 3))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros(B, K))


def test_scalar_alpha_is_a_factor():
    assert torch.equal(focal_loss(*make_batch("hard"), np.float32(0.25)), focal_loss(*make_batch("hard"), 0.25))
    logits, labels = make_batch("hard")
    torch.testing.assert_close(focal_loss(logits, labels, alpha=0.25), 0.25 * focal_loss(logits, labels))
    uniform = torch.full((K,), 0.25)  # a common factor cancels in a weighted mean, but not in a sum
    torch.testing.assert_close(focal_loss(logits, labels, alpha=uniform), focal_loss(logits, labels))
    torch.testing.assert_close(
        focal_loss(logits, labels, uniform, reduction="sum"), focal_loss(logits, labels, 0.25, reduction="sum")
    )


@hard_and_soft
@pytest.mark.parametrize("make", [FocalLoss, LabelSmoothingCrossEntropy, PhysicsInformedLoss])
def test_classes_equal_their_functions(make, form):
    function = {FocalLoss: focal_loss, LabelSmoothingCrossEntropy: smoothed_cross_entropy}.get(make, F.cross_entropy)
    batch = make_batch(form)
    assert torch.equal(make()(*batch), function(*batch))


def test_classes_pass_their_arguments():
    logits, labels = make_batch("hard")
    focal = FocalLoss(WEIGHT, gamma=0.7, reduction="none")
    assert torch.equal(focal(logits, labels), focal_loss(logits, labels, WEIGHT, 0.7, "none"))
    smoothed = LabelSmoothingCrossEntropy(0.3, "sum")
    assert torch.equal(smoothed(logits, labels), smoothed_cross_entropy(logits, labels, 0.3, reduction="sum"))


# gradients and numerics


@each_loss
@hard_and_soft
@each_reduction
@with_and_without_weight
def test_gradient(loss, form, reduction, weight):
    logits, targets = make_batch(form, torch.float64)
    logits.requires_grad_()
    objective = weighted(loss, weight)
    assert gradcheck(lambda x: objective(x, targets, reduction=reduction), logits)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@hard_and_soft
def test_second_derivative(gamma, form):
    logits, targets = make_batch(form, torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: focal_loss(x, targets, gamma=gamma), logits)


def test_gradient_of_soft_targets():
    logits, targets = make_batch("soft", torch.float64)
    assert gradcheck(lambda y: focal_loss(logits, y), targets.requires_grad_())


def test_gradient_of_physics_informed_loss():
    logits, targets = make_batch("hard", torch.float64)
    criterion = PhysicsInformedLoss(0.7, 0.3)
    assert gradcheck(lambda x: criterion(x, targets, lambda p: p.square().mean()), logits.requires_grad_())


@each_loss
@pytest.mark.parametrize("form", ["correct", "wrong", "soft"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_huge_logits(loss, form, dtype):
    """At ±10⁴ p is exactly 0 or 1, and float16 can represent neither the loss of a wrong label nor its sum."""
    logits = torch.full((2 * K, K), -1e4, dtype=dtype)
    logits[torch.arange(2 * K), torch.arange(2 * K) % K] = 1e4
    logits[K:] /= 1000  # p close to 1
    logits.requires_grad_()
    targets = torch.arange(2 * K) % K if form == "correct" else (torch.arange(2 * K) + 1) % K
    if form == "soft":
        targets = 0.5 * F.one_hot(targets, K).to(dtype) + 0.5 * F.one_hot(targets.roll(1), K).to(dtype)
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.isfinite().all()
    # p is close to 0 or 1: the factor (1 - p)^γ is 1 for wrong classes, and correct ones have no loss
    targets = targets.double() if form == "soft" else targets
    smoothing = 0.1 if loss is smoothed_cross_entropy else 0.0
    expected = F.cross_entropy(logits.detach().double(), targets, label_smoothing=smoothing)
    assert value.item() == pytest.approx(expected.item(), rel=2e-6, abs=1e-3)


@each_loss
@pytest.mark.parametrize("confidence", [0.0, 1e-30, 1e-10, 1e-3, 1.0, 20.0, 90.0, 110.0])
def test_gradient_is_finite_for_every_confidence(loss, confidence):
    logits = torch.tensor([[confidence, 0.0]], requires_grad=True)
    for targets in (torch.tensor([0]), torch.tensor([1]), torch.tensor([[1.0, 0.0]])):
        (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
        assert gradient.isfinite().all()


@each_loss
@hard_and_soft
def test_half_precision_is_computed_in_float32(loss, form):
    logits, targets = make_batch(form)
    half = logits.half()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, targets)
    assert torch.equal(value, loss(half.float(), targets))


@each_loss
@hard_and_soft
@with_and_without_weight
def test_does_not_modify_inputs(loss, form, weight):
    tensors = [tensor for tensor in (*make_batch(form), weight) if tensor is not None]
    before = [tensor.clone() for tensor in tensors]
    tensors[0].requires_grad_()
    torch.autograd.grad(weighted(loss, weight)(*tensors[:2]), tensors[0])
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


@each_loss
@hard_and_soft
@with_and_without_weight
def test_never_reads_values_on_the_host(loss, form, weight):
    """Tensors on the meta device have no values; reading one raises."""
    logits, targets, weight = (None if t is None else t.to("meta") for t in (*make_batch(form), weight))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(weighted(loss, weight)(logits, targets), logits)
    assert gradient.shape == logits.shape


# modules


def test_class_weights_move_with_the_module():
    criterion = FocalLoss(alpha=WEIGHT)
    assert torch.equal(criterion.state_dict()["alpha"], WEIGHT)
    assert criterion.double().alpha.dtype == torch.float64
    assert criterion.to("meta").alpha.is_meta
    assert WEIGHT.dtype == torch.float32


def test_loading_a_state_dict_does_not_modify_the_callers_weights():
    original = WEIGHT.clone()
    FocalLoss(alpha=original).load_state_dict({"alpha": torch.ones(K)})
    assert torch.equal(original, WEIGHT)


def test_physics_informed_loss_components():
    logits, labels = make_batch("hard")
    criterion = PhysicsInformedLoss(data_weight=2.0, physics_weight=0.5)
    terms = criterion.components(logits, labels, torch.tensor(3.0))
    data = F.cross_entropy(logits, labels).item()
    without_physics = PhysicsInformedLoss(physics_weight=0)
    assert without_physics(logits, labels, torch.tensor(math.inf)).item() == pytest.approx(data)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"data_loss": data, "physics_loss": 3.0, "total_loss": 2 * data + 1.5}
    )
    assert torch.equal(criterion(logits, labels, lambda _: torch.tensor(3.0)), terms["total_loss"])
    assert criterion(logits, labels).item() == pytest.approx(2 * data)


def test_physics_informed_loss_with_custom_data_criterion():
    loss = PhysicsInformedLoss(data_criterion=torch.nn.MSELoss())(torch.ones(3), torch.zeros(3), torch.tensor(10.0))
    assert loss.item() == pytest.approx(2.0)


# class weights


@pytest.mark.parametrize("convert", [list, np.asarray, lambda v: np.asarray(v, np.uint8), torch.tensor])
def test_class_weights_are_balanced(convert):
    labels = [0] * 7 + [1] * 2 + [2]
    weights = compute_class_weights(convert(labels))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.asarray(labels))
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights[labels].mean().item() == pytest.approx(1)


@pytest.mark.parametrize(("num_classes", "absent"), [(4, "1, 3"), (None, "1")])
def test_absent_class_has_weight_zero(num_classes, absent):
    with pytest.warns(UserWarning, match=f"of class {absent} "):
        weights = compute_class_weights([0, 2, 2, 2], num_classes)
    n_classes = num_classes or 3
    assert weights.tolist() == pytest.approx([4 / n_classes, 0, 4 / (3 * n_classes), 0][:n_classes])


def test_warning_names_at_most_ten_absent_classes():
    with pytest.warns(UserWarning, match=r"of class 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 88 more \(of 100\)"):
        compute_class_weights([0, 99])


@pytest.mark.parametrize(
    ("labels", "num_classes", "error", "message"),
    [
        ([], None, ValueError, r"shape \[0\]"),
        ([[0, 1]], None, ValueError, r"shape \[1, 2\]"),
        ([0, -1], None, ValueError, "labels range from -1 to 0, expected integers >= 0"),
        ([0, 3], 3, ValueError, "from 0 to 3, expected 0..2"),
        ([0.0, 1.0], None, TypeError, "float64"),
        (["healthy"], None, TypeError, "expected integers"),
        ([0, 1], 2.5, TypeError, "num_classes is 2.5, expected an integer"),
        ([20240101, 20240102], None, ValueError, "range up to 20240102, expected class indices below 10000; number"),
    ],
)
def test_compute_class_weights_rejects_invalid_labels(labels, num_classes, error, message):
    with pytest.raises(error, match=message):
        compute_class_weights(labels, num_classes)


# invalid input


@each_loss
@each_reduction
@with_and_without_weight
@pytest.mark.parametrize("label", [K, -1, -100])
def test_rejects_label_out_of_range(loss, reduction, weight, label):
    logits, labels = make_batch("hard")
    labels[3] = label
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.4: the logits have 5 classes"):
        weighted(loss, weight)(logits, labels, reduction=reduction)


@each_loss
@pytest.mark.parametrize(
    ("logits", "targets"),
    [((B, K), torch.zeros(B)), ((B, K), torch.zeros(B, K, dtype=torch.int64)), ((B, K), torch.zeros(B, K + 1)),
     ((B, K), torch.zeros(B + 1, dtype=torch.int64)), ((B,), torch.zeros(B)), ((B, K, 2), torch.zeros(B, K, 2))],
)  # fmt: skip
def test_rejects_mismatched_shapes(loss, logits, targets):
    with pytest.raises(ValueError, match="expected logits"):
        loss(torch.zeros(logits), targets)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FocalLoss(gamma=-1), ValueError, "gamma is -1"),
        (lambda: FocalLoss(gamma=math.nan), ValueError, "gamma is nan"),
        (lambda: FocalLoss(gamma="2"), TypeError, "gamma is '2', expected a number"),
        (lambda: FocalLoss(gamma=torch.ones(1)), TypeError, r"gamma is tensor\(\[1.\]\), expected a number"),
        (lambda: FocalLoss(gamma=torch.tensor(2.0, requires_grad=True)), TypeError, r"gamma is .*, expected a number"),
        (lambda: focal_loss(*make_batch("hard"), alpha=-1.0), ValueError, "alpha is -1.0"),
        (lambda: focal_loss(*make_batch("hard"), alpha=math.nan), ValueError, "alpha is nan"),
        (lambda: focal_loss(torch.ones(B, K, dtype=torch.int64), torch.arange(B)), TypeError, "logits are torch.int64"),
        (lambda: focal_loss(make_batch("hard")[0], [0] * B), TypeError, "targets are list"),
        (lambda: FocalLoss(reduction="avg"), ValueError, "unknown reduction 'avg'"),
        (lambda: FocalLoss(alpha=0.25), TypeError, "alpha is 0.25"),
        (lambda: FocalLoss(alpha=-WEIGHT), ValueError, "finite weights >= 0"),
        (lambda: FocalLoss(alpha=torch.tensor([1.0, math.nan])), ValueError, "finite weights >= 0"),
        (lambda: FocalLoss(alpha=torch.ones(2, 2)), ValueError, r"shape \[2, 2\]"),
        (lambda: FocalLoss(alpha=torch.ones(3))(*make_batch("hard")), ValueError, r"alpha has shape \[3\].* 5 cl"),
        (lambda: focal_loss(*make_batch("hard"), alpha=np.ones(K)), TypeError, "expected a tensor"),
        (lambda: smoothed_cross_entropy(*make_batch("soft"), weight=torch.ones(3)), ValueError, r"weight has .*\[3\]"),
        (lambda: LabelSmoothingCrossEntropy(-0.1), ValueError, "smoothing is -0.1"),
        (lambda: LabelSmoothingCrossEntropy(1.0), ValueError, "smoothing is 1.0"),
        (lambda: LabelSmoothingCrossEntropy(None), TypeError, "smoothing is None"),
        (lambda: LabelSmoothingCrossEntropy(reduction=None), ValueError, "unknown reduction None"),
        (lambda: PhysicsInformedLoss(physics_weight=-1), ValueError, "physics_weight is -1"),
        (lambda: PhysicsInformedLoss(data_weight="1"), TypeError, "data_weight is '1'"),
        (lambda: PhysicsInformedLoss()(*make_batch("hard"), torch.ones(B)), ValueError, r"physics_loss .*\[12\]"),
        (lambda: PhysicsInformedLoss()(*make_batch("hard"), 1.0), TypeError, "physics_loss is 1.0"),
    ],
)
def test_rejects_invalid_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
