"""Learning-rate schedules against closed forms and torch's own, after their end, after a resume, and in a trainer."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.optim import cnn_schedulers, optimizers, transformer_schedulers
from whirl.optim.cnn_schedulers import PolynomialLRScheduler, WarmupScheduler
from whirl.optim.formulas import noam
from whirl.optim.schedule_plots import ascii_plot, plot_schedule, save_curve, simulate_schedule
from whirl.optim.scheduler_factory import create_training_scheduler, schedule_names
from whirl.optim.transformer_schedulers import WarmupCosineScheduler
from whirl.training.trainer import Trainer


def sgd(*rates, **settings):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates or (1.0,)], **settings)


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def moved_of(optimizer):
    """Rate and momentum of each group."""
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


def trace(optimizer, scheduler, n_steps, metrics=None, see=rates_of):
    """Rates of each group at steps 0 .. n_steps - 1, stepped as a hand-written loop steps."""
    rates = []
    for step in range(n_steps):
        rates.append(see(optimizer))
        optimizer.step()
        scheduler.step(*([] if metrics is None else [metrics[step]]))
    return rates


def make(name, optimizer, **settings):
    return cnn_schedulers.get_scheduler(name, optimizer, **settings)


# -- values ------------------------------------------------------------------------------------------------

# At steps beyond the end the last value holds. One-cycle: up over steps 0..5, down over 5..9, from 1/25 to 1/25e4.
TABLE = [
    ("cosine", {"num_epochs": 4, "eta_min": 0.2}, {0: 1, 1: 0.2 + 0.8 * 0.8535533906, 2: 0.6, 4: 0.2, 5: 0.2, 9: 0.2}),
    ("cosine_restarts", {"T_0": 2, "eta_min": 0}, {0: 1, 1: 0.5, 2: 1, 3: 0.8535533906, 4: 0.5, 6: 1, 10: 0.5, 14: 1}),
    ("onecycle", {"max_lr": 2, "total_steps": 10, "pct_start": 0.6},
     {0: 0.08, 1: 2 - 0.96 * 1.8090169944, 5: 2, 7: 1.000004, 9: 8e-6, 10: 8e-6, 20: 8e-6}),
    ("step", {"step_size": 3, "gamma": 0.1}, {0: 1, 2: 1, 3: 0.1, 5: 0.1, 6: 0.01}),
    ("exponential", {"gamma": 0.5}, {0: 1, 1: 0.5, 3: 0.125}),
    ("polynomial", {"total_epochs": 4, "min_lr": 0.2}, {0: 1, 1: 0.65, 2: 0.4, 3: 0.25, 4: 0.2, 9: 0.2}),
    ("polynomial", {"total_epochs": 4, "power": 1, "min_lr": 0}, {1: 0.75, 3: 0.25, 4: 0, 5: 0}),
    ("warmup_cosine", {"warmup_epochs": 2, "total_epochs": 6, "min_lr": 0.1},
     {0: 1 / 3, 1: 2 / 3, 2: 1, 4: 0.55, 6: 0.1, 9: 0.1}),
    ("warmup_cosine", {"warmup_epochs": 0, "total_epochs": 2, "min_lr": 0}, {0: 1, 1: 0.5, 2: 0}),
    ("warmup_cosine", {"warmup_epochs": 3, "total_epochs": 3, "min_lr": 0.1}, {0: 0.25, 2: 0.75, 3: 0.1, 4: 0.1}),
    ("warmup_linear", {"warmup_epochs": 2, "total_epochs": 6}, {0: 1 / 3, 2: 1, 3: 0.75, 5: 0.25, 6: 0, 8: 0}),
    ("noam", {"d_model": 16, "warmup_steps": 4}, {0: 1 / 32, 1: 1 / 16, 3: 1 / 8, 15: 1 / 16}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "values"), TABLE, ids=[f"{row[0]}{i}" for i, row in enumerate(TABLE)])
def test_closed_forms(name, settings, values):
    optimizer = sgd()
    rates = trace(optimizer, make(name, optimizer, **settings), max(values) + 1)
    assert {step: rates[step][0] for step in values} == pytest.approx(values, rel=1e-9, abs=1e-15)


def test_every_name_is_in_the_table_or_has_a_test_of_its_own():
    own = {"plateau", "warmup", "cosine_warmrestarts"}
    assert {row[0] for row in TABLE} | own == set(schedule_names())


ORACLES = {
    "cosine": (lambda o: make("cosine", o, num_epochs=7), lambda o: lr_scheduler.CosineAnnealingLR(o, 7, 1e-6)),
    "onecycle": (
        lambda o: make("onecycle", o, max_lr=0.3, total_steps=9),
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, 9),
    ),
    "polynomial": (
        lambda o: PolynomialLRScheduler(o, 7, 1.5, min_lr=0.0),
        lambda o: lr_scheduler.PolynomialLR(o, 7, 1.5),
    ),
    "warmup_cosine": (
        lambda o: WarmupCosineScheduler(o, 3, 7, min_lr=0.01),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 1 / 4, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 4, 0.01)], [3]
        ),
    ),
    "warmup over cosine": (
        lambda o: WarmupScheduler(o, 3, make("cosine", o, num_epochs=4, eta_min=0.01)),
        lambda o: WarmupCosineScheduler(o, 3, 7, min_lr=0.01),
    ),
    "warmup over linear": (
        lambda o: WarmupScheduler(o, 3, PolynomialLRScheduler(o, 4, power=1.0, min_lr=0.0)),
        lambda o: transformer_schedulers.create_warmup_linear_schedule(o, 3, 7),
    ),
    "warmup over warmup": (
        lambda o: WarmupScheduler(o, 0, WarmupCosineScheduler(o, 3, 7)),
        lambda o: WarmupCosineScheduler(o, 3, 7),
    ),
}


@pytest.mark.parametrize(("ours", "other"), ORACLES.values(), ids=ORACLES)
def test_oracles_and_twins(ours, other):
    rates = []
    for scheduler in (ours, other):
        optimizer = sgd(1.0, 0.1, momentum=0.9)
        rates.append(
            trace(optimizer, scheduler(optimizer), 8, see=moved_of)
        )  # torch's own do not hold after their ends
    assert torch.allclose(torch.tensor(rates[0]), torch.tensor(rates[1]), rtol=1e-6, atol=1e-9)


def test_a_rise_of_a_single_step_begins_at_the_peak():
    optimizer = sgd()
    rates = trace(optimizer, make("onecycle", optimizer, max_lr=1.0, total_steps=10, pct_start=0.1), 10)
    assert rates[0][0] == pytest.approx(1.0)
    assert rates[9][0] == pytest.approx(4e-6)


def test_a_one_cycle_for_an_optimizer_without_momentum():
    optimizer = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    make("onecycle", optimizer, max_lr=[0.5], total_steps=10)
    assert rates_of(optimizer) == pytest.approx([0.02])


@pytest.mark.parametrize(
    ("name", "settings", "length"),
    [
        ("cosine", {"num_epochs": 6, "eta_min": 1e-3}, 6),
        ("polynomial", {"total_epochs": 6, "min_lr": 1e-3}, 6),
        ("warmup_cosine", {"warmup_epochs": 2, "total_epochs": 6, "min_lr": 1e-3}, 6),
    ],
)
def test_the_lowest_rate_is_absolute_in_every_group(name, settings, length):
    optimizer = sgd(1.0, 0.01, 1e-4)
    rates = trace(optimizer, make(name, optimizer, **settings), length + 4)
    assert rates[length:] == [pytest.approx([1e-3] * 3, rel=1e-9)] * 4
    share = [(rate - 1e-3) / (full - 1e-3) for rate, full in zip(rates[4], (1.0, 0.01, 1e-4), strict=True)]
    assert share == pytest.approx([share[0]] * 3)


def test_a_plateau_stops_at_the_lowest_rate():
    optimizer = sgd(1.0, 0.01)
    scheduler = make("plateau", optimizer, mode="min", factor=0.1, patience=0, min_lr=0.001)
    trace(optimizer, scheduler, 6, metrics=[1.0] * 6)
    assert rates_of(optimizer) == pytest.approx([0.001, 0.001])


LOWEST = {"cosine": "eta_min", "cosine_restarts": "eta_min", "cosine_warmrestarts": "eta_min", "plateau": "min_lr",
          "polynomial": "min_lr", "warmup_cosine": "min_lr"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(schedule_names()) - {"warmup"}))
def test_a_rate_of_zero_stays_zero_under_every_schedule(name):
    optimizer = sgd(0.0, 1.0)
    scheduler = create_training_scheduler(name, optimizer, 5, 1, **({LOWEST[name]: 0.1} if name in LOWEST else {}))
    rates = trace(optimizer, scheduler, 8, [0.0] * 8 if name == "plateau" else None)
    assert [rate for rate, _ in rates] == [0.0] * 8
    assert len({rate for _, rate in rates}) > 1
    other = sgd(0.0, 1.0)
    make("onecycle", other, max_lr=1.0, total_steps=4)
    assert rates_of(other) == pytest.approx([0.0, 0.04])


def test_a_rate_in_a_tensor_stays_in_that_tensor():
    rate = torch.tensor(1.0)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate, foreach=False)
    scheduler = WarmupScheduler(optimizer, 1, make("exponential", optimizer, gamma=0.5))
    seen = [rate.item()]
    for _ in range(2):
        optimizer.step()
        scheduler.step()
        seen.append(rate.item())
    assert optimizer.param_groups[0]["lr"] is rate
    assert seen == [0.5, 1.0, 0.5]


# -- warm-up -----------------------------------------------------------------------------------------------

METRICS = [1.0, 1.0, 0.5, 0.6, 0.6, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
BASES = {
    "cosine": lambda o: make("cosine", o, num_epochs=4),
    "cosine_restarts": lambda o: make("cosine_restarts", o, T_0=2),
    "onecycle": lambda o: make("onecycle", o, max_lr=2.0, total_steps=6),
    "step": lambda o: make("step", o, step_size=2),
    "exponential": lambda o: make("exponential", o),
    "plateau": lambda o: make("plateau", o, mode="min", factor=0.5, patience=1),
    "polynomial": lambda o: make("polynomial", o, total_epochs=5),
    "warmup_cosine": lambda o: make("warmup_cosine", o, warmup_epochs=2, total_epochs=6),
    "warmup_linear": lambda o: make("warmup_linear", o, warmup_epochs=2, total_epochs=6),
    "noam": lambda o: make("noam", o, d_model=16, warmup_steps=3),
    "torch's cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "torch's onecycle": lambda o: lr_scheduler.OneCycleLR(o, 2.0, total_steps=6),
    "torch's plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "torch's lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
}
OURS = {name: base for name, base in BASES.items() if "torch" not in name}


def metrics_for(scheduler):
    return METRICS if scheduler_unit(scheduler) == "validation" else None


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_warm_up_then_the_base_as_if_it_began_there(base):
    alone, warmed = sgd(1.0, 0.1, momentum=0.9), sgd(1.0, 0.1, momentum=0.9)
    plain = base(alone)
    expected, metrics = [], metrics_for(plain)
    for step in range(8):
        expected.append(rates_of(alone))
        alone.step()
        step_scheduler(plain, metrics and {"val_loss": metrics[step]})
    scheduler = WarmupScheduler(warmed, 3, base(warmed))
    assert scheduler.step_unit == scheduler_unit(scheduler) == scheduler_unit(plain)
    # the base sees no metric before the warm-up is over
    rates = trace(warmed, scheduler, 11, metrics and [0.0] * 3 + metrics)
    assert rates[3:] == expected
    warm = torch.tensor(expected[0]) * torch.tensor([[0.25], [0.5], [0.75]])
    torch.testing.assert_close(torch.tensor(rates[:3]), warm)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_warmed_plateau_says_which_metric_it_follows(mode):
    optimizer = sgd()
    scheduler = WarmupScheduler(optimizer, 2, make("plateau", optimizer, mode=mode))
    assert (scheduler.mode, scheduler.step_unit) == (mode, "validation")
    with pytest.raises(TypeError, match="metric"):
        scheduler.step()


# -- resuming ----------------------------------------------------------------------------------------------

ALL = OURS | {
    f"warmup over {name}": lambda o, base=base: WarmupScheduler(o, 3, base(o))
    for name, base in BASES.items()
    if name != "torch's lambda"
}


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("with_optimizer", [True, False], ids=["with optimizer", "alone"])
@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_resumes_to_the_same_bits_at_every_step(build, with_optimizer):
    whole = sgd(1.0, 0.1, momentum=0.9)
    scheduler = build(whole)
    metrics, expected, states = metrics_for(scheduler), [], []
    for step in range(12):
        states.append(through_a_file({"scheduler": scheduler.state_dict(), "optimizer": whole.state_dict()}))
        expected += trace(whole, scheduler, 1, metrics and metrics[step:], moved_of)
    for step, state in enumerate(states):
        optimizer = sgd(1.0, 0.1, momentum=0.9)
        resumed = build(optimizer)
        if with_optimizer:
            optimizer.load_state_dict(state["optimizer"])
        resumed.load_state_dict(state["scheduler"])
        assert resumed.get_last_lr() == [rate for rate, _ in expected[step]]
        assert trace(optimizer, resumed, 12 - step, metrics and metrics[step:], moved_of) == expected[step:]


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_goes_back_to_an_earlier_state_of_its_own(build):
    optimizer = sgd(1.0, 0.1, momentum=0.9)
    scheduler = build(optimizer)
    metrics = metrics_for(scheduler)
    trace(optimizer, scheduler, 2, metrics)
    state = through_a_file(scheduler.state_dict())
    first = trace(optimizer, scheduler, 8, metrics, moved_of)
    scheduler.load_state_dict(state)
    assert trace(optimizer, scheduler, 8, metrics, moved_of) == first


def test_the_state_of_another_schedule_is_refused():
    states = {name: build(sgd(momentum=0.9)).state_dict() for name, build in ALL.items()}
    for name, build in ALL.items():
        for other, state in states.items():
            scheduler = build(sgd(momentum=0.9))
            if name.replace("torch's ", "") == other.replace("torch's ", ""):
                scheduler.load_state_dict(state)
                continue
            before = scheduler.state_dict()
            with pytest.raises(ValueError, match="is that of another schedule: it holds"):
                scheduler.load_state_dict(state)
            assert scheduler.state_dict() == before
    with pytest.raises(ValueError, match=r"it holds base_lrs, gamma, .*, step_size, that of a Cosine here T_max, "):
        make("cosine", sgd(), num_epochs=5).load_state_dict(make("step", sgd()).state_dict())


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_a_state_for_another_number_of_groups_is_refused(build):
    with pytest.raises(ValueError, match="for 2 parameter groups, the optimizer has 1"):
        build(sgd(momentum=0.9)).load_state_dict(build(sgd(1.0, 0.1, momentum=0.9)).state_dict())


TENTH = np.float64(0.1)
NUMPY = [
    ("cosine", {"num_epochs": np.int64(5), "eta_min": TENTH}),
    ("cosine_restarts", {"T_0": np.int64(5), "T_mult": np.int64(2), "eta_min": TENTH}),
    ("onecycle", {"max_lr": TENTH, "total_steps": np.int64(5), "pct_start": np.float32(0.5)}),
    ("onecycle", {"max_lr": [TENTH], "total_steps": 5}),
    ("step", {"step_size": np.int64(5), "gamma": TENTH}),
    ("exponential", {"gamma": TENTH}),
    ("plateau", {"factor": TENTH, "patience": np.int64(3), "min_lr": TENTH}),
    ("polynomial", {"total_epochs": np.int64(5), "power": TENTH, "min_lr": TENTH}),
    ("warmup_cosine", {"warmup_epochs": np.int64(1), "total_epochs": np.int64(5), "min_lr": TENTH}),
    ("warmup_linear", {"warmup_epochs": np.int64(1), "total_epochs": np.int64(5)}),
    ("noam", {"d_model": np.int64(16), "warmup_steps": np.int64(5)}),
]


@pytest.mark.parametrize(("name", "settings"), NUMPY, ids=[f"{row[0]}{i}" for i, row in enumerate(NUMPY)])
def test_numbers_of_numpy_become_plain_ones_that_a_safe_checkpoint_holds(name, settings):
    optimizer = sgd()
    scheduler = WarmupScheduler(optimizer, np.int64(1), make(name, optimizer, **settings))
    for _ in range(3):
        optimizer.step()
        scheduler.step(*([TENTH] if name == "plateau" else []))
    states = {"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
    assert through_a_file(states) == states


def test_a_state_inside_a_schedule_of_torchs_own_leaves_the_rates_alone():
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


def test_a_state_brings_its_settings_along():
    optimizer, other = sgd(), sgd()
    scheduler, resumed = WarmupCosineScheduler(optimizer, 2, 6), WarmupCosineScheduler(other, 0, 9)
    resumed.load_state_dict(scheduler.state_dict())
    assert trace(other, resumed, 7) == trace(optimizer, scheduler, 7)


def test_begins_in_the_middle():
    optimizer = sgd()
    rates = trace(optimizer, WarmupCosineScheduler(optimizer, 2, 6), 6)
    optimizer.param_groups[0]["lr"] = 1.0
    assert trace(optimizer, WarmupCosineScheduler(optimizer, 2, 6, last_epoch=2), 3) == rates[3:]


# -- in a trainer ------------------------------------------------------------------------------------------


class Idle(nn.Module):
    """Its one trained parameter has no influence, so that the metrics stay."""

    def __init__(self):
        super().__init__()
        self.linear, self.idle = nn.Linear(8, 2), nn.Parameter(torch.zeros(1))

    def forward(self, signals):
        return self.linear(signals.flatten(1)) + 0 * self.idle


def trainer_with(build, tmp_path=None):
    """13 micro-batches an epoch, 4 to an optimizer step: windows of 4, 4, 4 and 1."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(26, 1, 8), torch.arange(26) % 2)
    model = Idle()
    optimizer = torch.optim.SGD([model.idle], lr=1.0, momentum=0.9)
    rates = []
    optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(rates_of(optimizer)[0]))
    loader = DataLoader(data, batch_size=2)
    trainer = Trainer(
        model, loader, loader, optimizer, device="cpu", gradient_accumulation_steps=4, max_grad_norm=None,
        lr_scheduler=build(optimizer), checkpoint_dir=tmp_path,
    )  # fmt: skip
    return trainer, rates


