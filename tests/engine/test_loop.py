"""The training loop: sums, accumulation, order of hooks."""

import math

import pytest
import torch

from whirl.engine.callbacks import Callback, CallbackList
from whirl.engine.loop import StepResult, Tally, fit_epochs, run_epoch
from whirl.engine.state import TrainingState
from whirl.engine.updater import Updater


def linear_step(model):
    def step(batch):
        x, y = batch
        return StepResult(torch.nn.functional.mse_loss(model(x), y), len(x))

    return step


def ragged_batches(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 3, generator=generator), torch.randn(n, 1, generator=generator)) for n in sizes]


def test_means_are_weighted_by_samples():
    tally = run_epoch([(1.0, 30), (4.0, 10)], lambda b: StepResult(torch.tensor(b[0]), b[1], torch.tensor(b[1] // 2)))
    assert tally.means() == {"loss": (30 * 1.0 + 10 * 4.0) / 40, "accuracy": 0.5}


def test_value_missing_in_some_batches_is_averaged_over_the_others():
    tally = Tally()
    tally.add(StepResult(torch.tensor(1.0), 10, components={"stft_loss": torch.tensor(4.0)}))
    tally.add(StepResult(torch.tensor(1.0), 30, torch.tensor(15)))
    assert tally.means() == {"loss": 1.0, "stft_loss": 4.0, "accuracy": 0.5}


def test_sum_of_many_losses_does_not_lose_precision():
    tally = Tally()
    for _ in range(3000):
        tally.add(StepResult(torch.tensor(0.1), count=1000))
    assert tally.means()["loss"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


@pytest.mark.parametrize("sizes", [[8, 8, 8, 8], [8, 3, 8, 5], [5, 8], [7], [8, 1, 4, 4, 2]])
@pytest.mark.parametrize("k", [2, 3])
def test_accumulation_equals_one_large_batch(sizes, k):
    """Windows of k micro-batches, of unequal size or unfinished, against one large batch each, in float64."""
    batches = [(x.double(), y.double()) for x, y in ragged_batches(sizes)]
    windows = [batches[i : i + k] for i in range(0, len(batches), k)]
    large = [tuple(torch.cat(parts) for parts in zip(*window, strict=True)) for window in windows]
    weights = []
    for data, accumulation in ((batches, k), (large, 1)):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1).double()
        updater = Updater(
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            accumulation_steps=accumulation,
            max_grad_norm=0.5,
        )
        run_epoch(data, linear_step(model), updater)
        weights.append(model.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_norm", [None, 0, -1.0])
def test_clipping_is_disabled_for_none_and_nonpositive_bounds(max_norm):
    model = torch.nn.Linear(3, 1)
    updater = Updater(torch.optim.SGD(model.parameters(), lr=1.0), max_grad_norm=max_norm)
    before = model.weight.detach().clone()
    updater((model(torch.full((1, 3), 100.0))).sum(), 1)
    torch.testing.assert_close(before - model.weight, torch.full((1, 3), 100.0))
    assert updater.grad_norm is None


def test_grad_norm_is_measured_before_clipping():
    weight = torch.nn.Parameter(torch.zeros(2))
    updater = Updater(torch.optim.SGD([weight], lr=1.0), max_grad_norm=1.0)
    updater((weight * torch.tensor([30.0, 40.0])).sum(), 1)
    assert updater.grad_norm.item() == 50.0
    torch.testing.assert_close(weight.detach(), -torch.tensor([0.6, 0.8]))


def test_nan_gradient_gives_nan_norm():
    weight = torch.nn.Parameter(torch.zeros(2))
    updater = Updater(torch.optim.SGD([weight], lr=1.0), max_grad_norm=1.0)
    updater((weight * torch.tensor([math.nan, 1.0])).sum(), 1)
    assert updater.grad_norm.isnan()


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_rejects_invalid_accumulation_steps(steps):
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        Updater(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), accumulation_steps=steps)


def test_evaluation_changes_no_weights_and_builds_no_graph():
    model = torch.nn.Linear(3, 1)
    before = model.weight.detach().clone()
    results = []

    def step(batch):
        result = linear_step(model)(batch)
        results.append(result.loss.requires_grad)
        return result

    run_epoch(ragged_batches([4, 4]), step)
    assert results == [False, False]
    assert torch.equal(before, model.weight)
    assert model.weight.grad is None


class HookRecorder(Callback):
    def __init__(self):
        self.lines = []

    def on_train_begin(self, logs=None):
        self.lines.append("train begins")

    def on_train_end(self, logs=None):
        self.lines.append("train ends")

    def on_epoch_begin(self, epoch, logs=None):
        self.lines.append(f"epoch {epoch} begins")

    def on_epoch_end(self, epoch, logs=None):
        self.lines.append(f"epoch {epoch} ends with {sorted(logs)}")

    def on_batch_begin(self, batch, logs=None):
        self.lines.append(f"batch {batch} begins")

    def on_batch_end(self, batch, logs=None):
        self.lines.append(f"batch {batch} ends with {logs['loss'].ndim}-d loss")


def test_order_of_hooks():
    recorder, state = HookRecorder(), TrainingState(num_epochs=1)
    hooks = CallbackList([recorder])
    fit_epochs(
        state,
        train_epoch=lambda: run_epoch([1.0], lambda x: StepResult(torch.tensor(x), 1), hooks=hooks).means(),
        validate_epoch=lambda: {"loss": 0.5},
        callbacks=hooks,
    )
    assert recorder.lines == [
        "train begins",
        "epoch 0 begins",
        "batch 0 begins",
        "batch 0 ends with 0-d loss",
        "epoch 0 ends with ['epoch_time_s', 'train_loss', 'val_loss']",
        "train ends",
    ]
    assert state.best_val_loss == 0.5


def test_on_train_end_runs_when_training_fails():
    recorder = HookRecorder()

    def fail():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fit_epochs(
            TrainingState(num_epochs=1), train_epoch=fail, validate_epoch=None, callbacks=CallbackList([recorder])
        )
    assert recorder.lines[-1] == "train ends"


def test_nan_is_never_best():
    state = TrainingState()
    assert not state.record({"val_loss": math.nan})
    assert state.record({"val_loss": 3.0})
    assert not state.record({"val_loss": math.nan})
    assert state.best_val_loss == 3.0
