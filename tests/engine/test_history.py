"""Tests of the history of a training run: plain data in checkpoints, and learning curves."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from whirl.engine.checkpoint import load_training, to_cpu
from whirl.engine.files import find_unserializable, pack_checkpoint
from whirl.engine.history import History, plot_learning_curve
from whirl.engine.state import TrainingState
from whirl.training.pinn_trainer import PINNTrainingState
from whirl.training.trainer import Trainer

LOGS = {"train_loss": [2.0, 1.0, 0.5], "val_loss": [2.0, 0.75, 1.5], "val_accuracy": [0.1, 0.9, 0.8], "lr": [0.1] * 3}


def make_trainer(folder=None):
    torch.manual_seed(0)
    batch = (torch.randn(8, 1, 4), torch.arange(8) % 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    return Trainer(
        model, [batch], [batch], torch.optim.SGD(model.parameters(), 0.1), device="cpu", checkpoint_dir=folder
    )


def numbers(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_history_is_a_dict():
    history = History(LOGS)
    assert history == LOGS
    assert json.dumps(history) == json.dumps(LOGS)
    for copied in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert type(copied) is History
        assert copied == LOGS


@pytest.mark.parametrize("kind", [TrainingState, PINNTrainingState])
def test_state_dict_has_a_plain_dict(kind):
    state = kind(history=History(LOGS))
    saved = state.state_dict()
    assert type(saved["history"]) is dict
    own = ["ramp_epochs"] if kind is PINNTrainingState else []
    names = ["epoch", "batch", "global_step", "best_val_loss", "history", "step_history", "num_epochs", *own]
    assert sorted(saved) == sorted(names)
    assert find_unserializable(saved) is None
    assert bytes(pack_checkpoint(to_cpu(saved))) == bytes(pack_checkpoint(saved | {"history": LOGS}))
    loaded = kind()
    loaded.load_state_dict(saved)
    assert type(loaded.history) is History
    assert loaded == state


def test_saved_state_does_not_follow_the_training():
    state = TrainingState(history=History(LOGS), epoch=3)
    saved = state.state_dict()
    state.record({"train_loss": 0.25, "new": 1.0})
    assert saved["history"] == LOGS
    assert state.history["train_loss"] == [2.0, 1.0, 0.5, 0.25]


def test_fit_returns_the_history_and_resume_continues_it(tmp_path):
    uninterrupted = make_trainer().fit(4)
    trainer = make_trainer(tmp_path)
    assert trainer.fit(2) is trainer.state.history
    assert type(load_training(tmp_path / "last.pt")[0]["state"]["history"]) is dict
    resumed = make_trainer(tmp_path)
    history = resumed.fit(4, resume_from=tmp_path / "last.pt")
    assert type(history) is type(trainer.state.history) is History
    exact = set(history) - {"epoch_time_s"}
    assert {name: history[name] for name in exact} == {name: uninterrupted[name] for name in exact}


@pytest.mark.parametrize(
    ("losses", "best"),
    [([], None), ([3.0, 1.0, 2.0], 1), ([math.nan, math.inf, 5.0], 2), ([None, math.nan], None), ([1.0, 1.0], 0)],
)
def test_best_epoch_has_the_lowest_finite_validation_loss(losses, best):
    assert History(val_loss=losses).best_epoch == best


def test_plot_draws_the_values_and_marks_the_best_epoch():
    history = History(LOGS)
    figure = history.plot()
    axes = figure.axes[0]
    training, validation, best = axes.lines
    assert numbers(training) == ([1, 2, 3], LOGS["train_loss"])
    assert numbers(validation) == ([1, 2, 3], LOGS["val_loss"])
    assert best.get_xdata() == [2, 2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")
    assert [text.get_text() for text in axes.texts] == ["training", "validation"]
    assert history == LOGS


@pytest.mark.parametrize(("quantity", "names"), [("accuracy", ["val_accuracy"]), ("lr", ["lr"])])
def test_plot_of_other_quantities(quantity, names):
    axes = History(LOGS).plot(quantity).axes[0]
    assert [numbers(line)[1] for line in axes.lines[:-1]] == [LOGS[name] for name in names]
    assert axes.get_ylabel() == quantity


def test_plot_on_given_axes_keeps_figure_and_style():
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    axes = right.add_subplot(title="run 1", facecolor="#eeeeee")
    assert History(LOGS).plot("lr", ax=axes) is figure
    assert numbers(axes.lines[0]) == ([1, 2, 3], LOGS["lr"])
    assert axes.get_title() == "run 1"
    assert axes.spines["top"].get_visible()
    assert not left.axes
    figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize(
    ("history", "quantity", "message"),
    [
        (LOGS, "acuracy", "unknown quantity 'acuracy'; did you mean 'accuracy'.*xpected one of: .*loss.*lr"),
        ({"val_loss": [math.nan]}, "loss", "loss has no finite value"),
        ({}, "loss", "unknown quantity 'loss'"),
    ],
)
def test_plot_rejects_quantities_without_values(history, quantity, message):
    with pytest.raises(ValueError, match=message):
        History(history).plot(quantity)


def test_learning_curve_leaves_gaps_and_accepts_more_curves():
    curves = {name: [1.0, None, math.nan, 4.0] for name in "abcdef"}
    axes = plot_learning_curve(curves, "loss").axes[0]
    for line in axes.lines:
        np.testing.assert_array_equal(line.get_ydata(), [1.0, math.nan, math.nan, 4.0])
    assert len({line.get_color() for line in axes.lines}) == 4
    with pytest.raises(ValueError, match="curves is empty"):
        plot_learning_curve({}, "loss")