def one_cycle(step, total=12, peak=2.0, pct=0.3):
    """The formula of the docstring."""
    top, low, end = pct * total - 1, peak / 25, peak / 25e4
    if step <= top:
        return peak + (low - peak) * (1 + math.cos(math.pi * step / top)) / 2
    return end + (peak - end) * (1 + math.cos(math.pi * min(1, (step - top) / (total - 1 - top)))) / 2


IN_TRAINER = {
    "onecycle": (lambda o: make("onecycle", o, max_lr=2.0, total_steps=12), one_cycle, 1),
    "noam": (lambda o: make("noam", o, d_model=16, warmup_steps=5), lambda s: noam(s, 16, 5), 1),
    "warmed onecycle": (
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
    "warmed step": (
        lambda o: WarmupScheduler(o, 2, make("step", o, step_size=1, gamma=0.5)),
        lambda e: [1 / 3, 2 / 3, 1, 0.5, 0.25][e],
        4,
    ),
}


@pytest.mark.parametrize(("build", "formula", "steps_per_unit"), IN_TRAINER.values(), ids=IN_TRAINER)
def test_the_rates_of_a_trainer_that_accumulates(build, formula, steps_per_unit):
    trainer, rates = trainer_with(build)
    trainer.fit(5)
    assert rates == pytest.approx([formula(step // steps_per_unit) for step in range(20)], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_warmed_plateau_in_a_trainer_that_is_interrupted(mode, tmp_path):
    # The metrics stay: only the first is an improvement.
    def build(optimizer):
        return WarmupScheduler(optimizer, 2, make("plateau", optimizer, mode=mode, factor=0.5, patience=0))

    trainer, rates = trainer_with(build, tmp_path)
    trainer.fit(3)
    trainer, rest = trainer_with(build, tmp_path)
    trainer.fit(6, resume_from=tmp_path / "last.pt")
    assert rates[::4] + rest[::4] == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.5, 0.25])
    assert trainer.state.history["lr"] == (rates + rest)[::4]


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "error", "parts"),
    [
        ("cosin", {}, ValueError, ["'cosin'", "did you mean 'cosine'", "noam"]),
        ("qqq", {}, ValueError, ["'qqq'", "expected one of: cosine"]),
        (None, {}, TypeError, ["None", "cosine"]),
        ("cosine", {"T_max": 5}, TypeError, ["T_max", "num_epochs", "eta_min=1e-06"]),
        ("onecycle", {"max_lr": 1.0}, TypeError, ["needs total_steps"]),
        ("cosine", {"num_epochs": 0}, ValueError, ["num_epochs is 0"]),
        ("cosine", {"num_epochs": 2.5}, ValueError, ["num_epochs is 2.5", "integer"]),
        ("cosine", {"num_epochs": 5, "eta_min": -1}, ValueError, ["eta_min is -1"]),
        ("cosine_restarts", {"T_0": 0}, ValueError, ["T_0 is 0"]),
        ("cosine_restarts", {"T_mult": 0}, ValueError, ["T_mult is 0"]),
        ("onecycle", {"max_lr": 0, "total_steps": 5}, ValueError, ["max_lr is 0"]),
        ("onecycle", {"max_lr": [1, 2], "total_steps": 5}, ValueError, ["max_lr"]),
        ("onecycle", {"max_lr": 1, "total_steps": 3}, ValueError, ["total_steps is 3", ">= 4"]),
        ("onecycle", {"max_lr": 1, "total_steps": 5, "pct_start": 0.1}, ValueError, ["pct_start is 0.1", ">= 0.2"]),
        ("onecycle", {"max_lr": [-1.0], "total_steps": 5}, ValueError, ["max_lr is -1.0"]),
        ("onecycle", {"max_lr": 1, "total_steps": 5, "pct_start": 1.5}, ValueError, ["pct_start is 1.5", "[0, 1]"]),
        ("step", {"step_size": 0}, ValueError, ["step_size is 0"]),
        ("step", {"gamma": "much"}, ValueError, ["gamma is 'much'"]),
        ("exponential", {"gamma": True}, ValueError, ["gamma is True"]),
        ("exponential", {"gamma": 0}, ValueError, ["gamma is 0", "> 0"]),
        ("plateau", {"mode": "up"}, ValueError, ["mode is 'up'", "'max' or 'min'"]),
        ("plateau", {"factor": 1.0}, ValueError, ["factor is 1.0"]),
        ("plateau", {"patience": -1}, ValueError, ["patience is -1"]),
        ("polynomial", {"total_epochs": 5, "power": 0}, ValueError, ["power is 0"]),
        ("polynomial", {"total_epochs": 5, "min_lr": math.nan}, ValueError, ["min_lr is nan"]),
        ("warmup_cosine", {"warmup_epochs": 6, "total_epochs": 5}, ValueError, ["warmup_epochs is 6", "which is 5"]),
        ("warmup_cosine", {"warmup_epochs": -1, "total_epochs": 5}, ValueError, ["warmup_epochs is -1"]),
        ("warmup_linear", {"warmup_epochs": 0, "total_epochs": 0}, ValueError, ["total_epochs is 0"]),
        ("noam", {"warmup_steps": 0}, ValueError, ["warmup_steps is 0"]),
        ("noam", {"d_model": 0}, ValueError, ["d_model is 0"]),
        ("warmup", {"warmup_epochs": 1, "base_scheduler": "cosine"}, TypeError, ["'cosine' is not"]),
    ],
)
def test_what_is_refused(name, settings, error, parts):
    for factory in (
        lambda: cnn_schedulers.get_scheduler(name, sgd(), **settings),
        lambda: transformer_schedulers.get_scheduler(sgd(), name, **settings),
        lambda: optimizers.create_scheduler(sgd(), name, **settings),
    ):
        with pytest.raises(error) as caught:
            factory()
        for part in parts:
            assert part in str(caught.value)


