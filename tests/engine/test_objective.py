"""Tasks: accuracy fits the targets or is not reported; what a mean loss divides by."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whirl.augment.signal_mixing import MixupAugmentation
from whirl.engine.objective import Objective
from whirl.losses import cnn_losses, losses
from whirl.training.trainer import Trainer

N = 200
WEIGHT = torch.tensor([1.0, 5.0, 0.2])


def fit(model, targets, criterion=None, n_features=4, **options):
    torch.manual_seed(0)
    signals = torch.randn(N, 1, n_features)
    batches = list(zip(signals.split(16), targets(signals).split(16), strict=True))
    trainer = Trainer(model, batches, batches, criterion=criterion, device="cpu", **options)
    return trainer, trainer.fit(1), signals


def flat(n_out):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, n_out))


def above_zero(signals):
    return (signals.mean((1, 2)) > 0).float()


@pytest.mark.parametrize("shape", [(N, 1), (N,)])
@pytest.mark.parametrize("criterion", [nn.MSELoss(), F.l1_loss, nn.SmoothL1Loss()])
def test_regression_has_no_accuracy(shape, criterion):
    trainer, history, _ = fit(flat(1), lambda signals: signals.mean((1, 2)).reshape(shape), criterion)
    assert "val_accuracy" not in history
    assert trainer.task == "regression"


def test_regression_on_a_vector_is_not_broadcast():
    """Outputs [B, 1] and targets [B] would otherwise give the loss of all pairs."""
    model = flat(1)
    _, history, signals = fit(model, lambda signals: signals.mean((1, 2)), nn.MSELoss())
    with torch.no_grad():
        expected = F.mse_loss(model(signals)[:, 0], signals.mean((1, 2)))
    assert history["val_loss"][0] == pytest.approx(float(expected), rel=1e-5)


def test_autoencoder_has_no_accuracy():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Unflatten(1, (1, 4)))
    assert "val_accuracy" not in fit(model, lambda signals: signals, nn.MSELoss())[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("shape", [(N, 1), (N,)])
@pytest.mark.parametrize("options", [{"criterion": nn.BCEWithLogitsLoss()}, {"task": "binary"}])
def test_accuracy_of_one_logit(dtype, shape, options):
    model = flat(1)
    trainer, history, signals = fit(model, lambda x: above_zero(x).to(dtype).reshape(shape), **options)
    with torch.no_grad():
        expected = ((model(signals)[:, 0] > 0) == (above_zero(signals) > 0)).double().mean()
    assert history["val_accuracy"][0] == pytest.approx(float(expected))
    assert 0.2 < history["val_accuracy"][0] < 0.95
    assert trainer.task == "binary"


def test_accuracy_of_one_probability():
    model = nn.Sequential(flat(1), nn.Sigmoid())
    _, history, signals = fit(model, lambda x: above_zero(x)[:, None], nn.BCELoss())
    with torch.no_grad():
        expected = ((model(signals)[:, 0] > 0.5) == (above_zero(signals) > 0)).double().mean()
    assert history["val_accuracy"][0] == pytest.approx(float(expected))


def test_accuracy_of_several_labels_counts_exact_matches():
    model = flat(3)
    trainer, history, signals = fit(model, lambda x: (x[:, 0, :3] > 0).float(), nn.BCEWithLogitsLoss())
    with torch.no_grad():
        expected = ((model(signals) > 0) == (signals[:, 0, :3] > 0)).all(1).double().mean()
    assert history["val_accuracy"][0] == pytest.approx(float(expected))
    assert trainer.task == "multilabel"


@pytest.mark.parametrize("ignored", [-100, 1])
def test_ignored_labels_do_not_count(ignored):
    def targets(signals):
        labels = torch.arange(N) % 3
        return labels.where(torch.arange(N) % 2 == 0, ignored)

    model = flat(3)
    _, history, signals = fit(model, targets, nn.CrossEntropyLoss(ignore_index=ignored))
    with torch.no_grad():
        outputs, labels = model(signals), targets(signals)
        kept = labels != ignored
        accuracy = (outputs.argmax(1) == labels)[kept].double().mean()
        loss = F.cross_entropy(outputs, labels, ignore_index=ignored)
    assert history["val_accuracy"][0] == pytest.approx(float(accuracy))
    assert history["val_loss"][0] == pytest.approx(float(loss), rel=1e-5)


def test_accuracy_of_dense_labels_is_a_fraction():
    model = nn.Conv1d(1, 3, 1)
    history = fit(model, lambda signals: torch.randint(3, (N, 4)), nn.CrossEntropyLoss())[1]
    assert 0 <= history["val_accuracy"][0] <= 1


@pytest.mark.parametrize(
    ("targets", "task"),
    [
        (lambda x: torch.arange(N) % 3, "multiclass"),
        (lambda x: F.one_hot(torch.arange(N) % 3).float(), "multiclass"),
        (lambda x: (x[:, 0, :3] > 0).float(), None),
        (lambda x: x[:, 0, :3], None),
    ],
)
def test_task_of_an_unknown_criterion(targets, task):
    def criterion(outputs, targets):
        return (outputs.square().mean(1) * (1 + targets.view(len(targets), -1).float().mean(1))).mean()

    trainer, history, _ = fit(flat(3), targets, criterion)
    assert trainer.task == task
    assert ("val_accuracy" in history) == (task is not None)


def test_mixed_labels_still_count_by_their_largest_weight():
    trainer, history, _ = fit(flat(3), lambda x: torch.arange(N) % 3, augmentation=MixupAugmentation(num_classes=3))
    assert "train_accuracy" in history
    assert trainer.task == "multiclass"


def test_rejects_an_unknown_task():
    with pytest.raises(ValueError, match="unknown task 'multi'"):
        Objective(task="multi")


@pytest.mark.parametrize(("labels", "shown"), [([0, 1, 2], "label 2"), ([0, -1, -100], "label -1")])
def test_rejects_labels_outside_the_classes(labels, shown):
    with pytest.raises(ValueError, match=f"{shown} is outside the 2 classes"):
        Objective().fit_targets(torch.zeros(3, 2), torch.tensor(labels))


def test_several_labels_with_cross_entropy_have_no_accuracy(caplog):
    history = fit(flat(3), lambda x: (x[:, 0, :3] > 0).float())[1]
    assert "val_accuracy" not in history
    assert "do not sum to 1" in caplog.text


class SquaredError(nn.Module):
    """A criterion of one's own for classes."""

    task = "multiclass"

    def forward(self, logits, targets):
        return (logits.softmax(1) - targets.reshape(len(targets), -1)).square().mean()


