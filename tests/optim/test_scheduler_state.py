"""Schedulers: state dicts, and stepping and resuming in a trainer."""

import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from tests.optim.schedules import BASES, OURS, learning_rates, lr_and_momentum, make, metrics_for, sgd, trace
from whirl.optim.cnn_schedulers import PolynomialLRScheduler, WarmupScheduler
from whirl.optim.formulas import noam
from whirl.optim.schedule_simulation import simulate_schedule
from whirl.optim.transformer_schedulers import WarmupCosineScheduler
from whirl.training.trainer import Trainer

# resuming

ALL = OURS | {
    f"warmup over {name}": lambda o, base=base: WarmupScheduler(o, 3, base(o))
    for name, base in BASES.items()
    if name != "torch lambda"
}


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("with_optimizer", [True, False], ids=["with optimizer", "alone"])
@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_resumes_exactly_at_every_step(build, with_optimizer):
    uninterrupted = sgd(1.0, 0.1, momentum=0.9)
    scheduler = build(uninterrupted)
    metrics, expected, states = metrics_for(scheduler), [], []
    for step in range(12):
        states.append(saved_and_loaded({"scheduler": scheduler.state_dict(), "optimizer": uninterrupted.state_dict()}))
        expected += trace(uninterrupted, scheduler, 1, metrics and metrics[step:], lr_and_momentum)
    for step, state in enumerate(states):
        optimizer = sgd(1.0, 0.1, momentum=0.9)
        resumed = build(optimizer)
        if with_optimizer:
            optimizer.load_state_dict(state["optimizer"])
        resumed.load_state_dict(state["scheduler"])
        assert resumed.get_last_lr() == [rate for rate, _ in expected[step]]
        assert trace(optimizer, resumed, 12 - step, metrics and metrics[step:], lr_and_momentum) == expected[step:]


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_loads_its_own_earlier_state(build):
    optimizer = sgd(1.0, 0.1, momentum=0.9)
    scheduler = build(optimizer)
    metrics = metrics_for(scheduler)
    trace(optimizer, scheduler, 2, metrics)
    state = saved_and_loaded(scheduler.state_dict())
    first = trace(optimizer, scheduler, 8, metrics, lr_and_momentum)
    scheduler.load_state_dict(state)
    assert trace(optimizer, scheduler, 8, metrics, lr_and_momentum) == first


def test_rejects_state_of_another_schedule():
    states = {name: build(sgd(momentum=0.9)).state_dict() for name, build in ALL.items()}
    for name, build in ALL.items():
        for other, state in states.items():
            scheduler = build(sgd(momentum=0.9))
            if name.replace("torch ", "") == other.replace("torch ", ""):
                scheduler.load_state_dict(state)
                continue
            before = scheduler.state_dict()
            with pytest.raises(ValueError, match="belongs to another schedule: it has"):
                scheduler.load_state_dict(state)
            assert scheduler.state_dict() == before
    with pytest.raises(ValueError, match=r"it has base_lrs, gamma, .*, step_size, expected those of Cosine: T_max, "):
        make("cosine", sgd(), num_epochs=5).load_state_dict(make("step", sgd()).state_dict())


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_rejects_state_with_another_number_of_groups(build):
    with pytest.raises(ValueError, match="has 2 parameter groups, but the optimizer has 1"):
        build(sgd(momentum=0.9)).load_state_dict(build(sgd(1.0, 0.1, momentum=0.9)).state_dict())


TENTH = np.float64(0.1)
NUMPY = [
    ("cosine", {"num_epochs": np.int64(5), "eta_min": TENTH}),
    ("cosine_restarts", {"T_0": np.int64(5), "T_mult": np.int64(2), "eta_min": TENTH}),
    ("onecycle", {"max_lr": TENTH, "total_steps": np.int64(5), "pct_start": np.float32(0.5)}),
    ("onecycle", {"max_lr": [TENTH], "total_steps": 5}),
    ("step", {"step_size": np.int64(5), "gamma": TENTH}),
    ("multistep", {"milestones": [np.int64(1), np.int64(3)], "gamma": TENTH}),
    ("exponential", {"gamma": TENTH}),
    ("plateau", {"factor": TENTH, "patience": np.int64(3), "min_lr": TENTH}),
    ("polynomial", {"total_epochs": np.int64(5), "power": TENTH, "min_lr": TENTH}),
    ("warmup_cosine", {"warmup_epochs": np.int64(1), "total_epochs": np.int64(5), "min_lr": TENTH}),
    ("warmup_linear", {"warmup_epochs": np.int64(1), "total_epochs": np.int64(5)}),
    ("inverse_sqrt", {"warmup_steps": np.int64(2), "timescale": np.int64(5)}),
    ("noam", {"d_model": np.int64(16), "warmup_steps": np.int64(5)}),
]