def test_swapped_arguments_name_the_other_factory():
    with pytest.raises(TypeError, match=r"swapped.*transformer_schedulers.get_scheduler"):
        cnn_schedulers.get_scheduler(sgd(), "cosine", num_epochs=5)  # type: ignore
    with pytest.raises(TypeError, match=r"swapped.*cnn_schedulers.get_scheduler"):
        transformer_schedulers.get_scheduler("noam", sgd())  # type: ignore
    with pytest.raises(TypeError, match=r"swapped.*cnn_schedulers.get_scheduler"):
        optimizers.create_scheduler("step", sgd())  # type: ignore
    with pytest.raises(TypeError, match=r"expected a torch.optim.Optimizer"):
        cnn_schedulers.get_scheduler("step", "adam")  # type: ignore


def test_a_warm_up_of_another_optimizer():
    with pytest.raises(ValueError, match="another optimizer"):
        WarmupScheduler(sgd(), 2, make("step", sgd()))


# -- over a whole training ---------------------------------------------------------------------------------


def rates_over(name, epochs, steps_per_epoch=1, **settings):
    metrics = [0.5] * epochs if name == "plateau" else None
    return [rate for _, rate in simulate_schedule(name, epochs, steps_per_epoch, lr=0.1, metrics=metrics, **settings)]