def test_several_labels_with_another_criterion_for_classes_have_no_accuracy(caplog):
    history = fit(flat(3), lambda x: (x[:, 0, :3] > 0).float(), SquaredError())[1]
    assert "val_accuracy" not in history
    assert "targets of SquaredError have rows that do not sum to 1" in caplog.text


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), SquaredError()])
def test_rejects_integers_that_are_no_labels(criterion):
    """With three samples, three labels of each would be compared with the classes of all samples."""
    message = r"targets have shape \[3, 3\] and dtype torch.int64, expected labels \[3\], or shares .+'multilabel'"
    with pytest.raises(ValueError, match=message):
        Objective(criterion).fit_targets(torch.zeros(3, 3), torch.ones(3, 3, dtype=torch.int64))


def test_logarithms_of_shares_have_an_accuracy():
    objective = Objective(nn.KLDivLoss(log_target=True, reduction="batchmean"))
    outputs, targets = torch.eye(3).log_softmax(1), torch.eye(3).softmax(1).log()
    assert objective.score(outputs, objective.fit_targets(outputs, targets)).n_correct == 3


def test_rejects_a_criterion_for_another_task():
    with pytest.raises(ValueError, match="task is 'binary', but CrossEntropyLoss is for the task 'multiclass'"):
        Objective(nn.CrossEntropyLoss(), "binary")


