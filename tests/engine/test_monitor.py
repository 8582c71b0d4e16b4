import math

import pytest
import torch

from whirl.engine.monitor import Improvement


def updates(improvement, values):
    return [improvement.update({improvement.monitor: value}) for value in values]


def test_lower_is_better_in_mode_min_and_equal_is_not():
    improvement = Improvement("val_loss")
    assert updates(improvement, [1.0, 1.0, 0.9, 1.5, 0.8]) == [True, False, True, False, True]
    assert improvement.best == 0.8


def test_mode_max_mirrors_mode_min():
    values = [0.3, 0.5, 0.4, 0.5, 0.9]
    assert updates(Improvement("a", "max"), values) == updates(Improvement("a", "min"), [-v for v in values])


def test_small_gains_do_not_add_up_unless_they_exceed_min_delta_together():
    # Each is compared with the best, not with its predecessor: 1.0 -> 0.94 -> 0.88 gains 0.12 in two steps.
    improvement = Improvement("val_loss", min_delta=0.1)
    assert updates(improvement, [1.0, 0.94, 0.88]) == [True, False, True]


def test_a_gain_of_exactly_min_delta_does_not_count():
    assert updates(Improvement("val_loss", min_delta=0.5), [1.0, 0.5, 0.25]) == [True, False, True]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_never_improves_and_never_becomes_the_best(mode):
    improvement = Improvement("val_loss", mode)
    assert updates(improvement, [math.nan, 1.0, math.nan]) == [False, True, False]
    assert improvement.best == 1.0


def test_an_infinite_loss_is_no_improvement_on_nothing():
    assert updates(Improvement("val_loss"), [math.inf, 1e30]) == [False, True]


def test_zero_dimensional_tensors_are_read():
    improvement = Improvement("val_loss")
    assert improvement.update({"val_loss": torch.tensor(0.5)})
    assert type(improvement.best) is float


@pytest.mark.parametrize("logs", [None, {}, {"train_loss": 1.0, "lr": 0.1}])
def test_a_missing_name_lists_the_names_there_are(logs):
    with pytest.raises(ValueError, match="val_loss") as caught:
        Improvement("val_loss").update(logs)
    assert all(name in str(caught.value) for name in logs or ())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"mode": "maximum"}, "maximum"), ({"min_delta": -1}, "-1"), ({"min_delta": math.nan}, "nan")],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        Improvement("val_loss", **arguments)


def test_the_best_survives_a_state_round_trip():
    improvement = Improvement("val_loss")
    updates(improvement, [0.5])
    resumed = Improvement("val_loss")
    resumed.load_state_dict(improvement.state_dict())
    assert updates(resumed, [0.6, 0.4]) == [False, True]
