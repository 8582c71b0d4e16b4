"""Schedules with defaults derived from the length of a training, and their simulation."""

import csv
import math

import pytest
from matplotlib.figure import Figure

from tests.optim.schedules import sgd, trace
from whirl.optim.schedule_simulation import format_schedule, plot_curve, save_curve, simulate_schedule
from whirl.optim.scheduler_factory import create_training_scheduler, schedule_names

# defaults derived from the length of a training


def simulated_rates(name, epochs, steps_per_epoch=1, **settings):
    metrics = [0.5] * epochs if name == "plateau" else None
    return [rate for _, rate in simulate_schedule(name, epochs, steps_per_epoch, lr=0.1, metrics=metrics, **settings)]


def test_noam_peaks_at_optimizer_learning_rate_after_a_tenth_of_the_steps():
    rates = simulated_rates("noam", 10, 100)
    assert max(rates) == rates[99] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(0.01)
    assert rates[999] == pytest.approx(0.1 * math.sqrt(100 / 1000))
    assert simulated_rates("noam", 10, 100, warmup_steps=400)[399] == pytest.approx(0.1)
    assert simulated_rates("noam", 10, 100, d_model=16)[99] == pytest.approx(0.1 * 1600**-0.5)


@pytest.mark.parametrize(("epochs", "drops"), [(9, [3, 6]), (10, [4, 8]), (50, [17, 34]), (1, []), (2, [1])])
def test_step_size_is_a_third_of_the_training(epochs, drops):
    rates = simulated_rates("step", epochs)
    assert [epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1]] == drops
    assert len(set(simulated_rates("step", epochs, step_size=epochs))) == 1


@pytest.mark.parametrize(("epochs", "restart"), [(6, 2), (50, 17), (11, 4), (3, 1)])
def test_cosine_restarts_once(epochs, restart):
    rates = simulated_rates("cosine_restarts", epochs, eta_min=0.0)
    assert [epoch for epoch in range(1, epochs) if rates[epoch] == 0.1] == [restart]
    # the second period is twice as long as the first and ends with the training, up to rounding
    assert rates[-1] == pytest.approx(0.05 * (1 + math.cos(math.pi * (epochs - 1 - restart) / (2 * restart))))
    assert 0 <= 3 * restart - epochs <= 2
    assert simulated_rates("cosine_restarts", 6, T_mult=1)[3] == 0.1
    assert simulated_rates("cosine_restarts", 6, T_0=5)[5] == 0.1


def test_plateau_patience_is_a_tenth_of_the_training():
    # the first epoch is an improvement, followed by 3 epochs of patience and a reduction after the next
    rates = simulated_rates("plateau", 30, factor=0.5)
    assert [rates.index(0.1 * 0.5**n) for n in range(3)] == [0, 5, 9]
    assert simulated_rates("plateau", 30, patience=30)[-1] == 0.1


def test_warmup_takes_a_tenth_of_the_training_and_at_least_one_epoch():
    assert simulated_rates("warmup_linear", 30).index(0.1) == 3
    assert simulated_rates("warmup_linear", 5)[:2] == [0.05, 0.1]


def test_onecycle_peaks_at_learning_rate_of_each_group():
    optimizer = sgd(1e-3, 1e-5, momentum=0.9)
    rates = trace(optimizer, create_training_scheduler("onecycle", optimizer, 4, 10), 40)
    assert [max(group) for group in zip(*rates, strict=True)] == pytest.approx([1e-3, 1e-5])


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_learning_rate_is_constant_if_training_is_too_short_for_onecycle(n_steps):
    assert simulated_rates("onecycle", 1, n_steps) == [0.1] * n_steps
    with pytest.raises(ValueError, match=f"total_steps is {n_steps}, expected an integer >= 4"):
        simulated_rates("onecycle", 1, n_steps, total_steps=n_steps)
    assert simulated_rates("onecycle", 1, 4)[0] == pytest.approx(0.004)


# simulation


def test_simulates_every_schedule():
    for name in set(schedule_names()) - {"warmup"}:
        metrics = [0.5] * 20 if name == "plateau" else None
        curve = simulate_schedule(name, 20, 5, metrics=metrics)
        assert len(curve) == 100
        assert min(rate for _, rate in curve) >= 0


def test_simulates_plateau_with_assumed_metrics_only():
    with pytest.raises(ValueError, match="depends on a validation metric"):
        simulate_schedule("plateau", 5)
    with pytest.raises(ValueError, match="does not depend on a metric"):
        simulate_schedule("step", 5, metrics=[1.0] * 5)
    curve = simulate_schedule("plateau", 5, 1, lr=1.0, metrics=[0.5, 0.6, 0.6, 0.6, 0.6], patience=0, factor=0.5)
    assert [rate for _, rate in curve] == [1.0, 1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"epochs": 5, "lr": 0.0}, {"epochs": 5, "steps_per_epoch": -1}])
def test_simulation_rejects_invalid_arguments(arguments):
    with pytest.raises(ValueError, match=f"{list(arguments)[-1]} is"):
        simulate_schedule("step", **arguments)


def test_learning_rates_beyond_the_range_of_float():
    with pytest.raises(ValueError, match=r"learning rate of schedule 'exponential' at epoch 2 is inf"):
        simulate_schedule("exponential", 5, 1, gamma=1e300)
    assert "1e+308" in format_schedule(simulate_schedule("cosine", 5, 1, lr=1e308))


def test_figure_and_csv_contain_the_curve(tmp_path):
    curve = simulate_schedule("noam", 3, 4)
    (line,) = plot_curve(curve).axes[0].lines
    assert list(zip(*line.get_data(), strict=True)) == curve
    axes = Figure().add_subplot(title="schedules")
    assert plot_curve(curve, ax=axes) is axes.figure
    assert list(zip(*axes.lines[0].get_data(), strict=True)) == curve
    assert axes.get_title() == "schedules"
    save_curve(curve, tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open() as file:
        assert [(float(row["epoch"]), float(row["lr"])) for row in csv.DictReader(file)] == curve
    with pytest.raises(ValueError, match=r"curve\.txt"):
        save_curve(curve, tmp_path / "curve.txt")


def test_table_contains_first_peak_and_last_learning_rate():
    header, *rows = format_schedule(simulate_schedule("warmup_linear", 40, 1)).splitlines()
    assert header.split() == ["epoch", "learning", "rate"]
    assert rows[0].split() == ["0", "0.0002", "first"]
    assert ["4", "0.001", "peak"] in [row.split() for row in rows]
    assert rows[-1].split() == ["39", "2.778e-05", "last"]
    assert len(rows) == 11
    constant = format_schedule(simulate_schedule("step", 4, 1, gamma=1))
    assert constant.splitlines()[1].endswith("first, peak")