def test_warns_of_a_summed_loss(caplog):
    fit(flat(3), lambda x: torch.arange(N) % 3, nn.CrossEntropyLoss(reduction="sum"))
    assert "the loss is a sum over the batch" in caplog.text


CRITERIA = {
    "torch": nn.CrossEntropyLoss(WEIGHT),
    "torch_smoothed": nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
    "torch_ignoring": nn.CrossEntropyLoss(WEIGHT, ignore_index=0),
    "partial": functools.partial(F.cross_entropy, weight=WEIGHT),
    "cnn_cross_entropy": cnn_losses.CrossEntropyLoss(WEIGHT),
    "cnn_smoothing": cnn_losses.LabelSmoothingCrossEntropy(0.1, WEIGHT),
    "focal": losses.FocalLoss(WEIGHT),
    "physics_informed": losses.PhysicsInformedLoss(data_criterion=cnn_losses.CrossEntropyLoss(WEIGHT)),
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
@pytest.mark.parametrize("micro", [3, 5])
def test_accumulation_is_exact_for_weighted_means(criterion, micro):
    """A window of micro-batches steps as one batch of all its samples."""
    generator = torch.Generator().manual_seed(1)
    signals, targets = torch.randn(15, 1, 4, generator=generator), torch.randint(3, (15,), generator=generator)
    stepped = []
    for size, k in ((15, 1), (micro, 15 // micro)):
        model = flat(3)
        batches = list(zip(signals.split(size), targets.split(size), strict=True))
        sgd = torch.optim.SGD(model.parameters(), lr=0.5)
        options = {"gradient_accumulation_steps": k, "max_grad_norm": None}
        trainer = Trainer(model, batches, batches, sgd, criterion, device="cpu", **options)
        history = trainer.fit(1)
        assert trainer.state.global_step == 1
        stepped.append((model[1].weight.detach(), history["val_loss"][0]))
    torch.testing.assert_close(stepped[0][0], stepped[1][0], rtol=1e-4, atol=1e-6)
    assert stepped[0][1] == pytest.approx(stepped[1][1], rel=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_validation_loss_does_not_depend_on_the_batch_size(criterion):
    generator = torch.Generator().manual_seed(1)
    signals, targets = torch.randn(60, 1, 4, generator=generator), torch.randint(3, (60,), generator=generator)
    model = flat(3)
    expected = float(criterion(model(signals), targets).detach())
    for size in (1, 7, 60):
        batches = [
            batch for batch in zip(signals.split(size), targets.split(size), strict=True)
            if criterion(model(batch[0]), batch[1]).isfinite()  # torch gives NaN where all labels are ignored
        ]  # fmt: skip
        trainer = Trainer(model, batches, batches, criterion=criterion, device="cpu")
        assert trainer.validate_epoch()["loss"] == pytest.approx(expected, rel=1e-5)


def test_warns_of_an_unknown_denominator(caplog):
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", WEIGHT)

        def forward(self, outputs, targets):
            return F.cross_entropy(outputs, targets, self.weight)

    fit(flat(3), lambda x: torch.arange(N) % 3, Weighted(), gradient_accumulation_steps=2)
    assert "give it a method denominator(targets)" in caplog.text
    caplog.clear()
    fit(flat(3), lambda x: torch.arange(N) % 3, Weighted())
    fit(flat(3), lambda x: torch.arange(N) % 3, nn.CrossEntropyLoss(WEIGHT), gradient_accumulation_steps=2)
    assert "denominator" not in caplog.text


def test_rejects_an_unreduced_loss():
    with pytest.raises(ValueError, match=r"the loss has shape \[16\], expected a scalar: set reduction='mean'"):
        fit(flat(3), lambda x: torch.arange(N) % 3, nn.CrossEntropyLoss(reduction="none"))


class Dictionary(nn.Module):
    def __init__(self, key="logits"):
        super().__init__()
        self.key, self.head = key, flat(3)

    def forward(self, signals):
        return {self.key: self.head(signals), "features": signals}


def test_outputs_may_be_a_mapping_with_logits():
    assert 0 <= fit(Dictionary(), lambda x: torch.arange(N) % 3)[1]["val_accuracy"][0] <= 1


@pytest.mark.parametrize(
    ("model", "found"),
    [(Dictionary("scores"), r"the keys \['features', 'scores'\]"), (nn.Identity(), "a tuple")],
)
def test_rejects_other_outputs_with_a_remedy(model, found):
    if isinstance(model, nn.Identity):
        model = flat(3)
        model.forward = lambda signals: (signals, signals)
    with pytest.raises(TypeError, match=found + ", expected a tensor of logits or a mapping with the key 'logits'"):
        fit(model, lambda x: torch.arange(N) % 3)


def test_rejects_batches_of_arrays():
    batch = (np.zeros((4, 1, 4), np.float32), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(
        TypeError, match=r"the signals of a batch are a ndarray, expected a tensor: use torch\.as_tensor"
    ):
        Trainer(flat(3), [batch], device="cpu").fit(1)


# -- sample weights --------------------------------------------------------------------------------------------

WEIGHTED = {
    **CRITERIA,
    "function": F.cross_entropy,
    "binary": nn.BCEWithLogitsLoss(),
    "mse": nn.MSELoss(),
}
WITHOUT_REDUCTION = ("physics_informed",)


def weighted_targets(name, n):
    if name in ("binary", "mse"):
        return (torch.arange(3 * n) % 2).float().view(n, 3)
    return torch.arange(n) % 3


@pytest.mark.parametrize("name", sorted(WEIGHTED.keys() - set(WITHOUT_REDUCTION)))
def test_sample_weight_counts_as_repeated_samples(name):
    torch.manual_seed(0)
    objective, outputs, targets = Objective(WEIGHTED[name]), torch.randn(4, 3), weighted_targets(name, 4)
    repeats = torch.tensor([1, 3, 0, 2])
    rows = torch.arange(4).repeat_interleave(repeats)
    mean = objective.loss(outputs, targets, repeats.float())
    divisors = [objective.denominator(each) for each in (targets, targets[rows])]
    n, n_repeated = [
        len(each) if divisor is None else float(divisor)
        for each, divisor in zip((targets, rows), divisors, strict=True)
    ]
    expected = WEIGHTED[name](outputs[rows], targets[rows])
    assert float(mean) * n == pytest.approx(float(expected) * n_repeated, rel=1e-5)


@pytest.mark.parametrize("name", sorted(WEIGHTED.keys() - set(WITHOUT_REDUCTION)))
def test_unit_and_unknown_weights_change_nothing(name):
    torch.manual_seed(0)
    outputs, targets = torch.randn(4, 3), weighted_targets(name, 4)
    objective = Objective(WEIGHTED[name])
    expected = objective.loss(outputs, targets)
    for weight in (1.0, float("nan")):
        assert objective.loss(outputs, targets, torch.full((4,), weight)).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", WITHOUT_REDUCTION)
def test_rejects_weights_for_a_criterion_without_reduction(name):
    with pytest.raises(TypeError, match="sample_weight requires a criterion with an attribute reduction"):
        Objective(CRITERIA[name]).loss(torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2))


def test_rejects_weights_of_another_shape():
    with pytest.raises(ValueError, match=r"sample_weight has the shape \[3\], expected \[2\]"):
        Objective().loss(torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(3))


def test_weighted_training_does_not_depend_on_micro_batches():
    torch.manual_seed(0)
    signals, labels, weights = torch.randn(24, 1, 4), torch.arange(24) % 3, torch.rand(24)

    def trained(size, steps):
        model = flat(3)
        batches = [
            (*rows, {"sample_weight": w})
            for *rows, w in zip(signals.split(size), labels.split(size), weights.split(size), strict=True)
        ]
        criterion = nn.CrossEntropyLoss(WEIGHT)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Trainer(model, batches, None, optimizer, criterion, device="cpu", gradient_accumulation_steps=steps).fit(2)
        return model[1].weight

    assert torch.allclose(trained(24, 1), trained(5, 5), atol=1e-6)
    assert not torch.allclose(trained(24, 1), flat(3)[1].weight, atol=1e-3)