def test_noam_peaks_at_the_optimizers_rate_after_a_tenth_of_the_steps():
    rates = rates_over("noam", 10, 100)
    assert max(rates) == rates[99] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(0.01)
    assert rates[999] == pytest.approx(0.1 * math.sqrt(100 / 1000))
    assert rates_over("noam", 10, 100, warmup_steps=400)[399] == pytest.approx(0.1)
    assert rates_over("noam", 10, 100, d_model=16)[99] == pytest.approx(0.1 * 1600**-0.5)


@pytest.mark.parametrize(("epochs", "drops"), [(9, [3, 6]), (10, [4, 8]), (50, [17, 34]), (1, []), (2, [1])])
def test_steps_are_a_third_of_the_training(epochs, drops):
    rates = rates_over("step", epochs)
    assert [epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1]] == drops
    assert len(set(rates_over("step", epochs, step_size=epochs))) == 1


@pytest.mark.parametrize(("epochs", "restart"), [(6, 2), (50, 17), (11, 4), (3, 1)])
def test_cosines_restart_once_in_a_training(epochs, restart):
    rates = rates_over("cosine_restarts", epochs, eta_min=0.0)
    assert [epoch for epoch in range(1, epochs) if rates[epoch] == 0.1] == [restart]
    # the second period is twice the first and ends with the training, but for the rounding
    assert rates[-1] == pytest.approx(0.05 * (1 + math.cos(math.pi * (epochs - 1 - restart) / (2 * restart))))
    assert 0 <= 3 * restart - epochs <= 2
    assert rates_over("cosine_restarts", 6, T_mult=1)[3] == 0.1
    assert rates_over("cosine_restarts", 6, T_0=5)[5] == 0.1


