"""Improvement: comparison with the best value, in both modes."""

import math

import pytest
import torch

from whirl.engine.monitor import Improvement


def updates(improvement, values):
    return [improvement.update({improvement.monitor: value}) for value in values]


def test_mode_min_needs_a_lower_value():
    improvement = Improvement("val_loss")
    assert updates(improvement, [1.0, 1.0, 0.9, 1.5, 0.8]) == [True, False, True, False, True]
    assert improvement.best == 0.8


def test_mode_max_mirrors_mode_min():
    values = [0.3, 0.5, 0.4, 0.5, 0.9]
    assert updates(Improvement("a", "max"), values) == updates(Improvement("a", "min"), [-v for v in values])


def test_small_gains_count_when_their_sum_exceeds_min_delta():
    # Each value is compared with the best, not with its predecessor: 1.0 -> 0.94 -> 0.88 gains 0.12 in two steps.
    improvement = Improvement("val_loss", min_delta=0.1)
    assert updates(improvement, [1.0, 0.94, 0.88]) == [True, False, True]


def test_gain_equal_to_min_delta_does_not_count():
    assert updates(Improvement("val_loss", min_delta=0.5), [1.0, 0.5, 0.25]) == [True, False, True]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_never_improves(mode):
    improvement = Improvement("val_loss", mode)
    assert updates(improvement, [math.nan, 1.0, math.nan]) == [False, True, False]
    assert improvement.best == 1.0


def test_infinite_loss_does_not_improve():
    assert updates(Improvement("val_loss"), [math.inf, 1e30]) == [False, True]


def test_reads_zero_dimensional_tensors():
    improvement = Improvement("val_loss")
    assert improvement.update({"val_loss": torch.tensor(0.5)})
    assert type(improvement.best) is float


@pytest.mark.parametrize("logs", [None, {}, {"train_loss": 1.0, "lr": 0.1}])
def test_missing_name_lists_the_names_in_the_logs(logs):
    with pytest.raises(ValueError, match="val_loss") as caught:
        Improvement("val_loss").update(logs)
    assert all(name in str(caught.value) for name in logs or ())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"mode": "maximum"}, "maximum"), ({"min_delta": -1}, "-1"), ({"min_delta": math.nan}, "nan")],
)
def test_rejects_invalid_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        Improvement("val_loss", **arguments)


def test_state_round_trip_keeps_the_best():
    improvement = Improvement("val_loss")
    updates(improvement, [0.5])
    resumed = Improvement("val_loss")
    resumed.load_state_dict(improvement.state_dict())
    assert updates(resumed, [0.6, 0.4]) == [False, True]


@pytest.mark.parametrize(
    ("monitor", "mode", "warned"),
    [
        ("val_accuracy", "min", True),
        ("val_acc", "min", True),
        ("val_f1_macro", "min", True),
        ("val_auroc", "min", True),
        ("val_loss", "max", True),
        ("val_loss", "min", False),
        ("val_f1_macro", "max", False),
        ("train_grad_norm", "min", False),
        ("accumulated", "min", False),
    ],
)
def test_warns_if_the_mode_contradicts_the_name(caplog, monitor, mode, warned):
    Improvement(monitor, mode)
    assert ("improves in the other direction" in caplog.text) == warned


def test_accepts_the_short_name_of_the_accuracy():
    assert Improvement("val_acc", "max").read({"val_accuracy": 0.5}) == 0.5


def test_rejects_a_monitor_that_is_not_a_name():
    with pytest.raises(TypeError, match="monitor is 5, expected a name in the logs"):
        Improvement(5)
