"""Sharpness-aware minimization in the trainer: the formula, exact resume, accumulation and skipped batches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whirl.optim import SAM
from whirl.training import PINNTrainer, Trainer

N = 24


def batches(size=8):
    generator = torch.Generator().manual_seed(0)
    signals, labels = torch.randn(N, 1, 8, generator=generator), torch.arange(N) % 3
    return list(zip(signals.split(size), labels.split(size), strict=True))


def network(norm=False):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(1, 4, 3), *([nn.BatchNorm1d(4)] if norm else []), nn.Flatten(), nn.Linear(24, 3))


def trainer(model, rho=0.1, *, data=None, lr=0.1, kind=Trainer, **options):
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), rho)
    return kind(model, batches() if data is None else data, None, optimizer, device="cpu", **options)


def by_hand(model, rho, epochs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parameters = list(model.parameters())
    for signals, labels in batches() * epochs:
        optimizer.zero_grad()
        F.cross_entropy(model(signals), labels).backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in parameters))
        perturbations = [rho * p.grad / norm for p in parameters]
        with torch.no_grad():
            [p.add_(e) for p, e in zip(parameters, perturbations, strict=True)]
        optimizer.zero_grad()
        F.cross_entropy(model(signals), labels).backward()
        with torch.no_grad():
            [p.sub_(e) for p, e in zip(parameters, perturbations, strict=True)]
        optimizer.step()


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_follows_the_gradient_at_the_perturbed_weights(rho):
    ours, expected = network(), network()
    trainer(ours, rho, max_grad_norm=None).fit(2)
    by_hand(expected, rho, 2)
    for a, b in zip(ours.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_second_pass_does_not_change_running_statistics():
    model = network(norm=True)
    trainer(model).fit(1)
    assert model[1].num_batches_tracked == len(batches())


def test_losses_and_accuracy_are_those_of_the_weights_themselves():
    model = network()
    with torch.no_grad():
        expected = F.cross_entropy(model(batches(N)[0][0]), batches(N)[0][1])
    assert trainer(model, data=batches(N)).fit(1)["train_loss"] == [pytest.approx(expected.item())]


def test_accumulation_with_tiny_perturbation_equals_one_batch():
    models = [network(), network()]
    trainer(models[0], 1e-7, data=batches(N)).fit(2)
    trainer(models[1], 1e-7, data=batches(5), gradient_accumulation_steps=5).fit(2)
    assert torch.allclose(models[0][0].weight, models[1][0].weight, atol=1e-6)


def test_resumes_to_the_same_bits_with_a_schedule(tmp_path):
    def new(**options):
        found = trainer(network(norm=True), **options)
        found.lr_scheduler = torch.optim.lr_scheduler.StepLR(found.optimizer, 1, 0.5)
        return found

    expected, resumed = new(), new()
    expected.fit(4)
    new(checkpoint_dir=tmp_path).fit(2)
    resumed.fit(4, tmp_path / "last.pt")
    assert all(a.equal(b) for a, b in zip(expected.model.parameters(), resumed.model.parameters(), strict=True))
    assert expected.history["lr"] == resumed.history["lr"] == [0.1, 0.05, 0.025, 0.0125]


def test_skipped_batch_leaves_the_weights_as_they_were():
    model = network()
    bad = (torch.full((8, 1, 8), torch.nan), torch.zeros(8, dtype=torch.int64))
    trainer(model, data=[bad, batches()[0]], on_nonfinite="skip").fit(1)
    trainer(expected := network(), data=batches()[:1]).fit(1)
    assert all(a.equal(b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


def test_frozen_and_unused_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    model.unused = nn.Linear(2, 2)
    model.forward = lambda signals: nn.Sequential.forward(model[:3], signals)
    before = [p.clone() for p in [*model[0].parameters(), *model.unused.parameters()]]
    trainer(model).fit(1)
    after = [*model[0].parameters(), *model.unused.parameters()]
    assert all(a.equal(b) for a, b in zip(after, before, strict=True))


def test_other_trainers_support_it():
    model = network()
    before = model[0].weight.clone()
    trainer(model, kind=PINNTrainer, lambda_freq=0, lambda_sommerfeld=0, lambda_temporal=0).fit(1)
    assert not model[0].weight.equal(before)


def test_rejects_fp16_and_an_invalid_radius():
    with pytest.raises(ValueError, match="SAM does not support fp16"):
        trainer(network(), mixed_precision="fp16").fit(1)
    with pytest.raises(ValueError, match="rho is 0"):
        SAM(torch.optim.SGD(network().parameters(), 0.1), 0)
