import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from whirl.losses import losses
from whirl.losses.cnn_losses import (
    CrossEntropyLoss,
    FocalLoss,
    LabelSmoothingCrossEntropy,
    SupConLoss,
    create_criterion,
)
from whirl.losses.contrastive import supervised_contrastive_loss

K = 4
LABELS = torch.tensor([0, 1, 1, 2, 0, 3, 3, 1])
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.0])
TARGETS = {
    "hard": LABELS,
    "soft": torch.rand(8, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(dim=1),
}
each_target = pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)


@pytest.fixture
def logits():
    return 3 * torch.randn(8, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@each_target
def test_agrees_with_classes_of_losses_module(logits, targets):
    for gamma in (0.0, 0.5, 2.0):
        for reduction in ("none", "mean", "sum"):
            other = losses.FocalLoss(gamma=gamma, reduction=reduction)
            assert torch.equal(FocalLoss(1.0, gamma, reduction)(logits, targets), other(logits, targets))
    per_class = losses.FocalLoss(torch.full((K,), 0.25), reduction="sum")
    torch.testing.assert_close(FocalLoss(reduction="sum")(logits, targets), per_class(logits, targets))
    other = losses.LabelSmoothingCrossEntropy(0.2)
    assert torch.equal(LabelSmoothingCrossEntropy(0.2)(logits, targets), other(logits, targets))


@each_target
def test_class_weights_with_smoothing_match_torch(logits, targets):
    ours = LabelSmoothingCrossEntropy(0.1, WEIGHT)(logits, targets)
    theirs = F.cross_entropy(logits, targets, WEIGHT.double(), label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)
    for reduction in ("none", "mean", "sum"):
        ours = CrossEntropyLoss(WEIGHT, 0.1, reduction)(logits, targets)
        theirs = torch.nn.CrossEntropyLoss(WEIGHT.double(), label_smoothing=0.1, reduction=reduction)(logits, targets)
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


def test_half_precision_cross_entropy_is_finite_and_accepts_any_integer_dtype():
    logits = torch.full((64, K), -1e4, dtype=torch.float16)
    logits[:, 0] = 1e4
    assert create_criterion("ce")(logits, torch.ones(64, dtype=torch.int32)).item() == 2e4


@each_target
@pytest.mark.parametrize(
    "criterion",
    [FocalLoss(), LabelSmoothingCrossEntropy(0.1, WEIGHT), CrossEntropyLoss(WEIGHT)],
    ids=["focal", "smoothing", "ce"],
)
def test_gradient(criterion, logits, targets):
    assert gradcheck(lambda x: criterion(x, targets), logits.requires_grad_())


@pytest.mark.parametrize("shape", [(8, 3), (8, 2, 3)])
def test_supcon_loss_equals_function(shape):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    criterion = SupConLoss(temperature=0.5)
    assert torch.equal(criterion(features, LABELS), supervised_contrastive_loss(features, LABELS, temperature=0.5))
    assert gradcheck(lambda x: criterion(x, LABELS), features)


def test_class_weights_move_with_the_module():
    criterion = LabelSmoothingCrossEntropy(weight=WEIGHT)
    assert torch.equal(criterion.state_dict()["weight"], WEIGHT)
    assert criterion.to("meta").weight.is_meta
    assert not WEIGHT.is_meta


@pytest.mark.parametrize(
    ("name", "kind", "kwargs"),
    [
        ("ce", CrossEntropyLoss, {"label_smoothing": 0.2, "reduction": "sum"}),
        ("label_smoothing", LabelSmoothingCrossEntropy, {"smoothing": 0.2}),
        ("focal", FocalLoss, {"alpha": 0.5, "gamma": 1.5, "reduction": "none"}),
        ("supcon", SupConLoss, {"temperature": 0.3}),
    ],
)
def test_factory_passes_all_keywords(name, kind, kwargs):
    criterion = create_criterion(name, **kwargs)
    assert type(criterion) is kind
    assert {keyword: getattr(criterion, keyword) for keyword in kwargs} == kwargs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: create_criterion("focl"),
            ValueError,
            "'focl'; did you mean 'focal'\\? Expected one of: ce, label_smoothing, ",
        ),
        (lambda: create_criterion("zzz"), ValueError, "'zzz'; expected one of: ce, label_smoothing, focal, supcon"),
        (
            lambda: create_criterion("focal", gama=2),
            TypeError,
            "argument 'gama' of criterion 'focal'; expected one of: alpha, gamma, reduction",
        ),
        (lambda: create_criterion("ce", smoothing=0.1), TypeError, "'smoothing' of .*label_smoothing"),
        (lambda: FocalLoss(alpha=WEIGHT), TypeError, "for class weights use losses.FocalLoss"),
        (lambda: create_criterion("ce", label_smoothing=-0.1), ValueError, "smoothing is -0.1"),
        (lambda: create_criterion("ce", weight=[1, 2]), TypeError, r"weight is \[1, 2\]"),
        (lambda: create_criterion("ce", reduction="avg"), ValueError, "unknown reduction 'avg'"),
        (
            lambda: create_criterion("ce")(torch.zeros(1, K), torch.tensor([-100])),
            ValueError,
            "label -100 is outside",
        ),
        (lambda: create_criterion("ce")(torch.zeros(1, K), torch.tensor([K])), ValueError, "label 4 is outside"),
        (lambda: FocalLoss(alpha=-1), ValueError, "alpha is -1"),
        (lambda: FocalLoss(alpha="1"), TypeError, "alpha is '1'"),
        (lambda: FocalLoss(gamma=-1), ValueError, "gamma is -1"),
        (lambda: FocalLoss(reduction="avg"), ValueError, "unknown reduction 'avg'"),
        (lambda: LabelSmoothingCrossEntropy(1.5), ValueError, "smoothing is 1.5"),
        (lambda: LabelSmoothingCrossEntropy(0.1, "sum"), TypeError, "weight is 'sum'"),
        (lambda: LabelSmoothingCrossEntropy(0.1, -WEIGHT), ValueError, "finite weights >= 0"),
        (lambda: SupConLoss(temperature=0), ValueError, "temperature is 0"),
        (lambda: SupConLoss(temperature=torch.nn.Parameter(torch.ones(()))), TypeError, "expected a number"),
    ],
)
def test_rejects_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("weight", [torch.ones(3), torch.ones(5)])
def test_rejects_class_weights_of_wrong_length(logits, weight):
    for criterion in (LabelSmoothingCrossEntropy(weight=weight), CrossEntropyLoss(weight)):
        with pytest.raises(ValueError, match=rf"weight has shape \[{len(weight)}\], expected \[4\]"):
            criterion(logits, LABELS)
