"""Parts of runs that predict a number: targets, split, and the error to expect."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from whirl.data.dataset import save_dataset
from whirl.data.recording import Recording
from whirl.data.splits import split_recordings
from whirl.data.value_windows import ValueWindows, target_of
from whirl.runs.config import make_config
from whirl.runs.data import prepare
from whirl.runs.search import _check_score_is_defined
from whirl.runs.typical_error import TypicalError
from whirl.runs.value_split import split_by_value


def recording(label="1.5", machine=0, **metadata):
    return Recording(np.arange(64.0), 1000, label=label, specimen=f"m{machine}", metadata=metadata)


@pytest.mark.parametrize("stated", ["0,18", "0.18", 0.18])
def test_reads_numbers_with_points_and_commas(stated):
    assert target_of(recording(severity=stated), "severity") == 0.18


@pytest.mark.parametrize("stated", ["wear", None, True, "nan", float("inf"), [1]])
def test_rejects_targets_that_are_not_finite_numbers(stated):
    with pytest.raises(ValueError, match=r"expected a number for task 'regression'.*numbers are in days"):
        target_of(recording(severity=stated, days=3), "severity")


def test_windows_have_the_number_of_their_recording():
    windows = ValueWindows([recording(), recording()], [0.5, 2.0], window=32)
    _, targets, metadata = windows[[3, 0]]
    assert targets.tolist() == [2.0, 0.5]
    assert windows.targets.tolist() == [0.5, 0.5, 2.0, 2.0]
    assert windows[1][1].item() == 0.5
    assert metadata["recording"].tolist() == [1, 0]


def test_split_has_low_and_high_numbers_in_all_parts_and_keeps_labels():
    recordings = [recording(str(machine / 10), machine) for machine in range(12)]
    found = split_by_value(recordings, "label", partial(split_recordings, seed=1))
    for part in (found.train, found.val, found.test):
        values = [float(each.label) for each in part]
        assert min(values) < 0.6 <= max(values)
        assert all(each.metadata == {} for each in part)
    with pytest.raises(ValueError, match=r"label is 1.5 in all recordings"):
        split_by_value([recording()] * 3, "label", split_recordings)


def test_interval_contains_ninety_percent_of_new_specimens():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(200):
        errors, new = rng.normal(0, 1, 30), rng.normal(0, 1, 50)
        inside.append(np.abs(new) <= TypicalError.of(errors, np.arange(30), True).half_width)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_interval_of_specimens_with_several_recordings_contains_ninety_percent_of_new_ones():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(300):
        offsets = rng.normal(0, 1, 15)
        errors = np.repeat(offsets[:14], 3) + rng.normal(0, 0.5, 42)
        half_width = TypicalError.of(errors, np.repeat(np.arange(14), 3), True).half_width
        inside.append(np.abs(offsets[14] + rng.normal(0, 0.5, 20)) <= half_width)
    assert 0.9 <= np.mean(inside) <= 0.95


def test_interval_needs_new_specimens():
    errors, specimens = np.ones(40), np.repeat(np.arange(8), 5)
    assert TypicalError.of(errors, specimens, True).half_width is None
    known = TypicalError.of(np.ones(20), np.arange(20), False)
    assert known.half_width is None
    assert "at other times" in str(known)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "regression", "trainer": "pinn"}, "trainer 'pinn' requires classes"),
        ({"task": "regression", "class_weights": True}, "class_weights requires classes"),
        ({"task": "regression", "balance": "class"}, "balance 'class' requires classes"),
        ({"task": "regression", "classes": ["a", "b"]}, "a list of classes requires classes"),
        ({"task": "regression", "loss": "focal"}, "loss 'focal' is not for task 'regression'; expected one of: mse"),
        ({"task": "regression", "label_smoothing": 0.1}, "label_smoothing requires loss 'ce'"),
        ({"target": "severity"}, "target requires task 'regression'"),
        ({"loss": "huber"}, "loss 'huber' is not for task 'multiclass'"),
    ],
)
def test_rejects_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(settings)


def test_default_loss_of_numbers_is_the_squared_error():
    assert make_config({"task": "regression"}).training.loss == "mse"
    assert make_config({"task": "regression", "loss": "huber"}).training.loss == "huber"


def test_names_the_nearest_column():
    with pytest.raises(ValueError, match="unknown column of numbers 'severty'; did you mean 'severity'"):
        target_of(recording(severity=0.5), "severty")


def test_search_needs_different_numbers_in_the_validation_part(tmp_path):
    numbers = [0.1, 0.1, 0.1, 0.9, 0.9, 0.9]
    signals = np.random.default_rng(0).normal(size=(6, 4096))
    save_dataset(
        [
            Recording(signal, 1000, label=str(number), specimen=f"m{index}")
            for index, (signal, number) in enumerate(zip(signals, numbers, strict=True))
        ],
        tmp_path / "data",
    )
    data = prepare(
        make_config({"data": str(tmp_path / "data"), "task": "regression", "model": "wdcnn", "window": 1024})
    )
    same = replace(data, split=replace(data.split, val=data.split.val[:1]))
    with pytest.raises(ValueError, match="label is the same in all validation recordings"):
        _check_score_is_defined(same)