def test_a_plateau_is_patient_for_a_tenth_of_the_training():
    # the first epoch is an improvement, the next 3 are borne, the one after them brings the drop
    rates = rates_over("plateau", 30, factor=0.5)
    assert [rates.index(0.1 * 0.5**n) for n in range(3)] == [0, 5, 9]
    assert rates_over("plateau", 30, patience=30)[-1] == 0.1


def test_a_warm_up_takes_a_tenth_of_the_training_and_an_epoch_at_least():
    assert rates_over("warmup_linear", 30).index(0.1) == 3
    assert rates_over("warmup_linear", 5)[:2] == [0.05, 0.1]


def test_one_cycle_peaks_at_the_rate_of_each_group():
    optimizer = sgd(1e-3, 1e-5, momentum=0.9)
    rates = trace(optimizer, create_training_scheduler("onecycle", optimizer, 4, 10), 40)
    assert [max(group) for group in zip(*rates, strict=True)] == pytest.approx([1e-3, 1e-5])


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_a_training_too_short_for_a_cycle_keeps_its_rate(n_steps):
    assert rates_over("onecycle", 1, n_steps) == [0.1] * n_steps
    with pytest.raises(ValueError, match=f"total_steps is {n_steps}, expected an integer >= 4"):
        rates_over("onecycle", 1, n_steps, total_steps=n_steps)
    assert rates_over("onecycle", 1, 4)[0] == pytest.approx(0.004)