@pytest.mark.parametrize(("name", "settings"), NUMPY, ids=[f"{row[0]}{i}" for i, row in enumerate(NUMPY)])
def test_numpy_settings_can_be_loaded_with_weights_only(name, settings):
    optimizer = sgd()
    scheduler = WarmupScheduler(optimizer, np.int64(1), make(name, optimizer, **settings))
    for _ in range(3):
        optimizer.step()
        scheduler.step(*([TENTH] if name == "plateau" else []))
    states = {"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
    assert saved_and_loaded(states) == states


def test_state_within_sequential_lr_does_not_change_learning_rates():
    def build(optimizer):
        linear = lr_scheduler.LinearLR(optimizer, 0.25, total_iters=3)
        return lr_scheduler.SequentialLR(optimizer, [linear, make("cosine", optimizer, num_epochs=4)], [3])

    optimizer = sgd()
    scheduler = build(optimizer)
    trace(optimizer, scheduler, 1)
    other = sgd()
    resumed = build(other)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert trace(other, resumed, 5) == trace(optimizer, scheduler, 5)


def test_state_restores_settings():
    optimizer, other = sgd(), sgd()
    scheduler, resumed = WarmupCosineScheduler(optimizer, 2, 6), WarmupCosineScheduler(other, 0, 9)
    resumed.load_state_dict(scheduler.state_dict())
    assert trace(other, resumed, 7) == trace(optimizer, scheduler, 7)


def test_starts_in_the_middle_with_last_epoch():
    optimizer = sgd()
    rates = trace(optimizer, WarmupCosineScheduler(optimizer, 2, 6), 6)
    optimizer.param_groups[0]["lr"] = 1.0
    assert trace(optimizer, WarmupCosineScheduler(optimizer, 2, 6, last_epoch=2), 3) == rates[3:]


# in a trainer


class ConstantOutput(nn.Module):
    """The trained parameter has no influence on the output, so that the metrics are constant."""

    def __init__(self):
        super().__init__()
        self.linear, self.unused = nn.Linear(8, 2), nn.Parameter(torch.zeros(1))

    def forward(self, signals):
        return self.linear(signals.flatten(1)) + 0 * self.unused


def trainer_with(build, tmp_path=None):
    """13 batches per epoch, accumulated over 4 per optimizer step: 4, 4, 4 and 1."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(26, 1, 8), torch.arange(26) % 2)
    model = ConstantOutput()
    optimizer = torch.optim.SGD([model.unused], lr=1.0, momentum=0.9)
    rates = []
    optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(learning_rates(optimizer)[0]))
    loader = DataLoader(data, batch_size=2)
    trainer = Trainer(
        model, loader, loader, optimizer, device="cpu", gradient_accumulation_steps=4, max_grad_norm=None,
        lr_scheduler=build(optimizer), checkpoint_dir=tmp_path,
    )  # fmt: skip
    return trainer, rates


def one_cycle(step, total=12, peak=2.0, pct=0.3):
    """The formula of the docstring of `create_onecycle_scheduler`."""
    top, low, end = pct * total - 1, peak / 25, peak / 25e4
    if step <= top:
        return peak + (low - peak) * (1 + math.cos(math.pi * step / top)) / 2
    return end + (peak - end) * (1 + math.cos(math.pi * min(1, (step - top) / (total - 1 - top)))) / 2


IN_TRAINER = {
    "onecycle": (lambda o: make("onecycle", o, max_lr=2.0, total_steps=12), one_cycle, 1),
    "noam": (lambda o: make("noam", o, d_model=16, warmup_steps=5), lambda s: noam(s, 16, 5), 1),
    "warmup, onecycle": (
        lambda o: WarmupScheduler(o, 6, make("onecycle", o, max_lr=2.0, total_steps=12)),
        lambda s: 0.08 * (s + 1) / 7 if s < 6 else one_cycle(s - 6),
        1,
    ),
    "warmup_linear": (
        lambda o: make("warmup_linear", o, warmup_epochs=1, total_epochs=3),
        lambda e: [0.5, 1, 0.5, 0][min(e, 3)],
        4,
    ),
    "step": (lambda o: make("step", o, step_size=2, gamma=0.5), lambda e: 0.5 ** (e // 2), 4),
    "cosine": (
        lambda o: make("cosine", o, num_epochs=2, eta_min=0.1),
        lambda e: [1, 0.55, 0.1][min(e, 2)],
        4,
    ),
    "polynomial": (lambda o: PolynomialLRScheduler(o, 4, min_lr=0), lambda e: max(0, 1 - e / 4) ** 2, 4),
    "warmup, step": (
        lambda o: WarmupScheduler(o, 2, make("step", o, step_size=1, gamma=0.5)),
        lambda e: [1 / 3, 2 / 3, 1, 0.5, 0.25][e],
        4,
    ),
}


@pytest.mark.parametrize(("build", "formula", "steps_per_unit"), IN_TRAINER.values(), ids=IN_TRAINER)
def test_learning_rates_in_trainer_with_gradient_accumulation(build, formula, steps_per_unit):
    trainer, rates = trainer_with(build)
    trainer.fit(5)
    assert rates == pytest.approx([formula(step // steps_per_unit) for step in range(20)], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_warmup_before_plateau_in_resumed_trainer(mode, tmp_path):
    # The metrics are constant: only the first one is an improvement.
    def build(optimizer):
        return WarmupScheduler(optimizer, 2, make("plateau", optimizer, mode=mode, factor=0.5, patience=0))

    trainer, rates = trainer_with(build, tmp_path)
    trainer.fit(3)
    trainer, resumed_rates = trainer_with(build, tmp_path)
    trainer.fit(6, resume_from=tmp_path / "last.pt")
    assert rates[::4] + resumed_rates[::4] == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.5, 0.25])
    assert trainer.state.history["lr"] == (rates + resumed_rates)[::4]


def test_simulation_matches_trainer():
    trainer, rates = trainer_with(lambda o: make("onecycle", o, max_lr=1.0, total_steps=20))
    trainer.fit(5)
    curve = simulate_schedule("onecycle", epochs=5, steps_per_epoch=4, lr=1.0)
    assert [rate for _, rate in curve] == rates
    assert [epoch for epoch, _ in curve] == [step / 4 for step in range(20)]