# -- drawing -----------------------------------------------------------------------------------------------


def test_a_drawn_curve_is_the_curve_of_a_training():
    trainer, rates = trainer_with(lambda o: make("onecycle", o, max_lr=1.0, total_steps=20))
    trainer.fit(5)
    curve = simulate_schedule("onecycle", epochs=5, steps_per_epoch=4, lr=1.0)
    assert [rate for _, rate in curve] == rates
    assert [epoch for epoch, _ in curve] == [step / 4 for step in range(20)]


def test_every_schedule_can_be_drawn():
    for name in set(schedule_names()) - {"warmup"}:
        metrics = [0.5] * 20 if name == "plateau" else None
        curve = simulate_schedule(name, 20, 5, metrics=metrics)
        assert len(curve) == 100
        assert min(rate for _, rate in curve) >= 0


def test_a_plateau_is_drawn_for_assumed_metrics_only():
    with pytest.raises(ValueError, match="follows a validation metric"):
        simulate_schedule("plateau", 5)
    with pytest.raises(ValueError, match="follows none"):
        simulate_schedule("step", 5, metrics=[1.0] * 5)
    curve = simulate_schedule("plateau", 5, 1, lr=1.0, metrics=[0.5, 0.6, 0.6, 0.6, 0.6], patience=0, factor=0.5)
    assert [rate for _, rate in curve] == [1.0, 1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": 5, "lr": 0.0}, {"epochs": 5, "steps_per_epoch": -1}])
def test_what_cannot_be_drawn(wrong):
    with pytest.raises(ValueError, match=f"{list(wrong)[-1]} is"):
        simulate_schedule("step", **wrong)


def test_rates_beyond_all_floats():
    with pytest.raises(ValueError, match=r"the rate of the schedule 'exponential' at epoch 2 is inf"):
        simulate_schedule("exponential", 5, 1, gamma=1e300)
    assert "1e+308" in ascii_plot(simulate_schedule("cosine", 5, 1, lr=1e308))


def test_the_figure_and_the_table_hold_the_curve(tmp_path):
    curve = simulate_schedule("noam", 3, 4)
    (line,) = plot_schedule("noam", 3, steps_per_epoch=4).axes[0].lines
    assert list(zip(*line.get_data(), strict=True)) == curve
    save_curve(curve, tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open() as file:
        assert [(float(row["epoch"]), float(row["lr"])) for row in csv.DictReader(file)] == curve
    with pytest.raises(ValueError, match=r"curve\.txt"):
        save_curve(curve, tmp_path / "curve.txt")


def test_the_curve_in_characters():
    *plot, first, _, third, _ = ascii_plot(simulate_schedule("warmup_linear", 4, 1), 8, 2).splitlines()
    assert plot == ["     0.001 |  ██▃▃", "         0 |██████▅▅"]
    assert first.split() == ["epoch", "0", "0.0005", "first"]
    assert third.split() == ["epoch", "2", "0.0006667"]
    constant = ascii_plot(simulate_schedule("step", 4, 1, gamma=1), 3, 1)
    assert constant.splitlines()[0] == "     0.001 |███"
    assert "first  peak" in constant
